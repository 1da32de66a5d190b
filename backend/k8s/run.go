package k8s

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
)

// This file makes the objects of a run, and finds those of one that there is.

// A Run is one run in a cluster: it carries its attempts out, as an
// engine.Executor, and keeps its facts, as an engine.Store.
type Run struct {
	// Notice is called with what people should know about the run as a whole:
	// that the API server is away, or a lease is waited for. Nil is not to call.
	Notice func(text string)

	// Logs is how many logs are followed at once: the lines of further steps
	// are not reported. 0 is 100; a negative number is none.
	Logs int

	cluster *Cluster
	info    engine.RunInfo
	object  *runObject
	limits  Limits
	owner   metav1.OwnerReference
	sharder sharder
	pods    *podMaker

	renewing sync.Mutex // held while the Lease is written
	shards   []*shardObject

	ctx     context.Context // of all that goes on beside calls; done when Close is called
	cancel  context.CancelFunc
	working sync.WaitGroup
	lostRun chan struct{} // closed when the run is not held any more
	over    atomic.Bool   // the run is not there any more, or its namespace

	mu         sync.Mutex
	lease      *lease
	valuesKept map[string]bool // attempts whose outputs have a ConfigMap

	executor
}

var (
	// ErrNoRun is wrapped by the error of a run that is not there.
	ErrNoRun = errors.New("no such run")

	// ErrExists is wrapped by the error of a new run whose name another one has.
	ErrExists = errors.New("there is a run already that is named")
)

// Create makes the objects of a new run. Its name must be one that no other
// run of the namespace has: small letters, digits and hyphens, at most 50.
func Create(ctx context.Context, c *Cluster, p *dag.Pipeline, info engine.RunInfo, opts Options, version string) (*Run, error) {
	return create(ctx, c, p, info, opts, version, shardsFor(p))
}

// CheckName returns an error if no run of a cluster can have the name.
func CheckName(name string) error {
	if len(name) > maxRunName || dag.K8sName(name) != name {
		return fmt.Errorf("run name %q: want at most %d small letters, digits and hyphens", name, maxRunName)
	}
	return nil
}

func create(ctx context.Context, c *Cluster, p *dag.Pipeline, info engine.RunInfo, opts Options, version string, shards int) (*Run, error) {
	if err := CheckName(info.Name); err != nil {
		return nil, err
	}
	object := &runObject{Version: stateVersion, Kfs: version, Run: info, Pipeline: p, Options: opts, Shards: shards}
	data, err := pack(object)
	if err != nil {
		return nil, fmt.Errorf("run %s: %w", info.Name, err)
	}
	const most = maxConfigMap - 64<<10
	immutable := true
	m := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: objectName(info.Name), Labels: runLabels(info.Name), Annotations: map[string]string{
			runIDAnnotation: info.ID, partsAnnotation: fmt.Sprint(max(0, (len(data)-1)/most)), "kfs.dev/pipeline": shortText(p.Name, 200),
		}},
		Immutable:  &immutable,
		BinaryData: map[string][]byte{stateKey: data[:min(len(data), most)]},
	}
	m.Labels[kindLabel] = kindRun
	var made *corev1.ConfigMap
	err = c.do(ctx, func(ctx context.Context) (err error) {
		made, err = c.configMaps.Create(ctx, m, metav1.CreateOptions{})
		if apierrors.IsAlreadyExists(err) { // perhaps by a call whose answer was lost
			old, getErr := c.configMaps.Get(ctx, m.Name, metav1.GetOptions{})
			if getErr != nil {
				return getErr
			}
			switch {
			case old.Labels[kindLabel] != kindRun || old.Labels[runLabel] != info.Name:
				return fmt.Errorf("it is there already, and is not that of a run of this name: choose another name for the run")
			case old.Annotations[runIDAnnotation] == info.ID:
				made, err = old, nil
			}
		}
		return err
	})
	switch {
	case apierrors.IsAlreadyExists(err):
		return nil, fmt.Errorf("%w %s in namespace %s: choose another name, or go on with that one:  %s", ErrExists, info.Name, c.Namespace, c.Command("resume", info.Name))
	case apierrors.IsNotFound(err):
		return nil, access(fmt.Sprintf("create config map %s: namespace %s is not there", m.Name, c.Namespace), err)
	case err != nil:
		return nil, access("create config map "+m.Name, err)
	}
	c.health.stamped(made.CreationTimestamp)
	r := newRun(c, object, made)
	for k := 1; k*most < len(data); k++ {
		part := &corev1.ConfigMap{
			ObjectMeta: r.owned(partName(info.Name, k), kindPart), Immutable: &immutable,
			BinaryData: map[string][]byte{stateKey: data[k*most : min(len(data), (k+1)*most)]},
		}
		if err := makeOwned(ctx, r, c.configMaps, "config map", part); err != nil {
			return nil, err
		}
	}
	if err := r.eachShard(func(i int) error { return r.makeShard(ctx, i) }); err != nil {
		return nil, err
	}
	if err := r.makeBudget(ctx); err != nil {
		return nil, err
	}
	return r, nil
}

