package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/kfs-project/kfs/test/cluster/cluster"
	"github.com/kfs-project/kfs/test/cluster/fakekubelet"
	"github.com/kfs-project/kfs/test/cluster/parts"
)

// This file holds the commands that bring clusters up and down.

func upCommand(o *options) *cobra.Command {
	var u upFlags
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring a cluster up, building its parts first if they are not there",
		Example: `  cluster up
  cluster up --nodes-fake 500 --fake-allocatable nvidia.com/gpu=8
  cluster up --name other --arg kube-controller-manager=--node-monitor-grace-period=8s`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := o.up(cmd.Context(), u, false)
			if err == nil {
				fmt.Fprintf(o.stderr, "next: eval \"$(%s)\" && kubectl get pods -A\n", o.self("env"))
			}
			return err
		},
	}
	u.add(cmd.Flags())
	return cmd
}

// upFlags say what to bring up.
type upFlags struct {
	nodes nodeFlags
	fake  int
	event bool
	args  []string
}

func (u *upFlags) add(flags *pflag.FlagSet) {
	flags.IntVar(&u.fake, "nodes-fake", 0, "nodes without machines, besides the real one")
	u.nodes.add(flags, "fake-")
	flags.BoolVar(&u.event, "fake-events", false, "on fake nodes, write the events Pulled, Created and Started too")
	flags.StringArrayVar(&u.args, "arg", nil, "a further argument of a part, as in kubelet=--max-pods=50")
}

// nodeFlags say what fake nodes are like.
type nodeFlags struct {
	prefix      string
	allocatable map[string]string
	labels      map[string]string
	taints      []string
}

func (n *nodeFlags) add(flags *pflag.FlagSet, prefix string) {
	flags.StringVar(&n.prefix, prefix+"prefix", "fake", "the nodes are PREFIX-0, PREFIX-1, ...")
	flags.StringToStringVar(&n.allocatable, prefix+"allocatable", nil, "what each has, as in nvidia.com/gpu=8,cpu=96")
	flags.StringToStringVar(&n.labels, prefix+"label", nil, "labels of each, as in zone=a")
	flags.StringArrayVar(&n.taints, prefix+"taint", nil, "a taint of each, as in dedicated=gpu:NoSchedule; \"none\" for none (default "+fakekubelet.NodeLabel+"=true:NoSchedule)")
}

func (n *nodeFlags) template() (fakekubelet.NodeTemplate, error) {
	t := fakekubelet.NodeTemplate{Prefix: n.prefix, Labels: n.labels, Allocatable: corev1.ResourceList{}}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(n.allocatable)) {
		q, err := resource.ParseQuantity(n.allocatable[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("allocatable %s=%s: want a quantity, such as 8 or 64Gi", name, n.allocatable[name]))
		}
		t.Allocatable[corev1.ResourceName(name)] = q
	}
	for _, text := range n.taints {
		if text == "none" {
			t.Taints = []corev1.Taint{}
			continue
		}
		keyValue, effect, ok := strings.Cut(text, ":")
		key, value, _ := strings.Cut(keyValue, "=")
		if !ok || key == "" {
			errs = append(errs, fmt.Errorf("taint %q: want KEY=VALUE:EFFECT", text))
		}
		t.Taints = append(t.Taints, corev1.Taint{Key: key, Value: value, Effect: corev1.TaintEffect(effect)})
	}
	return t, errors.Join(errs...)
}

// up brings the cluster up and says how far it is. One that is bound ends with
// this process.
func (o *options) up(ctx context.Context, u upFlags, bound bool) (*cluster.Cluster, error) {
	template, err := u.nodes.template()
	if err != nil {
		return nil, err
	}
	args := map[string][]string{}
	for _, text := range u.args {
		part, arg, ok := strings.Cut(text, "=")
		if !ok {
			return nil, fmt.Errorf("argument %q: want PART=--FLAG=VALUE", text)
		}
		args[part] = append(args[part], arg)
	}
	started := time.Now()
	p := newProgress(o.stderr)
	c, err := cluster.Up(ctx, cluster.Config{
		Name: o.name, Dir: o.dir, Bound: bound,
		FakeNodes: u.fake, Fake: template, FakeEvents: u.event,
		Args:     args,
		Building: p.building,
		Starting: func(step string) { p.show("waiting for " + step) },
	})
	p.end()
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(o.stderr, "cluster %s is up after %.1f s\n", o.name, time.Since(started).Seconds())
	return c, nil
}

