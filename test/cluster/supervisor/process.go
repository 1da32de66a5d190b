package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"time"
)

// This file starts, ends and reaps processes. The supervisor is the first of
// its PID namespace, so the orphans of containerd are its to reap too: one loop
// waits for all, which forbids os/exec, whose Wait would race with it.

// processes are the supervisor's children.
type processes struct {
	mu    sync.Mutex
	byPID map[int]*process
}

// A process is a child that was started here, or that has been.
type process struct {
	pid     int
	started time.Time
	ended   chan struct{} // closed when it has ended; then status is set
	status  syscall.WaitStatus
}

// start starts a program with its output at the end of the file log.
func (ps *processes) start(path string, argv, env []string, dir, log string) (*process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		return nil, err
	}
	defer null.Close()

	ps.mu.Lock() // until the child is known, the reaper must not meet it
	defer ps.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir:   dir,
		Env:   env,
		Files: []uintptr{null.Fd(), out.Fd(), out.Fd()},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	p := &process{pid: pid, started: time.Now(), ended: make(chan struct{})}
	ps.byPID[pid] = p
	return p, nil
}

// reap waits for children, its own and orphans, until ctx ends.
func (ps *processes) reap(ctx context.Context) {
	child := make(chan os.Signal, 1)
	signal.Notify(child, syscall.SIGCHLD)
	defer signal.Stop(child)
	for {
		ps.reapEnded()
		select {
		case <-ctx.Done():
			return
		case <-child:
		}
	}
}

func (ps *processes) reapEnded() {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		if p := ps.byPID[pid]; p != nil {
			p.status = status
			close(p.ended)
			delete(ps.byPID, pid)
		}
	}
}

// signal sends sig, to nobody once the process has ended.
func (ps *processes) signal(p *process, sig syscall.Signal) error {
	ps.mu.Lock() // while it is held the reaper frees no PID for another process
	defer ps.mu.Unlock()
	if ps.byPID[p.pid] != p {
		return errors.New("not running")
	}
	return syscall.Kill(p.pid, sig)
}

// hasEnded says whether the process has ended.
func (p *process) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// how says how the process ended, as in "exit status 2".
func (p *process) how() string {
	switch {
	case p.status.Signaled():
		return "signal: " + p.status.Signal().String()
	default:
		return fmt.Sprintf("exit status %d", p.status.ExitStatus())
	}
}

// frozen says whether the process is stopped by SIGSTOP.
func (p *process) frozen() bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	if err != nil {
		return false
	}
	// the state follows the program's name, which stands in parentheses
	_, rest, _ := strings.Cut(string(stat[max(0, strings.LastIndexByte(string(stat), ')')):]), " ")
	return strings.HasPrefix(rest, "T")
}

// memory is the process's resident memory in bytes.
func (p *process) memory() int64 {
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", p.pid))
	if err != nil {
		return 0
	}
	var size, resident int64
	fmt.Sscan(string(statm), &size, &resident)
	return resident * int64(os.Getpagesize())
}

// A partError is the failure of one part.
type partError struct {
	part string
	err  error
}

func (e *partError) Error() string { return e.part + ": " + e.err.Error() }
func (e *partError) Unwrap() error { return e.err }
