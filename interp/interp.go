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
	"runtime"
	"slices"
	"strings"
	"sync"
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

	// Words are values and functions of the host's own, which every file sees
	// beside the words of the language and hides in the same ways. Modules are
	// what load("@name", ...) gives, by name without the @. All of it is shared
	// by evaluations that run at the same time: freeze what is not immutable.
	Words   starlark.StringDict
	Modules map[string]starlark.StringDict

	// Fetch returns the component that a URL names, in place of the copy that
	// kfs.lock pins; nil reads the copies. It is for kfs vendor, which makes
	// them. An error becomes a fault at the call, with the hint that a method
	// Hint() string of it returns, and evaluation goes on to further URLs.
	Fetch func(url string) ([]byte, error)

	Limits Limits
}

// Limits bound what an evaluation may use. A zero field has its default.
type Limits struct {
	Steps       uint64        // of the interpreter; 20 million
	Time        time.Duration // wall clock of Load and of each Pipeline; one minute
	SourceBytes int           // of all files read together; 64 MiB
	Nodes       int           // steps of one pipeline; one million
	Memory      uint64        // bytes by which the heap of the whole program may grow meanwhile; 512 MiB
}

func (l Limits) withDefaults() Limits {
	if l.Steps == 0 {
		l.Steps = 20_000_000
	}
	if l.Time == 0 {
		l.Time = time.Minute
	}
	if l.SourceBytes == 0 {
		l.SourceBytes = 64 << 20
	}
	if l.Memory == 0 {
		l.Memory = 512 << 20
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
	main    string       // its path under the root
	faults  []Diagnostic // of the file itself
}

// Load evaluates the file at path. The bodies of its pipelines do not run yet.
// The error is an *Error if the script is at fault. If evaluation came to the
// end of the file all the same, there is a Script too, whose Pipeline returns
// no pipeline but the faults of its body beside those of the file.
func Load(ctx context.Context, path string, cfg Config) (*Script, error) {
	if path == "" {
		return nil, errors.New("load: want the path of a file, got an empty one")
	}
	if cfg.Root == "" {
		cfg.Root = DefaultRoot(path)
	}
	name, err := under(cfg.Root, path)
	if err != nil {
		return nil, fmt.Errorf("load %s: %w", path, err)
	}
	return LoadFS(ctx, dirFS(cfg.Root), filepath.ToSlash(name), cfg)
}

// under returns the path of a file relative to a folder above it.
func under(root, path string) (string, error) {
	if info, err := os.Stat(root); err != nil || !info.IsDir() {
		return "", fmt.Errorf("the root %s is no folder", root)
	}
	absRoot, err1 := filepath.Abs(root)
	absPath, err2 := filepath.Abs(path)
	if err := errors.Join(err1, err2); err != nil {
		return "", err
	}
	name, err := filepath.Rel(absRoot, absPath)
	if err != nil || !filepath.IsLocal(name) {
		return "", fmt.Errorf("it is outside the root %s", root)
	}
	return name, nil
}

// LoadFS is Load for a file of a file system, which takes the place of
// Config.Root.
func LoadFS(ctx context.Context, fsys fs.FS, name string, cfg Config) (*Script, error) {
	if err := cfg.checkHost(); err != nil {
		return nil, err
	}
	cfg.Limits = cfg.Limits.withDefaults()
	s := &Script{cfg: cfg, main: name}
	s.thread = &starlark.Thread{Name: name, Print: s.print}
	s.thread.SetMaxExecutionSteps(cfg.Limits.Steps)
	s.loader = &loader{fsys: fsys, root: cfg.Root, budget: cfg.Limits.SourceBytes, modules: map[string]*module{}}
	words := builtins.Config{
		Settings: cfg.Settings,
		ReadFile: s.loader.readFile,
		ReadURL:  s.loader.readURL,
		MaxSteps: cfg.Limits.Nodes,
		Words:    cfg.Words,
	}
	if cfg.Fetch == nil {
		words.VendorCommand = "kfs vendor " + s.loader.display(name)
		if strings.Contains(name, "/") { // the root is not the file's folder
			words.VendorCommand += " --root " + s.loader.display(".")
		}
	}
	s.session = builtins.New(s.thread, words)
	s.thread.SetLocal(sessionKey, s.session)
	s.loader.env, s.loader.words, s.loader.fetch = s.session.Predeclared(), s.session.Module, cfg.Fetch
	s.loader.modulesOfHost = cfg.Modules
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
	for _, f := range s.session.Faults() {
		s.faults = append(s.faults, s.loader.fault(f))
	}
	var e *Error
	switch {
	case errors.As(err, &e):
		return nil, newError(append(s.faults, e.Diagnostics...), err)
	case err != nil:
		return nil, err
	case s.faults != nil:
		return s, newError(slices.Clone(s.faults), nil)
	}
	return s, nil
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
// pipeline. The error is an *Error if the script is at fault, or if a setting
// was given that neither a file nor the function asked for.
func (s *Script) Pipeline(ctx context.Context, name string) (*dag.Pipeline, error) {
	decl, err := s.choose(name)
	if err != nil {
		return nil, err
	}
	p, err := s.build(ctx, decl)
	if err != nil {
		return nil, err
	}
	if err := s.checkSettings(); err != nil {
		return nil, err
	}
	return p, nil
}

// Every is Pipeline for all pipelines of the file in their order, or for the
// one that is named: the error has the faults of all, and those that check finds
// in the ones that are right, if it is not nil. A setting may be given that only
// one of the pipelines asks for.
func (s *Script) Every(ctx context.Context, name string, check func(*dag.Pipeline) error) ([]*dag.Pipeline, error) {
	decls := s.session.Pipelines()
	if name != "" || len(decls) == 0 && s.faults == nil {
		decl, err := s.choose(name)
		if err != nil {
			return nil, err
		}
		decls = []*builtins.Pipeline{decl}
	}
	var all []*dag.Pipeline
	faults := slices.Clone(s.faults)
	add := func(err error) error {
		var e *Error
		if errors.As(err, &e) {
			faults = append(faults, e.Diagnostics...)
			return nil
		}
		return err
	}
	for _, decl := range decls {
		p, err := s.build(ctx, decl)
		if err == nil {
			all = append(all, p)
			if check != nil {
				err = s.Explain(check(p))
			}
		}
		if err := add(err); err != nil {
			return nil, err
		}
	}
	if len(all) == len(decls) {
		add(s.checkSettings())
	}
	if len(faults) > 0 {
		return nil, newError(faults, nil)
	}
	return all, nil
}

// build runs the function of a pipeline and validates what it declares.
func (s *Script) build(ctx context.Context, decl *builtins.Pipeline) (*dag.Pipeline, error) {
	var p *dag.Pipeline
	before := len(s.session.Faults())
	err := s.run(ctx, func() error {
		var err error
		p, err = s.session.Build(decl)
		return err
	})
	faults := slices.Clone(s.faults)
	for _, f := range s.session.Faults()[before:] {
		faults = append(faults, s.loader.fault(f))
	}
	var e *Error
	switch {
	case errors.As(err, &e):
		faults = append(faults, e.Diagnostics...)
	case err != nil:
		return nil, err
	case len(faults) > 0 && s.session.Incomplete():
	default:
		for _, err := range []error{p.Validate(), kube.Check(p)} {
			for _, f := range dag.Faults(err) {
				faults = append(faults, s.dagFault(f))
			}
		}
	}
	if len(faults) > 0 {
		return nil, newError(faults, err)
	}
	return p, nil
}

// checkSettings returns the faults of settings that nothing asked for.
func (s *Script) checkSettings() error {
	var faults []Diagnostic
	for _, f := range s.session.CheckSettings() {
		faults = append(faults, s.loader.fault(f))
	}
	if faults == nil {
		return nil
	}
	return newError(faults, nil)
}

// Explain returns err as an *Error with excerpts if it holds faults that
// package dag or a backend found in a pipeline of the script; else err itself.
func (s *Script) Explain(err error) error {
	var ds []Diagnostic
	for _, f := range dag.Faults(err) {
		ds = append(ds, s.dagFault(f))
	}
	if ds == nil {
		return err
	}
	return newError(ds, err)
}

// dagFault returns the diagnostic of a fault of the pipeline that was built
// last, with the calls that made the step or block at its place.
func (s *Script) dagFault(f *dag.Error) Diagnostic {
	d := s.loader.diagnostic(f.Pos, dag.Pos{}, f.Msg, f.Hint)
	if at, frames := s.loader.frames(s.session.Calls(f.Name)); at == f.Pos {
		d.Stack = frames
	}
	return d
}

// choose returns the pipeline of the name, or the only one.
func (s *Script) choose(name string) (*builtins.Pipeline, error) {
	all, names := s.session.Pipelines(), s.Pipelines()
	file := s.loader.display(s.main)
	switch {
	case len(all) == 0:
		faults := []Diagnostic{{
			Msg:  file + " registers no pipeline",
			Hint: "a file ends with  pipeline(my_pipeline)  for a function  def my_pipeline(...):",
		}}
		for _, f := range s.session.CheckSettings() {
			faults = append(faults, s.loader.fault(f))
		}
		return nil, newError(faults, nil)
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

// run evaluates within the limit of time and until ctx ends, and returns what
// went wrong as an *Error.
func (s *Script) run(ctx context.Context, eval func() error) error {
	s.session.Forget()
	s.thread.Uncancel()
	limit, cancel := context.WithTimeoutCause(ctx, s.cfg.Limits.Time, errTime)
	defer cancel()
	stop := context.AfterFunc(limit, func() { s.thread.Cancel(context.Cause(limit).Error()) })
	defer stop()
	defer s.watch()()
	err := eval()
	if m := s.session.Misuse(); m != nil {
		return newError([]Diagnostic{s.loader.misuse(m)}, nil)
	}
	if f := s.session.Failure(); f != nil {
		err = &starlark.EvalError{Msg: f.Err.Error(), CallStack: f.Stack}
	}
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return fmt.Errorf("evaluate %s: %w", s.loader.display(s.main), context.Cause(ctx))
	}
	return newError(s.loader.diagnose(err, s.cfg.Limits), err)
}

var (
	errTime   = errors.New("out of time")
	errMemory = errors.New("out of memory")
)

// watch stops the evaluation when the heap has grown by more than the limit,
// until the function that it returns is called. What single operations make is
// bounded by package builtins; this is for what many make together. It looks
// for the first time after an interval in which most scripts have ended.
func (s *Script) watch() (done func()) {
	const interval = 20 * time.Millisecond
	var mu sync.Mutex
	var most uint64
	var timer *time.Timer
	ended := false
	look := func() {
		mu.Lock()
		defer mu.Unlock()
		if ended {
			return
		}
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		if most == 0 {
			most = stats.HeapAlloc + s.cfg.Limits.Memory
		}
		if stats.HeapAlloc > most {
			s.thread.Cancel(errMemory.Error())
		}
		timer.Reset(interval)
	}
	mu.Lock()
	defer mu.Unlock()
	timer = time.AfterFunc(interval, look)
	return func() {
		mu.Lock()
		defer mu.Unlock()
		ended = true
		timer.Stop()
	}
}

func (s *Script) print(thread *starlark.Thread, msg string) {
	if s.cfg.Print == nil {
		return
	}
	var pos dag.Pos
	if thread.CallStackDepth() > 1 {
		pos = position(thread.CallFrame(1).Pos)
	}
	s.cfg.Print(pos, clean(dag.Display(msg)))
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
