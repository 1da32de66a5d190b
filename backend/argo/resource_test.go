package argo

import (
	"strings"
	"testing"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/yaml"
)

// TestResource shows a resource template, and that a part of its object gets to
// a step as a file by way of a parameter.
func TestResource(t *testing.T) {
	uid := dag.Ref{Kind: dag.RefOutput, Step: "make", Name: "uid"}.Token()
	use := &dag.Step{Name: "use", Group: "condition-1", Artifacts: []dag.Artifact{{Name: "input-0", Path: "/in", Text: uid}}}
	use.Container.Set("i", "image")
	p := &dag.Pipeline{
		Name:   "p",
		Params: []*dag.Param{{Name: "n"}},
		Groups: []*dag.Group{{Name: "condition-1", Kind: dag.GroupCondition, Condition: &dag.Condition{Op: "==", X: "1", Y: "1"}}},
		Steps: []*dag.Step{{
			Name: "make",
			Resource: &dag.Resource{
				Action: "apply", MergeStrategy: "json", SuccessCondition: "a", FailureCondition: "b", SetOwnerReference: new(false), Flags: []string{"-f"},
				Manifest: dag.Object{
					{Name: "kind", Value: "Toy"}, {Name: "apiVersion", Value: "v1"},
					{Name: "metadata", Value: dag.Object{{Name: "generateName", Value: dag.Ref{Kind: dag.RefParam, Name: "n"}.Token()}}},
				},
			},
			Outputs: []dag.Output{{Name: "uid", JSONPath: "{.metadata.uid}"}},
		}, use},
	}
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	got := string(yaml.Append(nil, workflow(p, Options{Image: func(image string) string { return image }})))
	for _, want := range []string{
		`
  - name: make
    resource:
      action: apply
      mergeStrategy: json
      successCondition: a
      failureCondition: b
      setOwnerReference: false
      flags:
      - '-f'
      manifest: |
        apiVersion: v1
        kind: Toy
        metadata:
          generateName: '{{inputs.parameters.n}}'
    inputs:
`, `
    outputs:
      parameters:
      - name: make-uid
        valueFrom:
          jsonPath: '{.metadata.uid}'
    metadata:
`, `
          artifacts:
          - name: make-uid
            raw:
              data: '{{tasks.make.outputs.parameters.make-uid}}'
`, `
          artifacts:
          - name: make-uid
            from: '{{inputs.artifacts.make-uid}}'
`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no%sin\n%s", want, got)
		}
	}
}
