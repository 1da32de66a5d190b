package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/kfs-project/kfs/test/cluster/supervisor"
)

// write writes files below dir, which are made with their folders.
func write(t *testing.T, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLacksControllers shows it machines of both cgroup versions, and one that
// has none.
func TestLacksControllers(t *testing.T) {
	one, two, none := t.TempDir(), t.TempDir(), t.TempDir()
	write(t, one, map[string]string{
		"cpu,cpuacct/tasks": "", "cpuset/tasks": "", "memory/tasks": "", "pids/tasks": "",
	})
	write(t, two, map[string]string{"cgroup.controllers": "cpuset cpu io memory pids\n"})
	for _, dir := range []string{one, two} {
		if got := lacksControllers(dir); len(got) > 0 {
			t.Errorf("a machine that has everything lacks %v", got)
		}
	}
	if got := lacksControllers(none); len(got) != 4 || !strings.Contains(got[2], "the cgroup controller memory") {
		t.Errorf("a machine that has nothing lacks %q", got)
	}
}

// TestMissing wants all that is missing in one error, and how to install it.
func TestMissing(t *testing.T) {
	got := missing([]lack{{"the program runc", "runc"}, {what: "root"}, {"the CNI plugins", "containernetworking-plugins"}}).Error()
	want := `this machine lacks what a cluster needs:
  - the program runc (Debian package runc)
  - root
  - the CNI plugins (Debian package containernetworking-plugins)
install with: apt-get install --no-install-recommends runc containernetworking-plugins`
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestFindCNI(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"some/bridge": "", "all/bridge": "", "all/host-local": "", "all/loopback": ""})
	some, all := filepath.Join(dir, "some"), filepath.Join(dir, "all")
	if got := findCNI([]string{some, all}); got != all {
		t.Errorf("found the plugins in %q, want %q", got, all)
	}
	if got := findCNI([]string{some}); got != "" {
		t.Errorf("found the plugins in %q, where some are missing", got)
	}
}

// TestExisting wants the folder in which one that is not there will be made.
func TestExisting(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]string{
		dir:                                    dir,
		filepath.Join(dir, "not", "there yet"): dir,
		"/no-such-folder/at/all":               "/",
	} {
		if got := existing(path); got != want {
			t.Errorf("existing(%q) = %q, want %q", path, got, want)
		}
	}
}

// TestCgroups makes and removes cgroups in folders that look like those of
// both versions.
func TestCgroups(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	write(t, one, map[string]string{"cpu/tasks": "", "memory/tasks": ""})
	write(t, two, map[string]string{"cgroup.controllers": "cpu io memory\n", "cgroup.subtree_control": "cpu io\n"})
	for _, tt := range []struct {
		dir  string
		want []string
	}{
		{one, []string{"cpu/kfs-x", "memory/kfs-x"}},
		{two, []string{"kfs-x"}},
	} {
		if err := makeCgroups(tt.dir, "kfs-x"); err != nil {
			t.Fatal(err)
		}
		for _, cgroup := range tt.want {
			if err := os.MkdirAll(filepath.Join(tt.dir, cgroup, "kubepods/pod1"), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := removeCgroups(tt.dir, "kfs-x"); err != nil {
			t.Fatal(err)
		}
		for _, cgroup := range tt.want {
			if _, err := os.Stat(filepath.Join(tt.dir, cgroup)); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s is left: %v", cgroup, err)
			}
		}
	}
	if got, err := os.ReadFile(filepath.Join(two, "cgroup.subtree_control")); err != nil || string(got) != "+memory" {
		t.Errorf("enabled %q, %v", got, err)
	}
}

func TestConfigFaults(t *testing.T) {
	for _, tt := range []struct {
		config Config
		want   string
	}{
		{Config{Name: "Mine"}, `cluster name "Mine": want`},
		{Config{Name: "../x"}, `cluster name "../x": want`},
		{Config{Dir: "/" + strings.Repeat("d", 100)}, "too long for the sockets in it by"},
		{Config{Dir: t.TempDir(), Args: map[string][]string{"kublet": nil}}, `arguments for "kublet": the parts are etcd, `},
	} {
		if err := tt.config.complete(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v; want %q", tt.config, err, tt.want)
		}
	}
}

// TestNotUp opens and takes down what is not there, and what has ended.
func TestNotUp(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, map[string]string{"ended/supervisor.json": `{"PID":1,"Started":"never"}`})
	for _, name := range []string{"nobody", "ended"} {
		if _, err := Open(dir, name); !errors.Is(err, ErrNotUp) {
			t.Errorf("Open(%s): %v; want ErrNotUp", name, err)
		}
	}
	if names, err := List(dir); err != nil || !slices.Equal(names, []string{"ended"}) {
		t.Errorf("List: %v, %v", names, err)
	}
	for _, name := range []string{"nobody", "ended"} {
		if err := Down(t.Context(), dir, name); err != nil {
			t.Errorf("Down(%s): %v", name, err)
		}
	}
	if names, err := List(dir); err != nil || len(names) > 0 {
		t.Errorf("after Down, List: %v, %v", names, err)
	}
}

// TestIdentity tells this process from one that had its PID.
func TestIdentity(t *testing.T) {
	me, err := identify(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if !me.alive() {
		t.Error("this process is not alive")
	}
	me.Started = "earlier"
	if me.alive() {
		t.Error("a process that had this PID earlier is alive")
	}
}

// TestLock lets one process at a time at a cluster, also while its folder goes
// and comes.
func TestLock(t *testing.T) {
	state := filepath.Join(t.TempDir(), "mine")
	if _, err := lock(t.Context(), state, false); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("lock where there is no folder: %v", err)
	}
	var wg sync.WaitGroup
	var inside atomic.Int32
	for range 8 {
		wg.Go(func() {
			unlock, err := lock(t.Context(), state, true)
			if err != nil {
				t.Error(err)
				return
			}
			defer unlock()
			if inside.Add(1) != 1 {
				t.Error("two hold the lock")
			}
			inside.Add(-1) // the next may come in as soon as the folder is gone
			if err := os.Remove(state); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestTail wants the end of a log, and nothing where there is none.
func TestTail(t *testing.T) {
	dir := t.TempDir()
	if got := tail(dir, supervisor.Etcd); got != "" {
		t.Errorf("the tail of no log is %q", got)
	}
	write(t, dir, map[string]string{"logs/etcd.log": strings.Repeat("line\n", 20) + "last\n"})
	if got := tail(dir, supervisor.Etcd); strings.Count(got, "line\n") != 9 || !strings.HasSuffix(got, "  last") {
		t.Errorf("the tail is %q", got)
	}
}
