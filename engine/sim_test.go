package engine

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kfs-project/kfs/dag"
)

// This file runs whole runs on a fake executor and a fake store, in virtual
// time, under a schedule of faults that a seed decides. Whatever crosses the
// border between a driver and the world may fail, come late, twice, in another
// order or not at all, and a driver may die there.

var (
	simSeeds = flag.Int("seeds", 2000, "how many seeds the simulation runs")
	simFirst = flag.Uint64("seed", 0, "the first seed of the simulation")
)

// A simStep is what an attempt will do, by step and number.
type simStep struct {
	cause   Cause // of its own accord
	code    int
	pending time.Duration // before it runs
	runs    time.Duration
}

// A simAttempt is an attempt in the world; it lives on when a driver dies.
type simAttempt struct {
	a       *Attempt
	plan    simStep
	obs     Observation
	effects int   // how often it was really started
	stopped Cause // why Stop was called; "" if it was not
	forced  bool
}

// A world is the fake executor and store of one run.
type world struct {
	mu  sync.Mutex // held by whoever calls in
	t   testing.TB
	rng *rand.Rand
	p   *dag.Pipeline
	run RunInfo

	plans    map[string][]simStep // by step; the last goes on for ever
	attempts map[string]*simAttempt
	store    MemStore
	facts    Facts // what the store must hold
	starts   map[string]int

	parallelism int
	faults      float64 // the probability of each fault
	zombies     bool    // drivers may live on though another one has taken over
	calm        bool    // no driver dies and the store does not fail, so that nothing but the driver itself helps it on
	blind       bool    // nothing is reported but by Observe
	liar        bool    // Start mostly returns an error for what has been started

	ref      map[string]*refTask // what a run with blocks must do, by task; nil has none
	refOrder []string
	bad      float64

	watcher *simDriver
	loose   bool // what has happened decides more than want knows

	stopAt, forceAt time.Time // zero if nobody stops the run
}

// A simDriver is what one driver sees of the world.
type simDriver struct {
	*world
	crash  context.CancelFunc
	dead   bool
	zombie bool
	report func(Observation)
}

var errSim = errors.New("simulated fault")

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

// jitter is a time that no other one is equal to, so that the order of things
// depends on the seed alone.
func (w *world) jitter(most time.Duration) time.Duration {
	return time.Duration(w.rng.Int64N(int64(most))) + 1
}

// die kills the driver, perhaps, at this point.
func (d *simDriver) die(p float64) bool {
	if !d.dead && !d.calm && d.chance(p*d.faults) {
		d.dead = true
		d.crash()
	}
	return d.dead
}

func (d *simDriver) Check(context.Context, *dag.Pipeline, map[string]string) error { return nil }

func (d *simDriver) Observe(ctx context.Context, run RunInfo, report func(Observation)) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.die(0.2) || d.chance(d.faults/4) {
		return errSim
	}
	d.report = func(o Observation) {
		if ctx.Err() == nil {
			report(o)
		}
	}
	d.watcher = d
	for _, id := range sorted(d.attempts) {
		report(d.attempts[id].obs)
	}
	return nil
}

func (d *simDriver) Start(ctx context.Context, a *Attempt) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.die(0.3) {
		return errSim
	}
	d.starts[a.ID]++
	if d.liar && d.chance(0.9) {
		d.world.start(d, a)
		return errSim
	}
	if d.chance(d.faults) && d.starts[a.ID] < 4 {
		if d.chance(0.5) { // it was started all the same
			d.world.start(d, a)
		}
		return errSim
	}
	d.world.start(d, a)
	if d.die(0.3) {
		return errSim
	}
	return nil
}

