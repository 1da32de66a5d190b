package accel

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/kube"
)

// This file turns requests into what the scheduler of Kubernetes knows.

// A Scheduling is what an accelerator asks of a pod and its nodes. The zero
// value asks for nothing.
type Scheduling struct {
	Limits      dag.Object   // of the container: extended resources to quantities
	Terms       []dag.Object // core/v1 NodeSelectorTerms, of which one must hold; nil is any node
	Preferred   []dag.Object // core/v1 PreferredSchedulingTerms
	Tolerations []dag.Object // core/v1 Tolerations
	Shm         string       // size of /dev/shm, a quantity; "" leaves it alone
}

// noClaims is why a request that needs a claim is refused.
const noClaims = "a claim (DRA) comes from a ResourceClaimTemplate, an object that a compiled pipeline does not bring along"

// Schedule returns what the step's accelerator asks for, on a cluster whose
// nodes have the labels of the profile. The error is a dag.Errors.
func Schedule(s *dag.Step, profile Profile) (*Scheduling, error) {
	a := s.Accelerator
	if a == nil {
		return &Scheduling{}, nil
	}
	var all []*Scheduling
	var faults dag.Errors
	for _, alt := range alternatives(a) {
		r, err := resolve(alt, profile.vendor())
		if err != nil {
			faults = append(faults, dag.Faults(err)...)
			continue
		}
		x, err := r.schedule(profile)
		if err != nil {
			faults = append(faults, &dag.Error{Pos: alt.Pos, Msg: err.Error()})
			continue
		}
		x.Shm = r.shm(s)
		all = append(all, x)
	}
	if faults != nil {
		return nil, faults.Err()
	}
	x, err := firstOf(all)
	if err == nil {
		err = x.conflict(s)
	}
	if err != nil {
		return nil, dag.Errors{{Pos: a.Pos, Msg: err.Error()}}
	}
	return x, nil
}

// schedule returns what one request asks for, without /dev/shm.
func (r *request) schedule(profile Profile) (*Scheduling, error) {
	if r.None() {
		return &Scheduling{}, nil
	}
	if err := r.unclaimed(); err != nil {
		return nil, err
	}
	x := &Scheduling{Tolerations: slices.Clone(r.Tolerations)}
	resource := r.Resource
	count := r.Count
	var err error
	var terms terms
	switch r.Kind {
	case "mps":
		return nil, errors.New("mps() is for local runs; on Kubernetes request gpu(...)")
	case "cpu_features":
		for _, name := range r.Features {
			terms.and(expression(featureLabel(name), "Exists"))
		}
		if r.Prefer {
			x.Preferred = terms.preferred(100)
		} else {
			x.Terms = terms.objects()
		}
		return x, nil
	case "resource":
		for _, m := range r.Selector {
			values, _ := m.Value.([]any)
			terms.and(expressionOf(m.Name, "In", values))
		}
	case "tpu":
		resource, count = r.family.resource, r.chips
		terms.and(expression("cloud.google.com/gke-tpu-accelerator", "In", r.tpu.label))
		terms.and(expression("cloud.google.com/gke-tpu-topology", "In", r.Topology))
		if r.Spot {
			terms.and(expression("cloud.google.com/gke-spot", "In", "true"))
			x.Tolerations = append(x.Tolerations, dag.Object{{Name: "effect", Value: "NoSchedule"}, {Name: "key", Value: "cloud.google.com/gke-spot"},
				{Name: "operator", Value: "Equal"}, {Name: "value", Value: "true"}})
		}
	default:
		if resource, err = r.extended(profile); err == nil {
			terms, err = r.labels(profile)
		}
	}
	if err != nil {
		return nil, err
	}
	x.Limits = dag.Object{{Name: resource, Value: strconv.Itoa(count)}}
	x.Terms = terms.objects()
	if r.family != nil && r.family.taint != "" && !r.NoTolerations {
		x.Tolerations = append(x.Tolerations, dag.Object{{Name: "effect", Value: "NoSchedule"}, {Name: "key", Value: r.family.taint}, {Name: "operator", Value: "Exists"}})
	}
	return x, nil
}

// unclaimed returns why the request cannot be met without a claim, or nil.
func (r *request) unclaimed() error {
	switch {
	case r.Kind == "device_claim":
		return fmt.Errorf(`%s: %s; request an extended resource, such as gpu(...) or resource("vendor.com/name")`, r.Accelerator, noClaims)
	case r.Link != "":
		return fmt.Errorf(`link=%q needs DRA (via="dra"): %s; leave link out`, r.Link, noClaims)
	case r.Connected:
		return fmt.Errorf("%s: connected=True needs DRA: %s; leave connected out", r.Accelerator, noClaims)
	case r.Via == "dra":
		return fmt.Errorf(`%s: %s; leave via out to ask for an extended resource`, r.Accelerator, noClaims)
	}
	return nil
}

