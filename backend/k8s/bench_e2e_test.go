//go:build e2e

package k8s

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
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
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/clustertest"
)

// This file measures runs on a cluster; docs/performance.md says what and how.
// A time says little on a machine that others share. So each is divided by the
// time of a loop that does the least for the same pods, in turn with it.

var (
	benchSteps   = flag.Int("steps", 10_000, "of benchmarks: steps of the large runs")
	benchPairs   = flag.Int("pairs", 5, "of benchmarks: pairs that a ratio is the median of")
	benchProfile = flag.String("profiles", "", "of benchmarks: `folder` for profiles of the large runs")
)

// BenchmarkE2EChain measures five steps, one after the other, on the real node.
// The loop waits for each pod's phase Succeeded, as kubectl wait does.
func BenchmarkE2EChain(b *testing.B) {
	clustertest.Busybox(b)
	clustertest.Kfs(b)
	b.Run("Plain", func(b *testing.B) {
		comparePods(b, 0.6, chain(5, benchReal), rawChain)
	})
	b.Run("Outputs", func(b *testing.B) {
		p := chain(5, func(i int) *dag.Step {
			s := benchReal(i)
			s.Container.Set([]any{"sh", "-c", `printf %s "$1" >/tmp/out`, "sh"}, "command")
			value := "0"
			if i > 0 {
				value = dag.Ref{Kind: dag.RefOutput, Step: stepName(i - 1), Name: "out"}.Token()
			}
			s.Container.Set([]any{value}, "args")
			s.Outputs = []dag.Output{{Name: "out", Path: "/tmp/out"}}
			return s
		})
		comparePods(b, 0.7, p, rawChain)
	})
}

// BenchmarkE2EFanOut20 measures 20 steps at once on the real node.
func BenchmarkE2EFanOut20(b *testing.B) {
	clustertest.Busybox(b)
	const n = 20
	comparePods(b, 1.15, fanOut(n, benchReal), func(ctx context.Context, c *Cluster, pods []*corev1.Pod) error {
		return rawFanOut(ctx, c, pods, n, 0)
	})
}

// BenchmarkE2EFanOut10000 measures 10,000 steps at once on fake nodes. The loop
// also takes a finalizer off each pod, as kfs does.
func BenchmarkE2EFanOut10000(b *testing.B) {
	c := newCluster(b)
	var most, writes, work []float64 // of the halves of kfs
	compare(b, 1.3, func() time.Duration {
		f := inChild(b, half{What: "kfs", Namespace: c.Namespace, Run: "kfs", Steps: *benchSteps})
		most, writes, work = append(most, mib(f.Memory)), append(writes, float64(f.Writes)/float64(*benchSteps)), append(work, f.Work.Seconds())
		clearRun(b, c, "kfs")
		return f.Took
	}, func() time.Duration {
		f := inChild(b, half{What: "raw", Namespace: c.Namespace, Run: "raw", Steps: *benchSteps})
		clearRun(b, c, "raw")
		return f.Took
	})
	b.ReportMetric(median(writes), "writes/step")
	b.ReportMetric(slices.Max(most), "MiB")
	b.Logf("%d steps on fake nodes: %.2f writes a step (goal 2.2), at most %.0f MiB (goal 256), %.1f s of a processor's time",
		*benchSteps, median(writes), slices.Max(most), median(work))
}

// overheadSteps is how many steps the chain has that overhead is measured by.
const overheadSteps = 200

