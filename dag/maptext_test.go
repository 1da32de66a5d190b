package dag

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestMapText maps a step with a token in each of its texts: WalkText, which
// lists them, finds none that was left.
func TestMapText(t *testing.T) {
	v := Ref{Kind: RefParam, Name: "v"}.Token()
	tree := Object{{Name: "name", Value: "n"}, {Name: "x" + v, Value: []any{"a" + v, Object{{Name: "y", Value: v}}}}}
	container := Object{
		{Name: "name", Value: "c"}, {Name: "image", Value: v}, {Name: "command", Value: []any{v}}, {Name: "args", Value: []any{"-" + v, "$"}},
		{Name: "env", Value: []any{Object{{Name: "name", Value: "E" + v}, {Name: "value", Value: "<" + v}}, Object{{Name: "name", Value: "F"}}}},
	}
	full := func() *Step {
		return &Step{
			Name: "s", Container: container, Volumes: []Object{tree}, Timeout: v,
			Retry: &Retry{Limit: v, Backoff: v, MaxBackoff: v, Policy: "Always"},
			Pod: Pod{NodeSelector: tree, Tolerations: []Object{tree}, Affinity: tree, Annotations: tree, Labels: tree,
				InitContainers: []Object{container}, Sidecars: []Object{container}, ServiceAccount: v, Mesh: true},
			Conduct:   Conduct{DisplayName: v, MaxCacheStaleness: v, PendingTimeout: v, Once: true},
			Component: &Component{Spec: tree, Arguments: tree},
			Artifacts: []Artifact{{Name: "a", Path: "/a", Text: v}},
		}
	}
	resource := &Step{Name: "r", Outputs: []Output{{Name: "o", JSONPath: v}}, Resource: &Resource{
		Action: "patch", MergeStrategy: v, SuccessCondition: v, FailureCondition: v, Flags: []string{v}, Manifest: tree,
	}}
	plain := func(text string) string { return Expand(text, func(Ref) string { return "plain" }) }
	expanded := func(text string) string { return Expand(text, func(Ref) string { return "expanded" }) }
	for _, s := range []*Step{full(), resource} {
		same := func(text string) string { return text }
		if diff := cmp.Diff(s, s.MapText(same, same)); diff != "" {
			t.Errorf("step %q, mapped to itself (-want +got):\n%s", s.Name, diff)
		}
		s.MapText(plain, expanded).WalkText(func(field *Field, text string) {
			if HasRefs(text) {
				t.Errorf("step %q: %s is %q; want it mapped", s.Name, field, text)
			}
		})
	}
	got := full().MapText(plain, expanded)
	want := Object{
		{Name: "name", Value: "c"}, {Name: "image", Value: "plain"}, {Name: "command", Value: []any{"expanded"}}, {Name: "args", Value: []any{"-expanded", "$"}},
		{Name: "env", Value: []any{Object{{Name: "name", Value: "Eplain"}, {Name: "value", Value: "<expanded"}}, Object{{Name: "name", Value: "F"}}}},
	}
	for _, k := range []Object{got.Container, got.InitContainers[0], got.Sidecars[0]} {
		if diff := cmp.Diff(want, k); diff != "" {
			t.Errorf("container (-want +got):\n%s", diff)
		}
	}
}
