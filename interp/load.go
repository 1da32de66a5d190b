package interp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/kfs-project/kfs/builtins/component"
)

// This file defines how files are found, read and loaded.

// A loader holds the files of one evaluation.
type loader struct {
	fsys    fs.FS
	root    string // for messages; "" if the host gave an fs.FS of its own
	env     starlark.StringDict
	budget  int // bytes of source that may still be read
	files   []string
	modules map[string]*module // by path under the root
	words   func(module string) (starlark.StringDict, bool)

	modulesOfHost map[string]starlark.StringDict
	fetch         func(url string) ([]byte, error) // in place of the pinned copies; may be nil
	lock          *component.Lock                  // once it is read
}

// A module is a file that was loaded or is being loaded.
type module struct {
	src     []byte
	index   *index
	globals starlark.StringDict
	err     error
	done    bool
}

// options is the dialect: set, and if, for and reassignment at the top level.
var options = &syntax.FileOptions{Set: true, TopLevelControl: true, GlobalReassign: true}

// display returns the path of a file as the user of the host knows it.
func (l *loader) display(name string) string {
	return filepath.ToSlash(filepath.Join(l.root, name))
}

// resolve returns the path under the root of what a file names.
func (l *loader) resolve(name, from string) (string, error) {
	var p string
	switch {
	case name == "":
		return "", errors.New("want the path of a file, got an empty string")
	case strings.HasPrefix(name, "@"):
		return "", fmt.Errorf("%q is a module: want the path of a file", name)
	case strings.HasPrefix(name, "//"):
		p = path.Clean(name[2:])
	case strings.HasPrefix(name, "/"):
		return "", fmt.Errorf("%q is an absolute path: want one relative to this file, or //path relative to the root", name)
	default:
		p = path.Join(path.Dir(from), name)
	}
	if p == ".." || strings.HasPrefix(p, "../") {
		up := strings.Count(p, "../")
		return "", fmt.Errorf("%q is outside the root %s: give a root that holds it with  --root %s", name,
			l.display("."), l.display(strings.Repeat("../", max(up, 1))))
	}
	if !fs.ValidPath(p) || strings.ContainsAny(p, "\x00\\") {
		return "", fmt.Errorf("%q is not a path", name)
	}
	return p, nil
}

var errNoFile = errors.New("no such file")

// unread says that the file p, which a script names, could not be read.
func (l *loader) unread(name, p string, err error) error {
	if errors.Is(err, errNoFile) && strings.HasPrefix(name, "//") {
		return fmt.Errorf("%s: %w; // is the root, %s, and another one is given by  --root", l.display(p), err, l.display("."))
	}
	return fmt.Errorf("%s: %w", l.display(p), err)
}

// read returns the content of a file under the root.
func (l *loader) read(name string) ([]byte, error) {
	f, err := l.fsys.Open(name)
	if err != nil {
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil, errNoFile
		case strings.Contains(err.Error(), "escapes"):
			return nil, fmt.Errorf("it is a link to a place outside the root %s", l.display("."))
		}
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, int64(l.budget)+1))
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		return nil, err
	}
	if len(data) > l.budget {
		return nil, errors.New("the files of this script are larger than the limit of source bytes")
	}
	l.budget -= len(data)
	l.files = append(l.files, name)
	return data, nil
}

// readFile is read_file(name) in the file from.
func (l *loader) readFile(name, from string) (string, error) {
	p, err := l.resolve(name, from)
	if err != nil {
		return "", err
	}
	data, err := l.read(p)
	if err != nil {
		return "", l.unread(name, p, err)
	}
	return string(data), nil
}

// readURL returns the text of the component that a URL names: its copy under
// the root that kfs.lock pins.
func (l *loader) readURL(url string) (string, error) {
	if l.fetch != nil {
		text, err := l.fetch(url)
		return string(text), err
	}
	if l.lock == nil {
		text, err := l.read(component.LockFile)
		if err != nil {
			return "", fmt.Errorf("%s has no copy here: %s: %w", url, l.display(component.LockFile), err)
		}
		if l.lock, err = component.ParseLock(text); err != nil {
			return "", fmt.Errorf("%s: %w", l.display("."), err)
		}
	}
	pin := l.lock.Find(url)
	if pin == nil {
		return "", fmt.Errorf("%s has no copy here: %s does not name it", url, l.display(component.LockFile))
	}
	text, err := l.read(pin.Path)
	switch {
	case err != nil:
		return "", fmt.Errorf("the copy of %s: %s: %w", url, l.display(pin.Path), err)
	case !pin.Matches(text):
		return "", fmt.Errorf("the copy of %s, %s, was changed: its SHA-256 is %s, and %s has %s",
			url, l.display(pin.Path), component.SHA256(text), component.LockFile, pin.SHA256)
	}
	return string(text), nil
}

// load is load(name, ...) in the file from: each file is evaluated once.
func (l *loader) load(thread *starlark.Thread, name, from string) (starlark.StringDict, error) {
	if strings.HasPrefix(name, "@") {
		return l.module(name)
	}
	p, err := l.resolve(name, from)
	if err != nil {
		return nil, err
	}
	if m := l.modules[p]; m != nil {
		if !m.done {
			return nil, fmt.Errorf("%s loads itself, by way of %s", l.display(p), l.display(from))
		}
		return m.globals, m.err
	}
	src, err := l.read(p)
	if err != nil {
		return nil, l.unread(name, p, err)
	}
	return l.exec(thread, p, src)
}

// exec evaluates the source of a file.
func (l *loader) exec(thread *starlark.Thread, name string, src []byte) (starlark.StringDict, error) {
	src = bytes.TrimPrefix(src, []byte("\ufeff")) // that some editors begin a file with
	m := &module{src: src}
	l.modules[name] = m
	defer func() { m.done = true }()
	if !utf8.Valid(src) {
		m.err = notUTF8(name, src)
		return nil, m.err
	}
	f, err := options.Parse(name, src, 0)
	if err != nil {
		m.err = err
		return nil, err
	}
	m.index = rewrite(f)
	prog, err := starlark.FileProgram(f, l.env.Has)
	var unknown resolve.ErrorList
	if errs := m.index.errs; errs != nil && (err == nil || errors.As(err, &unknown)) {
		err = append(errs, unknown...)
	}
	if err != nil {
		m.err = err
		return nil, err
	}
	if m.globals, m.err = prog.Init(thread, l.env); m.err == nil {
		m.err = freeze(thread, f, m.globals)
	}
	return m.globals, m.err
}

// notUTF8 is the error of a file in another encoding, at its first bad byte.
func notUTF8(name string, src []byte) error {
	line, col := int32(1), int32(1)
	for len(src) > 0 {
		r, n := utf8.DecodeRune(src)
		if r == utf8.RuneError && n == 1 {
			break
		}
		col++
		if r == '\n' {
			line, col = line+1, 1
		}
		src = src[n:]
	}
	return syntax.Error{Pos: syntax.MakePosition(&name, line, col), Msg: "the file is not in UTF-8"}
}
