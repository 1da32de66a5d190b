package graph

import "slices"

// This file finds room for the labels of edges.

// placeLabels sets the labels of those edges in a part of a scope that have the
// room.
func (l *layouter) placeLabels(s *scope, q *part) {
	const maxCurves = 150 // between two layers; with more, labels only add to the tangle
	type curve struct {
		piece
		start, end Point
	}
	gaps := make([][]curve, len(q.net.layers)) // the curves above each layer
	l.curves(q, func(r piece, layer int, from, to float64) {
		gaps[layer] = append(gaps[layer], curve{r,
			Point{s.at.X + from, s.at.Y + q.ends[layer-1]},
			Point{s.at.X + to, s.at.Y + q.tops[layer]}})
	})
	type box struct{ left, top, right, bottom float64 }
	outs, ins := make([]int, len(q.net.layer)), make([]int, len(q.net.layer))
	for _, r := range q.pieces {
		u, v := l.ends(q, r)
		outs[u]++
		ins[v]++
	}
	for layer, curves := range gaps {
		if len(curves) > maxCurves {
			continue
		}
		var taken []box
		if s.group >= 0 && layer == 1 {
			g := &l.d.Groups[s.group-l.f.steps]
			taken = append(taken, box{g.X, g.Y, g.X + nodePad + textWidth(g.Label, groupSize), g.Y + 24})
		}
		for _, c := range curves {
			e := &l.d.Edges[c.edge]
			text := l.edges[c.edge].label()
			w := textWidth(text, labelSize) + 6
			if text == "" || e.Label != "" || w > 120 {
				continue
			}
			best, bestHits := Point{}, 2 // edges of others that a label may cover, and one
			var bestBox box
			tries := []float64{0.5, 0.625, 0.375, 0.75, 0.25}
			// Curves lie further apart towards the end with fewer of them.
			u, v := l.ends(q, c.piece)
			if out, in := outs[u], ins[v]; out > in {
				tries = []float64{0.6875, 0.75, 0.625, 0.5, 0.375}
			} else if out < in {
				tries = []float64{0.3125, 0.25, 0.375, 0.5, 0.625}
			}
			for _, t := range tries {
				at := along(c.start, c.end, t)
				b := box{at.X - w/2, at.Y - 7, at.X + w/2, at.Y + 7}
				if slices.ContainsFunc(taken, func(o box) bool {
					return b.left < o.right && o.left < b.right && b.top < o.bottom && o.top < b.bottom
				}) {
					continue
				}
				hits := 0
				for _, o := range curves {
					// All curves of a gap are at the same height at the same t.
					x0, x1 := along(o.start, o.end, t-0.125).X, along(o.start, o.end, t+0.125).X
					if o.piece != c.piece && max(x0, x1) > b.left && min(x0, x1) < b.right {
						hits++
					}
				}
				if hits < bestHits {
					best, bestHits, bestBox = at, hits, b
				}
			}
			if best != (Point{}) {
				e.Label, e.At = text, best
				taken = append(taken, bestBox)
			}
		}
	}
}

// along returns the point at t, from 0 to 1, of the curve from a to b that is
// upright at both ends: the cubic whose control points are at half the height.
func along(a, b Point, t float64) Point {
	u := 1 - t
	s := t * t * (3*u + t)
	half := (b.Y - a.Y) / 2
	return Point{
		X: a.X + (b.X-a.X)*s,
		Y: a.Y + half*(3*u*u*t+3*u*t*t) + half*2*t*t*t,
	}
}
