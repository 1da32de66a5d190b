//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/kfs-project/kfs/test/cluster/cluster"
	"github.com/kfs-project/kfs/test/cluster/fakekubelet"
	"github.com/kfs-project/kfs/test/cluster/supervisor"
)

// This file tests nodes without machines.

// fakeNodes adds n nodes and removes them after the test.
func fakeNodes(ctx context.Context, t *testing.T, client kubernetes.Interface, template fakekubelet.NodeTemplate, n int) {
	t.Helper()
	if err := up.AddFakeNodes(ctx, template, n); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for i := range n {
			cluster.DeleteNode(context.Background(), client, fmt.Sprintf("%s-%d", template.Prefix, i))
		}
	})
}

// fakePod is a pod that only a fake node of the prefix takes.
func fakePod(name, prefix, behavior string) *corev1.Pod {
	p := pod(name)
	p.Annotations = map[string]string{fakekubelet.BehaviorAnnotation: behavior}
	p.Spec.NodeSelector = map[string]string{"nodes": prefix}
	p.Spec.Tolerations = []corev1.Toleration{{Key: fakekubelet.NodeLabel, Operator: corev1.TolerationOpExists}}
	return p
}

// TestFakePods runs a pod of each behaviour and looks at its end.
func TestFakePods(t *testing.T) {
	t.Parallel()
	ctx, client := t.Context(), clientOf(t, up.Kubeconfig())
	ns := namespace(ctx, t, client)
	fakeNodes(ctx, t, client, fakekubelet.NodeTemplate{Prefix: "plain", Labels: map[string]string{"nodes": "plain"}}, 2)
	for _, tt := range []struct {
		name, behavior string
		what           string
		want           func(*corev1.Pod) bool
	}{
		{"quick", "{do: succeed, message: '0.97'}", "Succeeded with its message", func(p *corev1.Pod) bool {
			return succeeded(p) && ended(p).Message == "0.97"
		}},
		{"failing", "{do: fail, after: 100ms, exit: 3}", "Failed with 3", func(p *corev1.Pod) bool {
			return p.Status.Phase == corev1.PodFailed && ended(p).ExitCode == 3 && ended(p).Reason == "Error"
		}},
		{"hungry", "{do: oom}", "OOMKilled", func(p *corev1.Pod) bool {
			return p.Status.Phase == corev1.PodFailed && ended(p).Reason == "OOMKilled" && ended(p).ExitCode == 137
		}},
		{"evicted", "{do: evict, after: 50ms}", "Evicted", func(p *corev1.Pod) bool {
			return p.Status.Phase == corev1.PodFailed && p.Status.Reason == "Evicted" && disrupted(p, "TerminationByKubelet")
		}},
		{"running", "{do: run}", "Running", func(p *corev1.Pod) bool { return p.Status.Phase == corev1.PodRunning }},
		{"no-image", "{do: pull-backoff}", "in ImagePullBackOff", pullFails},
		{"creating", "{do: pending}", "in ContainerCreating", func(p *corev1.Pod) bool {
			return p.Status.Phase == corev1.PodPending && waits(p) == "ContainerCreating"
		}},
		{"misspelt", "{do: suceed}", "in BadBehavior", func(p *corev1.Pod) bool { return waits(p) == "BadBehavior" }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := create(ctx, t, client, ns, fakePod(tt.name, "plain", tt.behavior))
			waitPod(ctx, t, client, ns, p.Name, tt.what, tt.want)
		})
	}
	if err := cluster.DeletePod(ctx, client, ns, "running", false); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, "the deleted pod to be gone", func() error {
		_, err := client.CoreV1().Pods(ns).Get(ctx, "running", metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("pod running: %v", err)
	})
}

// ended is the end of the pod's main container.
func ended(p *corev1.Pod) corev1.ContainerStateTerminated {
	if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Terminated == nil {
		return corev1.ContainerStateTerminated{}
	}
	return *p.Status.ContainerStatuses[0].State.Terminated
}

