package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/interp"
)

// host adds words by which a script can break its worker, as no word of the
// language lets it.
var host = interp.Config{Words: starlark.StringDict{
	"noise":       word("noise", func() { fmt.Println("hello") }),
	"garbage":     word("garbage", func() { syscall.Write(1, []byte("hello\n")) }),
	"overflow":    word("overflow", func() { overflow(1) }),
	"crash":       word("crash", func() { os.Exit(3) }),
	"write":       word("write", func() { fmt.Fprintln(os.Stderr, os.WriteFile("written", []byte("x"), 0o666)); os.Exit(3) }),
	"environment": word("environment", func() { fmt.Fprintln(os.Stderr, os.Environ()); os.Exit(3) }),
}}

func word(name string, do func()) *starlark.Builtin {
	return starlark.NewBuiltin(name, func(*starlark.Thread, *starlark.Builtin, starlark.Tuple, []starlark.Tuple) (starlark.Value, error) {
		do()
		return starlark.None, nil
	})
}

func overflow(n int) int { return 1 + overflow(n+1) }

func TestMain(m *testing.M) {
	Serve(host)
	os.Exit(m.Run())
}

func write(t *testing.T, src string) string {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("a worker needs Linux")
	}
	file := filepath.Join(t.TempDir(), "in.star")
	if err := os.WriteFile(file, []byte(src), 0o666); err != nil {
		t.Fatal(err)
	}
	return file
}

const twoPipelines = `
zone = config("zone", default = "eu")
print("zone", zone)

def a(x = "1"):
    container_op("one", "i", arguments = [x, zone])

def b():
    container_op("two", "i")

pipeline(a)
pipeline(b)
`

// TestLoad compares what a worker returns with what the interpreter does.
func TestLoad(t *testing.T) {
	file := write(t, twoPipelines)
	ctx := context.Background()
	var said []string
	settings := map[string]string{"zone": "us"}
	got, err := Load(ctx, file, Config{Settings: settings, Print: func(pos dag.Pos, msg string) {
		said = append(said, pos.String()+" "+msg)
	}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := interp.Load(ctx, file, interp.Config{Settings: settings})
	if err != nil {
		t.Fatal(err)
	}
	var want Result
	if want.Pipelines, err = s.Every(ctx, "", nil); err != nil {
		t.Fatal(err)
	}
	want.Settings, want.Files = s.Settings(), s.Files()
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("results differ (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"in.star:3:1 zone us"}, said); diff != "" {
		t.Errorf("what it printed differs (-want +got):\n%s", diff)
	}
	// What functions of the host print is not taken for an answer.
	if r, err := Load(ctx, write(t, "noise()\n"+twoPipelines), Config{}); err != nil || len(r.Pipelines) != 2 {
		t.Errorf("with a word that prints: %+v, %v", r, err)
	}
	one, err := Load(ctx, file, Config{Pipeline: "B"})
	if err != nil || len(one.Pipelines) != 1 || one.Pipelines[0].Name != "B" {
		t.Errorf("Pipeline B: %+v, %v", one, err)
	}
}

// TestFaults shows that the faults of a script, in all of its pipelines, come
// as they do without a worker.
func TestFaults(t *testing.T) {
	for _, tt := range []struct {
		name, src, want string
		cfg             Config
	}{
		{name: "two faults", src: "def a():\n    container_op(\"a\")\n\ndef b():\n    container_op(\"b\")\n\npipeline(a)\npipeline(b)\n",
			want: "in.star:2:5: container_op: missing argument for image\nin.star:5:5: container_op: missing argument for image"},
		{name: "a large answer", src: "def a():\n    for i in range(1000):\n        container_op(\"a\", \"i\")\n\npipeline(a)\n", cfg: Config{Answer: 10_000},
			want: "what it makes or prints takes more than the 10000 bytes of JSON that it may"},
		{name: "a long text", src: "print(\"a\" * 20000)\n", cfg: Config{Answer: 10_000},
			want: "what it makes or prints takes more than the 10000 bytes of JSON that it may"},
		{name: "no pipeline", src: "x = 1\n", want: "registers no pipeline"},
		{name: "which pipeline", src: twoPipelines, cfg: Config{Pipeline: "C"}, want: `registers no pipeline "C"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var e *interp.Error
			if _, err := Load(context.Background(), write(t, tt.src), tt.cfg); !errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v; want an *interp.Error with %q", err, tt.want)
			}
		})
	}
}

// TestOtherErrors shows what is no fault of a script.
func TestOtherErrors(t *testing.T) {
	ctx := context.Background()
	for _, tt := range []struct{ name, path, want string }{
		{"no file", filepath.Join(t.TempDir(), "none.star"), "no such file"},
		{"a crash", write(t, "crash()\n"), "exit status 3"},
		{"an odd answer", write(t, "garbage()\n"), "read from the worker: invalid character 'h'"},
		{"a written file", write(t, "write()\n"), "file too large"},
		{"the environment", write(t, "environment()\n"), "[GOTRACEBACK=none]"},
	} {
		var e *interp.Error
		if _, err := Load(ctx, tt.path, Config{}); err == nil || errors.As(err, &e) || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v; want an error with %q that is no *interp.Error", tt.name, err, tt.want)
		}
	}
	os.Remove("written")
	if _, err := Load(ctx, "in.star", Config{CPU: -time.Second}); err == nil || !strings.Contains(err.Error(), "CPU is -1s") {
		t.Errorf("less than no CPU time: got %v", err)
	}
	cause := errors.New("not needed any more")
	ctx, cancel := context.WithCancelCause(ctx)
	time.AfterFunc(50*time.Millisecond, func() { cancel(cause) })
	if _, err := Load(ctx, write(t, "for i in range(1 << 60):\n    pass\n"), Config{}); !errors.Is(err, cause) {
		t.Errorf("cancelled: got %v; want %v", err, cause)
	}
	t.Setenv(marker, "1")
	if _, err := Load(context.Background(), write(t, "x = 1\n"), Config{}); err == nil || !strings.Contains(err.Error(), "worker.Serve") {
		t.Errorf("Load in a worker: got %v; want an error that names Serve", err)
	}
}

// TestMany runs workers side by side; one that dies does not touch the others.
func TestMany(t *testing.T) {
	good, bad := write(t, twoPipelines), write(t, "crash()\n")
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			file := good
			if i%4 == 0 {
				file = bad
			}
			if r, err := Load(context.Background(), file, Config{}); (err != nil) != (file == bad) {
				t.Errorf("%s: %+v, %v", file, r, err)
			}
		})
	}
	wg.Wait()
}
