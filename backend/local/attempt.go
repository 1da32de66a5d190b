package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/images"
	"github.com/kfs-project/kfs/internal/collect"
	"github.com/kfs-project/kfs/internal/program"
)

// This file carries out one attempt.

// markEnv is the variable by which the processes of an attempt are known.
const markEnv = "KFS_ATTEMPT"

// An attempt is one process and what it leaves.
type attempt struct {
	*engine.Attempt
	x    *Executor
	dir  string // as the process sees it
	log  string
	last engine.Observation // guarded by Executor.mu
	tail follower

	mu       sync.Mutex
	pid      int           // of the process, which leads its group; 0 if none runs
	stopping engine.Cause  // why Stop was called before the process ended; "" if it was not
	stopped  chan struct{} // closed when it was
	forced   bool
	over     bool
	kill     *time.Timer // sends SIGKILL when the grace is over
}

// folders makes of a step's name, with the rounds of its loops, one that means
// nothing to a shell: work[2] becomes work.2.
var folders = strings.NewReplacer("[", ".", "]", "", "~", "-r")

func (x *Executor) newAttempt(e *engine.Attempt) *attempt {
	sub := filepath.Join("steps", folders.Replace(e.Step), strconv.Itoa(e.Number))
	a := &attempt{Attempt: e, x: x, dir: filepath.Join(x.dir, sub), log: filepath.Join(x.cfg.Dir, sub, "log")}
	a.last = engine.Observation{ID: e.ID, Phase: engine.PhasePending}
	a.tail.Max = x.cfg.MaxLine
	a.stopped = make(chan struct{})
	return a
}

// run carries the attempt out and reports how it went.
func (a *attempt) run() {
	o := a.execute()
	o.Phase = engine.PhaseFinished
	o.Finished = time.Now()
	a.x.tell(a, o)
}

func (a *attempt) execute() (o engine.Observation) {
	cannot := func(err error) engine.Observation {
		o.Cause, o.Reason = engine.CannotRun, "cannot run: "+err.Error()
		return o
	}
	log, err := a.prepare()
	if err != nil {
		return cannot(err)
	}
	defer log.Close()
	target, err := a.target()
	if err != nil {
		return cannot(err)
	}
	visible, done, ok, err := a.lease()
	if err != nil {
		return cannot(err)
	}
	defer done()
	if !ok {
		o.Cause, o.Reason = engine.Stopped, "stopped before it began"
		return o
	}
	cmd, err := a.command(target, visible)
	if err != nil {
		return cannot(err)
	}
	cmd.Stdout, cmd.Stderr = log, log

	a.mu.Lock()
	if a.stopping != "" {
		a.mu.Unlock()
		o.Cause, o.Reason = engine.Stopped, "stopped before it began"
		return o
	}
	o.Started = time.Now()
	err = a.x.spawner.start(cmd, target.Background)
	if err != nil {
		a.mu.Unlock()
		o.Started = time.Time{}
		return cannot(program.StartError(cmd.Args, cmd.Env, err))
	}
	a.pid = cmd.Process.Pid
	a.mu.Unlock()
	a.x.tell(a, engine.Observation{Phase: engine.PhaseRunning, Started: o.Started})

	waitExit(cmd) // on Linux the group's number is not given to another before Wait
	a.mu.Lock()
	if !target.Background {
		unix.Kill(-a.pid, unix.SIGKILL)
	}
	a.pid, a.over = 0, true
	stopping := a.stopping
	if a.kill != nil {
		a.kill.Stop()
	}
	a.mu.Unlock()
	cmd.Wait() // ProcessState tells what its error would
	if !target.Background {
		a.x.sweeper.sweep(a.ID)
	}
	a.report(true)

	o.Cause = engine.Exited
	o.ExitCode, o.Reason = exit(cmd.ProcessState)
	switch {
	case stopping == engine.TimedOut:
		o.Cause, o.Reason = stopping, ""
	case stopping != "":
		o.Cause = stopping
		if o.Reason == "" {
			o.Reason = "exited with 0"
		}
		o.Reason = "stopped: " + o.Reason
	case o.ExitCode == 0:
		if o.Outputs, o.Files, err = a.outputs(); err != nil {
			o.Cause, o.Reason = engine.BadOutput, err.Error()
		}
	}
	return o
}

