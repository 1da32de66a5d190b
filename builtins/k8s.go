package builtins

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
	"github.com/kfs-project/kfs/kube"
)

// This file defines the objects of Kubernetes.

// k8s is the word k8s: its attributes are functions that make objects, one for
// each type of core/v1, with or without the prefix V1.
type k8s struct{ s *Session }

var _ starlark.HasAttrs = k8s{}

func (k8s) String() string        { return "<the objects of Kubernetes>" }
func (k8s) Type() string          { return "k8s" }
func (k8s) Freeze()               {}
func (k8s) Truth() starlark.Bool  { return true }
func (k8s) Hash() (uint32, error) { return starlark.String("k8s").Hash() }
func (k8s) AttrNames() []string   { return kube.ObjectTypes() }

func (k k8s) Attr(name string) (starlark.Value, error) {
	t := kube.TypeOf(name)
	if t == nil || t.Values != nil {
		msg := fmt.Sprintf("k8s has no type %q", name)
		switch hint := spell.DidYouMean(strings.TrimPrefix(name, "V1"), kube.ObjectTypes()); {
		case t != nil:
			msg += ": write the text itself, one of " + strings.Join(quoted(t.Values), ", ")
		case hint != "":
			msg += ": " + hint
		}
		return nil, fmt.Errorf("%s", msg)
	}
	return k.s.builtin("k8s."+t.Name, func(c *call) (starlark.Value, error) { return c.newObject(t) }), nil
}

// newObject: k8s.TYPE(field=value, ...) -> object
//
// An object of Kubernetes, see [below](#kubernetes-objects).
func (c *call) newObject(t *kube.Type) (starlark.Value, error) {
	if len(c.args) > 0 {
		e := c.errorf("", "%s takes no positional arguments: want the fields by their names", c.name)
		if len(t.Fields) > 0 {
			e.Hint = fmt.Sprintf("write  %s(%s = ...)", c.name, kube.Snake(firstField(t)))
		}
		return nil, e
	}
	var fields dag.Object
	nodes, unfit := 0, false
	for _, kw := range c.kwargs {
		name := string(kw[0].(starlark.String))
		tree, err := k8sTreeDepth(kw[1], 0, &nodes)
		if err != nil {
			c.report(name, "%s, %s: %v", c.name, name, err)
			unfit = true
		}
		fields = append(fields, dag.Member{Name: name, Value: tree})
	}
	if unfit {
		return &object{s: c.s, typ: t}, nil
	}
	fitted, faults := kube.Fit(t.Name, fields)
	c.reportFaults("", faults)
	obj, _ := fitted.(dag.Object)
	return &object{c.s, t, obj.Sorted(), nodes}, nil
}

// firstField returns the field that an author would write first.
func firstField(t *kube.Type) string {
	if t.Field("name") != nil {
		return "name"
	}
	for _, f := range t.Fields {
		if f.Required {
			return f.Name
		}
	}
	return t.Fields[0].Name
}

// reportFaults reports why an argument does not fit; arg is its keyword, or ""
// if the paths begin with the keyword.
func (c *call) reportFaults(arg string, faults []kube.Fault) {
	for _, f := range faults {
		path := f.Path
		switch {
		case arg == "":
		case path == "" || path[0] == '[':
			path = arg + path
		default:
			path = arg + "." + path
		}
		where := c.name
		switch {
		case c.name == arg: // an assignment
			where = path
		case path != "":
			where += ", " + path
		}
		e := c.report(path, "%s: %s", where, f.Msg)
		e.Hint = f.Hint
		if path == "" {
			e.Arg = f.Field
		} else if i := strings.IndexAny(path, ".["); i >= 0 {
			e.Arg = path[:i]
			if n, err := strconv.Atoi(firstIndex(path[i:])); err == nil {
				e.Elem = n + 1
			}
		}
	}
}

// firstIndex returns what stands in the brackets that path begins with.
func firstIndex(path string) string {
	index, _, _ := strings.Cut(strings.TrimPrefix(path, "["), "]")
	return index
}

