package engine

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/kfs-project/kfs/dag"
)

// This file defines what a driver does next, given the facts.

// A planner holds the pipeline and what has been unfolded of it.
type planner struct {
	p           *dag.Pipeline
	run         RunInfo
	args        map[string]string // of all params, complete
	parallelism int

	steps        map[string]*dag.Step
	groupsByName map[string]*dag.Group
	members      map[string][]string // of groups, by name; steps and groups in the order of the script
	needs        map[string][]string // of members, among those of their group
	exitName     string              // of the exit handler's step; "" is none
	callTags     map[string]string   // see there
	textual      map[dag.Ref]bool    // outputs that text is made of
	taken        map[dag.Ref]bool    // outputs that are taken as files

	unfolding
}

func newPlanner(p *dag.Pipeline, run RunInfo, args map[string]string, parallelism int) (*planner, error) {
	pl := &planner{p: p, run: run, parallelism: parallelism, args: make(map[string]string, len(args)),
		steps: map[string]*dag.Step{}, groupsByName: map[string]*dag.Group{}}
	for name, value := range args {
		pl.args[name] = dag.Expand(value, run.value) // a default may hold the run's id and name
	}
	if _, err := p.Order(); err != nil {
		return nil, err
	}
	for _, s := range p.Steps {
		pl.steps[s.Name] = s
	}
	for _, g := range p.Groups {
		pl.groupsByName[g.Name] = g
		if g.Kind == dag.GroupExitHandler {
			pl.exitName = g.Exit
		}
	}
	for _, s := range p.Steps {
		for _, r := range s.Refs() {
			for _, o := range r.Outputs() {
				if pl.steps[o.Step] == nil {
					return nil, &dag.Error{Pos: s.Pos, Msg: fmt.Sprintf("step %q needs unknown step %q", s.Name, o.Step)}
				}
			}
		}
		for _, e := range s.After {
			if pl.steps[e.Step] == nil && pl.groupsByName[e.Step] == nil {
				return nil, &dag.Error{Pos: s.Pos, Msg: fmt.Sprintf("step %q needs unknown step %q", s.Name, e.Step)}
			}
		}
	}
	pl.members, pl.needs = p.Members(), p.Needs()
	pl.callTags, pl.textual, pl.taken = callTags(p, pl.groupsByName), textual(p), taken(p)
	return pl, pl.build()
}

// callTags returns, by the names of the calls, what tells apart the rounds that
// they make: each has a number, if there are several in one graph.
func callTags(p *dag.Pipeline, groups map[string]*dag.Group) map[string]string {
	calls := map[string][]string{} // by the outermost graph
	for _, g := range p.Groups {
		if g.Kind != dag.GroupCall {
			continue
		}
		outermost := ""
		for at := groups[g.Group]; at != nil; at = groups[at.Group] {
			if at.Kind == dag.GroupGraph {
				outermost = at.Name
			}
		}
		calls[outermost] = append(calls[outermost], g.Name)
	}
	tags := map[string]string{}
	for _, names := range calls {
		for i, name := range names {
			if len(names) > 1 {
				tags[name] = "." + strconv.Itoa(i+1)
			}
		}
	}
	return tags
}

// live is what a driver knows of a step's present attempt and has not
// committed: the attempt after those in the step's record.
type live struct {
	seen Observation // the latest; its Phase is 0 if there is none

	started bool      // this driver has called Start
	errs    int       // how many of these calls returned an error, the last one among them
	err     error     // of the last call
	next    time.Time // of the next call of Start or Stop, after an error

	queued  bool     // this driver has told that the step is queued
	stopped StopKind // this driver has called Stop, and how
}

// inFlight reports whether the attempt may run, or its outcome waits for the
// commit.
func (l *live) inFlight() bool { return l.started || l.seen.Phase > 0 }

