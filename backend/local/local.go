// Package local runs steps on this machine, as processes.
//
//	x, err := local.New(local.Config{Dir: dir, Images: m})
//	defer x.Close()
//	result, err := engine.Run(ctx, x, pipeline, run, engine.Config{})
//
// A step runs if the package images has a command that stands in for its
// image. Each attempt has a folder steps/STEP/NUMBER below Config.Dir:
//
//	attempt.json   what was started
//	log            what it wrote to stdout and stderr
//	work/          its working folder, unless the stand-in names another one
//	in/            the files that it takes
//	out/           its outputs; the path of an output, where it stands in the
//	               command, arguments or environment, becomes one in here
//
// A process has a group of its own, stdin at its end, and an environment of
// PATH, HOME, TMPDIR, TZ, LANG and LC_* of kfs, what the stand-in adds, and
// the step's own variables. When the process ends, what it has left running
// is killed, unless the stand-in says background: its group, and on Linux each
// process that still has the attempt's KFS_ATTEMPT in its environment. One
// that has both left the group and cleared its environment lives on; so does,
// on other systems, one that has left the group.
//
// A process gets nothing of the cluster: no volumes, secrets or resources; see
// Warnings. A step with an accelerator gets GPUs of this machine, of which no
// other such step of the run has one at the same time; it waits until there
// are enough. CUDA_VISIBLE_DEVICES or HIP_VISIBLE_DEVICES show it these alone.
package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/kfs-project/kfs/backend/accel"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/images"
	"github.com/kfs-project/kfs/internal/program"
)

// A Config says how steps run. Dir must be given; the rest has defaults.
type Config struct {
	Dir    string      // state folder of the run; made if it does not exist
	Images *images.Map // what stands in for images; default: nothing

	Grace     time.Duration // between SIGTERM and SIGKILL; default 10 s
	MaxOutput int64         // bytes of an output; default 256 KiB
	MaxLine   int           // bytes of a log line that is reported; longer ones come in pieces; default 16 KiB
	Environ   []string      // the environment of kfs; default os.Environ()
	Machine   accel.Machine // where accelerators are looked for; default: this machine
}

// An Executor runs attempts as processes. It is an engine.Executor.
type Executor struct {
	cfg  Config
	dir  string // cfg.Dir, or a link to it, without characters that mean something to a shell
	link string // to be removed, if not ""

	devices func() (*pool, error) // of this machine, asked once

	spawner *spawner
	sweeper *sweeper
	ended   chan struct{} // closed by Close
	running sync.WaitGroup

	mu       sync.Mutex
	closed   bool
	attempts map[string]*attempt
	latest   map[string]*attempt // of each step
	report   func(engine.Observation)
}

// shellSafe reports whether no character of a path means something to a shell.
func shellSafe(path string) bool {
	return !strings.ContainsFunc(path, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("/._+@%,:-", r))
	})
}

