package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/kfs-project/kfs/dag"
)

// This file defines the loop that feeds plan and does what it says.

// maxStartErrors is how many calls of Start may fail for one attempt.
const maxStartErrors = 6

// A Config says how a run is carried out. The zero value works.
type Config struct {
	Store       Store         // default: a new MemStore
	Parallelism int           // the most attempts in flight at once, or fewer if the pipeline's Conf says so; 0 means no limit
	Relist      time.Duration // how often to call Observe again; default 30 s

	// Events is called for each event, one after the other, in order. If it
	// is slow the steps do not wait for it, but lines of logs are left out.
	// Run returns when it has been called for the last one.
	Events func(Event)

	// Stop receives the wish to stop the run: nothing is started any more,
	// and the running attempts are asked to end or, by StopForce, ended.
	Stop <-chan StopKind
}

// A Result is how a run ended.
type Result struct {
	State    State // Succeeded, Failed or Cancelled
	Started  time.Time
	Finished time.Time
	Steps    []Record // in the order of the script, a loop's round by round; all have ended
}

// Run carries out a valid pipeline on x and returns when all has ended; that
// steps failed is told by the Result, and is no error. The Args of run are
// those given; the defaults are added.
//
// If a store is given that knows this run already, the run goes on from there.
//
// An error means that the run could not be carried to its end:
//   - the args or the pipeline are wrong, or x cannot run it; nothing was
//     started (see dag.Faults);
//   - the run cannot be observed at the beginning; nothing was started;
//   - the store fails: nothing more is started, and Run returns when the
//     attempts in flight have ended, whose results a later Run will find;
//   - another driver has claimed the run (ErrStale), or ctx is done: Run
//     returns at once and leaves the attempts as they are.
func Run(ctx context.Context, x Executor, p *dag.Pipeline, run RunInfo, cfg Config) (*Result, error) {
	args, err := p.Args(run.Args)
	if err != nil {
		return nil, err
	}
	if conf := p.Conf; conf != nil && conf.Parallelism > 0 && (cfg.Parallelism == 0 || conf.Parallelism < cfg.Parallelism) {
		cfg.Parallelism = conf.Parallelism
	}
	if p, err = braces(p); err != nil {
		return nil, err
	}
	pl, err := newPlanner(p, run, args, cfg.Parallelism)
	if err != nil {
		return nil, err
	}
	if err := pl.checkSettings(); err != nil {
		return nil, err
	}
	if err := x.Check(ctx, p, pl.args); err != nil {
		return nil, err
	}
	if cfg.Store == nil {
		cfg.Store = &MemStore{}
	}
	if cfg.Relist <= 0 {
		cfg.Relist = 30 * time.Second
	}
	facts, epoch, err := cfg.Store.Claim(ctx)
	if err != nil {
		return nil, fmt.Errorf("claim run %s: %w", run.ID, err)
	}
	// What ends with this call is told so by the context.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	d := &driver{
		planner: pl, x: x, cfg: cfg, epoch: epoch,
		state: facts.Run,
		ids:   map[string]attemptKey{},
		inbox: inbox{news: make(chan struct{}, 1)},
		out:   newEmitter(cfg.Events),
	}
	defer d.out.close()
	d.steps = make([]Record, len(d.tasks))
	for i, t := range d.tasks {
		d.steps[i] = Record{Step: t.name, State: Waiting}
		if r, ok := facts.Steps[t.name]; ok {
			d.steps[i] = r
		}
	}
	if err := d.unfold(facts.Steps); err != nil {
		return nil, err
	}
	if d.state.State == Running {
		d.emit(Event{Kind: EventRun, State: Running, Reason: "resumed"})
	}
	return d.drive(ctx)
}

// unfold makes the tasks that follow from what is committed; of those it has
// not had before, more may be known.
func (d *driver) unfold(known map[string]Record) error {
	steps, changed, err := d.planner.unfold(d.steps, known)
	if err != nil || !changed && d.lives != nil {
		return err
	}
	old := make(map[string]live, len(d.lives))
	for i, l := range d.lives {
		old[d.steps[i].Step] = l
	}
	d.steps, d.lives = steps, make([]live, len(steps))
	for i, r := range steps {
		d.lives[i] = old[r.Step]
		for n := range len(r.Attempts) + 1 {
			d.ids[AttemptID(d.planner.run.ID, r.Step, n+1)] = attemptKey{i, n + 1}
		}
	}
	return nil
}

