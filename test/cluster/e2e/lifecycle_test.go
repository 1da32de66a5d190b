//go:build e2e

package e2e

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/kfs-project/kfs/test/cluster/cluster"
	"github.com/kfs-project/kfs/test/cluster/supervisor"
)

// This file tests that clusters come and go without a trace, and live side by
// side.

// ups is how often in a row TestUpDown brings a cluster up and down: few enough
// for every day, and ten to be sure.
var ups = flag.Int("ups", 4, "how often TestUpDown brings a cluster up and down")

// TestUpDown brings a cluster up and down several times and compares what the
// machine has before and after.
func TestUpDown(t *testing.T) {
	dir := t.TempDir()
	before := look(t)
	for range *ups {
		started := time.Now()
		c, err := cluster.Up(t.Context(), cluster.Config{Name: "again", Dir: dir, Bound: true})
		if err != nil {
			t.Fatal(err)
		}
		took := time.Since(started)
		started = time.Now()
		if err := c.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		t.Logf("up in %.1f s, down in %.1f s", took.Seconds(), time.Since(started).Seconds())
	}
	leavesNothing(t, before, dir)
}

// TestKilled ends a cluster that runs pods by killing its supervisor, as an
// accident would, and takes down what is left.
func TestKilled(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	before := look(t)
	c, err := cluster.Up(ctx, cluster.Config{Name: "killed", Dir: dir, Bound: true, FakeNodes: 2})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Down(context.WithoutCancel(ctx)) })
	runtime.GC() // which must not let go of what binds the cluster to this process
	if err := loadProbe(ctx, c); err != nil {
		t.Fatal(err)
	}
	client := clientOf(t, c.Kubeconfig())
	ns := namespace(ctx, t, client)
	create(ctx, t, client, ns, pod("sleeper", "sleep", "1h"))
	waitPhase(ctx, t, client, ns, "sleeper", corev1.PodRunning)

	if err := syscall.Kill(c.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(ctx, t, "the cluster's end", func() error {
		if _, err := cluster.Open(dir, "killed"); err == nil {
			return fmt.Errorf("it is up")
		}
		return nil
	})
	if err := cluster.Down(ctx, dir, "killed"); err != nil {
		t.Fatal(err)
	}
	leavesNothing(t, before, dir)
}

// TestFailsToStart wants an error that says why a part ended, and nothing left.
func TestFailsToStart(t *testing.T) {
	dir := t.TempDir()
	before := look(t)
	_, err := cluster.Up(t.Context(), cluster.Config{Name: "wrong", Dir: dir, Bound: true,
		Args: map[string][]string{supervisor.Scheduler: {"--no-such-flag"}}})
	if err == nil || !strings.Contains(err.Error(), "kube-scheduler: ended: exit status 1") || !strings.Contains(err.Error(), "unknown flag: --no-such-flag") {
		t.Errorf("a part that does not start gives the error\n%v\nwant the part, its status and its log", err)
	}
	leavesNothing(t, before, dir)
}

// TestSideBySide breaks one of two clusters, which have the same addresses,
// and looks at the other.
func TestSideBySide(t *testing.T) {
	ctx := t.Context()
	listeners := listening(t)
	other, err := cluster.Up(ctx, cluster.Config{Name: "other", Dir: t.TempDir(), Bound: true})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Down(context.WithoutCancel(ctx))

	for _, addr := range listening(t) {
		if !slices.Contains(listeners, addr) && !strings.HasPrefix(addr, "0100007F:") {
			t.Errorf("a cluster listens on %s, which is not 127.0.0.1", addr)
		}
	}
	for _, c := range []*cluster.Cluster{up, other} {
		for _, route := range table(t, fmt.Sprintf("/proc/%d/net/route", c.PID())) {
			if route[1] == "00000000" {
				t.Errorf("the network of cluster %s has a way out: %v", c.Spec.Name, route)
			}
		}
	}

	one, two := clientOf(t, up.Kubeconfig()), clientOf(t, other.Kubeconfig(), func(c *rest.Config) { c.Timeout = time.Second })
	ns := namespace(ctx, t, one)
	if _, err := two.CoreV1().Namespaces().Get(ctx, ns, metav1.GetOptions{}); err == nil {
		t.Errorf("namespace %s of one cluster is in the other", ns)
	}
	if err := other.Freeze(ctx, supervisor.APIServer); err != nil {
		t.Fatal(err)
	}
	if _, err := two.Discovery().ServerVersion(); err == nil {
		t.Error("a frozen API server answers")
	}
	if _, err := one.Discovery().ServerVersion(); err != nil {
		t.Errorf("beside a frozen API server, the other: %v", err)
	}
	again, err := cluster.Up(ctx, cluster.Config{Name: "other", Dir: filepath.Dir(other.Spec.Dir)})
	if err != nil {
		t.Fatal(err)
	}
	if again.PID() != other.PID() {
		t.Error("bringing up a cluster that is up brought up another")
	}
	if _, err := two.Discovery().ServerVersion(); err != nil {
		t.Errorf("after up, which completes what there is: %v", err)
	}
	if _, err := cluster.Up(ctx, cluster.Config{Name: "other", Dir: filepath.Dir(other.Spec.Dir), Bound: true}); !errors.Is(err, cluster.ErrUp) {
		t.Errorf("bringing up, for this process only, what is up: %v; want ErrUp", err)
	}
	if err := other.Down(ctx); err != nil {
		t.Fatal(err)
	}
	runsPods(ctx, t, one, ns) // it has lost nothing that both wanted of the machine
}

