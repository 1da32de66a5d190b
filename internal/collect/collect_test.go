package collect

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestText(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"line": "one\n", "lines": "two\n\n", "empty": "", "exact": "0123456789", "large": "0123456789\n",
		"zero": "a\x00", "bytes": "a\xff", "folder/file": "x",
	} {
		os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o777)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"link": "line", "out": "/etc", "dangling": "nothing"} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o666); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for _, tt := range []struct {
		name, text string
		fault      string // "" is none
		is         error
	}{
		{"line", "one", "", nil},
		{"lines", "two\n", "", nil},
		{"empty", "", "", nil},
		{"exact", "0123456789", "", nil},
		{"folder/file", "x", "", nil},
		{"large", "", "is larger than 10 bytes: ", ErrNoText},
		{"zero", "", "is not text, which is UTF-8 without zero bytes: ", ErrNoText},
		{"bytes", "", "is not text, ", ErrNoText},
		{"folder", "", "is a folder: ", ErrNoText},
		{"link", "", "is a symbolic link: want a regular file or a folder", nil},
		{"dangling", "", "is a symbolic link", nil},
		{"pipe", "", "is a named pipe", nil},
		{"out/passwd", "", "cannot be read: ", nil},
		{"../x", "", "cannot be read: ", nil},
		{"line/x", "", "cannot be read: ", nil},
		{"none", "", "", os.ErrNotExist},
		{"none/x", "", "", os.ErrNotExist},
	} {
		text, err := Text(root, tt.name, 10)
		if text != tt.text || (err != nil) != (tt.fault != "" || tt.is != nil) || err != nil && !strings.HasPrefix(err.Error(), tt.fault) || tt.is != nil && !errors.Is(err, tt.is) {
			t.Errorf("Text(%s) = %q, %v; want %q, %q, %v", tt.name, text, err, tt.text, tt.fault, tt.is)
		}
		if errors.Is(err, ErrNoText) && tt.is != ErrNoText {
			t.Errorf("Text(%s): %v: it could be passed on as a file", tt.name, err)
		}
	}
}
