package builtins

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"github.com/kfs-project/kfs/builtins/component"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
)

// This file defines pipelines, their params, and settings.

// A Setting is one call of config(...).
type Setting struct {
	Name    string
	Default starlark.Value // None if there is none
	Choices []starlark.Value
	Doc     string
	Pos     dag.Pos
	value   starlark.Value
}

// Settings returns the settings that have been asked for, in order.
func (s *Session) Settings() []*Setting { return s.settings }

// config: config(name, default=None, choices=None, doc="") -> value
//
// A setting: an ordinary value, from `--set name=value`, converted to the
// type of the default.
func (s *Session) config(c *call) (starlark.Value, error) {
	set := &Setting{Default: starlark.None, Pos: c.pos}
	var choices starlark.Iterable
	if err := c.unpack("name", &set.Name, "default?", &set.Default, "choices??", &choices, "doc??", &set.Doc); err != nil {
		return nil, err
	}
	if !fits(set.Default, maxTuple) || choices != nil && !fits(choices, maxTuple) {
		return nil, c.errorf("", "config: its default or choices hold more than %d values", maxTuple)
	}
	if set.Name == "" || strings.ContainsFunc(set.Name, func(r rune) bool { return r == '=' || unicode.IsControl(r) }) {
		return nil, c.errorf("name", "config: name %q: want one that  --set name=value  can give", set.Name)
	}
	if !isData(set.Default) {
		return nil, c.errorf("default", "config: its default is %s: want text, a number, True, False, None, or a list or dict of these", kind(set.Default))
	}
	if r := firstRuntime(set.Default); r != nil {
		return nil, c.errorf("default", "%s%sit cannot be the default of a setting", r.What(), onlyAtRunTime)
	}
	if choices != nil {
		if r := firstRuntime(choices); r != nil {
			return nil, c.errorf("choices", "%s%sit cannot be a choice of a setting", r.What(), onlyAtRunTime)
		}
		for choice := range starlark.Elements(choices) {
			if !isData(choice) {
				return nil, c.errorf("choices", "config: choice %d is %s: want text, a number, True, False, None, or a list or dict of these", len(set.Choices), kind(choice))
			}
			set.Choices = append(set.Choices, choice)
		}
	}
	for _, other := range s.settings {
		if other.Name != set.Name {
			continue
		}
		if same, err := starlark.Equal(other.Default, set.Default); err != nil || !same || other.Default.Type() != set.Default.Type() {
			return nil, c.errorf("default", "setting %q has another default at %s: %s there, %s here", set.Name, other.Pos, other.Default, set.Default)
		}
		if same, err := starlark.Equal(starlark.Tuple(other.Choices), starlark.Tuple(set.Choices)); err != nil || !same {
			return nil, c.errorf("choices", "setting %q has other choices at %s", set.Name, other.Pos)
		}
		return other.value, nil
	}
	set.value = set.Default
	if given, ok := s.cfg.Settings[set.Name]; ok {
		if v, err := convert(given, set.Default); err != nil {
			c.report("", "setting %q: %v", set.Name, err)
		} else {
			set.value = v
		}
	}
	if err := set.checkChoice(); err != nil {
		arg := "choices"
		if _, given := s.cfg.Settings[set.Name]; given {
			arg = ""
		}
		e := c.report(arg, "%v", err)
		if text, ok := set.value.(starlark.String); ok {
			var words []string
			for _, choice := range set.Choices {
				if word, ok := choice.(starlark.String); ok {
					words = append(words, string(word))
				}
			}
			e.Hint = spell.DidYouMean(string(text), words)
		}
	}
	s.settings = append(s.settings, set)
	return set.value, nil
}

// isData reports whether a value is plain data, or text of the run; lists and
// dicts, which are bounded, may hold anything in turn.
func isData(v starlark.Value) bool {
	switch v.(type) {
	case starlark.NoneType, starlark.String, starlark.Int, starlark.Float, starlark.Bool,
		*starlark.List, starlark.Tuple, *starlark.Dict, *starlark.Set, *starlarkstruct.Struct, Runtime:
		return true
	}
	return false
}

func (set *Setting) checkChoice() error {
	if len(set.Choices) == 0 || set.value == starlark.None {
		return nil
	}
	var names []string
	for _, choice := range set.Choices {
		if same, err := starlark.Equal(choice, set.value); err == nil && same {
			return nil
		}
		names = append(names, choice.String())
	}
	return fmt.Errorf("setting %q is %s: want one of %s", set.Name, set.value, strings.Join(names, ", "))
}

