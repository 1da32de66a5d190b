//go:build e2e

package resource

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
)

// This file tests attempts on a real API server. Its Jobs run on a fake node,
// which an annotation of the pod tells what becomes of it.

// A cluster is a namespace of one test in the cluster that is up.
type cluster struct {
	*testing.T
	rc        *rest.Config
	client    dynamic.Interface
	namespace string
	owner     metav1.OwnerReference
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{T: t, rc: config(t, "KUBECONFIG"), namespace: "resource-" + rand.String(6)}
	var err error
	if c.client, err = dynamic.NewForConfig(c.rc); err != nil {
		t.Fatal(err)
	}
	c.make("namespaces", `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "`+c.namespace+`"}}`)
	run := c.make("configmaps", `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "run"}}`)
	c.owner = metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: "run", UID: run.GetUID()}
	return c
}

// config reads the kubeconfig that a variable names.
func config(t *testing.T, variable string) *rest.Config {
	path := os.Getenv(variable)
	if path == "" {
		t.Fatalf("%s is not set: these tests want a cluster, as make e2e and make cluster bring up", variable)
	}
	rc, err := clientcmd.BuildConfigFromFlags("", path)
	if err != nil {
		t.Fatal(err)
	}
	rc.QPS, rc.WarningHandler = -1, rest.NoWarnings{}
	return rc
}

// bin runs the command of the clusters.
func (c *cluster) bin(args ...string) {
	c.Helper()
	path, err := filepath.Abs("../../../bin/cluster")
	if err != nil {
		c.Fatal(err)
	}
	if out, err := exec.Command(path, args...).CombinedOutput(); err != nil {
		c.Fatalf("cluster %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// groups are of what resources the tests use beside core/v1.
var groups = map[string]schema.GroupVersion{
	"jobs":                      {Group: "batch", Version: "v1"},
	"deployments":               {Group: "apps", Version: "v1"},
	"trainjobs":                 {Group: "trainer.kubeflow.org", Version: "v1alpha1"},
	"customresourcedefinitions": {Group: "apiextensions.k8s.io", Version: "v1"},
}

// of returns the client for a resource, in the plural.
func (c *cluster) of(plural string) dynamic.ResourceInterface {
	gv := schema.GroupVersion{Version: "v1"}
	if g, ok := groups[plural]; ok {
		gv = g
	}
	switch r := c.client.Resource(gv.WithResource(plural)); plural {
	case "namespaces", "customresourcedefinitions":
		return r
	default:
		return r.Namespace(c.namespace)
	}
}

// make creates an object, which is deleted at the end of the test.
func (c *cluster) make(plural, text string) *unstructured.Unstructured {
	c.Helper()
	obj, err := c.of(plural).Create(c.Context(), &unstructured.Unstructured{Object: tree(c.T, text)}, metav1.CreateOptions{})
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { c.of(plural).Delete(context.Background(), obj.GetName(), metav1.DeleteOptions{}) })
	return obj
}

// get returns an object, or nil.
func (c *cluster) get(plural, name string) *unstructured.Unstructured {
	c.Helper()
	obj, err := c.of(plural).Get(c.Context(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		c.Fatal(err)
	}
	return obj
}

func (c *cluster) patch(plural, name, text string, subresources ...string) {
	c.Helper()
	if _, err := c.of(plural).Patch(c.Context(), name, types.MergePatchType, []byte(text), metav1.PatchOptions{}, subresources...); err != nil {
		c.Fatal(err)
	}
}

func (c *cluster) count(plural string) int {
	c.Helper()
	list, err := c.of(plural).List(c.Context(), metav1.ListOptions{})
	if err != nil {
		c.Fatal(err)
	}
	return len(list.Items)
}

// runner returns a new driver's runner.
func (c *cluster) runner(intents Intents, change ...func(*rest.Config, *Config)) *Runner {
	c.Helper()
	rc := rest.CopyConfig(c.rc)
	cfg := Config{
		Namespace: c.namespace, Owner: c.owner, Labels: map[string]string{"kfs.dev/run": "r"},
		Request: 3 * time.Second, Backoff: 20 * time.Millisecond, MaxBackoff: time.Second, Settle: 3 * time.Second,
	}
	for _, f := range change {
		f(rc, &cfg)
	}
	r, err := New(rc, intents, cfg)
	if err != nil {
		c.Fatal(err)
	}
	return r
}

// attempt returns one with the outputs of each resource_op, nobody's, and more
// that somebody uses.
func (c *cluster) attempt(id, action, text string, more ...dag.Output) *engine.Attempt {
	c.Helper()
	a := &engine.Attempt{ID: id, Resource: &dag.Resource{Action: action, Manifest: manifest(c.T, text)}}
	if action != "delete" {
		a.Outputs = []engine.Output{
			{Output: dag.Output{Name: "name", JSONPath: "{.metadata.name}"}, File: true},
			{Output: dag.Output{Name: "manifest", JSONPath: "{}"}, File: true},
		}
	}
	for _, o := range more {
		a.Outputs = append(a.Outputs, engine.Output{Output: o})
	}
	return a
}

// An underway is an attempt that runs.
type underway struct {
	*cluster
	cancel context.CancelFunc
	done   chan error

	mu   sync.Mutex
	seen []engine.Observation
}

func (c *cluster) start(r *Runner, a *engine.Attempt) *underway {
	ctx, cancel := context.WithCancel(c.Context())
	u := &underway{cluster: c, cancel: cancel, done: make(chan error, 1)}
	go func() { u.done <- r.Run(ctx, a, u.report) }()
	c.Cleanup(cancel)
	return u
}

func (u *underway) report(o engine.Observation) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.seen = append(u.seen, o)
}

// latest returns what was seen last.
func (u *underway) latest() engine.Observation {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.seen) == 0 {
		return engine.Observation{}
	}
	return u.seen[len(u.seen)-1]
}

// until waits until an observation has the reason, a regular expression.
func (u *underway) until(phase engine.Phase, reason string) {
	u.Helper()
	re := regexp.MustCompile(reason)
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if o := u.latest(); o.Phase == phase && re.MatchString(o.Reason) {
			return
		}
	}
	u.Fatalf("after 30 s: %+v; want phase %d and reason %q", u.latest(), phase, reason)
}

