package dag

import (
	"cmp"
	"container/heap"
	"fmt"
	"slices"
	"strings"
)

// This file defines the edges between steps and their order.

// Edges returns, for each step by name, the names of the steps that it needs,
// for their outputs or only for order: each once, in the order of the script.
// What a group needs, each step in it needs; what needs a group needs each
// step in it.
func (p *Pipeline) Edges() map[string][]string {
	t := newTree(p)
	edges := make(map[string][]string, len(p.Steps))
	for i, s := range p.Steps {
		var needs []int
		for id := i; id >= 0; id = t.parent[id] {
			for _, e := range t.needs(id) {
				if need, ok := t.index[e.Step]; ok && !t.contains(need, i) {
					needs = t.steps(needs, need)
				}
			}
		}
		slices.Sort(needs)
		var names []string
		for _, j := range slices.Compact(needs) {
			names = append(names, p.Steps[j].Name)
		}
		edges[s.Name] = names
	}
	return edges
}

// Members returns the steps and groups that stand in each group, by name, in
// the order of the script; those of "" stand in the pipeline itself.
func (p *Pipeline) Members() map[string][]string {
	t := newTree(p)
	places := t.places()
	ids := make([]int, len(t.parent))
	for i := range ids {
		ids[i] = i
	}
	slices.SortStableFunc(ids, func(a, b int) int { return cmp.Compare(places[a], places[b]) })
	members := map[string][]string{}
	for _, id := range ids {
		group := ""
		if t.parent[id] >= 0 {
			group = t.name(t.parent[id])
		}
		members[group] = append(members[group], t.name(id))
	}
	return members
}

// Needs returns what each step and group needs among the members of its own
// group: an edge between two steps joins the members that they are, or stand
// in.
func (p *Pipeline) Needs() map[string][]string {
	t := newTree(p)
	needs := map[string][]string{}
	for id, edges := range t.lift() {
		for _, e := range edges {
			needs[t.name(id)] = append(needs[t.name(id)], t.name(e.need))
		}
	}
	return needs
}

// A tree is the steps and groups of a pipeline, by number: first the steps,
// then the groups.
type tree struct {
	p      *Pipeline
	index  map[string]int // by name
	parent []int          // -1 is the pipeline itself
	refs   [][]Ref        // that steps use, once they were asked for
	kids   [][]int        // of groups, steps and groups alike
}

func newTree(p *Pipeline) *tree {
	n := len(p.Steps)
	t := &tree{p: p, index: make(map[string]int, n+len(p.Groups)), parent: make([]int, n+len(p.Groups)), kids: make([][]int, len(p.Groups))}
	for i, s := range p.Steps {
		t.index[s.Name] = i
	}
	for k, g := range p.Groups {
		t.index[g.Name] = n + k
	}
	put := func(id int, group string) {
		t.parent[id] = -1
		if g, ok := t.index[group]; ok && g >= n && g != id {
			t.parent[id] = g
			t.kids[g-n] = append(t.kids[g-n], id)
		}
	}
	for i, s := range p.Steps {
		put(i, s.Group)
	}
	for k, g := range p.Groups {
		put(n+k, g.Group)
	}
	return t
}

func (t *tree) name(id int) string {
	if n := len(t.p.Steps); id >= n {
		return t.p.Groups[id-n].Name
	}
	return t.p.Steps[id].Name
}

func (t *tree) needs(id int) []Edge {
	if n := len(t.p.Steps); id >= n {
		return t.p.Groups[id-n].needs()
	}
	return t.p.Steps[id].needs(t.refsOf(id))
}

// refsOf returns the values that a step uses.
func (t *tree) refsOf(id int) []Ref {
	if t.refs == nil {
		t.refs = make([][]Ref, len(t.p.Steps))
	}
	if t.refs[id] == nil {
		t.refs[id] = t.p.Steps[id].Refs()
	}
	return t.refs[id]
}

// contains reports whether a step or group is the other one or has it in it.
func (t *tree) contains(id, other int) bool {
	for ; other >= 0; other = t.parent[other] {
		if other == id {
			return true
		}
	}
	return false
}

// steps appends a step, or all steps in a group.
func (t *tree) steps(list []int, id int) []int {
	n := len(t.p.Steps)
	if id < n {
		return append(list, id)
	}
	for _, kid := range t.kids[id-n] {
		list = t.steps(list, kid)
	}
	return list
}

