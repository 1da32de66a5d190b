package graph

import (
	"cmp"
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
	Groups      []Group // in the order they were opened
	Edges       []Edge  // by the one that needs, then by the one it needs
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
	Layer      int     // place in Layers; without groups, the length of the longest path to the step
	Name       string  // of the step, as the pipeline has it
	Label      string  // Name, short enough for the box
	Image      string  // short; what a step without a container does ("create Job"); "" if there is none
	Tip        string  // tooltip, in lines
	Pos        dag.Pos // in the script
	Class      string  // more classes for the SVG's styles, apart by spaces; "" after Layout
}

// A Group is the box around the steps of a group: a condition, a loop, an exit
// handler, a graph. It holds the boxes of what stands in it, and no others.
type Group struct {
	X, Y, W, H float64       // left, top, width, height
	Parent     int           // place in Groups of the group that it stands in; -1: none
	Name       string        // of the group, as the pipeline has it
	Kind       dag.GroupKind // "condition" and so on
	Label      string        // in the words of the script: "else", "for item in [1, 2]"
	Empty      bool          // nothing stands in it, as in another round of a graph
	Tip        string        // tooltip, in lines
	Pos        dag.Pos       // in the script
	Class      string        // more classes for the SVG's styles, apart by spaces; "" after Layout
}

// An Edge is the curve from a step or group to one that needs it. Neither
// stands in the other.
type Edge struct {
	From, To int      // places in Nodes; from len(Nodes) on, len(Nodes)+i is Groups[i]
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
	groupSize  = 11.0
	lineHeight = 19.0
	maxParams  = 12 // lines of params

	groupPad    = 16.0 // between a group's sides and what stands in it
	groupTop    = 40.0 // above what stands in it, with the label
	groupBottom = 30.0 // below, where edges leave
	emptyHeight = 30.0 // of a group that nothing stands in
)

// Columns of the texts in a box.
const (
	maxName  = 32
	maxImage = 30
)

// Layout returns the picture of the pipeline: from the top, each step or group
// below those that it needs; steps of one layer could run at the same time.
// What stands in a group is laid out on its own, and the group is then one box
// among those beside it. Where very many have no edge at all, they stand in
// columns beside the others. The error is that of p.Order.
//
// The method is Sugiyama's: layers by longest path, order within the layers by
// barycenters, then positions by Brandes and Köpf. It takes time in proportion
// to steps, edges and the layers that edges cross, and gives up polish, not
// speed, where these are many.
func Layout(p *dag.Pipeline) (*Drawing, error) {
	f, err := newForest(p)
	if err != nil {
		return nil, err
	}
	d := &Drawing{Name: clean(p.Name), Description: clean(p.Description)}
	for _, s := range p.Steps {
		n := Node{
			H:     nodeHeight,
			Name:  s.Name,
			Label: shorten(clean(s.Name), maxName),
			Image: shorten(imageName(s), maxImage),
			Tip:   stepTip(s),
			Pos:   s.Pos,
		}
		n.W = max(nodeMin, 2*nodePad+max(textWidth(n.Label, nameSize), textWidth(n.Image, imageSize)))
		d.Nodes = append(d.Nodes, n)
	}
	for k, g := range p.Groups {
		parent := f.parent[f.steps+k]
		if parent >= 0 {
			parent -= f.steps
		}
		d.Groups = append(d.Groups, Group{
			W:      2*nodePad + textWidth(f.labels[k], groupSize),
			H:      emptyHeight,
			Parent: parent,
			Name:   g.Name,
			Kind:   g.Kind,
			Label:  f.labels[k],
			Empty:  len(f.kids[k]) == 0,
			Tip:    f.groupTip(k),
			Pos:    g.Pos,
		})
	}
	bottom := d.header(p)
	l := newLayouter(f, d)
	root := l.scopes[len(l.scopes)-1]
	l.arrange(root)
	left := margin
	if spare := d.Width - (root.w + 2*margin); spare > 0 {
		left += min(math.Floor(spare/2), 200)
	} else {
		d.Width = root.w + 2*margin
	}
	l.put(root, Point{left, bottom})
	d.Height = bottom + root.h + margin
	d.setLayers()
	for i, e := range l.edges {
		d.Edges = append(d.Edges, Edge{
			From:    e.from,
			To:      e.to,
			Outputs: slices.Clone(e.outputs),
			Tip:     f.tip(e),
			Points:  l.points(i),
		})
	}
	for i := range l.scopes {
		s := l.scopes[(i+len(l.scopes)-1)%len(l.scopes)] // first those of the whole
		for _, q := range s.parts {
			l.placeLabels(s, q)
		}
	}
	return d, nil
}

// setLayers sets the layers: the steps at each height, from the left.
func (d *Drawing) setLayers() {
	order := make([]int, len(d.Nodes))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(cmp.Compare(d.Nodes[a].Y, d.Nodes[b].Y), cmp.Compare(d.Nodes[a].X, d.Nodes[b].X))
	})
	for i, v := range order {
		if i == 0 || d.Nodes[v].Y != d.Nodes[order[i-1]].Y {
			d.Layers = append(d.Layers, nil)
		}
		last := len(d.Layers) - 1
		d.Nodes[v].Layer = last
		d.Layers[last] = append(d.Layers[last], v)
	}
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
