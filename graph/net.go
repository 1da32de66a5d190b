package graph

import (
	"cmp"
	"slices"
)

// This file orders the steps within the layers so that few edges cross.

// A net is the graph in which each edge goes from a layer to the next one: a
// longer edge is cut by a vertex in every layer that it passes. The first
// vertices are the boxes: steps and groups. Then come the ports, where edges
// cross the border around the net, and then the cuts.
type net struct {
	boxes   int
	layer   []int
	width   []float64 // 0 for a vertex that is no box
	in, out [][]int   // vertices of the layer above and of the one below
	layers  [][]int   // vertices from the left
	pos     []int     // place of each vertex in its layer
	chains  [][]int   // for each edge, the vertices that cut it
	edges   int       // between vertices
}

// maxCuts is how many vertices may cut long edges. If there would be more, the
// longest edges run straight, across whatever is in their way.
const maxCuts = 60000

// newNet returns the net of boxes and ports, by their layers and widths, and of
// edges between them.
func newNet(edges [][2]int, layer []int, widths []float64, boxes int) *net {
	g := &net{
		boxes:  boxes,
		layer:  slices.Clone(layer),
		width:  slices.Clone(widths),
		in:     make([][]int, len(layer)),
		out:    make([][]int, len(layer)),
		chains: make([][]int, len(edges)),
	}
	longest := cutLimit(edges, layer)
	for i, e := range edges {
		from, to := e[0], e[1]
		if layer[to]-layer[from] > longest {
			continue
		}
		last := from
		for l := layer[from] + 1; l < layer[to]; l++ {
			v := len(g.layer)
			g.layer = append(g.layer, l)
			g.width = append(g.width, 0)
			g.in = append(g.in, nil)
			g.out = append(g.out, nil)
			g.chains[i] = append(g.chains[i], v)
			g.join(last, v)
			last = v
		}
		g.join(last, to)
	}
	g.pos = make([]int, len(g.layer))
	if len(layer) > 0 {
		g.layers = make([][]int, slices.Max(layer)+1)
	}
	g.firstOrder()
	return g
}

// cutLimit returns how many layers an edge may span and still be cut.
func cutLimit(edges [][2]int, layer []int) int {
	bySpan := map[int]int{}
	var spans []int
	for _, e := range edges {
		span := layer[e[1]] - layer[e[0]]
		if bySpan[span]++; bySpan[span] == 1 {
			spans = append(spans, span)
		}
	}
	slices.Sort(spans)
	cuts, limit := 0, 1
	for _, span := range spans {
		if cuts += bySpan[span] * (span - 1); cuts > maxCuts {
			break
		}
		limit = span
	}
	return limit
}

func (g *net) join(u, v int) {
	g.out[u] = append(g.out[u], v)
	g.in[v] = append(g.in[v], u)
	g.edges++
}

// isCut reports whether an edge runs through the vertex.
func (g *net) isCut(v int) bool { return v >= g.boxes }

// firstOrder fills the layers depth first, in the order of the script.
func (g *net) firstOrder() {
	seen := make([]bool, len(g.layer))
	var stack []int
	top := 0 // layer of the first boxes, below that of the ports
	if g.boxes > 0 {
		top = slices.Min(g.layer[:g.boxes])
	}
	for s := range g.boxes {
		if g.layer[s] > top {
			continue
		}
		stack = append(append(stack, s), g.in[s]...)
		for len(stack) > 0 {
			v := stack[len(stack)-1]
			stack = stack[:len(stack)-1]
			if seen[v] {
				continue
			}
			seen[v] = true
			l := g.layer[v]
			g.pos[v] = len(g.layers[l])
			g.layers[l] = append(g.layers[l], v)
			for _, w := range slices.Backward(g.out[v]) {
				stack = append(stack, w)
			}
		}
	}
	// A vertex whose edges all run straight is reached from nowhere.
	for v, ok := range seen {
		if !ok {
			l := g.layer[v]
			g.pos[v] = len(g.layers[l])
			g.layers[l] = append(g.layers[l], v)
		}
	}
}

