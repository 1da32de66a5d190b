package graph

import (
	"reflect"
	"strconv"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

// This file says what groups are, in the words of the script.

// Columns of what a group's label tells.
const (
	maxGroup = 72 // all of it
	maxItems = 28 // the items of a loop
)

// groupLabels returns the labels of the groups: `if flip.output == "heads"`,
// "else", "for item in [1, 2, 3]", the name of a graph.
func groupLabels(p *dag.Pipeline) []string {
	w := words{p: p, steps: make(map[string]*dag.Step, len(p.Steps))}
	for _, s := range p.Steps {
		w.steps[s.Name] = s
	}
	chains := map[string][]*dag.Condition{} // for each chain, what its branches so far leave to the next
	labels := make([]string, len(p.Groups))
	for k, g := range p.Groups {
		var text string
		switch g.Kind {
		case dag.GroupCondition:
			text = w.branch(g, chains)
		case dag.GroupLoop:
			text = "for item in " + w.items(g.Loop)
		case dag.GroupExitHandler:
			text = "exit_handler(" + g.Exit + ")"
		case dag.GroupCall:
			text = "calls " + groupName(p.GroupNamed(g.Calls))
		default:
			text = groupName(g)
		}
		if g.Parallelism > 0 {
			text += ", " + strconv.Itoa(g.Parallelism) + " at a time"
		}
		labels[k] = shorten(clean(text), maxGroup)
	}
	return labels
}

// groupName returns the name that the author gave to a group, or its word.
// The pipeline has it between the group's kind and its number.
func groupName(g *dag.Group) string {
	if g == nil {
		return ""
	}
	name, ok := strings.CutPrefix(g.Name, string(g.Kind)+"-")
	i := strings.LastIndexByte(name, '-')
	if _, err := strconv.Atoi(name[i+1:]); !ok || err != nil {
		return g.Name
	}
	if i < 0 {
		return "sub_graph"
	}
	return name[:i]
}

// groupTip returns what a tooltip says of a group.
func (f *forest) groupTip(k int) string {
	g := f.p.Groups[k]
	lines := []string{f.labels[k], "name: " + clean(g.Name)}
	if g.Condition != nil {
		w := words{p: f.p}
		lines = append(lines, "condition: "+shorten(clean(w.condition(g.Condition)), 200))
	}
	for _, a := range g.Args {
		lines = append(lines, clean(a.Name)+" = "+shorten(clean(a.Value), 100))
	}
	if g.Pos.IsValid() {
		lines = append(lines, "at: "+clean(g.Pos.String()))
	}
	return strings.Join(lines, "\n")
}

// words writes parts of a pipeline as an author would.
type words struct {
	p     *dag.Pipeline
	steps map[string]*dag.Step
}

// branch returns what opens a condition: if, elif or else. The condition of a
// branch that follows others says first that those do not hold; what it says
// beside that is its own.
func (w *words) branch(g *dag.Group, chains map[string][]*dag.Condition) string {
	if g.Condition == nil {
		return "if"
	}
	before, own := chains[g.Chain], g.Condition
	word := "if "
	if all := own.Conjuncts(); len(before) > 0 && len(all) <= len(before)+1 && len(all) >= len(before) && reflect.DeepEqual(all[:len(before)], before) {
		if len(all) == len(before) {
			return "else"
		}
		word, own = "elif ", all[len(before)]
	}
	if g.Chain != "" {
		chains[g.Chain] = append(before, own.Not().Conjuncts()...)
	}
	return word + w.condition(own)
}

func (w *words) condition(c *dag.Condition) string {
	var parts []string
	for _, of := range c.Of {
		parts = append(parts, w.condition(of))
	}
	switch c.Op {
	case "all", "any":
		return c.Op + "_of(" + strings.Join(parts, ", ") + ")"
	case "not":
		return "not_(" + strings.Join(parts, ", ") + ")"
	}
	numbers := c.Op != "==" && c.Op != "!="
	operand := func(text string) string {
		if _, err := strconv.ParseFloat(text, 64); numbers && err == nil {
			return text
		}
		return w.text(text)
	}
	return operand(c.X) + " " + c.Op + " " + operand(c.Y)
}

// text returns a text in quotes, or the name of the value if it is one.
func (w *words) text(text string) string {
	r, ok := dag.SoleRef(text)
	if !ok {
		return `"` + dag.Display(text) + `"`
	}
	if r.Kind == dag.RefOutput {
		if s := w.steps[r.Step]; s != nil && len(s.Outputs) == 1 {
			return r.Step + ".output"
		}
	}
	return r.String()
}

// items returns the items of a loop, cut if they are many or long.
func (w *words) items(l *dag.Loop) string {
	if l == nil {
		return "[]"
	}
	if l.From != "" {
		return w.text(l.From)
	}
	var b strings.Builder
	for i, item := range l.Items {
		text := shorten(w.value(item, maxItems), maxItems)
		if i > 0 {
			if columns(b.String())+columns(text) > maxItems {
				return "[" + b.String() + ", …] (" + count(len(l.Items), "item") + ")"
			}
			b.WriteString(", ")
		}
		b.WriteString(text)
	}
	return "[" + b.String() + "]"
}

// value returns a JSON tree as Starlark writes it, and ends once it has more
// bytes than could be shown.
func (w *words) value(v any, limit int) string {
	join := func(open, end string, n int, part func(i int) string) string {
		text := open
		for i := 0; i < n && len(text) <= 4*limit; i++ {
			if i > 0 {
				text += ", "
			}
			text += part(i)
		}
		return text + end
	}
	switch v := v.(type) {
	case nil:
		return "None"
	case bool:
		if v {
			return "True"
		}
		return "False"
	case string:
		return w.text(v)
	case []any:
		return join("[", "]", len(v), func(i int) string { return w.value(v[i], limit) })
	case dag.Object:
		return join("{", "}", len(v), func(i int) string { return w.text(v[i].Name) + ": " + w.value(v[i].Value, limit) })
	}
	return dag.PythonJSON(v)
}
