package k8s

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/kfs-project/kfs/engine"
)

// This file explains why a pod does not start, and when that has become its
// end.

// pending says why a pod has not started: in a few words, and more.
func pending(pod *corev1.Pod) (kind waitKind, reason, message string) {
	for _, c := range slices.Concat(pod.Status.InitContainerStatuses, pod.Status.ContainerStatuses) {
		w := c.State.Waiting
		if w == nil {
			continue
		}
		switch of := containerName(c.Name); w.Reason {
		case "InvalidImageName", "ErrImageNeverPull":
			return waitsImage, fmt.Sprintf("%sthe image cannot be pulled: %s", of, w.Reason), w.Message
		case "ErrImagePull", "ImagePullBackOff", "RegistryUnavailable", "ImageInspectError", "SignatureValidationFailed":
			kind := waitsPull
			if hopeless(w.Message) {
				kind = waitsImage
			}
			return kind, fmt.Sprintf("%sthe image cannot be pulled", of), w.Message
		case "CreateContainerConfigError":
			kind := waitsConfig
			if strings.Contains(w.Message, "deadline exceeded") || strings.Contains(w.Message, "timed out") {
				kind = waitsPull // the node's own trouble
			}
			return kind, of + w.Message, ""
		case "CreateContainerError", "RunContainerError", "CrashLoopBackOff", "PostStartHookError":
			return waitsPull, of + "cannot be started: " + w.Reason, w.Message
		}
	}
	for _, c := range pod.Status.Conditions {
		if c.Type == corev1.PodScheduled && c.Status == corev1.ConditionFalse {
			switch c.Reason {
			case corev1.PodReasonUnschedulable:
				return waitsScheduler, "no node for it: " + c.Message, ""
			case corev1.PodReasonSchedulingGated:
				return waitsOther, "held back by its scheduling gates", c.Message
			}
		}
	}
	return waitsOther, "", ""
}

// containerName names a container that is not the step's own.
func containerName(name string) string {
	if name == mainContainer {
		return ""
	}
	return fmt.Sprintf("container %q: ", name)
}

// hopeless reports whether a registry has said that an image cannot be had,
// rather than that it could not be had now.
func hopeless(message string) bool {
	message = strings.ToLower(message)
	for _, sign := range []string{"not found", "manifest unknown", "name unknown", "unauthorized", "authorization failed", "denied", "no basic auth", "invalid reference format", "no match for platform"} {
		if strings.Contains(message, sign) {
			return true
		}
	}
	return false
}

// explained are events of a pod that say why it does not start, where its
// status does not; of a Job, why it has no pod.
var explained = map[string]waitKind{
	"FailedMount": waitsMount, "FailedAttachVolume": waitsMount, "FailedMapVolume": waitsMount,
	"FailedCreatePodSandBox": waitsMount, "FailedPostStartHook": waitsPull, "FailedScheduling": waitsScheduler,
	"NotTriggerScaleUp": waitsScheduler, "TriggeredScaleUp": waitsScheduler,
	"Pulling": waitsOther, "FailedCreate": waitsOther,
}

// progress are events after which what was explained before is over.
var progress = []string{"Scheduled", "SuccessfulAttachVolume", "Pulled", "Created", "Started", "SuccessfulCreate"}

// byEvents says why a pod has not started by the latest of its events.
func byEvents(events []corev1.Event) (kind waitKind, reason string) {
	slices.SortStableFunc(events, func(a, b corev1.Event) int { return cmp.Compare(eventTime(&a).UnixNano(), eventTime(&b).UnixNano()) })
	for _, e := range slices.Backward(events) {
		if kind, ok := explained[e.Reason]; ok {
			text, _, _ := strings.Cut(strings.TrimSpace(e.Message), "\n")
			return kind, e.Reason + ": " + text
		}
		if slices.Contains(progress, e.Reason) {
			break
		}
	}
	return waitsOther, ""
}

func eventTime(e *corev1.Event) time.Time {
	for _, t := range []time.Time{e.LastTimestamp.Time, e.EventTime.Time, e.CreationTimestamp.Time} {
		if !t.IsZero() {
			return t
		}
	}
	return time.Time{}
}

// limit returns how long a pod may wait for a reason; 0 is until the limit of
// all that is pending.
func (l Limits) limit(kind waitKind) time.Duration {
	switch kind {
	case waitsImage:
		return l.BadImage
	case waitsPull:
		return l.PullBackoff
	case waitsConfig:
		return l.BadConfig
	case waitsMount:
		return l.Mount
	}
	return 0
}

// pendingLimit returns how long an attempt may wait to be started.
func (m *podMaker) pendingLimit(a *engine.Attempt) time.Duration {
	switch {
	case a.PendingTimeout > 0:
		return a.PendingTimeout
	case extended(a):
		return m.opts.Limits.PendingGPU
	}
	return m.opts.Limits.Pending
}
