//go:build e2e

package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/clustertest"
)

// This file has what the tests of pods share: steps on the real node and on
// fake ones, runs that are left and resumed, and what is done to their pods.

// podLimits are limits that these tests need not wait for.
var podLimits = Limits{Grace: 2 * time.Second, Lease: 6 * time.Second, BadImage: 3 * time.Second, PullBackoff: 8 * time.Second,
	BadConfig: 5 * time.Second, Mount: 10 * time.Second, Pending: 3 * time.Minute, Slow: time.Second, Settle: 6 * time.Second, Away: 5 * time.Second}

// A stepChange makes a step of a test what it is.
type stepChange func(*dag.Step)

// nodeStep returns a step that runs a shell script on the real node.
func nodeStep(name, script string, changes ...stepChange) *dag.Step {
	s := &dag.Step{Name: name, Container: tree("image", clustertest.BusyboxImage, "command", []any{"sh", "-c", script, "sh"})}
	for _, change := range changes {
		change(s)
	}
	return s
}

// podFakeStep returns a step on a fake node, which does as the behavior says.
func podFakeStep(name, behavior string, changes ...stepChange) *dag.Step {
	s := nodeStep(name, "", changes...)
	s.Tolerations = append(s.Tolerations, tree("key", "fake.kfs.dev/node", "operator", "Exists"))
	if len(s.NodeSelector) == 0 {
		s.NodeSelector = tree("fake.kfs.dev/node", "true")
	}
	s.Annotations.Set(behavior, "fake.kfs.dev/behavior")
	s.Annotations.Set(newName("key"), "fake.kfs.dev/key") // the attempts are counted together
	return s
}

func set(value any, path ...string) stepChange {
	return func(s *dag.Step) { s.Container.Set(value, path...) }
}

// out makes a step leave /tmp/out/o, of which another one makes text.
func out(s *dag.Step) { s.Outputs = append(s.Outputs, dag.Output{Name: "o", Path: "/tmp/out/o"}) }

func once(s *dag.Step) { s.Once = true }

func asJob(s *dag.Step) { s.Primitive = "job" }

func infraRetries(n int) stepChange { return func(s *dag.Step) { s.InfraRetries = &n } }

func selects(label, value string) stepChange {
	return func(s *dag.Step) { s.NodeSelector = tree(label, value) }
}

func volumes(volumes ...dag.Object) stepChange {
	return func(s *dag.Step) { s.Volumes = append(s.Volumes, volumes...) }
}

func mounts(name, at string) stepChange {
	return func(s *dag.Step) { s.Container.Append("volumeMounts", tree("name", name, "mountPath", at)) }
}

// reader returns a step that makes text of the outputs of others, so that they
// must be text. It fails, as one of them does at least.
func reader(steps ...*dag.Step) *dag.Step {
	r := nodeStep("reader", "exit 1")
	for _, s := range steps {
		for _, o := range s.Outputs {
			r.Container.Append("args", dag.Ref{Kind: dag.RefOutput, Step: s.Name, Name: o.Name}.Token())
		}
	}
	return r
}

// A podRun is a run that goes on beside its test.
type podRun struct {
	testing.TB
	c    *Cluster
	p    *dag.Pipeline
	name string

	mu     sync.Mutex
	events []engine.Event
	stop   chan engine.StopKind
	leave  func()
	done   chan struct{} // closed when the driver is
	result *engine.Result
	err    error
}

// beginPods begins a run of steps. No two attempts of a step may overlap, but of
// those that are named.
func beginPods(t testing.TB, c *Cluster, opts Options, p *dag.Pipeline, overlap ...string) *podRun {
	t.Helper()
	if opts.Image == "" {
		opts.Image = clustertest.KfsImage
	}
	if opts.Limits == (Limits{}) {
		opts.Limits = podLimits
	}
	name := newName(p.Name)
	x := &podRun{TB: t, c: c, p: p, name: name}
	r, err := Create(t.Context(), c, p, infoOf(name), opts, "test")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			x.log()
		}
		if err := Delete(context.Background(), c, name, true); err != nil && !errors.Is(err, ErrNoRun) {
			t.Errorf("delete run %s: %v", name, err)
		}
	})
	x.drive(r)
	go x.watchOverlap(overlap)
	return x
}