// start starts an attempt in the world.
func (w *world) start(d *simDriver, a *Attempt) {
	if old := w.attempts[a.ID]; old != nil {
		if fmt.Sprint(*old.a) != fmt.Sprint(*a) {
			w.t.Errorf("attempt %s started as %v and again as %v", a.ID, *old.a, *a)
		}
		return
	}
	w.checkStart(d, a)
	s := &simAttempt{a: a, plan: w.planOf(a.Step, a.Number), obs: Observation{ID: a.ID, Phase: PhasePending}}
	w.attempts[a.ID] = s
	if s.plan.cause == NotStarted || s.plan.cause == CannotRun {
		time.AfterFunc(s.plan.pending, func() { w.later(s, s.plan.cause) })
		return
	}
	s.effects++
	time.AfterFunc(s.plan.pending, func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		if s.obs.Phase == PhaseFinished {
			return
		}
		s.obs.Phase, s.obs.Started = PhaseRunning, time.Now()
		w.tell(s.obs)
		time.AfterFunc(s.plan.runs, func() { w.later(s, s.plan.cause) })
	})
}

// checkStart checks what must hold when an attempt is started for the first
// time.
func (w *world) checkStart(d *simDriver, a *Attempt) {
	if a.ID != AttemptID(w.run.ID, a.Step, a.Number) {
		w.t.Errorf("attempt %d of %s has the ID %s", a.Number, a.Step, a.ID)
	}
	for n := 1; n < a.Number; n++ {
		if before := w.attempts[AttemptID(w.run.ID, a.Step, n)]; before == nil || before.obs.Phase != PhaseFinished {
			w.t.Errorf("attempt %d of %s overlaps attempt %d", a.Number, a.Step, n)
		}
	}
	if got := len(w.facts.Steps[a.Step].Attempts); got != a.Number-1 && !d.zombie {
		w.t.Errorf("attempt %d of %s started; %d are committed", a.Number, a.Step, got)
	}
	if at := w.facts.Steps[a.Step].NotBefore; time.Now().Before(at) && !d.zombie {
		w.t.Errorf("attempt %d of %s started %v too early", a.Number, a.Step, time.Until(at))
	}
	if w.ref != nil {
		w.checkTask(d, a)
	}
	for _, need := range w.edges(a.Step) {
		if s := w.facts.Steps[need].State; s != Succeeded {
			w.t.Errorf("%s started; %s, which it needs, is %q", a.Step, need, s)
		}
	}
	if w.facts.Run.Stop != "" && !d.zombie && !(w.facts.Run.Stop == StopGraceful && w.ref != nil && w.ref[a.Step] != nil && w.ref[a.Step].exit) {
		w.t.Errorf("%s started; the run was stopped", a.Step)
	}
	inFlight := 0
	for _, s := range w.attempts {
		if s.obs.Phase != PhaseFinished {
			inFlight++
		}
	}
	if w.parallelism > 0 && inFlight >= w.parallelism && !w.zombies {
		w.t.Errorf("%s started as one of %d; want at most %d", a.Step, inFlight+1, w.parallelism)
	}
	// The values of its needs must be those that they have left.
	args, _ := a.Container.Get("args").([]any)
	for i, need := range w.edges(a.Step) {
		want := strings.ReplaceAll(w.facts.Steps[need].Outputs["o"], "$", "$$")
		if i >= len(args) || args[i] != want {
			w.t.Errorf("%s got %q from %s; want %q", a.Step, args, need, want)
		}
	}
}

func (w *world) later(s *simAttempt, cause Cause) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s.stopped != "" {
		cause = s.stopped
	}
	w.finish(s, cause)
}

func (w *world) finish(s *simAttempt, cause Cause) {
	if s.obs.Phase == PhaseFinished {
		return
	}
	s.obs.Phase, s.obs.Finished, s.obs.Cause = PhaseFinished, time.Now(), cause
	if cause == Exited {
		s.obs.ExitCode = s.plan.code
		if s.plan.code == 0 {
			s.obs.Outputs = w.outputs(s.a.Step, s.a.Number)
		}
	}
	w.tell(s.obs)
}

func outputOf(step string, number int) string { return fmt.Sprintf("$(%s) $$%d", step, number) }

