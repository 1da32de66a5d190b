package builtins

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
	"github.com/kfs-project/kfs/kube"
)

// This file defines container_op, steps, and their methods.

// A step is what container_op returns, and resource_op and its kin.
type step struct {
	s *Session
	d *dag.Step
	k *container
	r *resource // of a step that has no container; nil of all others

	inits, sidecars containers
	pvolumes        []pvolume

	aliases map[string]string // other names of outputs
	unknown bool              // of a component that could not be read: it has any output
}

var _ starlark.HasSetField = (*step)(nil)

func (st *step) String() string        { return fmt.Sprintf("<step %q>", st.d.Name) }
func (st *step) Type() string          { return "step" }
func (st *step) Freeze()               {}
func (st *step) Truth() starlark.Bool  { return true }
func (st *step) Hash() (uint32, error) { return starlark.String(st.d.Name).Hash() }

// containerOp: container_op(name, image, command=None, arguments=None, file_outputs=None, artifact_argument_paths=None, init_containers=None, sidecars=None, env=None, pvolumes=None, accelerator=None, once=False, container_kwargs=None) -> step
//
// A step: one command in one image. `file_outputs` maps names to absolute
// paths in the container; `env` maps names to text, or is a list of
// `k8s.EnvVar`; `accelerator` is what `.set_accelerator` takes;
// `container_kwargs` are more fields of the container, as of
// `k8s.Container`. `once=True`: never started a second time, not even after
// a lost node.
func (s *Session) containerOp(c *call) (starlark.Value, error) {
	b, err := c.inBody()
	if err != nil {
		return nil, err
	}
	var name string
	var image text
	var command, arguments, inits, sidecars, env, accelerator starlark.Value
	var outputs, pvolumes, fields *starlark.Dict
	var files starlark.Iterable
	once := false
	if err := c.unpack("name", &name, "image", &image, "command??", &command, "arguments??", &arguments,
		"file_outputs??", &outputs, "artifact_argument_paths??", &files, "init_containers??", &inits, "sidecars??", &sidecars, "env??", &env,
		"pvolumes??", &pvolumes, "accelerator??", &accelerator, "once?", &once, "container_kwargs??", &fields); err != nil {
		return nil, err
	}
	st, err := c.newStep(b, name)
	if err != nil {
		return nil, err
	}
	st.d.Once = once
	st.d.Container.Set(string(image), "image")
	if files != nil {
		c.artifactPaths(st.d, files)
	}
	if command != nil {
		st.d.Container.Set(c.stepTexts(st.d, "command", command), "command")
	}
	if arguments != nil {
		st.d.Container.Set(c.stepTexts(st.d, "arguments", arguments), "args")
	}
	c.fileOutputs(st.d, outputs)
	if fields != nil {
		c.setFields(st.target(), "container_kwargs", fields.Items())
	}
	if env != nil {
		c.env(st.target(), env)
	}
	if inits != nil {
		st.inits.addAll(c, "init_containers", inits)
	}
	if sidecars != nil {
		st.sidecars.addAll(c, "sidecars", sidecars)
	}
	if pvolumes != nil {
		c.addPVolumes(st, pvolumes)
	}
	if accelerator != nil {
		c.setAccelerator(st.d, accelerator)
	}
	b.add(st)
	return st, nil
}

// newStep returns a step that is not part of the pipeline yet.
func (c *call) newStep(b *body, name string) (*step, error) {
	if err := c.feed(b); err != nil {
		return nil, err
	}
	st := &step{s: c.s, d: &dag.Step{Pos: c.pos}}
	st.k = &container{st}
	var err error
	if st.d.Name, err = b.names.name(name); err != nil {
		c.report("name", "%v", err)
	}
	return st, nil
}

// feed counts a step, and refuses one too many.
func (c *call) feed(b *body) error {
	if b.fed++; c.s.cfg.MaxSteps > 0 && b.fed > c.s.cfg.MaxSteps {
		return c.errorf("", "the pipeline has more than %d steps", c.s.cfg.MaxSteps)
	}
	return nil
}

// add makes the step part of the pipeline, in the group that is open.
func (b *body) add(st *step) {
	b.made = append(b.made, st)
	st.d.Group = b.group()
	b.last[st.d.Group] = st.d
	b.p.Steps = append(b.p.Steps, st.d)
	b.parents[st.d.Name] = st.d.Group
	if stack := st.s.stack(); stack != nil {
		st.s.calls[st.d.Name] = stack
	}
}

