package fakekubelet

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// This file makes events.

// event notes an event about the pod, or about what is at the path in it.
func (l *life) event(pod *corev1.Pod, now time.Time, kind, reason, path, message string) {
	l.note(pod, now, kind, reason, message, corev1.ObjectReference{
		APIVersion:      "v1",
		Kind:            "Pod",
		Namespace:       pod.Namespace,
		Name:            pod.Name,
		UID:             pod.UID,
		ResourceVersion: pod.ResourceVersion,
		FieldPath:       path,
	})
}

func (l *life) note(pod *corev1.Pod, now time.Time, kind, reason, message string, about corev1.ObjectReference) {
	namespace := about.Namespace
	if namespace == "" {
		namespace = metav1.NamespaceDefault
	}
	at := metav1.Time{Time: now}
	l.named++
	l.events = append(l.events, &corev1.Event{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace,
			Name:      fmt.Sprintf("%s.%x", pod.Name, now.UnixNano()+int64(l.named)),
		},
		InvolvedObject:      about,
		Type:                kind,
		Reason:              reason,
		Message:             message,
		Source:              corev1.EventSource{Component: "kubelet", Host: pod.Spec.NodeName},
		ReportingController: "kubelet",
		ReportingInstance:   pod.Spec.NodeName,
		FirstTimestamp:      at,
		LastTimestamp:       at,
		Count:               1,
	})
}

// report creates the event. One that the server does not want, as when the
// namespace is being deleted, is not worth the pod's status.
func (k *Kubelet) report(ctx context.Context, e *corev1.Event) error {
	_, err := k.client.CoreV1().Events(e.Namespace).Create(ctx, e, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err): // by a try whose answer was lost
		return nil
	case apierrors.IsForbidden(err), apierrors.IsNotFound(err), apierrors.IsInvalid(err):
		k.log.Warn("event is lost", "reason", e.Reason, "object", e.InvolvedObject.Namespace+"/"+e.InvolvedObject.Name, "err", err)
		return nil
	}
	return err
}

// announce reports what precedes the run of each container that has just
// started.
func (l *life) announce(pod *corev1.Pod, now time.Time) {
	running(&l.status, func(s *corev1.ContainerStatus, path string) {
		if !s.State.Running.StartedAt.Time.Equal(now) {
			return
		}
		pulled := fmt.Sprintf("Container image %q already present on machine and can be accessed by the pod", s.Image)
		l.event(pod, now, corev1.EventTypeNormal, "Pulled", path, pulled)
		l.event(pod, now, corev1.EventTypeNormal, "Created", path, "Container created")
		l.event(pod, now, corev1.EventTypeNormal, "Started", path, "Container started")
	})
}

// reportOOM reports that the main container was killed for its memory. It is
// the node that an OOM event is about, as node-problem-detector writes it; the
// kubelet writes none for a container.
func (l *life) reportOOM(pod *corev1.Pod, now time.Time) {
	l.note(pod, now, corev1.EventTypeWarning, "OOMKilling",
		fmt.Sprintf("Memory cgroup out of memory: Killed process 1 (%s)", pod.Spec.Containers[0].Name),
		corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: pod.Spec.NodeName})
}

// failPull shows that the image of the main container was not found.
func (l *life) failPull(pod *corev1.Pod, now time.Time) {
	initialize(pod, &l.status, now)
	c, path := mainContainer(pod)
	l.event(pod, now, corev1.EventTypeWarning, "Failed", path, fmt.Sprintf("Failed to pull image %q: %s", c.Image, pullError(c.Image)))
	l.event(pod, now, corev1.EventTypeWarning, "Failed", path, "Error: ErrImagePull")
	l.await(pod, "ErrImagePull", pullError(c.Image))
}

// backOff shows that the kubelet waits before it tries to pull again.
func (l *life) backOff(pod *corev1.Pod, now time.Time) {
	c, path := mainContainer(pod)
	message := fmt.Sprintf("Back-off pulling image %q", c.Image)
	l.event(pod, now, corev1.EventTypeNormal, "BackOff", path, message)
	l.event(pod, now, corev1.EventTypeWarning, "Failed", path, "Error: ImagePullBackOff")
	l.await(pod, "ImagePullBackOff", message+": ErrImagePull: "+pullError(c.Image))
}

// await makes the main container wait.
func (l *life) await(pod *corev1.Pod, reason, message string) {
	s := mainOf(pod, &l.status)
	if s.State.Terminated != nil {
		s.LastTerminationState = s.State
	}
	s.State = waiting(reason, message)
}

func mainContainer(pod *corev1.Pod) (c *corev1.Container, path string) {
	c = &pod.Spec.Containers[0]
	return c, "spec.containers{" + c.Name + "}"
}

// pullError is what containerd answers for an image that does not exist.
func pullError(image string) string {
	return fmt.Sprintf("rpc error: code = NotFound desc = failed to pull and unpack image %q: failed to resolve reference %q: %s: not found", image, image, image)
}
