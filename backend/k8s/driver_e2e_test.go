//go:build e2e

package k8s

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/clustertest"
)

// This file has what the tests of drivers share: pods on fake nodes, drivers in
// processes of their own, and what is left in the cluster in the end.

// TestMain lets more tests run at once than there are cores: what they do is
// wait for the cluster.
func TestMain(m *testing.M) {
	flag.Parse()
	flag.Set("test.parallel", "8")
	klog.SetLogger(klog.Logger{}) // as the command has it
	os.Exit(m.Run())
}

var fakeNodes sync.Once

// newFakeCluster returns a cluster of a namespace of its own, which has nodes
// without machines.
func newFakeCluster(t testing.TB) *Cluster {
	t.Helper()
	fakeNodes.Do(func() {
		if !strings.Contains(clustertest.Kubectl(t, "get", "nodes", "-o", "name"), "node/driver-0") {
			clustertest.Command(t, "nodes", "add", "--count", "2", "--prefix", "driver", "--label", "nodes=driver")
		}
	})
	c := newCluster(t)
	// A pod is refused as long as the namespace has no account for it.
	eventually(t, "the service account of namespace "+c.Namespace, func() error {
		_, err := c.accounts.Get(t.Context(), "default", metav1.GetOptions{})
		return err
	})
	return c
}

// eventually waits until f returns nil.
func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	if err := until(f); err != nil {
		t.Fatalf("waiting for %s: %v", what, err)
	}
}

// until waits until f returns nil, or returns its last error.
func until(f func() error) error {
	var err error
	for end := time.Now().Add(2 * time.Minute); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		if err = f(); err == nil {
			return nil
		}
	}
	return err
}

// A behavior is what becomes of the pod of a fake step: see docs/testing.md.
const (
	succeeds    = "{do: succeed}"
	failsOnce   = "[{do: fail, exit: 3}, {do: succeed}]"
	runsOn      = "{do: run}"
	takesAWhile = "{do: succeed, after: 300ms}"
)

// fakeStep returns a step whose pod is on a fake node. Its starts are counted
// as run/name.
func fakeStep(run, name, behavior string, needs ...string) *dag.Step {
	s := &dag.Step{Name: name, Container: dag.Object{{Name: "image", Value: "localhost/none:1"}, {Name: "command", Value: []any{"work"}}}}
	s.NodeSelector = dag.Object{{Name: "nodes", Value: "driver"}}
	s.Tolerations = []dag.Object{{{Name: "key", Value: "fake.kfs.dev/node"}, {Name: "operator", Value: "Exists"}}}
	s.Annotations = dag.Object{{Name: "fake.kfs.dev/behavior", Value: behavior}, {Name: "fake.kfs.dev/key", Value: run + "/" + name}}
	for _, n := range needs {
		s.After = append(s.After, dag.Edge{Step: n})
	}
	if behavior == failsOnce {
		s.Retry = &dag.Retry{Limit: "1"}
	}
	return s
}

// diamond is a pipeline with parallel branches and a retry. It starts the pods
// that diamondStarts says.
func diamond(run string) *dag.Pipeline {
	return &dag.Pipeline{Name: "diamond", Steps: []*dag.Step{
		fakeStep(run, "a", succeeds),
		fakeStep(run, "b", takesAWhile, "a"),
		fakeStep(run, "c", failsOnce, "a"),
		fakeStep(run, "d", succeeds, "b", "c"),
	}}
}

var diamondStarts = map[string]int{"a": 1, "b": 1, "c": 2, "d": 1}

var runNumber atomic.Int64

// newName returns a name for a run that no other test has.
func newName(prefix string) string {
	return fmt.Sprintf("%s-%d-%d", prefix, time.Now().UnixMilli()%1e9, runNumber.Add(1))
}

func infoOf(name string) engine.RunInfo { return engine.RunInfo{ID: name + "-id", Name: name} }

// begin makes a run that is deleted after the test.
func begin(t testing.TB, c *Cluster, p *dag.Pipeline, name string, limits Limits) *Run {
	t.Helper()
	r, err := Create(t.Context(), c, p, infoOf(name), Options{Limits: limits}, "test")
	if err != nil {
		t.Fatal(err)
	}
	return watched(t, r)
}

