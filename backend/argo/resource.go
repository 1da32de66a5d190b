package argo

import (
	"cmp"
	"slices"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/yaml"
)

// This file defines the templates of steps that change an object of the
// cluster.

// resource returns what a template does to an object, whose manifest is text.
func resource(r *dag.Resource) dag.Object {
	t := dag.Object{{Name: "action", Value: r.Action}}
	for _, m := range []struct{ name, text string }{
		{"mergeStrategy", r.MergeStrategy},
		{"successCondition", r.SuccessCondition},
		{"failureCondition", r.FailureCondition},
	} {
		if m.text != "" {
			t.Set(expand(m.text), m.name)
		}
	}
	if r.SetOwnerReference != nil {
		t.Set(*r.SetOwnerReference, "setOwnerReference")
	}
	if len(r.Flags) > 0 {
		t.Set(expandTree(list(r.Flags)), "flags")
	}
	t.Set(yaml.Python(expandTree(r.Manifest)), "manifest")
	return t
}

// resourceOutputs adds the parts of the object that are outputs, used or not.
func resourceOutputs(t *dag.Object, s *dag.Step) {
	var parameters []dag.Object
	for _, o := range slices.SortedFunc(slices.Values(s.Outputs), func(a, b dag.Output) int {
		return cmp.Compare(dag.FullName(s.Name, a.Name), dag.FullName(s.Name, b.Name))
	}) {
		parameters = append(parameters, dag.Object{
			{Name: "name", Value: dag.FullName(s.Name, o.Name)},
			{Name: "valueFrom", Value: dag.Object{{Name: "jsonPath", Value: expand(o.JSONPath)}}},
		})
	}
	if parameters != nil {
		t.Set(list(parameters), "outputs", "parameters")
	}
}
