package dag

import (
	"strings"
	"testing"
)

func configMap(name string) Object {
	return Object{{"apiVersion", "v1"}, {"kind", "ConfigMap"}, {"metadata", Object{{"name", name}}}}
}

func TestValidateResource(t *testing.T) {
	refN := Ref{Kind: RefParam, Name: "n"}
	for _, tt := range []struct {
		name   string
		change func(s *Step, r *Resource)
		want   string
	}{
		{"valid", func(s *Step, r *Resource) {}, ""},
		{"a container too", func(s *Step, r *Resource) { s.Container.Set("i", "image") },
			`step "a" has both a container and a resource: want one of them`},
		{"files", func(s *Step, r *Resource) { s.Artifacts = []Artifact{{Name: "x", Path: "/x", Text: "t"}} },
			`step "a" takes values as files, and has no container for them`},
		{"action", func(s *Step, r *Resource) { r.Action = "make" },
			`step "a": action "make": want one of create, apply, patch, replace, delete`},
		{"merge strategy", func(s *Step, r *Resource) { r.MergeStrategy, r.Action = "mix", "patch" },
			`step "a": merge strategy "mix": want one of strategic, merge, json`},
		{"merge strategy of create", func(s *Step, r *Resource) { r.MergeStrategy = "merge" },
			`step "a" has a merge strategy, which only the actions apply and patch have, not create`},
		{"conditions of delete", func(s *Step, r *Resource) { r.Action, r.FailureCondition, s.Outputs = "delete", "x", nil },
			`step "a" deletes an object: nothing is left for conditions and outputs`},
		{"outputs of delete", func(s *Step, r *Resource) { r.Action = "delete" },
			`step "a" deletes an object: nothing is left for conditions and outputs`},
		{"no kind", func(s *Step, r *Resource) { r.Manifest.Set("", "kind") },
			`step "a": the manifest of its object has no kind`},
		{"no name", func(s *Step, r *Resource) { r.Manifest.Set(Object{}, "metadata") },
			`step "a": the manifest of its object has no name: neither metadata.name nor metadata.generateName`},
		{"a file as output", func(s *Step, r *Resource) { s.Outputs[0] = Output{Name: "o", Path: "/o"} },
			`output "o" of step "a": want a jsonPath into the object, and no path of a file`},
		{"output name", func(s *Step, r *Resource) { s.Outputs[0].Name = "1" },
			`step "a": output name "1": want a letter, then letters, digits, spaces, _ or -`},
		{"text", func(s *Step, r *Resource) {
			r.Manifest.Set(refN.Token(), "data", "k")
			r.Flags = []string{refN.Token()}
			r.SuccessCondition = refN.Token()
			s.Outputs[0].JSONPath = refN.Token()
		}, `step "a", success condition: unknown param "n"
step "a", flag: unknown param "n"
step "a", k8s_resource.data.k: unknown param "n"
step "a", output "o": unknown param "n"`},
	} {
		s := &Step{Name: "a", Resource: &Resource{Action: "create", Manifest: configMap("x")}, Outputs: []Output{{Name: "o", JSONPath: "{}"}}}
		p := &Pipeline{Name: "p", Steps: []*Step{s}}
		tt.change(s, s.Resource)
		var got []string
		for _, e := range Faults(p.Validate()) {
			got = append(got, e.Error())
		}
		if got := strings.Join(got, "\n"); got != tt.want {
			t.Errorf("%s: Validate:\n%s\nwant\n%s", tt.name, got, tt.want)
		}
	}
}
