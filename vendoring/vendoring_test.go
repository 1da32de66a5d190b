package vendoring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kfs-project/kfs/builtins/component"
)

var ctx = context.Background()

// text returns a component that holds a word.
func text(word string) string {
	return "name: " + word + "\nimplementation: {container: {image: i, command: [c]}}\n"
}

// graph returns a graph whose tasks are the components of URLs.
func graph(urls ...string) string {
	var b strings.Builder
	b.WriteString("implementation:\n  graph:\n    tasks:\n")
	for i, url := range urls {
		fmt.Fprintf(&b, "      t%d: {componentRef: {url: %q}}\n", i, url)
	}
	return b.String()
}

// A web is what URLs give. It counts how often each was asked for.
type web struct {
	mu    sync.Mutex
	texts map[string]string
	asked map[string]int
}

func newWeb(texts map[string]string) *web { return &web{texts: texts, asked: map[string]int{}} }

func (w *web) get(_ context.Context, url string) ([]byte, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[url]++
	if text, ok := w.texts[url]; ok {
		return []byte(text), nil
	}
	return nil, errors.New("404 Not Found")
}

// vendor fetches URLs under a root and saves them.
func vendor(t *testing.T, root string, cfg Config, prune bool, urls ...string) error {
	t.Helper()
	c, err := Open(root, cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.wait = time.Second
	var errs []error
	for _, url := range urls {
		_, err := c.Fetch(ctx, url)
		errs = append(errs, err)
	}
	return errors.Join(slices.Concat(errs, c.Unasked(), c.Save(ctx, prune))...)
}

// tree returns the files under a root, as lines.
func tree(t *testing.T, root string) string {
	t.Helper()
	var files []string
	err := fs.WalkDir(os.DirFS(root), ".", func(name string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			files = append(files, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(files, " ")
}

func readLock(t *testing.T, root string) *component.Lock {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(root, component.LockFile))
	if err != nil {
		t.Fatal(err)
	}
	lock, err := component.ParseLock(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range lock.Components {
		copy, err := os.ReadFile(filepath.Join(root, p.Path))
		if err != nil || !p.Matches(copy) {
			t.Errorf("the copy of %s is not as it is pinned: %q, %v", p.URL, copy, err)
		}
	}
	return lock
}

// TestGraphs shows that what graphs name is fetched, each URL once, and that
// graphs without end are cut off where evaluation ends too.
func TestGraphs(t *testing.T) {
	w := newWeb(map[string]string{
		"https://h/g.yaml":                        graph("https://h/a.yaml", "gs://b/c.yaml", "https://h/g.yaml"),
		"https://h/a.yaml":                        graph("https://h/g.yaml"),
		"https://storage.googleapis.com/b/c.yaml": text("c"),
	})
	root := t.TempDir()
	if err := vendor(t, root, Config{Get: w.get}, false, "https://h/g.yaml", "gs://b/c.yaml"); err != nil {
		t.Fatal(err)
	}
	want := "kfs.lock vendor/h/a.yaml vendor/h/g.yaml vendor/storage.googleapis.com/b/c.yaml"
	if got := tree(t, root); got != want {
		t.Errorf("files %s; want %s", got, want)
	}
	for url, n := range w.asked {
		if n != 1 {
			t.Errorf("%s was fetched %d times", url, n)
		}
	}
	if lock := readLock(t, root); len(lock.Components) != 3 || lock.Find("gs://b/c.yaml") == nil {
		t.Errorf("kfs.lock is %+v", lock)
	}

	n := 0
	endless := func(context.Context, string) ([]byte, error) {
		n++
		return []byte(graph(fmt.Sprintf("https://h/%d.yaml", n))), nil
	}
	if err := vendor(t, t.TempDir(), Config{Get: endless}, false, "https://h/0.yaml"); err != nil || n != maxDepth+1 {
		t.Errorf("a graph without end: %d fetched, %v; want %d", n, err, maxDepth+1)
	}
	broad := func(context.Context, string) ([]byte, error) {
		var urls []string
		for range 20 {
			n++
			urls = append(urls, fmt.Sprintf("https://h/%d.yaml", n))
		}
		return []byte(graph(urls...)), nil
	}
	c, err := Open(t.TempDir(), Config{Get: broad})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Fetch(ctx, "https://h/x.yaml")
	if len(c.order) != maxURLs+1 || len(c.Unasked()) != 1 {
		t.Errorf("a graph without end: %d URLs, %d errors; want %d and one that says so", len(c.order), len(c.Unasked()), maxURLs+1)
	}
}

// TestFailures shows that what fails leaves no trace, and keeps nothing else
// from its place.
func TestFailures(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "vendor/h/taken.yaml/x"), 0o777); err != nil {
		t.Fatal(err)
	}
	w := newWeb(map[string]string{
		"https://h/good.yaml":    text("good"),
		"https://h/taken.yaml":   text("taken"),
		"https://h/broken.yaml":  "name: broken\n",
		"https://h/graph.yaml":   graph("https://h/gone.yaml", "https://h/broken2.yaml"),
		"https://h/broken2.yaml": "name: [",
	})
	err := vendor(t, root, Config{Get: w.get}, false, "https://h/good.yaml", "https://h/taken.yaml", "https://h/broken.yaml", "https://h/none.yaml", "https://h/graph.yaml")
	for _, want := range []string{
		"vendor/h/taken.yaml: it is no regular file",
		"https://h/none.yaml: 404 Not Found\n",
		"https://h/gone.yaml: 404 Not Found (a task of https://h/graph.yaml names it)",
		"https://h/broken2.yaml:1:",
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("the error lacks %q:\n%v", want, err)
		}
	}
	if got, want := tree(t, root), "kfs.lock vendor/h/good.yaml vendor/h/graph.yaml"; got != want {
		t.Errorf("files %s; want %s", got, want)
	}
	if lock := readLock(t, root); len(lock.Components) != 2 {
		t.Errorf("kfs.lock is %+v", lock)
	}

	// An update that fails leaves the copy and its pin.
	w.texts["https://h/good.yaml"] = "name: broken\n"
	delete(w.texts, "https://h/graph.yaml")
	all := func(string) bool { return true }
	before := readLock(t, root)
	vendor(t, root, Config{Get: w.get, Update: all}, false, "https://h/good.yaml", "https://h/graph.yaml")
	if after := readLock(t, root); !slices.Equal(before.Components, after.Components) {
		t.Errorf("kfs.lock is %+v; want %+v", after, before)
	}
}

// TestPins shows that a pin that others wrote keeps its path and its spelling,
// and that a lock that says the same is not written again.
func TestPins(t *testing.T) {
	root := t.TempDir()
	lock := fmt.Sprintf(`{"version":1,"components":[{"url":"gs://b/c.yaml","path":"parts/c.yaml","sha256":%q}]}`, strings.ToUpper(component.SHA256([]byte(text("c")))))
	if err := os.WriteFile(filepath.Join(root, component.LockFile), []byte(lock), 0o666); err != nil {
		t.Fatal(err)
	}
	w := newWeb(map[string]string{"https://storage.googleapis.com/b/c.yaml": text("c")})
	if err := vendor(t, root, Config{Get: w.get}, false, "gs://b/c.yaml"); err != nil {
		t.Fatal(err)
	}
	if got, want := tree(t, root), "kfs.lock parts/c.yaml"; got != want {
		t.Errorf("files %s; want %s", got, want)
	}
	readLock(t, root)
	if err := vendor(t, root, Config{}, false, "gs://b/c.yaml"); err != nil {
		t.Error(err)
	}
	// What stands outside of vendor is not removed.
	if err := vendor(t, root, Config{}, true); err != nil {
		t.Error(err)
	}
	if got, want := tree(t, root), "kfs.lock parts/c.yaml"; got != want {
		t.Errorf("files %s; want %s", got, want)
	}
	if got, _ := os.ReadFile(filepath.Join(root, component.LockFile)); string(got) != "{\n  \"version\": 1,\n  \"components\": []\n}\n" {
		t.Errorf("kfs.lock is %s", got)
	}
}

// TestTogether runs many at once under one root: no pin is lost, and each copy
// is as it is pinned, whoever came last.
func TestTogether(t *testing.T) {
	root := t.TempDir()
	var running sync.WaitGroup
	for i := range 20 {
		running.Go(func() {
			own := fmt.Sprintf("https://h/%d.yaml", i)
			w := newWeb(map[string]string{own: text("own"), "https://h/shared.yaml": text(fmt.Sprint("v", i))})
			c, err := Open(root, Config{Get: w.get})
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			c.wait = time.Minute
			c.Fetch(ctx, own)
			c.Fetch(ctx, "https://h/shared.yaml")
			if errs := c.Save(ctx, false); errs != nil {
				t.Error(errs)
			}
		})
	}
	running.Wait()
	if lock := readLock(t, root); len(lock.Components) < 20 {
		t.Errorf("kfs.lock has %d pins; want those of all", len(lock.Components))
	}
	if strings.Contains(tree(t, root), ".tmp") {
		t.Errorf("temporary files are left: %s", tree(t, root))
	}
}

// TestLeft shows what a Save that was killed leaves, and how it ends.
func TestLeft(t *testing.T) {
	root := t.TempDir()
	left := filepath.Join(root, lockTemp)
	if err := os.WriteFile(left, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	w := newWeb(map[string]string{"https://h/c.yaml": text("c")})
	c, err := Open(root, Config{Get: w.get})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.wait = 20 * time.Millisecond
	c.Fetch(ctx, "https://h/c.yaml")
	if err := errors.Join(c.Save(ctx, false)...); err == nil || !strings.Contains(err.Error(), "stands in the way") || tree(t, root) != lockTemp {
		t.Errorf("Save: %v, files %s; want an error, and nothing written", err, tree(t, root))
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	c.wait = time.Minute
	if err := errors.Join(c.Save(ended, false)...); !errors.Is(err, context.Canceled) {
		t.Errorf("Save: %v; want the context's error", err)
	}
	os.Remove(left)
	if errs := c.Save(ctx, false); errs != nil {
		t.Error(errs)
	}
	readLock(t, root)
}

// TestLink shows that a link under the name of a temporary file is not
// followed.
func TestLink(t *testing.T) {
	root := t.TempDir()
	const url = "https://h/c.yaml"
	precious := filepath.Join(root, "precious")
	temp := filepath.Join(root, fmt.Sprintf("%s.%d.tmp", Path(url), os.Getpid()))
	if err := errors.Join(os.WriteFile(precious, []byte("mine"), 0o666), os.MkdirAll(filepath.Dir(temp), 0o777), os.Symlink(precious, temp)); err != nil {
		t.Fatal(err)
	}
	if err := vendor(t, root, Config{Get: newWeb(map[string]string{url: text("c")}).get}, false, url); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(precious); err != nil || string(got) != "mine" {
		t.Errorf("the file that a link leads to holds %q, %v", got, err)
	}
	readLock(t, root)
}
