package graph

import (
	"slices"
)

// This file lays out what stands in each group, and joins the pieces of edges
// that cross the borders between groups.

// A scope is what stands in one group, or in the pipeline itself, laid out on
// its own: x and y begin at its left upper corner.
type scope struct {
	group  int     // whose inside it is; -1 is the pipeline
	pieces []piece // of the edges that run here
	parts  []*part // side by side
	rest   []int   // steps and groups without edges, if they are many
	restAt []Point // their left upper corners
	w, h   float64
	at     Point // of the corner, in the picture
}

// A part is what hangs together by edges in one scope, so that a tall group
// moves down only what needs it.
type part struct {
	boxes  []int // steps and groups, by vertex of the net
	pieces []piece
	at     map[piece]int // places of the pieces
	ports  map[piece]int // vertices of pieces that cross the border
	net    *net
	xs     []float64 // middles of the net's vertices
	tops   []float64 // of the net's layers
	ends   []float64 // where they end
	wide   []float64 // the space above each for edges from far aside
}

// A piece is the part of an edge in one scope, between two steps or groups
// that stand in it, or the border.
type piece struct{ edge, from, to int }

// border is what a piece runs to that leaves its scope, by the lower side, and
// from if it enters, by the upper side.
const border = -1

// maxLoose is how many steps and groups without edges stand in one layer.
const maxLoose = 40

// Spaces between parts and, at the least, layers.
const (
	partSpace  = 30.0
	layerSpace = 52.0
)

// A layouter makes a Drawing of a forest.
type layouter struct {
	f      *forest
	d      *Drawing
	edges  []link
	scopes []*scope // by group; the last is the pipeline's own
	pieces [][]run  // of each edge, from its start
	vertex []int    // of each step and group in the net of its part
	part   []*part  // of each step and group
	gates  map[gate]float64
}

// A run is a piece of an edge and the scope that it runs in.
type run struct {
	s *scope
	piece
}

// A gate is where edges to and from a group itself meet its box.
type gate struct {
	group int
	lower bool
}

func newLayouter(f *forest, d *Drawing) *layouter {
	l := &layouter{f: f, d: d, edges: f.links(), vertex: make([]int, len(f.parent)), part: make([]*part, len(f.parent)), gates: map[gate]float64{}}
	for k := range f.kids {
		group := f.steps + k
		if k == len(f.kids)-1 {
			group = -1
		}
		l.scopes = append(l.scopes, &scope{group: group})
	}
	l.pieces = make([][]run, len(l.edges))
	for i, e := range l.edges {
		add := func(id, from, to int) {
			s := l.scopes[f.scopeOf(id)]
			r := piece{i, from, to}
			l.pieces[i] = append(l.pieces[i], run{s, r})
			s.pieces = append(s.pieces, r)
		}
		a, b := f.siblings(e.from, e.to)
		for id := e.from; id != a; id = f.parent[id] {
			add(id, id, border)
		}
		add(a, a, b)
		into := len(l.pieces[i])
		for id := e.to; id != b; id = f.parent[id] {
			add(id, border, id)
		}
		slices.Reverse(l.pieces[i][into:])
	}
	return l
}

// size returns the width and height of the box of a step or group.
func (l *layouter) size(id int) (w, h float64) {
	if l.f.isGroup(id) {
		g := &l.d.Groups[id-l.f.steps]
		return g.W, g.H
	}
	n := &l.d.Nodes[id]
	return n.W, n.H
}

// arrange lays out a scope, once those of the groups in it are.
func (l *layouter) arrange(s *scope) {
	members := l.f.kids[len(l.f.kids)-1]
	if s.group >= 0 {
		members = l.f.members(s.group)
	}
	for _, id := range members {
		if l.f.isGroup(id) && len(l.f.members(id)) > 0 {
			inner := l.scopes[id-l.f.steps]
			l.arrange(inner)
			g := &l.d.Groups[id-l.f.steps]
			g.W, g.H = inner.w, inner.h
		}
	}
	l.split(s, l.linked(s, members))
	for _, q := range s.parts {
		edges, layer, widths := l.vertices(q)
		q.net = newNet(edges, layer, widths, len(q.boxes))
		q.net.reduceCrossings()
		q.xs = q.net.place()
		if layers := q.net.layers; len(q.ports) > 0 {
			l.movePorts(q, layers[0])
			l.movePorts(q, layers[len(layers)-1])
		}
	}
	l.setWidth(s)
	l.setHeights(s)
}