// A driver carries out one run.
type driver struct {
	*planner
	x     Executor
	cfg   Config
	epoch int64

	state RunRecord // as committed
	steps []Record  // as committed, of each task; by the planner's numbers, as lives are
	lives []live
	ids   map[string]attemptKey // the attempts up to the present ones, by ID

	inbox  inbox
	out    *emitter
	broken error // why nothing can be committed any more

	committed time.Time // when the last commit was made

	relist   time.Time // when to call Observe next
	listErrs int       // calls of Observe that failed, up to the last one
}

// An attemptKey says which attempt it is.
type attemptKey struct{ step, number int }

// An inbox takes observations from any goroutine.
type inbox struct {
	news chan struct{} // holds one, if there are observations to take

	mu    sync.Mutex
	queue []Observation
}

func (in *inbox) put(o Observation) {
	in.mu.Lock()
	in.queue = append(in.queue, o)
	in.mu.Unlock()
	in.nudge()
}

// nudge makes the driver plan again.
func (in *inbox) nudge() {
	select {
	case in.news <- struct{}{}:
	default:
	}
}

func (in *inbox) take() []Observation {
	in.mu.Lock()
	defer in.mu.Unlock()
	queue := in.queue
	in.queue = nil
	return queue
}

func (d *driver) drive(ctx context.Context) (*Result, error) {
	if err := d.observe(ctx); err != nil {
		return nil, fmt.Errorf("observe run %s: %w", d.run.ID, err)
	}
	for {
		for _, o := range d.inbox.take() {
			d.see(o)
		}
		if errors.Is(d.broken, ErrStale) {
			return nil, d.broken
		}
		began := time.Now()
		a := d.plan(d.state, d.steps, d.lives, began)
		rest := 2 * time.Since(began) // so that planning takes a third of one core at most
		if a.done {
			return &Result{State: d.state.State, Started: d.state.Started, Finished: d.state.Finished, Steps: d.steps}, nil
		}
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("run %s: %w", d.run.ID, err)
		}
		d.stop(ctx, a.stops)
		switch {
		case d.broken != nil:
			if d.idle() {
				return nil, d.broken
			}
		case a.run != nil || len(a.commits) > 0:
			if more := d.gather(a, time.Now()); more > 0 {
				d.pause(ctx, more)
				continue
			}
			d.commit(ctx, a.run, a.commits)
			d.committed = time.Now()
			continue
		default:
			d.verify(ctx, a.verify)
			d.start(ctx, a.starts)
			d.tellQueued(a.queued)
		}
		d.wait(ctx, a.wake)
		if rest > time.Millisecond {
			d.pause(ctx, rest)
		}
	}
}

// gather returns how long a commit waits for others that it can be one with:
// up to a millisecond for each attempt in flight, so that a chain of steps does
// not wait, and a thousand in parallel share four commits a second.
func (d *driver) gather(a actions, now time.Time) time.Duration {
	if a.run != nil {
		return 0
	}
	window := min(time.Duration(a.flying)*time.Millisecond, maxGather)
	return d.committed.Add(window).Sub(now)
}

// maxGather is the longest time between two commits, if there is something to
// commit.
const maxGather = 250 * time.Millisecond

// pause waits, but not when something else than observations comes in.
func (d *driver) pause(ctx context.Context, t time.Duration) {
	timer := time.NewTimer(t)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case kind, ok := <-d.cfg.Stop:
		d.asked(ctx, kind, ok)
	}
}

// asked takes what came from Config.Stop.
func (d *driver) asked(ctx context.Context, kind StopKind, ok bool) {
	if !ok {
		d.cfg.Stop = nil
	}
	d.wish(ctx, kind)
}

// wait returns when there may be something to do.
func (d *driver) wait(ctx context.Context, wake time.Time) {
	if wake.IsZero() || d.relist.Before(wake) {
		wake = d.relist
	}
	timer := time.NewTimer(time.Until(wake))
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-d.inbox.news:
	case kind, ok := <-d.cfg.Stop:
		d.asked(ctx, kind, ok)
	case <-timer.C:
		if !time.Now().Before(d.relist) {
			if err := d.observe(ctx); err != nil && ctx.Err() == nil {
				d.relist = time.Now().Add(pause(d.listErrs))
				if d.listErrs == 1 {
					d.warn(-1, fmt.Sprintf("observe the run: %v", err))
				}
			}
		}
	}
}

