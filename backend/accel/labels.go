package accel

import (
	"fmt"
	"slices"
	"strconv"

	"github.com/kfs-project/kfs/dag"
)

// This file chooses nodes by their labels. Values are named exactly, never by
// a pattern: Kubernetes has none, and an exact name keeps a request for a
// whole GPU off nodes whose GPUs are shared or in parts, which have other ones.

// terms are conditions on nodes of which one must hold, each made of
// expressions that must all hold. The zero value holds for every node.
type terms [][]any

// and adds an expression to each of the terms.
func (t *terms) and(e dag.Object) { t.andOneOf([]any{e}) }

// andOneOf adds alternatives: of each list, all expressions.
func (t *terms) andOneOf(lists ...[]any) {
	old := *t
	if len(old) == 0 {
		old = terms{nil}
	}
	var all terms
	for _, term := range old {
		for _, list := range lists {
			all = append(all, slices.Concat(term, list))
		}
	}
	*t = all
}

// objects returns the terms as core/v1 NodeSelectorTerms.
func (t terms) objects() []dag.Object {
	var objs []dag.Object
	for _, term := range t {
		objs = append(objs, dag.Object{{Name: "matchExpressions", Value: term}})
	}
	return objs
}

// preferred returns the terms as core/v1 PreferredSchedulingTerms.
func (t terms) preferred(weight int64) []dag.Object {
	var objs []dag.Object
	for _, term := range t.objects() {
		objs = append(objs, dag.Object{{Name: "preference", Value: term}, {Name: "weight", Value: weight}})
	}
	return objs
}

// expression returns a core/v1 NodeSelectorRequirement.
func expression(key, operator string, values ...string) dag.Object {
	var list []any
	for _, v := range values {
		list = append(list, v)
	}
	return expressionOf(key, operator, list)
}

func expressionOf(key, operator string, values []any) dag.Object {
	o := dag.Object{{Name: "key", Value: key}, {Name: "operator", Value: operator}}
	if values != nil {
		o.Set(values, "values")
	}
	return o
}

// labels returns the conditions on nodes for the model, the memory and the
// compute capability that the request names.
func (r *request) labels(profile Profile) (terms, error) {
	if r.family.name != "nvidia" {
		return r.table(r.family.label, func(m *model) []string { return m.values })
	}
	switch profile {
	case GKE:
		return r.gke()
	case EKSKarpenter:
		return r.karpenter()
	}
	return r.gfd(), nil
}

// table chooses by a label that only names models: those that fit.
func (r *request) table(label string, values func(*model) []string) (terms, error) {
	var t terms
	if r.model == nil && r.memory == 0 && r.major == 0 || r.Partition != "" && r.model == nil {
		return t, nil
	}
	if m := r.model; m != nil {
		switch of := values(m); {
		case len(of) > 0:
			t.and(expression(label, "In", of...))
		case !m.vague:
			return nil, fmt.Errorf("%s: the nodes of this profile have no label for %s; choose another --accel-profile, or write resource(%q, selector={...})", r.Accelerator, article(m.title), m.extended())
		}
		return t, nil
	}
	var fitting []string
	for _, m := range models {
		if m.of() == r.family && gigabytes(m.gb) >= r.memory && (r.major == 0 || r.reaches(m)) {
			fitting = append(fitting, values(m)...)
		}
	}
	if len(fitting) == 0 {
		return nil, fmt.Errorf("%s: no device of %s with so much is known by a label; name a model, or ask for less", r.Accelerator, r.family.title)
	}
	t.and(expression(label, "In", fitting...))
	return t, nil
}

// gfd are the labels of NVIDIA's GPU Feature Discovery.
func (r *request) gfd() terms {
	var t terms
	const mib = 1 << 20
	switch {
	case r.model != nil:
		var values []string
		for _, v := range r.model.gfd {
			if r.Shared {
				v += "-SHARED"
			}
			values = append(values, v)
		}
		t.and(expression("nvidia.com/gpu.product", "In", values...))
	case r.memory > 0 && r.Partition == "":
		t.and(expression("nvidia.com/gpu.memory", "Gt", strconv.FormatInt((r.memory+mib-1)/mib-1, 10)))
	}
	if r.model == nil && r.major > 0 {
		above := []any{expression("nvidia.com/gpu.compute.major", "Gt", strconv.Itoa(r.major-1))}
		if r.minor == 0 {
			t.andOneOf(above)
		} else {
			t.andOneOf(
				[]any{expression("nvidia.com/gpu.compute.major", "In", strconv.Itoa(r.major)), expression("nvidia.com/gpu.compute.minor", "Gt", strconv.Itoa(r.minor-1))},
				[]any{expression("nvidia.com/gpu.compute.major", "Gt", strconv.Itoa(r.major))})
		}
	}
	switch {
	case r.Shared:
		t.and(expression("nvidia.com/gpu.sharing-strategy", "In", "time-slicing", "mps"))
	case len(t) > 0 && r.model == nil && r.Partition == "":
		t.and(expression("nvidia.com/gpu.sharing-strategy", "NotIn", "time-slicing", "mps"))
		t.and(expression("nvidia.com/mig.strategy", "NotIn", "single"))
	}
	return t
}

// gke are the labels of Google's node pools. A part of a GPU has the extended
// resource of a whole one there, and only a label tells them apart.
func (r *request) gke() (terms, error) {
	t, err := r.table("cloud.google.com/gke-accelerator", func(m *model) []string { return m.gke })
	if err != nil {
		return nil, err
	}
	const part, sharing = "cloud.google.com/gke-gpu-partition-size", "cloud.google.com/gke-gpu-sharing-strategy"
	if r.Partition != "" {
		t.and(expression(part, "In", r.Partition))
	} else {
		t.and(expression(part, "DoesNotExist"))
	}
	if r.Shared {
		t.and(expression(sharing, "In", "time-sharing", "mps"))
	} else {
		t.and(expression(sharing, "DoesNotExist"))
	}
	return t, nil
}

// karpenter are the labels of Karpenter on AWS.
func (r *request) karpenter() (terms, error) {
	const name, memory, mib = "karpenter.k8s.aws/instance-gpu-name", "karpenter.k8s.aws/instance-gpu-memory", 1 << 20
	if r.Shared {
		return nil, fmt.Errorf("%s: no label of Karpenter tells nodes with shared GPUs; choose --accel-profile gfd", r.Accelerator)
	}
	names := *r
	if r.model == nil && r.Partition == "" {
		names.memory = 0 // has a label of its own
	}
	t, err := names.table(name, func(m *model) []string {
		if m.karpenter == "" {
			return nil
		}
		return []string{m.karpenter}
	})
	if err != nil {
		return nil, err
	}
	switch {
	case r.model != nil && r.model.mib > 0:
		t.and(expression(memory, "In", strconv.Itoa(r.model.mib)))
	case r.model == nil && r.memory > 0 && r.Partition == "":
		t.and(expression(memory, "Gt", strconv.FormatInt((r.memory+mib-1)/mib-1, 10)))
	}
	return t, nil
}
