package kfs

import (
	"bytes"
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v2"
)

// This file compares the argo target with what kfp 1.8.22 itself wrote.

// TestKFP compares the seed pipeline with golden/kfp, which holds what the
// compiler of kfp 1.8.22 made of the same pipeline in Python: everything, the
// order of keys included, but the time of compilation.
func TestKFP(t *testing.T) {
	for golden, settings := range map[string]map[string]string{
		"golden/kfp/mnist.yaml":        nil,
		"golden/kfp/mnist_onprem.yaml": {"platform": "onprem"},
	} {
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		got := compile(t, evaluate(t, "examples/mnist.star", settings)[0])
		if diff := cmp.Diff(ordered(t, want), ordered(t, got)); diff != "" {
			t.Errorf("%s (-kfp +kfs):\n%s", golden, diff)
		}
	}
}

// ordered returns a manifest with the order of its keys, without the time of
// compilation.
func ordered(t *testing.T, manifest []byte) yaml.MapSlice {
	t.Helper()
	var tree yaml.MapSlice
	if err := yaml.NewDecoder(bytes.NewReader(manifest)).Decode(&tree); err != nil {
		t.Fatal(err)
	}
	for _, item := range tree {
		if item.Key != "metadata" {
			continue
		}
		metadata := item.Value.(yaml.MapSlice)
		for i, item := range metadata {
			if item.Key != "annotations" {
				continue
			}
			var kept yaml.MapSlice
			for _, a := range item.Value.(yaml.MapSlice) {
				if a.Key != "pipelines.kubeflow.org/pipeline_compilation_time" {
					kept = append(kept, a)
				}
			}
			metadata[i].Value = kept
		}
	}
	return tree
}
