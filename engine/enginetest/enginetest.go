// Package enginetest is the test suite that every engine.Executor passes.
package enginetest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
)

// Image is the image of all steps of the suite. It must have a sh, and the
// common programs of a POSIX system (cat, sleep, head, tr, mkfifo, ln).
const Image = "busybox:1.36"

// limit is how long one case may take.
const limit = 5 * time.Minute

// A Maker makes an executor for one run of a pipeline. It can run Image, and
// gives an attempt that it is asked to stop a second or so before it uses
// force. If it is an engine.Store too, it keeps the facts of the run.
type Maker func(t *testing.T, run engine.RunInfo, p *dag.Pipeline) engine.Executor

// Run tests executors. MaxOutput is the size in bytes that an output may have.
func Run(t *testing.T, newExecutor Maker, maxOutput int) {
	for _, tt := range []struct {
		name string
		test func(t *testing.T, newExecutor Maker)
	}{
		{"ExitCodes", testExitCodes},
		{"Outputs", testOutputs},
		{"BadOutputs", func(t *testing.T, newExecutor Maker) { testBadOutputs(t, newExecutor, maxOutput) }},
		{"Files", func(t *testing.T, newExecutor Maker) { testFiles(t, newExecutor, maxOutput) }},
		{"LargeOutput", func(t *testing.T, newExecutor Maker) { testLargeOutput(t, newExecutor, maxOutput) }},
		{"Texts", testTexts},
		{"ValuesAreData", testValuesAreData},
		{"NoProgram", testNoProgram},
		{"Retry", testRetry},
		{"Timeout", testTimeout},
		{"TimeoutForced", testTimeoutForced},
		{"Stop", testStop},
		{"StopForce", testStopForce},
		{"StartTwice", testStartTwice},
		{"StopUnknown", testStopUnknown},
		{"Log", testLog},
		{"Many", testMany},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.test(t, newExecutor) })
	}
}

// sh returns a step that runs a shell script.
func sh(name, script string, outputs ...string) *dag.Step {
	s := &dag.Step{Name: name}
	s.Container.Set(Image, "image")
	s.Container.Set([]any{"sh", "-c", script, "sh"}, "command")
	for _, path := range outputs {
		s.Outputs = append(s.Outputs, dag.Output{Name: path[strings.LastIndexByte(path, '/')+1:], Path: path})
	}
	return s
}

// args adds arguments, which the script sees as $1 and so on.
func args(s *dag.Step, texts ...string) *dag.Step {
	for _, text := range texts {
		s.Container.Append("args", text)
	}
	return s
}

// env adds a variable.
func env(s *dag.Step, name, value string) *dag.Step {
	s.Container.Append("env", dag.Object{{Name: "name", Value: name}, {Name: "value", Value: value}})
	return s
}

func output(step, name string) string {
	return dag.Ref{Kind: dag.RefOutput, Step: step, Name: name}.Token()
}

func param(name string) string { return dag.Ref{Kind: dag.RefParam, Name: name}.Token() }

// A watcher keeps what a run told.
type watcher struct {
	mu     sync.Mutex
	events []engine.Event
	on     func(engine.Event) // called for each
}

func (w *watcher) event(ev engine.Event) {
	w.mu.Lock()
	w.events = append(w.events, ev)
	on := w.on
	w.mu.Unlock()
	if on != nil {
		on(ev)
	}
}

// lines returns what the step wrote.
func (w *watcher) lines(step string) []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var lines []string
	for _, ev := range w.events {
		if ev.Kind == engine.EventLog && ev.Step == step {
			lines = append(lines, ev.Line)
		}
	}
	return lines
}

func pipeline(steps ...*dag.Step) *dag.Pipeline { return &dag.Pipeline{Name: "suite", Steps: steps} }

var runs struct {
	sync.Mutex
	n int
}

func newRun(args map[string]string) engine.RunInfo {
	runs.Lock()
	defer runs.Unlock()
	runs.n++
	id := fmt.Sprintf("suite-%x-%d", time.Now().UnixNano(), runs.n)
	return engine.RunInfo{ID: id, Name: id, Args: args}
}

