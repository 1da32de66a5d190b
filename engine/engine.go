// Package engine runs a pipeline, step by step, on any Executor.
//
//	Run          carries out one run; returns when it has ended
//	Executor     what a backend implements: starts and observes attempts
//	Store        keeps the committed facts of one run; MemStore does in memory
//	Attempt      what an executor is asked to start, all values filled in
//	Observation  what an executor saw of an attempt
//	Record       what is committed about a step: state, outcomes, outputs
//	Event        one thing that happened, for whoever watches
//
// A run is a loop around one pure function, plan, which takes the pipeline,
// the committed records, the latest observations and the time, and returns
// what to do: commit these records, start these attempts, stop those. Nothing
// is started because of a fact that has not been committed, and an attempt's
// ID follows from the run, the step and its number. So two drivers that hold
// the same facts name the same attempts, a driver that takes over after a
// crash goes on where the other one was, and an executor that starts an ID
// once starts each attempt once.
//
// A step whose needs have all succeeded is ready; ready steps start in the
// order of the script, as many at once as Config.Parallelism allows. If a step
// fails, the steps that need it, directly or not, are skipped, and the run
// goes on where it can. It has failed in the end if any step has.
//
// A step runs as often as the blocks around it say, each time as a task with a
// Record of its own: work[2] is the step work for the third item of a loop,
// count~1 the step count in the second round of a graph that calls itself, and
// count~1.2 if the second of its calls does so. If a step's block is not
// entered, as its condition does not hold or its list is empty, the step is
// skipped by choice: what needs the step or the block goes on. A block needs
// what any step in it needs from outside, and what needs a step in a block that
// it does not stand in needs the whole block. The parallelism of a loop is of
// rounds, that of another block of attempts. The tasks behind a list or call
// that only the run knows are made when it is known; until then a task with the
// plain name of the step stands for them. The step of an exit handler starts
// when all else has ended, whatever happened, and not if the run is ended by
// force.
//
// An attempt that did not succeed is followed by another one as its Cause and
// the step's Retry say; see Cause.
package engine

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"
	"time"

	"github.com/kfs-project/kfs/dag"
)

// This file defines what an executor is told and what it tells.

// A RunInfo says which run this is.
type RunInfo struct {
	ID   string            `json:"id"`   // unique; attempts are named after it
	Name string            `json:"name"` // for people; need not be unique
	Args map[string]string `json:"args,omitempty"`
}

// An Executor carries out attempts on one backend. Its methods may be called
// from several goroutines, and each returns soon: what takes long is done in
// the background and reported.
//
// The engine tolerates observations that are late, repeated, reordered or
// lost, as long as Observe tells the truth when it is called.
type Executor interface {
	// Check reports, as a dag.Errors, every reason known beforehand for which
	// a step of the pipeline could not run here. The args are complete. It is
	// called before anything is started.
	Check(ctx context.Context, p *dag.Pipeline, args map[string]string) error

	// Observe calls report for each attempt of the run that the executor
	// knows of, ended ones too, before it returns; from then on it reports
	// each change until ctx is done. An attempt is known from the moment that
	// Start has returned nil for it, to the end of the run. The engine calls
	// Observe first of all and again from time to time; each call takes the
	// place of the one before. The report function may be called from any
	// goroutine and does not block.
	Observe(ctx context.Context, run RunInfo, report func(Observation)) error

	// Start starts the attempt, unless one of this ID has been started
	// before: then it does nothing and returns nil. Within a run an ID always
	// comes with the same attempt. After an error the attempt may or may not
	// have been started; the engine calls Start again. What can be known to
	// go wrong every time is better reported as an observation (CannotRun).
	Start(ctx context.Context, a *Attempt) error

	// Stop asks the attempt to end: in good order and soon, by force if it
	// takes too long; or with force at once. The attempt is over when it is
	// observed to have finished: with the cause that is given, Stopped or
	// TimedOut, the first one if Stop is called again; or as it ended by itself
	// if it had before. Stopping an attempt that has ended or is not known does
	// nothing.
	Stop(ctx context.Context, id string, why Cause, force bool) error
}

