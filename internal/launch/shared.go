package launch

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/kfs-project/kfs/internal/collect"
)

// This file reads and writes the shared folder. Both programs do so as if the
// other one were hostile, and under different users.

// create makes a file with what fill writes. It appears when it is complete,
// in place of one that is there.
func create(root *os.Root, name string, mode os.FileMode, fill func(io.Writer) error) error {
	tmp := name + ".tmp"
	root.RemoveAll(tmp)
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = errors.Join(fill(f), f.Chmod(mode), f.Close()) // chmod, as the umask may be any
	if err == nil {
		err = root.Rename(tmp, name)
	}
	if err != nil {
		root.Remove(tmp)
	}
	return err
}

// makeDir makes an empty folder that everyone can read.
func makeDir(root *os.Root, name string) error {
	if err := root.RemoveAll(name); err != nil {
		return err
	}
	if err := root.Mkdir(name, 0o755); err != nil {
		return err
	}
	return root.Chmod(name, 0o755)
}

func writeJSON(root *os.Root, name string, v any) error {
	return create(root, name, 0o644, func(w io.Writer) error { return json.NewEncoder(w).Encode(v) })
}

// readJSON reads what writeJSON wrote. If it has not, the error is os.ErrNotExist.
func readJSON(root *os.Root, name string, v any) error {
	data, err := read(root, name, 4<<20)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return fmt.Errorf("%s %w", name, err)
	}
	return nil
}

// read returns the content of a file of at most max bytes.
func read(root *os.Root, name string, max int64) ([]byte, error) {
	f, err := openFile(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, max+1))
	if err == nil && int64(len(data)) > max {
		err = fmt.Errorf("is larger than %d bytes", max)
	}
	return data, err
}

// openFile opens a regular file.
func openFile(root *os.Root, name string) (*os.File, error) {
	f, err := collect.Open(root, name)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || info.IsDir() {
		f.Close()
		return nil, errors.New("is a folder")
	}
	return f, nil
}

func exists(root *os.Root, name string) bool {
	_, err := root.Lstat(name)
	return err == nil
}

// pause is how long to wait before the next look for what may come since start:
// a fiftieth of the time that has passed, so that looking costs little and
// waiting adds little.
func pause(start time.Time) time.Duration {
	return min(max(time.Since(start)/50, 10*time.Millisecond), 500*time.Millisecond)
}