// reduceCrossings sorts each layer by the barycenters of its vertices'
// neighbours, downwards and upwards in turn, and keeps the best order found.
// In a small net it also swaps neighbours in a layer while that helps.
func (g *net) reduceCrossings() {
	size := len(g.layer) + g.edges
	rounds := min(24, max(2, 600000/(size+1)))
	best, bestOrder := g.crossings(), g.copyOrder()
	for round, stale := 0, 0; round < rounds && best > 0 && stale < 6; round++ {
		if round%2 == 0 {
			for l := 1; l < len(g.layers); l++ {
				g.sortLayer(l, g.in)
			}
		} else {
			for l := len(g.layers) - 2; l >= 0; l-- {
				g.sortLayer(l, g.out)
			}
		}
		if size < 6000 {
			g.swapNeighbours()
		}
		stale++
		if n := g.crossings(); n < best {
			best, bestOrder, stale = n, g.copyOrder(), 0
		}
	}
	g.layers = bestOrder
	for _, layer := range g.layers {
		g.number(layer)
	}
}

func (g *net) copyOrder() [][]int {
	order := make([][]int, len(g.layers))
	for i, layer := range g.layers {
		order[i] = slices.Clone(layer)
	}
	return order
}

func (g *net) number(layer []int) {
	for i, v := range layer {
		g.pos[v] = i
	}
}

// sortLayer sorts a layer by the mean place of each vertex's neighbours.
// Vertices without any keep their place.
func (g *net) sortLayer(l int, near [][]int) {
	type entry struct {
		v    int
		mean float64
	}
	layer := g.layers[l]
	var moving []entry
	for _, v := range layer {
		if len(near[v]) > 0 {
			sum := 0
			for _, u := range near[v] {
				sum += g.pos[u]
			}
			moving = append(moving, entry{v, float64(sum) / float64(len(near[v]))})
		}
	}
	slices.SortStableFunc(moving, func(a, b entry) int { return cmp.Compare(a.mean, b.mean) })
	for i, v := range layer {
		if len(near[v]) > 0 {
			layer[i] = moving[0].v
			moving = moving[1:]
		}
	}
	g.number(layer)
}

// swapNeighbours swaps vertices side by side while that removes crossings.
func (g *net) swapNeighbours() {
	for range 8 {
		swapped := false
		for _, layer := range g.layers {
			for i := 1; i < len(layer); i++ {
				u, v := layer[i-1], layer[i]
				before := g.pairCrossings(g.in[u], g.in[v]) + g.pairCrossings(g.out[u], g.out[v])
				if before == 0 {
					continue
				}
				if after := g.pairCrossings(g.in[v], g.in[u]) + g.pairCrossings(g.out[v], g.out[u]); after < before {
					layer[i-1], layer[i] = v, u
					g.pos[u], g.pos[v] = i, i-1
					swapped = true
				}
			}
		}
		if !swapped {
			return
		}
	}
}

// pairCrossings returns how often edges to the vertices a, from a vertex on
// the left, cross those to the vertices b, from one on the right.
func (g *net) pairCrossings(a, b []int) int {
	n := 0
	for _, u := range a {
		for _, v := range b {
			if g.pos[v] < g.pos[u] {
				n++
			}
		}
	}
	return n
}

// crossings returns how many pairs of edges cross.
//
// The method is a tree of sums: Barth, Jünger, Mutzel, "Simple and Efficient
// Bilayer Cross Counting", 2002.
func (g *net) crossings() int {
	n := 0
	var ends, sums []int
	for l := 1; l < len(g.layers); l++ {
		sums = slices.Grow(sums[:0], len(g.layers[l])+1)[:len(g.layers[l])+1]
		clear(sums)
		count := 0
		for _, u := range g.layers[l-1] {
			ends = ends[:0]
			for _, v := range g.out[u] {
				ends = append(ends, g.pos[v])
			}
			slices.Sort(ends)
			for _, e := range ends {
				n += count
				for i := e + 1; i > 0; i -= i & -i {
					n -= sums[i] // edges that end here or further left
				}
			}
			for _, e := range ends {
				count++
				for i := e + 1; i < len(sums); i += i & -i {
					sums[i]++
				}
			}
		}
	}
	return n
}
