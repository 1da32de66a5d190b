package graph

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// This file writes a drawing as SVG.

// style holds for light pages, and for dark ones where the reader wants them.
// Its rules name the class kfs-graph, so that they leave alone the page that
// the SVG stands in.
const style = `
.kfs-graph { font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "DejaVu Sans", sans-serif; color-scheme: light dark; }
.kfs-graph .page { fill: #ffffff; }
.kfs-graph .name { font-size: 16px; font-weight: 600; fill: #16202c; }
.kfs-graph .about { font-size: 12px; fill: #55636f; }
.kfs-graph .caption { font-size: 11px; font-weight: 600; fill: #55636f; }
.kfs-graph .param { font-size: 12px; fill: #3a4653; }
.kfs-graph .edge path { fill: none; stroke: #7b8a9a; stroke-width: 1.4; }
.kfs-graph .edge.order path { stroke-dasharray: 4 4; }
.kfs-graph .edge path.hit { stroke: none; stroke-width: 10; stroke-dasharray: none; pointer-events: stroke; }
.kfs-graph .edge polygon { fill: #7b8a9a; }
.kfs-graph .edge:hover path { stroke: #1f6feb; }
.kfs-graph .edge:hover path.hit { stroke: none; }
.kfs-graph .edge:hover polygon { fill: #1f6feb; }
.kfs-graph .label { font-size: 10px; text-anchor: middle; fill: #4a5866; stroke: #ffffff; stroke-width: 4px; stroke-linejoin: round; paint-order: stroke; }
.kfs-graph .group rect { fill: #4b6a8c; fill-opacity: 0.035; stroke: #738394; stroke-width: 1; }
.kfs-graph .group:hover rect { stroke: #1f6feb; }
.kfs-graph .group.call rect { stroke-dasharray: 5 3; }
.kfs-graph .group-label { font-size: 11px; fill: #4a5866; stroke: #ffffff; stroke-width: 3px; stroke-linejoin: round; paint-order: stroke; pointer-events: none; }
.kfs-graph .group-label.empty { text-anchor: middle; }
.kfs-graph .step rect { fill: #f2f7fd; stroke: #86a6cc; stroke-width: 1.2; }
.kfs-graph .step:hover rect { stroke: #1f6feb; }
.kfs-graph .step text { font-size: 13px; font-weight: 600; text-anchor: middle; fill: #16202c; }
.kfs-graph .step .image { font-size: 11px; font-weight: 400; fill: #55636f; }
@media (prefers-color-scheme: dark) {
.kfs-graph .page { fill: #0f151c; }
.kfs-graph .name { fill: #e8eef5; }
.kfs-graph .about, .kfs-graph .caption { fill: #9dabb9; }
.kfs-graph .param { fill: #c3ced9; }
.kfs-graph .edge path { stroke: #76879a; }
.kfs-graph .edge polygon { fill: #76879a; }
.kfs-graph .edge:hover path { stroke: #6cb0ff; }
.kfs-graph .edge:hover path.hit { stroke: none; }
.kfs-graph .edge:hover polygon { fill: #6cb0ff; }
.kfs-graph .label { fill: #b4c1ce; stroke: #0f151c; }
.kfs-graph .group rect { fill: #8fb4dd; fill-opacity: 0.045; stroke: #73859a; }
.kfs-graph .group:hover rect { stroke: #6cb0ff; }
.kfs-graph .group-label { fill: #b4c1ce; stroke: #0f151c; }
.kfs-graph .step rect { fill: #1a2634; stroke: #4d6f99; }
.kfs-graph .step:hover rect { stroke: #6cb0ff; }
.kfs-graph .step text { fill: #e8eef5; }
.kfs-graph .step .image { fill: #9dabb9; }
}
`

// arrow is how long an arrow's head is, in pixels.
const arrow = 7.0

// SVG returns the picture as one SVG document without scripts or links, which
// may also stand inside an HTML page. Its root has the class kfs-graph. Each
// step is a group of the class step and the node's own classes, with the
// attribute data-step; each group one of the class group, its kind and its own
// classes, with data-group; each edge one of the class edge, and also order if
// it carries no output, with data-from and data-to.
func (d *Drawing) SVG() string {
	var b strings.Builder
	w, h := decimal(math.Ceil(d.Width)), decimal(math.Ceil(d.Height))
	name := d.Name
	if name == "" {
		name = "pipeline"
	}
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" class="kfs-graph" role="img" width="%s" height="%s" viewBox="0 0 %[1]s %[2]s">`+"\n", w, h)
	fmt.Fprintf(&b, "<title>%s</title>\n<desc>%s</desc>\n<style>%s</style>\n", xml(name), xml(d.summary()), style)
	fmt.Fprintf(&b, `<rect class="page" width="%s" height="%s"/>`+"\n", w, h)
	for _, l := range d.Header {
		fmt.Fprintf(&b, `<text class="%s" x="%s" y="%s">%s%s</text>`+"\n", xml(l.Class), decimal(l.X), decimal(l.Y), xmlTip(l.Tip), xml(l.Text))
	}
	for _, i := range d.groupsInwards() {
		group(&b, &d.Groups[i])
	}
	for i := range d.Edges {
		d.edge(&b, &d.Edges[i])
	}
	for i := range d.Groups {
		groupLabel(&b, &d.Groups[i])
	}
	for i := range d.Edges {
		if e := &d.Edges[i]; e.Label != "" {
			fmt.Fprintf(&b, `<text class="label" x="%s" y="%s">%s%s</text>`+"\n", decimal(e.At.X), decimal(e.At.Y+3.5), xmlTip(e.Tip), xml(e.Label))
		}
	}
	for i := range d.Nodes {
		node(&b, &d.Nodes[i])
	}
	b.WriteString("</svg>\n")
	return b.String()
}

