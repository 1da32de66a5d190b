// Package cluster brings real Kubernetes clusters for tests up and down on this
// machine: etcd, API server, controller manager, scheduler and a node with
// kubelet and containerd, in namespaces of their own, so that several stand
// side by side and none is reached from outside but through loopback.
//
//	c, err := cluster.Up(ctx, cluster.Config{Name: "mine"})
//	defer c.Down(ctx)
//	config, err := clientcmd.BuildConfigFromFlags("", c.Kubeconfig())
//
// A program that calls Up calls [supervisor.Reexec] first in main, a test in
// TestMain. [Open] returns a cluster that another process brought up; a
// [Cluster]'s methods are also how tests break it.
package cluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kfs-project/kfs/test/cluster/fakekubelet"
	"github.com/kfs-project/kfs/test/cluster/parts"
	"github.com/kfs-project/kfs/test/cluster/supervisor"
)

// Config says which cluster to bring up. The zero value is one of the name
// DefaultName with one real node.
type Config struct {
	Name string // lower-case letters, digits and dashes; DefaultName if empty
	Dir  string // folder of all clusters' state; DefaultDir() if empty
	Bin  string // folder of the parts' programs; parts.CacheDir() if empty

	FakeNodes  int                      // nodes without machines, besides the real one
	Fake       fakekubelet.NodeTemplate // what they are like
	FakeEvents bool                     // on them, every start has its events, as on a real node

	Args map[string][]string // further arguments of parts, by the part's name

	Building func(parts.Progress) // told how far the build is; may be nil
	Starting func(step string)    // told what is waited for; may be nil
}

// DefaultName is the name of a cluster that is given none.
const DefaultName = "kfs"

// DefaultDir is the folder of all clusters' state if nothing else is said.
func DefaultDir() string { return "/var/lib/kfs-cluster" }

// ErrNotUp says that no cluster of a name is up.
var ErrNotUp = errors.New("no such cluster is up")

// A Cluster is one that is up, or was when it was opened.
type Cluster struct {
	Spec *supervisor.Spec
	dir  string
	who  identity
}

// identity is a process, told from a later one that has its PID.
type identity struct {
	PID     int
	Started string // as the kernel counts
}

// made is what a cluster made outside its state folder, besides cgroups.
type made struct {
	Supervisor identity
	Dirs       []string // folders of supervisor.OwnDirs that were not there
}

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// Up brings a cluster up and returns when pods can be created. A cluster of
// that name which is up already is completed: what is not running is started,
// fake nodes are added. If bringing up fails, nothing is left of it but the
// logs that the error names.
func Up(ctx context.Context, c Config) (*Cluster, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	host, err := lookAround(c.Dir)
	if err != nil {
		return nil, err
	}
	programs, err := parts.Build(ctx, c.Bin, c.Building)
	if err != nil {
		return nil, err
	}
	up, err := Open(c.Dir, c.Name)
	if err == nil {
		return up, up.finish(ctx, c)
	}
	if !errors.Is(err, ErrNotUp) {
		return nil, err
	}
	dir := filepath.Join(c.Dir, c.Name)
	if err := remove(dir, c.Name); err != nil {
		return nil, fmt.Errorf("remove what an earlier cluster left: %w", err)
	}
	return start(ctx, c, &supervisor.Spec{
		Name:       c.Name,
		Dir:        dir,
		Programs:   programs,
		Path:       programs.PATH() + string(os.PathListSeparator) + os.Getenv("PATH"),
		CNI:        host.cni,
		Runc:       host.runc,
		Native:     !host.overlay,
		Args:       c.Args,
		FakeNodes:  c.FakeNodes,
		Fake:       c.Fake,
		FakeEvents: c.FakeEvents,
		Token:      secret(),
		Access:     supervisor.Login{User: "kfs", Password: secret()},
		PullLogin:  supervisor.Login{User: "kfs", Password: secret()},
	})
}

// complete fills in defaults and checks c.
func (c *Config) complete() error {
	if c.Name == "" {
		c.Name = DefaultName
	}
	if !validName.MatchString(c.Name) {
		return fmt.Errorf("cluster name %q: want at most 32 lower-case letters, digits and dashes", c.Name)
	}
	if c.Dir == "" {
		c.Dir = DefaultDir()
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return err
	}
	c.Dir = dir
	// the longest path of a socket; the kernel takes 107 bytes
	if socket := filepath.Join(dir, c.Name, "containerd.sock.ttrpc"); len(socket) > 107 {
		return fmt.Errorf("state folder %s: the path is too long for the sockets in it by %d bytes", dir, len(socket)-107)
	}
	if c.Bin == "" {
		if c.Bin, err = parts.CacheDir(); err != nil {
			return err
		}
	}
	if c.Building == nil {
		c.Building = func(parts.Progress) {}
	}
	if c.Starting == nil {
		c.Starting = func(string) {}
	}
	for part := range c.Args {
		if !slices.Contains(supervisor.PartNames(), part) {
			return fmt.Errorf("arguments for %q: the parts are %s", part, strings.Join(supervisor.PartNames(), ", "))
		}
	}
	return os.MkdirAll(c.Dir, 0o755)
}

