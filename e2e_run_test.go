//go:build e2e

package kfs

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kfs-project/kfs/backend/k8s"
	"github.com/kfs-project/kfs/backend/local"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/images"
	"github.com/kfs-project/kfs/internal/clustertest"
)

// alike are the examples whose steps do the same wherever they run, and testdata
// with what the examples do not have: failures, files, alternatives.
var alike = []string{"hello", "conditions", "countdown", "files", "loops", "settings", "components"}

// TestE2EAlike runs pipelines on this machine and on the cluster: each step
// comes to the same end, by the same number of attempts, with the same outputs.
func TestE2EAlike(t *testing.T) {
	clustertest.Busybox(t)
	clustertest.Kfs(t)
	cluster, err := k8s.NewCluster(clustertest.Config(t), clustertest.Namespace(t))
	if err != nil {
		t.Fatal(err)
	}
	files := []string{"testdata/alike.star"}
	for _, name := range alike {
		files = append(files, "examples/"+name+".star")
	}
	for i, file := range files {
		for _, p := range evaluate(t, file, nil) {
			t.Run(filepath.Base(file)+"/"+p.Name, func(t *testing.T) {
				t.Parallel()
				id := fmt.Sprintf("alike-%d-%d", i, time.Now().UnixNano())
				run := engine.RunInfo{ID: id, Name: id}
				want := onMachine(t, p, run)
				got := onCluster(t, cluster, p, run)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("on the cluster it differs (-machine +cluster):\n%s", diff)
				}
			})
		}
	}
}

// results are what must be alike of each step.
func results(t *testing.T, result *engine.Result, err error) []string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"run " + string(result.State)}
	for _, r := range result.Steps {
		line := fmt.Sprintf("%s %s, %d attempts, by choice %v, outputs %q", r.Step, r.State, len(r.Attempts), r.ByChoice, r.Outputs)
		for _, o := range r.Attempts {
			line += "; " + string(o.Cause)
			if o.Cause == engine.Exited {
				line += fmt.Sprintf(" with %d", o.ExitCode)
			}
		}
		all = append(all, line)
	}
	return all
}

