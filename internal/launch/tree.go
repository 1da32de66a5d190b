package launch

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"

	"github.com/kfs-project/kfs/internal/collect"
)

// This file makes one file of a folder, and a folder of that.

// writeTree writes a folder below root as a tar: its folders, files and those
// links that stay inside. Owners and times are left out, so equal folders make
// equal tars.
func writeTree(w io.Writer, root *os.Root, name string) error {
	folder, err := root.OpenRoot(name)
	if err != nil {
		return err
	}
	defer folder.Close()
	t := tar.NewWriter(w)
	err = fs.WalkDir(folder.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".":
			return nil
		case d.IsDir():
			return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: name + "/", Mode: 0o777})
		case d.Type() == fs.ModeSymlink:
			target, err := folder.Readlink(name)
			if err != nil {
				return err
			}
			if _, err := folder.Stat(name); !inside(name, target) || err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("holds the link %s, which leads out of it: %s", name, target)
			}
			return t.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: name, Linkname: target, Mode: 0o777})
		}
		f, err := collect.Open(folder, name)
		if err != nil {
			return fmt.Errorf("holds %s, which %w", name, err)
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: info.Size(), Mode: int64(0o666 | info.Mode().Perm())}); err != nil {
			return err
		}
		if _, err := io.CopyN(t, f, info.Size()); err == io.EOF {
			return fmt.Errorf("holds %s, which was cut while it was read", name)
		} else if err != nil {
			return err
		}
		return nil
	})
	if err != nil {
		return err
	}
	return t.Close()
}

// readTree makes the folder to of a tar. Whoever made the tar, nothing is
// written outside of the folder.
func readTree(to string, r io.Reader) error {
	if err := os.MkdirAll(to, 0o777); err != nil {
		return err
	}
	folder, err := os.OpenRoot(to)
	if err != nil {
		return err
	}
	defer folder.Close()
	for t := tar.NewReader(r); ; {
		h, err := t.Next()
		if err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		name := path.Clean(h.Name)
		if err := folder.MkdirAll(path.Dir(name), 0o777); err != nil {
			return err
		}
		switch {
		case h.Typeflag == tar.TypeDir:
			err = folder.MkdirAll(name, 0o777)
		case h.Typeflag == tar.TypeSymlink && inside(name, h.Linkname):
			err = folder.Symlink(h.Linkname, name)
		case h.Typeflag == tar.TypeReg:
			err = readTreeFile(folder, name, h, t)
		default:
			err = fmt.Errorf("the tar holds %s, which is neither a file nor a folder, nor a link inside it", h.Name)
		}
		if err != nil {
			return err
		}
	}
}

func readTreeFile(folder *os.Root, name string, h *tar.Header, r io.Reader) error {
	f, err := folder.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666|h.FileInfo().Mode().Perm())
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// inside reports whether a link leads to what is, or may be, in its folder.
func inside(name, target string) bool {
	return !path.IsAbs(target) && filepath.IsLocal(path.Join(path.Dir(name), target))
}
