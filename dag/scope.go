package dag

import "fmt"

// This file defines which values a place in a pipeline can use.

// scope checks the values that a step or group uses: outputs of steps that run
// whenever it does, and items of the loops around it.
func (v *validator) scope(t *tree, id int, pos Pos, what string, refs []Ref) {
	for _, r := range refs {
		if r.Kind == RefItem && !t.inLoop(id, r.Step) {
			v.fault(pos, "%s uses the item of a loop outside of the loop", what)
		}
		if r.Kind == RefOneOf {
			v.exclusive(t, pos, what, r)
		}
		for _, o := range r.Outputs() {
			if from, ok := t.index[o.Step]; ok && from < len(v.p.Steps) {
				v.outputScope(t, id, from, pos, what, r, o)
			}
		}
	}
}

// exclusive checks that of the outputs of a one_of only one can be there.
func (v *validator) exclusive(t *tree, pos Pos, what string, r Ref) {
	ok, known := v.exclusives[r]
	if !known {
		ok = t.exclusive(r.Outputs())
		v.exclusives[r] = ok
	}
	if !ok {
		v.fault(pos, "%s uses %s, but both steps can run", what, r).Hint =
			"one_of takes outputs of steps in different branches: condition, elif_condition and else_condition behind each other"
	}
}

// exclusive reports whether each two outputs stand in different branches of one
// chain of conditions.
func (t *tree) exclusive(outputs []Ref) bool {
	for i, o := range outputs {
		for _, other := range outputs[:i] {
			a, ok1 := t.index[other.Step]
			b, ok2 := t.index[o.Step]
			if !ok1 || !ok2 {
				continue
			}
			a, b = t.siblings(a, b)
			if n := len(t.p.Steps); a == b || a < n || b < n || t.p.Groups[a-n].Chain == "" || t.p.Groups[a-n].Chain != t.p.Groups[b-n].Chain {
				return false
			}
		}
	}
	return true
}

// outputScope reports an output of a step that may not run, or runs several
// times, where it is used outside of the block that says so. The value r is
// the output o, or made of it.
func (v *validator) outputScope(t *tree, id, from int, pos Pos, what string, r, o Ref) {
	if from != id && v.exit != "" && t.p.Steps[from].Name == v.exit {
		v.fault(pos, "%s uses %s, but step %q runs last, when the pipeline is over", what, r, o.Step)
		return
	}
	a, _ := t.siblings(from, id)
	loops, branches := 0, 0
	for g := t.parent[from]; g >= 0 && g != t.parent[a]; g = t.parent[g] {
		group := t.p.Groups[g-len(t.p.Steps)]
		var why, hint string
		switch group.Kind {
		case GroupCondition:
			if branches++; r.Kind == RefOneOf && branches == 1 {
				continue
			}
			why = fmt.Sprintf("step %q runs only if %s", o.Step, group.Condition)
			hint = "one_of(...) is the output of whichever branch ran; or move what uses it into the block"
		case GroupLoop:
			if loops++; r.Kind == RefCollected && loops == 1 {
				continue
			}
			why = fmt.Sprintf("step %q runs once for each item of a loop", o.Step)
			hint = "collected(...) is the list of all; or move what uses it into the loop"
			if loops > 1 && r.Kind == RefCollected {
				hint = "collected(...) is the list of one loop: let a step in the loop around it take that list, and collect what that step writes"
			}
		default:
			continue
		}
		v.fault(pos, "%s uses %s outside of the block at %s: %s", what, r, group.Pos, why).Hint = hint
		return
	}
	if r.Kind == RefCollected && loops == 0 {
		v.fault(pos, "%s uses %s, but step %q stands in no loop that is over by then", what, r, o.Step)
	}
}

// inLoop reports whether a step or group stands in a loop whose items have the
// name.
func (t *tree) inLoop(id int, item string) bool {
	for g := t.parent[id]; g >= 0; g = t.parent[g] {
		if l := t.p.Groups[g-len(t.p.Steps)].Loop; l != nil && l.Item == item {
			return true
		}
	}
	return false
}

