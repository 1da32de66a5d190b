// Package fakekubelet gives a cluster nodes without machines, and a kubelet
// that only pretends, so that an API server, a scheduler and controllers can be
// tested with hundreds of nodes and ten thousands of pods.
//
//	CreateNodes    makes the nodes
//	Kubelet        keeps all nodes alive and acts for their pods
//	Behavior       what one pod is told to do, by an annotation
//	Start          one start of a pod, as the kubelet counted it
//
// Any node with the label fake.kfs.dev/node=true is such a node, whoever made
// it: its lease is renewed and its conditions are kept healthy, until the
// annotation fake.kfs.dev/frozen=true makes it look dead. The pods bound to it
// get the statuses, events and deletions that a kubelet of Kubernetes 1.37
// would give them, but nothing runs. An ordinary pod succeeds at once, with one
// write; one that is always restarted runs until it is deleted. The annotation
// fake.kfs.dev/behavior tells a pod otherwise:
//
//	{do: fail, after: 2s, exit: 3, message: out of luck}
//
// A list tells it start by start, over all pods that have the same annotation
// fake.kfs.dev/key: the first attempt takes the first entry, and so on, and the
// last entry repeats.
//
//	[{do: evict, after: 1s}, {do: pull-backoff}, {do: succeed}]
//
// A pod takes its entry when the kubelet first sees it, even if it then never
// starts.
package fakekubelet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// This file watches, and hands out the work.

// A Config says how a kubelet works. Only Client is needed.
type Config struct {
	Client     kubernetes.Interface // may do what kubelets may, for every node
	Workers    int                  // pods written at the same time; 0 is 64
	Events     bool                 // also write the events Pulled, Created and Started
	StartsFile string               // keeps the starts over the end of the process; "" keeps none
	Log        *slog.Logger         // nil is slog.Default()
}

// A Kubelet acts for all fake nodes of a cluster. A cluster has one at a time.
type Kubelet struct {
	client kubernetes.Interface
	config Config
	log    *slog.Logger
	ledger *ledger

	nodes, pods         cache.Indexer
	nodeCtl, podCtl     cache.Controller
	nodeQueue, podQueue workqueue.TypedRateLimitingInterface[string]

	mu     sync.Mutex // guards the maps; a value belongs to the worker that holds its key
	hearts map[string]*heart
	lives  map[string]*life
	held   map[string]bool // nodes that pods wait for
	met    int             // nodes so far
}

const (
	nodeWorkers = 8           // enough to renew some thousand leases in time
	requestTime = time.Minute // for all that one pod or node needs at once
	byNode      = "node"      // the index of pods
)

// New returns a kubelet that has not begun. It reads the starts of
// Config.StartsFile and keeps the file open until Run returns.
func New(c Config) (*Kubelet, error) {
	if c.Client == nil {
		return nil, errors.New("fakekubelet: Config.Client is nil, want the client of a cluster")
	}
	if c.Workers == 0 {
		c.Workers = 64
	}
	if c.Workers < 0 {
		return nil, fmt.Errorf("fakekubelet: Config.Workers is %d, want at least 1", c.Workers)
	}
	k := &Kubelet{
		client:    c.Client,
		config:    c,
		log:       c.Log,
		nodeQueue: newQueue(),
		podQueue:  newQueue(),
		hearts:    map[string]*heart{},
		lives:     map[string]*life{},
		held:      map[string]bool{},
	}
	if k.log == nil {
		k.log = slog.Default()
	}
	var err error
	if k.ledger, err = openLedger(c.StartsFile); err != nil {
		return nil, fmt.Errorf("fakekubelet: read starts: %w", err)
	}
	k.watch()
	return k, nil
}

func newQueue() workqueue.TypedRateLimitingInterface[string] {
	return workqueue.NewTypedRateLimitingQueue(
		workqueue.NewTypedItemExponentialFailureRateLimiter[string](10*time.Millisecond, 5*time.Second))
}

// watch sets up the two reflectors.
func (k *Kubelet) watch() {
	pods := k.client.CoreV1().Pods("")
	bound := fields.OneTermNotEqualSelector("spec.nodeName", "").String()
	k.pods, k.podCtl = k.informer(&corev1.Pod{}, &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = bound
			return pods.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.FieldSelector = bound
			return pods.Watch(ctx, o)
		},
	}, cache.Indexers{byNode: func(obj any) ([]string, error) {
		return []string{obj.(*corev1.Pod).Spec.NodeName}, nil
	}}, k.podQueue.Add)

	nodes := k.client.CoreV1().Nodes()
	k.nodes, k.nodeCtl = k.informer(&corev1.Node{}, &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.LabelSelector = NodeLabel + "=true"
			return nodes.List(ctx, o)
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			o.LabelSelector = NodeLabel + "=true"
			return nodes.Watch(ctx, o)
		},
	}, nil, k.nodeQueue.Add)
}

// informer keeps what lw lists in a store, and calls changed with the key of
// each change.
func (k *Kubelet) informer(kind runtime.Object, lw *cache.ListWatch, indexers cache.Indexers, changed func(key string)) (cache.Indexer, cache.Controller) {
	handle := func(obj any) {
		if key, err := cache.DeletionHandlingMetaNamespaceKeyFunc(obj); err == nil {
			changed(key)
		}
	}
	if indexers == nil {
		indexers = cache.Indexers{}
	}
	store, ctl := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(lw, k.client),
		ObjectType:    kind,
		Indexers:      indexers,
		Transform:     strip,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    handle,
			UpdateFunc: func(_, obj any) { handle(obj) },
			DeleteFunc: handle,
		},
	})
	return store.(cache.Indexer), ctl
}

// strip drops the managed fields: nobody here reads them, and they are many.
func strip(obj any) (any, error) {
	if m, err := meta.Accessor(obj); err == nil {
		m.SetManagedFields(nil)
	}
	return obj, nil
}

// Run keeps the nodes alive and acts for their pods until ctx ends, then
// returns nil. What the server refuses is logged and tried again, each pod for
// as long as it exists. Run can be called once.
func (k *Kubelet) Run(ctx context.Context) error {
	var wg sync.WaitGroup
	wg.Go(func() { k.nodeCtl.RunWithContext(ctx) })
	wg.Go(func() { k.podCtl.RunWithContext(ctx) })
	for range nodeWorkers {
		wg.Go(func() { k.work(ctx, k.nodeQueue, k.tend) })
	}
	for range k.config.Workers {
		wg.Go(func() { k.work(ctx, k.podQueue, k.sync) })
	}
	<-ctx.Done()
	k.nodeQueue.ShutDown()
	k.podQueue.ShutDown()
	wg.Wait()
	for _, h := range k.hearts {
		h.timer.Stop()
	}
	for _, l := range k.lives {
		l.timer.Stop()
	}
	return k.ledger.close()
}

// work does what the queue holds, and does again what fails.
func (k *Kubelet) work(ctx context.Context, q workqueue.TypedRateLimitingInterface[string], do func(context.Context, string) error) {
	for {
		key, shutdown := q.Get()
		if shutdown || ctx.Err() != nil {
			return
		}
		rctx, cancel := context.WithTimeout(ctx, requestTime)
		err := do(rctx, key)
		cancel()
		switch {
		case err == nil:
			q.Forget(key)
		case ctx.Err() == nil:
			level := slog.LevelDebug
			if q.NumRequeues(key) == 0 {
				level = slog.LevelWarn
			}
			k.log.Log(ctx, level, "will try again", "object", key, "err", err)
			q.AddRateLimited(key)
		}
		q.Done(key)
	}
}
