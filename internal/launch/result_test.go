package launch

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

func fileOf(data string) File {
	sum := sha256.Sum256([]byte(data))
	return File{Size: int64(len(data)), SHA256: sum[:], Data: []byte(data)}
}

// noise returns text that cannot be compressed much.
func noise(n int) string {
	random := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(' ' + random.IntN(95))
	}
	return string(b)
}

var results = []Result{
	{},
	{ExitCode: 3},
	{ExitCode: 143, Signal: 15},
	{ExitCode: ExitOutputs, Fault: BadOutput, Reason: `output "x" was not written: the step must leave a file at /p`},
	{Texts: map[string]string{"a": "", "b": "grüße, 世界\n\n", "c d": "\x01\u2028<&>"}},
	{Files: map[string]File{"empty": fileOf(""), "f": fileOf("a\x00b\xff"), "stored": {Tar: true, Size: 5 << 30, SHA256: make([]byte, 32), Stored: true}}},
	{Rest: &Rest{Bytes: 70000, SHA256: make([]byte, 32)}},
}

func TestFrame(t *testing.T) {
	for _, r := range results {
		frame, ok := r.frame()
		if !ok {
			t.Errorf("%+v: has no room in a frame", r)
		}
		got, err := ParseFrame(frame)
		if err != nil {
			t.Errorf("ParseFrame(%q) = %v", frame, err)
			continue
		}
		if again, _ := got.frame(); again != frame {
			t.Errorf("ParseFrame(%q) = %+v; want %+v", frame, got, r)
		}
	}
}

// TestFrameCut shows that nothing is taken of a message that was cut, at either
// end, or has more in it than a frame.
func TestFrameCut(t *testing.T) {
	for _, r := range append(results, Result{Texts: map[string]string{"x": noise(1200)}}) {
		frame, _ := r.frame()
		for n := range len(frame) {
			for _, cut := range []string{frame[:n], frame[n+1:], frame[:n] + frame[n+1:]} {
				if got, err := ParseFrame(cut); !errors.Is(err, ErrNoFrame) && !errors.Is(err, ErrDamaged) {
					t.Fatalf("ParseFrame(%q) = %+v, %v; want an error", cut, got, err)
				}
			}
			changed := []byte(frame)
			changed[n] ^= 1
			if got, err := ParseFrame(string(changed)); err == nil {
				t.Fatalf("ParseFrame(%q) = %+v; want an error", changed, got)
			}
		}
		for _, more := range []string{frame + "\n", frame + frame, " " + frame, "log\n" + frame, frame + "A"} {
			if got, err := ParseFrame(more); err == nil {
				t.Errorf("ParseFrame(%q) = %+v; want an error", more, got)
			}
		}
	}
	for _, tt := range []struct {
		message string
		want    error
	}{
		{"", ErrNoFrame}, {"killed\n", ErrNoFrame}, {"kfs1", ErrNoFrame}, {"kfs2:0:00000000:", ErrNoFrame},
		{"kfs1:", ErrDamaged}, {"kfs1:0:00000000:", ErrDamaged}, {seal("!"), ErrDamaged}, {seal("AAAA"), ErrDamaged},
		{sealed(map[string]any{"exit": "x"}), ErrDamaged},
		{sealed(Result{Texts: map[string]string{"a": "\x00"}}), ErrDamaged},
		{sealed(Result{Files: map[string]File{"a": {Size: 3, SHA256: make([]byte, 32)}}}), ErrDamaged},
		{sealed(Result{Files: map[string]File{"a": {Stored: true, SHA256: []byte("short")}}}), ErrDamaged},
		{sealed(Result{Reason: strings.Repeat("x", 1<<20)}), ErrDamaged}, // small as a frame, and too large
	} {
		if _, err := ParseFrame(tt.message); !errors.Is(err, tt.want) {
			t.Errorf("ParseFrame(%.100q) = %v; want %v", tt.message, err, tt.want)
		}
	}
}

func sealed(v any) string {
	packed, _ := pack(v)
	return seal(base64.RawURLEncoding.EncodeToString(packed))
}

func FuzzParseFrame(f *testing.F) {
	for _, r := range results {
		frame, _ := r.frame()
		f.Add(frame, uint16(0), uint16(len(frame)/2))
	}
	f.Fuzz(func(t *testing.T, message string, from, to uint16) {
		r, err := ParseFrame(message)
		if err != nil {
			return
		}
		if from := int(from) % len(message); from > 0 {
			if got, err := ParseFrame(message[from:]); err == nil {
				t.Errorf("without its first %d bytes it is %+v", from, got)
			}
		}
		if got, err := ParseFrame(message[:int(to)%len(message)]); err == nil {
			t.Errorf("its first %d bytes are %+v", int(to)%len(message), got)
		}
		frame, _ := r.frame()
		again, err := ParseFrame(frame)
		if err != nil {
			t.Fatalf("ParseFrame(%q) = %+v; written and read again %v", message, r, err)
		}
		if last, _ := again.frame(); last != frame {
			t.Errorf("ParseFrame(%q) = %+v; written and read again %+v", message, r, again)
		}
	})
}

