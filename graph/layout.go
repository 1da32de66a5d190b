package graph

import (
	"math"
	"slices"

	"github.com/kfs-project/kfs/dag"
)

// This file defines the picture as data and how one is made.

// A Drawing is a pipeline as a picture. Lengths are in pixels of CSS; x grows
// to the right and y downwards. A caller may change it before it calls SVG.
type Drawing struct {
	Name        string // of the pipeline
	Description string
	Width       float64
	Height      float64
	Header      []Line  // above the steps: name, description, params
	Nodes       []Node  // in the order of the script
	Edges       []Edge  // by the step that needs, then by the step it needs
	Layers      [][]int // places in Nodes, from the top and from the left
}

// A Line is a line of text above the steps.
type Line struct {
	X, Y  float64 // left end of the baseline
	Text  string
	Tip   string // tooltip; may be ""
	Class string // "name", "about", "caption" or "param"
}

// A Node is the box of a step.
type Node struct {
	X, Y, W, H float64 // left, top, width, height
	Layer      int     // place in Layers: the length of the longest path to the step
	Name       string  // of the step, as the pipeline has it
	Label      string  // Name, short enough for the box
	Image      string  // short; what a step without a container does ("create Job"); "" if there is none
	Tip        string  // tooltip, in lines
	Pos        dag.Pos // in the script
	Class      string  // more classes for the SVG's styles, apart by spaces; "" after Layout
}

// An Edge is the curve from a step to one that needs it.
type Edge struct {
	From, To int      // places in Nodes
	Outputs  []string // of From, used by To; none if the edge is of order alone
	Tip      string   // tooltip

	// Points begin at From's lower side and end at To's upper side. The curve
	// runs between the first and second, third and fourth and so on, upright
	// at both ends; between the others it is straight, past a layer's steps.
	Points []Point

	Label string // names of the outputs, or "" where they are too long or in the way
	At    Point  // centre of Label
}

// A Point is a place in the picture.
type Point struct{ X, Y float64 }

// Lengths in pixels, unless noted.
const (
	margin     = 24.0
	nodeHeight = 46.0
	nodeMin    = 92.0 // width
	nodePad    = 14.0 // left and right of a box's text
	nameSize   = 13.0 // of the fonts
	imageSize  = 11.0
	labelSize  = 10.0
	lineHeight = 19.0
	maxParams  = 12 // lines of params
)

// Columns of the texts in a box.
const (
	maxName  = 32
	maxImage = 30
)

// Layout returns the picture of the pipeline: from the top, each step in the
// layer below the lowest step that it needs; steps of one layer could run at
// the same time. The error is that of p.Order.
//
// The method is Sugiyama's: layers by longest path, order within the layers by
// barycenters, then positions by Brandes and Köpf. It takes time in proportion
// to steps, edges and the layers that edges cross, and gives up polish, not
// speed, where these are many.
func Layout(p *dag.Pipeline) (*Drawing, error) {
	edges, layer, err := links(p)
	if err != nil {
		return nil, err
	}
	d := &Drawing{Name: clean(p.Name), Description: clean(p.Description)}
	widths := make([]float64, len(p.Steps))
	for i, s := range p.Steps {
		n := Node{
			H:     nodeHeight,
			Layer: layer[i],
			Name:  s.Name,
			Label: shorten(clean(s.Name), maxName),
			Image: shorten(imageName(s), maxImage),
			Tip:   stepTip(s),
			Pos:   s.Pos,
		}
		n.W = max(nodeMin, 2*nodePad+max(textWidth(n.Label, nameSize), textWidth(n.Image, imageSize)))
		widths[i] = n.W
		d.Nodes = append(d.Nodes, n)
	}

	g := newNet(edges, layer, widths)
	g.reduceCrossings()
	xs := g.place()
	for _, vertices := range g.layers {
		var nodes []int
		for _, v := range vertices {
			if v < len(d.Nodes) {
				nodes = append(nodes, v)
			}
		}
		d.Layers = append(d.Layers, nodes)
	}

	bottom := d.header(p)
	d.setPlaces(g, xs, bottom)
	for i, e := range edges {
		d.Edges = append(d.Edges, Edge{
			From:    e.from,
			To:      e.to,
			Outputs: slices.Clone(e.outputs),
			Tip:     edgeTip(p, e),
			Points:  d.points(g.chains[i], e, xs),
		})
	}
	d.placeLabels(edges)
	return d, nil
}

// header sets the lines above the steps and returns where they end.
func (d *Drawing) header(p *dag.Pipeline) float64 {
	y := margin
	add := func(text, tip, class string, size float64) {
		y += lineHeight
		d.Header = append(d.Header, Line{margin, y - 5, text, tip, class})
		d.Width = max(d.Width, 2*margin+textWidth(text, size))
	}
	if d.Name != "" {
		add(shorten(d.Name, 80), "", "name", 18) // bold, so wider than its 16 pixels
	}
	if d.Description != "" {
		add(shorten(d.Description, 90), d.Description, "about", 12)
	}
	lines, tips := paramLines(p)
	if len(lines) > 0 {
		y += 4
		add("Params", "values given from outside, before the run", "caption", 11)
	}
	for i, line := range lines {
		if i == maxParams-1 && len(lines) > maxParams {
			add("and "+decimal(float64(len(lines)-i))+" more params", "", "param", 12)
			break
		}
		add(line, tips[i], "param", 12)
	}
	if len(d.Header) > 0 {
		y += margin
	}
	return y
}