// open finds a run of another driver.
func open(t testing.TB, c *Cluster, name string) *Run {
	t.Helper()
	r, err := Open(t.Context(), c, name)
	if err != nil {
		t.Fatal(err)
	}
	return watched(t, r)
}

// watched logs what a run has to say, and closes it after the test at the
// latest.
func watched(t testing.TB, r *Run) *Run {
	over := make(chan struct{})
	r.Notice = func(text string) {
		select {
		case <-over:
		default:
			t.Log("notice: " + text)
		}
	}
	t.Cleanup(func() {
		r.Close(context.Background(), false)
		close(over)
	})
	return r
}

// drive carries a run to its end.
func drive(ctx context.Context, r *Run, cfg engine.Config) (*engine.Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-r.Lost():
			cancel(r.Err())
		case <-ctx.Done():
		}
	}()
	cfg.Store = r
	result, err := engine.Run(ctx, r, r.Pipeline(), r.Info(), cfg)
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = cause
	}
	r.Close(context.WithoutCancel(ctx), err == nil)
	return result, err
}

// finish resumes a run, or begins it if it is not there, and wants its end. If
// it has a driver, that one's lease is waited for.
func finish(t testing.TB, c *Cluster, p *dag.Pipeline, name string, limits Limits) *engine.Result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	for {
		r, err := Open(ctx, c, name)
		if errors.Is(err, ErrNoRun) && p != nil {
			r, err = Create(ctx, c, p, infoOf(name), Options{Limits: limits}, "test")
		}
		if err != nil {
			t.Fatal(err)
		}
		result, err := drive(ctx, watched(t, r), engine.Config{})
		if err == nil {
			return result
		}
		if !errors.As(err, new(*HeldError)) || sleep(ctx, 100*time.Millisecond) != nil {
			t.Fatal(err)
		}
	}
}

// wantState wants a run and its steps to have come to these ends.
func wantState(t testing.TB, result *engine.Result, run engine.State, steps map[string]engine.State) {
	t.Helper()
	if result.State != run {
		t.Errorf("run %s; want %s", result.State, run)
	}
	for _, s := range result.Steps {
		if want, ok := steps[s.Step]; ok && s.State != want {
			t.Errorf("step %s %s: %s; want %s", s.Step, s.State, s.Reason, want)
		}
	}
}

// starts returns how often the steps of a run were started.
func starts(t testing.TB, run string) map[string]int {
	t.Helper()
	counts := map[string]int{}
	for line := range strings.Lines(clustertest.Command(t, "starts")) {
		fields := strings.Fields(line)
		if len(fields) != 2 {
			continue
		}
		if step, ok := strings.CutPrefix(fields[0], run+"/"); ok {
			counts[step], _ = strconv.Atoi(fields[1])
		}
	}
	return counts
}

func wantStarts(t testing.TB, run string, want map[string]int) {
	t.Helper()
	got := starts(t, run)
	for step, n := range want {
		if got[step] != n {
			t.Errorf("run %s: step %s was started %d times; want %d", run, step, got[step], n)
		}
	}
	for step, n := range got {
		if want[step] == 0 {
			t.Errorf("run %s: step %s was started %d times; want none", run, step, n)
		}
	}
}

