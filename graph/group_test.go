package graph_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/graph"
)

// blocks returns a pipeline as pipeline does, with blocks: a line that ends in
// { opens one and } closes it.
//
//	if X OP Y {      elif X OP Y {      else {      for N {      for X {
//	exit STEP {      graph NAME X {     sub NAME {  call NAME X { }
//
// X is an output, "load.rows".
func blocks(name string, lines ...string) *dag.Pipeline {
	var steps []string
	for _, line := range lines {
		if last := line[len(line)-1]; last != '{' && last != '}' {
			steps = append(steps, line)
		}
	}
	p := pipeline(name, steps...)
	var open []*dag.Group
	var chain []*dag.Condition // what the branches so far leave to the next
	var first, nextStep = "", 0
	inside := func() string {
		if len(open) == 0 {
			return ""
		}
		return open[len(open)-1].Name
	}
	use := func(text string) string {
		step, output, data := strings.Cut(text, ".")
		if s := p.Step(step); data && s != nil {
			if s.Output(output) == nil {
				s.Outputs = append(s.Outputs, dag.Output{Name: output, Path: "/out/" + output})
			}
			return dag.Ref{Kind: dag.RefOutput, Step: step, Name: output}.Token()
		}
		return text
	}
	for i, line := range lines {
		words := strings.Fields(line)
		if line == "}" {
			open = open[:len(open)-1]
			continue
		}
		if !strings.HasSuffix(line, "{") && !strings.HasSuffix(line, "}") {
			p.Steps[nextStep].Group = inside()
			nextStep++
			continue
		}
		g := &dag.Group{Group: inside(), Pos: dag.Pos{File: name + ".star", Line: 3 + i, Col: 9}}
		number := strconv.Itoa(len(p.Groups) + 1)
		switch words[0] {
		case "if", "elif", "else":
			g.Kind, g.Name = dag.GroupCondition, "condition-"+number
			if words[0] == "if" {
				chain, first = nil, g.Name
			}
			g.Chain = first
			all := slices.Clone(chain)
			if words[0] != "else" {
				c := &dag.Condition{X: use(words[1]), Op: words[2], Y: use(words[3])}
				all = append(all, c)
				chain = append(chain, c.Not().Conjuncts()...)
			}
			if g.Condition = all[0]; len(all) > 1 {
				g.Condition = &dag.Condition{Op: "all", Of: all}
			}
		case "for":
			g.Kind, g.Name, g.Loop = dag.GroupLoop, "for-loop-"+number, &dag.Loop{Item: "item-" + number}
			if n, err := strconv.Atoi(words[1]); err == nil {
				for i := range n {
					g.Loop.Items = append(g.Loop.Items, int64(i+1))
				}
			} else {
				g.Loop.From = use(words[1])
			}
		case "exit":
			g.Kind, g.Name, g.Exit = dag.GroupExitHandler, "exit-handler-"+number, words[1]
		case "graph":
			g.Kind, g.Name = dag.GroupGraph, "graph-"+words[1]+"-"+number
			g.Args = []dag.Arg{{Name: "n", Value: use(words[2])}}
		case "call":
			g.Kind, g.Name = dag.GroupCall, "call-"+words[1]+"-"+number
			g.Args = []dag.Arg{{Name: "n", Value: use(words[2])}}
			for _, other := range open {
				if other.Kind == dag.GroupGraph {
					g.Calls = other.Name
				}
			}
		case "sub":
			g.Kind, g.Name, g.Parallelism = dag.GroupSub, "subgraph-"+words[1]+"-"+number, 2
		}
		p.Groups = append(p.Groups, g)
		if strings.HasSuffix(line, "{") {
			open = append(open, g)
		}
	}
	return p
}

