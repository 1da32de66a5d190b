package interp

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/kfs-project/kfs/dag"
)

var update = flag.Bool("update", false, "rewrite the cases' expectations instead of comparing with them")

// TestCases evaluates in.star of each testdata/*.txtar. Section set holds
// settings, a name=value a line. What the script printed is compared with
// section stdout; the diagnostics with section stderr; the pipeline, if there
// is a section json, with that.
func TestCases(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata/*.txtar: %d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(a.Comment) == 0 {
				t.Errorf("%s: want a first line that says what it shows", file)
			}
			got := evaluate(a)
			if *update {
				var kept []txtar.File
				for _, f := range a.Files {
					if _, expected := got[f.Name]; !expected {
						kept = append(kept, f)
					}
				}
				for _, name := range []string{"stdout", "stderr", "json"} {
					if got[name] != "" {
						kept = append(kept, txtar.File{Name: name, Data: []byte(got[name])})
					}
				}
				a.Files = kept
				if err := os.WriteFile(file, txtar.Format(a), 0o666); err != nil {
					t.Fatal(err)
				}
				return
			}
			for name, text := range got {
				want := ""
				for _, f := range a.Files {
					if f.Name == name {
						want = string(f.Data)
					}
				}
				if diff := cmp.Diff(want, text); diff != "" {
					t.Errorf("%s, %s (-want +got):\n%s", file, name, diff)
				}
			}
		})
	}
}

// evaluate returns what in.star of the archive gives, by section.
func evaluate(a *txtar.Archive) map[string]string {
	fsys := fstest.MapFS{}
	settings := map[string]string{}
	got := map[string]string{"stdout": "", "stderr": ""}
	for _, f := range a.Files {
		switch f.Name {
		case "set":
			for line := range strings.Lines(string(f.Data)) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
				settings[name] = value
			}
		case "json":
			got["json"] = ""
		default:
			fsys[f.Name] = &fstest.MapFile{Data: f.Data}
		}
	}
	cfg := Config{
		Settings: settings,
		Print:    func(pos dag.Pos, msg string) { got["stdout"] += fmt.Sprintf("%s: %s\n", pos, msg) },
		Limits:   Limits{Steps: 1_000_000},
	}
	script, err := LoadFS(context.Background(), fsys, "in.star", cfg)
	var p *dag.Pipeline
	if err == nil || script != nil && len(script.Pipelines()) == 1 {
		p, err = script.Pipeline(context.Background(), "")
	}
	var e *Error
	switch {
	case errors.As(err, &e):
		for _, d := range e.Diagnostics {
			got["stderr"] += d.String() + "\n"
		}
	case err != nil:
		got["stderr"] = err.Error() + "\n"
	default:
		if _, ok := got["json"]; ok {
			text, err := p.JSON()
			if err != nil {
				panic(err)
			}
			got["json"] = string(text)
		}
	}
	return got
}

const minimal = `
def p(x = "1"):
    container_op("a", "i", arguments = [x])

pipeline(p)
`

func TestLimits(t *testing.T) {
	load := func(src string, l Limits) error {
		s, err := LoadFS(context.Background(), fstest.MapFS{"in.star": {Data: []byte(src)}}, "in.star", Config{Limits: l})
		if err == nil {
			_, err = s.Pipeline(context.Background(), "")
		}
		return err
	}
	for _, tt := range []struct {
		name, src string
		limits    Limits
		want      string
	}{
		{"steps", "x = [i for i in range(100000)]\n" + minimal, Limits{Steps: 1000},
			": the script ran for more than 1000 steps"},
		{"steps of a pipeline", "def p():\n    for i in range(100000):\n        pass\n\npipeline(p)\n", Limits{Steps: 1000},
			"in.star:2:5: the script ran for more than 1000 steps"},
		{"time", "x = [i for i in range(1 << 30)]\n" + minimal, Limits{Time: time.Millisecond, Steps: 1 << 60},
			"the script ran for more than 1ms and was stopped here"},
		{"source", minimal, Limits{SourceBytes: 10}, "larger than the limit of source bytes"},
		{"nodes", "def p():\n    for i in range(3):\n        container_op(\"a\", \"i\")\n\npipeline(p)\n", Limits{Nodes: 2},
			"in.star:3:9: the pipeline has more than 2 steps"},
		{"none", minimal, Limits{}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := load(tt.src, tt.limits)
			if got := fmt.Sprint(err); tt.want == "" && err != nil || !strings.Contains(got, tt.want) {
				t.Errorf("got %v; want %q", err, tt.want)
			}
		})
	}
}

func TestCancel(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(5*time.Millisecond, cancel)
	src := "x = [i for i in range(1 << 30)]\n"
	_, err := LoadFS(ctx, fstest.MapFS{"in.star": {Data: []byte(src)}}, "in.star", Config{Limits: Limits{Steps: 1 << 60}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v; want one that wraps context.Canceled", err)
	}
}

// TestRoot shows that a script reads nothing outside its root.
func TestRoot(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	link := func(target, name string) {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	write("secret.star", `secret = "s"`)
	write("root/lib/a.star", `load("b.star", "b")`+"\na = b\n")
	write("root/lib/b.star", "b = 1\n")
	write("root/sub/b.star", "b = 2\n")
	link("../secret.star", "root/up.star")
	link(filepath.Join(dir, "secret.star"), "root/abs.star")
	link(filepath.Join(dir, "root/lib/b.star"), "root/abs_inside.star")
	link("lib/b.star", "root/inside.star")

	for _, tt := range []struct {
		src  string
		want string // part of the error; "" is none
	}{
		{`load("lib/a.star", "a")`, ""},
		{`load("//lib/a.star", "a")`, ""},
		{`load("inside.star", "b")`, ""},
		{`load("lib/../lib/b.star", "b")`, ""},
		{`load("../secret.star", "secret")`, "is outside the root"},
		{`load("//../secret.star", "secret")`, "is outside the root"},
		{`load("lib/../../secret.star", "secret")`, "is outside the root"},
		{`load("up.star", "secret")`, "a link to a place outside the root"},
		{`load("abs.star", "secret")`, "a link to a place outside the root"},
		{`load("abs_inside.star", "b")`, "a link to a place outside the root"},
		{`load("` + filepath.ToSlash(dir) + `/secret.star", "secret")`, "is an absolute path"},
		{`load("lib", "b")`, "not a regular file"},
		{`load("none.star", "b")`, "no such file"},
		{`load("//none.star", "b")`, "no such file; // is the root, "},
		{`read_file("//none")`, "no such file; // is the root, "},
		{`load("", "b")`, "empty string"},
		{`load("@kubernetes", "b")`, "no module is named"},
		{`read_file("up.star")`, "a link to a place outside the root"},
		{`read_file("../secret.star")`, "is outside the root"},
		{`read_file("lib")`, "not a regular file"},
		{`read_file("lib/b.star")`, ""},
	} {
		write("root/in.star", tt.src+"\n")
		_, err := Load(context.Background(), filepath.Join(dir, "root/in.star"), Config{})
		if got := fmt.Sprint(err); tt.want == "" && err != nil || !strings.Contains(got, tt.want) {
			t.Errorf("%s: got %v; want %q", tt.src, err, tt.want)
		}
	}

	write("root/in.star", `load("../secret.star", "secret")`+"\n")
	_, err := Load(context.Background(), filepath.Join(dir, "root/in.star"), Config{Root: dir})
	if err != nil {
		t.Errorf("with the root above: %v", err)
	}
	if _, err := Load(context.Background(), filepath.Join(dir, "secret.star"), Config{Root: filepath.Join(dir, "root")}); err == nil {
		t.Error("a main file outside the root was loaded")
	}
	var pathErr *fs.PathError
	if _, err := Load(context.Background(), filepath.Join(dir, "root/none.star"), Config{}); err == nil || errors.As(err, &pathErr) {
		t.Errorf("no such file: got %v", err)
	}
}

// TestModuleOnce shows that a file is evaluated once, whatever path names it,
// and that two files of one name are two.
func TestModuleOnce(t *testing.T) {
	fsys := fstest.MapFS{
		"in.star": {Data: []byte(`
load("a/lib.star", a = "v")
load("//a/lib.star", a2 = "v")
load("a/../a/lib.star", a3 = "v")
load("b/lib.star", b = "v")
print(a, b)
`)},
		"a/lib.star": {Data: []byte("print(\"a is read\")\nv = \"a\"\n")},
		"b/lib.star": {Data: []byte("v = \"b\"\n")},
	}
	var printed []string
	s, err := LoadFS(context.Background(), fsys, "in.star", Config{Print: func(_ dag.Pos, msg string) { printed = append(printed, msg) }})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"a is read", "a b"}, printed); diff != "" {
		t.Errorf("printed (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"in.star", "a/lib.star", "b/lib.star"}, s.Files()); diff != "" {
		t.Errorf("Files (-want +got):\n%s", diff)
	}
}
