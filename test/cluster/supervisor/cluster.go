package supervisor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kfs-project/kfs/test/cluster/fakekubelet"
	"github.com/kfs-project/kfs/test/cluster/faultproxy"
	"github.com/kfs-project/kfs/test/cluster/image"
	"github.com/kfs-project/kfs/test/cluster/registry"
)

// This file brings a cluster up and does to its parts what tests ask.

// startLimit is how long each step of the start may take. On two busy cores
// the longest, the API server's, takes seconds.
const startLimit = 2 * time.Minute

// A cluster is what one supervisor runs.
type cluster struct {
	spec    *Spec
	procs   *processes
	proxy   *faultproxy.Proxy
	client  kubernetes.Interface
	started time.Time

	acts sync.Mutex // held by whoever changes what runs, so that one does at a time

	mu    sync.Mutex // guards what follows
	parts []*part    // the list itself does not change
	ready bool
}

func newCluster(spec *Spec) *cluster {
	return &cluster{
		spec:    spec,
		procs:   &processes{byPID: map[int]*process{}},
		parts:   spec.parts(),
		started: time.Now(),
	}
}

// up starts everything and returns when pods can be created.
func (c *cluster) up(ctx context.Context, say func(step string)) error {
	c.acts.Lock() // before there is a control socket
	defer c.acts.Unlock()
	if err := errors.Join(c.spec.writeFiles(), c.serve()); err != nil {
		return err
	}
	if err := c.startAll(ctx, say); err != nil {
		return err
	}
	if c.spec.FakeNodes > 0 {
		say(fmt.Sprintf("%d fake nodes", c.spec.FakeNodes))
		if err := c.addFakeNodes(ctx, c.spec.Fake, c.spec.FakeNodes); err != nil {
			return err
		}
	}
	c.mu.Lock()
	c.ready = true
	c.mu.Unlock()
	return nil
}

// startAll starts every part that should run and does not, lets the frozen go
// on, and returns when pods can be created.
func (c *cluster) startAll(ctx context.Context, say func(step string)) error {
	steps := []struct {
		part  string // which starts, unless it runs already
		ready func(context.Context) error
	}{
		{Etcd, nil},
		{APIServer, nil},
		{ObjectStore, nil},
		{Containerd, c.imagesReady},
		{APIServer, c.apiReady},
		{ControllerManager, nil},
		{Scheduler, nil},
		{Kubelet, c.nodeReady},
		{ControllerManager, c.accountReady},
	}
	for _, s := range steps {
		say(s.part)
		p := c.part(s.part)
		if err := c.wake(p); err != nil {
			return &partError{p.name, err}
		}
		if s.ready == nil {
			continue
		}
		err := waitFor(ctx, startLimit, c.lost, func() error { return s.ready(ctx) })
		if pe := (*partError)(nil); err != nil && !errors.As(err, &pe) {
			err = &partError{p.name, err}
		}
		if err != nil {
			return err
		}
	}
	if p := c.part(FakeKubelet); c.wasStarted(p) {
		return c.wake(p)
	}
	return nil
}

// serve starts what the supervisor itself serves.
func (c *cluster) serve() error {
	api, err := inherited(0)
	if err != nil {
		return err
	}
	go forward(api, serviceIP+":443")
	store, err := inherited(2)
	if err != nil {
		return err
	}
	go forward(store, S3Endpoint)
	return errors.Join(c.serveFaults(), c.serveImages(), c.serveControl())
}

