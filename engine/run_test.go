package engine

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kfs-project/kfs/dag"
)

// A fake is an executor whose attempts do what a function says.
type fake struct {
	mu     sync.Mutex
	known  map[string]*Observation
	report func(Observation)
	starts []string

	// do is called in a goroutine for each attempt and returns how it ends.
	do       func(a *Attempt) Observation
	startErr func(a *Attempt) error
	forget   func(id string) bool // Observe knows nothing of it
}

func (f *fake) Check(context.Context, *dag.Pipeline, map[string]string) error { return nil }

func (f *fake) Observe(_ context.Context, _ RunInfo, report func(Observation)) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.report = report
	for id, o := range f.known {
		if f.forget == nil || !f.forget(id) {
			report(*o)
		}
	}
	return nil
}

func (f *fake) tell(o Observation) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if known := f.known[o.ID]; o.Phase > 0 && known != nil && known.Phase == PhaseFinished {
		return
	}
	f.known[o.ID] = &o
	f.report(o)
}

func (f *fake) Start(_ context.Context, a *Attempt) error {
	if f.startErr != nil {
		if err := f.startErr(a); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.known == nil {
		f.known = map[string]*Observation{}
	}
	if f.known[a.ID] != nil {
		return nil
	}
	f.starts = append(f.starts, fmt.Sprintf("%s/%d", a.Step, a.Number))
	f.known[a.ID] = &Observation{ID: a.ID, Phase: PhasePending}
	go func() {
		started := time.Now()
		f.tell(Observation{ID: a.ID, Phase: PhaseRunning, Started: started})
		o := f.do(a)
		if o.Phase == 0 {
			return // it is never heard of again
		}
		o.ID, o.Started, o.Finished = a.ID, started, time.Now()
		f.tell(o)
	}()
	return nil
}

func (f *fake) Stop(_ context.Context, id string, why Cause, force bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	go f.tell(Observation{ID: id, Phase: PhaseFinished, Cause: why, Started: f.known[id].Started, Finished: time.Now()})
	return nil
}

func exits(code int, outputs map[string]string) Observation {
	return Observation{Phase: PhaseFinished, Cause: Exited, ExitCode: code, Outputs: outputs}
}

func TestEvents(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPipeline("a", "b", "c: a b", "d: c")
		p.Steps[1].Retry = &dag.Retry{Limit: "1", Backoff: "5"}
		f := &fake{}
		f.do = func(a *Attempt) Observation {
			time.Sleep(time.Second)
			f.tell(Observation{ID: a.ID, Lines: []string{"line"}})
			if a.Step == "b" && a.Number == 1 || a.Step == "c" {
				return exits(3, nil)
			}
			return exits(0, nil)
		}
		var got []string
		begin := time.Now()
		result, err := Run(t.Context(), f, p, RunInfo{ID: "r"}, Config{Parallelism: 1, Events: func(ev Event) {
			got = append(got, strings.TrimSpace(fmt.Sprintf("%v %s %s%s %s %s %s",
				ev.Time.Sub(begin), ev.Kind, ev.Step, strings.Repeat("'", ev.Attempt), ev.State, ev.Reason, ev.Line)))
		}})
		if err != nil || result.State != Failed {
			t.Fatalf("%+v, %v", result, err)
		}
		want := `0s run  running
0s step a' pending
0s step b queued
0s step a' running
1s log a'   line
1s step a' succeeded
1s step b' pending
1s step b' running
2s log b'   line
2s step b' waiting exited with 3; retry 1 of 1 in 5s
7s step b'' pending
7s step b'' running
8s log b''   line
8s step b'' succeeded
8s step c' pending
8s step c' running
9s log c'   line
9s step c' failed exited with 3
9s step d skipped step "c" failed
9s run  failed`
		if text := strings.Join(got, "\n"); text != want {
			t.Errorf("got:\n%s\nwant:\n%s", text, want)
		}
	})
}

// TestSlowWatcher shows that a run does not wait for who watches it.
func TestSlowWatcher(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := testPipeline("a", "b: a")
		f := &fake{}
		f.do = func(a *Attempt) Observation {
			for range maxLines {
				f.tell(Observation{ID: a.ID, Lines: []string{"x", "y"}})
			}
			return exits(0, nil)
		}
		lines, omitted := 0, false
		var last Event
		result, err := Run(t.Context(), f, p, RunInfo{ID: "r"}, Config{Events: func(ev Event) {
			if last.Time.IsZero() {
				time.Sleep(time.Hour)
			}
			last = ev
			if ev.Kind == EventLog {
				lines++
			}
			omitted = omitted || strings.Contains(ev.Reason, "lines of logs are left out here")
		}})
		if err != nil || result.State != Succeeded || result.Finished.Sub(result.Started) > time.Minute {
			t.Errorf("%+v, %v; want success in no time", result, err)
		}
		if lines != maxLines || !omitted || last.State != Succeeded || last.Kind != EventRun {
			t.Errorf("%d lines, omitted %v, last %+v", lines, omitted, last)
		}
	})
}

