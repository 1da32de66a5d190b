package builtins

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/kfs-project/kfs/dag"
)

// This file defines values known only at run time.

// A Runtime is a Starlark value whose content is known only when the pipeline
// runs.
type Runtime interface {
	starlark.Value
	// What says what the value is: `train_steps is a param`.
	What() string
	// Ref returns the value it comes from, the first if there are several.
	Ref() dag.Ref
	session() *Session
}

// A Misuse is a run-time value used where its content would be needed while
// the script is evaluated.
type Misuse struct {
	Value Runtime
	Kind  MisuseKind
	Stack starlark.CallStack // at the time of use
	param *dag.Param         // where the value is a param
}

// A MisuseKind says what was asked of the value.
type MisuseKind uint8

// The kinds of Misuse.
const (
	MisuseTruth MisuseKind = iota // is it true?
	MisuseHash                    // its hash, as a key of a dict or in a set
	MisuseLoop                    // its elements
	MisusePart                    // its length, or a slice of it
)

const onlyAtRunTime = ": it is known only when the pipeline runs, so "

// Message returns the message for a misuse that keeps the value from doing
// what consequence says ("it cannot decide an `if` here").
func (m *Misuse) Message(consequence string) string {
	return m.Value.What() + onlyAtRunTime + consequence
}

// Hint returns what to write instead; expr is the source of the expression
// that was misused, or "", and op the operator that asked for its truth, if
// one did.
func (m *Misuse) Hint(expr, op string) string {
	cond, compared := m.Value.(*condition)
	if expr == "" && compared {
		expr = dag.Display(cond.String())
	} else if expr == "" {
		expr = m.Value.Ref().String()
	}
	switch m.Kind {
	case MisuseTruth:
		if word := combining[op]; word != "" && compared {
			return "comparisons are combined by words, not operators:  for _ in condition(" + fmt.Sprintf(word, expr) + "):"
		}
		if !compared {
			expr += ` == "..."`
		}
		hint := "to decide when the pipeline runs, write  for _ in condition(" + expr + "):"
		if m.param != nil {
			name := m.param.Name
			hint += fmt.Sprintf("\nto decide now, make it a setting:         %s = config(%q, default = %s)", name, name, literal(m.param))
		}
		return hint
	case MisuseLoop:
		if m.Value.Ref().Kind == dag.RefItem {
			return "an item is one value; the parts of one that is a dict are  item.a, item.b"
		}
		return "to loop when the pipeline runs, write  for item in parallel_for(" + expr + "):"
	}
	return ""
}

// combining has the words that combine conditions, by the operators.
var combining = map[string]string{"and": "all_of(%s, ...)", "or": "any_of(%s, ...)", "not": "not_(%s)"}

// literal returns the default of a param as an author would write it.
func literal(p *dag.Param) string {
	if p.Default == nil {
		return `""`
	}
	d := *p.Default
	if _, err := strconv.ParseFloat(d, 64); err == nil {
		return d
	}
	switch p.Inferred {
	case "Bool", "JsonArray", "JsonObject":
		return d
	}
	return strconv.Quote(dag.Display(d))
}

// misused records the first misuse and stops the evaluation.
func (s *Session) misused(v Runtime, kind MisuseKind) {
	if s.misuse != nil {
		return
	}
	s.misuse = &Misuse{Value: v, Kind: kind, Stack: s.thread.CallStack()}
	if ref := v.Ref(); ref.Kind == dag.RefParam && s.body != nil {
		s.misuse.param = s.body.p.Param(ref.Name)
	}
	s.thread.Cancel("a run-time value was misused")
}

// cannot is the error of an operation that v does not have.
func cannot(v Runtime, format string, args ...any) error {
	return fmt.Errorf("%s%sit cannot %s", v.What(), onlyAtRunTime, fmt.Sprintf(format, args...))
}

// whatRef returns the author's name of a value and what it is.
func whatRef(r dag.Ref) (subject, kind string) {
	switch r.Kind {
	case dag.RefParam:
		return r.String(), "a param"
	case dag.RefOutput:
		return r.String(), fmt.Sprintf("an output of step %q", r.Step)
	case dag.RefOneOf:
		return r.String(), "the output of the branch that ran"
	case dag.RefCollected:
		return r.String(), "the list of the outputs of a loop"
	case dag.RefItem:
		if r.Name != "" {
			return r.String(), "a part of a loop's item"
		}
		return r.String(), "the item of a loop"
	case dag.RefRunID:
		return r.String(), "the id of the run"
	case dag.RefExecutionID:
		return r.String(), "the id of an attempt"
	}
	return r.String(), "the name of the run"
}

// A value is text known only when the pipeline runs: a param, an output, the
// id or name of the run, or text that holds one of these.
type value struct {
	s     *Session
	t     string // with at least one token
	parts *parts // of the item of a loop; nil for all else

	untyped bool // fits every input of a component
}

var _ interface {
	Runtime
	starlark.HasBinary
	starlark.HasUnary
	starlark.HasAttrs
	starlark.Mapping
	starlark.Sliceable
	starlark.Iterable
	starlark.Comparable
	json.Marshaler
} = (*value)(nil)

// ref returns the value that r refers to.
func (s *Session) ref(r dag.Ref) *value { return &value{s: s, t: r.Token()} }

// text returns t as a value, or as a plain string if it holds none.
func (s *Session) text(t string) starlark.Value {
	if !dag.HasRefs(t) {
		return starlark.String(t)
	}
	return &value{s: s, t: t}
}

func (v *value) Ref() dag.Ref {
	refs, _ := dag.Refs(v.t)
	if len(refs) == 0 {
		return dag.Ref{}
	}
	return refs[0]
}

