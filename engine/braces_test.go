package engine

import (
	"strings"
	"testing"

	"github.com/kfs-project/kfs/dag"
)

// TestBraces shows which placeholders of Argo's a run fills in, in the author's
// text only, and which it refuses.
func TestBraces(t *testing.T) {
	text := "{{workflow.uid}} {{ workflow.name }} {{pod.name}} {{other}} {{workflow}} {x} " + param("v")
	p := &dag.Pipeline{
		Name:   "p",
		Params: []*dag.Param{{Name: "v"}},
		Steps: []*dag.Step{
			{Name: "a", Outputs: []dag.Output{{Name: "o", Path: "/o"}}, Container: dag.Object{{Name: "image", Value: "i"}, {Name: "args", Value: []any{text}}}},
			{Name: "b", Container: dag.Object{{Name: "image", Value: "i"}}},
		},
	}
	filled, err := braces(p)
	if err != nil {
		t.Fatal(err)
	}
	if filled.Steps[1] != p.Steps[1] {
		t.Error("a step without placeholders was copied")
	}
	pl, err := newPlanner(filled, RunInfo{ID: "r1", Name: "run"}, map[string]string{"v": "{{workflow.uid}}"}, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := pl.attempt(0, 2, make([]Record, 2), settings{}).Container.Get("args").([]any)[0]
	if want := "r1 run " + AttemptID("r1", "a", 2) + " {{other}} {{workflow}} {x} {{workflow.uid}}"; got != want {
		t.Errorf("the argument is %q; want %q", got, want)
	}
	at := dag.Pos{File: "f", Line: 1, Col: 2}
	for _, text := range []string{"{{inputs.parameters.x}}", "{{ tasks.a.outputs.result }}", "{{item}}", "{{item.a}}", "{{retries}}", "{{=1 + 1}}", "x{{workflow.parameters.y}}"} {
		p.Steps[1] = &dag.Step{Name: "b", Pos: at, Container: dag.Object{{Name: "args", Value: []any{text}}}}
		if _, err := braces(p); err == nil || !strings.HasPrefix(err.Error(), `f:1:2: step "b": {{`) {
			t.Errorf("%s: got %v; want a fault at step b", text, err)
		}
	}
	p.Steps[1] = &dag.Step{Name: "b"}
	p.Groups = []*dag.Group{{Name: "g", Pos: at, Kind: dag.GroupCondition, Condition: &dag.Condition{Op: "not", Of: []*dag.Condition{{Op: "==", X: "{{item}}"}}}}}
	if _, err := braces(p); err == nil || !strings.HasPrefix(err.Error(), `f:1:2: block "g": {{item}}`) {
		t.Errorf("a condition: got %v; want a fault at block g", err)
	}
}
