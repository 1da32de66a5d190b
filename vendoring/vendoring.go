// Package vendoring keeps copies of the components that scripts name by URL:
// files under the root, each pinned by its SHA-256 in kfs.lock. Evaluation
// reads the copies and never the network; this package makes them.
//
//	Copies    those under one root; Fetch is for interp.Config.Fetch
//	Client    fetches by HTTP
//	Path      where the copy of a URL stands
//
// A host opens Copies, evaluates its scripts with Fetch, which gives a script
// the component of each URL it names, and then calls Save.
package vendoring

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kfs-project/kfs/builtins/component"
	"github.com/kfs-project/kfs/internal/terminal"
)

// A Config says how copies are made. The zero value fetches nothing.
type Config struct {
	// Get returns what a URL gives now. With nil, a URL without a copy as it
	// is pinned is an error, and Save has nothing to write.
	Get func(ctx context.Context, url string) ([]byte, error)

	// Update reports whether a URL is fetched although it has a copy, and
	// pinned anew. Nil updates none.
	Update func(url string) bool

	// Command is the command line that makes the copies, for hints.
	Command string

	// Log receives a line for each URL that was fetched or pin that was
	// removed; nil drops it.
	Log func(line string)
}

// Copies are the copies under one root. They are for one goroutine.
type Copies struct {
	cfg   Config
	name  string // of the root, for messages
	root  *os.Root
	lock  *component.Lock
	found map[string]*copied // by URL, of all that were asked for
	order []string           // of their URLs
	bytes int                // of their texts
	wait  time.Duration      // for another Save under the same root
}

// A copied is one component.
type copied struct {
	text  []byte
	err   error
	asked bool   // by a script, which tells the error
	from  string // the URL of the graph that names it; "" for a script
	pin   component.Pinned
	write bool // the copy and its pin are to be written
}

const (
	maxURLs  = 1000     // under one root
	maxBytes = 64 << 20 // of all components together, which is what one evaluation may read
	maxDepth = 20       // of graphs in each other, which is how deep evaluation goes
)

// Open opens the copies under a root. The error is about the folder or its
// kfs.lock.
func Open(root string, cfg Config) (*Copies, error) {
	r, err := os.OpenRoot(root)
	if err != nil {
		return nil, fmt.Errorf("open the root %s: %w", root, reason(err))
	}
	if cfg.Update == nil {
		cfg.Update = func(string) bool { return false }
	}
	if cfg.Log == nil {
		cfg.Log = func(string) {}
	}
	c := &Copies{cfg: cfg, name: root, root: r, found: map[string]*copied{}, wait: 10 * time.Second}
	if c.lock, err = c.readLock(); err != nil {
		r.Close()
		return nil, err
	}
	return c, nil
}

// Close closes the root. It writes nothing.
func (c *Copies) Close() error { return c.root.Close() }

// Fetch returns the component of a URL: its copy, if that is as it was pinned,
// else what Get returns. It fetches what the tasks of a graph name by URL too,
// so that the copies are whole. An error may have a method Hint() string. A
// text that is no component is returned, for the caller to say so, and is not
// written.
func (c *Copies) Fetch(ctx context.Context, url string) ([]byte, error) {
	f := c.look(ctx, component.FixURL(url), "", 0)
	f.asked = true
	return f.text, f.err
}

// Named reports whether a script or a graph has named a URL.
func (c *Copies) Named(url string) bool { return c.found[component.FixURL(url)] != nil }

// Unasked returns the errors of URLs that a graph names and no script has asked
// for: the tasks of a graph that no pipeline uses.
func (c *Copies) Unasked() []error {
	var errs []error
	for _, url := range c.order {
		if f := c.found[url]; f.err != nil && !f.asked {
			errs = append(errs, &fault{msg: terminal.Plain(fmt.Sprintf("%v (a task of %s names it)", f.err, shown(f.from))), hint: hintOf(f.err), err: f.err})
		}
	}
	return errs
}

// Unused returns the pins whose URLs were not asked for.
func (c *Copies) Unused() []component.Pinned {
	return slices.DeleteFunc(slices.Clone(c.lock.Components), func(p component.Pinned) bool { return c.Named(p.URL) })
}

func hintOf(err error) string {
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		return hinted.Hint()
	}
	return ""
}

func (c *Copies) look(ctx context.Context, url, from string, depth int) *copied {
	if f := c.found[url]; f != nil {
		return f
	}
	f := &copied{from: from}
	if len(c.order) <= maxURLs {
		c.found[url] = f
		c.order = append(c.order, url)
	}
	if len(c.order) > maxURLs {
		f.err = fmt.Errorf("%s: more than %d URLs are named", shown(url), maxURLs)
		return f
	}
	if f.err = checkURL(url); f.err == nil {
		f.err = c.obtain(ctx, url, f)
	}
	if c.bytes += len(f.text); f.err == nil && c.bytes > maxBytes {
		f.err = fmt.Errorf("%s: all components together are larger than %d bytes", shown(url), maxBytes)
	}
	var spec *component.Spec
	if f.err == nil {
		var err error
		spec, err = component.Read(f.text)
		if err != nil && from != "" {
			f.err = c.broken(url, err)
		}
	}
	if spec == nil {
		f.write = false
		if f.err != nil {
			f.text = nil
		}
		return f
	}
	if depth < maxDepth {
		for _, task := range spec.URLs() {
			c.look(ctx, component.FixURL(task), url, depth+1)
		}
	}
	return f
}