// fit returns an argument as the tree that a field of Kubernetes holds (see
// kube.Fit), without what does not fit, which it reports.
func (c *call) fit(arg, holds string, v starlark.Value) any {
	tree, err := k8sTree(v)
	if err != nil {
		c.report(arg, "%s, %s: %v", c.name, arg, err)
		return nil
	}
	fitted, faults := kube.Fit(holds, tree)
	c.reportFaults(arg, faults)
	return fitted
}

// fitObject is fit for an argument that is one object.
func (c *call) fitObject(arg, typ string, v starlark.Value) dag.Object {
	obj, _ := c.fit(arg, typ, v).(dag.Object)
	return obj
}

// fitObjects is fit for an argument that is a list of objects.
func (c *call) fitObjects(arg, typ string, v starlark.Value) []dag.Object {
	list, _ := c.fit(arg, "[]"+typ, v).([]any)
	var objs []dag.Object
	for _, e := range list {
		if o, ok := e.(dag.Object); ok {
			objs = append(objs, o)
		}
	}
	return objs
}

// k8sTree is toJSON with the types of objects.
func k8sTree(v starlark.Value) (any, error) {
	nodes := 0
	return k8sTreeDepth(v, 0, &nodes)
}

func k8sTreeDepth(v starlark.Value, depth int, nodes *int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("lists and dicts are nested more than %d deep", maxDepth)
	}
	*nodes++
	if o, ok := v.(*object); ok {
		*nodes += o.nodes
	}
	if *nodes > maxNodes {
		return nil, fmt.Errorf("lists, dicts and objects hold more than %d values", maxNodes)
	}
	switch v := v.(type) {
	case *object:
		return kube.Typed{Type: v.typ.Name, Object: v.obj}, nil
	case *pipelineVolume:
		return kube.Typed{Type: "Volume", Object: v.obj}, nil
	case *starlark.Dict:
		obj := dag.Object{}
		for k, e := range v.Entries() {
			name, ok := scalarText(k)
			if !ok {
				return nil, fmt.Errorf("a dict's key is %s: want a string", kind(k))
			}
			tree, err := k8sTreeDepth(e, depth+1, nodes)
			if err != nil {
				return nil, err
			}
			obj = append(obj, dag.Member{Name: name, Value: tree})
		}
		return obj, nil
	case *starlark.List, starlark.Tuple:
		list := []any{}
		for e := range starlark.Elements(v.(starlark.Iterable)) {
			tree, err := k8sTreeDepth(e, depth+1, nodes)
			if err != nil {
				return nil, err
			}
			list = append(list, tree)
		}
		return list, nil
	case *value, starlark.NoneType, starlark.Bool, starlark.String, starlark.Int, starlark.Float:
		return toJSON(v)
	case *starlark.Builtin, *starlark.Function:
		return nil, fmt.Errorf("got the function %s: is it to be called?", v.(starlark.Callable).Name())
	case *step:
		return nil, fmt.Errorf("got the step %q: want text or an output", v.d.Name)
	}
	return nil, fmt.Errorf("got %s: want text, a number, True, False, a list, a dict or an object of k8s", kind(v))
}

// An object is an object of Kubernetes. It cannot be changed.
type object struct {
	s   *Session
	typ *kube.Type
	obj dag.Object // sorted by name, as Kubernetes' Python client writes it

	nodes int // values it holds, shared ones counted each time
}

var _ interface {
	starlark.HasSetField
	starlark.Comparable
	json.Marshaler
} = (*object)(nil)

func (o *object) Type() string                 { return "k8s." + o.typ.Name }
func (o *object) Freeze()                      {}
func (o *object) Truth() starlark.Bool         { return true }
func (o *object) MarshalJSON() ([]byte, error) { return o.obj.MarshalJSON() }
func (o *object) Hash() (uint32, error) {
	return 0, fmt.Errorf("a k8s.%s cannot be a key or an element of a set", o.typ.Name)
}

