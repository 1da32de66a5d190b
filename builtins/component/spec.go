package component

import (
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
)

// This file defines the parts of a component file, each by its keys.

// defaultVersion is the version of the schema; KFP does not write it back.
const defaultVersion = "google.com/cloud/pipelines/component/v1"

// spec reads a component.
func (r *reader) spec(n *yaml.Node, depth int) *Spec {
	f := r.fields(n, "the component", depth, "name", "description", "metadata", "inputs", "outputs", "implementation", "version")
	s := &Spec{
		Name:        r.text(f["name"], "the component's name"),
		Description: r.text(f["description"], "the component's description"),
	}
	r.text(f["version"], "the component's version")
	if m := f["metadata"]; m != nil {
		mf := r.fields(m, "metadata", depth+1, "annotations", "labels")
		s.Annotations = r.texts(mf["annotations"], "annotation", depth+2)
		s.Labels = r.texts(mf["labels"], "label", depth+2)
	}
	seen := map[string]bool{}
	for _, e := range r.items(f["inputs"], "inputs", depth+1) {
		in := r.input(e, depth+2)
		if seen[in.Name] {
			r.fault(e, "two inputs are named %q", in.Name)
		}
		seen[in.Name] = true
		s.Inputs = append(s.Inputs, in)
	}
	clear(seen)
	for _, e := range r.items(f["outputs"], "outputs", depth+1) {
		out := r.output(e, depth+2)
		if seen[out.Name] {
			r.fault(e, "two outputs are named %q", out.Name)
		}
		seen[out.Name] = true
		s.Outputs = append(s.Outputs, out)
	}
	r.implementation(s, n, f["implementation"], depth+1)
	if len(r.faults) == 0 && s.Container != nil {
		tree, _ := r.tree(n, depth).(dag.Object)
		s.Tree = writtenBack(tree)
	}
	return s
}

func (r *reader) input(n *yaml.Node, depth int) Input {
	f := r.fields(n, "an input", depth, "name", "type", "description", "default", "optional", "annotations")
	in := Input{
		Name:     r.name(n, f["name"], "an input"),
		Type:     r.typ(f["type"], depth+1),
		Optional: r.flag(f["optional"], "optional"),
		Line:     n.Line,
	}
	r.text(f["description"], "the description")
	if d := f["default"]; d != nil {
		if in.Default = scalar(d); d.Kind != yaml.ScalarNode {
			r.fault(d, "the default of input %q is %s: want text, a number or a boolean", in.Name, kind(d)).Hint = "write it as JSON, in quotes:  default: '[1, 2]'"
		}
	}
	r.annotations(f["annotations"], depth+1)
	return in
}

func (r *reader) output(n *yaml.Node, depth int) Output {
	f := r.fields(n, "an output", depth, "name", "type", "description", "annotations")
	r.text(f["description"], "the description")
	r.annotations(f["annotations"], depth+1)
	return Output{Name: r.name(n, f["name"], "an output"), Type: r.typ(f["type"], depth+1), Line: n.Line}
}

// name reads a name that must be there; of is what has none.
func (r *reader) name(of, n *yaml.Node, what string) string {
	if n == nil {
		if of.Kind == yaml.MappingNode {
			r.fault(of, "%s has no name", what)
		}
		return ""
	}
	return r.text(n, "the name of "+what)
}

func (r *reader) annotations(n *yaml.Node, depth int) {
	if n != nil {
		r.entries(n, "annotations", depth)
	}
}

// typ reads a type: a name, or a mapping whose first key is the name.
func (r *reader) typ(n *yaml.Node, depth int) any {
	switch {
	case n == nil:
		return nil
	case n.Kind == yaml.ScalarNode:
		return r.text(n, "the type")
	case n.Kind == yaml.MappingNode:
		return r.tree(n, depth)
	}
	r.tree(n, depth)
	return nil // a list is a type to KFP's schema, and fits everything
}

