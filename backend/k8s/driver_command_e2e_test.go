//go:build e2e

package k8s

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/clustertest"
)

// This file tests what the command says of a run that it cannot carry to its
// end, and with which status it leaves.

// A command is the program kfs and a script for it.
type command struct {
	program, script string
	dir             string
}

// newCommand builds the program, and writes a script of three steps: behave is
// what becomes of the second one.
func newCommand(t *testing.T) *command {
	t.Helper()
	c := &command{dir: t.TempDir()}
	c.program = filepath.Join(c.dir, "kfs")
	build := exec.Command("go", "build", "-o", c.program, "./cmd/kfs")
	build.Dir = clustertest.Root(t)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	c.script = filepath.Join(c.dir, "chain.star")
	err := os.WriteFile(c.script, []byte(`
behave = config("behave", default = "{do: run}")
run = config("run", default = "chain")

def fake(name, behavior):
    s = container_op(name = name, image = "localhost/none:1", command = ["work"])
    s.add_node_selector_constraint("nodes", "driver")
    s.add_toleration(k8s.Toleration(key = "fake.kfs.dev/node", operator = "Exists"))
    s.add_pod_annotation("fake.kfs.dev/behavior", behavior)
    s.add_pod_annotation("fake.kfs.dev/key", run + "/" + name)
    return s

def chain(limit = "600"):
    a = fake("a", "{do: succeed}")
    b = fake("b", behave).after(a).set_timeout(limit)
    fake("c", "{do: succeed}").after(b)

pipeline(chain)
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A process is a command that runs.
type process struct {
	*exec.Cmd
	out  output
	done chan struct{}
}

// start starts kfs with these arguments.
func (c *command) start(t *testing.T, args ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(c.program, args...), done: make(chan struct{})}
	p.Dir = c.dir
	p.Stdout, p.Stderr = &p.out, &p.out
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Process.Kill()
		<-p.done
		if t.Failed() {
			t.Logf("kfs %s:\n%s", strings.Join(args, " "), p.out.String())
		}
	})
	return p
}

// begin starts kfs run.
func (c *command) begin(t *testing.T, cl *Cluster, name, behave string, more ...string) *process {
	t.Helper()
	return c.start(t, append([]string{"run", c.script, "-n", cl.Namespace, "--run-name", name, "--lease", "6s", "--set", "run=" + name, "--set", "behave=" + behave}, more...)...)
}

// want waits for the end of a command, and wants the status and the words.
func (p *process) want(t *testing.T, status int, words ...string) {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(2 * time.Minute):
		t.Fatal("kfs does not end")
	}
	if got := p.ProcessState.ExitCode(); got != status {
		t.Errorf("exit status %d; want %d", got, status)
	}
	for _, w := range words {
		if !strings.Contains(p.out.String(), w) {
			t.Errorf("kfs does not say %q", w)
		}
	}
}

func (p *process) waitFor(t *testing.T, words string) {
	t.Helper()
	eventually(t, fmt.Sprintf("kfs to say %q", words), func() error {
		if !strings.Contains(p.out.String(), words) {
			return errors.New("it does not")
		}
		return nil
	})
}

func (p *process) interrupt(t *testing.T) {
	t.Helper()
	if err := p.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
}

// TestE2ECommand tests kfs run, resume and delete.
func TestE2ECommand(t *testing.T) {
	t.Parallel()
	c := newFakeCluster(t)
	kfs := newCommand(t)

	t.Run("second driver", func(t *testing.T) {
		t.Parallel()
		name := newName("second")
		first := kfs.begin(t, c, name, runsOn)
		waitRunning(t, c, name, "b")
		host, _ := os.Hostname()
		holder := fmt.Sprintf("process %d on %s", first.Process.Pid, host)
		kfs.start(t, "resume", name, "-n", c.Namespace).want(t, 4, "is driven by another kfs: "+holder)
		kfs.start(t, "delete", name, "-n", c.Namespace).want(t, 4, "is driven by another kfs: "+holder)
		kfs.start(t, "run", kfs.script, "-n", c.Namespace, "--run-name", name).want(t, 2, "kfs resume "+name)
		// It is killed: the next one goes on at once, though the lease has not run out.
		first.Process.Kill()
		<-first.done
		next := kfs.start(t, "resume", name, "-n", c.Namespace)
		next.waitFor(t, "b running")
		next.interrupt(t)
		next.waitFor(t, "once more cancels it")
		next.interrupt(t)
		next.want(t, 6)
	})
	t.Run("second driver elsewhere", func(t *testing.T) {
		t.Parallel()
		name := newName("elsewhere")
		begin(t, c, diamond(name), name, shortened)
		stranger(t, c, name, shortened)
		kfs.start(t, "resume", name, "-n", c.Namespace).want(t, 4, "is driven by another kfs", "on elsewhere")
		kfs.start(t, "delete", name, "-n", c.Namespace).want(t, 4, "waiting up to 6s", "is driven by another kfs", "on elsewhere")
	})
	t.Run("Ctrl-C", func(t *testing.T) {
		t.Parallel()
		name := newName("ctrl-c")
		p := kfs.begin(t, c, name, "{do: run, grace: 1s}")
		p.waitFor(t, "b running")
		p.interrupt(t)
		p.want(t, 5, "once more cancels it", "detached", "kfs resume "+name+" -n "+c.Namespace)
		if pod := waitRunning(t, c, name, "b"); pod.DeletionTimestamp != nil {
			t.Error("the step that runs was asked to end")
		}

		// SIGTERM and a closed terminal leave the run too, at once.
		for _, s := range []os.Signal{syscall.SIGTERM, syscall.SIGHUP} {
			p = kfs.start(t, "resume", name, "-n", c.Namespace)
			p.waitFor(t, "b running")
			p.Process.Signal(s)
			p.want(t, 5, "detached")
		}

		p = kfs.start(t, "resume", name, "-n", c.Namespace)
		p.waitFor(t, "b running")
		p.interrupt(t)
		p.waitFor(t, "once more cancels it")
		p.interrupt(t)
		p.want(t, 6, "cancelling the run", "b cancelled", "c cancelled")
		wantStarts(t, name, map[string]int{"a": 1, "b": 1})
		for _, pod := range podsOf(t, c, name) {
			if pod.Annotations[stepAnnotation] == "b" && pod.Status.ContainerStatuses[0].State.Terminated.ExitCode != 143 {
				t.Errorf("the step was not asked to end: %v", pod.Status.ContainerStatuses[0].State)
			}
		}
		// It has ended: there is nothing to go on with.
		kfs.start(t, "resume", name, "-n", c.Namespace).want(t, 6)
		r := open(t, c, name)
		if facts, _, err := r.Claim(t.Context()); err != nil || facts.Run.State != engine.Cancelled {
			t.Errorf("run %s, %v; want it cancelled", facts.Run.State, err)
		}
		r.Close(t.Context(), false)
		wantReleased(t, c, name)
		kfs.start(t, "delete", name, "-n", c.Namespace).want(t, 0, "run "+name+" deleted")
		wantNothing(t, c, name)
	})
	t.Run("Ctrl-C three times", func(t *testing.T) {
		t.Parallel()
		name := newName("thrice")
		p := kfs.begin(t, c, name, "{do: run, grace: 20s}", "--grace", "20s")
		p.waitFor(t, "b running")
		p.interrupt(t)
		p.waitFor(t, "once more cancels it")
		p.interrupt(t)
		p.waitFor(t, "once more leaves")
		eventually(t, "the pod to be asked to end", func() error {
			if !slices.ContainsFunc(podsOf(t, c, name), func(pod corev1.Pod) bool { return pod.DeletionTimestamp != nil }) {
				return errors.New("it is not")
			}
			return nil
		})
		p.interrupt(t)
		p.want(t, 5, "leaving", "kfs resume "+name)
		kfs.start(t, "resume", name, "-n", c.Namespace).want(t, 6, "b cancelled")
		wantStarts(t, name, map[string]int{"a": 1, "b": 1})
		wantReleased(t, c, name)
	})
	t.Run("run deleted", func(t *testing.T) {
		t.Parallel()
		name := newName("deleted")
		p := kfs.begin(t, c, name, runsOn)
		p.waitFor(t, "b running")
		clustertest.Kubectl(t, "delete", "configmap", objectName(name), "-n", c.Namespace)
		p.want(t, 1, "config map "+objectName(name)+" was deleted by somebody: the run is over")
		wantNothing(t, c, name)
		kfs.start(t, "resume", name, "-n", c.Namespace).want(t, 2, "has no run")
	})
	t.Run("shard deleted", func(t *testing.T) {
		t.Parallel()
		name := newName("shard")
		p := kfs.begin(t, c, name, "{do: succeed, after: 4s}")
		waitRunning(t, c, name, "b")
		clustertest.Kubectl(t, "delete", "configmap", shardName(name, 0), "-n", c.Namespace)
		p.want(t, 1, "config map "+shardName(name, 0), "deleted by somebody")
		kfs.start(t, "resume", name, "-n", c.Namespace).want(t, 1, "config map "+shardName(name, 0), "is missing", "kfs delete "+name)
		wantStarts(t, name, map[string]int{"a": 1, "b": 1})
		kfs.start(t, "delete", name, "-n", c.Namespace).want(t, 0)
		wantNothing(t, c, name)
	})
	t.Run("namespace deleted", func(t *testing.T) {
		t.Parallel()
		c := newFakeCluster(t)
		name := newName("namespace")
		p := kfs.begin(t, c, name, runsOn)
		p.waitFor(t, "b running")
		clustertest.Kubectl(t, "delete", "namespace", c.Namespace, "--wait=false")
		p.want(t, 1, "the run is over")
		eventually(t, "the namespace to be gone", func() error {
			if err := exec.Command("kubectl", "get", "namespace", c.Namespace).Run(); err == nil {
				return errors.New("it is there")
			}
			return nil
		})
	})
	t.Run("settings that are wrong", func(t *testing.T) {
		t.Parallel()
		name := newName("wrong")
		kfs.begin(t, c, name, succeeds, "-p", "limit=soon").want(t, 2, "soon")
		if _, err := Open(t.Context(), c, name); !errors.Is(err, ErrNoRun) {
			t.Errorf("a run that never began is left: %v", err)
		}
	})
}

// TestE2ENoCluster wants a message that says what to do, and the status 3, of
// clusters that cannot be used.
func TestE2ENoCluster(t *testing.T) {
	t.Parallel()
	c := newFakeCluster(t)
	kfs := newCommand(t)
	config := clustertest.Config(t)
	kubeconfig := func(t *testing.T, server, more, token string) string {
		file := filepath.Join(t.TempDir(), "kubeconfig")
		text := fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: "%s"%s}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
users: [{name: u, user: {token: "%s"}}]
`, server, more, token)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	ca := fmt.Sprintf(`, certificate-authority: "%s"`, config.CAFile)
	for _, tt := range []struct {
		name                string
		server, more, token string
		words               []string
	}{
		{"unknown authority", config.Host, "", config.BearerToken, []string{"certificate", "--certificate-authority"}},
		{"another name", config.Host, ca + `, tls-server-name: "elsewhere.example"`, config.BearerToken, []string{"--tls-server-name"}},
		{"no such host", "https://no-such-host.invalid:6443", ca, config.BearerToken, []string{"no-such-host.invalid"}},
		{"nobody there", "https://127.0.0.1:1", ca, config.BearerToken, []string{"connection refused"}},
		{"wrong token", config.Host, ca, "wrong", []string{"log in again"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			file := kubeconfig(t, tt.server, tt.more, tt.token)
			began := time.Now()
			for _, args := range [][]string{{"run", kfs.script}, {"resume", "none"}, {"delete", "none"}} {
				kfs.start(t, append(args, "-n", c.Namespace, "--kubeconfig", file)...).want(t, 3, tt.words...)
			}
			if took := time.Since(began); took > time.Minute {
				t.Errorf("three commands took %v", took)
			}
		})
	}
	t.Run("forbidden", func(t *testing.T) {
		t.Parallel()
		clustertest.Kubectl(t, "create", "serviceaccount", "nobody", "-n", c.Namespace)
		token := strings.TrimSpace(clustertest.Kubectl(t, "create", "token", "nobody", "-n", c.Namespace, "--duration", "10m"))
		file := kubeconfig(t, config.Host, ca, token)
		for _, args := range [][]string{{"run", kfs.script}, {"resume", "none"}, {"delete", "none"}} {
			kfs.start(t, append(args, "-n", c.Namespace, "--kubeconfig", file)...).want(t, 3, "forbidden", "configmaps", "Role")
		}
		// Who may not delete a run has not let its pods go.
		name := newName("mayread")
		wantState(t, finish(t, c, diamond(name), name, shortened), engine.Succeeded, nil)
		clustertest.Kubectl(t, "create", "role", "reader", "-n", c.Namespace, "--verb", "get,list,patch", "--resource", "configmaps,pods,leases")
		clustertest.Kubectl(t, "create", "rolebinding", "reader", "-n", c.Namespace, "--role", "reader", "--serviceaccount", c.Namespace+":nobody")
		kfs.start(t, "delete", name, "-n", c.Namespace, "--kubeconfig", file).want(t, 3, "cannot delete resource", "Role")
		open(t, c, name)
	})
	t.Run("may not see pods", func(t *testing.T) {
		t.Parallel()
		clustertest.Kubectl(t, "create", "serviceaccount", "blind", "-n", c.Namespace)
		clustertest.Kubectl(t, "create", "role", "blind", "-n", c.Namespace, "--verb", "create,get,list,update,delete", "--resource", "configmaps,leases")
		clustertest.Kubectl(t, "create", "rolebinding", "blind", "-n", c.Namespace, "--role", "blind", "--serviceaccount", c.Namespace+":blind")
		token := strings.TrimSpace(clustertest.Kubectl(t, "create", "token", "blind", "-n", c.Namespace, "--duration", "10m"))
		kfs.start(t, "run", kfs.script, "-n", c.Namespace, "--kubeconfig", kubeconfig(t, config.Host, ca, token)).want(t, 3, "pods is forbidden", "Role")
	})
	t.Run("no namespace", func(t *testing.T) {
		t.Parallel()
		kfs.start(t, "run", kfs.script, "-n", "no-such-namespace").want(t, 3, "namespace no-such-namespace is not there")
	})
	t.Run("namespace that is being deleted", func(t *testing.T) {
		t.Parallel()
		c := newFakeCluster(t)
		held := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "held", Finalizers: []string{"kfs.dev/test"}}}
		if _, err := c.configMaps.Create(t.Context(), held, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			patch := []byte(`{"metadata":{"finalizers":null}}`)
			c.configMaps.Patch(context.Background(), "held", "application/merge-patch+json", patch, metav1.PatchOptions{})
		})
		clustertest.Kubectl(t, "delete", "namespace", c.Namespace, "--wait=false")
		kfs.start(t, "run", kfs.script, "-n", c.Namespace).want(t, 3, "namespace is being deleted")
	})
}
