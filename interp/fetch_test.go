package interp

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/fstest"
)

// TestFetch shows that Fetch takes the place of the copies that kfs.lock pins.
func TestFetch(t *testing.T) {
	fsys := fstest.MapFS{"in.star": {Data: []byte(`
a = load_component(url = "gs://b/a.yaml")

def p():
    a()
    load_component(url = "https://example.com/c.yaml")()

pipeline(p)
`)}}
	var urls []string
	fetch := func(url string) ([]byte, error) {
		urls = append(urls, url)
		if len(urls) == 3 {
			return nil, errors.New("no route")
		}
		return []byte("{name: c, implementation: {container: {image: i, command: [c]}}}"), nil
	}
	s, err := LoadFS(context.Background(), fsys, "in.star", Config{Fetch: fetch})
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Pipeline(context.Background(), "")
	if err != nil || len(p.Steps) != 2 {
		t.Fatalf("Pipeline: %+v, %v; want two steps", p, err)
	}
	if want := []string{"https://storage.googleapis.com/b/a.yaml", "https://example.com/c.yaml"}; !slices.Equal(urls, want) {
		t.Errorf("fetched %q; want %q", urls, want)
	}
	if _, err := s.Pipeline(context.Background(), ""); err == nil {
		t.Error("a fetch that failed is no error")
	}
}
