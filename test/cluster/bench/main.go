// Command bench prints how fast pods on nodes without machines go from create
// to Succeeded, on the cluster that KUBECONFIG names. The bare figure beside it
// is the same number of status patches with nothing else going on: what the
// API server takes at most.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/kfs-project/kfs/test/cluster/cluster"
	"github.com/kfs-project/kfs/test/cluster/fakekubelet"
)

func main() {
	pods := flag.Int("pods", 10_000, "how many pods")
	flag.Parse()
	if err := run(context.Background(), *pods); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// writes is how many a pod takes that succeeds at once.
const writes = 3

// creators is how many clients create and patch side by side: more do not make
// an API server of two cores faster.
const creators = 32

func run(ctx context.Context, n int) error {
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = config.ContentType + ",application/json"
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	up, err := cluster.Open(os.Getenv("KFS_CLUSTER_DIR"), os.Getenv("KFS_CLUSTER"))
	if err != nil {
		return err
	}
	const ns = "bench"
	if _, err := client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns}}, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := waitForAccount(ctx, client, ns); err != nil {
		return err
	}
	bare, err := patchRate(ctx, client, ns)
	if err != nil {
		return err
	}
	f, err := runPods(ctx, client, ns, n)
	if err != nil {
		return err
	}
	starts, err := up.Starts(ctx)
	if err != nil {
		return err
	}
	if len(starts) != n {
		return fmt.Errorf("%d pods were started %d times", n, len(starts))
	}
	fmt.Println("| pods on fake nodes | time | a second |")
	fmt.Println("|---|---|---|")
	row := func(what string, n int, d time.Duration) {
		fmt.Printf("| %s | %.1f s | %.0f |\n", what, d.Seconds(), float64(n)/d.Seconds())
	}
	row(fmt.Sprintf("%d pods from first create to last Succeeded", n), n, f.total)
	row("of it until the last create", n, f.creating)
	fmt.Printf("| their writes: a create, a binding and a status each | | %.0f |\n", float64(writes*n)/f.total.Seconds())
	fmt.Printf("| status patches alone, nothing else going on | | %.0f |\n", bare)
	return nil
}

func waitForAccount(ctx context.Context, client kubernetes.Interface, ns string) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		_, err := client.CoreV1().ServiceAccounts(ns).Get(ctx, "default", metav1.GetOptions{})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the service account of namespace %s: %w", ns, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func pod(name string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			RestartPolicy:                corev1.RestartPolicyNever,
			AutomountServiceAccountToken: new(bool),
			NodeSelector:                 map[string]string{fakekubelet.NodeLabel: "true"},
			Tolerations:                  []corev1.Toleration{{Key: fakekubelet.NodeLabel, Operator: corev1.TolerationOpExists}},
			Containers:                   []corev1.Container{{Name: "main", Image: "localhost/none:1"}},
		},
	}
}

// each calls do with 0 to n-1, creators at a time.
func each(n int, do func(i int) error) error {
	var next atomic.Int64
	errs := make([]error, creators)
	var wg sync.WaitGroup
	for w := range creators {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(n) && errs[w] == nil; i = next.Add(1) - 1 {
				errs[w] = do(int(i))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// patchRate is how many status patches a second the API server takes, of pods
// that nothing else touches.
func patchRate(ctx context.Context, client kubernetes.Interface, ns string) (float64, error) {
	const pods, patches = creators, 3000
	name := func(i int) string { return fmt.Sprintf("bare-%d", i%pods) }
	err := each(pods, func(i int) error {
		p := pod(name(i))
		p.Spec.SchedulerName = "nobody"
		_, err := client.CoreV1().Pods(ns).Create(ctx, p, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return 0, err
	}
	started := time.Now()
	err = each(patches, func(i int) error {
		patch := fmt.Appendf(nil, `{"status":{"message":"patch %d"}}`, i)
		_, err := client.CoreV1().Pods(ns).Patch(ctx, name(i), types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		return err
	})
	rate := patches / time.Since(started).Seconds()
	return rate, errors.Join(err, client.CoreV1().Pods(ns).DeleteCollection(ctx, metav1.DeleteOptions{GracePeriodSeconds: new(int64)}, metav1.ListOptions{}))
}

// figures are what a run of pods took.
type figures struct{ total, creating time.Duration }

// runPods creates n pods and watches until all have succeeded.
func runPods(ctx context.Context, client kubernetes.Interface, ns string, n int) (figures, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, 10*time.Minute, errors.New("10 minutes are over"))
	defer cancel()
	var succeeded atomic.Int64
	all := make(chan struct{})
	lw := cache.NewListWatchFromClient(client.CoreV1().RESTClient(), "pods", ns, fields.ParseSelectorOrDie("status.phase=Succeeded"))
	_, informer := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: lw,
		ObjectType:    &corev1.Pod{},
		Handler: cache.ResourceEventHandlerFuncs{AddFunc: func(any) {
			if succeeded.Add(1) == int64(n) {
				close(all)
			}
		}},
	})
	go informer.RunWithContext(ctx)
	started := time.Now()
	err := each(n, func(i int) error {
		_, err := client.CoreV1().Pods(ns).Create(ctx, pod(fmt.Sprintf("pod-%d", i)), metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return figures{}, err
	}
	f := figures{creating: time.Since(started)}
	select {
	case <-all:
	case <-ctx.Done():
		return f, fmt.Errorf("%d of %d pods have succeeded: %w", succeeded.Load(), n, context.Cause(ctx))
	}
	f.total = time.Since(started)
	return f, nil
}
