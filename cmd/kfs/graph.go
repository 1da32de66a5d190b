package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/graph"
	"github.com/kfs-project/kfs/internal/spell"
)

func newGraph() *cobra.Command {
	var script scriptFlags
	var format, out string
	cmd := &cobra.Command{
		Use:   "graph FILE",
		Short: "Draw a pipeline",
		Long: `Graph evaluates a script and draws its pipeline: steps from top to bottom, with
a line from each step to those that need it, and a box around the steps of each
condition, loop, exit handler and graph.`,
		Example: `  kfs graph mnist.star -o mnist.svg
  kfs graph mnist.star --format mermaid
  kfs graph mnist.star --format dot | dot -Tpng -o mnist.png`,
		Args: oneFile,
		RunE: func(cmd *cobra.Command, args []string) error {
			draw, err := drawing(format)
			if err != nil {
				return err
			}
			p, s, err := script.load(cmd.Context(), cmd.ErrOrStderr(), args[0])
			if err != nil {
				return err
			}
			picture, err := draw(p)
			if err != nil {
				return script.wrap(s, args[0], err)
			}
			return output(cmd.OutOrStdout(), out, []byte(picture))
		},
	}
	script.add(cmd)
	cmd.Flags().StringVar(&format, "format", "svg", "svg, dot or mermaid")
	cmd.Flags().StringVarP(&out, "output", "o", "-", "`file` to write; - is standard output")
	return cmd
}

func drawing(format string) (func(*dag.Pipeline) (string, error), error) {
	switch format {
	case "svg":
		return func(p *dag.Pipeline) (string, error) {
			d, err := graph.Layout(p)
			if err != nil {
				return "", err
			}
			return d.SVG(), nil
		}, nil
	case "dot":
		return graph.DOT, nil
	case "mermaid":
		return graph.Mermaid, nil
	}
	formats := []string{"svg", "dot", "mermaid"}
	hint := spell.DidYouMean(format, formats)
	if hint == "" {
		hint = "want svg, dot or mermaid"
	}
	return nil, fmt.Errorf("no format is named %q: %s", format, hint)
}