// New returns an executor for one run. It makes cfg.Dir and sees that it can
// be written.
func New(cfg Config) (*Executor, error) {
	if cfg.Grace <= 0 {
		cfg.Grace = 10 * time.Second
	}
	if cfg.MaxOutput <= 0 {
		cfg.MaxOutput = 256 << 10
	}
	if cfg.MaxLine <= 0 {
		cfg.MaxLine = 16 << 10
	}
	if cfg.Environ == nil {
		cfg.Environ = os.Environ()
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	cfg.Dir = dir
	if err := os.MkdirAll(filepath.Join(dir, "steps"), 0o777); err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	probe := filepath.Join(dir, "probe")
	err = os.WriteFile(probe, make([]byte, 4096), 0o600)
	os.Remove(probe)
	if err != nil {
		return nil, fmt.Errorf("state folder: %w", err)
	}
	x := &Executor{
		cfg: cfg, dir: dir,
		spawner:  newSpawner(),
		sweeper:  newSweeper(),
		ended:    make(chan struct{}),
		attempts: map[string]*attempt{},
		latest:   map[string]*attempt{},
	}
	if !shellSafe(dir) {
		// A path of an output stands in shell commands, mostly unquoted.
		if tmp, err := os.MkdirTemp("", "kfs-"); err == nil && shellSafe(tmp) {
			if err := os.Symlink(dir, filepath.Join(tmp, "run")); err == nil {
				x.dir, x.link = filepath.Join(tmp, "run"), tmp
			}
		}
	}
	if cfg.Machine.Environ == nil {
		x.cfg.Machine.Environ = cfg.Environ
	}
	x.devices = sync.OnceValues(x.findDevices)
	go x.follow()
	return x, nil
}

// Close ends what still runs, by force, and returns when it has ended.
func (x *Executor) Close() error {
	x.mu.Lock()
	if x.closed {
		x.mu.Unlock()
		return nil
	}
	x.closed = true
	var all []*attempt
	for _, a := range x.attempts {
		all = append(all, a)
	}
	x.mu.Unlock()
	for _, a := range all {
		a.stop(engine.Stopped, true)
	}
	x.running.Wait()
	close(x.ended)
	x.spawner.close()
	if x.link != "" {
		return os.RemoveAll(x.link)
	}
	return nil
}

// Check implements engine.Executor: each step's image must have a command that
// stands in for it, its program and folder must exist, it must be the step's
// only container, and the machine must have the accelerators. A step that has
// no container, because it changes an object of the cluster, cannot run.
func (x *Executor) Check(_ context.Context, p *dag.Pipeline, args map[string]string) error {
	var faults dag.Errors
	lack := map[string]*dag.Error{} // by image that nothing stands in for
	more := map[string]int{}        // steps that have it too
	for _, s := range p.Steps {
		if s.Resource != nil {
			faults = append(faults, noCluster(s))
			continue
		}
		if fault := noContainers(s); fault != nil {
			faults = append(faults, fault)
		}
		if fault := x.noDevices(s); fault != nil {
			faults = append(faults, fault)
		}
		fill := func(text string) (string, bool) { return fillArgs(text, args) }
		image, known := fill(s.Image())
		if !known {
			continue // Start will see
		}
		target, ok := x.cfg.Images.Resolve(image)
		if !ok || target.Exec == nil {
			if lack[image] != nil {
				more[image]++
				continue
			}
			lack[image] = noWay(s, image, target)
			faults = append(faults, lack[image])
			continue
		}
		argv := target.Exec.Command
		if len(argv) == 0 {
			argv = append(s.Command(), s.Args()...)
		}
		if len(argv) == 0 {
			faults = append(faults, &dag.Error{
				Pos:  s.Pos,
				Msg:  fmt.Sprintf("step %q has no command, and the stand-in of image %q has none either", s.Name, image),
				Hint: fmt.Sprintf("give one in %s: exec: [COMMAND, ...]", x.cfg.Images.File),
			})
			continue
		}
		if dir := target.Exec.Dir; dir != "" {
			if info, err := os.Stat(dir); err != nil || !info.IsDir() {
				faults = append(faults, &dag.Error{
					Pos:  s.Pos,
					Msg:  fmt.Sprintf("step %q: the stand-in of image %q has dir %s, which is no folder", s.Name, image, dir),
					Hint: "the path is relative to the folder of " + x.cfg.Images.File,
				})
			}
		}
		name, known := fill(argv[0])
		if !known {
			continue
		}
		env := x.baseEnv(target.Exec)
		if _, err := program.Find(name, env["PATH"], target.Exec.Dir); err != nil {
			faults = append(faults, &dag.Error{
				Pos:  s.Pos,
				Msg:  fmt.Sprintf("step %q cannot run on this machine: %v", s.Name, err),
				Hint: fmt.Sprintf("image %q is run as %q; install the program, or change exec in %s", image, argv[0], x.cfg.Images.File),
			})
		}
	}
	for image, n := range more {
		lack[image].Msg = strings.Replace(lack[image].Msg, " cannot run", fmt.Sprintf(" and %d more cannot run", n), 1)
	}
	if err := accel.Check(p); err != nil {
		faults = append(faults, dag.Faults(err)...)
	}
	return faults.Err()
}

// fillArgs returns text with its params filled in, and whether that was all.
func fillArgs(text string, args map[string]string) (string, bool) {
	known := true
	filled := dag.Expand(text, func(r dag.Ref) string {
		known = known && r.Kind == dag.RefParam
		return args[r.Name]
	})
	return filled, known
}

// noWay is the fault of a step whose image no command stands in for.
func noWay(s *dag.Step, image string, target images.Target) *dag.Error {
	msg := fmt.Sprintf("step %q cannot run on this machine: no command stands in for image %q", s.Name, image)
	if target.Image != "" {
		msg = fmt.Sprintf("step %q cannot run on this machine: image %q has only another image, %q, to stand in for it", s.Name, image, target.Image)
	}
	exec := "[python3]"
	if len(s.Command()) > 0 {
		exec = "[]"
	}
	name, _ := images.Split(image)
	return &dag.Error{Pos: s.Pos, Msg: msg, Hint: fmt.Sprintf(`there are two ways:
- on a cluster: name it with  -n NAMESPACE, --context or --kubeconfig
- as a process of this machine: name a command in a file and give it with  --images FILE
    images:
      %s:
        exec: %s    # the step's command and arguments follow`, name, exec)}
}

// Observe implements engine.Executor.
func (x *Executor) Observe(ctx context.Context, run engine.RunInfo, report func(engine.Observation)) error {
	guarded := func(o engine.Observation) {
		if ctx.Err() == nil {
			report(o)
		}
	}
	x.mu.Lock()
	x.report = guarded
	var known []engine.Observation
	for _, a := range x.attempts {
		if a.RunID == run.ID {
			known = append(known, a.last)
		}
	}
	x.mu.Unlock()
	for _, o := range known {
		report(o)
	}
	return nil
}

// tell keeps an observation and reports it.
func (x *Executor) tell(a *attempt, o engine.Observation) {
	o.ID = a.ID
	o.Log = a.log
	x.mu.Lock()
	if o.Phase > 0 {
		a.last = o
	}
	report := x.report
	x.mu.Unlock()
	if report != nil {
		report(o)
	}
}

// Start implements engine.Executor.
func (x *Executor) Start(_ context.Context, e *engine.Attempt) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.closed {
		return errors.New("the executor is closed")
	}
	if x.attempts[e.ID] != nil {
		return nil
	}
	a := x.newAttempt(e)
	x.attempts[e.ID], x.latest[e.Step] = a, a
	x.running.Go(func() { a.run() })
	return nil
}