// drive carries the run on, until it has ended or leave is called.
func (x *podRun) drive(r *Run) {
	ctx, cancel := context.WithCancel(x.Context())
	x.stop, x.done = make(chan engine.StopKind, 2), make(chan struct{})
	stop, done := x.stop, x.done
	x.leave = func() {
		cancel()
		<-done
	}
	x.Cleanup(x.leave)
	r.Notice = func(text string) {
		if ctx.Err() == nil {
			x.Logf("notice: %s", text)
		}
	}
	go func() {
		defer close(done)
		x.result, x.err = drive(ctx, r, engine.Config{Stop: stop, Events: x.event})
	}()
}

// resume goes on with a run that was left.
func (x *podRun) resume() {
	x.Helper()
	r, err := Open(x.Context(), x.c, x.name)
	if err != nil {
		x.Fatal(err)
	}
	x.drive(r)
}

func (x *podRun) event(ev engine.Event) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.events = append(x.events, ev)
}

// told returns whether an event of the step is one that ok looks for.
func (x *podRun) told(step string, ok func(engine.Event) bool) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return slices.ContainsFunc(x.events, func(ev engine.Event) bool { return ev.Step == step && ok(ev) })
}

// saysPending waits until it is told why a step does not start.
func (x *podRun) saysPending(step, why string) {
	x.Helper()
	awaits(x, "the reason of step "+step, func() error {
		if !x.told(step, func(ev engine.Event) bool {
			return ev.State == engine.Pending && strings.Contains(ev.Reason+" "+ev.Message, why)
		}) {
			return fmt.Errorf("want one with %q", why)
		}
		return nil
	})
}

// end waits until the run has ended, and returns the records of its steps.
func (x *podRun) end() map[string]engine.Record {
	x.Helper()
	select {
	case <-x.done:
	case <-time.After(6 * time.Minute):
		x.Fatal("the run has not ended")
	}
	if x.err != nil {
		x.Fatal(x.err)
	}
	records := map[string]engine.Record{}
	for _, r := range x.result.Steps {
		records[r.Step] = r
	}
	return records
}

func (x *podRun) log() {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, ev := range x.events {
		x.Logf("%s %s %s#%d %s: %.300s %.300s%s", ev.Time.Format("15:04:05.000"), ev.Kind, ev.Step, ev.Attempt, ev.State, ev.Reason, ev.Message, ev.Line)
	}
}

// attempt returns the name of the pod of a step's attempt.
func (x *podRun) attempt(step string, n int) string {
	return engine.AttemptID(infoOf(x.name).ID, step, n)
}

// pod waits until the pod of an attempt is as it should be.
func (x *podRun) pod(step string, n int, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	x.Helper()
	var pod *corev1.Pod
	awaits(x, fmt.Sprintf("the pod of attempt %d of step %s %s", n, step, what), func() error {
		list, err := x.c.pods.List(x.Context(), metav1.ListOptions{LabelSelector: attemptLabel + "=" + x.attempt(step, n)})
		if err != nil {
			return err
		}
		if len(list.Items) == 0 {
			return fmt.Errorf("there is none")
		}
		if pod = &list.Items[0]; !ok(pod) {
			status, _ := json.Marshal(pod.Status)
			return fmt.Errorf("it is %s", status)
		}
		return nil
	})
	return pod
}

func there(*corev1.Pod) bool { return true }

func running(pod *corev1.Pod) bool { return mainStatus(pod).State.Running != nil }

