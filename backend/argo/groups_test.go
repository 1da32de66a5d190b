package argo

import (
	"strings"
	"testing"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/yaml"
)

// TestRounds shows what another round of a graph is passed: a file as a file,
// text as text, and no argument that no step uses.
func TestRounds(t *testing.T) {
	start, refine := step("start"), step("refine")
	start.Outputs = []dag.Output{{Name: "model", Path: "/m"}}
	refine.Group = "graph-loop-1"
	refine.Container.Set([]any{param("rate"), param("free")}, "args")
	refine.Artifacts = []dag.Artifact{{Name: "model", Path: "/in", Text: output("start", "model")}}
	refine.Outputs = []dag.Output{{Name: "model", Path: "/m"}, {Name: "done", Path: "/d"}}
	p := &dag.Pipeline{
		Name:   "p",
		Params: []*dag.Param{{Name: "rate"}, {Name: "unused"}, {Name: "free"}},
		Steps:  []*dag.Step{start, refine},
		Groups: []*dag.Group{
			{Name: "graph-loop-1", Kind: dag.GroupGraph, Args: []dag.Arg{
				{Name: "model", Value: output("start", "model")},
				{Name: "rate", Value: param("rate")},
				{Name: "unused", Value: param("unused")},
			}},
			{Name: "condition-2", Kind: dag.GroupCondition, Group: "graph-loop-1",
				Condition: &dag.Condition{Op: "==", X: output("refine", "done"), Y: "no"}},
			{Name: "graph-loop-3", Kind: dag.GroupCall, Group: "condition-2", Calls: "graph-loop-1", Args: []dag.Arg{
				{Name: "unused", Value: output("refine", "done")},
				{Name: "model", Value: output("refine", "model")},
				{Name: "rate", Value: param("rate")},
			}},
		},
	}
	for _, tt := range []struct {
		template string
		path     []string
		want     string
	}{
		{"p", []string{"inputs"}, "parameters:\n- name: free\n- name: rate\n"},
		{"graph-loop-1", []string{"inputs"}, "parameters:\n- name: free\n- name: rate\nartifacts:\n- name: start-model\n"},
		{"condition-2", []string{"inputs"}, "parameters:\n- name: free\n- name: rate\nartifacts:\n- name: refine-model\n"},
		{"condition-2", []string{"dag"}, `tasks:
- name: graph-loop-1
  template: graph-loop-1
  arguments:
    parameters:
    - name: free
      value: '{{inputs.parameters.free}}'
    - name: rate
      value: '{{inputs.parameters.rate}}'
    artifacts:
    - name: start-model
      from: '{{inputs.artifacts.refine-model}}'
`},
		{"refine", []string{"outputs"}, `parameters:
- name: refine-done
  valueFrom:
    path: /d
artifacts:
- name: refine-done
  path: /d
- name: refine-model
  path: /m
`},
	} {
		if got := part(p, Options{}, tt.template, tt.path...); got != tt.want {
			t.Errorf("%s of %s is\n%s\nwant\n%s", tt.path, tt.template, got, tt.want)
		}
	}
}

// TestInputArtifacts shows that a step's files are sorted by its inputs, not by
// where they come from.
func TestInputArtifacts(t *testing.T) {
	source, use := step("make"), step("use")
	source.Outputs = []dag.Output{{Name: "a", Path: "/a"}, {Name: "b", Path: "/b"}}
	use.Artifacts = []dag.Artifact{
		{Name: "truth", Path: "/truth", Text: output("make", "a")},
		{Name: "guess", Path: "/guess", Text: output("make", "b")},
		{Name: "model", Path: "/model", Text: "none"},
	}
	p := &dag.Pipeline{Name: "p", Steps: []*dag.Step{source, use}}
	want := `- name: make-b
  path: /guess
- name: model
  path: /model
  raw:
    data: none
- name: make-a
  path: /truth
`
	if got := part(p, Options{}, "use", "inputs", "artifacts"); got != want {
		t.Errorf("artifacts are\n%s\nwant\n%s", got, want)
	}
}