func (v *value) What() string {
	subject, kind := whatRef(v.Ref())
	if _, ok := dag.SoleRef(v.t); ok {
		return subject + " is " + kind
	}
	return "this text holds " + subject + ", " + kind
}

func (v *value) Type() string {
	switch r, _ := dag.SoleRef(v.t); r.Kind {
	case dag.RefParam:
		return "param"
	case dag.RefOutput:
		return "step output"
	case dag.RefItem:
		return "loop item"
	}
	return "text of the run"
}

func (v *value) session() *Session            { return v.s }
func (v *value) String() string               { return v.t }
func (v *value) MarshalJSON() ([]byte, error) { return json.Marshal(v.t) }
func (v *value) Freeze()                      {}
func (v *value) AttrNames() []string {
	if v.parts != nil {
		return v.parts.names
	}
	return nil
}

func (v *value) Truth() starlark.Bool { v.s.misused(v, MisuseTruth); return true }
func (v *value) Hash() (uint32, error) {
	v.s.misused(v, MisuseHash)
	return 0, cannot(v, "be a key")
}
func (v *value) Iterate() starlark.Iterator {
	v.s.misused(v, MisuseLoop)
	return starlark.Tuple(nil).Iterate()
}
func (v *value) Len() int                                  { v.s.misused(v, MisusePart); return 0 }
func (v *value) Index(int) starlark.Value                  { return v }
func (v *value) Slice(start, end, step int) starlark.Value { return v }

func (v *value) Attr(name string) (starlark.Value, error) {
	if name == "ignore_type" && (v.parts == nil || !slices.Contains(v.parts.names, name)) {
		return v.s.builtin(name, func(c *call) (starlark.Value, error) { // v.ignore_type() -> value
			w := *v
			w.untyped = true
			return &w, c.unpack()
		}), nil
	}
	if v.parts != nil {
		return v.part(name)
	}
	if known := v.paramField(name); known != nil {
		return known, nil
	}
	return nil, cannot(v, "be asked for .%s", name)
}

// paramField returns a field that KFP's PipelineParam has and that is known
// now: what a param or output is called. It is nil for all else.
func (v *value) paramField(name string) starlark.Value {
	r, sole := dag.SoleRef(v.t)
	if !sole || r.Kind != dag.RefParam && r.Kind != dag.RefOutput {
		return nil
	}
	full, op := r.Name, starlark.Value(starlark.None)
	if r.Kind == dag.RefOutput {
		full, op = r.Step+"-"+r.Name, starlark.String(r.Step)
	}
	switch name {
	case "full_name":
		return starlark.String(full)
	case "name":
		return starlark.String(r.Name)
	case "op_name":
		return op
	}
	return nil
}
func (v *value) Get(k starlark.Value) (starlark.Value, bool, error) {
	if name, ok := k.(starlark.String); ok && v.parts != nil {
		part, err := v.part(string(name))
		return part, err == nil, err
	}
	return nil, false, cannot(v, "be indexed")
}
func (v *value) Unary(op syntax.Token) (starlark.Value, error) {
	return nil, cannot(v, "be used with %s", op)
}
func (v *value) CompareSameType(syntax.Token, starlark.Value, int) (bool, error) {
	return false, cannot(v, "be compared here")
}

// Binary is + with text; nothing else is known of the value.
func (v *value) Binary(op syntax.Token, y starlark.Value, side starlark.Side) (starlark.Value, error) {
	if op != syntax.PLUS {
		return nil, cannot(v, "be used with %s", op)
	}
	var other string
	switch y := y.(type) {
	case starlark.String:
		other = string(y)
	case *value:
		other = y.t
	default:
		return nil, cannot(v, `be added to a value of type %s: text is added to text, as in "%%s" %% x`, typeName(y))
	}
	if side == starlark.Right {
		return v.s.text(other + v.t), nil
	}
	return v.s.text(v.t + other), nil
}

// A condition is a comparison that holds a run-time value, or several combined.
type condition struct {
	s *Session
	c *dag.Condition
}

var _ Runtime = (*condition)(nil)

func (c *condition) Ref() dag.Ref {
	refs := c.c.Refs()
	if len(refs) == 0 {
		return dag.Ref{}
	}
	return refs[0]
}

// What speaks of the value that the condition compares.
func (c *condition) What() string {
	for _, text := range c.c.Texts() {
		if dag.HasRefs(text) {
			return (&value{s: c.s, t: text}).What()
		}
	}
	return "a condition"
}

func (c *condition) session() *Session     { return c.s }
func (c *condition) String() string        { return c.c.String() }
func (c *condition) Type() string          { return "condition of the run" }
func (c *condition) Freeze()               {}
func (c *condition) Truth() starlark.Bool  { c.s.misused(c, MisuseTruth); return true }
func (c *condition) Hash() (uint32, error) { return 0, cannot(c, "be a key") }

// firstRuntime returns the first run-time value in the values, looking into
// lists, tuples, dicts and structs; nil if there is none.
func firstRuntime(vs ...starlark.Value) Runtime {
	var found Runtime
	f := finder{wanted: func(v starlark.Value) bool {
		switch v := v.(type) {
		case Runtime:
			found = v
		case *object:
			if r := firstRef(v.obj); r.Kind != 0 {
				found = v.s.ref(r)
			}
		case *pipelineVolume:
			if r := firstRef(v.obj); r.Kind != 0 {
				found = v.s.ref(r)
			}
		}
		return found != nil
	}}
	for _, v := range vs {
		if f.in(v) {
			break
		}
	}
	return found
}