// scopes checks the groups of the pipeline, and what is used across them.
func (v *validator) scopes(t *tree) {
	p := v.p
	for _, g := range p.Groups {
		if g.Kind == GroupExitHandler {
			v.exit = g.Exit
		}
	}
	for i, s := range p.Steps {
		v.about = s.Name
		refs := t.refsOf(i)
		if v.exit != "" && s.Name == v.exit {
			v.exitStep(s, refs)
			continue
		}
		v.scope(t, i, s.Pos, fmt.Sprintf("step %q", s.Name), refs)
		v.after(t, i, s.After, fmt.Sprintf("step %q", s.Name))
	}
	for k, g := range p.Groups {
		id, what := len(p.Steps)+k, fmt.Sprintf("block %q", g.Name)
		v.about = g.Name
		v.after(t, id, g.After, what)
		refs := g.Refs()
		v.scope(t, id, g.Pos, what, refs)
		v.groupRefs(g, what, refs)
		v.recursion(g)
		if len(t.kids[k]) == 0 && g.Kind != GroupCall && len(p.Steps) > 0 {
			v.fault(g.Pos, "block %q has no steps", g.Name).Hint = "Argo refuses a block with nothing in it: leave the block out, or give it a step"
		}
	}
}

// after checks that a step or group does not come after what it stands in, or
// after the exit handler's step.
func (v *validator) after(t *tree, id int, edges []Edge, what string) {
	for _, e := range edges {
		other, ok := t.index[e.Step]
		switch {
		case !ok:
			if id >= len(v.p.Steps) {
				v.fault(e.Pos, "%s needs unknown step %q", what, e.Step)
			}
		case other != id && (t.contains(other, id) || t.contains(id, other)):
			v.fault(e.Pos, "%s cannot come after %q: one stands in the other", what, e.Step)
		case e.Step == v.exit && v.exit != "":
			v.fault(e.Pos, "%s cannot come after step %q, which runs last, when the pipeline is over", what, e.Step)
		}
	}
}

// recursion reports a call of a graph inside itself that nothing decides: it
// would never end.
func (v *validator) recursion(g *Group) {
	if g.Kind != GroupCall {
		return
	}
	for around := v.groups[g.Group]; around != nil; around = v.groups[around.Group] {
		switch {
		case around.Kind == GroupCondition, around.Kind == GroupLoop && around.Loop.From != "":
			return // a list known only at run time may be empty
		case around.Name == g.Calls:
			v.fault(g.Pos, "this call of a graph component inside itself would never end: each round calls the next").Hint =
				"let a condition inside the graph component decide whether there is another round:  for _ in condition(...):"
			return
		}
	}
}

// groupRefs checks that the values a group uses exist.
func (v *validator) groupRefs(g *Group, what string, refs []Ref) {
	for _, r := range refs {
		switch r.Kind {
		case RefParam:
			if !v.params[r.Name] {
				v.fault(g.Pos, "%s: unknown param %q", what, r.Name)
			}
		}
		for _, o := range r.Outputs() {
			if from := v.steps[o.Step]; from == nil || from.Output(o.Name) == nil {
				v.fault(g.Pos, "%s: unknown output %s", what, o)
			}
		}
	}
}

// exitStep checks the step of an exit handler.
func (v *validator) exitStep(s *Step, refs []Ref) {
	for _, e := range s.After {
		v.fault(e.Pos, "step %q of the exit_handler cannot depend on other steps: it runs last, whatever happened", s.Name)
	}
	for _, r := range refs {
		switch {
		case r.Outputs() != nil:
			v.fault(s.Pos, "step %q of the exit_handler uses %s: it runs whatever happened, so it can use params only", s.Name, r)
		case r.Kind == RefItem:
			v.fault(s.Pos, "step %q of the exit_handler uses the item of a loop", s.Name)
		}
	}
	if s.Group != "" {
		v.fault(s.Pos, "step %q of the exit_handler stands in a block: make it outside", s.Name)
	}
}