// BenchmarkE2EOverhead measures the time between the event that says that a
// step has ended and the answer to the create of the next, in a chain on fake
// nodes. The loop writes a ConfigMap in between, and creates the next pod.
func BenchmarkE2EOverhead(b *testing.B) {
	c, m := measured(b, clustertest.Namespace(b))
	p := chain(overheadSteps, benchFake)
	var ours, theirs, ratios []float64 // ms
	for n := range *benchPairs {
		var k, r []float64
		inTurn(n, func() {
			k = kfsOverhead(b, c, m, p)
			clearRun(b, c, "kfs")
		}, func() {
			r = rawOverhead(b, c, benchPods(b, p, "raw"))
			clearRun(b, c, "raw")
		})
		ours, theirs, ratios = append(ours, k...), append(theirs, r...), append(ratios, median(k)/median(r))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ratios), "kfs/raw")
	b.ReportMetric(quantile(ours, 0.5), "p50-ms")
	b.ReportMetric(quantile(ours, 0.99), "p99-ms")
	b.Logf("from the end of a step to the create of the next: median %.1f ms (goal 20), 99 of 100 within %.1f ms (goal 150); "+
		"the loop's two writes: %.1f and %.1f ms; ratio of the medians %.2f, by pairs %.2f",
		quantile(ours, 0.5), quantile(ours, 0.99), quantile(theirs, 0.5), quantile(theirs, 0.99), median(ratios), ratios)
}

// BenchmarkE2EResume kills drivers of a run with SIGKILL, the first at its half,
// the others at each further tenth, and measures how long the next one takes
// from the start of its process to its first create. Beside it, a process lists
// the pods of the run, which a new driver cannot do without.
func BenchmarkE2EResume(b *testing.B) {
	c := newCluster(b)
	h := half{What: "kfs", Namespace: c.Namespace, Run: "kfs", Steps: *benchSteps, Kill: *benchSteps / 2}
	inChild(b, h)
	var took, lists, ratios []float64
	for n := range 5 {
		list := inChild(b, half{What: "list", Namespace: c.Namespace, Run: "kfs"})
		h.What, h.Kill = "resume", *benchSteps/10
		if n == 4 {
			h.Kill = 0
		}
		f := inChild(b, h)
		took, lists = append(took, f.FirstCreate.Sub(f.Began).Seconds()), append(lists, list.Took.Seconds())
		ratios = append(ratios, took[n]/lists[n])
		if n == 4 && f.State != engine.Succeeded {
			b.Errorf("the run has %s", f.State)
		}
	}
	checkStarts(b, c.Namespace, *benchSteps)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ratios), "kfs/list")
	b.ReportMetric(median(took), "kfs-s")
	b.ReportMetric(median(lists), "list-s")
	b.Logf("%d steps, driver killed 5 times: the next one creates after %.2f s (goal 5; each: %.2f); its pods alone are listed in %.2f s, ratio %.2f",
		*benchSteps, median(took), took, median(lists), median(ratios))
	clearRun(b, c, "kfs")
}

// checkStarts checks that the fake kubelet has started each step of a run once.
func checkStarts(b *testing.B, namespace string, steps int) {
	b.Helper()
	n := 0
	for line := range strings.Lines(clustertest.Command(b, "starts")) {
		if pod, count, _ := strings.Cut(strings.TrimSpace(line), " "); strings.HasPrefix(pod, namespace+"/") {
			n++
			if strings.TrimSpace(count) != "1" {
				b.Errorf("pod %s was started %s times", pod, count)
			}
		}
	}
	if n != steps {
		b.Errorf("%d pods were started for %d steps", n, steps)
	}
}

// comparePods compares a run of kfs with a loop that makes the same pods.
func comparePods(b *testing.B, goal float64, p *dag.Pipeline, raw func(context.Context, *Cluster, []*corev1.Pod) error) {
	c := newCluster(b)
	compare(b, goal, func() time.Duration {
		began := time.Now()
		runKfs(b, c, p, 0)
		took := time.Since(began)
		clearRun(b, c, "kfs")
		time.Sleep(forgets)
		return took
	}, func() time.Duration {
		pods := benchPods(b, p, "raw")
		for _, pod := range pods {
			pod.Finalizers = nil
		}
		began := time.Now()
		if err := raw(b.Context(), c, pods); err != nil {
			b.Fatal(err)
		}
		took := time.Since(began)
		clearRun(b, c, "raw")
		time.Sleep(forgets)
		return took
	})
}

