//go:build e2e

package k8s

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/clustertest"
)

// This file tests that a run has one driver.

// addRule adds a rule to the fault proxy, which is gone after the test.
func addRule(t testing.TB, args ...string) string {
	t.Helper()
	id := strings.TrimSpace(clustertest.Command(t, append([]string{"fault", "rule"}, args...)...))
	t.Cleanup(func() { clearRule(t, id) })
	return id
}

func clearRule(t testing.TB, id string) {
	t.Helper()
	if applied(t, id) >= 0 {
		clustertest.Command(t, "fault", "clear", id)
	}
}

// applied returns how often a rule was applied; -1 if there is no such rule.
func applied(t testing.TB, id string) int {
	t.Helper()
	var rules []struct {
		ID      string
		Applied int
	}
	if err := json.Unmarshal([]byte(clustertest.Command(t, "fault", "rules")), &rules); err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		if r.ID == id {
			return r.Applied
		}
	}
	return -1
}

func waitApplied(t testing.TB, id string) {
	t.Helper()
	eventually(t, "rule "+id+" to be applied", func() error {
		if applied(t, id) < 1 {
			return errors.New("it was not")
		}
		return nil
	})
}

// stranger keeps a Lease of the run as a driver on another machine would, whose
// clock is wrong, until it is cancelled.
func stranger(t testing.TB, c *Cluster, run string, limits Limits) (cancel func()) {
	t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan struct{})
	me := self()
	me.Host, me.Boot = "elsewhere", "another"
	renew := func() error {
		l, err := c.leases.Get(ctx, objectName(run), metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			l, err = c.leases.Create(ctx, &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Name: objectName(run), Labels: runLabels(run)}}, metav1.CreateOptions{})
		}
		if err != nil {
			return err
		}
		fillLease(l, me, max(value(l.Spec.LeaseTransitions), 1), limits.Lease)
		at := metav1.NewMicroTime(l.Spec.RenewTime.Add(-time.Hour))
		l.Spec.RenewTime = &at
		_, err = c.leases.Update(ctx, l, metav1.UpdateOptions{})
		return err
	}
	if err := renew(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(ended)
		for sleep(ctx, limits.Lease/6) == nil {
			if err := renew(); err != nil && ctx.Err() == nil && !apierrors.IsConflict(err) {
				t.Error(err)
				return
			}
		}
	}()
	cancel = func() {
		stop()
		<-ended
	}
	t.Cleanup(cancel)
	return cancel
}

