//go:build e2e

package e2e

import (
	"context"
	"net/http"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/kfs-project/kfs/test/cluster/cluster"
	"github.com/kfs-project/kfs/test/cluster/faultproxy"
	"github.com/kfs-project/kfs/test/cluster/supervisor"
)

// This file tests that a cluster breaks as it is told to, and is whole again
// afterwards.

// TestFreeze freezes the API server, which then holds connections and answers
// nothing, and thaws it.
func TestFreeze(t *testing.T) {
	ctx := t.Context()
	client := clientOf(t, up.Kubeconfig(), func(c *rest.Config) { c.Timeout = time.Second })
	if err := up.Freeze(ctx, supervisor.APIServer); err != nil {
		t.Fatal(err)
	}
	defer up.Thaw(context.WithoutCancel(ctx), supervisor.APIServer)
	if state := stateOf(ctx, t, supervisor.APIServer); state != supervisor.Frozen {
		t.Errorf("a frozen API server is said to be %s", state)
	}
	if _, err := client.Discovery().ServerVersion(); err == nil {
		t.Error("a frozen API server answers")
	}
	if err := up.Thaw(ctx, supervisor.APIServer); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, "an answer of the thawed API server", func() error {
		_, err := client.Discovery().ServerVersion()
		return err
	})
}

// TestRestartEtcd kills etcd and wants what was written before, and a pod that
// runs after.
func TestRestartEtcd(t *testing.T) {
	ctx, client := t.Context(), clientOf(t, up.Kubeconfig())
	ns := namespace(ctx, t, client)
	_, err := client.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: "kept"},
		Data:       map[string]string{"state": "kept"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Restart(ctx, supervisor.Etcd); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, "what was written before etcd restarted", func() error {
		_, err := client.CoreV1().ConfigMaps(ns).Get(ctx, "kept", metav1.GetOptions{})
		return err
	})
	runsPods(ctx, t, client, ns)
}

// TestKillAPIServer kills the API server while it is watched, and starts it.
func TestKillAPIServer(t *testing.T) {
	ctx, client := t.Context(), clientOf(t, up.Kubeconfig())
	ns := namespace(ctx, t, client)
	w, err := client.CoreV1().Pods(ns).Watch(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	if err := up.Kill(ctx, supervisor.APIServer); err != nil {
		t.Fatal(err)
	}
	for range w.ResultChan() { // ends with the server
	}
	if _, err := client.CoreV1().Pods(ns).List(ctx, metav1.ListOptions{}); err == nil {
		t.Error("a killed API server answers")
	}
	if state := stateOf(ctx, t, supervisor.APIServer); state != supervisor.Stopped {
		t.Errorf("a killed API server is said to be %s", state)
	}
	if err := up.Start(ctx, supervisor.APIServer); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, "the API server to be ready", func() error {
		_, err := client.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx)
		return err
	})
	// what watches it would try again within half a minute
	for _, part := range []string{supervisor.ControllerManager, supervisor.Scheduler, supervisor.Kubelet} {
		if err := up.Restart(ctx, part); err != nil {
			t.Fatal(err)
		}
	}
	runsPods(ctx, t, client, ns)
}

// runsPods wants the cluster to carry out a pod.
func runsPods(ctx context.Context, t *testing.T, client kubernetes.Interface, ns string) {
	t.Helper()
	until(ctx, t, "a pod to be accepted", func() error {
		_, err := client.CoreV1().Pods(ns).Create(ctx, pod("after", "print", "after"), metav1.CreateOptions{})
		return err
	})
	waitPhase(ctx, t, client, ns, "after", corev1.PodSucceeded)
}

func stateOf(ctx context.Context, t *testing.T, part string) string {
	t.Helper()
	s, err := up.Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Parts {
		if p.Name == part {
			return p.State
		}
	}
	return "not there"
}