// siblings returns those that two steps or groups are or stand in, in one group.
func (t *tree) siblings(a, b int) (int, int) {
	da, db := t.depth(a), t.depth(b)
	for ; da > db; da-- {
		a = t.parent[a]
	}
	for ; db > da; db-- {
		b = t.parent[b]
	}
	for t.parent[a] != t.parent[b] {
		a, b = t.parent[a], t.parent[b]
	}
	return a, b
}

func (t *tree) depth(id int) int {
	d := 0
	for id = t.parent[id]; id >= 0; id = t.parent[id] {
		d++
	}
	return d
}

// needs returns the group's edges: those of After, then those of the outputs
// that decide it.
func (g *Group) needs() []Edge {
	needs := slices.Clone(g.After)
	for _, r := range g.Refs() {
		for _, o := range r.Outputs() {
			needs = append(needs, Edge{Step: o.Step, Pos: g.Pos})
		}
	}
	return needs
}

// needs returns the step's edges, one to each step that it needs: those of
// After with their places, then those of outputs at the step's own place. Refs
// are the values that the step uses.
func (s *Step) needs(refs []Ref) []Edge {
	var needs []Edge
	var steps distinct[string]
	add := func(e Edge) {
		if steps.add(e.Step) {
			needs = append(needs, e)
		}
	}
	for _, e := range s.After {
		add(e)
	}
	for _, r := range refs {
		for _, o := range r.Outputs() {
			add(Edge{Step: o.Step, Pos: s.Pos})
		}
	}
	return needs
}

// WalkText calls f for each text of the step that may hold a token, with the
// name of the field it stands in. Values that the step takes as files are not
// among them; see Artifacts.
func (s *Step) WalkText(f func(field *Field, text string)) {
	w := &walker{f: f}
	w.tree("container.", s.Container)
	for _, v := range s.Volumes {
		name, _ := v.Get("name").(string)
		w.tree("volume "+Display(name)+": ", v)
	}
	if s.Resource != nil {
		s.Resource.walk(w)
		w.outputs(s.Outputs)
	}
	w.text("timeout", s.Timeout)
	if r := s.Retry; r != nil {
		w.text("retry limit", r.Limit)
		w.text("retry backoff", r.Backoff)
		w.text("retry max backoff", r.MaxBackoff)
	}
	s.Pod.walk(w)
	s.Conduct.walk(w)
	if s.Component != nil {
		w.tree("argument ", s.Component.Arguments)
	}
}

// Order returns the steps so that each comes after the steps it needs, and the
// steps of a group come together. Steps free to stand in either order keep the
// order of the script, so that equal pipelines give equal manifests. If the
// needs form a cycle, the error is an Errors with one fault a cycle, each at
// the last of its edges in the script. Needs of steps that the pipeline does
// not have are passed over; Validate reports them.
//
// The method is Kahn's: "Topological sorting of large networks", CACM 5(11),
// 1962, for the members of each group.
func (p *Pipeline) Order() ([]*Step, error) { return newTree(p).order() }

func (t *tree) order() ([]*Step, error) {
	p := t.p
	lifted := t.lift()
	waits := make([]int, len(lifted))    // needed and not yet ordered
	needed := make([][]int, len(lifted)) // those that need this one
	var ready idHeap
	for id, edges := range lifted {
		waits[id] = len(edges)
		for _, e := range edges {
			needed[e.need] = append(needed[e.need], id)
		}
		if waits[id] == 0 {
			ready.ids = append(ready.ids, id)
		}
	}
	ready.place = t.places()
	heap.Init(&ready)
	ordered := make([][]int, 1+len(p.Groups)) // members, by group; the last are the pipeline's
	done := 0
	for ready.Len() > 0 {
		id := heap.Pop(&ready).(int)
		done++
		k := t.parent[id] - len(p.Steps)
		if t.parent[id] < 0 {
			k = len(p.Groups)
		}
		ordered[k] = append(ordered[k], id)
		for _, j := range needed[id] {
			if waits[j]--; waits[j] == 0 {
				heap.Push(&ready, j)
			}
		}
	}
	if done < len(lifted) {
		return nil, t.cycles(lifted, waits)
	}
	order := make([]*Step, 0, len(p.Steps))
	var flatten func(ids []int)
	flatten = func(ids []int) {
		for _, id := range ids {
			if id < len(p.Steps) {
				order = append(order, p.Steps[id])
			} else {
				flatten(ordered[id-len(p.Steps)])
			}
		}
	}
	flatten(ordered[len(p.Groups)])
	return order, nil
}

