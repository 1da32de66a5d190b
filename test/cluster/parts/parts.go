// Package parts builds the programs that a cluster is made of, from one module
// whose versions and checksums are pinned beside this file, and keeps them by
// version.
//
// One module serves all, so that what two parts share is compiled once. To move
// a part to another version:
//
//	go get -modfile=parts/parts.mod go.etcd.io/etcd/server/v3@v3.7.4
//
// Kubernetes also wants its staging modules of the same version, as the replace
// lines have them.
package parts

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

//go:embed parts.mod parts.sum pause/main.go
var files embed.FS

// A Part is what comes from one module.
type Part struct {
	Name     string
	Module   string            // "" if the part is source of our own
	Version  string            // of the module, such as v1.37.2
	Programs map[string]string // the package of each program, by the program's name

	stamp func(version string) []string // variables that the linker sets, name=value
}

// All returns the parts of a cluster.
func All() []Part {
	all := []Part{
		{
			Name:   "kubernetes",
			Module: "k8s.io/kubernetes",
			Programs: map[string]string{
				"kube-apiserver":          "k8s.io/kubernetes/cmd/kube-apiserver",
				"kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
				"kube-scheduler":          "k8s.io/kubernetes/cmd/kube-scheduler",
				"kubectl":                 "k8s.io/kubernetes/cmd/kubectl",
				"kubelet":                 "k8s.io/kubernetes/cmd/kubelet",
			},
			stamp: stampKubernetes,
		},
		{
			Name:   "containerd",
			Module: "github.com/containerd/containerd/v2",
			Programs: map[string]string{
				"containerd":              "github.com/containerd/containerd/v2/cmd/containerd",
				"containerd-shim-runc-v2": "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
				"ctr":                     "github.com/containerd/containerd/v2/cmd/ctr",
			},
			stamp: func(version string) []string {
				return []string{"github.com/containerd/containerd/v2/version.Version=" + version}
			},
		},
		{
			Name:     "etcd",
			Module:   "go.etcd.io/etcd/server/v3",
			Programs: map[string]string{"etcd": "go.etcd.io/etcd/server/v3"},
		},
		{
			Name:     "versitygw",
			Module:   "github.com/versity/versitygw",
			Programs: map[string]string{"versitygw": "github.com/versity/versitygw/cmd/versitygw"},
			stamp:    func(version string) []string { return []string{"main.Version=" + version} },
		},
		{
			Name:     "pause",
			Version:  "v1",
			Programs: map[string]string{"pause": "parts/pause"},
		},
	}
	for i, p := range all {
		if p.Module != "" {
			all[i].Version = pinned(p.Module)
		}
	}
	return all
}

// stampKubernetes sets what hack/lib/version.sh of Kubernetes sets. Without it
// each program says that it is v0.0.0-master.
func stampKubernetes(version string) []string {
	var out []string
	n := strings.SplitN(strings.TrimPrefix(version, "v"), ".", 3)
	for _, pkg := range []string{"k8s.io/component-base/version", "k8s.io/client-go/pkg/version"} {
		out = append(out,
			pkg+".gitVersion="+version,
			pkg+".gitMajor="+n[0],
			pkg+".gitMinor="+n[1],
			pkg+".gitTreeState=clean")
	}
	return out
}

// pinned finds the version of a module in the module file.
func pinned(module string) string {
	line := regexp.MustCompile(`(?m)^\t` + regexp.QuoteMeta(module) + ` (v\S+)`)
	m := line.FindSubmatch(read("parts.mod"))
	if m == nil {
		panic("parts.mod does not require " + module)
	}
	return string(m[1])
}

func read(name string) []byte {
	data, err := files.ReadFile(name)
	if err != nil {
		panic(err) // embedded from beside this file
	}
	return data
}

// tags leave out what would need C, or no cluster here uses.
const tags = "no_btrfs,no_aufs,no_zfs,no_devmapper"

