package parts

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// This file runs the go command and follows what it does.

// Progress says how far the build of a part is.
type Progress struct {
	Part  string
	Built int           // packages compiled so far
	Total int           // packages that the part is made of; those in Go's cache are never compiled
	Done  bool          // its programs are there
	Took  time.Duration // since the part's build began
}

// compile leaves the part's programs in bin, from the module in src.
func (p Part) compile(ctx context.Context, src, bin string, report func(Progress)) error {
	started := time.Now()
	names := slices.Sorted(maps.Keys(p.Programs))
	var packages []string
	for _, name := range names {
		packages = append(packages, p.Programs[name])
	}
	deps, err := p.command(ctx, src, "list", append([]string{"-deps", "-tags=" + p.Tags}, packages...)...).Output()
	if err != nil {
		return withOutput(err, nil)
	}
	now := Progress{Part: p.Name, Total: strings.Count(string(deps), "\n")}
	report(now)

	out := bin + string(filepath.Separator) // programs named after their packages
	if len(names) == 1 {
		out = filepath.Join(bin, names[0])
	}
	build := p.command(ctx, src, "build", slices.Concat([]string{"-v", "-o", out}, p.flags(), packages)...)
	compiled, pipe, err := os.Pipe()
	if err != nil {
		return err
	}
	defer compiled.Close()
	build.Stdout, build.Stderr = pipe, pipe
	if err := build.Start(); err != nil {
		pipe.Close()
		return err
	}
	pipe.Close()
	known := map[string]bool{}
	for _, pkg := range strings.Fields(string(deps)) {
		known[pkg] = true
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
	for _, name := range names {
		if !exists(filepath.Join(bin, name)) {
			return fmt.Errorf("go build left no %s of package %s", name, p.Programs[name])
		}
	}
	now.Done, now.Took = true, time.Since(started)
	report(now)
	return nil
}

// command is the go command, in the part's module. The programs are static,
// and nothing of the caller's Go settings but where its caches and proxies are
// reaches them.
func (p Part) command(ctx context.Context, src, verb string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", append([]string{verb}, args...)...)
	cmd.Dir = src
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off", "GOOS=linux")
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
