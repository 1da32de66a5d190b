package fakekubelet

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

func TestCreateNodes(t *testing.T) {
	c := newCluster(t)
	template := NodeTemplate{
		Allocatable: corev1.ResourceList{"nvidia.com/gpu": resource.MustParse("8"), "pods": resource.MustParse("5")},
		Labels:      map[string]string{"zone": "a"},
	}
	for range 2 { // the nodes that there are do not matter
		if err := CreateNodes(t.Context(), c, template, 3, 40); err != nil {
			t.Fatal(err)
		}
	}
	bare := NodeTemplate{Prefix: "bare", Taints: []corev1.Taint{}}
	if err := CreateNodes(t.Context(), c, bare, 0, 1); err != nil {
		t.Fatal(err)
	}
	list, err := c.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{LabelSelector: "zone=a"})
	if err != nil || len(list.Items) != 40 {
		t.Fatalf("%d nodes, %v; want 40", len(list.Items), err)
	}
	n, err := c.CoreV1().Nodes().Get(t.Context(), "fake-42", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[corev1.ResourceName]string{
		"cpu": "64", "memory": "256Gi", "pods": "5", "ephemeral-storage": "1Ti", "nvidia.com/gpu": "8",
	} {
		a, c := n.Status.Allocatable[name], n.Status.Capacity[name]
		if a.String() != want || c.String() != want {
			t.Errorf("%s is %s of %s; want %s", name, &a, &c, want)
		}
	}
	labels := map[string]string{
		NodeLabel: "true", "zone": "a",
		"kubernetes.io/hostname": "fake-42", "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
	}
	if d := cmp.Diff(labels, n.Labels); d != "" {
		t.Errorf("labels (-want +got):\n%s", d)
	}
	if got := fmt.Sprint(n.Spec.Taints); got != "[{fake.kfs.dev/node true NoSchedule <nil>}]" {
		t.Errorf("taints %s", got)
	}
	var conditions []string
	for _, c := range n.Status.Conditions {
		conditions = append(conditions, fmt.Sprint(c.Type, "=", c.Status))
	}
	if want := []string{"MemoryPressure=False", "DiskPressure=False", "PIDPressure=False", "Ready=True"}; !cmp.Equal(conditions, want) {
		t.Errorf("conditions %v; want %v", conditions, want)
	}
	if n, err = c.CoreV1().Nodes().Get(t.Context(), "bare-0", metav1.GetOptions{}); err != nil || len(n.Spec.Taints) > 0 {
		t.Errorf("taints %v, %v; want none", n.Spec.Taints, err)
	}

	c.refuse = func(a clienttesting.Action) error { return errors.New("no") }
	err = CreateNodes(t.Context(), c, NodeTemplate{}, 100, 500)
	if err == nil || !strings.HasPrefix(err.Error(), "create node fake-1") || !strings.HasSuffix(err.Error(), ": no") {
		t.Errorf("CreateNodes of a failing server: %v; want the name of a node", err)
	}
}

// beats records when leases are written.
type beats struct {
	mu    sync.Mutex
	times map[string][]time.Duration // by node
}

func record(c *cluster) *beats {
	b := &beats{times: map[string][]time.Duration{}}
	c.PrependReactor("*", "leases", func(a clienttesting.Action) (bool, runtime.Object, error) {
		var lease *coordinationv1.Lease
		switch a := a.(type) {
		case clienttesting.CreateActionImpl:
			lease = a.Object.(*coordinationv1.Lease)
		case clienttesting.UpdateActionImpl:
			lease = a.Object.(*coordinationv1.Lease)
		default:
			return false, nil, nil
		}
		if *lease.Spec.HolderIdentity != lease.Name || *lease.Spec.LeaseDurationSeconds != 40 || a.GetNamespace() != "kube-node-lease" {
			c.t.Errorf("lease %v", lease)
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.times[lease.Name] = append(b.times[lease.Name], lease.Spec.RenewTime.Sub(c.begun))
		return false, nil, nil
	})
	return b
}

// take returns what was recorded since the last call.
func (b *beats) take() map[string][]time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	times := b.times
	b.times = map[string][]time.Duration{}
	return times
}