func TestMustFrame(t *testing.T) {
	r := Result{ExitCode: ExitOutputs, Fault: Lost, Reason: "kfs-io: " + strings.Repeat("ä"+noise(100), 90)}
	got, err := ParseFrame(r.mustFrame())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(r.Reason, got.Reason) || len(got.Reason) < 500 || got.Fault != Lost || len(r.mustFrame()) > maxFrame {
		t.Errorf("of a reason of %d bytes came back %q", len(r.Reason), got.Reason)
	}
}

// rest returns a result that has its outputs in a log, and that log.
func rest(o outputs) (Result, string) {
	packed, _ := pack(o)
	sum := sha256.Sum256(packed)
	var log bytes.Buffer
	printRest(&log, packed)
	return Result{Rest: &Rest{Bytes: len(packed), SHA256: sum[:]}}, log.String()
}

func TestReadLog(t *testing.T) {
	o := outputs{
		Texts: map[string]string{"long": noise(100_000), "control": strings.Repeat("\x01", 200_000), "empty": ""},
		Files: map[string]File{"f": fileOf(noise(60_000)), "empty": fileOf("")},
	}
	whole, log := rest(o)
	_, other := rest(outputs{Texts: map[string]string{"long": noise(70_000)}})
	lines := strings.SplitAfter(log, "\n")
	lines = lines[:len(lines)-1]
	n := len(lines)
	join := func(lines ...string) string { return strings.Join(lines, "") }
	swapped := append([]string{}, lines...)
	swapped[3], swapped[4] = swapped[4], swapped[3]
	for _, line := range lines {
		if len(line) > 8<<10 {
			t.Fatalf("a line has %d bytes", len(line))
		}
	}
	for _, tt := range []struct {
		name, log string
		want      string // "" if it can be read
	}{
		{"whole", log, ""},
		{"twice", log + log, ""},
		{"cut, then whole", join(lines[:n/2]...) + log, ""},
		{"behind other lines", "starting\nkfs1:\n" + other + strings.Repeat("y", 100<<10) + "\n" + log, ""},
		{"between other lines", strings.Join(lines, "kfs-io: retrying\nkfs1:0000000000000000:0/1:00000000:\n"+other), ""},
		{"with more behind it", log + "kfs1:bad", ""},
		{"nothing", "", "0 of"},
		{"other", other, "0 of"},
		{"without the first", join(lines[1:]...), "line 2 of"},
		{"without the last", join(lines[:n-1]...), fmt.Sprintf("%d of their %d", n-1, n)},
		{"without one between", join(append(append([]string{}, lines[:5]...), lines[6:]...)...), "follows"},
		{"in another order", join(swapped...), "follows"},
		{"a line cut", join(lines[:2]...) + lines[2][:5000] + "\n" + join(lines[3:]...), "is damaged"},
		{"a line too long", join(lines[:2]...) + strings.TrimSuffix(lines[2], "\n") + strings.Repeat("A", 20<<10) + "\n" + join(lines[3:]...), "is damaged"},
		{"a byte changed", strings.Replace(log, ":1/", ":1/1", 1), "is damaged"},
		{"the last line cut", log[:len(log)-10], "is damaged"},
	} {
		r := whole
		err := ReadLog(strings.NewReader(tt.log), &r)
		if tt.want == "" {
			if err != nil || r.Rest != nil || !reflect.DeepEqual(r.Texts, o.Texts) || len(r.Files) != 2 || !bytes.Equal(r.Files["f"].Data, o.Files["f"].Data) {
				t.Errorf("%s: %v, %d texts, %d files; want them all", tt.name, err, len(r.Texts), len(r.Files))
			}
			continue
		}
		if !errors.Is(err, ErrLost) || !strings.Contains(err.Error(), tt.want) || !strings.HasPrefix(err.Error(), "outputs lost: ") {
			t.Errorf("%s: %v; want outputs lost, %q", tt.name, err, tt.want)
		}
		if r.Rest == nil || r.Texts != nil || r.Files != nil {
			t.Errorf("%s: the result has changed", tt.name)
		}
	}
	fails := errors.New("connection reset")
	r := whole
	if err := ReadLog(iotest.ErrReader(fails), &r); !errors.Is(err, fails) || errors.Is(err, ErrLost) {
		t.Errorf("a log that cannot be read: %v", err)
	}
	r = Result{Rest: &Rest{Bytes: -1}}
	if err := ReadLog(strings.NewReader(log), &r); !errors.Is(err, ErrLost) {
		t.Errorf("a result without a checksum: %v", err)
	}
	if err := ReadLog(nil, &Result{}); err != nil {
		t.Errorf("a result that needs no log: %v", err)
	}
}