// convert returns text as a value of the type of def; as itself if def is
// None.
func convert(text string, def starlark.Value) (starlark.Value, error) {
	switch def.(type) {
	case starlark.NoneType, starlark.String:
		return starlark.String(text), nil
	case starlark.Bool:
		switch strings.ToLower(text) {
		case "true":
			return starlark.True, nil
		case "false":
			return starlark.False, nil
		}
		return nil, fmt.Errorf("%q: want true or false, as its default is a bool", text)
	case starlark.Int:
		if n, err := strconv.ParseInt(text, 10, 64); err == nil {
			return starlark.MakeInt64(n), nil
		}
		return nil, fmt.Errorf("%q: want a whole number, as its default is one", text)
	case starlark.Float:
		if f, err := strconv.ParseFloat(text, 64); err == nil {
			return starlark.Float(f), nil
		}
		return nil, fmt.Errorf("%q: want a number, as its default is one", text)
	}
	return nil, fmt.Errorf("%q: a setting whose default is %s cannot be given as text", text, kind(def))
}

// CheckSettings returns a fault for each given setting that no file asked for.
func (s *Session) CheckSettings() []*Error {
	var names []string
	for _, set := range s.settings {
		names = append(names, set.Name)
	}
	var given []string
	for name := range s.cfg.Settings {
		if !slices.Contains(names, name) {
			given = append(given, name)
		}
	}
	slices.Sort(given)
	var faults []*Error
	for _, name := range given {
		e := &Error{Msg: fmt.Sprintf("no setting is named %q", name), Hint: spell.DidYouMean(name, names)}
		switch {
		case e.Hint != "":
		case len(names) == 0:
			e.Hint = "the script has no settings; one is made with  " + name + " = config(" + strconv.Quote(name) + ")"
		default:
			e.Hint = "its settings are " + strings.Join(names, ", ")
		}
		faults = append(faults, e)
	}
	return faults
}

// A Pipeline is one call of pipeline(...) in the main file.
type Pipeline struct {
	Name        string
	Description string
	Pos         dag.Pos
	fn          *starlark.Function
	types       *starlark.Dict
	conf        *conf
}

// Pipelines returns the pipelines that the main file declared, in order.
func (s *Session) Pipelines() []*Pipeline { return s.pipelines }

// pipeline: pipeline(fn, name=None, description=None, types=None, op_transformers=None, **conf) -> fn
//
// Registers a pipeline and returns `fn`. The arguments of `fn` are its
// params. The name is by default that of the function (`my_pipeline`: "My
// pipeline"), the description the first line of its docstring. `types` names
// the types of params: `{"url": "GCSPath", "n": "Integer"}`, with properties
// `{"url": {"GCSPath": {"file_type": "csv"}}}`. `conf` and
// `op_transformers`: see [What a pipeline sets](#what-a-pipeline-sets).
//
// The words of conf are those of pipeline_conf(), without their set_.
func (s *Session) pipeline(c *call) (starlark.Value, error) {
	var fn starlark.Callable
	var name, description *string
	p := &Pipeline{Pos: c.pos, conf: c.cutConf()}
	if err := c.unpack("fn", &fn, "name??", optional(&name), "description??", optional(&description), "types??", &p.types); err != nil {
		return nil, err
	}
	var ok bool
	if p.fn, ok = fn.(*starlark.Function); !ok {
		return nil, c.errorf("fn", "pipeline: want a function of the script, got the builtin %s", fn.Name())
	}
	switch {
	case p.fn.HasVarargs() || p.fn.HasKwargs():
		return nil, c.errorf("fn", "pipeline function %s has *args or **kwargs: want each param by its name", p.fn.Name())
	case s.body != nil:
		return nil, c.errorf("", "pipeline(%s) stands inside a pipeline's function: pipelines are registered in the file", p.fn.Name())
	}
	p.Name = pythonTitle(p.fn.Name())
	if name != nil && *name != "" {
		p.Name = *name
	}
	p.Description = parseDocstring(p.fn.Doc()).short
	if description != nil && *description != "" {
		p.Description = strings.TrimSpace(*description)
	}
	if s.loading > 0 {
		return fn, nil // only the main file's pipelines count
	}
	for _, other := range s.pipelines {
		if other.Name == p.Name {
			c.report("name", "pipeline %q is registered at %s too", p.Name, other.Pos)
		}
	}
	s.pipelines = append(s.pipelines, p)
	return fn, nil
}

// optional unpacks a string into a pointer that stays nil if there is none.
func optional(p **string) starlark.Unpacker { return optionalString{p} }

type optionalString struct{ p **string }

func (o optionalString) Unpack(v starlark.Value) error {
	str, ok := v.(starlark.String)
	if !ok {
		return fmt.Errorf("got %s, want string", typeName(v))
	}
	text := string(str)
	*o.p = &text
	return nil
}

