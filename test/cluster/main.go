// Command cluster brings real Kubernetes clusters up and down on this machine,
// for tests of tools that talk to one. docs/testing.md shows how it is used.
//
// Its commands are thin; the work is in the packages below:
//
//	cluster      a cluster from outside: up, down, what it offers, how to break it
//	supervisor   a cluster from inside: namespaces, processes, forwarders
//	parts        builds the programs, from pinned modules
//	fakekubelet  nodes without machines, for scale
//	faultproxy   delays, fails and loses requests to the API server
//	image        container images without a container engine
//	registry     a registry of images, with and without a login
//	pki          the certificates of a cluster
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/kfs-project/kfs/test/cluster/cluster"
	"github.com/kfs-project/kfs/test/cluster/supervisor"
)

func main() {
	supervisor.Reexec()
	// SIGPIPE too: who reads the output may be interrupted first, and clusters
	// are to be taken down all the same
	ctx, stop := signal.NotifyContext(context.Background(),
		os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGPIPE)
	err := command(os.Stdout, os.Stderr).ExecuteContext(ctx)
	stop()
	var ended *commandEnded
	switch {
	case err == nil:
	case errors.As(err, &ended): // and has said why
		os.Exit(ended.status)
	default:
		fmt.Fprintln(os.Stderr, "cluster:", err)
		os.Exit(1)
	}
}

// options are the flags of every command.
type options struct {
	name, dir string
	stdout    io.Writer
	stderr    io.Writer
}

// open returns the cluster that the flags name.
func (o *options) open() (*cluster.Cluster, error) { return cluster.Open(o.dir, o.name) }

// command returns the whole command line.
func command(stdout, stderr io.Writer) *cobra.Command {
	o := &options{stdout: stdout, stderr: stderr}
	root := &cobra.Command{
		Use:           "cluster",
		Short:         "Real Kubernetes clusters on this machine, for tests",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(stdout)
	root.SetErr(stderr)
	flags := root.PersistentFlags()
	flags.StringVar(&o.name, "name", env("KFS_CLUSTER", cluster.DefaultName), "which of several clusters (KFS_CLUSTER)")
	flags.StringVar(&o.dir, "dir", env("KFS_CLUSTER_DIR", cluster.DefaultDir), "folder of the clusters' state (KFS_CLUSTER_DIR)")
	root.AddCommand(upCommand(o), downCommand(o), runCommand(o), statusCommand(o), envCommand(o), logsCommand(o),
		imageCommand(o), nodesCommand(o), startsCommand(o), faultCommand(o), buildCommand(o))
	return root
}

func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

// self is how this program is called again for the same cluster, in messages.
func (o *options) self(command string) string {
	text := os.Args[0] + " " + command
	if o.name != cluster.DefaultName {
		text += " --name " + o.name
	}
	if o.dir != cluster.DefaultDir {
		text += " --dir " + quote(o.dir)
	}
	return text
}
