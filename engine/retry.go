package engine

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// This file decides whether an attempt that did not succeed is followed by
// another one.

const (
	maxNotStarted = 5 // attempts of a step that may be lost before they start, free of charge
	maxLost       = 3 // attempts of a step that the infrastructure may lose, if the step does not say
)

// policies are the causes that each retry policy pays for.
var policies = map[string][]Cause{
	"OnFailure":        {Exited, BadOutput, TimedOut},
	"OnError":          {CannotRun, NotStarted, Lost, Vanished},
	"OnTransientError": {NotStarted, Lost, Vanished},
	"Always":           {Exited, BadOutput, TimedOut, CannotRun, NotStarted, Lost, Vanished},
}

// retry says whether another attempt follows the last of attempts, not before
// when, and in a few words why or why not ("" if there was nothing to try).
func (set settings) retry(attempts []Outcome) (again bool, when time.Time, note string) {
	last := attempts[len(attempts)-1]
	var notStarted, lost, users int // of each budget, used up to the last attempt and by it
	free := false
	for _, o := range attempts {
		free = false
		switch o.Cause {
		case NotStarted:
			notStarted++
			free = notStarted <= maxNotStarted
		case Lost, Vanished:
			lost++
			free = lost <= set.lost
		}
		if !free {
			users++
		}
	}
	switch {
	case free && last.Cause == NotStarted:
		return true, last.Finished.Add(pause(notStarted)), fmt.Sprintf("start %d of at most %d", notStarted+1, maxNotStarted+1)
	case free:
		return true, last.Finished.Add(pause(lost)), fmt.Sprintf("retry %d of %d for lost attempts", lost, set.lost)
	case !slices.Contains(policies[set.policy], last.Cause) || set.limit == 0:
		return false, time.Time{}, ""
	case users > set.limit:
		return false, time.Time{}, fmt.Sprintf("after %d retries", set.limit)
	}
	wait := float64(set.backoff) * math.Pow(set.factor, float64(users-1))
	when = last.Finished.Add(time.Duration(min(wait, float64(math.MaxInt64/2))))
	first := attempts[0].Started
	if first.IsZero() {
		first = attempts[0].Finished
	}
	if set.maxBackoff > 0 && when.After(first.Add(set.maxBackoff)) {
		return false, time.Time{}, fmt.Sprintf("the next retry would begin later than %v after the start", set.maxBackoff)
	}
	return true, when, fmt.Sprintf("retry %d of %d", users, set.limit)
}

// pause is how long to wait after something went wrong for the n-th time.
func pause(n int) time.Duration {
	return min(time.Second<<min(n-1, 10), 30*time.Second)
}
