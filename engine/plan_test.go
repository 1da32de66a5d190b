package engine

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/kfs-project/kfs/dag"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// testPipeline makes a pipeline of lines "name: need need".
func testPipeline(lines ...string) *dag.Pipeline {
	p := &dag.Pipeline{Name: "p"}
	for _, line := range lines {
		name, needs, _ := strings.Cut(line, ":")
		s := &dag.Step{Name: name, Container: dag.Object{{Name: "image", Value: "i"}}}
		for _, need := range strings.Fields(needs) {
			s.After = append(s.After, dag.Edge{Step: need})
		}
		p.Steps = append(p.Steps, s)
	}
	return p
}

// String says what the actions are, in one line.
func (a actions) String() string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	for _, r := range a.commits {
		text := fmt.Sprintf("commit %s %s", r.Step, r.State)
		if r.Reason != "" {
			text += fmt.Sprintf(" (%s)", r.Reason)
		}
		if !r.NotBefore.IsZero() {
			text += fmt.Sprintf(" until %v", r.NotBefore.Sub(t0))
		}
		add("%s", text)
	}
	for _, s := range a.starts {
		add("start %s %d", s.Step, s.Number)
	}
	for _, s := range a.stops {
		add("stop %d %s", s.step, s.kind)
	}
	for _, i := range a.verify {
		add("verify %d", i)
	}
	for _, i := range a.queued {
		add("queued %d", i)
	}
	if a.run != nil {
		add("run %s", a.run.State)
	}
	if !a.wake.IsZero() {
		add("wake %v", a.wake.Sub(t0))
	}
	if a.done {
		add("done")
	}
	return strings.Join(parts, "; ")
}