func (r *reader) implementation(s *Spec, spec, n *yaml.Node, depth int) {
	if n == nil {
		if spec.Kind == yaml.MappingNode {
			r.fault(spec, "the component has no implementation: want  implementation: {container: {image: ..., command: [...]}}")
		}
		return
	}
	f := r.fields(n, "implementation", depth, "container", "graph")
	switch {
	case f["container"] != nil && f["graph"] != nil:
		r.fault(n, "the implementation is both a container and a graph: want one")
	case f["container"] != nil:
		r.container(s, f["container"], depth+1)
	case f["graph"] != nil:
		r.graph(s, f["graph"], depth+1)
	case n.Kind == yaml.MappingNode:
		r.fault(n, "the implementation is empty: want container or graph")
	}
}

func (r *reader) container(s *Spec, n *yaml.Node, depth int) {
	f := r.fields(n, "container", depth, "image", "command", "args", "env", "fileOutputs")
	c := &Container{
		Image:       r.text(f["image"], "image"),
		Env:         r.texts(f["env"], "env", depth+1),
		FileOutputs: r.texts(f["fileOutputs"], "fileOutputs", depth+1),
	}
	if f["image"] == nil && n.Kind == yaml.MappingNode {
		r.fault(n, "the container has no image")
	}
	for _, o := range c.FileOutputs {
		if s.Output(o.Name) == nil {
			r.missing(f["fileOutputs"], "fileOutputs: the component has no output", o.Name, s.outputNames())
		}
	}
	for _, e := range r.items(f["command"], "command", depth+1) {
		c.Command = append(c.Command, r.arg(s, e, depth+2))
	}
	for _, e := range r.items(f["args"], "args", depth+1) {
		c.Args = append(c.Args, r.arg(s, e, depth+2))
	}
	s.Container = c
}

func (r *reader) missing(n *yaml.Node, what, name string, names []string) {
	f := r.fault(n, "%s %q", what, name)
	if len(r.faults) > maxFaults {
		return
	}
	if hint := spell.DidYouMean(name, names); hint != "" {
		f.Msg += ": " + hint
	} else if len(names) > 0 {
		f.Hint = "it has " + strings.Join(names, ", ")
	}
}

// placeholders are the keys of those that stand in a command.
var placeholders = []string{"inputValue", "inputPath", "outputPath", "concat", "if"}

// foreign are placeholders of KFP v2, with what to write instead.
var foreign = map[string]string{
	"inputUri":            "a step takes the file itself:  {inputPath: NAME}",
	"outputUri":           "a step writes a file:  {outputPath: NAME}",
	"inputMetadata":       "take what the program needs as an input:  {inputValue: NAME}",
	"outputMetadata":      "declare an output for it and write a file:  {outputPath: NAME}",
	"inputOutputPortName": "take what the program needs as an input:  {inputValue: NAME}",
	"executorInput":       "take the inputs one by one:  {inputValue: NAME} or {inputPath: NAME}, and outputs as {outputPath: NAME}",
}

// arg reads one part of a command.
func (r *reader) arg(s *Spec, n *yaml.Node, depth int) Arg {
	a := Arg{Line: n.Line}
	if n = r.resolve(n, depth); n == nil {
		return a
	}
	if n.Kind == yaml.ScalarNode {
		a.Text = r.text(n, "a part of the command")
		return a
	}
	e, ok := r.placeholder(n, "a part of the command", depth, placeholders)
	if !ok {
		return a
	}
	switch e.name {
	case "inputValue", "inputPath":
		a.Kind = ArgInputValue
		if e.name == "inputPath" {
			a.Kind = ArgInputPath
		}
		a.Text = r.inputName(s, e, depth+1)
	case "outputPath":
		a.Kind = ArgOutputPath
		v := r.resolve(e.value, depth+1)
		if v == nil {
			return a
		}
		if a.Text = r.text(v, "outputPath"); v.Kind == yaml.ScalarNode && s.Output(a.Text) == nil {
			r.missing(v, "outputPath: the component has no output", a.Text, s.outputNames())
		}
	case "concat":
		a.Kind = ArgConcat
		for _, of := range r.items(e.value, "concat", depth+1) {
			a.Of = append(a.Of, r.arg(s, of, depth+2))
		}
	case "if":
		a.Kind = ArgIf
		a.If = r.cond(s, e.value, depth+1)
	}
	return a
}

