package local

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
)

// TestFullDisk fills the disk of the state folder: a step is refused before its
// command starts, and nothing is half written.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k"); err != nil {
		t.Skipf("a small disk cannot be mounted: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	mark := filepath.Join(t.TempDir(), "ran")
	x := newExecutor(t, Config{Dir: dir, Images: parse(t, "images: {i: {exec: []}}")})
	f, err := os.Create(filepath.Join(dir, "full"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(bytes.Repeat([]byte("x"), 4096))
	}
	f.Close()
	p := &dag.Pipeline{Name: "p", Steps: []*dag.Step{sh("s", "touch "+mark)}}
	result, err := engine.Run(t.Context(), x, p, engine.RunInfo{ID: "id", Name: "p"}, engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	o := result.Steps[0].Attempts[0]
	if o.Cause != engine.CannotRun || !strings.Contains(o.Reason, "no space left on device") {
		t.Errorf("%s, %q; want cannot run, no space left", o.Cause, o.Reason)
	}
	if _, err := os.Stat(mark); err == nil {
		t.Error("the command was started")
	}
}
