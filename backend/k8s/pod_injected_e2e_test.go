//go:build e2e

package k8s

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/clustertest"
)

// This file tests pods that the cluster changes, logs whose streams are cut, and
// steps that change an object of the cluster.

// inject changes the pods of a namespace that have the annotation inject with
// the name of the policy, as a service mesh does: by JSON patches in CEL.
func inject(t testing.TB, namespace, name, patches string) {
	t.Helper()
	policy := namespace + "-" + name
	kubectlApply(t, "", fmt.Sprintf(`
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicy
metadata: {name: %[1]s}
spec:
  failurePolicy: Fail
  reinvocationPolicy: Never
  matchConstraints:
    namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: %[2]s}}
    resourceRules: [{apiGroups: [""], apiVersions: [v1], operations: [CREATE], resources: [pods]}]
  matchConditions: [{name: asked, expression: "object.metadata.?annotations['inject'].orValue('') == '%[3]s'"}]
  mutations:
  - patchType: JSONPatch
    jsonPatch: {expression: %[4]q}
---
apiVersion: admissionregistration.k8s.io/v1
kind: MutatingAdmissionPolicyBinding
metadata: {name: %[1]s}
spec: {policyName: %[1]s}
`, policy, namespace, name, patches))
	t.Cleanup(func() {
		clustertest.Kubectl(t, "delete", "mutatingadmissionpolicy,mutatingadmissionpolicybinding", policy, "--ignore-not-found")
	})
	// It holds when the API server has taken note of it.
	const probe = `{"apiVersion":"v1","kind":"Pod","metadata":{"generateName":"probe-","annotations":{"inject":%q}},"spec":{"containers":[{"name":"main","image":"x"}],"volumes":[{"name":"kfs","emptyDir":{}}]}}`
	file := t.TempDir() + "/probe.json"
	if err := os.WriteFile(file, fmt.Appendf(nil, probe, name), 0o600); err != nil {
		t.Fatal(err)
	}
	awaits(t, "policy "+name+" to hold", func() error {
		if out := clustertest.Kubectl(t, "create", "-n", namespace, "-f", file, "--dry-run=server", "-o", "jsonpath={.metadata.annotations.injected}"); out != "yes" {
			return fmt.Errorf("a pod has the mark %q", out)
		}
		return nil
	})
}

// marked is the patch that shows that a policy holds.
const marked = `JSONPatch{op: "add", path: "/metadata/annotations/injected", value: "yes"}`

func injected(policy string) stepChange {
	return func(s *dag.Step) { s.Annotations.Set(policy, "inject") }
}