// wish notes that the run is to be stopped.
func (d *driver) wish(ctx context.Context, kind StopKind) {
	if kind != StopForce {
		kind = StopGraceful
	}
	if d.state.Stop == StopForce || d.state.Stop == kind || d.state.Stop == StopTimeout && kind == StopGraceful {
		return
	}
	next := d.state
	next.Stop = kind
	if d.broken != nil || d.commit(ctx, &next, nil) != nil {
		d.state.Stop = kind // the attempts are to end, whether this is kept or not
	}
	for i := range d.lives {
		d.lives[i].next = time.Time{}
	}
}

// observe asks the executor for all attempts, and for their changes from now
// on. An attempt that was started and is not among them has vanished.
func (d *driver) observe(ctx context.Context) error {
	var mu sync.Mutex
	listed := map[string]bool{} // nil once Observe has returned
	err := d.x.Observe(ctx, d.planner.run, func(o Observation) {
		mu.Lock()
		if listed != nil && o.Phase > 0 {
			listed[o.ID] = true
		}
		mu.Unlock()
		d.inbox.put(o)
	})
	mu.Lock()
	ids := listed
	listed = nil
	mu.Unlock()
	if err != nil {
		d.listErrs++
		return err
	}
	d.listErrs = 0
	d.relist = time.Now().Add(d.cfg.Relist)
	for _, o := range d.inbox.take() {
		d.see(o)
	}
	for i := range d.lives {
		l := &d.lives[i]
		if l.started && l.errs == 0 && l.seen.Phase < PhaseFinished && !ids[d.id(i)] {
			d.see(Observation{
				ID: d.id(i), Phase: PhaseFinished, Cause: Vanished, Started: l.seen.Started, Finished: time.Now(),
				Reason: "it is not there any more",
			})
		}
	}
	return nil
}

// id returns the ID of the step's present attempt.
func (d *driver) id(i int) string {
	return AttemptID(d.planner.run.ID, d.steps[i].Step, len(d.steps[i].Attempts)+1)
}

// see takes an observation in, unless more is known already.
func (d *driver) see(o Observation) {
	key, ok := d.ids[o.ID]
	if !ok {
		return
	}
	i := key.step
	for _, line := range o.Lines {
		d.emit(Event{Kind: EventLog, Step: d.steps[i].Step, Attempt: key.number, Line: line})
	}
	l := &d.lives[i]
	switch {
	case key.number <= len(d.steps[i].Attempts), d.steps[i].State.Ended():
		return // what is committed does not change
	case o.Phase < max(l.seen.Phase, PhasePending), l.seen.Phase == PhaseFinished:
		return
	}
	o.Lines = nil
	before := l.seen
	if o.Started.IsZero() {
		o.Started = before.Started
	}
	if o.Started.IsZero() && o.Phase == PhaseRunning {
		o.Started = time.Now()
	}
	l.seen = o
	if o.Phase == before.Phase && o.Reason == before.Reason {
		return
	}
	switch o.Phase {
	case PhasePending:
		if !l.started || o.Reason != "" {
			d.tell(i, Pending, o.Reason, o.Message)
		}
	case PhaseRunning:
		d.tell(i, Running, o.Reason, o.Message)
	}
}

// commit commits, and takes over what was committed. An error is kept in
// broken, too.
func (d *driver) commit(ctx context.Context, run *RunRecord, steps []Record) error {
	if err := d.cfg.Store.Commit(ctx, d.epoch, run, steps); err != nil {
		d.broken = fmt.Errorf("commit to run %s: %w", d.planner.run.ID, err)
		if !errors.Is(err, ErrStale) && ctx.Err() == nil {
			d.warn(-1, d.broken.Error()+"; nothing more is started")
		}
		return d.broken
	}
	for _, r := range steps {
		i := d.index[r.Step]
		ended := len(r.Attempts) > len(d.steps[i].Attempts)
		d.steps[i] = r
		d.lives[i] = live{}
		d.ids[d.id(i)] = attemptKey{i, len(r.Attempts) + 1}
		ev := Event{Kind: EventStep, Step: r.Step, Attempt: len(r.Attempts), State: r.State, Reason: r.Reason, Outputs: r.Outputs, Files: r.Files}
		if ended {
			last := r.Attempts[len(r.Attempts)-1]
			ev.Message, ev.Log = last.Message, last.Log
		}
		if r.State == Waiting {
			if wait := time.Until(r.NotBefore); wait > 0 {
				ev.Reason += fmt.Sprintf(" in %v", wait.Round(100*time.Millisecond))
			}
		}
		d.emit(ev)
	}
	if err := d.unfold(nil); err != nil {
		d.broken = err
		return err
	}
	if run != nil {
		if run.State != d.state.State {
			d.emit(Event{Kind: EventRun, State: run.State})
		} else if run.Stop != d.state.Stop {
			reason := "asked to stop"
			if run.Stop == StopTimeout {
				reason = "its time is over; asked to stop"
			}
			d.emit(Event{Kind: EventRun, State: run.State, Reason: reason})
		}
		d.state = *run
	}
	return nil
}

