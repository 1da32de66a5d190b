package builtins

import (
	"cmp"
	"fmt"
	"math/big"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/builtins/component"
	"github.com/kfs-project/kfs/dag"
)

// This file defines how a component's command and the values of its inputs
// become those of a step.

// An expansion is the making of one step.
type expansion struct {
	f       *factory
	c       *call
	st      *step
	texts   map[string]string // values of inputs that have one, by name
	failed  map[string]bool   // inputs whose values are reported as wrong
	byValue dag.Object        // those that the command holds
}

// values gives each input its text: the value of the call, or its default.
func (x *expansion) values(given map[string]starlark.Value) {
	x.failed = map[string]bool{}
	for i := range x.f.spec.Inputs {
		in := &x.f.spec.Inputs[i]
		arg := x.f.keyword[in.Name]
		v, ok := given[in.Name]
		switch {
		case !ok && in.Default == nil:
			continue
		case !ok:
			text, fault := defaultText(in)
			if fault != "" {
				x.c.report("", "%s: the default of input %q: %s", x.f.from.place(in.Line), in.Name, fault)
				x.failed[in.Name] = true
			}
			x.texts[in.Name] = text
			continue
		case v == starlark.None && in.Optional:
			continue
		}
		text, e := x.text(in, arg, v)
		if e != nil {
			x.failed[in.Name] = true
		}
		x.texts[in.Name] = text
	}
}

// text returns the text of a value for an input, or the fault it reported.
func (x *expansion) text(in *component.Input, arg string, v starlark.Value) (string, *Error) {
	c := x.c
	input := fmt.Sprintf("input %q of %s", in.Name, x.f.title())
	if e := c.noValue(input, arg, v); e != nil {
		return "", e
	}
	switch v := v.(type) {
	case starlark.NoneType:
		e := c.report(arg, "%s is None: want a value", input)
		if in.Default != nil {
			e.Hint = "leave the argument out for the default"
		}
		return "", e
	case *value:
		given := c.s.typeOf(v)
		if component.Fits(given, in.Type) {
			return v.t, nil
		}
		e := c.report(arg, "%s, of type %q, cannot be passed to %s, of type %q", v.Ref(), component.TypeText(given), input, component.TypeText(in.Type))
		e.Hint = "to pass it all the same, write  .ignore_type()  behind it"
		return "", e
	}
	text, fault := serialize(in.Type, v)
	if fault == "" {
		return text, nil
	}
	e := c.report(arg, "%s: %s", input, fault)
	if strings.HasSuffix(fault, "want text") {
		e.Hint = "write  str(x)  to pass it as text"
		if _, scalar := scalarText(v); !scalar {
			e.Hint = "write  json.encode(x)  to pass it as JSON"
		}
	}
	return "", e
}

// noValue reports what can be the value of no input.
func (c *call) noValue(input, arg string, v starlark.Value) *Error {
	switch v := v.(type) {
	case *step:
		e := c.report(arg, "%s got the step %q: want a value or an output", input, v.d.Name)
		if names := v.outputNames(); len(names) > 0 {
			e.Hint = "its outputs are " + strings.Join(quoted(names), ", ") + fmt.Sprintf(":  .outputs[%q]", names[0])
		} else {
			e.Hint = "it has no outputs; to run after it, write  .after(...)"
		}
		return e
	case *made:
		e := c.report(arg, "%s got the steps of %s: want a value or an output", input, v.title)
		e.Hint = "pass one of its outputs:  .outputs[NAME]"
		return e
	case *condition:
		return c.report(arg, "%s got a comparison: want a value", input)
	case *inputPath:
		e := c.report(arg, "%s got an input_argument_path: want the value itself", input)
		e.Hint = "the component says whether it takes the value as a file"
		return e
	}
	return nil
}

// typeOf returns the type of a value known only at run time, nil for none.
func (s *Session) typeOf(v *value) any {
	r, sole := dag.SoleRef(v.t)
	if !sole || v.untyped || s.body == nil {
		return nil
	}
	switch r.Kind {
	case dag.RefParam:
		switch q := s.body.p.Param(r.Name); {
		case q == nil || q.Type == "":
		case q.Properties != nil:
			return dag.Object{{Name: q.Type, Value: q.Properties}}
		default:
			return q.Type
		}
	case dag.RefOutput:
		if spec := s.body.components[r.Step]; spec != nil {
			if o := spec.Output(r.Name); o != nil {
				return o.Type
			}
		}
	}
	return nil
}

