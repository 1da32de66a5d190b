package local

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/kfs-project/kfs/backend/accel"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
)

// withGPU is a machine with one GPU of NVIDIA's.
func withGPU(t *testing.T) accel.Machine {
	t.Helper()
	root := t.TempDir()
	if err := os.Mkdir(filepath.Join(root, "dev"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(root, "dev", "nvidiactl"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	return accel.Machine{Root: root, OS: "linux", Run: func(string, ...string) ([]byte, error) {
		return []byte("GPU-1234, NVIDIA L4, 23034\n"), nil
	}}
}

// TestGPU runs steps that want one GPU at the same time where there is one.
func TestGPU(t *testing.T) {
	x := newExecutor(t, Config{Images: parse(t, "images: {i: {exec: []}}"), Machine: withGPU(t)})
	lock := filepath.Join(t.TempDir(), "lock")
	p := &dag.Pipeline{Name: "p"}
	for _, name := range []string{"a", "b", "c"} {
		s := sh(name, `mkdir "$1" && sleep 0.1 && rmdir "$1" && echo "$CUDA_VISIBLE_DEVICES" > /tmp/o`, lock)
		s.Accelerator = &dag.Accelerator{Kind: "gpu", Count: 1, Memory: "20G"}
		s.Outputs = []dag.Output{{Name: "o", Path: "/tmp/o"}}
		p.Steps = append(p.Steps, s)
	}
	none := sh("none", `echo "<$CUDA_VISIBLE_DEVICES$HIP_VISIBLE_DEVICES>" > /tmp/o`)
	none.Accelerator = &dag.Accelerator{Kind: "gpu"}
	none.Container.Append("env", dag.Object{{Name: "name", Value: "CUDA_VISIBLE_DEVICES"}, {Name: "value", Value: "0"}}) // is not obeyed
	none.Outputs = []dag.Output{{Name: "o", Path: "/tmp/o"}}
	p.Steps = append(p.Steps, none)
	if err := x.Check(t.Context(), p, nil); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	result, err := engine.Run(ctx, x, p, engine.RunInfo{ID: "r1", Name: "r"}, engine.Config{Parallelism: 4})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range result.Steps {
		want := "GPU-1234"
		if r.Step == "none" {
			want = "<-1>"
		}
		if r.State != engine.Succeeded || r.Outputs["o"] != want {
			t.Errorf("step %s: %s, %s, sees %q; want %q", r.Step, r.State, r.Reason, r.Outputs["o"], want)
		}
	}
}

// TestGPUStopped stops a step that waits for a GPU.
func TestGPUStopped(t *testing.T) {
	x := newExecutor(t, Config{Images: parse(t, "images: {i: {exec: []}}"), Machine: withGPU(t)})
	attempt := func(id, script string) *engine.Attempt {
		return &engine.Attempt{ID: id, RunID: "r1", RunName: "r", Step: id, Number: 1, Container: sh(id, script).Container, Accelerator: &dag.Accelerator{Kind: "gpu", Count: 1}}
	}
	seen := make(chan engine.Observation, 100)
	if err := x.Observe(t.Context(), engine.RunInfo{ID: "r1"}, func(o engine.Observation) { seen <- o }); err != nil {
		t.Fatal(err)
	}
	until := func(id string, phase engine.Phase) engine.Observation {
		for {
			select {
			case o := <-seen:
				if o.ID == id && o.Phase == phase {
					return o
				}
			case <-time.After(time.Minute):
				t.Fatalf("attempt %s does not reach phase %d", id, phase)
			}
		}
	}
	if err := x.Start(t.Context(), attempt("has", "sleep 60")); err != nil {
		t.Fatal(err)
	}
	until("has", engine.PhaseRunning)
	if err := x.Start(t.Context(), attempt("waits", "true")); err != nil {
		t.Fatal(err)
	}
	if err := x.Stop(t.Context(), "waits", engine.Stopped, false); err != nil {
		t.Fatal(err)
	}
	if o := until("waits", engine.PhaseFinished); o.Cause != engine.Stopped || !o.Started.IsZero() {
		t.Errorf("%+v; want one that was stopped before it began", o)
	}
}

// TestNoGPU shows what is said of a step whose accelerator is not there.
func TestNoGPU(t *testing.T) {
	x := newExecutor(t, Config{Images: parse(t, "images: {i: {exec: []}}"), Machine: withGPU(t)})
	p := &dag.Pipeline{Name: "p"}
	for i, a := range []*dag.Accelerator{
		{Kind: "accelerator", Model: "a100-80gb", Count: 2},
		{Kind: "accelerator", Model: "a100", Count: 1},
		{Kind: "tpu", Model: "v5e", Topology: "2x2"},
	} {
		s := sh("s", "true")
		a.Pos = dag.Pos{File: "p.star", Line: i + 1, Col: 1}
		s.Accelerator = a
		p.Steps = append(p.Steps, s)
	}
	const want = `p.star:1:1: step "s" cannot run on this machine: it needs accelerator("a100-80gb", count=2), and there is NVIDIA L4
p.star:2:1: ambiguous accelerator "a100": write "a100-40gb" or "a100-80gb"
p.star:3:1: step "s" cannot run on this machine: a process can be given whole GPUs of NVIDIA and AMD, mps() and cpu_features(...) here, not tpu("v5e", topology="2x2")`
	err := x.Check(t.Context(), p, nil)
	if err == nil || err.Error() != want {
		t.Errorf("Check = %v; want\n%s", err, want)
	}
	if faults := dag.Faults(err); len(faults) == 0 || !strings.Contains(faults[0].Hint, "kfs compile") {
		t.Error("the hint does not name the way to a cluster")
	}
}