// flags are the flags of go build for the parts. Debugging information is
// neither made nor linked, which saves time.
func flags(all []Part) []string {
	out := []string{"-trimpath", "-buildvcs=false", "-tags=" + tags, "-gcflags=all=-dwarf=false", "-ldflags=-s -w"}
	for _, p := range all {
		if p.stamp == nil {
			continue
		}
		ld := "-s -w"
		for _, set := range p.stamp(p.Version) {
			ld += " -X " + set
		}
		out = append(out, "-ldflags="+p.Module+"/...="+ld)
	}
	return out
}

// folder names the folder of the parts' programs after their versions and a
// hash of all that decides what is built.
func folder(all []Part) string {
	h := sha256.New()
	for _, file := range sources {
		h.Write(read(file))
	}
	fmt.Fprintln(h, flags(all), packages(all), runtime.Version(), runtime.GOARCH)
	name := ""
	for _, p := range all {
		if p.Module != "" {
			name += p.Name + "-" + p.Version + "-"
		}
	}
	return name + hex.EncodeToString(h.Sum(nil))[:12]
}

// sources are the files of the module that is built, by their names here.
var sources = []string{"parts.mod", "parts.sum", "pause/main.go"}

// packages lists the packages of the parts' programs.
func packages(all []Part) []string {
	var out []string
	for _, p := range all {
		out = append(out, slices.Sorted(maps.Values(p.Programs))...)
	}
	return out
}

// CacheDir is where programs are kept if nothing else is said: a folder of the
// user's cache.
func CacheDir() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(cache, "kfs-cluster"), nil
}

// Programs are the paths of programs, by name.
type Programs map[string]string

// PATH returns the folder of the programs, or several, as the variable PATH has
// them.
func (p Programs) PATH() string {
	dirs := map[string]bool{}
	for _, path := range p {
		dirs[filepath.Dir(path)] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(dirs)), string(os.PathListSeparator))
}

// Build builds the parts, if their programs are not below dir yet, and returns
// the paths of all programs. It tells report how far it is; report may be nil.
// Where several processes build into one folder, one does the work and the
// others wait for it. A build that is cut off leaves nothing that passes for a
// program.
func Build(ctx context.Context, dir string, report func(Progress)) (Programs, error) {
	return build(ctx, dir, All(), report)
}

func build(ctx context.Context, dir string, all []Part, report func(Progress)) (Programs, error) {
	final := filepath.Join(dir, folder(all))
	programs := Programs{}
	for _, p := range all {
		for name := range p.Programs {
			programs[name] = filepath.Join(final, name)
		}
	}
	if exists(final) {
		return programs, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(ctx, filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()
	if exists(final) {
		return programs, nil // another process built it meanwhile
	}
	if err := sweep(dir); err != nil {
		return nil, err
	}
	if report == nil {
		report = func(Progress) {}
	}
	work, err := os.MkdirTemp(dir, workPrefix)
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(work)
	src, bin := filepath.Join(work, "src"), filepath.Join(work, "bin")
	if err := errors.Join(writeModule(src), os.Mkdir(bin, 0o755)); err != nil {
		return nil, err
	}
	if err := compile(ctx, src, bin, all, report); err != nil {
		return nil, fmt.Errorf("build the parts of a cluster: %w", err)
	}
	return programs, os.Rename(bin, final)
}

// writeModule writes the module that is built into src.
func writeModule(src string) error {
	for _, file := range sources {
		path := filepath.Join(src, file)
		if ext, ok := strings.CutPrefix(file, "parts."); ok {
			path = filepath.Join(src, "go."+ext)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, read(file), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// workPrefix begins the names of folders in which parts are being built.
const workPrefix = "building-"

// sweep removes the folders of builds whose processes were killed.
func sweep(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, workPrefix+"*"))
	for _, work := range left {
		err = errors.Join(err, os.RemoveAll(work))
	}
	return err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// lock waits until no other process holds the file and holds it until unlock.
// The kernel lets go of it when the process ends, however that happens.
func lock(ctx context.Context, path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		select {
		case <-ctx.Done():
			f.Close()
			return nil, fmt.Errorf("wait for another process that builds into %s: %w", filepath.Dir(path), context.Cause(ctx))
		case <-time.After(50 * time.Millisecond):
		}
	}
}
