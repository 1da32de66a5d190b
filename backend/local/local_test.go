package local

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/engine/enginetest"
	"github.com/kfs-project/kfs/images"
)

func parse(t testing.TB, text string) *images.Map {
	t.Helper()
	m, err := images.Parse(filepath.Join(t.TempDir(), "images.yaml"), []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func newExecutor(t testing.TB, cfg Config) *Executor {
	t.Helper()
	if cfg.Dir == "" {
		cfg.Dir = t.TempDir()
	}
	if cfg.Grace == 0 {
		cfg.Grace = 500 * time.Millisecond
	}
	x, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { x.Close() })
	return x
}

func TestSuite(t *testing.T) {
	enginetest.Run(t, func(t *testing.T, _ engine.RunInfo, _ *dag.Pipeline) engine.Executor {
		return newExecutor(t, Config{Images: parse(t, "images: {busybox: {exec: []}}")})
	}, 256<<10)
}

// TestOddFolder is one case in a folder whose name means much to a shell.
func TestOddFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "My Run; $(x) 'q'")
	x := newExecutor(t, Config{Dir: dir, Images: parse(t, "images: {i: {exec: []}}")})
	s := sh("s", "echo v > /tmp/o")
	s.Outputs = []dag.Output{{Name: "o", Path: "/tmp/o"}}
	r := run(t, x, s)
	if r.Outputs["o"] != "v" {
		t.Errorf("%s, %s, outputs %q", r.State, r.Reason, r.Outputs)
	}
	if want := filepath.Join(dir, "steps", "s", "1", "log"); r.Attempts[0].Log != want {
		t.Errorf("log %q; want %q", r.Attempts[0].Log, want)
	}
	if err := x.Close(); err != nil {
		t.Fatal(err)
	}
	if text, err := os.ReadFile(r.Files["o"]); string(text) != "v\n" {
		t.Errorf("the file of the output, once the executor is closed: %q, %v", text, err)
	}
}

func sh(name, script string, args ...string) *dag.Step {
	s := &dag.Step{Name: name, Pos: dag.Pos{File: "p.star", Line: 3, Col: 5}}
	s.Container.Set("i:v1", "image")
	command := []any{"sh", "-c", script, "sh"}
	for _, a := range args {
		command = append(command, a)
	}
	s.Container.Set(command, "command")
	return s
}

// run runs a pipeline of one step.
func run(t testing.TB, x *Executor, s *dag.Step) engine.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	p := &dag.Pipeline{Name: "p", Steps: []*dag.Step{s}}
	result, err := engine.Run(ctx, x, p, engine.RunInfo{ID: "r1", Name: "r"}, engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return result.Steps[0]
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	m, err := images.Parse(filepath.Join(dir, "images.yaml"), []byte(`
images:
  ok: {exec: [sh]}
  mirrored: registry.local/mirrored
  misspelt: {exec: [pyhton-kfs, -u]}
  away: {exec: [./bin/away]}
  plain: {exec: [./plain]}
  nodir: {exec: [sh], dir: nosuch}
  empty: {exec: []}
`))
	if err != nil {
		t.Fatal(err)
	}
	x := newExecutor(t, Config{Images: m})
	for _, tt := range []struct{ image, msg, hint string }{
		{"ok:1", "", ""},
		{"unknown:1", `step "s" cannot run on this machine: no command stands in for image "unknown:1"`,
			"on a cluster|--images FILE|      unknown:\n        exec: [python3]"},
		{"mirrored:1", `has only another image, "registry.local/mirrored:1"`, "--images FILE"},
		{"misspelt", `step "s" cannot run on this machine: program "pyhton-kfs" is not in PATH`, "install the program"},
		{"away", `bin/away" does not exist`, "images.yaml"},
		{"plain", "is not executable: chmod +x it", ""},
		{"nodir", "nosuch, which is no folder", "relative"},
		{"empty", `step "s" has no command, and the stand-in of image "empty" has none either`, "exec: [COMMAND"},
	} {
		s := &dag.Step{Name: "s", Pos: dag.Pos{File: "p.star", Line: 3, Col: 5}}
		s.Container.Set(tt.image, "image")
		err := x.Check(t.Context(), &dag.Pipeline{Name: "p", Steps: []*dag.Step{s}}, nil)
		faults := dag.Faults(err)
		if tt.msg == "" {
			if err != nil {
				t.Errorf("%s: %v", tt.image, err)
			}
			continue
		}
		if len(faults) != 1 || !strings.Contains(faults[0].Msg, tt.msg) || faults[0].Pos != s.Pos {
			t.Errorf("%s: %v; want %s", tt.image, err, tt.msg)
			continue
		}
		for _, part := range strings.Split(tt.hint, "|") {
			if !strings.Contains(faults[0].Hint, part) {
				t.Errorf("%s: hint %q; want %q in it", tt.image, faults[0].Hint, part)
			}
		}
	}
}

