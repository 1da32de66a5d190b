package graph

import (
	"math"
	"slices"
)

// This file finds the places of vertices along their layers.

// separation returns how far apart the middles of two neighbours must be.
func (g *net) separation(u, v int) float64 {
	space := 30.0
	switch {
	case g.isCut(u) && g.isCut(v):
		space = 18
	case g.isCut(u) || g.isCut(v):
		space = 22
	}
	return (g.width[u]+g.width[v])/2 + space
}

// place returns the middle of each vertex along its layer, as whole pixels.
//
// The method is that of Brandes and Köpf, "Fast and Simple Horizontal
// Coordinate Assignment", 2001: align each vertex with a median neighbour, in
// four ways, and take the mean of the two middle results. Blocks are
// compacted along the order they stand in, which avoids the flaw that the
// erratum of 2020 mends.
func (g *net) place() []float64 {
	for _, near := range [][][]int{g.in, g.out} {
		for _, list := range near {
			slices.SortFunc(list, func(a, b int) int { return g.pos[a] - g.pos[b] })
		}
	}
	crossed := g.crossedCuts()
	var ways [4][]float64
	var lows, highs [4]float64
	narrowest := 0
	for i := range ways {
		ways[i] = g.compact(g.align(i < 2, i%2 == 0, crossed))
		lows[i], highs[i] = math.Inf(1), math.Inf(-1)
		for v, x := range ways[i] {
			lows[i] = min(lows[i], x-g.width[v]/2)
			highs[i] = max(highs[i], x+g.width[v]/2)
		}
		if highs[i]-lows[i] < highs[narrowest]-lows[narrowest] {
			narrowest = i
		}
	}
	xs := make([]float64, len(g.layer))
	for v := range xs {
		var four [4]float64
		for i, way := range ways {
			if i%2 == 0 {
				four[i] = way[v] + lows[narrowest] - lows[i]
			} else {
				four[i] = way[v] + highs[narrowest] - highs[i]
			}
		}
		slices.Sort(four[:])
		xs[v] = math.Round((four[1] + four[2]) / 2)
	}
	return xs
}

// crossedCuts returns the edges, as upper and lower vertex, that cross the
// inside of a long edge. Only the long edge may then be made straight.
func (g *net) crossedCuts() map[[2]int]bool {
	crossed := map[[2]int]bool{}
	for l := 1; l < len(g.layers); l++ {
		layer := g.layers[l]
		left, scanned := 0, 0
		for i, v := range layer {
			inside := g.isCut(v) && len(g.in[v]) == 1 && g.isCut(g.in[v][0])
			if !inside && i < len(layer)-1 {
				continue
			}
			right := len(g.layers[l-1])
			if inside {
				right = g.pos[g.in[v][0]]
			}
			for ; scanned <= i; scanned++ {
				w := layer[scanned]
				for _, u := range g.in[w] {
					if (g.pos[u] < left || g.pos[u] > right) && !(g.isCut(u) && g.isCut(w)) {
						crossed[[2]int{u, w}] = true
					}
				}
			}
			left = right
		}
	}
	return crossed
}

// blocks are columns of vertices that share one x.
type blocks struct {
	root   []int // first vertex of each vertex's column
	next   []int // next in the column; the last leads to the first
	right  []int // neighbour of each vertex in its layer, in the direction of the pass; -1: none
	mirror bool  // the pass runs from the right
}

// align puts each vertex below a median of its upper neighbours (down), or
// above one of its lower ones, going through the layers from the left or from
// the right, where no other column is in the way.
func (g *net) align(down, fromLeft bool, crossed map[[2]int]bool) blocks {
	n := len(g.layer)
	b := blocks{make([]int, n), make([]int, n), make([]int, n), !fromLeft}
	for v := range n {
		b.root[v], b.next[v] = v, v
	}
	near := g.out
	if down {
		near = g.in
	}
	for l := range g.layers {
		if !down {
			l = len(g.layers) - 1 - l
		}
		layer := g.layers[l]
		last, reached := -1, -1 // vertex passed; place in the layer before that is taken
		for i := range layer {
			if !fromLeft {
				i = len(layer) - 1 - i
			}
			v := layer[i]
			b.right[v] = -1
			if last >= 0 {
				b.right[last] = v
			}
			last = v
			medians := []int{(len(near[v]) - 1) / 2, len(near[v]) / 2}
			if !fromLeft {
				slices.Reverse(medians)
			}
			for _, m := range medians {
				if len(near[v]) == 0 || b.next[v] != v {
					break
				}
				u := near[v][m]
				at := g.pos[u]
				if !fromLeft {
					at = len(g.layers[g.layer[u]]) - 1 - at
				}
				edge := [2]int{u, v}
				if !down {
					edge = [2]int{v, u}
				}
				if at > reached && !crossed[edge] {
					b.root[v] = b.root[u]
					b.next[v] = b.root[v]
					b.next[u] = v
					reached = at
				}
			}
		}
	}
	return b
}

// compact returns an x for each vertex: as far left as the columns allow, then
// columns with free space on the right moved up to their neighbours there.
func (g *net) compact(b blocks) []float64 {
	n := len(b.root)
	waits := make([]int, n) // columns on the left not placed yet, by root
	for _, v := range b.right {
		if v >= 0 {
			waits[b.root[v]]++
		}
	}
	xs := make([]float64, n)
	var order []int
	for v := range n {
		if b.root[v] == v && waits[v] == 0 {
			order = append(order, v)
		}
	}
	for i := 0; i < len(order); i++ {
		root := order[i]
		b.column(root, func(u, v int) {
			r := b.root[v]
			xs[r] = max(xs[r], xs[root]+g.separation(u, v))
			if waits[r]--; waits[r] == 0 {
				order = append(order, r)
			}
		})
	}
	for _, root := range slices.Backward(order) {
		free := math.Inf(1)
		b.column(root, func(u, v int) {
			free = min(free, xs[b.root[v]]-g.separation(u, v))
		})
		if !math.IsInf(free, 1) {
			xs[root] = max(xs[root], free)
		}
	}
	for v := range n {
		xs[v] = xs[b.root[v]]
	}
	if b.mirror {
		for v := range n {
			xs[v] = -xs[v]
		}
	}
	return xs
}

// column calls f for each vertex of the column that has a neighbour on the
// right, with both.
func (b *blocks) column(root int, f func(u, v int)) {
	for u := root; ; {
		if v := b.right[u]; v >= 0 {
			f(u, v)
		}
		if u = b.next[u]; u == root {
			return
		}
	}
}
