package builtins

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/builtins/component"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
)

// This file defines graphs of components, whose tasks become steps of the
// pipeline.

// makeGraph makes the steps of a graph.
func (f *factory) makeGraph(c *call, b *body, given map[string]starlark.Value, depth int) (starlark.Value, error) {
	if err := c.feed(b); err != nil { // a graph of graphs may be large without a step
		return nil, err
	}
	b.fed--
	for i := range f.spec.Inputs {
		in := &f.spec.Inputs[i]
		v, ok := given[in.Name]
		switch {
		case !ok && in.Default != nil:
			given[in.Name] = constant(in.Default)
		case ok && c.noValue(fmt.Sprintf("input %q of %s", in.Name, f.title()), f.keyword[in.Name], v) != nil:
			given[in.Name] = starlark.String("") // so that one fault is not reported as two
		case v == starlark.None && in.Optional:
			delete(given, in.Name)
		}
	}
	results := map[string]starlark.Value{} // of tasks
	resolve := func(a component.Argument) (starlark.Value, error) {
		switch {
		case a.Input != "":
			return given[a.Input], nil
		case a.Task == "":
			return constant(a.Value), nil
		}
		out, err := outputOf(results[a.Task], a.Output)
		if err != nil {
			return nil, c.errorf("", "%s: %v", f.from.place(a.Line), err)
		}
		return out, nil
	}
	for _, t := range f.spec.Graph.Tasks {
		var of *factory
		if t.Spec != nil {
			of = newFactory(f.s, t.Spec, f.from, t.Ref)
		} else {
			var err error
			if of, err = f.s.loadURL(c, f.from.arg, t.URL); err != nil {
				return nil, err
			}
			if digest, ok := t.Ref.Get("digest").(string); ok && !of.unknown && digest != of.spec.Digest {
				return nil, c.errorf("", "%s: task %q wants %s with the digest %s: its digest is %s", f.from.place(t.Line), t.ID, t.URL, digest, of.spec.Digest)
			}
			of.ref = t.Ref
		}
		values := map[string]starlark.Value{}
		for _, a := range t.Arguments {
			v, err := resolve(a)
			if err != nil {
				return nil, err
			}
			if of.spec.Input(a.Name) == nil && !of.unknown {
				return nil, c.errorf("", "%s: task %q has no input %q", f.from.place(a.Line), t.ID, a.Name)
			}
			if v != nil {
				values[a.Name] = v
			}
		}
		v, err := of.make(c, b, values, depth+1)
		if err != nil {
			return nil, err
		}
		if st, ok := v.(*step); ok {
			if t.MaxRetries != nil && *t.MaxRetries > 0 {
				st.d.Retry = &dag.Retry{Limit: strconv.Itoa(*t.MaxRetries)}
			}
			if t.MaxCacheStaleness != "" {
				st.d.MaxCacheStaleness = t.MaxCacheStaleness
			}
		}
		results[t.ID] = v
	}
	m := &made{title: f.title(), outputs: map[string]starlark.Value{}, aliases: map[string]string{}}
	for _, a := range f.spec.Graph.Outputs {
		v, err := resolve(a)
		if err != nil {
			return nil, err
		}
		if v != nil {
			m.names = append(m.names, a.Name)
			m.outputs[a.Name] = v
		}
	}
	for name, form := range pythonNames(m.names) {
		m.aliases[form] = name
	}
	return m, nil
}

// outputOf returns an output of what a component made.
func outputOf(v starlark.Value, name string) (starlark.Value, error) {
	var outs starlark.Mapping
	switch v := v.(type) {
	case *step:
		outs = &outputs{v}
	case *made:
		outs = (*madeOutputs)(v)
	default:
		return nil, fmt.Errorf("no task has made output %q yet", name)
	}
	out, _, err := outs.Get(starlark.String(name))
	return out, err
}

// A made is what a graph component returns: the outputs of its steps.
type made struct {
	title   string
	names   []string // of outputs, in their order
	outputs map[string]starlark.Value
	aliases map[string]string // other names of outputs
}

var _ starlark.HasAttrs = (*made)(nil)

func (m *made) String() string       { return "<steps of " + m.title + ">" }
func (m *made) Type() string         { return "graph of components" }
func (m *made) Freeze()              {}
func (m *made) Truth() starlark.Bool { return true }
func (m *made) Hash() (uint32, error) {
	return 0, fmt.Errorf("the steps of a component cannot be a key")
}
func (m *made) AttrNames() []string { return []string{"output", "outputs"} }

func (m *made) Attr(name string) (starlark.Value, error) {
	switch {
	case name == "outputs":
		return (*madeOutputs)(m), nil
	case name == "output" && len(m.names) == 1:
		return m.outputs[m.names[0]], nil
	case name == "output":
		return nil, fmt.Errorf("%s has %d outputs: write .outputs[NAME]", m.title, len(m.names))
	}
	return nil, noAttr("what a graph of components returns", name, m.AttrNames())
}

// madeOutputs are the outputs of a graph component, by name.
type madeOutputs made

var _ starlark.IterableMapping = (*madeOutputs)(nil)

func (o *madeOutputs) String() string        { return "<outputs of " + o.title + ">" }
func (o *madeOutputs) Type() string          { return "outputs" }
func (o *madeOutputs) Freeze()               {}
func (o *madeOutputs) Truth() starlark.Bool  { return len(o.names) > 0 }
func (o *madeOutputs) Hash() (uint32, error) { return 0, fmt.Errorf("outputs cannot be a key") }

func (o *madeOutputs) Get(k starlark.Value) (starlark.Value, bool, error) {
	name, ok := k.(starlark.String)
	if !ok {
		return nil, false, fmt.Errorf("outputs of %s: want the name of an output, got %s", o.title, typeName(k))
	}
	for _, n := range []string{string(name), o.aliases[string(name)]} {
		if v := o.outputs[n]; v != nil {
			return v, true, nil
		}
	}
	msg := fmt.Sprintf("%s has no output %q", o.title, string(name))
	if hint := spell.DidYouMean(string(name), o.names); hint != "" {
		msg += ": " + hint
	} else if len(o.names) > 0 {
		msg += ": its outputs are " + strings.Join(quoted(o.names), ", ")
	}
	return nil, false, errors.New(msg)
}

func (o *madeOutputs) Items() []starlark.Tuple {
	var items []starlark.Tuple
	for _, name := range o.names {
		items = append(items, starlark.Tuple{starlark.String(name), o.outputs[name]})
	}
	return items
}

func (o *madeOutputs) Iterate() starlark.Iterator {
	var keys starlark.Tuple
	for _, name := range o.names {
		keys = append(keys, starlark.String(name))
	}
	return keys.Iterate()
}
