//go:build e2e

package k8s

import (
	"bytes"
	"context"
	random "crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/clustertest"
)

// This file tests what is kept of a run in the cluster, and what becomes of the
// run if somebody takes it away.

// row is a pipeline of n steps that need nothing.
func row(run string, n int) *dag.Pipeline {
	p := &dag.Pipeline{Name: "row"}
	for i := range n {
		p.Steps = append(p.Steps, fakeStep(run, fmt.Sprintf("s%03d", i), succeeds))
	}
	return p
}

// beginShards makes a run whose state has so many parts.
func beginShards(t testing.TB, c *Cluster, p *dag.Pipeline, name string, limits Limits, shards int) *Run {
	t.Helper()
	r, err := create(t.Context(), c, p, infoOf(name), Options{Limits: limits}, "test", shards)
	if err != nil {
		t.Fatal(err)
	}
	return watched(t, r)
}

func noise(n int) string {
	const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+/"
	b := make([]byte, n)
	random.Read(b)
	for i := range b {
		b[i] = letters[b[i]%64]
	}
	return string(b)
}

// done is the record of a step that has succeeded.
func done(run, step string, outputs map[string]string) engine.Record {
	at := time.Now().UTC()
	return engine.Record{Step: step, State: engine.Succeeded, Outputs: outputs, Started: at, Finished: at,
		Attempts: []engine.Outcome{{ID: engine.AttemptID(run+"-id", step, 1), Number: 1, Cause: engine.Exited, Started: at, Finished: at}}}
}

// TestE2EState wants all that is committed to be found by the next driver,
// whatever comes in between.
func TestE2EState(t *testing.T) {
	t.Parallel()
	c := newFakeCluster(t)
	name := newName("state")
	p := row(name, 64)
	var shuffled atomic.Bool
	// Now and then somebody writes a shard just before the driver does.
	disturbed := wrapped(t, clustertest.Faulty(t), c.Namespace, func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
		if r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/configmaps/") && rand.N(3) == 0 {
			shard := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
			patch := fmt.Sprintf(`{"metadata":{"annotations":{"somebody":"%d"}}}`, rand.Int64())
			if _, err := c.configMaps.Patch(r.Context(), shard, types.MergePatchType, []byte(patch), metav1.PatchOptions{}); err == nil {
				shuffled.Store(true)
			}
		}
		return next.RoundTrip(r)
	})
	first := beginShards(t, disturbed, p, name, shortened, 4)
	facts, epoch, err := first.Claim(t.Context())
	if err != nil || len(facts.Steps) != 0 || facts.Run.State != "" {
		t.Fatalf("the facts of a new run: %v, %v", facts, err)
	}
	lost := addRule(t, "--verb", "update,create", "--path", "/namespaces/"+c.Namespace+"/configmaps", "--lose", "--skip", "3", "--times", "6")
	want := engine.Facts{Run: engine.RunRecord{State: engine.Running, Started: time.Now().UTC()}, Steps: map[string]engine.Record{}}
	for i, s := range p.Steps {
		var outputs map[string]string
		switch i % 8 {
		case 0:
			outputs = map[string]string{"text": noise(2000), "more": "x"} // apart
		case 1:
			outputs = map[string]string{"text": noise(maxInline - 4)}
		}
		want.Steps[s.Name] = done(name, s.Name, outputs)
	}
	var wg sync.WaitGroup
	for k := range 8 { // each commits steps of all shards
		wg.Go(func() {
			var records []engine.Record
			for i, s := range p.Steps {
				if i%8 == k {
					records = append(records, want.Steps[s.Name])
				}
			}
			run := &want.Run
			if k%2 > 0 {
				run = nil
			}
			if err := first.Commit(t.Context(), epoch, run, records); err != nil {
				t.Errorf("commit %d: %v", k, err)
			}
		})
	}
	wg.Wait()
	if !shuffled.Load() || applied(t, lost) < 6 {
		t.Errorf("nothing came in between: %v, %d answers lost", shuffled.Load(), applied(t, lost))
	}
	first.Close(t.Context(), false)

	second := open(t, c, name)
	if diff := cmp.Diff(mustJSON(t, p), mustJSON(t, second.Pipeline())); diff != "" {
		t.Errorf("the pipeline (-made +found):\n%s", diff)
	}
	facts, later, err := second.Claim(t.Context())
	if err != nil || later != epoch+1 {
		t.Fatalf("claim: epoch %d, %v", later, err)
	}
	if diff := cmp.Diff(want, facts); diff != "" {
		t.Errorf("facts (-committed +found):\n%s", diff)
	}
	if err := first.Commit(t.Context(), epoch, &want.Run, nil); err == nil {
		t.Error("the first driver could commit when the second had the run")
	}
}

