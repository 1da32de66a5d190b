package graph_test

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/graph"
)

var update = flag.Bool("update", false, "write the goldens in testdata")

// pipeline returns a pipeline with a step for each line: its name, then what
// it needs, "load" for order alone or "load.rows" for an output.
func pipeline(name string, lines ...string) *dag.Pipeline {
	p := &dag.Pipeline{Name: name}
	steps := map[string]*dag.Step{}
	for i, line := range lines {
		words := strings.Fields(line)
		s := &dag.Step{Name: words[0], Pos: dag.Pos{File: name + ".star", Line: 3 + 4*i, Col: 5}}
		var args []any
		for _, need := range words[1:] {
			from, output, data := strings.Cut(need, ".")
			if !data {
				s.After = append(s.After, dag.Edge{Step: from, Pos: s.Pos})
				continue
			}
			args = append(args, dag.Ref{Kind: dag.RefOutput, Step: from, Name: output}.Token())
			if f := steps[from]; f.Output(output) == nil {
				f.Outputs = append(f.Outputs, dag.Output{Name: output, Path: "/out/" + output})
			}
		}
		s.Container = dag.Object{
			{Name: "image", Value: "ghcr.io/acme/" + strings.TrimRight(words[0], "0123456789-") + ":1.2"},
			{Name: "command", Value: []any{"python", "-m", "acme"}},
			{Name: "args", Value: args},
		}
		steps[s.Name] = s
		p.Steps = append(p.Steps, s)
	}
	return p
}

// random returns a pipeline of n steps with about the given number of needs
// each, most of them of recent steps, half of them of data.
func random(n, needs int, seed uint64) *dag.Pipeline {
	r := rand.New(rand.NewPCG(seed, 1))
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprintf("step-%d", i)
		if i == 0 {
			continue
		}
		for range r.IntN(2*needs + 1) {
			back := 1 + r.IntN(min(i, 12))
			if r.IntN(8) == 0 {
				back = 1 + r.IntN(i)
			}
			lines[i] += fmt.Sprintf(" step-%d", i-back)
			if r.IntN(2) == 0 {
				lines[i] += ".out"
			}
		}
	}
	return pipeline(fmt.Sprintf("random-%d", n), lines...)
}

func fan(n int) *dag.Pipeline {
	lines := []string{"split"}
	join := "join"
	for i := range n {
		lines = append(lines, fmt.Sprintf("work-%d split.part", i))
		join += fmt.Sprintf(" work-%d.sum", i)
	}
	return pipeline(fmt.Sprintf("fan-%d", n), append(lines, join)...)
}

func text(s string) *string { return &s }

func samples() []*dag.Pipeline {
	train := pipeline("train",
		"fetch-data", "split fetch-data.rows", "make-volume", "train-model split.training make-volume",
		"tune split.training", "evaluate train-model.model split.test tune.best", "report evaluate.accuracy evaluate.loss",
		"notify evaluate")
	train.Description = "Trains a model on the rows of a day and reports how good it is."
	train.Params = []*dag.Param{
		{Name: "day", Type: "Date", Description: "which rows to take"},
		{Name: "steps", Inferred: "Integer", Default: text("1000"), Optional: true},
		{Name: "bucket", Default: text("gs://acme-models/daily"), Optional: true},
		{Name: "note", Optional: true},
	}
	train.Step("report").Container.Set("ghcr.io/acme/report@sha256:0123456789abcdef", "image")
	train.Step("notify").Container.Set("docker.io/curlimages/curl:8.10.1-alpine-20260101", "image")
	train.Step("tune").Container.Set("registry:5000/tune:"+dag.Ref{Kind: dag.RefParam, Name: "day"}.Token(), "image")

	volume := train.Step("make-volume")
	volume.Container, volume.Resource = nil, &dag.Resource{Action: "create", Manifest: dag.Object{{Name: "kind", Value: "PersistentVolumeClaim"}}}

	hostile := pipeline("hostile", "a", "b", "c a.x b.style a", "d c")
	hostile.Name = "</title><script>alert(1)</script>\n---\n\"'&"
	hostile.Description = "tab\tbell\a nul\x00 bad\xff right-to-left\u202eabc\u2028line"
	hostile.Params = []*dag.Param{{Name: "p<b>", Default: text("]]>\ue000&\ufffe"), Description: "--><img src=x>"}}
	hostile.Steps[0].Container.Set(`x/<img src=x onerror="alert(1)">\`, "image")
	hostile.Steps[1].Container.Set("x/%%{init: {}}%%#`\\N|]:style#1;", "image")
	hostile.Steps[2].Container.Set("图像/データ処理コンテナイメージ名前长的名字👩‍🔬:v1", "image")
	hostile.Steps[3].Container = nil
	hostile.Steps[3].Pos.File = "a\n<b>.star"

	return []*dag.Pipeline{
		pipeline("empty"),
		pipeline("one", "hello"),
		pipeline("chain", "load", "train load.rows", "report train.accuracy"),
		pipeline("diamond", "start", "left start.a", "right start.b", "join left.x right"),
		pipeline("long", "a", "b a", "c b", "d c", "e d a.first b"),
		pipeline("islands", "a", "b", "c a", "d", "e d.out"),
		fan(12),
		random(30, 1, 7),
		train,
		nested(),
		members(50),
		hostile,
	}
}

