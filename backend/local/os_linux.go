package local

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// dieWithParent makes a process die when kfs does.
func dieWithParent(attr *syscall.SysProcAttr) { attr.Pdeathsig = syscall.SIGKILL }

// waitExit waits until the process has ended, and leaves its status
// to cmd.Wait.
func waitExit(cmd *exec.Cmd) {
	for {
		err := unix.Waitid(unix.P_PID, cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil)
		if err != unix.EINTR {
			return
		}
	}
}

// A sweeper kills what attempts have left running outside of their groups. To
// look through /proc takes a while, so attempts that end meanwhile share the
// next look, and processes that are older than the sweeper are passed over.
type sweeper struct {
	mu   sync.Mutex
	busy bool
	next *sweep // those who wait for the next look; nil if there is none

	old map[string]bool // the older processes; only who is busy uses it
}

func newSweeper() *sweeper {
	s := &sweeper{old: map[string]bool{}}
	for _, name := range processes() {
		s.old[name] = true
	}
	return s
}

type sweep struct {
	ids  map[string]bool
	done chan struct{}
}

// sweep kills the processes that are marked as the attempt's.
func (s *sweeper) sweep(id string) {
	s.mu.Lock()
	if s.next == nil {
		s.next = &sweep{ids: map[string]bool{}, done: make(chan struct{})}
	}
	mine := s.next
	mine.ids[id] = true
	if s.busy {
		s.mu.Unlock()
		<-mine.done
		return
	}
	s.busy = true
	for s.next != nil {
		now := s.next
		s.next = nil
		s.mu.Unlock()
		for range 5 { // what is killed may have started others meanwhile
			if s.kill(now.ids) == 0 {
				break
			}
		}
		close(now.done)
		s.mu.Lock()
	}
	s.busy = false
	s.mu.Unlock()
}

// kill kills the processes whose environment has one of the marks, and returns
// how many it has found.
func (s *sweeper) kill(ids map[string]bool) int {
	old := make(map[string]bool, len(s.old)) // numbers are given again
	found := 0
	for _, name := range processes() {
		if s.old[name] {
			old[name] = true
			continue
		}
		env, err := os.ReadFile("/proc/" + name + "/environ") // empty for one that has ended
		if err != nil {
			continue
		}
		at := bytes.Index(env, []byte(markEnv+"="))
		if at < 0 || at > 0 && env[at-1] != 0 {
			continue
		}
		id, _, _ := bytes.Cut(env[at+len(markEnv)+1:], []byte{0})
		pid, _ := strconv.Atoi(name)
		if ids[string(id)] && unix.Kill(pid, unix.SIGKILL) == nil {
			found++
		}
	}
	s.old = old
	return found
}

// processes returns the numbers of all processes.
func processes() []string {
	proc, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer proc.Close()
	names, _ := proc.Readdirnames(-1)
	return slices.DeleteFunc(names, func(name string) bool { return name[0] < '0' || name[0] > '9' })
}
