// Package parts builds the programs that a cluster is made of, from modules
// whose versions and checksums are pinned beside this file, and keeps them by
// version.
//
// A [Part] is one module file (kubernetes.mod with kubernetes.sum, say) and
// the programs that are built of it. To move a part to another version:
//
//	go get -modfile=parts/etcd.mod go.etcd.io/etcd/server/v3@v3.7.4
//
// Kubernetes also wants its staging modules of the same version, as its
// replace lines have them.
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
	"sync"

	"golang.org/x/sys/unix"
)

//go:embed *.mod *.sum pause/main.go
var modules embed.FS

// A Part is a module and the programs that are built of it.
type Part struct {
	Name     string            // also the name of the module file
	Module   string            // whose version is the part's; "" if the part is source of our own
	Programs map[string]string // the package of each program, by the program's name
	Tags     string            // build tags
	Version  string            // such as v1.37.2, from the module file

	source string                        // a file of the module's main package, if it is our own
	stamp  func(version string) []string // variables that the linker sets, name=value
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
				"kubelet":                 "k8s.io/kubernetes/cmd/kubelet",
				"kubectl":                 "k8s.io/kubernetes/cmd/kubectl",
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
			Tags: "no_btrfs,no_aufs,no_zfs,no_devmapper",
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
			Programs: map[string]string{"pause": "."},
			Version:  "v1",
			source:   "pause/main.go",
		},
	}
	for i, p := range all {
		if p.Module != "" {
			all[i].Version = pinned(p)
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

// pinned finds the version of p's module in its module file.
func pinned(p Part) string {
	line := regexp.MustCompile(`(?m)^(?:require|\t)\s*` + regexp.QuoteMeta(p.Module) + ` (v\S+)`)
	m := line.FindSubmatch(read(p.Name + ".mod"))
	if m == nil {
		panic(p.Name + ".mod does not require " + p.Module)
	}
	return string(m[1])
}

// files are the embedded files that make the part's module.
func (p Part) files() []string {
	files := []string{p.Name + ".mod", p.Name + ".sum"}
	if p.source != "" {
		files = append(files, p.source)
	}
	return files
}

func read(name string) []byte {
	data, err := modules.ReadFile(name)
	if err != nil {
		panic(err) // embedded from beside this file
	}
	return data
}

// flags are the flags of go build for the part.
func (p Part) flags() []string {
	ld := "-s -w"
	if p.stamp != nil {
		for _, set := range p.stamp(p.Version) {
			ld += " -X " + set
		}
	}
	return []string{"-trimpath", "-buildvcs=false", "-tags=" + p.Tags, "-ldflags=" + ld}
}

// folder names the folder of the part's programs after its version and a hash
// of all that decides what is built.
func (p Part) folder() string {
	h := sha256.New()
	for _, file := range p.files() {
		h.Write(read(file))
	}
	fmt.Fprintln(h, p.flags(), p.Programs, runtime.Version(), runtime.GOARCH)
	return p.Name + "-" + p.Version + "-" + hex.EncodeToString(h.Sum(nil))[:12]
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

// PATH returns the folders of the programs, as the variable PATH has them.
func (p Programs) PATH() string {
	dirs := map[string]bool{}
	for _, path := range p {
		dirs[filepath.Dir(path)] = true
	}
	return strings.Join(slices.Sorted(maps.Keys(dirs)), string(os.PathListSeparator))
}

// Build builds the parts whose programs are not below dir yet, side by side,
// and returns the paths of all programs. It tells report how far it is, from
// several goroutines; report may be nil. Where several processes build into
// one folder, one does the work and the others wait for it. A build that is
// cut off leaves nothing that passes for a program.
func Build(ctx context.Context, dir string, report func(Progress)) (Programs, error) {
	return build(ctx, dir, All(), report)
}

func build(ctx context.Context, dir string, all []Part, report func(Progress)) (Programs, error) {
	programs := Programs{}
	var missing []Part
	for _, p := range all {
		folder := filepath.Join(dir, p.folder())
		for name := range p.Programs {
			programs[name] = filepath.Join(folder, name)
		}
		if !exists(folder) {
			missing = append(missing, p)
		}
	}
	if len(missing) == 0 {
		return programs, nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	unlock, err := lock(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	defer unlock()

	if report == nil {
		report = func(Progress) {}
	}
	errs := make([]error, len(missing))
	var wg sync.WaitGroup
	for i, p := range missing {
		wg.Go(func() {
			if err := p.build(ctx, dir, report); err != nil {
				errs[i] = fmt.Errorf("build %s %s: %w", p.Name, p.Version, err)
			}
		})
	}
	wg.Wait()
	return programs, errors.Join(errs...)
}

// build builds the part's programs in a folder of another name, which becomes
// the part's folder when all are there.
func (p Part) build(ctx context.Context, dir string, report func(Progress)) error {
	final := filepath.Join(dir, p.folder())
	if exists(final) {
		return nil // another process built it while this one waited for the lock
	}
	work, err := os.MkdirTemp(dir, p.Name+"-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	src, bin := filepath.Join(work, "src"), filepath.Join(work, "bin")
	if err := errors.Join(os.Mkdir(src, 0o755), os.Mkdir(bin, 0o755)); err != nil {
		return err
	}
	for _, file := range p.files() {
		name := filepath.Base(file)
		if ext, ok := strings.CutPrefix(name, p.Name+"."); ok {
			name = "go." + ext
		}
		if err := os.WriteFile(filepath.Join(src, name), read(file), 0o644); err != nil {
			return err
		}
	}
	if err := p.compile(ctx, src, bin, report); err != nil {
		return err
	}
	return os.Rename(bin, final)
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// lock waits until no other process holds the file and holds it until unlock.
// The kernel lets go of it when the process ends, however that happens.
func lock(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() { f.Close() }, nil
}
