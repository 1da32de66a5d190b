package fakekubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// This file makes nodes and keeps them alive.

// A NodeTemplate is what the nodes of one CreateNodes have in common.
type NodeTemplate struct {
	Prefix string // a node is named Prefix-N; "" is fake

	// Allocatable is what the pods of a node can have, as in nvidia.com/gpu: 8.
	// It has by itself 64 cpu, 256Gi of memory, 1Ti of ephemeral-storage and
	// 1000 pods. The capacity is the same.
	Allocatable corev1.ResourceList

	Labels map[string]string // besides the node label and those of a kubelet

	// Taints keep off the pods that do not tolerate them. Nil is
	// fake.kfs.dev/node=true:NoSchedule, for pods that want a real node; an
	// empty list is no taint.
	Taints []corev1.Taint
}

// atOnce is how many nodes are created at the same time.
const atOnce = 16

// CreateNodes creates n nodes with the numbers from, from+1 and so on. A node
// that there is already stays as it is. After the first error it creates no
// more.
func CreateNodes(ctx context.Context, client kubernetes.Interface, t NodeTemplate, from, n int) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	numbers := make(chan int)
	var wg sync.WaitGroup
	for range min(n, atOnce) {
		wg.Go(func() {
			for i := range numbers {
				node := t.node(i)
				_, err := client.CoreV1().Nodes().Create(ctx, node, metav1.CreateOptions{})
				if err != nil && !apierrors.IsAlreadyExists(err) {
					cancel(fmt.Errorf("create node %s: %w", node.Name, err))
				}
			}
		})
	}
	for i := from; i < from+n && ctx.Err() == nil; i++ {
		select {
		case numbers <- i:
		case <-ctx.Done():
		}
	}
	close(numbers)
	wg.Wait()
	return context.Cause(ctx)
}

// node returns the node with number i.
func (t NodeTemplate) node(i int) *corev1.Node {
	prefix := t.Prefix
	if prefix == "" {
		prefix = "fake"
	}
	name := fmt.Sprintf("%s-%d", prefix, i)
	labels := map[string]string{
		NodeLabel:              "true",
		corev1.LabelHostname:   name,
		corev1.LabelOSStable:   "linux",
		corev1.LabelArchStable: "amd64",
	}
	maps.Copy(labels, t.Labels)
	resources := corev1.ResourceList{
		corev1.ResourceCPU:              resource.MustParse("64"),
		corev1.ResourceMemory:           resource.MustParse("256Gi"),
		corev1.ResourceEphemeralStorage: resource.MustParse("1Ti"),
		corev1.ResourcePods:             resource.MustParse("1000"),
	}
	maps.Copy(resources, t.Allocatable)
	taints := t.Taints
	if taints == nil {
		taints = []corev1.Taint{{Key: NodeLabel, Value: "true", Effect: corev1.TaintEffectNoSchedule}}
	}
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels},
		Spec:       corev1.NodeSpec{Taints: taints},
		Status: corev1.NodeStatus{
			Capacity:    resources,
			Allocatable: resources.DeepCopy(),
			Conditions:  healthy(time.Now()),
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("10.%d.%d.%d", 128+i>>16&63, i>>8&255, i&255)},
				{Type: corev1.NodeHostName, Address: name},
			},
			NodeInfo: corev1.NodeSystemInfo{
				KubeletVersion:          "fake",
				ContainerRuntimeVersion: "containerd://fake",
				OperatingSystem:         "linux",
				Architecture:            "amd64",
			},
		},
	}
}

