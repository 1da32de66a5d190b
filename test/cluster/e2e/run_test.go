//go:build e2e

package e2e

import (
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/kfs-project/kfs/test/cluster/cluster"
)

// TestRun runs commands with clusters of their own: one that fails, and one
// that is interrupted. Each time the cluster must be gone with it.
func TestRun(t *testing.T) {
	program := filepath.Join(t.TempDir(), "cluster")
	if out, err := exec.Command("go", "build", "-o", program, "..").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, tt := range []struct {
		name   string
		script string
		signal syscall.Signal // once the script has said that it runs
		status int
	}{
		{"fails", `kubectl get nodes -o name; echo running; exit 3`, 0, 3},
		{"interrupted", `trap 'exit 4' INT; echo running; while :; do sleep 0.1; done`, syscall.SIGINT, 4},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			cmd := exec.Command(program, "run", "--name", tt.name, "--dir", dir, "--", "sh", "-c", tt.script)
			out := &watched{want: "running\n", seen: make(chan struct{})}
			cmd.Stdout, cmd.Stderr = out, out
			cmd.WaitDelay = 10 * time.Second // should what it started outlive it
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			if tt.signal != 0 {
				go func() {
					<-out.seen
					cmd.Process.Signal(tt.signal)
				}()
			}
			err := cmd.Wait()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != tt.status {
				t.Errorf("ended: %v, want exit status %d\n%s", err, tt.status, out.text)
			}
			if tt.name == "fails" && !strings.Contains(out.text, "node/node\n") {
				t.Errorf("the command did not reach its cluster:\n%s", out.text)
			}
			if names, err := cluster.List(dir); err != nil || len(names) > 0 {
				t.Errorf("left: clusters %v, %v", names, err)
			}
		})
	}
}

// watched keeps what is written to it and tells when it holds want.
type watched struct {
	text string
	want string
	seen chan struct{}
}

func (w *watched) Write(data []byte) (int, error) {
	before := strings.Contains(w.text, w.want)
	w.text += string(data)
	if !before && strings.Contains(w.text, w.want) {
		close(w.seen)
	}
	return len(data), nil
}