// run carries a pipeline out and returns the records of its steps.
func run(t *testing.T, newExecutor Maker, p *dag.Pipeline, args map[string]string, cfg engine.Config) map[string]engine.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	r := newRun(args)
	executor := newExecutor(t, r, p)
	if s, ok := executor.(engine.Store); ok {
		cfg.Store = s
	}
	result, err := engine.Run(ctx, executor, p, r, cfg)
	if err != nil {
		t.Fatalf("run: %v", err)
	}
	records := map[string]engine.Record{}
	for _, r := range result.Steps {
		records[r.Step] = r
	}
	return records
}

// last returns how the step's last attempt ended.
func last(t *testing.T, r engine.Record) engine.Outcome {
	t.Helper()
	if len(r.Attempts) == 0 {
		t.Fatalf("step %q (%s, %s) has no attempt", r.Step, r.State, r.Reason)
	}
	return r.Attempts[len(r.Attempts)-1]
}

func testExitCodes(t *testing.T, newExecutor Maker) {
	p := pipeline(
		sh("ok", "exit 0"),
		sh("three", "exit 3"),
		sh("killed", "sh -c 'kill -9 $$$$'; exit $?"), // a container's first process cannot kill itself
		sh("none", "/no/such/command"),
	)
	got := run(t, newExecutor, p, nil, engine.Config{})
	for _, tt := range []struct {
		step   string
		state  engine.State
		code   int
		reason string
	}{
		{"ok", engine.Succeeded, 0, ""},
		{"three", engine.Failed, 3, "exited with 3"},
		{"killed", engine.Failed, 137, "137"},
		{"none", engine.Failed, 127, "127"},
	} {
		r := got[tt.step]
		o := last(t, r)
		if r.State != tt.state || o.Cause != engine.Exited || o.ExitCode != tt.code || !strings.Contains(o.Reason, tt.reason) {
			t.Errorf("step %q: %s, %+v; want %s, exited, code %d, reason with %q", tt.step, r.State, o, tt.state, tt.code, tt.reason)
		}
		if o.Started.IsZero() || o.Finished.Before(o.Started) {
			t.Errorf("step %q: started %v, finished %v", tt.step, o.Started, o.Finished)
		}
	}
}

func testOutputs(t *testing.T, newExecutor Maker) {
	write := sh("write", `mkdir -p /tmp/kfs-suite/sub
printf 'one\n' > /tmp/kfs-suite/a
printf 'two\n\n' > /tmp/kfs-suite/sub/b
printf '' > "$EMPTY"
printf '%s' 'grüße, 世界' > /tmp/kfs-suite/word.txt`,
		"/tmp/kfs-suite/a", "/tmp/kfs-suite/sub/b", "/tmp/kfs-suite/empty", "/tmp/kfs-suite/word.txt")
	env(write, "EMPTY", "/tmp/kfs-suite/empty")
	read := args(sh("read", `printf '%s\n' "$@"; printf '[%s]' "$@" > /tmp/kfs-suite/a`, "/tmp/kfs-suite/a"),
		output("write", "a"), output("write", "b"), output("write", "empty"), "-"+output("write", "word.txt")+"-")
	got := run(t, newExecutor, pipeline(write, read), nil, engine.Config{})
	want := map[string]string{"a": "one", "b": "two\n", "empty": "", "word.txt": "grüße, 世界"}
	if !maps.Equal(got["write"].Outputs, want) {
		t.Errorf("outputs %q (%s); want %q", got["write"].Outputs, got["write"].Reason, want)
	}
	if a, want := got["read"].Outputs["a"], "[one][two\n][][-grüße, 世界-]"; a != want {
		t.Errorf("step read saw %q (%s); want %q", a, got["read"].Reason, want)
	}
}