// finish waits for the end, and returns it.
func (u *underway) finish() engine.Observation {
	u.Helper()
	select {
	case err := <-u.done:
		if err != nil {
			u.Fatalf("Run: %v; %+v", err, u.latest())
		}
	case <-time.After(60 * time.Second):
		u.Fatalf("after 60 s: %+v", u.latest())
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, o := range u.seen[:len(u.seen)-1] {
		if o.Phase == engine.PhaseFinished {
			u.Fatalf("finished twice: %+v", u.seen)
		}
	}
	return u.seen[len(u.seen)-1]
}

// leave ends the driver, as a crash does.
func (u *underway) leave() {
	u.Helper()
	u.cancel()
	if err := <-u.done; !errors.Is(err, context.Canceled) {
		u.Fatalf("Run of a driver that ends: %v", err)
	}
}

// want checks an end.
func (c *cluster) want(o engine.Observation, cause engine.Cause, exitCode int, reason string) {
	c.Helper()
	if o.Phase != engine.PhaseFinished || o.Cause != cause || o.ExitCode != exitCode || !regexp.MustCompile("^(?:"+reason+")$").MatchString(o.Reason) {
		c.Fatalf("%s, exit code %d, reason %q\n%s\nwant %s, exit code %d, reason %q", o.Cause, o.ExitCode, o.Reason, o.Message, cause, exitCode, reason)
	}
}

// run carries an attempt out by a new runner, and wants success.
func (c *cluster) run(a *engine.Attempt) engine.Observation {
	c.Helper()
	o := c.start(c.runner(&memIntents{}), a).finish()
	c.want(o, engine.Exited, 0, "")
	return o
}

// refused carries an attempt out by a new runner, and wants it refused.
func (c *cluster) refused(a *engine.Attempt, reason string) engine.Observation {
	c.Helper()
	o := c.start(c.runner(&memIntents{}), a).finish()
	c.want(o, engine.CannotRun, 0, reason)
	return o
}

func configMap(name, data string) string {
	return fmt.Sprintf(`{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": %q}, "data": %s}`, name, data)
}

const pvc = `{"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data"},
	"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}`

// job returns a Job whose pods do as told, and spec's other fields.
func job(metadata, do, spec string) string {
	return fmt.Sprintf(`{"apiVersion": "batch/v1", "kind": "Job", "metadata": {%s}, "spec": {%s "template": {
		"metadata": {"annotations": {"fake.kfs.dev/behavior": "{do: %s}"}},
		"spec": {"restartPolicy": "Never", "nodeSelector": {"nodes": "resource"},
			"tolerations": [{"key": "fake.kfs.dev/node", "operator": "Exists"}],
			"containers": [{"name": "main", "image": "localhost/none"}]}}}}`, metadata, spec, do)
}

func (c *cluster) fakeNode() {
	c.bin("nodes", "add", "--count", "1", "--prefix", "resource", "--label", "nodes=resource")
}

// TestE2ECreate creates objects with all that makes them objects of the run.
func TestE2ECreate(t *testing.T) {
	c := newCluster(t)
	a := c.attempt("cm-1", "create", `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"generateName": "cm-", "labels": {"a": "b"}}, "data": {"n": "3"}}`,
		dag.Output{Name: "n", JSONPath: "{.data.n}"})
	yes := true
	a.Resource.SetOwnerReference = &yes
	o := c.run(a)
	name := "cm-" + suffix("cm-1")
	if o.Outputs["name"] != name || o.Outputs["n"] != "3" || !strings.HasPrefix(o.Outputs["manifest"], `{"apiVersion":"v1","data":{"n":"3"},"kind":"ConfigMap"`) ||
		strings.Contains(o.Outputs["manifest"], "managedFields") {
		t.Errorf("outputs %v", o.Outputs)
	}
	cm := c.get("configmaps", name)
	if l := cm.GetLabels(); l["a"] != "b" || l["kfs.dev/run"] != "r" || cm.GetAnnotations()[Annotation] != "cm-1" ||
		len(cm.GetOwnerReferences()) != 1 || cm.GetOwnerReferences()[0].UID != c.owner.UID {
		t.Errorf("metadata %v", cm.Object["metadata"])
	}
	if o.Started != cm.GetCreationTimestamp().Time {
		t.Errorf("started %v; want %v", o.Started, cm.GetCreationTimestamp())
	}

	// A claim that waits for its first pod is made all the same.
	claim := c.attempt("pvc-1", "create", pvc)
	claim.Outputs = append(claim.Outputs, engine.Output{Output: dag.Output{Name: "size", JSONPath: "{.status.capacity.storage}"}, File: true})
	if o := c.run(claim); o.Outputs["size"] != "" || o.Outputs["name"] != "data" {
		t.Errorf("outputs %v", o.Outputs)
	}
	claim = c.attempt("pvc-2", "create", strings.Replace(pvc, `"data"`, `"data2"`, 1), dag.Output{Name: "size", JSONPath: "{.status.capacity.storage}"})
	c.want(c.start(c.runner(&memIntents{}), claim).finish(), engine.BadOutput, 0, `output "size", \{.status.capacity.storage\} of PersistentVolumeClaim "data2": capacity is not found`)

	a = c.attempt("ns-1", "create", `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "`+c.namespace+`-x"}}`)
	a.Resource.SetOwnerReference = &yes
	c.refused(a, `set_owner_reference: Namespace "resource-......-x" belongs to the whole cluster, and the run is in namespace "resource-......": .*`)
	if c.get("namespaces", c.namespace+"-x") != nil {
		t.Error("it was made all the same")
	}
}

// TestE2EJob waits for Jobs, by their kind and by conditions.
func TestE2EJob(t *testing.T) {
	c := newCluster(t)
	c.fakeNode()
	for _, tt := range []struct {
		do, spec         string
		success, failure string
		exitCode         int
		reason           string
	}{
		{do: "succeed", spec: `"completions": 2,`},
		{do: "fail", spec: `"backoffLimit": 0,`, exitCode: 1, reason: `Job "job-.*" failed: Failed: BackoffLimitExceeded: .*`},
		{do: "fail", spec: `"backoffLimit": 0,`, success: "status.succeeded > 0", exitCode: 1, reason: `Job "job-.*" failed: Failed: BackoffLimitExceeded: .*`},
		{do: "fail", spec: `"backoffLimit": 5,`, success: "status.succeeded > 0", failure: "status.failed > 0", exitCode: 1, reason: `Job "job-.*" failed: status.failed>0: status.failed=1`},
		{do: "run", success: "status.ready == 1"},
	} {
		t.Run(tt.do+"/"+tt.success, func(t *testing.T) {
			c := &cluster{t, c.rc, c.client, c.namespace, c.owner}
			a := c.attempt("job-"+rand.String(5), "create", job(`"generateName": "job-"`, tt.do, tt.spec))
			a.Resource.SuccessCondition, a.Resource.FailureCondition = tt.success, tt.failure
			u := c.start(c.runner(&memIntents{}), a)
			c.want(u.finish(), engine.Exited, tt.exitCode, tt.reason)
			if o := u.seen[0]; o.Phase != engine.PhaseRunning || !strings.HasPrefix(o.Reason, "waiting for ") {
				t.Errorf("first it was %+v; want it to run", o)
			}
		})
	}
}

// TestE2ECrash ends the driver at each point, and wants the next one to make
// nothing twice.
func TestE2ECrash(t *testing.T) {
	c := newCluster(t)
	// Before the intent.
	intents := &memIntents{}
	lost := errors.New("the lease is lost")
	dies := func(n int) func(*rest.Config, *Config) { // in the n-th call
		return func(_ *rest.Config, cfg *Config) {
			cfg.Before = func(context.Context) error {
				if n--; n == 0 {
					return lost
				}
				return nil
			}
		}
	}
	a := c.attempt("a-1", "create", job(`"generateName": "a-"`, "pending", `"suspend": true,`))
	if err := c.runner(intents, dies(1)).Run(t.Context(), a, nil); err != lost || len(intents.kept) != 0 {
		t.Fatalf("Run before the intent: %v, %v", err, intents.kept)
	}
	// After it, in the same runner: nothing was called.
	r := c.runner(intents, dies(2))
	if err := r.Run(t.Context(), a, nil); err != lost || len(intents.kept) != 1 {
		t.Fatalf("Run after the intent: %v, %v", err, intents.kept)
	}
	u := c.start(r, a)
	u.until(engine.PhaseRunning, "waiting for condition Complete")
	u.leave()
	// After the create: adopted, by another and by the same.
	for range 2 {
		u = c.start(r, a)
		u.until(engine.PhaseRunning, "waiting for condition Complete")
		u.leave()
		r = c.runner(intents)
	}
	if n := c.count("jobs"); n != 1 {
		t.Errorf("%d jobs; want 1", n)
	}
	if o := u.latest(); o.Started.IsZero() || o.Started != c.get("jobs", "a-"+suffix("a-1")).GetCreationTimestamp().Time {
		t.Errorf("adopted, it started at %v; want when it was created", o.Started)
	}
	// The object is gone, or another's, when the next driver looks.
	background := metav1.DeletePropagationBackground
	if err := c.of("jobs").Delete(t.Context(), "a-"+suffix("a-1"), metav1.DeleteOptions{PropagationPolicy: &background}); err != nil {
		t.Fatal(err)
	}
	c.want(c.start(c.runner(intents), a).finish(), engine.Vanished, 0, `Job "a-.*" is not there: whether it was ever made is not known`)
	c.make("jobs", job(`"name": "a-`+suffix("a-1")+`"`, "pending", `"suspend": true,`))
	c.want(c.start(c.runner(intents), a).finish(), engine.CannotRun, 0, `Job "a-.*" already exists, made by somebody else`)

	// After the intent, by another driver: nobody knows.
	intents = &memIntents{}
	b := c.attempt("b-1", "create", configMap("b", "{}"))
	if err := c.runner(intents, dies(2)).Run(t.Context(), b, nil); err != lost {
		t.Fatal(err)
	}
	c.want(c.start(c.runner(intents), b).finish(), engine.Vanished, 0, `ConfigMap "b" is not there: whether it was ever made is not known`)
	// As another attempt.
	b.Resource.Manifest = manifest(t, configMap("b", `{"a": "b"}`))
	c.want(c.start(c.runner(intents), b).finish(), engine.CannotRun, 0, `it has begun as another attempt: create ConfigMap "b" .*`)

	// An intent whose answer was lost is this driver's own.
	c.want(c.start(c.runner(&memIntents{errs: 2}), c.attempt("d-1", "create", configMap("d", "{}"))).finish(), engine.Exited, 0, "")

	// Idempotent actions are done again.
	for i, action := range []string{"apply", "patch", "replace", "delete"} {
		c.make("configmaps", configMap("redo-"+action, `{"a": "1"}`))
		intents, a := &memIntents{}, c.attempt(fmt.Sprint("e-", i), action, configMap("redo-"+action, `{"a": "2"}`))
		for range 2 {
			c.want(c.start(c.runner(intents), a).finish(), engine.Exited, 0, "")
		}
	}
}

// TestE2ELostAnswer loses the answers to calls that were carried out.
func TestE2ELostAnswer(t *testing.T) {
	c := newCluster(t)
	proxied := func(rc *rest.Config, _ *Config) { *rc = *config(t, "KFS_FAULTS_KUBECONFIG") }
	rule := func(args ...string) {
		c.bin(append([]string{"fault", "rule", "--times", "1"}, args...)...)
	}
	rule("--lose", "--verb", "create", "--path", "/"+c.namespace+"/configmaps$")
	c.want(c.start(c.runner(&memIntents{}, proxied), c.attempt("a-1", "create", configMap("a", "{}"))).finish(), engine.Exited, 0, "")

	rule("--status", "500", "--verb", "create", "--path", "/"+c.namespace+"/configmaps$")
	u := c.start(c.runner(&memIntents{}, proxied), c.attempt("b-1", "create", configMap("b", "{}")))
	c.want(u.finish(), engine.Exited, 0, "")
	if o := u.seen[0]; o.Phase != engine.PhasePending || !strings.HasPrefix(o.Reason, "the API server: ") {
		t.Errorf("after an error 500 it was %+v; want it pending", o)
	}

	a := c.attempt("c-1", "patch", `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "patch": [{"op": "add", "path": "/data", "value": {"n": "1"}}]}`)
	a.Resource.MergeStrategy = "json"
	rule("--lose", "--verb", "patch", "--path", "/"+c.namespace+"/configmaps/a$")
	c.want(c.start(c.runner(&memIntents{}, proxied), a).finish(), engine.Vanished, 0, `ConfigMap "a": whether the patch was made is not known`)

	// client-go itself would do it again.
	a.ID = "c-2"
	rule("--status", "503", "--retry-after", "1", "--verb", "patch", "--path", "/"+c.namespace+"/configmaps/a$")
	c.want(c.start(c.runner(&memIntents{}, proxied), a).finish(), engine.Vanished, 0, `ConfigMap "a": whether the patch was made is not known`)
	a.ID = "c-3"
	rule("--status", "429", "--retry-after", "1", "--verb", "patch", "--path", "/"+c.namespace+"/configmaps/a$")
	u = c.start(c.runner(&memIntents{}, proxied), a)
	c.want(u.finish(), engine.Exited, 0, "")
	if o := u.seen[0]; o.Phase != engine.PhasePending || o.Reason != "the API server is busy" {
		t.Errorf("after an error 429 it was %+v; want it pending", o)
	}

	a = c.attempt("d-1", "patch", configMap("a", `{"n": "2"}`))
	rule("--lose", "--verb", "patch", "--path", "/"+c.namespace+"/configmaps/a$")
	c.want(c.start(c.runner(&memIntents{}, proxied), a).finish(), engine.Exited, 0, "")

	a = c.attempt("d-2", "replace", configMap("a", `{"n": "3"}`))
	rule("--status", "409", "--verb", "update", "--path", "/"+c.namespace+"/configmaps/a$")
	c.want(c.start(c.runner(&memIntents{}, proxied), a).finish(), engine.Exited, 0, "")

	// An attempt that is stopped while its create has had no answer waits for it.
	rule("--delay", "4s", "--verb", "create", "--path", "/"+c.namespace+"/configmaps$")
	r := c.runner(&memIntents{}, proxied, func(_ *rest.Config, cfg *Config) { cfg.Request = time.Second })
	u = c.start(r, c.attempt("e-1", "create", configMap("e", "{}")))
	time.Sleep(500 * time.Millisecond)
	if err := r.Stop(t.Context(), "e-1", nil); err != nil {
		t.Fatal(err)
	}
	u.until(engine.PhasePending, "stopping: ConfigMap \"e\" may still be made")
	c.make("configmaps", strings.Replace(configMap("e", "{}"), `"name": "e"`, `"name": "e", "annotations": {"`+Annotation+`": "e-1"}`, 1)) // it comes late
	c.want(u.finish(), engine.Stopped, 0, `stopped; deleted ConfigMap "e"`)
}

// TestE2EConflict finds other objects in place of the attempt's own.
func TestE2EConflict(t *testing.T) {
	c := newCluster(t)
	c.make("configmaps", configMap("a", `{"mine": "yes"}`))
	c.refused(c.attempt("a-1", "create", configMap("a", "{}")), `ConfigMap "a" already exists, made by somebody else`)
	if data, _, _ := unstructured.NestedString(c.get("configmaps", "a").Object, "data", "mine"); data != "yes" {
		t.Error("the other one has changed")
	}
	c.run(c.attempt("b-1", "create", configMap("b", "{}")))
	c.refused(c.attempt("b-2", "create", configMap("b", "{}")), `ConfigMap "b" already exists, made by attempt b-1`)

	// One that is being deleted is waited for.
	c.make("configmaps", strings.Replace(configMap("d", "{}"), `"name"`, `"finalizers": ["test.kfs.dev/x"], "name"`, 1))
	gone := c.attempt("d-0", "delete", configMap("d", "{}"))
	gone.Resource.Flags = []string{"--wait=false"}
	c.run(gone)
	u := c.start(c.runner(&memIntents{}), c.attempt("d-1", "create", configMap("d", "{}")))
	u.until(engine.PhasePending, `another ConfigMap "d" is being deleted`)
	c.patch("configmaps", "d", `{"metadata": {"finalizers": null}}`)
	c.want(u.finish(), engine.Exited, 0, "")
}

// TestE2ERefused has what the API server refuses.
func TestE2ERefused(t *testing.T) {
	c := newCluster(t)
	nobody := func(rc *rest.Config, _ *Config) {
		rc.Impersonate.UserName = "system:serviceaccount:" + c.namespace + ":default"
		rc.Impersonate.Groups = []string{"system:serviceaccounts", "system:authenticated"}
	}
	o := c.start(c.runner(&memIntents{}, nobody), c.attempt("a-1", "create", job(`"generateName": "a-"`, "succeed", ""))).finish()
	c.want(o, engine.CannotRun, 0, `may not create jobs.batch in namespace "`+c.namespace+`": forbidden`)
	if want := "rules:\n- apiGroups: [\"batch\"]\n  resources: [\"jobs\"]\n  verbs: [\"create\", \"delete\", \"get\", \"watch\"]"; !strings.Contains(o.Message, want) {
		t.Errorf("message %s\nwant the rule in it: %s", o.Message, want)
	}
	c.refused(c.attempt("b-1", "create", `{"apiVersion": "batch/v1", "kind": "Jobb", "metadata": {"name": "a"}}`), `the cluster has no kind "Jobb" of apiVersion "batch/v1"`)
	o = c.refused(c.attempt("c-1", "create", `{"apiVersion": "nobody.example.org/v1", "kind": "X", "metadata": {"name": "a"}}`), `the cluster has no kind "X" of apiVersion "nobody.example.org/v1"`)
	if !strings.Contains(o.Message, "CustomResourceDefinition") {
		t.Errorf("message %q", o.Message)
	}
	c.refused(c.attempt("d-1", "create", strings.Replace(configMap("d", "{}"), `"data"`, `"dato"`, 1)), `the API server refuses ConfigMap "d": .*unknown field "dato".*`)
	c.refused(c.attempt("e-1", "create", strings.Replace(pvc, "1Gi", "-1Gi", 1)), `the API server refuses PersistentVolumeClaim "data": spec.resources.*must be greater than zero.*`)
	c.refused(c.attempt("f-1", "create", strings.Replace(configMap("f", "{}"), `"name"`, `"namespace": "nowhere", "name"`, 1)), `namespace "nowhere" does not exist`)
	c.refused(c.attempt("g-1", "create", strings.Replace(configMap("g", "{}"), `"name"`, `"labels": {"n": 3}, "name"`, 1)), `the API server refuses ConfigMap "g": .*labels.*`)
	c.refused(c.attempt("h-1", "replace", configMap("h", "{}")), `ConfigMap "h" is not there`)
	c.refused(c.attempt("i-1", "patch", configMap("i", "{}")), `ConfigMap "i" is not there`)
	a := c.attempt("j-1", "delete", configMap("j", "{}"))
	c.run(a)
	a.Resource.Flags = []string{"--ignore-not-found=false"}
	c.refused(a, `ConfigMap "j" is not there`)

	// A namespace that is going takes nothing new.
	c.make("configmaps", strings.Replace(configMap("k", "{}"), `"name"`, `"finalizers": ["test.kfs.dev/x"], "name"`, 1))
	if err := c.of("namespaces").Delete(t.Context(), c.namespace, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.refused(c.attempt("k-1", "create", configMap("l", "{}")), `namespace "`+c.namespace+`" is being deleted`)
	c.patch("configmaps", "k", `{"metadata": {"finalizers": null}}`)
}

// TestE2EQuota waits until a quota leaves room.
func TestE2EQuota(t *testing.T) {
	c := newCluster(t)
	c.make("resourcequotas", `{"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"count/secrets": "0"}}}`)
	for { // until it is counted, and holds
		if hard, _, _ := unstructured.NestedMap(c.get("resourcequotas", "q").Object, "status", "hard"); len(hard) > 0 {
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	const secret = `{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}`
	a := c.attempt("a-1", "create", secret)
	u := c.start(c.runner(&memIntents{}), a)
	u.until(engine.PhasePending, "^exceeded quota: q, requested: count/secrets=1, used: count/secrets=0, limited: count/secrets=0$")
	limited := c.attempt("a-2", "create", secret)
	limited.PendingTimeout = 100 * time.Millisecond
	c.refused(limited, "pending for 100ms: exceeded quota: q.*")
	c.patch("resourcequotas", "q", `{"spec": {"hard": {"count/secrets": "1"}}}`)
	c.want(u.finish(), engine.Exited, 0, "")
}

// TestE2EApply applies over what others have set, and with numbers that are text.
func TestE2EApply(t *testing.T) {
	c := newCluster(t)
	deployment := func(replicas string) string {
		return `{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": ` + replicas + `,
			"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {
			"containers": [{"name": "main", "image": "x", "ports": [{"containerPort": "80"}], "env": [{"name": "N", "value": "3"}]}]}}}}`
	}
	replicas := func() any {
		n, _, _ := unstructured.NestedInt64(c.get("deployments", "d").Object, "spec", "replicas")
		return n
	}
	c.run(c.attempt("a-1", "apply", deployment(`"0"`)))
	c.patch("deployments", "d", `{"spec": {"replicas": 0, "minReadySeconds": 1}}`)
	c.patch("deployments", "d", `{"spec": {"replicas": 2}}`)
	a := c.attempt("a-2", "apply", deployment("1"))
	a.Resource.Flags = []string{"--server-side"}
	c.refused(a, `Deployment "d" has fields that others manage: .*spec.replicas.*`)
	if replicas() != int64(2) {
		t.Errorf("%v replicas; want 2", replicas())
	}
	c.run(c.attempt("a-3", "apply", deployment(`"1"`)))
	if replicas() != int64(1) {
		t.Errorf("%v replicas; want 1", replicas())
	}
	if l := c.get("deployments", "d"); l.GetLabels()["kfs.dev/run"] != "" || l.GetAnnotations()[Annotation] != "" {
		t.Errorf("what was applied has the run's labels: %v", l.Object["metadata"])
	}
	c.refused(c.attempt("a-4", "apply", strings.Replace(deployment("1"), "replicas", "replicsa", 1)), `the API server refuses Deployment "d": .*spec.replicsa: field not declared in schema`)
	c.refused(c.attempt("a-5", "apply", deployment(`"many"`)), `the API server refuses Deployment "d": .*spec.replicas: expected numeric \(int or float\), got string`)
	c.run(c.attempt("a-6", "patch", `{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicas": "4", "paused": "True"}}`))
	if replicas() != int64(4) {
		t.Errorf("%v replicas; want 4", replicas())
	}
	// The right text stays text.
	env, _, _ := unstructured.NestedSlice(c.get("deployments", "d").Object, "spec", "template", "spec", "containers")
	if got := fmt.Sprint(env[0].(map[string]any)["env"]); got != "[map[name:N value:3]]" {
		t.Errorf("env %s", got)
	}
	c.run(c.attempt("a-7", "create", job(`"name": "j"`, "succeed", `"suspend": "true", "parallelism": "2", "completions": "0",`)))
}

// TestE2EPatch patches in three ways.
func TestE2EPatch(t *testing.T) {
	c := newCluster(t)
	c.make("configmaps", configMap("a", `{"a": "1", "b": "1"}`))
	data := func() string { return fmt.Sprint(c.get("configmaps", "a").Object["data"]) }
	for i, tt := range []struct{ strategy, data, want string }{
		{"", `{"a": "2"}`, "map[a:2 b:1]"},
		{"strategic", `{"a": "3", "b": null}`, "map[a:3]"},
		{"merge", `{"a": null, "c": "1"}`, "map[c:1]"},
	} {
		a := c.attempt(fmt.Sprint("a-", i), "patch", configMap("a", tt.data))
		a.Resource.MergeStrategy = tt.strategy
		if c.run(a); data() != tt.want {
			t.Errorf("patched by %q with %s: %s; want %s", tt.strategy, tt.data, data(), tt.want)
		}
	}
	a := c.attempt("b-1", "patch", `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "patch": [{"op": "copy", "from": "/data/c", "path": "/data/d"}]}`)
	a.Resource.MergeStrategy = "json"
	intents := &memIntents{}
	r := c.runner(intents)
	c.want(c.start(r, a).finish(), engine.Exited, 0, "")
	if data() != "map[c:1 d:1]" {
		t.Errorf("patched by json: %s", data())
	}
	for _, r := range []*Runner{r, c.runner(intents)} {
		c.want(c.start(r, a).finish(), engine.Vanished, 0, `ConfigMap "a": whether the patch was made is not known`)
	}
	a.ID, a.Resource.Manifest = "b-2", manifest(t, `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "patch": [{"op": "test", "path": "/data/c", "value": "2"}]}`)
	c.refused(a, `the API server refuses ConfigMap "a": the server rejected our request due to an error in our request`)
}

// TestE2EReplaceDelete replaces an object and deletes it.
func TestE2EReplaceDelete(t *testing.T) {
	c := newCluster(t)
	c.make("configmaps", strings.Replace(configMap("a", `{"a": "1"}`), `"name"`, `"finalizers": ["test.kfs.dev/x"], "name"`, 1))
	c.run(c.attempt("a-1", "replace", strings.Replace(configMap("a", `{"b": "1"}`), `"name"`, `"finalizers": ["test.kfs.dev/x"], "name"`, 1)))
	if data := fmt.Sprint(c.get("configmaps", "a").Object["data"]); data != "map[b:1]" {
		t.Errorf("replaced: %s", data)
	}
	c.refused(c.attempt("a-2", "replace", strings.Replace(configMap("a", "{}"), `"name"`, `"resourceVersion": "1", "name"`, 1)), `the API server refuses ConfigMap "a": .*the object has been modified.*`)
	u := c.start(c.runner(&memIntents{}), c.attempt("a-3", "delete", configMap("a", "{}")))
	u.until(engine.PhaseRunning, `waiting until ConfigMap "a" is gone`)
	c.patch("configmaps", "a", `{"metadata": {"finalizers": null}}`)
	c.want(u.finish(), engine.Exited, 0, "")
	if c.get("configmaps", "a") != nil {
		t.Error("it is there")
	}
}

// train is a definition of TrainJob, for which there is no controller: the
// test writes the status.
const train = `{"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition", "metadata": {"name": "trainjobs.trainer.kubeflow.org"},
	"spec": {"group": "trainer.kubeflow.org", "scope": "Namespaced", "names": {"kind": "TrainJob", "plural": "trainjobs"}, "versions": [
	{"name": "v1alpha1", "served": true, "storage": true, "subresources": {"status": {}}, "schema": {"openAPIV3Schema": {"type": "object", "properties": {
	"spec": {"type": "object", "properties": {"nodes": {"type": "integer"}, "rate": {"type": "number"}, "suspend": {"type": "boolean"}}},
	"status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]}}`

func trainJob(name, spec string) string {
	return fmt.Sprintf(`{"apiVersion": "trainer.kubeflow.org/v1alpha1", "kind": "TrainJob", "metadata": {"name": %q}, "spec": %s}`, name, spec)
}

func (c *cluster) setStatus(name, status string) {
	c.Helper()
	c.patch("trainjobs", name, `{"status": `+status+`}`, "status")
}

// TestE2ECustom waits for objects of a kind that a step before has brought, and
// keeps waiting through all that may happen to a watch.
func TestE2ECustom(t *testing.T) {
	c := newCluster(t)
	c.of("customresourcedefinitions").Delete(t.Context(), "trainjobs.trainer.kubeflow.org", metav1.DeleteOptions{})
	for c.get("customresourcedefinitions", "trainjobs.trainer.kubeflow.org") != nil {
		time.Sleep(50 * time.Millisecond)
	}
	c.run(c.attempt("crd-1", "apply", train))
	t.Cleanup(func() {
		c.of("customresourcedefinitions").Delete(context.Background(), "trainjobs.trainer.kubeflow.org", metav1.DeleteOptions{})
	})
	waits := func(id string, r *Runner) *underway {
		c.Helper()
		u := c.start(r, c.attempt(id, "create", trainJob(id, "{}")))
		u.until(engine.PhaseRunning, "^waiting for condition Complete$")
		return u
	}
	complete := `{"conditions": [{"type": "Complete", "status": "True"}]}`

	u := waits("a-1", c.runner(&memIntents{}))
	c.setStatus("a-1", `{"jobsStatus": [], "phase": "Running"}`)
	u.until(engine.PhaseRunning, "^waiting for condition Complete: status.phase=Running$")
	c.setStatus("a-1", complete)
	c.want(u.finish(), engine.Exited, 0, "")

	u = waits("a-2", c.runner(&memIntents{}))
	c.setStatus("a-2", `{"conditions": [{"type": "Failed", "status": "True", "reason": "JobsFailed", "message": "node 0"}]}`)
	c.want(u.finish(), engine.Exited, 1, `TrainJob "a-2" failed: Failed: JobsFailed: node 0`)

	u = waits("a-3", c.runner(&memIntents{}))
	if err := c.of("trainjobs").Delete(t.Context(), "a-3", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.want(u.finish(), engine.Lost, 0, `TrainJob "a-3" was deleted before its end`)

	merge := c.attempt("b-0", "patch", trainJob("a-1", `{"nodes": "3", "rate": "0.5", "suspend": "true"}`))
	merge.Resource.MergeStrategy = "merge"
	c.run(merge)
	c.refused(c.attempt("b-1", "patch", trainJob("a-1", "{}")), `TrainJob "a-1" cannot be patched by merge strategy "strategic": .*`)

	// The API server is away, or busy, or ends the watch.
	proxied := func(rc *rest.Config, _ *Config) { *rc = *config(t, "KFS_FAULTS_KUBECONFIG") }
	for _, tt := range []struct {
		name   string
		change func(*rest.Config, *Config)
		fault  func()
	}{
		{"frozen", nil, func() {
			c.bin("fault", "freeze", "kube-apiserver")
			time.Sleep(5 * time.Second)
			c.bin("fault", "thaw", "kube-apiserver")
		}},
		{"restarted", nil, func() { c.bin("fault", "restart", "kube-apiserver") }},
		{"expired", proxied, func() { c.bin("fault", "watches", "expire") }},
		{"dropped", proxied, func() { c.bin("fault", "watches", "drop") }},
		{"busy", proxied, func() {
			c.bin("fault", "rule", "--times", "5", "--verb", "get,watch,list", "--path", c.namespace+"/trainjobs", "--status", "429")
			c.bin("fault", "watches", "drop")
		}},
		{"failing", proxied, func() {
			c.bin("fault", "rule", "--times", "5", "--verb", "get,watch,list", "--path", c.namespace+"/trainjobs", "--status", "500")
			c.bin("fault", "watches", "drop")
		}},
		{"hanging", proxied, func() {
			c.bin("fault", "rule", "--times", "2", "--verb", "get,watch,list", "--path", c.namespace+"/trainjobs", "--hang")
			c.bin("fault", "watches", "drop")
		}},
	} {
		var change []func(*rest.Config, *Config)
		if tt.change != nil {
			change = append(change, tt.change)
		}
		id := "f-" + tt.name
		u := waits(id, c.runner(&memIntents{}, change...))
		tt.fault()
		for range 100 { // the server may still be starting
			if _, err := c.of("trainjobs").Patch(t.Context(), id, types.MergePatchType, []byte(`{"status": `+complete+`}`), metav1.PatchOptions{}, "status"); err == nil {
				break
			}
			time.Sleep(200 * time.Millisecond)
		}
		if o := u.finish(); o.Cause != engine.Exited || o.ExitCode != 0 {
			t.Errorf("%s: %+v", tt.name, u.seen)
		}
	}

	// It is replaced while the watch is away.
	u = waits("g-1", c.runner(&memIntents{}, proxied))
	c.bin("fault", "rule", "--times", "3", "--verb", "get,watch,list", "--path", c.namespace+"/trainjobs", "--status", "500")
	c.bin("fault", "watches", "drop")
	if err := c.of("trainjobs").Delete(t.Context(), "g-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	c.make("trainjobs", trainJob("g-1", "{}"))
	c.want(u.finish(), engine.Vanished, 0, `TrainJob "g-1" is gone: whether it had come to its end is not known`)
}

// TestE2EStop stops attempts, of this driver and of an earlier one.
func TestE2EStop(t *testing.T) {
	c := newCluster(t)
	stop := func(r *Runner, id string, report func(engine.Observation)) {
		t.Helper()
		if err := r.Stop(t.Context(), id, report); err != nil {
			t.Fatal(err)
		}
	}
	suspended := job(`"name": "a"`, "run", `"suspend": true,`)
	intents := &memIntents{}
	r := c.runner(intents)
	u := c.start(r, c.attempt("a-1", "create", suspended))
	u.until(engine.PhaseRunning, "waiting")
	stop(r, "a-1", nil)
	stop(r, "a-1", nil)
	c.want(u.finish(), engine.Stopped, 0, `stopped; deleted Job "a"`)
	if c.get("jobs", "a") != nil {
		t.Error("the job is there")
	}

	a := c.attempt("b-1", "create", pvc)
	a.Resource.SuccessCondition = "status.phase == Bound"
	u = c.start(r, a)
	u.until(engine.PhaseRunning, "waiting for status.phase == Bound: status.phase=Pending")
	stop(r, "b-1", nil)
	c.want(u.finish(), engine.Stopped, 0, `stopped; PersistentVolumeClaim "data" is left, with its data`)
	if c.get("persistentvolumeclaims", "data") == nil {
		t.Error("the claim is gone")
	}

	// What was there before is left.
	c.make("configmaps", configMap("c", "{}"))
	a = c.attempt("c-1", "apply", configMap("c", "{}"))
	a.Resource.SuccessCondition = "data.x == y"
	u = c.start(r, a)
	u.until(engine.PhaseRunning, "waiting")
	stop(r, "c-1", nil)
	c.want(u.finish(), engine.Stopped, 0, `stopped; ConfigMap "c" is left as it is`)

	// By the intent alone, and of an object that was made anew by somebody else.
	for _, other := range []bool{false, true} {
		r = c.runner(intents)
		id := fmt.Sprint("d-", other)
		u = c.start(r, c.attempt(id, "create", strings.Replace(suspended, `"a"`, `"`+id+`"`, 1)))
		u.until(engine.PhaseRunning, "waiting")
		u.leave()
		want := `stopped; deleted Job "` + id + `"`
		if other {
			c.patch("jobs", id, `{"metadata": {"annotations": {"`+Annotation+`": null}}}`)
			want = `stopped; Job "` + id + `" is left: somebody else made it`
		}
		var o engine.Observation
		stop(c.runner(intents), id, func(got engine.Observation) { o = got })
		c.want(o, engine.Stopped, 0, want)
		if got := c.get("jobs", id) != nil; got != other {
			t.Errorf("the job is there: %v; want %v", got, other)
		}
	}
	stop(c.runner(intents), "d-false", func(o engine.Observation) { c.want(o, engine.Stopped, 0, `stopped; Job "d-false" is not there`) })
	if c.get("configmaps", "c") == nil {
		t.Error("the other one's object is gone")
	}
	// Before it begins.
	r = c.runner(intents)
	stop(r, "e-1", nil)
	c.want(c.start(r, c.attempt("e-1", "create", configMap("e", "{}"))).finish(), engine.Stopped, 0, "stopped; nothing was done")
}

// TestE2ESecret wants no data of a Secret in what is told.
func TestE2ESecret(t *testing.T) {
	c := newCluster(t)
	secret := func(data string) string {
		return `{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, ` + data + `}`
	}
	for i, tt := range []struct{ action, strategy, data, success string }{
		{"create", "", `"data": {"a": "hunter2!"}`, ""},
		{"create", "", `"data": {"a": 12345678}`, ""},
		{"create", "", `"stringData": {"no key": "hunter2"}`, ""},
		{"create", "", `"stringData": {"a": "hunter2"}`, ""},
		{"apply", "", `"data": {"a": "hunter2!"}`, ""},
		{"apply", "", `"data": {"a": {"b": "hunter2"}}`, ""},
		{"patch", "", `"data": "hunter2"`, ""},
		{"patch", "merge", `"data": "hunter2"`, ""},
		{"patch", "merge", `"immutable": "hunter2"`, ""},
		{"patch", "json", `"patch": [{"op": "add", "path": "/data", "value": "hunter2"}]`, ""},
		{"replace", "", `"data": {"a": "hunter2!"}`, ""},
		{"apply", "", `"stringData": {"a": "hunter2"}`, "data.a == x"},
	} {
		a := c.attempt(fmt.Sprint("s-", i), tt.action, secret(tt.data))
		a.Resource.MergeStrategy, a.Resource.SuccessCondition = tt.strategy, tt.success
		intents := &memIntents{}
		u := c.start(c.runner(intents), a)
		if tt.success != "" {
			u.until(engine.PhaseRunning, "waiting")
			u.leave()
		} else {
			u.finish()
		}
		for _, o := range u.seen {
			if text := fmt.Sprintf("%+v", o); strings.Contains(text, "hunter2") || strings.Contains(text, "12345678") || strings.Contains(text, "aHVudGVyMg") {
				t.Errorf("%s %s tells %s", tt.action, tt.data, text)
			}
		}
		for _, in := range intents.kept {
			if strings.Contains(fmt.Sprint(in), "hunter2") {
				t.Errorf("intent %+v", in)
			}
		}
	}
	a := c.attempt("u-1", "patch", secret(`"type": "Opaque"`), dag.Output{Name: "a", JSONPath: "{.data.a}"})
	if o := c.run(a); o.Outputs["a"] != "aHVudGVyMg==" || strings.Contains(o.Outputs["manifest"], "aHVu") {
		t.Errorf("outputs %v; want the one that is used, and no data in the other", o.Outputs)
	}
}
