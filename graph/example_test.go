package graph_test

import (
	"fmt"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/graph"
)

// A step that uses an output of another stands below it.
func Example() {
	rows := dag.Ref{Kind: dag.RefOutput, Step: "load", Name: "rows"}
	p := &dag.Pipeline{Name: "train", Steps: []*dag.Step{
		{
			Name:      "load",
			Container: dag.Object{{Name: "image", Value: "ghcr.io/acme/load:1.2"}},
			Outputs:   []dag.Output{{Name: "rows", Path: "/out/rows"}},
		},
		{
			Name:      "train",
			Container: dag.Object{{Name: "image", Value: "ghcr.io/acme/train:1.2"}, {Name: "args", Value: []any{rows.Token()}}},
		},
		{
			Name:      "notify",
			Container: dag.Object{{Name: "image", Value: "curl"}},
			After:     []dag.Edge{{Step: "train"}},
		},
	}}
	d, err := graph.Layout(p)
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, n := range d.Nodes {
		fmt.Println(n.Layer, n.Label, n.Image)
	}
	text, err := graph.Mermaid(p)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Print(text)
	// Output:
	// 0 load load:1.2
	// 1 train train:1.2
	// 2 notify curl
	// ---
	// title: "train"
	// ---
	// flowchart TD
	//     n0["load<br/>load:1.2"]
	//     n1["train<br/>train:1.2"]
	//     n2["notify<br/>curl"]
	//     n0 -->|"rows"| n1
	//     n1 -.-> n2
}
