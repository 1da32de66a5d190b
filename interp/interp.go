// Package interp evaluates a file of the language to pipelines. It is the
// package that other Go programs embed.
//
//	Load      evaluates a file; the result is a Script
//	Script    its pipelines and settings; Pipeline makes a *dag.Pipeline
//	Config    root, settings, limits
//	Error     what was wrong, as Diagnostics with place, excerpt and hint
//
// Each Load has its own interpreter thread and its own copies of all files, so
// evaluations may run at the same time. One Script is for one goroutine at a
// time.
//
// Scripts are untrusted input: they read nothing outside the root, see neither
// clock nor environment nor network, and are bounded in steps and time.
package interp

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/builtins"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
	"github.com/kfs-project/kfs/kube"
)

// A Config says how a file is evaluated. The zero value works.
type Config struct {
	// Root is the folder that load and read_file may read, with all below it.
	// "" is the folder of the file.
	Root string

	Settings map[string]string // values for config(...), by name

	// Print receives what the script prints; nil drops it.
	Print func(pos dag.Pos, msg string)

	Limits Limits
}

// Limits bound what an evaluation may use. A zero field has its default.
type Limits struct {
	Steps       uint64        // of the interpreter; 50 million
	Time        time.Duration // wall clock of Load and of each Pipeline; one minute
	SourceBytes int           // of all files read together; 64 MiB
	Nodes       int           // steps of one pipeline; one million
}

func (l Limits) withDefaults() Limits {
	if l.Steps == 0 {
		l.Steps = 50_000_000
	}
	if l.Time == 0 {
		l.Time = time.Minute
	}
	if l.SourceBytes == 0 {
		l.SourceBytes = 64 << 20
	}
	if l.Nodes == 0 {
		l.Nodes = 1_000_000
	}
	return l
}

// A Script is an evaluated file.
type Script struct {
	cfg     Config
	session *builtins.Session
	thread  *starlark.Thread
	loader  *loader
	main    string // its path under the root
}

// Load evaluates the file at path. The bodies of its pipelines do not run yet.
// The error is an *Error if the script is at fault.
func Load(ctx context.Context, path string, cfg Config) (*Script, error) {
	if cfg.Root == "" {
		cfg.Root = DefaultRoot(path)
	}
	name, err := filepath.Rel(cfg.Root, path)
	if err != nil || !filepath.IsLocal(name) {
		return nil, fmt.Errorf("load %s: it is outside the root %s", path, cfg.Root)
	}
	return LoadFS(ctx, dirFS(cfg.Root), filepath.ToSlash(name), cfg)
}