// env adds variables: a dict of names to texts, or a list of objects.
func (c *call) env(k target, env starlark.Value) {
	dict, ok := env.(*starlark.Dict)
	if !ok {
		for _, obj := range c.fitObjects("env", "EnvVar", env) {
			c.addNamed(k, "env", "name", "variable", obj)
		}
		return
	}
	for key, v := range dict.Entries() {
		name, ok := key.(starlark.String)
		value, isText := scalarText(v)
		switch {
		case !ok:
			c.report("env", "env: want names of variables as keys, got %s", typeName(key))
		case !isText:
			c.report("env", "env: value of %s: want text, got %s", name, typeName(v))
		default:
			c.addEnv(k, string(name), value)
		}
	}
}

// texts returns an argument that is a list of texts, or a scalar that stands
// for a list of one.
func (c *call) texts(arg string, v starlark.Value) []any { return c.stepTexts(nil, arg, v) }

// stepTexts is texts for the command or arguments of a step, which may be
// values that the step takes as files.
func (c *call) stepTexts(d *dag.Step, arg string, v starlark.Value) []any {
	list := []any{}
	if _, isDict := v.(starlark.IterableMapping); isDict {
		c.report(arg, "%s is %s: want a list of texts", arg, kind(v))
		return list
	}
	it, ok := v.(starlark.Iterable)
	if _, isValue := v.(Runtime); isValue || !ok {
		it = starlark.Tuple{v}
	}
	i := 0
	for e := range starlark.Elements(it) {
		if p, ok := e.(*inputPath); ok && d != nil {
			list = append(list, c.takeFile(d, p))
		} else if text, ok := scalarText(e); ok {
			list = append(list, text)
		} else {
			c.badText(arg, i, e)
		}
		i++
	}
	return list
}

// badText reports an element that is no text.
func (c *call) badText(arg string, i int, v starlark.Value) {
	var e *Error
	defer func() { e.Elem = i + 1 }()
	switch v := v.(type) {
	case *step:
		e = c.report(arg, "%s[%d] is the step %q: want text or an output", arg, i, v.d.Name)
		switch len(v.d.Outputs) {
		case 0:
			e.Hint = `to run after it, write  .after(...);  to use what it writes, give it file_outputs = {"name": "/path"}`
		default:
			e.Hint = fmt.Sprintf("pass one of its outputs:  .outputs[%q]", v.d.Outputs[0].Name)
		}
	case starlark.NoneType:
		e = c.report(arg, "%s[%d] is None: want text", arg, i)
		e.Hint = "leave it out, or write the text that is meant"
	case starlark.String:
		e = c.report(arg, "%s[%d]: %s", arg, i, badString)
	case *condition:
		e = c.report(arg, "%s[%d]: %s%sa comparison of it is no text", arg, i, v.What(), onlyAtRunTime)
	case *starlark.List, starlark.Tuple, *starlark.Dict:
		e = c.report(arg, "%s[%d] is %s: want text", arg, i, kind(v))
		e.Hint = "write json.encode(x) to pass it as JSON, or + to join two lists"
	default:
		e = c.report(arg, "%s[%d] is %s: want text", arg, i, kind(v))
	}
}

// fileOutputs adds the outputs that a dict of name to path declares.
func (c *call) fileOutputs(d *dag.Step, outputs *starlark.Dict) {
	if outputs == nil {
		return
	}
	for k, v := range outputs.Entries() {
		name, ok1 := k.(starlark.String)
		file, ok2 := v.(starlark.String)
		switch {
		case !ok1 || !ok2:
			c.report("file_outputs", "file_outputs: want names to paths, got %s to %s", typeName(k), typeName(v))
		case dag.CheckOutputName(string(name)) != "":
			c.report("file_outputs", "%s", dag.CheckOutputName(string(name)))
		case !path.IsAbs(string(file)):
			c.report("file_outputs", "output %q: path %q: want an absolute path in the container", string(name), string(file))
		default:
			d.Outputs = append(d.Outputs, dag.Output{Name: string(name), Path: string(file), Pos: c.pos})
		}
	}
}