func (d *driver) start(ctx context.Context, starts []*Attempt) {
	for _, a := range starts {
		i := d.index[a.Step]
		l := &d.lives[i]
		if !l.started {
			l.started = true
			d.tell(i, Pending, "", "")
		}
		err := d.x.Start(ctx, a)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			l.errs, l.err = 0, nil
			continue
		}
		l.errs++
		l.err = err
		l.next = time.Now().Add(pause(l.errs))
		d.warn(i, fmt.Sprintf("cannot be started: %v; try %d of %d", err, l.errs, maxStartErrors))
	}
	if len(starts) > 0 {
		d.inbox.nudge() // errors want another look at the time
	}
}

// verify settles attempts that could not be started: it makes sure that they
// were not, and sees them as finished.
func (d *driver) verify(ctx context.Context, steps []int) {
	if len(steps) == 0 {
		return
	}
	if err := d.observe(ctx); err != nil {
		for _, i := range steps {
			d.lives[i].next = time.Now().Add(pause(d.listErrs))
		}
	} else {
		for _, i := range steps {
			l := &d.lives[i]
			if l.seen.Phase > 0 {
				continue
			}
			o := Observation{ID: d.id(i), Phase: PhaseFinished, Finished: time.Now(), Cause: CannotRun,
				Reason: fmt.Sprintf("cannot be started: %v", l.err)}
			if d.tasks[i].stopping(d.state.Stop) != "" {
				o.Cause = NotStarted
			}
			d.see(o)
		}
	}
	d.inbox.nudge()
}

func (d *driver) stop(ctx context.Context, stops []stop) {
	for _, s := range stops {
		l := &d.lives[s.step]
		if err := d.x.Stop(ctx, d.id(s.step), s.why, s.kind == StopForce); err != nil {
			l.next = time.Now().Add(pause(1))
			if ctx.Err() == nil {
				d.warn(s.step, fmt.Sprintf("cannot be stopped: %v", err))
			}
			continue
		}
		l.stopped = s.kind
	}
}

func (d *driver) tellQueued(steps []int) {
	for _, i := range steps {
		d.lives[i].queued = true
		d.emit(Event{Kind: EventStep, Step: d.steps[i].Step, State: Queued})
	}
}

// idle reports whether no attempt is in flight.
func (d *driver) idle() bool {
	for i := range d.lives {
		l := &d.lives[i]
		if l.seen.Phase == PhaseFinished || l.errs > 0 && l.seen.Phase == 0 {
			continue
		}
		if l.inFlight() {
			return false
		}
	}
	return true
}

// tell emits that the step's present attempt is in the state.
func (d *driver) tell(i int, state State, reason, message string) {
	d.emit(Event{
		Kind: EventStep, Step: d.steps[i].Step, Attempt: len(d.steps[i].Attempts) + 1,
		State: state, Reason: reason, Message: message, Log: d.lives[i].seen.Log,
	})
}

// warn emits a warning about the step, or about the run if i is -1.
func (d *driver) warn(i int, reason string) {
	ev := Event{Kind: EventWarning, Reason: reason}
	if i >= 0 {
		ev.Step, ev.Attempt = d.steps[i].Step, len(d.steps[i].Attempts)+1
	}
	d.emit(ev)
}

func (d *driver) emit(ev Event) {
	ev.Time, ev.RunID = time.Now(), d.planner.run.ID
	d.out.emit(ev)
}