func testBadOutputs(t *testing.T, newExecutor Maker, maxOutput int) {
	const path = "/tmp/kfs-suite/out"
	cases := []struct{ name, script, want string }{
		{"missing", "true", "was not written"},
		{"oversize", fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x > %s", maxOutput+1, path), "larger than"},
		{"not-utf8", `printf 'a\377b' > ` + path, "not text"},
		{"zero-byte", `printf 'a\000b' > ` + path, "not text"},
		{"folder", "mkdir " + path, "a folder"},
		{"link", "ln -s /etc/passwd " + path, "a symbolic link"},
		{"pipe", "mkfifo " + path, "a named pipe"},
	}
	p := pipeline()
	for _, tt := range cases {
		s := sh(tt.name, "mkdir -p /tmp/kfs-suite; "+tt.script, path)
		need := args(sh("need-"+tt.name, "true"), output(s.Name, "out"))
		p.Steps = append(p.Steps, s, need)
	}
	got := run(t, newExecutor, p, nil, engine.Config{})
	for _, tt := range cases {
		r := got[tt.name]
		if o := last(t, r); r.State != engine.Failed || o.Cause != engine.BadOutput ||
			!strings.Contains(o.Reason, tt.want) || !strings.Contains(o.Reason, `"out"`) {
			t.Errorf("%s: %s, %s, %q; want failed, bad output, a reason with \"out\" and %q", tt.name, r.State, o.Cause, o.Reason, tt.want)
		}
		if n := got["need-"+tt.name]; n.State != engine.Skipped || !strings.Contains(n.Reason, tt.name) {
			t.Errorf("%s: the step that needs it: %s, %q; want skipped and why", tt.name, n.State, n.Reason)
		}
	}
}

// testFiles shows that an output which is only passed on as a file may be
// anything that a file or folder can be, and arrives byte for byte; a program
// can be run.
func testFiles(t *testing.T, newExecutor Maker, maxOutput int) {
	write := sh("write", fmt.Sprintf(`mkdir -p /tmp/kfs-suite/dir/sub
printf 'a\000b\377\n' > /tmp/kfs-suite/binary
head -c %d /dev/zero > /tmp/kfs-suite/large
printf 'line\n' > /tmp/kfs-suite/text
printf deep > /tmp/kfs-suite/dir/sub/file
printf '#!/bin/sh\nprintf ran' > /tmp/kfs-suite/program
chmod +x /tmp/kfs-suite/program`, 3*maxOutput),
		"/tmp/kfs-suite/binary", "/tmp/kfs-suite/large", "/tmp/kfs-suite/text", "/tmp/kfs-suite/dir", "/tmp/kfs-suite/program")
	read := sh("read", `printf '%s %s %s %s %s %s' "$(od -An -c "$1" | tr -d ' ')" $(($(wc -c < "$2"))) $(($(wc -c < "$3"))) "$(cat "$4/sub/file")" "$("$5")" "$(cat "$6")" > "$7"
printf changed > "$1"`, "/tmp/kfs-suite/out")
	take := func(s *dag.Step, name, text string) {
		path := "/tmp/kfs-in/" + name
		s.Artifacts = append(s.Artifacts, dag.Artifact{Name: name, Path: path, Text: text})
		args(s, path)
	}
	for _, name := range []string{"binary", "large", "text", "dir", "program"} {
		take(read, name, output("write", name))
	}
	take(read, "both", "<"+output("word", "word")+">")
	args(read, "/tmp/kfs-suite/out")
	word := sh("word", "mkdir -p /tmp/kfs-suite; printf w > /tmp/kfs-suite/word", "/tmp/kfs-suite/word")
	again := sh("again", `od -An -c "$1" | tr -d ' ' > "$2"`, "/tmp/kfs-suite/out")
	take(again, "binary", output("write", "binary"))
	args(again, "/tmp/kfs-suite/out")
	again.After = []dag.Edge{{Step: "read"}}
	got := run(t, newExecutor, pipeline(write, word, read, again), nil, engine.Config{})
	if r, want := got["read"], fmt.Sprintf(`a\0b377\n %d 5 deep ran <w>`, 3*maxOutput); r.Outputs["out"] != want {
		t.Errorf("step read saw %q (%s, %s); want %q", r.Outputs["out"], r.State, r.Reason, want)
	}
	if r, want := got["again"], `a\0b377\n`; r.Outputs["out"] != want {
		t.Errorf("step again, after read changed its copy, saw %q (%s, %s); want %q", r.Outputs["out"], r.State, r.Reason, want)
	}
	if r := got["write"]; r.Outputs["text"] != "line" || r.Files["binary"] == "" {
		t.Errorf("step write has the outputs %q and files %q; want the text of text and a file of binary", r.Outputs, r.Files)
	}
	if _, ok := got["write"].Outputs["binary"]; ok {
		t.Error("the binary file has a text")
	}
}

func testLargeOutput(t *testing.T, newExecutor Maker, maxOutput int) {
	script := fmt.Sprintf("mkdir -p /tmp/kfs-suite; head -c %d /dev/zero | tr '\\0' x > /tmp/kfs-suite/out", maxOutput)
	r := run(t, newExecutor, pipeline(sh("large", script, "/tmp/kfs-suite/out")), nil, engine.Config{})["large"]
	if got := r.Outputs["out"]; got != strings.Repeat("x", maxOutput) {
		t.Errorf("output of %d bytes (%s, %s); want %d", len(got), r.State, r.Reason, maxOutput)
	}
}

func testTexts(t *testing.T, newExecutor Maker) {
	s := sh("texts", `mkdir -p /tmp/kfs-suite; printf '%s|' "$@" "$A" "$B" "$C" > /tmp/kfs-suite/out`, "/tmp/kfs-suite/out")
	args(s, "plain", "", "two words", `"quoted" 'too'`, "line\nline", "*", `back\slash`, "grüße",
		"$(A)", "$$(A)", "$$$$", "$A", "$(NOT_SET)", "$(", "x$(B)y", "$")
	env(s, "A", "a a")
	env(s, "B", "<$(A)>")
	env(s, "C", "$$(A)$(LATER)")
	r := run(t, newExecutor, pipeline(s), nil, engine.Config{})["texts"]
	want := []string{"plain", "", "two words", `"quoted" 'too'`, "line\nline", "*", `back\slash`, "grüße",
		"a a", "$(A)", "$$", "$A", "$(NOT_SET)", "$(", "x<a a>y", "$", "a a", "<a a>", "$(A)$(LATER)", ""}
	if got := strings.Split(r.Outputs["out"], "|"); !slices.Equal(got, want) {
		t.Errorf("got  %q (%s)\nwant %q", got, r.Reason, want)
	}
}

// testValuesAreData shows that the text of params and outputs arrives as it is.
func testValuesAreData(t *testing.T, newExecutor Maker) {
	values := []string{"$$", "$(A)", "$$(A)", "$", "(A)", "A", "$(A", "{{x}}", "a'b\"c", "$((1+1))", "`id`", "%s\\n", "--flag", " x "}
	p, given := pipeline(), map[string]string{}
	for i, v := range values {
		name, from := fmt.Sprintf("v%d", i), fmt.Sprintf("write%d", i)
		p.Params = append(p.Params, &dag.Param{Name: name})
		given[name] = v
		write := args(sh(from, `mkdir -p /tmp/kfs-suite; printf '%s' "$1" > /tmp/kfs-suite/out`, "/tmp/kfs-suite/out"), param(name))
		read := sh(fmt.Sprintf("read%d", i), `mkdir -p /tmp/kfs-suite; printf '%s|' "$@" "$V" > /tmp/kfs-suite/out`, "/tmp/kfs-suite/out")
		env(env(read, "A", "WRONG"), "V", output(from, "out"))
		args(read, param(name), output(from, "out"), "$"+param(name), "$$"+param(name), "$("+param(name)+")", "$(A)"+param(name)+"$(A)")
		p.Steps = append(p.Steps, write, read)
	}
	got := run(t, newExecutor, p, given, engine.Config{})
	for i, v := range values {
		r := got[fmt.Sprintf("read%d", i)]
		want := strings.Join([]string{v, v, "$" + v, "$" + v, "$(" + v + ")", "WRONG" + v + "WRONG", v}, "|") + "|"
		if out := r.Outputs["out"]; out != want {
			t.Errorf("value %q: got %q (%s); want %q", v, out, r.Reason, want)
		}
	}
}

func testNoProgram(t *testing.T, newExecutor Maker) {
	// A value decides, so that it cannot be known before the start.
	p := pipeline(sh("name", "mkdir -p /tmp/kfs-suite; echo /no/such/program > /tmp/kfs-suite/out", "/tmp/kfs-suite/out"))
	s := &dag.Step{Name: "none"}
	s.Container.Set(Image, "image")
	s.Container.Set([]any{output("name", "out")}, "command")
	p.Steps = append(p.Steps, s)
	r := run(t, newExecutor, p, nil, engine.Config{})["none"]
	if o := last(t, r); r.State != engine.Failed || o.Cause != engine.CannotRun || !strings.Contains(o.Reason, "/no/such/program") {
		t.Errorf("%s, %+v; want failed, cannot run, a reason with the program", r.State, o)
	}
	if len(r.Attempts) != 1 {
		t.Errorf("%d attempts; want 1", len(r.Attempts))
	}
}

func testRetry(t *testing.T, newExecutor Maker) {
	s := sh("retry", "echo try; exit 1")
	s.Retry = &dag.Retry{Limit: "2"}
	var w watcher
	r := run(t, newExecutor, pipeline(s), nil, engine.Config{Events: w.event})["retry"]
	if r.State != engine.Failed || len(r.Attempts) != 3 {
		t.Errorf("%s after %d attempts; want failed after 3", r.State, len(r.Attempts))
	}
	for i, o := range r.Attempts[1:] {
		if o.Started.Before(r.Attempts[i].Finished) {
			t.Errorf("attempt %d started %v, before attempt %d had finished %v", o.Number, o.Started, i+1, r.Attempts[i].Finished)
		}
	}
	if n := len(w.lines("retry")); n != 3 {
		t.Errorf("%d lines; want 3", n)
	}
}

func testTimeout(t *testing.T, newExecutor Maker) {
	s := sh("slow", "sleep 300")
	s.Timeout = "1"
	quick := sh("quick", "true")
	quick.Timeout = "100"
	got := run(t, newExecutor, pipeline(s, quick), nil, engine.Config{})
	r := got["slow"]
	if o := last(t, r); r.State != engine.Failed || o.Cause != engine.TimedOut || o.Reason != "timed out after 1s" {
		t.Errorf("%s, %s, %q; want failed, timed out after 1s", r.State, o.Cause, o.Reason)
	}
	if got["quick"].State != engine.Succeeded {
		t.Errorf("quick: %s, %s", got["quick"].State, got["quick"].Reason)
	}
}

func testTimeoutForced(t *testing.T, newExecutor Maker) {
	s := sh("deaf", `trap "" TERM; while true; do sleep 1; done`)
	s.Timeout = "1"
	r := run(t, newExecutor, pipeline(s), nil, engine.Config{})["deaf"]
	if o := last(t, r); r.State != engine.Failed || o.Cause != engine.TimedOut {
		t.Errorf("%s, %s, %q; want failed, timed out", r.State, o.Cause, o.Reason)
	}
}

// stopWhen runs a pipeline and stops the run when the step has written a line.
func stopWhen(t *testing.T, newExecutor Maker, p *dag.Pipeline, step string, kind engine.StopKind) (map[string]engine.Record, *watcher) {
	stop := make(chan engine.StopKind, 1)
	w := &watcher{on: func(ev engine.Event) {
		if ev.Kind == engine.EventLog && ev.Step == step && ev.Line == "ready" {
			stop <- kind
		}
	}}
	return run(t, newExecutor, p, nil, engine.Config{Events: w.event, Stop: stop}), w
}

func testStop(t *testing.T, newExecutor Maker) {
	s := sh("polite", `trap 'echo bye; exit 0' TERM; echo ready; while true; do sleep 1; done`)
	s.Retry = &dag.Retry{Limit: "3", Policy: "Always"}
	need := sh("need", "true")
	need.After = []dag.Edge{{Step: "polite"}}
	got, w := stopWhen(t, newExecutor, pipeline(s, need), "polite", engine.StopGraceful)
	for _, name := range []string{"polite", "need"} {
		if got[name].State != engine.Cancelled {
			t.Errorf("step %q: %s, %s; want cancelled", name, got[name].State, got[name].Reason)
		}
	}
	// Some shells tell between them that the sleep was terminated.
	if lines := w.lines("polite"); len(lines) < 2 || lines[0] != "ready" || lines[len(lines)-1] != "bye" {
		t.Errorf("lines %q; want ready, ..., bye", lines)
	}
	if n := len(got["polite"].Attempts); n != 1 {
		t.Errorf("%d attempts; want 1", n)
	}
}

func testStopForce(t *testing.T, newExecutor Maker) {
	s := sh("deaf", `trap 'echo bye' TERM; echo ready; for i in 1 2 3 4 5 6; do sleep 1; done; echo end`)
	got, w := stopWhen(t, newExecutor, pipeline(s), "deaf", engine.StopForce)
	if got["deaf"].State != engine.Cancelled {
		t.Errorf("%s, %s; want cancelled", got["deaf"].State, got["deaf"].Reason)
	}
	// A backend may give it a moment, in which it is told; that is all it gets.
	if lines := w.lines("deaf"); len(lines) == 0 || lines[0] != "ready" || slices.Contains(lines, "end") {
		t.Errorf("lines %q; want ready, and no end", lines)
	}
}

func testStartTwice(t *testing.T, newExecutor Maker) {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	r := newRun(nil)
	s := sh("once", "echo started; sleep 1")
	x := newExecutor(t, r, pipeline(s))
	if store, ok := x.(engine.Store); ok {
		if _, _, err := store.Claim(ctx); err != nil {
			t.Fatal(err)
		}
	}
	a := &engine.Attempt{
		ID: engine.AttemptID(r.ID, s.Name, 1), RunID: r.ID, RunName: r.Name, Step: s.Name, Number: 1, Container: s.Container,
	}
	if err := x.Check(ctx, pipeline(s), nil); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	started := 0
	seen := make(chan engine.Observation, 100)
	report := func(o engine.Observation) {
		mu.Lock()
		started += len(o.Lines)
		mu.Unlock()
		if o.ID == a.ID && o.Phase > 0 {
			seen <- o
		}
	}
	finished := func() engine.Observation {
		for {
			select {
			case o := <-seen:
				if o.Phase == engine.PhaseFinished {
					return o
				}
			case <-ctx.Done():
				t.Fatal("the attempt was not observed to finish")
			}
		}
	}
	if err := x.Observe(ctx, r, report); err != nil {
		t.Fatal(err)
	}
	if len(seen) > 0 {
		t.Fatalf("observed before the start: %+v", <-seen)
	}
	for range 3 {
		if err := x.Start(ctx, a); err != nil {
			t.Fatal(err)
		}
	}
	// What Start has accepted, Observe knows at once.
	if err := x.Observe(ctx, r, report); err != nil {
		t.Fatal(err)
	}
	if len(seen) == 0 {
		t.Error("started, and not observed")
	}
	first := finished()
	if first.Cause != engine.Exited || first.ExitCode != 0 {
		t.Errorf("finished %+v; want exit code 0", first)
	}
	if err := x.Start(ctx, a); err != nil {
		t.Fatal(err)
	}
	if err := x.Stop(ctx, a.ID, engine.Stopped, true); err != nil {
		t.Errorf("stop after the end: %v", err)
	}
	for len(seen) > 0 {
		<-seen
	}
	if err := x.Observe(ctx, r, report); err != nil {
		t.Fatal(err)
	}
	if again := finished(); again.Cause != first.Cause || again.ExitCode != first.ExitCode || !again.Finished.Equal(first.Finished) {
		t.Errorf("observed later: %+v; want %+v", again, first)
	}
	mu.Lock()
	defer mu.Unlock()
	if started != 1 {
		t.Errorf("wrote %d lines; want 1", started)
	}
}

func testStopUnknown(t *testing.T, newExecutor Maker) {
	x := newExecutor(t, newRun(nil), pipeline())
	if err := x.Stop(t.Context(), "nobody-knows-a1", engine.Stopped, false); err != nil {
		t.Error(err)
	}
}

func testLog(t *testing.T, newExecutor Maker) {
	p := pipeline(
		sh("lines", `echo one; echo two >&2; echo; printf 'a\r\nlast'`),
		sh("long", `head -c 300000 /dev/zero | tr '\0' y; echo; echo end`),
		sh("bytes", `printf 'a\377b\n'`),
		sh("many", `i=0; while [ $i -lt 5000 ]; do echo $i; i=$((i+1)); done`),
	)
	var w watcher
	run(t, newExecutor, p, nil, engine.Config{Events: w.event})
	// Each stream is in order; an executor may mix the two.
	stderr := func(line string) bool { return line == "two" }
	lines := w.lines("lines")
	if got, want := slices.DeleteFunc(slices.Clone(lines), stderr), []string{"one", "", "a", "last"}; !slices.Equal(got, want) || len(lines) != len(want)+1 {
		t.Errorf("lines %q; want %q, and two somewhere", lines, want)
	}
	long := w.lines("long")
	if text := strings.Join(long[:max(0, len(long)-1)], ""); text != strings.Repeat("y", 300000) || long[len(long)-1] != "end" {
		t.Errorf("a line of 300000 bytes became %d lines with %d bytes", len(long), len(text))
	}
	for _, line := range long {
		if len(line) > 64<<10 {
			t.Errorf("a piece of a line has %d bytes; want at most 64 KiB", len(line))
		}
	}
	if got, want := w.lines("bytes"), []string{"a\uFFFDb"}; !slices.Equal(got, want) {
		t.Errorf("lines %q; want %q", got, want)
	}
	many := w.lines("many")
	for i, line := range many {
		if line != fmt.Sprint(i) {
			t.Fatalf("line %d is %q", i, line)
		}
	}
	if len(many) != 5000 {
		t.Errorf("%d lines; want 5000", len(many))
	}
}

func testMany(t *testing.T, newExecutor Maker) {
	const n = 100
	p := pipeline()
	all := sh("all", `printf '%s' "$#" > /tmp/kfs-suite-all`, "/tmp/kfs-suite-all")
	for i := range n {
		name := fmt.Sprintf("s%d", i)
		p.Steps = append(p.Steps, args(sh(name, `printf '%s' "$1" > /tmp/kfs-suite-$1`, "/tmp/kfs-suite-"+fmt.Sprint(i)), fmt.Sprint(i)))
		// The script names the file by a variable, so its path is given too.
		p.Steps[i].Container.Set([]any{"sh", "-c", `printf '%s' "$1" > "$2"`, "sh"}, "command")
		args(p.Steps[i], "/tmp/kfs-suite-"+fmt.Sprint(i))
		args(all, output(name, fmt.Sprintf("kfs-suite-%d", i)))
	}
	p.Steps = append(p.Steps, all)
	var mu sync.Mutex
	running, most := map[string]bool{}, 0
	got := run(t, newExecutor, p, nil, engine.Config{Parallelism: 20, Events: func(ev engine.Event) {
		mu.Lock()
		defer mu.Unlock()
		if ev.Kind == engine.EventStep {
			running[ev.Step] = ev.State == engine.Running || ev.State == engine.Pending
		}
		now := 0
		for _, r := range running {
			if r {
				now++
			}
		}
		most = max(most, now)
	}})
	if r := got["all"]; r.Outputs["kfs-suite-all"] != fmt.Sprint(n) {
		t.Errorf("%s, %q, outputs %q; want %d arguments", r.State, r.Reason, r.Outputs, n)
	}
	if most > 20 {
		t.Errorf("%d attempts at once; want at most 20", most)
	}
}