// A machine is what a cluster could leave behind, as lines.
type machine struct {
	Processes  []string
	Mounts     []string
	Links      []string
	Namespaces []string // of networks
	Cgroups    []string
	Files      []string // outside of what belongs to one user
	Settings   []string // of the kernel, that kubelets change
}

// look looks at this machine, but for what belongs to the cluster of the
// tests, whose containers come and go.
func look(t *testing.T) machine {
	t.Helper()
	var m machine
	m.Processes, m.Namespaces = processes(t)
	for _, line := range table(t, "/proc/self/mountinfo") {
		m.Mounts = append(m.Mounts, line[4])
	}
	for _, line := range table(t, "/proc/net/dev") {
		if name, ok := strings.CutSuffix(line[0], ":"); ok {
			m.Links = append(m.Links, name)
		}
	}
	filepath.WalkDir("/sys/fs/cgroup", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			if d.Name() == supervisor.CgroupName(up.Spec.Dir) {
				return filepath.SkipDir
			}
			m.Cgroups = append(m.Cgroups, path)
		}
		return nil
	})
	for _, pattern := range []string{"/var/lib/*", "/var/log/*", "/run/*", "/run/netns/*", "/etc/*", "/opt/*", "/opt/*/*",
		"/usr/libexec/*", "/var/lib/kubelet/*", "/var/lib/cni/*", "/var/log/pods/*", "/var/log/containers/*"} {
		files, _ := filepath.Glob(pattern)
		m.Files = append(m.Files, files...)
	}
	for _, file := range []string{"vm/overcommit_memory", "vm/panic_on_oom", "kernel/panic", "kernel/panic_on_oops", "kernel/keys/root_maxkeys"} {
		value, _ := os.ReadFile(filepath.Join("/proc/sys", file))
		m.Settings = append(m.Settings, file+"="+strings.TrimSpace(string(value)))
	}
	return m
}

// processes lists by name the processes that nobody waits for and those in
// other PID namespaces, which is what a cluster could leave, and the network
// namespaces of all. What this machine's other users start has parents.
func processes(t *testing.T) (names, networks []string) {
	t.Helper()
	pids, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	here, err := os.Readlink("/proc/self/ns/pid")
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", up.PID()))
	if err != nil {
		t.Fatal(err)
	}
	for _, pid := range pids {
		stat, err := os.ReadFile(pid + "/stat")
		ns, err2 := os.Readlink(pid + "/ns/pid")
		if err != nil || err2 != nil || ns == theirs || inside(pid) {
			continue // it has ended, or is one of the tests' cluster
		}
		name, rest, _ := strings.Cut(string(stat), ") ")
		parent := strings.Fields(rest)[1]
		if ns != here || parent == "1" {
			_, name, _ = strings.Cut(name, "(")
			names = append(names, name)
		}
		if net, err := os.Readlink(pid + "/ns/net"); err == nil && !slices.Contains(networks, net) {
			networks = append(networks, net)
		}
	}
	slices.Sort(names)
	slices.Sort(networks)
	return names, networks
}

// inside says whether a process is in a container of the tests' cluster.
func inside(pid string) bool {
	cgroups, err := os.ReadFile(pid + "/cgroup")
	return err == nil && strings.Contains(string(cgroups), supervisor.CgroupName(up.Spec.Dir)+"/")
}

// leavesNothing compares the machine with what it was before, a few times,
// since a process of somebody else's may have come or gone in between, and
// wants nothing in the state folder.
func leavesNothing(t *testing.T, before machine, dir string) {
	t.Helper()
	until(t.Context(), t, "nothing left of the clusters", func() error {
		if diff := cmp.Diff(before, look(t)); diff != "" {
			return fmt.Errorf("the machine before and after:\n%s", diff)
		}
		return nil
	})
	if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
		t.Errorf("the state folder holds %v, %v", entries, err)
	}
}

// listening lists the addresses on which this machine listens for TCP, as the
// kernel writes them.
func listening(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, file := range []string{"/proc/self/net/tcp", "/proc/self/net/tcp6"} {
		for _, line := range table(t, file) {
			if line[3] == "0A" {
				out = append(out, line[1])
			}
		}
	}
	return out
}

// table returns the fields of each line of a file.
func table(t *testing.T, file string) [][]string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var out [][]string
	for s := bufio.NewScanner(f); s.Scan(); {
		if fields := strings.Fields(s.Text()); len(fields) > 4 {
			out = append(out, fields)
		}
	}
	return out
}