const partsAnnotation = "kfs.dev/parts"

func partName(run string, k int) string { return fmt.Sprintf("%s-p%d", objectName(run), k) }

// shortText returns a text cut to at most n bytes.
func shortText(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return text[:n-3] + "..."
}

// Open finds the run of a name. The error wraps ErrNoRun if there is none.
func Open(ctx context.Context, c *Cluster, name string) (*Run, error) {
	m, err := getRun(ctx, c, name)
	if err != nil {
		return nil, err
	}
	data := m.BinaryData[stateKey]
	var parts int
	fmt.Sscan(m.Annotations[partsAnnotation], &parts)
	for k := 1; k <= parts; k++ {
		var part *corev1.ConfigMap
		err := c.do(ctx, func(ctx context.Context) (err error) {
			part, err = c.configMaps.Get(ctx, partName(name, k), metav1.GetOptions{})
			return err
		})
		if apierrors.IsNotFound(err) {
			return nil, fmt.Errorf("config map %s, which holds a part of the pipeline of run %s, is missing: the run never began, or somebody has deleted it; delete the run with  %s", partName(name, k), name, c.Command("delete", name))
		}
		if err != nil {
			return nil, access("read config map "+partName(name, k), err)
		}
		data = append(data, part.BinaryData[stateKey]...)
	}
	object := &runObject{}
	if err := unpack(data, object); err != nil {
		return nil, fmt.Errorf("config map %s: %w", m.Name, err)
	}
	if object.Version != stateVersion || object.Pipeline == nil || object.Shards < 1 {
		return nil, fmt.Errorf("config map %s was written by another version of kfs (%s): use that one", m.Name, object.Kfs)
	}
	return newRun(c, object, m), nil
}

// getRun returns the ConfigMap of a run.
func getRun(ctx context.Context, c *Cluster, name string) (*corev1.ConfigMap, error) {
	var m *corev1.ConfigMap
	err := c.do(ctx, func(ctx context.Context) (err error) {
		m, err = c.configMaps.Get(ctx, objectName(name), metav1.GetOptions{})
		return err
	})
	switch {
	case apierrors.IsNotFound(err):
		return nil, &noRun{fmt.Sprintf("namespace %s has no run %q: are the namespace (-n) and the context (--context) the right ones?", c.Namespace, name)}
	case err != nil:
		return nil, access("read config map "+objectName(name), err)
	case m.Labels[kindLabel] != kindRun || m.Labels[runLabel] != name:
		return nil, fmt.Errorf("config map %s in namespace %s is not that of a run %q: %w", m.Name, c.Namespace, name, ErrNoRun)
	case m.DeletionTimestamp != nil:
		return nil, fmt.Errorf("run %s is being deleted: %w", name, ErrNoRun)
	}
	return m, nil
}

// A noRun is an ErrNoRun that says more than that.
type noRun struct{ text string }

func (e *noRun) Error() string { return e.text }
func (e *noRun) Unwrap() error { return ErrNoRun }

