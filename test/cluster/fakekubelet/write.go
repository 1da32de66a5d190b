package fakekubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// This file writes to the server what happens to pods.

// flush writes what the server does not know of the pod: first the events,
// which mean nothing any more when the pod is gone.
func (k *Kubelet) flush(ctx context.Context, l *life, pod *corev1.Pod, now time.Time) error {
	for len(l.events) > 0 {
		if err := k.report(ctx, l.events[0]); err != nil {
			return fmt.Errorf("create event: %w", err)
		}
		l.events = l.events[1:]
	}
	if l.dirty {
		observe(pod, &l.status, now)
		if err := k.write(ctx, pod, &l.status); err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("write status: %w", err)
		}
		l.dirty = false
	}
	if pod.DeletionTimestamp != nil && l.stage == ended && !l.deleted {
		err := k.client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{
			GracePeriodSeconds: new(int64),
			Preconditions:      metav1.NewUIDPreconditions(string(pod.UID)),
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete: %w", err)
		}
		l.deleted = true
	}
	return nil
}

// write writes the kubelet's part of the status of the pod, if it is still the
// pod with that UID. It does so by a patch, as kubelets do: a PUT is no faster,
// and would undo or be refused for what other clients do to labels and
// finalizers meanwhile. Unlike a kubelet's, the patch holds all of that part, not
// only what changed, so it needs not know what the server has.
func (k *Kubelet) write(ctx context.Context, pod *corev1.Pod, st *corev1.PodStatus) error {
	// The conditions are merged by type, so null is to remove what an earlier
	// one said.
	type condition struct {
		corev1.PodCondition
		Reason  *string `json:"reason"`
		Message *string `json:"message"`
	}
	type status struct {
		*corev1.PodStatus
		Conditions []condition `json:"conditions"`
	}
	var p struct {
		Metadata struct {
			UID types.UID `json:"uid"` // the server refuses to change it
		} `json:"metadata"`
		Status status `json:"status"`
	}
	p.Metadata.UID = pod.UID
	p.Status.PodStatus = &corev1.PodStatus{
		ObservedGeneration:    st.ObservedGeneration,
		Phase:                 st.Phase,
		Message:               st.Message,
		Reason:                st.Reason,
		HostIP:                st.HostIP,
		HostIPs:               st.HostIPs,
		PodIP:                 st.PodIP,
		PodIPs:                st.PodIPs,
		StartTime:             st.StartTime,
		InitContainerStatuses: st.InitContainerStatuses,
		ContainerStatuses:     st.ContainerStatuses,
	}
	for _, c := range st.Conditions {
		if !owned(c.Type) {
			continue
		}
		n := condition{PodCondition: c}
		if c.Reason != "" {
			n.Reason = &c.Reason
		}
		if c.Message != "" {
			n.Message = &c.Message
		}
		p.Status.Conditions = append(p.Status.Conditions, n)
	}
	data, err := json.Marshal(p)
	if err != nil {
		return err
	}
	_, err = k.client.CoreV1().Pods(pod.Namespace).Patch(ctx, pod.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{}, "status")
	return err
}
