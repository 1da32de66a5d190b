package launch

import (
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mountSmall mounts a file system of 128 KiB, or skips the test.
func mountSmall(t *testing.T, dir string) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=128k,mode=0777"); err != nil {
		t.Skipf("no small file system can be made: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
}

// TestFirstProcess runs kfs-launch as a container does: as the first process,
// which gets the orphans of others and has to reap them. What the command leaves
// running ends, though it is of another group and session.
func TestFirstProcess(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("want root, for a PID namespace")
	}
	p := newPod(t)
	// The shell is made the reader of what its orphans hold open, so that the
	// test sees their end.
	cmd := p.launch(Spec{Outputs: []Output{{Name: "zombies", Path: "/zombies"}, {Name: "first", Path: "/first"}}}, `
for i in 1 2 3 4 5 6 7 8 9 10; do (sh -c 'sleep 0.05' &); done
sleep 1
mount -t proc proc /proc
cat /proc/[0-9]*/stat | grep -c ') Z ' > $ROOT/zombies
tr '\0' ' ' < /proc/1/cmdline > /dev/null && echo $PPID > $ROOT/first
setsid sh -c 'trap "" TERM HUP; echo > $ROOT/left; while :; do sleep 0.05; echo x >> $ROOT/left; done' &
while [ ! -e $ROOT/left ]; do sleep 0.05; done
sleep 0.3`)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID | syscall.CLONE_NEWNS, Unshareflags: syscall.CLONE_NEWNS}
	r, out := p.result(cmd)
	if r.ExitCode != 0 || r.Texts["zombies"] != "0" || r.Texts["first"] != "1" {
		t.Errorf("%+v, wrote %q; want no zombies below process 1", *r, out)
	}
	before, err := os.Stat(p.Root + "/left")
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond)
	if after, _ := os.Stat(p.Root + "/left"); after.Size() != before.Size() {
		t.Error("what the command left running lives on")
	}
}

// TestFirstProcessSignal shows that a shell dies of SIGTERM, which as the first
// process of a container it would not.
func TestFirstProcessSignal(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("want root, for a PID namespace")
	}
	p := newPod(t)
	cmd := p.launch(Spec{}, "echo > $ROOT/ready; sleep 60; exit 3")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.waitFor(p.Root + "/ready")
	cmd.Process.Signal(syscall.SIGTERM)
	cmd.Wait()
	if r := p.told(cmd.ProcessState.ExitCode()); r.ExitCode != 143 || r.Signal != 15 {
		t.Errorf("%+v; want 143, signal 15", *r)
	}
	if s := cmd.ProcessState.String(); !strings.Contains(s, "143") {
		t.Errorf("it ended with %s", s)
	}
}