func terminal(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

func onNode(pod *corev1.Pod) bool { return pod.Spec.NodeName != "" }

func waiting(reason string) func(*corev1.Pod) bool {
	return func(pod *corev1.Pod) bool {
		w := mainStatus(pod).State.Waiting
		return w != nil && w.Reason == reason
	}
}

// ready waits until the command of a step has written "ready".
func (x *podRun) ready(step string, n int) *corev1.Pod {
	x.Helper()
	pod := x.pod(step, n, "to run", running)
	awaits(x, "step "+step+" to be ready", func() error {
		text, err := x.c.core.Get().Namespace(x.c.Namespace).Resource("pods").Name(pod.Name).SubResource("log").
			VersionedParams(&corev1.PodLogOptions{Container: mainContainer}, parameterCodec()).Do(x.Context()).Raw()
		if err != nil || !strings.Contains(string(text), "ready") {
			return fmt.Errorf("it wrote %q, %v", text, err)
		}
		return nil
	})
	return pod
}

// del deletes a pod as somebody does who knows nothing of kfs.
func (x *podRun) del(pod *corev1.Pod) {
	x.Helper()
	grace := int64(15) // a busy machine may need seconds to run a trap
	if err := x.c.pods.Delete(x.Context(), pod.Name, metav1.DeleteOptions{GracePeriodSeconds: &grace}); err != nil {
		x.Error(err)
	}
}

// evict evicts a pod by the API, as draining its node does.
func (x *podRun) evict(pod *corev1.Pod) {
	x.Helper()
	clustertest.Command(x, "fault", "evict", pod.Namespace+"/"+pod.Name)
}

// watchOverlap sees that the pod of an attempt is not made before that of the
// attempt before has ended.
func (x *podRun) watchOverlap(except []string) {
	w, err := x.c.pods.Watch(x.Context(), selector(x.name, ""))
	if err != nil {
		return
	}
	defer w.Stop()
	open := map[string]string{} // pods that have not ended, by step
	for ev := range w.ResultChan() {
		pod, ok := ev.Object.(*corev1.Pod)
		if !ok {
			return
		}
		step := pod.Annotations[stepAnnotation]
		over := terminal(pod) || ev.Type == "DELETED" || pod.DeletionTimestamp != nil && pod.Spec.NodeName == ""
		switch other := open[step]; {
		case over && other == pod.Name:
			delete(open, step)
		case over:
		case other != "" && other != pod.Name && !slices.Contains(except, step):
			x.Errorf("step %s: pod %s is there while pod %s has not ended", step, pod.Name, other)
		default:
			open[step] = pod.Name
		}
	}
}

// A podCase is what is to become of a step.
type podCase struct {
	step   *dag.Step
	state  engine.State
	cause  engine.Cause
	reason string // a part of it, and of the message behind it
	also   func(t testing.TB, r engine.Record)
}

func attempts(n int) func(testing.TB, engine.Record) {
	return func(t testing.TB, r engine.Record) {
		t.Helper()
		if len(r.Attempts) != n {
			t.Errorf("step %s: %d attempts; want %d", r.Step, len(r.Attempts), n)
			for _, o := range r.Attempts {
				t.Logf("%+v", o)
			}
		}
	}
}

func outputIs(want string) func(testing.TB, engine.Record) {
	return func(t testing.TB, r engine.Record) {
		t.Helper()
		if got := r.Outputs["o"]; got != want {
			t.Errorf("step %s: output %q; want %q", r.Step, got, want)
		}
	}
}

func stepsOf(cases []podCase) []*dag.Step {
	var steps []*dag.Step
	for _, c := range cases {
		steps = append(steps, c.step)
	}
	return steps
}

// wantCases compares how steps have ended with how they should.
func (x *podRun) wantCases(got map[string]engine.Record, cases []podCase) {
	x.Helper()
	for _, c := range cases {
		r := got[c.step.Name]
		var o engine.Outcome
		if n := len(r.Attempts); n > 0 {
			o = r.Attempts[n-1]
		}
		if r.State != c.state || o.Cause != c.cause || !strings.Contains(r.Reason+"\n"+o.Message, c.reason) || c.reason == "" && r.Reason != "" {
			x.Errorf("step %s: %s, %s, %q, %q; want %s, %s, %q", c.step.Name, r.State, o.Cause, r.Reason, o.Message, c.state, c.cause, c.reason)
		}
		if c.also != nil {
			c.also(x, r)
		}
	}
}

// kubectlApply applies a manifest.
func kubectlApply(t testing.TB, namespace, manifest string) {
	t.Helper()
	cmd := exec.Command("kubectl", "apply", "-n", namespace, "-f", "-")
	cmd.Stdin = strings.NewReader(manifest)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("kubectl apply: %v\n%s", err, out)
	}
}

// crowd holds the tests that have many pods on the real node at the same time.
var crowd = make(chan struct{}, 2)

// crowded waits until there is room for many pods.
func crowded(t testing.TB) {
	crowd <- struct{}{}
	t.Cleanup(func() { <-crowd })
}

// awaits waits until f returns nil, on a machine that may be slow.
func awaits(t testing.TB, what string, f func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(4 * time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if err = f(); err == nil {
			return
		}
	}
	t.Fatalf("waiting for %s: %v", what, err)
}

