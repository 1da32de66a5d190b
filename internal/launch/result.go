package launch

import (
	"bytes"
	"compress/flate"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"

	"github.com/kfs-project/kfs/internal/collect"
)

// This file defines what kfs-launch tells, and its frame.

// A Result is what kfs-launch tells of an attempt.
type Result struct {
	// ExitCode is that of the container: the command's own, 128 and the number
	// of the signal that killed it, or one of those below if there is a Fault.
	ExitCode int `json:"exit"`

	// Signal is the number of the first signal that was passed on to the
	// command before it ended, of those that end a process; 0 is none. A result
	// without one is the command's own doing, whoever deleted the pod since.
	Signal int `json:"signal,omitempty"`

	// Reason says why there is a Fault, and not which: `program "x" is not in PATH`.
	Fault  Fault  `json:"fault,omitempty"`
	Reason string `json:"reason,omitempty"`

	// If the command exited with 0 and there is no Fault: the outputs by name.
	// Each has a text, unless it is a File that has none or for which there
	// is no room; each that was to be kept has a file. The step has made
	// these names itself, with the rest: look up only those that it declares.
	Texts map[string]string `json:"texts,omitempty"`
	Files map[string]File   `json:"files,omitempty"`

	// Rest, if not nil, says that Texts and Files stand in the log of kfs-io;
	// ReadLog takes its place by them.
	Rest *Rest `json:"rest,omitempty"`
}

// A Fault says what went wrong beside the command.
type Fault string

// The faults. With one of the first four, the command was not started this time.
const (
	Again     Fault = "again"        // it was started before, in this pod
	CannotRun Fault = "cannot run"   // it cannot be, as it is
	NoInputs  Fault = "no inputs"    // its files could not be fetched or put in their places
	Stopped   Fault = "stopped"      // a signal came first
	BadOutput Fault = "bad output"   // it exited with 0, but an output is missing or cannot be used
	Lost      Fault = "outputs lost" // it exited with 0, but its outputs could not be brought out
)

// The exit codes of kfs-launch, if there is a fault; those of CannotRun are a
// shell's, and that of Stopped that of a command which the signal has killed.
const (
	ExitOutputs    = 96 // BadOutput, Lost
	ExitAgain      = 97
	ExitNoInputs   = 98
	ExitNotProgram = 126
	ExitNoProgram  = 127
)

// A Rest says what the log of kfs-io holds.
type Rest struct {
	Bytes  int    `json:"bytes"` // as it is compressed
	SHA256 []byte `json:"sha256"`
}

var (
	// ErrNoFrame is the error of a message that is none of kfs-launch.
	ErrNoFrame = errors.New("no result of kfs-launch")

	// ErrDamaged is wrapped by the error of a message that is not all that
	// kfs-launch has written, or has been changed.
	ErrDamaged = errors.New("a damaged result of kfs-launch")
)

// maxFrame is the longest frame, in bytes. A termination message has room for
// 4096, but the kubelet divides 12 KiB among the containers of a pod and cuts
// what is more without a word: this fits in pods of up to six.
const maxFrame = 2048

// maxResult is the largest result, in bytes of JSON, and maxRest the largest of
// outputs in a log: 1 MiB, in which each byte may need six.
const (
	maxResult = 64 << 10
	maxRest   = 8 << 20
)

// frame returns the result as a frame: kfs1, the length of what follows the
// last colon, its CRC-32 in hexadecimal, and it, which is base64 of deflate of
// JSON. Ok is false if that is too long.
func (r Result) frame() (frame string, ok bool) {
	packed, size := pack(r)
	frame = seal(base64.RawURLEncoding.EncodeToString(packed))
	return frame, len(frame) <= maxFrame && size <= maxResult
}

func seal(payload string) string {
	return fmt.Sprintf("kfs1:%d:%08x:%s", len(payload), crc32.ChecksumIEEE([]byte(payload)), payload)
}

// mustFrame is the frame of a result that has room but for its reason, of
// which the beginning is told.
func (r Result) mustFrame() string {
	for {
		frame, ok := r.frame()
		if ok || r.Reason == "" {
			return frame
		}
		r.Reason = strings.ToValidUTF8(r.Reason[:len(r.Reason)*3/4], "")
	}
}

// ParseFrame reads the termination message of a container that kfs-launch ran.
// The error is ErrNoFrame or wraps ErrDamaged: of a message that was cut
// anywhere, nothing is taken.
func ParseFrame(message string) (*Result, error) {
	if !strings.HasPrefix(message, "kfs1:") {
		return nil, ErrNoFrame
	}
	payload := message[strings.LastIndexByte(message, ':')+1:]
	if message != seal(payload) {
		return nil, fmt.Errorf("%w: its length or checksum is wrong", ErrDamaged)
	}
	packed, err := base64.RawURLEncoding.Strict().DecodeString(payload)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	r := &Result{}
	if err := unpack(packed, maxResult, r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if err := checkOutputs(r.Texts, r.Files); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return r, nil
}

// checkOutputs sees that outputs are what kfs-launch makes: the step might have
// written them.
func checkOutputs(texts map[string]string, files map[string]File) error {
	for name, text := range texts {
		if !collect.IsText(text) {
			return fmt.Errorf("output %q is not text", name)
		}
	}
	for name, f := range files {
		if sum := sha256.Sum256(f.Data); len(f.SHA256) != len(sum) || f.Size < 0 ||
			!f.Stored && (f.Size != int64(len(f.Data)) || !bytes.Equal(f.SHA256, sum[:])) {
			return fmt.Errorf("the file of output %q is not the one that its checksum is of", name)
		}
	}
	return nil
}

// pack returns v as deflate of JSON, and the size of that JSON.
func pack(v any) (packed []byte, size int) {
	var text, out bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // it holds texts and numbers
	}
	w, _ := flate.NewWriter(&out, flate.BestCompression)
	w.Write(text.Bytes())
	w.Close()
	return out.Bytes(), text.Len()
}

// unpack reads what pack wrote, if its JSON has at most max bytes.
func unpack(packed []byte, max int64, v any) error {
	text, err := io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(packed)), max+1))
	if err != nil {
		return err
	}
	if int64(len(text)) > max {
		return fmt.Errorf("it has more than %d bytes", max)
	}
	return json.Unmarshal(text, v)
}
