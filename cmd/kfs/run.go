package main

import (
	"context"
	"crypto/rand"
	"encoding/base32"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kfs-project/kfs/backend/local"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
)

func newRun() *cobra.Command {
	var script scriptFlags
	var values valueFlags
	var kube kubeFlags
	var onCluster runFlags
	var backend, state, name string
	var parallelism int
	cmd := &cobra.Command{
		Use:   "run FILE",
		Short: "Run a pipeline, on a cluster or on this machine",
		Long: `Run evaluates a script and carries its pipeline out. A line is written for each
thing that happens, and a summary at the end.

Where it runs, nobody guesses: where --backend says (k8s or local), else
$KFS_BACKEND, else the entry backend of kfs.yaml in the script's root, else on a
cluster if a flag names one (--context, --kubeconfig, -n), else on this machine.

On a cluster, each step is a pod. If kfs ends, however it does, the steps that
run go on, and kfs resume carries the run on: no step is started twice, and no
result is lost. Ctrl-C leaves the run so; a second one within three seconds
cancels it; a third one leaves.

On this machine, each step is a process, by the command that --images names for
its image. What it writes is kept in the state folder. Ctrl-C asks the running
steps to end and starts no more; a second one ends them at once; a third one
leaves.`,
		Example: `  kfs run mnist.star -n ml --kfs-image registry.local/kfs
  kfs run mnist.star --images images.yaml -p train_steps=1000 --parallelism 2`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			if parallelism < 0 {
				return fmt.Errorf("--parallelism %d: want 0, which is no limit, or more", parallelism)
			}
			project, err := readProject(script.rootOf(args[0]))
			if err != nil {
				return err
			}
			if backend, err = backendOf(backend, &kube, project); err != nil {
				return err
			}
			given, err := values.values()
			if err != nil {
				return err
			}
			mapped, err := values.imageMap()
			if err != nil {
				return err
			}
			p, s, err := script.load(cmd.Context(), cmd.ErrOrStderr(), args[0])
			if err != nil {
				return err
			}
			if _, err := p.Args(given); err != nil {
				return script.wrap(s, args[0], err)
			}
			run := engine.RunInfo{ID: newID(), Name: name, Args: given}
			if backend == "k8s" {
				cluster, err := kube.cluster(project)
				if err != nil {
					return err
				}
				opts, err := onCluster.options(project)
				if err != nil {
					return err
				}
				opts.Images, opts.Parallelism = mapped.Mirrors(), parallelism
				r := clusterRun{cmd: cmd, cluster: cluster, root: script.rootOf(args[0]), parallelism: parallelism}
				return script.wrap(s, args[0], r.begin(cmd.Context(), p, run, opts, onCluster.profile))
			}
			if kube.given() {
				return fmt.Errorf("a flag names a cluster, and --backend, $KFS_BACKEND or kfs.yaml says that the run is on this machine: want --backend k8s")
			}
			if flag := onCluster.changed(cmd); flag != "" {
				return fmt.Errorf("--%s is for runs on a cluster, and this one is on this machine: name a cluster with  -n NAMESPACE", flag)
			}
			if parallelism == 0 {
				parallelism = localParallelism()
			}
			dir, err := makeRunFolder(state, p, &run)
			if err != nil {
				return err
			}
			x, err := local.New(local.Config{Dir: dir, Images: mapped})
			if err != nil {
				return err
			}
			defer x.Close()
			r := localRun{cmd: cmd, p: p, run: run, dir: dir, root: script.rootOf(args[0]), x: x, parallelism: parallelism}
			return script.wrap(s, args[0], r.do(cmd.Context()))
		},
	}
	script.add(cmd)
	values.add(cmd)
	flags := cmd.Flags()
	flags.StringVar(&backend, "backend", "", "where to run: k8s or local (default: see above)")
	flags.StringVar(&state, "state", "", "`folder` for logs and outputs of runs on this machine (default: kfs in $XDG_DATA_HOME or ~/.local/share)")
	flags.StringVar(&name, "run-name", "", "name of the run (default: the pipeline's with a random end)")
	flags.IntVar(&parallelism, "parallelism", 0, fmt.Sprintf("how many steps run at once (default: %d on this machine, no limit on a cluster)", localParallelism()))
	kube.add(cmd)
	onCluster.add(cmd)
	return cmd
}

// A localRun is one run on this machine.
type localRun struct {
	cmd         *cobra.Command
	p           *dag.Pipeline
	run         engine.RunInfo
	dir         string // state folder of the run
	root        string // of the script
	x           *local.Executor
	parallelism int
}

