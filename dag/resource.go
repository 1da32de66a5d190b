package dag

import (
	"fmt"
	"slices"
	"strings"
)

// This file defines steps that change an object of the cluster.

// A Resource is what a step does to an object of the cluster, in place of
// running a container. Text in it may hold tokens, save for Action.
type Resource struct {
	Action        string `json:"action"`                  // one of ResourceActions
	MergeStrategy string `json:"mergeStrategy,omitempty"` // of apply and patch: one of MergeStrategies; "" leaves it to the target

	// SuccessCondition and FailureCondition say when the step ends, as
	// selectors over the fields of the object ("status.succeeded > 0"). Without
	// any, it ends when the action is done.
	SuccessCondition string `json:"successCondition,omitempty"`
	FailureCondition string `json:"failureCondition,omitempty"`

	// SetOwnerReference makes the object go with the run that made it; nil is
	// not to say.
	SetOwnerReference *bool `json:"setOwnerReference,omitempty"`

	Flags    []string `json:"flags,omitempty"` // of kubectl, after those that the action has
	Manifest Object   `json:"manifest"`        // the object, with apiVersion, kind, and metadata.name or .generateName
}

// ResourceActions are what a Resource can do to its object.
var ResourceActions = []string{"create", "apply", "patch", "replace", "delete"}

// MergeStrategies say how a patch is merged with what is there.
var MergeStrategies = []string{"strategic", "merge", "json"}

// Kind returns the kind of the object, as the author wrote it.
func (r *Resource) Kind() string {
	kind, _ := r.Manifest.Get("kind").(string)
	return kind
}

// String says what the step does: "create PersistentVolumeClaim".
func (r *Resource) String() string { return r.Action + " " + Display(r.Kind()) }

// walk goes through the texts that may hold a token.
func (r *Resource) walk(w *walker) {
	w.text("merge strategy", r.MergeStrategy)
	w.text("success condition", r.SuccessCondition)
	w.text("failure condition", r.FailureCondition)
	for _, flag := range r.Flags {
		w.text("flag", flag)
	}
	w.tree("k8s_resource.", r.Manifest)
}

// Missing returns what the manifest of the object lacks, or "".
func (r *Resource) Missing() string {
	text := func(path ...string) bool {
		s, ok := r.Manifest.Get(path...).(string)
		return ok && s != ""
	}
	switch {
	case !text("apiVersion"):
		return "apiVersion"
	case !text("kind"):
		return "kind"
	case !text("metadata", "name") && !text("metadata", "generateName"):
		return "name: neither metadata.name nor metadata.generateName"
	}
	return ""
}

// resource checks a step that has a Resource.
func (v *validator) resource(s *Step) {
	r := s.Resource
	if len(s.Container) > 0 {
		v.fault(s.Pos, "step %q has both a container and a resource: want one of them", s.Name)
	}
	if len(s.Artifacts) > 0 {
		v.fault(s.Pos, "step %q takes values as files, and has no container for them", s.Name)
	}
	if !slices.Contains(ResourceActions, r.Action) {
		v.fault(s.Pos, "step %q: action %q: want one of %s", s.Name, r.Action, strings.Join(ResourceActions, ", "))
	}
	if m := r.MergeStrategy; m != "" {
		if r.Action != "apply" && r.Action != "patch" {
			v.fault(s.Pos, "step %q has a merge strategy, which only the actions apply and patch have, not %s", s.Name, r.Action)
		} else if !slices.Contains(MergeStrategies, m) && !HasRefs(m) {
			v.fault(s.Pos, "step %q: merge strategy %q: want one of %s", s.Name, m, strings.Join(MergeStrategies, ", "))
		}
	}
	if r.Action == "delete" && (r.SuccessCondition != "" || r.FailureCondition != "" || len(s.Outputs) > 0) {
		v.fault(s.Pos, "step %q deletes an object: nothing is left for conditions and outputs", s.Name)
	}
	if what := r.Missing(); what != "" {
		v.fault(s.Pos, "step %q: the manifest of its object has no %s", s.Name, what)
	}
	for _, o := range s.Outputs {
		v.outputName(s, o)
		if o.Path != "" || o.JSONPath == "" {
			v.fault(o.Pos, "output %q of step %q: want a jsonPath into the object, and no path of a file", o.Name, s.Name)
		}
	}
}

// outputs goes through the texts of outputs that may hold a token.
func (w *walker) outputs(outputs []Output) {
	for _, o := range outputs {
		w.text(fmt.Sprintf("output %q", o.Name), o.JSONPath)
	}
}