// Stop implements engine.Executor. In good order means SIGTERM to the process
// group, and SIGKILL after Config.Grace.
func (x *Executor) Stop(_ context.Context, id string, why engine.Cause, force bool) error {
	x.mu.Lock()
	a := x.attempts[id]
	x.mu.Unlock()
	if a != nil {
		a.stop(why, force)
	}
	return nil
}

// Tail returns the last lines, at most n, of the log of the step's latest
// attempt.
func (x *Executor) Tail(step string, n int) []string {
	x.mu.Lock()
	a := x.latest[step]
	x.mu.Unlock()
	if a == nil {
		return nil
	}
	return tail(a.log, n)
}

// Warnings returns what the steps ask for that a process on this machine does
// not get: one for each thing, at the first step that asks for it.
func Warnings(p *dag.Pipeline) dag.Errors {
	var what []string // in the order of the script
	steps := map[string][]*dag.Step{}
	miss := func(s *dag.Step, thing string) {
		if steps[thing] == nil {
			what = append(what, thing)
		}
		if of := steps[thing]; len(of) == 0 || of[len(of)-1] != s {
			steps[thing] = append(of, s)
		}
	}
	for _, s := range p.Steps {
		unmet(s, func(thing string) { miss(s, thing) })
	}
	var warnings dag.Errors
	for _, thing := range what {
		var names []string
		for _, s := range steps[thing] {
			names = append(names, s.Name)
		}
		warnings = append(warnings, &dag.Error{Pos: steps[thing][0].Pos, Msg: fmt.Sprintf(
			"only a cluster has %s; as a process, a step runs without it: %s", thing, join(names))})
	}
	return warnings
}

func join(list []string) string {
	const most = 5
	if n := len(list) - most; n > 0 {
		list = append(list[:most:most], fmt.Sprintf("and %d more", n))
	}
	return strings.Join(list, ", ")
}
