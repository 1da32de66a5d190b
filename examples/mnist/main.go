// Mnist is what the three containers of the MNIST pipeline do, in one small
// program: it trains a digit classifier, serves it, and puts a web page in
// front of it. The images that the pipeline names are no longer to be had;
// images.yaml says which subcommand stands in for which image, so that the
// pipeline runs as plain processes on one machine. In a cluster one image of
// this program stands in for all of them: images-cluster.yaml. There the
// servers are not started, but deployed.
//
//	mnist model /opt/model.py --tf-export-dir DIR   trains and exports a model
//	mnist serve --model-export-path DIR             starts or deploys a server of that model
//	mnist web-ui --name web-ui                      starts or deploys a page to draw digits on
//	mnist status                                    lists what runs
//	mnist stop                                      ends what runs
//
// Each subcommand takes exactly the arguments that the pipeline passes to its
// image. What the program keeps lies in one folder, MNIST_HOME: see home.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"syscall"
)

const usage = `usage: mnist COMMAND [ARGUMENTS]

  model   trains a digit classifier and writes it to --tf-export-dir
  serve   starts a model server in the background and waits until it answers;
          in a Kubernetes cluster, deploys it
  web-ui  the same, of a page to draw digits on
  status  lists what runs
  stop    ends what runs

mnist COMMAND -h tells the arguments of one.
`

// command is one subcommand: its flags and what it does.
type command func(ctx context.Context, args []string, stdout, stderr io.Writer) error

var commands = map[string]command{
	"model":  runModel,
	"serve":  runServe,
	"web-ui": runWebUI,
	"status": runStatus,
	"stop":   runStop,

	// What serve and web-ui start in the background, or deploy.
	"server": runServer,
	"page":   runPage,
}

// byArgument tells the subcommands by the first argument that the pipeline
// passes, for a container that runs this program for any of its images.
var byArgument = map[string]string{
	"/opt/model.py":       "model",
	"--model-export-path": "serve",
	"--image":             "web-ui",
}

// usageError is a fault in the command line: exit status 2.
type usageError struct{ msg string }

func (e usageError) Error() string { return e.msg }

func usagef(format string, args ...any) error {
	return usageError{fmt.Sprintf(format, args...)}
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	status := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status)
}

// run carries out one command line and returns its exit status.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return 2
	}
	if args[0] == "-h" || args[0] == "--help" || args[0] == "help" {
		fmt.Fprint(stdout, usage)
		return 0
	}
	if name, ok := byArgument[args[0]]; ok {
		args = slices.Insert(args, 0, name)
	}
	cmd, ok := commands[args[0]]
	if !ok {
		fmt.Fprintf(stderr, "mnist: unknown command %q\n%s", args[0], usage)
		return 2
	}
	err := cmd(ctx, args[1:], stdout, stderr)
	var bad usageError
	switch {
	case err == nil, errors.Is(err, flag.ErrHelp):
		return 0
	case errors.As(err, &bad):
		fmt.Fprintf(stderr, "mnist %s: %v\nmnist %s -h tells the arguments.\n", args[0], err, args[0])
		return 2
	}
	fmt.Fprintf(stderr, "mnist %s: %v\n", args[0], err)
	return 1
}

// newFlags returns an empty flag set for one subcommand.
func newFlags(name string) *flag.FlagSet {
	fs := flag.NewFlagSet("mnist "+name, flag.ContinueOnError)
	fs.SetOutput(io.Discard) // parse prints what is needed
	return fs
}

// parse parses a command line that must hold nothing but flags.
func parse(fs *flag.FlagSet, args []string, stdout io.Writer) error {
	err := fs.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Fprintf(stdout, "usage: %s [FLAGS]\n", fs.Name())
		fs.SetOutput(stdout)
		fs.PrintDefaults()
		return err
	}
	if err != nil {
		return usageError{err.Error()}
	}
	if fs.NArg() > 0 {
		return usagef("unexpected argument %q: wanted only flags", fs.Arg(0))
	}
	return nil
}
