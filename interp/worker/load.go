package worker

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	"github.com/kfs-project/kfs/interp"
)

// This file defines the host's side.

// Load evaluates the file at path, and the functions of its pipelines, in a
// worker: another process of the program that runs, which must call Serve. The
// error is an *interp.Error if the script is at fault, be it that it drove the
// worker beyond a limit; it wraps the cause of ctx if that ended first.
func Load(ctx context.Context, path string, cfg Config) (*Result, error) {
	if os.Getenv(marker) != "" {
		return nil, errors.New("start a worker: this process is one: main must call worker.Serve before all else")
	}
	if cfg.CPU < 0 || cfg.Answer < 0 {
		return nil, fmt.Errorf("start a worker: CPU is %v and Answer %d: want none below 0", cfg.CPU, cfg.Answer)
	}
	program, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	req := request{
		Path: path, Root: cfg.Root, Settings: cfg.Settings, Limits: cfg.Limits, Pipeline: cfg.Pipeline,
		Memory: cmp.Or(cfg.Memory, 1<<30),
		CPU:    uint64((cmp.Or(cfg.CPU, time.Minute) + time.Second - 1) / time.Second),
	}
	text, err := json.Marshal(req)
	if err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	cmd := exec.CommandContext(ctx, program)
	cmd.Args = []string{program}
	cmd.Env = []string{marker + "=1", "GOTRACEBACK=none"}
	var stderr head
	cmd.Stderr = &stderr
	cmd.WaitDelay = 5 * time.Second
	stdin, err1 := cmd.StdinPipe()
	stdout, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2); err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a worker: %w", err)
	}
	// The worker reads the request whole before it writes, so this cannot
	// block for long; if it died, Wait says so.
	stdin.Write(text)
	out, readErr := read(stdout, cfg)
	stdin.Close()
	if readErr != nil {
		cmd.Process.Kill() // it may go on writing
	}
	waitErr := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("evaluate %s: %w", path, context.Cause(ctx))
	case out == nil:
		return nil, died(path, req, cmp.Or(cfg.Answer, defaultAnswer), waitErr, readErr, &stderr)
	case out.Faults != nil:
		return nil, &interp.Error{Diagnostics: out.Faults}
	case out.Error != "":
		return nil, errors.New(out.Error)
	}
	return out.Result, nil
}

// read reads messages up to the outcome; nil if there is none.
func read(r io.Reader, cfg Config) (*outcome, error) {
	limited := &io.LimitedReader{R: r}
	for d := json.NewDecoder(limited); ; {
		limited.N = cmp.Or(cfg.Answer, defaultAnswer)
		var m message
		if err := d.Decode(&m); err != nil && limited.N == 0 {
			return nil, errTooLarge
		} else if err != nil {
			return nil, err
		}
		if m.Print != nil && cfg.Print != nil {
			cfg.Print(m.Print.Pos, m.Print.Msg)
		}
		if m.Outcome != nil {
			return m.Outcome, nil
		}
	}
}

const defaultAnswer = 64 << 20

var errTooLarge = errors.New("its answer is too large")

// died returns the error of a worker that ended without an outcome.
func died(path string, req request, answer int64, waitErr, readErr error, stderr *head) error {
	fault := func(format string, args ...any) error {
		return &interp.Error{Diagnostics: []interp.Diagnostic{{
			Msg:  path + ": " + fmt.Sprintf(format, args...),
			Hint: "does a loop make more than you meant?",
		}}}
	}
	var exit *exec.ExitError
	ended := errors.Is(readErr, io.EOF) || errors.Is(readErr, io.ErrUnexpectedEOF)
	switch {
	case readErr == errTooLarge:
		return fault("what it makes or prints takes more than the %d bytes of JSON that it may", answer)
	case !ended || !errors.As(waitErr, &exit): // it was killed for what it wrote, or ended as if all were well
		return fmt.Errorf("evaluate %s: read from the worker: %w", path, readErr)
	}
	status, _ := exit.Sys().(syscall.WaitStatus)
	// The collector of Go does not always notice that it was refused memory,
	// and then fails on a null pointer: in the runtime itself, where such a
	// fault in other Go code would be a panic.
	refused := bytes.Contains(append([]byte("\n"), stderr.data...), []byte("\nSIGSEGV: ")) && !stderr.has("cgo")
	switch {
	case stderr.has("stack overflow"):
		return fault("its evaluation nested calls or values too deep, and was stopped")
	case stderr.has("out of memory"), stderr.has("cannot allocate memory"), refused:
		return fault("its evaluation took more than the %d MiB of memory that it may, and was stopped", req.Memory>>20)
	case status.Signaled() && status.Signal() == syscall.SIGKILL, status.Signaled() && status.Signal() == syscall.SIGXCPU:
		return fault("its evaluation took more than the %d s of CPU time that it may, or was killed", req.CPU)
	}
	return fmt.Errorf("evaluate %s: the worker: %w: %s", path, waitErr, bytes.TrimSpace(stderr.data))
}

// A head keeps the beginning of what is written to it: the first line of a
// fatal error of Go says what it is.
type head struct{ data []byte }

func (h *head) Write(p []byte) (int, error) {
	const most = 4096
	h.data = append(h.data, p[:min(len(p), most-len(h.data))]...)
	return len(p), nil
}

func (h *head) has(text string) bool { return bytes.Contains(h.data, []byte(text)) }
