package main

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

	"github.com/kfs-project/kfs/test/cluster/parts"
)

// This file shows how far a start is: in one line that is redrawn on a
// terminal, else in lines at an interval.

// quiet is how long a log that is no terminal goes without a line.
const quiet = 20 * time.Second

type progress struct {
	w        io.Writer
	terminal bool
	last     time.Time
	shown    string
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	return &progress{
		w:        w,
		terminal: ok && term.IsTerminal(int(f.Fd())),
		last:     time.Now(),
	}
}

// building shows how far the build of the parts is.
func (p *progress) building(now parts.Progress) {
	switch {
	case now.Done:
		p.end()
		fmt.Fprintf(p.w, "built the parts of a cluster in %v\n", now.Took.Round(time.Second))
	case now.Total == 0:
		p.show("building the parts of a cluster, which takes minutes the first time: fetching modules")
	default:
		p.show(fmt.Sprintf("building the parts of a cluster: %d of at most %d packages after %v", now.Built, now.Total, now.Took.Round(time.Second)))
	}
}

// show shows a line, in place of the one shown before where that can be.
func (p *progress) show(line string) {
	if line == p.shown {
		return
	}
	switch {
	case p.terminal:
		fmt.Fprintf(p.w, "\r\x1b[K%s", clip(line, p.w))
	case time.Since(p.last) < quiet:
		return
	default:
		fmt.Fprintln(p.w, line)
	}
	p.shown, p.last = line, time.Now()
}

// clip shortens a line to the terminal's width, so that it can be redrawn.
func clip(line string, w io.Writer) string {
	if f, ok := w.(*os.File); ok {
		if width, _, err := term.GetSize(int(f.Fd())); err == nil && len(line) > width-1 && width > 1 {
			return line[:width-1]
		}
	}
	return line
}

// end removes the line that is shown.
func (p *progress) end() {
	if p.terminal && p.shown != "" {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.shown = ""
}
