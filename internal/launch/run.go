package launch

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/kfs-project/kfs/internal/collect"
	"github.com/kfs-project/kfs/internal/program"
)

// This file is the work of kfs-launch.

// Run carries out the command argv of a step and returns the exit code of
// kfs-launch. Its last act is to write the Result to the termination message.
// Spec is what Spec.Encode returns.
func Run(cfg Config, spec string, argv []string) int {
	l := &launcher{cfg: cfg.withDefaults()}
	r := &l.result
	var fault *faultError
	if err := l.run(spec, argv); errors.As(err, &fault) {
		r.ExitCode, r.Fault, r.Reason = fault.code, fault.fault, fault.Error()
		r.Texts, r.Files, r.Rest = nil, nil, nil
		fmt.Fprintf(os.Stderr, "kfs-launch: %s: %s\n", r.Fault, r.Reason)
	}
	if err := os.WriteFile(l.cfg.Message, []byte(r.mustFrame()), 0o666); err != nil {
		fmt.Fprintf(os.Stderr, "kfs-launch: the result cannot be told: %v\n", err)
	}
	return r.ExitCode
}

// A faultError is why a step failed, other than by its command.
type faultError struct {
	fault Fault
	code  int
	error
}

// Unwrap makes what is wrong known to errors.Is.
func (f *faultError) Unwrap() error { return f.error }

func cannotRun(err error) error {
	code := ExitNotProgram
	if errors.Is(err, os.ErrNotExist) {
		code = ExitNoProgram
	}
	return &faultError{CannotRun, code, err}
}

func lost(err error) error { return &faultError{Lost, ExitOutputs, err} }

func badOutput(o Output, format string, args ...any) error {
	return &faultError{BadOutput, ExitOutputs, fmt.Errorf("output %q %w", o.Name, fmt.Errorf(format, args...))}
}

type launcher struct {
	cfg    Config
	spec   *Spec
	root   *os.Root // cfg.Dir
	result Result

	noFolder map[string]error // why the folder of an output could not be made

	total    int64    // bytes of the texts that are needed, and of files in the result
	optional []string // outputs that have a text, and need none
	uploads  []upload
}

