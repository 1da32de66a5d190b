package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.yaml.in/yaml/v3"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"github.com/kfs-project/kfs/backend/accel"
	"github.com/kfs-project/kfs/backend/k8s"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/spell"
)

// This file defines what the commands share that work on a cluster.

// kubeFlags say which cluster and namespace are meant, in the words of kubectl.
type kubeFlags struct {
	kubeconfig string
	overrides  clientcmd.ConfigOverrides
	qps        float32
	flags      *pflag.FlagSet
}

func (f *kubeFlags) add(cmd *cobra.Command) {
	f.flags = cmd.Flags()
	f.flags.StringVar(&f.kubeconfig, "kubeconfig", "", "`file` that says how to reach the cluster (default: $KUBECONFIG, else ~/.kube/config)")
	f.flags.Float32Var(&f.qps, "qps", 100, "requests a second to the API server; -1 is no limit")
	names := clientcmd.RecommendedConfigOverrideFlags("")
	names.ContextOverrideFlags.Namespace.ShortName = "n"
	clientcmd.BindOverrideFlags(&f.overrides, f.flags, names)
}

// given reports whether a flag says which cluster is meant.
func (f *kubeFlags) given() bool {
	for _, name := range []string{"kubeconfig", "context", "namespace", "server", "cluster"} {
		if f.flags.Changed(name) {
			return true
		}
	}
	return false
}

// cluster returns the cluster that the flags, or else the settings of the
// project, mean.
func (f *kubeFlags) cluster(project projectFile) (*k8s.Cluster, error) {
	klog.SetLogger(klog.Logger{}) // what libraries log to stderr is told by kfs itself
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = f.kubeconfig
	f.overrides.CurrentContext = cmp.Or(f.overrides.CurrentContext, project.Context)
	f.overrides.Context.Namespace = cmp.Or(f.overrides.Context.Namespace, project.Namespace)
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &f.overrides)
	config, err := loader.ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		return nil, &exitError{exitCluster, errors.New("no cluster: no kubeconfig says where one is: name a file by --kubeconfig or $KUBECONFIG, or a server by --server")}
	}
	if err != nil {
		return nil, &exitError{exitCluster, fmt.Errorf("no cluster: %w", err)}
	}
	namespace, _, err := loader.Namespace()
	if err != nil {
		return nil, &exitError{exitCluster, fmt.Errorf("no cluster: %w", err)}
	}
	config.QPS, config.Burst = f.qps, int(2*f.qps)
	c, err := k8s.NewCluster(config, namespace)
	if err != nil {
		return nil, &exitError{exitCluster, err}
	}
	c.Context, c.NotCurrent = f.overrides.CurrentContext, f.overrides.CurrentContext != ""
	if raw, err := loader.RawConfig(); err == nil && c.Context == "" {
		c.Context = raw.CurrentContext
	}
	return c, nil
}

// where names a cluster for people.
func where(c *k8s.Cluster) string {
	if c.Context == "" {
		return "namespace " + c.Namespace
	}
	return fmt.Sprintf("context %s, namespace %s", c.Context, c.Namespace)
}

// projectFile is kfs.yaml in the root of a script: what all runs of a project
// have in common.
type projectFile struct {
	Backend, Context, Namespace, KfsImage, Artifacts, ArtifactSecret, ServiceAccount string
}

// readProject reads the project's file, if it has one.
func readProject(root string) (projectFile, error) {
	var p projectFile
	name := filepath.Join(root, "kfs.yaml")
	data, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	var entries map[string]string
	if err := yaml.Unmarshal(data, &entries); err != nil {
		return p, fmt.Errorf("%s: want lines such as  namespace: ml: %w", name, err)
	}
	fields := map[string]*string{
		"backend": &p.Backend, "context": &p.Context, "namespace": &p.Namespace, "kfs_image": &p.KfsImage,
		"artifacts": &p.Artifacts, "artifact_secret": &p.ArtifactSecret, "service_account": &p.ServiceAccount,
	}
	known := slices.Sorted(maps.Keys(fields))
	for _, key := range slices.Sorted(maps.Keys(entries)) {
		field := fields[key]
		if field == nil {
			hint := spell.DidYouMean(key, known)
			if hint == "" {
				hint = "want " + strings.Join(known, ", ")
			}
			return p, fmt.Errorf("%s has no entry %q: %s", name, key, hint)
		}
		*field = entries[key]
	}
	return p, nil
}

// runFlags are what a run on a cluster is carried out with.
type runFlags struct {
	opts    k8s.Options
	profile clusterFlags
}