// podsOf returns the pods of a run.
func podsOf(t testing.TB, c *Cluster, run string) []corev1.Pod {
	t.Helper()
	list, err := c.pods.List(context.WithoutCancel(t.Context()), selector(run, ""))
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// wantReleased wants no pod of a run to be kept.
func wantReleased(t testing.TB, c *Cluster, run string) {
	t.Helper()
	for _, pod := range podsOf(t, c, run) {
		if slices.Contains(pod.Finalizers, outcomeFinalizer) {
			t.Errorf("pod %s has the finalizer %s still", pod.Name, outcomeFinalizer)
		}
	}
}

// kinds are the kinds of objects that a namespace can have, events apart.
var kinds = sync.OnceValue(func() string {
	out, _ := exec.Command("kubectl", "api-resources", "--namespaced", "--verbs", "list,delete", "-o", "name").Output()
	names := slices.DeleteFunc(strings.Fields(string(out)), func(k string) bool { return strings.HasPrefix(k, "e") && !strings.HasPrefix(k, "endpointslices") })
	return strings.Join(names, ",")
})

// wantNothing wants no object of a run to be left.
func wantNothing(t testing.TB, c *Cluster, run string) {
	t.Helper()
	eventually(t, "the pods and config maps of run "+run+" to be gone", func() error {
		list, err := c.configMaps.List(t.Context(), selector(run, ""))
		if err == nil && len(list.Items)+len(podsOf(t, c, run)) > 0 {
			err = fmt.Errorf("%d config maps and %d pods are left", len(list.Items), len(podsOf(t, c, run)))
		}
		return err
	})
	eventually(t, "all objects of run "+run+" to be gone", func() error {
		left, err := exec.Command("kubectl", "get", kinds(), "-n", c.Namespace, "-l", runLabel+"="+run, "-o", "name").Output()
		if err == nil && len(left) > 0 {
			err = errors.New(string(left))
		}
		return err
	})
}

// waitRunning waits until a pod of the step runs.
func waitRunning(t testing.TB, c *Cluster, run, step string) corev1.Pod {
	t.Helper()
	var found corev1.Pod
	eventually(t, "step "+step+" to run", func() error {
		for _, pod := range podsOf(t, c, run) {
			if pod.Annotations[stepAnnotation] == step && pod.Status.Phase == corev1.PodRunning {
				found = pod
				return nil
			}
		}
		return errors.New("it does not")
	})
	return found
}

// A childConfig is what a driver in a process of its own is told.
type childConfig struct {
	Kubeconfig string
	Namespace  string
	Run        string
	Pipeline   *dag.Pipeline // nil resumes the run
	Limits     Limits
	Kill       int    // the process kills itself at its n-th write, from 1
	KillAt     string // of those that have this method and, in the path, this text: "PUT -s0"; "" are all
	After      bool   // it does when the answer is there, else before it is asked
}

// A child is a driver in a process of its own.
type child struct {
	*exec.Cmd
	out  output
	done chan struct{} // closed when the process has ended
}

// An output takes what a process writes, while it is read.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// lines returns what follows a word in the lines that begin with it.
func (o *output) lines(word string) []string {
	var found []string
	for line := range strings.Lines(o.String()) {
		if rest, ok := strings.CutPrefix(line, word+" "); ok {
			found = append(found, strings.TrimSpace(rest))
		}
	}
	return found
}

// startChild starts a driver.
func startChild(t testing.TB, cfg childConfig) *child {
	t.Helper()
	text, err := json.Marshal(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c := &child{Cmd: exec.Command(os.Args[0], "-test.run=^TestDriverChild$", "-test.v=false"), done: make(chan struct{})}
	c.Env = append(os.Environ(), "KFS_TEST_DRIVER="+string(text))
	c.Stdout, c.Stderr = &c.out, &c.out
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		c.Wait()
		close(c.done)
	}()
	t.Cleanup(func() {
		c.Process.Kill()
		<-c.done
		if t.Failed() {
			t.Logf("the driver in a process of its own:\n%s", c.out.String())
		}
	})
	return c
}

// wait waits for the end of the process, and reports whether it was killed.
func (c *child) wait(t testing.TB) (killed bool) {
	t.Helper()
	select {
	case <-c.done:
	case <-time.After(2 * time.Minute):
		t.Fatal("the driver does not end")
	}
	status := c.ProcessState.Sys().(syscall.WaitStatus)
	return status.Signaled() && status.Signal() == syscall.SIGKILL
}

// TestDriverChild is the process that startChild starts.
func TestDriverChild(t *testing.T) {
	text := os.Getenv("KFS_TEST_DRIVER")
	if text == "" {
		t.Skip("is started by other tests")
	}
	var cfg childConfig
	if err := json.Unmarshal([]byte(text), &cfg); err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.BuildConfigFromFlags("", cfg.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	writes := &writePoints{kill: cfg.Kill, at: cfg.KillAt, after: cfg.After, log: os.Stdout}
	config.Wrap(writes.wrap)
	c, err := NewCluster(config, cfg.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	var r *Run
	if cfg.Pipeline != nil {
		r, err = Create(t.Context(), c, cfg.Pipeline, infoOf(cfg.Run), Options{Limits: cfg.Limits}, "test")
	} else {
		r, err = Open(t.Context(), c, cfg.Run)
	}
	if err != nil {
		t.Fatal(err)
	}
	r.Notice = func(text string) { fmt.Println("notice " + text) }
	result, err := drive(t.Context(), r, engine.Config{Events: func(e engine.Event) {
		if e.Kind != engine.EventLog {
			fmt.Println("event", e.Kind, e.Step, e.State, e.Reason)
		}
	}})
	if err != nil {
		fmt.Println("error", err)
		if errors.Is(err, engine.ErrStale) {
			fmt.Println("stale")
		}
		return
	}
	fmt.Println("result", result.State)
	fmt.Println("writes", writes.count())
}

// writePoints counts the requests that change something, and kills this process
// at one of them.
type writePoints struct {
	kill  int
	at    string
	after bool
	log   io.Writer

	mu sync.Mutex
	n  int
}

func (w *writePoints) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n
}

func (w *writePoints) wrap(next http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		if r.Method == http.MethodGet || r.URL.Query().Has("dryRun") {
			return next.RoundTrip(r)
		}
		w.mu.Lock()
		method, text, _ := strings.Cut(w.at, " ")
		counts := w.at == "" || r.Method == method && strings.Contains(r.URL.Path, text)
		if counts {
			w.n++
		}
		kill := counts && w.n == w.kill
		w.mu.Unlock()
		if kill && !w.after {
			fmt.Fprintf(w.log, "killed before %s %s\n", r.Method, r.URL.Path)
			die()
		}
		response, err := next.RoundTrip(r)
		if kill {
			fmt.Fprintf(w.log, "killed after %s %s\n", r.Method, r.URL.Path)
			die()
		}
		code := 0
		if err == nil {
			code = response.StatusCode
		}
		fmt.Fprintf(w.log, "write %s %s %d\n", r.Method, r.URL.Path, code)
		return response, err
	})
}

