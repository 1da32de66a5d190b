package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/kfs-project/kfs/test/cluster/supervisor"
)

// This file asks the machine whether a cluster can live on it.

// host is what a cluster uses of the machine.
type host struct {
	runc    string // path of the program
	cni     string // folder of the CNI plugins
	overlay bool   // the state folder's file system can be laid over another
}

// cniDirs are where distributions put the CNI plugins.
var cniDirs = []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}

// cniPlugins are those that a cluster uses.
var cniPlugins = []string{"bridge", "host-local", "loopback"}

// A lack is what a machine lacks for a cluster to live on it.
type lack struct {
	what string
	pkg  string // Debian's package of it, if it is one
}

func (l lack) String() string {
	if l.pkg == "" {
		return "  - " + l.what
	}
	return fmt.Sprintf("  - %s (Debian package %s)", l.what, l.pkg)
}

// lookAround looks for what a cluster needs whose state is below dir. The error
// names all that is missing.
func lookAround(ctx context.Context, dir string) (*host, error) {
	h := &host{overlay: canOverlay(dir), cni: findCNI(cniDirs)}
	var lacks []lack
	for _, program := range []string{"runc", "/usr/sbin/runc"} { // where root's PATH may not lead
		if path, err := exec.LookPath(program); err == nil {
			h.runc = path
		}
	}
	if h.runc == "" {
		lacks = append(lacks, lack{"the program runc", "runc"})
	}
	if _, err := exec.LookPath("mount"); err != nil {
		lacks = append(lacks, lack{"the program mount, which the kubelet runs", "mount"})
	}
	if h.cni == "" {
		lacks = append(lacks, lack{fmt.Sprintf("the CNI plugins %s, in one of %s",
			strings.Join(cniPlugins, ", "), strings.Join(cniDirs, ", ")), "containernetworking-plugins"})
	}
	for _, what := range lacksControllers("/sys/fs/cgroup") {
		lacks = append(lacks, lack{what: what})
	}
	if os.Geteuid() != 0 {
		lacks = append(lacks, lack{what: "root, to make namespaces, mounts and cgroups"})
	} else {
		probed, err := supervisor.Probe(ctx)
		if err != nil {
			probed = []string{err.Error()}
		}
		for _, what := range append(probed, readOnly("/sys/fs/cgroup")...) {
			lacks = append(lacks, lack{what: what})
		}
	}
	if len(lacks) > 0 {
		return nil, missing(lacks)
	}
	return h, nil
}

// missing is the error of a machine that lacks something.
func missing(lacks []lack) error {
	text, install := "this machine lacks what a cluster needs:", ""
	for _, l := range lacks {
		text += "\n" + l.String()
		if l.pkg != "" {
			install += " " + l.pkg
		}
	}
	if install != "" {
		text += "\ninstall with: apt-get install --no-install-recommends" + install
	}
	return errors.New(text)
}

func findCNI(dirs []string) string {
	for _, dir := range dirs {
		if !slices.ContainsFunc(cniPlugins, func(name string) bool {
			_, err := exec.LookPath(filepath.Join(dir, name))
			return err != nil
		}) {
			return dir
		}
	}
	return ""
}

// lacksControllers returns what cgroups at or below dir lack.
func lacksControllers(dir string) []string {
	controllers := controllersOf(dir)
	var out []string
	for _, name := range []string{"cpu", "cpuset", "memory", "pids"} {
		if !slices.Contains(controllers, name) {
			out = append(out, fmt.Sprintf("the cgroup controller %s, mounted at or below %s", name, dir))
		}
	}
	return out
}

// readOnly returns the cgroup hierarchies at or below dir that cannot be
// written to, as in a container without privileges.
func readOnly(dir string) []string {
	var out []string
	for _, root := range cgroupRoots(dir) {
		if unix.Access(root, unix.W_OK) != nil {
			out = append(out, "leave to write to "+root)
		}
	}
	return out
}

// controllersOf lists the cgroup controllers mounted at or below dir, of
// either version.
func controllersOf(dir string) []string {
	if data, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers")); err == nil {
		return strings.Fields(string(data))
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, strings.Split(e.Name(), ",")...)
	}
	return out
}

func isCgroup2(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "cgroup.controllers"))
	return err == nil
}

// cgroupRoots are the folders in which a cgroup of one name may be: one a
// hierarchy.
func cgroupRoots(dir string) []string {
	if isCgroup2(dir) {
		return []string{dir}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		if e.IsDir() {
			out = append(out, filepath.Join(dir, e.Name()))
		}
	}
	return out
}

// canOverlay says whether images' layers can be laid over each other on the
// file system of dir, or of where it will be made. They cannot on what is an
// overlay itself, as the inside of a container mostly is.
func canOverlay(dir string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(existing(dir), &fs) != nil || fs.Type != unix.OVERLAYFS_SUPER_MAGIC
}

// existing returns dir or, if it is not there, the innermost folder around it
// that is.
func existing(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}