// pythonTitle is what KFP makes of a function's name: my_pipeline becomes
// "My pipeline", and __trainXGB "TrainXGB".
func pythonTitle(name string) string {
	title := strings.Join(strings.FieldsFunc(name, func(r rune) bool { return r == '_' }), " ")
	if title == "" {
		return ""
	}
	return strings.ToUpper(title[:1]) + title[1:]
}

// A body is a pipeline whose function is running.
type body struct {
	p     *dag.Pipeline
	names namer
	fed   int // steps made
	made  []*step
	conf  *conf

	groups int // numbers given to groups and to items, as KFP counts them
	stack  []*dag.Group
	open   []*block              // those of the groups in stack that a for statement opened
	blocks []*block              // all
	last   map[string]any        // by group: the *dag.Group or *dag.Step that came last in it
	graphs map[*dag.Group]*graph // those of graph components

	edges   int // that after made
	targets map[*[]dag.Edge]map[string]int
	parents map[string]string // the groups that steps and groups stand in, by their names

	// others are, for the group of a condition or elif, the conditions that all
	// hold if neither it nor any of its chain before it does.
	others map[*dag.Group][]*dag.Condition

	components map[string]*component.Spec // by the names of steps that were made from them
	changed    map[any]*block             // by what was changed: see putInto
}

func newBody(p *Pipeline) *body {
	return &body{p: &dag.Pipeline{Name: p.Name, Description: p.Description, Pos: p.Pos}, names: newNamer(),
		last: map[string]any{}, others: map[*dag.Group][]*dag.Condition{}, graphs: map[*dag.Group]*graph{},
		parents: map[string]string{}, targets: map[*[]dag.Edge]map[string]int{}, conf: p.conf.clone()}
}

// Build runs the pipeline's function and returns what it declared. The
// pipeline is not validated yet. Faults that did not stop the function are
// added to Faults.
func (s *Session) Build(p *Pipeline) (*dag.Pipeline, error) {
	s.calls = map[string]starlark.CallStack{}
	s.body = newBody(p)
	defer func() { s.body = nil }()
	args, err := s.params(p)
	if err != nil {
		return nil, err
	}
	if _, err := starlark.Call(s.thread, p.fn, nil, args); err != nil {
		return nil, err
	}
	if err := s.body.finish(s); err != nil {
		return nil, err
	}
	for _, b := range s.body.blocks {
		if !b.used {
			s.faults = append(s.faults, &Error{Pos: b.pos, Msg: b.word + ": this block is never opened", Hint: "a block is opened by a for statement:  for _ in " + b.word + "(...):"})
		}
	}
	return s.body.p, nil
}

// params declares a param for each argument of the pipeline's function and
// returns the arguments to call it with.
func (s *Session) params(p *Pipeline) ([]starlark.Tuple, error) {
	types := map[string]starlark.Value{}
	if p.types != nil {
		for k, v := range p.types.Entries() {
			name, ok := k.(starlark.String)
			if !ok {
				return nil, &Error{Pos: p.Pos, Arg: "types", Msg: fmt.Sprintf("types: want names of params as keys, got %s", k)}
			}
			types[string(name)] = v
		}
	}
	var args []starlark.Tuple
	var names []string
	about := parseDocstring(p.fn.Doc()).args
	for i := range p.fn.NumParams() {
		name, pos := p.fn.Param(i)
		names = append(names, name)
		q := &dag.Param{Name: name, Description: about[name], Pos: dag.Pos{File: pos.Filename(), Line: int(pos.Line), Col: int(pos.Col)}}
		if err := setDefault(q, p.fn.ParamDefault(i)); err != nil {
			return nil, err
		}
		if t, ok := types[name]; ok {
			if err := setType(q, t); err != nil {
				return nil, &Error{Pos: p.Pos, Arg: "types", Msg: fmt.Sprintf("types: type of param %q: %v", name, err)}
			}
			delete(types, name)
			s.checkDefault(q)
		}
		s.body.p.Params = append(s.body.p.Params, q)
		args = append(args, starlark.Tuple{starlark.String(name), s.ref(dag.Ref{Kind: dag.RefParam, Name: name})})
	}
	for _, name := range slices.Sorted(maps.Keys(types)) {
		return nil, &Error{Pos: p.Pos, Arg: "types", Msg: fmt.Sprintf("types: the pipeline has no param %q", name), Hint: spell.DidYouMean(name, names)}
	}
	return args, nil
}

