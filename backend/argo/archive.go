package argo

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"fmt"
	"strings"
)

// This file defines the files that KFP takes a pipeline in.

// Member is the name that an archive gives the manifest, as KFP's does.
const Member = "pipeline.yaml"

// Archive returns the manifest as the content of a file of the given name: an
// archive that holds Member if the name ends in .tar.gz, .tgz or .zip, else
// the manifest itself. An archive's times are zero, so that equal manifests
// give equal archives.
func Archive(name string, manifest []byte) ([]byte, error) {
	name = strings.ToLower(name)
	switch {
	case strings.HasSuffix(name, ".tar.gz"), strings.HasSuffix(name, ".tgz"):
		return tarGz(manifest)
	case strings.HasSuffix(name, ".zip"):
		return zipped(manifest)
	}
	return manifest, nil
}

// IsArchive reports whether Archive makes an archive for the name.
func IsArchive(name string) bool {
	packed, _ := Archive(name, nil)
	return packed != nil
}

func tarGz(manifest []byte) ([]byte, error) {
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	tw := tar.NewWriter(gz)
	header := &tar.Header{Name: Member, Mode: 0o644, Size: int64(len(manifest)), Format: tar.FormatUSTAR}
	if err := tw.WriteHeader(header); err != nil {
		return nil, fmt.Errorf("write archive: %w", err)
	}
	if _, err := tw.Write(manifest); err != nil {
		return nil, fmt.Errorf("write archive: %w", err)
	}
	if err := tw.Close(); err != nil {
		return nil, fmt.Errorf("write archive: %w", err)
	}
	if err := gz.Close(); err != nil {
		return nil, fmt.Errorf("write archive: %w", err)
	}
	return b.Bytes(), nil
}

func zipped(manifest []byte) ([]byte, error) {
	var b bytes.Buffer
	zw := zip.NewWriter(&b)
	w, err := zw.CreateHeader(&zip.FileHeader{Name: Member, Method: zip.Deflate})
	if err != nil {
		return nil, fmt.Errorf("write archive: %w", err)
	}
	if _, err := w.Write(manifest); err != nil {
		return nil, fmt.Errorf("write archive: %w", err)
	}
	if err := zw.Close(); err != nil {
		return nil, fmt.Errorf("write archive: %w", err)
	}
	return b.Bytes(), nil
}