// An Attempt is one execution of a step, with all run-time values filled in.
type Attempt struct {
	ID      string  `json:"id"` // see AttemptID
	RunID   string  `json:"runID"`
	RunName string  `json:"runName"`
	Step    string  `json:"step"`   // as in Record
	Number  int     `json:"number"` // from 1
	Pos     dag.Pos `json:"pos,omitzero"`

	// Container is a core/v1 Container without its name, and Volumes are
	// core/v1 Volumes. In the command, the arguments and the values of env,
	// those of Pod's containers too, $(NAME) stands for a variable and $$ for a
	// dollar sign, as the kubelet has it. Run-time values in them are written
	// so that they come out as they are.
	Container dag.Object   `json:"container,omitempty"`
	Volumes   []dag.Object `json:"volumes,omitempty"`
	Pod       dag.Pod      `json:"pod,omitzero"`

	// Resource is what is done to an object of the cluster, in place of
	// running a container; nil for most attempts.
	Resource *dag.Resource `json:"resource,omitempty"`

	// Template is the step as the script has it, with tokens for the values;
	// Fill fills a text of its container's command, arguments or env in. It is
	// for a backend that changes the author's own text and must leave values
	// alone. Nil is an attempt without values: the fields above are all there is.
	Template *dag.Step `json:"-"`
	fill     func(string) string

	Accelerator *dag.Accelerator `json:"accelerator,omitempty"` // devices that it needs; nil: none

	Artifacts []Artifact `json:"artifacts,omitempty"` // files to be there
	Outputs   []Output   `json:"outputs,omitempty"`   // to be collected; each must exist

	Once      bool   `json:"once,omitempty"` // as of dag.Conduct, as Primitive
	Primitive string `json:"primitive,omitempty"`

	// Timeout is the time from start to exit; 0 means none. The engine calls
	// Stop when it is over; a backend may enforce it too and report TimedOut.
	Timeout time.Duration `json:"timeout,omitempty"`

	// PendingTimeout is how long it may wait to be started; 0 leaves it to the
	// backend, which reports CannotRun when it is over.
	PendingTimeout time.Duration `json:"pendingTimeout,omitempty"`
}

// Fill returns a text of the Template's container with its values filled in,
// as Container has it.
func (a *Attempt) Fill(text string) string {
	if a.fill == nil {
		return text
	}
	return a.fill(text)
}

// AttemptID returns the ID of a step's attempt: at most 63 small letters,
// digits and hyphens, of which 16 are 64 bits of a hash of the run and step.
func AttemptID(runID, step string, number int) string {
	sum := sha256.Sum256([]byte(runID + "\x00" + step))
	prefix := strings.Trim(dag.K8sName(step[:min(len(step), 30)]), "-")
	return prefix + "-" + hex.EncodeToString(sum[:8]) + "-a" + strconv.Itoa(number)
}

// An Observation is what an executor saw of an attempt. It is a fact that
// stays true: the phase of an attempt only goes up, and whatever is said of a
// finished one is said alike each time.
type Observation struct {
	ID    string
	Phase Phase

	Started time.Time // when it began to run; zero if it has not or nobody knows

	// Of a finished attempt.
	Finished time.Time
	Cause    Cause
	ExitCode int // if Cause is Exited

	// Of one that exited with 0: for each output that it declares its text, but
	// for those with File that have none or too much; and the places where the
	// executor keeps the files, in a form of its own, if it can make Artifacts
	// of them: of those that are Taken it must. It keeps them for as long as the
	// run may be gone on with. It has seen that all outputs are there.
	Outputs map[string]string
	Files   map[string]string

	// Reason is why it is in this phase, in a few words ("exited with 3",
	// "image cannot be pulled"); "" is a phase that needs no reason. Message
	// tells more, perhaps in several lines. Log is where its whole log is.
	Reason  string
	Message string
	Log     string

	// Lines are lines of the log, without their ends, that have not been
	// reported before. They are passed on to Config.Events and are no facts:
	// Observe does not repeat them. An observation of lines alone has Phase 0.
	Lines []string
}

// A Phase is how far an attempt has come.
type Phase int

// The phases, in their order.
const (
	PhasePending  Phase = 1 + iota // accepted; not yet running
	PhaseRunning                   // its command runs
	PhaseFinished                  // nothing of it runs any more
)

// A Cause says how an attempt ended, and so which budget pays for another one:
// the step's own Retry, or the infrastructure's, which a step has apart from it.
//
//	Exited      OnFailure, if the code is not 0
//	BadOutput   OnFailure
//	TimedOut    OnFailure
//	CannotRun   OnError
//	NotStarted  free, at most 5 times; from then on OnError, OnTransientError
//	Lost        infrastructure, 3 times or as many as the step says; from then
//	            on OnError, OnTransientError
//	Vanished    as Lost, but the step's last state is unknown, not failed; so is
//	            that of a step which is to run once and is Lost
//	Stopped     never: the step is cancelled; if the run knows of no stop, it is
//	            Lost
//
// The policy Always pays for all of these but Stopped. The infrastructure's
// retries, and the free ones, wait 1 s, 2 s, 4 s and so on.
type Cause string

// The causes.
const (
	Exited     Cause = "exited"      // the command ended, with an exit code
	BadOutput  Cause = "bad output"  // it exited with 0, but an output is missing or cannot be used
	TimedOut   Cause = "timed out"   // it was ended because its time was over
	Stopped    Cause = "stopped"     // it ended, however, after Stop had reached it
	CannotRun  Cause = "cannot run"  // it was not started, and never can be as it is
	NotStarted Cause = "not started" // it was not started, by no fault of its own
	Lost       Cause = "lost"        // it was started, and ended by no fault of its own
	Vanished   Cause = "vanished"    // it was started, and nobody knows how it ended
)