// TestE2EPodInjected runs steps in pods that others change: a container that
// never ends holds nothing up, one that is started twice runs its command once,
// and a folder that is full fails the step.
func TestE2EPodInjected(t *testing.T) {
	t.Parallel()
	crowded(t)
	c := podCluster(t)
	inject(t, c.Namespace, "hang", fmt.Sprintf(`[%s, JSONPatch{op: "add", path: "/spec/containers/-", value: Object.spec.containers{name: "proxy", image: %q, command: ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait"]}}]`, marked, clustertest.BusyboxImage))
	inject(t, c.Namespace, "again", fmt.Sprintf(`[%s, JSONPatch{op: "add", path: "/spec/containers/0/restartPolicy", value: "Never"}, JSONPatch{op: "add", path: "/spec/containers/0/restartPolicyRules", value: [Object.spec.containers.restartPolicyRules{action: "Restart", exitCodes: Object.spec.containers.restartPolicyRules.exitCodes{operator: "In", values: [42]}}]}]`, marked))
	const folder = `"/spec/volumes/" + string(object.spec.volumes.map(v, v.name).indexOf("kfs")) + "/emptyDir/`
	inject(t, c.Namespace, "small", fmt.Sprintf(`[%s, JSONPatch{op: "add", path: %smedium", value: "Memory"}, JSONPatch{op: "add", path: %ssizeLimit", value: "16Mi"}]`, marked, folder, folder))

	login(t, c.Namespace, "puller")
	private := pushed(t, "private", "entry:1", "--entrypoint", "/bin/sh,-c", "--cmd", "mkdir -p /tmp/out && printf '%s' private > /tmp/out/o")
	noCommand := func(s *dag.Step) { s.Container = tree("image", private) }

	volume := tree("name", "v", "emptyDir", dag.Object{})
	// The first start leaves a mark and asks to be started again.
	const again = `[ -e /v/mark ] && echo again || { touch /v/mark; exit 42; }`
	hung := nodeStep("hung", "true", injected("hang"))
	next := nodeStep("next", "true")
	next.After = []dag.Edge{{Step: "hung"}}
	large := nodeStep("full", "mkdir -p /tmp/out; head -c 20000000 /dev/zero > /tmp/out/o", out, injected("small"), infraRetries(0))
	taken := nodeStep("taker", "true")
	taken.Artifacts = []dag.Artifact{{Name: "o", Path: "/tmp/in/o", Text: dag.Ref{Kind: dag.RefOutput, Step: "full", Name: "o"}.Token()}}
	cases := []podCase{
		{hung, engine.Succeeded, engine.Exited, "", attempts(1)},
		{next, engine.Succeeded, engine.Exited, "", attempts(1)},
		{nodeStep("hung-launched", "mkdir -p /tmp/out; echo 1 > /tmp/out/o", out, injected("hang")), engine.Succeeded, engine.Exited, "", outputIs("1")},
		{nodeStep("hung-failed", "exit 3", injected("hang")), engine.Failed, engine.Exited, "exited with 3", attempts(1)},
		{nodeStep("hung-retried", `case "$1" in *-a1) exit 3 ;; esac`, injected("hang"), podName, func(s *dag.Step) { s.Retry = &dag.Retry{Limit: "1"} }), engine.Succeeded, engine.Exited, "", first(engine.Exited, "exited with 3", 2)},
		{nodeStep("again", again, injected("again"), volumes(volume), mounts("v", "/v")), engine.Succeeded, engine.Exited, "exited with 0, but its container was started 2 times in its pod", attempts(1)},
		{nodeStep("again-launched", again+"; mkdir -p /tmp/out; echo 1 > /tmp/out/o", out, injected("again"), volumes(volume), mounts("v", "/v"), infraRetries(0)), engine.Unknown, engine.Vanished, "its container was started a second time, and the command was not", attempts(1)},
		{nodeStep("again-once", again, once, injected("again"), volumes(volume), mounts("v", "/v")), engine.Unknown, engine.Vanished, "its container was started a second time, and the command was not", attempts(1)},
		{large, engine.Failed, engine.Lost, "no space left on device", attempts(1)},
		{taken, engine.Skipped, "", `step "full" failed`, nil},
		{nodeStep("private", "", noCommand, out), engine.Succeeded, engine.Exited, "", outputIs("private")},
	}
	p := &dag.Pipeline{Name: "injected", Steps: stepsOf(cases), Conf: &dag.Conf{ImagePullSecrets: []dag.Object{tree("name", "puller")},
		DataVolume: tree("name", "data", "emptyDir", dag.Object{}), DataPrefix: "data"}}
	x := beginPods(t, c, Options{}, p)
	got := x.end()
	x.wantCases(got, cases)
	// What hangs was cleared when its time was over.
	awaits(t, "all pods to be over", func() error {
		list, err := c.pods.List(t.Context(), selector(x.name, ""))
		if err != nil {
			return err
		}
		for i := range list.Items {
			if pod := &list.Items[i]; !terminal(pod) {
				return fmt.Errorf("pod %s is %s", pod.Name, pod.Status.Phase)
			}
		}
		return nil
	})
}

// A cutBody ends with an error after some bytes.
type cutBody struct {
	io.ReadCloser
	left int
}

func (b *cutBody) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, io.ErrUnexpectedEOF
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}

type cutLogs struct {
	next http.RoundTripper
	n    *atomic.Int64
}

var followed = regexp.MustCompile(`/pods/[^/]*/log$`)

func (c cutLogs) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := c.next.RoundTrip(r)
	if err == nil && followed.MatchString(r.URL.Path) && r.URL.Query().Get("follow") == "true" {
		response.Body = &cutBody{response.Body, int(7000 + 1313*(c.n.Add(1)%7))}
	}
	return response, err
}