func TestLeases(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		b := record(c)
		if err := CreateNodes(t.Context(), c, NodeTemplate{}, 0, 39); err != nil {
			t.Fatal(err)
		}
		c.run(Config{})
		synctest.Wait()
		if first := b.take(); len(first) != 40 {
			t.Fatalf("%d nodes have a lease; want 40 at once", len(first))
		}
		time.Sleep(leaseEvery)
		b.take()
		start := time.Since(c.begun)
		time.Sleep(3 * leaseEvery)
		round := b.take()
		var phases []time.Duration
		for name, times := range round {
			if len(times) < 3 || len(times) > 4 {
				t.Errorf("%s has %d renewals in a minute; want one every 20 s", name, len(times))
				continue
			}
			if d := times[1] - times[0]; d != leaseEvery {
				t.Errorf("%s is renewed after %v; want 20s", name, d)
			}
			phases = append(phases, times[0]-start)
		}
		slices.Sort(phases)
		if len(phases) != 40 {
			t.Fatalf("%d nodes are renewed; want 40", len(phases))
		}
		for i := range phases[1:] {
			if gap := phases[i+1] - phases[i]; gap > leaseEvery/20 {
				t.Errorf("no renewal for %v; want them spread over %v", gap, leaseEvery)
			}
		}

		c.freeze("fake-7", true)
		if err := c.CoreV1().Nodes().Delete(t.Context(), "fake-8", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := c.CoordinationV1().Leases("kube-node-lease").Delete(t.Context(), "fake-9", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		b.take()
		time.Sleep(time.Minute)
		round = b.take()
		if round["fake-7"] != nil || round["fake-8"] != nil || len(round) != 38 {
			t.Errorf("renewed are %v; want all but fake-7, which is frozen, and fake-8, which is gone", slices.Sorted(maps.Keys(round)))
		}
		c.freeze("fake-7", false)
		synctest.Wait()
		if round := b.take(); len(round["fake-7"]) != 1 {
			t.Errorf("renewed are %v; want fake-7 as soon as it is awake", round)
		}
	})
}

// A node is made ready, whoever made it and whatever became of it.
func TestReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.run(Config{})
		synctest.Wait()
		n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "m", Labels: map[string]string{NodeLabel: "true"}}}
		if _, err := c.CoreV1().Nodes().Create(t.Context(), n, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		p := newPod("p", "")
		p.Spec.NodeName = "m"
		c.create(p)
		stranger := newPod("stranger", "")
		stranger.Spec.NodeName = "real"
		c.create(stranger)
		synctest.Wait()
		ready := func() string {
			n, err := c.CoreV1().Nodes().Get(t.Context(), "m", metav1.GetOptions{})
			if err != nil {
				t.Fatal(err)
			}
			var list []string
			for _, c := range n.Status.Conditions {
				list = append(list, fmt.Sprint(c.Type, "=", c.Status))
			}
			return strings.Join(list, " ")
		}
		const well = "MemoryPressure=False DiskPressure=False PIDPressure=False Ready=True"
		if got := ready(); got != well {
			t.Errorf("conditions %s; want %s", got, well)
		}

		c.freeze("m", true)
		synctest.Wait()
		n, err := c.CoreV1().Nodes().Get(t.Context(), "m", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i := range n.Status.Conditions {
			n.Status.Conditions[i].Status = corev1.ConditionUnknown
		}
		if _, err := c.CoreV1().Nodes().UpdateStatus(t.Context(), n, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if got := ready(); !strings.HasSuffix(got, "Ready=Unknown") {
			t.Errorf("conditions of a frozen node %s; want them left alone", got)
		}
		c.freeze("m", false)
		synctest.Wait()
		if got := ready(); got != well {
			t.Errorf("conditions %s; want %s again", got, well)
		}
		if got := c.versions("p"); len(got) != 1 {
			t.Errorf("the pod of a node without conditions: %q; want it succeeded", got)
		}
		if got := c.versions("stranger"); len(got) != 0 {
			t.Errorf("the pod of a node that is not fake: %q; want it left alone", got)
		}
	})
}
