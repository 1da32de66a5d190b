package cluster

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// This file asks the machine whether a cluster can live on it.

// host is what a cluster uses of the machine.
type host struct {
	runc    string // path of the program
	cni     string // folder of the CNI plugins
	overlay bool   // the state folder's file system can be laid over another
}

// packages are Debian's packages of what a cluster needs.
var packages = map[string]string{
	"runc":  "runc",
	"mount": "mount",
	"cni":   "containernetworking-plugins",
}

// cniDirs are where distributions put the CNI plugins.
var cniDirs = []string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}

// cniPlugins are those that a cluster uses.
var cniPlugins = []string{"bridge", "host-local", "loopback"}

// lookAround looks for what a cluster needs and reports all that is missing,
// by name. The state folder will be below dir.
func lookAround(dir string) (*host, error) {
	h := &host{}
	var missing []error
	var install []string
	lack := func(pkg, what string) {
		missing = append(missing, fmt.Errorf("%s (Debian package %s)", what, packages[pkg]))
		install = append(install, packages[pkg])
	}
	if os.Geteuid() != 0 {
		missing = append(missing, errors.New("root: namespaces, mounts and cgroups are made"))
	}
	var err error
	if h.runc, err = exec.LookPath("runc"); err != nil {
		if h.runc, err = exec.LookPath("/usr/sbin/runc"); err != nil {
			lack("runc", "the program runc")
		}
	}
	if _, err := exec.LookPath("mount"); err != nil {
		lack("mount", "the program mount, which the kubelet runs")
	}
	if h.cni = findCNI(cniDirs); h.cni == "" {
		lack("cni", fmt.Sprintf("the CNI plugins %s, in one of %s", strings.Join(cniPlugins, ", "), strings.Join(cniDirs, ", ")))
	}
	for _, err := range kernelLacks("/proc", "/sys") {
		missing = append(missing, fmt.Errorf("in the kernel: %w", err))
	}
	h.overlay = canOverlay(dir)
	if len(missing) == 0 {
		return h, nil
	}
	err = fmt.Errorf("this machine lacks what a cluster needs:\n%w", indent(errors.Join(missing...)))
	if len(install) > 0 {
		err = fmt.Errorf("%w\ninstall with: apt-get install --no-install-recommends %s", err, strings.Join(install, " "))
	}
	return nil, err
}

// indented is an error of several lines, each a point of a list.
type indented struct{ err error }

func (e indented) Error() string { return "  - " + strings.ReplaceAll(e.err.Error(), "\n", "\n  - ") }
func (e indented) Unwrap() error { return e.err }

func indent(err error) error { return indented{err} }

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

// kernelLacks asks what proc and sys show for what a node needs. Bridges and
// pairs of virtual links cannot be asked for without making them: the
// supervisor makes them first of all, and its error names them.
func kernelLacks(proc, sys string) []error {
	var out []error
	for _, ns := range []string{"mnt", "net", "pid", "uts", "ipc"} {
		if _, err := os.Lstat(filepath.Join(proc, "self/ns", ns)); err != nil {
			out = append(out, fmt.Errorf("namespaces of kind %s", ns))
		}
	}
	filesystems, err := os.ReadFile(filepath.Join(proc, "filesystems"))
	if err != nil {
		out = append(out, err)
	} else if !slices.Contains(strings.Fields(string(filesystems)), "overlay") {
		out = append(out, errors.New("the file system overlay (modprobe overlay)"))
	}
	controllers := controllersOf(filepath.Join(sys, "fs/cgroup"))
	for _, name := range []string{"cpu", "cpuset", "memory", "pids"} {
		if !slices.Contains(controllers, name) {
			out = append(out, fmt.Errorf("the cgroup controller %s, mounted below %s", name, filepath.Join(sys, "fs/cgroup")))
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
// file system of dir. They cannot on what is an overlay itself, as the inside
// of a container mostly is.
func canOverlay(dir string) bool {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return true
	}
	return fs.Type != unix.OVERLAYFS_SUPER_MAGIC
}