// A need is an edge between two members of one group.
type need struct {
	need int
	pos  Pos
}

// lift returns, for each step and group, what it needs among the members of
// its own group: an edge between two steps joins the members that they are, or
// stand in. Each is there once.
func (t *tree) lift() [][]need {
	lifted := make([][]need, len(t.parent))
	seen := map[[2]int]bool{}
	for id := range t.parent {
		for _, e := range t.needs(id) {
			other, ok := t.index[e.Step]
			if !ok {
				continue
			}
			a, b := t.siblings(other, id)
			if a == b && other != id {
				continue // one stands in the other
			}
			if !seen[[2]int{a, b}] {
				seen[[2]int{a, b}] = true
				lifted[b] = append(lifted[b], need{a, e.Pos})
			}
		}
	}
	return lifted
}

// places returns where in the script each step and group begins: a group with
// its first step.
func (t *tree) places() []int {
	n := len(t.p.Steps)
	places := make([]int, len(t.parent))
	for id := range places {
		places[id] = n
	}
	for i := range n {
		for id := i; id >= 0 && places[id] == n; id = t.parent[id] {
			places[id] = i
		}
	}
	return places
}

// cycles describes the cycles among those that still wait.
func (t *tree) cycles(lifted [][]need, waits []int) error {
	const unseen, done = 0, -1
	state := make([]int, len(lifted)) // or, on the path, the place from 1
	var faults Errors
	type frame struct {
		id    int
		via   Pos    // of the edge that led here
		edges []need // that are left to follow
	}
	for start := range lifted {
		if waits[start] == 0 || state[start] != unseen {
			continue
		}
		path := []frame{{start, Pos{}, lifted[start]}}
		state[start] = 1
		for len(path) > 0 {
			top := &path[len(path)-1]
			if len(top.edges) == 0 {
				state[top.id] = done
				path = path[:len(path)-1]
				continue
			}
			e := top.edges[0]
			top.edges = top.edges[1:]
			if waits[e.need] == 0 {
				continue
			}
			switch at := state[e.need]; at {
			case unseen:
				path = append(path, frame{e.need, e.pos, lifted[e.need]})
				state[e.need] = len(path)
			case done:
			default:
				cycle, more := path[at-1:], 0
				const most = 20 // names, lest the messages grow with the square of the steps
				if len(cycle) > most {
					more = len(cycle) - most
					cycle = slices.Concat(cycle[:most/2], cycle[len(cycle)-most/2:])
				}
				var names []string
				last := e.pos // of its edges in the script: without that one there was no cycle
				for i, f := range cycle {
					names = append(names, t.name(f.id))
					if i > 0 && f.via.Compare(last) > 0 {
						last = f.via
					}
				}
				if more > 0 {
					names = slices.Insert(names, most/2, fmt.Sprintf("(%d more)", more))
				}
				faults = append(faults, cycleError(names, last))
			}
		}
	}
	return faults.Err()
}

// cycleError describes a cycle in which each step needs the next and the last
// the first; the edge at pos is to blame.
func cycleError(names []string, pos Pos) *Error {
	if len(names) == 1 {
		return &Error{Pos: pos, Msg: `step "` + names[0] + `" needs itself`}
	}
	return &Error{
		Pos:  pos,
		Msg:  "cycle: " + strings.Join(append(names, names[0]), " -> ") + ", where each step needs the next one",
		Hint: "remove one of these needs: an after(...) or the use of an output",
	}
}

// An idHeap is a heap of steps and groups, that which begins first in the
// script first.
type idHeap struct {
	ids   []int
	place []int
}

func (h *idHeap) Len() int { return len(h.ids) }
func (h *idHeap) Less(i, j int) bool {
	a, b := h.ids[i], h.ids[j]
	return cmp.Or(cmp.Compare(h.place[a], h.place[b]), cmp.Compare(a, b)) < 0
}
func (h *idHeap) Swap(i, j int) { h.ids[i], h.ids[j] = h.ids[j], h.ids[i] }
func (h *idHeap) Push(x any)    { h.ids = append(h.ids, x.(int)) }
func (h *idHeap) Pop() any {
	last := len(h.ids) - 1
	x := h.ids[last]
	h.ids = h.ids[:last]
	return x
}