func (r *localRun) do(ctx context.Context) error {
	stderr := r.cmd.ErrOrStderr()
	// A viewer that goes away (kfs run ... | head) does not end the run.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	if err := r.check(ctx); err != nil {
		os.RemoveAll(r.dir) // nothing was started: leave no trace
		return err
	}
	fmt.Fprintf(stderr, "run %s on this machine; state in %s\n", r.run.Name, r.dir)
	warn(stderr, r.root, local.Warnings(r.p))
	result, err := engine.Run(ctx, r.x, r.p, r.run, engine.Config{
		Parallelism: r.parallelism,
		Events:      newPlainProgress(stderr).event,
		Stop:        stopSignals(ctx, r.cmd),
	})
	if err != nil {
		return err
	}
	failures(stderr, r.p, r.root, result, r.x.Tail)
	fmt.Fprintln(stderr)
	if err := summary(r.cmd.OutOrStdout(), r.run.Name, result); err != nil {
		return fmt.Errorf("write the summary: %w", err)
	}
	switch result.State {
	case engine.Succeeded:
		return nil
	case engine.Cancelled:
		return &exitError{status: exitCancelled}
	}
	return &exitError{status: exitFailed}
}

// check finds what is known beforehand to keep a step from running here.
func (r *localRun) check(ctx context.Context) error {
	args, err := r.p.Args(r.run.Args)
	if err != nil {
		return err
	}
	return r.x.Check(ctx, r.p, args)
}

// stopSignals turns the signals that end a program into wishes to stop the
// run: the first a graceful one, the second one by force. The third leaves at
// once.
func stopSignals(ctx context.Context, cmd *cobra.Command) <-chan engine.StopKind {
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	stop := make(chan engine.StopKind, 2)
	go func() {
		for n := 1; ; n++ {
			select {
			case <-ctx.Done():
				return
			case s := <-signals:
				switch n {
				case 1:
					fmt.Fprintf(cmd.ErrOrStderr(), "%v: asking the running steps to end; once more ends them at once\n", s)
					stop <- engine.StopGraceful
				case 2:
					fmt.Fprintf(cmd.ErrOrStderr(), "%v: ending the running steps; once more leaves\n", s)
					stop <- engine.StopForce
				default:
					os.Exit(exitCancelled)
				}
			}
		}
	}()
	return stop
}

// makeRunFolder makes the state folder of a run, and gives the run a name
// that no other one in there has, if it has none.
func makeRunFolder(state string, p *dag.Pipeline, run *engine.RunInfo) (string, error) {
	if state == "" {
		var err error
		if state, err = dataFolder(); err != nil {
			return "", err
		}
	}
	state, err := filepath.Abs(state)
	if err != nil {
		return "", fmt.Errorf("--state: %w", err)
	}
	runs := filepath.Join(state, "runs")
	if err := os.MkdirAll(runs, 0o700); err != nil {
		return "", fmt.Errorf("make the state folder: %w", err)
	}
	given := run.Name != ""
	if given && dag.K8sName(run.Name) != run.Name {
		return "", fmt.Errorf("--run-name %q: want small letters, digits and hyphens", run.Name)
	}
	for {
		if !given {
			run.Name = newName(p)
		}
		dir := filepath.Join(runs, run.Name)
		err := os.Mkdir(dir, 0o700)
		if err == nil {
			return dir, nil
		}
		if !errors.Is(err, fs.ErrExist) {
			return "", fmt.Errorf("make the state folder: %w", err)
		}
		if given {
			return "", fmt.Errorf("--run-name %s: a run of this name stands in %s", run.Name, dir)
		}
	}
}

// newName returns a name for a run of the pipeline.
func newName(p *dag.Pipeline) string {
	prefix := dag.K8sName(p.Name)
	return strings.Trim(prefix[:min(len(prefix), 44)], "-") + "-" + newID()[:5]
}

// dataFolder is the folder of kfs for data of the user, by the XDG Base
// Directory Specification.
func dataFolder() (string, error) {
	if dir := os.Getenv("XDG_DATA_HOME"); filepath.IsAbs(dir) {
		return filepath.Join(dir, "kfs"), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", fmt.Errorf("no state folder: %w; name one with --state", err)
	}
	return filepath.Join(home, ".local", "share", "kfs"), nil
}

// newID returns a random id of 26 small letters and digits.
func newID() string {
	var b [16]byte
	rand.Read(b[:])
	return strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b[:]))
}
