// Package builtins is the words of the language as Starlark values. Each call
// of a word makes dag data and keeps the place of the call.
//
//	Session     what one evaluation declares: settings, pipelines, faults
//	Pipeline    one call of pipeline(...); Session.Build makes its dag.Pipeline
//	Misuse      a run-time value used where its value would be needed now
//	Error       a fault of a call, with the argument that it is about
//
// A host makes a Session for each evaluation and gives the files Predeclared
// as their environment. The files must have been rewritten so that operators
// whose outcome Starlark would decide without asking the values (comparisons,
// %, join, format) call the functions of Operators; package interp does that.
//
// Values known only at run time (params, outputs, text and conditions made of
// them) are Starlark values of their own types. Starlark asks a value for its
// truth, its hash and its elements without letting it answer "error", so these
// values record a Misuse in their session and cancel the thread: the host
// reads Session.Misuse when the thread has ended.
package builtins

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.starlark.net/lib/math"
	"go.starlark.net/lib/time"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
)

// A Config is what a host gives to an evaluation. The zero value works.
type Config struct {
	Settings map[string]string // values for config(...), by name

	// ReadFile returns the content of a file under the root; path is resolved
	// against the file that holds the call. Nil refuses every read.
	ReadFile func(path, from string) (string, error)

	// ReadURL returns the text of the component that a URL names, from a copy.
	// Nil refuses every URL. An error with a method Hint() string brings its
	// own hint; else the hint is VendorCommand, which makes the copies.
	ReadURL       func(url string) (string, error)
	VendorCommand string

	MaxSteps int // of a pipeline; 0 is no limit

	// Words are the host's own. One that has the name of a word of the
	// language hides it, as a name of a file's own does.
	Words starlark.StringDict
}

// A Session is what one evaluation declares. It belongs to one thread and is
// not safe for concurrent use.
type Session struct {
	cfg       Config
	thread    *starlark.Thread
	env       starlark.StringDict
	loading   int // depth of load
	settings  []*Setting
	pipelines []*Pipeline
	body      *body // the pipeline whose function is running; nil outside
	faults    []*Error
	misuse    *Misuse
	failure   *Failure
	at        dag.Pos // where the function that runs was named, if no script calls it

	incomplete bool // see Incomplete
	copied     int  // see copies

	calls map[string]starlark.CallStack // of the pipeline built last: see Calls
}

// New returns a session for the thread.
func New(thread *starlark.Thread, cfg Config) *Session {
	s := &Session{cfg: cfg, thread: thread}
	s.env = starlark.StringDict{
		"struct": starlark.NewBuiltin("struct", starlarkstruct.Make),
		"math":   math.Module,
		"time":   clockless(),
		"json":   s.json(),
		"k8s":    k8s{s},
	}
	for name, fn := range map[string]func(*call) (starlark.Value, error){
		"accelerator":               s.newAccelerator,
		"add_default_resource_spec": s.addDefaultResourceSpec,
		"add_gpu_toleration":        s.addGPUToleration,
		"all_of":                    combine("all"),
		"any_of":                    combine("any"),
		"condition":                 s.condition,
		"collected":                 s.collected,
		"config":                    s.config,
		"container_op":              s.containerOp,
		"cpu_features":              s.cpuFeatures,
		"device_claim":              s.deviceClaim,
		"elif_condition":            s.elifCondition,
		"else_condition":            s.elseCondition,
		"execution_id":              s.runValue(dag.RefExecutionID),
		"exit_handler":              s.exitHandler,
		"first_of":                  s.firstOf,
		"gpu":                       s.gpu,
		"graph_component":           s.graphComponent,
		"input_argument_path":       s.inputArgumentPath,
		"load_component":            s.loadComponent,
		"load_component_from_text":  s.loadComponentFromText,
		"mig":                       s.mig,
		"mount_pvc":                 s.mountPVC,
		"mps":                       s.mps,
		"neuron":                    s.neuron,
		"not_":                      s.notCondition,
		"one_of":                    s.oneOf,
		"parallel_for":              s.parallelFor,
		"pipeline":                  s.pipeline,
		"pipeline_conf":             s.pipelineConf,
		"pipeline_volume":           s.pipelineVolume,
		"read_file":                 s.readFile,
		"resource":                  s.resource,
		"resource_op":               s.resourceOp,
		"run_id":                    s.runValue(dag.RefRunID),
		"run_name":                  s.runValue(dag.RefRunName),
		"sidecar":                   s.userContainerOf("sidecar"),
		"sub_graph":                 s.subGraph,
		"tpu":                       s.tpu,
		"use_aws_secret":            s.useAWSSecret,
		"use_azure_secret":          s.useAzureSecret,
		"use_gcp_secret":            s.useGCPSecret,
		"use_k8s_secret":            s.useK8sSecret,
		"use_preemptible_nodepool":  s.usePreemptibleNodepool,
		"use_tpu":                   s.useTPU,
		"user_container":            s.userContainerOf("user_container"),
		"volume_op":                 s.volumeOp,
		"volume_snapshot_op":        s.volumeSnapshotOp,
	} {
		s.env[name] = s.builtin(name, fn)
	}
	for name, mode := range volumeModes {
		list := starlark.NewList([]starlark.Value{starlark.String(mode)})
		list.Freeze()
		s.env[name] = list
	}
	s.guards()
	s.budgets()
	s.statements()
	s.outliving()
	return s
}

