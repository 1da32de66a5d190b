package local

import (
	"fmt"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

// This file defines what steps ask of a cluster that a process on this machine
// does not get.

// noCluster is the fault of a step that changes an object of the cluster.
func noCluster(s *dag.Step) *dag.Error {
	return &dag.Error{
		Pos:  s.Pos,
		Msg:  fmt.Sprintf("step %q cannot run on this machine: it changes a cluster (%s)", s.Name, s.Resource),
		Hint: "leave it out where the script runs as processes, by a setting:\n    if config(\"cluster\", default = True): ...",
	}
}

// noContainers is the fault of a step that has other containers beside its
// own, or nil. What these do cannot be left out in silence: an init container
// may fetch what the step reads.
func noContainers(s *dag.Step) *dag.Error {
	for _, kind := range []struct {
		name       string
		containers []dag.Object
	}{{"init container", s.InitContainers}, {"sidecar", s.Sidecars}} {
		for _, k := range kind.containers {
			name, _ := k.Get("name").(string)
			return &dag.Error{
				Pos:  s.Pos,
				Msg:  fmt.Sprintf("step %q cannot run on this machine: its %s %q needs a container", s.Name, kind.name, dag.Display(name)),
				Hint: "leave it out where the script runs as processes, by a setting:\n    if config(\"containers\", default = True): ...",
			}
		}
	}
	return nil
}

// unmet calls miss for each thing that the step asks for and does not get.
func unmet(s *dag.Step, miss func(thing string)) {
	for _, v := range s.Volumes {
		if name, ok := v.Get("name").(string); ok {
			miss(fmt.Sprintf("volume %q", dag.Display(name)))
		}
	}
	list, _ := s.Container.Get("env").([]any)
	for _, e := range list {
		v, _ := e.(dag.Object)
		if name, ok := v.Get("name").(string); ok && v.Get("valueFrom") != nil {
			miss(fmt.Sprintf("variable %q", dag.Display(name)))
		}
	}
	for _, field := range []string{"envFrom", "livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "securityContext", "tty", "volumeDevices", "workingDir"} {
		if v := s.Container.Get(field); v != nil && v != false {
			miss(field)
		}
	}
	limits, _ := s.Container.Get("resources", "limits").(dag.Object)
	for _, m := range limits {
		if strings.Contains(m.Name, "/") {
			miss(m.Name)
		}
	}
	for _, of := range []struct {
		thing string
		asked bool
	}{
		{"node selectors", len(s.NodeSelector) > 0},
		{"affinity", len(s.Affinity) > 0},
		{"service accounts", s.ServiceAccount != ""},
	} {
		if of.asked {
			miss(of.thing)
		}
	}
}
