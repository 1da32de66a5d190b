package interp

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/dag"
)

// files is a file system of sources by name.
func files(sources map[string]string) fstest.MapFS {
	fsys := fstest.MapFS{}
	for name, src := range sources {
		fsys[name] = &fstest.MapFile{Data: []byte(src)}
	}
	return fsys
}

// TestHostWords shows what words and modules of a host can do.
func TestHostWords(t *testing.T) {
	teamOp := starlark.NewBuiltin("team_op", func(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		var name string
		var arguments starlark.Value
		if err := starlark.UnpackArgs(b.Name(), args, kwargs, "name", &name, "arguments", &arguments); err != nil {
			return nil, err
		}
		if name == "bad" {
			return nil, &dag.Error{Msg: "team_op: bad is a bad name", Hint: "take a good one"}
		}
		return Call(thread, "container_op", starlark.Tuple{starlark.String(name), starlark.String("team/image:v1")},
			[]starlark.Tuple{{starlark.String("arguments"), arguments}})
	})
	place := starlark.NewBuiltin("place", func(thread *starlark.Thread, _ *starlark.Builtin, _ starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
		return starlark.String(Position(thread).String()), nil
	})
	cfg := Config{
		Words:   starlark.StringDict{"team_op": teamOp, "place": place, "set_label": starlark.String("hides nothing")},
		Modules: map[string]starlark.StringDict{"team": {"op": teamOp, "zone": starlark.String("eu")}},
	}
	load := func(src string) (*dag.Pipeline, error) {
		s, err := LoadFS(context.Background(), files(map[string]string{"in.star": src}), "in.star", cfg)
		if err != nil {
			return nil, err
		}
		return s.Pipeline(context.Background(), "")
	}
	p, err := load(`load("@team", "zone", other = "op")

def p(x = "1"):
    team_op("a", arguments = ["--x", x, zone])
    other(
        "b",
        [place()],
    )

pipeline(p)
`)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range p.Steps {
		got = append(got, fmt.Sprint(s.Pos, " ", s.Name, " ", s.Image(), " ", dag.Display(strings.Join(s.Args(), " "))))
	}
	want := []string{
		"in.star:4:5 a team/image:v1 --x <x> eu",
		"in.star:5:5 b team/image:v1 in.star:7:10",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("steps differ (-want +got):\n%s", diff)
	}
	for _, tt := range []struct{ src, want string }{
		{"def p():\n    team_op(\"bad\", [])\n\npipeline(p)\n", "in.star:2:5: team_op: bad is a bad name\n    2 |     team_op(\"bad\", [])\n      |     ^^^^^^^\nhint: take a good one"},
		{"def p(x):\n    team_op(x, [])\n\npipeline(p)\n", "in.star:2:5: team_op: for parameter name: got param, want string"},
		{"teem_op()\n", `in.star:1:1: unknown word "teem_op": did you mean "team_op"?`},
		{"load(\"@teem\", \"op\")\n", `no module is named "@teem": did you mean "@team"?`},
		{"load(\"@team\", \"zoone\")\n", `did you mean "zone"?`},
		{"place()\n", "registers no pipeline"},
	} {
		_, err := load(tt.src)
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(e.Diagnostics[0].String(), tt.want) {
			t.Errorf("%s\ngot %v\nwant an *Error with %s", tt.src, err, tt.want)
		}
	}
}

// TestHostFaults shows that a host's own mistakes are told from a script's.
func TestHostFaults(t *testing.T) {
	fsys := files(map[string]string{"in.star": "x = 1\n"})
	for _, cfg := range []Config{
		{Words: starlark.StringDict{"a-b": starlark.None}},
		{Words: starlark.StringDict{"if": starlark.None}},
		{Words: starlark.StringDict{"==": starlark.None}},
		{Modules: map[string]starlark.StringDict{"kfp": {}}},
		{Modules: map[string]starlark.StringDict{"@team": {}}},
	} {
		var e *Error
		if _, err := LoadFS(context.Background(), fsys, "in.star", cfg); err == nil || errors.As(err, &e) {
			t.Errorf("%v: got %v; want an error that is no *Error", cfg, err)
		}
	}
	if _, err := Call(new(starlark.Thread), "container_op", nil, nil); err == nil {
		t.Error("Call outside a script is no error")
	}
}