// nested is a pipeline with blocks of every kind, in each other.
func nested() *dag.Pipeline {
	return blocks("nested",
		"flip",
		"cleanup",
		"exit cleanup {",
		"fetch flip.side",
		"if flip.side == heads {",
		"say-heads flip.side",
		"for 3 {",
		"train say-heads.text",
		"check train.model",
		"}",
		"gather check.score",
		"}",
		"elif flip.side == edge {",
		"say-edge",
		"}",
		"else {",
		"say-tails",
		"}",
		"sub prepare {",
		"unpack fetch.rows",
		"clean unpack.rows",
		"}",
		"for clean.shards {",
		"count",
		"if count.words > 100 {",
		"warn-of-very-many-words count.words",
		"}",
		"}",
		"graph countdown clean.shards {",
		"tick",
		"if tick.n > 0 {",
		"call countdown tick.n { }",
		"}",
		"}",
		"report gather.score condition-2",
		"}",
	)
}

// members is a pipeline in which n steps of one block need one step, and one
// needs them.
func members(n int) *dag.Pipeline {
	lines := []string{"split", "for 3 {"}
	join := "join"
	for i := range n {
		lines = append(lines, fmt.Sprintf("work-%d split.part", i))
		join += fmt.Sprintf(" work-%d.sum", i)
	}
	return blocks(fmt.Sprintf("members-%d", n), append(lines, "}", join)...)
}

// randomBlocks returns a pipeline of n steps in blocks in blocks.
func randomBlocks(n int, seed uint64) *dag.Pipeline {
	r := rand.New(rand.NewPCG(seed, 2))
	var lines []string
	depth, groups := 0, 0
	for i := range n {
		for depth < 4 && r.IntN(4) == 0 {
			groups++
			if i > 0 && r.IntN(2) == 0 {
				lines = append(lines, fmt.Sprintf("if step-%d.out == %d {", r.IntN(i), i))
			} else {
				lines = append(lines, fmt.Sprintf("for %d {", 1+r.IntN(40)))
			}
			depth++
		}
		line := fmt.Sprintf("step-%d", i)
		for range r.IntN(3) {
			if i > 0 {
				line += fmt.Sprintf(" step-%d%s", i-1-r.IntN(min(i, 15)), []string{"", ".out"}[r.IntN(2)])
			}
		}
		lines = append(lines, line)
		for depth > 0 && r.IntN(3) == 0 {
			lines = append(lines, "}")
			depth--
		}
	}
	for range depth {
		lines = append(lines, "}")
	}
	p := blocks(fmt.Sprintf("blocks-%d", n), lines...)
	for i, g := range p.Groups { // and needs of groups, by groups
		if i > 0 && p.Groups[i-1].Group == g.Group && r.IntN(3) == 0 {
			g.After = append(g.After, dag.Edge{Step: p.Groups[i-1].Name})
		}
	}
	return p
}

