package launch

import (
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// This file starts the command and waits for its end, as the first process of
// a container must: it passes signals on and reaps what others have left.

// A child is the command. All is done by one goroutine, so that no signal goes
// to a process number that another process may have by now.
type child struct {
	pid     int
	signal  syscall.Signal // the first one that was passed on, of those that end a process
	signals chan os.Signal
	ended   chan os.Signal // SIGCHLD; one tells of several
}

// notPassedOn are signals that tell of a fault of the process itself, or are
// for the Go runtime, or mean a terminal's foreground. 32 to 34 are of libc.
var notPassedOn = []syscall.Signal{
	syscall.SIGKILL, syscall.SIGSTOP, syscall.SIGCHLD, syscall.SIGURG, syscall.SIGPIPE, syscall.SIGPROF, syscall.SIGVTALRM,
	syscall.SIGILL, syscall.SIGTRAP, syscall.SIGABRT, syscall.SIGBUS, syscall.SIGFPE, syscall.SIGSEGV, syscall.SIGSYS,
	syscall.SIGTTIN, syscall.SIGTTOU, 32, 33, 34,
}

// harmless are those passed on that do not end a process.
var harmless = []syscall.Signal{syscall.SIGCONT, syscall.SIGTSTP, syscall.SIGWINCH}

// newChild returns a command that has not been started. From now on signals
// are kept for it.
func newChild() *child {
	c := &child{signals: make(chan os.Signal, 64), ended: make(chan os.Signal, 1)}
	for n := syscall.Signal(1); n <= 64; n++ {
		if !slices.Contains(notPassedOn, n) {
			signal.Notify(c.signals, n)
		}
	}
	signal.Notify(c.ended, syscall.SIGCHLD)
	return c
}

// stopped returns the signal that came before the command was started, or 0.
func (c *child) stopped() syscall.Signal {
	for {
		select {
		case s := <-c.signals:
			if n := s.(syscall.Signal); !slices.Contains(harmless, n) {
				return n
			}
		default:
			return 0
		}
	}
}

// start starts the command in a process group of its own. It has the streams,
// the environment and the working folder of this process.
func (c *child) start(file string, argv []string) error {
	attr := &syscall.SysProcAttr{Setpgid: true}
	if os.Getpid() == 1 {
		if tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0); err == nil { // tty: true
			attr.Foreground, attr.Ctty = true, int(tty.Fd())
			defer tty.Close()
		}
	}
	pid, err := syscall.ForkExec(file, argv, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}, Sys: attr})
	c.pid = pid
	return err
}

// wait waits until the command has ended and returns its exit code, 128 and
// the number of the signal if one has killed it. What it leaves running is
// killed.
func (c *child) wait() int {
	for {
		select {
		case s := <-c.signals:
			n := s.(syscall.Signal)
			if c.signal == 0 && !slices.Contains(harmless, n) {
				c.signal = n
			}
			syscall.Kill(-c.pid, n)
		case <-c.ended:
			for {
				pid, status := reap()
				if pid <= 0 {
					break
				}
				if pid == c.pid {
					c.killRest()
					if status.Signaled() {
						return 128 + int(status.Signal())
					}
					return status.ExitStatus()
				}
			}
		}
	}
}

// killRest kills what the command has left running, and waits a moment until
// nothing of it can write any more.
func (c *child) killRest() {
	if os.Getpid() == 1 {
		syscall.Kill(-1, syscall.SIGKILL) // all but this process, in this container
	} else {
		syscall.Kill(-c.pid, syscall.SIGKILL)
	}
	for deadline := time.Now().Add(time.Second); time.Now().Before(deadline); {
		switch pid, _ := reap(); {
		case pid < 0:
			return // no child is left
		case pid == 0:
			time.Sleep(time.Millisecond)
		}
	}
}

// reap takes the status of a process that has ended: 0 is none has, -1 there
// is none.
func reap() (int, syscall.WaitStatus) {
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		if err != syscall.EINTR {
			return pid, status
		}
	}
}
