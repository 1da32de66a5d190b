//go:build e2e

package k8s

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/clustertest"
)

// This file tests pods that their nodes refuse, end, or lose.

// addFakeNode makes a fake node for one test.
func addFakeNode(t testing.TB, name string, flags ...string) {
	t.Helper()
	clustertest.Command(t, append([]string{"nodes", "add", "--count", "1", "--prefix", name, "--label", "nodes=" + name}, flags...)...)
	t.Cleanup(func() { clustertest.Kubectl(t, "delete", "node", name+"-0", "--ignore-not-found", "--wait=false") })
}

// bind gives a pod to a node, whatever the scheduler thinks of it.
func (x *podRun) bind(pod *corev1.Pod, node string) {
	x.Helper()
	body, _ := json.Marshal(corev1.Binding{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Binding"}, ObjectMeta: metav1.ObjectMeta{Name: pod.Name, UID: pod.UID},
		Target: corev1.ObjectReference{Kind: "Node", Name: node},
	})
	if err := x.c.core.Post().Namespace(x.c.Namespace).Resource("pods").Name(pod.Name).SubResource("binding").
		SetHeader("Content-Type", "application/json").Body(body).Do(x.Context()).Error(); err != nil {
		x.Errorf("bind pod %s: %v", pod.Name, err)
	}
}

// TestE2EPodRefused gives pods to a node that refuses them: they are made again
// free of charge, at most five times, and then as the step's policy says.
func TestE2EPodRefused(t *testing.T) {
	t.Parallel()
	c := podCluster(t)
	label := "kfs.dev/" + c.Namespace
	const refused = "nodeAffinity"
	cases := []podCase{
		{nodeStep("once", "true", selects(label, "yes"), once), engine.Succeeded, engine.Exited, "", first(engine.NotStarted, refused, 2)},
		{nodeStep("too-often", "true", selects(label, "never"), infraRetries(0)), engine.Failed, engine.NotStarted, "before it was started", first(engine.NotStarted, refused, 6)},
		{nodeStep("too-often-policy", "true", selects(label, "never"), infraRetries(0), func(s *dag.Step) {
			s.Retry = &dag.Retry{Limit: "1", Policy: "OnTransientError"}
		}), engine.Failed, engine.NotStarted, "before it was started", first(engine.NotStarted, refused, 7)},
		{nodeStep("too-large", "true", set("100", "resources", "requests", "cpu"), func(s *dag.Step) { s.PendingTimeout = "10" }), engine.Failed, engine.CannotRun, "Insufficient cpu", first(engine.NotStarted, "outOfcpu", 2)},
	}
	x := beginPods(t, c, Options{}, &dag.Pipeline{Name: "refused", Steps: stepsOf(cases)})
	x.bind(x.pod("once", 1, "to be made", there), "node")
	x.bind(x.pod("too-large", 1, "to be made", there), "node")
	x.pod("once", 2, "to be made", there)
	labelled(t, label)
	for n := 1; n <= 7; n++ {
		x.bind(x.pod("too-often-policy", n, "to be made", there), "node")
		if n <= 6 {
			x.bind(x.pod("too-often", n, "to be made", there), "node")
		}
	}
	x.wantCases(x.end(), cases)
}

// TestE2EPodWebhook has a webhook that nobody answers: steps whose pods it is
// asked about say so, and are given up in time; others go on. What cannot be
// changed for it is ended all the same.
func TestE2EPodWebhook(t *testing.T) {
	t.Parallel()
	c := podCluster(t)
	hook := c.Namespace + ".kfs.dev"
	kubectlApply(t, "", fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: {name: %[1]s}
webhooks:
- name: %[1]s
  clientConfig: {url: "https://127.0.0.1:1/"}
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %[2]s}}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  matchConditions: [{name: asked, expression: "object.metadata.?annotations['asked'].orValue('') == 'yes'"}]
- name: change.%[1]s
  clientConfig: {url: "https://127.0.0.1:1/"}
  admissionReviewVersions: [v1]
  sideEffects: None
  failurePolicy: Fail
  namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %[2]s}}
  rules: [{apiGroups: [""], apiVersions: [v1], operations: [UPDATE], resources: [pods]}]
  matchConditions: [{name: asked, expression: "object.metadata.?annotations['kept'].orValue('') == 'yes'"}]