// inputName reads the name of an input of the component.
func (r *reader) inputName(s *Spec, e entry, depth int) string {
	v := r.resolve(e.value, depth)
	if v == nil {
		return ""
	}
	name := r.text(v, e.name)
	if v.Kind == yaml.ScalarNode && s.Input(name) == nil {
		r.missing(v, e.name+": the component has no input", name, s.inputNames())
	}
	return name
}

// placeholder reads a mapping of one key.
func (r *reader) placeholder(n *yaml.Node, what string, depth int, keys []string) (entry, bool) {
	if n.Kind != yaml.MappingNode {
		r.fault(n, "%s is %s: want text or a placeholder, one of %s", what, kind(n), strings.Join(keys, ", "))
		return entry{}, false
	}
	list := r.entries(n, what, depth)
	for _, e := range list {
		if hint := foreign[e.name]; hint != "" {
			r.fault(e.key, "%s is a placeholder of KFP v2, which a component of v1 cannot have", e.name).Hint = hint
			return entry{}, false
		}
		if !slices.Contains(keys, e.name) {
			r.unknown(e, what, keys)
			return entry{}, false
		}
	}
	if len(list) != 1 {
		r.fault(n, "%s holds %d keys: want one of %s", what, len(list), strings.Join(keys, ", "))
		return entry{}, false
	}
	return list[0], true
}

// cond reads what decides between two lists.
func (r *reader) cond(s *Spec, n *yaml.Node, depth int) *If {
	c := &If{}
	f := r.fields(n, "if", depth, "cond", "then", "else")
	if n = r.resolve(n, depth); n == nil {
		return c
	}
	if n.Kind == yaml.MappingNode {
		for _, key := range []string{"cond", "then"} {
			if f[key] == nil {
				r.fault(n, "if has no %s: want  if: {cond: ..., then: [...], else: [...]}", key)
			}
		}
	}
	c.Then = r.branch(s, f["then"], depth+1)
	c.Else = r.branch(s, f["else"], depth+1)
	cond := f["cond"]
	switch {
	case cond == nil:
	case cond.Kind == yaml.ScalarNode:
		on, ok := scalar(cond).(bool)
		if text, isText := scalar(cond).(string); isText {
			on, ok = Truth(text)
		}
		if c.Constant = on; !ok {
			r.fault(cond, "cond is %q: want true, false, {isPresent: INPUT} or {inputValue: INPUT}", cond.Value)
		}
	default:
		if e, ok := r.placeholder(cond, "cond", depth+1, []string{"isPresent", "inputValue"}); ok {
			name := r.inputName(s, e, depth+2)
			if e.name == "isPresent" {
				c.Present = name
			} else {
				c.Input = name
			}
		}
	}
	return c
}

// Truth returns what Python's strtobool makes of a text, and whether it makes
// something of it.
func Truth(text string) (on, ok bool) {
	switch strings.ToLower(text) {
	case "y", "yes", "t", "true", "on", "1":
		return true, true
	case "n", "no", "f", "false", "off", "0":
		return false, true
	}
	return false, false
}

// branch reads a list of parts of a command, or one.
func (r *reader) branch(s *Spec, n *yaml.Node, depth int) []Arg {
	if n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		return []Arg{r.arg(s, n, depth)}
	}
	var args []Arg
	for _, e := range r.items(n, "the list", depth) {
		args = append(args, r.arg(s, e, depth+1))
	}
	return args
}