// forgets is how long a real node may take to clear away what it had of pods
// that are gone.
const forgets = 3 * time.Second

// compare measures kfs and a loop in turn, and reports the median of the ratios.
func compare(b *testing.B, goal float64, kfs, raw func() time.Duration) {
	b.Helper()
	var ours, theirs, ratios []float64
	for n := range *benchPairs {
		inTurn(n,
			func() { ours = append(ours, kfs().Seconds()) },
			func() { theirs = append(theirs, raw().Seconds()) })
		ratios = append(ratios, ours[n]/theirs[n])
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ratios), "kfs/raw")
	b.ReportMetric(median(ours), "kfs-s")
	b.ReportMetric(median(theirs), "raw-s")
	b.Logf("kfs %.2f s, the loop %.2f s: ratio %.3f, goal %.2f; by pairs %.3f", median(ours), median(theirs), median(ratios), goal, ratios)
}

// inTurn calls both; which is first alternates, so that neither always finds
// what the other has left of the machine.
func inTurn(n int, f, g func()) {
	if n%2 == 1 {
		f, g = g, f
	}
	f()
	g()
}

func median(values []float64) float64 { return quantile(values, 0.5) }

func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(math.Ceil(q*float64(len(sorted)))), len(sorted))-1]
}

func mib(bytes int64) float64 { return float64(bytes) / (1 << 20) }

func stepName(i int) string { return "s" + strconv.Itoa(i) }

// benchReal returns a step that does nothing, on the real node.
func benchReal(i int) *dag.Step {
	s := &dag.Step{Name: stepName(i)}
	s.Container.Set(clustertest.BusyboxImage, "image")
	s.Container.Set([]any{"true"}, "command")
	return s
}

// benchFake returns a step on a fake node, which succeeds at once.
func benchFake(i int) *dag.Step {
	const label = "fake.kfs.dev/node"
	s := benchReal(i)
	s.NodeSelector.Set("true", label)
	s.Tolerations = []dag.Object{{{Name: "key", Value: label}, {Name: "operator", Value: "Exists"}}}
	return s
}

func fanOut(n int, step func(i int) *dag.Step) *dag.Pipeline {
	p := &dag.Pipeline{Name: "bench"}
	for i := range n {
		p.Steps = append(p.Steps, step(i))
	}
	return p
}

func chain(n int, step func(i int) *dag.Step) *dag.Pipeline {
	p := fanOut(n, step)
	for i, s := range p.Steps[1:] {
		s.After = []dag.Edge{{Step: stepName(i)}}
	}
	return p
}

// runKfs carries a pipeline out, as kfs run does, with Run.Logs as they are given.
func runKfs(b *testing.B, c *Cluster, p *dag.Pipeline, logs int) {
	b.Helper()
	info := engine.RunInfo{ID: "kfs", Name: "kfs"}
	r, err := Create(b.Context(), c, p, info, Options{Image: clustertest.KfsImage}, "bench")
	if err != nil {
		b.Fatal(err)
	}
	r.Logs = logs
	result, err := engine.Run(b.Context(), r, p, info, engine.Config{Store: r})
	r.Close(b.Context(), err == nil)
	if err != nil || result.State != engine.Succeeded {
		b.Fatal("run: ", err, result)
	}
}

// benchPods returns the pods that kfs would make, without an owner.
func benchPods(t testing.TB, p *dag.Pipeline, name string) []*corev1.Pod {
	t.Helper()
	info := engine.RunInfo{ID: name, Name: name}
	attempts, err := engine.Preview(p, info)
	if err != nil {
		t.Fatal(err)
	}
	m := newPodMaker(info, p, Options{Image: clustertest.KfsImage})
	var pods []*corev1.Pod
	for _, a := range attempts {
		tree, err := m.pod(a, nil)
		if err != nil {
			t.Fatal(err)
		}
		pod := &corev1.Pod{}
		if err := typed(tree, pod); err != nil {
			t.Fatal(err)
		}
		pods = append(pods, pod)
	}
	return pods
}

