// Package supervisor is the process in which a cluster lives: the first of a
// PID namespace, with mount, network, UTS and IPC namespaces of its own. It
// starts the parts (etcd, the API server, the kubelet, containerd, ...), serves
// what the machine outside reaches them by, and does to them what tests ask.
//
//	machine's loopback                     the cluster's namespaces
//	------------------                     ------------------------------------------
//	127.0.0.1:API      --forwarder-------> kube-apiserver 10.96.0.1:443
//	127.0.0.1:Faults   --faultproxy------> kube-apiserver 10.96.0.1:443
//	127.0.0.1:S3       --forwarder-------> versitygw 10.244.255.1:7070
//	127.0.0.1:Registry --the same handler- 127.0.0.1:Registry (for containerd)
//	control.sock       --control---------> start, stop, freeze, counts, faults
//
// The listeners on the machine's loopback are made by [Start] outside and
// handed in, so that a connection is accepted out there and dialled in here.
// Because everything is below this one process, its end is the end of all: the
// kernel ends every process of the PID namespace with it, and the mounts and
// links go with their namespaces. Only the cgroups and the state folder are
// left for package cluster to remove.
package supervisor

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kfs-project/kfs/test/cluster/fakekubelet"
)

// A Spec is what a supervisor is told, in the file spec.json of the cluster's
// state folder.
type Spec struct {
	Name     string              // of the cluster
	Dir      string              // its state folder, absolute
	Programs map[string]string   // paths of the parts' programs
	Path     string              // PATH of the parts
	CNI      string              // folder of the CNI plugins
	Runc     string              // path of runc
	Native   bool                // copy images' files instead of laying them over each other
	Args     map[string][]string // further arguments, by part

	FakeNodes  int // nodes of Fake to make; 0 starts no fake kubelet
	Fake       fakekubelet.NodeTemplate
	FakeEvents bool // the fake kubelet writes Pulled, Created and Started too

	Ports     Ports
	Token     string // of the user admin, group system:masters
	Access    Login  // to the object store
	PullLogin Login  // to the private registry
}

// Ports are the ports on the machine's loopback.
type Ports struct {
	API             int // the API server
	Faults          int // the API server, behind the fault proxy
	S3              int // the object store
	Registry        int // images for everybody
	PrivateRegistry int // images for who logs in
}

// Login is a name and its password, or an access key and its secret.
type Login struct{ User, Password string }

// Addresses within a cluster. They are the same in each, since each has a
// network of its own.
const (
	Node       = "node"         // the name of the real node
	nodeIP     = "10.244.255.1" // the node's, also the object store's
	serviceIP  = "10.96.0.1"    // the service kubernetes, on which the API server listens
	podCIDR    = "10.244.0.0/24"
	serverURL  = "https://" + serviceIP
	S3Endpoint = nodeIP + ":7070" // of the object store, for pods
)

// path returns the path of a file of the state folder.
func (s *Spec) path(elem ...string) string {
	return filepath.Join(append([]string{s.Dir}, elem...)...)
}

// CgroupName is the name of the group, in each hierarchy, below which the
// containers of the cluster in the state folder dir are.
func CgroupName(dir string) string {
	hash := sha256.Sum256([]byte(dir))
	return fmt.Sprintf("kfs-%s-%x", filepath.Base(dir), hash[:4])
}

// ControlSocket is the path of the control socket of the cluster in dir.
func ControlSocket(dir string) string { return filepath.Join(dir, "control.sock") }

// listeners are what Start hands over, in this order, from descriptor 4 on.
// Descriptor 3 is where the supervisor tells how far it is.
func (s *Spec) listeners() []*int {
	p := &s.Ports
	return []*int{&p.API, &p.Faults, &p.S3, &p.Registry, &p.PrivateRegistry}
}

// A Report is what a supervisor tells while it starts, a line of JSON each.
type Report struct {
	Step  string `json:",omitempty"` // what is being waited for now
	Ready bool   `json:",omitempty"` // all is up; the last report
	Error string `json:",omitempty"` // why it will not be; the last report
	Part  string `json:",omitempty"` // whose log tells more of the error
}

