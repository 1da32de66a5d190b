// Command kfs runs pipelines of containers written in Starlark, and writes
// them as manifests.
//
// One file a subcommand holds its flags, its usage and one short function that
// calls a package. This file holds the signal context, the streams and the
// exit status; report.go says how errors are shown.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/kfs-project/kfs/internal/spell"
)

func main() {
	os.Exit(kfs(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
}

// The exit statuses of kfs.
const (
	exitOK        = 0
	exitFailed    = 1 // the run failed
	exitUsage     = 2 // the command line or the pipeline is wrong
	exitCluster   = 3 // the cluster refused, or cannot be reached
	exitHeld      = 4 // another driver holds the run
	exitDetached  = 5 // the run waits for kfs resume
	exitCancelled = 6
	exitBug       = 70
)

// An exitError gives an error an exit status of its own; without one it is
// exitUsage.
type exitError struct {
	status int
	err    error // nil if all has been said
}

func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// kfs runs the command line and returns the exit status.
func kfs(ctx context.Context, args []string, stdout, stderr io.Writer) (status int) {
	defer func() {
		if r := recover(); r != nil {
			fmt.Fprintf(stderr, "kfs: a bug of kfs, please report it: %v\n\n%s", r, debug.Stack())
			status = exitBug
		}
	}()
	root := newRoot(stdout, stderr)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	var exit *exitError
	if errors.As(err, &exit) {
		if exit.err != nil {
			report(stderr, exit.err)
		}
		return exit.status
	}
	report(stderr, err)
	return exitUsage
}

func newRoot(stdout, stderr io.Writer) *cobra.Command {
	root := &cobra.Command{
		Use:   "kfs",
		Short: "Pipelines of containers, written in Starlark",
		Long: `kfs runs pipelines of containers that are written in Starlark, in the words of
the Kubeflow Pipelines v1 DSL, and writes them as manifests.

Results go to standard output, all else to standard error. Exit status: 0 done;
1 the run failed; 2 the command line or the pipeline is wrong; 3 the cluster
refused or cannot be reached; 4 another kfs holds the run; 5 detached: the run
waits for kfs resume; 6 cancelled; 70 a bug of kfs.`,
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.Version = buildVersion()
	root.SetFlagErrorFunc(flagError)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.AddCommand(newAccel(), newCheck(), newCompile(), newDelete(), newGraph(), newIO(), newResume(), newRun(), newVendor(), newVersion())
	root.CompletionOptions.HiddenDefaultCmd = true
	return root
}

// flagError adds to an error about an unknown flag the one that was meant.
func flagError(cmd *cobra.Command, err error) error {
	name, unknown := strings.CutPrefix(err.Error(), "unknown flag: --")
	if !unknown {
		return err
	}
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) { names = append(names, f.Name) })
	if meant := spell.Nearest(name, names); meant != "" {
		return fmt.Errorf("%w: did you mean --%s?", err, meant)
	}
	return err
}
