package main

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
)

// This file says where the program keeps its files.

// homeDir returns the folder of the program's own state: drawn digits, the
// registry of services, logs, and what stands in for buckets. It is
// $MNIST_HOME, or kfs-mnist in the user's cache folder; in a container, which
// need not have a user, in the temporary folder.
func homeDir() (string, error) {
	dir := os.Getenv("MNIST_HOME")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if inCluster() {
			cache, err = os.TempDir(), nil
		}
		if err != nil {
			return "", fmt.Errorf("no place for the program's files: set MNIST_HOME: %w", err)
		}
		dir = filepath.Join(cache, "kfs-mnist")
	}
	if !filepath.IsAbs(dir) {
		return "", fmt.Errorf("MNIST_HOME is %q: wanted an absolute path, because each step has its own working directory", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("make MNIST_HOME: %w", err)
	}
	return dir, nil
}

// localDir returns the absolute local folder for an export directory as the
// pipeline names it. A path and a file:// URL stand for themselves. A gs:// or
// s3:// URL cannot be written without its cloud, so a folder under home stands
// in for it: gs://bucket/a is HOME/gs/bucket/a, and mapped is true.
func localDir(home, export string) (dir string, mapped bool, err error) {
	scheme, rest, found := strings.Cut(export, "://")
	switch {
	case export == "":
		return "", false, fmt.Errorf("the export directory is empty: wanted a path or a gs:// URL")
	case strings.ContainsRune(export, 0):
		return "", false, fmt.Errorf("export directory %q holds a zero byte", export)
	case !found:
		dir, err = filepath.Abs(export)
		return dir, false, err
	}
	switch scheme {
	case "file":
		u, err := url.Parse(export)
		if err != nil || u.Host != "" && u.Host != "localhost" || u.Path == "" {
			return "", false, fmt.Errorf("export directory %q: wanted file:///ABSOLUTE/PATH", export)
		}
		return filepath.Clean(u.Path), false, nil
	case "gs", "s3":
		path := filepath.FromSlash(rest)
		if bucket, _, _ := strings.Cut(rest, "/"); bucket == "" || !filepath.IsLocal(path) {
			return "", false, fmt.Errorf("export directory %q: wanted %s://BUCKET/PATH without \"..\"", export, scheme)
		}
		return filepath.Join(home, scheme, path), true, nil
	}
	return "", false, fmt.Errorf("export directory %q: unknown scheme %q: wanted a path, file://, gs:// or s3://", export, scheme)
}

// writeFile writes a file whole or not at all: a reader sees the old content
// or the new, never a part.
func writeFile(name string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