// watchPods watches the pods of a run of which there are none yet.
func watchPods(ctx context.Context, c *Cluster, run string) (watch.Interface, error) {
	return c.pods.Watch(ctx, selector(run, ""))
}

// seen returns the pod of an event, or an error if the watch has ended.
func seen(ev watch.Event) (*corev1.Pod, error) {
	pod, ok := ev.Object.(*corev1.Pod)
	if !ok {
		return nil, fmt.Errorf("the watch of pods has ended: %v", ev.Object)
	}
	return pod, nil
}

// rawChain makes pods one after the other.
func rawChain(ctx context.Context, c *Cluster, pods []*corev1.Pod) error {
	w, err := watchPods(ctx, c, pods[0].Labels[runLabel])
	if err != nil {
		return err
	}
	defer w.Stop()
	for _, pod := range pods {
		if _, err := c.pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			return err
		}
		for {
			now, err := seen(<-w.ResultChan())
			if err != nil {
				return err
			}
			if now.Name == pod.Name && now.Status.Phase == corev1.PodSucceeded {
				break
			}
		}
	}
	return nil
}

// rawFanOut makes pods, so many at once, and returns when all have succeeded. If
// releasers is not 0, so many at once take the finalizers off those that have.
func rawFanOut(ctx context.Context, c *Cluster, pods []*corev1.Pod, creators, releasers int) error {
	w, err := watchPods(ctx, c, pods[0].Labels[runLabel])
	if err != nil {
		return err
	}
	defer w.Stop()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var next atomic.Int64
	var working sync.WaitGroup
	ended := make(chan string, len(pods))
	for range creators {
		working.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(pods)); i = next.Add(1) - 1 {
				if _, err := c.pods.Create(ctx, pods[i], metav1.CreateOptions{}); err != nil {
					cancel(err)
					return
				}
			}
		})
	}
	for range releasers {
		working.Go(func() {
			for name := range ended {
				if err := takeFinalizer(ctx, c, name); err != nil {
					cancel(err)
				}
			}
		})
	}
	done := map[string]bool{}
	for len(done) < len(pods) && err == nil {
		select {
		case ev := <-w.ResultChan():
			var pod *corev1.Pod
			if pod, err = seen(ev); err == nil && pod.Status.Phase == corev1.PodSucceeded && !done[pod.Name] {
				done[pod.Name] = true
				ended <- pod.Name
			}
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
	}
	close(ended)
	working.Wait()
	return cmp.Or(err, context.Cause(ctx))
}

// kfsOverhead runs a chain, and returns the times between steps in ms.
func kfsOverhead(b *testing.B, c *Cluster, m *meter, p *dag.Pipeline) []float64 {
	ctx, cancel := context.WithCancel(b.Context())
	defer cancel()
	w, err := watchPods(ctx, c, "kfs")
	if err != nil {
		b.Fatal(err)
	}
	var ends []time.Time
	watching := make(chan struct{})
	go func() {
		defer close(watching)
		known := map[string]bool{}
		for ev := range w.ResultChan() {
			if pod, err := seen(ev); err == nil && mainStatus(pod).State.Terminated != nil && !known[pod.Name] {
				known[pod.Name] = true
				ends = append(ends, time.Now())
			}
		}
	}()
	before := len(m.creates)
	runKfs(b, c, p, -1) // fake nodes have no logs
	w.Stop()
	<-watching
	creates := m.creates[before:]
	if len(ends) != len(p.Steps) || len(creates) != len(p.Steps) {
		b.Fatalf("%d ends and %d creates of %d steps", len(ends), len(creates), len(p.Steps))
	}
	var between []float64
	for i, at := range creates[1:] {
		between = append(between, ms(at.Sub(ends[i])))
	}
	return between
}