func mustJSON(t testing.TB, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestE2EKeptOutputs resumes a run whose first step has left more than its
// record holds: the second has it in its arguments.
func TestE2EKeptOutputs(t *testing.T) {
	t.Parallel()
	c := newFakeCluster(t)
	name := newName("kept")
	text := noise(3000)
	ref := dag.Ref{Kind: dag.RefOutput, Step: "a", Name: "text"}
	b := fakeStep(name, "b", succeeds)
	b.Container.Set([]any{"use", ref.Token()}, "command")
	a := fakeStep(name, "a", succeeds)
	a.Outputs = []dag.Output{{Name: "text", Path: "/out/text"}}
	p := &dag.Pipeline{Name: "kept", Steps: []*dag.Step{a, b}}
	r, err := Create(t.Context(), c, p, infoOf(name), Options{Limits: shortened, Image: "localhost/none:1"}, "test")
	if err != nil {
		t.Fatal(err)
	}
	watched(t, r)
	_, epoch, err := r.Claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Commit(t.Context(), epoch, &engine.RunRecord{State: engine.Running, Started: time.Now()}, []engine.Record{done(name, "a", map[string]string{"text": text})}); err != nil {
		t.Fatal(err)
	}
	r.Close(t.Context(), false)
	wantState(t, finish(t, c, nil, name, shortened), engine.Succeeded, nil)
	wantStarts(t, name, map[string]int{"b": 1})
	for _, pod := range podsOf(t, c, name) {
		if got := pod.Spec.Containers[0].Command; got[1] != text {
			t.Errorf("the pod of b has %d bytes in its argument, %.20q; want the %d of the output", len(got[1]), got[1], len(text))
		}
	}
}

// TestE2EParts makes a run whose pipeline takes several ConfigMaps.
func TestE2EParts(t *testing.T) {
	t.Parallel()
	c := newFakeCluster(t)
	name := newName("parts")
	p := row(name, 13)
	for _, s := range p.Steps {
		s.Container.Set([]any{"work", noise(110_000)}, "command")
	}
	begin(t, c, p, name, shortened)
	r := open(t, c, name)
	if mustJSON(t, p) != mustJSON(t, r.Pipeline()) {
		t.Error("the pipeline is not the one that was made")
	}
	list, err := c.configMaps.List(t.Context(), selector(name, kindPart))
	if err != nil || len(list.Items) == 0 {
		t.Fatalf("%d parts beside the first, %v; want some", len(list.Items), err)
	}
	missing := list.Items[len(list.Items)-1].Name
	if err := c.configMaps.Delete(t.Context(), missing, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	_, err = Open(t.Context(), c, name)
	wantError(t, "open a run without a part of its pipeline", err, missing, "kfs delete "+name)
	if err := Delete(t.Context(), c, name, false); err != nil {
		t.Fatal(err)
	}
	// One of the same name is made at once, though what was left of the first may
	// not have been cleared away.
	begin(t, c, p, name, shortened)
	open(t, c, name)
}

func wantError(t testing.TB, what string, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Errorf("%s: no error; want one with %q", what, words)
		return
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%s: %v; want %q in it", what, err, w)
		}
	}
}