`, hook, c.Namespace))
	remove := func() {
		clustertest.Kubectl(t, "delete", "validatingwebhookconfiguration", hook, "--ignore-not-found")
	}
	t.Cleanup(remove)
	time.Sleep(2 * time.Second) // the API server takes note of it
	asked := func(s *dag.Step) { s.Annotations.Set("yes", "asked") }
	impatient := func(s *dag.Step) { s.PendingTimeout = "5" }
	var cases []podCase
	for i := range creators + 1 { // more than are made at the same time
		cases = append(cases, podCase{podFakeStep(fmt.Sprint("patient", i), "{do: succeed}", asked), engine.Succeeded, engine.Exited, "", attempts(1)})
	}
	last := podFakeStep("last", "{do: succeed}")
	kept := podFakeStep("kept", "{do: run, term: 0}", func(s *dag.Step) {
		s.Annotations.Set("yes", "kept")
		s.Timeout = "2"
	})
	cases = append(cases,
		podCase{podFakeStep("impatient", "{do: succeed}", asked, impatient), engine.Failed, engine.CannotRun, "cannot be made now", attempts(1)},
		podCase{kept, engine.Failed, engine.TimedOut, "timed out after 2s", attempts(1)},
		podCase{last, engine.Succeeded, engine.Exited, "", attempts(1)})
	x := beginPods(t, c, Options{}, &dag.Pipeline{Name: "webhook", Steps: stepsOf(cases)})
	x.saysPending("patient0", "failed calling webhook")
	x.pod("last", 1, "to be over", terminal)
	for _, step := range []string{"impatient", "kept"} {
		awaits(t, "step "+step+" to fail", func() error {
			if !x.told(step, func(ev engine.Event) bool { return ev.State == engine.Failed }) {
				return fmt.Errorf("it has not")
			}
			return nil
		})
	}
	remove()
	x.wantCases(x.end(), cases)
}

// TestE2EPodLost loses pods that have begun, and some that have not.
func TestE2EPodLost(t *testing.T) {
	t.Parallel()
	c := podCluster(t)
	addFakeNode(t, c.Namespace+"-a")
	addFakeNode(t, c.Namespace+"-gone")
	addFakeNode(t, c.Namespace+"-full", "--allocatable", "cpu=1")
	addFakeNode(t, c.Namespace+"-tainted")
	on := func(node string) stepChange { return selects("nodes", c.Namespace+node) }
	cpu := set("700m", "resources", "requests", "cpu")
	kubectlApply(t, "", fmt.Sprintf(`{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: %s}, value: 1000}`, c.Namespace))
	t.Cleanup(func() { clustertest.Kubectl(t, "delete", "priorityclass", c.Namespace) })

	const lost = "lost the record of how it ended"
	cases := []podCase{
		{podFakeStep("record", "[{do: lost, after: 200ms}, {do: succeed}]", on("-a")), engine.Succeeded, engine.Exited, "", first(engine.Vanished, lost, 2)},
		{podFakeStep("record-once", "{do: lost, after: 200ms}", on("-a"), once), engine.Unknown, engine.Vanished, lost, attempts(1)},
		{podFakeStep("record-four-times", "{do: lost, after: 200ms}", on("-a")), engine.Unknown, engine.Vanished, lost, attempts(4)},
		{podFakeStep("evicted", "[{do: evict, after: 200ms}, {do: succeed}]", on("-a")), engine.Succeeded, engine.Exited, "", first(engine.Lost, "evicted: The node was low on resource: memory", 2)},
		{podFakeStep("evicted-trapped", "{do: evict, after: 200ms, term: 0}", on("-a"), infraRetries(0)), engine.Failed, engine.Lost, "evicted: The node was low on resource: memory", attempts(1)},
		{podFakeStep("evicted-once", "{do: evict, after: 200ms}", on("-a"), once), engine.Unknown, engine.Lost, "evicted: The node was low on resource: memory", attempts(1)},
		{podFakeStep("evicted-unsaid", "{do: succeed, after: 20s}", on("-a"), infraRetries(0)), engine.Failed, engine.Lost, "evicted: The node was low on resource: disk, while it ran; exited with 0", attempts(1)},
		{podFakeStep("restarted", "{do: restart, after: 300ms, exit: 3}", on("-a")), engine.Succeeded, engine.Exited, "exited with 0, but its container was started 2 times in its pod", attempts(1)},
		{podFakeStep("settling", "[{do: fail, after: 200ms, settle: 3s}, {do: succeed}]", on("-a"), func(s *dag.Step) { s.Retry = &dag.Retry{Limit: "1"} }), engine.Succeeded, engine.Exited, "", first(engine.Exited, "exited with 1", 2)},
		{podFakeStep("tainted", "[{do: run, term: 0, grace: 300ms}, {do: succeed}]", on("-tainted")), engine.Succeeded, engine.Exited, "", first(engine.Lost, "its node was tainted", 2)},
		{podFakeStep("tainted-once", "{do: run}", on("-tainted"), once), engine.Unknown, engine.Lost, "its node was tainted", attempts(1)},
		{podFakeStep("preempted", "[{do: run, term: 0}, {do: succeed}]", on("-full"), cpu), engine.Succeeded, engine.Exited, "", first(engine.Lost, "preempted by a pod of higher priority while it ran", 2)},
		{podFakeStep("node-gone", "[{do: run}, {do: succeed}]", on("-gone")), engine.Succeeded, engine.Exited, "", first(engine.Vanished, "its node is gone, while it ran", 2)},
		{podFakeStep("node-gone-once", "{do: run}", on("-gone"), once), engine.Unknown, engine.Vanished, "its node is gone, while it ran", attempts(1)},
		{podFakeStep("node-gone-pending", "[{do: pending}, {do: succeed}]", on("-gone")), engine.Succeeded, engine.Exited, "", first(engine.NotStarted, "its node is gone, before it was started", 2)},
	}
	x := beginPods(t, c, Options{}, &dag.Pipeline{Name: "lost", Steps: stepsOf(cases)}, "node-gone", "node-gone-pending")

	// A kubelet forgets that it has evicted a pod which exits with 0, but for the
	// events.
	unsaid := x.pod("evicted-unsaid", 1, "to run", running)
	for reason, text := range map[string]string{"Evicted": "The node was low on resource: disk. ", "Killing": "Stopping container main"} {
		kubectlApply(t, c.Namespace, fmt.Sprintf(`{apiVersion: v1, kind: Event, metadata: {name: unsaid-%s}, type: Normal, reason: %s, message: "%s",
			involvedObject: {apiVersion: v1, kind: Pod, namespace: %s, name: %s, uid: %s, fieldPath: "spec.containers{main}"}}`, strings.ToLower(reason), reason, text, c.Namespace, unsaid.Name, unsaid.UID))
	}

	// A node is deleted that looks dead: the garbage collector gives its pods up
	// after 40 s, though they may run.
	x.pod("node-gone", 1, "to run", running)
	x.pod("node-gone-once", 1, "to run", running)
	x.pod("node-gone-pending", 1, "to have a node", onNode)
	gone := c.Namespace + "-gone-0"
	clustertest.Kubectl(t, "annotate", "node", gone, "fake.kfs.dev/frozen=true")
	clustertest.Command(t, "fault", "delete-node", gone)

	x.pod("tainted", 1, "to run", running)
	x.pod("tainted-once", 1, "to run", running)
	clustertest.Kubectl(t, "taint", "node", c.Namespace+"-tainted-0", "drained=yes:NoExecute")
	x.pod("tainted", 2, "to be made", there)
	clustertest.Kubectl(t, "taint", "node", c.Namespace+"-tainted-0", "drained-")

	x.pod("preempted", 1, "to run", running)
	kubectlApply(t, c.Namespace, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: large, annotations: {fake.kfs.dev/behavior: '{do: run}'}}, spec: {priorityClassName: %s, nodeSelector: {nodes: %s-full},
		tolerations: [{key: fake.kfs.dev/node, operator: Exists}], containers: [{name: main, image: x, resources: {requests: {cpu: 900m}}}]}}`, c.Namespace, c.Namespace))
	x.pod("preempted", 2, "to be made", there)
	clustertest.Kubectl(t, "delete", "pod", "large", "-n", c.Namespace, "--wait=false")

	x.pod("node-gone", 2, "to be made", there)
	x.pod("node-gone-pending", 2, "to be made", there)
	addFakeNode(t, c.Namespace+"-gone")
	x.wantCases(x.end(), cases)
}