// TestHostHides shows that a host's word hides one of the language, which
// @kfs gives back.
func TestHostHides(t *testing.T) {
	s, err := LoadFS(context.Background(), files(map[string]string{"in.star": `load("@kfs", op = "container_op")

def p():
    op(container_op, "i")

pipeline(p)
`}), "in.star", Config{Words: starlark.StringDict{"container_op": starlark.String("mine")}})
	if err != nil {
		t.Fatal(err)
	}
	if p, err := s.Pipeline(context.Background(), ""); err != nil || p.Steps[0].Name != "mine" {
		t.Errorf("got %+v, %v; want a step named mine", p, err)
	}
}

// TestSettings shows the settings of a file as a host sees them.
func TestSettings(t *testing.T) {
	s, err := LoadFS(context.Background(), files(map[string]string{"in.star": `
config("zone", default = "eu", choices = ["eu", "us"], doc = "where")
config("nodes", default = 3)
config("free")
`}), "in.star", Config{})
	if err != nil {
		t.Fatal(err)
	}
	want := []Setting{
		{Name: "zone", Type: "string", Default: "eu", Choices: []string{"eu", "us"}, Doc: "where", Pos: dag.Pos{File: "in.star", Line: 2, Col: 1}},
		{Name: "nodes", Type: "int", Default: "3", Pos: dag.Pos{File: "in.star", Line: 3, Col: 1}},
		{Name: "free", Type: "string", Pos: dag.Pos{File: "in.star", Line: 4, Col: 1}},
	}
	if diff := cmp.Diff(want, s.Settings()); diff != "" {
		t.Errorf("settings differ (-want +got):\n%s", diff)
	}
}

// TestConcurrent runs twenty evaluations at once, each cancelled at a random
// moment, beside some that are left alone: these are not touched, nothing is
// left running, and each error is that of its context or none.
func TestConcurrent(t *testing.T) {
	fsys := files(map[string]string{
		"lib.star": "def name(i):\n    return \"s%d\" % i\n",
		"in.star": `load("lib.star", "name")

n = config("n", default = 200)

def p(x = "1"):
    before = None
    for i in range(n):
        step = container_op(name(i), "i", arguments = [x, "%s-%d" % (x, i)])
        if before:
            step.after(before)
        before = step

pipeline(p)
`})
	word := starlark.NewList([]starlark.Value{starlark.String("shared")})
	word.Freeze()
	evaluate := func(ctx context.Context) ([]byte, error) {
		s, err := LoadFS(ctx, fsys, "in.star", Config{Words: starlark.StringDict{"shared": word}})
		if err != nil {
			return nil, err
		}
		p, err := s.Pipeline(ctx, "")
		if err != nil {
			return nil, err
		}
		return p.JSON()
	}
	start := time.Now()
	want, err := evaluate(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	alone := time.Since(start)
	before := runtime.NumGoroutine()
	errCause := errors.New("the host changed its mind")
	var wg sync.WaitGroup
	var cancelled, finished int
	var mu sync.Mutex
	for round := 0; round < 10 || round < 1000 && (cancelled == 0 || finished == 0); round++ {
		for i := range 20 {
			wg.Go(func() {
				ctx, cancel := context.WithCancelCause(context.Background())
				defer cancel(nil)
				if i%5 != 0 {
					stop := time.AfterFunc(time.Duration(rand.Int64N(int64(2*alone))), func() { cancel(errCause) })
					defer stop.Stop()
				}
				got, err := evaluate(ctx)
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					finished++
					if string(got) != string(want) {
						t.Error("an evaluation among others gives other bytes")
					}
				case i%5 != 0 && errors.Is(err, errCause):
					cancelled++
				default:
					t.Errorf("evaluation %d: %v", i, err)
				}
			})
		}
		wg.Wait()
	}
	if cancelled == 0 || finished == 0 {
		t.Errorf("%d evaluations were cancelled and %d finished: want some of both", cancelled, finished)
	}
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines are left, %d before", runtime.NumGoroutine(), before)
		}
	}
}