// waits is why the pod's main container waits.
func waits(p *corev1.Pod) string {
	if len(p.Status.ContainerStatuses) == 0 || p.Status.ContainerStatuses[0].State.Waiting == nil {
		return ""
	}
	return p.Status.ContainerStatuses[0].State.Waiting.Reason
}

// TestStarts counts the starts of pods, of one name and over the attempts of
// one step, also after the fake kubelet itself started anew.
func TestStarts(t *testing.T) {
	ctx, client := t.Context(), clientOf(t, up.Kubeconfig())
	ns := namespace(ctx, t, client)
	fakeNodes(ctx, t, client, fakekubelet.NodeTemplate{Prefix: "counting", Labels: map[string]string{"nodes": "counting"}}, 1)
	key := ns + "/train"
	for i, want := range []corev1.PodPhase{corev1.PodFailed, corev1.PodSucceeded, corev1.PodSucceeded} {
		p := fakePod(fmt.Sprintf("train-%d", i), "counting", "[{do: evict}, {do: succeed}]")
		p.Annotations[fakekubelet.KeyAnnotation] = key
		create(ctx, t, client, ns, p)
		waitPhase(ctx, t, client, ns, p.Name, want)
		if err := errors.Join(up.Stop(ctx, supervisor.FakeKubelet), up.Start(ctx, supervisor.FakeKubelet)); err != nil {
			t.Fatal(err)
		}
	}
	if err := cluster.DeleteNode(ctx, client, "counting-0"); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Nodes().Get(ctx, "counting-0", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("a deleted node: %v; want it not found, and not made again", err)
	}
	var starts []fakekubelet.Start
	until(ctx, t, "the fake kubelet", func() (err error) {
		starts, err = up.Starts(ctx)
		return err
	})
	var pods []string
	for _, s := range starts {
		if s.Key == key {
			pods = append(pods, s.Pod)
		}
	}
	if want := []string{"train-0", "train-1", "train-2"}; !slices.Equal(pods, want) {
		t.Errorf("starts of %s: %v, want %v", key, pods, want)
	}
}

// TestFakeResources schedules pods by what fake nodes have: devices and taints.
func TestFakeResources(t *testing.T) {
	t.Parallel()
	ctx, client := t.Context(), clientOf(t, up.Kubeconfig())
	ns := namespace(ctx, t, client)
	taint := corev1.Taint{Key: "nvidia.com/gpu", Value: "present", Effect: corev1.TaintEffectNoSchedule}
	fakeNodes(ctx, t, client, fakekubelet.NodeTemplate{
		Prefix:      "gpu",
		Allocatable: corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("8")},
		Labels:      map[string]string{"nodes": "gpu"},
		Taints:      []corev1.Taint{taint},
	}, 1)
	ask := func(name, gpus string, tolerate bool) *corev1.Pod {
		p := fakePod(name, "gpu", "{do: run}")
		p.Spec.Tolerations = nil
		if tolerate {
			p.Spec.Tolerations = []corev1.Toleration{{Key: taint.Key, Operator: corev1.TolerationOpExists}}
		}
		p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"nvidia.com/gpu": resource.MustParse(gpus)}
		return create(ctx, t, client, ns, p)
	}
	ask("first", "8", true)
	waitPhase(ctx, t, client, ns, "first", corev1.PodRunning)
	for name, tt := range map[string]struct {
		tolerate bool
		reason   string
	}{
		"second":     {true, "Insufficient nvidia.com/gpu"},
		"intolerant": {false, "untolerated taint"},
	} {
		ask(name, "1", tt.tolerate)
		waitPod(ctx, t, client, ns, name, "unschedulable: "+tt.reason, func(p *corev1.Pod) bool {
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodScheduled && c.Reason == corev1.PodReasonUnschedulable && strings.Contains(c.Message, tt.reason) {
					return true
				}
			}
			return false
		})
	}
}
