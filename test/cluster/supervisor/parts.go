package supervisor

import (
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"

	"sigs.k8s.io/yaml"

	"github.com/kfs-project/kfs/test/cluster/pki"
)

// This file says how each part is started: its arguments and its files.

// A part is a program of the cluster.
type part struct {
	name string
	path string
	argv []string // without the program's name
	env  []string

	proc    *process
	stopped bool // by a test, so that its absence is no fault
}

// Names of the parts, in the order in which they start.
const (
	Etcd              = "etcd"
	Containerd        = "containerd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Kubelet           = "kubelet"
	ObjectStore       = "versitygw"
	FakeKubelet       = "fake-kubelet"
)

// All parts talk to the API server as users of their own, as they do in a
// cluster of kubeadm's making.
var users = []pki.Name{
	{File: "admin", User: "kubernetes-admin", Groups: []string{"system:masters"}},
	{File: ControllerManager, User: "system:kube-controller-manager"},
	{File: Scheduler, User: "system:kube-scheduler"},
	{File: Kubelet, User: "system:node:" + Node, Groups: []string{"system:nodes"}, Hosts: []string{Node, nodeIP}},
	{File: FakeKubelet, User: "fake-kubelet", Groups: []string{"system:masters"}},
	{File: "apiserver-kubelet-client", User: "kube-apiserver-kubelet-client", Groups: []string{"system:masters"}},
	{File: APIServer, User: "kube-apiserver", Hosts: []string{serviceIP, "127.0.0.1", "localhost",
		"kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}},
}

// writeFiles writes the certificates and the configuration of all parts.
func (s *Spec) writeFiles() error {
	for _, dir := range []string{"pki", "etcd", "cni", "s3", "registry/open", "registry/private", "tmp"} {
		if err := os.MkdirAll(s.path(dir), 0o755); err != nil {
			return err
		}
	}
	ca, err := pki.New(s.path("pki"))
	if err != nil {
		return err
	}
	errs := []error{ca.Key("service-accounts")}
	for _, u := range users {
		errs = append(errs, ca.Issue(u))
		if u.File != APIServer && u.File != "apiserver-kubelet-client" {
			errs = append(errs, s.writeKubeconfig(u.File+".kubeconfig", serverURL, map[string]any{
				"client-certificate": s.path("pki", u.File+".crt"), "client-key": s.path("pki", u.File+".key")}))
		}
	}
	token := map[string]any{"token": s.Token}
	errs = append(errs,
		s.writeKubeconfig("kubeconfig", fmt.Sprintf("https://127.0.0.1:%d", s.Ports.API), token),
		s.writeKubeconfig("kubeconfig-faults", fmt.Sprintf("https://127.0.0.1:%d", s.Ports.Faults), token),
		s.writeTokens(),
		os.WriteFile(s.path("resolv.conf"), nil, 0o644), // pods must not ask the machine's name server
		os.WriteFile(s.path("containerd.toml"), s.containerdConfig(), 0o644),
		s.writeJSON("cni/10-pods.conflist", s.cniConfig()),
		s.writeYAML("kubelet.yaml", s.kubeletConfig()),
		s.writeYAML("scheduler.yaml", s.schedulerConfig()))
	return errors.Join(errs...)
}

// writeKubeconfig writes a kubeconfig whose files are named by their paths.
func (s *Spec) writeKubeconfig(file, server string, user map[string]any) error {
	return s.writeYAML(file, map[string]any{
		"apiVersion": "v1",
		"kind":       "Config",
		"clusters": []any{map[string]any{"name": s.Name, "cluster": map[string]any{
			"server": server, "certificate-authority": s.path("pki", "ca.crt")}}},
		"users":           []any{map[string]any{"name": "user", "user": user}},
		"contexts":        []any{map[string]any{"name": s.Name, "context": map[string]any{"cluster": s.Name, "user": "user"}}},
		"current-context": s.Name,
	})
}

// writeTokens writes the API server's table of tokens. A token passes the
// fault proxy, which has no part in the TLS of a client certificate.
func (s *Spec) writeTokens() error {
	f, err := os.OpenFile(s.path("pki", "tokens.csv"), os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := csv.NewWriter(f)
	w.Write([]string{s.Token, "admin", "admin", "system:masters"})
	w.Flush()
	return errors.Join(w.Error(), f.Close())
}

func (s *Spec) writeYAML(file string, content any) error {
	data, err := yaml.Marshal(content)
	if err != nil {
		return err
	}
	return os.WriteFile(s.path(file), data, 0o600)
}

func (s *Spec) writeJSON(file string, content any) error {
	data, err := json.Marshal(content)
	if err != nil {
		return err
	}
	return os.WriteFile(s.path(file), data, 0o644)
}

// containerdConfig keeps all of containerd below the state folder. Without
// restrict_oom_score_adj no container starts where root may not lower a
// process's score.
func (s *Spec) containerdConfig() []byte {
	snapshotter := "overlayfs"
	if s.Native {
		snapshotter = "native"
	}
	return fmt.Appendf(nil, `version = 3
root = %q
state = %q

[grpc]
  address = %q

[plugins.'io.containerd.cri.v1.images']
  snapshotter = %q
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = %q

[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = [%q]
    conf_dir = %q
  [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
      BinaryName = %q
      SystemdCgroup = false

[plugins.'io.containerd.internal.v1.opt']
  path = %q

[plugins.'io.containerd.transfer.v1.local']
  [[plugins.'io.containerd.transfer.v1.local'.unpack_config]]
    platform = "linux/%s"
    snapshotter = %q
`, s.path("containerd"), "/run/containerd-state", s.path("containerd.sock"), snapshotter, pauseImage, s.CNI, s.path("cni"), s.Runc,
		s.path("opt"), runtime.GOARCH, snapshotter)
}

// pauseImage holds the network of a pod.
const pauseImage = "localhost/pause:1"

func (s *Spec) cniConfig() any {
	return map[string]any{
		"cniVersion": "0.4.0",
		"name":       "pods",
		"plugins": []any{
			map[string]any{
				"type":      "bridge",
				"bridge":    "pods0",
				"isGateway": true, // the way to the node's addresses; there is none to the machine's
				"ipam": map[string]any{
					"type":   "host-local",
					"ranges": []any{[]any{map[string]any{"subnet": podCIDR}}},
					"routes": []any{map[string]any{"dst": "0.0.0.0/0"}},
				},
			},
		},
	}
}

// kubeletConfig lets the kubelet work on machines of cgroup v1 too, below a
// cgroup of the cluster's own, and keeps it from tidying a disk that is nearly
// full.
func (s *Spec) kubeletConfig() any {
	return map[string]any{
		"apiVersion":                  "kubelet.config.k8s.io/v1beta1",
		"kind":                        "KubeletConfiguration",
		"address":                     nodeIP,
		"authentication":              map[string]any{"anonymous": map[string]any{"enabled": false}, "x509": map[string]any{"clientCAFile": s.path("pki", "ca.crt")}},
		"authorization":               map[string]any{"mode": "Webhook"},
		"tlsCertFile":                 s.path("pki", Kubelet+".crt"),
		"tlsPrivateKeyFile":           s.path("pki", Kubelet+".key"),
		"containerRuntimeEndpoint":    "unix://" + s.path("containerd.sock"),
		"failCgroupV1":                false,
		"cgroupDriver":                "cgroupfs",
		"cgroupRoot":                  "/" + CgroupName(s.Dir),
		"failSwapOn":                  false,
		"resolvConf":                  s.path("resolv.conf"),
		"volumePluginDir":             s.path("volume-plugins"),
		"evictionHard":                map[string]any{"imagefs.available": "1%", "nodefs.available": "1%"},
		"imageGCHighThresholdPercent": 100,
		"serializeImagePulls":         false,
		"registryPullQPS":             0,
		"eventRecordQPS":              0,
		"kubeAPIQPS":                  200,
		"kubeAPIBurst":                400,
		"maxPods":                     200,
	}
}

// schedulerConfig lifts the scheduler's limit of 50 bindings a second.
func (s *Spec) schedulerConfig() any {
	return map[string]any{
		"apiVersion":       "kubescheduler.config.k8s.io/v1",
		"kind":             "KubeSchedulerConfiguration",
		"leaderElection":   map[string]any{"leaderElect": false},
		"clientConnection": map[string]any{"kubeconfig": s.path(Scheduler + ".kubeconfig"), "qps": 5000, "burst": 5000},
	}
}

// parts are the parts of the cluster, in the order in which they start.
func (s *Spec) parts() []*part {
	etcd := "http://127.0.0.1:2379"
	ps := []*part{
		{name: Etcd, argv: []string{
			"--data-dir=" + s.path("etcd"),
			"--listen-client-urls=" + etcd, "--advertise-client-urls=" + etcd,
			"--listen-peer-urls=http://127.0.0.1:2380",
			"--quota-backend-bytes=8589934592",
			"--unsafe-no-fsync", // what a test cluster holds need not outlive the machine
		}},
		{name: Containerd, argv: []string{"--config=" + s.path("containerd.toml")}},
		{name: APIServer, argv: []string{
			"--etcd-servers=" + etcd,
			"--bind-address=" + serviceIP, "--secure-port=443", "--advertise-address=" + serviceIP,
			"--endpoint-reconciler-type=none", // the service's address is the API server's own
			"--tls-cert-file=" + s.path("pki", APIServer+".crt"), "--tls-private-key-file=" + s.path("pki", APIServer+".key"),
			"--client-ca-file=" + s.path("pki", "ca.crt"),
			"--token-auth-file=" + s.path("pki", "tokens.csv"),
			"--kubelet-client-certificate=" + s.path("pki", "apiserver-kubelet-client.crt"),
			"--kubelet-client-key=" + s.path("pki", "apiserver-kubelet-client.key"),
			"--kubelet-certificate-authority=" + s.path("pki", "ca.crt"),
			"--kubelet-preferred-address-types=InternalIP",
			"--service-account-issuer=https://kubernetes.default.svc",
			"--service-account-key-file=" + s.path("pki", "service-accounts.pub"),
			"--service-account-signing-key-file=" + s.path("pki", "service-accounts.key"),
			"--service-cluster-ip-range=10.96.0.0/24",
			"--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
			"--allow-privileged",
			"--max-requests-inflight=2000", "--max-mutating-requests-inflight=1000",
		}},
		{name: ControllerManager, argv: []string{
			"--kubeconfig=" + s.path(ControllerManager+".kubeconfig"),
			"--bind-address=127.0.0.1", "--leader-elect=false",
			"--service-account-private-key-file=" + s.path("pki", "service-accounts.key"),
			"--root-ca-file=" + s.path("pki", "ca.crt"),
			"--cluster-signing-cert-file=" + s.path("pki", "ca.crt"), "--cluster-signing-key-file=" + s.path("pki", "ca.key"),
			"--cert-dir=" + s.path("pki"), "--flex-volume-plugin-dir=" + s.path("volume-plugins"),
			"--use-service-account-credentials=true",
			"--kube-api-qps=1000", "--kube-api-burst=2000",
		}},
		{name: Scheduler, argv: []string{"--config=" + s.path("scheduler.yaml"), "--bind-address=127.0.0.1", "--cert-dir=" + s.path("pki")}},
		{name: Kubelet, argv: []string{
			"--config=" + s.path("kubelet.yaml"), "--kubeconfig=" + s.path(Kubelet+".kubeconfig"),
			"--hostname-override=" + Node, "--node-ip=" + nodeIP,
		}},
		{name: ObjectStore,
			argv: []string{"--port=" + S3Endpoint, "--quiet", "posix", s.path("s3")},
			env:  []string{"ROOT_ACCESS_KEY=" + s.Access.User, "ROOT_SECRET_KEY=" + s.Access.Password}},
		{name: FakeKubelet, path: "/proc/self/exe"},
	}
	for _, p := range ps {
		if p.path == "" {
			p.path = s.Programs[p.name]
		}
		p.argv = slices.Concat(p.argv, s.Args[p.name])
		p.env = append(p.env, "PATH="+s.PATH(), "HOME="+s.Dir, "TMPDIR="+s.path("tmp"))
	}
	return ps
}

// PartNames returns the names of all parts, in the order in which they start.
func PartNames() []string {
	var names []string
	for _, p := range (&Spec{}).parts() {
		names = append(names, p.name)
	}
	return names
}
