package fakekubelet

import (
	"cmp"
	"crypto/sha256"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// This file makes the statuses that a kubelet of Kubernetes 1.37 would write.

const (
	unknownReason  = "ContainerStatusUnknown"
	unknownMessage = "The container could not be located when the pod was terminated"
	usedToRun      = "The container could not be located when the pod was deleted.  The container used to be Running"
)

// sidecar reports whether an init container is one that runs beside the main
// container.
func sidecar(c *corev1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways
}

// lookup returns the status of the container, nil if there is none.
func lookup(list []corev1.ContainerStatus, name string) *corev1.ContainerStatus {
	for i := range list {
		if list[i].Name == name {
			return &list[i]
		}
	}
	return nil
}

// mainOf returns the status of the main container.
func mainOf(pod *corev1.Pod, st *corev1.PodStatus) *corev1.ContainerStatus {
	return lookup(st.ContainerStatuses, pod.Spec.Containers[0].Name)
}

// fill sets what a kubelet knows of a pod as soon as it sees it. Every container
// that has no status gets a waiting one. The order is the kubelet's: init
// containers as in the spec, the others by name.
func fill(pod *corev1.Pod, st *corev1.PodStatus, node *corev1.Node, now time.Time) {
	reason := "ContainerCreating"
	if len(pod.Spec.InitContainers) > 0 {
		reason = "PodInitializing"
	}
	statuses := func(old []corev1.ContainerStatus, containers []corev1.Container) []corev1.ContainerStatus {
		var list []corev1.ContainerStatus
		for _, c := range containers {
			if s := lookup(old, c.Name); s != nil {
				list = append(list, *s)
				continue
			}
			list = append(list, corev1.ContainerStatus{
				Name:    c.Name,
				Image:   c.Image,
				State:   waiting(reason, ""),
				Started: new(bool),
			})
		}
		return list
	}
	st.InitContainerStatuses = statuses(st.InitContainerStatuses, pod.Spec.InitContainers)
	st.ContainerStatuses = statuses(st.ContainerStatuses, pod.Spec.Containers)
	slices.SortFunc(st.ContainerStatuses, func(a, b corev1.ContainerStatus) int {
		return cmp.Compare(a.Name, b.Name)
	})
	if st.Phase == "" {
		st.Phase = corev1.PodPending
	}
	if st.StartTime == nil {
		st.StartTime = &metav1.Time{Time: now}
	}
	for _, a := range node.Status.Addresses {
		if a.Type == corev1.NodeInternalIP && st.HostIP == "" {
			st.HostIP = a.Address
			st.HostIPs = []corev1.HostIP{{IP: a.Address}}
		}
	}
}

func waiting(reason, message string) corev1.ContainerState {
	return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: message}}
}

// place gives the pod its address, as a sandbox does.
func place(pod *corev1.Pod, st *corev1.PodStatus) {
	if st.PodIP != "" {
		return
	}
	st.PodIP = st.HostIP
	if !pod.Spec.HostNetwork {
		h := fnv.New32a()
		h.Write([]byte(pod.UID))
		n := h.Sum32()
		st.PodIP = fmt.Sprintf("10.%d.%d.%d", 64+n>>16&63, n>>8&255, n&255)
	}
	if st.PodIP != "" {
		st.PodIPs = []corev1.PodIP{{IP: st.PodIP}}
	}
}

// begin starts what of the pod does not run: at the first start all of it, later
// the main container and those that the restart policy wants again.
func begin(pod *corev1.Pod, st *corev1.PodStatus, now time.Time) {
	initialize(pod, st, now)
	for i := range pod.Spec.Containers {
		c := &pod.Spec.Containers[i]
		s := lookup(st.ContainerStatuses, c.Name)
		if t := s.State.Terminated; s.State.Waiting != nil || t != nil && (i == 0 || again(pod, t.ExitCode)) {
			launch(pod, c, s, now)
		}
	}
	st.Phase = corev1.PodRunning
}