// graph reads a component that is made of tasks.
func (r *reader) graph(s *Spec, n *yaml.Node, depth int) {
	f := r.fields(n, "graph", depth, "tasks", "outputValues")
	g := &Graph{}
	if f["tasks"] == nil && n.Kind == yaml.MappingNode {
		r.fault(n, "the graph has no tasks")
	}
	if f["tasks"] != nil {
		for _, e := range r.entries(f["tasks"], "tasks", depth+1) {
			g.Tasks = append(g.Tasks, r.task(s, e, depth+2))
		}
	}
	if f["outputValues"] != nil {
		for _, e := range r.entries(f["outputValues"], "outputValues", depth+1) {
			if s.Output(e.name) == nil {
				r.missing(e.key, "outputValues: the component has no output", e.name, s.outputNames())
			}
			g.Outputs = append(g.Outputs, r.argument(s, e, depth+2))
		}
	}
	var ids []string
	for _, t := range g.Tasks {
		ids = append(ids, t.ID)
	}
	check := func(a Argument) {
		i := slices.Index(ids, a.Task)
		switch {
		case a.Task == "":
		case i < 0:
			r.missing(&yaml.Node{Line: a.Line, Column: 1}, "taskOutput: the graph has no task", a.Task, ids)
		case g.Tasks[i].Spec != nil && g.Tasks[i].Spec.Output(a.Output) == nil:
			r.missing(&yaml.Node{Line: a.Line, Column: 1}, "taskOutput: task "+strconv.Quote(a.Task)+" has no output", a.Output, g.Tasks[i].Spec.outputNames())
		}
	}
	for _, t := range g.Tasks {
		for _, a := range t.Arguments {
			check(a)
			if t.Spec != nil && t.Spec.Input(a.Name) == nil {
				r.missing(&yaml.Node{Line: a.Line, Column: 1}, "task "+strconv.Quote(t.ID)+" has no input", a.Name, t.Spec.inputNames())
			}
		}
	}
	for _, a := range g.Outputs {
		check(a)
	}
	if len(r.faults) == 0 {
		r.order(g)
	}
	s.Graph = g
}

// order sorts the tasks of a graph as KFP does: each comes as soon as those
// whose outputs it takes have come.
func (r *reader) order(g *Graph) {
	waits := make([]map[string]bool, len(g.Tasks)) // for tasks that have not come
	takers := map[string][]int{}                   // by task: those that take its outputs
	for i, t := range g.Tasks {
		waits[i] = map[string]bool{}
		for _, a := range t.Arguments {
			if a.Task != "" && !waits[i][a.Task] {
				waits[i][a.Task] = true
				takers[a.Task] = append(takers[a.Task], i)
			}
		}
	}
	var sorted []Task
	came := make([]bool, len(g.Tasks))
	var visit func(i int)
	visit = func(i int) {
		if len(waits[i]) > 0 || came[i] {
			return
		}
		came[i] = true
		sorted = append(sorted, g.Tasks[i])
		for _, next := range takers[g.Tasks[i].ID] {
			delete(waits[next], g.Tasks[i].ID)
			visit(next)
		}
	}
	for i := range g.Tasks {
		visit(i)
	}
	for i, t := range g.Tasks {
		if !came[i] {
			r.fault(&yaml.Node{Line: t.Line, Column: 1}, "task %q needs itself, by way of its own output or of others'", t.ID)
			return
		}
	}
	g.Tasks = sorted
}

func (r *reader) task(s *Spec, e entry, depth int) Task {
	t := Task{ID: e.name, Line: e.key.Line}
	what := "task " + strconv.Quote(e.name)
	f := r.fields(e.value, what, depth, "componentRef", "arguments", "isEnabled", "executionOptions", "annotations")
	if ref := f["componentRef"]; ref == nil {
		r.fault(e.key, "%s has no componentRef", what)
	} else {
		r.ref(&t, what, ref, depth+1)
	}
	if f["arguments"] != nil {
		for _, a := range r.entries(f["arguments"], "arguments", depth+1) {
			t.Arguments = append(t.Arguments, r.argument(s, a, depth+2))
		}
	}
	if on := f["isEnabled"]; on != nil {
		if text, ok := scalar(on).(string); on.Kind != yaml.ScalarNode || scalar(on) != true && !(ok && strings.EqualFold(text, "true")) {
			r.fault(on, "%s has a condition, isEnabled, which KFP 1.8.22 passes over: it runs the task always", what).Hint =
				"leave it out, or write the steps in the script, in  for _ in condition(...):"
		}
	}
	if opts := f["executionOptions"]; opts != nil {
		of := r.fields(opts, "executionOptions", depth+1, "retryStrategy", "cachingStrategy")
		if of["retryStrategy"] != nil {
			rf := r.fields(of["retryStrategy"], "retryStrategy", depth+2, "maxRetries")
			if n := rf["maxRetries"]; n != nil {
				i, ok := scalar(n).(int64)
				if retries := int(i); ok && 0 <= i && i <= 1<<30 {
					t.MaxRetries = &retries
				} else {
					r.fault(n, "maxRetries: want a whole number, 0 or more")
				}
			}
		}
		if of["cachingStrategy"] != nil {
			cf := r.fields(of["cachingStrategy"], "cachingStrategy", depth+2, "maxCacheStaleness")
			t.MaxCacheStaleness = r.text(cf["maxCacheStaleness"], "maxCacheStaleness")
		}
	}
	r.annotations(f["annotations"], depth+1)
	return t
}

