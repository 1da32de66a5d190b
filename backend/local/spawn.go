package local

import (
	"os/exec"
	"runtime"
	"syscall"
)

// This file starts processes.

// A spawner starts all processes from one thread that lives as long as it
// does: the signal that Linux sends to a process when its parent dies is bound
// to the thread that started it.
type spawner struct {
	calls chan func()
}

func newSpawner() *spawner {
	s := &spawner{calls: make(chan func())}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for f := range s.calls {
			f()
		}
	}()
	return s
}

// start starts the process in a group of its own. Unless it is to live on in
// the background, it dies with kfs.
func (s *spawner) start(cmd *exec.Cmd, background bool) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if !background {
		dieWithParent(cmd.SysProcAttr)
	}
	result := make(chan error)
	s.calls <- func() { result <- cmd.Start() }
	return <-result
}

// close ends the spawner; nothing may be started any more.
func (s *spawner) close() { close(s.calls) }