// secret is a password that nobody guesses.
func secret() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// start starts the supervisor and waits for its word. Of what does not come up
// nothing is left.
func start(ctx context.Context, c Config, spec *supervisor.Spec) (up *Cluster, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("bring up cluster %s: %w", spec.Name, err)
			err = errors.Join(err, Down(context.WithoutCancel(ctx), c.Dir, c.Name))
		}
	}()
	m, err := prepare(spec)
	if err != nil {
		return nil, err
	}
	pid, reports, err := supervisor.Start(spec)
	if err != nil {
		return nil, err
	}
	defer func() { // so that the supervisor never waits to report
		go func() {
			for range reports {
			}
		}()
	}()
	if m.Supervisor, err = identify(pid); err == nil {
		err = m.write(spec.Dir)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Kill(pid, unix.SIGKILL))
	}
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case r, ok := <-reports:
			switch {
			case !ok:
				return nil, fmt.Errorf("the supervisor ended%s", tail(spec.Dir, "supervisor"))
			case r.Ready:
				return &Cluster{Spec: spec, dir: spec.Dir, who: m.Supervisor}, nil
			case r.Error != "":
				return nil, fmt.Errorf("%s%s", r.Error, tail(spec.Dir, r.Part))
			default:
				c.Starting(r.Step)
			}
		}
	}
}

// prepare makes what the supervisor wants on the machine.
func prepare(spec *supervisor.Spec) (made, error) {
	var m made
	if err := os.MkdirAll(filepath.Join(spec.Dir, "logs"), 0o700); err != nil {
		return m, err
	}
	for _, dir := range supervisor.OwnDirs() {
		if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			m.Dirs = append(m.Dirs, dir)
		}
	}
	if err := m.write(spec.Dir); err != nil { // first, so that down knows of them
		return m, err
	}
	for _, dir := range m.Dirs {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return m, err
		}
	}
	return m, makeCgroups("/sys/fs/cgroup", supervisor.CgroupName(spec.Dir))
}

// tail returns the last lines of a part's log, on lines of their own.
func tail(dir, part string) string {
	if part == "" {
		return ""
	}
	data, err := os.ReadFile(supervisor.LogFile(dir, part))
	if err != nil || len(data) == 0 {
		return ""
	}
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	return "\nthe last lines of " + part + ":\n  " + strings.Join(lines[max(0, len(lines)-10):], "\n  ")
}

func (m made) write(dir string) error {
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	tmp := filepath.Join(dir, "made.json.tmp")
	if err := os.WriteFile(tmp, data, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, filepath.Join(dir, "made.json"))
}

// readMade returns what the cluster in dir made. Nothing is what it is where
// there is no such file.
func readMade(dir string) (made, error) {
	var m made
	data, err := os.ReadFile(filepath.Join(dir, "made.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	if err != nil {
		return m, err
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, fmt.Errorf("%s: %w", filepath.Join(dir, "made.json"), err)
	}
	return m, nil
}

// identify returns the identity of the process of that PID.
func identify(pid int) (identity, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return identity{}, err
	}
	// the 22nd field; the second, in parentheses, may hold blanks
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 || fields[0] == "Z" && threads(pid) <= 1 {
		return identity{}, fmt.Errorf("process %d has ended", pid)
	}
	return identity{PID: pid, Started: fields[19]}, nil
}

// threads counts the threads of a process. One whose first thread has ended is
// shown as a zombie, but the last thread of a supervisor ends only when no
// process is left in its PID namespace.
func threads(pid int) int {
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0
	}
	return len(tasks)
}

// alive says whether the process still is.
func (i identity) alive() bool {
	now, err := identify(i.PID)
	return err == nil && now == i
}

// Open returns the cluster of that name whose state is below dir; empty
// strings stand for DefaultDir() and DefaultName. The error is ErrNotUp if its
// supervisor is not running.
func Open(dir, name string) (*Cluster, error) {
	c := Config{Dir: dir, Name: name}
	if err := c.complete(); err != nil {
		return nil, err
	}
	state := filepath.Join(c.Dir, c.Name)
	m, err := readMade(state)
	if err != nil {
		return nil, err
	}
	if !m.Supervisor.alive() {
		return nil, fmt.Errorf("cluster %s in %s: %w", c.Name, c.Dir, ErrNotUp)
	}
	data, err := os.ReadFile(filepath.Join(state, "spec.json"))
	if err != nil {
		return nil, err
	}
	spec := &supervisor.Spec{}
	if err := json.Unmarshal(data, spec); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(state, "spec.json"), err)
	}
	return &Cluster{Spec: spec, dir: state, who: m.Supervisor}, nil
}

