//go:build e2e

package k8s

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/clustertest"
)

// This file tests drivers whose API server is away, busy, or does not know them.

// TestE2EAway runs TestAwayChild with a cluster of its own, as no other test
// could do with what it does to the API server.
func TestE2EAway(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(filepath.Join(clustertest.Root(t), "bin", "cluster"), "run", "--name", fmt.Sprintf("away%d", os.Getpid()),
		"--nodes-fake", "2", "--fake-prefix", "driver", "--fake-label", "nodes=driver", "--", os.Args[0], "-test.run=^TestAwayChild$", "-test.v")
	cmd.Env = append(os.Environ(), "KFS_TEST_AWAY=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// said are the notices of a run.
type said struct {
	mu    sync.Mutex
	texts []string
}

func (s *said) of(t testing.TB, r *Run) {
	before := r.Notice
	r.Notice = func(text string) {
		before(text)
		s.mu.Lock()
		s.texts = append(s.texts, text)
		s.mu.Unlock()
	}
}

func (s *said) count(words string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, text := range s.texts {
		if strings.Contains(text, words) {
			n++
		}
	}
	return n
}

// TestAwayChild freezes the API server under a run, and stops it, each for
// longer than the lease: nothing has failed by that, and the run goes on.
func TestAwayChild(t *testing.T) {
	if os.Getenv("KFS_TEST_AWAY") == "" {
		t.Skip("is started by TestE2EAway")
	}
	c := newFakeCluster(t)
	limits := shortened
	limits.Pending = 15 * time.Second // as long as the server is away, which does not count
	name := newName("away")
	// Of each pair one runs when the server goes, and ends when it is away; the
	// other one has not started. What ends in time on the real node, of which
	// nobody hears in time, has not timed out.
	clustertest.Busybox(t)
	clustertest.Kfs(t)
	inTime := func(s *dag.Step) { s.Timeout = "12" }
	p := &dag.Pipeline{Name: "away", Steps: []*dag.Step{
		nodeStep("timed", "sleep 10", inTime), nodeStep("timed-launched", "sleep 10; mkdir -p /tmp/out; echo 1 > /tmp/out/o", out, inTime),
		fakeStep(name, "frozen", "{do: succeed, after: 15s}"), fakeStep(name, "frozen-later", "{do: succeed, pending: 20s}"),
		fakeStep(name, "stopped", "{do: succeed, after: 3s}", "frozen", "frozen-later"), fakeStep(name, "stopped-later", "{do: succeed, pending: 20s}", "frozen", "frozen-later"),
		fakeStep(name, "last", succeeds, "stopped", "stopped-later"),
	}}
	r, err := Create(t.Context(), c, p, infoOf(name), Options{Image: clustertest.KfsImage, Limits: limits}, "test")
	if err != nil {
		t.Fatal(err)
	}
	watched(t, r)
	var notices said
	notices.of(t, r)
	var result *engine.Result
	ended := make(chan error, 1)
	go func() {
		var err error
		result, err = drive(t.Context(), r, engine.Config{Events: func(e engine.Event) {
			if e.Kind != engine.EventLog {
				t.Log("event:", e.Kind, e.Step, e.State, e.Reason)
			}
		}})
		ended <- err
	}()
	const away = 20 * time.Second // longer than the lease
	waitRunning(t, c, name, "timed")
	waitRunning(t, c, name, "timed-launched")
	for i, tt := range []struct {
		step        string
		gone, again []string
	}{
		{"frozen", []string{"fault", "freeze", "kube-apiserver"}, []string{"fault", "thaw", "kube-apiserver"}},
		{"stopped", []string{"fault", "kill", "kube-apiserver"}, []string{"fault", "start", "kube-apiserver"}},
	} {
		waitRunning(t, c, name, tt.step)
		clustertest.Command(t, tt.gone...)
		began := time.Now()
		eventually(t, "a notice that the server is away", func() error {
			if notices.count("does not answer") <= i {
				return errors.New("there is none")
			}
			return nil
		})
		sleep(t.Context(), away-time.Since(began))
		select {
		case err := <-ended:
			t.Fatalf("the run has ended when the server was away: %v", err)
		default:
		}
		clustertest.Command(t, tt.again...)
		if tt.step == "stopped" {
			eventually(t, "the API server to be ready", func() error {
				_, err := c.accounts.Get(t.Context(), "default", metav1.GetOptions{})
				return err
			})
			// What watches it would try again within half a minute.
			for _, part := range []string{"kube-controller-manager", "kube-scheduler", "fake-kubelet"} {
				clustertest.Command(t, "fault", "restart", part)
			}
		}
		eventually(t, "a notice that the server answers", func() error {
			if notices.count("answers again") <= i {
				return errors.New("there is none")
			}
			return nil
		})
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("the run does not end")
	}
	wantState(t, result, engine.Succeeded, nil)
	for _, s := range result.Steps {
		if len(s.Attempts) != 1 || s.State != engine.Succeeded {
			t.Errorf("step %s: %s after %d attempts: %s", s.Step, s.State, len(s.Attempts), s.Reason)
		}
	}
	wantStarts(t, name, map[string]int{"frozen": 1, "frozen-later": 1, "stopped": 1, "stopped-later": 1, "last": 1})
	wantReleased(t, c, name)
}

// TestE2ECutOff keeps the API server from a driver for longer than its lease,
// in which another one takes the run over.
func TestE2ECutOff(t *testing.T) {
	t.Parallel()
	c := newFakeCluster(t)
	name := newName("cutoff")
	p := &dag.Pipeline{Name: "cutoff", Steps: []*dag.Step{fakeStep(name, "a", "{do: succeed, after: 3s}"), fakeStep(name, "b", succeeds, "a")}}
	first := startChild(t, childConfig{Kubeconfig: os.Getenv("KFS_FAULTS_KUBECONFIG"), Namespace: c.Namespace, Run: name, Pipeline: p, Limits: shortened})
	waitRunning(t, c, name, "a")
	rule := addRule(t, "--path", "/namespaces/"+c.Namespace+"/", "--hang")
	clustertest.Command(t, "fault", "watches", "drop")
	result := finish(t, c, nil, name, shortened)
	wantState(t, result, engine.Succeeded, nil)
	wantStarts(t, name, map[string]int{"a": 1, "b": 1})
	before := len(first.out.lines("write"))
	clearRule(t, rule)
	first.wait(t)
	if !strings.Contains(first.out.String(), "\nstale\n") {
		t.Error("the first driver does not say that it was replaced")
	}
	for _, w := range first.out.lines("write")[before:] {
		if fields := strings.Fields(w); fields[2] != "409" && fields[2] != "0" {
			t.Errorf("the first driver wrote after another one had the run: %s", w)
		}
	}
}

// TestE2EBusy has the API server refuse, lose and delay requests, and end
// watches, all at once.
func TestE2EBusy(t *testing.T) {
	t.Parallel()
	direct := newFakeCluster(t)
	c, err := NewCluster(clustertest.Faulty(t), direct.Namespace)
	if err != nil {
		t.Fatal(err)
	}
	name := newName("busy")
	p := diamond(name)
	p.Steps = append(p.Steps, fakeStep(name, "e", "{do: succeed, after: 2s}", "d"), fakeStep(name, "f", succeeds, "e"))
	ns := "/namespaces/" + c.Namespace
	rules := map[string]string{}
	for what, args := range map[string][]string{
		"pods refused":    {"--verb", "create", "--path", ns + "/pods$", "--status", "429", "--retry-after", "1", "--times", "3"},
		"pods lost":       {"--verb", "create", "--path", ns + "/pods$", "--lose", "--skip", "1", "--times", "2"},
		"watches fail":    {"--verb", "list,watch", "--path", ns + "/pods$", "--status", "500", "--times", "2"},
		"watches refused": {"--verb", "watch", "--path", ns + "/pods$", "--status", "429", "--times", "2"},
		"watches expired": {"--verb", "watch", "--path", ns + "/pods$", "--status", "410", "--skip", "3", "--times", "2"},
		"commits lost":    {"--verb", "update", "--path", ns + "/configmaps/", "--lose", "--skip", "1", "--times", "3"},
		"commits refused": {"--verb", "update", "--path", ns + "/configmaps/", "--status", "503", "--skip", "5", "--times", "3"},
		"leases lost":     {"--verb", "create,update", "--path", ns + "/leases", "--lose", "--times", "2"},
		"patches late":    {"--verb", "patch", "--path", ns + "/pods/", "--delay", "1s", "--times", "2"},
		"patches lost":    {"--verb", "patch", "--path", ns + "/pods/", "--lose", "--skip", "2", "--times", "2"},
	} {
		rules[what] = addRule(t, args...)
	}
	r := begin(t, c, p, name, shortened)
	stop := make(chan struct{})
	var cutting sync.WaitGroup
	cutting.Go(func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				return
			case <-time.After(time.Second):
				clustertest.Command(t, "fault", "watches", []string{"expire", "drop"}[n%2])
			}
		}
	})
	result, err := drive(t.Context(), r, engine.Config{})
	close(stop)
	cutting.Wait()
	if err != nil {
		t.Fatal(err)
	}
	wantState(t, result, engine.Succeeded, nil)
	want := map[string]int{"e": 1, "f": 1}
	for step, n := range diamondStarts {
		want[step] = n
	}
	wantStarts(t, name, want)
	wantReleased(t, direct, name)
	for what, id := range rules {
		if applied(t, id) == 0 {
			t.Errorf("%s: no request was", what)
		}
	}
}