func TestPlan(t *testing.T) {
	running := live{started: true, seen: Observation{Phase: PhaseRunning, Started: t0}}
	finished := func(cause Cause, code int, took time.Duration) live {
		return live{started: true, seen: Observation{Phase: PhaseFinished, Cause: cause, ExitCode: code, Started: t0, Finished: t0.Add(took)}}
	}
	ended := func(cause Cause, n int) (outcomes []Outcome) {
		for i := range n {
			outcomes = append(outcomes, Outcome{Number: i + 1, Cause: cause, ExitCode: 1, Started: t0, Finished: t0})
		}
		return outcomes
	}
	retry := func(r dag.Retry) func(*dag.Pipeline) { return func(p *dag.Pipeline) { p.Steps[0].Retry = &r } }
	timeout := func(text string) func(*dag.Pipeline) { return func(p *dag.Pipeline) { p.Steps[0].Timeout = text } }
	abc := []string{"a", "b: a", "c: b"}
	usedOutput := func(p *dag.Pipeline) {
		p.Steps[0].Outputs = []dag.Output{{Name: "o"}}
		p.Steps[1].Container.Set([]any{dag.Ref{Kind: dag.RefOutput, Step: "a", Name: "o"}.Token()}, "args")
	}
	limit := func(p *dag.Pipeline) { p.Conf = &dag.Conf{Timeout: 60} }
	timedOut := &RunRecord{State: Running, Stop: StopTimeout, Started: t0}

	for _, tt := range []struct {
		name        string
		steps       []string
		change      func(*dag.Pipeline)
		parallelism int
		run         *RunRecord // nil: running
		records     map[string]Record
		lives       map[int]live
		after       time.Duration // now
		want        string
	}{
		{name: "a new run is committed first", steps: abc, run: &RunRecord{}, want: "run running"},
		{name: "a step that needs nothing", steps: abc, want: "start a 1"},
		{name: "in the order of the script", steps: []string{"c: z", "b", "a", "z"}, want: "start b 1; start a 1; start z 1"},
		{name: "held back", steps: []string{"a", "b", "c"}, parallelism: 2, want: "start a 1; start b 1; queued 2"},
		{name: "held back and told", steps: []string{"a", "b"}, parallelism: 1, lives: map[int]live{0: running, 1: {queued: true}}, want: ""},
		{name: "ready first in the script goes first", steps: []string{"x: z", "y", "z"}, parallelism: 1,
			records: map[string]Record{"z": {State: Succeeded}}, want: "start x 1; queued 1"},
		{name: "a need that runs", steps: abc, lives: map[int]live{0: running}, want: ""},
		{name: "success", steps: abc, lives: map[int]live{0: finished(Exited, 0, 0)}, want: "commit a succeeded"},
		{name: "the next one", steps: abc, records: map[string]Record{"a": {State: Succeeded}}, want: "start b 1"},
		{name: "failure skips all that need it", steps: abc, lives: map[int]live{0: finished(Exited, 3, 0)},
			want: `commit a failed (exited with 3); commit b skipped (step "a" failed); commit c skipped (step "a" failed)`},
		{name: "skipped at once, though another need runs", steps: []string{"a", "b", "c: a b"}, lives: map[int]live{1: running},
			records: map[string]Record{"a": {State: Failed}}, want: `commit c skipped (step "a" failed)`},
		{name: "skipped at once, though the need before runs", steps: []string{"a", "b", "c: b a"}, lives: map[int]live{1: running},
			records: map[string]Record{"a": {State: Failed}}, want: `commit c skipped (step "a" failed)`},
		{name: "the others go on", steps: []string{"a", "b", "c: a", "d: b"},
			records: map[string]Record{"a": {State: Failed}, "c": {State: Skipped}, "b": {State: Succeeded}}, want: "start d 1"},
		{name: "a missing output", steps: []string{"a", "b"}, change: usedOutput, lives: map[int]live{0: finished(Exited, 0, 0)},
			want: `commit a failed (output "o" was not collected); commit b skipped (step "a" failed)`},
		{name: "a file that nobody takes", steps: []string{"a"}, change: func(p *dag.Pipeline) { p.Steps[0].Outputs = []dag.Output{{Name: "o"}} },
			lives: map[int]live{0: finished(Exited, 0, 0)}, want: "commit a succeeded"},

		{name: "succeeded", steps: []string{"a"}, records: map[string]Record{"a": {State: Succeeded}}, want: "run succeeded"},
		{name: "failed", steps: []string{"a", "b"}, records: map[string]Record{"a": {State: Succeeded}, "b": {State: Skipped}}, want: "run failed"},
		{name: "unknown", steps: []string{"a"}, records: map[string]Record{"a": {State: Unknown}}, want: "run failed"},
		{name: "cancelled", steps: []string{"a", "b"}, records: map[string]Record{"a": {State: Cancelled}, "b": {State: Failed}}, want: "run cancelled"},
		{name: "over", steps: []string{"a"}, run: &RunRecord{State: Failed}, want: "done"},

		{name: "a pipeline's time", steps: []string{"a"}, change: limit, lives: map[int]live{0: running}, after: 59 * time.Second,
			run: &RunRecord{State: Running, Started: t0}, want: "wake 1m0s"},
		{name: "a pipeline's time is over", steps: []string{"a"}, change: limit, lives: map[int]live{0: running}, after: time.Minute,
			run: &RunRecord{State: Running, Started: t0}, want: "run running"},
		{name: "its attempts are stopped", steps: abc, change: limit, lives: map[int]live{0: running}, after: time.Minute, run: timedOut,
			want: "commit b cancelled (the run timed out after 1m0s); commit c cancelled (the run timed out after 1m0s); stop 0 graceful"},
		{name: "and the run fails", steps: []string{"a"}, change: limit, run: timedOut, records: map[string]Record{"a": {State: Cancelled}}, want: "run failed"},

		{name: "retry", steps: []string{"a"}, change: retry(dag.Retry{Limit: "2", Backoff: "10"}), lives: map[int]live{0: finished(Exited, 1, 5*time.Second)},
			want: "commit a waiting (exited with 1; retry 1 of 2) until 15s"},
		{name: "retry with a factor", steps: []string{"a"}, change: retry(dag.Retry{Limit: "5", Backoff: "10s", Factor: "2"}),
			records: map[string]Record{"a": {State: Waiting, Attempts: ended(Exited, 2)}}, lives: map[int]live{0: finished(Exited, 1, 0)},
			want: "commit a waiting (exited with 1; retry 3 of 5) until 40s"},
		{name: "not yet", steps: []string{"a"}, change: retry(dag.Retry{Limit: "1"}),
			records: map[string]Record{"a": {State: Waiting, Attempts: ended(Exited, 1), NotBefore: t0.Add(time.Minute)}}, want: "wake 1m0s"},
		{name: "now", steps: []string{"a"}, change: retry(dag.Retry{Limit: "1"}), after: time.Minute,
			records: map[string]Record{"a": {State: Waiting, Attempts: ended(Exited, 1), NotBefore: t0.Add(time.Minute)}}, want: "start a 2"},
		{name: "no more retries", steps: []string{"a"}, change: retry(dag.Retry{Limit: "1"}), lives: map[int]live{0: finished(Exited, 1, 0)},
			records: map[string]Record{"a": {State: Waiting, Attempts: ended(Exited, 1)}}, want: "commit a failed (exited with 1; after 1 retries)"},
		{name: "too late for a retry", steps: []string{"a"}, change: retry(dag.Retry{Limit: "9", Backoff: "10", MaxBackoff: "1m"}),
			lives: map[int]live{0: finished(Exited, 1, 55*time.Second)},
			want:  "commit a failed (exited with 1; the next retry would begin later than 1m0s after the start)"},
		{name: "another policy", steps: []string{"a"}, change: retry(dag.Retry{Limit: "9", Policy: "OnError"}),
			lives: map[int]live{0: finished(Exited, 1, 0)}, want: "commit a failed (exited with 1)"},
		{name: "lost is no failure", steps: []string{"a"}, lives: map[int]live{0: finished(Lost, 0, 0)},
			want: "commit a waiting (lost; retry 1 of 3 for lost attempts) until 1s"},
		{name: "lost too often", steps: []string{"a"}, lives: map[int]live{0: finished(Lost, 0, 0)},
			records: map[string]Record{"a": {State: Waiting, Attempts: ended(Lost, 3)}}, want: "commit a failed (lost)"},
		{name: "lost, and the step allows none", steps: []string{"a"}, lives: map[int]live{0: finished(Lost, 0, 0)},
			change: func(p *dag.Pipeline) { p.Steps[0].InfraRetries = new(int) }, want: "commit a failed (lost)"},
		{name: "lost, and the step allows more", steps: []string{"a"}, lives: map[int]live{0: finished(Lost, 0, 0)},
			records: map[string]Record{"a": {State: Waiting, Attempts: ended(Lost, 3)}},
			change:  func(p *dag.Pipeline) { five := 5; p.Steps[0].InfraRetries = &five },
			want:    "commit a waiting (lost; retry 4 of 5 for lost attempts) until 8s"},
		{name: "once", steps: []string{"a"}, lives: map[int]live{0: finished(Vanished, 0, 0)},
			change: func(p *dag.Pipeline) { p.Steps[0].Once = true }, want: "commit a unknown (vanished)"},
		{name: "once, and not started yet", steps: []string{"a"}, lives: map[int]live{0: finished(NotStarted, 0, 0)},
			change: func(p *dag.Pipeline) { p.Steps[0].Once = true }, want: "commit a waiting (not started; start 2 of at most 6) until 1s"},
		{name: "vanished too often", steps: []string{"a", "b: a"}, lives: map[int]live{0: finished(Vanished, 0, 0)},
			records: map[string]Record{"a": {State: Waiting, Attempts: ended(Lost, 3)}},
			want:    `commit a unknown (vanished); commit b skipped (the outcome of step "a" is unknown)`},
		{name: "the budgets are apart", steps: []string{"a"}, change: retry(dag.Retry{Limit: "1"}), lives: map[int]live{0: finished(Exited, 1, 0)},
			records: map[string]Record{"a": {State: Waiting, Attempts: append(ended(Lost, 3), ended(NotStarted, 5)...)}},
			want:    "commit a waiting (exited with 1; retry 1 of 1) until 0s"},
		{name: "never started", steps: []string{"a"}, lives: map[int]live{0: finished(NotStarted, 0, 0)},
			records: map[string]Record{"a": {State: Waiting, Attempts: ended(NotStarted, 2)}},
			want:    "commit a waiting (not started; start 4 of at most 6) until 4s"},
		{name: "never can", steps: []string{"a"}, change: retry(dag.Retry{Limit: "3"}), lives: map[int]live{0: finished(CannotRun, 0, 0)},
			want: "commit a failed (cannot run)"},

		{name: "the time of an attempt", steps: []string{"a"}, change: timeout("30"), lives: map[int]live{0: running}, after: 29 * time.Second, want: "wake 30s"},
		{name: "is over", steps: []string{"a"}, change: timeout("30"), lives: map[int]live{0: running}, after: 30 * time.Second, want: "stop 0 graceful"},
		{name: "timed out", steps: []string{"a"}, change: timeout("30"), lives: map[int]live{0: finished(TimedOut, 0, 31*time.Second)},
			want: "commit a failed (timed out after 30s)"},
		{name: "in time by itself", steps: []string{"a"}, change: timeout("30"), lives: map[int]live{0: finished(Exited, 0, 31*time.Second)},
			want: "commit a succeeded"},
		{name: "a timeout that is none", steps: []string{"a", "b: a"}, change: timeout(dag.Ref{Kind: dag.RefParam, Name: "t"}.Token()),
			want: `commit a failed (timeout is "soon", from t: want a whole number, 1 or more); commit b skipped (step "a" failed)`},
		{name: "a limit that is none", steps: []string{"a"}, change: retry(dag.Retry{Limit: dag.Ref{Kind: dag.RefParam, Name: "t"}.Token()}),
			want: `commit a failed (retry limit is "soon", from t: want a whole number, 0 or more)`},

		{name: "stop", steps: abc, run: &RunRecord{State: Running, Stop: StopGraceful}, lives: map[int]live{0: running},
			want: "commit b cancelled (the run was stopped); commit c cancelled (the run was stopped); stop 0 graceful"},
		{name: "stopping", steps: []string{"a"}, run: &RunRecord{State: Running, Stop: StopGraceful},
			lives: map[int]live{0: {seen: running.seen, stopped: StopGraceful}}, want: ""},
		{name: "force", steps: []string{"a"}, run: &RunRecord{State: Running, Stop: StopForce},
			lives: map[int]live{0: {seen: running.seen, stopped: StopGraceful}}, want: "stop 0 force"},
		{name: "stopped", steps: []string{"a"}, change: timeout("1"), run: &RunRecord{State: Running, Stop: StopGraceful},
			lives: map[int]live{0: finished(Stopped, 0, time.Minute)}, want: "commit a cancelled (the run was stopped)"},
		{name: "no retry after a stop", steps: []string{"a"}, run: &RunRecord{State: Running, Stop: StopGraceful},
			lives: map[int]live{0: finished(Lost, 0, 0)}, want: "commit a cancelled (lost; the run was stopped)"},
		{name: "failed in spite of the stop", steps: []string{"a", "b: a"}, run: &RunRecord{State: Running, Stop: StopGraceful},
			lives: map[int]live{0: finished(Exited, 1, 0)}, want: `commit a failed (exited with 1); commit b skipped (step "a" failed)`},
		{name: "timed out, and stopped meanwhile", steps: []string{"a"}, change: timeout("1"), run: &RunRecord{State: Running, Stop: StopGraceful},
			lives: map[int]live{0: finished(TimedOut, 0, time.Minute)}, want: "commit a failed (timed out after 1s)"},
		{name: "stopped by nobody", steps: []string{"a"}, lives: map[int]live{0: finished(Stopped, 0, 0)},
			want: "commit a waiting (stopped, though the run was not; retry 1 of 3 for lost attempts) until 1s"},

		{name: "Start failed", steps: []string{"a"}, lives: map[int]live{0: {started: true, errs: 1, next: t0.Add(time.Second)}}, want: "wake 1s"},
		{name: "again", steps: []string{"a"}, after: time.Second, lives: map[int]live{0: {started: true, errs: 1, next: t0.Add(time.Second)}}, want: "start a 1"},
		{name: "not for ever", steps: []string{"a"}, lives: map[int]live{0: {started: true, errs: maxStartErrors}}, want: "verify 0"},
		{name: "but it was seen", steps: []string{"a"}, lives: map[int]live{0: {started: true, errs: maxStartErrors, seen: running.seen}}, want: ""},
		{name: "Start failed, and then a stop", steps: []string{"a"}, run: &RunRecord{State: Running, Stop: StopGraceful},
			lives: map[int]live{0: {started: true, errs: 1}}, want: "verify 0"},
		{name: "Stop failed", steps: []string{"a"}, run: &RunRecord{State: Running, Stop: StopGraceful},
			lives: map[int]live{0: {seen: running.seen, next: t0.Add(time.Second)}}, want: "wake 1s"},
	} {
		p := testPipeline(tt.steps...)
		if tt.change != nil {
			tt.change(p)
		}
		pl, err := newPlanner(p, RunInfo{ID: "r"}, map[string]string{"t": "soon"}, tt.parallelism)
		if err != nil {
			t.Fatal(err)
		}
		run := RunRecord{State: Running, Started: t0}
		if tt.run != nil {
			run = *tt.run
		}
		records, lives := make([]Record, len(p.Steps)), make([]live, len(p.Steps))
		for i, s := range p.Steps {
			records[i] = Record{State: Waiting}
			if r, ok := tt.records[s.Name]; ok {
				records[i] = r
			}
			records[i].Step = s.Name
			lives[i] = tt.lives[i]
		}
		before := fmt.Sprint(run, records, lives)
		got := pl.plan(run, records, lives, t0.Add(tt.after)).String()
		if got != tt.want {
			t.Errorf("%s:\n got %s\nwant %s", tt.name, got, tt.want)
		}
		if after := fmt.Sprint(run, records, lives); after != before {
			t.Errorf("%s: plan changed its arguments", tt.name)
		}
		if again := pl.plan(run, records, lives, t0.Add(tt.after)).String(); again != got {
			t.Errorf("%s: the same facts gave %s and %s", tt.name, got, again)
		}
	}
}