// TestE2EDamagedState takes away or changes, with no driver there, what is kept
// of a run: the next driver refuses it, and says what is wrong with what.
func TestE2EDamagedState(t *testing.T) {
	t.Parallel()
	c := newFakeCluster(t)
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, run string) error
		words  []string // of the error; RUN stands for the run
	}{
		{"shard deleted", func(t *testing.T, run string) error {
			return c.configMaps.Delete(t.Context(), shardName(run, 1), metav1.DeleteOptions{})
		}, []string{"config map kfs-RUN-s1,", "is missing", "kfs delete RUN"}},
		{"shard and lease deleted", func(t *testing.T, run string) error {
			return errors.Join(c.leases.Delete(t.Context(), objectName(run), metav1.DeleteOptions{}), c.configMaps.Delete(t.Context(), shardName(run, 1), metav1.DeleteOptions{}))
		}, []string{"config map kfs-RUN-s1,", "is missing", "kfs delete RUN"}},
		{"shard changed", func(t *testing.T, run string) error {
			return change(t.Context(), c, shardName(run, 1), func(m *corev1.ConfigMap) { m.BinaryData[stateKey][20] ^= 1 })
		}, []string{"config map kfs-RUN-s1,", "changed by hand, or damaged", "kfs delete RUN"}},
		{"shard emptied", func(t *testing.T, run string) error {
			return change(t.Context(), c, shardName(run, 1), func(m *corev1.ConfigMap) { m.BinaryData = nil })
		}, []string{"config map kfs-RUN-s1,", "changed by hand, or damaged"}},
		{"shard of a newer kfs", func(t *testing.T, run string) error {
			return change(t.Context(), c, shardName(run, 1), func(m *corev1.ConfigMap) {
				m.BinaryData[stateKey], _ = pack(&shard{Version: stateVersion + 1})
			})
		}, []string{"config map kfs-RUN-s1 ", "another version of kfs"}},
		{"outputs deleted", func(t *testing.T, run string) error {
			return c.configMaps.Delete(t.Context(), valuesName(engine.AttemptID(run+"-id", "s000", 1)), metav1.DeleteOptions{})
		}, []string{"-values,", `outputs of step "s000"`, "missing", "kfs delete RUN"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			name := newName("damaged")
			r := beginShards(t, c, row(name, 4), name, shortened, 2)
			_, epoch, err := r.Claim(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			records := []engine.Record{done(name, "s000", map[string]string{"text": noise(2000)}), done(name, "s003", nil)}
			if err := r.Commit(t.Context(), epoch, &engine.RunRecord{State: engine.Running}, records); err != nil {
				t.Fatal(err)
			}
			r.Close(t.Context(), false)
			if err := tt.damage(t, name); err != nil {
				t.Fatal(err)
			}
			words := slices.Clone(tt.words)
			for i := range words {
				words[i] = strings.ReplaceAll(words[i], "RUN", name)
			}
			for range 2 { // the first leaves no trace that the second would trust
				r := open(t, c, name)
				_, _, err = r.Claim(t.Context())
				wantError(t, "claim", err, words...)
				r.Close(t.Context(), false)
			}
			if err := Delete(t.Context(), c, name, false); err != nil {
				t.Errorf("delete: %v", err)
			}
			wantNothing(t, c, name)
		})
	}
}

func change(ctx context.Context, c *Cluster, name string, f func(m *corev1.ConfigMap)) error {
	m, err := c.configMaps.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	f(m)
	_, err = c.configMaps.Update(ctx, m, metav1.UpdateOptions{})
	return err
}

