//go:build e2e

package k8s

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/clustertest"
)

// This file tests pods that somebody deletes or evicts, while kfs looks on and
// while it does not.

const (
	polite   = `trap 'exit 0' TERM; echo ready; sleep 100000 & wait`
	stubborn = `trap '' TERM; echo ready; sleep 100000`
	gated    = `mkfifo /tmp/gate; echo ready; read x < /tmp/gate; ` // until openGate
)

// twice is a script that waits to be deleted in its first attempt.
const twice = `case "$1" in *-a1) ` + polite + ` ;; esac`

func podName(s *dag.Step) { s.Container.Append("args", dag.Ref{Kind: dag.RefPodName}.Token()) }

// openGate lets a gated step go on.
func (x *podRun) openGate(pod *corev1.Pod) {
	x.Helper()
	clustertest.Kubectl(x, "exec", "-n", pod.Namespace, pod.Name, "-c", mainContainer, "--", "sh", "-c", "echo > /tmp/gate")
}

// first says how the first attempt has ended.
func first(cause engine.Cause, reason string, n int) func(testing.TB, engine.Record) {
	return func(t testing.TB, r engine.Record) {
		t.Helper()
		attempts(n)(t, r)
		if o := r.Attempts[0]; o.Cause != cause || !strings.Contains(o.Reason, reason) {
			t.Errorf("step %s: attempt 1: %s, %q; want %s, %q", r.Step, o.Cause, o.Reason, cause, reason)
		}
	}
}

func all(checks ...func(testing.TB, engine.Record)) func(testing.TB, engine.Record) {
	return func(t testing.TB, r engine.Record) {
		t.Helper()
		for _, check := range checks {
			check(t, r)
		}
	}
}

// labelled makes the real node one that a selector selects, until the test is
// over.
func labelled(t testing.TB, label string) {
	t.Helper()
	clustertest.Kubectl(t, "label", "node", "node", label+"=yes", "--overwrite")
	t.Cleanup(func() { clustertest.Kubectl(t, "label", "node", "node", label+"-") })
}

// slowLimits leave time to do something to a pod that does not start.
func slowLimits() Limits {
	l := podLimits
	l.BadConfig, l.Settle = 2*time.Minute, 20*time.Second
	return l
}