// actions are what to do next. Starts come only when there is nothing to
// commit, so that they follow from committed facts alone.
type actions struct {
	run     *RunRecord // to commit together with the records
	commits []Record
	starts  []*Attempt
	stops   []stop
	verify  []int     // steps whose attempt could not be started: make sure that it was not
	queued  []int     // steps newly held back by the parallelism
	wake    time.Time // when to plan again if nothing is observed; zero if never
	flying  int       // attempts in flight
	done    bool      // all is over and committed
}

type stop struct {
	step int
	kind StopKind
	why  Cause
}

func (a *actions) wakeAt(t time.Time) {
	if a.wake.IsZero() || t.Before(a.wake) {
		a.wake = t
	}
}

// A round is one plan in the making.
type round struct {
	*planner
	run     RunRecord
	records []Record // committed
	lives   []live
	now     time.Time

	actions
	decided  map[int]int // the tasks decided in this round, and where in commits
	verdicts []verdict   // of the nodes
	inFlight int
}

// plan returns what to do next. It is a function of its arguments alone, and
// changes none of them.
func (pl *planner) plan(run RunRecord, records []Record, lives []live, now time.Time) actions {
	r := &round{planner: pl, run: run, records: records, lives: lives, now: now}
	switch {
	case run.State == "":
		r.actions.run = &RunRecord{State: Running, Stop: run.Stop, Started: now}
		return r.actions
	case run.State != Running:
		r.done = true
		return r.actions
	}
	if end, ok := pl.deadline(run); ok && run.Stop == "" {
		if !end.After(now) {
			run.Stop = StopTimeout
			r.actions.run = &run
			return r.actions
		}
		r.wakeAt(end)
	}
	ended := 0
	r.verdicts = make([]verdict, len(pl.nodes))
	for _, n := range pl.order {
		if i := pl.nodes[n].task; i >= 0 && i != pl.exit && r.look(i) {
			ended++
		}
		r.verdicts[n] = r.verdict(n)
	}
	if pl.exit >= 0 && ended == len(records)-1 && r.look(pl.exit) {
		ended++
	}
	r.flying = r.inFlight
	switch {
	case len(r.commits) > 0:
		r.starts = nil
	case ended == len(records):
		r.actions.run = &RunRecord{State: lastState(run.Stop, records), Stop: run.Stop, Started: run.Started, Finished: now}
	default:
		r.begin(ended == len(records)-1)
	}
	return r.actions
}

// look decides what is to be decided of a task, and reports whether it has
// ended.
func (r *round) look(i int) bool {
	switch l := &r.lives[i]; {
	case r.records[i].State.Ended():
		return true
	case l.seen.Phase == PhaseFinished:
		r.commit(i, r.conclude(i))
	case l.inFlight():
		r.inFlight++
		r.mind(i)
	default:
		if next, ok := r.end(i); ok {
			r.commit(i, next)
		}
	}
	return false
}

// deadline returns the time at which the run is stopped, if its pipeline has a
// timeout.
func (pl *planner) deadline(run RunRecord) (time.Time, bool) {
	if pl.p.Conf == nil || pl.p.Conf.Timeout <= 0 {
		return time.Time{}, false
	}
	return run.Started.Add(time.Duration(pl.p.Conf.Timeout) * time.Second), true
}

// why says why the run was stopped.
func (r *round) why() string {
	if r.run.Stop == StopTimeout {
		return fmt.Sprintf("the run timed out after %v", time.Duration(r.p.Conf.Timeout)*time.Second)
	}
	return "the run was stopped"
}

func (r *round) stopping(i int) StopKind { return r.tasks[i].stopping(r.run.Stop) }

// stopping says how a task is to be stopped if the run is: StopGraceful,
// StopForce or, if it is not, "". The exit handler's runs when the rest was
// asked to end, too.
func (t *task) stopping(run StopKind) StopKind {
	switch {
	case run == "" || run == StopForce:
		return run
	case t.exit:
		return ""
	}
	return StopGraceful
}

func (r *round) commit(i int, next Record) {
	if r.decided == nil {
		r.decided = map[int]int{}
	}
	r.decided[i] = len(r.commits)
	r.commits = append(r.commits, next)
}

