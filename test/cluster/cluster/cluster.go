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
	Dir  string // folder of all clusters' state; DefaultDir if empty
	Bin  string // folder of the parts' programs; parts.CacheDir() if empty

	Bound bool // the cluster ends with this process, and must not be up before

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
const DefaultDir = "/var/lib/kfs-cluster"

var (
	// ErrNotUp says that no cluster of a name is up.
	ErrNotUp = errors.New("no such cluster is up")
	// ErrUp says that a cluster is up which cannot be what is asked for.
	ErrUp = errors.New("it is up already")
)

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

var validName = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$`)

// Up brings a cluster up and returns when pods can be created. A cluster of
// that name which is up already is completed: what is not running is started,
// fake nodes are added; the error is ErrUp if it was brought up with other
// programs or arguments. Of a cluster that does not come up nothing is left but
// its logs, of which the error tells the end.
func Up(ctx context.Context, c Config) (*Cluster, error) {
	if err := c.complete(); err != nil {
		return nil, err
	}
	host, err := lookAround(ctx, c.Dir)
	if err != nil {
		return nil, err
	}
	programs, err := parts.Build(ctx, c.Bin, c.Building)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(c.Dir, c.Name)
	unlock, err := lock(ctx, dir, true)
	if err != nil {
		return nil, err
	}
	defer unlock()
	up, err := Open(c.Dir, c.Name)
	if err == nil {
		return up, up.complete(ctx, c, programs)
	}
	if !errors.Is(err, ErrNotUp) {
		return nil, err
	}
	if err := remove(dir); err != nil {
		return nil, fmt.Errorf("remove what an earlier cluster left: %w", err)
	}
	return start(ctx, c, &supervisor.Spec{
		Name:       c.Name,
		Dir:        dir,
		Programs:   programs,
		CNI:        host.cni,
		Runc:       host.runc,
		Native:     !host.overlay,
		Args:       c.Args,
		Bound:      c.Bound,
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
		c.Dir = DefaultDir
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
	return nil
}

// secret is a password that nobody guesses.
func secret() string {
	b := make([]byte, 16)
	rand.Read(b)
	return hex.EncodeToString(b)
}

// start starts the supervisor and waits for its word.
func start(ctx context.Context, c Config, spec *supervisor.Spec) (up *Cluster, err error) {
	defer func() {
		if err == nil {
			return
		}
		err = fmt.Errorf("bring up cluster %s: %w", spec.Name, err)
		logs, kept := keepLogs(spec.Dir)
		if kept == nil {
			err = fmt.Errorf("%w\nall logs are in %s", err, logs)
		}
		err = errors.Join(err, kept, end(context.WithoutCancel(ctx), spec.Dir))
	}()
	if err := os.Mkdir(filepath.Join(spec.Dir, "logs"), 0o700); err != nil {
		return nil, err
	}
	if err := makeCgroups("/sys/fs/cgroup", supervisor.CgroupName(spec.Dir)); err != nil {
		return nil, err
	}
	leash, err := supervisor.Start(spec)
	if err != nil {
		return nil, err
	}
	defer func() { // so that the supervisor never waits to report
		go func() {
			for range leash.Reports {
			}
		}()
	}()
	who, err := identify(leash.PID)
	if err != nil {
		return nil, err
	}
	// the supervisor does nothing before it can be found and ended
	if err := errors.Join(who.write(spec.Dir), leash.Go(spec.Bound)); err != nil {
		return nil, err
	}
	for {
		select {
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case r, ok := <-leash.Reports:
			switch {
			case !ok:
				return nil, fmt.Errorf("the supervisor ended%s", tail(spec.Dir, "supervisor"))
			case r.Ready:
				return &Cluster{Spec: spec, dir: spec.Dir, who: who}, nil
			case r.Error != "":
				return nil, fmt.Errorf("%s%s", r.Error, tail(spec.Dir, r.Part))
			default:
				c.Starting(r.Step)
			}
		}
	}
}

// keepLogs copies the logs of a cluster that did not come up to where they
// stay when the rest is removed.
func keepLogs(dir string) (string, error) {
	kept, err := os.MkdirTemp("", filepath.Base(dir)+"-logs-")
	if err != nil {
		return "", err
	}
	return kept, os.CopyFS(kept, os.DirFS(filepath.Join(dir, "logs")))
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

// write writes who the supervisor of the cluster in dir is.
func (i identity) write(dir string) error {
	data, err := json.Marshal(i)
	if err != nil {
		return err
	}
	file := filepath.Join(dir, supervisorFile)
	if err := os.WriteFile(file+".tmp", data, 0o600); err != nil {
		return err
	}
	return os.Rename(file+".tmp", file)
}

// supervisorFile is the file of the state folder that names the supervisor.
const supervisorFile = "supervisor.json"

// supervisorOf returns who the supervisor of the cluster in dir is, or was. It
// is nobody where none was started.
func supervisorOf(dir string) (identity, error) {
	var i identity
	file := filepath.Join(dir, supervisorFile)
	data, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return i, nil
	}
	if err != nil {
		return i, err
	}
	if err := json.Unmarshal(data, &i); err != nil {
		return i, fmt.Errorf("%s: %w", file, err)
	}
	return i, nil
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
// strings stand for DefaultDir and DefaultName. The error is ErrNotUp if its
// supervisor is not running.
func Open(dir, name string) (*Cluster, error) {
	c := Config{Dir: dir, Name: name}
	if err := c.complete(); err != nil {
		return nil, err
	}
	state := filepath.Join(c.Dir, c.Name)
	who, err := supervisorOf(state)
	if err != nil {
		return nil, err
	}
	if !who.alive() {
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
	return &Cluster{Spec: spec, dir: state, who: who}, nil
}

// StateDir returns the state folder of the cluster of that name below dir, up
// or not. The error wraps fs.ErrNotExist if there is none.
func StateDir(dir, name string) (string, error) {
	c := Config{Dir: dir, Name: name}
	if err := c.complete(); err != nil {
		return "", err
	}
	state := filepath.Join(c.Dir, c.Name)
	_, err := os.Stat(state)
	return state, err
}

// List returns the names of the clusters whose state is below dir, up or not;
// an empty string stands for DefaultDir.
func List(dir string) ([]string, error) {
	if dir == "" {
		dir = DefaultDir
	}
	files, err := filepath.Glob(filepath.Join(dir, "*", supervisorFile))
	var names []string
	for _, file := range files {
		names = append(names, filepath.Base(filepath.Dir(file)))
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
	unlock, err := lock(ctx, state, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unlock()
	return end(ctx, state)
}

// end ends the cluster in the folder state and removes what it made.
func end(ctx context.Context, state string) error {
	who, err := supervisorOf(state)
	if err != nil {
		return err
	}
	if who.alive() {
		// its end is the end of every process in its PID namespace
		if err := unix.Kill(who.PID, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("kill the supervisor, process %d: %w", who.PID, err)
		}
	}
	for who.alive() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the supervisor, process %d, to end: %w", who.PID, context.Cause(ctx))
		case <-time.After(5 * time.Millisecond):
		}
	}
	if err := errors.Join(remove(state), os.Remove(state)); err != nil {
		return err
	}
	if dir := filepath.Dir(state); dir == DefaultDir {
		os.Remove(dir) // if no other cluster is in it
	}
	return nil
}

// remove removes what a cluster that has ended left: cgroups, and what its
// state folder holds.
func remove(state string) error {
	errs := []error{removeCgroups("/sys/fs/cgroup", supervisor.CgroupName(state))}
	entries, err := os.ReadDir(state)
	errs = append(errs, err)
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(state, e.Name())))
	}
	return errors.Join(errs...)
}

// lock waits until no other process brings the cluster in the folder state up
// or down, and keeps others from it until unlock. The folder is made if create
// is set. It is the folder itself that is locked, which may be another one by the
// time that the lock is had.
func lock(ctx context.Context, state string, create bool) (unlock func(), err error) {
	for {
		if create {
			// that it exists is an error too, if it is gone a moment later
			if err := os.MkdirAll(state, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
				return nil, err
			}
		}
		f, err := os.Open(state)
		if create && errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil && same(f, state) {
			return func() { f.Close() }, nil
		}
		f.Close()
		if err != nil && !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", state, err)
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another process that brings cluster %s up or down: %w", filepath.Base(state), context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// same says whether f is what is at path now.
func same(f *os.File, path string) bool {
	one, err := f.Stat()
	two, err2 := os.Stat(path)
	return err == nil && err2 == nil && os.SameFile(one, two)
}

// makeCgroups makes the cgroup of a cluster in every hierarchy below dir. The
// kubelet makes those of pods in it, and wants each controller there.
func makeCgroups(dir, name string) error {
	if isCgroup2(dir) {
		if err := enableControllers(dir); err != nil {
			return err
		}
	}
	for _, root := range cgroupRoots(dir) {
		if err := os.Mkdir(filepath.Join(root, name), 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}

// enableControllers lets the cgroups in dir, of version 2, have the controllers
// that the kubelet wants. Most machines have them enabled.
func enableControllers(dir string) error {
	file := filepath.Join(dir, "cgroup.subtree_control")
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	enabled, known := strings.Fields(string(data)), controllersOf(dir)
	for _, name := range []string{"cpu", "cpuset", "memory", "pids", "hugetlb"} {
		if !slices.Contains(known, name) || slices.Contains(enabled, name) {
			continue
		}
		if err := os.WriteFile(file, []byte("+"+name), 0o644); err != nil {
			return fmt.Errorf("enable the cgroup controller %s: %w (in a container, no process may be in its outermost cgroup)", name, err)
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