func onMachine(t *testing.T, p *dag.Pipeline, run engine.RunInfo) []string {
	t.Helper()
	var text strings.Builder
	text.WriteString("images:\n")
	for image := range imagesOf(p) {
		fmt.Fprintf(&text, "  %q: {exec: []}\n", image)
	}
	m, err := images.Parse("images.yaml", []byte(text.String()))
	if err != nil {
		t.Fatal(err)
	}
	x, err := local.New(local.Config{Dir: t.TempDir(), Images: m, Grace: 2 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	defer x.Close()
	result, err := engine.Run(t.Context(), x, p, run, engine.Config{})
	return results(t, result, err)
}

func onCluster(t *testing.T, cluster *k8s.Cluster, p *dag.Pipeline, run engine.RunInfo) []string {
	t.Helper()
	mirrors := map[string]string{}
	for image := range imagesOf(p) {
		mirrors[image] = clustertest.BusyboxImage
	}
	opts := k8s.Options{Image: clustertest.KfsImage, Images: mirrors, Limits: k8s.Limits{Grace: 2 * time.Second}}
	r, err := k8s.Create(t.Context(), cluster, p, run, opts, "test")
	if err != nil {
		t.Fatal(err)
	}
	r.Notice = func(text string) { t.Log(text) }
	result, err := engine.Run(t.Context(), r, p, run, engine.Config{Store: r})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	r.Close(ctx, true)
	if err := k8s.Delete(ctx, cluster, run.Name, false); err != nil {
		t.Error(err)
	}
	return results(t, result, err)
}

func imagesOf(p *dag.Pipeline) map[string]bool {
	all := map[string]bool{}
	for _, s := range p.Steps {
		all[s.Image()] = true
	}
	return all
}

// TestE2ECommand runs the command on the cluster: run, a second driver, delete.
func TestE2ECommand(t *testing.T) {
	clustertest.Busybox(t)
	clustertest.Kfs(t)
	ns := clustertest.Namespace(t)
	dir := t.TempDir()
	write(t, filepath.Join(dir, "images.yaml"), "images: {alpine: "+clustertest.BusyboxImage+"}\n")
	kfs := buildCommand(t)
	out := kfs(t, 0, "run", "examples/hello.star", "-n", ns, "--kfs-image", clustertest.KfsImage, "--images", filepath.Join(dir, "images.yaml"),
		"--run-name", "hello", "-p", "who=cluster")
	for _, want := range []string{"namespace " + ns, "print | Hello, cluster!", "greeting: line = Hello", "run hello succeeded"} {
		if !strings.Contains(out, want) {
			t.Errorf("kfs run prints\n%s\nwant %q", out, want)
		}
	}
	if out := kfs(t, 0, "resume", "hello", "-n", ns); !strings.Contains(out, "run hello succeeded") {
		t.Errorf("kfs resume of a run that has ended prints\n%s", out)
	}
	if out := kfs(t, 2, "run", "examples/hello.star", "-n", ns, "--kfs-image", "i", "--run-name", "hello"); !strings.Contains(out, "there is a run already that is named hello") {
		t.Errorf("kfs run of the same name prints\n%s", out)
	}
	kfs(t, 0, "delete", "hello", "-n", ns)
	if out := kfs(t, 2, "delete", "hello", "-n", ns); !strings.Contains(out, `has no run "hello"`) {
		t.Errorf("kfs delete of a run that is gone prints\n%s", out)
	}
	if left := clustertest.Kubectl(t, "get", "pods,configmaps,leases", "-n", ns, "-l", "kfs.dev/run=hello", "-o", "name"); waitGone(t, ns) != "" {
		t.Errorf("left of the run: %s", left)
	}
}

// waitGone returns what is left of the run hello after a while.
func waitGone(t *testing.T, ns string) string {
	left := ""
	for range 100 {
		if left = clustertest.Kubectl(t, "get", "pods,configmaps,leases", "-n", ns, "-l", "kfs.dev/run=hello", "-o", "name"); left == "" {
			return ""
		}
		time.Sleep(200 * time.Millisecond)
	}
	return left
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

// buildCommand builds kfs, and returns a function that runs it, wants an exit
// status of it, and returns what it prints.
func buildCommand(t *testing.T) func(t *testing.T, status int, args ...string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "kfs")
	if out, err := exec.Command("go", "build", "-o", program, "./cmd/kfs").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return func(t *testing.T, status int, args ...string) string {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		cmd := exec.CommandContext(ctx, program, args...)
		out, _ := cmd.CombinedOutput()
		if got := cmd.ProcessState.ExitCode(); got != status {
			t.Errorf("kfs %s exits with %d, want %d:\n%s", strings.Join(args, " "), got, status, out)
		}
		return string(out)
	}
}

// TestE2ERole runs a pipeline as somebody who has the rights of docs/role.yaml
// and no others, and as somebody who has none.
func TestE2ERole(t *testing.T) {
	clustertest.Busybox(t)
	clustertest.Kfs(t)
	ns := clustertest.Namespace(t)
	clustertest.Kubectl(t, "apply", "-n", ns, "-f", "docs/role.yaml")
	clustertest.Kubectl(t, "create", "serviceaccount", "driver", "-n", ns)
	clustertest.Kubectl(t, "create", "serviceaccount", "nobody", "-n", ns)
	clustertest.Kubectl(t, "create", "rolebinding", "kfs", "-n", ns, "--role", "kfs", "--serviceaccount", ns+":driver")
	images := filepath.Join(t.TempDir(), "images.yaml")
	write(t, images, "images: {alpine: "+clustertest.BusyboxImage+"}\n")
	kfs := buildCommand(t)
	run := func(status int, user string, args ...string) string {
		return kfs(t, status, append(args, "-n", ns, "--as", "system:serviceaccount:"+ns+":"+user)...)
	}
	run(0, "driver", "run", "examples/conditions.star", "--kfs-image", clustertest.KfsImage, "--images", images, "--run-name", "allowed")
	run(0, "driver", "delete", "allowed")
	out := run(3, "nobody", "run", "examples/conditions.star", "--kfs-image", clustertest.KfsImage, "--images", images, "--run-name", "denied")
	for _, want := range []string{"create config map kfs-denied", "forbidden", "docs/role.yaml"} {
		if !strings.Contains(out, want) {
			t.Errorf("without rights kfs prints\n%s\nwant %q", out, want)
		}
	}
}
