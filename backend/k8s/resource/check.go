package resource

import (
	"fmt"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

// This file finds what is wrong with a step before it runs.

// Check reports what is wrong with a step that has a Resource, in a run in the
// namespace, and can be known before it: texts with tokens are left to the
// run.
func Check(s *dag.Step, namespace string) dag.Errors {
	r := s.Resource
	var faults dag.Errors
	fault := func(pos dag.Pos, hint, format string, args ...any) {
		faults = append(faults, &dag.Error{Pos: pos, Name: s.Name, Hint: hint, Msg: fmt.Sprintf("step %q: ", s.Name) + fmt.Sprintf(format, args...)})
	}
	if !dag.HasRefs(strings.Join(r.Flags, "")) {
		if _, err := parseFlags(r.Action, r.Flags); err != nil {
			fault(s.Pos, "", "flags: %v", err)
		}
	}
	for _, c := range []struct{ name, text string }{
		{"success_condition", r.SuccessCondition},
		{"failure_condition", r.FailureCondition},
	} {
		if _, err := parseCondition(c.text); err != nil && !dag.HasRefs(c.text) {
			fault(s.Pos, `a condition is a list of requirements:  "status.succeeded > 0, status.phase in (Bound, Ready)"`, "%s %v", c.name, err)
		}
	}
	if what := checkAction(r, namespace); what != "" {
		fault(s.Pos, "", "%s", what)
	}
	for _, o := range s.Outputs {
		if _, err := parsePath(o.JSONPath); err != nil && !dag.HasRefs(o.JSONPath) {
			fault(o.Pos, `a path is written as for kubectl:  "{.metadata.uid}"`, "output %q: %v", o.Name, err)
		}
	}
	return faults
}

// checkAction says what is wrong with the manifest for its action, or "".
func checkAction(r *dag.Resource, namespace string) string {
	if name, _ := r.Manifest.Get("metadata", "name").(string); name == "" && r.Action != "create" {
		return fmt.Sprintf("the action %s needs metadata.name: metadata.generateName is for create", r.Action)
	}
	if r.MergeStrategy == "json" {
		operations, ok := r.Manifest.Get("patch").([]any)
		switch {
		case r.Action != "patch":
			return `merge_strategy "json" is for the action patch`
		case !ok || len(operations) == 0:
			return `merge_strategy "json": want the operations as a list in k8s_resource["patch"], beside apiVersion, kind and metadata`
		}
	}
	if r.SetOwnerReference == nil || !*r.SetOwnerReference {
		return ""
	}
	if r.Action == "patch" || r.Action == "delete" {
		return fmt.Sprintf("set_owner_reference is for the actions create, apply and replace, not %s", r.Action)
	}
	if ns, _ := r.Manifest.Get("metadata", "namespace").(string); ns != "" && !dag.HasRefs(ns) && namespace != "" && ns != namespace {
		return fmt.Sprintf("set_owner_reference: its object is in namespace %q, and the run in %q: the cluster would delete it at once", ns, namespace)
	}
	return ""
}