// summary describes the picture to those who cannot see it.
func (d *Drawing) summary() string {
	what := count(len(d.Nodes), "step")
	if len(d.Groups) > 0 {
		what += " in " + count(len(d.Groups), "block")
	}
	text := fmt.Sprintf("Pipeline with %s and %s, drawn from the top in %s.",
		what, count(len(d.Edges), "edge"), count(len(d.Layers), "layer"))
	if d.Description != "" {
		text = d.Description + " " + text
	}
	return text
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return strconv.Itoa(n) + " " + what
}

// groupsInwards returns the places of the groups, each behind those around it.
func (d *Drawing) groupsInwards() []int {
	depth, order := make([]int, len(d.Groups)), make([]int, len(d.Groups))
	for i := range d.Groups {
		order[i] = i
		for p := d.Groups[i].Parent; p >= 0; p = d.Groups[p].Parent {
			depth[i]++
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(depth[a], depth[b]) })
	return order
}

func group(b *strings.Builder, g *Group) {
	class := "group " + string(g.Kind)
	if g.Class != "" {
		class += " " + g.Class
	}
	fmt.Fprintf(b, `<g class="%s" data-group="%s">%s<rect x="%s" y="%s" width="%s" height="%s" rx="10"/></g>`+"\n",
		xml(class), xml(g.Name), xmlTip(g.Tip), decimal(g.X), decimal(g.Y), decimal(g.W), decimal(g.H))
}

func groupLabel(b *strings.Builder, g *Group) {
	class, x, y := "group-label", g.X+nodePad, g.Y+18
	if g.Empty {
		class, x, y = "group-label empty", g.X+g.W/2, g.Y+g.H/2+4
	}
	fmt.Fprintf(b, `<text class="%s" x="%s" y="%s">%s</text>`+"\n", class, decimal(x), decimal(y), xml(g.Label))
}

// name returns the name of the step or group at the end of an edge.
func (d *Drawing) name(end int) string {
	if end >= len(d.Nodes) {
		return d.Groups[end-len(d.Nodes)].Name
	}
	return d.Nodes[end].Name
}

func (d *Drawing) edge(b *strings.Builder, e *Edge) {
	class := "edge"
	if len(e.Outputs) == 0 {
		class += " order"
	}
	path := e.Path()
	tip := e.Points[len(e.Points)-1]
	fmt.Fprintf(b, `<g class="%s" data-from="%s" data-to="%s">%s<path d="%s"/><path class="hit" d="%[5]s"/>`,
		class, xml(d.name(e.From)), xml(d.name(e.To)), xmlTip(e.Tip), path)
	fmt.Fprintf(b, `<polygon points="%s,%s %s,%s %s,%[2]s"/></g>`+"\n",
		decimal(tip.X-arrow/2), decimal(tip.Y-arrow), decimal(tip.X), decimal(tip.Y), decimal(tip.X+arrow/2))
}

// Path returns the edge as the data of an SVG path, up to its arrow's head.
func (e *Edge) Path() string {
	var b strings.Builder
	pair := func(x, y float64) { b.WriteString(decimal(x) + "," + decimal(y)) }
	for i, p := range e.Points {
		if i == len(e.Points)-1 {
			p.Y -= arrow
		}
		switch {
		case i == 0:
			b.WriteString("M")
		case p == e.Points[i-1]:
			continue // the end of one piece and the start of the next
		case i%2 == 0, p.X == e.Points[i-1].X:
			b.WriteString("L")
		default:
			before := e.Points[i-1]
			half := (before.Y + p.Y) / 2
			b.WriteString("C")
			pair(before.X, half)
			b.WriteString(" ")
			pair(p.X, half)
			b.WriteString(" ")
		}
		pair(p.X, p.Y)
	}
	return b.String()
}

func node(b *strings.Builder, n *Node) {
	class := "step"
	if n.Class != "" {
		class += " " + n.Class
	}
	fmt.Fprintf(b, `<g class="%s" data-step="%s">%s<rect x="%s" y="%s" width="%s" height="%s" rx="8"/>`,
		xml(class), xml(n.Name), xmlTip(n.Tip), decimal(n.X), decimal(n.Y), decimal(n.W), decimal(n.H))
	middle, y := decimal(n.X+n.W/2), n.Y+n.H/2+4.5
	if n.Image != "" {
		y -= 8
	}
	fmt.Fprintf(b, `<text x="%s" y="%s">%s</text>`, middle, decimal(y), xml(n.Label))
	if n.Image != "" {
		fmt.Fprintf(b, `<text class="image" x="%s" y="%s">%s</text>`, middle, decimal(y+16), xml(n.Image))
	}
	b.WriteString("</g>\n")
}

func xmlTip(tip string) string {
	if tip == "" {
		return ""
	}
	return "<title>" + xml(tip) + "</title>"
}

var xmlEscapes = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#39;")

// xml returns text for an element or attribute. Its lines stay apart; each is
// cleaned, since a caller may have set it.
func xml(text string) string {
	if !strings.Contains(text, "\n") {
		return xmlEscapes.Replace(clean(text))
	}
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = xmlEscapes.Replace(clean(line))
	}
	return strings.Join(lines, "\n")
}

// decimal returns x with at most one digit behind the point.
func decimal(x float64) string {
	return strconv.FormatFloat(math.Round(x*10)/10, 'f', -1, 64)
}