// TestE2ELogin has the API server refuse the token of a driver: the program of
// the kubeconfig gives another one, once.
func TestE2ELogin(t *testing.T) {
	t.Parallel()
	direct := newFakeCluster(t)
	faulty := clustertest.Faulty(t)
	// kubeconfig makes a kubeconfig with a program that gives a token, or fails as
	// long as the file is there that it returns, and counts its calls.
	kubeconfig := func(t *testing.T, expires string) (file, fails string, calls func() int) {
		dir := t.TempDir()
		count, fails := filepath.Join(dir, "calls"), filepath.Join(dir, "fails")
		script := filepath.Join(dir, "login")
		write := func(name, text string, mode os.FileMode) {
			if err := os.WriteFile(name, []byte(text), mode); err != nil {
				t.Fatal(err)
			}
		}
		write(script, fmt.Sprintf(`#!/bin/sh
echo x >> %s
if [ -e %s ]; then echo "no login" >&2; exit 1; fi
expires=%s
echo '{"apiVersion": "client.authentication.k8s.io/v1", "kind": "ExecCredential", "status": {"token": "%s"'"$expires"'}}'
`, count, fails, expires, faulty.BearerToken), 0o755)
		file = filepath.Join(dir, "kubeconfig")
		write(file, fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s", certificate-authority: "%s"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
users:
- name: u
  user:
    exec: {apiVersion: client.authentication.k8s.io/v1, command: "%s", interactiveMode: Never}
`, faulty.Host, faulty.CAFile, script), 0o600)
		return file, fails, func() int {
			text, _ := os.ReadFile(count)
			return strings.Count(string(text), "\n")
		}
	}
	cluster := func(t *testing.T, file string) *Cluster {
		config, err := clientcmd.BuildConfigFromFlags("", file)
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewCluster(config, direct.Namespace)
		if err != nil {
			t.Fatal(err)
		}
		c.denial = 5 * time.Second
		return c
	}
	t.Run("once more", func(t *testing.T) {
		t.Parallel()
		file, _, calls := kubeconfig(t, "")
		name := newName("login")
		// The first commit is refused: by an expired token, says the server.
		rule := addRule(t, "--verb", "update", "--path", "/configmaps/kfs-"+name+"-s0$", "--status", "401", "--skip", "1", "--times", "1")
		result := finish(t, cluster(t, file), diamond(name), name, shortened)
		wantState(t, result, engine.Succeeded, nil)
		wantStarts(t, name, diamondStarts)
		if n := calls(); n != 2 || applied(t, rule) != 1 {
			t.Errorf("the program was called %d times, for %d refusals; want 2, for 1", n, applied(t, rule))
		}
	})
	for _, tt := range []struct {
		name    string
		expires string // shell that gives what the program says of it
		refuse  func(t *testing.T, run, fails string)
		hint    string
	}{
		{"refused", "", func(t *testing.T, run, _ string) {
			addRule(t, "--path", "/(configmaps|leases)/kfs-"+run, "--status", "401")
		}, "log in again"},
		{"program fails", `", \"expirationTimestamp\": \"$(date -u -d '+3 seconds' +%Y-%m-%dT%H:%M:%SZ)\""`, func(t *testing.T, _, fails string) {
			if err := os.WriteFile(fails, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}, "run it by hand"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file, fails, calls := kubeconfig(t, tt.expires)
			name := newName("refused")
			p := &dag.Pipeline{Name: "p", Steps: []*dag.Step{fakeStep(name, "a", "{do: succeed, after: 5s}"), fakeStep(name, "b", succeeds, "a")}}
			r := begin(t, cluster(t, file), p, name, shortened)
			var notices said
			notices.of(t, r)
			ended := make(chan error, 1)
			go func() {
				_, err := drive(t.Context(), r, engine.Config{})
				ended <- err
			}()
			waitRunning(t, direct, name, "a")
			tt.refuse(t, name, fails)
			var access *AccessError
			select {
			case err := <-ended:
				if !errors.As(err, &access) || !strings.Contains(access.Hint(), tt.hint) || !strings.Contains(access.Hint(), "kfs resume") {
					t.Errorf("the driver ends with %v; want a hint to %s", err, tt.hint)
				}
			case <-time.After(time.Minute):
				t.Fatal("the driver does not end")
			}
			if notices.count("does not know who we are") == 0 {
				t.Error("no notice said so before")
			}
			if n := calls(); n > 40 {
				t.Errorf("the program was called %d times", n)
			}
			// And with another login the run goes on.
			wantState(t, finish(t, direct, nil, name, shortened), engine.Succeeded, nil)
			wantStarts(t, name, map[string]int{"a": 1, "b": 1})
		})
	}
	t.Run("never", func(t *testing.T) {
		t.Parallel()
		file, fails, calls := kubeconfig(t, "")
		if err := os.WriteFile(fails, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		_, err := Open(t.Context(), cluster(t, file), "none")
		if !errors.As(err, new(*AccessError)) || time.Since(began) > 5*time.Second || calls() != 1 {
			t.Errorf("%v after %v and %d calls; want an access error at once", err, time.Since(began), calls())
		}
	})
}

// TestE2EClock has the API server's answers carry a time that is wrong: what
// takes its time is measured right.
func TestE2EClock(t *testing.T) {
	t.Parallel()
	for _, skew := range []time.Duration{time.Hour, -time.Hour} {
		t.Run(skew.String(), func(t *testing.T) {
			t.Parallel()
			direct := newFakeCluster(t)
			c := wrapped(t, clustertest.Config(t), direct.Namespace, func(r *http.Request, next http.RoundTripper) (*http.Response, error) {
				response, err := next.RoundTrip(r)
				if err == nil {
					response.Header.Set("Date", time.Now().Add(skew).UTC().Format(http.TimeFormat))
				}
				return response, err
			})
			name := newName("clock")
			limits := shortened
			limits.Pending = 8 * time.Second
			late := fakeStep(name, "late", runsOn)
			late.Timeout = "4"
			p := &dag.Pipeline{Name: "clock", Steps: []*dag.Step{
				fakeStep(name, "good", "{do: succeed, pending: 1s, after: 1s}"), late, fakeStep(name, "never", "{do: pending}"),
			}}
			result := finish(t, c, p, name, limits)
			wantState(t, result, engine.Failed, map[string]engine.State{"good": engine.Succeeded, "late": engine.Failed, "never": engine.Failed})
			for _, s := range result.Steps {
				a := s.Attempts[0]
				took := a.Finished.Sub(a.Started)
				switch {
				case s.Step == "late" && (a.Cause != engine.TimedOut || took < 3*time.Second || took > 30*time.Second),
					s.Step == "never" && (a.Cause != engine.CannotRun || a.Finished.Sub(result.Started) < 7*time.Second),
					s.Step == "good" && (took < 0 || took > 30*time.Second):
					t.Errorf("step %s: %s, %v, %v to %v", s.Step, a.Cause, took, a.Started, a.Finished)
				}
			}
		})
	}
}

// TestE2ENothingLeft wants no goroutine of a run to go on after it.
func TestE2ENothingLeft(t *testing.T) {
	t.Parallel()
	c := newFakeCluster(t)
	name := newName("left")
	labels := pprof.Labels("run", name)
	left := func() []string { // goroutines that were started below and are no connections
		var b strings.Builder
		pprof.Lookup("goroutine").WriteTo(&b, 1)
		var found []string
		for _, g := range strings.Split(b.String(), "\n\n") {
			if strings.Contains(g, name) && !strings.Contains(g, "net/http.(*persistConn)") && !strings.Contains(g, "http2") {
				found = append(found, g)
			}
		}
		return found
	}
	for _, ending := range []string{"ended", "detached", "lost"} {
		pprof.Do(t.Context(), labels, func(ctx context.Context) {
			run := name + "-" + ending
			p := diamond(run)
			if ending != "ended" {
				p.Steps = append(p.Steps, fakeStep(run, "e", runsOn))
			}
			r, err := Create(ctx, c, p, infoOf(run), Options{Limits: shortened}, "test")
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(ctx)
			defer cancel()
			over := make(chan error, 1)
			go func() {
				_, err := drive(ctx, r, engine.Config{})
				over <- err
			}()
			switch ending {
			case "detached":
				waitRunning(t, c, run, "e")
				if len(left()) == 0 {
					t.Error("no goroutine is found of a run that goes on")
				}
				cancel()
			case "lost":
				waitRunning(t, c, run, "e")
				if err := Delete(ctx, c, run, true); err != nil {
					t.Error(err)
				}
			}
			if err := <-over; (err != nil) != (ending != "ended") {
				t.Errorf("%s: %v", ending, err)
			}
		})
		eventually(t, "the goroutines of the run to end", func() error {
			if l := left(); len(l) > 1 { // this one
				return errors.New(strings.Join(l, "\n\n"))
			}
			return nil
		})
	}
}