// serveFaults puts the fault proxy in front of the API server, with the API
// server's own certificate.
func (c *cluster) serveFaults() error {
	ln, err := inherited(1)
	if err != nil {
		return err
	}
	ca, err := os.ReadFile(c.spec.path("pki", "ca.crt"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	target, err := url.Parse(serverURL)
	if err != nil {
		return err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots}
	transport.Proxy = nil
	c.proxy = faultproxy.New(faultproxy.Config{Target: target, Transport: transport})
	server := &http.Server{Handler: c.proxy}
	go server.ServeTLS(ln, c.spec.path("pki", APIServer+".crt"), c.spec.path("pki", APIServer+".key"))
	return nil
}

// serveImages serves the two registries, at the same address within the
// cluster as on the machine, so that an image has one name.
func (c *cluster) serveImages() error {
	for i, r := range []struct {
		port  int
		dir   string
		login *Login
	}{
		{c.spec.Ports.Registry, "registry/open", nil},
		{c.spec.Ports.PrivateRegistry, "registry/private", &c.spec.PullLogin},
	} {
		outside, err := inherited(3 + i)
		if err != nil {
			return err
		}
		inside, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", r.port))
		if err != nil {
			return err
		}
		handler := registry.New(c.spec.path(r.dir))
		if r.login != nil {
			handler = registry.WithLogin(handler, r.login.User, r.login.Password)
		}
		server := &http.Server{Handler: handler}
		go server.Serve(outside)
		go server.Serve(inside)
	}
	return nil
}

// imagesReady gives containerd the image that every pod needs.
func (c *cluster) imagesReady(ctx context.Context) error {
	file := c.spec.path("tmp", "pause.tar")
	img, err := image.Build(ctx, image.Config{Programs: []string{c.spec.Programs["pause"]}})
	if err != nil {
		return err
	}
	if err := image.Write(file, pauseImage, img); err != nil {
		return err
	}
	argv := []string{"ctr", "--address", c.spec.path("containerd.sock"), "--namespace", "k8s.io", "images", "import", file}
	load, err := c.procs.start(c.spec.Programs["ctr"], argv, nil, c.spec.Dir, LogFile(c.spec.Dir, "ctr"))
	if err != nil {
		return err
	}
	select {
	case <-load.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	if load.status != 0 {
		return fmt.Errorf("load the pause image: %s", load.how())
	}
	return nil
}

// apiReady makes the client as soon as the API server is ready to serve.
func (c *cluster) apiReady(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", c.spec.path("admin.kubeconfig"))
	if err != nil {
		return err
	}
	config.QPS = -1
	config.Timeout = 10 * time.Second
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	if _, err := client.RESTClient().Get().AbsPath("/readyz").DoRaw(ctx); err != nil {
		return err
	}
	c.client = client
	return nil
}

func (c *cluster) nodeReady(ctx context.Context) error {
	node, err := c.client.CoreV1().Nodes().Get(ctx, Node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, cond := range node.Status.Conditions {
		if cond.Type != corev1.NodeReady {
			continue
		}
		if cond.Status != corev1.ConditionTrue {
			return fmt.Errorf("node is not ready: %s", cond.Message)
		}
		if len(node.Spec.Taints) > 0 {
			return fmt.Errorf("node has the taint %s", node.Spec.Taints[0].Key)
		}
		return nil
	}
	return errors.New("node has no condition Ready")
}

func (c *cluster) accountReady(ctx context.Context) error {
	_, err := c.client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
	return err
}

// addFakeNodes makes n nodes and starts the fake kubelet if it never was.
func (c *cluster) addFakeNodes(ctx context.Context, t fakekubelet.NodeTemplate, n int) error {
	if p := c.part(FakeKubelet); !c.wasStarted(p) {
		if err := c.start(p); err != nil {
			return &partError{FakeKubelet, err}
		}
	}
	return fakekubelet.CreateNodes(ctx, c.client, t, 0, n)
}

// wasStarted says whether the part has ever run.
func (c *cluster) wasStarted(p *part) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return p.proc != nil
}

// part returns the part of that name, or nil.
func (c *cluster) part(name string) *part {
	for _, p := range c.parts {
		if p.name == name {
			return p
		}
	}
	return nil
}

// lost returns an error if a part ended that nobody stopped.
func (c *cluster) lost() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, p := range c.parts {
		if p.proc != nil && !p.stopped && p.proc.hasEnded() {
			return &partError{p.name, fmt.Errorf("ended: %s", p.proc.how())}
		}
	}
	return nil
}

// start starts a part that is not running.
func (c *cluster) start(p *part) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.proc != nil && !p.proc.hasEnded() {
		return nil
	}
	argv := append([]string{p.name}, p.argv...)
	if p.name == FakeKubelet {
		argv = []string{fakeKubeletName, c.spec.path("spec.json")}
	}
	proc, err := c.procs.start(p.path, argv, p.env, c.spec.Dir, LogFile(c.spec.Dir, p.name))
	if err != nil {
		return err
	}
	p.proc, p.stopped = proc, false
	return nil
}

// wake starts a part that is not running, or lets a frozen one go on.
func (c *cluster) wake(p *part) error {
	if err := c.start(p); err != nil {
		return err
	}
	c.signal(p, syscall.SIGCONT) // to one that has ended by now, as lost will tell
	return nil
}

// stopLimit is how long a part may take to end by SIGTERM.
const stopLimit = 10 * time.Second

// stop ends a part by SIGTERM, after stopLimit by SIGKILL; or by SIGKILL at
// once, as a crash does.
func (c *cluster) stop(p *part, crash bool) error {
	c.mu.Lock()
	proc := p.proc
	p.stopped = true
	c.mu.Unlock()
	if proc == nil || proc.hasEnded() {
		return nil
	}
	if !crash {
		c.procs.signal(proc, syscall.SIGTERM)
		c.procs.signal(proc, syscall.SIGCONT) // a frozen one ends too
		select {
		case <-proc.ended:
			return nil
		case <-time.After(stopLimit):
		}
	}
	c.procs.signal(proc, syscall.SIGKILL)
	<-proc.ended
	return nil
}

// act does to a part what the verb of that name says.
func (c *cluster) act(p *part, verb string) error {
	switch verb {
	case "start":
		return c.start(p)
	case "stop":
		return c.stop(p, false)
	case "kill":
		return c.stop(p, true)
	case "restart":
		return errors.Join(c.stop(p, true), c.start(p))
	case "freeze":
		return c.signal(p, syscall.SIGSTOP)
	case "thaw":
		return c.signal(p, syscall.SIGCONT)
	}
	return fmt.Errorf("unknown verb %q: want start, stop, kill, restart, freeze or thaw", verb)
}

func (c *cluster) signal(p *part, sig syscall.Signal) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if p.proc == nil {
		return errors.New("not running")
	}
	return c.procs.signal(p.proc, sig)
}