// addVolume adds a volume that the step does not have yet. What is equal is not
// added again; what only has the same name is a fault.
func (c *call) addVolume(d *dag.Step, volume dag.Object) {
	name := volume.Get("name").(string)
	if err := kube.CheckLabel(name); err != nil && !dag.HasRefs(name) {
		c.report("volume_name", "%s: volume name %v", c.name, err)
		return
	}
	if c.full(fmt.Sprintf("step %q", d.Name), "volumes", len(d.Volumes), maxNamed) {
		return
	}
	for _, other := range d.Volumes {
		if memberOf(other, "name") == name {
			if !equalTrees(other, volume) {
				c.report("", "%s: step %q has another volume %q", c.name, d.Name, dag.Display(name))
			}
			return
		}
	}
	d.Volumes = append(d.Volumes, volume)
}

// A method is a method of a step or container; self is what it returns.
type method func(c *call, d *dag.Step, self starlark.Value) (starlark.Value, error)

var stepMethods = map[string]method{
	"after":       after,
	"apply":       apply,
	"set_retry":   setRetry,
	"set_timeout": setTimeout,
}

func attrNames[M any](table map[string]M) []string {
	return slices.Sorted(maps.Keys(table))
}

func (st *step) AttrNames() []string {
	if st.r != nil {
		return st.resourceAttrs()
	}
	names := slices.Concat(stepFields, attrNames(stepMethods), attrNames(podMethods), attrNames(containerMethods))
	slices.Sort(names)
	return names
}

func (st *step) Attr(name string) (starlark.Value, error) {
	if st.r != nil {
		return st.resourceAttr(name)
	}
	switch name {
	case "pvolume", "pvolumes":
		return st.pvolumeField(name)
	case "name":
		return starlark.String(st.d.Name), nil
	case "container":
		return st.k, nil
	case "outputs":
		return &outputs{st}, nil
	case "output":
		return st.output()
	}
	if name == "output_artifact_paths" {
		return &asideFiles{st}, nil
	}
	if v := st.field(name); v != nil {
		return v, nil
	}
	if m := stepMethods[name]; m != nil {
		return st.s.bind(name, m, st.d, st), nil
	}
	if m := podMethods[name]; m != nil {
		return st.s.builtin(name, func(c *call) (starlark.Value, error) { return st, m(c, st) }), nil
	}
	if m := st.s.bindContainer(name, st.target(), st); m != nil {
		return m, nil
	}
	return nil, noAttr("a step", name, st.AttrNames())
}

// bind returns the method of a value.
func (s *Session) bind(name string, m method, d *dag.Step, self starlark.Value) starlark.Value {
	return s.builtin(name, func(c *call) (starlark.Value, error) { return m(c, d, self) })
}

func noAttr(what, name string, names []string) error {
	msg := fmt.Sprintf("%s has no .%s", what, name)
	if hint := spell.DidYouMean(name, names); hint != "" {
		return fmt.Errorf("%s: %s", msg, hint)
	}
	return fmt.Errorf("%s", msg)
}

// output is step.output: the step's output, if it has exactly one.
func (st *step) output() (starlark.Value, error) {
	if st.unknown {
		return st.s.ref(dag.Ref{Kind: dag.RefOutput, Step: st.d.Name, Name: "output"}), nil
	}
	switch names := st.outputNames(); len(names) {
	case 1:
		return st.s.ref(dag.Ref{Kind: dag.RefOutput, Step: st.d.Name, Name: names[0]}), nil
	case 0:
		return nil, fmt.Errorf(`step %q has no outputs: declare one with  file_outputs = {"name": "/path"}`, st.d.Name)
	default:
		return nil, fmt.Errorf("step %q has %d outputs: write .outputs[NAME] with one of %s", st.d.Name, len(names), strings.Join(quoted(names), ", "))
	}
}

// outputNames are the names of the outputs that other steps can use.
func (st *step) outputNames() []string {
	var names []string
	for _, o := range st.d.Outputs {
		if _, page := o.Page(); !page {
			names = append(names, o.Name)
		}
	}
	return names
}

func quoted(names []string) []string {
	var q []string
	for _, name := range names {
		q = append(q, strconv.Quote(name))
	}
	return q
}

// outputs is step.outputs: outputs by name.
type outputs struct{ st *step }

var _ starlark.IterableMapping = (*outputs)(nil)