// defaultText returns the text of an input's default, and what is wrong.
func defaultText(in *component.Input) (text, fault string) {
	v := constant(in.Default)
	if s, ok := in.Default.(string); ok && (in.Type == "Integer" || in.Type == "Float") {
		s = strings.TrimSpace(s)
		if in.Type == "Integer" {
			n, ok := new(big.Int).SetString(s, 10)
			if !ok {
				return "", fmt.Sprintf("%q: want a whole number", s)
			}
			return n.String(), ""
		}
		n, err := strconv.ParseFloat(s, 64)
		if err != nil {
			return "", fmt.Sprintf("%q: want a number", s)
		}
		v = starlark.Float(n)
	}
	if n, ok := v.(starlark.Int); ok && in.Type == "Float" {
		v = n.Float()
	}
	return serialize(in.Type, v)
}

// constant returns a scalar of a component file as a value.
func constant(v any) starlark.Value {
	switch v := v.(type) {
	case string:
		return starlark.String(v)
	case bool:
		return starlark.Bool(v)
	case int64:
		return starlark.MakeInt64(v)
	case float64:
		return starlark.Float(v)
	}
	return starlark.None
}

// serialize returns a constant as the text that KFP makes of it for an input of
// the type, and what is wrong with it. Text stays as it is, whatever the type.
// The source is components/_data_passing.py of kfp 1.8.22.
func serialize(typ any, v starlark.Value) (text, fault string) {
	name := shortType(component.TypeName(typ))
	text, ok := scalarText(v)
	want := constantOf[name]
	switch v.(type) {
	case starlark.String:
		if !ok {
			return "", badString
		}
		return text, ""
	case starlark.Bool:
		if want == wantBool {
			want = ""
		}
	case starlark.Int:
		if want == wantInt || want == wantFloat {
			want = ""
		}
	case starlark.Float:
		if want == wantFloat {
			want = ""
		}
	default:
		if want == "" {
			tree, err := toJSON(v)
			if err != nil {
				return "", fmt.Sprintf("got %s: %v", typeName(v), err)
			}
			return dag.PythonJSON(tree), ""
		}
	}
	switch name {
	case "", "String", "str", "Integer", "int", "Float", "float", "Boolean", "Bool", "bool":
	case "JsonArray", "List", "list", "JsonObject", "Dictionary", "Dict", "dict", "Json":
		tree, err := toJSON(v)
		if err != nil {
			return "", err.Error()
		}
		return dag.PythonJSON(tree), ""
	default:
		want = cmp.Or(want, wantText)
	}
	if want != "" {
		return "", fmt.Sprintf("got %s for the type %q: want %s", got(v), component.TypeText(typ), want)
	}
	return text, ""
}

// What a constant of a type is, beside text.
const (
	wantText  = "text"
	wantInt   = "a whole number"
	wantFloat = "a number"
	wantBool  = "True or False"
)

var constantOf = map[string]string{
	"String": wantText, "str": wantText,
	"Integer": wantInt, "int": wantInt,
	"Float": wantFloat, "float": wantFloat,
	"Boolean": wantBool, "Bool": wantBool, "bool": wantBool,
	"Base64Pickle": "text in base64",
}

// got says what a constant is: its type, and a scalar's value.
func got(v starlark.Value) string {
	if text, ok := scalarText(v); ok {
		return fmt.Sprintf("the %s %s", v.Type(), text)
	}
	return kind(v)
}

// shortType returns the name of a type as Python's typing writes it, without
// what stands around it: typing.List[int] is List.
func shortType(name string) string {
	name = strings.TrimPrefix(name, "typing.")
	if i := strings.IndexByte(name, '['); i > 0 && strings.HasSuffix(name, "]") {
		return name[:i]
	}
	return name
}

// list returns the texts that parts of a command become.
func (x *expansion) list(parts []component.Arg) []any {
	texts := []any{}
	for _, p := range parts {
		for _, t := range x.part(p) {
			texts = append(texts, t)
		}
	}
	return texts
}

// part returns the texts that one part of a command becomes: none for an
// optional input that has no value.
func (x *expansion) part(a component.Arg) []string {
	switch a.Kind {
	case component.ArgInputValue:
		if text, ok := x.input(a.Text, a.Line); ok {
			x.byValue.Set(text, a.Text)
			return []string{text}
		}
		return nil
	case component.ArgInputPath:
		if text, ok := x.input(a.Text, a.Line); ok {
			return []string{x.file(a.Text, text)}
		}
		return nil
	case component.ArgOutputPath:
		return []string{x.output(a.Text, outputPath(a.Text), a.Line)}
	case component.ArgConcat:
		var b strings.Builder
		for _, of := range a.Of {
			for _, t := range x.part(of) {
				if b.Len()+len(t) > maxText {
					x.c.report("", "%s: concat: %v", x.f.from.place(a.Line), tooLong("the text", b.Len()+len(t), maxText))
					return nil
				}
				b.WriteString(t)
			}
		}
		return []string{b.String()}
	case component.ArgIf:
		branch := a.If.Else
		if x.holds(a) {
			branch = a.If.Then
		}
		var texts []string
		for _, of := range branch {
			texts = append(texts, x.part(of)...)
		}
		return texts
	}
	return []string{a.Text}
}