// TestE2EPodDeleted deletes pods while kfs looks on. None passes for a success,
// however it takes it.
func TestE2EPodDeleted(t *testing.T) {
	t.Parallel()
	crowded(t)
	c := podCluster(t)
	const byHand = "its pod was deleted by somebody"
	onError := func(s *dag.Step) { s.Retry = &dag.Retry{Limit: "1", Policy: "OnError"} }
	label := "kfs.dev/" + c.Namespace
	late := set([]any{tree("secretRef", tree("name", "late"))}, "envFrom")
	cases := []podCase{
		{nodeStep("polite", polite, infraRetries(0)), engine.Failed, engine.Lost, byHand + " while it ran; exited with 0", attempts(1)},
		{nodeStep("stubborn", stubborn, infraRetries(0)), engine.Failed, engine.Lost, byHand + " while it ran; exited with 137 (killed)", attempts(1)},
		{nodeStep("launched", `trap 'mkdir -p /tmp/out; echo 1 > /tmp/out/o; exit 0' TERM; echo ready; sleep 100000 & wait`, out, infraRetries(0)), engine.Failed, engine.Lost, byHand + " while it ran; exited with 0", attempts(1)},
		{nodeStep("once", polite, once), engine.Unknown, engine.Lost, byHand + " while it ran; exited with 0", attempts(1)},
		{nodeStep("retried", twice, podName), engine.Succeeded, engine.Exited, "", first(engine.Lost, byHand, 2)},
		{nodeStep("policy", twice, podName, infraRetries(0), onError), engine.Succeeded, engine.Exited, "", first(engine.Lost, byHand, 2)},
		{nodeStep("evicted", polite, infraRetries(0)), engine.Failed, engine.Lost, "evicted while it ran; exited with 0", attempts(1)},
		{nodeStep("job", polite, asJob, infraRetries(0)), engine.Failed, engine.Lost, byHand + " while it ran; exited with 0", attempts(1)},
		{nodeStep("stripped", polite, infraRetries(0)), engine.Unknown, engine.Vanished, "removed by somebody, finalizer and all", attempts(1)},
		{nodeStep("no-node", "true", selects(label, "yes")), engine.Succeeded, engine.Exited, "", first(engine.NotStarted, byHand+", before it was started", 2)},
		{nodeStep("not-started", "true", late), engine.Succeeded, engine.Exited, "", first(engine.NotStarted, byHand+", before it was started", 2)},
		{nodeStep("not-started-once", "true", late, once), engine.Succeeded, engine.Exited, "", first(engine.NotStarted, byHand+", before it was started", 2)},
		{nodeStep("not-started-evicted", "true", late), engine.Succeeded, engine.Exited, "", first(engine.NotStarted, "evicted, before it was started", 2)},
	}
	x := beginPods(t, c, Options{Limits: slowLimits()}, &dag.Pipeline{Name: "deleted", Steps: stepsOf(cases)}, "stripped")
	for _, step := range []string{"polite", "stubborn", "launched", "once", "retried", "policy", "job"} {
		x.del(x.ready(step, 1))
	}
	x.evict(x.ready("evicted", 1))
	stripped := x.ready("stripped", 1)
	if _, err := c.pods.Patch(t.Context(), stripped.Name, types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{}); err != nil {
		t.Error(err)
	}
	clustertest.Command(t, "fault", "delete-pod", "--force", c.Namespace+"/"+stripped.Name)

	x.del(x.pod("no-node", 1, "to be made", there))
	x.del(x.pod("not-started", 1, "to wait for its secret", waiting("CreateContainerConfigError")))
	x.del(x.pod("not-started-once", 1, "to wait for its secret", func(pod *corev1.Pod) bool {
		return waiting("CreateContainerConfigError")(pod) || waiting("PodInitializing")(pod)
	}))
	x.evict(x.pod("not-started-evicted", 1, "to wait for its secret", waiting("CreateContainerConfigError")))
	for _, step := range []string{"no-node", "not-started", "not-started-once", "not-started-evicted"} {
		x.pod(step, 2, "to be made", there)
	}
	labelled(t, label)
	clustertest.Kubectl(t, "create", "secret", "generic", "late", "-n", c.Namespace, "--from-literal=A=b")
	x.wantCases(x.end(), cases)
}

