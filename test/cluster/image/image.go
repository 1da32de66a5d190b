// Package image makes container images of static programs without a container
// engine: one layer, the same bytes for the same programs.
//
//	img, err := image.Build(ctx, image.Config{Programs: []string{"./cmd/kfs"}})
//	err = image.Write("kfs.tar", "localhost/kfs:dev", img)
package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Config says what is in an image and what it runs.
type Config struct {
	// Programs are paths of static executables, or Go packages of main
	// programs, as go build takes them, which are built first. Each becomes
	// /NAME. At least one is wanted.
	Programs []string
	Dir      string            // where packages are looked up; the working directory if empty
	Files    map[string][]byte // further files, by absolute path; mode 0644
	Links    map[string]string // symbolic links, by absolute path, and where they lead

	Entrypoint []string // the first program if nil; none if empty
	Cmd        []string
	Env        []string // NAME=value; PATH is / if it is not among them
	User       string   // such as "65532"; root if empty
	Labels     map[string]string
}

// Build makes the image that c describes. Besides the programs and files it
// has an empty /tmp.
func Build(ctx context.Context, c Config) (v1.Image, error) {
	if len(c.Programs) == 0 {
		return nil, errors.New("an image wants at least one program")
	}
	work, err := os.MkdirTemp("", "kfs-image-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)

	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	err = w.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: "tmp/", Mode: 0o1777})
	var first string
	seen := map[string]bool{}
	for _, program := range c.Programs {
		file, err := executable(ctx, c.Dir, program, work)
		if err != nil {
			return nil, err
		}
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		target := "/" + filepath.Base(file)
		if seen[target] {
			return nil, fmt.Errorf("two files are named %s", target)
		}
		seen[target] = true
		if first == "" {
			first = target
		}
		if err := add(w, target, data, 0o755); err != nil {
			return nil, err
		}
	}
	for _, file := range slices.Sorted(maps.Keys(c.Files)) {
		err = errors.Join(err, add(w, file, c.Files[file], 0o644))
	}
	for _, link := range slices.Sorted(maps.Keys(c.Links)) {
		err = errors.Join(err, w.WriteHeader(&tar.Header{Typeflag: tar.TypeSymlink, Name: strings.TrimPrefix(path.Clean(link), "/"), Linkname: c.Links[link], Mode: 0o777}))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, err
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(layer.Bytes())), nil
	})
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return nil, err
	}
	entrypoint := c.Entrypoint
	if entrypoint == nil {
		entrypoint = []string{first}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = runtime.GOARCH, "linux"
	env := c.Env
	if !slices.ContainsFunc(env, func(v string) bool { return strings.HasPrefix(v, "PATH=") }) {
		env = append([]string{"PATH=/"}, env...)
	}
	config.Config = v1.Config{
		Entrypoint: entrypoint,
		Cmd:        c.Cmd,
		Env:        env,
		User:       c.User,
		Labels:     c.Labels,
	}
	return mutate.ConfigFile(img, config)
}

func add(w *tar.Writer, file string, data []byte, mode int64) error {
	if !path.IsAbs(file) {
		return fmt.Errorf("file %q of the image: want an absolute path", file)
	}
	h := &tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(path.Clean(file), "/"), Mode: mode, Size: int64(len(data))}
	if err := w.WriteHeader(h); err != nil {
		return fmt.Errorf("file %q of the image: %w", file, err)
	}
	_, err := w.Write(data)
	return err
}

// executable returns the file of a program, which it builds below work if it
// is a package.
func executable(ctx context.Context, dir, program, work string) (string, error) {
	file := program
	if !filepath.IsAbs(file) {
		file = filepath.Join(dir, file)
	}
	if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
		if info.Mode()&0o111 == 0 {
			return "", fmt.Errorf("%s is not executable", program)
		}
		return file, nil
	}
	out, err := os.MkdirTemp(work, "build-") // whatever name the program gets, it is alone there
	if err != nil {
		return "", err
	}
	pkg := program
	if info, err := os.Stat(file); err == nil && info.IsDir() {
		dir, pkg = file, "." // which may be of another module than dir
	}
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", out+"/", pkg)
	build.Dir = dir
	build.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOFLAGS=")
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", program, err, bytes.TrimSpace(said))
	}
	built, err := filepath.Glob(filepath.Join(out, "*"))
	if err != nil || len(built) != 1 {
		return "", fmt.Errorf("build %s: %d programs came of it: want one", program, len(built))
	}
	return built[0], nil
}

// Write writes the image as an archive that docker load and ctr images import
// read, under the name ref.
func Write(file, ref string, img v1.Image) error {
	tag, err := name.NewTag(ref)
	if err != nil {
		return err
	}
	return tarball.WriteToFile(file, tag, img)
}

// Push pushes the image to the registry that ref names, with a user's password
// or, if user is "", with none.
func Push(ctx context.Context, ref string, img v1.Image, user, password string) error {
	r, err := name.ParseReference(ref)
	if err != nil {
		return err
	}
	auth := authn.Anonymous
	if user != "" {
		auth = authn.FromConfig(authn.AuthConfig{Username: user, Password: password})
	}
	return remote.Write(r, img, remote.WithContext(ctx), remote.WithAuth(auth))
}

// Publish pushes the image to the registry that ref names, with what docker
// login or podman login left of it.
func Publish(ctx context.Context, ref string, img v1.Image) error {
	r, err := name.ParseReference(ref)
	if err != nil {
		return err
	}
	return remote.Write(r, img, remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain))
}
