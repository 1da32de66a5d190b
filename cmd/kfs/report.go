package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

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
		if faults == nil {
			fmt.Fprintf(w, "kfs: %v\n", err)
			return
		}
		diags = &interp.Error{}
		for _, f := range faults {
			diags.Diagnostics = append(diags.Diagnostics, interp.Diagnostic{Pos: f.Pos, Msg: f.Msg, Hint: f.Hint})
		}
	}
	for n, d := range diags.Diagnostics {
		if n+1 < len(diags.Diagnostics) && diags.Diagnostics[n+1].Hint == d.Hint {
			d.Hint = "" // said once, behind the last fault that it is for
		}
		d.Pos = shown(root, d.Pos)
		for i := range d.Stack {
			d.Stack[i].Pos = shown(root, d.Stack[i].Pos)
		}
		if !d.Pos.IsValid() {
			fmt.Fprint(w, "kfs: ")
		}
		fmt.Fprintln(w, d)
	}
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
	if info, err := os.Stat(name); err == nil && !info.Mode().IsRegular() {
		if info.IsDir() {
			return fmt.Errorf("write %s: it is a folder", name)
		}
		return os.WriteFile(name, data, 0)
	}
	if target, err := filepath.EvalSymlinks(name); err == nil {
		name = target // a link stays a link
	}
	tmp, err := os.OpenFile(fmt.Sprintf("%s.%d.tmp", name, os.Getpid()), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("write %s: %w", name, errors.Unwrap(err))
	}
	_, err = tmp.Write(data)
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

// output writes a command's result: to standard output if name is "-".
func output(stdout io.Writer, name string, data []byte) error {
	if name == "-" {
		_, err := stdout.Write(data)
		return err
	}
	return writeFile(name, data)
}
