package fakekubelet

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// This file defines what a pod can be told to do.

// What a pod reads on its annotations and a node on its own.
const (
	// BehaviorAnnotation says what a pod does; see [ParseBehavior].
	BehaviorAnnotation = "fake.kfs.dev/behavior"
	// KeyAnnotation names the count that the starts of a pod belong to. A pod
	// without it counts under its namespace/name.
	KeyAnnotation = "fake.kfs.dev/key"
	// NodeLabel, with the value "true", marks the nodes of the fake kubelet.
	NodeLabel = "fake.kfs.dev/node"
	// FrozenAnnotation, with the value "true", makes a node look dead.
	FrozenAnnotation = "fake.kfs.dev/frozen"
)

// The values of Behavior.Do.
const (
	doSucceed     = "succeed"
	doFail        = "fail"
	doOOM         = "oom"
	doEvict       = "evict"
	doRun         = "run"
	doPending     = "pending"
	doPullBackoff = "pull-backoff"
	doLost        = "lost"
	doRestart     = "restart"
)

// A Behavior is what a pod does from one start to the end it comes to. A
// container that its restart policy starts again does so after a second, and by
// the next entry of the list. The ends evict and lost are the pod's, whatever its
// restart policy.
type Behavior struct {
	// Do is one of:
	//
	//	succeed       exit with 0
	//	fail          exit with Exit
	//	oom           be killed for its memory, with exit code Exit
	//	evict         be evicted by the node
	//	run           run until it is deleted
	//	pending       never start: the container is being created
	//	pull-backoff  never start: the image is not found
	//	lost          end with no record of how: ContainerStatusUnknown
	//	restart       exit with Exit, start again in the same pod, then succeed
	//
	// "" is run for a pod that is always restarted, else succeed.
	Do string `json:"do,omitempty"`

	Pending metav1.Duration `json:"pending,omitzero"` // from first sight to the start
	After   metav1.Duration `json:"after,omitzero"`   // from each start to the end
	Settle  metav1.Duration `json:"settle,omitzero"`  // from the main container's end to the pod's; 0 shows both at once
	Grace   metav1.Duration `json:"grace,omitzero"`   // from a deletion to the end; at most the pod's grace period

	Exit    *int32 `json:"exit,omitempty"`    // nil is 1 for fail and restart, 137 for oom
	Term    *int32 `json:"term,omitempty"`    // exit code of all containers when deleted; nil is 143
	Message string `json:"message,omitempty"` // termination message of the main container
}

// allowed has the fields that each Do allows besides itself.
var allowed = map[string][]string{
	doSucceed:     {"pending", "after", "settle", "grace", "term", "message"},
	doFail:        {"pending", "after", "settle", "grace", "exit", "term", "message"},
	doOOM:         {"pending", "after", "settle", "grace", "exit", "term", "message"},
	doEvict:       {"pending", "after", "grace", "term", "message"},
	doRun:         {"pending", "grace", "term", "message"},
	doPending:     {},
	doPullBackoff: {"pending"},
	doLost:        {"pending", "after", "grace", "term"},
	doRestart:     {"pending", "after", "settle", "grace", "exit", "term", "message"},
}

// ParseBehavior reads the annotation of a pod: YAML, a mapping with the fields
// of [Behavior] in small letters, or a list of such mappings. Durations are
// written as Go writes them (1.5s). A field that means nothing to what the pod is
// to do is a fault, as is an unknown one. The error joins all the faults found.
func ParseBehavior(text string) ([]Behavior, error) {
	var doc any
	if err := yaml.UnmarshalStrict([]byte(text), &doc); err != nil {
		return nil, fmt.Errorf("behavior: %w", err)
	}
	entries, list := doc.([]any)
	if !list {
		entries = []any{doc}
	}
	if len(entries) == 0 {
		return nil, errors.New("behavior: found an empty list, want at least one mapping")
	}
	var faults []error
	for i, e := range entries {
		where := "behavior"
		if list {
			where = fmt.Sprintf("behavior %d", i+1)
		}
		for _, f := range check(e) {
			faults = append(faults, fmt.Errorf("%s: %s", where, f))
		}
	}
	if faults != nil {
		return nil, errors.Join(faults...)
	}
	data, err := json.Marshal(entries)
	if err != nil {
		return nil, fmt.Errorf("behavior: %w", err)
	}
	var bs []Behavior
	if err := yaml.UnmarshalStrict(data, &bs); err != nil {
		return nil, fmt.Errorf("behavior: %w", err)
	}
	return bs, nil
}

// check returns the faults of one entry.
func check(entry any) []string {
	m, ok := entry.(map[string]any)
	if !ok {
		return []string{fmt.Sprintf("found %s, want a mapping such as {do: fail, after: 2s}", show(entry))}
	}
	var faults []string
	fault := func(field, format string, args ...any) {
		faults = append(faults, field+": "+fmt.Sprintf(format, args...))
	}
	do := doSucceed
	if v, ok := m["do"]; ok {
		do, _ = v.(string)
		if allowed[do] == nil {
			fault("do", "found %s, want one of %s", show(v), strings.Join(slices.Sorted(maps.Keys(allowed)), ", "))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		v := m[name]
		switch name {
		case "do":
			continue
		case "pending", "after", "settle", "grace":
			s, _ := v.(string)
			if d, err := time.ParseDuration(s); err != nil || d < 0 {
				fault(name, "found %s, want a duration such as 1.5s", show(v))
			}
		case "exit", "term":
			low := 0.0
			if name == "exit" && do == doFail {
				low = 1
			}
			if n, ok := v.(float64); !ok || n != math.Trunc(n) || n < low || n > 255 {
				fault(name, "found %s, want an exit code from %v to 255", show(v), low)
			}
		case "message":
			if _, ok := v.(string); !ok {
				fault(name, "found %s, want a string", show(v))
			}
		default:
			fault(name, "unknown field, want one of do, pending, after, settle, grace, exit, term, message")
			continue
		}
		if names := allowed[do]; names != nil && !slices.Contains(names, name) {
			want := "no other field"
			if len(names) > 0 {
				want = "only " + strings.Join(names, ", ")
			}
			fault(name, "means nothing to do: %s, want %s", do, want)
		}
	}
	return faults
}

// show returns v as YAML can write it in one line.
func show(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}

// behaviors returns what the pod is told to do, entry by entry.
func behaviors(pod *corev1.Pod) ([]Behavior, error) {
	bs := []Behavior{{}}
	if text, ok := pod.Annotations[BehaviorAnnotation]; ok {
		var err error
		if bs, err = ParseBehavior(text); err != nil {
			return nil, err
		}
	}
	for i := range bs {
		if bs[i].Do == "" {
			bs[i].Do = doSucceed
			if pod.Spec.RestartPolicy == corev1.RestartPolicyAlways {
				bs[i].Do = doRun
			}
		}
	}
	return bs, nil
}

// exit returns the exit code that the main container comes to by itself.
func (b *Behavior) exit() int32 {
	switch {
	case b.Exit != nil:
		return *b.Exit
	case b.Do == doFail, b.Do == doRestart:
		return 1
	case b.Do == doOOM:
		return killed
	}
	return 0
}

// term returns the exit code of a container that is asked to stop.
func (b *Behavior) term() int32 {
	if b.Term != nil {
		return *b.Term
	}
	return terminated
}

const (
	killed     = 137 // by SIGKILL
	terminated = 143 // by SIGTERM
)