// TestExpressions shows what stands for outputs that may not be there: those of
// a branch, and those of a loop whose list may be empty. Argo 4.0.2 resolves
// each text as it says.
func TestExpressions(t *testing.T) {
	flip, a, b, each, use := step("flip"), step("a"), step("b"), step("each"), step("use")
	flip.Outputs = []dag.Output{{Name: "o", Path: "/o"}}
	a.Outputs, b.Outputs, each.Outputs = flip.Outputs, flip.Outputs, flip.Outputs
	a.Group, b.Group, each.Group = "condition-1", "condition-2", "for-loop-3"
	ref := func(name string) dag.Ref { return dag.Ref{Kind: dag.RefOutput, Step: name, Name: "o"} }
	collected := dag.Ref{Kind: dag.RefCollected, Step: "each", Name: "o"}
	use.Container.Set([]any{dag.OneOf([]dag.Ref{ref("a"), ref("b")}).Token(), collected.Token()}, "args")
	heads := &dag.Condition{Op: "==", X: output("flip", "o"), Y: "heads"}
	p := &dag.Pipeline{
		Name:  "p",
		Steps: []*dag.Step{flip, a, b, each, use},
		Groups: []*dag.Group{
			{Name: "condition-1", Kind: dag.GroupCondition, Chain: "condition-1", Condition: heads},
			{Name: "condition-2", Kind: dag.GroupCondition, Chain: "condition-1", Condition: &dag.Condition{Op: "not", Of: []*dag.Condition{heads}}},
			{Name: "for-loop-3", Kind: dag.GroupLoop, Loop: &dag.Loop{Item: "flip-o", From: output("flip", "o")}},
		},
	}
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	got := part(p, Options{}, "p", "dag", "tasks")
	for _, want := range []string{
		`{{='outputs' in tasks['' + 'for-loop-3'] ? tasks['' + 'for-loop-3'].outputs.parameters['each-o'] : '[]'}}`,
		`{{=tasks['' + 'condition-1'].status == 'Succeeded' ? tasks['' + 'condition-1'].outputs.parameters['a-o'] : ` +
			`tasks['' + 'condition-2'].status == 'Succeeded' ? tasks['' + 'condition-2'].outputs.parameters['b-o'] : ''}}`,
	} {
		if want := "value: '" + strings.ReplaceAll(want, "'", "''") + "'\n"; !strings.Contains(got, want) {
			t.Errorf("there is no %sin\n%s", want, got)
		}
	}
}

// TestParamFiles shows that params which steps take as files keep the order of
// the script among the arguments of the Workflow, and are sorted in a template.
func TestParamFiles(t *testing.T) {
	use := step("use")
	use.Artifacts = []dag.Artifact{
		{Name: "x", Path: "/x", Text: param("b")},
		{Name: "y", Path: "/y", Text: param("a")},
	}
	p := &dag.Pipeline{Name: "p", Params: []*dag.Param{{Name: "b"}, {Name: "text"}, {Name: "a"}}, Steps: []*dag.Step{use}}
	w, err := Workflow(p, Options{})
	if err != nil {
		t.Fatal(err)
	}
	want := `- name: b
  raw:
    data: '{{workflow.parameters.b}}'
- name: a
  raw:
    data: '{{workflow.parameters.a}}'
`
	if got := string(yaml.Append(nil, w.Get("spec", "arguments", "artifacts"))); got != want {
		t.Errorf("arguments are\n%s\nwant\n%s", got, want)
	}
	if got, want := part(p, Options{}, "p", "inputs"), "artifacts:\n- name: a\n- name: b\n"; got != want {
		t.Errorf("inputs are\n%s\nwant\n%s", got, want)
	}
}

// TestLoopInSubgraph shows that a loop over an output that stands in a subgraph
// has a list of dependencies, empty or not: KFP writes it.
func TestLoopInSubgraph(t *testing.T) {
	list, first, use := step("list"), step("first"), step("use")
	list.Outputs = []dag.Output{{Name: "o", Path: "/o"}}
	first.Group = "subgraph-1"
	p := &dag.Pipeline{Name: "p", Steps: []*dag.Step{list, first, use}, Groups: []*dag.Group{
		{Name: "subgraph-1", Kind: dag.GroupSub},
		{Name: "for-loop-2", Kind: dag.GroupLoop, Group: "subgraph-1", Loop: &dag.Loop{From: output("list", "o"), Item: "list-o-loop-item"}},
	}}
	use.Group = "for-loop-2"
	for _, tt := range []struct {
		after []dag.Edge
		want  string
	}{
		{nil, "  dependencies: []\n"},
		{[]dag.Edge{{Step: "first"}}, "  dependencies:\n  - first\n"},
	} {
		p.Groups[1].After = tt.after
		want := "tasks:\n- name: first\n  template: first\n- name: for-loop-2\n  template: for-loop-2\n" + tt.want +
			"  withParam: '{{inputs.parameters.list-o}}'\n"
		if got := part(p, Options{}, "subgraph-1", "dag"); got != want {
			t.Errorf("after %v: the subgraph is\n%s\nwant\n%s", tt.after, got, want)
		}
	}
}