func TestExpandQuoted(t *testing.T) {
	v := dag.Ref{Kind: dag.RefParam, Name: "v"}.Token()
	for _, tt := range []struct{ text, value, want string }{
		{"$(A) $$ $", "", "$(A) $$ $"}, // an author's own text
		{"$(A)" + v + "$$", "$x", "$(A)$$x$$"},
		{v, "$(A)$$", "$$(A)$$$$"},
		{"$" + v, "(A)", "$$(A)"},
		{"$" + v, "$(A)", "$$$$(A)"},
		{"$$" + v, "(A)", "$$(A)"},
		{"$$$" + v, "(A)", "$$$$(A)"},
		{"$(" + v + ")", "A", "$$(A)"},
		{"$(" + v + "B)", "A)", "$$(A)B)"},
		{"$(A" + v + v, ")", "$$(A))"},
		{"$x" + v, "y", "$xy"},
	} {
		got := expandQuoted(tt.text, func(dag.Ref) string { return tt.value })
		if got != tt.want {
			t.Errorf("expandQuoted(%q) with %q = %q; want %q", dag.Display(tt.text), tt.value, got, tt.want)
		}
	}
}

// ofAttempt leaves out of a comparison what attempts have beside their data.
var ofAttempt = cmp.Options{cmpopts.IgnoreUnexported(Attempt{}), cmpopts.IgnoreFields(Attempt{}, "Template")}