func (r *reader) ref(t *Task, what string, n *yaml.Node, depth int) {
	f := r.fields(n, "componentRef", depth, "name", "digest", "tag", "url", "spec")
	for _, key := range []string{"name", "digest", "tag", "url"} {
		if f[key] != nil {
			t.Ref = append(t.Ref, dag.Member{Name: key, Value: r.text(f[key], key)})
		}
	}
	switch {
	case f["spec"] != nil:
		t.Spec = r.spec(f["spec"], depth+1)
	case f["url"] != nil:
		t.URL = r.text(f["url"], "url")
	case n.Kind == yaml.MappingNode:
		r.fault(n, "the component of %s is named neither by spec nor by url: want one of them", what)
	}
}

// argument reads a value: a constant, an input of the graph or the output of a
// task.
func (r *reader) argument(s *Spec, e entry, depth int) Argument {
	a := Argument{Name: e.name, Line: e.key.Line}
	n := r.resolve(e.value, depth)
	if n == nil {
		return a
	}
	if n.Kind == yaml.ScalarNode {
		if a.Value = scalar(n); a.Value == nil {
			r.fault(n, "argument %q is null: leave it out", e.name)
		}
		return a
	}
	p, ok := r.placeholder(n, "argument "+strconv.Quote(e.name), depth, []string{"graphInput", "taskOutput"})
	if !ok {
		return a
	}
	if p.name == "graphInput" {
		f := r.fields(p.value, "graphInput", depth+1, "inputName", "type")
		if a.Input = r.text(f["inputName"], "inputName"); f["inputName"] == nil {
			r.fault(n, "graphInput has no inputName")
		} else if s.Input(a.Input) == nil {
			r.missing(f["inputName"], "graphInput: the component has no input", a.Input, s.inputNames())
		}
		return a
	}
	f := r.fields(p.value, "taskOutput", depth+1, "taskId", "outputName", "type")
	a.Task, a.Output = r.text(f["taskId"], "taskId"), r.text(f["outputName"], "outputName")
	if a.Task == "" || a.Output == "" {
		r.fault(n, "taskOutput: want both taskId and outputName")
	}
	return a
}

// writtenBack returns the tree of a component as KFP writes it back.
func writtenBack(spec dag.Object) dag.Object {
	spec = without(spec, defaultVersion, "version")
	for i, m := range spec {
		switch v := m.Value.(type) {
		case []any: // inputs and outputs
			for i, e := range v {
				if e, ok := e.(dag.Object); ok {
					v[i] = without(e, false, "optional")
				}
			}
		case dag.Object: // metadata and implementation
			v = without(v, nil, "")
			if c, ok := v.Get("container").(dag.Object); ok {
				c = without(c, nil, "")
				for _, m := range c {
					if parts, ok := m.Value.([]any); ok {
						ifs(parts)
					}
				}
				v.Set(c, "container")
			}
			spec[i].Value = v
		}
	}
	return spec
}

// ifs takes what is null out of the ifs in a command.
func ifs(parts []any) {
	for _, p := range parts {
		obj, _ := p.(dag.Object)
		for i, m := range obj {
			switch v := m.Value.(type) {
			case []any:
				ifs(v)
			case dag.Object:
				v = without(v, nil, "")
				obj[i].Value = v
				ifs([]any{v})
			}
		}
	}
}

// without returns the object without the members that are null, and without
// the named one if it has the value.
func without(o dag.Object, value any, name string) dag.Object {
	return slices.DeleteFunc(o, func(m dag.Member) bool { return m.Value == nil || m.Name == name && m.Value == value })
}
