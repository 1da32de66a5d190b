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
// left for package cluster to remove. The machine's file system is as it was:
// where a part wants a folder whose path is fixed, or sets what holds for the
// whole machine, it finds the cluster's own there.
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
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/kfs-project/kfs/test/cluster/fakekubelet"
	"github.com/kfs-project/kfs/test/cluster/parts"
)

// A Spec is what a supervisor is told, in the file spec.json of the cluster's
// state folder.
type Spec struct {
	Name     string              // of the cluster
	Dir      string              // its state folder, absolute
	Programs parts.Programs      // the parts'
	Bound    bool                // the cluster ends with the process that starts it
	CNI      string              // folder of the CNI plugins
	Runc     string              // path of runc
	Native   bool                // copy images' files instead of laying them over each other
	Args     map[string][]string // further arguments, by part

	FakeNodes  int // nodes of Fake to make; 0 starts no fake kubelet
	Fake       fakekubelet.NodeTemplate
	FakeEvents bool // the fake kubelet writes Pulled, Created and Started too

	Ports     Ports  // set by Start
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

// What Start hands over begins at these descriptors.
const (
	reportFD    = 3 // where the supervisor tells how far it is
	leashFD     = 4 // by which the supervisor is held; see Leash
	listenersFD = 5 // one for each of Spec.ports
)

// ports are the ports that are listened on, in the order of the descriptors.
func (s *Spec) ports() []*int {
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
	probeName       = "kfs-cluster-probe"
)

// namespaces are those that a cluster has of its own.
const namespaces = unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC

// Reexec becomes the supervisor of a cluster, its fake kubelet, or [Probe]'s
// probe if this process was started as one, and never returns then. A program
// that calls [Start] or Probe, a test too, calls it first in main or TestMain.
func Reexec() {
	var run func(context.Context, *Spec) error
	switch filepath.Base(os.Args[0]) {
	case supervisorName:
		run = supervise
	case fakeKubeletName:
		run = runFakeKubelet
	case probeName:
		json.NewEncoder(os.Stdout).Encode(probe())
		os.Exit(0)
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

// Probe tries in new namespaces what a cluster wants of the kernel, and returns
// what it lacks, by name.
func Probe(ctx context.Context) ([]string, error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args = []string{probeName}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: namespaces}
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("namespaces of kind PID, mount, network, UTS and IPC: %w", err)
	}
	var lacks []string
	if err := json.Unmarshal(out, &lacks); err != nil {
		return nil, fmt.Errorf("probe the kernel: %w: %q", err, out)
	}
	return lacks, nil
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

// A Leash is what holds a supervisor that has been started.
type Leash struct {
	PID     int
	Reports <-chan Report // closed when the supervisor is ready, or has ended

	hold *os.File // closed, it ends a supervisor that waits or is bound
}

// leashes are held until their supervisors end, though nobody refers to them:
// the collector would close them.
var leashes sync.Map // of *Leash

// Go lets the supervisor begin. One that is not bound is then held no longer.
func (l *Leash) Go(bound bool) error {
	if _, err := l.hold.Write([]byte{1}); err != nil {
		return fmt.Errorf("let the supervisor begin: %w", err)
	}
	if bound {
		return nil
	}
	return l.hold.Close()
}

// Start starts the supervisor of the cluster that spec describes, in the
// background, and sets spec's ports. The supervisor waits for Leash.Go, and ends
// if this process does before; one that is bound ends whenever this process
// does. The state folder must exist.
func Start(spec *Spec) (*Leash, error) {
	var files []*os.File
	defer func() {
		for _, f := range files {
			f.Close()
		}
	}()
	tell, told, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	files = append(files, told)
	held, hold, err := os.Pipe()
	if err != nil {
		tell.Close()
		return nil, err
	}
	files = append(files, held)
	leash := &Leash{hold: hold}
	cmd, err := command(spec, &files)
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		tell.Close()
		hold.Close()
		return nil, fmt.Errorf("start the supervisor in namespaces of its own: %w", err)
	}
	leash.PID = cmd.Process.Pid
	leashes.Store(leash, true)
	go func() {
		cmd.Wait() // so that it leaves no zombie while this process lives
		leashes.Delete(leash)
		hold.Close()
	}()
	reports := make(chan Report)
	leash.Reports = reports
	go func() {
		defer close(reports)
		defer tell.Close()
		for d := json.NewDecoder(tell); ; {
			var r Report
			if d.Decode(&r) != nil {
				return
			}
			reports <- r
		}
	}()
	return leash, nil
}

// command returns the supervisor's command, whose listeners it adds to files.
func command(spec *Spec, files *[]*os.File) (*exec.Cmd, error) {
	for _, port := range spec.ports() {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		*port = ln.Addr().(*net.TCPAddr).Port
		f, err := ln.(*net.TCPListener).File()
		ln.Close()
		if err != nil {
			return nil, err
		}
		*files = append(*files, f)
	}
	inherited := *files
	log, err := os.OpenFile(LogFile(spec.Dir, "supervisor"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	*files = append(*files, log) // to be closed here too
	data, err := json.MarshalIndent(spec, "", "\t")
	if err != nil {
		return nil, err
	}
	file := spec.path("spec.json")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{supervisorName, file}
	cmd.Dir = spec.Dir
	cmd.Env = []string{"PATH=" + spec.PATH(), "HOME=" + spec.Dir}
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, inherited
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Setsid:     true, // Ctrl-C in the terminal is not for it
		Cloneflags: namespaces,
	}
	return cmd, nil
}

// PATH is where the parts find programs: their own, and the machine's.
func (s *Spec) PATH() string {
	return s.Programs.PATH() + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
}

// LogFile is the path of a part's log in the state folder dir.
func LogFile(dir, part string) string { return filepath.Join(dir, "logs", part+".log") }

// supervise runs the cluster until ctx ends, or the leash does.
func supervise(ctx context.Context, spec *Spec) error {
	for fd := reportFD; fd < listenersFD+len(spec.ports()); fd++ {
		unix.CloseOnExec(fd) // they are not for the parts
	}
	leash := os.NewFile(leashFD, "leash")
	if n, _ := leash.Read(make([]byte, 1)); n == 0 {
		return errors.New("the process that started this one has ended")
	}
	if spec.Bound {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		go func() {
			leash.Read(make([]byte, 1)) // returns when that process has ended
			cancel()
		}()
	}
	tell := os.NewFile(reportFD, "reports")
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

// inherited returns the listener of the i-th of Spec.ports.
func inherited(i int) (net.Listener, error) {
	f := os.NewFile(uintptr(listenersFD+i), "listener")
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
