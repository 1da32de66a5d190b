package fakekubelet

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// This file is an API server for tests: the fake clientset, with pods that are
// deleted, versioned and checked as the real one does.

var podKind = schema.GroupResource{Resource: "pods"}

// cluster is an API server with one ready fake node, n.
type cluster struct {
	*fake.Clientset
	t     *testing.T
	begun time.Time

	mu       sync.Mutex
	pods     map[string]*corev1.Pod // by namespace/name
	events   []watch.Event          // as many as the last version says
	watchers []chan watch.Event
	history  map[string][]string // by namespace/name: the gist of each version
	writes   int                 // of statuses
	refuse   func(a clienttesting.Action) error
	changed  chan struct{} // closed at the next change of a pod
}

func newCluster(t *testing.T) *cluster {
	c := &cluster{
		Clientset: fake.NewClientset(),
		t:         t,
		begun:     time.Now(),
		pods:      map[string]*corev1.Pod{},
		history:   map[string][]string{},
		changed:   make(chan struct{}),
	}
	c.PrependReactor("*", "*", func(a clienttesting.Action) (bool, runtime.Object, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.refuse != nil {
			if err := c.refuse(a); err != nil {
				return true, nil, err
			}
		}
		if a.GetResource().Resource != "pods" {
			return false, nil, nil
		}
		obj, err := c.react(a)
		return true, obj, err
	})
	c.PrependWatchReactor("pods", func(a clienttesting.Action) (bool, watch.Interface, error) {
		c.mu.Lock()
		defer c.mu.Unlock()
		from := a.(clienttesting.WatchAction).GetWatchRestrictions()
		if got := from.Fields.String(); got != "spec.nodeName!=" {
			t.Errorf("pods are watched with the field selector %q", got)
		}
		version, err := strconv.Atoi(from.ResourceVersion)
		if err != nil {
			return true, nil, err
		}
		ch := make(chan watch.Event, 1<<16)
		for _, e := range c.events[version:] {
			ch <- *e.DeepCopy()
		}
		c.watchers = append(c.watchers, ch)
		return true, watch.NewProxyWatcher(ch), nil
	})
	if err := CreateNodes(t.Context(), c, NodeTemplate{Prefix: "n"}, 0, 1); err != nil {
		t.Fatal(err)
	}
	return c
}

// run runs a kubelet until the test ends or the returned function is called.
func (c *cluster) run(config Config) (k *Kubelet, stop func()) {
	c.t.Helper()
	config.Client = c
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	k, err := New(config)
	if err != nil {
		c.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			c.t.Errorf("Run: %v", err)
		}
	})
	c.t.Cleanup(stop)
	return k, stop
}

// react does what the API server would for a request about pods.
func (c *cluster) react(a clienttesting.Action) (runtime.Object, error) {
	switch a := a.(type) {
	case clienttesting.ListActionImpl:
		list := &corev1.PodList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(len(c.events))}}
		for _, p := range c.pods {
			list.Items = append(list.Items, *p.DeepCopy())
		}
		return list, nil
	case clienttesting.PatchActionImpl:
		p, err := c.find(a.Namespace, a.Name)
		if err != nil {
			return nil, err
		}
		data, err := json.Marshal(p)
		if err != nil {
			return nil, err
		}
		if data, err = strategicpatch.StrategicMergePatch(data, a.Patch, p); err != nil {
			return nil, err
		}
		n := &corev1.Pod{}
		if err := json.Unmarshal(data, n); err != nil {
			return nil, err
		}
		return c.status(p, n)
	case clienttesting.DeleteActionImpl:
		p, err := c.find(a.Namespace, a.Name)
		if err != nil {
			return nil, err
		}
		if a.DeleteOptions.Preconditions == nil || *a.DeleteOptions.Preconditions.UID != p.UID || *a.DeleteOptions.GracePeriodSeconds != 0 {
			c.t.Errorf("%s is deleted with %v, want its UID and no grace", a.Name, a.DeleteOptions)
		}
		if !done(p) {
			c.t.Errorf("%s is deleted in phase %s", a.Name, p.Status.Phase)
		}
		c.remove(p, 0)
		return nil, nil
	}
	return nil, fmt.Errorf("unexpected request %s", a)
}

