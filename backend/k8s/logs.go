package k8s

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"maps"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/lines"
)

// This file passes the logs of steps on.

const (
	maxLine  = 16 << 10         // bytes of a line; longer ones come in pieces
	flushFor = 10 * time.Second // how long the end of a log is waited for
)

// A follower passes the log of one container on. A log may be read again from
// an earlier place, as the stream was cut: each line has its time in front, to
// the nanosecond, and what was passed on is passed over. Lines that stand close
// together may not be in the order of their times, as a container has two
// streams.
type follower struct {
	cancel context.CancelFunc
	done   chan struct{} // closed when the stream is not read any more

	latest time.Time     // of all lines
	passed map[int64]int // lines that were passed on, by their times, since from
	at     time.Time     // of the line in progress
	part   int           // bytes of it that were read
	split  lines.Splitter
}

func newFollower(cancel context.CancelFunc) *follower {
	return &follower{cancel: cancel, done: make(chan struct{}), passed: map[int64]int{}, split: lines.Splitter{Max: maxLine}}
}

// from returns from when on a log is to be read once more: a time in whole
// seconds, as the API has it; zero is the beginning.
func (f *follower) from() time.Time {
	if f.latest.IsZero() {
		return f.latest
	}
	return f.latest.Truncate(time.Second).Add(-time.Second)
}

// followLog passes the lines of an attempt on as it writes them, if not too
// many logs are followed already.
func (r *Run) followLog(a *attempt) {
	r.at.Lock()
	defer r.at.Unlock()
	if a.log != nil || a.concluded || r.follow == nil {
		return
	}
	select {
	case r.follow <- struct{}{}:
	default:
		return
	}
	ctx, cancel := context.WithCancel(r.ctx)
	f := newFollower(cancel)
	a.log = f
	r.working.Go(func() {
		defer func() { <-r.follow }()
		defer close(f.done)
		for n := 0; ; n++ {
			before := f.latest
			err := r.readLog(ctx, a, f, true)
			r.at.Lock()
			ended := a.seen.ended || a.gone
			r.at.Unlock()
			if ended || ctx.Err() != nil {
				return // flushLog reads the rest
			}
			if f.latest.After(before) {
				n = 0
			}
			if sleep(ctx, max(backoff(n, err), time.Duration(min(n, 10))*time.Second)) != nil {
				return
			}
		}
	})
}

// flushLog passes on what is left of a log whose container has ended. The
// stream would end a second later.
func (r *Run) flushLog(ctx context.Context, a *attempt) {
	r.at.Lock()
	f := a.log
	if f == nil && r.follow != nil && a.pod != "" {
		select {
		case r.follow <- struct{}{}: // it ended before it was seen to run
			f = newFollower(func() {})
			a.log = f
			close(f.done)
			defer func() { <-r.follow }()
		default:
		}
	}
	r.at.Unlock()
	if f == nil {
		return
	}
	f.cancel()
	<-f.done
	ctx, cancel := context.WithTimeout(ctx, flushFor)
	defer cancel()
	for n := range 3 { // what cannot be read any more is lost, as the pod or its node is
		if err := r.readLog(ctx, a, f, false); err == nil || apierrors.IsNotFound(err) || sleep(ctx, backoff(n, err)) != nil {
			break
		}
	}
	if rest, ok := f.split.Rest(); ok {
		r.tell(a, engine.Observation{Lines: []string{rest}})
	}
}

// readLog passes the lines of a log on, until it ends.
func (r *Run) readLog(ctx context.Context, a *attempt, f *follower, follow bool) error {
	opts := &corev1.PodLogOptions{Container: mainContainer, Follow: follow, Timestamps: true}
	if from := f.from(); !from.IsZero() {
		since := metav1.NewTime(from)
		opts.SinceTime = &since
	}
	stream, err := r.cluster.core.Get().Namespace(r.cluster.Namespace).Resource("pods").Name(a.pod).SubResource("log").
		VersionedParams(opts, parameterCodec()).Stream(ctx)
	if err != nil {
		return err
	}
	defer stream.Close()
	return f.read(stream, func(lines []string) { r.tell(a, engine.Observation{Lines: lines}) })
}

// read passes the lines of a stream on, whose lines begin with their times.
// What the node says of itself in place of a log has none, and is left out.
func (f *follower) read(stream io.Reader, pass func([]string)) error {
	b := bufio.NewReaderSize(stream, 64<<10)
	var batch []string
	from, old := f.from(), maps.Clone(f.passed)
	at, part := f.at, f.part // of the line that was in progress
	skip := 0                // bytes of this line to pass over
	passing := true          // whether this line is passed on
	beginning := true        // whether what comes next begins a line
	flush := func() {
		if len(batch) > 0 {
			pass(batch)
			batch = nil
		}
	}
	for {
		if b.Buffered() == 0 {
			flush()
		}
		text, err := b.ReadSlice('\n')
		if beginning && len(text) > 0 {
			var now time.Time
			now, text, passing = cutTime(text)
			skip = 0
			switch nano := now.UnixNano(); {
			case !passing:
			case now.Before(from):
				passing = false
			case old[nano] > 0:
				old[nano]--
				passing = false
			case part > 0 && now.Equal(at):
				skip, part = part, 0
			default:
				if f.part > 0 { // its end will not come any more
					rest, _ := f.split.Rest()
					batch = append(batch, rest)
				}
				f.at, f.part = now, 0
			}
		}
		whole := len(text) > 0 && text[len(text)-1] == '\n'
		if passing && len(text) > 0 {
			n := min(skip, len(text))
			skip -= n
			batch = append(batch, f.split.Add(text[n:])...)
			if f.part += len(text) - n; whole {
				f.part = 0
				f.note(f.at)
			}
		}
		if len(text) > 0 {
			beginning = whole
		}
		if len(batch) >= 1000 {
			flush()
		}
		if err != nil && err != bufio.ErrBufferFull {
			flush()
			if err == io.EOF {
				return nil
			}
			return err
		}
	}
}

// cutTime takes the time off the beginning of a line. Ok is false if it has
// none.
func cutTime(line []byte) (at time.Time, rest []byte, ok bool) {
	stamp, rest, found := bytes.Cut(line, []byte(" "))
	at, err := time.Parse(time.RFC3339Nano, string(stamp))
	if !found || err != nil {
		return at, line, false
	}
	return at, rest, true
}

// note notes a line that was passed on.
func (f *follower) note(at time.Time) {
	f.passed[at.UnixNano()]++
	if !at.After(f.latest) {
		return
	}
	before := f.from()
	f.latest = at
	if from := f.from(); from.After(before) {
		maps.DeleteFunc(f.passed, func(at int64, _ int) bool { return at < from.UnixNano() })
	}
}

// tailOf returns the last lines of a pod's log.
func (r *Run) tailOf(ctx context.Context, pod string, n int) []string {
	count, bytes := int64(n), int64(256<<10)
	opts := &corev1.PodLogOptions{Container: mainContainer, TailLines: &count, LimitBytes: &bytes}
	text, err := r.cluster.core.Get().Namespace(r.cluster.Namespace).Resource("pods").Name(pod).SubResource("log").
		VersionedParams(opts, parameterCodec()).Do(ctx).Raw()
	if err != nil || len(text) == 0 {
		return nil
	}
	tail := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for i := range tail {
		tail[i] = lines.Text([]byte(tail[i]))
	}
	return tail
}
