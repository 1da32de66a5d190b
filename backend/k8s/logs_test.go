package k8s

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// A logLine is one of a container's log, as a kubelet prints it.
type logLine struct {
	nanos int // after lookAt
	text  string
}

// printLog returns lines as a kubelet does, from a time on: the time to the
// nanosecond in front of each.
func printLog(lines []logLine, from time.Time) string {
	var b strings.Builder
	for _, l := range lines {
		if now := lookAt.Add(time.Duration(l.nanos)); !now.Before(from) {
			fmt.Fprintf(&b, "%s %s\n", now.Format("2006-01-02T15:04:05.000000000Z07:00"), l.text)
		}
	}
	return b.String()
}

var errCut = errors.New("cut")

// A cutReader ends with an error, in pieces as a network brings them.
type cutReader struct {
	text string
	err  error
}

func (r *cutReader) Read(p []byte) (int, error) {
	if r.text == "" {
		return 0, r.err
	}
	n := copy(p, r.text[:1+rand.IntN(len(r.text))])
	r.text = r.text[n:]
	return n, nil
}

// readAll passes a log on by a follower, whose streams are cut after so many
// bytes each, and returns what it passes.
func readAll(log []logLine, cuts ...int) []string {
	f := newFollower(func() {})
	var got []string
	pass := func(lines []string) { got = append(got, lines...) }
	for i, cut := range cuts {
		text := printLog(log, f.from())
		f.read(&cutReader{text[:min(cut, len(text))], []error{errCut, io.EOF}[i%2]}, pass)
	}
	f.read(&cutReader{printLog(log, f.from()), io.EOF}, pass)
	if rest, ok := f.split.Rest(); ok {
		got = append(got, rest)
	}
	return got
}

func textsOf(log []logLine) []string {
	var texts []string
	for _, l := range log {
		texts = append(texts, l.text)
	}
	return texts
}

// TestFollowerCut cuts the stream of a log everywhere: each line is passed on
// once, whole and in its place.
func TestFollowerCut(t *testing.T) {
	const s = int(time.Second)
	log := []logLine{
		{1, "one"}, {2, ""}, {3, "three"}, {3, "three"}, {3, "three as well"}, // of one nanosecond
		{s - 1, "before the second"}, {s, "on the second"}, {s + 5, "grüße"}, {s + 4, "of the other stream, and written later"}, {s + 5, "as grüße"},
		{4 * s, "later"}, {4*s - 7, "of the other stream"}, {90 * s, "much later"}, {90 * s, "much later"},
	}
	want := textsOf(log)
	whole := len(printLog(log, time.Time{}))
	for cut := range whole + 1 {
		if got := readAll(log, cut); !slices.Equal(got, want) {
			t.Fatalf("cut after %d bytes: got  %q\nwant %q", cut, got, want)
		}
		if got := readAll(log, cut, 40, 0, 75); !slices.Equal(got, want) {
			t.Fatalf("cut after %d bytes, and again: got  %q\nwant %q", cut, got, want)
		}
	}
}

// TestFollowerLongLine cuts a line that comes in pieces.
func TestFollowerLongLine(t *testing.T) {
	log := []logLine{{1, "short"}, {2, strings.Repeat("long ", 9000)}, {3, "end"}}
	for _, cuts := range [][]int{nil, {20000}, {45000}, {36 + maxLine}, {100, 30000, 29000}, {31, 60, 44000, 44000}} {
		got := readAll(log, cuts...)
		if text := strings.Join(got[1:len(got)-1], ""); got[0] != "short" || got[len(got)-1] != "end" || text != log[1].text {
			t.Errorf("cut at %v: the line of %d bytes became %d lines with %d bytes, between %q and %q", cuts, len(log[1].text), len(got)-2, len(text), got[0], got[len(got)-1])
		}
		for _, line := range got {
			if len(line) > maxLine {
				t.Errorf("cut at %v: a piece has %d bytes; want at most %d", cuts, len(line), maxLine)
			}
		}
	}
}

// TestFollowerFromBeginning reads a log from its beginning each time, as a
// server does that knows no since.
func TestFollowerFromBeginning(t *testing.T) {
	var log []logLine
	for i := range 200 {
		log = append(log, logLine{i * int(time.Second) / 10, fmt.Sprint(i)})
	}
	f := newFollower(func() {})
	var got []string
	for n := range 5 {
		f.read(&cutReader{printLog(log[:(n+1)*40], time.Time{}), io.EOF}, func(lines []string) { got = append(got, lines...) })
	}
	if want := textsOf(log); !slices.Equal(got, want) {
		t.Errorf("got %d lines, from %q on; want %d", len(got), got[:min(len(got), 50)], len(want))
	}
}

// TestFollowerRandom cuts long logs of two streams at random.
func TestFollowerRandom(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var log []logLine
		now := 0
		for i := range 300 {
			now += rng.IntN(50) * rng.IntN(2) * int(time.Millisecond) * rng.IntN(10)
			log = append(log, logLine{max(now-rng.IntN(3)*int(time.Millisecond), 0), strings.Repeat("x", rng.IntN(50)) + fmt.Sprint(i)})
		}
		var cuts []int
		for range rng.IntN(20) {
			cuts = append(cuts, rng.IntN(6000))
		}
		if got, want := readAll(log, cuts...), textsOf(log); !slices.Equal(got, want) {
			t.Fatalf("seed %d: got %d lines; want %d", seed, len(got), len(want))
		}
	}
}

// TestFollowerTold shows what is no line of the log.
func TestFollowerTold(t *testing.T) {
	f := newFollower(func() {})
	var got []string
	pass := func(lines []string) { got = append(got, lines...) }
	text := printLog([]logLine{{1, "one"}, {2, "two"}}, time.Time{})
	f.read(strings.NewReader(text+"unable to retrieve container logs for containerd://8cd1"), pass)
	f.read(strings.NewReader("failed to try resolving symlinks in path \"/var/log/pods/x\"\n"), pass)
	f.read(strings.NewReader(text), pass)
	if rest, ok := f.split.Rest(); ok {
		got = append(got, rest)
	}
	if want := []string{"one", "two"}; !slices.Equal(got, want) {
		t.Errorf("got %q; want %q", got, want)
	}
}

// TestFollowerLive shows that lines are passed on as they come.
func TestFollowerLive(t *testing.T) {
	reader, writer := io.Pipe()
	passed := make(chan []string)
	done := make(chan error, 1)
	go func() { done <- newFollower(func() {}).read(reader, func(lines []string) { passed <- lines }) }()
	for i := range 3 {
		io.WriteString(writer, printLog([]logLine{{i, fmt.Sprint(i)}}, time.Time{}))
		if got := <-passed; !slices.Equal(got, []string{fmt.Sprint(i)}) {
			t.Errorf("got %q; want line %d", got, i)
		}
	}
	writer.CloseWithError(errCut)
	if err := <-done; !errors.Is(err, errCut) {
		t.Errorf("error %v; want that of the stream", err)
	}
}
