package k8s

import (
	"fmt"
	"strings"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/internal/yaml"
)

// This file writes what a run would make, for people to read.

// Preview returns, as YAML, the pods that a run of the pipeline would make in a
// cluster, and the objects that it would change: one document a step, in the
// order of the script, whatever will be decided when it runs. What only the run
// will know is written as ${step.output}, ${item} or ${param}; see
// engine.Preview. The error is a dag.Errors of Check, too.
func Preview(p *dag.Pipeline, run engine.RunInfo, opts Options) ([]byte, error) {
	if opts.Image == "" {
		opts.Image = "${kfs_image}"
	}
	if err := Check(p, opts, ""); err != nil {
		return nil, err
	}
	attempts, err := engine.Preview(p, run)
	if err != nil {
		return nil, err
	}
	m := newPodMaker(run, p, opts)
	unknown := &entrypoint{Entrypoint: []any{"${entrypoint}"}}
	var out []byte
	for i, a := range attempts {
		if i > 0 {
			out = append(out, "---\n"...)
		}
		if a.Resource != nil {
			out = yaml.Append(append(out, about(a)...), a.Resource.Manifest)
			continue
		}
		pod, err := m.pod(a, unknown)
		if err != nil {
			return nil, dag.Errors{{Pos: a.Pos, Msg: fmt.Sprintf("step %q %v", a.Step, err)}}
		}
		out = yaml.Append(append(out, about(a)...), pod)
	}
	return out, nil
}

// about returns what a document does not say of its step, as a comment.
func about(a *engine.Attempt) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# step %q", a.Step)
	if r := a.Resource; r != nil {
		fmt.Fprintf(&b, ": %s", r.Action)
		for _, m := range []struct{ name, text string }{
			{"merge strategy", r.MergeStrategy}, {"succeeds if", r.SuccessCondition}, {"fails if", r.FailureCondition}, {"flags", strings.Join(r.Flags, " ")},
		} {
			if m.text != "" {
				fmt.Fprintf(&b, "; %s %s", m.name, oneLine(m.text))
			}
		}
	}
	b.WriteByte('\n')
	return b.String()
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }
