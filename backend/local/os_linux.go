package local

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

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
			found, unsure := s.kill(now.ids)
			if found+unsure == 0 {
				break
			}
			if unsure > 0 {
				time.Sleep(time.Millisecond)
			}
		}
		close(now.done)
		s.mu.Lock()
	}
	s.busy = false
	s.mu.Unlock()
}

// kill kills the processes whose environment has one of the marks, and returns
// how many it has found, and of how many it cannot be sure: a process that is
// about to become another program shows no environment for a moment.
func (s *sweeper) kill(ids map[string]bool) (found, unsure int) {
	old := make(map[string]bool, len(s.old)) // numbers are given again
	for _, name := range processes() {
		if s.old[name] {
			old[name] = true
			continue
		}
		env, err := os.ReadFile("/proc/" + name + "/environ")
		if err != nil {
			continue
		}
		if len(env) == 0 {
			if becoming(name) {
				unsure++
			}
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
	return found, unsure
}

// becoming reports whether a process without an environment is one that may
// get one: neither has it ended, nor is it of the kernel.
func becoming(pid string) bool {
	stat, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return false
	}
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // state, parent, ...
	if len(fields) < 2 {
		return false
	}
	state, parent := string(fields[0]), string(fields[1])
	return state != "Z" && state != "X" && parent != "0" && parent != "2"
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
