package builtins

import (
	"slices"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/dag"
)

// This file refuses values that outlive the block that set them: the body of a
// condition or loop is evaluated once, whether or not and however often it
// will run, so what it sets a variable to is no answer after it.
//
// Package interp gives each variable that may do so a companion, the block
// that was open when it was set, and lets its reads ask. What such a variable
// holds may be changed instead: interp tells of what is put into it.

// SetName, GetName and IntoName are the names under which the environment
// holds the functions that give a variable's companion, "set"(), that read a
// variable, "get"(VALUE, COMPANION, NAME), also one whose value is to be
// changed, "get"(VALUE, COMPANION, NAME, True), and that pass on what is put
// into one, "into"(VALUE, NEW).
const (
	SetName  = "set by"
	GetName  = "get what was set by"
	IntoName = "put into"
)

func (s *Session) outliving() {
	s.env[SetName] = starlark.NewBuiltin(SetName, func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error) {
		if s.body == nil || len(s.body.open) == 0 {
			return starlark.None, nil
		}
		return s.body.open[len(s.body.open)-1], nil
	})
	s.env[GetName] = starlark.NewBuiltin(GetName, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
		if s.body == nil {
			return args[0], nil
		}
		name, _ := starlark.AsString(args[2])
		c := &call{s: s, name: name, pos: s.caller(thread)}
		if setter, ok := args[1].(*block); ok && c.outlived(setter, args[0]) {
			return args[0], nil
		}
		if by := s.body.changed[changeable(args[0])]; by != nil && len(args) == 3 {
			c.outlivedChange(by)
		}
		return args[0], nil
	})
	s.env[IntoName] = starlark.NewBuiltin(IntoName, func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
		if s.body != nil {
			s.body.putInto(args[0], args[1])
		}
		return args[1], nil
	})
}

// changeable returns a value that can be changed, as a key; nil for others.
func changeable(v starlark.Value) any {
	switch v.(type) {
	case *starlark.List, *starlark.Dict, *starlark.Set:
		return v
	}
	return nil
}

// putInto notes which block changes a list, dict or set by something that is
// not its own, as its steps are.
func (b *body) putInto(to, v starlark.Value) {
	key := changeable(to)
	if key == nil || len(b.open) == 0 {
		return
	}
	for in := b.open[len(b.open)-1]; in != nil; in = in.outer {
		if in.decides() && !in.members(b).has(v) {
			if b.changed == nil {
				b.changed = map[any]*block{}
			}
			b.changed[key] = in
			return
		}
	}
}

// decides reports whether the block's steps may not run, or several times.
func (bl *block) decides() bool {
	return bl.g.Kind == dag.GroupCondition || bl.g.Kind == dag.GroupLoop
}

// members asks what belongs to the block.
func (bl *block) members(b *body) *member {
	if bl.inside == nil {
		bl.inside = &member{b: b, group: bl.g}
	}
	return bl.inside
}

// outlived reports a variable whose value was set in a condition or loop that
// is over, unless it belongs to that block as its steps do.
func (c *call) outlived(setter *block, v starlark.Value) bool {
	b := c.s.body
	for over := setter; over != nil && !slices.Contains(b.open, over); over = over.outer {
		if over.decides() && !over.members(b).has(v) {
			c.outlives(over, "set", "it is the value of none", "it would have this value always")
			return true
		}
	}
	return false
}

// outlivedChange reports a variable whose value was changed in a block, if that
// is over.
func (c *call) outlivedChange(by *block) {
	if !slices.Contains(c.s.body.open, by) {
		c.outlives(by, "changed", "it would hold what was put into it once", "it would hold what was put into it always")
	}
}

// outlives reports how a variable came by what it is after a loop, or always is
// after a condition.
func (c *call) outlives(over *block, how, loop, always string) {
	if over.g.Kind == dag.GroupLoop {
		e := c.report("", "%s was %s in the loop at %s, whose body is evaluated once for all items: after the loop %s", c.name, how, over.pos, loop)
		e.Hint = "use it inside the loop; or let a step write it:  collected(step.output)  is the list of a loop's outputs"
		return
	}
	e := c.report("", "%s was %s in the block at %s, whose body is evaluated whether or not it will run: after the block %s", c.name, how, over.pos, always)
	e.Hint = "use it inside the block; or let a step of each branch write it:  one_of(a.output, b.output)  is that of whichever ran;\nto decide while the script is evaluated, write  if  and a config(...)"
}

// A member asks whether values belong to a group: its steps and blocks, their
// outputs, and what only holds such. Where else than in the group these may be
// used is checked when the pipeline is whole.
type member struct {
	b      *body
	group  *dag.Group
	looked finder // for what does not belong; each container is looked into once
}

// holds reports whether the step or group of the name stands in the group, or
// is it.
func (m *member) holds(name string) bool {
	for name != "" && name != m.group.Name {
		name = m.b.parents[name]
	}
	return name != ""
}

// holdsAny reports whether one of the values is of the group.
func (m *member) holdsAny(refs []dag.Ref) bool {
	return slices.ContainsFunc(refs, func(r dag.Ref) bool {
		if r.Kind == dag.RefItem {
			return !m.b.inLoop(r.Step) // that is a fault where it is used
		}
		return slices.ContainsFunc(r.Outputs(), func(o dag.Ref) bool { return m.holds(o.Step) })
	})
}

// has reports whether a value belongs to the group.
func (m *member) has(v starlark.Value) bool {
	m.looked.wanted = func(v starlark.Value) bool { return Inside(v, false) == nil && !m.hasOne(v) }
	if m.looked.in(v) || m.looked.gaveUp {
		clear(m.looked.seen) // not all of these belong
		return false
	}
	return true
}

// hasOne is has for a value that is no container.
func (m *member) hasOne(v starlark.Value) bool {
	switch v := v.(type) {
	case *step:
		return m.holds(v.d.Name)
	case *container:
		return m.holds(v.st.d.Name)
	case *outputs:
		return m.holds(v.st.d.Name)
	case *block:
		return m.holds(v.g.Name)
	case *value:
		refs, _ := dag.Refs(v.t)
		return m.holdsAny(refs)
	case *condition:
		return m.holdsAny(v.c.Refs())
	case *object:
		return m.holdsAny(treeRefs(v.obj))
	case *pipelineVolume:
		return m.holdsAny(treeRefs(v.obj)) || slices.ContainsFunc(v.after, func(e dag.Edge) bool { return m.holds(e.Step) })
	}
	return false
}