func (c *cluster) find(namespace, name string) (*corev1.Pod, error) {
	if p := c.pods[namespace+"/"+name]; p != nil {
		return p.DeepCopy(), nil
	}
	return nil, apierrors.NewNotFound(podKind, name)
}

// status changes a pod as far as a write to the status can.
func (c *cluster) status(old, n *corev1.Pod) (*corev1.Pod, error) {
	if n.UID != old.UID {
		return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, n.Name, nil)
	}
	if done(old) && n.Status.Phase != old.Status.Phase {
		c.t.Errorf("%s goes from phase %s to %s", n.Name, old.Status.Phase, n.Status.Phase)
	}
	if n.Status.QOSClass != old.Status.QOSClass {
		c.t.Errorf("%s: the QoS class becomes %q", n.Name, n.Status.QOSClass)
	}
	for _, s := range n.Status.ContainerStatuses {
		o := lookup(old.Status.ContainerStatuses, s.Name)
		if o != nil && o.State.Terminated != nil && s.State.Terminated == nil && !again(old, o.State.Terminated.ExitCode) {
			return nil, apierrors.NewInvalid(schema.GroupKind{Kind: "Pod"}, n.Name, nil)
		}
	}
	c.writes++
	p := old.DeepCopy()
	p.Status = *n.Status.DeepCopy()
	p.Labels, p.Finalizers = n.Labels, n.Finalizers // the server takes these from a status, too
	c.store(watch.Modified, p)
	return p.DeepCopy(), nil
}

// store makes p the new version of the pod and tells the watchers.
func (c *cluster) store(kind watch.EventType, p *corev1.Pod) {
	p.ResourceVersion = strconv.Itoa(len(c.events) + 1)
	key := p.Namespace + "/" + p.Name
	line := fmt.Sprint(time.Since(c.begun).Truncate(time.Millisecond), " ", gist(p))
	c.pods[key] = p
	if kind == watch.Deleted {
		delete(c.pods, key)
		line = fmt.Sprint(time.Since(c.begun).Truncate(time.Millisecond), " gone")
	}
	c.history[key] = append(c.history[key], line)
	e := watch.Event{Type: kind, Object: p}
	c.events = append(c.events, e)
	for _, w := range c.watchers {
		w <- *e.DeepCopy()
	}
	close(c.changed)
	c.changed = make(chan struct{})
}

// remove deletes a pod, with grace if it is given and the pod has not ended.
func (c *cluster) remove(p *corev1.Pod, grace int64) {
	if done(p) || p.DeletionGracePeriodSeconds != nil && *p.DeletionGracePeriodSeconds < grace {
		grace = 0
	}
	if grace == 0 && len(p.Finalizers) == 0 {
		c.store(watch.Deleted, p)
		return
	}
	at := metav1.NewTime(time.Now().Add(time.Duration(grace) * time.Second))
	p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &at, &grace
	p.Generation++
	c.store(watch.Modified, p)
}

// What tests do to pods.

// create creates a pod that is bound to the node n-0.
func (c *cluster) create(p *corev1.Pod) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p = p.DeepCopy()
	if c.pods[p.Namespace+"/"+p.Name] != nil {
		c.t.Fatalf("%s exists", p.Name)
	}
	p.UID = types.UID(fmt.Sprintf("uid-%d", len(c.events)))
	p.Generation = 1
	p.Status.Phase = corev1.PodPending
	p.Status.QOSClass = corev1.PodQOSBestEffort
	p.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}}
	c.store(watch.Added, p)
}

// delete asks for the deletion of a pod.
func (c *cluster) delete(name string, grace int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.find("default", name)
	if err != nil {
		c.t.Fatal(err)
	}
	c.remove(p, grace)
}

// change changes a pod.
func (c *cluster) change(name string, f func(p *corev1.Pod)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.find("default", name)
	if err != nil {
		c.t.Fatal(err)
	}
	f(p)
	c.store(watch.Modified, p)
}