// TestE2EShardChangedInUse changes and deletes shards under a driver: what it
// has committed is the truth, and it cannot go on without a shard.
func TestE2EShardChangedInUse(t *testing.T) {
	t.Parallel()
	c := newFakeCluster(t)
	name := newName("inuse")
	r := beginShards(t, c, row(name, 4), name, shortened, 2)
	_, epoch, err := r.Claim(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	first, second := done(name, "s002", nil), done(name, "s003", nil)
	if err := r.Commit(t.Context(), epoch, nil, []engine.Record{first}); err != nil {
		t.Fatal(err)
	}
	if err := change(t.Context(), c, shardName(name, 1), func(m *corev1.ConfigMap) { m.BinaryData = map[string][]byte{stateKey: []byte("nonsense")} }); err != nil {
		t.Fatal(err)
	}
	if err := r.Commit(t.Context(), epoch, nil, []engine.Record{second}); err != nil {
		t.Errorf("commit to a shard that somebody has written: %v", err)
	}
	m, err := c.configMaps.Get(t.Context(), shardName(name, 1), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	var kept shard
	if err := unpack(m.BinaryData[stateKey], &kept); err != nil || len(kept.Records) != 2 {
		t.Errorf("the shard has %d records, %v; want 2", len(kept.Records), err)
	}
	if err := c.configMaps.Delete(t.Context(), shardName(name, 1), metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	wantError(t, "commit to a shard that was deleted", r.Commit(t.Context(), epoch, nil, []engine.Record{second}), shardName(name, 1), "deleted by somebody")
}

// TestE2EResult force-deletes the pod of a step after it has succeeded, while no
// driver is there: the result is kept, and the step is not run once more.
func TestE2EResult(t *testing.T) {
	t.Parallel()
	clustertest.Busybox(t)
	c := newFakeCluster(t)
	name := newName("result")
	a := &dag.Step{Name: "a", Container: dag.Object{
		{Name: "image", Value: clustertest.BusyboxImage}, {Name: "command", Value: []any{"sh", "-c", "trap 'exit 0' TERM; echo done"}}}}
	p := &dag.Pipeline{Name: "result", Steps: []*dag.Step{a, fakeStep(name, "b", succeeds, "a")}}
	limits := shortened
	limits.Lease = time.Hour
	// The run's record is committed first, then that of a.
	ch := startChild(t, childConfig{Kubeconfig: os.Getenv("KUBECONFIG"), Namespace: c.Namespace, Run: name, Pipeline: p, Limits: limits, KillAt: "PUT -s0", Kill: 3})
	if !ch.wait(t) {
		t.Fatalf("the driver was not killed:\n%s", ch.out.String())
	}
	pod := podsOf(t, c, name)[0]
	clustertest.Command(t, "fault", "delete-pod", c.Namespace+"/"+pod.Name, "--force")
	r := open(t, c, name)
	result, err := drive(t.Context(), r, engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	wantState(t, result, engine.Succeeded, map[string]engine.State{"a": engine.Succeeded, "b": engine.Succeeded})
	for _, s := range result.Steps {
		if len(s.Attempts) != 1 {
			t.Errorf("step %s had %d attempts; want 1", s.Step, len(s.Attempts))
		}
	}
	wantStarts(t, name, map[string]int{"b": 1})
	wantReleased(t, c, name)
	eventually(t, "the pod of a to be gone", func() error {
		for _, p := range podsOf(t, c, name) {
			if p.UID == pod.UID {
				return errors.New("it is there")
			}
		}
		return nil
	})
}

// TestE2EDelete deletes runs in each of the states that they can be in.
func TestE2EDelete(t *testing.T) {
	t.Parallel()
	c := newFakeCluster(t)
	t.Run("ended", func(t *testing.T) {
		t.Parallel()
		name := newName("ended")
		p := diamond(name)
		p.Conf = &dag.Conf{MinAvailable: "50%"}
		wantState(t, finish(t, c, p, name, shortened), engine.Succeeded, nil)
		if n := len(podsOf(t, c, name)); n != 5 {
			t.Errorf("%d pods after the run; want 5", n)
		}
		// A part of its state is no run.
		if err := Delete(t.Context(), c, name+"-s0", true); !errors.Is(err, ErrNoRun) {
			t.Errorf("delete a part of the state: %v; want no such run", err)
		}
		_, err := Create(t.Context(), c, p, infoOf(name+"-s0"), Options{}, "test")
		wantError(t, "a run that is named as a part of the state", err, "choose another name")
		if err := Delete(t.Context(), c, name, false); err != nil {
			t.Fatal(err)
		}
		wantNothing(t, c, name)
		if err := Delete(t.Context(), c, name, false); !errors.Is(err, ErrNoRun) {
			t.Errorf("delete what is deleted: %v; want no such run", err)
		}
	})
	t.Run("time to live", func(t *testing.T) {
		t.Parallel()
		for _, early := range []bool{false, true} {
			name := newName("ttl")
			p := diamond(name)
			seconds := 3
			if early {
				seconds = 1000
			}
			p.Conf = &dag.Conf{TTLSeconds: &seconds}
			wantState(t, finish(t, c, p, name, shortened), engine.Succeeded, nil)
			job, err := c.jobs.Get(t.Context(), expiryName(name), metav1.GetOptions{})
			if err != nil || len(podsOf(t, c, name)) != 5 {
				t.Errorf("after the run: %v, %d pods; want a job and all pods", err, len(podsOf(t, c, name)))
			}
			if early {
				if err := Delete(t.Context(), c, name, false); err != nil {
					t.Fatal(err)
				}
			}
			wantNothing(t, c, name)
			eventually(t, "the job to be gone", func() error {
				if job, err = c.jobs.Get(t.Context(), job.Name, metav1.GetOptions{}); apierrors.IsNotFound(err) {
					return nil
				}
				return fmt.Errorf("it is %+v, %v", job.Status, err)
			})
		}
	})
	t.Run("driver dead, pods kept", func(t *testing.T) {
		t.Parallel()
		name := newName("kept")
		p := diamond(name)
		p.Steps = append(p.Steps, fakeStep(name, "e", runsOn, "a"))
		ch := startChild(t, childConfig{Kubeconfig: os.Getenv("KUBECONFIG"), Namespace: c.Namespace, Run: name, Pipeline: p, Limits: shortened, KillAt: "PATCH pods", Kill: 1})
		if !ch.wait(t) {
			t.Fatal("the driver was not killed")
		}
		if !slices.ContainsFunc(podsOf(t, c, name), func(p corev1.Pod) bool { return slices.Contains(p.Finalizers, outcomeFinalizer) }) {
			t.Error("no pod is kept")
		}
		if err := Delete(t.Context(), c, name, false); err != nil {
			t.Fatal(err)
		}
		wantNothing(t, c, name)
	})
	t.Run("by force", func(t *testing.T) {
		t.Parallel()
		name := newName("force")
		p := &dag.Pipeline{Name: "force", Steps: []*dag.Step{fakeStep(name, "a", runsOn)}}
		r := begin(t, c, p, name, shortened)
		ended := make(chan error)
		go func() {
			_, err := drive(t.Context(), r, engine.Config{})
			ended <- err
		}()
		waitRunning(t, c, name, "a")
		if err := Delete(t.Context(), c, name, true); err != nil {
			t.Fatal(err)
		}
		wantError(t, "the driver", <-ended, "config map kfs-"+name+" was deleted by somebody")
		wantNothing(t, c, name)
	})
	t.Run("run object deleted with no driver", func(t *testing.T) {
		t.Parallel()
		name := newName("orphan")
		p := &dag.Pipeline{Name: "orphan", Steps: []*dag.Step{fakeStep(name, "a", runsOn)}}
		ch := startChild(t, childConfig{Kubeconfig: os.Getenv("KUBECONFIG"), Namespace: c.Namespace, Run: name, Pipeline: p, Limits: shortened})
		waitRunning(t, c, name, "a")
		ch.Process.Kill()
		ch.wait(t)
		if err := c.configMaps.Delete(t.Context(), objectName(name), metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := Delete(t.Context(), c, name, false); err != nil {
			t.Errorf("delete what is left: %v", err)
		}
		wantNothing(t, c, name)
	})
}

// TestE2ENameAgain makes a run of a name whose last run was deleted a moment
// ago, and goes on with it when what was left of that one is cleared away.
func TestE2ENameAgain(t *testing.T) {
	t.Parallel()
	c := newFakeCluster(t)
	name := newName("again")
	for i := range 3 {
		p := diamond(fmt.Sprint(name, i))
		p.Conf = &dag.Conf{MinAvailable: "1"}
		info := engine.RunInfo{ID: fmt.Sprint(name, "-", i), Name: name}
		r, err := create(t.Context(), c, p, info, Options{Limits: shortened}, "test", 3)
		if err != nil {
			t.Fatal(err)
		}
		watched(t, r)
		result, err := drive(t.Context(), r, engine.Config{})
		if err != nil {
			t.Fatal(err)
		}
		wantState(t, result, engine.Succeeded, nil)
		wantStarts(t, fmt.Sprint(name, i), diamondStarts)
		if err := Delete(t.Context(), c, name, false); err != nil {
			t.Fatal(err)
		}
	}
	// And what is not kfs's is let be.
	mine := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: shardName(name, 0)}, BinaryData: map[string][]byte{"mine": []byte("mine")}}
	eventually(t, "the last shard to be gone", func() error {
		_, err := c.configMaps.Create(t.Context(), mine, metav1.CreateOptions{})
		return err
	})
	_, err := Create(t.Context(), c, diamond(name), infoOf(name), Options{}, "test")
	wantError(t, "a run beside a config map of somebody", err, shardName(name, 0), "is not kfs's")
	if m, err := c.configMaps.Get(t.Context(), mine.Name, metav1.GetOptions{}); err != nil || !bytes.Equal(m.BinaryData["mine"], []byte("mine")) {
		t.Errorf("the config map of somebody: %v", err)
	}
}
