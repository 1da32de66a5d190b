package interp_test

import (
	"context"
	"errors"
	"fmt"
	"testing/fstest"

	"github.com/kfs-project/kfs/interp"
)

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