// rawOverhead makes pods one after the other, with a ConfigMap written between
// them, and returns the times between them in ms.
func rawOverhead(b *testing.B, c *Cluster, pods []*corev1.Pod) []float64 {
	ctx := b.Context()
	m, err := c.configMaps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "raw"}}, metav1.CreateOptions{})
	if err != nil {
		b.Fatal(err)
	}
	defer c.configMaps.Delete(ctx, "raw", metav1.DeleteOptions{})
	w, err := watchPods(ctx, c, "raw")
	if err != nil {
		b.Fatal(err)
	}
	defer w.Stop()
	var between []float64
	for i, pod := range pods {
		began := time.Now()
		if i > 0 {
			m.BinaryData = map[string][]byte{stateKey: make([]byte, 4<<10)}
			m.BinaryData[stateKey][0] = byte(i)
			if m, err = c.configMaps.Update(ctx, m, metav1.UpdateOptions{}); err != nil {
				b.Fatal(err)
			}
		}
		if _, err := c.pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
		if i > 0 {
			between = append(between, ms(time.Since(began)))
		}
		for {
			now, err := seen(<-w.ResultChan())
			if err != nil {
				b.Fatal(err)
			}
			if now.Name == pod.Name && mainStatus(now).State.Terminated != nil {
				break
			}
		}
	}
	return between
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// clearRun deletes a run and its pods, and waits until they are gone: the next
// half is to find the cluster as this one has.
func clearRun(b *testing.B, c *Cluster, run string) {
	b.Helper()
	ctx := b.Context()
	if err := Delete(ctx, c, run, true); err != nil && !errors.Is(err, ErrNoRun) {
		b.Fatal(err)
	}
	for {
		list, err := c.pods.List(ctx, selector(run, ""))
		if err != nil {
			b.Fatal(err)
		}
		if len(list.Items) == 0 {
			return
		}
		var next atomic.Int64
		var working sync.WaitGroup
		for range creators {
			working.Go(func() {
				for i := next.Add(1) - 1; i < int64(len(list.Items)); i = next.Add(1) - 1 {
					c.pods.Delete(ctx, list.Items[i].Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}) // else the next round does
				}
			})
		}
		working.Wait()
	}
}

// A meter counts what a client asks for.
type meter struct {
	mu      sync.Mutex
	writes  int
	creates []time.Time // of pods: when each was answered
}

// A metered transport tells a meter of its requests.
type metered struct {
	next http.RoundTripper
	m    *meter
}

func (t metered) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(r)
	t.m.mu.Lock()
	defer t.m.mu.Unlock()
	if r.Method != http.MethodGet {
		t.m.writes++
	}
	if r.Method == http.MethodPost && strings.HasSuffix(r.URL.Path, "/pods") {
		t.m.creates = append(t.m.creates, time.Now())
	}
	return response, err
}

// measured returns a cluster that is asked as fast as it answers, and what
// counts the requests.
func measured(t testing.TB, namespace string) (*Cluster, *meter) {
	t.Helper()
	m := &meter{}
	config := clustertest.Config(t)
	config.QPS = -1
	config.Wrap(func(next http.RoundTripper) http.RoundTripper { return metered{next, m} })
	c, err := NewCluster(config, namespace)
	if err != nil {
		t.Fatal(err)
	}
	return c, m
}

// A half is one half of a benchmark, carried out by a process of its own: its
// memory is nobody else's, and it can be killed.
type half struct {
	What      string // kfs, resume, raw or list
	Namespace string
	Run       string
	Steps     int
	Kill      int    // after so many more steps it kills itself; 0 is never
	Out       string // the file for its figures
}

// figures are what a half has found out.
type figures struct {
	Began       time.Time `json:"-"` // its process
	Took        time.Duration
	Writes      int
	FirstCreate time.Time
	State       engine.State
	Memory      int64         // bytes, the most that it held
	Work        time.Duration `json:"-"` // of processors
}

const halfVariable = "KFS_BENCH_HALF"

