package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/interp"
)

// This file defines how errors are shown.

// A scriptError is an error of a script, whose places are relative to root.
type scriptError struct {
	root string
	err  error
}

func (e *scriptError) Error() string { return e.err.Error() }
func (e *scriptError) Unwrap() error { return e.err }

// report writes an error for the user: each fault of a script with its place,
// the source line and a hint.
func report(w io.Writer, err error) {
	root := ""
	var script *scriptError
	if errors.As(err, &script) {
		root = script.root
	}
	var diags *interp.Error
	if !errors.As(err, &diags) {
		faults := dag.Faults(err)
		diags = &interp.Error{}
		if faults == nil {
			diags.Diagnostics = []interp.Diagnostic{plain(err)}
		}
		for _, f := range faults {
			diags.Diagnostics = append(diags.Diagnostics, interp.Diagnostic{Pos: f.Pos, Msg: f.Msg, Hint: f.Hint})
		}
	}
	for i, d := range diags.Diagnostics {
		diags.Diagnostics[i] = shownDiagnostic(root, d)
	}
	printDiagnostics(w, diags.Diagnostics)
}

// plain returns an error that has no place, with its hint.
func plain(err error) interp.Diagnostic {
	d := interp.Diagnostic{Msg: err.Error()}
	var hinted interface{ Hint() string }
	if errors.As(err, &hinted) {
		d.Hint = hinted.Hint()
	}
	return d
}

// warn writes warnings about a script of the root.
func warn(w io.Writer, root string, warnings dag.Errors) {
	for _, e := range warnings {
		fmt.Fprintf(w, "warning: %s\n", &dag.Error{Pos: shown(root, e.Pos), Msg: e.Msg})
	}
}

// printDiagnostics writes faults. A hint that several in a row have is said
// once, behind the last.
func printDiagnostics(w io.Writer, ds []interp.Diagnostic) {
	for n, d := range ds {
		if n+1 < len(ds) && ds[n+1].Hint == d.Hint {
			d.Hint = ""
		}
		if !d.Pos.IsValid() {
			fmt.Fprint(w, "kfs: ")
		}
		fmt.Fprintln(w, d)
	}
}

// place matches what may be a place in a script.
var place = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`[^\s"'(),:]+:\d+:\d+\b`) })

// shownText returns text whose places in files under the root are paths from the
// working folder.
func shownText(root, text string) string {
	if !strings.Contains(text, ":") {
		return text
	}
	return place().ReplaceAllStringFunc(text, func(found string) string {
		var p dag.Pos
		if p.UnmarshalText([]byte(found)) != nil || !filepath.IsLocal(p.File) {
			return found
		}
		if info, err := os.Stat(filepath.Join(root, p.File)); err != nil || !info.Mode().IsRegular() {
			return found
		}
		return shown(root, p).String()
	})
}

// shown returns a place as a path from the working folder.
func shown(root string, p dag.Pos) dag.Pos {
	if p.File != "" {
		p.File = filepath.ToSlash(filepath.Join(root, p.File))
	}
	return p
}

// writeFile writes a file as a whole: under a temporary name beside it, which
// then takes the name. What is not a regular file (a pipe, a device) is
// written as it is.
func writeFile(name string, data []byte) error {
	if name == "" {
		return errors.New("-o: want the name of a file, or - for standard output")
	}
	name, err := linked(name)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	old, err := os.Stat(name)
	switch {
	case err == nil && old.IsDir():
		return fmt.Errorf("write %s: it is a folder", name)
	case err == nil && !old.Mode().IsRegular():
		return os.WriteFile(name, data, 0)
	}
	tmp, err := os.OpenFile(fmt.Sprintf("%s.%d.tmp", name, os.Getpid()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Unwrap(err))
	}
	if old != nil {
		err = tmp.Chmod(old.Mode().Perm())
	}
	if err == nil {
		_, err = tmp.Write(data)
	}
	if closeErr := tmp.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), name)
	}
	if err != nil {
		os.Remove(tmp.Name())
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}

// linked returns the file that a name leads to, which need not exist: a link
// stays a link when the file is written.
func linked(name string) (string, error) {
	for range 40 {
		target, err := os.Readlink(name)
		if err != nil {
			return name, nil // no link
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(name), target)
		}
		name = target
	}
	return name, errors.New("too many links")
}

// output writes a command's result: to standard output if name is "-".
func output(stdout io.Writer, name string, data []byte) error {
	if name == "-" {
		_, err := stdout.Write(data)
		return err
	}
	return writeFile(name, data)
}
