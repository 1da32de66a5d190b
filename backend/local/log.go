package local

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/lines"
)

// This file passes the logs on. A process writes to its log file directly, so
// that it never waits for whoever reads, and whatever holds the file open
// after its end keeps nobody waiting.

const (
	followEvery = 50 * time.Millisecond
	maxBehind   = 4 << 20 // bytes of a log that are passed on at once; what is before them is left out
)

// A follower reads a log as it grows.
type follower struct {
	mu     sync.Mutex
	file   *os.File
	offset int64
	lines.Splitter
}

// follow reports the lines of all logs, until Close.
func (x *Executor) follow() {
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-x.ended:
			return
		case <-tick.C:
		}
		var active []*attempt
		x.mu.Lock()
		for _, a := range x.latest {
			if a.last.Phase == engine.PhaseRunning {
				active = append(active, a)
			}
		}
		x.mu.Unlock()
		for _, a := range active {
			a.report(false)
		}
	}
}

// report reports the lines that the log has got since the last call.
func (a *attempt) report(last bool) {
	a.tail.mu.Lock()
	defer a.tail.mu.Unlock()
	a.tail.read(a.log, last, func(lines []string) {
		a.x.tell(a, engine.Observation{Lines: lines})
	})
}

// read calls f for the lines that are new in the log. If it is the last time,
// what is left without an end is a line too.
func (t *follower) read(log string, last bool, f func([]string)) {
	if t.file == nil {
		info, err := os.Stat(log)
		if err != nil || info.Size() == 0 {
			return
		}
		if t.file, err = os.Open(log); err != nil {
			return
		}
	}
	if info, err := t.file.Stat(); err == nil && info.Size()-t.offset > maxBehind {
		skip := info.Size() - t.offset - maxBehind
		t.offset += skip
		t.Rest()
		f([]string{fmt.Sprintf("[%d bytes of the log are left out here]", skip)})
	}
	buf := make([]byte, 64<<10)
	for read := 0; read < 2*maxBehind; { // a process may write faster
		n, err := t.file.ReadAt(buf, t.offset)
		t.offset += int64(n)
		read += n
		if lines := t.Add(buf[:n]); len(lines) > 0 {
			f(lines)
		}
		if err != nil {
			if err != io.EOF {
				f([]string{fmt.Sprintf("[the log cannot be read: %v]", err)})
			}
			break
		}
	}
	if last {
		if rest, ok := t.Rest(); ok {
			f([]string{rest})
		}
		t.file.Close()
		t.file = nil
	}
}

// tail returns the last lines of a file, at most n, of its last 256 KiB.
func tail(file string, n int) []string {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || info.Size() == 0 || n <= 0 {
		return nil
	}
	const most = 256 << 10
	from := max(0, info.Size()-most)
	text := make([]byte, info.Size()-from)
	k, _ := f.ReadAt(text, from)
	all := strings.Split(strings.TrimSuffix(string(text[:k]), "\n"), "\n")
	if from > 0 && len(all) > 1 {
		all = all[1:] // it may begin in the middle
	}
	all = all[max(0, len(all)-n):]
	for i := range all {
		all[i] = lines.Text([]byte(all[i]))
	}
	return all
}