func (f *runFlags) add(cmd *cobra.Command) {
	f.addTo(cmd.Flags())
	f.profile.add(cmd)
}

func (f *runFlags) addTo(flags *pflag.FlagSet) {
	flags.StringVar(&f.opts.Image, "kfs-image", "", "`image` of kfs itself, which collects outputs in the cluster; see  make image  (default: $KFS_IMAGE)")
	flags.BoolVar(&f.opts.ImageVolume, "image-volume", false, "mount the image of kfs in place of copying a program out of it; needs containerd 2.1 on each node")
	flags.StringVar(&f.opts.Artifacts, "artifacts", "", "`address` where large files are kept: s3://BUCKET/PREFIX?endpoint=URL or pvc://CLAIM/PREFIX")
	flags.StringVar(&f.opts.ArtifactSecret, "artifact-secret", "", "`secret` with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for the artifacts")
	flags.StringVar(&f.opts.ServiceAccount, "service-account", "", "service account of steps that name none")
	for name, d := range f.durations() {
		flags.DurationVar(d.field, name, 0, d.doc)
	}
}

// A durationFlag is a flag with a time of more than 0.
type durationFlag struct {
	field *time.Duration
	doc   string
}

func (f *runFlags) durations() map[string]durationFlag {
	limits := &f.opts.Limits
	return map[string]durationFlag{
		"pending-timeout": {&limits.Pending, "how long a pod may wait to be started (default 1h; 24h if it needs GPUs)"},
		"pull-timeout":    {&limits.PullBackoff, "how long an image may fail to be pulled (default 5m)"},
		"grace":           {&limits.Grace, "time between SIGTERM and SIGKILL for a step that is stopped (default: that of its pod, 30s)"},
		"lease":           {&limits.Lease, "after how long a kfs that is not heard of has lost its run (default 30s)"},
	}
}

// options returns the options of a run, by the flags, the environment and the
// project, in this order.
func (f *runFlags) options(project projectFile) (k8s.Options, error) {
	for name, d := range f.durations() {
		if *d.field < 0 {
			return k8s.Options{}, fmt.Errorf("--%s %v: want a time of more than 0", name, *d.field)
		}
	}
	o := f.opts
	o.Image = cmp.Or(o.Image, os.Getenv("KFS_IMAGE"), project.KfsImage)
	o.Artifacts = cmp.Or(o.Artifacts, project.Artifacts)
	o.ArtifactSecret = cmp.Or(o.ArtifactSecret, project.ArtifactSecret)
	o.ServiceAccount = cmp.Or(o.ServiceAccount, project.ServiceAccount)
	if o.Limits.Pending > 0 {
		o.Limits.PendingGPU = o.Limits.Pending
	}
	return o, nil
}

// changed returns a flag that was given, or "".
func (f *runFlags) changed(cmd *cobra.Command) string {
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	(&runFlags{}).addTo(own)
	given := ""
	own.VisitAll(func(flag *pflag.Flag) {
		if given == "" && cmd.Flags().Changed(flag.Name) {
			given = flag.Name
		}
	})
	return given
}

// A clusterRun is one run in a cluster, driven by this process.
type clusterRun struct {
	cmd         *cobra.Command
	run         *k8s.Run
	cluster     *k8s.Cluster
	root        string // of the script; "" if the script is not here
	parallelism int
}

// begin begins a new run, and drives it.
func (r *clusterRun) begin(ctx context.Context, p *dag.Pipeline, info engine.RunInfo, opts k8s.Options, labels clusterFlags) error {
	profile, err := labels.profile()
	if err != nil {
		return err
	}
	if err := k8s.Check(p, opts, r.cluster.Namespace); err != nil {
		return err
	}
	if p, err = accel.Place(p, profile); err != nil {
		return err
	}
	if info.Name == "" {
		info.Name = newName(p)
	}
	if err := k8s.CheckName(info.Name); err != nil {
		return fmt.Errorf("--run-name: %w", err)
	}
	if r.run, err = k8s.Create(ctx, r.cluster, p, info, opts, buildVersion()); err != nil {
		return clusterError(err)
	}
	fmt.Fprintf(r.cmd.ErrOrStderr(), "run %s in %s\n", info.Name, where(r.cluster))
	err = r.drive(ctx)
	if len(dag.Faults(err)) > 0 {
		r.run.Discard(context.WithoutCancel(ctx)) // if it fails, kfs delete is there
	}
	return err
}

