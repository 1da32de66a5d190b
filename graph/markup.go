package graph

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

// This file writes a pipeline as text for other programs that draw graphs.

// DOT returns the pipeline as a digraph for Graphviz, one statement a line:
// the steps in the order of the script, in clusters for the groups, then the
// edges. The error is that of p.Order.
//
// The source is https://graphviz.org/doc/info/lang.html.
func DOT(p *dag.Pipeline) (string, error) {
	f, err := newForest(p)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "digraph %s {\n", dot(clean(p.Name)))
	b.WriteString("\trankdir=TB;\n")
	if len(p.Groups) > 0 {
		b.WriteString("\tcompound=true;\n") // edges may end at clusters
	}
	b.WriteString("\tnode [shape=box, style=\"rounded,filled\", fillcolor=\"#f2f7fd\", color=\"#86a6cc\", fontname=\"sans-serif\", fontsize=12];\n")
	b.WriteString("\tedge [color=\"#7b8a9a\", fontname=\"sans-serif\", fontsize=10];\n")
	f.walk(func(id, depth int, open bool) {
		indent := strings.Repeat("\t", depth+1)
		switch {
		case !f.isGroup(id):
			s := p.Steps[id]
			fmt.Fprintf(&b, "%s%s [label=%s, tooltip=%s];\n", indent, dot(clean(s.Name)), dot(label(s)), dot(stepTip(s)))
		case len(f.members(id)) == 0:
			if open {
				fmt.Fprintf(&b, "%s%s [label=%s, tooltip=%s, style=\"rounded,dashed\", color=\"#738394\", fontcolor=\"#4a5866\", fontsize=11];\n",
					indent, dot(clean(f.name(id))), dot(f.title(id)), dot(f.groupTip(id-f.steps)))
			}
		case open:
			fmt.Fprintf(&b, "%ssubgraph %s {\n", indent, dot(cluster(f, id)))
			fmt.Fprintf(&b, "%s\tlabel=%s; tooltip=%s; labeljust=l; style=\"rounded,filled\"; fillcolor=\"#4b6a8c09\"; color=\"#738394\"; fontcolor=\"#4a5866\"; fontname=\"sans-serif\"; fontsize=11;\n",
				indent, dot(f.title(id)), dot(f.groupTip(id-f.steps)))
		default:
			fmt.Fprintf(&b, "%s}\n", indent)
		}
	})
	for _, e := range f.links() {
		attr := "style=dashed"
		if label := e.label(); label != "" {
			attr = "label=" + dot(shorten(label, 40))
			if e.exit {
				attr += ", style=dashed"
			}
		}
		from, to := e.from, e.to
		if f.isGroup(from) && len(f.members(from)) > 0 {
			attr += ", ltail=" + dot(cluster(f, from))
			from = f.edgeMost(from, func(ids []int) int { return ids[len(ids)-1] })
		}
		if f.isGroup(to) && len(f.members(to)) > 0 {
			attr += ", lhead=" + dot(cluster(f, to))
			to = f.edgeMost(to, func(ids []int) int { return ids[0] })
		}
		fmt.Fprintf(&b, "\t%s -> %s [%s];\n", dot(clean(f.name(from))), dot(clean(f.name(to))), attr)
	}
	b.WriteString("}\n")
	return b.String(), nil
}

// cluster returns the name by which Graphviz knows the box of a group.
func cluster(f *forest, id int) string { return "cluster_" + clean(f.name(id)) }

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
// order of the script, and g0, g1 the groups. The error is that of p.Order. Mermaid as shipped
// refuses more than 500 edges or 50,000 characters.
//
// The source is https://mermaid.js.org/syntax/flowchart.html.
func Mermaid(p *dag.Pipeline) (string, error) {
	f, err := newForest(p)
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
	name := func(id int) string {
		if f.isGroup(id) {
			return "g" + strconv.Itoa(id-f.steps)
		}
		return "n" + strconv.Itoa(id)
	}
	f.walk(func(id, depth int, open bool) {
		indent := strings.Repeat("    ", depth+1)
		switch {
		case !f.isGroup(id):
			fmt.Fprintf(&b, "%s%s[\"%s\"]\n", indent, name(id), mermaid(label(p.Steps[id])))
		case len(f.members(id)) == 0:
			if open {
				fmt.Fprintf(&b, "%s%s[[\"%s\"]]\n", indent, name(id), mermaid(f.title(id)))
			}
		case open:
			fmt.Fprintf(&b, "%ssubgraph %s[\"%s\"]\n", indent, name(id), mermaid(f.title(id)))
		default:
			fmt.Fprintf(&b, "%send\n", indent)
		}
	})
	for _, e := range f.links() {
		arrow := "-->"
		if len(e.outputs) == 0 {
			arrow = "-.->"
		}
		if label := e.label(); label != "" {
			arrow += `|"` + mermaid(shorten(label, 40)) + `"|`
		}
		fmt.Fprintf(&b, "    %s %s %s\n", name(e.from), arrow, name(e.to))
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
