// Package clustertest is what tests on a real cluster share. They have the
// build tag e2e, and run by  make e2e , or by hand on a cluster of
// make cluster, whose variables say where it is.
//
//	Namespace  one for a test, gone after it
//	Config     how to reach the API server; Faulty, by way of the fault proxy
//	Command    a command of bin/cluster: faults, images, starts
//	Busybox    gives the node an image with a shell; Kfs, that of kfs itself
package clustertest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// Images that the functions below give the node.
const (
	BusyboxImage = "docker.io/library/busybox:1.36"
	KfsImage     = "localhost/kfs:e2e"
)

// Config returns how to reach the API server of the cluster.
func Config(t testing.TB) *rest.Config { return config(t, "KUBECONFIG") }

// Faulty returns how to reach the API server by way of the fault proxy, which
// disturbs what Command(t, "fault", ...) says.
func Faulty(t testing.TB) *rest.Config { return config(t, "KFS_FAULTS_KUBECONFIG") }

func config(t testing.TB, variable string) *rest.Config {
	t.Helper()
	file := os.Getenv(variable)
	if file == "" {
		t.Fatalf("%s is not set: run  make e2e,  or  make cluster  and  eval \"$(make -s cluster-env)\"", variable)
	}
	c, err := clientcmd.BuildConfigFromFlags("", file)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// Root returns the folder of the project.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := root()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	return dir
}

var root = sync.OnceValues(func() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	return strings.TrimSpace(string(out)), err
})

// Command runs a command of bin/cluster and returns what it prints.
func Command(t testing.TB, args ...string) string {
	t.Helper()
	out, err := command(Root(t), args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func command(root string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(root, "bin", "cluster"), args...)
	cmd.Dir = root
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("bin/cluster %s: %w\n%s", strings.Join(args, " "), err, errs.String())
	}
	return string(out), nil
}

// Kubectl runs kubectl and returns what it prints.
func Kubectl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command("kubectl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("kubectl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

var namespaces struct {
	sync.Mutex
	n int
}

// Namespace makes a namespace for a test, and deletes it after it.
func Namespace(t testing.TB) string {
	t.Helper()
	namespaces.Lock()
	namespaces.n++
	name := fmt.Sprintf("kfs-%d-%d", time.Now().UnixNano()/1e6, namespaces.n)
	namespaces.Unlock()
	Kubectl(t, "create", "namespace", name)
	t.Cleanup(func() {
		// What a test has left with a finalizer would keep the namespace.
		exec.Command("sh", "-c", "kubectl get pods -n "+name+` -o jsonpath='{range .items[?(@.metadata.finalizers)]}pod/{.metadata.name} {end}' | xargs -r kubectl patch -n `+name+` --type merge -p '{"metadata":{"finalizers":null}}'`).Run()
		exec.Command("kubectl", "delete", "namespace", name, "--wait=false").Run()
	})
	return name
}

var busybox, kfs sync.Once

// Busybox gives the node an image with a shell and the common programs, made
// of the machine's own busybox.
func Busybox(t testing.TB) {
	t.Helper()
	root := Root(t)
	var err error
	busybox.Do(func() {
		program := "/bin/busybox"
		if _, err = os.Stat(program); err != nil {
			err = fmt.Errorf("%w: install the Debian package busybox-static", err)
			return
		}
		var applets []byte
		if applets, err = exec.Command(program, "--list").Output(); err != nil {
			return
		}
		args := []string{"image", "build", "-t", BusyboxImage, "--env", "PATH=/bin", "--entrypoint", "/bin/sh"}
		for _, name := range strings.Fields(string(applets)) {
			args = append(args, "--symlink", "/bin/"+name+"=/busybox")
		}
		args = append(args, program)
		_, err = command(root, args...)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Kfs gives the node the image of kfs itself, built from the working tree.
func Kfs(t testing.TB) {
	t.Helper()
	root := Root(t)
	var err error
	kfs.Do(func() {
		_, err = command(root, "image", "build", "-t", KfsImage, "--user", "65532", "./cmd/kfs", "./cmd/kfs-launch")
	})
	if err != nil {
		t.Fatal(err)
	}
}
