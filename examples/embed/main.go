// Command embed is an example of a Go program that offers pipelines to its
// users, written in the language of kfs and in words of the program's own. It
// lists what a pipeline does, holds it against a rule, and writes its Workflow.
//
//	go run ./examples/embed train.star
//	go run ./examples/embed train.star -zone us -workflow
//	go run ./examples/embed mistakes.star
//
// It uses nothing of kfs that another program could not import; what it shows
// is explained in docs/embedding.md.
package main

import (
	"context"
	"embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"strings"
	"time"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/backend/argo"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/interp"
)

// registry is where all images of the team come from.
const registry = "registry.example.com/team"

//go:embed pipelines
var pipelines embed.FS

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:], os.Stdout); err != nil {
		report(os.Stderr, err)
		os.Exit(1)
	}
}

// run carries out the command line.
func run(ctx context.Context, args []string, stdout io.Writer) error {
	if len(args) == 0 {
		return errors.New("usage: embed FILE [-zone ZONE] [-workflow]")
	}
	flags := flag.NewFlagSet("embed", flag.ContinueOnError)
	zone := flags.String("zone", "", "value of the setting zone")
	workflow := flags.Bool("workflow", false, "write the Argo Workflow")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	p, err := load(ctx, args[0], *zone)
	if err != nil {
		return err
	}
	if *workflow {
		text, err := argo.Compile(p, argo.Options{})
		if err != nil {
			return err
		}
		_, err = stdout.Write(text)
		return err
	}
	fmt.Fprintf(stdout, "%s\n", p.Name)
	for _, param := range p.Params {
		fmt.Fprintf(stdout, "  param %s\n", param.Name)
	}
	for _, s := range p.Steps {
		fmt.Fprintf(stdout, "  step %s of %s (%s)\n", s.Name, s.Image(), s.Pos)
	}
	return nil
}

// load evaluates one of the embedded files and holds its pipeline against the
// team's rule.
func load(ctx context.Context, file, zone string) (*dag.Pipeline, error) {
	fsys, err := fs.Sub(pipelines, "pipelines")
	if err != nil {
		return nil, err
	}
	cfg := interp.Config{
		Words:   starlark.StringDict{"team_op": starlark.NewBuiltin("team_op", teamOp)},
		Modules: map[string]starlark.StringDict{"team": {"registry": starlark.String(registry)}},
		Limits:  interp.Limits{Time: 5 * time.Second, Nodes: 1000},
	}
	if zone != "" {
		cfg.Settings = map[string]string{"zone": zone}
	}
	script, err := interp.LoadFS(ctx, fsys, file, cfg)
	if err != nil {
		return nil, err
	}
	p, err := script.Pipeline(ctx, "")
	if err != nil {
		return nil, err
	}
	return p, script.Explain(checkImages(p))
}

// checkImages returns a fault, with its place, for each step whose image is
// none of the team's.
func checkImages(p *dag.Pipeline) error {
	var faults dag.Errors
	for _, s := range p.Steps {
		if image := s.Image(); !strings.HasPrefix(image, registry+"/") {
			faults = append(faults, &dag.Error{
				Pos:  s.Pos,
				Msg:  fmt.Sprintf("step %q: image %s is none of the team's", s.Name, image),
				Hint: "copy it to " + registry,
			})
		}
	}
	return faults.Err()
}

// teamOp is the word team_op(name, arguments=[], outputs={}): a step whose
// image the team has built under the name.
func teamOp(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	var name string
	arguments, outputs := &starlark.List{}, &starlark.Dict{}
	if err := starlark.UnpackArgs(b.Name(), args, kwargs, "name", &name, "arguments?", &arguments, "outputs?", &outputs); err != nil {
		return nil, err
	}
	if strings.ContainsAny(name, ":/") {
		return nil, &dag.Error{
			Msg:  fmt.Sprintf("team_op: %q is an image: want its name alone", name),
			Hint: "for an image of another team use container_op",
		}
	}
	return interp.Call(thread, "container_op",
		starlark.Tuple{starlark.String(name), starlark.String(registry + "/" + name + ":stable")},
		[]starlark.Tuple{
			{starlark.String("arguments"), arguments},
			{starlark.String("file_outputs"), outputs},
		})
}

// report prints an error: each fault of a script with its place, the source
// line and what to do.
func report(w io.Writer, err error) {
	var script *interp.Error
	if !errors.As(err, &script) {
		fmt.Fprintln(w, "embed:", err)
		return
	}
	for _, d := range script.Diagnostics {
		fmt.Fprintln(w, d)
	}
}
