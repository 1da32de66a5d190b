package graph

import (
	"cmp"
	"math"
	"slices"
)

// This file finds where edges run, and where they cross the borders of groups.

// portSpace is the least space between edges that cross a border.
const portSpace = 14.0

// movePorts puts the ports of a layer as near as their number allows to where
// their edges end or go on inside the border. The mean square of what is left
// aside is the least there can be.
//
// The method is to pool adjacent violators: Ayer and others, "An Empirical
// Distribution Function for Sampling with Incomplete Information", 1955.
func (l *layouter) movePorts(q *part, layer []int) {
	type port struct {
		v    int
		want float64
	}
	var ports []port
	for i, r := range q.pieces {
		v, ok := q.ports[r]
		if !ok || q.net.layer[v] != q.net.layer[layer[0]] {
			continue
		}
		chain := q.net.chains[i]
		switch {
		case r.from == border && len(chain) > 0:
			ports = append(ports, port{v, q.xs[chain[0]]})
		case r.to == border && len(chain) > 0:
			ports = append(ports, port{v, q.xs[chain[len(chain)-1]]})
		default:
			ports = append(ports, port{v, l.endX(q, r, r.to == border)})
		}
	}
	slices.SortStableFunc(ports, func(a, b port) int { return cmp.Compare(a.want, b.want) })
	type pool struct{ sum, n float64 } // of neighbours that touch, less the space before each
	var pools []pool
	for i, o := range ports {
		pools = append(pools, pool{o.want - portSpace*float64(i), 1})
		for last := len(pools) - 1; last > 0 && pools[last].sum/pools[last].n < pools[last-1].sum/pools[last-1].n; last-- {
			pools[last-1].sum += pools[last].sum
			pools[last-1].n += pools[last].n
			pools = pools[:last]
		}
	}
	i := 0
	for _, o := range pools {
		for range int(o.n) {
			q.xs[ports[i].v] = math.Round(o.sum/o.n) + portSpace*float64(i)
			i++
		}
	}
}

// curves calls f for each curve between two layers: its piece, the layer below,
// and where along the layers it begins and ends. Edges that run straight across
// several layers are left out.
func (l *layouter) curves(q *part, f func(r piece, layer int, from, to float64)) {
	for i, r := range q.pieces {
		u, v := l.ends(q, r)
		chain := q.net.chains[i]
		if len(chain) == 0 && q.net.layer[u]+1 < q.net.layer[v] {
			continue
		}
		x := l.endX(q, r, true)
		for _, c := range chain {
			f(r, q.net.layer[c], x, q.xs[c])
			x = q.xs[c]
		}
		f(r, q.net.layer[v], x, l.endX(q, r, false))
	}
}

// ends returns the vertices between which a piece runs.
func (l *layouter) ends(q *part, r piece) (from, to int) {
	switch {
	case r.from == border:
		return q.ports[r], l.vertex[r.to]
	case r.to == border:
		return l.vertex[r.from], q.ports[r]
	}
	return l.vertex[r.from], l.vertex[r.to]
}

// endX returns where a piece begins or ends along its layer: at a port, at the
// middle of a step, or where the edge goes on inside a group.
func (l *layouter) endX(q *part, r piece, begin bool) float64 {
	from, to := l.ends(q, r)
	v, id, end := to, r.to, l.edges[r.edge].to
	if begin {
		v, id, end = from, r.from, l.edges[r.edge].from
	}
	if id == border || !l.f.isGroup(id) {
		return q.xs[v]
	}
	x := q.xs[v] - q.net.width[v]/2
	if id == end {
		return x + l.gate(id, begin)
	}
	inner := l.scopes[id-l.f.steps]
	i := slices.IndexFunc(l.pieces[r.edge], func(p run) bool { return p.s == inner })
	p := l.pieces[r.edge][i].piece
	on := l.partOf(p)
	return x + on.xs[on.ports[p]]
}

// gate returns where edges to a group itself end on its upper side, or edges
// from it begin on the lower one: at the middle, or beside it if edges pass
// through there.
func (l *layouter) gate(id int, lower bool) float64 {
	key := gate{id, lower}
	if x, ok := l.gates[key]; ok {
		return x
	}
	s := l.scopes[id-l.f.steps]
	var taken []float64
	for _, r := range s.pieces {
		if q := l.partOf(r); lower && r.to == border || !lower && r.from == border {
			taken = append(taken, q.xs[q.ports[r]])
		}
	}
	slices.Sort(taken)
	w, _ := l.size(id)
	middle := math.Floor(w / 2)
	l.gates[key] = middle
	for step := 0.0; step < middle-portSpace; step += portSpace / 2 {
		for _, x := range []float64{middle - step, middle + step} {
			i, _ := slices.BinarySearch(taken, x-portSpace+1)
			if i == len(taken) || taken[i] >= x+portSpace {
				l.gates[key] = x
				return x
			}
		}
	}
	return middle
}

// points returns the points of an edge, those of its pieces one behind the
// other.
func (l *layouter) points(edge int) []Point {
	var points []Point
	for _, p := range l.pieces[edge] {
		r := p.piece
		q := l.partOf(r)
		u, v := l.ends(q, r)
		add := func(x, y float64) { points = append(points, Point{p.s.at.X + x, p.s.at.Y + y}) }
		x, layer := l.endX(q, r, true), q.net.layer[u]
		y := q.tops[layer]
		if r.from != border {
			_, h := l.size(r.from)
			y += h
		}
		add(x, y)
		if y < q.ends[layer] { // straight down beside a taller box
			add(x, q.ends[layer])
			add(x, q.ends[layer])
		}
		for _, c := range q.net.chains[q.at[r]] {
			at := q.net.layer[c]
			add(q.xs[c], q.tops[at])
			add(q.xs[c], q.ends[at])
		}
		add(l.endX(q, r, false), q.tops[q.net.layer[v]])
	}
	return points
}