// setPlaces moves the middles xs of the net's vertices into the picture, and
// sets the nodes' places and the picture's size. Steps begin at y.
func (d *Drawing) setPlaces(g *net, xs []float64, y float64) {
	left, right := math.Inf(1), math.Inf(-1)
	for v, x := range xs {
		left = min(left, x-g.width[v]/2)
		right = max(right, x+g.width[v]/2)
	}
	if len(xs) == 0 {
		left, right = 0, 0
	}
	shift := margin - left
	if spare := d.Width - (right - left + 2*margin); spare > 0 {
		shift += min(math.Floor(spare/2), 200)
	} else {
		d.Width = right - left + 2*margin
	}
	for v := range xs {
		xs[v] += shift
	}
	for i, vertices := range g.layers {
		if i > 0 {
			y += d.gap(g, xs, vertices)
		}
		for _, v := range vertices {
			if v < len(d.Nodes) {
				n := &d.Nodes[v]
				n.X, n.Y = xs[v]-n.W/2, y
			}
		}
		y += nodeHeight
	}
	d.Height = y + margin
}

// gap returns the space to leave above the vertices of a layer: more where
// edges come from far aside or bear names.
func (d *Drawing) gap(g *net, xs []float64, layer []int) float64 {
	far := 0.0
	for _, v := range layer {
		for _, u := range g.in[v] {
			far = max(far, math.Abs(xs[u]-xs[v]))
		}
	}
	return 52 + min(math.Floor(far/12), 88)
}

// points returns the points of the edge that runs through the vertices.
func (d *Drawing) points(chain []int, e link, xs []float64) []Point {
	from, to := &d.Nodes[e.from], &d.Nodes[e.to]
	points := []Point{{xs[e.from], from.Y + from.H}}
	for i, v := range chain {
		y := d.Nodes[d.Layers[from.Layer+1+i][0]].Y
		points = append(points, Point{xs[v], y}, Point{xs[v], y + nodeHeight})
	}
	return append(points, Point{xs[e.to], to.Y})
}

// placeLabels sets the labels of those edges that have the room.
func (d *Drawing) placeLabels(edges []link) {
	const maxCurves = 150 // between two layers; with more, labels only add to the tangle
	type curve struct {
		edge     int
		from, to Point
	}
	gaps := make([][]curve, len(d.Layers)) // the curves above each layer
	for i := range d.Edges {
		e := &d.Edges[i]
		if len(e.Points) > 2 || d.Nodes[e.From].Layer+1 == d.Nodes[e.To].Layer {
			for j := 0; j < len(e.Points); j += 2 {
				layer := d.Nodes[e.From].Layer + 1 + j/2
				gaps[layer] = append(gaps[layer], curve{i, e.Points[j], e.Points[j+1]})
			}
		}
	}
	type box struct{ left, top, right, bottom float64 }
	outs, ins := make([]int, len(d.Nodes)), make([]int, len(d.Nodes))
	for _, e := range d.Edges {
		outs[e.From]++
		ins[e.To]++
	}
	for _, curves := range gaps {
		if len(curves) > maxCurves {
			continue
		}
		var taken []box
		for _, c := range curves {
			e := &d.Edges[c.edge]
			text := edges[c.edge].label()
			w := textWidth(text, labelSize) + 6
			if text == "" || e.Label != "" || w > 120 {
				continue
			}
			best, bestHits := Point{}, 2 // edges of others that a label may cover, and one
			var bestBox box
			tries := []float64{0.5, 0.625, 0.375, 0.75, 0.25}
			// Curves lie further apart towards the end with fewer of them.
			if out, in := outs[e.From], ins[e.To]; out > in {
				tries = []float64{0.6875, 0.75, 0.625, 0.5, 0.375}
			} else if out < in {
				tries = []float64{0.3125, 0.25, 0.375, 0.5, 0.625}
			}
			for _, t := range tries {
				at := along(c.from, c.to, t)
				b := box{at.X - w/2, at.Y - 7, at.X + w/2, at.Y + 7}
				if slices.ContainsFunc(taken, func(o box) bool {
					return b.left < o.right && o.left < b.right && b.top < o.bottom && o.top < b.bottom
				}) {
					continue
				}
				hits := 0
				for _, o := range curves {
					// All curves of a gap are at the same height at the same t.
					x0, x1 := along(o.from, o.to, t-0.125).X, along(o.from, o.to, t+0.125).X
					if o.edge != c.edge && max(x0, x1) > b.left && min(x0, x1) < b.right {
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