// TestE2EHeld wants a second driver to be told who holds the run.
func TestE2EHeld(t *testing.T) {
	t.Parallel()
	c := newFakeCluster(t)

	t.Run("here", func(t *testing.T) {
		t.Parallel()
		name := newName("here")
		if _, _, err := begin(t, c, diamond(name), name, Limits{Lease: time.Hour}).Claim(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, _, err := open(t, c, name).Claim(t.Context())
		var held *HeldError
		if !errors.As(err, &held) || held.Holder.PID != os.Getpid() || time.Since(held.Since) > time.Minute {
			t.Errorf("a second driver: %v; want this process to be named", err)
		}
		if err := Delete(t.Context(), c, name, false); !errors.As(err, &held) {
			t.Errorf("delete: %v; want the holder", err)
		}
	})
	t.Run("elsewhere", func(t *testing.T) {
		t.Parallel()
		name := newName("elsewhere")
		r := begin(t, c, diamond(name), name, shortened)
		end := stranger(t, c, name, shortened)
		_, _, err := r.Claim(t.Context())
		var held *HeldError
		if !errors.As(err, &held) || held.Holder.Host != "elsewhere" || time.Since(held.Since).Abs() > time.Minute {
			t.Errorf("a second driver: %v; want the host named", err)
		}
		if err := Delete(t.Context(), c, name, false); !errors.As(err, &held) {
			t.Errorf("delete: %v; want the holder", err)
		}
		end()
		// It is dead: one lease later the run has another driver.
		began := time.Now()
		if _, epoch, err := r.Claim(t.Context()); err != nil || epoch != 2 {
			t.Errorf("the run of a dead driver: epoch %d, %v; want 2", epoch, err)
		}
		if took := time.Since(began); took < shortened.Lease {
			t.Errorf("the run was taken over after %v; want the lease of %v to be waited for", took, shortened.Lease)
		}
	})
	t.Run("deleted lease", func(t *testing.T) {
		t.Parallel()
		name := newName("lease")
		first := begin(t, c, diamond(name), name, shortened)
		_, epoch, err := first.Claim(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		running := &engine.RunRecord{State: engine.Running}
		remove := func() {
			if err := c.leases.Delete(t.Context(), objectName(name), metav1.DeleteOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		remove()
		eventually(t, "the driver to make itself another lease", func() error {
			_, err := c.leases.Get(t.Context(), objectName(name), metav1.GetOptions{})
			return err
		})
		if err := first.Commit(t.Context(), epoch, running, nil); err != nil {
			t.Errorf("commit of the driver whose lease was deleted: %v", err)
		}
		// Who is quicker than that has the run, which may take some tries.
		var second *Run
		var later int64
		for range 10 {
			remove()
			second = open(t, c, name)
			if _, later, err = second.Claim(t.Context()); !errors.As(err, new(*HeldError)) {
				break
			}
		}
		if err != nil || later <= epoch {
			t.Fatalf("the second driver has epoch %d, %v; want one later than %d", later, err, epoch)
		}
		if err := first.Commit(t.Context(), epoch, running, nil); !errors.Is(err, engine.ErrStale) {
			t.Errorf("commit of the driver whose lease was deleted and taken: %v; want it to be stale", err)
		}
		if err := second.Commit(t.Context(), later, running, nil); err != nil {
			t.Errorf("commit of the second driver: %v", err)
		}
	})
}

// TestE2EFrozen freezes a driver for longer than its lease, in which another
// one takes the run over. When the first is woken it changes nothing, and what
// was on its way is the other's.
func TestE2EFrozen(t *testing.T) {
	t.Parallel()
	chain := func(run string) *dag.Pipeline {
		return &dag.Pipeline{Name: "chain", Steps: []*dag.Step{
			fakeStep(run, "a", succeeds), fakeStep(run, "b", "{do: succeed, after: 500ms}", "a"), fakeStep(run, "c", succeeds, "b"),
		}}
	}
	is := func(request, method, path string) bool {
		m, kind, _ := strings.Cut(request, " ")
		return method == m && strings.Contains(path, "/"+kind)
	}
	for _, tt := range []struct {
		name string
		rule []string // holds a request of the driver
		late string   // the request of the other driver before which that of the first arrives
		fine []string // what the first may do then: it lets the pod go whose outcome is committed
	}{
		{"late create", []string{"--verb", "create", "--path", "/namespaces/NAMESPACE/pods$", "--skip", "1"}, "POST pods", []string{"POST pods"}},
		{"late commit", []string{"--verb", "update", "--path", "/configmaps/kfs-RUN-s0$", "--skip", "2"}, "PUT configmaps", []string{"PUT configmaps", "PATCH pods"}},
		{"commit after the run", []string{"--verb", "update", "--path", "/configmaps/kfs-RUN-s0$", "--skip", "2"}, "", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c := newFakeCluster(t) // the rule is for one driver
			name := newName("frozen")
			for i := range tt.rule {
				tt.rule[i] = strings.NewReplacer("RUN", name, "NAMESPACE", c.Namespace).Replace(tt.rule[i])
			}
			rule := addRule(t, append(tt.rule, "--delay", "10m", "--times", "1")...)
			first := startChild(t, childConfig{Kubeconfig: os.Getenv("KFS_FAULTS_KUBECONFIG"), Namespace: c.Namespace, Run: name, Pipeline: chain(name), Limits: shortened})
			waitApplied(t, rule)
			if err := first.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			before := len(first.out.lines("write"))

			var once sync.Once
			var found atomic.Int64 // requests of the second driver that found the first one's done
			second := wrapped(t, clustertest.Config(t), c.Namespace, func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
				if tt.late != "" && is(tt.late, r.Method, r.URL.Path) {
					once.Do(func() {
						before := snapshot(t, c, name)
						clearRule(t, rule)
						if err := until(func() error {
							if slices.Equal(snapshot(t, c, name), before) {
								return errors.New("it was not")
							}
							return nil
						}); err != nil {
							t.Errorf("waiting for the late request to be done: %v", err)
						}
					})
				}
				response, err := next.RoundTrip(r)
				if err == nil && response.StatusCode == http.StatusConflict {
					found.Add(1)
				}
				return response, err
			})
			result := finish(t, second, nil, name, shortened)
			wantState(t, result, engine.Succeeded, nil)
			wantStarts(t, name, map[string]int{"a": 1, "b": 1, "c": 1})
			if tt.late != "" && found.Load() == 0 {
				t.Error("the second driver found nothing of the first")
			}
			clearRule(t, rule)
			state := snapshot(t, c, name)
			if err := first.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			first.wait(t)
			if len(first.out.lines("stale")) == 0 && !strings.Contains(first.out.String(), "\nstale\n") {
				t.Errorf("the first driver does not say that it was replaced:\n%s", first.out.String())
			}
			for _, w := range first.out.lines("write")[before:] {
				fields := strings.Fields(w)
				fine := slices.ContainsFunc(tt.fine, func(f string) bool { return is(f, fields[0], fields[1]) })
				if fields[2] != "409" && fields[2] != "0" && !fine {
					t.Errorf("the first driver wrote after it was woken: %s", w)
				}
			}
			if now := snapshot(t, c, name); !slices.Equal(now, state) {
				t.Errorf("the state is %v; want %v, as the second driver left it", now, state)
			}
			wantReleased(t, c, name)
		})
	}
}

// snapshot returns the names of a run's pods, and those of its shards with their
// versions.
func snapshot(t testing.TB, c *Cluster, run string) []string {
	t.Helper()
	list, err := c.configMaps.List(context.WithoutCancel(t.Context()), selector(run, kindState))
	if err != nil {
		t.Error(err)
		return nil
	}
	var found []string
	for _, m := range list.Items {
		found = append(found, m.Name+" "+m.ResourceVersion)
	}
	for _, pod := range podsOf(t, c, run) {
		found = append(found, pod.Name)
	}
	return found
}