func die() {
	syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// wrapped returns a cluster like c, whose requests pass f.
func wrapped(t testing.TB, config *rest.Config, namespace string, f func(r *http.Request, next http.RoundTripper) (*http.Response, error)) *Cluster {
	t.Helper()
	config = rest.CopyConfig(config)
	config.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return roundTripper(func(r *http.Request) (*http.Response, error) { return f(r, next) })
	})
	c, err := NewCluster(config, namespace)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestE2EWritePoints kills the driver of a run at each of its writes, before and
// after it, and wants the next one to go on at once: no step is started once
// more, and no pod is left behind.
func TestE2EWritePoints(t *testing.T) {
	t.Parallel()
	c := newFakeCluster(t)
	limits := shortened
	limits.Lease = time.Hour // nobody could wait for it
	limits.Settle = 30 * time.Second
	cfg := childConfig{Kubeconfig: os.Getenv("KUBECONFIG"), Namespace: c.Namespace, Limits: limits}

	whole := cfg
	whole.Run = newName("whole")
	whole.Pipeline = diamond(whole.Run)
	ch := startChild(t, whole)
	if ch.wait(t); len(ch.out.lines("writes")) == 0 {
		t.Fatal("the driver did not end by itself")
	}
	writes, err := strconv.Atoi(ch.out.lines("writes")[0])
	if err != nil || ch.out.lines("result")[0] != "succeeded" {
		t.Fatalf("%v, %v", err, ch.out.lines("result"))
	}
	wantStarts(t, whole.Run, diamondStarts)
	t.Logf("%d writes", writes)

	for _, after := range []bool{false, true} {
		for n := 1; n <= writes; n++ {
			cfg := cfg
			cfg.Kill, cfg.After = n, after
			cfg.Run = newName(fmt.Sprintf("w%d-%v", n, map[bool]string{true: "after", false: "before"}[after]))
			cfg.Pipeline = diamond(cfg.Run)
			t.Run(fmt.Sprintf("%d after=%v", n, after), func(t *testing.T) {
				t.Parallel()
				ch := startChild(t, cfg)
				if killed := ch.wait(t); !killed {
					if n < writes-5 { // as several commits may be one, a run has a few less at times
						t.Errorf("the driver was not killed at write %d", n)
					}
					return
				}
				result := finish(t, c, cfg.Pipeline, cfg.Run, limits)
				wantState(t, result, engine.Succeeded, map[string]engine.State{"a": engine.Succeeded, "b": engine.Succeeded, "c": engine.Succeeded, "d": engine.Succeeded})
				wantStarts(t, cfg.Run, diamondStarts)
				wantReleased(t, c, cfg.Run)
			})
		}
	}
}
