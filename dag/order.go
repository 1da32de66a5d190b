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
func (p *Pipeline) Edges() map[string][]string {
	index := make(map[string]int, len(p.Steps))
	for i, s := range p.Steps {
		index[s.Name] = i
	}
	edges := make(map[string][]string, len(p.Steps))
	for _, s := range p.Steps {
		var needs []string
		for _, e := range s.needs() {
			needs = append(needs, e.Step)
		}
		slices.SortStableFunc(needs, func(a, b string) int { return cmp.Compare(index[a], index[b]) })
		edges[s.Name] = needs
	}
	return edges
}

// needs returns the step's edges, one to each step that it needs: those of
// After with their places, then those of outputs at the step's own place.
func (s *Step) needs() []Edge {
	var needs []Edge
	seen := map[string]bool{}
	add := func(e Edge) {
		if !seen[e.Step] {
			seen[e.Step] = true
			needs = append(needs, e)
		}
	}
	for _, e := range s.After {
		add(e)
	}
	for _, r := range s.Refs() {
		if r.Kind == RefOutput {
			add(Edge{Step: r.Step, Pos: s.Pos})
		}
	}
	return needs
}

// Refs returns the values known only at run time that the step's text holds,
// each once, in the order they stand.
func (s *Step) Refs() []Ref {
	var refs []Ref
	seen := map[Ref]bool{}
	s.WalkText(func(_, text string) {
		found, _ := Refs(text)
		for _, r := range found {
			if !seen[r] {
				seen[r] = true
				refs = append(refs, r)
			}
		}
	})
	return refs
}

// WalkText calls f for each text of the step that may hold a token, with the
// name of the field it stands in.
func (s *Step) WalkText(f func(field, text string)) {
	WalkText(s.Container, func(path, text string) { f("container."+path, text) })
	for _, v := range s.Volumes {
		name, _ := v.Get("name").(string)
		WalkText(v, func(path, text string) { f("volume "+Display(name)+": "+path, text) })
	}
	f("timeout", s.Timeout)
	if r := s.Retry; r != nil {
		f("retry limit", r.Limit)
		f("retry backoff", r.Backoff)
		f("retry max backoff", r.MaxBackoff)
	}
}

// Order returns the steps so that each comes after the steps it needs. Steps
// free to stand in either order keep the order of the script, so that equal
// pipelines give equal manifests. If the needs form a cycle, the error is an
// Errors with one fault a cycle, each at the last of its edges in the script.
// Needs of steps that the pipeline does not have are passed over; Validate
// reports them.
//
// The method is Kahn's: "Topological sorting of large networks", CACM 5(11), 1962.
func (p *Pipeline) Order() ([]*Step, error) {
	index := make(map[string]int, len(p.Steps))
	for i, s := range p.Steps {
		index[s.Name] = i
	}
	edges := p.Edges()
	waits := make([]int, len(p.Steps))    // steps needed and not yet ordered
	needed := make([][]int, len(p.Steps)) // the steps that need this one
	var ready intHeap
	for i, s := range p.Steps {
		for _, need := range edges[s.Name] {
			if j, ok := index[need]; ok {
				waits[i]++
				needed[j] = append(needed[j], i)
			}
		}
		if waits[i] == 0 {
			ready = append(ready, i)
		}
	}
	heap.Init(&ready)
	order := make([]*Step, 0, len(p.Steps))
	for len(ready) > 0 {
		i := heap.Pop(&ready).(int)
		order = append(order, p.Steps[i])
		for _, j := range needed[i] {
			if waits[j]--; waits[j] == 0 {
				heap.Push(&ready, j)
			}
		}
	}
	if len(order) < len(p.Steps) {
		return nil, p.cycles(index, waits)
	}
	return order, nil
}

// cycles describes the cycles among the steps that still wait.
func (p *Pipeline) cycles(index map[string]int, waits []int) error {
	const unseen, done = 0, -1
	state := make([]int, len(p.Steps)) // or, on the path, the place from 1
	var faults Errors
	type frame struct {
		step  int
		via   Pos    // of the edge that led here
		edges []Edge // that are left to follow
	}
	for start := range p.Steps {
		if waits[start] == 0 || state[start] != unseen {
			continue
		}
		path := []frame{{start, Pos{}, p.Steps[start].needs()}}
		state[start] = 1
		for len(path) > 0 {
			top := &path[len(path)-1]
			if len(top.edges) == 0 {
				state[top.step] = done
				path = path[:len(path)-1]
				continue
			}
			e := top.edges[0]
			top.edges = top.edges[1:]
			next, ok := index[e.Step]
			if !ok || waits[next] == 0 {
				continue
			}
			switch at := state[next]; at {
			case unseen:
				path = append(path, frame{next, e.Pos, p.Steps[next].needs()})
				state[next] = len(path)
			case done:
			default:
				cycle, more := path[at-1:], 0
				const most = 20 // names, lest the messages grow with the square of the steps
				if len(cycle) > most {
					more = len(cycle) - most
					cycle = slices.Concat(cycle[:most/2], cycle[len(cycle)-most/2:])
				}
				var names []string
				last := e.Pos // of its edges in the script: without that one there was no cycle
				for i, f := range cycle {
					names = append(names, p.Steps[f.step].Name)
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

// An intHeap is a heap of ints, the least first.
type intHeap []int

func (h intHeap) Len() int           { return len(h) }
func (h intHeap) Less(i, j int) bool { return h[i] < h[j] }
func (h intHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *intHeap) Push(x any)        { *h = append(*h, x.(int)) }
func (h *intHeap) Pop() any {
	old := *h
	x := old[len(old)-1]
	*h = old[:len(old)-1]
	return x
}