// TestRequestFaults fails, loses and delays requests on their way to a real
// API server.
func TestRequestFaults(t *testing.T) {
	ctx, direct, faults := t.Context(), clientOf(t, up.Kubeconfig()), clientOf(t, up.FaultsKubeconfig())
	ns := namespace(ctx, t, direct)
	defer up.Faults().Clear(context.WithoutCancel(ctx))
	rule := func(r faultproxy.Rule) {
		t.Helper()
		if err := up.Faults().Clear(ctx); err != nil {
			t.Fatal(err)
		}
		r.Path = "/namespaces/" + ns + "/configmaps"
		if _, err := up.Faults().Add(ctx, r); err != nil {
			t.Fatal(err)
		}
	}
	write := func(name string) error {
		_, err := faults.CoreV1().ConfigMaps(ns).Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		return err
	}
	exists := func(name string) bool {
		_, err := direct.CoreV1().ConfigMaps(ns).Get(ctx, name, metav1.GetOptions{})
		return err == nil
	}

	rule(faultproxy.Rule{Verb: "create", Status: http.StatusInternalServerError, Times: 1})
	if err := write("failed"); !apierrors.IsInternalError(err) || exists("failed") {
		t.Errorf("a create that fails: %v, done: %t; want an internal error, and not done", err, exists("failed"))
	}
	if err := write("failed"); err != nil {
		t.Errorf("a create after the only one that fails: %v", err)
	}
	rule(faultproxy.Rule{Verb: "create", Lose: true})
	if err := write("lost"); err == nil || !exists("lost") {
		t.Errorf("a create whose answer is lost: %v, done: %t; want an error, and done", err, exists("lost"))
	}
	rule(faultproxy.Rule{Verb: "get", Hang: true})
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	if _, err := faults.CoreV1().ConfigMaps(ns).Get(short, "lost", metav1.GetOptions{}); err == nil {
		t.Error("a get that hangs was answered")
	}
	if _, err := direct.CoreV1().ConfigMaps(ns).Get(ctx, "lost", metav1.GetOptions{}); err != nil {
		t.Errorf("a get that goes past the fault proxy: %v", err)
	}
}

// TestWatchFaults ends watches in both ways.
func TestWatchFaults(t *testing.T) {
	ctx, direct, faults := t.Context(), clientOf(t, up.Kubeconfig()), clientOf(t, up.FaultsKubeconfig())
	ns := namespace(ctx, t, direct)
	begin := func() watch.Interface {
		t.Helper()
		w, err := faults.CoreV1().Pods(ns).Watch(ctx, metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	end := func(w watch.Interface) (last watch.Event) {
		for event := range w.ResultChan() {
			last = event
		}
		return last
	}
	dropped := begin()
	if n, err := up.Faults().DropWatches(ctx); err != nil || n == 0 {
		t.Fatalf("%d watches dropped, %v", n, err)
	}
	// the client makes an error of a cut stream, but the API server sent none
	if last := end(dropped); last.Type == watch.Error && apierrors.ReasonForError(apierrors.FromObject(last.Object)) != metav1.StatusReasonInternalError {
		t.Errorf("a dropped watch ends with %v", last.Object)
	}
	expired := begin()
	if n, err := up.Faults().ExpireWatches(ctx); err != nil || n == 0 {
		t.Fatalf("%d watches expired, %v", n, err)
	}
	last := end(expired)
	if err := apierrors.FromObject(last.Object); last.Type != watch.Error || !apierrors.IsResourceExpired(err) {
		t.Errorf("an expired watch ends with the event %s: %v", last.Type, err)
	}
}

// TestObjectFaults deletes and evicts pods and fills a quota.
func TestObjectFaults(t *testing.T) {
	ctx, client := t.Context(), clientOf(t, up.Kubeconfig())
	ns := namespace(ctx, t, client)
	gone := func(name string) {
		t.Helper()
		until(ctx, t, "pod "+name+" to be gone", func() error {
			_, err := client.CoreV1().Pods(ns).Get(ctx, name, metav1.GetOptions{})
			if err == nil {
				return context.DeadlineExceeded
			}
			if apierrors.IsNotFound(err) {
				return nil
			}
			return err
		})
	}
	for _, name := range []string{"forced", "evicted"} {
		p := pod(name, "sleep", "1h")
		p.Finalizers = []string{"kfs.dev/test"}
		create(ctx, t, client, ns, p)
	}
	for _, name := range []string{"forced", "evicted"} {
		waitPhase(ctx, t, client, ns, name, corev1.PodRunning)
	}
	if err := cluster.Evict(ctx, client, ns, "evicted"); err != nil {
		t.Fatal(err)
	}
	if err := cluster.DeletePod(ctx, client, ns, "forced", true); err != nil {
		t.Fatal(err)
	}
	// the finalizer keeps them, with what the kubelet says of their end
	p := waitPhase(ctx, t, client, ns, "evicted", corev1.PodFailed)
	if !disrupted(p, "EvictionByEvictionAPI") {
		t.Errorf("an evicted pod has the conditions %v", p.Status.Conditions)
	}
	waitPhase(ctx, t, client, ns, "forced", corev1.PodFailed)

	if err := cluster.FillQuota(ctx, client, ns, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Pods(ns).Create(ctx, pod("over", "print", "x"), metav1.CreateOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a pod over the quota: %v; want it forbidden", err)
	}
	for _, name := range []string{"forced", "evicted"} {
		_, err := client.CoreV1().Pods(ns).Patch(ctx, name, "application/merge-patch+json", []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		gone(name)
	}
}

func disrupted(p *corev1.Pod, reason string) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.DisruptionTarget && c.Status == corev1.ConditionTrue && c.Reason == reason {
			return true
		}
	}
	return false
}