// TestReadLogDamage changes a log at random: what it does not find intact, it
// does not take.
func TestReadLogDamage(t *testing.T) {
	o := outputs{Texts: map[string]string{"a": noise(20_000)}}
	whole, log := rest(o)
	random := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		changed := []byte(log)
		for range 1 + random.IntN(3) {
			changed[random.IntN(len(changed))] = byte(random.IntN(256))
		}
		if random.IntN(2) == 0 {
			at := random.IntN(len(changed))
			changed = append(changed[:at], changed[min(at+random.IntN(9000), len(changed)):]...)
		}
		r := whole
		if err := ReadLog(bytes.NewReader(changed), &r); err == nil && r.Texts["a"] != o.Texts["a"] || err != nil && !errors.Is(err, ErrLost) {
			t.Fatalf("%v, a text of %d bytes", err, len(r.Texts["a"]))
		}
	}
}

func TestPlace(t *testing.T) {
	sum := sha256.Sum256(nil)
	for _, p := range []Place{
		{Key: Key("runs/1", "out"), File: File{Size: 7, SHA256: sum[:]}},
		{Key: Key("runs/1", "an output"), File: File{Size: 1 << 40, SHA256: sum[:], Tar: true}},
		{Path: "/kfs-blobs/0/k", File: File{SHA256: sum[:], Exec: true}},
	} {
		if got, err := ParsePlace(p.String()); err != nil || !reflect.DeepEqual(got, p) {
			t.Errorf("ParsePlace(%q) = %+v, %v; want %+v", p, got, err, p)
		}
	}
	good := "?size=1&sha256=" + base64.RawURLEncoding.EncodeToString(sum[:])
	for _, bad := range []string{
		"", "x", "store:///k", "store:///k?size=1", "store:///../k" + good, "store:///" + good, "store:///a//b" + good,
		"file://" + good, "file:///x?size=x", "file:///x?size=1&sha256=AAAA", "https://x/y" + good, "store:///%zz" + good,
	} {
		if p, err := ParsePlace(bad); err == nil {
			t.Errorf("ParsePlace(%q) = %+v; want an error", bad, p)
		}
	}
	for output, want := range map[string]string{"out": "p/out", "a b": "p/a%20b", "a/b": "p/a%2Fb", "..": "p/%2E%2E", "": "p"} {
		if got := Key("p", output); got != want {
			t.Errorf("Key(p, %q) = %q; want %q", output, got, want)
		}
	}
}

func TestSpec(t *testing.T) {
	s := Spec{
		Inputs:  []Input{{Name: "i", Path: "/in/i", Text: "$(A) grüße"}, {Name: "j", Path: "/in/j", From: "store:///k"}},
		Outputs: []Output{{Name: "o", Path: "/o", File: true, Keep: true}},
		Store:   true, MaxText: 7, Silence: 9,
	}
	text := s.Encode()
	if got, err := DecodeSpec(text); err != nil || !reflect.DeepEqual(*got, s) || strings.ContainsAny(text, "$\n") || text[0] != '{' {
		t.Errorf("DecodeSpec(%q) = %+v, %v; want %+v", text, got, err, s)
	}
	for i := range 1000 {
		s.Outputs = append(s.Outputs, Output{Name: fmt.Sprintf("output %d", i), Path: fmt.Sprintf("/tmp/outputs/output_%d/data", i)})
	}
	if n := len(s.Encode()); n > 32<<10 {
		t.Errorf("a spec with 1000 outputs has %d bytes; an argument has room for 128 KiB", n)
	}
	o := IOSpec{Store: "s3://b", Prefix: "p", Inputs: s.Inputs}
	if got, err := DecodeIOSpec(o.Encode() + "\n"); err != nil || !reflect.DeepEqual(*got, o) {
		t.Errorf("DecodeIOSpec = %+v, %v; want %+v", got, err, o)
	}
	for _, bad := range []string{"", "$", "AAAA", text[:len(text)/2]} {
		if _, err := DecodeSpec(bad); err == nil {
			t.Errorf("DecodeSpec(%q) is no error", bad)
		}
	}
}
