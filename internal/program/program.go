// Package program finds the program that a command names, and says what is
// wrong with one that cannot be started.
package program

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Find returns the program's file, as execvp would find it in folder dir with
// the PATH pathList. The error of one that does not exist is os.ErrNotExist.
func Find(program, pathList, dir string) (string, error) {
	if program == "" {
		return "", errors.New("the program is an empty text")
	}
	if strings.Contains(program, "/") {
		file := program
		if !filepath.IsAbs(file) && dir != "" {
			file = filepath.Join(dir, file)
		}
		return file, executable(file, program)
	}
	var denied error
	for _, d := range filepath.SplitList(pathList) {
		if !filepath.IsAbs(d) {
			continue // what it means would depend on the folder
		}
		file := filepath.Join(d, program)
		err := executable(file, program)
		if err == nil {
			return file, nil
		}
		if !errors.Is(err, os.ErrNotExist) {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", fmt.Errorf("program %q is not in PATH%w", program, quiet{os.ErrNotExist})
}

// executable returns nil if file can be run, as far as can be seen.
func executable(file, program string) error {
	info, err := os.Stat(file)
	switch {
	case errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ENOTDIR):
		return fmt.Errorf("program %q does not exist%w", program, quiet{os.ErrNotExist})
	case err != nil:
		return fmt.Errorf("program %q: %w", program, err)
	case info.IsDir():
		return fmt.Errorf("program %q is a folder", program)
	case syscall.Access(file, 1) != nil: // X_OK
		return fmt.Errorf("program %q is not executable: chmod +x it", program)
	}
	return nil
}

// quiet is an error that says nothing and can be asked for.
type quiet struct{ error }

func (quiet) Error() string   { return "" }
func (q quiet) Unwrap() error { return q.error }

// StartError says why a process could not be started.
func StartError(argv, env []string, err error) error {
	var errno syscall.Errno
	errors.As(err, &errno)
	switch errno {
	case syscall.E2BIG:
		n := 0
		for _, list := range [][]string{argv, env} {
			for _, s := range list {
				n = max(n, len(s))
			}
		}
		return fmt.Errorf("the arguments are too long for this system, the longest has %d bytes: hand large values on in files", n)
	case syscall.ENOEXEC:
		return fmt.Errorf("program %q is neither a program of this machine nor a script with #!", argv[0])
	case syscall.ENOENT:
		return fmt.Errorf("program %q, or the interpreter that its #! names, does not exist%w", argv[0], quiet{os.ErrNotExist})
	}
	return err
}