// inChild has a half carried out. Of one that kills itself nothing is known.
func inChild(b *testing.B, h half) figures {
	b.Helper()
	h.Out = filepath.Join(b.TempDir(), "figures")
	text, err := json.Marshal(h)
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestBenchHalf$", "-test.timeout=20m")
	if *benchProfile != "" {
		for _, kind := range []string{"cpu", "mem", "mutex"} {
			cmd.Args = append(cmd.Args, fmt.Sprintf("-test.%sprofile=%s", kind, filepath.Join(*benchProfile, b.Name()+"-"+h.What+"."+kind)))
		}
	}
	cmd.Env = append(os.Environ(), halfVariable+"="+string(text))
	f := figures{Began: time.Now()}
	out, err := cmd.CombinedOutput()
	status, _ := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if h.Kill > 0 && status.Signaled() && status.Signal() == syscall.SIGKILL {
		err = nil
	}
	if err != nil {
		b.Fatalf("%s: %v\n%s", h.What, err, out)
	}
	if data, err := os.ReadFile(h.Out); err == nil {
		if err := json.Unmarshal(data, &f); err != nil {
			b.Fatal(err)
		}
	}
	f.Work = cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
	return f
}

// TestBenchHalf is no test: a benchmark calls it in a process of its own.
func TestBenchHalf(t *testing.T) {
	text := os.Getenv(halfVariable)
	if text == "" {
		t.Skip("a part of the benchmarks")
	}
	var h half
	if err := json.Unmarshal([]byte(text), &h); err != nil {
		t.Fatal(err)
	}
	c, m := measured(t, h.Namespace)
	var f figures
	tell := func() {
		f.Writes = m.writes
		f.Memory = mostMemory(t)
		data, err := json.Marshal(f)
		if err == nil {
			err = os.WriteFile(h.Out, data, 0o600)
		}
		if err != nil {
			t.Error(err)
		}
	}
	began := time.Now()
	var err error
	switch h.What {
	case "list":
		_, err = c.pods.List(t.Context(), selector(h.Run, ""))
	case "raw":
		pods := benchPods(t, fanOut(h.Steps, benchFake), h.Run)
		began = time.Now()
		err = rawFanOut(t.Context(), c, pods, creators, releasers)
	default:
		p := fanOut(h.Steps, benchFake)
		began = time.Now()
		f.State, err = largeRun(t, c, p, h, func() {
			if len(m.creates) > 0 {
				f.FirstCreate = m.creates[0]
			}
			tell()
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
		})
		if len(m.creates) > 0 {
			f.FirstCreate = m.creates[0]
		}
	}
	f.Took = time.Since(began)
	if err != nil {
		t.Fatal(err)
	}
	tell()
}

// largeRun begins a run, or goes on with it, and calls kill when so many steps
// have succeeded.
func largeRun(t *testing.T, c *Cluster, p *dag.Pipeline, h half, kill func()) (engine.State, error) {
	info := engine.RunInfo{ID: h.Run, Name: h.Run}
	var r *Run
	var err error
	if h.What == "resume" {
		if r, err = Open(t.Context(), c, h.Run); err == nil {
			p = r.Pipeline()
		}
	} else {
		r, err = Create(t.Context(), c, p, info, Options{}, "bench")
	}
	if err != nil {
		return "", err
	}
	r.Logs = -1
	succeeded := 0
	result, err := engine.Run(t.Context(), r, p, info, engine.Config{Store: r, Events: func(ev engine.Event) {
		if ev.Kind == engine.EventStep && ev.State == engine.Succeeded {
			if succeeded++; succeeded == h.Kill {
				kill()
			}
		}
	}})
	r.Close(t.Context(), err == nil)
	if err != nil {
		return "", err
	}
	return result.State, nil
}

// mostMemory returns the most memory that this process has held.
func mostMemory(t *testing.T) int64 {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kib, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(rest), " kB"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("/proc/self/status has no VmHWM")
	return 0
}
