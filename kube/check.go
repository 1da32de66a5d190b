package kube

import (
	"fmt"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kfs-project/kfs/dag"
)

// This file defines the rules that Kubernetes has between fields of a step.

// Check reports the faults that Kubernetes would find in the steps of the
// pipeline, as a dag.Errors sorted by place, or nil. What holds a value known
// only at run time is passed over.
func Check(p *dag.Pipeline) error {
	var faults dag.Errors
	for _, s := range p.Steps {
		fault := func(format string, args ...any) {
			faults = append(faults, &dag.Error{Pos: s.Pos, Msg: fmt.Sprintf("step %q: ", s.Name) + fmt.Sprintf(format, args...)})
		}
		if image := s.Image(); strings.ContainsFunc(fixed(image), func(r rune) bool { return r <= ' ' }) {
			fault("image %q: want no spaces", dag.Display(image))
		}
		checkEnv(s, fault)
		checkMounts(s, fault)
		checkResources(s, fault)
	}
	return faults.Err()
}

func checkEnv(s *dag.Step, fault func(string, ...any)) {
	seen := map[string]bool{}
	for _, env := range objects(s.Container.Get("env")) {
		name, _ := env.Get("name").(string)
		if err := CheckEnvName(name); err != nil && !dag.HasRefs(name) {
			fault("variable %v", err)
		}
		if seen[name] {
			fault("variable %q is set twice", dag.Display(name))
		}
		seen[name] = true
	}
}

func checkMounts(s *dag.Step, fault func(string, ...any)) {
	for _, v := range s.Volumes {
		name, _ := v.Get("name").(string)
		if err := CheckLabel(name); err != nil && !dag.HasRefs(name) {
			fault("volume name %v", err)
		}
	}
	for _, m := range objects(s.Container.Get("volumeMounts")) {
		if at, _ := m.Get("mountPath").(string); at == "" || strings.Contains(fixed(at), ":") {
			fault("mount path %q: want a path without a colon", dag.Display(at))
		}
	}
}

// checkResources finds requests above their limits, and extended resources
// whose request is not their limit.
func checkResources(s *dag.Step, fault func(string, ...any)) {
	limits, _ := s.Container.Get("resources", "limits").(dag.Object)
	requests, _ := s.Container.Get("resources", "requests").(dag.Object)
	for _, r := range requests {
		limitText, _ := limits.Get(r.Name).(string)
		if limitText == "" && !fractional(r.Name) {
			fault("it requests %s without a limit: the two must be equal", r.Name)
		}
		requestText, _ := r.Value.(string)
		limit, err1 := resource.ParseQuantity(limitText)
		request, err2 := resource.ParseQuantity(requestText)
		if err1 != nil || err2 != nil {
			continue // unset, known only at run time, or reported where it was set
		}
		if request.Cmp(limit) > 0 {
			fault("its %s request %s is above its limit %s", r.Name, requestText, limitText)
		} else if !fractional(r.Name) && request.Cmp(limit) != 0 {
			fault("its %s request %s is not its limit %s: the two must be equal", r.Name, requestText, limitText)
		}
	}
}

// fixed returns the text without what only the run will know.
func fixed(text string) string {
	return dag.Expand(text, func(dag.Ref) string { return "" })
}

// objects returns the objects of a list.
func objects(list any) []dag.Object {
	items, _ := list.([]any)
	var objs []dag.Object
	for _, v := range items {
		if o, ok := v.(dag.Object); ok {
			objs = append(objs, o)
		}
	}
	return objs
}