func TestVanished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{
			do: func(a *Attempt) Observation {
				if a.Number == 1 {
					return Observation{}
				}
				return exits(0, nil)
			},
			forget: func(id string) bool { return strings.HasSuffix(id, "-a1") },
		}
		result, err := Run(t.Context(), f, testPipeline("a"), RunInfo{ID: "r"}, Config{})
		if err != nil || result.State != Succeeded || len(result.Steps[0].Attempts) != 2 || result.Steps[0].Attempts[0].Cause != Vanished {
			t.Errorf("%+v, %v", result, err)
		}
	})
}

func TestStartErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{
			do:       func(a *Attempt) Observation { return exits(0, nil) },
			startErr: func(a *Attempt) error { return errors.New("no route") },
		}
		warnings := 0
		result, err := Run(t.Context(), f, testPipeline("a", "b: a"), RunInfo{ID: "r"}, Config{Events: func(ev Event) {
			if ev.Kind == EventWarning {
				warnings++
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		a := result.Steps[0]
		if a.State != Failed || a.Reason != "cannot be started: no route" || len(a.Attempts) != 1 || a.Attempts[0].Cause != CannotRun {
			t.Errorf("%+v", a)
		}
		if warnings != maxStartErrors {
			t.Errorf("%d warnings; want %d", warnings, maxStartErrors)
		}
	})
}

// TestReordered shows that what is seen late does not undo what was seen.
func TestReordered(t *testing.T) {
	d := &driver{
		planner: &planner{run: RunInfo{ID: "r"}}, steps: []Record{{Step: "a", State: Waiting}}, lives: make([]live, 1),
		ids: map[string]attemptKey{AttemptID("r", "a", 1): {0, 1}},
		out: &emitter{},
	}
	end := Observation{ID: AttemptID("r", "a", 1), Phase: PhaseFinished, Cause: Exited, Started: t0, Finished: t0.Add(time.Second)}
	for _, phase := range []Phase{PhaseRunning, PhasePending, PhaseFinished, PhaseRunning, PhaseFinished} {
		o := end
		o.Phase = phase
		before := d.lives[0].seen.Phase
		d.see(o)
		if got := d.lives[0].seen.Phase; got != max(before, phase) {
			t.Errorf("phase %d after %d and %d; want the higher one", got, before, phase)
		}
	}
}

// A badStore fails from the n-th commit on.
type badStore struct {
	MemStore
	n   int
	err error
}

func (s *badStore) Commit(ctx context.Context, epoch int64, run *RunRecord, steps []Record) error {
	if s.n--; s.n < 0 {
		return s.err
	}
	return s.MemStore.Commit(ctx, epoch, run, steps)
}

func TestStoreFails(t *testing.T) {
	full := errors.New("disk full")
	for _, tt := range []struct {
		err  error
		want time.Duration // what is in flight ends after a minute
	}{
		{full, time.Minute},
		{ErrStale, time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fake{do: func(a *Attempt) Observation {
				if a.Step == "long" {
					time.Sleep(time.Minute)
				}
				time.Sleep(time.Second)
				return exits(0, nil)
			}}
			begin := time.Now()
			_, err := Run(t.Context(), f, testPipeline("long", "a", "b: a"), RunInfo{ID: "r"}, Config{Store: &badStore{n: 1, err: tt.err}})
			if !errors.Is(err, tt.err) {
				t.Errorf("%v; want %v", err, tt.err)
			}
			if took := time.Since(begin).Truncate(time.Second); took != tt.want && took != tt.want+time.Second {
				t.Errorf("%v: returned after %v; want about %v", tt.err, took, tt.want)
			}
			if slices.Contains(f.starts, "b/1") {
				t.Errorf("%v: b was started after a, whose outcome is not committed", tt.err)
			}
			time.Sleep(time.Hour) // the goroutines of the fake end
		})
	}
}

func TestContextDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fake{do: func(a *Attempt) Observation { time.Sleep(time.Hour); return exits(0, nil) }}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		begin := time.Now()
		_, err := Run(ctx, f, testPipeline("a"), RunInfo{ID: "r"}, Config{})
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		time.Sleep(2 * time.Hour)
	})
}

func TestArgs(t *testing.T) {
	p := testPipeline("a")
	p.Params = []*dag.Param{{Name: "n", Type: "Integer", Pos: dag.Pos{File: "p.star", Line: 1, Col: 2}}}
	for _, args := range []map[string]string{nil, {"n": "x"}, {"n": "1", "m": "2"}} {
		if _, err := Run(t.Context(), &fake{}, p, RunInfo{ID: "r", Args: args}, Config{}); len(dag.Faults(err)) != 1 {
			t.Errorf("args %v: %v; want one fault", args, err)
		}
	}
}

// TestLarge keeps the cost of a plan in view: it grows with the steps.
func TestLarge(t *testing.T) {
	if testing.Short() {
		t.Skip("2,000 steps")
	}
	synctest.Test(t, func(t *testing.T) {
		const n = 2000
		var lines []string
		for i := range n {
			lines = append(lines, fmt.Sprintf("s%d:", i))
			if i >= 100 {
				lines[i] += fmt.Sprintf(" s%d", i-100)
			}
		}
		f := &fake{do: func(a *Attempt) Observation { time.Sleep(time.Second); return exits(0, nil) }}
		result, err := Run(t.Context(), f, testPipeline(lines...), RunInfo{ID: "r"}, Config{})
		if err != nil || result.State != Succeeded {
			t.Error(err)
		}
	})
}