func TestEnvironment(t *testing.T) {
	dir := t.TempDir()
	m, err := images.Parse(filepath.Join(dir, "images.yaml"), []byte(`
images:
  i: {exec: [env, X=exec], dir: ., env: {FROM_IMAGE: a, BOTH: image}, pass_env: [PASSED]}
`))
	if err != nil {
		t.Fatal(err)
	}
	x := newExecutor(t, Config{Images: m, Environ: []string{
		"PATH=" + os.Getenv("PATH"), "HOME=/h", "SECRET=s", "PASSED=p", "LC_ALL=C", "TZ=UTC",
	}})
	s := sh("s", `pwd; env | sort > /tmp/e`)
	s.Outputs = []dag.Output{{Name: "e", Path: "/tmp/e"}}
	s.Container.Set([]any{
		dag.Object{{Name: "name", Value: "BOTH"}, {Name: "value", Value: "step"}},
		dag.Object{{Name: "name", Value: "SECRET_REF"}, {Name: "valueFrom", Value: dag.Object{}}},
	}, "env")
	r := run(t, x, s)
	got := map[string]string{}
	for _, line := range strings.Split(r.Outputs["e"], "\n") {
		name, value, _ := strings.Cut(line, "=")
		got[name] = value
	}
	for name, want := range map[string]string{
		"HOME": "/h", "PASSED": "p", "LC_ALL": "C", "TZ": "UTC", "FROM_IMAGE": "a", "BOTH": "step", "X": "exec",
	} {
		if got[name] != want {
			t.Errorf("%s is %q; want %q", name, got[name], want)
		}
	}
	for _, name := range []string{"SECRET", "SECRET_REF"} {
		if _, ok := got[name]; ok {
			t.Errorf("%s is set", name)
		}
	}
	real, _ := filepath.EvalSymlinks(dir)
	if lines := x.Tail("s", 20); len(lines) != 1 || lines[0] != real {
		t.Errorf("log %q (%s, %s); want the folder %s", lines, r.State, r.Reason, real)
	}
	warnings := Warnings(&dag.Pipeline{Steps: []*dag.Step{s}})
	if len(warnings) != 1 || !strings.Contains(warnings[0].Msg, `variable "SECRET_REF"`) {
		t.Errorf("warnings %v", warnings)
	}
}

// TestOnlyOnCluster shows what is said of a step that asks for what a process
// does not get.
func TestOnlyOnCluster(t *testing.T) {
	s := sh("s", "true")
	s.Pos = dag.Pos{File: "p.star", Line: 3, Col: 5}
	s.Container.Set(dag.Object{{Name: "nvidia.com/gpu", Value: "1"}, {Name: "cpu", Value: "1"}}, "resources", "limits")
	s.Container.Set(dag.Object{}, "livenessProbe")
	s.Container.Set(false, "tty")
	s.NodeSelector = dag.Object{{Name: "pool", Value: "a"}}
	p := &dag.Pipeline{Steps: []*dag.Step{s}, Conf: &dag.Conf{Timeout: 3}}
	var got []string
	for _, w := range Warnings(p) {
		thing, _, _ := strings.Cut(strings.TrimPrefix(w.Msg, "only a cluster "), ";")
		got = append(got, thing)
	}
	want := []string{"has livenessProbe", "has nvidia.com/gpu", "has node selectors"}
	if !slices.Equal(got, want) {
		t.Errorf("warnings of %q; want %q", got, want)
	}

	s.Sidecars = []dag.Object{{{Name: "name", Value: "log"}, {Name: "image", Value: "i"}}}
	m, err := images.Parse("images.yaml", []byte("images: {i: {exec: [sh]}, sh: {exec: [sh]}}"))
	if err != nil {
		t.Fatal(err)
	}
	s.Container.Set("i", "image")
	faults := dag.Faults(newExecutor(t, Config{Images: m}).Check(t.Context(), p, nil))
	const msg = `step "s" cannot run on this machine: its sidecar "log" needs a container`
	if len(faults) != 1 || faults[0].Msg != msg || faults[0].Pos != s.Pos {
		t.Errorf("faults %v; want one: %s", faults, msg)
	}
}