// extended returns the extended resource that the request is for.
func (r *request) extended(profile Profile) (string, error) {
	f := r.family
	if f == nil {
		nvidia := *r.Accelerator
		nvidia.Vendor = "nvidia"
		return "", fmt.Errorf("%s: whose GPU is known only in a cluster: write %s, or say what the cluster has: --accel-profile gfd for NVIDIA's labels, %s",
			r.Accelerator, &nvidia, "or another one of "+strings.Join(Profiles(), ", "))
	}
	switch {
	case r.Kind == "neuron" && r.Unit == "core":
		return "aws.amazon.com/neuroncore", nil
	case r.Partition != "" && f.name == "amd":
		return "amd.com/" + r.Partition, nil
	case r.Partition != "" && profile != GKE:
		return "nvidia.com/mig-" + strings.ReplaceAll(r.Partition, "+", "."), nil
	case r.model != nil:
		return r.model.extended(), nil
	case f.resource != "":
		return f.resource, nil
	}
	var write []string
	for _, m := range models {
		if name := fmt.Sprintf("resource(%q)", m.extended()); m.of() == f && !slices.Contains(write, name) {
			write = append(write, name)
		}
	}
	if f.name == "intel" {
		write = []string{`resource("gpu.intel.com/xe")`, `resource("gpu.intel.com/i915")`}
	}
	return "", fmt.Errorf("%s: the devices of %s have several extended resources: name a model, or write %s", r.Accelerator, f.title, or(write))
}

// shm returns the size of /dev/shm for the step.
func (r *request) shm(s *dag.Step) string {
	devices := r.Count > 1 && slices.Contains([]string{"accelerator", "gpu", "mig"}, r.Kind)
	switch {
	case r.Shm == "none" || r.Shm == "" && !devices:
		return ""
	case r.Shm != "":
		return r.Shm
	}
	limit, _ := s.Container.Get("resources", "limits", "memory").(string)
	const mi, gi = 1 << 20, 1 << 30
	size := int64(r.Count) * 2 * gi
	if n, err := kube.Bytes(limit); err == nil {
		size = max(n/8, 64*mi) // what a container has without all this
	}
	if size%gi == 0 {
		return strconv.FormatInt(size/gi, 10) + "Gi"
	}
	return strconv.FormatInt(size/mi, 10) + "Mi"
}

// firstOf returns what the alternatives, the best first, ask for together.
func firstOf(all []*Scheduling) (*Scheduling, error) {
	if len(all) == 1 {
		return all[0], nil
	}
	x := &Scheduling{Limits: all[0].Limits, Shm: all[0].Shm}
	anywhere := false
	for i, alt := range all {
		if !equal(alt.Limits, x.Limits) || alt.Shm != x.Shm {
			return nil, errors.New("first_of needs DRA, or alternatives that differ only in node labels: the same number of devices of one extended resource, and one shm; " + noClaims)
		}
		x.Terms = append(x.Terms, alt.Terms...)
		anywhere = anywhere || len(alt.Terms) == 0
		if weight := int64(100 * (len(all) - 1 - i) / (len(all) - 1)); weight > 0 {
			for _, term := range alt.Terms {
				x.Preferred = append(x.Preferred, dag.Object{{Name: "preference", Value: term}, {Name: "weight", Value: weight}})
			}
		}
		for _, t := range alt.Tolerations {
			x.Tolerations = addEqual(x.Tolerations, t)
		}
	}
	if anywhere {
		x.Terms = nil
	}
	return x, nil
}

// equal reports whether two trees are equal, whatever the order of members.
func equal(x, y dag.Object) bool { return dag.PythonJSON(x) == dag.PythonJSON(y) }

// addEqual adds an object to a list that does not have it.
func addEqual(list []dag.Object, o dag.Object) []dag.Object {
	if slices.ContainsFunc(list, func(e dag.Object) bool { return equal(e, o) }) {
		return list
	}
	return append(slices.Clip(list), o)
}

