package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
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

	mu    sync.Mutex
	order []string // parts in the order in which they began
	parts map[string]parts.Progress
	last  time.Time
	shown string
}

func newProgress(w io.Writer) *progress {
	f, ok := w.(*os.File)
	return &progress{
		w:        w,
		terminal: ok && term.IsTerminal(int(f.Fd())),
		parts:    map[string]parts.Progress{},
		last:     time.Now(),
	}
}

// building shows how far the build of a part is, beside the others.
func (p *progress) building(now parts.Progress) {
	p.mu.Lock()
	before, known := p.parts[now.Part]
	if !known {
		p.order = append(p.order, now.Part)
	}
	p.parts[now.Part] = now
	line := p.line()
	p.mu.Unlock()
	if now.Done && !before.Done && !p.terminal {
		fmt.Fprintf(p.w, "built %s in %.0f s\n", now.Part, now.Took.Seconds())
	}
	p.show(line)
}

// line is what is shown of all parts.
func (p *progress) line() string {
	var parts []string
	for _, name := range p.order {
		now := p.parts[name]
		switch {
		case now.Done:
			parts = append(parts, name+" done")
		default:
			parts = append(parts, fmt.Sprintf("%s %d of %d packages", name, now.Built, now.Total))
		}
	}
	return "building " + strings.Join(parts, ", ")
}

// show shows a line, in place of the one shown before where that can be.
func (p *progress) show(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
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
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.terminal && p.shown != "" {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
	p.shown = ""
}
