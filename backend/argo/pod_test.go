package argo

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/yaml"
)

// TestDataVolume shows that outputs passed as files become folders of a volume,
// and other files stay artifacts.
func TestDataVolume(t *testing.T) {
	out := dag.Ref{Kind: dag.RefOutput, Step: "a", Name: "x"}.Token()
	image := dag.Object{{Name: "image", Value: "i"}}
	p := &dag.Pipeline{
		Name: "p",
		Conf: &dag.Conf{DataVolume: dag.Object{{Name: "emptyDir", Value: dag.Object{}}, {Name: "name", Value: "d"}}, DataPrefix: "data/"},
		Steps: []*dag.Step{
			{Name: "a", Container: image, Outputs: []dag.Output{{Name: "x", Path: "/out/data"}}},
			{Name: "b", Container: image, Artifacts: []dag.Artifact{
				{Name: "in", Path: "/in/data", Text: out}, {Name: "const", Path: "/const/data", Text: "text"},
			}},
		},
	}
	got := string(yaml.Append(nil, workflow(p, Options{}).Get("spec").(dag.Object)))
	for _, want := range []string{
		`
  - name: a
    container:
      image: i
      volumeMounts:
      - mountPath: /out
        name: data-storage
        subPath: data/{{workflow.uid}}_{{pod.name}}/a-x
    outputs:
      parameters:
      - name: a-x-subpath
        value: data/{{workflow.uid}}_{{pod.name}}/a-x
    metadata:
`[1:], `
      volumeMounts:
      - mountPath: /in
        name: data-storage
        subPath: '{{inputs.parameters.a-x-subpath}}'
        readOnly: true
    inputs:
`[1:], `
      parameters:
      - name: a-x-subpath
      artifacts:
      - name: const
        path: /const/data
        raw:
          data: text
`[1:], `
          parameters:
          - name: a-x-subpath
            value: '{{tasks.a.outputs.parameters.a-x-subpath}}'
`[1:], `
volumes:
- emptyDir: {}
  name: data-storage
`[1:],
	} {
		if !strings.Contains(indented(got), indented(want)) {
			t.Errorf("want\n%s in\n%s", want, got)
		}
	}
}

// TestDataVolumePage shows that a file for KFP's page gets a folder of the
// volume where it has one of its own, and is an artifact in any case.
func TestDataVolumePage(t *testing.T) {
	p := &dag.Pipeline{
		Name: "p",
		Conf: &dag.Conf{DataVolume: dag.Object{{Name: "emptyDir", Value: dag.Object{}}}},
		Steps: []*dag.Step{{Name: "a", Container: dag.Object{{Name: "image", Value: "i"}}, Outputs: []dag.Output{
			{Name: "MLPipeline UI metadata", Path: "/page/data"}, {Name: "mlpipeline-metrics", Path: "/metrics.json"},
		}}},
	}
	got := string(yaml.Append(nil, workflow(p, Options{}).Get("spec").(dag.Object)))
	want := `
      volumeMounts:
      - mountPath: /page
        name: data-storage
        subPath: '{{workflow.uid}}_{{pod.name}}/mlpipeline-ui-metadata'
    outputs:
      parameters:
      - name: mlpipeline-ui-metadata-subpath
        value: '{{workflow.uid}}_{{pod.name}}/mlpipeline-ui-metadata'
      artifacts:
      - name: mlpipeline-ui-metadata
        path: /page/data
      - name: mlpipeline-metrics
        path: /metrics.json
    metadata:
`[1:]
	if !strings.Contains(indented(got), indented(want)) {
		t.Errorf("want\n%s in\n%s", want, got)
	}
}

// indented returns the lines of YAML without what they are all indented by.
func indented(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		lines = append(lines, strings.TrimSpace(line))
	}
	return strings.Join(lines, "\n")
}

// TestPatch shows what goes to the podSpecPatch: quantities and selectors that
// only the run will know, of all containers.
func TestPatch(t *testing.T) {
	v := dag.Ref{Kind: dag.RefParam, Name: "v"}.Token()
	limits := func(quantity string) dag.Object {
		var o dag.Object
		o.Set(quantity, "limits", "cpu")
		return o
	}
	s := &dag.Step{
		Name:      "a",
		Container: dag.Object{{Name: "image", Value: "i"}, {Name: "resources", Value: limits("1")}},
		Pod: dag.Pod{
			NodeSelector:   dag.Object{{Name: "zone", Value: "z"}, {Name: "mixed", Value: "x" + v}, {Name: v, Value: "y"}},
			InitContainers: []dag.Object{{{Name: "name", Value: "init"}, {Name: "image", Value: "i"}, {Name: "resources", Value: limits(v)}}},
			Sidecars: []dag.Object{
				{{Name: "resources", Value: limits(v)}, {Name: "name", Value: "side"}, {Name: "mirrorVolumeMounts", Value: true}},
				{{Name: "name", Value: "two"}, {Name: "resources", Value: limits("2")}},
			},
		},
	}
	p := &dag.Pipeline{Name: "p", Params: []*dag.Param{{Name: "v"}}, Steps: []*dag.Step{s}}
	got := workflow(p, Options{}).Get("spec", "templates").([]any)[0].(dag.Object)
	two := dag.Object{{Name: "name", Value: "two"}, {Name: "resources", Value: limits("2")}}
	for _, tt := range []struct {
		field string
		want  any
	}{
		{"container", dag.Object{{Name: "image", Value: "i"}, {Name: "resources", Value: limits("1")}}},
		{"nodeSelector", dag.Object{{Name: "zone", Value: "z"}, {Name: "mixed", Value: "x{{inputs.parameters.v}}"}}},
		{"initContainers", []any{dag.Object{{Name: "image", Value: "i"}, {Name: "name", Value: "init"}}}},
		{"sidecars", []any{dag.Object{{Name: "name", Value: "side"}, {Name: "mirrorVolumeMounts", Value: true}}, two}},
		{"podSpecPatch", `{"containers": [{"name": "side", "resources": {"limits": {"cpu": "{{inputs.parameters.v}}"}}}], ` +
			`"initContainers": [{"name": "init", "resources": {"limits": {"cpu": "{{inputs.parameters.v}}"}}}], ` +
			`"nodeSelector": {"{{inputs.parameters.v}}": "y"}}`},
	} {
		if diff := cmp.Diff(tt.want, got.Get(tt.field)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.field, diff)
		}
	}
}