func TestAttempt(t *testing.T) {
	v := dag.Ref{Kind: dag.RefParam, Name: "v"}.Token()
	p := testPipeline("train")
	p.Params = []*dag.Param{{Name: "v"}}
	s := p.Steps[0]
	s.Timeout = "90"
	s.Container = dag.Object{
		{Name: "image", Value: "i:" + v},
		{Name: "args", Value: []any{v, dag.Ref{Kind: dag.RefRunID}.Token()}},
		{Name: "env", Value: []any{dag.Object{{Name: "name", Value: v}, {Name: "value", Value: v}}}},
	}
	s.Volumes = []dag.Object{{{Name: "name", Value: v}}}
	s.Accelerator = &dag.Accelerator{Kind: "gpu", Count: 1}
	pl, err := newPlanner(p, RunInfo{ID: "r1", Name: "run"}, map[string]string{"v": "$" + dag.Ref{Kind: dag.RefRunName}.Token()}, 0)
	if err != nil {
		t.Fatal(err)
	}
	a := pl.plan(RunRecord{State: Running}, []Record{{Step: "train", State: Waiting}}, make([]live, 1), t0).starts[0]
	want := &Attempt{
		ID: "train-0666bffcdc9b41ef-a1", RunID: "r1", RunName: "run", Step: "train", Number: 1, Timeout: 90 * time.Second,
		Container: dag.Object{
			{Name: "image", Value: "i:$run"},
			{Name: "args", Value: []any{"$$run", "r1"}},
			{Name: "env", Value: []any{dag.Object{{Name: "name", Value: "$run"}, {Name: "value", Value: "$$run"}}}},
		},
		Volumes:     []dag.Object{{{Name: "name", Value: "$run"}}},
		Accelerator: &dag.Accelerator{Kind: "gpu", Count: 1},
	}
	if diff := cmp.Diff(want, a, ofAttempt); diff != "" {
		t.Errorf("attempt (-want +got):\n%s", diff)
	}
	text, err := json.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	var back Attempt
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(a, &back, ofAttempt); diff != "" {
		t.Errorf("after JSON (-want +got):\n%s", diff)
	}
}