// TestResource shows that a step that needs a cluster is refused, once.
func TestResource(t *testing.T) {
	s := &dag.Step{Name: "s", Pos: dag.Pos{File: "in.star", Line: 3, Col: 5}, Resource: &dag.Resource{
		Action: "create", Manifest: dag.Object{{Name: "apiVersion", Value: "v1"}, {Name: "kind", Value: "ConfigMap"}},
	}}
	s.Sidecars = []dag.Object{{{Name: "name", Value: "log"}, {Name: "image", Value: "i"}}}
	p := &dag.Pipeline{Name: "p", Steps: []*dag.Step{s}}
	faults := dag.Faults(newExecutor(t, Config{Images: parse(t, "images: {i: {exec: []}}")}).Check(t.Context(), p, nil))
	const msg = `step "s" cannot run on this machine: it changes a cluster (create ConfigMap)`
	if len(faults) != 1 || faults[0].Msg != msg || faults[0].Pos != s.Pos {
		t.Errorf("faults %v; want one: %s", faults, msg)
	}
}

func TestReasons(t *testing.T) {
	for _, tt := range []struct{ script, want string }{
		{"exit 3", "exited with 3"},
		{"exit 126", "exited with 126 (a command is not executable)"},
		{"no-such-command-of-kfs", "exited with 127 (a command was not found)"},
		{"kill -9 $$$$", "killed by SIGKILL"},
		{"kill -TERM $$$$", "killed by SIGTERM"},
	} {
		x := newExecutor(t, Config{Images: parse(t, "images: {i: {exec: []}}")})
		if r := run(t, x, sh("s", tt.script)); r.Reason != tt.want {
			t.Errorf("%s: %q; want %q", tt.script, r.Reason, tt.want)
		}
	}
}

// TestDiesWithParent shows that no step lives on when kfs is killed.
func TestDiesWithParent(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux can")
	}
	if file := os.Getenv("KFS_TEST_PID_FILE"); file != "" {
		x := newExecutor(t, Config{Images: parse(t, "images: {i: {exec: []}}")})
		run(t, x, sh("s", `echo $$$$ > "$1"; exec sleep 100`, file))
		return
	}
	file := filepath.Join(t.TempDir(), "pid")
	kfs := exec.Command(os.Args[0], "-test.run=^TestDiesWithParent$")
	kfs.Env = append(os.Environ(), "KFS_TEST_PID_FILE="+file, "TMPDIR="+t.TempDir())
	if err := kfs.Start(); err != nil {
		t.Fatal(err)
	}
	pid := started(t, file)
	kfs.Process.Kill()
	kfs.Wait()
	if !gone(pid) {
		unix.Kill(pid, unix.SIGKILL)
		t.Error("the step lives on")
	}
}