func (o *outputs) String() string        { return fmt.Sprintf("<outputs of step %q>", o.st.d.Name) }
func (o *outputs) Type() string          { return "outputs" }
func (o *outputs) Freeze()               {}
func (o *outputs) Truth() starlark.Bool  { return len(o.st.d.Outputs) > 0 }
func (o *outputs) Hash() (uint32, error) { return 0, fmt.Errorf("outputs cannot be a key") }

// Attr refuses every name, and says how an output is written.
func (o *outputs) Attr(name string) (starlark.Value, error) {
	return nil, fmt.Errorf("outputs of step %q have no .%s: write .outputs[%q]", o.st.d.Name, name, name)
}

// AttrNames implements starlark.HasAttrs.
func (o *outputs) AttrNames() []string { return nil }

func (o *outputs) Get(k starlark.Value) (starlark.Value, bool, error) {
	name, ok := k.(starlark.String)
	if !ok {
		return nil, false, fmt.Errorf("outputs of step %q: want the name of an output, got %s", o.st.d.Name, typeName(k))
	}
	names := o.st.outputNames()
	if real, ok := o.st.aliases[string(name)]; ok && !slices.Contains(names, string(name)) {
		name = starlark.String(real)
	}
	if !slices.Contains(names, string(name)) && !o.st.unknown {
		msg := fmt.Sprintf("step %q has no output %q", o.st.d.Name, string(name))
		hint := spell.DidYouMean(string(name), names)
		switch {
		case hint != "":
			msg += ": " + hint
		case o.st.r != nil && len(names) == 0:
			msg += ": it deletes its object, of which nothing is left"
		case len(names) == 0:
			msg += `: it declares none with  file_outputs = {"name": "/path"}`
		default:
			msg += ": its outputs are " + strings.Join(quoted(names), ", ")
		}
		return nil, false, fmt.Errorf("%s", msg)
	}
	return o.st.s.ref(dag.Ref{Kind: dag.RefOutput, Step: o.st.d.Name, Name: string(name)}), true, nil
}

func (o *outputs) Items() []starlark.Tuple {
	var items []starlark.Tuple
	for _, name := range o.st.outputNames() {
		v, _, _ := o.Get(starlark.String(name))
		items = append(items, starlark.Tuple{starlark.String(name), v})
	}
	return items
}

func (o *outputs) Iterate() starlark.Iterator {
	var keys starlark.Tuple
	for _, name := range o.st.outputNames() {
		keys = append(keys, starlark.String(name))
	}
	return keys.Iterate()
}

// after: step.after(*steps_or_groups) -> step
//
// Runs after these.
func after(c *call, d *dag.Step, self starlark.Value) (starlark.Value, error) {
	return self, c.addAfter(&d.After)
}

// addAfter adds an edge to each of the steps and blocks that the call names.
func (c *call) addAfter(edges *[]dag.Edge) error {
	if len(c.kwargs) > 0 {
		return c.errorf("", "after has no keyword arguments: want steps or blocks")
	}
	for i, v := range c.args {
		name := ""
		switch v := v.(type) {
		case *step:
			name = v.d.Name
		case *block:
			if name = v.g.Name; name == "" {
				c.report("", "after: the block of argument %d is not opened yet", i+1)
				continue
			}
		default:
			e := c.report("", "after: argument %d is %s: want a step or a block", i+1, kind(v))
			if v == starlark.None {
				e.Hint = "a function that makes a step must return it"
			}
			continue
		}
		if c.s.body.hasEdge(edges, name) {
			continue
		}
		if c.s.body.edges++; c.s.body.edges > maxEdges {
			return c.errorf("", "after: the pipeline has more than %d edges", maxEdges)
		}
		*edges = append(*edges, dag.Edge{Step: name, Pos: c.pos})
	}
	return nil
}

// hasEdge reports whether one of the edges leads to the name. Of many, it keeps
// the set.
func (b *body) hasEdge(edges *[]dag.Edge, name string) bool {
	const few = 64
	if len(*edges) < few {
		return slices.ContainsFunc(*edges, func(e dag.Edge) bool { return e.Step == name })
	}
	set := b.targets[edges]
	if set == nil {
		set = map[string]int{}
		b.targets[edges] = set
	}
	for i := set[""]; i < len(*edges); i++ { // under no name: how many it has seen
		set[(*edges)[i].Step], set[""] = i, i+1
	}
	_, ok := set[name]
	return ok
}

