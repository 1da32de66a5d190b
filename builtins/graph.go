package builtins

import (
	"fmt"
	"strings"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/dag"
)

// This file defines graph components: functions recorded once, which may call
// themselves.

// A graph is what graph_component returns.
type graph struct {
	s    *Session
	name string
	fn   *starlark.Function
}

var _ starlark.Callable = (*graph)(nil)

func (g *graph) String() string        { return fmt.Sprintf("<graph component %s>", g.name) }
func (g *graph) Type() string          { return "graph component" }
func (g *graph) Name() string          { return g.name }
func (g *graph) Freeze()               {}
func (g *graph) Truth() starlark.Bool  { return true }
func (g *graph) Hash() (uint32, error) { return starlark.String(g.name).Hash() }

// graphComponent: graph_component(fn, name=None) -> fn
//
// Makes a function a group that is recorded once and may call itself: `flip
// = graph_component(flip)`. Its arguments are values of the run; the name is
// by default that of the function.
func (s *Session) graphComponent(c *call) (starlark.Value, error) {
	var fn *starlark.Function
	var name *string
	if err := c.unpack("fn", &fn, "name??", optional(&name)); err != nil {
		return nil, err
	}
	g := &graph{s: s, fn: fn, name: strings.TrimLeft(fn.Name(), "_")}
	if name != nil {
		g.name = *name
	}
	if dag.K8sName(g.name) == "" {
		return nil, c.errorf("name", "graph_component: name %q: want at least one ASCII letter or digit", g.name)
	}
	if fn.HasVarargs() || fn.HasKwargs() {
		return nil, c.errorf("fn", "graph component %s has *args or **kwargs: want each argument by its name", fn.Name())
	}
	return g, nil
}

// CallInternal records the function's steps as a group; inside that group, it
// records another round of it.
func (g *graph) CallInternal(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	c := &call{s: g.s, name: g.name, pos: g.s.caller(thread), args: args, kwargs: kwargs}
	b, err := c.inBody()
	if err != nil {
		return nil, err
	}
	values, err := g.bind(c)
	if err != nil {
		return nil, err
	}
	bl := &block{s: g.s, word: g.name, pos: c.pos, used: true, item: starlark.None,
		g: &dag.Group{Kind: dag.GroupGraph, Pos: c.pos, Args: values}}
	for _, open := range b.stack {
		if b.graphs[open] == g {
			bl.g.Kind, bl.g.Calls = dag.GroupCall, open.Name
			b.openGroup(bl.g, g.name)
			b.close(bl)
			return bl, nil
		}
	}
	b.openGroup(bl.g, g.name)
	b.graphs[bl.g] = g
	_, err = starlark.Call(thread, g.fn, args, kwargs)
	b.close(bl)
	return bl, err
}

// bind returns the values that the call passes, by the function's arguments.
func (g *graph) bind(c *call) ([]dag.Arg, error) {
	var names []string
	given := map[string]starlark.Value{}
	for i := range g.fn.NumParams() {
		name, _ := g.fn.Param(i)
		names = append(names, name)
	}
	if len(c.args) > len(names) {
		return nil, c.errorf("", "graph component %s takes %d values, got %d", g.name, len(names), len(c.args))
	}
	for i, v := range c.args {
		given[names[i]] = v
	}
	for _, kw := range c.kwargs {
		given[string(kw[0].(starlark.String))] = kw[1]
	}
	var values []dag.Arg
	for _, name := range names {
		v, ok := given[name]
		if !ok {
			continue // the call of the function says what is missing
		}
		r, isValue := v.(*value)
		if !isValue {
			return nil, c.errorf(name, "graph component %s: want a param, an output or another value of the run for %q, got %s", g.name, name, typeName(v))
		}
		if _, sole := dag.SoleRef(r.t); !sole {
			return nil, c.errorf(name, "graph component %s: %s: want a value alone for %q", g.name, r.What(), name)
		}
		values = append(values, dag.Arg{Name: name, Value: r.t})
	}
	return values, nil
}