// started waits until file holds a pid and returns it.
func started(t *testing.T, file string) int {
	t.Helper()
	for range 500 {
		text, _ := os.ReadFile(file)
		if pid, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return pid
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatalf("%s holds no pid", file)
	return 0
}

// gone reports whether the process ends within two seconds.
func gone(pid int) bool {
	for range 200 {
		if unix.Kill(pid, 0) != nil || zombie(pid) {
			return true
		}
		time.Sleep(10 * time.Millisecond)
	}
	return false
}

// zombie reports whether the process has ended and nobody has waited for it.
func zombie(pid int) bool {
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	i := strings.LastIndexByte(string(stat), ')')
	return i > 0 && strings.HasPrefix(string(stat[i:]), ") Z")
}

// TestLeftBehind shows what becomes of what a step leaves running.
func TestLeftBehind(t *testing.T) {
	_, err := exec.LookPath("setsid")
	for _, tt := range []struct {
		name, script string
		background   bool
		lives, skip  bool
	}{
		{"deaf grandchild", `sh -c 'trap "" TERM HUP; echo $$$$ > "$1"; while true; do sleep 1; done' sh "$1" & while [ ! -s "$1" ]; do sleep 0.01; done`, false, false, false},
		{"own session", `setsid sh -c 'echo $$$$ > "$1"; exec sleep 100' sh "$1" & while [ ! -s "$1" ]; do sleep 0.01; done`, false, false, err != nil},
		{"background", `sh -c 'echo $$$$ > "$1"; exec sleep 100' sh "$1" & while [ ! -s "$1" ]; do sleep 0.01; done`, true, true, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.skip {
				t.Skip("no setsid here")
			}
			file := filepath.Join(t.TempDir(), "pid")
			x := newExecutor(t, Config{Images: parse(t, fmt.Sprintf("images: {i: {exec: [], background: %v}}", tt.background))})
			begin := time.Now()
			r := run(t, x, sh("s", tt.script, file))
			if r.State != engine.Succeeded {
				t.Fatalf("%s: %s", r.State, r.Reason)
			}
			if took := time.Since(begin); took > 5*time.Second {
				t.Errorf("the step took %v: it waited for what it left", took)
			}
			pid := started(t, file)
			if err := x.Close(); err != nil {
				t.Error(err)
			}
			if tt.lives {
				time.Sleep(100 * time.Millisecond)
				if zombie(pid) || unix.Kill(pid, 0) != nil {
					t.Error("the process in the background is gone")
				}
				unix.Kill(pid, unix.SIGKILL)
			} else if !gone(pid) {
				unix.Kill(pid, unix.SIGKILL)
				t.Error("the process is still there")
			}
		})
	}
}

func TestOutputPaths(t *testing.T) {
	a := &attempt{Attempt: &engine.Attempt{Outputs: []engine.Output{
		{Output: dag.Output{Path: "/out/a"}}, {Output: dag.Output{Path: "/out/a/b"}}, {Output: dag.Output{Path: "/x"}}, {Output: dag.Output{Path: "/c/../d"}},
	}}, dir: "/run"}
	rewrite := a.rewriter()
	for _, tt := range []struct{ in, want string }{
		{"/out/a", "/run/out/out/a"},
		{"/out/a/b", "/run/out/out/a/b"},
		{"--out=/out/a --b=/out/a/b", "--out=/run/out/out/a --b=/run/out/out/a/b"},
		{"echo >/x;cat '/x' \"/x\"", "echo >/run/out/x;cat '/run/out/x' \"/run/out/x\""},
		{"file:///x", "file:///run/out/x"},
		{"/out/a.bak /out/ab /data/out/a ./x ${D}/x $(d)/x //x", "/out/a.bak /out/ab /data/out/a ./x ${D}/x $(d)/x //x"},
		{"mkdir /x/y; cp /out/a/c /x/y/", "mkdir /run/out/x/y; cp /run/out/out/a/c /run/out/x/y/"},
		{"/c/../d and /d", "/run/out/d and /run/out/d"},
		{rewrite("/out/a"), "/run/out/out/a"},
		{"", ""},
	} {
		if got := rewrite(tt.in); got != tt.want {
			t.Errorf("rewrite(%q) = %q; want %q", tt.in, got, tt.want)
		}
	}
}

