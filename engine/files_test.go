package engine

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/kfs-project/kfs/dag"
)

// TestTextual shows of which outputs text is made: in the text of a step, in
// what decides a group, in a list of rounds, and in a value that a graph passes
// to itself if its steps make text of what it takes the place of.
func TestTextual(t *testing.T) {
	file := func(name, from string) *dag.Step {
		return &dag.Step{Name: name, Artifacts: []dag.Artifact{{Name: "in", Path: "/in", Text: from}}}
	}
	text := func(name, group, of string) *dag.Step {
		return &dag.Step{Name: name, Group: group, Container: dag.Object{{Name: "args", Value: []any{of}}}}
	}
	graph := func(step *dag.Step) *dag.Pipeline {
		return &dag.Pipeline{
			Steps: []*dag.Step{step},
			Groups: []*dag.Group{
				{Name: "g", Kind: dag.GroupGraph, Args: []dag.Arg{{Name: "x", Value: out("first")}}},
				{Name: "c", Kind: dag.GroupCall, Group: "g", Calls: "g", Args: []dag.Arg{{Name: "x", Value: out("next")}}},
			},
		}
	}
	inGraph := file("use", out("first"))
	inGraph.Group = "g"
	for _, tt := range []struct {
		name string
		p    *dag.Pipeline
		want []string // steps whose output o is needed as text
	}{
		{"none", &dag.Pipeline{Steps: []*dag.Step{file("use", out("a"))}}, nil},
		{"text", &dag.Pipeline{Steps: []*dag.Step{file("use", out("a")), text("say", "", out("b"))}}, []string{"b"}},
		{"both", &dag.Pipeline{Steps: []*dag.Step{file("use", out("a")), text("say", "", "x"+out("a"))}}, []string{"a"}},
		{"a file with text around", &dag.Pipeline{Steps: []*dag.Step{file("use", "<"+out("a")+">")}}, []string{"a"}},
		{"one of, as a file", &dag.Pipeline{Steps: []*dag.Step{file("use", dag.Ref{Kind: dag.RefOneOf, Step: "a|b", Name: "o|o"}.Token())}}, nil},
		{"collected, as a file", &dag.Pipeline{Steps: []*dag.Step{file("use", dag.Ref{Kind: dag.RefCollected, Step: "a", Name: "o"}.Token())}}, []string{"a"}},
		{"condition", &dag.Pipeline{Groups: []*dag.Group{{Condition: cmpOf(out("a"), "==", "x")}}}, []string{"a"}},
		{"loop", &dag.Pipeline{Groups: []*dag.Group{{Loop: &dag.Loop{From: out("a")}}}}, []string{"a"}},
		{"a graph passes a file on", graph(inGraph), nil},
		{"a graph makes text of it", graph(text("use", "g", out("first"))), []string{"first", "next"}},
	} {
		var got []string
		for r := range textual(tt.p) {
			if r.Kind == dag.RefOutput {
				got = append(got, r.Step)
			}
		}
		if slices.Sort(got); !slices.Equal(got, tt.want) {
			t.Errorf("%s: text is made of %q; want %q", tt.name, got, tt.want)
		}
	}
}

// TestArtifactFrom shows that an output which is only passed on is declared as a
// file, and comes from its place where the executor keeps one.
func TestArtifactFrom(t *testing.T) {
	first := &dag.Step{Name: "make", Outputs: []dag.Output{{Name: "o", Path: "/o"}}, Container: dag.Object{{Name: "image", Value: "i"}}}
	use := &dag.Step{Name: "use", Artifacts: []dag.Artifact{{Name: "in", Path: "/in", Text: out("make")}}, Container: dag.Object{{Name: "image", Value: "i"}}}
	pl, err := newPlanner(&dag.Pipeline{Name: "p", Steps: []*dag.Step{first, use}}, RunInfo{ID: "r"}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	if a := pl.attempt(0, 1, []Record{{}, {}}, settings{}); len(a.Outputs) != 1 || !a.Outputs[0].File {
		t.Errorf("the attempt declares %+v; want a file", a.Outputs)
	}
	for _, tt := range []struct{ files, want map[string]string }{
		{map[string]string{"o": "there"}, map[string]string{"from": "there"}},
		{nil, map[string]string{"text": "t"}},
	} {
		records := []Record{{State: Succeeded, Outputs: map[string]string{"o": "t"}, Files: tt.files}, {}}
		f := pl.attempt(1, 1, records, settings{}).Artifacts[0]
		got := map[string]string{"from": f.From, "text": f.Text}
		maps.DeleteFunc(got, func(_, v string) bool { return v == "" })
		if !maps.Equal(got, tt.want) {
			t.Errorf("with the files %v the step gets %v; want %v", tt.files, got, tt.want)
		}
	}
}

func TestPreview(t *testing.T) {
	param := func(name string) string { return dag.Ref{Kind: dag.RefParam, Name: name}.Token() }
	out := dag.Ref{Kind: dag.RefOutput, Step: "a", Name: "o"}.Token()
	item := dag.Ref{Kind: dag.RefItem, Step: "loop-item", Name: "x"}.Token()
	given := "5$"
	p := &dag.Pipeline{Name: "p", Params: []*dag.Param{{Name: "known", Default: &given}, {Name: "open"}}}
	p.Steps = []*dag.Step{
		{Name: "a", Timeout: "60", Outputs: []dag.Output{{Name: "o", Path: "/o"}}, Container: dag.Object{{Name: "args", Value: []any{param("known"), param("open"), "$(HOME)", dag.Ref{Kind: dag.RefRunName}.Token()}}}},
		{Name: "b", Timeout: out, Container: dag.Object{{Name: "args", Value: []any{"-" + out, item, dag.Ref{Kind: dag.RefCollected, Step: "a", Name: "o"}.Token()}}},
			Pod: dag.Pod{NodeSelector: dag.Object{{Name: "pool", Value: out}}}},
	}
	attempts, err := Preview(p, RunInfo{ID: "id", Name: "name"})
	if err != nil {
		t.Fatal(err)
	}
	a, b := attempts[0], attempts[1]
	if got, want := fmt.Sprint(a.Container.Get("args")), "[5$$ ${open} $(HOME) name]"; got != want || a.Timeout != time.Minute {
		t.Errorf("a has the arguments %s and timeout %v; want %s and 1m", got, a.Timeout, want)
	}
	if got, want := fmt.Sprint(b.Container.Get("args")), "[-${a.o} ${item.x} ${a.o[*]}]"; got != want || b.Pod.NodeSelector.Get("pool") != "${a.o}" || b.Timeout != 0 {
		t.Errorf("b has the arguments %s, node selector %v and timeout %v; want %s", got, b.Pod.NodeSelector, b.Timeout, want)
	}
}
