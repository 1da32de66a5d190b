package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// This file starts and ends the processes of the services. It is for Unix, as
// it needs sessions.

const (
	startLimit = 15 * time.Second      // for a service to answer
	stopGrace  = 5 * time.Second       // between SIGTERM and SIGKILL
	pollEvery  = 20 * time.Millisecond // for a change
)

// deploy starts this program again as a service, in place of one of that name
// if there is one, and waits until it answers. The note is for status. The
// service gets its listening socket, on the loopback interface, as file 3.
func deploy(ctx context.Context, stdout io.Writer, home, name string, port int, note string, args ...string) (service, error) {
	r, err := openRegistry(ctx, home)
	if err != nil {
		return service{}, err
	}
	defer r.close()
	for _, dir := range []string{filepath.Dir(r.pidFile(name)), filepath.Dir(r.logFile(name))} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return service{}, err
		}
	}
	if old, ok := r.list[name]; ok {
		ended, err := old.stop()
		if err != nil {
			return service{}, fmt.Errorf("stop the old %s: %w", name, err)
		}
		if ended {
			fmt.Fprintf(stdout, "stopped the old %s (pid %d)\n", name, old.PID)
		}
		if err := r.remove(name); err != nil {
			return service{}, err
		}
	}

	l, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		return service{}, fmt.Errorf("find a port for %s: %w", name, err)
	}
	defer l.Close()
	socket, err := l.File()
	if err != nil {
		return service{}, err
	}
	defer socket.Close()
	self, err := os.Executable()
	if err != nil {
		return service{}, err
	}
	s := service{
		URL:     "http://" + l.Addr().String(),
		Log:     r.logFile(name),
		Started: time.Now().UTC().Truncate(time.Second),
		ID:      rand.Text(),
		Note:    note,
	}
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return service{}, err
	}
	defer log.Close()
	cmd := exec.Command(self, append(args, "--id", s.ID)...)
	cmd.Dir = home
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{socket}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return service{}, fmt.Errorf("start %s: %w", name, err)
	}
	// From here on only the service holds the socket.
	l.Close()
	socket.Close()
	s.PID = cmd.Process.Pid
	gone := make(chan string, 1)
	go func() {
		cmd.Wait()
		gone <- cmd.ProcessState.String()
	}()
	if err := s.await(ctx, gone); err != nil {
		cmd.Process.Kill()
		return service{}, fmt.Errorf("start %s: %w%s", name, err, tail(s.Log))
	}
	if err := r.set(name, s); err != nil {
		cmd.Process.Kill()
		return service{}, err
	}
	return s, nil
}

// await waits until the service answers, or is gone.
func (s service) await(ctx context.Context, gone <-chan string) error {
	limit := time.After(startLimit)
	for {
		if s.answers(ctx) {
			return nil
		}
		select {
		case <-time.After(pollEvery):
		case status := <-gone:
			return fmt.Errorf("it ended before it answered: %s", status)
		case <-limit:
			return fmt.Errorf("%s did not answer within %v", s.URL, startLimit)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// answers reports whether the service answers, with its own ID.
func (s service) answers(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", s.URL+"/healthz", nil)
	if err != nil {
		return false
	}
	resp, err := direct.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 100))
	return err == nil && resp.StatusCode == http.StatusOK && strings.TrimSpace(string(body)) == s.ID
}

// direct speaks to services, never through a proxy.
var direct = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 8, IdleConnTimeout: time.Minute}}

// runs reports whether the process of the service lives. Another process that
// got the same number does not count, nor does one that only waits to be reaped.
func (s service) runs() bool {
	if s.PID <= 1 || len(s.ID) < 20 || errors.Is(syscall.Kill(s.PID, 0), syscall.ESRCH) {
		return false
	}
	pid := strconv.Itoa(s.PID)
	line, err := os.ReadFile("/proc/" + pid + "/cmdline")
	if err != nil { // no Linux, or just gone
		line, err = exec.Command("ps", "-ww", "-o", "command=", "-p", pid).Output()
	}
	return err == nil && bytes.Contains(line, []byte(s.ID))
}

// stop ends the service and waits until it is gone. It reports false if the
// service did not run any more.
func (s service) stop() (bool, error) {
	if !s.runs() {
		return false, nil
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := syscall.Kill(s.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return false, fmt.Errorf("end process %d: %w", s.PID, err)
		}
		for limit := time.Now().Add(stopGrace); time.Now().Before(limit); time.Sleep(pollEvery) {
			if !s.runs() {
				return true, nil
			}
		}
	}
	return false, fmt.Errorf("process %d did not end on SIGKILL", s.PID)
}

// tail returns the last lines of a log, to put after an error.
func tail(name string) string {
	data, err := os.ReadFile(name)
	text := strings.TrimSpace(string(data))
	if err != nil || text == "" {
		return ""
	}
	lines := strings.Split(text, "\n")
	lines = lines[max(len(lines)-10, 0):]
	return fmt.Sprintf("\nthe end of %s:\n  %s", name, strings.Join(lines, "\n  "))
}

// sleep waits, or returns early with the reason that ctx ended.
func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