// run does the work up to the result. An error is a *faultError.
func (l *launcher) run(spec string, argv []string) (err error) {
	command := newChild()
	if l.spec, err = DecodeSpec(spec); err != nil {
		return cannotRun(err)
	}
	if l.spec.MaxText <= 0 {
		l.spec.MaxText = MaxText
	}
	if l.spec.Silence <= 0 {
		l.spec.Silence = time.Minute
	}
	if l.root, err = os.OpenRoot(l.cfg.Dir); err != nil {
		return cannotRun(err)
	}
	defer l.root.Close()
	marker, err := l.root.OpenFile(startedFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if errors.Is(err, os.ErrExist) {
		return &faultError{Again, ExitAgain, errors.New("was started before in this pod: it is not started again")}
	} else if err != nil {
		return cannotRun(err)
	}
	marker.Sync() // it is to be there after a crash of the machine too
	marker.Close()
	if err := l.inputs(); err != nil {
		return &faultError{NoInputs, ExitNoInputs, err}
	}
	l.makeFolders()
	if len(argv) == 0 {
		return cannotRun(errors.New("no command: the step has none, and its image was not asked for one"))
	}
	file, err := program.Find(argv[0], os.Getenv("PATH"), "")
	if err != nil {
		return cannotRun(err)
	}
	if s := command.stopped(); s != 0 {
		l.result.Signal = int(s)
		return &faultError{Stopped, 128 + int(s), errors.New("stopped before it began")}
	}
	if err := command.start(file, argv); err != nil {
		return cannotRun(program.StartError(argv, os.Environ(), err))
	}
	l.result.ExitCode = command.wait()
	l.result.Signal = int(command.signal)
	if l.result.ExitCode != 0 {
		return nil
	}
	return l.outputs()
}

// inputs puts the files that the step takes in their places.
func (l *launcher) inputs() error {
	var fetched word
	err := readJSON(l.root, fetchedFile, &fetched)
	if err == nil {
		err = fetched.err()
	}
	none := errors.Is(err, os.ErrNotExist)
	if err != nil && !none {
		return err
	}
	for i, in := range l.spec.Inputs {
		if in.From != "" && none {
			return fmt.Errorf("file %q: kfs-io has not fetched it", in.Name)
		}
		if err := l.input(i, in); err != nil {
			return fmt.Errorf("file %q: %w", in.Name, err)
		}
	}
	return nil
}

func (l *launcher) input(i int, in Input) error {
	to := filepath.Join(l.cfg.Root, in.Path)
	if err := os.MkdirAll(filepath.Dir(to), 0o777); err != nil {
		return err
	}
	if in.From == "" {
		os.Remove(to) // a link, or what its owner may not write
		return os.WriteFile(to, []byte(in.Text), 0o666)
	}
	place, err := ParsePlace(in.From)
	if err != nil {
		return err
	}
	from, err := openFile(l.root, inFile(i))
	if err != nil {
		return err
	}
	defer from.Close()
	if place.Tar {
		return readTree(to, from)
	}
	os.Remove(to)
	mode := os.FileMode(0o666)
	if place.Exec {
		mode = 0o777
	}
	return collect.CopyFile(to, from, mode)
}

// makeFolders makes the folders that outputs are to be left in, if it can:
// perhaps the step makes one that this process cannot.
func (l *launcher) makeFolders() {
	l.noFolder = map[string]error{}
	for _, o := range l.spec.Outputs {
		l.noFolder[o.Name] = os.MkdirAll(filepath.Dir(l.path(o)), 0o777)
	}
}

func (l *launcher) path(o Output) string { return filepath.Join(l.cfg.Root, path.Clean(o.Path)) }

// outputs reads what the step has left, and sees that it is brought out.
func (l *launcher) outputs() error {
	l.result.Texts, l.result.Files = map[string]string{}, map[string]File{}
	if l.spec.Store {
		if err := makeDir(l.root, "out"); err != nil {
			return lost(err)
		}
	}
	for i, o := range l.spec.Outputs {
		if err := l.output(i, o); err != nil {
			return err
		}
	}
	_, fits := l.result.frame()
	if !fits {
		if err := l.writeRest(); err != nil {
			return lost(err)
		}
	}
	if fits && len(l.uploads) == 0 {
		return nil
	}
	if err := writeJSON(l.root, manifestFile, manifest{Uploads: l.uploads, Print: !fits}); err != nil {
		return lost(err)
	}
	if err := l.waitForIO(); err != nil {
		return lost(err)
	}
	return nil
}

// output reads one output.
func (l *launcher) output(i int, o Output) error {
	var text string
	folder, err := os.OpenRoot(filepath.Dir(l.path(o))) // its links are the container's own
	if err == nil {
		defer folder.Close()
		text, err = collect.Text(folder, filepath.Base(l.path(o)), l.spec.MaxText)
	}
	switch {
	case errors.Is(err, os.ErrNotExist):
		why := ""
		if err := l.noFolder[o.Name]; err != nil {
			why = fmt.Sprintf(", whose folder could not be made: %v", err)
		}
		return badOutput(o, "was not written: the step must leave a file at %s%s", o.Path, why)
	case err == nil && !o.File:
		l.result.Texts[o.Name] = text
		if err := l.count(o, int64(len(text))); err != nil {
			return err
		}
	case err == nil:
		l.result.Texts[o.Name] = text
		l.optional = append(l.optional, o.Name)
	case !o.File || !errors.Is(err, collect.ErrNoText):
		return badOutput(o, "at %s %w", o.Path, err)
	}
	if o.Keep {
		return l.keep(i, o, folder, filepath.Base(l.path(o)))
	}
	return nil
}

// count adds to what stands in the result.
func (l *launcher) count(o Output, n int64) error {
	if l.total += n; l.total > MaxTotal {
		return badOutput(o, "has %d bytes, and all outputs of the step %d: at most %d can be passed on as values; pass them on as files%s", n, l.total, MaxTotal, l.storeHint())
	}
	return nil
}

func (l *launcher) storeHint() string {
	if l.spec.Store {
		return ""
	}
	return ", and name an artifact store with --artifacts"
}

// keep copies an output for the store, or into the result.
func (l *launcher) keep(i int, o Output, folder *os.Root, name string) error {
	from, err := collect.Open(folder, name)
	if err != nil {
		return badOutput(o, "at %s %w", o.Path, err)
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return badOutput(o, "at %s %w", o.Path, err)
	}
	f := File{Tar: info.IsDir(), Exec: !info.IsDir() && info.Mode()&0o111 != 0, Stored: l.spec.Store}
	s := &sink{hash: sha256.New()}
	var bad error // of the output, not of the copy
	fill := func(w io.Writer) error {
		s.to = w
		var err error
		if f.Tar {
			err = writeTree(s, folder, name)
		} else {
			_, err = io.Copy(s, from)
		}
		if err != nil && !s.failed {
			bad = err
		}
		return err
	}
	if f.Stored {
		err = create(l.root, outFile(i), 0o644, fill)
	} else {
		var data bytes.Buffer
		s.max = MaxFile
		err = fill(&data)
		f.Data = data.Bytes()
	}
	const noStore = "without an artifact store a file of at most 256 KiB can be passed on; name one with --artifacts"
	switch {
	case errors.Is(bad, errTooLarge) && f.Tar:
		return badOutput(o, "is a folder of more than %d bytes: "+noStore, MaxFile)
	case errors.Is(bad, errTooLarge):
		return badOutput(o, "has %d bytes: "+noStore, max(info.Size(), s.n))
	case bad != nil:
		return badOutput(o, "at %s %w", o.Path, bad)
	case err != nil:
		return lost(fmt.Errorf("copy output %q: %w", o.Name, err))
	}
	f.Size, f.SHA256 = s.n, s.hash.Sum(nil)
	l.result.Files[o.Name] = f
	if f.Stored {
		l.uploads = append(l.uploads, upload{o.Name, i, f.Size})
		return nil
	}
	return l.count(o, f.Size)
}

// A sink counts and hashes what is written to it.
type sink struct {
	to     io.Writer
	hash   hash.Hash
	n, max int64 // bytes; 0 is no limit
	failed bool  // to did
}

var errTooLarge = errors.New("too large")

func (s *sink) Write(p []byte) (int, error) {
	if s.n += int64(len(p)); s.max > 0 && s.n > s.max {
		return 0, errTooLarge
	}
	s.hash.Write(p)
	n, err := s.to.Write(p)
	s.failed = err != nil
	return n, err
}

// writeRest leaves the outputs to the log of kfs-io.
func (l *launcher) writeRest() error {
	for _, name := range l.optional {
		n := int64(len(l.result.Texts[name]))
		if l.total+n > MaxTotal {
			delete(l.result.Texts, name)
			continue
		}
		l.total += n
	}
	rest, _ := pack(outputs{l.result.Texts, l.result.Files})
	sum := sha256.Sum256(rest)
	l.result.Rest = &Rest{Bytes: len(rest), SHA256: sum[:]}
	l.result.Texts, l.result.Files = nil, nil
	if !l.spec.Store {
		if err := makeDir(l.root, "out"); err != nil {
			return err
		}
	}
	return create(l.root, restFile, 0o644, func(w io.Writer) error {
		_, err := w.Write(rest)
		return err
	})
}

// waitForIO waits until kfs-io has done what the manifest says, for as long as
// it shows that it lives. A signal does not end that: the pod's grace does.
func (l *launcher) waitForIO() error {
	start := time.Now()
	last, heard := "", start
	for {
		var ack word
		if readJSON(l.root, ackFile, &ack) == nil {
			return ack.err()
		}
		if beat, err := read(l.root, beatFile, 100); err == nil && string(beat) != last {
			last, heard = string(beat), time.Now()
		}
		if silence := time.Since(heard); silence > l.spec.Silence {
			return fmt.Errorf("kfs-io has shown no life for %v", silence.Round(time.Second))
		}
		time.Sleep(pause(start))
	}
}