// input returns the text of an input, and whether it has one.
func (x *expansion) input(name string, line int) (string, bool) {
	text, ok := x.texts[name]
	if in := x.f.spec.Input(name); !ok && !in.Optional && !x.failed[name] {
		x.failed[name] = true
		x.c.report("", "%s: input %q of %s has no value", x.f.from.place(line), name, x.f.title())
	}
	return text, ok
}

// holds decides an if.
func (x *expansion) holds(a component.Arg) bool {
	switch {
	case a.If.Present != "":
		_, ok := x.texts[a.If.Present]
		return ok
	case a.If.Input == "":
		return a.If.Constant
	}
	name := a.If.Input
	text, ok := x.texts[name]
	if !ok || x.failed[name] {
		return false
	}
	x.byValue.Set(text, name)
	if dag.HasRefs(text) {
		v := &value{s: x.c.s, t: text}
		e := x.c.report(x.f.keyword[name], "%s%sinput %q cannot decide what %s runs (%s)", v.What(), onlyAtRunTime, name, x.f.title(), x.f.from.place(a.Line))
		e.Hint = "pass True or False, or make a step for each of them, in  for _ in condition(" + v.Ref().String() + ` == "true"):`
		x.failed[name] = true
		return false
	}
	on, ok := component.Truth(text)
	if !ok && text != "" {
		x.c.report(x.f.keyword[name], "input %q of %s decides what it runs (%s), and is %q: want true or false", name, x.f.title(), x.f.from.place(a.Line), text)
		x.failed[name] = true
	}
	return on
}

// unnamed declares the inputs and outputs that the command does not name: a
// program may know where to look for a file, and where to leave one. An input
// that only decided an if is one of them. The source is _set_metadata of
// dsl/_container_op.py of kfp 1.8.22.
func (x *expansion) unnamed() {
	for _, in := range x.f.spec.Inputs {
		if text, ok := x.texts[in.Name]; ok && !x.failed[in.Name] && x.byValue.Get(in.Name) == nil {
			x.file(in.Name, text)
		}
	}
	for _, o := range x.f.spec.Outputs {
		if x.st.d.Output(o.Name) == nil {
			x.output(o.Name, outputPath(o.Name), 0)
		}
	}
}

// outputPath is where a component's command leaves an output.
func outputPath(name string) string { return "/tmp/outputs/" + fileName(name) + "/data" }

// file makes the step take an input as a file, and returns its path.
func (x *expansion) file(name, text string) string {
	d := x.st.d
	a := dag.Artifact{Name: dag.ArtifactName(name), Path: "/tmp/inputs/" + fileName(name) + "/data", Text: text, Pos: x.c.pos}
	same := func(o dag.Artifact) bool { return o.Path == a.Path && o.Text == a.Text }
	if slices.ContainsFunc(d.Artifacts, same) {
		return a.Path
	}
	base := a.Name
	for i := 2; slices.ContainsFunc(d.Artifacts, func(o dag.Artifact) bool { return o.Name == a.Name }); i++ {
		a.Name = base + "-" + strconv.Itoa(i)
	}
	d.Artifacts = append(d.Artifacts, a)
	return a.Path
}

// output declares an output and returns its path.
func (x *expansion) output(name, file string, line int) string {
	d := x.st.d
	fault := ""
	switch other := d.Output(name); {
	case other != nil && other.Path != file:
		fault = fmt.Sprintf("output %q has a fixed path, %s, in fileOutputs: want that in the command", name, other.Path)
	case other != nil:
		return file
	case dag.CheckOutputName(name) != "":
		fault = dag.CheckOutputName(name)
	case !path.IsAbs(file):
		fault = fmt.Sprintf("output %q: path %q: want an absolute path in the container", name, file)
	}
	if fault != "" {
		x.c.report("", "%s: %s", x.f.from.place(line), fault)
		return file
	}
	d.Outputs = append(d.Outputs, dag.Output{Name: name, Path: file, Pos: x.c.pos})
	return file
}
