package k8s

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/launch"
)

// This file reads what a pod tells of its attempt. It is a function of the pod
// alone: a driver that takes over sees what the one before saw.

// A sight is what a pod tells.
type sight struct {
	engine.Observation
	at time.Time // when the pod was looked at

	// Ended says that the step's container ended, or never will begin. It is
	// true before the pod's own phase says so, which takes a second longer.
	// Decided says that the cause is known for good, and settled that nothing
	// of the pod runs any more.
	ended, decided, settled bool

	alone      bool            // its node ends the pod when the step's own container has ended
	deleting   bool            // the pod is being deleted
	stranger   bool            // and not by kfs
	early      *ending         // why kfs has deleted the pod, of which the container's own record says that it had ended before
	disruption string          // why the cluster ended the pod; "" if it did not
	restarts   bool            // somebody has made the pod so that its node may start the step's container again
	ran        bool            // the step's own container has ended, by its node's record
	swept      bool            // its sandbox is gone, as it is at once if the node has ended it, and later if it ends by itself
	unlocated  bool            // it has not been seen to begin, and its node does not know: its events may
	launched   bool            // the launcher ran it: its message is a frame
	extended   bool            // it holds extended resources
	frame      string          // the message
	declared   []launch.Output // what the launcher was asked for
	waits      waitKind        // why it is pending
}

// mayHang reports whether the pod may never end, if nobody ends it.
func (s *sight) mayHang() bool {
	return !s.settled && !s.deleting && !(s.ended && s.alone && !s.restarts)
}

// A waitKind says which limit a pending pod has.
type waitKind int

const (
	waitsOther waitKind = iota
	waitsScheduler
	waitsMount // by the pod's events
	waitsPull
	waitsConfig
	waitsImage
)

// An ending is why kfs ended a pod: it stands in an annotation of the pod
// before it is deleted.
type ending struct {
	Cause  engine.Cause `json:"cause"`
	Reason string       `json:"reason"`
	At     time.Time    `json:"at,omitzero"` // when it was decided, by the clock of the driver
}

// asked reports whether the engine has asked for it; if not, the executor has
// given the pod up, because it did not start.
func (e *ending) asked() bool { return e.Cause == engine.Stopped || e.Cause == engine.TimedOut }

// endingOf returns why kfs is ending a pod, or nil if it is not.
func endingOf(pod *corev1.Pod) *ending {
	e := &ending{}
	if json.Unmarshal([]byte(pod.Annotations[endAnnotation]), e) != nil || e.Cause == "" {
		return nil
	}
	return e
}

// statusUnknown is the reason that a kubelet gives for the end of a container
// that its runtime does not know: one whose record is lost, or that was never
// there.
const statusUnknown = "ContainerStatusUnknown"

// look reads a pod. Local turns a time of the cluster into one of this
// machine's clock, which says now.
func look(pod *corev1.Pod, local func(time.Time) time.Time, now time.Time) sight {
	s := sight{
		at:         now,
		settled:    pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed,
		deleting:   pod.DeletionTimestamp != nil,
		disruption: disrupted(pod),
		extended:   podExtended(pod),
		restarts:   restarts(pod),
		alone:      len(pod.Spec.Containers) == 1,
	}
	s.ID = attemptID(pod)
	s.launched = slices.ContainsFunc(pod.Spec.InitContainers, func(c corev1.Container) bool { return c.Name == ioContainer })
	if s.launched {
		if spec := launchSpec(pod); spec != nil {
			s.declared = spec.Outputs
		}
	}
	s.stranger = s.deleting && endingOf(pod) == nil
	s.swept = slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReadyToStartContainers && c.Status == corev1.ConditionFalse
	})
	clock := clockOf(pod, local, now)

	main := mainStatus(pod)
	t := main.State.Terminated
	if t != nil && t.Reason == statusUnknown && neverSeen(main) {
		s.unlocated, t = true, nil
	}
	switch {
	case t != nil:
		s.ended, s.ran, s.Phase = true, true, engine.PhaseFinished
		s.Started, s.Finished = clock(t.StartedAt.Time), clock(t.FinishedAt.Time)
		if s.Finished.IsZero() {
			s.Finished = now
		}
		s.ExitCode, s.frame = int(t.ExitCode), t.Message
		s.terminated(pod, main, t)
	case s.settled || s.deleting && pod.Spec.NodeName == "":
		s.ended, s.decided, s.settled, s.Phase = true, true, true, engine.PhaseFinished
		if r := main.State.Running; r != nil {
			s.Started = clock(r.StartedAt.Time)
		}
		s.Finished = now
		s.without(pod, main)
	case main.State.Running != nil:
		s.Phase, s.Started = engine.PhaseRunning, clock(main.State.Running.StartedAt.Time)
		switch {
		case s.stranger:
			s.Reason = "is asked to end: " + firstText(s.disruption, "its pod is being deleted by somebody")
		case s.deleting:
			s.Reason = "is asked to end"
		}
	default:
		s.Phase = engine.PhasePending
		s.waits, s.Reason, s.Message = pending(pod)
	}
	if s.ended && s.deleting {
		s.endedByKfs(pod)
	}
	return s
}