func downCommand(o *options) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "down",
		Short: "End a cluster and remove all that it made",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			names := []string{o.name}
			if all {
				var err error
				if names, err = cluster.List(o.dir); err != nil {
					return err
				}
			}
			var errs []error
			for _, name := range names {
				errs = append(errs, cluster.Down(cmd.Context(), o.dir, name))
			}
			return errors.Join(errs...)
		},
	}
	cmd.Flags().BoolVar(&all, "all", false, "all clusters whose state is in the folder")
	return cmd
}

func buildCommand(o *options) *cobra.Command {
	return &cobra.Command{
		Use:   "build",
		Short: "Build the parts of a cluster, without bringing one up",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := parts.CacheDir()
			if err != nil {
				return err
			}
			p := newProgress(o.stderr)
			programs, err := parts.Build(cmd.Context(), dir, p.building)
			p.end()
			for _, name := range slices.Sorted(maps.Keys(programs)) {
				fmt.Fprintln(o.stdout, programs[name])
			}
			return err
		},
	}
}

func runCommand(o *options) *cobra.Command {
	var u upFlags
	cmd := &cobra.Command{
		Use:   "run [flags] -- COMMAND [ARGUMENT...]",
		Short: "Run a command with a cluster of its own, which ends with it",
		Long: `Run a command with a cluster of its own, which ends with it.

The command gets the variables that "cluster env" prints. Whether it succeeds,
fails or is interrupted, the cluster is taken down; it ends even if this program
is killed. The exit status is the command's.`,
		Example: `  cluster run -- go test -tags e2e ./...`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			c, err := o.up(ctx, u, true)
			if err != nil {
				return err
			}
			err = o.run(ctx, c, args)
			if down := c.Down(context.WithoutCancel(ctx)); down != nil {
				// said here, as the command's end decides the exit status
				fmt.Fprintf(o.stderr, "cluster: take down cluster %s: %v\n", o.name, down)
				err = cmp.Or(err, down)
			}
			return err
		},
	}
	u.add(cmd.Flags())
	return cmd
}

// A commandEnded is the end of a command that did not succeed.
type commandEnded struct{ status int }

func (e *commandEnded) Error() string {
	return fmt.Sprintf("the command ended with status %d", e.status)
}

// run runs a command with the cluster's environment. What interrupts this
// program is passed on to the command and all that it started, which may have
// their own ways to end, and waited for.
func (o *options) run(ctx context.Context, c *cluster.Cluster, args []string) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT)
	defer signal.Stop(signals)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, o.stdout, o.stderr
	cmd.Env = os.Environ()
	for _, v := range variables(c) {
		cmd.Env = append(cmd.Env, v.name+"="+v.value)
	}
	cmd.Env = append(cmd.Env, "PATH="+c.Spec.Programs.PATH()+":"+os.Getenv("PATH"))
	// On a terminal the command must stay in its foreground, and Ctrl-C reaches
	// it from there.
	terminal := term.IsTerminal(int(os.Stdin.Fd()))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !terminal}
	if err := cmd.Start(); err != nil {
		return err
	}
	to := cmd.Process.Pid
	if !terminal {
		to = -to // its process group
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for {
		select {
		case err := <-ended:
			return endOf(cmd, err)
		case s := <-signals:
			if !terminal || s != os.Interrupt {
				syscall.Kill(to, s.(syscall.Signal))
			}
		}
	}
}

// endOf returns how a command ended, with the status that a shell gives it.
func endOf(cmd *exec.Cmd, err error) error {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return err
	}
	status := exit.ExitCode()
	if ws := exit.Sys().(syscall.WaitStatus); ws.Signaled() {
		status = 128 + int(ws.Signal())
		fmt.Fprintf(cmd.Stderr, "cluster: the command ended by the signal %s\n", ws.Signal())
	}
	return &commandEnded{status}
}