// TestE2EPodLogsCut cuts the stream of a log again and again: no line is lost,
// none comes twice, and they are in order.
func TestE2EPodLogsCut(t *testing.T) {
	t.Parallel()
	plain := podCluster(t)
	config := rest.CopyConfig(clustertest.Config(t))
	var cuts atomic.Int64
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return cutLogs{next, &cuts} })
	c, err := NewCluster(config, plain.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	const n = 3000
	s := nodeStep("talk", fmt.Sprintf(`i=0; while [ $i -lt %d ]; do echo "line $i of the log"; i=$((i+1)); [ $((i%%100)) = 0 ] && sleep 0.2; done; printf end`, n))
	x := beginPods(t, c, Options{}, &dag.Pipeline{Name: "logs", Steps: []*dag.Step{s}})
	x.end()
	var lines []string
	x.mu.Lock()
	for _, ev := range x.events {
		if ev.Kind == engine.EventLog {
			lines = append(lines, ev.Line)
		}
	}
	x.mu.Unlock()
	for i := range n {
		if want := fmt.Sprintf("line %d of the log", i); i >= len(lines) || lines[i] != want {
			t.Fatalf("of %d lines, the one at %d is not %q: %q", len(lines), i, want, lines[min(i, len(lines)):min(i+3, len(lines))])
		}
	}
	if len(lines) != n+1 || lines[n] != "end" {
		t.Errorf("after all lines: %q; want the one without an end", lines[n:])
	}
	if cuts.Load() < 3 {
		t.Errorf("the stream was cut %d times; want more", cuts.Load())
	}
}

// TestE2EPodResources runs steps that change objects of the cluster, and others
// that use what they made.
func TestE2EPodResources(t *testing.T) {
	t.Parallel()
	c := podCluster(t)
	claim := newName("claim")
	kubectlApply(t, "", fmt.Sprintf(`{apiVersion: v1, kind: PersistentVolume, metadata: {name: %s}, spec: {capacity: {storage: 1Mi}, accessModes: [ReadWriteOnce], storageClassName: "",
		hostPath: {path: /tmp/%s, type: DirectoryOrCreate}, claimRef: {namespace: %s, name: %s}}}`, claim, claim, c.Namespace, claim))
	t.Cleanup(func() { clustertest.Kubectl(t, "delete", "persistentvolume", claim, "--wait=false") })
	job := &dag.Step{Name: "make-job", Resource: &dag.Resource{Action: "create", SuccessCondition: "status.succeeded > 0", FailureCondition: "status.failed > 0",
		Manifest: tree("apiVersion", "batch/v1", "kind", "Job", "metadata", tree("generateName", "made-"), "spec", tree("backoffLimit", int64(0), "template", tree("spec", tree("restartPolicy", "Never",
			"containers", []any{tree("name", "main", "image", clustertest.BusyboxImage, "command", []any{"true"})}))))},
		Outputs: []dag.Output{{Name: "name", JSONPath: "{.metadata.name}"}, {Name: "done", JSONPath: "{.status.succeeded}"}}}
	volume := &dag.Step{Name: "make-claim", Resource: &dag.Resource{Action: "create", Manifest: tree("apiVersion", "v1", "kind", "PersistentVolumeClaim", "metadata", tree("name", claim),
		"spec", tree("accessModes", []any{"ReadWriteOnce"}, "storageClassName", "", "resources", tree("requests", tree("storage", "1Mi"))))},
		Outputs: []dag.Output{{Name: "name", JSONPath: "{.metadata.name}"}}}
	output := func(step, name string) string {
		return dag.Ref{Kind: dag.RefOutput, Step: step, Name: name}.Token()
	}
	onClaim := volumes(tree("name", "v", "persistentVolumeClaim", tree("claimName", output("make-claim", "name"))))
	write := nodeStep("write", `printf '%s' "$1 $2" > /v/x`, onClaim, mounts("v", "/v"), set([]any{output("make-job", "name"), output("make-job", "done")}, "args"))
	read := nodeStep("read", `mkdir -p /tmp/out; cat /v/x > /tmp/out/o`, onClaim, mounts("v", "/v"), out)
	read.After = []dag.Edge{{Step: "write"}}
	cases := []podCase{
		{job, engine.Succeeded, engine.Exited, "", nil}, {volume, engine.Succeeded, engine.Exited, "", nil},
		{write, engine.Succeeded, engine.Exited, "", nil}, {read, engine.Succeeded, engine.Exited, "", nil},
	}
	x := beginPods(t, c, Options{}, &dag.Pipeline{Name: "resources", Steps: stepsOf(cases)})
	got := x.end()
	x.wantCases(got, cases)
	name := got["make-job"].Outputs["name"]
	if text := got["read"].Outputs["o"]; !strings.HasPrefix(name, "made-") || text != name+" 1" {
		t.Errorf("read %q; want the name of the job, %q, and that one pod of it has succeeded", text, name)
	}
	// They are the author's own and stay when the run is deleted.
	if err := Delete(t.Context(), c, x.name, false); err != nil {
		t.Error(err)
	}
	time.Sleep(time.Second) // for what must not happen
	if _, err := c.jobs.Get(t.Context(), name, metav1.GetOptions{}); err != nil {
		t.Errorf("the job of a step: %v", err)
	}
}