// TestGolden compares the three pictures of each sample with testdata.
func TestGolden(t *testing.T) {
	for i, p := range samples() {
		name := p.Name
		if i == len(samples())-1 {
			name = "hostile"
		}
		d, err := graph.Layout(p)
		if err != nil {
			t.Fatal(err)
		}
		dot, err := graph.DOT(p)
		if err != nil {
			t.Fatal(err)
		}
		mermaid, err := graph.Mermaid(p)
		if err != nil {
			t.Fatal(err)
		}
		for ext, got := range map[string]string{".svg": d.SVG(), ".dot": dot, ".mmd": mermaid} {
			file := filepath.Join("testdata", name+ext)
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				continue
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("%s (-want +got):\n%s", file, diff)
			}
		}
	}
}

// TestLayout checks on many pipelines what holds for every picture.
func TestLayout(t *testing.T) {
	all := samples()
	for seed := range uint64(150) {
		all = append(all, random(1+int(seed), 1+int(seed%4), seed))
	}
	all = append(all, fan(300), random(250, 8, 1))
	for _, p := range all {
		if len(p.Groups) > 0 {
			continue // see TestBoxes
		}
		d, err := graph.Layout(p)
		if err != nil {
			t.Fatal(err)
		}
		checkDrawing(t, p, d)
		again, _ := graph.Layout(p)
		if d.SVG() != again.SVG() {
			t.Errorf("%s: a second layout differs", p.Name)
		}
		if t.Failed() {
			t.Fatalf("in pipeline %s of %d steps", p.Name, len(p.Steps))
		}
	}
}

func checkDrawing(t *testing.T, p *dag.Pipeline, d *graph.Drawing) {
	t.Helper()
	for i, n := range d.Nodes {
		if n.Name != p.Steps[i].Name {
			t.Errorf("node %d is %q, want %q", i, n.Name, p.Steps[i].Name)
		}
		if n.X < 0 || n.Y < 0 || n.X+n.W > d.Width || n.Y+n.H > d.Height {
			t.Errorf("%s lies outside the picture: %+v", n.Name, n)
		}
	}
	placed := 0
	for l, layer := range d.Layers {
		placed += len(layer)
		for i, v := range layer {
			n := d.Nodes[v]
			if n.Layer != l {
				t.Errorf("%s has layer %d and lies in %d", n.Name, n.Layer, l)
			}
			if i > 0 {
				if m := d.Nodes[layer[i-1]]; m.X+m.W+20 > n.X || m.Y != n.Y {
					t.Errorf("%s is too close to %s", n.Name, m.Name)
				}
			}
			if l > 0 {
				if m := d.Nodes[d.Layers[l-1][0]]; m.Y+m.H+20 > n.Y {
					t.Errorf("%s is too close to the layer above", n.Name)
				}
			}
		}
	}
	if placed != len(p.Steps) {
		t.Errorf("layers hold %d steps, want %d", placed, len(p.Steps))
	}
	edges := 0
	for _, needs := range p.Edges() {
		edges += len(needs)
	}
	if len(d.Edges) != edges {
		t.Errorf("%d edges, want %d", len(d.Edges), edges)
	}
	for _, e := range d.Edges {
		from, to := d.Nodes[e.From], d.Nodes[e.To]
		if from.Layer >= to.Layer {
			t.Errorf("%s in layer %d needs %s in layer %d", to.Name, to.Layer, from.Name, from.Layer)
		}
		first, last := e.Points[0], e.Points[len(e.Points)-1]
		if first != (graph.Point{X: from.X + from.W/2, Y: from.Y + from.H}) || last != (graph.Point{X: to.X + to.W/2, Y: to.Y}) {
			t.Errorf("%s: ends of %v are not at the steps", e.Tip, e.Points)
		}
		if len(e.Points) != 2*(to.Layer-from.Layer) {
			t.Errorf("%s: %d points across %d layers", e.Tip, len(e.Points), to.Layer-from.Layer)
		}
		for i, q := range e.Points[1:] {
			if q.Y <= e.Points[i].Y {
				t.Errorf("%s: %v does not go down", e.Tip, e.Points)
			}
			for _, v := range d.Layers[from.Layer+1+i/2] {
				if n := d.Nodes[v]; v != e.To && q.X > n.X-8 && q.X < n.X+n.W+8 {
					t.Errorf("%s runs through %s", e.Tip, n.Name)
				}
			}
		}
	}
}