// broken is the error of a text that is no component, with each place in it.
func (c *Copies) broken(url string, err error) error {
	var faults component.Faults
	if !errors.As(err, &faults) {
		return err
	}
	var lines []string
	for _, f := range faults {
		lines = append(lines, fmt.Sprintf("%s:%d:%d: %s", shown(url), f.Line, f.Col, f.Msg))
	}
	return &fault{msg: strings.Join(lines, "\n"), hint: faults[0].Hint, err: err}
}

// obtain sets the text of a component, from its copy or by Get.
func (c *Copies) obtain(ctx context.Context, url string, f *copied) error {
	pin := c.lock.Find(url)
	f.pin, f.write = component.Pinned{URL: url, Path: Path(url)}, true
	update := c.cfg.Get != nil && c.cfg.Update(url)
	need := &fault{msg: fmt.Sprintf("%s has no copy: %s does not name it", shown(url), c.display(component.LockFile)), hint: "it is made by  " + c.cfg.Command}
	if pin != nil {
		f.pin = *pin
		file := c.display(pin.Path)
		text, err := c.read(pin.Path)
		whole := err == nil && pin.Matches(text)
		switch {
		case whole && !update:
			f.text, f.write = text, false
			return nil
		case errors.Is(err, fs.ErrNotExist):
			need.msg = fmt.Sprintf("the copy of %s, %s, is missing", shown(url), file)
		case err != nil:
			return fmt.Errorf("the copy of %s, %s: %w", shown(url), file, err)
		case !whole && !update:
			return &fault{
				msg: fmt.Sprintf("the copy of %s, %s, was changed: its SHA-256 is %s, and %s has %s",
					shown(url), file, component.SHA256(text), c.display(component.LockFile), pin.SHA256),
				hint: fmt.Sprintf("what was pinned comes back if the copy is removed, by  %s\nwhat the URL gives now is pinned by  %s --update=%s", c.cfg.Command, c.cfg.Command, shown(url)),
			}
		}
		f.write = !whole
	}
	if c.cfg.Get == nil {
		return need
	}

	text, err := c.cfg.Get(ctx, url)
	if err != nil {
		return &fault{msg: shown(url) + ": " + err.Error(), hint: hintOf(err), err: err}
	}
	if pin != nil && !update && !pin.Matches(text) {
		return &fault{
			msg: fmt.Sprintf("%s has changed: its SHA-256 is %s, and %s has %s",
				shown(url), component.SHA256(text), c.display(component.LockFile), pin.SHA256),
			hint: fmt.Sprintf("what it gives now is pinned by  %s --update=%s", c.cfg.Command, shown(url)),
		}
	}
	f.text = text
	f.pin.SHA256 = component.SHA256(text)
	f.write = f.write || !pin.Matches(text)
	switch _, err := component.Read(text); {
	case err != nil: // the caller says so
	case pin != nil && !pin.Matches(text):
		c.cfg.Log(fmt.Sprintf("updated %s -> %s (sha256 %s -> %s)", shown(url), c.display(f.pin.Path), short(pin.SHA256), short(f.pin.SHA256)))
	case f.write:
		c.cfg.Log(fmt.Sprintf("fetched %s -> %s (sha256 %s)", shown(url), c.display(f.pin.Path), short(f.pin.SHA256)))
	default:
		c.cfg.Log("unchanged " + shown(url))
	}
	return nil
}

// short returns the beginning of a hash.
func short(sha256 string) string { return sha256[:12] + "…" }

// display returns a path under the root as the user of the host knows it.
func (c *Copies) display(name string) string {
	return filepath.ToSlash(filepath.Join(c.name, filepath.FromSlash(name)))
}

// read returns the content of a regular file under the root.
func (c *Copies) read(name string) ([]byte, error) {
	name = filepath.FromSlash(name)
	if info, err := c.root.Stat(name); err != nil {
		return nil, reason(err)
	} else if !info.Mode().IsRegular() {
		return nil, errors.New("it is no regular file")
	} else if info.Size() > maxBytes {
		return nil, fmt.Errorf("it is larger than %d bytes", maxBytes)
	}
	f, err := c.root.Open(name)
	if err != nil {
		return nil, reason(err)
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxBytes))
}

// reason returns what is wrong, without the operation and the path.
func reason(err error) error {
	var of *fs.PathError
	if errors.As(err, &of) {
		return of.Err
	}
	return err
}
