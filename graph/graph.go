// Package graph draws a pipeline as a picture: steps as boxes in layers, each
// below the steps it needs, edges as curves between them, and groups as boxes
// around their steps.
//
//	Layout     places the steps and edges of a pipeline
//	Drawing    the placed picture as plain data, for any page to draw or style
//	Node       a step's box
//	Group      the box around a condition's, a loop's or a graph's steps
//	Edge       a curve from a step or group to one that needs it
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
// order alone is dashed. An edge to a group is one to each step in it; the many
// edges between one step and the members of a group are drawn as one, with the
// group. The step of an exit handler stands below all others.
//
// Equal pipelines give equal bytes, in the order of the script. All three
// refuse a pipeline whose needs form a cycle, with the error of dag. Names in
// the pictures are made safe: control characters, invalid UTF-8 and marks that
// turn the direction of text show as U+FFFD.
package graph

import (
	"slices"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

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
