// Package worker evaluates scripts in a process of their own, for hosts that
// are given scripts by strangers.
//
//	Serve    makes the host's program one that can be such a process
//	Load     starts one, evaluates a file in it, and returns its pipelines
//	Config   what interp.Config says, and what the process may use
//
// Package interp bounds what a script may use from within: that is enough
// against mistakes, and against all that is known of hostile scripts, but an
// interpreter that was driven into a fatal error of Go (no memory left, the end
// of the stack) takes its process with it. Here that process is a worker, whose
// memory, CPU time, open files and written bytes the kernel bounds, whose
// environment is empty, and which ends with its host. So this is the boundary
// for resources. It is none for rights: a worker runs as the user of its host.
//
// A worker starts in the time that the host's program takes to start, and
// serves one Load.
package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"runtime/debug"
	"time"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/interp"
)

// A Config says how a file is evaluated in a worker. The zero value works.
type Config struct {
	Root     string                        // as of interp.Config
	Settings map[string]string             // as of interp.Config
	Limits   interp.Limits                 // that the interpreter keeps
	Print    func(pos dag.Pos, msg string) // as of interp.Config

	// Pipeline is the pipeline that is wanted; "" wants all.
	Pipeline string

	// Memory and CPU are what the process may use at most, with all that the
	// host's program takes for itself: bytes of data (1 GiB if 0), and CPU time
	// rounded up to seconds (one minute if 0).
	Memory uint64
	CPU    time.Duration

	// Answer is how many bytes the pipelines may have as JSON, and each text
	// that the script prints (64 MiB if 0): to read them takes memory and time
	// of the host.
	Answer int64
}

// A Result is an evaluated file.
type Result struct {
	Pipelines []*dag.Pipeline  // in the order of the file
	Settings  []interp.Setting // that it asked for
	Files     []string         // paths under the root of all files that were read, the main file first
}

// marker is the variable by which Serve knows a worker.
const marker = "KFS_INTERP_WORKER"

// Serve serves the Load that started this process and then ends it, or returns
// at once if no Load did. A program that calls Load calls Serve first of all in
// its main. From the config come what the host adds to the language: words,
// modules, and Fetch.
func Serve(host interp.Config) {
	if os.Getenv(marker) == "" {
		return
	}
	os.Unsetenv(marker)
	out := os.Stdout
	os.Stdout = os.Stderr // what functions of the host print is no answer
	if err := serve(host, os.Stdin, out); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// A request is what a worker reads, once.
type request struct {
	Path     string
	Root     string
	Settings map[string]string
	Limits   interp.Limits
	Pipeline string
	Memory   uint64 // bytes
	CPU      uint64 // seconds
}

// A message is one of those that a worker writes: what the script printed, and
// as the last one the outcome.
type message struct {
	Print   *printed `json:",omitempty"`
	Outcome *outcome `json:",omitempty"`
}

type printed struct {
	Pos dag.Pos
	Msg string
}

// An outcome is a result, faults of the script, or another error.
type outcome struct {
	Result *Result             `json:",omitempty"`
	Faults []interp.Diagnostic `json:",omitempty"`
	Error  string              `json:",omitempty"`
}

// serve reads a request and answers it.
func serve(host interp.Config, in io.Reader, out io.Writer) error {
	decoder := json.NewDecoder(in)
	var req request
	if err := decoder.Decode(&req); err != nil {
		return fmt.Errorf("worker: read the request: %w", err)
	}
	if err := confine(req.Memory, req.CPU); err != nil {
		return fmt.Errorf("worker: %w", err)
	}
	debug.SetMemoryLimit(int64(min(req.Memory/8*7, math.MaxInt64))) // from here on, rather collect than ask for more
	debug.SetMaxStack(int(min(req.Memory/4, 1<<30)))
	go func() { // in stays open for as long as the host wants the answer
		io.Copy(io.Discard, in)
		os.Exit(1)
	}()
	encoder := json.NewEncoder(out)
	host.Root, host.Settings, host.Limits = req.Root, req.Settings, req.Limits
	host.Print = func(pos dag.Pos, msg string) { encoder.Encode(message{Print: &printed{pos, msg}}) }
	var o outcome
	result, err := evaluate(host, req.Path, req.Pipeline)
	var faults *interp.Error
	switch {
	case err == nil:
		o.Result = result
	case errors.As(err, &faults):
		o.Faults = faults.Diagnostics
	default:
		o.Error = err.Error()
	}
	return encoder.Encode(message{Outcome: &o})
}

// evaluate returns the pipelines of a file: all, or the named one.
func evaluate(cfg interp.Config, path, pipeline string) (*Result, error) {
	ctx := context.Background() // the host kills the process
	script, err := interp.Load(ctx, path, cfg)
	if script == nil {
		return nil, err
	}
	pipelines, err := script.Every(ctx, pipeline, nil)
	if err != nil {
		return nil, err
	}
	return &Result{Pipelines: pipelines, Settings: script.Settings(), Files: script.Files()}, nil
}