// apply: step.apply(fn) -> step
//
// Calls a function of one step, such as a modifier.
func apply(c *call, d *dag.Step, self starlark.Value) (starlark.Value, error) {
	var fn starlark.Callable
	if err := c.unpack("fn", &fn); err != nil {
		return nil, err
	}
	_, err := starlark.Call(c.s.thread, fn, starlark.Tuple{self}, nil)
	return self, err
}

// setRetry: step.set_retry(num_retries, policy=None, backoff_duration=None, backoff_factor=None, backoff_max_duration=None) -> step
//
// How often it is tried again. `policy` is one of `OnFailure` (as if unset: the
// command failed, an output is missing, its time was over), `OnTransientError`
// (evicted, lost, refused), `OnError` (these, and what cannot be started),
// `Always`.
func setRetry(c *call, d *dag.Step, self starlark.Value) (starlark.Value, error) {
	var limit scalar
	var policy string
	var backoff, maxBackoff scalar
	var factor starlark.Value
	if err := c.unpack("num_retries", &limit, "policy??", &policy, "backoff_duration??", &backoff,
		"backoff_factor??", &factor, "backoff_max_duration??", &maxBackoff); err != nil {
		return nil, err
	}
	r := &dag.Retry{}
	if c.checkCount("num_retries", string(limit), 0) {
		r.Limit = string(limit)
	} else {
		return self, nil
	}
	if policy != "" && !slices.Contains(dag.RetryPolicies, policy) {
		e := c.report("policy", "set_retry: policy %q: want one of %s", policy, strings.Join(dag.RetryPolicies, ", "))
		e.Hint = spell.DidYouMean(policy, dag.RetryPolicies)
	} else {
		r.Policy = policy
	}
	r.Backoff = c.backoff("backoff_duration", string(backoff))
	r.MaxBackoff = c.backoff("backoff_max_duration", string(maxBackoff))
	if factor != nil {
		f, ok := starlark.AsFloat(factor)
		if !ok || !(f > 0) || math.IsInf(f, 1) {
			c.report("backoff_factor", "set_retry: backoff_factor %s: want a number above 0", factor)
		} else {
			r.Factor = json.Number(factor.String())
		}
	}
	d.Retry = r
	return self, nil
}

// backoff returns a duration of set_retry, or "" if it is reported as wrong.
func (c *call) backoff(arg, text string) string {
	if _, ok := dag.SoleRef(text); ok {
		return text
	}
	if _, err := dag.ParseBackoff(text); err != nil {
		c.report(arg, "set_retry: %v", err)
		return ""
	}
	return text
}

// setTimeout: step.set_timeout(seconds) -> step
//
// The wall clock of one attempt.
func setTimeout(c *call, d *dag.Step, self starlark.Value) (starlark.Value, error) {
	var seconds scalar
	if err := c.unpack("seconds", &seconds); err != nil {
		return nil, err
	}
	if c.checkCount("seconds", string(seconds), 1) {
		d.Timeout = string(seconds)
	}
	return self, nil
}

// checkCount reports an argument that is neither a whole number of at least
// least nor one value known only at run time.
func (c *call) checkCount(arg, text string, least int) bool {
	if _, ok := dag.SoleRef(text); ok {
		return true
	}
	if n, err := strconv.Atoi(text); err != nil || n < least {
		c.report(arg, "%s: %s is %s: want a whole number, %d or more", c.name, arg, dag.Display(text), least)
		return false
	}
	return true
}

// A text is an argument that is a string or a value known only at run time.
type text string

// Unpack implements starlark.Unpacker.
func (t *text) Unpack(v starlark.Value) error {
	switch v := v.(type) {
	case starlark.String:
		if dag.HasRefs(string(v)) {
			return errors.New(badString)
		}
		*t = text(v)
	case *value:
		*t = text(v.t)
	default:
		return fmt.Errorf("got %s, want string", typeName(v))
	}
	return nil
}

// A scalar is a text that may also be given as a number.
type scalar string

// Unpack implements starlark.Unpacker.
func (t *scalar) Unpack(v starlark.Value) error {
	s, ok := scalarText(v)
	if _, isBool := v.(starlark.Bool); !ok || isBool {
		return fmt.Errorf("got %s, want string or number", typeName(v))
	}
	*t = scalar(s)
	return nil
}
