package interp_test

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"testing"
	"testing/fstest"
	"time"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/kfs-project/kfs/backend/argo"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/interp"
)

// FuzzEvaluate evaluates arbitrary text: it ends in pipelines or in an *Error,
// within the limits, and what it gives compiles to the same bytes twice.
func FuzzEvaluate(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		f.Fatalf("testdata/*.txtar: %d files, %v", len(files), err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(a.Files[0].Data))
	}
	ctx := context.Background()
	compile := func(t *testing.T, src string) []byte {
		fsys := fstest.MapFS{"in.star": {Data: []byte(src)}}
		s, err := interp.LoadFS(ctx, fsys, "in.star", interp.Config{Limits: interp.Limits{Steps: 100_000, Time: 5 * time.Second}})
		var out []byte
		var faults *interp.Error
		if err != nil {
			if !errors.As(err, &faults) {
				t.Fatalf("%v is no *Error", err)
			}
			return nil
		}
		for _, name := range s.Pipelines() {
			p, err := s.Pipeline(ctx, name)
			if err != nil {
				if !errors.As(err, &faults) {
					t.Fatalf("%v is no *Error", err)
				}
				continue
			}
			manifest, err := argo.Compile(p, argo.Options{})
			if err != nil && dag.Faults(err) == nil {
				t.Fatalf("%v is no fault of the pipeline", err)
			}
			out = append(out, manifest...)
			text, err := p.JSON()
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, text...)
		}
		return out
	}
	f.Fuzz(func(t *testing.T, src string) {
		first := compile(t, src)
		if again := compile(t, src); !bytes.Equal(first, again) {
			t.Errorf("two compilations differ:\n%s\n---\n%s", first, again)
		}
	})
}