// record returns the record of a step as it will be after this round.
func (r *round) record(i int) *Record {
	if k, ok := r.decided[i]; ok {
		return &r.commits[k]
	}
	return &r.records[i]
}

// lastState returns the last state of a run whose steps have all ended.
func lastState(stop StopKind, records []Record) State {
	state := Succeeded
	for _, r := range records {
		switch r.State {
		case Cancelled:
			if stop != StopTimeout {
				return Cancelled
			}
			state = Failed
		case Skipped:
			if !r.ByChoice {
				state = Failed
			}
		case Failed, Unknown:
			state = Failed
		}
	}
	return state
}

// mind looks after an attempt in flight: whether it has to be started once
// more, or stopped, and when to look again.
func (r *round) mind(i int) {
	l := &r.lives[i]
	if l.errs > 0 && l.seen.Phase == 0 {
		switch {
		case l.next.After(r.now):
			r.wakeAt(l.next)
		case l.errs >= maxStartErrors || r.stopping(i) != "":
			r.verify = append(r.verify, i)
		default:
			r.start(i)
		}
		return
	}
	want, why := r.stopping(i), Stopped
	if want == "" && l.seen.Phase == PhaseRunning && r.tasks[i].step.Timeout != "" {
		set, err := r.settings(&r.tasks[i], r.records)
		if end := l.seen.Started.Add(set.timeout); err != nil || !end.After(r.now) {
			want, why = StopGraceful, TimedOut
		} else {
			r.wakeAt(end)
		}
	}
	switch {
	case want == "" || l.stopped == want || l.stopped == StopForce:
	case l.next.After(r.now):
		r.wakeAt(l.next)
	default:
		r.stops = append(r.stops, stop{i, want, why})
	}
}

// end returns the record of a task that has no attempt in flight and will have
// none, if so it is: it is skipped, cancelled, or one of its settings is wrong.
func (r *round) end(i int) (Record, bool) {
	t := &r.tasks[i]
	next := r.records[i]
	next.Finished = r.now
	next.NotBefore = time.Time{}
	v := r.needed(t.node)
	switch {
	case v.state == closed:
		next.State, next.Reason, next.ByChoice = Skipped, v.reason, true
	case v.state == hindered:
		next.State, next.Reason = Skipped, v.reason
	case r.stopping(i) != "":
		next.State, next.Reason = Cancelled, r.why()
	case v.state != passed:
		return next, false
	case t.fault != "":
		next.State, next.Reason = Failed, t.fault
	case t.stand || r.lives[i].queued:
		return next, false
	default:
		if _, err := r.settings(t, r.records); err == nil {
			return next, false
		} else {
			next.State, next.Reason = Failed, err.Error()
		}
	}
	return next, true
}

// begin starts the tasks that are ready, in the order of the script; that of
// the exit handler only if it is the last.
func (r *round) begin(last bool) {
	free := r.limits()
	for i := range r.records {
		t := &r.tasks[i]
		if r.records[i].State.Ended() || r.lives[i].inFlight() || t.stand {
			continue
		}
		if t.exit && !last || r.stopping(i) != "" || r.needed(t.node).state != passed {
			continue
		}
		switch {
		case r.records[i].NotBefore.After(r.now):
			r.wakeAt(r.records[i].NotBefore)
		case r.parallelism > 0 && r.inFlight >= r.parallelism || !free.take(t):
			if !r.lives[i].queued {
				r.queued = append(r.queued, i)
			}
		default:
			r.inFlight++
			r.start(i)
		}
	}
}

// limits are what the parallelism of loops and groups leaves free.
type limits struct {
	*planner
	begun  []bool         // rounds of loops that have begun
	active map[string]int // rounds that have begun and not ended, by loop
	used   []int          // tasks in flight, by group
}

