//go:build e2e

// Package e2e tests the clusters themselves, on one that "cluster run" brought
// up and on others that the tests bring up beside it. Tests that break the
// first, or count what the machine has, are not parallel.
package e2e

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kfs-project/kfs/test/cluster/cluster"
	"github.com/kfs-project/kfs/test/cluster/image"
	"github.com/kfs-project/kfs/test/cluster/supervisor"
)

// probeImage is the image of the program in folder probe.
const probeImage = "localhost/probe:1"

// up is the cluster that the tests were started with.
var up *cluster.Cluster

func TestMain(m *testing.M) {
	supervisor.Reexec()
	var err error
	if up, err = cluster.Open(os.Getenv("KFS_CLUSTER_DIR"), os.Getenv("KFS_CLUSTER")); err == nil {
		err = loadProbe(context.Background(), up)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "these tests want a cluster, as make e2e and make cluster bring up: %v\n", err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func loadProbe(ctx context.Context, c *cluster.Cluster) error {
	img, err := image.Build(ctx, image.Config{Programs: []string{"./probe"}})
	if err != nil {
		return err
	}
	return c.Load(ctx, probeImage, img)
}

// clientOf returns a client for a kubeconfig.
func clientOf(t *testing.T, kubeconfig string, set ...func(*rest.Config)) *kubernetes.Clientset {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	for _, f := range set {
		f(config)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// namespace makes a namespace for one test, and waits until pods can be
// created in it.
func namespace(ctx context.Context, t *testing.T, client kubernetes.Interface) string {
	t.Helper()
	ns, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// not waited for: what it holds goes with the cluster at the latest
		client.CoreV1().Namespaces().Delete(context.Background(), ns.Name, metav1.DeleteOptions{})
	})
	until(ctx, t, "the service account of namespace "+ns.Name, func() error {
		_, err := client.CoreV1().ServiceAccounts(ns.Name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
	return ns.Name
}

// limit is how long a test waits for something of a cluster.
const limit = 60 * time.Second

// until waits until done returns nil.
func until(ctx context.Context, t *testing.T, what string, done func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		err := done()
		if err == nil {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("%s: not within %v: %v", what, limit, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// pod describes a pod that runs the probe.
func pod(name string, args ...string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: new(int64),
			Containers:                    []corev1.Container{{Name: "main", Image: probeImage, Args: args}},
		},
	}
}

func create(ctx context.Context, t *testing.T, client kubernetes.Interface, ns string, p *corev1.Pod) *corev1.Pod {
	t.Helper()
	created, err := client.CoreV1().Pods(ns).Create(ctx, p, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return created
}

// waitPod watches a pod until ok.
func waitPod(ctx context.Context, t *testing.T, client kubernetes.Interface, ns, name, what string, ok func(*corev1.Pod) bool) *corev1.Pod {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var last *corev1.Pod
	for ctx.Err() == nil {
		w, err := client.CoreV1().Pods(ns).Watch(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String()})
		if err != nil {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		for event := range w.ResultChan() {
			if p, is := event.Object.(*corev1.Pod); is {
				if last = p; ok(p) {
					w.Stop()
					return p
				}
			}
		}
	}
	status := "no such pod was seen"
	if last != nil {
		status = last.Status.String()
	}
	t.Fatalf("pod %s: not %s within %v; it is %s", name, what, limit, status)
	return nil
}

// phase returns what waitPod waits for.
func phase(want corev1.PodPhase) (what string, ok func(*corev1.Pod) bool) {
	return string(want), func(p *corev1.Pod) bool { return p.Status.Phase == want }
}

func waitPhase(ctx context.Context, t *testing.T, client kubernetes.Interface, ns, name string, want corev1.PodPhase) *corev1.Pod {
	t.Helper()
	what, ok := phase(want)
	return waitPod(ctx, t, client, ns, name, what, ok)
}

// logs returns the log of a pod's only container.
func logs(ctx context.Context, t *testing.T, client kubernetes.Interface, ns, name string) string {
	t.Helper()
	data, err := client.CoreV1().Pods(ns).GetLogs(name, &corev1.PodLogOptions{}).DoRaw(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
