package graph

import (
	"math"
)

// This file finds the places of parts and layers in a scope, and its size.

// setWidth puts the parts of a scope side by side, and the rest beside them,
// and sets the width.
func (l *layouter) setWidth(s *scope) {
	width := 0.0
	starts := make([]float64, len(s.parts)) // what moves a part to its place
	for i, q := range s.parts {
		left, right := math.Inf(1), math.Inf(-1)
		for v, x := range q.xs {
			left = min(left, x-q.net.width[v]/2)
			right = max(right, x+q.net.width[v]/2)
		}
		if i > 0 {
			width += partSpace
		}
		starts[i] = width - left
		width += right - left
	}
	if len(s.rest) > 0 && len(s.parts) > 0 {
		width += partSpace
	}
	restLeft := width
	width += l.columns(s)
	pad := 0.0
	if s.group >= 0 {
		pad = groupPad
	}
	s.w = width + 2*pad
	if s.group >= 0 {
		least := l.d.Groups[s.group-l.f.steps].W // of the label
		if spare := least - s.w; spare > 0 {
			pad += math.Floor(spare / 2)
			s.w = least
		}
	}
	for i, q := range s.parts {
		for v := range q.xs {
			q.xs[v] += pad + starts[i]
		}
	}
	for i := range s.restAt {
		s.restAt[i].X += pad + restLeft
	}
}

// loose is the space between boxes of the rest.
const loose = 24.0

// columns puts the rest in columns, row by row and about as wide as a page,
// and returns their width.
func (l *layouter) columns(s *scope) float64 {
	if len(s.rest) == 0 {
		return 0
	}
	area, width := 0.0, 0.0
	for _, id := range s.rest {
		w, h := l.size(id)
		area += (w + loose) * (h + loose)
		width += w + loose
	}
	mean := width / float64(len(s.rest))
	n := min(len(s.rest), max(1, int(math.Sqrt(1.6*area)/mean)))
	widths := make([]float64, n)
	for i, id := range s.rest {
		w, _ := l.size(id)
		widths[i%n] = max(widths[i%n], w)
	}
	y, height, x := 0.0, 0.0, 0.0
	for i, id := range s.rest {
		w, h := l.size(id)
		if i > 0 && i%n == 0 {
			x, y, height = 0, y+height+loose, 0
		}
		s.restAt = append(s.restAt, Point{x + math.Floor((widths[i%n]-w)/2), y})
		x += widths[i%n] + loose
		height = max(height, h)
	}
	total := -loose
	for _, w := range widths {
		total += w + loose
	}
	return total
}

// setHeights sets where the layers of a scope begin and end, and its height.
func (l *layouter) setHeights(s *scope) {
	first, lower := 0.0, 0.0 // above the first boxes, below the last
	for _, q := range s.parts {
		q.wide = l.wide(q)
		if q.hasPorts(0) {
			first = max(first, q.wide[1])
		}
		if last := len(q.wide) - 1; q.hasPorts(last) {
			lower = max(lower, groupBottom+q.wide[last])
		}
	}
	if s.group >= 0 {
		first += groupTop
		lower = max(lower, groupPad)
	}
	bottom := 0.0
	for i, id := range s.rest {
		s.restAt[i].Y += first
		_, h := l.size(id)
		bottom = max(bottom, s.restAt[i].Y+h)
	}
	exit := l.exitOf(s)
	for _, q := range s.parts {
		if q != exit {
			bottom = max(bottom, l.setLayers(q, first, 0))
		}
	}
	if exit != nil {
		bottom = l.setLayers(exit, first, bottom+layerSpace)
	}
	s.h = bottom + lower
	for _, q := range s.parts {
		if last := len(q.net.layers) - 1; last > 0 && q.hasPorts(last) {
			q.tops[last], q.ends[last] = s.h, s.h
		}
	}
}

// setLayers sets where the layers of a part begin and end, but for the ports,
// and returns where the last ends. The first begins at first, and the last not
// above least.
func (l *layouter) setLayers(q *part, first, least float64) float64 {
	layers := len(q.net.layers)
	q.tops, q.ends = make([]float64, layers), make([]float64, layers)
	y, begun := first, false
	for i, vertices := range q.net.layers {
		if q.hasPorts(i) {
			continue
		}
		if begun {
			y += layerSpace + q.wide[i]
		}
		begun = true
		if i == layers-1 {
			y = max(y, least)
		}
		q.tops[i] = y
		height := 0.0
		for _, v := range vertices {
			if !q.net.isCut(v) {
				_, h := l.size(q.boxes[v])
				height = max(height, h)
			}
		}
		y += height
		q.ends[i] = y
	}
	return y
}

// exitOf returns the part with the step that runs last, or nil.
func (l *layouter) exitOf(s *scope) *part {
	for _, r := range s.pieces {
		if l.isExit(r) {
			return l.part[r.to]
		}
	}
	return nil
}

// hasPorts reports whether a layer has nothing but ports: the first one where
// edges enter, the last where they leave.
func (q *part) hasPorts(layer int) bool {
	return q.net.isCut(q.net.layers[layer][0]) && (layer == 0 || layer == len(q.net.layers)-1)
}

// wide returns the space that each layer needs above it for edges to bend that
// come from far aside.
func (l *layouter) wide(q *part) []float64 {
	wide := make([]float64, len(q.net.layers))
	l.curves(q, func(_ piece, layer int, from, to float64) {
		wide[layer] = max(wide[layer], min(math.Floor(math.Abs(from-to)/12), 88))
	})
	return wide
}
