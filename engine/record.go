package engine

import (
	"context"
	"errors"
	"maps"
	"sync"
	"time"
)

// This file defines the committed facts of a run and their store.

// A State is the state of a step or of a run.
type State string

// The states. Of these a run has Running, Succeeded, Failed and Cancelled.
const (
	Waiting   State = "waiting"   // for its needs, or for the time of its next attempt
	Queued    State = "queued"    // ready, held back by a parallelism
	Pending   State = "pending"   // an attempt was started and does not run yet
	Running   State = "running"   // an attempt runs
	Succeeded State = "succeeded" // the last attempt exited with 0, its outputs are committed
	Failed    State = "failed"    // the last attempt did not, and there is no other
	Skipped   State = "skipped"   // not to be run, because a step that it needs did not succeed, or by choice
	Cancelled State = "cancelled" // ended or never begun, because the run was stopped
	Unknown   State = "unknown"   // begun, and nobody knows how it ended
)

// Ended reports whether the state is a last one.
func (s State) Ended() bool {
	switch s {
	case Succeeded, Failed, Skipped, Cancelled, Unknown:
		return true
	}
	return false
}

// A Record is what is committed about a step. Its State is Waiting, as long as
// the step may have another attempt, or one that has Ended; the states between
// are for those who watch.
type Record struct {
	Step     string            `json:"step"` // its name; in a loop or a further round of a graph, with the round: work[2], work~1
	State    State             `json:"state"`
	Reason   string            `json:"reason,omitempty"`
	ByChoice bool              `json:"byChoice,omitempty"` // Skipped because a condition did not hold or a list is empty: what needs it goes on
	Attempts []Outcome         `json:"attempts,omitempty"` // ended ones, in order
	Outputs  map[string]string `json:"outputs,omitempty"`  // if Succeeded, those that have a text
	Files    map[string]string `json:"files,omitempty"`    // if Succeeded, the places of those that are kept as files; see Observation

	NotBefore time.Time `json:"notBefore,omitzero"` // of the next attempt
	Started   time.Time `json:"started,omitzero"`   // the first attempt
	Finished  time.Time `json:"finished,omitzero"`  // when the state became a last one
}

// An Outcome is how an attempt ended.
type Outcome struct {
	ID       string    `json:"id"`
	Number   int       `json:"number"`
	Cause    Cause     `json:"cause"`
	ExitCode int       `json:"exitCode,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	Message  string    `json:"message,omitempty"`
	Log      string    `json:"log,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
}

// A RunRecord is what is committed about the run as a whole.
type RunRecord struct {
	State    State     `json:"state"` // "" before the first commit
	Stop     StopKind  `json:"stop,omitempty"`
	Started  time.Time `json:"started,omitzero"`
	Finished time.Time `json:"finished,omitzero"`
}

// A StopKind says how a run is to be stopped.
type StopKind string

// The kinds of stopping. None starts anything more, but for the exit handler,
// which only StopForce keeps from its start.
const (
	StopGraceful StopKind = "graceful" // ask the running attempts to end
	StopForce    StopKind = "force"    // end them at once
	StopTimeout  StopKind = "timeout"  // ask them to end, as the pipeline's time is over: then the run has failed
)

// Facts are all that is committed of a run.
type Facts struct {
	Run   RunRecord         `json:"run"`
	Steps map[string]Record `json:"steps"` // by Record.Step; those without a record are Waiting
}

// A Store keeps the committed facts of one run. The records that pass through
// it are not changed afterwards by either side.
type Store interface {
	// Claim makes the caller the driver of the run: it returns all that has
	// been committed and the epoch that the caller's commits carry. Commits
	// of earlier epochs fail from then on.
	Claim(ctx context.Context) (Facts, int64, error)

	// Commit keeps the records in place of those of the same steps; run is
	// nil if it has not changed. After an error all, some or none of the
	// records may have been kept, but run only together with all of them. The
	// error wraps ErrStale if the run has been claimed again since.
	Commit(ctx context.Context, epoch int64, run *RunRecord, steps []Record) error
}

// ErrStale is the error of a driver whose run another driver has claimed.
var ErrStale = errors.New("another driver has taken over this run")

// A MemStore is a Store in memory. The zero value is an empty one.
type MemStore struct {
	mu    sync.Mutex
	facts Facts
	epoch int64
}

// Claim implements Store.
func (m *MemStore) Claim(context.Context) (Facts, int64, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.epoch++
	return Facts{Run: m.facts.Run, Steps: maps.Clone(m.facts.Steps)}, m.epoch, nil
}

// Commit implements Store.
func (m *MemStore) Commit(_ context.Context, epoch int64, run *RunRecord, steps []Record) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if epoch != m.epoch {
		return ErrStale
	}
	if run != nil {
		m.facts.Run = *run
	}
	if m.facts.Steps == nil {
		m.facts.Steps = map[string]Record{}
	}
	for _, r := range steps {
		m.facts.Steps[r.Step] = r
	}
	return nil
}
