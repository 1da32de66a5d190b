package cluster

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// This file holds the faults that go by the API server.

// DeletePod deletes a pod. If force is set it vanishes from the API server at
// once, while its containers may still run.
func DeletePod(ctx context.Context, client kubernetes.Interface, namespace, name string, force bool) error {
	var opts metav1.DeleteOptions
	if force {
		opts.GracePeriodSeconds = new(int64)
	}
	return client.CoreV1().Pods(namespace).Delete(ctx, name, opts)
}

// DeleteNode deletes a node, as a cloud does that took its machine away.
func DeleteNode(ctx context.Context, client kubernetes.Interface, name string) error {
	return client.CoreV1().Nodes().Delete(ctx, name, metav1.DeleteOptions{})
}

// Evict evicts a pod, as draining its node does.
func Evict(ctx context.Context, client kubernetes.Interface, namespace, name string) error {
	return client.CoreV1().Pods(namespace).EvictV1(ctx, &policyv1.Eviction{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
	})
}

// QuotaName is the name of the quota that FillQuota makes.
const QuotaName = "filled"

// FillQuota lets a namespace have no more pods than it has, finished ones
// counted too, plus free. Deleting the quota QuotaName ends it.
func FillQuota(ctx context.Context, client kubernetes.Interface, namespace string, free int) error {
	pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	hard := resource.MustParse(fmt.Sprint(len(pods.Items) + free))
	quotas := client.CoreV1().ResourceQuotas(namespace)
	_, err = quotas.Create(ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: QuotaName},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{"count/pods": hard}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	// the quota holds once the controller has counted
	w, err := quotas.Watch(ctx, metav1.SingleObject(metav1.ObjectMeta{Name: QuotaName}))
	if err != nil {
		return err
	}
	defer w.Stop()
	for event := range w.ResultChan() {
		if q, ok := event.Object.(*corev1.ResourceQuota); ok && len(q.Status.Hard) > 0 {
			return nil
		}
	}
	return fmt.Errorf("the quota %s of namespace %s was not counted when its watch ended", QuotaName, namespace)
}
