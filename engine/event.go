package engine

import (
	"fmt"
	"sync"
	"time"
)

// This file defines what a run tells those who watch it.

// An EventKind says what an Event is about.
type EventKind string

// The kinds of events.
const (
	EventRun     EventKind = "run"     // the run's state has changed
	EventStep    EventKind = "step"    // a step's state has changed
	EventLog     EventKind = "log"     // a step has written a line
	EventWarning EventKind = "warning" // something is wrong that the run may survive
)

// An Event is one thing that happened in a run. Fields that its kind has no
// use for are zero.
type Event struct {
	Time    time.Time `json:"time"`
	Kind    EventKind `json:"kind"`
	RunID   string    `json:"runID"`
	Step    string    `json:"step,omitempty"`
	Attempt int       `json:"attempt,omitempty"` // its number; 0 if there is none yet

	State   State             `json:"state,omitempty"`   // the new one
	Reason  string            `json:"reason,omitempty"`  // why, in a few words
	Message string            `json:"message,omitempty"` // more, perhaps in several lines
	Log     string            `json:"log,omitempty"`     // where the attempt's whole log is
	Outputs map[string]string `json:"outputs,omitempty"` // of a step that has succeeded, as of a Record
	Files   map[string]string `json:"files,omitempty"`
	Line    string            `json:"line,omitempty"` // of the log
}

// maxLines is how many lines of logs wait for a slow watcher. Those beyond are
// left out; the whole log stays where Event.Log says.
const maxLines = 10_000

// An emitter passes events on to a function that may be slow, in order.
type emitter struct {
	f       func(Event)
	wake    chan struct{}
	stopped chan struct{}

	mu      sync.Mutex
	events  []Event
	lines   int // of logs among events
	omitted int // lines since the last that was kept
	closed  bool
}

func newEmitter(f func(Event)) *emitter {
	e := &emitter{f: f, wake: make(chan struct{}, 1), stopped: make(chan struct{})}
	go e.run()
	return e
}

func (e *emitter) emit(ev Event) {
	if e.f == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if ev.Kind == EventLog {
		if e.lines >= maxLines {
			e.omitted++
			return
		}
		e.lines++
	}
	if e.omitted > 0 {
		e.events = append(e.events, Event{
			Time: ev.Time, Kind: EventWarning, RunID: ev.RunID,
			Reason: fmt.Sprintf("%d lines of logs are left out here", e.omitted),
		})
		e.omitted = 0
	}
	e.events = append(e.events, ev)
	select {
	case e.wake <- struct{}{}:
	default:
	}
}

func (e *emitter) run() {
	defer close(e.stopped)
	for range e.wake {
		e.mu.Lock()
		events, closed := e.events, e.closed
		e.events, e.lines = nil, 0
		e.mu.Unlock()
		for _, ev := range events {
			e.f(ev)
		}
		if closed {
			return
		}
	}
}

// close returns when all events have been passed on.
func (e *emitter) close() {
	e.mu.Lock()
	e.closed = true
	e.mu.Unlock()
	select {
	case e.wake <- struct{}{}:
	default:
	}
	<-e.stopped
}