func TestAttemptID(t *testing.T) {
	long := strings.Repeat("ab", 200)
	for _, step := range []string{"a", long, "a-----------------------------b"} {
		id := AttemptID("run", step, 1234567890)
		if len(id) > 63 || id != dag.K8sName(id) {
			t.Errorf("AttemptID of %q is %q: want at most 63 small letters, digits and single hyphens", step, id)
		}
	}
	if AttemptID("run", long+"x", 1) == AttemptID("run", long+"y", 1) || AttemptID("a", "b", 1) == AttemptID("ab", "", 1) {
		t.Error("two steps have one ID")
	}
}

// TestSettingsBeforehand shows that a number which a param gives is looked at
// before anything starts, and one that an output gives is not.
func TestSettingsBeforehand(t *testing.T) {
	n := dag.Ref{Kind: dag.RefParam, Name: "n"}.Token()
	out := dag.Ref{Kind: dag.RefOutput, Step: "a", Name: "o"}.Token()
	image := dag.Object{{Name: "image", Value: "i"}}
	p := &dag.Pipeline{Name: "p", Params: []*dag.Param{{Name: "n"}}, Steps: []*dag.Step{
		{Name: "a", Container: image, Outputs: []dag.Output{{Name: "o", Path: "/o"}}, Timeout: n, Pos: dag.Pos{File: "f", Line: 1, Col: 1}},
		{Name: "b", Container: image, Retry: &dag.Retry{Limit: n}, Pos: dag.Pos{File: "f", Line: 2, Col: 1}},
		{Name: "c", Container: image, Timeout: out, Pos: dag.Pos{File: "f", Line: 3, Col: 1}},
	}}
	_, err := Run(t.Context(), nil, p, RunInfo{ID: "r", Args: map[string]string{"n": "many"}}, Config{})
	want := `f:1:1: step "a": timeout is "many", from n: want a whole number, 1 or more
f:2:1: step "b": retry limit is "many", from n: want a whole number, 0 or more`
	if got := fmt.Sprint(err); got != want {
		t.Errorf("Run: %s\nwant %s", got, want)
	}
}