// tell reports to the driver that watches: late, twice, in any order, or not.
func (w *world) tell(o Observation) {
	d := w.watcher
	if d == nil || w.blind {
		return
	}
	for n := 0; n < 2; n++ {
		if w.chance(w.faults) {
			continue // lost
		}
		after := w.jitter(time.Millisecond)
		if w.chance(w.faults) {
			after = w.jitter(2 * time.Minute)
		}
		report := d.report
		time.AfterFunc(after, func() { report(o) })
		if !w.chance(w.faults) {
			return
		}
	}
}

func (d *simDriver) Stop(ctx context.Context, id string, why Cause, force bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.die(0.3) || d.chance(d.faults/2) {
		return errSim
	}
	s := d.attempts[id]
	if s == nil || s.stopped != "" && !force || s.obs.Phase == PhaseFinished {
		return nil
	}
	if s.stopped == "" {
		s.stopped = why
	}
	switch {
	case why == TimedOut && (s.a.Timeout == 0 || time.Since(s.obs.Started) < s.a.Timeout):
		d.t.Errorf("%s is stopped as timed out; its time of %v is not over", id, s.a.Timeout)
	case why == Stopped && d.facts.Run.Stop == "":
		d.loose = true // the store failed when the stop was to be committed
	}
	grace := d.jitter(10 * time.Second)
	if d.chance(0.2) {
		grace = d.jitter(2 * time.Hour) // it ends in good order, and slowly
	}
	if force {
		grace = d.jitter(time.Millisecond)
		s.forced = true
	}
	time.AfterFunc(grace, func() { d.later(s, why) })
	return nil
}

func (d *simDriver) Claim(ctx context.Context) (Facts, int64, error) { return d.store.Claim(ctx) }

func (d *simDriver) Commit(ctx context.Context, epoch int64, run *RunRecord, steps []Record) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.die(0.3) {
		return errSim
	}
	failed := !d.calm && d.chance(d.faults/50) // the store, not the driver
	if failed {
		d.rng.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
		run, steps = nil, steps[:d.rng.IntN(len(steps)+1)]
	}
	if err := d.store.Commit(ctx, epoch, run, steps); err != nil {
		return err
	}
	if run != nil {
		if d.facts.Run.State.Ended() {
			d.t.Errorf("a run that is %s was committed again: %+v", d.facts.Run.State, run)
		}
		d.facts.Run = *run
	}
	for _, r := range steps {
		d.checkCommit(d.facts.Steps[r.Step], r)
		d.facts.Steps[r.Step] = r
	}
	if failed || d.die(0.3) {
		return errSim // committed, and nobody was told
	}
	return nil
}

// checkCommit checks that what is committed stays so.
func (w *world) checkCommit(old, next Record) {
	if old.State.Ended() {
		w.t.Errorf("the record of %s, which is %s, was replaced by %s", old.Step, old.State, next.State)
	}
	if len(next.Attempts) < len(old.Attempts) || len(next.Attempts) > len(old.Attempts)+1 {
		w.t.Errorf("%s: %d attempts committed after %d", next.Step, len(next.Attempts), len(old.Attempts))
	}
	for i, o := range old.Attempts {
		if o != next.Attempts[i] {
			w.t.Errorf("%s: the outcome of attempt %d changed", next.Step, i+1)
		}
	}
	if n := len(next.Attempts); n > len(old.Attempts) {
		s := w.attempts[AttemptID(w.run.ID, next.Step, n)]
		last := next.Attempts[n-1]
		if s == nil && last.Cause == NotStarted && w.facts.Run.Stop != "" {
			return // Start had returned an error, and then the run was stopped
		}
		if s == nil || s.obs.Phase != PhaseFinished {
			w.t.Errorf("%s: attempt %d has the outcome %+v and has not finished", next.Step, n, last)
		} else if next.State == Succeeded && !maps.Equal(next.Outputs, s.obs.Outputs) {
			w.t.Errorf("%s: outputs %q committed; want %q", next.Step, next.Outputs, s.obs.Outputs)
		}
	}
}

