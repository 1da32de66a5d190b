package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/terminal"
)

// This file draws a run: a line for each transition while it goes on, and a
// summary at its end.

// plainProgress writes a line with the time for each event of a run.
type plainProgress struct {
	mu      sync.Mutex
	w       io.Writer
	started map[string]time.Time // of the attempt that runs, by step
	said    string               // of the run, the last reason
}

func newPlainProgress(w io.Writer) *plainProgress {
	return &plainProgress{w: w, started: map[string]time.Time{}}
}

// event is an engine.Config.Events.
func (p *plainProgress) event(e engine.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	line := ""
	switch e.Kind {
	case engine.EventRun:
		if e.State == engine.Running && (e.Reason == "" || e.Reason == p.said) {
			return // the first line of the run has said so
		}
		p.said = e.Reason
		line = "run " + string(e.State)
	case engine.EventStep:
		line = e.Step + " " + string(e.State)
		switch {
		case e.State == engine.Running:
			p.started[e.Step] = e.Time
			if e.Attempt > 1 {
				line += fmt.Sprintf(" (attempt %d)", e.Attempt)
			}
		case !p.started[e.Step].IsZero() && e.State != engine.Pending && e.State != engine.Queued:
			line += " after " + duration(e.Time.Sub(p.started[e.Step]))
			delete(p.started, e.Step)
		}
	case engine.EventLog:
		line = e.Step + " | " + printable(e.Line)
	case engine.EventWarning:
		line = "warning"
		if e.Step != "" {
			line += ": " + e.Step
		}
	}
	if e.Reason != "" {
		line += ": " + e.Reason
	}
	fmt.Fprintf(p.w, "%s %s\n", e.Time.Local().Format("15:04:05"), line)
	if e.Message != "" && e.Kind != engine.EventLog {
		for l := range strings.Lines(e.Message) {
			fmt.Fprintf(p.w, "         %s\n", printable(strings.TrimSuffix(l, "\n")))
		}
	}
}

// printable returns a line without the characters that could steer the
// terminal; tabs stay.
func printable(line string) string {
	return terminal.Plain(strings.ReplaceAll(line, "\n", "\uFFFD"))
}

// duration returns a time as people say it: 0.3s, 12.5s, 4m03s, 1h02m.
func duration(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
	return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
}

// summary writes how the run ended, with a line for each step.
func summary(out io.Writer, name string, result *engine.Result) error {
	w := &strings.Builder{}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "STEP\tSTATE\tATTEMPTS\tTIME\tREASON")
	counts := map[engine.State]int{}
	for _, r := range result.Steps {
		counts[r.State]++
		took := "-"
		if !r.Started.IsZero() && !r.Finished.IsZero() {
			took = duration(r.Finished.Sub(r.Started))
		}
		fmt.Fprintf(tw, "%s\t%s\t%d\t%s\t%s\n", r.Step, r.State, len(r.Attempts), took, printable(r.Reason))
	}
	tw.Flush()
	for _, r := range result.Steps {
		lines := map[string]string{}
		for name, file := range r.Files {
			lines[name] = printable(file)
		}
		for name, text := range r.Outputs { // rather than the file of it
			lines[name] = short(text)
		}
		for _, name := range slices.Sorted(maps.Keys(lines)) {
			fmt.Fprintf(w, "%s: %s = %s\n", r.Step, name, lines[name])
		}
	}
	var parts []string
	for _, s := range []engine.State{engine.Succeeded, engine.Failed, engine.Unknown, engine.Skipped, engine.Cancelled} {
		if counts[s] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", counts[s], s))
		}
	}
	fmt.Fprintf(w, "run %s %s in %s: %s\n", name, result.State, duration(result.Finished.Sub(result.Started)), strings.Join(parts, ", "))
	_, err := io.WriteString(out, w.String())
	return err
}

// short returns the first line of an output, cut to what fits on one.
func short(text string) string {
	line, _, more := strings.Cut(text, "\n")
	runes := []rune(printable(line))
	if len(runes) > 80 {
		runes, more = runes[:80], true
	}
	if more {
		return string(runes) + "..."
	}
	return string(runes)
}

// tailLines is how many lines of its log a failed step shows.
const tailLines = 20

// failures writes, for each step that failed, why, where it stands in the
// script, and the last lines of its log.
func failures(w io.Writer, p *dag.Pipeline, root string, result *engine.Result, tail func(step string, n int) []string) {
	for _, r := range result.Steps {
		if r.State != engine.Failed && r.State != engine.Unknown {
			continue
		}
		var last engine.Outcome
		if n := len(r.Attempts); n > 0 {
			last = r.Attempts[n-1]
		}
		pos := ""
		if s := p.Step(r.Step); s != nil && s.Pos.IsValid() {
			pos = shown(root, s.Pos).String() + ": "
		}
		fmt.Fprintf(w, "\n%sstep %q %s: %s\n", pos, r.Step, r.State, printable(r.Reason))
		if last.Message != "" {
			fmt.Fprintln(w, indented(last.Message))
		}
		if last.Log == "" {
			continue
		}
		if lines := tail(r.Step, tailLines); len(lines) > 0 {
			fmt.Fprintf(w, "the end of its log, %s:\n%s\n", last.Log, indented(strings.Join(lines, "\n")))
		} else {
			fmt.Fprintf(w, "its log is empty: %s\n", last.Log)
		}
	}
}

func indented(text string) string {
	var b strings.Builder
	for l := range strings.Lines(text) {
		b.WriteString("  | " + printable(strings.TrimSuffix(l, "\n")) + "\n")
	}
	return strings.TrimSuffix(b.String(), "\n")
}
