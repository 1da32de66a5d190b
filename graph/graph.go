// Package graph draws a pipeline as a picture: steps as boxes in layers, each
// below the steps it needs, and edges as curves between them.
//
//	Layout     places the steps and edges of a pipeline
//	Drawing    the placed picture as plain data, for any page to draw or style
//	Node       a step's box
//	Edge       a curve from a step to one that needs it
//	Line       a line of text above the steps
//	DOT        the same graph as text for Graphviz
//	Mermaid    the same graph as text for Markdown
//
// The usual call is one of
//
//	d, err := graph.Layout(p)  // then d.SVG()
//	text, err := graph.DOT(p)
//	text, err := graph.Mermaid(p)
//
// An edge that carries an output is solid and bears the output's name; one of
// order alone is dashed. Equal pipelines give equal bytes, in the order of the
// script. All three refuse a pipeline whose needs form a cycle, with the error
// of dag. Names in the pictures are made safe: control characters, invalid
// UTF-8 and marks that turn the direction of text show as U+FFFD.
package graph

import (
	"slices"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

// A link is an edge between two steps, by their places in the pipeline.
type link struct {
	from, to int
	outputs  []string // those of from that to uses, as they stand; none: order alone
}

// links returns the edges of the pipeline by the step that needs, then by the
// step it needs, and the layer of each step: the length of the longest path
// that leads to it. Needs of unknown steps are passed over, as dag.Order does.
func links(p *dag.Pipeline) (edges []link, layer []int, err error) {
	order, err := p.Order()
	if err != nil {
		return nil, nil, err
	}
	index := make(map[string]int, len(p.Steps))
	place := make(map[*dag.Step]int, len(p.Steps))
	for i, s := range p.Steps {
		index[s.Name] = i
		place[s] = i
	}
	needs := p.Edges()
	first := make([]int, len(p.Steps)+1)
	for to, s := range p.Steps {
		outputs := map[string][]string{}
		for _, r := range s.Refs() {
			if r.Kind == dag.RefOutput {
				outputs[r.Step] = append(outputs[r.Step], r.Name)
			}
		}
		for _, name := range needs[s.Name] {
			if from, ok := index[name]; ok {
				edges = append(edges, link{from, to, outputs[name]})
			}
		}
		first[to+1] = len(edges)
	}
	layer = make([]int, len(p.Steps))
	for _, s := range order {
		to := place[s]
		for _, e := range edges[first[to]:first[to+1]] {
			layer[to] = max(layer[to], layer[e.from]+1)
		}
	}
	return edges, layer, nil
}

// label returns the names of the outputs that the edge carries, or "".
func (e link) label() string { return clean(strings.Join(e.outputs, ", ")) }

// stepTip returns what a tooltip says of a step.
func stepTip(s *dag.Step) string {
	lines := []string{clean(s.Name)}
	add := func(name, text string) {
		if text != "" {
			lines = append(lines, name+": "+text)
		}
	}
	if s.Resource != nil {
		add("resource", clean(s.Resource.String()))
	}
	add("image", clean(s.Image()))
	add("command", shorten(clean(strings.Join(s.Command(), " ")), 100))
	add("args", shorten(clean(strings.Join(s.Args(), " ")), 100))
	var outputs []string
	for _, o := range s.Outputs {
		outputs = append(outputs, clean(o.Name))
	}
	add("outputs", strings.Join(outputs, ", "))
	add("at", clean(s.Pos.String()))
	return strings.Join(lines, "\n")
}

// edgeTip returns what a tooltip says of an edge.
func edgeTip(p *dag.Pipeline, e link) string {
	tip := clean(p.Steps[e.from].Name) + " → " + clean(p.Steps[e.to].Name)
	if len(e.outputs) == 0 {
		return tip + " (order only)"
	}
	return tip + ": " + e.label()
}

// imageName returns the last part of the step's image, with its tag if that is
// short and without a digest; of a step that has no container, what it does to
// an object of the cluster.
func imageName(s *dag.Step) string {
	if s.Resource != nil {
		return clean(s.Resource.String())
	}
	image := clean(s.Image())
	image = image[strings.LastIndexByte(image, '/')+1:]
	image, _, _ = strings.Cut(image, "@")
	if name, tag, ok := strings.Cut(image, ":"); ok && columns(tag) > 12 {
		image = name
	}
	return image
}

// paramLines returns a line and a tooltip for each param, "steps = 100".
func paramLines(p *dag.Pipeline) (lines, tips []string) {
	for _, q := range p.Params {
		line := clean(q.Name)
		switch {
		case q.Default != nil && *q.Default == "":
			line += ` = ""`
		case q.Default != nil:
			line += " = " + clean(*q.Default)
		case q.Optional:
			line += " (optional)"
		default:
			line += " (required)"
		}
		tip := slices.DeleteFunc([]string{line, clean(q.Type), clean(q.Description)}, func(s string) bool { return s == "" })
		lines = append(lines, shorten(line, 60))
		tips = append(tips, strings.Join(tip, "\n"))
	}
	return lines, tips
}