func newRun(c *Cluster, object *runObject, m *corev1.ConfigMap) *Run {
	limits := object.Options.Limits.withDefaults()
	// A call that changes something ends before another driver can have taken
	// the run over: it begins in the first half of the lease.
	with := *c
	with.RequestTimeout = min(c.RequestTimeout, limits.Lease/3)
	r := &Run{
		cluster: &with, object: object, info: object.Run, limits: limits,
		owner:   metav1.OwnerReference{APIVersion: "v1", Kind: "ConfigMap", Name: m.Name, UID: m.UID},
		sharder: newSharder(object.Pipeline, object.Shards),
		pods:    newPodMaker(object.Run, object.Pipeline, object.Options),
		lostRun: make(chan struct{}), valuesKept: map[string]bool{},
	}
	r.pods.owner = dag.Object{{Name: "apiVersion", Value: "v1"}, {Name: "kind", Value: "ConfigMap"}, {Name: "name", Value: m.Name}, {Name: "uid", Value: string(m.UID)}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.executor.init()
	return r
}

// Pipeline returns the pipeline of the run, which does not change.
func (r *Run) Pipeline() *dag.Pipeline { return r.object.Pipeline }

// Options returns how the run is carried out, which does not change.
func (r *Run) Options() Options { return r.object.Options }

// Info returns which run it is.
func (r *Run) Info() engine.RunInfo { return r.info }

// Lost is closed when the run has another driver, or is there no more; Err
// says which.
func (r *Run) Lost() <-chan struct{} { return r.lostRun }

// Err returns why the run is not held any more, or nil.
func (r *Run) Err() error { return r.lostLease() }

func (r *Run) notice(format string, args ...any) {
	if r.Notice != nil {
		r.Notice(fmt.Sprintf(format, args...))
	}
}

// stillThere returns nil if the run's ConfigMap is there, or could not be asked
// for; else the run is over: what is left of it is let go.
func (r *Run) stillThere(ctx context.Context) error {
	ctx, cancel := r.cluster.request(ctx)
	defer cancel()
	m, err := r.cluster.configMaps.Get(ctx, r.owner.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err), err == nil && (m.UID != r.owner.UID || m.DeletionTimestamp != nil):
		err = fmt.Errorf("config map %s was deleted by somebody: the run is over, and what was running of it is ended", r.owner.Name)
	case err == nil && r.terminating(ctx):
		err = fmt.Errorf("namespace %s is being deleted: the run is over, and what was running of it is ended", r.cluster.Namespace)
	default:
		return nil
	}
	if r.over.Swap(true) {
		return r.lostLease()
	}
	lost := r.lose(err)
	r.working.Go(func() { r.releaseOver(ctx) })
	return lost
}

// releaseOver lets the pods of a run go that is over.
func (r *Run) releaseOver(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	if _, err := releaseAll(ctx, r.cluster, r.info.Name); err != nil {
		r.notice("pods of the run may be left, which their finalizer keeps: let them go with  %s: %v", r.cluster.Command("delete", r.info.Name), err)
	}
}

// terminating reports whether the run's namespace is known to be deleted. That
// is seen by what cannot be made in it.
func (r *Run) terminating(ctx context.Context) bool {
	probe := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: r.owner.Name + "-probe"}}
	made, err := r.cluster.configMaps.Create(ctx, probe, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err == nil {
		r.cluster.health.stamped(made.CreationTimestamp)
	}
	return namespaceTerminating(err)
}

// watchRun looks now and then whether the run is still there and the API server
// answers, and says so if not.
func (r *Run) watchRun(ctx context.Context) {
	interval := min(time.Second, r.limits.Away/2)
	var told time.Time
	checked := time.Now()
	for sleep(ctx, interval) == nil {
		switch since, why := r.cluster.health.away(); {
		case since.IsZero() && !told.IsZero():
			r.notice("the API server answers again, after %v", time.Since(told).Round(time.Second))
			told = time.Time{}
		case !since.IsZero() && time.Since(since) > r.limits.Away && told.IsZero():
			r.notice("the API server %s; what runs goes on, and nothing is taken for failed", why)
			told = since
		}
		if err := r.cluster.denied(); err != nil {
			r.lose(err)
			return
		}
		if time.Since(checked) > r.limits.Lease/3 {
			checked = time.Now()
			if r.stillThere(ctx) != nil {
				return
			}
		}
	}
}
