package interp_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing/fstest"
	"time"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/backend/argo"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/interp"
)

// These examples read from top to bottom as a tutorial; docs/embedding.md says
// the same in words.

// A host evaluates a file and gets plain data.
func Example() {
	fsys := fstest.MapFS{"train.star": {Data: []byte(`
gpu = config("gpu", default = False)

def train(steps = 200):
    step = container_op("train", "team/model:v3", arguments = ["--steps", steps])
    if gpu:
        step.set_gpu_limit(1)

pipeline(train)
`)}}
	ctx := context.Background()
	script, err := interp.LoadFS(ctx, fsys, "train.star", interp.Config{
		Settings: map[string]string{"gpu": "true"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := script.Pipeline(ctx, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, step := range p.Steps {
		fmt.Println(step.Name, "at", step.Pos, "needs GPUs:", step.Container.Get("resources", "limits", "nvidia.com/gpu"))
	}
	// Output: train at train.star:5:12 needs GPUs: 1
}

// What is wrong with a script comes as values, all faults at once.
func ExampleError() {
	fsys := fstest.MapFS{"train.star": {Data: []byte(`
def train(steps = 200):
    if steps > 100:
        pass

pipeline(train)
`)}}
	ctx := context.Background()
	script, err := interp.LoadFS(ctx, fsys, "train.star", interp.Config{})
	if err == nil {
		_, err = script.Pipeline(ctx, "")
	}
	var faults *interp.Error
	if errors.As(err, &faults) {
		for _, d := range faults.Diagnostics {
			fmt.Println(d.Pos.Line, d.Pos.Col)
			fmt.Println(d.Excerpt)
		}
	}
	// Output:
	// 3 8
	//     3 |     if steps > 100:
	//       |        ^^^^^^^^^^^
}

// Files come from any fs.FS: embed.FS, a zip archive, a folder, a database.
// load finds those beside the loading file, and // starts at the root.
func ExampleLoadFS() {
	fsys := fstest.MapFS{
		"teams/vision/train.star": {Data: []byte(`
load("//lib/steps.star", "say")

def train():
    say("hello")

pipeline(train)
`)},
		"lib/steps.star": {Data: []byte(`
def say(text):
    return container_op("say", "busybox", command = ["echo", text])
`)},
	}
	ctx := context.Background()
	script, err := interp.LoadFS(ctx, fsys, "teams/vision/train.star", interp.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := script.Pipeline(ctx, "Train")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Steps[0].Command())
	fmt.Println(script.Files())
	// Output:
	// [echo hello]
	// [teams/vision/train.star lib/steps.star]
}

// Settings are what a host may ask its user for, before the pipeline is made.
func ExampleScript_Settings() {
	fsys := fstest.MapFS{"train.star": {Data: []byte(`
zone = config("zone", default = "eu", choices = ["eu", "us"], doc = "where it runs")
nodes = config("nodes", default = 2)
`)}}
	script, err := interp.LoadFS(context.Background(), fsys, "train.star", interp.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range script.Settings() {
		fmt.Printf("%s: %s, by default %s %q %s\n", s.Name, s.Type, s.Default, s.Choices, s.Doc)
	}
	// Output:
	// zone: string, by default eu ["eu" "us"] where it runs
	// nodes: int, by default 2 []
}

// A host's own words stand beside those of the language, and its modules are
// loaded by name. Call makes steps from Go, at the place of the script's call.
func ExampleCall() {
	teamOp := starlark.NewBuiltin("team_op", func(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		var name string
		if err := starlark.UnpackArgs(b.Name(), args, kwargs, "name", &name); err != nil {
			return nil, err
		}
		image := starlark.String("registry.example.com/team/" + name + ":stable")
		return interp.Call(thread, "container_op", starlark.Tuple{starlark.String(name), image}, nil)
	})
	fsys := fstest.MapFS{"train.star": {Data: []byte(`
load("@team", "zone")

def train():
    team_op("fetch").add_node_selector_constraint("zone", zone)

pipeline(train)
`)}}
	ctx := context.Background()
	script, err := interp.LoadFS(ctx, fsys, "train.star", interp.Config{
		Words:   starlark.StringDict{"team_op": teamOp},
		Modules: map[string]starlark.StringDict{"team": {"zone": starlark.String("eu")}},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := script.Pipeline(ctx, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Steps[0].Pos, p.Steps[0].Image(), p.Steps[0].NodeSelector)
	// Output: train.star:5:5 registry.example.com/team/fetch:stable [{zone eu}]
}

// A rule of the host's own is an error at the place of the step that breaks
// it, with the excerpt that the language's own errors have.
func ExampleScript_Explain() {
	fsys := fstest.MapFS{"train.star": {Data: []byte(`
def train():
    container_op("train", "docker.io/someone/model")

pipeline(train)
`)}}
	ctx := context.Background()
	script, err := interp.LoadFS(ctx, fsys, "train.star", interp.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := script.Pipeline(ctx, "")
	if err != nil {
		fmt.Println(err)
		return
	}
	var faults dag.Errors
	for _, s := range p.Steps {
		if !strings.HasPrefix(s.Image(), "registry.example.com/") {
			faults = append(faults, &dag.Error{
				Pos:  s.Pos,
				Msg:  fmt.Sprintf("step %q: its image %s is not one of ours", s.Name, s.Image()),
				Hint: "take one of registry.example.com",
			})
		}
	}
	var e *interp.Error
	if errors.As(script.Explain(faults), &e) {
		fmt.Println(e.Diagnostics[0])
	}
	// Output:
	// train.star:3:5: step "train": its image docker.io/someone/model is not one of ours
	//     3 |     container_op("train", "docker.io/someone/model")
	//       |     ^^^^^^^^^^^^
	// hint: take one of registry.example.com
}

// An evaluation ends when it has used what it may, or when its context ends.
func ExampleLimits() {
	fsys := fstest.MapFS{"in.star": {Data: []byte(`
def f():
    for i in range(1000000000):
        pass

f()
`)}}
	_, err := interp.LoadFS(context.Background(), fsys, "in.star", interp.Config{
		Limits: interp.Limits{Steps: 100_000},
	})
	fmt.Println(err)

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	_, err = interp.LoadFS(ctx, fsys, "in.star", interp.Config{Limits: interp.Limits{Steps: 1 << 60}})
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output:
	// in.star:3:5: the script ran for more than 100000 steps of the interpreter and was stopped here
	// true
}

// What comes out is plain data, for any target: here an Argo Workflow.
func ExampleScript_Pipeline() {
	fsys := fstest.MapFS{"hello.star": {Data: []byte(`
def hello(who = "world"):
    container_op("greet", "busybox", command = ["echo", "hello " + who])

pipeline(hello)
`)}}
	ctx := context.Background()
	script, err := interp.LoadFS(ctx, fsys, "hello.star", interp.Config{})
	if err != nil {
		fmt.Println(err)
		return
	}
	p, err := script.Pipeline(ctx, "Hello")
	if err != nil {
		fmt.Println(err)
		return
	}
	workflow, err := argo.Compile(p, argo.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(strings.SplitN(string(workflow), "\n", 3)[1])
	// Output: kind: Workflow
}