// Names by which this program is started once more, as arguments 0.
const (
	supervisorName  = "kfs-cluster-supervisor"
	fakeKubeletName = "kfs-cluster-fake-kubelet"
)

// Reexec becomes the supervisor of a cluster, or its fake kubelet, if this
// process was started as one, and never returns then. A program that calls
// [Start], a test too, calls it first in main or TestMain.
func Reexec() {
	var run func(context.Context, *Spec) error
	switch filepath.Base(os.Args[0]) {
	case supervisorName:
		run = supervise
	case fakeKubeletName:
		run = runFakeKubelet
	default:
		return
	}
	slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
	spec, err := readSpec(os.Args[1])
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		err = run(ctx, spec)
	}
	if err != nil {
		slog.Error("ends", "error", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func readSpec(file string) (*Spec, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	spec := &Spec{}
	if err := json.Unmarshal(data, spec); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return spec, nil
}

// Start starts the supervisor of the cluster that spec describes, in the
// background, and sets spec's ports. What the supervisor reports comes from
// reports; it is closed when the supervisor is ready or ends. The state folder
// must exist.
func Start(spec *Spec) (pid int, reports <-chan Report, err error) {
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	tell, told, err := os.Pipe()
	if err != nil {
		return 0, nil, err
	}
	files = append(files, told)
	for _, port := range spec.listeners() {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return 0, nil, err
		}
		*port = ln.Addr().(*net.TCPAddr).Port
		f, err := ln.(*net.TCPListener).File()
		ln.Close()
		if err != nil {
			return 0, nil, err
		}
		files = append(files, f)
	}
	log, err := os.OpenFile(LogFile(spec.Dir, "supervisor"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return 0, nil, err
	}
	defer log.Close()
	file := spec.path("spec.json")
	data, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return 0, nil, err
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return 0, nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{supervisorName, file}
	cmd.Dir = spec.Dir
	cmd.Env = []string{"PATH=" + spec.Path, "HOME=" + spec.Dir}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, files
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true, // Ctrl-C in the terminal is not for it
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
	}
	if err := cmd.Start(); err != nil {
		return 0, nil, fmt.Errorf("start the supervisor in namespaces of its own: %w", err)
	}
	go cmd.Wait() // so that it leaves no zombie while this process lives
	out := make(chan Report)
	go func() {
		defer close(out)
		defer tell.Close()
		for d := json.NewDecoder(tell); ; {
			var r Report
			if d.Decode(&r) != nil {
				return
			}
			out <- r
		}
	}()
	return cmd.Process.Pid, out, nil
}

// LogFile is the path of a part's log in the state folder dir.
func LogFile(dir, part string) string { return filepath.Join(dir, "logs", part+".log") }

// supervise runs the cluster until ctx ends.
func supervise(ctx context.Context, spec *Spec) error {
	tell := os.NewFile(3, "reports")
	defer tell.Close()
	report := json.NewEncoder(tell)
	if err := enterNamespaces(spec); err != nil {
		report.Encode(Report{Error: err.Error()})
		return err
	}
	c := newCluster(spec)
	go c.procs.reap(ctx)
	if err := c.up(ctx, func(step string) { report.Encode(Report{Step: step}) }); err != nil {
		r := Report{Error: err.Error()}
		if pe := (*partError)(nil); errors.As(err, &pe) {
			r.Part = pe.part
		}
		report.Encode(r)
		return err
	}
	report.Encode(Report{Ready: true})
	tell.Close()
	<-ctx.Done()
	return nil
}

// inherited returns the listener that Start made as the i-th.
func inherited(i int) (net.Listener, error) {
	f := os.NewFile(uintptr(4+i), "listener")
	defer f.Close()
	return net.FileListener(f)
}

// waitFor calls done until it returns nil. It gives up with the last error
// when limit is over, and at once when giveUp returns an error.
func waitFor(ctx context.Context, limit time.Duration, giveUp, done func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for tick := time.NewTicker(50 * time.Millisecond); ; {
		err := done()
		if err == nil {
			return nil
		}
		if gone := giveUp(); gone != nil {
			return gone
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %v: %w", limit, err)
		case <-tick.C:
		}
	}
}
