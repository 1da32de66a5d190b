package parts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"
)

// This file runs the go command and follows what it does.

// Progress says how far the build of the parts is.
type Progress struct {
	Built int           // packages compiled so far; those in Go's cache need not be
	Total int           // packages that the parts are made of; 0 while they are fetched
	Done  bool          // the programs are there
	Took  time.Duration // since the build began
}

// compile leaves the programs of the parts in bin, from the module in src.
func compile(ctx context.Context, src, bin string, all []Part, report func(Progress)) error {
	started := time.Now()
	now := Progress{}
	report(now)
	deps, err := command(ctx, src, "list", append([]string{"-deps", "-tags=" + tags}, packages(all)...)...).Output()
	if err != nil {
		return withOutput(err, nil)
	}
	known := map[string]bool{}
	for _, pkg := range strings.Fields(string(deps)) {
		known[pkg] = true
	}
	now.Total = len(known)
	report(now)

	args := slices.Concat([]string{"-v", "-o", bin + string(filepath.Separator)}, flags(all), packages(all))
	build := command(ctx, src, "build", args...)
	compiled, pipe, err := os.Pipe()
	if err != nil {
		return err
	}
	defer compiled.Close()
	build.Stdout, build.Stderr = pipe, pipe
	err = build.Start()
	pipe.Close()
	if err != nil {
		return err
	}
	var said []string // what is no package: the compiler's messages
	for lines := bufio.NewScanner(compiled); lines.Scan(); {
		if !known[lines.Text()] {
			said = append(said, lines.Text())
			continue
		}
		now.Built++
		now.Took = time.Since(started)
		report(now)
	}
	io.Copy(io.Discard, compiled) // after a line too long for the scanner
	if err := build.Wait(); err != nil {
		return withOutput(err, said)
	}
	if err := rename(bin, all); err != nil {
		return err
	}
	now.Done, now.Took = true, time.Since(started)
	report(now)
	return nil
}

// rename gives the programs in bin, which go build named after their packages,
// their own names.
func rename(bin string, all []Part) error {
	for _, p := range all {
		for name, pkg := range p.Programs {
			if err := os.Rename(filepath.Join(bin, built(pkg)), filepath.Join(bin, name)); err != nil {
				return err
			}
		}
	}
	return nil
}

// built is the name that go build gives the program of a package: the last
// element of its path that is no major version.
func built(pkg string) string {
	name := path.Base(pkg)
	if regexp.MustCompile(`^v[0-9]+$`).MatchString(name) {
		name = path.Base(path.Dir(pkg))
	}
	return name
}

// command is the go command, in the module that is built, for static programs
// of this machine's kind. Of the caller's Go settings, those about what is built
// do not count. An interrupt lets it remove what it was at.
func command(ctx context.Context, src, verb string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", append([]string{verb}, args...)...)
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOEXPERIMENT=",
		"GOOS="+runtime.GOOS, "GOARCH="+runtime.GOARCH, "GOAMD64=")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// withOutput adds to err the end of what the command said.
func withOutput(err error, said []string) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		said = strings.Split(strings.TrimSpace(string(exit.Stderr)), "\n")
	}
	if len(said) == 0 {
		return err
	}
	return fmt.Errorf("%w:\n%s", err, strings.Join(said[max(0, len(said)-20):], "\n"))
}