// initialize runs the init containers that have not run and starts the sidecars.
func initialize(pod *corev1.Pod, st *corev1.PodStatus, now time.Time) {
	for i := range pod.Spec.InitContainers {
		c, s := &pod.Spec.InitContainers[i], &st.InitContainerStatuses[i]
		if s.State.Waiting == nil {
			continue
		}
		launch(pod, c, s, now)
		if !sidecar(c) {
			end(s, 0, reasonFor(0), now)
			s.Ready = true
		}
	}
}

// launch makes the container run.
func launch(pod *corev1.Pod, c *corev1.Container, s *corev1.ContainerStatus, now time.Time) {
	if s.State.Terminated != nil {
		s.LastTerminationState = s.State
	}
	if s.LastTerminationState.Terminated != nil {
		s.RestartCount++
	}
	s.State = corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: metav1.Time{Time: now}}}
	s.Ready, s.Started = true, new(true)
	identify(pod, c, s)
}

// identify gives a container that starts the IDs that a runtime would.
func identify(pod *corev1.Pod, c *corev1.Container, s *corev1.ContainerStatus) {
	repo, _, pinned := strings.Cut(c.Image, "@")
	s.ImageID = c.Image
	if !pinned {
		if colon := strings.LastIndexByte(repo, ':'); colon > strings.LastIndexByte(repo, '/') {
			repo = repo[:colon]
		}
		s.ImageID = fmt.Sprintf("%s@sha256:%x", repo, sha256.Sum256([]byte(c.Image)))
	}
	id := fmt.Sprint(pod.UID, "/", c.Name, "/", s.RestartCount)
	s.ContainerID = fmt.Sprintf("containerd://%x", sha256.Sum256([]byte(id)))
}

// again reports whether the restart policy starts a container again that ended
// with the exit code.
func again(pod *corev1.Pod, code int32) bool {
	switch pod.Spec.RestartPolicy {
	case corev1.RestartPolicyAlways:
		return true
	case corev1.RestartPolicyOnFailure:
		return code != 0
	}
	return false
}

// end ends a container that runs.
func end(s *corev1.ContainerStatus, code int32, reason string, now time.Time) {
	s.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode:    code,
		Reason:      reason,
		StartedAt:   s.State.Running.StartedAt,
		FinishedAt:  metav1.Time{Time: now},
		ContainerID: s.ContainerID,
	}}
	s.Ready, s.Started = false, new(bool)
}

// reasonFor returns the runtime's word for an exit code.
func reasonFor(code int32) string {
	if code == 0 {
		return "Completed"
	}
	return "Error"
}

// unknown ends a container that nothing is known of any more.
func unknown(s *corev1.ContainerStatus) {
	s.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{
		ExitCode: killed,
		Reason:   unknownReason,
		Message:  unknownMessage,
	}}
	s.Ready, s.Started = false, new(bool)
}

// lose ends a container that ran and whose record is lost.
func lose(s *corev1.ContainerStatus) {
	unknown(s)
	s.LastTerminationState = *s.State.DeepCopy()
	s.LastTerminationState.Terminated.Message = usedToRun
	s.RestartCount++
	s.ContainerID, s.ImageID = "", ""
}

// running calls f with the status of each container that runs, and with its
// place in the spec.
func running(st *corev1.PodStatus, f func(s *corev1.ContainerStatus, path string)) {
	for i := range st.ContainerStatuses {
		if s := &st.ContainerStatuses[i]; s.State.Running != nil {
			f(s, "spec.containers{"+s.Name+"}")
		}
	}
	for i := range st.InitContainerStatuses {
		if s := &st.InitContainerStatuses[i]; s.State.Running != nil {
			f(s, "spec.initContainers{"+s.Name+"}")
		}
	}
}

// finish sets the last phase. Of a container that never started nothing is
// known, so it counts as failed, unless the init containers never let it start:
// then the first of those does.
func finish(pod *corev1.Pod, st *corev1.PodStatus) {
	statuses := st.ContainerStatuses
	if n := len(st.InitContainerStatuses); n > 0 && st.InitContainerStatuses[n-1].State.Waiting != nil {
		statuses = st.InitContainerStatuses[:1]
	}
	for i := range statuses {
		if statuses[i].State.Terminated == nil {
			unknown(&statuses[i])
		}
	}
	st.Phase = corev1.PodSucceeded
	for _, s := range st.ContainerStatuses {
		if t := s.State.Terminated; t == nil || t.ExitCode != 0 {
			st.Phase = corev1.PodFailed
		}
	}
}

