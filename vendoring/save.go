package vendoring

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kfs-project/kfs/builtins/component"
)

// This file defines how copies and kfs.lock are written.

// lockTemp is kfs.lock while it is written. That it exists keeps others from
// writing copies and pins.
const lockTemp = component.LockFile + ".tmp"

// Save writes the copies that Fetch has made, each as a whole, and then
// kfs.lock, if something has changed. A copy that cannot be written keeps none
// of the others from it. The pins that others have written meanwhile stay.
// With prune, the pins whose URLs were not asked for go, and their copies if
// they stand in Folder and are as they were pinned. The errors are all that
// went wrong.
func (c *Copies) Save(ctx context.Context, prune bool) (errs []error) {
	var write []*copied
	for _, url := range c.order {
		if f := c.found[url]; f.write {
			write = append(write, f)
		}
	}
	var drop []component.Pinned
	if prune {
		drop = c.Unused()
	}
	if len(write) == 0 && len(drop) == 0 {
		return nil
	}

	tmp, err := c.begin(ctx)
	if err != nil {
		return []error{err}
	}
	done := false
	defer func() {
		if !done {
			tmp.Close()
			c.root.Remove(lockTemp)
		}
	}()
	lock, err := c.readLock()
	if err != nil {
		return []error{err}
	}
	before := slices.Clone(lock.Components)
	for _, f := range write {
		if err := c.write(f.pin.Path, f.text); err != nil {
			errs = append(errs, fmt.Errorf("write %s: %w", c.display(f.pin.Path), reason(err)))
			continue
		}
		if pin := lock.Find(f.pin.URL); pin != nil {
			*pin = f.pin
		} else {
			lock.Components = append(lock.Components, f.pin)
		}
	}
	for _, p := range drop {
		lock.Components = slices.DeleteFunc(lock.Components, func(q component.Pinned) bool { return q == p })
		if err := c.remove(lock, p); err != nil {
			errs = append(errs, fmt.Errorf("remove %s: %w", c.display(p.Path), reason(err)))
		}
		c.cfg.Log(fmt.Sprintf("removed %s (%s)", shown(p.URL), c.display(p.Path)))
	}
	if !slices.Equal(lock.Components, before) {
		text, err := lock.JSON()
		if err == nil {
			done = true
			err = c.finish(tmp, lockTemp, component.LockFile, text)
		}
		if err != nil {
			return append(errs, fmt.Errorf("write %s: %w", c.display(component.LockFile), reason(err)))
		}
	}
	return errs
}

// begin makes the file that becomes kfs.lock, when no other Save is at work.
func (c *Copies) begin(ctx context.Context) (*os.File, error) {
	for deadline := time.Now().Add(c.wait); ; {
		f, err := c.root.OpenFile(lockTemp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
		switch {
		case err == nil:
			return f, nil
		case !errors.Is(err, fs.ErrExist):
			return nil, fmt.Errorf("write %s: %w", c.display(lockTemp), reason(err))
		case time.Now().After(deadline):
			return nil, &fault{
				msg:  fmt.Sprintf("%s stands in the way: another kfs vendor is at work, or was ended at it", c.display(lockTemp)),
				hint: "if none is at work, remove the file",
			}
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// readLock returns kfs.lock; one that does not exist is empty.
func (c *Copies) readLock() (*component.Lock, error) {
	text, err := c.read(component.LockFile)
	if errors.Is(err, fs.ErrNotExist) {
		return &component.Lock{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", c.display(component.LockFile), err)
	}
	lock, err := component.ParseLock(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.display("."), err)
	}
	return lock, nil
}

// write writes a copy under the root as a whole. That kfs.lock names a path
// does not open every file to what a URL gives: not .git, nor a script.
func (c *Copies) write(name string, text []byte) error {
	if !isYAML(name) || strings.Contains("/"+name, "/.") {
		return fmt.Errorf("%s names this place: want a file of YAML in no hidden folder", component.LockFile)
	}
	name = filepath.FromSlash(name)
	if err := c.root.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	temp := fmt.Sprintf("%s.%d.tmp", name, os.Getpid())
	c.root.Remove(temp) // of one that was ended at it; a link that is in the way leads nowhere
	f, err := c.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	return c.finish(f, temp, name, text)
}

// finish writes a temporary file and gives it the name of the file that it
// replaces, and its mode.
func (c *Copies) finish(f *os.File, temp, name string, text []byte) error {
	old, err := c.root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		err = nil
	case err == nil && !old.Mode().IsRegular():
		err = errors.New("it is no regular file")
	case err == nil:
		err = f.Chmod(old.Mode().Perm())
	}
	if err == nil {
		_, err = f.Write(text)
	}
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = c.root.Rename(temp, name)
	}
	if err != nil {
		c.root.Remove(temp)
	}
	return err
}

// remove removes the copy of a pin that is gone, and the folders that are empty
// without it.
func (c *Copies) remove(lock *component.Lock, p component.Pinned) error {
	if !strings.HasPrefix(p.Path, Folder+"/") || slices.ContainsFunc(lock.Components, func(q component.Pinned) bool { return q.Path == p.Path }) {
		return nil
	}
	if text, err := c.read(p.Path); err != nil || !p.Matches(text) {
		return nil
	}
	if err := c.root.Remove(filepath.FromSlash(p.Path)); err != nil {
		return err
	}
	for dir := path.Dir(p.Path); dir != "."; dir = path.Dir(dir) {
		if c.root.Remove(filepath.FromSlash(dir)) != nil {
			break
		}
	}
	return nil
}