// clockOf returns what turns times of a pod's node into ones of this machine's
// clock: not before the pod was made, and not after now. A node whose own clock
// is wrong is known by the time at which it took the pod, which was when the
// scheduler gave it the pod.
func clockOf(pod *corev1.Pod, local func(time.Time) time.Time, now time.Time) func(time.Time) time.Time {
	const equal = 3 * time.Second // times have whole seconds, and a node is not told at once
	created := local(pod.CreationTimestamp.Time)
	bound := created
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionTrue {
			if at := local(c.LastTransitionTime.Time); at.After(bound) && !at.After(now) {
				bound = at
			}
		}
	}
	var ahead time.Duration
	if taken := pod.Status.StartTime; taken != nil {
		ahead = local(taken.Time).Sub(bound)
		future := false // a node that was late with the pod is not ahead
		for _, t := range times(mainStatus(pod)) {
			future = future || local(t).After(now.Add(equal))
		}
		if ahead.Abs() <= equal || ahead > 0 && !future {
			ahead = 0
		}
	}
	return func(t time.Time) time.Time {
		if t.IsZero() || t.Unix() == 0 {
			return time.Time{}
		}
		switch t = local(t).Add(-ahead); {
		case t.Before(created):
			return created
		case t.After(now):
			return now
		}
		return t
	}
}

// times returns when a container began and ended.
func times(c corev1.ContainerStatus) []time.Time {
	switch r, t := c.State.Running, c.State.Terminated; {
	case r != nil:
		return []time.Time{r.StartedAt.Time}
	case t != nil:
		return []time.Time{t.StartedAt.Time, t.FinishedAt.Time}
	}
	return nil
}

// neverSeen reports whether the node has never told that a container ran.
func neverSeen(c corev1.ContainerStatus) bool {
	return c.LastTerminationState.Terminated == nil && c.RestartCount == 0 && c.ContainerID == ""
}

// terminated decides on a step whose container has ended. Whether it was ended
// by the deletion of its pod is not said here, as the pod does not tell: see
// Run.judge.
func (s *sight) terminated(pod *corev1.Pod, main corev1.ContainerStatus, t *corev1.ContainerStateTerminated) {
	s.Cause = engine.Exited
	s.decided = s.settled || t.ExitCode == 0 && !s.restarts // the phase of a pod says more of a failure
	if !s.launched {
		s.Message = strings.TrimRight(t.Message, "\n")
	}
	switch {
	case t.Reason == statusUnknown:
		s.Cause, s.Reason, s.decided = engine.Vanished, "its node has lost the record of how it ended", true
		if s.endedByNode(pod) { // which throws the container away, with all that it holds
			s.Cause, s.Reason = engine.Lost, s.disruption
		}
		s.Started = time.Time{}
		return
	case t.Reason == "StartError" || t.Reason == "ContainerCannotRun":
		s.Cause, s.Reason, s.Started, s.Message = engine.CannotRun, "cannot run: "+startError(t.Message), time.Time{}, t.Message
		return
	case pod.Status.Reason == "DeadlineExceeded":
		s.Cause, s.Reason = engine.TimedOut, "its pod was ended at its deadline"
		return
	case s.settled && s.disruption != "" && !byRequest(pod) && (t.ExitCode != 0 || pod.Status.Phase == corev1.PodFailed):
		s.Cause, s.Reason = engine.Lost, s.disruption
		return
	case pod.Status.Phase == corev1.PodFailed && pod.Status.Reason != "" && t.ExitCode != 0:
		s.Cause, s.Reason = engine.Lost, podReason(pod)
		return
	case t.Reason == "OOMKilled" && t.ExitCode == 0:
		s.Reason = "exited with 0, but something in it ran out of memory: " + memoryLimit(pod)
	case t.Reason == "OOMKilled":
		s.Reason = fmt.Sprintf("out of memory, exited with %d: %s", t.ExitCode, memoryLimit(pod))
	case t.ExitCode != 0:
		s.Reason = exitReason(int(t.ExitCode))
	}
	// A kubelet that has lost a container starts it again, whatever the pod's
	// restart policy says.
	if n := max(main.RestartCount, 1); main.RestartCount > 0 || main.LastTerminationState.Terminated != nil {
		s.Reason = fmt.Sprintf("%s, but its container was started %d times in its pod", firstText(s.Reason, "exited with 0"), n+1)
	}
}

