package graph

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

// This file writes a pipeline as text for other programs that draw graphs.

// DOT returns the pipeline as a digraph for Graphviz, one statement a line:
// the steps in the order of the script, then the edges. The error is that of
// p.Order.
//
// The source is https://graphviz.org/doc/info/lang.html.
func DOT(p *dag.Pipeline) (string, error) {
	edges, _, err := links(p)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "digraph %s {\n", dot(clean(p.Name)))
	b.WriteString("\trankdir=TB;\n")
	b.WriteString("\tnode [shape=box, style=\"rounded,filled\", fillcolor=\"#f2f7fd\", color=\"#86a6cc\", fontname=\"sans-serif\", fontsize=12];\n")
	b.WriteString("\tedge [color=\"#7b8a9a\", fontname=\"sans-serif\", fontsize=10];\n")
	for _, s := range p.Steps {
		fmt.Fprintf(&b, "\t%s [label=%s, tooltip=%s];\n", dot(clean(s.Name)), dot(label(s)), dot(stepTip(s)))
	}
	for _, e := range edges {
		attr := "style=dashed"
		if label := e.label(); label != "" {
			attr = "label=" + dot(shorten(label, 40))
		}
		fmt.Fprintf(&b, "\t%s -> %s [%s];\n", dot(clean(p.Steps[e.from].Name)), dot(clean(p.Steps[e.to].Name)), attr)
	}
	b.WriteString("}\n")
	return b.String(), nil
}

// label returns what the box of a step says, in one or two lines.
func label(s *dag.Step) string {
	text := shorten(clean(s.Name), maxName)
	if image := imageName(s); image != "" {
		text += "\n" + shorten(image, maxImage)
	}
	return text
}

// Graphviz reads entities of HTML in its texts, hence the first.
var dotEscapes = strings.NewReplacer("&", "&amp;", `\`, `\\`, `"`, `\"`, "\n", `\n`)

func dot(text string) string { return `"` + dotEscapes.Replace(text) + `"` }

// Mermaid returns the pipeline as a flowchart for Mermaid, which GitHub and
// others draw in Markdown. The ids n0, n1 and so on count the steps in the
// order of the script. The error is that of p.Order. Mermaid as shipped
// refuses more than 500 edges or 50,000 characters.
//
// The source is https://mermaid.js.org/syntax/flowchart.html.
func Mermaid(p *dag.Pipeline) (string, error) {
	edges, _, err := links(p)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	if name := clean(p.Name); name != "" {
		title, err := json.Marshal(name) // also a text of YAML
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&b, "---\ntitle: %s\n---\n", title)
	}
	b.WriteString("flowchart TD\n")
	for i, s := range p.Steps {
		fmt.Fprintf(&b, "    n%d[\"%s\"]\n", i, mermaid(label(s)))
	}
	for _, e := range edges {
		arrow := "-.->"
		if label := e.label(); label != "" {
			arrow = `-->|"` + mermaid(shorten(label, 40)) + `"|`
		}
		fmt.Fprintf(&b, "    n%d %s n%d\n", e.from, arrow, e.to)
	}
	return b.String(), nil
}

// Besides what ends a label, the backquote would begin Markdown, and %% a
// directive anywhere in the text.
var mermaidEscapes = strings.NewReplacer("#", "#35;", `"`, "#quot;", "<", "#lt;", ">", "#gt;", "&", "#amp;", "`", "#96;", "%", "#37;", "*", "#42;", "\n", "<br/>")

func mermaid(text string) string {
	text = mermaidEscapes.Replace(text)
	// Mermaid takes the last semicolon off what looks like its own styles.
	if strings.Contains(text, "style") || strings.Contains(text, "classDef") {
		text = strings.ReplaceAll(text, ":", "#58;")
	}
	return text
}
