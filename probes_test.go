package kfs

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	godiff "github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/kfs-project/kfs/backend/argo"
	"github.com/kfs-project/kfs/interp"
)

// This file compares testdata/probes, one feature of KFP a file, with what the
// compiler of kfp 1.8.22 wrote of the same pipelines in Python.

// probeOutputs holds what kfp 1.8.22 wrote: NAME.yaml, or NAME.error.txt. It
// is no part of this repository.
const probeOutputs = "../shared/kfp/probes"

// pendingProbes need words that are not built yet. Each fails; one that does
// not is to be taken out.
var pendingProbes = []string{
	// collected
	"artifact_through_groups", "loop_output_used_outside",
	// load_component
	"component_fileoutputs_and_default_name", "component_graph",
}

// TestProbes evaluates testdata/probes/NAME.star. Its first line says what is
// to come of it:
//
//	# same             the manifest that KFP wrote
//	# differs: why     a manifest, but not KFP's
//	# error: regexp    an error that it matches
//	# none: why        nothing: the probe has no counterpart
func TestProbes(t *testing.T) {
	if _, err := os.Stat(probeOutputs); errors.Is(err, fs.ErrNotExist) {
		t.Skipf("%s is not there", probeOutputs)
	}
	files, err := filepath.Glob("testdata/probes/*.star")
	if err != nil || len(files) == 0 {
		t.Fatalf("testdata/probes/*.star: %d files, %v", len(files), err)
	}
	for _, name := range pendingProbes {
		if !slices.Contains(files, "testdata/probes/"+name+".star") {
			t.Errorf("pending probe %s does not exist", name)
		}
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".star")
		if name == "helpers" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			fault := checkProbe(file, filepath.Join(probeOutputs, name+".yaml"))
			switch pending := slices.Contains(pendingProbes, name); {
			case pending && fault == "":
				t.Error("it does what it should: take it out of pendingProbes")
			case !pending && fault != "":
				t.Error(fault)
			}
		})
	}
}

// checkProbe returns what is wrong with what becomes of a probe, or "".
func checkProbe(file, output string) string {
	src, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	line, _, _ := strings.Cut(string(src), "\n")
	expect, detail, _ := strings.Cut(strings.TrimPrefix(line, "# "), ": ")
	if expect == "none" {
		return ""
	}
	got, err := compileProbe(file)
	if expect == "error" {
		re, reErr := regexp.Compile(detail)
		switch {
		case reErr != nil:
			return reErr.Error()
		case err == nil:
			return "it compiles; want an error that matches " + detail
		case !re.MatchString(err.Error()):
			return fmt.Sprintf("got the error %v; want one that matches %s", err, detail)
		}
		return ""
	}
	if err != nil {
		return err.Error()
	}
	want, err := os.ReadFile(output)
	if expect == "differs" && errors.Is(err, fs.ErrNotExist) {
		return "" // KFP wrote an error
	}
	if err != nil {
		return err.Error()
	}
	diff := godiff.Diff(comparable(want), comparable(got))
	switch {
	case expect == "same" && diff != "":
		return "(-kfp +kfs):\n" + diff
	case expect == "differs" && diff == "":
		return "it does not differ from what KFP wrote"
	case expect != "same" && expect != "differs":
		return fmt.Sprintf("first line %q: want # same, # differs: why, # error: regexp or # none: why", line)
	}
	return ""
}

func compileProbe(file string) ([]byte, error) {
	script, err := interp.Load(context.Background(), file, interp.Config{})
	if err != nil {
		return nil, err
	}
	p, err := script.Pipeline(context.Background(), "")
	if err != nil {
		return nil, err
	}
	return argo.Compile(p, argo.Options{})
}

// A pair is one member of a mapping.
type pair struct {
	Key   string
	Value any
}

// comparable returns a manifest as a tree that keeps the order of keys, save
// that of labels, without the time of compilation and the place that a
// component was read from. Text that is JSON becomes its value.
func comparable(manifest []byte) any {
	var doc yaml.Node
	if err := yaml.Unmarshal(manifest, &doc); err != nil {
		return err.Error()
	}
	return comparableNode("", doc.Content[0])
}

func comparableNode(key string, n *yaml.Node) any {
	switch n.Kind {
	case yaml.MappingNode:
		pairs := []pair{}
		for i := 0; i < len(n.Content); i += 2 {
			switch key := n.Content[i].Value; key {
			case "pipelines.kubeflow.org/pipeline_compilation_time", "pipelines.kubeflow.org/component_ref":
			default:
				pairs = append(pairs, pair{key, comparableNode(key, n.Content[i+1])})
			}
		}
		if key == "labels" {
			slices.SortFunc(pairs, func(a, b pair) int { return cmp.Compare(a.Key, b.Key) })
		}
		return pairs
	case yaml.SequenceNode:
		list := []any{}
		for _, e := range n.Content {
			list = append(list, comparableNode("", e))
		}
		return list
	}
	var v any
	if err := n.Decode(&v); err != nil {
		return err.Error()
	}
	switch v := v.(type) {
	case float64:
		if !strings.Contains(n.Value, ".") {
			return n.Value // to PyYAML, which follows YAML 1.1, 1e3 is text
		}
	case string:
		var tree any
		if strings.HasPrefix(v, "{\"") && json.Unmarshal([]byte(v), &tree) == nil {
			return tree
		}
	}
	return v
}