// split divides the boxes of a scope, and the pieces between them, into parts.
// If all boxes are about as tall as each other, there is one part only.
func (l *layouter) split(s *scope, boxes []int) {
	parent := make(map[int]int, len(boxes)) // towards one of those that hang together
	root := func(id int) int {
		for parent[id] != id {
			parent[id] = parent[parent[id]]
			id = parent[id]
		}
		return id
	}
	tall := slices.ContainsFunc(boxes, func(id int) bool { return l.f.isGroup(id) && len(l.f.members(id)) > 0 })
	for _, id := range boxes {
		if parent[id] = id; !tall {
			parent[id] = boxes[0]
		}
	}
	for _, r := range s.pieces {
		if r.from != border && r.to != border {
			parent[root(r.to)] = root(r.from)
		}
	}
	at := map[int]*part{}
	for _, id := range boxes {
		q := at[root(id)]
		if q == nil {
			q = &part{at: map[piece]int{}, ports: map[piece]int{}}
			at[root(id)] = q
			s.parts = append(s.parts, q)
		}
		q.boxes = append(q.boxes, id)
		l.part[id] = q
	}
	for _, r := range s.pieces {
		q := l.partOf(r)
		q.at[r] = len(q.pieces)
		q.pieces = append(q.pieces, r)
	}
}

// partOf returns the part that a piece runs in.
func (l *layouter) partOf(r piece) *part {
	if r.from != border {
		return l.part[r.from]
	}
	return l.part[r.to]
}

// linked returns the members for the nets, and leaves those without edges to
// the rest if they are many.
func (l *layouter) linked(s *scope, members []int) []int {
	if len(members) <= maxLoose {
		return members
	}
	has := make(map[int]bool, len(members))
	for _, r := range s.pieces {
		has[r.from], has[r.to] = true, true
	}
	var boxes []int
	for _, id := range members {
		if has[id] {
			boxes = append(boxes, id)
		} else {
			s.rest = append(s.rest, id)
		}
	}
	if len(s.rest) <= maxLoose {
		s.rest = nil
		return members
	}
	return boxes
}

// vertices returns the net's edges, one for each piece, and the layer and
// width of each box and port.
func (l *layouter) vertices(q *part) (edges [][2]int, layer []int, widths []float64) {
	n := len(q.boxes)
	for v, id := range q.boxes {
		l.vertex[id] = v
		w, _ := l.size(id)
		widths = append(widths, w)
	}
	top := 0 // layer of the first boxes, below that of the ports
	out := make([][]int, n)
	waits := make([]int, n)
	for _, r := range q.pieces {
		switch {
		case r.from == border:
			top = 1
		case r.to != border:
			u, v := l.vertex[r.from], l.vertex[r.to]
			out[u] = append(out[u], v)
			waits[v]++
		}
	}
	layer = make([]int, n)
	var order []int
	for v := range n {
		layer[v] = top
		if waits[v] == 0 {
			order = append(order, v)
		}
	}
	for i := 0; i < len(order); i++ {
		u := order[i]
		for _, v := range out[u] {
			layer[v] = max(layer[v], layer[u]+1)
			if waits[v]--; waits[v] == 0 {
				order = append(order, v)
			}
		}
	}
	l.exitLast(q, layer)
	bottom := top + 1 // layer of the ports below
	for _, at := range layer {
		bottom = max(bottom, at+1)
	}
	for _, r := range q.pieces {
		port := func(at int) int {
			q.ports[r] = len(layer)
			layer, widths = append(layer, at), append(widths, 0)
			return q.ports[r]
		}
		switch {
		case r.from == border:
			edges = append(edges, [2]int{port(0), l.vertex[r.to]})
		case r.to == border:
			edges = append(edges, [2]int{l.vertex[r.from], port(bottom)})
		default:
			edges = append(edges, [2]int{l.vertex[r.from], l.vertex[r.to]})
		}
	}
	return edges, layer, widths
}

// isExit reports whether a piece ends at the step that runs when all is over.
func (l *layouter) isExit(r piece) bool {
	e := l.edges[r.edge]
	return e.exit && r.to == e.to
}

// exitLast moves the step that runs when all is over below all others.
func (l *layouter) exitLast(q *part, layer []int) {
	for _, r := range q.pieces {
		if l.isExit(r) {
			v := l.vertex[r.to]
			layer[v] = 0
			layer[v] = slices.Max(layer) + 1
		}
	}
}

// put sets the places of all boxes in a scope whose corner is at the point.
func (l *layouter) put(s *scope, at Point) {
	s.at = at
	set := func(id int, x, y float64) {
		if !l.f.isGroup(id) {
			n := &l.d.Nodes[id]
			n.X, n.Y = x, y
			return
		}
		g := &l.d.Groups[id-l.f.steps]
		g.X, g.Y = x, y
		l.put(l.scopes[id-l.f.steps], Point{x, y})
	}
	for _, q := range s.parts {
		for v, id := range q.boxes {
			set(id, at.X+q.xs[v]-q.net.width[v]/2, at.Y+q.tops[q.net.layer[v]])
		}
	}
	for i, id := range s.rest {
		set(id, at.X+s.restAt[i].X, at.Y+s.restAt[i].Y)
	}
}
