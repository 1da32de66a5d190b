package artifact

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strconv"
	"time"
)

// A folder is a store in a folder. Nothing outside of it is read or written,
// whatever links are in it.
type folder struct {
	root   *os.Root
	prefix string
}

func openFolder(a *Address) (*folder, error) {
	root, err := os.OpenRoot(a.Name)
	if err != nil {
		return nil, fmt.Errorf("artifact store: %w", err)
	}
	return &folder{root, a.Prefix}, nil
}

// Put keeps a file. It is complete, and on the disk, before it has its name.
func (s *folder) Put(_ context.Context, key string, r io.ReaderAt, size int64) error {
	name := path.Join(s.prefix, key)
	if !fs.ValidPath(key) {
		return &storeError{fmt.Errorf("key %q: want a path", key), fs.ErrInvalid}
	}
	if err := s.root.MkdirAll(path.Dir(name), 0o777); err != nil {
		return fmt.Errorf("artifact store: %w", err)
	}
	tmp := name + ".tmp" + strconv.FormatInt(time.Now().UnixNano(), 36)
	f, err := s.root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return fmt.Errorf("artifact store: %w", err)
	}
	n, err := io.Copy(f, io.NewSectionReader(r, 0, size))
	if err == nil && n < size {
		err = io.ErrUnexpectedEOF
	}
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = s.root.Rename(tmp, name)
	}
	if err != nil {
		s.root.Remove(tmp)
		return fmt.Errorf("artifact store: write %s: %w", name, err)
	}
	if dir, err := s.root.Open(path.Dir(name)); err == nil {
		dir.Sync() // some file systems cannot
		dir.Close()
	}
	return nil
}

// Get returns a file.
func (s *folder) Get(_ context.Context, key string) (io.ReadCloser, error) {
	f, err := s.root.Open(path.Join(s.prefix, key))
	if err != nil {
		return nil, fmt.Errorf("artifact store: %w", err)
	}
	return f, nil
}