// without decides on a pod that is over, or never will begin, without an end
// of the step's own container.
func (s *sight) without(pod *corev1.Pod, main corev1.ContainerStatus) {
	why := s.disruption
	if why == "" && s.stranger {
		why = "its pod was deleted by somebody"
	}
	given := firstText(why, podReason(pod), "its pod failed")
	switch failed := failedInit(pod); {
	case (main.State.Running != nil || main.LastTerminationState.Terminated != nil) && s.endedByNode(pod):
		s.Cause, s.Reason = engine.Lost, s.disruption
	case main.State.Running != nil || main.LastTerminationState.Terminated != nil:
		s.Cause, s.Reason = engine.Vanished, firstText(why, podReason(pod), "its pod was given up")+", while it ran"
	case pod.Status.Reason == "DeadlineExceeded":
		s.Cause, s.Reason = engine.CannotRun, "did not start before its deadline"
	case failed != nil && why == "":
		s.Cause, s.ExitCode = engine.Exited, int(failed.State.Terminated.ExitCode)
		s.Reason = fmt.Sprintf("init container %q %s", failed.Name, exitReason(s.ExitCode))
		s.Message = strings.TrimRight(failed.State.Terminated.Message, "\n")
	case begun(pod):
		s.Cause, s.Reason = engine.Lost, given+", before its command was started"
	default:
		s.Cause, s.Reason = engine.NotStarted, given+", before it was started"
	}
	s.Message = firstText(s.Message, pod.Status.Message)
}

// endedByKfs takes in why kfs itself ended the pod.
func (s *sight) endedByKfs(pod *corev1.Pod) {
	e := endingOf(pod)
	if e == nil {
		return
	}
	s.decided, s.unlocated = true, false
	if s.ran && s.Cause == engine.Exited && e.asked() && s.Finished.Add(time.Second).Before(e.At) {
		s.early = e // a node that had no connection tells late of an end
		return
	}
	s.endBy(e)
}

// endBy takes in that kfs has ended what ran in the pod.
func (s *sight) endBy(e *ending) {
	if s.Finished.Before(e.At) {
		s.Finished = e.At // whatever the clock of its node says
	}
	if !e.asked() && !s.Started.IsZero() {
		s.Cause, s.Reason = engine.Lost, "began when it was given up: "+e.Reason
		return
	}
	s.Cause, s.Reason = e.Cause, e.Reason
	if e.Cause == engine.Stopped && s.ExitCode != 0 {
		s.Reason += ": " + exitReason(s.ExitCode)
	}
}

// attemptID returns the ID of the attempt that a pod is of: a Job's pod has a
// name of its own.
func attemptID(pod *corev1.Pod) string { return pod.Labels[attemptLabel] }

func mainStatus(pod *corev1.Pod) corev1.ContainerStatus {
	for _, c := range pod.Status.ContainerStatuses {
		if c.Name == mainContainer {
			return c
		}
	}
	return corev1.ContainerStatus{}
}

// restarts reports whether a node may start the step's container again after
// it has ended. kfs never asks for that; a policy of the cluster may.
func restarts(pod *corev1.Pod) bool {
	if pod.Spec.RestartPolicy == corev1.RestartPolicyAlways || pod.Spec.RestartPolicy == corev1.RestartPolicyOnFailure {
		return true
	}
	return slices.ContainsFunc(pod.Spec.Containers, func(c corev1.Container) bool {
		return c.Name == mainContainer && (len(c.RestartPolicyRules) > 0 || c.RestartPolicy != nil && *c.RestartPolicy != corev1.ContainerRestartPolicyNever)
	})
}

// begun reports whether a container that may do something has been started:
// any but kfs's own.
func begun(pod *corev1.Pod) bool {
	return slices.ContainsFunc(slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses), func(c corev1.ContainerStatus) bool {
		t := c.State.Terminated
		return c.Name != ioContainer && (c.State.Running != nil || t != nil && (t.Reason != statusUnknown || !neverSeen(c)) || c.LastTerminationState.Terminated != nil || c.RestartCount > 0)
	})
}