// clip returns what a kubelet keeps of a termination message: the last 4096
// bytes, and of these the container's share of 12 KiB.
func clip(message string, containers int) string {
	message = message[max(0, len(message)-4096):]
	return message[:min(len(message), 12<<10/containers)]
}

// observe sets the conditions that belong to a kubelet.
func observe(pod *corev1.Pod, st *corev1.PodStatus, now time.Time) {
	st.ObservedGeneration = pod.Generation
	set := func(kind corev1.PodConditionType, is bool, reason, message string) {
		c := corev1.PodCondition{
			Type:               kind,
			ObservedGeneration: pod.Generation,
			Status:             corev1.ConditionFalse,
			LastTransitionTime: metav1.Time{Time: now},
			Reason:             reason,
			Message:            message,
		}
		if is {
			c.Status = corev1.ConditionTrue
		}
		for _, old := range st.Conditions {
			if old.Type == kind && old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
		}
		setCondition(st, c)
	}

	done := ""
	switch st.Phase {
	case corev1.PodSucceeded:
		done = "PodCompleted"
	case corev1.PodFailed:
		done = "PodFailed"
	}

	switch {
	case st.PodIP == "":
		set(corev1.PodReadyToStartContainers, false, "PodSandboxNotReady", "no pod sandbox exists")
	case done != "":
		set(corev1.PodReadyToStartContainers, false, "PodSandboxNotReady", "pod sandbox is not ready")
	default:
		set(corev1.PodReadyToStartContainers, true, "", "")
	}

	var unready, incomplete []string
	started := false
	for i, c := range pod.Spec.InitContainers {
		s := st.InitContainerStatuses[i]
		ready := s.Ready
		if sidecar(&c) {
			if !ready {
				unready = append(unready, c.Name)
			}
			ready = s.State.Running != nil
		}
		if !ready {
			incomplete = append(incomplete, c.Name)
		}
	}
	for _, c := range pod.Spec.Containers {
		s := lookup(st.ContainerStatuses, c.Name)
		if !s.Ready {
			unready = append(unready, c.Name)
		}
		started = started || s.State.Waiting == nil
	}
	switch {
	case done == "PodCompleted":
		set(corev1.PodInitialized, true, done, "")
	case started || incomplete == nil:
		set(corev1.PodInitialized, true, "", "")
	default:
		set(corev1.PodInitialized, false, "ContainersNotInitialized", fmt.Sprintf("containers with incomplete status: %s", incomplete))
	}

	reason, message := "", ""
	switch {
	case done != "":
		reason = done
	case unready != nil:
		reason, message = "ContainersNotReady", fmt.Sprintf("containers with unready status: %s", unready)
	}
	set(corev1.PodReady, reason == "", reason, message)
	set(corev1.ContainersReady, reason == "", reason, message)
}

// disrupt says that the node ended the pod.
func disrupt(pod *corev1.Pod, st *corev1.PodStatus, message string, now time.Time) {
	setCondition(st, corev1.PodCondition{
		Type:               corev1.DisruptionTarget,
		ObservedGeneration: pod.Generation,
		Status:             corev1.ConditionTrue,
		LastTransitionTime: metav1.Time{Time: now},
		Reason:             corev1.PodReasonTerminationByKubelet,
		Message:            message,
	})
}

// setCondition sets the condition of that type.
func setCondition(st *corev1.PodStatus, c corev1.PodCondition) {
	for i := range st.Conditions {
		if st.Conditions[i].Type == c.Type {
			st.Conditions[i] = c
			return
		}
	}
	st.Conditions = append(st.Conditions, c)
}

// owned reports whether a kubelet writes the condition.
func owned(kind corev1.PodConditionType) bool {
	switch kind {
	case corev1.PodReadyToStartContainers, corev1.PodInitialized, corev1.PodReady, corev1.ContainersReady, corev1.DisruptionTarget:
		return true
	}
	return false
}
