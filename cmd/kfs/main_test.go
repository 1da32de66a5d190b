package main

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"kfs": main})
}

// TestScripts runs testdata/script/*.txtar: the flags, streams, files and exit
// status of every subcommand.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("XDG_DATA_HOME", filepath.Join(env.WorkDir, "data"))
			root, err := filepath.Abs("../..")
			env.Setenv("PROJECT", root)
			return err
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"serve":   cmdServe,
			"status":  cmdStatus,
			"waitfor": cmdWaitFor,
		},
	})
}

// cmdStatus: status N PROGRAM ARGS... runs a program and wants exit status N.
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status N program args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d; want %d", got, want)
	}
}

// cmdWaitFor: waitfor FILE waits until a file exists.
func cmdWaitFor(ts *testscript.TestScript, neg bool, args []string) {
	file := ts.MkAbs(args[0])
	for range 1000 {
		if _, err := os.Stat(file); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("%s does not exist after 10 s", file)
}

// TestInterrupt presses Ctrl-C during a step: its whole process group ends,
// kfs says so and exits with 6.
func TestInterrupt(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("in.star", `
def p():
    a = container_op("long", "i", arguments = ["sleep 300 & echo $! > child; echo begun; sleep 300"])
    container_op("next", "i", arguments = ["true"]).after(a)

pipeline(p)
`)
	write("images.yaml", "images: {i: {exec: [sh, -c], dir: .}}\n")

	cmd := exec.Command(kfsBinary(t), "run", "in.star", "--images", "images.yaml", "--state", "state")
	cmd.Dir = dir
	var stderr, stdout strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	child := 0
	for deadline := time.Now().Add(20 * time.Second); child == 0; {
		text, _ := os.ReadFile(filepath.Join(dir, "child"))
		child, _ = strconv.Atoi(strings.TrimSpace(string(text)))
		if time.Now().After(deadline) {
			cmd.Process.Kill()
			t.Fatalf("the step did not begin:\n%s", stderr.String())
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	err := cmd.Wait()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitCancelled {
		t.Errorf("kfs ended with %v; want exit status %d", err, exitCancelled)
	}
	if alive(child) {
		t.Errorf("the step's child %d still runs", child)
	}
	for _, want := range []string{"asking the running steps to end", "long cancelled", "next cancelled"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("stderr lacks %q:\n%s", want, stderr.String())
		}
	}
	if want := "cancelled in "; !strings.Contains(stdout.String(), want) {
		t.Errorf("stdout lacks %q:\n%s", want, stdout.String())
	}
}

// alive reports whether a process exists and is no zombie.
func alive(pid int) bool {
	out, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && !strings.HasPrefix(strings.TrimSpace(string(out)), "Z")
}

// kfsBinary builds kfs and returns its path.
func kfsBinary(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "kfs")
	if out, err := exec.Command("go", "build", "-o", file, ".").CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return file
}
