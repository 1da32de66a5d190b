package interp

import (
	"context"
	"errors"
	"slices"
	"strings"
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

// A hinted is an error with a hint of its own.
type hinted struct{ error }

func (hinted) Hint() string { return "ask the host" }

// TestFetchFails shows that a fetch that failed does not keep evaluation from
// naming the URLs behind it, in the file and in its pipelines.
func TestFetchFails(t *testing.T) {
	fsys := fstest.MapFS{"in.star": {Data: []byte(`
a = load_component(url = "https://h/a.yaml")
b = load_component(url = "https://h/b.yaml")

def p():
    load_component(url = "https://h/c.yaml")(a(b().output).outputs["x"])

def q():
    container_op("q", "i")

pipeline(p)
pipeline(q)
`)}}
	var urls []string
	fetch := func(url string) ([]byte, error) {
		urls = append(urls, url)
		return nil, hinted{errors.New("no route")}
	}
	s, err := LoadFS(context.Background(), fsys, "in.star", Config{Fetch: fetch})
	var e *Error
	if !errors.As(err, &e) || len(e.Diagnostics) != 2 || e.Diagnostics[1].Hint != "ask the host" || s == nil {
		t.Fatalf("LoadFS: %v, %v; want a script, and two faults with the error's hint", s, err)
	}
	for name, faults := range map[string]int{"P": 3, "Q": 2} {
		if p, err := s.Pipeline(context.Background(), name); !errors.As(err, &e) || p != nil || len(e.Diagnostics) != faults {
			t.Errorf("Pipeline(%q): %v, %v; want %d faults", name, p, err, faults)
		}
	}
	slices.Sort(urls)
	if want := []string{"https://h/a.yaml", "https://h/b.yaml", "https://h/c.yaml"}; !slices.Equal(urls, want) {
		t.Errorf("fetched %q; want %q", urls, want)
	}
}

// TestVendorCommand shows that the command which makes the copies makes them
// under the root that the evaluation has.
func TestVendorCommand(t *testing.T) {
	fsys := fstest.MapFS{
		"in.star":     {Data: []byte(`load_component(url = "https://h/c.yaml")`)},
		"sub/in.star": {Data: []byte(`load_component(url = "https://h/c.yaml")`)},
	}
	for _, tt := range []struct{ file, root, want string }{
		{"in.star", "", "kfs vendor in.star"},
		{"in.star", "dir", "kfs vendor dir/in.star"},
		{"sub/in.star", "", "kfs vendor sub/in.star --root ."},
		{"sub/in.star", "dir", "kfs vendor dir/sub/in.star --root dir"},
	} {
		_, err := LoadFS(context.Background(), fsys, tt.file, Config{Root: tt.root})
		var e *Error
		if !errors.As(err, &e) || !strings.HasSuffix(e.Diagnostics[0].Hint, "by  "+tt.want) {
			t.Errorf("LoadFS(%q) under %q: %v; want the hint %q", tt.file, tt.root, err, tt.want)
		}
	}
}
