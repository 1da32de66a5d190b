//go:build !race && linux

// The race detector makes these too slow and too large; make test runs them
// without it.

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"syscall"
	"testing"
	"time"

	"github.com/kfs-project/kfs/internal/hostile"
)

// TestHostile shows that the commands end hostile scripts as any other script
// with a fault: status 2 and a message that names the place, soon and with
// little memory. The commands take turns, so that each meets every kind.
func TestHostile(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "in.star")
	commands := [][]string{
		{"check", file},
		{"compile", file, "-o", filepath.Join(dir, "out.yaml")},
		{"run", file},
	}
	place := regexp.MustCompile(`in\.star:\d+:\d+: `)
	crash := regexp.MustCompile(`(?m)^(panic|fatal error|runtime): |^goroutine \d+ `)
	for i, script := range hostile.Scripts() {
		args := commands[i%len(commands)]
		t.Run(args[0]+" "+script.Name, func(t *testing.T) {
			if err := os.WriteFile(file, []byte(script.Source), 0o644); err != nil {
				t.Fatal(err)
			}
			var said bytes.Buffer
			// testscript.Main makes the test binary the command of this name.
			cmd := &exec.Cmd{Path: exe, Args: append([]string{"kfs"}, args...), Dir: dir, Stdout: &said, Stderr: &said}
			cmd.Env = append(os.Environ(), "XDG_DATA_HOME="+filepath.Join(dir, "data"))
			start := time.Now()
			err := cmd.Run()
			took := time.Since(start)
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.ExitCode() != 2 || !place.Match(said.Bytes()) || crash.Match(said.Bytes()) {
				t.Fatalf("got %v; want exit status 2 and a message with its place\n%.2000s", err, said.Bytes())
			}
			if took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
			if kib := exit.SysUsage().(*syscall.Rusage).Maxrss; kib > 1<<20 {
				t.Errorf("%d MiB of memory were used", kib>>10)
			}
			if said.Len() > 1<<20 {
				t.Errorf("the message is %d bytes long", said.Len())
			}
		})
	}
}