func sorted[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range maps.Keys(m) {
		keys = append(keys, k)
	}
	// insertion sort: few keys, mostly in order
	for i := range keys {
		for j := i; j > 0 && keys[j] < keys[j-1]; j-- {
			keys[j], keys[j-1] = keys[j-1], keys[j]
		}
	}
	return keys
}

// newWorld makes a random pipeline and a random fate for its attempts.
func newWorld(t testing.TB, seed uint64, blocks bool) *world {
	w := &world{
		t: t, rng: rand.New(rand.NewPCG(seed, 1)),
		run:      RunInfo{ID: fmt.Sprintf("run-%d", seed), Name: "sim"},
		p:        &dag.Pipeline{Name: "sim"},
		plans:    map[string][]simStep{},
		attempts: map[string]*simAttempt{},
		starts:   map[string]int{},
		facts:    Facts{Steps: map[string]Record{}},
	}
	rng := w.rng
	w.faults = []float64{0, 0.05, 0.2, 0.4}[rng.IntN(4)]
	w.parallelism = rng.IntN(5)
	w.zombies = w.chance(0.2)
	w.calm = w.chance(0.4)
	w.blind = w.chance(0.1)
	w.liar = w.chance(0.1)
	w.bad = rng.Float64() * 0.6
	if blocks {
		w.bad /= 4
		w.faults /= 3 // there is more that they can hit
		w.addBlocks()
		return w
	}
	n := 1 + rng.IntN(12)
	order := rng.Perm(n) // a step may stand before what it needs
	for i := range n {
		w.p.Steps = append(w.p.Steps, &dag.Step{Name: fmt.Sprintf("s%d", i)})
	}
	for k, i := range order {
		s := w.p.Steps[i]
		s.Outputs = []dag.Output{{Name: "o", Path: "/o"}}
		s.Container = dag.Object{{Name: "image", Value: "i"}}
		needs := map[int]bool{}
		for range rng.IntN(4) {
			if k > 0 {
				needs[order[rng.IntN(k)]] = true
			}
		}
		for j := range n {
			if needs[j] {
				s.Container.Append("args", dag.Ref{Kind: dag.RefOutput, Step: w.p.Steps[j].Name, Name: "o"}.Token())
			}
		}
		w.settings(s)
	}
	return w
}

// settings gives a step a random retry and timeout.
func (w *world) settings(s *dag.Step) {
	if w.chance(0.5) {
		s.Retry = &dag.Retry{
			Limit:   fmt.Sprint(w.rng.IntN(4)),
			Policy:  append([]string{""}, dag.RetryPolicies...)[w.rng.IntN(5)],
			Backoff: fmt.Sprint(w.rng.IntN(20)),
			Factor:  []json.Number{"", "1", "2"}[w.rng.IntN(3)],
		}
	}
	if w.chance(0.3) {
		s.Timeout = "30"
	}
}

// edges are the needs of a step; those of tasks are checked by checkTask.
func (w *world) edges(step string) []string {
	if w.ref != nil {
		return nil
	}
	return w.p.Edges()[step]
}

// hash returns a number that the seed and a text decide.
func (w *world) hash(text string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(w.run.ID + " " + text))
	return h.Sum64()
}

// planOf returns the fate of an attempt, which the seed and its task decide.
func (w *world) planOf(task string, number int) simStep {
	if w.plans[task] == nil {
		rng := rand.New(rand.NewPCG(w.hash(task), 2))
		jitter := func(most time.Duration) time.Duration { return time.Duration(rng.Int64N(int64(most))) + 1 }
		for range 1 + rng.IntN(12) {
			plan := simStep{cause: Exited, pending: jitter(time.Second), runs: jitter(20 * time.Second)}
			if rng.Float64() < w.bad {
				switch rng.IntN(8) {
				case 0:
					plan.cause = CannotRun
				case 1:
					plan.cause = NotStarted
				case 2:
					plan.cause = Lost
				case 3:
					plan.cause = BadOutput
				case 4:
					plan.cause = Vanished
				case 5:
					plan.runs += time.Hour
				default:
					plan.code = 1 + rng.IntN(3)
				}
			}
			w.plans[task] = append(w.plans[task], plan)
		}
	}
	return w.plans[task][min(number, len(w.plans[task]))-1]
}

