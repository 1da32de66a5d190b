package engine

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/kfs-project/kfs/dag"
)

// This file defines what becomes of placeholders of Argo's that an author wrote
// as text: those of the run are filled in, of the others a run knows nothing.

// ofArgo matches a placeholder of Argo's, with its name.
var ofArgo = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\{\{\s*(=[^{}]*|item|retries|(?:workflow|pod|node|inputs|outputs|tasks|steps|item|lastRetry)\.[^{}\s]+)\s*\}\}`)
})

// filled are the placeholders that have a value in each run.
var filled = map[string]dag.RefKind{
	"workflow.uid":  dag.RefRunID,
	"workflow.name": dag.RefRunName,
	"pod.name":      dag.RefPodName,
}

// braces returns the pipeline with values in place of the placeholders that it
// knows. The error has a fault for each other one.
func braces(p *dag.Pipeline) (*dag.Pipeline, error) {
	b := bracer{}
	c := *p
	c.Steps, c.Groups = nil, nil
	for _, s := range p.Steps {
		b.pos, b.what = s.Pos, fmt.Sprintf("step %q", s.Name)
		c.Steps = append(c.Steps, b.step(s))
	}
	for _, g := range p.Groups {
		b.pos, b.what = g.Pos, fmt.Sprintf("block %q", g.Name)
		c.Groups = append(c.Groups, b.group(g))
	}
	return &c, b.faults.Err()
}

type bracer struct {
	pos    dag.Pos // of the step or group
	what   string
	faults dag.Errors
}

// text returns a text with tokens in place of placeholders.
func (b *bracer) text(text string) string {
	if !strings.Contains(text, "{{") {
		return text
	}
	return ofArgo().ReplaceAllStringFunc(text, func(found string) string {
		name := ofArgo().FindStringSubmatch(found)[1]
		if kind, ok := filled[name]; ok {
			return dag.Ref{Kind: kind}.Token()
		}
		fault := &dag.Error{
			Pos:  b.pos,
			Msg:  fmt.Sprintf("%s: %s is a placeholder of Argo's: a run by kfs fills {{workflow.uid}}, {{workflow.name}} and {{pod.name}}, and no other", b.what, found),
			Hint: "write the value itself: a param, step.output, the item of a loop",
		}
		if !slices.ContainsFunc(b.faults, func(e *dag.Error) bool { return *e == *fault }) {
			b.faults = append(b.faults, fault)
		}
		return found
	})
}

func (b *bracer) step(s *dag.Step) *dag.Step {
	has := slices.ContainsFunc(s.Artifacts, func(a dag.Artifact) bool { return strings.Contains(a.Text, "{{") })
	s.WalkText(func(_ *dag.Field, text string) { has = has || strings.Contains(text, "{{") })
	if !has {
		return s
	}
	return s.MapText(b.text, b.text)
}

func (b *bracer) group(g *dag.Group) *dag.Group {
	c := *g
	c.Condition, c.Args = b.condition(g.Condition), nil
	if g.Loop != nil {
		loop := *g.Loop
		loop.Items, _ = dag.MapText(loop.Items, b.text).([]any)
		c.Loop = &loop
	}
	for _, a := range g.Args {
		c.Args = append(c.Args, dag.Arg{Name: a.Name, Value: b.text(a.Value)})
	}
	return &c
}

func (b *bracer) condition(c *dag.Condition) *dag.Condition {
	if c == nil {
		return nil
	}
	d := &dag.Condition{Op: c.Op, X: b.text(c.X), Y: b.text(c.Y)}
	for _, of := range c.Of {
		d.Of = append(d.Of, b.condition(of))
	}
	return d
}