// Predeclared returns the environment of the session's files: the words of
// the language and the host's, and the functions that the rewritten operators
// call.
func (s *Session) Predeclared() starlark.StringDict {
	env := maps.Clone(s.env)
	maps.Copy(env, s.cfg.Words)
	return env
}

// Word returns a word of the language, or nil.
func (s *Session) Word(name string) starlark.Value {
	if IsOperator(name) {
		return nil
	}
	if v := s.env[name]; v != nil {
		return v
	}
	return starlark.Universe[name]
}

// Words returns the names that an author can use without defining them.
func Words() []string {
	var words []string
	for name := range New(new(starlark.Thread), Config{}).env {
		if !IsOperator(name) {
			words = append(words, name)
		}
	}
	for name := range starlark.Universe {
		words = append(words, name)
	}
	slices.Sort(words)
	return slices.Compact(words)
}

// Faults returns the faults that calls reported without stopping, in order.
func (s *Session) Faults() []*Error { return s.faults }

// Incomplete reports whether a component that could not be read is stood in for
// by one that takes anything. The faults say so; what Build returns then is
// only good for finding more of them, and no case for dag's validation.
func (s *Session) Incomplete() bool { return s.incomplete }

// Calls returns the calls that were under way when the step or group of the
// name was made, of the pipeline that was built last, or nil if only the
// pipeline's own function was.
func (s *Session) Calls(name string) starlark.CallStack { return s.calls[name] }

// stack returns the calls under way, or nil if only one of them is of a
// script.
func (s *Session) stack() starlark.CallStack {
	scripts := 0
	for i := range s.thread.CallStackDepth() {
		if s.thread.CallFrame(i).Pos.Line > 0 {
			scripts++
		}
	}
	if scripts < 2 {
		return nil
	}
	return s.thread.CallStack()
}

// Misuse returns the first misuse of a run-time value, or nil.
func (s *Session) Misuse() *Misuse { return s.misuse }

// Forget forgets the misuse or failure that ended an evaluation, before the
// next one.
func (s *Session) Forget() { s.misuse, s.failure = nil, nil }

// Loading runs load, during which pipeline(...) declares nothing: only the
// main file's pipelines count.
func (s *Session) Loading(load func()) {
	s.loading++
	defer func() { s.loading-- }()
	load()
}

// An Error is a fault of a call.
type Error struct {
	Pos   dag.Pos // of the call
	Arg   string  // the argument it is about: a keyword, or ""
	Place int     // of the argument among those by position, from 1; 0 is a keyword
	Elem  int     // the element of a list it is about, from 1; 0 is all of it
	Msg   string
	Hint  string
	Stack starlark.CallStack // at the time, if the fault did not stop the evaluation
}

// Error returns "file:line:col: msg".
func (e *Error) Error() string { return (&dag.Error{Pos: e.Pos, Msg: e.Msg}).Error() }

// A call is one call of a builtin.
type call struct {
	s      *Session
	name   string
	pos    dag.Pos
	args   starlark.Tuple
	kwargs []starlark.Tuple
	also   []string // keywords that the call has beside those of unpack
	params []string // that unpack was asked for
}

func (s *Session) builtin(name string, fn func(*call) (starlark.Value, error)) *starlark.Builtin {
	return starlark.NewBuiltin(name, func(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		return fn(&call{s: s, name: name, pos: s.caller(thread), args: args, kwargs: kwargs})
	})
}

// Caller returns the place in the script that called the running builtin.
// Builtins that call builtins (step.apply) are passed over.
func Caller(thread *starlark.Thread) dag.Pos {
	for i := 1; i < thread.CallStackDepth(); i++ {
		if p := thread.CallFrame(i).Pos; p.Line > 0 {
			return dag.Pos{File: p.Filename(), Line: int(p.Line), Col: int(p.Col)}
		}
	}
	return dag.Pos{}
}

// errorf returns a fault about an argument, or about the call if arg is "".
func (c *call) errorf(arg, format string, args ...any) *Error {
	if i := strings.IndexAny(arg, ".["); i >= 0 {
		arg = arg[:i] // what it holds has no place of its own
	}
	e := &Error{Pos: c.pos, Arg: arg, Msg: fmt.Sprintf(format, args...)}
	if i := slices.Index(c.params, arg); arg != "" && i >= 0 && i < len(c.args) {
		e.Place = i + 1
	}
	return e
}