// want says how each step must end if nobody stops the run: what the policies
// say, read from the top, with none of the planner's machinery.
func (w *world) want() map[string]Record {
	want := map[string]Record{}
	order, err := w.p.Order()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, s := range order {
		r := Record{Step: s.Name, State: Succeeded}
		for _, need := range w.p.Edges()[s.Name] {
			if want[need].State != Succeeded {
				r.State = Skipped
			}
		}
		if r.State == Skipped {
			want[s.Name] = r
			continue
		}
		var attempts int
		r.State, attempts = w.fate(s, s.Name)
		r.Attempts = make([]Outcome, attempts)
		want[s.Name] = r
	}
	return want
}

// fate says how a task ends that is ready, and after how many attempts.
func (w *world) fate(s *dag.Step, task string) (State, int) {
	limit, policy := 0, "OnFailure"
	if s.Retry != nil {
		fmt.Sscan(s.Retry.Limit, &limit)
		if s.Retry.Policy != "" {
			policy = s.Retry.Policy
		}
	}
	free, infra := 5, 3
	for n := 1; ; n++ {
		plan := w.planOf(task, n)
		cause := plan.cause
		if s.Timeout != "" && plan.runs > 30*time.Second {
			cause = TimedOut
		}
		if cause == Exited && plan.code == 0 {
			return Succeeded, n
		}
		if cause == NotStarted && free > 0 {
			free--
			continue
		}
		if (cause == Lost || cause == Vanished) && infra > 0 {
			infra--
			continue
		}
		infrastructure := cause == NotStarted || cause == Lost || cause == Vanished
		pays := policy == "Always" ||
			policy == "OnFailure" && !infrastructure && cause != CannotRun ||
			policy == "OnError" && (infrastructure || cause == CannotRun) ||
			policy == "OnTransientError" && infrastructure
		if pays && limit > 0 {
			limit--
			continue
		}
		if cause == Vanished {
			return Unknown, n
		}
		return Failed, n
	}
}