// prepare makes the attempt's folders and its log.
func (a *attempt) prepare() (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(a.dir), 0o777); err != nil {
		return nil, err
	}
	if err := os.Mkdir(a.dir, 0o777); errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("%s exists already: this attempt was started by another kfs", filepath.Dir(a.log))
	} else if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(a.Attempt, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(a.dir, "attempt.json"), append(text, '\n'), 0o600); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(a.dir, "work"), 0o777); err != nil {
		return nil, err
	}
	for _, o := range a.Outputs {
		if err := os.MkdirAll(filepath.Dir(a.outPath(o.Output)), 0o777); err != nil {
			return nil, err
		}
	}
	for _, f := range a.Artifacts {
		if err := os.MkdirAll(filepath.Dir(a.inPath(f.Artifact)), 0o777); err != nil {
			return nil, err
		}
		if err := a.place(f); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(a.log, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o666)
}

// place puts a file where the process finds it: a copy, which it may change.
func (a *attempt) place(f engine.Artifact) error {
	to := a.inPath(f.Artifact)
	if f.From == "" {
		return os.WriteFile(to, []byte(f.Text), 0o666)
	}
	root, err := os.OpenRoot(filepath.Dir(f.From))
	if err != nil {
		return fmt.Errorf("file %q: %w", f.Name, err)
	}
	defer root.Close()
	from, err := collect.Open(root, filepath.Base(f.From))
	if err != nil {
		return fmt.Errorf("file %q: %s %w", f.Name, f.From, err)
	}
	defer from.Close()
	info, err := from.Stat()
	if err == nil && info.IsDir() {
		err = collect.CopyTree(to, root, filepath.Base(f.From))
	} else if err == nil {
		err = collect.CopyFile(to, from, info.Mode())
	}
	if err != nil {
		return fmt.Errorf("file %q: copy %s: %w", f.Name, f.From, err)
	}
	return nil
}

// outPath is where the process leaves the output.
func (a *attempt) outPath(o dag.Output) string {
	return filepath.Join(a.dir, "out", path.Clean(o.Path))
}

// kept is where the output stands for as long as the state folder does: a.dir
// may be below a link that is gone when the executor is closed.
func (a *attempt) kept(o dag.Output) string {
	return filepath.Join(filepath.Dir(a.log), "out", path.Clean(o.Path))
}

// inPath is where the process finds a file that it takes.
func (a *attempt) inPath(f dag.Artifact) string {
	return filepath.Join(a.dir, "in", path.Clean(f.Path))
}

func (a *attempt) target() (*images.Exec, error) {
	image, _ := a.Container.Get("image").(string)
	target, ok := a.x.cfg.Images.Resolve(image)
	if !ok || target.Exec == nil {
		return nil, fmt.Errorf("no command stands in for image %q", image)
	}
	return target.Exec, nil
}

