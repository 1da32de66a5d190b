package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

// newProcesses returns processes that are reaped as long as the test runs. No
// test of this package may use os/exec, whose Wait would race with it.
func newProcesses(t *testing.T) *processes {
	ctx, cancel := context.WithCancel(t.Context())
	ps := &processes{byPID: map[int]*process{}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		ps.reap(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-done
	})
	return ps
}

func TestProcesses(t *testing.T) {
	ps := newProcesses(t)
	log := filepath.Join(t.TempDir(), "log")
	sh := func(script string) *process {
		t.Helper()
		p, err := ps.start("/bin/sh", []string{"sh", "-c", script}, nil, "/", log)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	p := sh("echo said; exit 3")
	<-p.ended
	if p.how() != "exit status 3" {
		t.Errorf("it ended: %s, want exit status 3", p.how())
	}
	if data, err := os.ReadFile(log); err != nil || string(data) != "said\n" {
		t.Errorf("the log holds %q, %v", data, err)
	}
	if err := ps.signal(p, syscall.SIGKILL); err == nil {
		t.Error("a process that has ended takes a signal")
	}

	p = sh("sleep 60 & exec sleep 60")
	if p.frozen() || p.hasEnded() || p.memory() == 0 {
		t.Errorf("a running process: frozen %t, ended %t, %d bytes", p.frozen(), p.hasEnded(), p.memory())
	}
	if err := ps.signal(p, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); !p.frozen(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a process that was stopped is not frozen")
		}
	}
	syscall.Kill(-p.pid, syscall.SIGKILL) // it leads a group of its own
	<-p.ended
	if p.how() != "signal: killed" {
		t.Errorf("it ended: %s, want signal: killed", p.how())
	}
	if _, err := ps.start("/nowhere", []string{"x"}, nil, "/", log); err == nil || !strings.Contains(err.Error(), "start /nowhere: ") {
		t.Errorf("a program that is not there: %v", err)
	}
}

// TestForward carries both directions, and the end of each.
func TestForward(t *testing.T) {
	listen := func() net.Listener {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		return ln
	}
	server, front := listen(), listen()
	go func() {
		conn, err := server.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		asked, _ := io.ReadAll(conn) // until the client has said all
		io.WriteString(conn, "you said "+string(asked))
	}()
	go forward(front, server.Addr().String())
	conn, err := net.Dial("tcp", front.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "hello")
	conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "you said hello" {
		t.Errorf("got %q, %v", got, err)
	}

	nobody := listen()
	addr := nobody.Addr().String()
	nobody.Close()
	dead := listen()
	go forward(dead, addr)
	conn, err = net.Dial("tcp", dead.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("to a server that is not there: %v; want the connection cut", err)
	}
}

// TestWriteFiles wants every file of a cluster below its folder, and secrets
// for nobody else to read.
func TestWriteFiles(t *testing.T) {
	s := &Spec{Name: "test", Dir: t.TempDir(), Token: "s3cret", Ports: Ports{API: 1234, Faults: 1235}}
	if err := s.writeFiles(); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"kubeconfig", "kubeconfig-faults", "kubelet.kubeconfig", "pki/tokens.csv", "pki/ca.key"} {
		info, err := os.Stat(s.path(file))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v; want mode 0600", file, info, err)
		}
	}
	var config struct {
		Clusters []struct{ Cluster struct{ Server string } }
	}
	data, err := os.ReadFile(s.path("kubeconfig"))
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal(data, &config); err != nil || config.Clusters[0].Cluster.Server != "https://127.0.0.1:1234" {
		t.Errorf("the kubeconfig is %s, %v", data, err)
	}
	var network map[string]any
	data, err = os.ReadFile(s.path("cni/10-pods.conflist"))
	if err != nil || json.Unmarshal(data, &network) != nil {
		t.Errorf("the pods' network is %s, %v", data, err)
	}
}

// TestCgroupName tells clusters of one name in two folders apart.
func TestCgroupName(t *testing.T) {
	one, two := CgroupName("/var/lib/one/kfs"), CgroupName("/var/lib/two/kfs")
	if one == two || !strings.HasPrefix(one, "kfs-kfs-") {
		t.Errorf("cgroups %s and %s", one, two)
	}
}