// failedInit returns the init container that keeps the step's own from being
// started, or nil.
func failedInit(pod *corev1.Pod) *corev1.ContainerStatus {
	for i, c := range pod.Status.InitContainerStatuses {
		restarts := slices.ContainsFunc(pod.Spec.InitContainers, func(s corev1.Container) bool { return s.Name == c.Name && s.RestartPolicy != nil })
		if t := c.State.Terminated; !restarts && t != nil && t.ExitCode != 0 && (t.Reason != statusUnknown || !neverSeen(c)) {
			return &pod.Status.InitContainerStatuses[i]
		}
	}
	return nil
}

// disrupted says why the cluster ended a pod, or "" if it has not.
func disrupted(pod *corev1.Pod) string {
	for _, c := range pod.Status.Conditions {
		if c.Type != corev1.DisruptionTarget || c.Status != corev1.ConditionTrue {
			continue
		}
		if c.Reason == corev1.PodReasonTerminationByKubelet && pod.Status.Reason != "" {
			return podReason(pod) // Evicted, and for what
		}
		if what, ok := disruptions[c.Reason]; ok {
			return what
		}
		return "was disrupted: " + c.Reason
	}
	switch pod.Status.Reason {
	case "Evicted", "NodeShutdown", "Terminated", "Preempting", "NodeLost", "NodeAffinity", "UnexpectedAdmissionError", "OutOfcpu", "OutOfmemory", "OutOfpods":
		return podReason(pod)
	}
	return ""
}

// podReason returns what the status of a pod says of its end, or "".
func podReason(pod *corev1.Pod) string {
	if pod.Status.Reason == "" || pod.Status.Message == "" {
		return lowerFirst(pod.Status.Reason)
	}
	return lowerFirst(pod.Status.Reason) + ": " + shortText(strings.TrimSuffix(strings.TrimSpace(pod.Status.Message), "."), 300)
}

// endedByNode reports whether the node has ended the pod, and says so.
func (s *sight) endedByNode(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodFailed && s.disruption != "" && pod.Status.Reason != "" && pod.Status.Reason != "DeadlineExceeded"
}

// byRequest reports whether a pod was disrupted by its deletion: then it may
// have ended by itself before. A node and the garbage collector disrupt only
// what has not.
func byRequest(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp != nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue &&
			c.Reason != corev1.PodReasonTerminationByKubelet && c.Reason != "DeletionByPodGC"
	})
}

// disruptions are the reasons of the condition DisruptionTarget: KEP-3329.
var disruptions = map[string]string{
	"PreemptionByScheduler":              "preempted by a pod of higher priority",
	"DeletionByTaintManager":             "its node was tainted (drained, or not reachable)",
	"EvictionByEvictionAPI":              "evicted",
	corev1.PodReasonTerminationByKubelet: "ended by its node (pressure on its resources, shutdown)",
	"DeletionByPodGC":                    "its node is gone",
}

// exitReason says how a container ended.
func exitReason(code int) string {
	switch code {
	case 126:
		return "exited with 126 (a command is not executable)"
	case 127:
		return "exited with 127 (a command was not found)"
	case 137:
		return "exited with 137 (killed)"
	case 143:
		return "exited with 143 (terminated)"
	}
	return fmt.Sprintf("exited with %d", code)
}

// startError cuts what a container runtime says down to what matters: the
// program, and what is wrong with it.
func startError(message string) string {
	for _, mark := range []string{"unable to start container process: ", "error during container init: "} {
		if i := strings.LastIndex(message, mark); i >= 0 {
			message = message[i+len(mark):]
		}
	}
	message = strings.TrimSuffix(strings.TrimSpace(message), ": unknown")
	line, _, _ := strings.Cut(message, "\n")
	return line
}

func memoryLimit(pod *corev1.Pod) string {
	for _, c := range pod.Spec.Containers {
		if limit, ok := c.Resources.Limits[corev1.ResourceMemory]; ok && c.Name == mainContainer {
			return "its limit is " + limit.String()
		}
	}
	return "it has no limit of its own, so its node ran out of memory"
}

func podExtended(pod *corev1.Pod) bool {
	for _, c := range pod.Spec.Containers {
		for name := range c.Resources.Limits {
			if strings.Contains(string(name), "/") {
				return true
			}
		}
	}
	return false
}

func lowerFirst(text string) string {
	if text == "" {
		return ""
	}
	return strings.ToLower(text[:1]) + text[1:]
}
