package engine

import (
	"fmt"
	"slices"
	"time"

	"github.com/kfs-project/kfs/dag"
)

// This file defines what a driver does next, given the facts.

// A planner holds what does not change during a run.
type planner struct {
	p           *dag.Pipeline
	run         RunInfo
	args        map[string]string // of all params, complete
	parallelism int

	index map[string]int // of the steps, by name
	order []int          // each step after those that it needs
	needs [][]int
}

func newPlanner(p *dag.Pipeline, run RunInfo, args map[string]string, parallelism int) (*planner, error) {
	pl := &planner{p: p, run: run, parallelism: parallelism, args: make(map[string]string, len(args)), index: map[string]int{}}
	for name, value := range args {
		pl.args[name] = dag.Expand(value, run.value) // a default may hold the run's id and name
	}
	order, err := p.Order()
	if err != nil {
		return nil, err
	}
	for i, s := range p.Steps {
		pl.index[s.Name] = i
	}
	for _, s := range order {
		pl.order = append(pl.order, pl.index[s.Name])
	}
	edges := p.Edges()
	for _, s := range p.Steps {
		var needs []int
		for _, name := range edges[s.Name] {
			j, ok := pl.index[name]
			if !ok {
				return nil, &dag.Error{Pos: s.Pos, Msg: fmt.Sprintf("step %q needs unknown step %q", s.Name, name)}
			}
			needs = append(needs, j)
		}
		pl.needs = append(pl.needs, needs)
	}
	return pl, nil
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
	done    bool      // all is over and committed
}

type stop struct {
	step int
	kind StopKind
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
	decided  map[int]int // the steps decided in this round, and where in commits
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
	ended := 0
	for _, i := range pl.order {
		switch l := &lives[i]; {
		case records[i].State.Ended():
			ended++
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
	}
	switch {
	case len(r.commits) > 0:
		r.starts = nil
	case ended == len(records):
		r.actions.run = &RunRecord{State: lastState(records), Stop: run.Stop, Started: run.Started, Finished: now}
	case run.Stop == "":
		r.begin()
	}
	return r.actions
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
func lastState(records []Record) State {
	state := Succeeded
	for _, r := range records {
		switch r.State {
		case Cancelled:
			return Cancelled
		case Failed, Skipped, Unknown:
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
		case l.errs >= maxStartErrors || r.run.Stop != "":
			r.verify = append(r.verify, i)
		default:
			r.start(i)
		}
		return
	}
	want := r.run.Stop
	if want == "" && l.seen.Phase == PhaseRunning && r.p.Steps[i].Timeout != "" {
		set, err := r.settings(r.p.Steps[i], r.records)
		if end := l.seen.Started.Add(set.timeout); err != nil || !end.After(r.now) {
			want = StopGraceful
		} else {
			r.wakeAt(end)
		}
	}
	switch {
	case want == "" || l.stopped == want || l.stopped == StopForce:
	case l.next.After(r.now):
		r.wakeAt(l.next)
	default:
		r.stops = append(r.stops, stop{i, want})
	}
}

// end returns the record of a step that has no attempt in flight and will have
// none, if so it is: it is skipped, cancelled, or one of its settings is wrong.
func (r *round) end(i int) (Record, bool) {
	next := r.records[i]
	next.Finished = r.now
	next.NotBefore = time.Time{}
	ready := true
	for _, j := range r.needs[i] {
		need := r.record(j)
		switch need.State {
		case Succeeded:
			_, new := r.decided[j]
			ready = ready && !new
			continue
		case Failed:
			next.Reason = fmt.Sprintf("step %q failed", need.Step)
		case Unknown:
			next.Reason = fmt.Sprintf("the outcome of step %q is unknown", need.Step)
		case Skipped:
			next.Reason = need.Reason
		default:
			ready = false
			continue
		}
		next.State = Skipped
		return next, true
	}
	if r.run.Stop != "" {
		next.State, next.Reason = Cancelled, "the run was stopped"
		return next, true
	}
	if ready && !r.lives[i].queued {
		if _, err := r.settings(r.p.Steps[i], r.records); err != nil {
			next.State, next.Reason = Failed, err.Error()
			return next, true
		}
	}
	return next, false
}

// begin starts the steps that are ready, in the order of the script.
func (r *round) begin() {
	for i := range r.records {
		if r.records[i].State.Ended() || r.lives[i].inFlight() || !r.ready(i) {
			continue
		}
		switch {
		case r.records[i].NotBefore.After(r.now):
			r.wakeAt(r.records[i].NotBefore)
		case r.parallelism > 0 && r.inFlight >= r.parallelism:
			if !r.lives[i].queued {
				r.queued = append(r.queued, i)
			}
		default:
			r.inFlight++
			r.start(i)
		}
	}
}

func (r *round) ready(i int) bool {
	for _, j := range r.needs[i] {
		if r.records[j].State != Succeeded {
			return false
		}
	}
	return true
}

func (r *round) start(i int) {
	set, err := r.settings(r.p.Steps[i], r.records)
	if err != nil {
		return // end has decided so
	}
	r.starts = append(r.starts, r.attempt(i, len(r.records[i].Attempts)+1, r.records, set.timeout))
}

// conclude returns the record of a step after its attempt has finished.
func (r *round) conclude(i int) Record {
	s, o := r.p.Steps[i], &r.lives[i].seen
	next := r.records[i]
	set, err := r.settings(s, r.records)
	out := Outcome{
		ID: o.ID, Number: len(next.Attempts) + 1,
		Cause: o.Cause, ExitCode: o.ExitCode, Reason: o.Reason, Message: o.Message, Log: o.Log,
		Started: o.Started, Finished: o.Finished,
	}
	if out.Finished.IsZero() {
		out.Finished = r.now
	}
	switch {
	case out.Cause == Stopped && r.run.Stop != "":
	case out.Cause == Stopped && set.timeout > 0 && out.Finished.Sub(out.Started) >= set.timeout:
		out.Cause, out.Reason = TimedOut, ""
	case out.Cause == Stopped: // by a driver that could not commit why
		out.Cause, out.Reason = Lost, "stopped, though the run was not"
	}
	switch {
	case out.Cause == TimedOut && out.Reason == "":
		out.Reason = fmt.Sprintf("timed out after %v", set.timeout)
	case out.Cause == Exited && out.ExitCode == 0:
		for _, d := range s.Outputs {
			if _, ok := o.Outputs[d.Name]; !ok {
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
		next.State, next.Outputs = Succeeded, o.Outputs
	case out.Cause == Stopped:
		next.State, next.Reason = Cancelled, "the run was stopped"
	case err != nil: // the settings were right when it was started
		next.State, next.Reason = Failed, err.Error()
	default:
		again, when, note := set.retry(next.Attempts)
		if note != "" {
			next.Reason += "; " + note
		}
		switch {
		case again && r.run.Stop != "":
			next.State, next.Reason = Cancelled, out.Reason+"; the run was stopped"
		case again:
			next.State, next.NotBefore, next.Finished = Waiting, when, time.Time{}
		case out.Cause == Vanished:
			next.State = Unknown
		default:
			next.State = Failed
		}
	}
	return next
}