// TestLayers: a step lies right below the lowest step it needs.
func TestLayers(t *testing.T) {
	d, err := graph.Layout(pipeline("p", "a", "b", "c a b", "d c.x a", "e b", "f e d"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int{}
	for _, n := range d.Nodes {
		got[n.Name] = n.Layer
	}
	want := map[string]int{"a": 0, "b": 0, "c": 1, "d": 2, "e": 1, "f": 3}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestStraight: chains stand upright and parents above the middle of their children.
func TestStraight(t *testing.T) {
	middles := func(p *dag.Pipeline) map[string]float64 {
		d, err := graph.Layout(p)
		if err != nil {
			t.Fatal(err)
		}
		xs := map[string]float64{}
		for _, n := range d.Nodes {
			xs[n.Name] = n.X + n.W/2
		}
		return xs
	}
	xs := middles(pipeline("p", "a", "b a.x", "a-step-with-a-long-name b", "d a-step-with-a-long-name"))
	if xs["a"] != xs["b"] || xs["b"] != xs["d"] || xs["d"] != xs["a-step-with-a-long-name"] {
		t.Errorf("chain is not straight: %v", xs)
	}
	for _, n := range []int{2, 3, 12} {
		xs = middles(fan(n))
		if want := (xs["work-0"] + xs[fmt.Sprintf("work-%d", n-1)]) / 2; xs["split"] < want-8 || xs["split"] > want+8 || xs["split"] != xs["join"] {
			t.Errorf("fan of %d: split at %v, join at %v, want both near %v", n, xs["split"], xs["join"], want)
		}
	}
}

// TestManyCuts: with too many long edges the longest run straight.
func TestManyCuts(t *testing.T) {
	lines := []string{"s0"}
	for i := 1; i < 500; i++ {
		lines = append(lines, fmt.Sprintf("s%d s%d s0 s%d", i, i-1, i/2))
	}
	d, err := graph.Layout(pipeline("p", lines...))
	if err != nil {
		t.Fatal(err)
	}
	last := d.Edges[len(d.Edges)-3]
	if last.From != 0 || last.To != 499 || len(last.Points) != 2 {
		t.Errorf("longest edge: %+v", last)
	}
	wellFormed(t, d.SVG())
}

func TestCycle(t *testing.T) {
	p := pipeline("p", "a b", "b a", "c")
	_, err1 := graph.Layout(p)
	_, err2 := graph.DOT(p)
	_, err3 := graph.Mermaid(p)
	for _, err := range []error{err1, err2, err3} {
		if len(dag.Faults(err)) != 1 || !strings.Contains(err.Error(), "p.star:7:5: cycle: a -> b -> a") {
			t.Errorf("got error %v", err)
		}
	}
}

// TestInvalid: a pipeline that Validate would refuse is drawn all the same.
func TestInvalid(t *testing.T) {
	for _, p := range []*dag.Pipeline{
		pipeline("p", "a", "a", "b a unknown", "a b"),
		{Steps: []*dag.Step{{}, {}}},
	} {
		d, err := graph.Layout(p)
		if err != nil {
			t.Logf("layout: %v", err)
			continue
		}
		wellFormed(t, d.SVG())
	}
}

// TestHostile: whatever an author writes, the SVG stays one document in which
// the author's text is only text.
func TestHostile(t *testing.T) {
	for _, hostile := range []string{
		"<script>alert(1)</script>", "\x00\x1f\x7f\u0085", "\xff\xfe\xc0", "\u202egnp.exe\u2066", "]]>", "&#x3c;&lt;", `" onload="x`,
		"' x='", "\ue000param:x\ue001", "\ue000\ue001", "\ufffe\uffff\U0001fffe", strings.Repeat("長", 300), strings.Repeat("e\u0301", 300), "\u2028\u2029\r\n",
	} {
		p := pipeline("p", "a", "b a.x")
		p.Name, p.Description = hostile, hostile
		p.Params = []*dag.Param{{Name: hostile, Type: hostile, Description: hostile, Default: &hostile}}
		p.Steps[1].After = []dag.Edge{{Step: hostile}}
		p.Steps[0].Name = hostile
		p.Steps[0].Pos.File = hostile
		p.Steps[0].Outputs[0].Name = hostile
		p.Steps[0].Container = dag.Object{
			{Name: "image", Value: hostile}, {Name: "command", Value: []any{hostile}}, {Name: "args", Value: []any{hostile}},
		}
		d, err := graph.Layout(p)
		if err != nil {
			t.Fatal(err)
		}
		for i := range d.Nodes {
			d.Nodes[i].Class = hostile
		}
		wellFormed(t, d.SVG())
		if strings.Contains(d.SVG(), "<script") || strings.Contains(d.SVG(), "\u202e") {
			t.Errorf("%q came through", hostile)
		}
		dot, err := graph.DOT(p)
		if err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(dot, "\n"); n != 8 {
			t.Errorf("%q: %d lines of DOT, want 8:\n%s", hostile, n, dot)
		}
		mermaid, err := graph.Mermaid(p)
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ := strings.Cut(mermaid, "flowchart TD\n")
		if n := strings.Count(body, "\n"); n != 3 {
			t.Errorf("%q: %d lines of Mermaid, want 3:\n%s", hostile, n, mermaid)
		}
		for line := range strings.Lines(body) {
			if n := strings.Count(line, `"`); n > 2 || strings.Contains(line, "%") {
				t.Errorf("%q breaks out in Mermaid: %s", hostile, line)
			}
		}
		for _, n := range d.Nodes {
			if n.W > 400 {
				t.Errorf("%q makes a box of width %v", hostile, n.W)
			}
		}
	}
}

// wellFormed reports SVG that is no XML or has elements other than ours.
func wellFormed(t *testing.T, svg string) {
	t.Helper()
	d := xml.NewDecoder(strings.NewReader(svg))
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Errorf("SVG: %v", err)
			return
		}
		if e, ok := token.(xml.StartElement); ok && !strings.Contains(" svg title desc style rect text g path polygon ", " "+e.Name.Local+" ") {
			t.Errorf("SVG has an element %s", e.Name.Local)
		}
	}
}

// TestMermaidStyle: Mermaid cuts a semicolon from lines that look like styles.
func TestMermaidStyle(t *testing.T) {
	p := pipeline("p", "classdef")
	p.Steps[0].Name = "classDef"
	p.Steps[0].Container.Set("a:#1", "image")
	got, err := graph.Mermaid(p)
	if want := `n0["classDef<br/>a#58;#35;1"]`; err != nil || !strings.Contains(got, want) {
		t.Errorf("Mermaid(classDef) = %s, %v; want %s", got, err, want)
	}
}

// TestClass: the classes that a caller sets reach the SVG.
func TestClass(t *testing.T) {
	d, err := graph.Layout(pipeline("p", "a", "b a"))
	if err != nil {
		t.Fatal(err)
	}
	d.Nodes[1].Class = "failed"
	if svg := d.SVG(); !strings.Contains(svg, `<g class="step failed" data-step="b">`) {
		t.Error(svg)
	}
}

func BenchmarkLayout(b *testing.B) {
	deep := []string{"s0"}
	for i := 1; i < 1000; i++ {
		deep = append(deep, fmt.Sprintf("s%d s%d s0", i, i-1))
	}
	for _, p := range []*dag.Pipeline{random(30, 1, 7), random(300, 2, 1), random(2000, 2, 1), random(2000, 5, 1), fan(10000), pipeline("deep-1000", deep...), randomBlocks(300, 1), randomBlocks(2000, 1), members(10000)} {
		b.Run(fmt.Sprintf("%s-edges-%d", p.Name, edgeCount(p)), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				d, err := graph.Layout(p)
				if err != nil {
					b.Fatal(err)
				}
				d.SVG()
			}
		})
	}
}

func edgeCount(p *dag.Pipeline) int {
	n := 0
	for _, needs := range p.Edges() {
		n += len(needs)
	}
	return n
}