func (o *object) SetField(name string, _ starlark.Value) error {
	return fmt.Errorf("a k8s.%s cannot be changed: make a new one with the %s that is wanted", o.typ.Name, name)
}

// String returns the call that makes the object.
func (o *object) String() string {
	var b strings.Builder
	b.WriteString("k8s." + o.typ.Name + "(")
	for i, m := range o.obj {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(kube.Snake(m.Name) + " = " + o.member(m).String())
	}
	b.WriteString(")")
	return dag.Display(b.String())
}

func (o *object) AttrNames() []string {
	var names []string
	for _, f := range o.typ.Fields {
		names = append(names, kube.Snake(f.Name))
	}
	slices.Sort(names)
	return names
}

// Attr returns the value of a field; None if it is not set.
func (o *object) Attr(name string) (starlark.Value, error) {
	f := o.typ.Field(name)
	if f == nil {
		return nil, noAttr("a k8s."+o.typ.Name, name, o.AttrNames())
	}
	for _, m := range o.obj {
		if m.Name == f.Name {
			return o.member(m), nil
		}
	}
	return starlark.None, nil
}

func (o *object) member(m dag.Member) starlark.Value {
	holds := "any"
	if f := o.typ.Field(m.Name); f != nil {
		holds = f.Type
	}
	return o.s.fromTree(holds, m.Value)
}

// fromTree returns a tree as a frozen Starlark value: objects of known types
// as such, what is known only at run time as a value.
func (s *Session) fromTree(holds string, tree any) starlark.Value {
	switch tree := tree.(type) {
	case string:
		return s.text(tree)
	case bool:
		return starlark.Bool(tree)
	case int64:
		return starlark.MakeInt64(tree)
	case float64:
		return starlark.Float(tree)
	case []any:
		elem := strings.TrimPrefix(holds, "[]")
		var list []starlark.Value
		for _, e := range tree {
			list = append(list, s.fromTree(elem, e))
		}
		l := starlark.NewList(list)
		l.Freeze()
		return l
	case dag.Object:
		if t := kube.TypeOf(holds); t != nil && t.Values == nil {
			return &object{s: s, typ: t, obj: tree, nodes: countNodes(tree)}
		}
		elem := strings.TrimPrefix(holds, "{}")
		d := starlark.NewDict(len(tree))
		for _, m := range tree {
			d.SetKey(starlark.String(m.Name), s.fromTree(elem, m.Value))
		}
		d.Freeze()
		return d
	}
	return starlark.None
}

func countNodes(tree any) int {
	n := 1
	switch tree := tree.(type) {
	case dag.Object:
		for _, m := range tree {
			n += countNodes(m.Value)
		}
	case []any:
		for _, e := range tree {
			n += countNodes(e)
		}
	}
	return n
}

// CompareSameType compares by content.
func (o *object) CompareSameType(op syntax.Token, y starlark.Value, _ int) (bool, error) {
	same := o.typ.Name == y.(*object).typ.Name && equalTrees(o.obj, y.(*object).obj)
	switch op {
	case syntax.EQL:
		return same, nil
	case syntax.NEQ:
		return !same, nil
	}
	return false, fmt.Errorf("objects of k8s have no order: want == or !=")
}

// equalTrees reports whether two trees are equal, whatever the order of the
// members of their objects.
func equalTrees(x, y any) bool { return dag.PythonJSON(x) == dag.PythonJSON(y) }

// firstRef returns the first value known only at run time in a tree.
func firstRef(tree any) (first dag.Ref) {
	if refs := treeRefs(tree); len(refs) > 0 {
		first = refs[0]
	}
	return first
}

// treeRefs returns the values known only at run time in a tree, in order.
func treeRefs(tree any) []dag.Ref {
	var refs []dag.Ref
	dag.WalkText(tree, func(_ *dag.Field, text string) { refs = append(refs, refsOf(text)...) })
	return refs
}