func layout(t *testing.T, p *dag.Pipeline) *graph.Drawing {
	t.Helper()
	d, err := graph.Layout(p)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// mixed is a pipeline with steps and blocks without edges beside others.
func mixed() *dag.Pipeline {
	lines := []string{"a", "for 3 {", "x a.o", "y x.o"}
	for i := range 60 {
		lines = append(lines, fmt.Sprintf("loose-%d", i))
	}
	lines = append(lines, "}", "z y.o")
	for i := range 50 {
		lines = append(lines, "for 9 {", fmt.Sprintf("first-%d", i), fmt.Sprintf("second-%d first-%d.o", i, i), "}")
	}
	return blocks("mixed", lines...)
}

// TestBoxes checks on many pipelines with blocks that each box stands in that
// of its block, apart from the others, and that edges run around boxes that
// neither of their ends stands in.
func TestBoxes(t *testing.T) {
	all := []*dag.Pipeline{nested(), mixed(), members(3), members(300)}
	for seed := range uint64(150) {
		all = append(all, randomBlocks(2+int(seed)/2, seed))
	}
	for _, p := range all {
		d := layout(t, p)
		checkBoxes(t, p, d)
		if again := layout(t, p); d.SVG() != again.SVG() {
			t.Errorf("%s: a second layout differs", p.Name)
		}
		wellFormed(t, d.SVG())
		if t.Failed() {
			t.Fatalf("in pipeline %s", p.Name)
		}
	}
}

type rect struct{ x, y, w, h float64 }

// apart reports whether two boxes have some space between them.
func (a rect) apart(b rect) bool {
	const space = 16
	return a.x+a.w+space <= b.x || b.x+b.w+space <= a.x || a.y+a.h+space <= b.y || b.y+b.h+space <= a.y
}

func checkBoxes(t *testing.T, p *dag.Pipeline, d *graph.Drawing) {
	t.Helper()
	index := map[string]int{"": -1}
	var boxes []rect
	var parents []int
	for i, n := range d.Nodes {
		index[n.Name] = i
		boxes = append(boxes, rect{n.X, n.Y, n.W, n.H})
	}
	for i, g := range d.Groups {
		index[g.Name] = len(d.Nodes) + i
		boxes = append(boxes, rect{g.X, g.Y, g.W, g.H})
	}
	for _, s := range p.Steps {
		parents = append(parents, index[s.Group])
	}
	for i, g := range p.Groups {
		parents = append(parents, index[g.Group])
		if parent := d.Groups[i].Parent; parent >= 0 && parent+len(d.Nodes) != index[g.Group] || parent < 0 && g.Group != "" {
			t.Errorf("%s has parent %d, want %q", g.Name, parent, g.Group)
		}
	}
	name := func(id int) string {
		if id < len(d.Nodes) {
			return d.Nodes[id].Name
		}
		return d.Groups[id-len(d.Nodes)].Name
	}
	inside := func(id, group int) bool {
		for ; id >= 0 && id != group; id = parents[id] {
		}
		return id == group
	}
	for i, a := range boxes {
		outer := rect{0, 0, d.Width, d.Height}
		if parents[i] >= 0 {
			outer = boxes[parents[i]]
			outer.y += 24 // the label
			outer.h -= 24
		}
		if a.x < outer.x+16 || a.y < outer.y+16 || a.x+a.w > outer.x+outer.w-16 || a.y+a.h > outer.y+outer.h-16 {
			t.Errorf("%s at %v is not inside %v", name(i), a, outer)
		}
		for j, b := range boxes[:i] {
			if parents[i] == parents[j] && !a.apart(b) {
				t.Errorf("%s at %v overlaps %s at %v", name(i), a, name(j), b)
			}
		}
	}
	for _, e := range d.Edges {
		checkCurve(t, e, boxes, func(id int) bool { return inside(e.From, id) || inside(e.To, id) })
	}
	placed := 0
	for _, layer := range d.Layers {
		placed += len(layer)
	}
	if placed != len(p.Steps) {
		t.Errorf("layers hold %d steps, want %d", placed, len(p.Steps))
	}
}

// checkCurve reports an edge that does not run down from one box to the other,
// past those that are not around either.
func checkCurve(t *testing.T, e graph.Edge, boxes []rect, around func(id int) bool) {
	t.Helper()
	from, to := boxes[e.From], boxes[e.To]
	first, last := e.Points[0], e.Points[len(e.Points)-1]
	if first.Y != from.y+from.h || first.X < from.x || first.X > from.x+from.w || last.Y != to.y || last.X < to.x || last.X > to.x+to.w {
		t.Errorf("%s: ends of %v are not at the boxes %v and %v", e.Tip, e.Points, from, to)
	}
	if len(e.Points)%2 != 0 {
		t.Errorf("%s: %d points", e.Tip, len(e.Points))
	}
	for i, b := range e.Points[1:] {
		a := e.Points[i]
		if b.Y < a.Y {
			t.Errorf("%s: %v does not go down", e.Tip, e.Points)
		}
		for step := 0.0; step <= 1; step += 0.125 {
			u := 1 - step // the curve of a cubic whose control points are at half the height
			x := a.X + (b.X-a.X)*step*step*(3*u+step)
			y := a.Y + (b.Y-a.Y)*(1.5*u*u*step+1.5*u*step*step+step*step*step)
			for id, box := range boxes {
				if !around(id) && x > box.x-4 && x < box.x+box.w+4 && y > box.y && y < box.y+box.h {
					t.Errorf("%s runs through the box %v at %v,%v", e.Tip, box, x, y)
					return
				}
			}
		}
	}
}

// TestGroupLabels: a group says what it is in the words of the script.
func TestGroupLabels(t *testing.T) {
	labels := func(p *dag.Pipeline) []string {
		var all []string
		for _, g := range layout(t, p).Groups {
			all = append(all, g.Label)
		}
		return all
	}
	want := []string{
		"exit_handler(cleanup)", `if flip.output == "heads"`, "for item in [1, 2, 3]", `elif flip.output == "edge"`, "else",
		"prepare, 2 at a time", `for item in clean.output`, "if count.output > 100", "countdown", "if tick.output > 0", "calls countdown",
	}
	if diff := cmp.Diff(want, labels(nested())); diff != "" {
		t.Error(diff)
	}
	output := func(step, name string) string {
		return dag.Ref{Kind: dag.RefOutput, Step: step, Name: name}.Token()
	}
	equal := &dag.Condition{Op: "==", X: output("a", "x"), Y: "1"}
	less := &dag.Condition{Op: "<", X: output("a", "y"), Y: dag.Ref{Kind: dag.RefParam, Name: "most"}.Token()}
	both := &dag.Condition{Op: "all", Of: []*dag.Condition{equal, less}}
	item := dag.Ref{Kind: dag.RefItem, Step: "items"}
	p := pipeline("p", "a", "b a.x a.y")
	p.Groups = []*dag.Group{
		{Name: "condition-1", Kind: dag.GroupCondition, Chain: "condition-1", Condition: both.Not()},
		{Name: "condition-2", Kind: dag.GroupCondition, Chain: "condition-1", Condition: &dag.Condition{Op: "all", Of: []*dag.Condition{equal, less, equal}}},
		{Name: "condition-3", Kind: dag.GroupCondition, Chain: "condition-1", Condition: &dag.Condition{Op: "all", Of: []*dag.Condition{equal, less, equal.Not()}}},
		{Name: "x", Kind: dag.GroupCondition, Condition: &dag.Condition{Op: "any", Of: []*dag.Condition{less, both}}},
		{Name: "for-loop-1", Kind: dag.GroupLoop, Loop: &dag.Loop{Items: []any{"a", output("a", "x"), true, nil, 1.5}}},
		{Name: "for-loop-2", Kind: dag.GroupLoop, Parallelism: 3, Loop: &dag.Loop{Items: []any{dag.Object{{Name: "n", Value: []any{int64(1)}}}, dag.Object{{Name: "n", Value: strings.Repeat("long", 99)}}}}},
		{Name: "for-loop-3", Kind: dag.GroupLoop, Loop: &dag.Loop{From: item.Token()}},
		{Name: "for-loop-4", Kind: dag.GroupLoop, Loop: &dag.Loop{Items: []any{strings.Repeat("long", 99)}}},
		{Name: "subgraph-7", Kind: dag.GroupSub},
		{Name: "by-hand-2", Kind: dag.GroupGraph},
	}
	for i := range 10000 {
		p.Groups[4].Loop.Items = append(p.Groups[4].Loop.Items, int64(i))
	}
	want = []string{
		`if not_(all_of(a.outputs["x"] == "1", a.outputs["y"] < most))`, `elif a.outputs["x"] == "1"`,
		"else", `if any_of(a.outputs["y"] < most, all_of(a.outputs["x"] == "1", a.output…`,
		`for item in ["a", a.outputs["x"], True, …] (10005 items)`, `for item in [{"n": [1]}, …] (2 items), 3 at a time`,
		"for item in item", `for item in ["longlonglonglonglonglonglo…]`, "sub_graph", "by-hand-2",
	}
	if diff := cmp.Diff(want, labels(p)); diff != "" {
		t.Error(diff)
	}
}

// TestMembers: the edges of one step with the many members of a group are one,
// and the members stand in rows.
func TestMembers(t *testing.T) {
	d := layout(t, members(300))
	if len(d.Edges) != 2 || d.Edges[0].From != 302 || d.Edges[1].To != 302 || !slices.Equal(d.Edges[1].Outputs, []string{"part"}) {
		t.Errorf("edges are %+v, want one from the group and one to it", d.Edges)
	}
	if d.Width > 4000 || d.Height > 3000 {
		t.Errorf("the picture of 300 members is %v by %v", d.Width, d.Height)
	}
	if d = layout(t, members(8)); len(d.Edges) != 16 {
		t.Errorf("%d edges with 8 members, want 16", len(d.Edges))
	}
}

// TestExit: the step of an exit handler comes last, after its block.
func TestExit(t *testing.T) {
	d := layout(t, nested())
	if last := d.Layers[len(d.Layers)-1]; len(last) != 1 || d.Nodes[last[0]].Name != "cleanup" {
		t.Errorf("the last layer is %v, want cleanup alone", last)
	}
	for _, e := range d.Edges {
		if e.To == 1 && (e.From != len(d.Nodes) || e.Label != "on exit" || e.Outputs != nil) {
			t.Errorf("edge to cleanup: %+v", e)
		}
	}
	// A step that others need, which Validate refuses, is drawn as any other.
	p := blocks("p", "cleanup", "exit cleanup {", "work cleanup", "}")
	if d := layout(t, p); len(d.Edges) != 1 || d.Edges[0].From != 0 {
		t.Errorf("edges are %+v, want one from cleanup", d.Edges)
	}
}

// TestHostileGroups: whatever an author writes of a group is only text.
func TestHostileGroups(t *testing.T) {
	for _, hostile := range []string{
		"<script>alert(1)</script>", "\x00\x1f\u0085\n", "\xff", "\u202egnp.exe", "]]>", `" onload="x`, `"]`, "end", "`x`", "\ue000\ue001", strings.Repeat("長", 300), "%%{init}%%",
	} {
		p := pipeline("p", "a", "b a.x")
		p.Groups = []*dag.Group{
			{Name: hostile, Kind: dag.GroupGraph, Args: []dag.Arg{{Name: hostile, Value: hostile}}, Pos: dag.Pos{File: hostile, Line: 1}},
			{Name: "c", Kind: dag.GroupCondition, Group: hostile, Condition: &dag.Condition{Op: "==", X: hostile, Y: hostile}},
			{Name: "l", Kind: dag.GroupLoop, Group: "c", Loop: &dag.Loop{Items: []any{hostile, dag.Object{{Name: hostile, Value: []any{hostile}}}}}},
			{Name: "e", Kind: dag.GroupCall, Calls: hostile, Group: "l"},
		}
		p.Steps[1].Group = "l"
		d := layout(t, p)
		for i := range d.Groups {
			d.Groups[i].Class = hostile
		}
		svg := d.SVG()
		wellFormed(t, svg)
		if strings.Contains(svg, "<script") || strings.Contains(svg, "\u202e") || d.Width > 1000 {
			t.Errorf("%q came through, in a picture of width %v", hostile, d.Width)
		}
		dot, err := graph.DOT(p)
		if err != nil || strings.Count(dot, "\n") != 19 {
			t.Errorf("%q: %v, want 19 lines of DOT:\n%s", hostile, err, dot)
		}
		mermaid, err := graph.Mermaid(p)
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ := strings.Cut(mermaid, "flowchart TD\n")
		if n := strings.Count(body, "\n"); n != 10 {
			t.Errorf("%q: %d lines of Mermaid, want 10:\n%s", hostile, n, mermaid)
		}
		for line := range strings.Lines(body) {
			if n := strings.Count(line, `"`); n > 2 || strings.Contains(line, "%") {
				t.Errorf("%q breaks out in Mermaid: %s", hostile, line)
			}
		}
	}
}