// command returns the process to start; visible are variables that show it
// its devices.
func (a *attempt) command(target *images.Exec, visible map[string]string) (*exec.Cmd, error) {
	rewrite := a.rewriter()
	template := a.Container
	if a.Template != nil {
		template = a.Template.Container
	}
	// Only the author's own text is rewritten; values are data.
	filled := func(text string) string { return a.Fill(rewrite(text)) }
	// As the kubelet does it, only the variables of the step expand.
	own := map[string]string{}
	env := a.x.baseEnv(target)
	list, _ := template.Get("env").([]any)
	for _, e := range list {
		v, _ := e.(dag.Object)
		name, _ := v.Get("name").(string)
		value, isText := v.Get("value").(string)
		if name == "" || !isText && v.Get("valueFrom") != nil {
			continue
		}
		own[name] = expand(filled(value), own)
	}
	maps.Copy(env, own)
	maps.Copy(env, visible) // last: in a pod, too, a step can only choose among its own
	env[markEnv] = a.ID

	argv := append([]string{}, target.Command...)
	for _, field := range []string{"command", "args"} {
		list, _ := template.Get(field).([]any)
		for _, v := range list {
			text, ok := v.(string)
			if !ok {
				return nil, fmt.Errorf("%s holds %v: want texts", field, v)
			}
			argv = append(argv, expand(filled(text), own))
		}
	}
	if len(argv) == 0 {
		return nil, errors.New("neither the step nor the stand-in of its image has a command")
	}
	for i, arg := range argv {
		if strings.ContainsRune(arg, 0) {
			return nil, fmt.Errorf("argument %d holds a zero byte", i)
		}
	}
	dir := target.Dir
	if dir == "" {
		dir = filepath.Join(a.dir, "work")
	}
	file, err := program.Find(argv[0], env["PATH"], dir)
	if err != nil {
		return nil, err
	}
	cmd := &exec.Cmd{Path: file, Args: argv, Dir: dir}
	for name, value := range env {
		if strings.ContainsRune(name+value, 0) || strings.Contains(name, "=") {
			return nil, fmt.Errorf("variable %q holds a character that no variable can hold", name)
		}
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	return cmd, nil
}

// baseEnv returns the variables that a process has besides the step's own.
func (x *Executor) baseEnv(target *images.Exec) map[string]string {
	env := map[string]string{}
	pass := map[string]bool{"PATH": true, "HOME": true, "TMPDIR": true, "TZ": true, "LANG": true}
	for _, name := range target.PassEnv {
		pass[name] = true
	}
	for _, v := range x.cfg.Environ {
		if name, value, ok := strings.Cut(v, "="); ok && (pass[name] || strings.HasPrefix(name, "LC_")) {
			env[name] = value
		}
	}
	for name, value := range target.Env {
		env[name] = value
	}
	return env
}

// exit returns the exit code, 128 and the signal's number for one killed by a
// signal, and says what it means if it is not 0.
func exit(state *os.ProcessState) (int, string) {
	status, ok := state.Sys().(syscall.WaitStatus)
	if ok && status.Signaled() {
		return 128 + int(status.Signal()), "killed by " + signalName(status.Signal())
	}
	switch code := state.ExitCode(); code {
	case 0:
		return 0, ""
	case 126:
		return code, "exited with 126 (a command is not executable)"
	case 127:
		return code, "exited with 127 (a command was not found)"
	default:
		return code, fmt.Sprintf("exited with %d", code)
	}
}

func signalName(s syscall.Signal) string {
	if name := unix.SignalName(s); name != "" {
		return name
	}
	return fmt.Sprintf("signal %d", int(s))
}

// stop asks the process to end, or ends it.
func (a *attempt) stop(why engine.Cause, force bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.over || a.forced || a.stopping != "" && !force {
		return
	}
	if a.stopping == "" {
		a.stopping = why
		close(a.stopped)
	}
	a.forced = force
	if a.pid == 0 {
		return // it will not begin
	}
	if force {
		unix.Kill(-a.pid, unix.SIGKILL)
		return
	}
	unix.Kill(-a.pid, unix.SIGTERM)
	a.kill = time.AfterFunc(a.x.cfg.Grace, func() { a.stop(a.stopping, true) })
}

// outputs reads the declared outputs, and returns their texts and where their
// files are.
func (a *attempt) outputs() (texts, files map[string]string, err error) {
	if len(a.Outputs) == 0 {
		return nil, nil, nil
	}
	root, err := os.OpenRoot(filepath.Join(a.dir, "out"))
	if err != nil {
		return nil, nil, err
	}
	defer root.Close()
	texts, files = map[string]string{}, map[string]string{}
	for _, o := range a.Outputs {
		text, err := a.text(root, o.Output)
		if err == nil {
			texts[o.Name] = text
		} else if !o.File || !errors.Is(err, collect.ErrNoText) {
			return nil, nil, fmt.Errorf("output %q %w", o.Name, err)
		}
		files[o.Name] = a.kept(o.Output)
	}
	return texts, files, nil
}

// text reads an output.
func (a *attempt) text(root *os.Root, o dag.Output) (string, error) {
	text, err := collect.Text(root, strings.TrimPrefix(path.Clean(o.Path), "/"), a.x.cfg.MaxOutput)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("was not written: the step must leave a file at %s (here %s)", o.Path, a.kept(o))
	case err != nil:
		return "", fmt.Errorf("at %s %w", o.Path, err)
	}
	return text, nil
}