// conflict returns which limit of the step's own excludes the accelerator.
func (x *Scheduling) conflict(s *dag.Step) error {
	own, _ := s.Container.Get("resources", "limits").(dag.Object)
	for _, limit := range x.Limits {
		for _, m := range own {
			switch {
			case m.Name == limit.Name && m.Value != limit.Value:
				return fmt.Errorf("step %q sets both %s and %s to %s: leave out one of them", s.Name, s.Accelerator, m.Name, dag.Display(fmt.Sprint(m.Value)))
			case m.Name == limit.Name || !isDevice(m.Name):
			case strings.HasPrefix(m.Name, "aws.amazon.com/neuron") && strings.HasPrefix(limit.Name, "aws.amazon.com/neuron"):
				return errors.New(`neuron(unit="device") and neuron(unit="core") in one step: choose one`)
			case vendor(m.Name) == vendor(limit.Name):
				return fmt.Errorf("step %q sets both %s and a limit of %s: leave out one of them", s.Name, s.Accelerator, m.Name)
			default:
				return fmt.Errorf("step %q sets both %s and a limit of %s: vendor conflict; first_of(...) expresses alternatives", s.Name, s.Accelerator, m.Name)
			}
		}
	}
	return nil
}

// isDevice reports whether an extended resource is that of an accelerator.
func isDevice(resource string) bool {
	if strings.HasPrefix(resource, "cloud-tpus.google.com/") {
		return true
	}
	for _, f := range families {
		if f.resource == resource {
			return true
		}
	}
	v := vendor(resource)
	return v == "nvidia.com" || v == "amd.com" || v == "gpu.intel.com" || v == "huawei.com" || resource == "aws.amazon.com/neuroncore"
}

// vendor is the domain of an extended resource.
func vendor(resource string) string {
	domain, _, _ := strings.Cut(resource, "/")
	return domain
}

// apply returns the step with what the accelerator asks for. What the step
// has of its own stays: terms of its affinity must hold too, and equal
// tolerations are not added again.
func (x *Scheduling) apply(s *dag.Step) *dag.Step {
	c := *s
	for _, m := range x.Limits {
		c.Container.Set(m.Value, "resources", "limits", m.Name)
	}
	for _, t := range x.Tolerations {
		c.Tolerations = addEqual(c.Tolerations, t)
	}
	x.affinity(&c.Affinity)
	x.mountShm(&c)
	return &c
}

const (
	required  = "requiredDuringSchedulingIgnoredDuringExecution"
	preferred = "preferredDuringSchedulingIgnoredDuringExecution"
)

// affinity adds the terms to an affinity.
func (x *Scheduling) affinity(a *dag.Object) {
	if len(x.Preferred) > 0 {
		own, _ := a.Get("nodeAffinity", preferred).([]any)
		own = slices.Clip(own)
		for _, p := range x.Preferred {
			own = append(own, p)
		}
		a.Set(own, "nodeAffinity", preferred)
	}
	if len(x.Terms) == 0 {
		return
	}
	own, _ := a.Get("nodeAffinity", required, "nodeSelectorTerms").([]any)
	var all []any
	for _, v := range own {
		term, _ := v.(dag.Object)
		expressions, _ := term.Get("matchExpressions").([]any)
		fields, _ := term.Get("matchFields").([]any)
		if len(expressions)+len(fields) == 0 {
			continue // it matches no node
		}
		for _, ours := range x.Terms {
			more, _ := ours.Get("matchExpressions").([]any)
			both := slices.Clone(term)
			both.Set(slices.Concat(expressions, more), "matchExpressions")
			all = append(all, both)
		}
	}
	if len(own) == 0 {
		for _, term := range x.Terms {
			all = append(all, term)
		}
	}
	if all != nil {
		a.Set(all, "nodeAffinity", required, "nodeSelectorTerms")
	}
}

// mountShm gives the step a /dev/shm of the size, unless it has one.
func (x *Scheduling) mountShm(s *dag.Step) {
	if x.Shm == "" {
		return
	}
	mounts, _ := s.Container.Get("volumeMounts").([]any)
	for _, m := range mounts {
		if m, _ := m.(dag.Object); m.Get("mountPath") == "/dev/shm" {
			return
		}
	}
	name := "shm"
	taken := func(v dag.Object) bool { return v.Get("name") == name }
	for i := 2; slices.ContainsFunc(s.Volumes, taken); i++ {
		name = "shm-" + strconv.Itoa(i)
	}
	s.Volumes = append(slices.Clip(s.Volumes), dag.Object{
		{Name: "emptyDir", Value: dag.Object{{Name: "medium", Value: "Memory"}, {Name: "sizeLimit", Value: x.Shm}}},
		{Name: "name", Value: name},
	})
	s.Container.Append("volumeMounts", dag.Object{{Name: "mountPath", Value: "/dev/shm"}, {Name: "name", Value: name}})
}
