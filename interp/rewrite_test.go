package interp

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"go.starlark.net/lib/json"
	"go.starlark.net/lib/math"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/starlarktest"
	"go.starlark.net/syntax"

	"github.com/kfs-project/kfs/builtins"
)

// TestRewriteConforms runs the tests that go.starlark.net has of itself, as
// they are and rewritten: no outcome may differ.
func TestRewriteConforms(t *testing.T) {
	dir, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "go.starlark.net").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	files, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "starlark/testdata/*.star"))
	if len(files) < 10 {
		t.Fatalf("%d files of tests in %s", len(files), dir)
	}
	chunks := 0
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i, chunk := range strings.Split("\n"+string(text), "\n---\n") {
			name := fmt.Sprintf("%s, chunk %d", filepath.Base(file), i)
			stock, rewritten := outcome(chunk, false), outcome(chunk, true)
			if stock != rewritten {
				t.Errorf("%s:\nas it is:  %s\nrewritten: %s", name, stock, rewritten)
			}
			if stock == "" {
				chunks++
			}
		}
	}
	if chunks < 20 {
		t.Errorf("%d chunks ran to their end; want at least 20, else nothing was shown", chunks)
	}
}

// places are what the rewrite moves.
var places = regexp.MustCompile(`[a-z./]*\.star:\d+(:\d+)?|0x[0-9a-f]+`)

// outcome runs a file and returns its failed assertions and its error, without
// places.
func outcome(src string, rewritten bool) string {
	r := &collector{}
	thread := &starlark.Thread{Load: func(*starlark.Thread, string) (starlark.StringDict, error) {
		return starlarktest.LoadAssertModule()
	}}
	starlarktest.SetReporter(thread, r)
	thread.SetMaxExecutionSteps(10_000_000)
	env := starlark.StringDict{}
	if rewritten {
		for name, v := range builtins.New(thread, builtins.Config{}).Predeclared() {
			env[name] = v
		}
	}
	// What these tests need of their host, whether rewritten or not.
	env["json"], env["math"] = json.Module, math.Module
	env["struct"] = starlark.NewBuiltin("struct", starlarkstruct.Make)
	delete(env, "time")

	opts := &syntax.FileOptions{
		Set:             true,
		TopLevelControl: true,
		GlobalReassign:  strings.Contains(src, "option:globalreassign"),
		Recursion:       strings.Contains(src, "option:recursion"),
		While:           strings.Contains(src, "option:while"),
	}
	f, err := opts.Parse("test.star", src, 0)
	if err == nil {
		if rewritten {
			rewrite(f)
		}
		var prog *starlark.Program
		if prog, err = starlark.FileProgram(f, env.Has); err == nil {
			_, err = prog.Init(thread, env)
		}
	}
	if err != nil {
		r.Error(err)
	}
	return places.ReplaceAllString(strings.Join(r.errors, "\n"), "PLACE")
}

type collector struct{ errors []string }

func (c *collector) Error(args ...any) { c.errors = append(c.errors, fmt.Sprint(args...)) }