// errDetached is the cause of a run that goes on without a driver.
var errDetached = errors.New("detached")

// drive carries the run on until it ends, or this process leaves it.
func (r *clusterRun) drive(ctx context.Context) error {
	stderr := r.cmd.ErrOrStderr()
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE) // a viewer that goes away does not end the run
	progress := newPlainProgress(stderr)
	info, p := r.run.Info(), r.run.Pipeline()
	r.run.Notice = func(text string) {
		progress.event(engine.Event{Time: time.Now(), Kind: engine.EventWarning, Reason: text})
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-r.run.Lost():
			cancel(r.run.Err())
		case <-ctx.Done():
		}
	}()
	result, err := engine.Run(ctx, r.run, p, info, engine.Config{
		Store:       r.run,
		Parallelism: r.parallelism,
		Events:      progress.event,
		Stop:        r.signals(ctx, func() { cancel(errDetached) }),
	})
	if err != nil {
		r.run.Close(context.WithoutCancel(ctx), false)
		return r.failed(context.Cause(ctx), err)
	}
	failures(stderr, p, r.root, result, r.run.Tail)
	r.run.Close(context.WithoutCancel(ctx), true)
	fmt.Fprintln(stderr)
	if err := summary(r.cmd.OutOrStdout(), info.Name, result); err != nil {
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

// failed gives an error of a run its exit status.
func (r *clusterRun) failed(cause, err error) error {
	var faults dag.Errors
	switch {
	case errors.Is(cause, errDetached):
		name := r.run.Info().Name
		fmt.Fprintf(r.cmd.ErrOrStderr(), "detached: the steps that run go on, and no new one starts until\n  %s\n", r.cluster.Command("resume", name))
		return &exitError{status: exitDetached}
	case errors.As(err, &faults):
		return err
	case cause != nil && !errors.Is(cause, context.Canceled):
		err = cause
	}
	return clusterError(err)
}

// clusterError gives an error about a cluster its exit status.
func clusterError(err error) error {
	var held *k8s.HeldError
	var access *k8s.AccessError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &held):
		return &exitError{exitHeld, held}
	case errors.Is(err, engine.ErrStale):
		return &exitError{exitHeld, err}
	case errors.As(err, &access):
		return &exitError{exitCluster, err}
	case errors.Is(err, k8s.ErrNoRun), errors.Is(err, k8s.ErrExists):
		return err
	case len(dag.Faults(err)) > 0:
		return err
	}
	return &exitError{exitFailed, err}
}

// second is how long a first Ctrl-C waits for another one.
const second = 3 * time.Second

// signals turns signals into wishes: a first Ctrl-C leaves the run as it is,
// after a moment in which another one cancels it; one more leaves at once. The
// signals that end a program in other ways leave the run as it is.
func (r *clusterRun) signals(ctx context.Context, detach func()) <-chan engine.StopKind {
	signals := make(chan os.Signal, 3)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	stop := make(chan engine.StopKind, 2)
	say := func(format string, args ...any) { fmt.Fprintf(r.cmd.ErrOrStderr(), format+"\n", args...) }
	go func() {
		defer signal.Stop(signals)
		var leave <-chan time.Time
		cancelled := false
		for {
			select {
			case <-ctx.Done():
				return
			case <-leave:
				detach()
				return
			case s := <-signals:
				switch {
				case s != os.Interrupt && !cancelled:
					detach()
					return
				case cancelled:
					say("%v: leaving; the run is being cancelled, which goes on with  %s", s, r.cluster.Command("resume", r.run.Info().Name))
					os.Exit(exitDetached)
				case leave == nil:
					say("%v: leaving the run as it is in %v; once more cancels it", s, second)
					leave = time.After(second)
				default:
					say("%v: cancelling the run: the steps that run are asked to end; once more leaves", s)
					leave, cancelled = nil, true
					stop <- engine.StopGraceful
				}
			}
		}
	}()
	return stop
}

// backendOf returns where a run goes, and nobody guesses: the flag, the
// environment, the project, a flag that names a cluster, this machine.
func backendOf(flag string, kube *kubeFlags, project projectFile) (string, error) {
	backend := cmp.Or(flag, os.Getenv("KFS_BACKEND"), project.Backend)
	switch backend {
	case "k8s", "local":
		return backend, nil
	case "":
		if kube.given() {
			return "k8s", nil
		}
		return "local", nil
	}
	return "", fmt.Errorf("backend %q: want k8s or local", backend)
}

func localParallelism() int { return max(4, runtime.NumCPU()) }
