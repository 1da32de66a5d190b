package engine_test

import (
	"context"
	"fmt"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
)

// An echo is an executor whose attempts are over at once and leave their only
// argument as their only output.
type echo struct {
	known  map[string]engine.Observation
	report func(engine.Observation)
}

func (e *echo) Check(context.Context, *dag.Pipeline, map[string]string) error { return nil }

func (e *echo) Observe(_ context.Context, _ engine.RunInfo, report func(engine.Observation)) error {
	e.report = report
	for _, o := range e.known {
		report(o)
	}
	return nil
}

func (e *echo) Start(_ context.Context, a *engine.Attempt) error {
	if _, ok := e.known[a.ID]; !ok {
		text := a.Container.Get("args").([]any)[0].(string)
		e.known[a.ID] = engine.Observation{
			ID: a.ID, Phase: engine.PhaseFinished, Cause: engine.Exited, Outputs: map[string]string{"text": text},
		}
		e.report(e.known[a.ID])
	}
	return nil
}

func (e *echo) Stop(context.Context, string, engine.Cause, bool) error { return nil }

func Example() {
	step := func(name, arg string) *dag.Step {
		return &dag.Step{
			Name:      name,
			Container: dag.Object{{Name: "image", Value: "i"}, {Name: "args", Value: []any{arg}}},
			Outputs:   []dag.Output{{Name: "text", Path: "/text"}},
		}
	}
	name := dag.Ref{Kind: dag.RefParam, Name: "name"}
	said := dag.Ref{Kind: dag.RefOutput, Step: "hello", Name: "text"}
	p := &dag.Pipeline{
		Name:   "greet",
		Params: []*dag.Param{{Name: "name"}},
		Steps:  []*dag.Step{step("twice", said.Token()+" "+said.Token()), step("hello", "hello "+name.Token())},
	}

	result, err := engine.Run(context.Background(), &echo{known: map[string]engine.Observation{}}, p,
		engine.RunInfo{ID: "1", Name: "greet-1", Args: map[string]string{"name": "world"}},
		engine.Config{Events: func(ev engine.Event) {
			fmt.Println(ev.Kind, ev.Step, ev.State)
		}})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(result.Steps[0].Outputs["text"])
	// Output:
	// run  running
	// step hello pending
	// step hello succeeded
	// step twice pending
	// step twice succeeded
	// run  succeeded
	// hello world hello world
}