// pod returns a pod.
func (c *cluster) pod(name string) *corev1.Pod {
	c.mu.Lock()
	defer c.mu.Unlock()
	p, err := c.find("default", name)
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

// versions returns what became of a pod, but for its creation.
func (c *cluster) versions(name string) []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.history["default/"+name][1:])
}

// became compares the versions of a pod with want.
func (c *cluster) became(name string, want []string) {
	c.t.Helper()
	if d := cmp.Diff(want, c.versions(name)); d != "" {
		c.t.Errorf("versions of %s (-want +got):\n%s", name, d)
	}
}

// reports compares the events with want.
func (c *cluster) reports(want []string) {
	c.t.Helper()
	if d := cmp.Diff(want, c.reported()); d != "" {
		c.t.Errorf("events (-want +got):\n%s", d)
	}
}

// wait waits until ok holds, which is called under the lock.
func (c *cluster) wait(ok func() bool) {
	c.t.Helper()
	limit := time.After(time.Minute)
	for {
		c.mu.Lock()
		is, changed := ok(), c.changed
		c.mu.Unlock()
		if is {
			return
		}
		select {
		case <-changed:
		case <-limit:
			c.t.Fatal("what the test waits for did not come in a minute")
		}
	}
}

// freeze freezes a node or, with on false, wakes it.
func (c *cluster) freeze(node string, on bool) {
	n, err := c.CoreV1().Nodes().Get(c.t.Context(), node, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	n.Annotations = map[string]string{FrozenAnnotation: fmt.Sprint(on)}
	if _, err := c.CoreV1().Nodes().Update(c.t.Context(), n, metav1.UpdateOptions{}); err != nil {
		c.t.Fatal(err)
	}
}

// reported returns the events, each as the path or kind of its object, the
// reason and the message.
func (c *cluster) reported() []string {
	list, err := c.CoreV1().Events("").List(c.t.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	slices.SortFunc(list.Items, func(a, b corev1.Event) int {
		return strings.Compare(a.Name[strings.LastIndexByte(a.Name, '.'):], b.Name[strings.LastIndexByte(b.Name, '.'):])
	})
	var lines []string
	for _, e := range list.Items {
		o := e.InvolvedObject
		where := o.FieldPath
		if where == "" {
			where = o.Kind
		}
		lines = append(lines, fmt.Sprintf("%s %s: %s", where, e.Reason, e.Message))
	}
	return lines
}

// newPod returns a pod with one container, main, that is told to do what
// behavior says; "" is no annotation.
func newPod(name, behavior string) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Annotations: map[string]string{}},
		Spec: corev1.PodSpec{
			NodeName:      "n-0",
			RestartPolicy: corev1.RestartPolicyNever,
			Containers:    []corev1.Container{{Name: "main", Image: "registry:5000/x:1"}},
		},
	}
	if behavior != "" {
		p.Annotations[BehaviorAnnotation] = behavior
	}
	return p
}

// gist returns the gist of a pod's status in one line.
func gist(p *corev1.Pod) string {
	var b strings.Builder
	b.WriteString(string(p.Status.Phase))
	if p.Status.Reason != "" {
		fmt.Fprintf(&b, "(%s)", p.Status.Reason)
	}
	if p.DeletionTimestamp != nil {
		b.WriteString(" deleted")
	}
	for _, s := range slices.Concat(p.Status.InitContainerStatuses, p.Status.ContainerStatuses) {
		fmt.Fprintf(&b, " %s=%s", s.Name, state(s.State))
		if s.RestartCount > 0 {
			fmt.Fprintf(&b, "#%d<%s", s.RestartCount, state(s.LastTerminationState))
		}
	}
	for _, c := range p.Status.Conditions {
		if c.Status == corev1.ConditionTrue && c.Type != corev1.PodScheduled {
			fmt.Fprintf(&b, " %s", c.Type)
		}
	}
	return b.String()
}

func state(s corev1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running"
	case s.Terminated != nil:
		text := fmt.Sprintf("%d/%s", s.Terminated.ExitCode, s.Terminated.Reason)
		if m := s.Terminated.Message; m != "" && s.Terminated.Reason != unknownReason {
			text += fmt.Sprintf("%q", m)
		}
		return text
	case s.Waiting != nil:
		return s.Waiting.Reason
	}
	return "none"
}