// List returns the names of the clusters whose state is below dir, up or not.
func List(dir string) ([]string, error) {
	if dir == "" {
		dir = DefaultDir()
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var names []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(dir, e.Name(), "made.json")); err == nil {
			names = append(names, e.Name())
		}
	}
	return names, err
}

// Down ends the cluster and removes what it made: every process, mount, link,
// cgroup and file. It does so for one that did not come up, or whose
// supervisor was killed, too.
func (c *Cluster) Down(ctx context.Context) error {
	return Down(ctx, filepath.Dir(c.dir), filepath.Base(c.dir))
}

// Down does what [Cluster.Down] does for the cluster of that name below dir.
func Down(ctx context.Context, dir, name string) error {
	c := Config{Dir: dir, Name: name}
	if err := c.complete(); err != nil {
		return err
	}
	state := filepath.Join(c.Dir, c.Name)
	m, err := readMade(state)
	if err != nil {
		return err
	}
	if m.Supervisor.alive() {
		// its end is the end of every process in its PID namespace
		if err := unix.Kill(m.Supervisor.PID, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill the supervisor, process %d: %w", m.Supervisor.PID, err)
		}
		for m.Supervisor.alive() {
			select {
			case <-ctx.Done():
				return fmt.Errorf("wait for the supervisor, process %d, to end: %w", m.Supervisor.PID, context.Cause(ctx))
			case <-time.After(5 * time.Millisecond):
			}
		}
	}
	return remove(state, c.Name)
}

// remove removes what a cluster that has ended left: cgroups, its state
// folder, and the folders over which it laid its own.
func remove(state, name string) error {
	m, err := readMade(state)
	if err != nil {
		return err
	}
	if m.Supervisor.alive() {
		return fmt.Errorf("cluster %s is up", name)
	}
	errs := []error{removeCgroups("/sys/fs/cgroup", supervisor.CgroupName(state))}
	for _, dir := range m.Dirs {
		// one that another program uses by now is not empty, and stays
		if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENOTEMPTY) && !errors.Is(err, unix.EBUSY) {
			errs = append(errs, err)
		}
	}
	return errors.Join(append(errs, os.RemoveAll(state))...)
}

// makeCgroups makes the cgroup of a cluster in every hierarchy below dir. The
// kubelet makes those of pods in it, and wants each controller there.
func makeCgroups(dir, name string) error {
	if isCgroup2(dir) {
		enable := "+" + strings.Join(controllersOf(dir), " +")
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(enable), 0o644); err != nil {
			return fmt.Errorf("enable the cgroup controllers %s: %w", enable, err)
		}
	}
	for _, root := range cgroupRoots(dir) {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// removeCgroups removes a cluster's cgroup of every hierarchy below dir, and
// those in it. The kernel keeps one for moments after its last process has
// ended.
func removeCgroups(dir, name string) error {
	var errs []error
	for _, root := range cgroupRoots(dir) {
		var dirs []string
		filepath.WalkDir(filepath.Join(root, name), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, path)
			}
			return nil
		})
		for _, dir := range slices.Backward(dirs) { // the inner ones first
			errs = append(errs, removeCgroup(dir))
		}
	}
	return errors.Join(errs...)
}

func removeCgroup(dir string) error {
	for try := 0; ; try++ {
		err := unix.Rmdir(dir)
		switch {
		case err == nil || errors.Is(err, unix.ENOENT):
			return nil
		case try == 200:
			return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// PID is the process ID of the supervisor, whose namespaces are the cluster's:
// nsenter -t PID -a enters them.
func (c *Cluster) PID() int { return c.who.PID }

// Kubeconfig is the path of the administrator's kubeconfig, for this machine.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.dir, "kubeconfig") }

// FaultsKubeconfig is the path of a kubeconfig whose server is the fault proxy
// in front of the API server.
func (c *Cluster) FaultsKubeconfig() string { return filepath.Join(c.dir, "kubeconfig-faults") }

// Registry is the address of the registry that everybody may use, on this
// machine and in the cluster.
func (c *Cluster) Registry() string { return loopback(c.Spec.Ports.Registry) }

// PrivateRegistry is the address of the registry that wants Spec.PullLogin.
func (c *Cluster) PrivateRegistry() string { return loopback(c.Spec.Ports.PrivateRegistry) }

// S3 is the URL of the object store on this machine. Pods reach it at
// supervisor.S3Endpoint. Its keys are Spec.Access.
func (c *Cluster) S3() string { return "http://" + loopback(c.Spec.Ports.S3) }

func loopback(port int) string { return "localhost:" + strconv.Itoa(port) }