// LoadFS is Load for a file of a file system, which takes the place of
// Config.Root.
func LoadFS(ctx context.Context, fsys fs.FS, name string, cfg Config) (*Script, error) {
	cfg.Limits = cfg.Limits.withDefaults()
	s := &Script{cfg: cfg, main: name}
	s.thread = &starlark.Thread{Name: name, Print: s.print}
	s.thread.SetMaxExecutionSteps(cfg.Limits.Steps)
	s.loader = &loader{fsys: fsys, root: cfg.Root, budget: cfg.Limits.SourceBytes, modules: map[string]*module{}}
	s.session = builtins.New(s.thread, builtins.Config{
		Settings: cfg.Settings,
		ReadFile: s.loader.readFile,
		MaxSteps: cfg.Limits.Nodes,
	})
	s.loader.env = s.session.Predeclared()
	s.thread.Load = func(thread *starlark.Thread, name string) (globals starlark.StringDict, err error) {
		from := thread.CallFrame(0).Pos.Filename()
		s.session.Loading(func() { globals, err = s.loader.load(thread, name, from) })
		return globals, err
	}

	src, err := s.loader.read(name)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", s.loader.display(name), err)
	}
	err = s.run(ctx, func() error {
		_, err := s.loader.exec(s.thread, name, src)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s, s.settingFaults()
}

// Pipelines returns the names of the pipelines that the file registers.
func (s *Script) Pipelines() []string {
	var names []string
	for _, p := range s.session.Pipelines() {
		names = append(names, p.Name)
	}
	return names
}

// Files returns the paths under the root of all files that were read, the
// main file first.
func (s *Script) Files() []string { return s.loader.files }

// Pipeline runs the function of the named pipeline and returns what it
// declares, validated. The name may be left out if the file registers one
// pipeline. The error is an *Error if the script is at fault.
func (s *Script) Pipeline(ctx context.Context, name string) (*dag.Pipeline, error) {
	decl, err := s.choose(name)
	if err != nil {
		return nil, err
	}
	var p *dag.Pipeline
	before := len(s.session.Faults())
	err = s.run(ctx, func() error {
		var err error
		p, err = s.session.Build(decl)
		return err
	})
	var faults []Diagnostic
	for _, f := range s.session.Faults()[before:] {
		faults = append(faults, s.loader.fault(f))
	}
	if err == nil {
		for _, err := range []error{p.Validate(), kube.Check(p)} {
			for _, f := range dag.Faults(err) {
				faults = append(faults, s.loader.diagnostic(f.Pos, dag.Pos{}, f.Msg, f.Hint))
			}
		}
	} else if e := (*Error)(nil); errors.As(err, &e) {
		faults = append(faults, e.Diagnostics...)
	} else {
		return nil, err
	}
	if len(faults) > 0 {
		return nil, newError(faults, err)
	}
	return p, nil
}

// Explain returns err as an *Error with excerpts if it holds faults that
// package dag or a backend found in a pipeline of the script; else err itself.
func (s *Script) Explain(err error) error {
	var ds []Diagnostic
	for _, f := range dag.Faults(err) {
		ds = append(ds, s.loader.diagnostic(f.Pos, dag.Pos{}, f.Msg, f.Hint))
	}
	if ds == nil {
		return err
	}
	return newError(ds, err)
}

// choose returns the pipeline of the name, or the only one.
func (s *Script) choose(name string) (*builtins.Pipeline, error) {
	all, names := s.session.Pipelines(), s.Pipelines()
	file := s.loader.display(s.main)
	switch {
	case len(all) == 0:
		return nil, newError([]Diagnostic{{
			Msg:  file + " registers no pipeline",
			Hint: "a file ends with  pipeline(my_pipeline)  for a function  def my_pipeline(...):",
		}}, nil)
	case name == "" && len(all) == 1:
		return all[0], nil
	case name == "":
		return nil, newError([]Diagnostic{{
			Msg:  fmt.Sprintf("%s registers %d pipelines: %s", file, len(all), quotedList(names)),
			Hint: fmt.Sprintf("name one:  --pipeline %q", names[0]),
		}}, nil)
	}
	for _, p := range all {
		if p.Name == name {
			return p, nil
		}
	}
	d := Diagnostic{Msg: fmt.Sprintf("%s registers no pipeline %q", file, name), Hint: spell.DidYouMean(name, names)}
	if d.Hint == "" {
		d.Hint = "its pipelines are " + quotedList(names)
	}
	return nil, newError([]Diagnostic{d}, nil)
}

func quotedList(names []string) string {
	return `"` + strings.Join(names, `", "`) + `"`
}

// settingFaults reports faults of the file itself that did not stop it, and
// given settings that no file asked for.
func (s *Script) settingFaults() error {
	var ds []Diagnostic
	for _, f := range append(s.session.Faults(), s.session.CheckSettings()...) {
		ds = append(ds, s.loader.fault(f))
	}
	if len(ds) > 0 {
		return newError(ds, nil)
	}
	return nil
}

// run evaluates within the limit of time and until ctx ends, and returns what
// went wrong as an *Error.
func (s *Script) run(ctx context.Context, eval func() error) error {
	limit, cancel := context.WithTimeoutCause(ctx, s.cfg.Limits.Time, errTime)
	defer cancel()
	stop := context.AfterFunc(limit, func() { s.thread.Cancel(context.Cause(limit).Error()) })
	defer stop()
	err := eval()
	if m := s.session.Misuse(); m != nil {
		return newError([]Diagnostic{s.loader.misuse(m)}, nil)
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("evaluate %s: %w", s.loader.display(s.main), context.Cause(ctx))
	}
	return newError(s.loader.diagnose(err, s.cfg.Limits), err)
}

var errTime = errors.New("out of time")

func (s *Script) print(thread *starlark.Thread, msg string) {
	if s.cfg.Print == nil {
		return
	}
	var pos dag.Pos
	if thread.CallStackDepth() > 1 {
		pos = position(thread.CallFrame(1).Pos)
	}
	s.cfg.Print(pos, dag.Display(msg))
}

// dirFS is a folder whose files cannot be left by "..", an absolute path or a
// symlink. Only regular files can be opened.
type dirFS string

func (d dirFS) Open(name string) (fs.File, error) {
	root, err := os.OpenRoot(string(d))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	name = filepath.FromSlash(name)
	if info, err := root.Stat(name); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, &fs.PathError{Op: "open", Path: name, Err: errNotRegular}
	}
	return root.Open(name)
}

var errNotRegular = errors.New("not a regular file")

// DefaultRoot is the root for the file at path if Config.Root is empty.
func DefaultRoot(path string) string { return filepath.Dir(path) }