// TestE2EPodPreempted preempts a pod that has a node and has not been started:
// that is free.
func TestE2EPodPreempted(t *testing.T) {
	t.Parallel()
	c := podCluster(t)
	addFakeNode(t, c.Namespace, "--allocatable", "cpu=1")
	kubectlApply(t, "", fmt.Sprintf(`{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: %s}, value: 1000}`, c.Namespace))
	t.Cleanup(func() { clustertest.Kubectl(t, "delete", "priorityclass", c.Namespace) })
	cases := []podCase{
		{podFakeStep("preempted", "[{do: pending}, {do: succeed}]", selects("nodes", c.Namespace), set("700m", "resources", "requests", "cpu"), infraRetries(0)),
			engine.Succeeded, engine.Exited, "", first(engine.NotStarted, "preempted by a pod of higher priority, before it was started", 2)},
	}
	x := beginPods(t, c, Options{}, &dag.Pipeline{Name: "preempted", Steps: stepsOf(cases)})
	x.pod("preempted", 1, "to have a node", onNode)
	kubectlApply(t, c.Namespace, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: large, annotations: {fake.kfs.dev/behavior: '{do: run}'}}, spec: {priorityClassName: %s, nodeSelector: {nodes: %s},
		tolerations: [{key: fake.kfs.dev/node, operator: Exists}], containers: [{name: main, image: x, resources: {requests: {cpu: 900m}}}]}}`, c.Namespace, c.Namespace))
	x.pod("preempted", 2, "to be made", there)
	clustertest.Kubectl(t, "delete", "pod", "large", "-n", c.Namespace, "--wait=false")
	x.wantCases(x.end(), cases)
}

// quota makes a quota, which holds when the function returns.
func quota(t testing.TB, namespace, name, hard string) {
	t.Helper()
	kubectlApply(t, namespace, fmt.Sprintf(`{apiVersion: v1, kind: ResourceQuota, metadata: {name: %s}, spec: {hard: %s}}`, name, hard))
	awaits(t, "the quota to be counted", func() error {
		if text := clustertest.Kubectl(t, "get", "resourcequota", name, "-n", namespace, "-o", "jsonpath={.status.hard}"); !strings.Contains(text, "pods") {
			return fmt.Errorf("it is %q", text)
		}
		return nil
	})
}

// TestE2EPodQuota fills quotas: the run's own finished pods go first, and else
// it waits, and says so.
func TestE2EPodQuota(t *testing.T) {
	t.Parallel()
	c := podCluster(t)
	addFakeNode(t, c.Namespace)
	on := selects("nodes", c.Namespace)
	// Two pods may be there, finished ones too.
	quota(t, c.Namespace, "two", "{count/pods: 2, count/jobs.batch: 1}")
	p := &dag.Pipeline{Name: "own"}
	var want []podCase
	for i := range 6 {
		s := podFakeStep(fmt.Sprint("s", i), "{do: succeed}", on)
		if i%3 == 2 {
			asJob(s)
		}
		if i > 0 {
			s.After = []dag.Edge{{Step: fmt.Sprint("s", i-1)}}
		}
		p.Steps = append(p.Steps, s)
		want = append(want, podCase{s, engine.Succeeded, engine.Exited, "", attempts(1)})
	}
	x := beginPods(t, c, Options{}, p)
	x.wantCases(x.end(), want)
	awaits(t, "the pods of the first run to be gone", func() error {
		clustertest.Kubectl(t, "delete", "jobs,pods", "-n", c.Namespace, "--all")
		if text := clustertest.Kubectl(t, "get", "resourcequota", "two", "-n", c.Namespace, "-o", "jsonpath={.status.used}"); !strings.Contains(text, `"count/pods":"0"`) {
			return fmt.Errorf("%s are used", text)
		}
		return nil
	})

	// Now others have filled it.
	for i := range 2 {
		kubectlApply(t, c.Namespace, fmt.Sprintf(`{apiVersion: v1, kind: Pod, metadata: {name: other-%d}, spec: {nodeSelector: {no: such}, containers: [{name: main, image: x}]}}`, i))
	}
	cases := []podCase{
		{podFakeStep("patient", "{do: succeed}", on), engine.Succeeded, engine.Exited, "", attempts(1)},
		{podFakeStep("impatient", "{do: succeed}", on, func(s *dag.Step) { s.PendingTimeout = "2" }), engine.Failed, engine.CannotRun, "waits for the quota of the namespace: pods", attempts(1)},
	}
	x = beginPods(t, c, Options{}, &dag.Pipeline{Name: "others", Steps: stepsOf(cases)})
	x.saysPending("patient", "waits for the quota of the namespace")
	x.saysPending("patient", "exceeded quota: two")
	awaits(t, "the impatient step to fail", func() error {
		if !x.told("impatient", func(ev engine.Event) bool { return ev.State == engine.Failed }) {
			return fmt.Errorf("it has not")
		}
		return nil
	})
	clustertest.Kubectl(t, "patch", "resourcequota", "two", "-n", c.Namespace, "-p", `{"spec":{"hard":{"count/pods":"4"}}}`)
	x.wantCases(x.end(), cases)
}

// TestE2EPodStop stops a run whose steps are at all stages.
func TestE2EPodStop(t *testing.T) {
	t.Parallel()
	c := podCluster(t)
	limits := podLimits
	limits.Grace, limits.BadConfig = 15*time.Second, 2*time.Minute
	no := nodeStep("no-quota", "true")
	no.After = []dag.Edge{{Step: "quick"}}
	cases := []podCase{
		{nodeStep("quick", gated+"exit 0"), engine.Succeeded, engine.Exited, "", nil},
		{nodeStep("no-node", "true", selects("no", "such")), engine.Cancelled, engine.Stopped, "the run was stopped", nil},
		{nodeStep("not-started", "true", set([]any{tree("secretRef", tree("name", "nope"))}, "envFrom")), engine.Cancelled, engine.Stopped, "the run was stopped", nil},
		{nodeStep("polite", polite), engine.Cancelled, engine.Stopped, "the run was stopped", nil},
		{nodeStep("job", polite, asJob), engine.Cancelled, engine.Stopped, "the run was stopped", nil},
		{nodeStep("deaf", stubborn, once), engine.Cancelled, engine.Stopped, "the run was stopped", first(engine.Stopped, "exited with 137", 1)},
		{no, engine.Cancelled, engine.Stopped, "the run was stopped", nil},
	}
	x := beginPods(t, c, Options{Limits: limits}, &dag.Pipeline{Name: "stop", Steps: stepsOf(cases)})
	for _, step := range []string{"polite", "job", "deaf"} {
		x.ready(step, 1)
	}
	quick := x.ready("quick", 1)
	x.pod("no-node", 1, "to be made", there)
	x.pod("not-started", 1, "to wait for its secret", waiting("CreateContainerConfigError"))
	quota(t, c.Namespace, "none", "{count/pods: 0}")
	x.openGate(quick)
	x.saysPending("no-quota", "waits for the quota of the namespace")
	x.stop <- engine.StopGraceful
	ended := func(step string) func() error {
		return func() error {
			if !x.told(step, func(ev engine.Event) bool { return ev.State == engine.Cancelled }) {
				return fmt.Errorf("it has not")
			}
			return nil
		}
	}
	for _, step := range []string{"no-quota", "no-node", "not-started", "polite", "job"} {
		awaits(t, "step "+step+" to be stopped", ended(step))
	}
	// A kubelet that has begun to end a container cannot be hurried: force after
	// grace ends the pod when its grace is over.
	x.stop <- engine.StopForce
	x.wantCases(x.end(), cases)
	// Nothing is left that runs.
	awaits(t, "all pods to be over", func() error {
		list, err := c.pods.List(context.Background(), selector(x.name, ""))
		if err != nil {
			return err
		}
		for i := range list.Items {
			if pod := &list.Items[i]; !terminal(pod) && pod.DeletionTimestamp == nil {
				return fmt.Errorf("pod %s is %s", pod.Name, pod.Status.Phase)
			}
		}
		return nil
	})
}