func (r *round) limits() *limits {
	l := &limits{planner: r.planner}
	if len(r.rounds) == 0 && len(r.groups) == 0 {
		return l
	}
	l.begun, l.active, l.used = make([]bool, len(r.rounds)), map[string]int{}, make([]int, len(r.groups))
	open := make([]bool, len(r.rounds))
	for i, t := range r.tasks {
		rec := &r.records[i]
		for _, k := range t.rounds {
			l.begun[k] = l.begun[k] || r.lives[i].inFlight() || len(rec.Attempts) > 0
			open[k] = open[k] || !rec.State.Ended()
		}
		if r.lives[i].inFlight() {
			for _, g := range t.groups {
				l.used[g]++
			}
		}
	}
	for k, of := range r.rounds {
		if l.begun[k] && open[k] {
			l.active[of.loop]++
		}
	}
	return l
}

// take takes a place for a task, if all that it stands in have one free.
func (l *limits) take(t *task) bool {
	for _, k := range t.rounds {
		if of := l.rounds[k]; !l.begun[k] && l.active[of.loop] >= of.max {
			return false
		}
	}
	for _, g := range t.groups {
		if l.used[g] >= l.groups[g].max {
			return false
		}
	}
	for _, k := range t.rounds {
		if !l.begun[k] {
			l.begun[k] = true
			l.active[l.rounds[k].loop]++
		}
	}
	for _, g := range t.groups {
		l.used[g]++
	}
	return true
}

func (r *round) start(i int) {
	set, err := r.settings(&r.tasks[i], r.records)
	if err != nil {
		return // end has decided so
	}
	r.starts = append(r.starts, r.attempt(i, len(r.records[i].Attempts)+1, r.records, set))
}

// conclude returns the record of a step after its attempt has finished.
func (r *round) conclude(i int) Record {
	s, o := r.tasks[i].step, &r.lives[i].seen
	next := r.records[i]
	set, err := r.settings(&r.tasks[i], r.records)
	out := Outcome{
		ID: o.ID, Number: len(next.Attempts) + 1,
		Cause: o.Cause, ExitCode: o.ExitCode, Reason: o.Reason, Message: o.Message, Log: o.Log,
		Started: o.Started, Finished: o.Finished,
	}
	if out.Finished.IsZero() {
		out.Finished = r.now
	}
	if out.Cause == Stopped && r.stopping(i) == "" { // by a driver that could not commit why
		out.Cause, out.Reason = Lost, "stopped, though the run was not"
	}
	switch {
	case out.Cause == TimedOut && out.Reason == "":
		out.Reason = fmt.Sprintf("timed out after %v", set.timeout)
	case out.Cause == Exited && out.ExitCode == 0:
		for _, d := range r.outputs(s) {
			_, text := o.Outputs[d.Name]
			if _, file := o.Files[d.Name]; !text && !(d.File && (file || !d.Taken)) {
				out.Cause = BadOutput
				out.Reason = fmt.Sprintf("output %q was not collected", d.Name)
				break
			}
		}
	}
	if out.Reason == "" && (out.Cause != Exited || out.ExitCode != 0) {
		out.Reason = string(out.Cause)
		if out.Cause == Exited {
			out.Reason = fmt.Sprintf("exited with %d", out.ExitCode)
		}
	}
	next.Attempts = append(slices.Clip(next.Attempts), out)
	next.Reason = out.Reason
	next.NotBefore = time.Time{}
	next.Finished = out.Finished
	if next.Started.IsZero() {
		next.Started = out.Started
	}
	switch {
	case out.Cause == Exited && out.ExitCode == 0:
		next.State, next.Outputs, next.Files = Succeeded, o.Outputs, o.Files
	case out.Cause == Stopped:
		next.State, next.Reason = Cancelled, r.why()
	case err != nil: // the settings were right when it was started
		next.State, next.Reason = Failed, err.Error()
	default:
		again, when, note := set.retry(next.Attempts)
		if note != "" {
			next.Reason += "; " + note
		}
		switch {
		case again && r.stopping(i) != "":
			next.State, next.Reason = Cancelled, out.Reason+"; "+r.why()
		case again:
			next.State, next.NotBefore, next.Finished = Waiting, when, time.Time{}
		case out.Cause == Vanished || out.Cause == Lost && s.Once: // how far it came, nobody knows
			next.State = Unknown
		default:
			next.State = Failed
		}
	}
	return next
}
