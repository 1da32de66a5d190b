package dag

import (
	"errors"
	"slices"
	"strings"
)

// An Error is a fault of a pipeline, at its place in the script.
type Error struct {
	Pos  Pos    // zero if no place in the script is to blame
	Msg  string // what was found and what was wanted
	Hint string // what to do about it; may be "" or several lines
	Name string // of the step or group that it is about, or ""
}

// Error returns "file:line:col: msg"; the hint is left to whoever prints it.
func (e *Error) Error() string {
	if !e.Pos.IsValid() {
		return e.Msg
	}
	return e.Pos.String() + ": " + e.Msg
}

// Errors are faults found together.
type Errors []*Error

// Error returns a line for each fault.
func (es Errors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap gives errors.Is and errors.As each fault.
func (es Errors) Unwrap() []error {
	errs := make([]error, len(es))
	for i, e := range es {
		errs[i] = e
	}
	return errs
}

// Err returns the faults sorted by place, each once, or nil if there is none.
func (es Errors) Err() error {
	if len(es) == 0 {
		return nil
	}
	seen := make(map[Error]bool, len(es))
	var sorted Errors
	for _, e := range es {
		if !seen[*e] {
			seen[*e] = true
			sorted = append(sorted, e)
		}
	}
	slices.SortStableFunc(sorted, func(a, b *Error) int { return a.Pos.Compare(b.Pos) })
	return sorted
}

// Faults returns the faults that err holds, or nil if it is something else.
func Faults(err error) Errors {
	var all Errors
	if errors.As(err, &all) {
		return all
	}
	var one *Error
	if errors.As(err, &one) {
		return Errors{one}
	}
	return nil
}
