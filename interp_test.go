// Package kfs holds the tests over all examples and over the layout of the
// project. The program is in cmd/kfs; a host embeds package interp.
package kfs

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/kfs-project/kfs/backend/accel"
	"github.com/kfs-project/kfs/backend/argo"
	"github.com/kfs-project/kfs/backend/k8s"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/interp"
)

var update = flag.Bool("update", false, "rewrite the goldens instead of comparing with them")

// variants are the settings that an example is compiled with too, beside the
// defaults: each has its sections in the example's golden.
var variants = map[string]map[string]string{
	"examples/mnist.star": {"onprem": "platform=onprem"},
}

// TestGoldens compares what every example becomes with golden/NAME.txtar, one
// section a target and variant. A new example needs no more than its file and
// go test . -update.
func TestGoldens(t *testing.T) {
	examples, err := filepath.Glob("examples/*.star")
	if err != nil || len(examples) == 0 {
		t.Fatalf("examples/*.star: %d files, %v", len(examples), err)
	}
	known := map[string]bool{}
	for _, file := range examples {
		golden := filepath.Join("golden", strings.TrimSuffix(filepath.Base(file), ".star")+".txtar")
		known[golden] = true
		t.Run(filepath.Base(file), func(t *testing.T) {
			got := &txtar.Archive{Comment: []byte(file + " as each target. Written by: go test . -update\n")}
			addSections(t, got, file, "", "")
			for _, name := range slices.Sorted(maps.Keys(variants[file])) {
				addSections(t, got, file, name+".", variants[file][name])
			}
			compareGolden(t, golden, txtar.Format(got))
		})
	}
	goldens, _ := filepath.Glob("golden/*.txtar")
	for _, g := range goldens {
		if !known[g] {
			t.Errorf("%s: its example is gone", g)
		}
	}
}

// TestExamplesList compares the table of examples/README.md with the first
// lines of the examples.
func TestExamplesList(t *testing.T) {
	const file = "examples/README.md"
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, _, ok := strings.Cut(string(old), "| example |")
	if !ok {
		t.Fatalf("%s has no table of examples", file)
	}
	list := &strings.Builder{}
	fmt.Fprintf(list, "%s| example | what it shows |\n|---|---|\n", before)
	examples, err := filepath.Glob("examples/*.star")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range examples {
		src, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		line, _, _ := strings.Cut(string(src), "\n")
		doc, _ := strings.CutPrefix(line, `"""`)
		doc, ok := strings.CutSuffix(doc, `"""`)
		if !ok {
			t.Errorf("%s does not begin with a line that says what it shows", name)
		}
		fmt.Fprintf(list, "| [%[1]s](%[1]s) | %[2]s |\n", filepath.Base(name), doc)
	}
	compareGolden(t, file, []byte(list.String()))
}

// addSections adds what an example becomes, with the settings name=value
// separated by spaces.
func addSections(t *testing.T, a *txtar.Archive, file, prefix, settings string) {
	t.Helper()
	set := map[string]string{}
	for pair := range strings.FieldsSeq(settings) {
		name, value, _ := strings.Cut(pair, "=")
		set[name] = value
	}
	all := evaluate(t, file, set)
	for _, p := range all {
		prefix := prefix
		if len(all) > 1 {
			prefix += dag.K8sName(p.Name) + "."
		}
		data, err := p.JSON()
		if err != nil {
			t.Fatal(err)
		}
		a.Files = append(a.Files,
			txtar.File{Name: prefix + "json", Data: data},
			txtar.File{Name: prefix + "argo", Data: compile(t, p)},
			txtar.File{Name: prefix + "steps", Data: steps(t, p)})
	}
}

// compile returns the Workflow of a pipeline.
func compile(t *testing.T, p *dag.Pipeline) []byte {
	t.Helper()
	manifest, err := argo.Compile(p, argo.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return manifest
}

// steps returns the pods of a run of a pipeline, whose name is the pipeline's.
func steps(t *testing.T, p *dag.Pipeline) []byte {
	t.Helper()
	placed, err := accel.Place(p, "")
	if err != nil {
		t.Fatal(err)
	}
	name := dag.K8sName(p.Name)
	pods, err := k8s.Preview(placed, engine.RunInfo{ID: name, Name: name}, k8s.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return pods
}

// evaluate returns the pipelines of a file.
func evaluate(t *testing.T, file string, settings map[string]string) []*dag.Pipeline {
	t.Helper()
	script, err := interp.Load(context.Background(), file, interp.Config{Settings: settings})
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	all, err := script.Every(context.Background(), "", nil)
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	return all
}

func compareGolden(t *testing.T, file string, got []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, got, 0o666); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v; write it with: go test . -update", err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got); after reading the difference: go test . -update\n%s", file, diff)
	}
}

// TestSameBytes shows that equal input gives equal bytes.
func TestSameBytes(t *testing.T) {
	const file = "examples/mnist.star"
	first := compile(t, evaluate(t, file, nil)[0])
	for range 20 {
		if again := compile(t, evaluate(t, file, nil)[0]); !bytes.Equal(first, again) {
			t.Fatalf("two compilations differ:\n%s", cmp.Diff(string(first), string(again)))
		}
	}
}