func TestExpand(t *testing.T) {
	env := map[string]string{"A": "1", "B": "$(A)", "": "empty"}
	for _, tt := range []struct{ in, want string }{ // from the kubelet's own table
		{"$(A)", "1"},
		{"$(B)", "$(A)"},
		{"$$(A)", "$(A)"},
		{"$$$(A)", "$1"},
		{"$$$$(A)", "$$(A)"},
		{"foo$(A)bar$$", "foo1bar$"},
		{"$", "$"},
		{"$(A", "$(A"},
		{"$(A$(A)", "$(A$(A)"},
		{"$)A(", "$)A("},
		{"$(C)", "$(C)"},
		{"$A$(A)", "$A1"},
		{"$(A)$(A)", "11"},
		{"---$(A)---", "---1---"},
		{"$()", "empty"},
		{"\n", "\n"},
		{"%", "%"},
	} {
		if got := expand(tt.in, env); got != tt.want {
			t.Errorf("expand(%q) = %q; want %q", tt.in, got, tt.want)
		}
	}
}

func TestNoDisk(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Config{Dir: filepath.Join(file, "sub")}); err == nil || !strings.HasPrefix(err.Error(), "state folder: ") {
		t.Errorf("New in a file: %v", err)
	}
	// A folder that somebody else has made is somebody else's attempt.
	dir := t.TempDir()
	x := newExecutor(t, Config{Dir: dir, Images: parse(t, "images: {i: {exec: []}}")})
	if err := os.MkdirAll(filepath.Join(dir, "steps", "s", "1"), 0o777); err != nil {
		t.Fatal(err)
	}
	r := run(t, x, sh("s", "true"))
	if r.State != engine.Failed || !strings.Contains(r.Reason, "started by another kfs") {
		t.Errorf("%s, %q", r.State, r.Reason)
	}
}

func TestTail(t *testing.T) {
	x := newExecutor(t, Config{Images: parse(t, "images: {i: {exec: []}}")})
	run(t, x, sh("s", `i=0; while [ $i -lt 30 ]; do echo line $i; i=$((i+1)); done; printf end`))
	lines := x.Tail("s", 3)
	if got := strings.Join(lines, ","); got != "line 28,line 29,end" {
		t.Errorf("tail %q", got)
	}
	if lines := x.Tail("none", 3); lines != nil {
		t.Errorf("tail of no step: %q", lines)
	}
}

// BenchmarkRun runs b.N steps that are free to start, and BenchmarkBare as
// many processes without kfs.
func BenchmarkRun(b *testing.B) {
	x := newExecutor(b, Config{Images: parse(b, "images: {i: {exec: []}}")})
	p := &dag.Pipeline{Name: "p"}
	for i := range b.N {
		s := &dag.Step{Name: fmt.Sprintf("s%d", i)}
		s.Container.Set("i", "image")
		s.Container.Set([]any{"true"}, "command")
		p.Steps = append(p.Steps, s)
	}
	b.ResetTimer()
	result, err := engine.Run(b.Context(), x, p, engine.RunInfo{ID: "r"}, engine.Config{Parallelism: 8})
	if err != nil || result.State != engine.Succeeded {
		b.Fatal(result, err)
	}
}

func BenchmarkBare(b *testing.B) {
	calls := make(chan bool)
	done := make(chan error)
	for range 8 {
		go func() {
			for range calls {
				done <- exec.Command("true").Run()
			}
		}()
	}
	go func() {
		for range b.N {
			calls <- true
		}
		close(calls)
	}()
	for range b.N {
		if err := <-done; err != nil {
			b.Fatal(err)
		}
	}
}

// TestOneFaultAnImage shows that an image that nothing stands in for is one
// fault, however many steps have it.
func TestOneFaultAnImage(t *testing.T) {
	p := &dag.Pipeline{Name: "p"}
	for i, image := range []string{"a:1", "b:1", "a:1", "a:1"} {
		s := &dag.Step{Name: fmt.Sprintf("s%d", i), Pos: dag.Pos{File: "p.star", Line: i + 1, Col: 1}}
		s.Container.Set(image, "image")
		p.Steps = append(p.Steps, s)
	}
	const want = `p.star:1:1: step "s0" and 2 more cannot run on this machine: no command stands in for image "a:1"
p.star:2:1: step "s1" cannot run on this machine: no command stands in for image "b:1"`
	if err := newExecutor(t, Config{}).Check(t.Context(), p, nil); err == nil || err.Error() != want {
		t.Errorf("Check = %v; want\n%s", err, want)
	}
}
