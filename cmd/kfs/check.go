package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/kfs-project/kfs/backend/accel"
	"github.com/kfs-project/kfs/backend/argo"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/interp"
)

func newCheck() *cobra.Command {
	var script scriptFlags
	var cluster clusterFlags
	var format, targetName string
	cmd := &cobra.Command{
		Use:   "check FILE...",
		Short: "Find what is wrong with scripts, and run nothing",
		Long: `Check evaluates scripts and all of their pipelines, and prints all that is
wrong with them, for the target that they are meant for. Exit status 0 means
that nothing is.`,
		Example: `  kfs check mnist.star
  kfs check pipelines/*.star -o json`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return fmt.Errorf("%s: want one or more scripts, as in\n%s", cmd.Name(), cmd.Example)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return fmt.Errorf("-o %s: want text or json", format)
			}
			t, err := findTarget(targetName)
			if err != nil {
				return err
			}
			profile, err := cluster.profile()
			if err != nil {
				return err
			}
			var found []finding
			for _, file := range args {
				findings, err := script.check(cmd.Context(), cmd.ErrOrStderr(), file, t, profile)
				if err != nil {
					return err
				}
				found = append(found, findings...)
			}
			if err := printFindings(cmd, format, found); err != nil {
				return err
			}
			if len(found) > 0 {
				return &exitError{status: exitUsage}
			}
			return nil
		},
	}
	script.add(cmd)
	cluster.add(cmd)
	cmd.Flags().StringVar(&targetName, "target", targets[0].name, "what the pipelines are for: "+targetDocs())
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text, for people, or json, for programs")
	return cmd
}

// A finding is one fault of a script, as -o json writes it.
type finding struct {
	File    string   `json:"file"` // as a path from the working folder; "" if no place is to blame
	Line    int      `json:"line"`
	Column  int      `json:"column"`
	EndLine int      `json:"endLine"`
	EndCol  int      `json:"endColumn"`
	Message string   `json:"message"`
	Hint    string   `json:"hint,omitempty"`
	Calls   []string `json:"calls,omitempty"` // that led there, innermost first

	diagnostic interp.Diagnostic
}

// check returns the faults of a script and of all of its pipelines, each once,
// for a target and a cluster.
func (f *scriptFlags) check(ctx context.Context, stderr io.Writer, file string, t *target, profile accel.Profile) ([]finding, error) {
	opts := compileOptions{Options: argo.Options{Profile: profile}}
	return f.findings(ctx, stderr, file, interp.Config{}, func(p *dag.Pipeline) error {
		warn(stderr, f.rootOf(file), t.warnings(p, opts))
		return t.check(p, opts)
	})
}

// findings evaluates a script and its pipelines, all of them or the one of the
// flag, and returns what is wrong with them, and what check finds in each that
// is right. An error of another kind is returned.
func (f *scriptFlags) findings(ctx context.Context, stderr io.Writer, file string, cfg interp.Config, check func(*dag.Pipeline) error) ([]finding, error) {
	s, err := f.evaluate(ctx, stderr, file, cfg)
	if s != nil {
		_, err = s.Every(ctx, f.pipeline, check)
	}
	if err == nil {
		return nil, nil
	}
	var faults *interp.Error
	if !errors.As(err, &faults) {
		return nil, err
	}
	var found []finding
	for _, d := range faults.Diagnostics {
		found = append(found, newFinding(f.rootOf(file), d))
	}
	return found, nil
}

func newFinding(root string, d interp.Diagnostic) finding {
	d = shownDiagnostic(root, d)
	n := finding{
		File: d.Pos.File, Line: d.Pos.Line, Column: d.Pos.Col, EndLine: d.End.Line, EndCol: d.End.Col,
		Message: d.Msg, Hint: d.Hint, diagnostic: d,
	}
	for _, frame := range d.Stack {
		n.Calls = append(n.Calls, frame.Pos.String())
	}
	return n
}

func printFindings(cmd *cobra.Command, format string, found []finding) error {
	if format == "json" {
		if found == nil {
			found = []finding{}
		}
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetEscapeHTML(false)
		e.SetIndent("", "  ")
		return e.Encode(found)
	}
	writeFindings(cmd.OutOrStdout(), found)
	return nil
}

func writeFindings(w io.Writer, found []finding) {
	var ds []interp.Diagnostic
	for _, f := range found {
		ds = append(ds, f.diagnostic)
	}
	printDiagnostics(w, ds)
}

// shownDiagnostic returns a diagnostic whose places are paths from the working
// folder.
func shownDiagnostic(root string, d interp.Diagnostic) interp.Diagnostic {
	d.Pos = shown(root, d.Pos)
	d.Msg, d.Hint = shownText(root, d.Msg), shownText(root, d.Hint)
	d.Stack, d.Also = shownFrames(root, d.Stack), shownFrames(root, d.Also)
	if d.Pos == (dag.Pos{}) {
		d.End = dag.Pos{}
	}
	return d
}

func shownFrames(root string, frames []interp.Frame) []interp.Frame {
	at := make([]interp.Frame, len(frames))
	for i, f := range frames {
		at[i] = interp.Frame{Pos: shown(root, f.Pos), Func: f.Func}
	}
	return at
}