// report records a fault about an argument and lets the evaluation go on, so
// that all faults of a script are found at once.
func (c *call) report(arg, format string, args ...any) *Error {
	e := c.errorf(arg, format, args...)
	e.Stack = c.s.thread.CallStack()
	c.s.faults = append(c.s.faults, e)
	return e
}

// unpack assigns the arguments to variables, as starlark.UnpackArgs does, and
// says which keyword an unknown one was meant to be.
func (c *call) unpack(pairs ...any) error {
	var params []string
	for i := 0; i < len(pairs); i += 2 {
		params = append(params, strings.TrimRight(pairs[i].(string), "?"))
	}
	c.params = params
	for _, kw := range c.kwargs {
		name := string(kw[0].(starlark.String))
		if slices.Contains(params, name) {
			continue
		}
		e := c.errorf(name, "%s has no argument %q", c.name, name)
		if hint := spell.DidYouMean(name, slices.Concat(params, c.also)); hint != "" {
			e.Msg += ": " + hint
		} else if len(params) > 0 {
			e.Hint = "its arguments are " + strings.Join(params, ", ")
		}
		return e
	}
	if len(c.args) > len(params) {
		return c.errorf("", "%s got %d positional arguments: want at most %d (%s)", c.name, len(c.args), len(params), strings.Join(params, ", "))
	}
	if err := starlark.UnpackArgs(c.name, c.args, c.kwargs, pairs...); err != nil {
		_, rest, ok := strings.Cut(err.Error(), ": for parameter ")
		if !ok {
			return c.errorf("", "%s", err)
		}
		arg, rest, _ := strings.Cut(rest, ": ")
		arg = strings.Trim(arg, `"`)
		if r, ok := c.given(params, arg).(Runtime); ok {
			return c.errorf(arg, "%s%sit cannot be the argument %q of %s", r.What(), onlyAtRunTime, arg, c.name)
		}
		return c.errorf(arg, "%s, argument %q: %s", c.name, arg, PlainTypes(rest))
	}
	return nil
}

// PlainTypes says in plain words what the interpreter calls types in a message.
func PlainTypes(msg string) string {
	return strings.NewReplacer("NoneType", "None", "builtin_function_or_method", "function").Replace(msg)
}

// typeName returns the name of a value's type for messages: None, int, step.
func typeName(v starlark.Value) string { return PlainTypes(v.Type()) }

// kind says what a value is for messages: None, an int, a step.
func kind(v starlark.Value) string {
	name := typeName(v)
	switch {
	case v == starlark.None:
		return name
	case strings.ContainsRune("aeiou", rune(name[0])):
		return "an " + name
	}
	return "a " + name
}

// given returns the argument that fills a parameter, or nil.
func (c *call) given(params []string, name string) starlark.Value {
	if i := slices.Index(params, name); i >= 0 && i < len(c.args) {
		return c.args[i]
	}
	for _, kw := range c.kwargs {
		if string(kw[0].(starlark.String)) == name {
			return kw[1]
		}
	}
	return nil
}

// caller is the place in the script that called the running builtin, or that
// named it, if it runs because of what was said there.
func (s *Session) caller(thread *starlark.Thread) dag.Pos {
	if p := Caller(thread); p.IsValid() {
		return p
	}
	return s.at
}

// inBody returns the pipeline whose function is running, or a fault.
func (c *call) inBody() (*body, error) {
	if c.s.body == nil {
		e := c.errorf("", "%s stands outside a pipeline: steps are made inside a pipeline's function", c.name)
		e.Hint = "put it into a function and register that:  pipeline(my_pipeline)"
		return nil, e
	}
	return c.s.body, nil
}

// readFile: read_file(path) -> string
//
// A file below the root as a string, the path as in `load`.
func (s *Session) readFile(c *call) (starlark.Value, error) {
	var path string
	if err := c.unpack("path", &path); err != nil {
		return nil, err
	}
	if s.cfg.ReadFile == nil {
		return nil, c.errorf("", "read_file: this host lets scripts read no files")
	}
	text, err := s.cfg.ReadFile(path, c.pos.File)
	if err != nil {
		return nil, c.errorf("path", "read_file: %v", err)
	}
	return starlark.String(text), nil
}

// runValue: run_id() -> value, run_name() -> value, execution_id() -> value
//
// The id and the name of the run; the id of the attempt.
func (s *Session) runValue(kind dag.RefKind) func(c *call) (starlark.Value, error) {
	return func(c *call) (starlark.Value, error) {
		if err := c.unpack(); err != nil {
			return nil, err
		}
		return s.ref(dag.Ref{Kind: kind}), nil
	}
}

// clockless is the time module without the clock: evaluation is deterministic.
func clockless() *starlarkstruct.Module {
	members := starlark.StringDict{}
	for name, v := range time.Module.Members {
		if name != "now" {
			members[name] = v
		}
	}
	return &starlarkstruct.Module{Name: "time", Members: members}
}