// TestE2EPodDeletedAlone deletes pods while no kfs is there: the next one tells
// those that had ended by themselves from those that were ended.
func TestE2EPodDeletedAlone(t *testing.T) {
	t.Parallel()
	crowded(t)
	c := podCluster(t)
	const byHand = "its pod was deleted by somebody"
	label := "kfs.dev/" + c.Namespace
	late := set([]any{tree("secretRef", tree("name", "late"))}, "envFrom")
	cases := []podCase{
		{nodeStep("polite", polite, infraRetries(0)), engine.Failed, engine.Lost, byHand + " while it ran; exited with 0", attempts(1)},
		{nodeStep("launched", `trap 'mkdir -p /tmp/out; echo 1 > /tmp/out/o; exit 0' TERM; echo ready; sleep 100000 & wait`, out, infraRetries(0)), engine.Failed, engine.Lost, byHand + " while it ran; exited with 0", attempts(1)},
		{nodeStep("stubborn", stubborn, out, infraRetries(0)), engine.Failed, engine.Lost, byHand + " while it ran; exited with 137 (killed)", attempts(1)},
		{nodeStep("once", polite, once), engine.Unknown, engine.Lost, byHand + " while it ran; exited with 0", attempts(1)},
		{nodeStep("evicted", polite, infraRetries(0)), engine.Failed, engine.Lost, "evicted while it ran; exited with 0", attempts(1)},
		{nodeStep("retried", twice, podName), engine.Succeeded, engine.Exited, "", first(engine.Lost, byHand, 2)},
		{nodeStep("job", polite, asJob, infraRetries(0)), engine.Failed, engine.Lost, byHand + " while it ran; exited with 0", attempts(1)},

		{nodeStep("done", gated+"exit 0"), engine.Succeeded, engine.Exited, "", attempts(1)},
		{nodeStep("done-launched", gated+"mkdir -p /tmp/out; echo 42 > /tmp/out/o", out), engine.Succeeded, engine.Exited, "", all(attempts(1), outputIs("42"))},
		{nodeStep("done-evicted", gated+"exit 0"), engine.Succeeded, engine.Exited, "", attempts(1)},
		{nodeStep("failed", gated+"exit 3"), engine.Failed, engine.Exited, "exited with 3", attempts(1)},
		{nodeStep("failed-evicted", gated+"exit 3"), engine.Failed, engine.Exited, "exited with 3", attempts(1)},
		{nodeStep("failed-launched", gated+"exit 3", once), engine.Failed, engine.Exited, "exited with 3", attempts(1)},
		{nodeStep("done-job", gated+"exit 0", asJob), engine.Succeeded, engine.Exited, "", attempts(1)},
		{nodeStep("not-deleted", gated+"exit 0"), engine.Succeeded, engine.Exited, "", attempts(1)},

		{nodeStep("no-node", "true", selects(label, "yes")), engine.Succeeded, engine.Exited, "", first(engine.NotStarted, byHand+", before it was started", 2)},
		{nodeStep("not-started", "true", late, once), engine.Succeeded, engine.Exited, "", first(engine.NotStarted, byHand+", before it was started", 2)},
	}
	x := beginPods(t, c, Options{Limits: slowLimits()}, &dag.Pipeline{Name: "alone", Steps: stepsOf(cases)})
	pods := map[string]*corev1.Pod{}
	for _, tt := range cases {
		switch name := tt.step.Name; name {
		case "no-node":
			pods[name] = x.pod(name, 1, "to be made", there)
		case "not-started":
			pods[name] = x.pod(name, 1, "to wait for its secret", waiting("CreateContainerConfigError"))
		default:
			pods[name] = x.ready(name, 1)
		}
	}
	x.leave()
	ended := []string{"done", "done-launched", "done-evicted", "failed", "failed-evicted", "failed-launched", "done-job", "not-deleted"}
	for _, step := range ended {
		x.openGate(pods[step])
	}
	for _, step := range ended {
		x.pod(step, 1, "to end", terminal)
	}
	for _, step := range []string{"polite", "launched", "stubborn", "once", "retried", "job", "no-node", "not-started", "done", "done-launched", "failed", "failed-launched", "done-job"} {
		x.del(pods[step])
	}
	for _, step := range []string{"evicted", "done-evicted", "failed-evicted"} {
		x.evict(pods[step])
	}
	for _, step := range []string{"polite", "launched", "stubborn", "once", "retried", "job", "not-started", "evicted"} {
		x.pod(step, 1, "to end", terminal)
	}
	labelled(t, label)
	clustertest.Kubectl(t, "create", "secret", "generic", "late", "-n", c.Namespace, "--from-literal=A=b")
	x.resume()
	x.wantCases(x.end(), cases)
}

// TestE2EPodDeadline leaves steps to their nodes, which end them when their time
// is over, and that of their start: the one that takes it well, too.
func TestE2EPodDeadline(t *testing.T) {
	t.Parallel()
	c := podCluster(t)
	timeout := func(s *dag.Step) { s.Timeout, s.PendingTimeout = "10", "35" }
	const reason = "its pod was ended at its deadline"
	cases := []podCase{
		{nodeStep("plain", polite, timeout), engine.Failed, engine.TimedOut, reason, attempts(1)},
		{nodeStep("launched", polite, timeout, once), engine.Failed, engine.TimedOut, reason, attempts(1)},
		{nodeStep("job", stubborn, timeout, asJob), engine.Failed, engine.TimedOut, reason, attempts(1)},
	}
	x := beginPods(t, c, Options{}, &dag.Pipeline{Name: "deadline", Steps: stepsOf(cases)})
	for _, tt := range cases {
		x.pod(tt.step.Name, 1, "to be made", there)
	}
	x.leave()
	for _, tt := range cases {
		x.pod(tt.step.Name, 1, "to end", terminal)
	}
	x.resume()
	x.wantCases(x.end(), cases)
}