// podCluster returns a cluster with a namespace of its own, and the images on
// the real node.
func podCluster(t testing.TB) *Cluster {
	t.Helper()
	clustertest.Busybox(t)
	clustertest.Kfs(t)
	c := newCluster(t)
	// A pod is refused as long as the namespace has no account for it.
	awaits(t, "the service account of namespace "+c.Namespace, func() error {
		_, err := c.accounts.Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	return c
}

// pushed pushes an image of busybox to a registry, and returns its name.
func pushed(t testing.TB, to, name string, flags ...string) string {
	t.Helper()
	args := []string{"image", "build", "-t", name, "--push", to, "--env", "PATH=/bin"}
	for _, applet := range []string{"sh", "mkdir", "cat", "sleep"} {
		args = append(args, "--symlink", "/bin/"+applet+"=/busybox")
	}
	return strings.TrimSpace(clustertest.Command(t, append(append(args, flags...), "/bin/busybox")...))
}

// login makes a pull secret for the private registry.
func login(t testing.TB, namespace, name string) {
	t.Helper()
	clustertest.Kubectl(t, "create", "secret", "docker-registry", name, "-n", namespace, "--docker-server", os.Getenv("KFS_PRIVATE_REGISTRY"),
		"--docker-username", os.Getenv("KFS_PRIVATE_REGISTRY_USER"), "--docker-password", os.Getenv("KFS_PRIVATE_REGISTRY_PASSWORD"))
}

// TestE2EPodEnds shows how steps end on a real node that nobody disturbs.
func TestE2EPodEnds(t *testing.T) {
	t.Parallel()
	crowded(t)
	c := podCluster(t)
	const written = "mkdir -p /tmp/out && printf '%s' "
	open := pushed(t, "open", "entry:1", "--entrypoint", "/bin/sh,-c", "--cmd", written+`'cmd $(HOME) $$' > /tmp/out/o`)
	private := pushed(t, "private", "entry:1", "--entrypoint", "/bin/sh,-c", "--cmd", written+"private > /tmp/out/o")
	login(t, c.Namespace, "puller")
	kubectlApply(t, c.Namespace, `{apiVersion: v1, kind: ServiceAccount, metadata: {name: puller}, imagePullSecrets: [{name: puller}]}`)

	image := func(name string) stepChange { return set(name, "image") }
	pendingFor := func(seconds string) stepChange {
		return func(s *dag.Step) { s.PendingTimeout = seconds }
	}
	noCommand := func(s *dag.Step) {
		s.Container = slices.DeleteFunc(s.Container, func(m dag.Member) bool { return m.Name == "command" })
	}
	initContainer := func(members ...any) stepChange {
		return func(s *dag.Step) { s.InitContainers = append(s.InitContainers, tree(members...)) }
	}
	sidecar := func(members ...any) stepChange {
		return func(s *dag.Step) { s.Sidecars = append(s.Sidecars, tree(members...)) }
	}
	emptyDir := func(name string, members ...any) dag.Object {
		return tree("name", name, "emptyDir", tree(members...))
	}
	script := func(text string, args ...any) []any { return append([]any{"sh", "-c", text, "sh"}, args...) }
	const hard = `$$ $(HOME) $$(HOME) $ $(o`
	value := dag.Ref{Kind: dag.RefParam, Name: "value"}.Token()
	sixSidecars := func(s *dag.Step) {
		for i := range 6 {
			s.Sidecars = append(s.Sidecars, tree("name", fmt.Sprint("side", i), "image", clustertest.BusyboxImage, "command", script("trap 'exit 0' TERM; sleep 100000 & wait")))
		}
	}
	memory := func(limit string) stepChange { return set(limit, "resources", "limits", "memory") }

	cases := []podCase{
		// Images.
		{nodeStep("bad-image-name", "true", image("Bad:Name:1")), engine.Failed, engine.CannotRun, "the image cannot be pulled: InvalidImageName", nil},
		{nodeStep("no-image", "true", image(os.Getenv("KFS_REGISTRY")+"/none:1")), engine.Failed, engine.CannotRun, "not found", nil},
		{nodeStep("no-registry", "true", image("127.0.0.1:1/x:1")), engine.Failed, engine.CannotRun, "the image cannot be pulled", nil},
		{nodeStep("no-login", "true", image(private)), engine.Failed, engine.CannotRun, "the image cannot be pulled", nil},
		{nodeStep("login", "true", image(private), func(s *dag.Step) { s.ServiceAccount = "puller" }), engine.Succeeded, engine.Exited, "", nil},
		// What the image runs is looked up, if there are outputs.
		{nodeStep("entrypoint-cmd", "", image(open), noCommand, out), engine.Succeeded, engine.Exited, "", outputIs("cmd $(HOME) $$")},
		{nodeStep("entrypoint-args", "", image(open), noCommand, out, set([]any{written + `"$0" > /tmp/out/o`, value}, "args")), engine.Succeeded, engine.Exited, "", outputIs(hard)},
		{nodeStep("entrypoint-private", "", image(private), noCommand, out, func(s *dag.Step) { s.ServiceAccount = "puller" }), engine.Succeeded, engine.Exited, "", outputIs("private")},
		{nodeStep("entrypoint-no-login", "", image(private), noCommand, out), engine.Failed, engine.CannotRun, "add command", nil},
		{nodeStep("entrypoint-no-image", "", image(os.Getenv("KFS_REGISTRY")+"/none:1"), noCommand, out), engine.Failed, engine.CannotRun, "add command", nil},

		// Configuration, volumes, nodes.
		{nodeStep("no-secret", "true", set([]any{tree("secretRef", tree("name", "nope"))}, "envFrom")), engine.Failed, engine.CannotRun, `secret "nope" not found`, nil},
		{nodeStep("no-config-map", "true", volumes(tree("name", "v", "configMap", tree("name", "nope"))), mounts("v", "/v")), engine.Failed, engine.CannotRun, `configmap "nope" not found`, nil},
		{nodeStep("no-claim", "true", volumes(tree("name", "v", "persistentVolumeClaim", tree("claimName", "nope"))), mounts("v", "/v"), pendingFor("10")), engine.Failed, engine.CannotRun, `persistentvolumeclaim "nope" not found`, nil},
		{nodeStep("no-node", "true", set("100", "resources", "requests", "cpu"), pendingFor("10")), engine.Failed, engine.CannotRun, "Insufficient cpu", nil},

		// Memory.
		{nodeStep("out-of-memory", "tail /dev/zero", memory("24Mi")), engine.Failed, engine.Exited, "its limit is 24Mi", nil},
		{nodeStep("out-of-memory-launched", "tail /dev/zero", memory("40Mi"), out), engine.Failed, engine.Exited, "its limit is 40Mi", nil},

		// Outputs.
		{nodeStep("no-output", "true", out), engine.Failed, engine.BadOutput, `output "o" was not written`, nil},
		{nodeStep("large-output", "mkdir -p /tmp/out; head -c 300000 /dev/zero | tr '\\0' x > /tmp/out/o", out), engine.Failed, engine.BadOutput, "larger than", nil},
		{nodeStep("many-containers", "mkdir -p /tmp/out; head -c 1200 /dev/urandom | od -An -tx1 -v | tr -d ' \\n' | head -c 2200 > /tmp/out/o", out, sixSidecars), engine.Failed, engine.BadOutput, "outputs have not arrived whole", nil},
		{nodeStep("many-containers-small", written+"small > /tmp/out/o", out, sixSidecars), engine.Succeeded, engine.Exited, "", outputIs("small")},
		{nodeStep("full-folder", "mkdir -p /tmp/out; head -c 2000000 /dev/zero > /tmp/out/o", out, volumes(emptyDir("v", "medium", "Memory", "sizeLimit", "1Mi")), mounts("v", "/tmp/out")), engine.Failed, engine.Exited, "exited with 1", nil},
		{nodeStep("full-disk", "trap 'exit 0' TERM; head -c 5000000 /dev/zero > /v/x; sleep 100000 & wait", infraRetries(0), volumes(emptyDir("v", "sizeLimit", "1Mi")), mounts("v", "/v")), engine.Failed, engine.Lost, `evicted: Usage of EmptyDir volume "v" exceeds the limit "1Mi"`, nil},

		// Init containers and sidecars.
		{nodeStep("failed-init", "true", initContainer("name", "load", "image", clustertest.BusyboxImage, "command", script("echo nothing to load; exit 4"))), engine.Failed, engine.Exited, `init container "load" exited with 4`, nil},
		{nodeStep("failed-init-launched", "true", out, initContainer("name", "load", "image", clustertest.BusyboxImage, "command", script("exit 97"))), engine.Failed, engine.Exited, `init container "load" exited with 97`, nil},
		{nodeStep("endless-sidecar", "true", sidecar("name", "db", "image", clustertest.BusyboxImage, "command", script("trap '' TERM; sleep 100000"))), engine.Succeeded, engine.Exited, "", nil},
		{nodeStep("values", `until [ -e /v/side ]; do sleep 0.1; done; mkdir -p /tmp/out; cat /v/init /v/side > /tmp/out/o; printf '%s|%s' "$1" "$V" >> /tmp/out/o`, out,
			set([]any{value}, "args"), set([]any{tree("name", "V", "value", value)}, "env"), volumes(emptyDir("v")), mounts("v", "/v"),
			initContainer("name", "load", "image", clustertest.BusyboxImage, "mirrorVolumeMounts", true, "command", script(`printf '%s|' "$1" "$V" > /v/init`, value), "env", []any{tree("name", "V", "value", value)}),
			sidecar("name", "db", "image", clustertest.BusyboxImage, "mirrorVolumeMounts", true, "command", script(`trap 'exit 0' TERM; printf '%s|' "$1" "$V" > /v/s; mv /v/s /v/side; sleep 100000 & wait`, value), "env", []any{tree("name", "V", "value", value)})),
			engine.Succeeded, engine.Exited, "", outputIs(strings.Repeat(hard+"|", 5) + hard)},

		// What no process and no API server takes.
		{nodeStep("long-argument", "true", set([]any{strings.Repeat("x", 128<<10)}, "args")), engine.Failed, engine.CannotRun, "hand the value on in a file: input_argument_path", nil},
		{nodeStep("large-pod", "true", set(slices.Repeat([]any{strings.Repeat("x", 120000)}, 12), "args")), engine.Failed, engine.CannotRun, "Kubernetes takes objects of at most", nil},
		{nodeStep("bad-field", "true", set("-1", "resources", "limits", "cpu")), engine.Failed, engine.CannotRun, "must be greater than or equal to 0", nil},

		// Jobs.
		{nodeStep("job", written+"done > /tmp/out/o", out, asJob), engine.Succeeded, engine.Exited, "", outputIs("done")},
		{nodeStep("job-failed", "echo no; exit 3", asJob), engine.Failed, engine.Exited, "exited with 3", attempts(1)},
		{nodeStep("job-retried", `exit 3`, asJob, func(s *dag.Step) { s.Retry = &dag.Retry{Limit: "1"} }), engine.Failed, engine.Exited, "exited with 3", attempts(2)},
		{nodeStep("job-no-node", "true", asJob, set("100", "resources", "requests", "cpu"), pendingFor("20")), engine.Failed, engine.CannotRun, "Insufficient cpu", nil},
		{nodeStep("job-no-account", "true", asJob, pendingFor("20"), func(s *dag.Step) { s.ServiceAccount = "nope" }), engine.Failed, engine.CannotRun, `serviceaccount "nope" not found`, nil},
	}
	p := &dag.Pipeline{Name: "ends", Params: []*dag.Param{{Name: "value", Default: new(hard)}}, Steps: stepsOf(cases)}
	// Two that the kernel decides: whether the shell goes on when its child is
	// out of memory depends on the version of cgroups.
	for _, s := range []*dag.Step{
		nodeStep("out-of-memory-and-on", "tail /dev/zero; exit 0", memory("24Mi")),
		nodeStep("out-of-memory-and-on-launched", "tail /dev/zero; "+written+"x > /tmp/out/o", memory("40Mi"), out),
	} {
		p.Steps = append(p.Steps, s)
	}
	p.Steps = append(p.Steps, reader(p.Steps...))
	began := time.Now()
	limits := podLimits
	limits.Settle = 2 * time.Minute // pods are looked at when all is over
	x := beginPods(t, c, Options{Limits: limits}, p)
	for step, why := range map[string]string{
		"no-node": "Insufficient cpu", "no-secret": `secret "nope" not found`, "no-config-map": `configmap "nope" not found`, "no-image": "not found",
	} {
		x.saysPending(step, why)
	}
	got := x.end()
	t.Logf("ended after %v", time.Since(began).Round(time.Second))
	x.wantCases(got, cases)
	for _, name := range []string{"out-of-memory-and-on", "out-of-memory-and-on-launched"} {
		r := got[name]
		var reason string // the runtime's word may come too late for the kubelet
		if t := mainStatus(x.pod(name, 1, "to be over", terminal)).State.Terminated; t != nil {
			reason = t.Reason
		}
		if r.State == engine.Succeeded && reason == "OOMKilled" && !strings.Contains(r.Reason, "exited with 0, but something in it ran out of memory: its limit is ") ||
			r.State == engine.Failed && (r.Attempts[0].ExitCode != 137 || !strings.Contains(r.Reason, "its limit is ")) {
			t.Errorf("step %s: %s, %q, %s; want a warning, or failed with the limit", name, r.State, r.Reason, reason)
		}
	}
}