// healthy returns the conditions of a node that is well.
func healthy(now time.Time) []corev1.NodeCondition {
	var list []corev1.NodeCondition
	for _, c := range []struct {
		kind            corev1.NodeConditionType
		status          corev1.ConditionStatus
		reason, message string
	}{
		{corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory", "kubelet has sufficient memory available"},
		{corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure", "kubelet has no disk pressure"},
		{corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID", "kubelet has sufficient PID available"},
		{corev1.NodeReady, corev1.ConditionTrue, "KubeletReady", "kubelet is posting ready status"},
	} {
		list = append(list, corev1.NodeCondition{
			Type:               c.kind,
			Status:             c.status,
			LastHeartbeatTime:  metav1.Time{Time: now},
			LastTransitionTime: metav1.Time{Time: now},
			Reason:             c.reason,
			Message:            c.message,
		})
	}
	return list
}

// node returns the fake node of that name, nil if there is none.
func (k *Kubelet) node(name string) *corev1.Node {
	obj, exists, err := k.nodes.GetByKey(name)
	if err != nil || !exists {
		return nil
	}
	return obj.(*corev1.Node)
}

// asleep reports whether nothing happens on the node: it is frozen or not there.
func asleep(node *corev1.Node) bool {
	return node == nil || node.Annotations[FrozenAnnotation] == "true"
}

// hold notes that a pod waits for the node to be awake.
func (k *Kubelet) hold(node string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.held[node] = true
}

// Kubelets of Kubernetes 1.37 renew a lease of 40 s every 10 s. Half as often
// still leaves time for a retry.
const (
	leaseTime  = 40 * time.Second
	leaseEvery = 20 * time.Second
)

// heart keeps one node alive.
type heart struct {
	phase time.Duration // of its beats, from 0 to leaseEvery
	next  time.Time     // zero for now
	timer *time.Timer
	lease *coordinationv1.Lease // as last seen; nil if that is out of date
}

// tend does what is due for the node with the name.
func (k *Kubelet) tend(ctx context.Context, name string) error {
	node := k.node(name)
	k.mu.Lock()
	h := k.hearts[name]
	switch {
	case node == nil && h != nil:
		h.timer.Stop()
		delete(k.hearts, name)
	case node != nil && h == nil:
		// Multiples of the golden ratio, without their whole part, lie evenly
		// for any number of nodes.
		_, part := math.Modf(float64(k.met) * math.Phi)
		k.met++
		h = &heart{
			phase: time.Duration(part * float64(leaseEvery)),
			timer: time.AfterFunc(leaseEvery, func() { k.nodeQueue.Add(name) }),
		}
		k.hearts[name] = h
	}
	held := k.held[name]
	if !asleep(node) {
		delete(k.held, name)
	}
	k.mu.Unlock()
	if node == nil {
		return nil
	}
	if asleep(node) {
		h.timer.Stop()
		h.next = time.Time{}
		return nil
	}

	if held {
		keys, err := k.pods.IndexKeys(byNode, name)
		if err != nil {
			return err
		}
		for _, key := range keys {
			k.podQueue.Add(key)
		}
	}
	now := time.Now()
	if !now.Before(h.next) {
		if err := k.renew(ctx, node, h, now); err != nil {
			return fmt.Errorf("renew lease: %w", err)
		}
		h.next = now.Truncate(leaseEvery).Add(h.phase)
		if !h.next.After(now) {
			h.next = h.next.Add(leaseEvery)
		}
	}
	h.timer.Reset(h.next.Sub(now))
	return k.heal(ctx, node, now)
}

// renew renews the lease of the node, or makes it.
func (k *Kubelet) renew(ctx context.Context, node *corev1.Node, h *heart, now time.Time) error {
	leases := k.client.CoordinationV1().Leases(corev1.NamespaceNodeLease)
	lease := h.lease
	h.lease = nil
	if lease == nil {
		made, err := leases.Create(ctx, &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{
				Name: node.Name,
				OwnerReferences: []metav1.OwnerReference{
					{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID},
				},
			},
			Spec: coordinationv1.LeaseSpec{
				HolderIdentity:       &node.Name,
				LeaseDurationSeconds: new(int32(leaseTime / time.Second)),
				RenewTime:            &metav1.MicroTime{Time: now},
			},
		}, metav1.CreateOptions{})
		if !apierrors.IsAlreadyExists(err) {
			if err == nil {
				h.lease = made
			}
			return err
		}
		if lease, err = leases.Get(ctx, node.Name, metav1.GetOptions{}); err != nil {
			return err
		}
	}
	lease = lease.DeepCopy()
	lease.Spec.HolderIdentity = &node.Name
	lease.Spec.LeaseDurationSeconds = new(int32(leaseTime / time.Second))
	lease.Spec.RenewTime = &metav1.MicroTime{Time: now}
	lease, err := leases.Update(ctx, lease, metav1.UpdateOptions{})
	if err == nil {
		h.lease = lease
	}
	return err
}

// heal makes the node ready if it is not: it may have been made without
// conditions, or have been frozen for long enough that the cluster gave it up.
func (k *Kubelet) heal(ctx context.Context, node *corev1.Node, now time.Time) error {
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			return nil
		}
	}
	data, err := json.Marshal(map[string]any{"status": map[string]any{"conditions": healthy(now)}})
	if err != nil {
		return err
	}
	_, err = k.client.CoreV1().Nodes().Patch(ctx, node.Name, types.StrategicMergePatchType, data, metav1.PatchOptions{}, "status")
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("write conditions: %w", err)
	}
	return nil
}
