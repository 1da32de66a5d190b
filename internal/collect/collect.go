// Package collect reads and copies what a step has left.
//
//	f, err := collect.Open(root, "out/model")            a regular file or a folder, nothing else
//	text, err := collect.Text(root, "out/accuracy", max) the text of an output
//
// A step may leave anything: a link to a file of whoever collects, a pipe that
// nobody writes to, a file that grows for ever. None of these is read.
package collect

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"unicode/utf8"
)

// ErrNoText is wrapped by the error of an output that is there, but whose
// content is no text that can be passed on.
var ErrNoText = errors.New("a value is passed on as text; a file of any kind can be passed by inputPath or input_argument_path")

// Open opens what a step has left: a regular file or a folder, and no link out
// of where outputs are. If there is nothing, the error is os.ErrNotExist; any
// other one says what it is, to go on from the name of it ("is a named pipe").
func Open(root *os.Root, name string) (*os.File, error) {
	info, err := root.Lstat(name)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("cannot be read: %w", err)
	case !info.Mode().IsRegular() && !info.IsDir():
		return nil, fmt.Errorf("is %s: want a regular file or a folder", Kind(info.Mode()))
	}
	f, err := root.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if now, err := f.Stat(); err != nil || now.Mode().Type() != info.Mode().Type() {
		f.Close()
		return nil, errors.New("was replaced while it was read")
	}
	return f, nil
}

// Kind says what something is that is neither a regular file nor a folder.
func Kind(m os.FileMode) string {
	switch {
	case m&os.ModeSymlink != 0:
		return "a symbolic link"
	case m&os.ModeNamedPipe != 0:
		return "a named pipe"
	}
	return "no file"
}

// Text returns the text of an output, which has at most max bytes. As Argo
// does, it takes one newline at the end off. The error is as of Open, and wraps
// ErrNoText if something is there that is no text.
func Text(root *os.Root, name string, max int64) (string, error) {
	f, err := Open(root, name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.IsDir() {
		return "", fmt.Errorf("is a folder: %w", ErrNoText)
	}
	text, err := io.ReadAll(io.LimitReader(f, max+1))
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot be read: %w", err)
	case int64(len(text)) > max:
		return "", fmt.Errorf("is larger than %d bytes: %w", max, ErrNoText)
	case !IsText(string(text)):
		return "", fmt.Errorf("is not text, which is UTF-8 without zero bytes: %w", ErrNoText)
	}
	return strings.TrimSuffix(string(text), "\n"), nil
}

// IsText reports whether a value can be passed on as text.
func IsText(s string) bool { return utf8.ValidString(s) && !strings.ContainsRune(s, 0) }

// CopyFile copies a file of the mode to the path to, where nothing is yet. The
// copy can be written, and run if the file can.
func CopyFile(to string, from io.Reader, mode os.FileMode) error {
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666|mode.Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(out, from)
	return errors.Join(err, out.Close())
}

// CopyTree copies a folder below root to the path to. Links in it are copied
// as such.
func CopyTree(to string, root *os.Root, name string) error {
	folder, err := root.OpenRoot(name)
	if err != nil {
		return err
	}
	defer folder.Close()
	return os.CopyFS(to, folder.FS())
}