// setType sets a param's type: a name, or a dict of a name to the type's
// properties, as the annotations of KFP have it. None is no type.
func setType(q *dag.Param, v starlark.Value) error {
	if v == starlark.None {
		return nil
	}
	tree, err := toJSON(v)
	if err != nil {
		return err
	}
	switch t := tree.(type) {
	case string:
		if !dag.HasRefs(t) {
			q.Type = t
			return nil
		}
	case dag.Object:
		if len(t) != 1 {
			break
		}
		if properties, ok := t[0].Value.(dag.Object); ok {
			q.Type, q.Properties = t[0].Name, properties
			return nil
		}
	}
	return fmt.Errorf(`want the name of a type, a dict like {"GCSPath": {"file_type": "csv"}}, or None, got %s`, typeName(v))
}

// setDefault sets a param's default and the type it gives; v is nil if the
// author wrote none.
func setDefault(q *dag.Param, v starlark.Value) error {
	if v == nil {
		return nil
	}
	q.Optional = true
	if v == starlark.None {
		return nil
	}
	text, ok := scalarText(v)
	switch v := v.(type) {
	case *value:
		for _, r := range refsOf(v.t) {
			if r.Kind != dag.RefRunID && r.Kind != dag.RefRunName {
				return &Error{Pos: q.Pos, Msg: fmt.Sprintf("default of param %q holds %s: only run_id() and run_name() may stand there", q.Name, r)}
			}
		}
		q.Inferred = "String"
	case starlark.String:
		q.Inferred = "String"
	case starlark.Int:
		q.Inferred = "Integer"
	case starlark.Float:
		q.Inferred = "Float"
	case starlark.Bool:
		q.Inferred = "Bool"
	default:
		if ok {
			break
		}
		tree, err := toJSON(v)
		if err != nil {
			return &Error{Pos: q.Pos, Msg: fmt.Sprintf("default of param %q: %v", q.Name, err)}
		}
		text = dag.PythonJSON(tree)
		q.Inferred = "JsonArray"
		if _, ok := tree.(dag.Object); ok {
			q.Inferred = "JsonObject"
		}
	}
	q.Default = &text
	return nil
}

// checkDefault reports a default that does not fit the type the author named.
func (s *Session) checkDefault(q *dag.Param) {
	if q.Default == nil || dag.HasRefs(*q.Default) {
		return
	}
	if _, err := q.Parse(*q.Default); err != nil && *q.Default != "" {
		s.faults = append(s.faults, &Error{Pos: q.Pos, Msg: "default of " + err.Error()})
	}
}

func refsOf(text string) []dag.Ref {
	refs, _ := dag.Refs(text)
	return refs
}

// maxDepth is how deep lists and dicts that become JSON may be nested, and
// maxNodes how many values they may hold, shared ones counted each time.
const (
	maxDepth = 100
	maxNodes = 1_000_000
)

// toJSON returns a Starlark value as a JSON tree of package dag.
func toJSON(v starlark.Value) (any, error) {
	nodes := 0
	return toJSONDepth(v, 0, &nodes)
}

func toJSONDepth(v starlark.Value, depth int, nodes *int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("lists and dicts are nested more than %d deep", maxDepth)
	}
	if *nodes++; *nodes > maxNodes {
		return nil, fmt.Errorf("lists and dicts hold more than %d values", maxNodes)
	}
	switch v := v.(type) {
	case starlark.NoneType:
		return nil, nil
	case starlark.Bool:
		return bool(v), nil
	case starlark.String:
		if dag.HasRefs(string(v)) {
			return nil, errors.New(badString)
		}
		return string(v), nil
	case *value:
		return v.t, nil
	case *object:
		return v.obj, nil
	case starlark.Float:
		return float64(v), nil
	case starlark.Int:
		n, ok := v.Int64()
		if !ok {
			return nil, fmt.Errorf("%s is too large a number", v)
		}
		return n, nil
	case *starlark.Dict:
		obj := dag.Object{}
		for k, e := range v.Entries() {
			name, err := jsonKey(k)
			if err != nil {
				return nil, err
			}
			tree, err := toJSONDepth(e, depth+1, nodes)
			if err != nil {
				return nil, err
			}
			obj = append(obj, dag.Member{Name: name, Value: tree})
		}
		return obj, nil
	case starlark.Iterable:
		list := []any{}
		for e := range starlark.Elements(v) {
			tree, err := toJSONDepth(e, depth+1, nodes)
			if err != nil {
				return nil, err
			}
			list = append(list, tree)
		}
		return list, nil
	}
	return nil, fmt.Errorf("%s cannot become JSON", kind(v))
}

// jsonKey returns a dict's key as Python's json.dumps writes it.
func jsonKey(k starlark.Value) (string, error) {
	switch k := k.(type) {
	case starlark.NoneType:
		return "null", nil
	case starlark.Bool:
		return strings.ToLower(k.String()), nil
	}
	name, ok := scalarText(k)
	if !ok {
		return "", fmt.Errorf("a dict's key is %s: want a string", kind(k))
	}
	return name, nil
}
