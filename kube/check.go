package kube

import (
	"fmt"
	"slices"
	"strings"

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
			faults = append(faults, &dag.Error{Pos: s.Pos, Name: s.Name, Msg: fmt.Sprintf("step %q: ", s.Name) + fmt.Sprintf(format, args...)})
		}
		if image := s.Image(); strings.ContainsFunc(fixed(image), func(r rune) bool { return r <= ' ' }) {
			fault("image %q: want no spaces", dag.Display(image))
		}
		for _, v := range s.Volumes {
			name, _ := v.Get("name").(string)
			if err := CheckLabel(name); err != nil && !dag.HasRefs(name) {
				fault("volume name %v", err)
			}
		}
		checkContainer(s.Container, fault)
		for _, c := range slices.Concat(s.InitContainers, s.Sidecars) {
			name, _ := c.Get("name").(string)
			fault := func(format string, args ...any) {
				fault("container %q: "+format, append([]any{dag.Display(name)}, args...)...)
			}
			if err := CheckLabel(name); name != "" && err != nil && !dag.HasRefs(name) {
				fault("its name is %v", err)
			}
			if image, _ := c.Get("image").(string); image == "" {
				fault("it has no image")
			}
			checkContainer(c, fault)
			for _, m := range objects(c.Get("volumeMounts")) {
				if !slices.ContainsFunc(s.Volumes, func(v dag.Object) bool { return v.Get("name") == m.Get("name") }) {
					fault("it mounts volume %q, which the step does not have", dag.Display(fmt.Sprint(m.Get("name"))))
				}
			}
		}
	}
	return faults.Err()
}

func checkContainer(c dag.Object, fault func(string, ...any)) {
	checkEnv(c, fault)
	checkMounts(c, fault)
	checkResources(c, fault)
}

func checkEnv(c dag.Object, fault func(string, ...any)) {
	seen := map[string]bool{}
	for _, env := range objects(c.Get("env")) {
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

func checkMounts(c dag.Object, fault func(string, ...any)) {
	for _, m := range objects(c.Get("volumeMounts")) {
		if at, _ := m.Get("mountPath").(string); at == "" || strings.Contains(fixed(at), ":") {
			fault("mount path %q: want a path without a colon", dag.Display(at))
		}
	}
}

// checkResources finds requests above their limits, and extended resources
// whose request is not their limit.
func checkResources(c dag.Object, fault func(string, ...any)) {
	limits, _ := c.Get("resources", "limits").(dag.Object)
	requests, _ := c.Get("resources", "requests").(dag.Object)
	for _, r := range requests {
		limitText, _ := scalarText(limits.Get(r.Name))
		if limitText == "" && !fractional(r.Name) {
			fault("it requests %s without a limit: the two must be equal", r.Name)
		}
		requestText, _ := scalarText(r.Value)
		limit, err1 := parseQuantity(limitText)
		request, err2 := parseQuantity(requestText)
		if err1 != nil || err2 != nil {
			continue // unset, known only at run time, or reported where it was set
		}
		if request.Cmp(limit.Rat) > 0 {
			fault("its %s request %s is above its limit %s", r.Name, requestText, limitText)
		} else if !fractional(r.Name) && request.Cmp(limit.Rat) != 0 {
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