// simulate runs one seed to its end, with as many drivers as it takes.
func simulate(t *testing.T, seed uint64, blocks bool) {
	w := newWorld(t, seed, blocks)
	if w.chance(0.3) {
		w.stopAt = time.Now().Add(w.jitter(2 * time.Minute))
		w.forceAt = w.stopAt.Add(w.jitter(time.Minute))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*24*time.Hour)
	defer cancel()
	var result *Result
	for drivers := 0; result == nil; drivers++ {
		if ctx.Err() != nil || drivers > 10_000 {
			t.Errorf("the run does not end")
			return
		}
		w.mu.Lock()
		w.calm = w.calm || drivers > 200
		dctx, crash := context.WithCancel(ctx)
		d := &simDriver{world: w, crash: crash}
		stop := make(chan StopKind, 2)
		for at, kind := range map[time.Time]StopKind{w.stopAt: StopGraceful, w.forceAt: StopForce} {
			if !at.IsZero() && time.Now().Before(at) {
				time.AfterFunc(time.Until(at), func() { stop <- kind })
			}
		}
		w.mu.Unlock()
		type ended struct {
			result *Result
			err    error
		}
		end := make(chan ended, 1)
		go func() {
			r, err := Run(dctx, d, w.p, w.run, Config{Store: d, Parallelism: w.parallelism, Stop: stop})
			end <- ended{r, err}
		}()
		w.mu.Lock()
		patience := 365 * 24 * time.Hour
		if w.zombies && !w.calm && w.chance(w.faults) {
			patience = w.jitter(3 * time.Minute)
		}
		w.mu.Unlock()
		select {
		case e := <-end:
			result = e.result
			if e.err == nil && e.result == nil || e.err != nil && e.result != nil {
				t.Errorf("Run returned %v, %v", e.result, e.err)
			}
		case <-time.After(patience):
			w.mu.Lock()
			d.zombie = true // goes on until it learns that it is stale
			w.mu.Unlock()
		}
		defer crash()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.checkEnd(result)
}

func (w *world) checkEnd(result *Result) {
	state := Succeeded
	var want map[string]Record
	if w.ref != nil {
		want = w.checkTasks(result)
	} else {
		want = w.want()
	}
	for _, r := range result.Steps {
		if !r.State.Ended() {
			w.t.Errorf("%s is %s at the end of the run", r.Step, r.State)
		}
		if committed := w.facts.Steps[r.Step]; fmt.Sprint(committed) != fmt.Sprint(r) {
			w.t.Errorf("%s: result %v; committed %v", r.Step, r, committed)
		}
		switch {
		case r.State == Cancelled:
			state = Cancelled
		case r.State != Succeeded && !r.ByChoice && state != Cancelled:
			state = Failed
		}
		ref := want[r.Step]
		if w.loose || ref.Step == "" {
			continue
		}
		if w.facts.Run.Stop != "" {
			// A run that was stopped has come only so far.
			if r.State != Cancelled && r.State != ref.State && r.State != Skipped || len(r.Attempts) > len(ref.Attempts) {
				w.t.Errorf("%s is %s after %d attempts and a stop; want cancelled, or %s after %d", r.Step, r.State, len(r.Attempts), ref.State, len(ref.Attempts))
			}
			continue
		}
		if r.State != ref.State || len(r.Attempts) != len(ref.Attempts) {
			w.t.Errorf("%s is %s (%s) after %d attempts; want %s after %d", r.Step, r.State, r.Reason, len(r.Attempts), ref.State, len(ref.Attempts))
		}
		if r.ByChoice != ref.ByChoice {
			w.t.Errorf("%s is skipped because %q, by choice: %t", r.Step, r.Reason, r.ByChoice)
		}
		if w.ref == nil && r.State == Skipped && !strings.Contains(r.Reason, "step ") {
			w.t.Errorf("%s is skipped because %q", r.Step, r.Reason)
		}
	}
	if result.State != state || w.facts.Run.State != state {
		w.t.Errorf("the run is %s, committed %s; want %s", result.State, w.facts.Run.State, state)
	}
	for _, id := range sorted(w.attempts) {
		s := w.attempts[id]
		if s.effects > 1 {
			w.t.Errorf("attempt %s was started %d times", id, s.effects)
		}
		if w.facts.Run.Stop == StopForce && w.calm && !s.forced && s.obs.Finished.After(w.forceAt.Add(30*time.Minute)) {
			w.t.Errorf("attempt %s was not ended by force at %v, and ended at %v", id, w.forceAt, s.obs.Finished)
		}
		if s.obs.Phase != PhaseFinished && !w.zombies {
			w.t.Errorf("attempt %s is in phase %d at the end of the run", id, s.obs.Phase)
		}
	}
}

func TestSimulation(t *testing.T)       { testSimulation(t, false) }
func TestSimulationBlocks(t *testing.T) { testSimulation(t, true) }

func testSimulation(t *testing.T, blocks bool) {
	n := *simSeeds
	if blocks {
		n = (n + 1) / 2 // each takes longer
	}
	if testing.Short() {
		n = min(n, 200)
	}
	begin := time.Now()
	for seed := *simFirst; seed < *simFirst+uint64(n); seed++ {
		synctest.Test(t, func(t *testing.T) {
			simulate(t, seed, blocks)
			if t.Failed() {
				t.Fatalf("go test ./engine -run '%s$' -seed %d -seeds 1", t.Name(), seed)
			}
		})
	}
	t.Logf("%d seeds, %.0f a second", n, float64(n)/time.Since(begin).Seconds())
}
