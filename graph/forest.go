package graph

import (
	"cmp"
	"slices"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

// This file defines the edges of the picture, between steps and groups.

// A forest is the steps and groups of a pipeline by number: first the steps,
// then the groups, each in the order of the script.
type forest struct {
	p      *dag.Pipeline
	steps  int
	index  map[string]int // by name
	parent []int          // the group that each stands in; -1 is the pipeline itself
	kids   [][]int        // by group, in the order of the script; the last are the pipeline's own
	depth  []int          // how many groups are around each
	labels []string       // of groups
}

// newForest returns the forest of a pipeline whose needs form no cycle; else
// the error of p.Order.
func newForest(p *dag.Pipeline) (*forest, error) {
	if _, err := p.Order(); err != nil {
		return nil, err
	}
	n := len(p.Steps)
	all := n + len(p.Groups)
	f := &forest{
		p:      p,
		steps:  n,
		index:  make(map[string]int, all),
		parent: make([]int, all),
		kids:   make([][]int, len(p.Groups)+1),
		depth:  make([]int, all),
	}
	groups := make([]string, all) // that each stands in, by name
	for i, s := range p.Steps {
		f.index[s.Name], groups[i] = i, s.Group
	}
	for k, g := range p.Groups {
		f.index[g.Name], groups[n+k] = n+k, g.Group
	}
	for id, group := range groups {
		f.parent[id] = -1
		if g, ok := f.index[group]; ok && g >= n && g != id {
			f.parent[id] = g
		}
	}
	place := make([]int, all) // where each begins in the script, a group with its first step
	ids := make([]int, all)
	for id := range ids {
		ids[id], place[id] = id, n
	}
	for i := range n {
		for id := i; id >= 0 && place[id] == n; id = f.parent[id] {
			place[id] = i
		}
	}
	slices.SortStableFunc(ids, func(a, b int) int { return cmp.Compare(place[a], place[b]) })
	for _, id := range ids {
		k := f.scopeOf(id)
		f.kids[k] = append(f.kids[k], id)
		for g := f.parent[id]; g >= 0; g = f.parent[g] {
			f.depth[id]++
		}
	}
	f.labels = groupLabels(p)
	return f, nil
}

// scopeOf returns the place in kids of those that stand beside id.
func (f *forest) scopeOf(id int) int {
	if g := f.parent[id]; g >= 0 {
		return g - f.steps
	}
	return len(f.kids) - 1
}

func (f *forest) isGroup(id int) bool { return id >= f.steps }

// members returns the steps and groups that stand in a group.
func (f *forest) members(id int) []int { return f.kids[id-f.steps] }

// name returns the name of a step or group, as the pipeline has it.
func (f *forest) name(id int) string {
	if f.isGroup(id) {
		return f.p.Groups[id-f.steps].Name
	}
	return f.p.Steps[id].Name
}

// title returns what the picture calls a step or group.
func (f *forest) title(id int) string {
	if f.isGroup(id) {
		return f.labels[id-f.steps]
	}
	return clean(f.p.Steps[id].Name)
}

// siblings returns those that two steps or groups are or stand in, in one group.
func (f *forest) siblings(a, b int) (int, int) {
	for f.depth[a] > f.depth[b] {
		a = f.parent[a]
	}
	for f.depth[b] > f.depth[a] {
		b = f.parent[b]
	}
	for f.parent[a] != f.parent[b] {
		a, b = f.parent[a], f.parent[b]
	}
	return a, b
}

// walk calls visit for each step, and for each group before (open) and after
// what stands in it, with how many groups are around it.
func (f *forest) walk(visit func(id, depth int, open bool)) {
	var members func(ids []int)
	members = func(ids []int) {
		for _, id := range ids {
			visit(id, f.depth[id], true)
			if f.isGroup(id) {
				members(f.members(id))
				visit(id, f.depth[id], false)
			}
		}
	}
	members(f.kids[len(f.kids)-1])
}

// edgeMost returns what stands for a group where only nodes can: the member
// that pick takes, or that of it.
func (f *forest) edgeMost(id int, pick func(ids []int) int) int {
	for f.isGroup(id) && len(f.members(id)) > 0 {
		id = pick(f.members(id))
	}
	return id
}

// exit returns the step of the exit handler that runs last, and the handler's
// group; ok is false if there is none, or if something needs the step.
func (f *forest) exit() (step, group int, ok bool) {
	for k, g := range f.p.Groups {
		step, known := f.index[g.Exit]
		if g.Kind == dag.GroupExitHandler && known && !f.isGroup(step) && f.parent[step] < 0 {
			return step, f.steps + k, true
		}
	}
	return 0, 0, false
}

// A link is an edge between two steps or groups of a forest, neither of which
// stands in the other.
type link struct {
	from, to int
	outputs  []string // that to uses, as they stand; none: order alone
	exit     bool     // to is the step that runs last
}

// label returns what stands beside the edge, or "".
func (e link) label() string {
	if e.exit {
		return "on exit"
	}
	return clean(strings.Join(e.outputs, ", "))
}

// links returns the edges by the one that needs, then by the one it needs.
// Needs of unknown steps are passed over, as dag.Order does.
func (f *forest) links() []link {
	var edges []link
	needed := make([]bool, len(f.parent))
	add := func(to int, after []dag.Edge, refs []dag.Ref) {
		at := map[int]int{} // places in edges
		need := func(name, output string) {
			from, ok := f.index[name]
			if !ok {
				return
			}
			if a, b := f.siblings(from, to); a == b {
				return // one stands in the other
			}
			needed[from] = true
			i, ok := at[from]
			if !ok {
				i = len(edges)
				at[from] = i
				edges = append(edges, link{from: from, to: to})
			}
			if output != "" && !slices.Contains(edges[i].outputs, output) {
				edges[i].outputs = append(edges[i].outputs, output)
			}
		}
		for _, e := range after {
			need(e.Step, "")
		}
		for _, r := range refs {
			for _, o := range r.Outputs() {
				need(o.Step, o.Name)
			}
		}
	}
	for i, s := range f.p.Steps {
		add(i, s.After, s.Refs())
	}
	for k, g := range f.p.Groups {
		add(f.steps+k, g.After, g.Refs())
	}
	if step, group, ok := f.exit(); ok && !needed[step] {
		edges = append(edges, link{from: group, to: step, exit: true})
	}
	if len(f.p.Groups) > 0 {
		edges = gather(edges, func(e link) (from, to int) { _, to = f.siblings(e.from, e.to); return e.from, to })
		edges = gather(edges, func(e link) (from, to int) { from, _ = f.siblings(e.from, e.to); return from, e.to })
	}
	slices.SortStableFunc(edges, func(a, b link) int { return cmp.Or(cmp.Compare(a.to, b.to), cmp.Compare(a.from, b.from)) })
	return edges
}

// maxInto is how many edges one step or group may have with members of a
// group. More are drawn as one, with the group itself.
const maxInto = 8

// gather replaces the edges that have the same wider ends, if they are more
// than maxInto, by one edge between these ends.
func gather(edges []link, wider func(link) (from, to int)) []link {
	count := map[[2]int]int{}
	for _, e := range edges {
		from, to := wider(e)
		count[[2]int{from, to}]++
	}
	at := map[[2]int]int{} // places in gathered
	var gathered []link
	for _, e := range edges {
		if from, to := wider(e); count[[2]int{from, to}] > maxInto {
			e.from, e.to = from, to
		}
		ends := [2]int{e.from, e.to}
		i, ok := at[ends]
		if !ok {
			at[ends] = len(gathered)
			gathered = append(gathered, e)
			continue
		}
		for _, output := range e.outputs {
			if !slices.Contains(gathered[i].outputs, output) {
				gathered[i].outputs = append(gathered[i].outputs, output)
			}
		}
	}
	return gathered
}

// tip returns what a tooltip says of an edge.
func (f *forest) tip(e link) string {
	tip := f.title(e.from) + " → " + f.title(e.to)
	switch {
	case e.exit:
		return tip + " (on exit, whatever happened)"
	case len(e.outputs) == 0:
		return tip + " (order only)"
	}
	return tip + ": " + e.label()
}
