package k8s

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kfs-project/kfs/backend/accel"
	"github.com/kfs-project/kfs/backend/k8s/resource"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
)

// This file carries attempts out: it makes their pods, ends them, and lets
// them go when their outcome is committed.

const (
	creators    = 16               // pods that are made at once
	concluders  = 32               // ended pods that are looked into at once
	releasers   = 16               // pods that are let go at once
	stopAgain   = 5 * time.Second  // after how long a pod is deleted, or let go, once more
	undecided   = 10 * time.Second // how long a pod may take to say more of a failure
	maxFinished = 2000             // finished pods that are kept, whatever Limits.Keep says
)

// executor is the part of a Run that carries attempts out.
type executor struct {
	observing sync.Once
	observed  chan struct{} // closed when all pods of the run have been seen
	failed    error         // why they cannot be

	at       sync.Mutex // guards what follows
	attempts map[string]*attempt
	done     map[string]bool // attempts whose outcome is committed
	delayed  map[string]bool // attempts whose pod is to be made later
	blind    time.Time       // since when the pods may not be seen; zero if they may
	lent     map[string]bool // attempts that have ended and whose pod still has devices
	asking   bool            // events are being asked for
	rested   time.Time       // when they may be again
	report   func(engine.Observation)

	create   queue // of attempts without a pod
	release  queue // of pods to let go
	conclude chan struct{}
	follow   chan struct{}
	entries  map[string]*entrypoint // of images
	kills    killList

	stopping     bool // the run was being stopped when it was claimed
	resourceOnce sync.Once
	resources    *resource.Runner
	resourceErr  error
}

// An attempt is one whose pod is to be made, or is there.
type attempt struct {
	id   string
	spec *engine.Attempt // nil if a driver before this one has started it
	last engine.Observation

	pod       string // its name; "" if there is none yet
	uid       types.UID
	version   uint64 // of the pod, as it was seen last
	seen      sight
	job       bool
	held      bool // has the finalizer
	cut       bool // was seen being deleted by a stranger before its command had ended
	gone      bool // the pod is not there any more
	concluded bool
	released  bool
	freed     time.Time // when it was let go
	kept      time.Time // when it could not be

	made      time.Time // the pod
	limit     time.Duration
	since     map[waitKind]time.Time
	excused   time.Duration // of the time since made: the API server was away
	asked     time.Time     // when events were asked for
	why       string        // by events
	whyKind   waitKind
	overdue   time.Time // when what is undecided is decided
	ending    *ending   // why it is to end
	making    bool      // its pod is being made
	stuck     bool      // nobody knows whether it was made
	notBefore time.Time // before which it is not made
	rests     int       // how often that was set
	force     bool      // it is to end at once
	mute      bool      // why it is to end cannot be written into the pod
	giving    bool      // it is being given up, as it does not start
	removing  int       // calls that delete it
	removed   time.Time // when the last of them returned
	second    types.UID // of the pod that its Job has made beside the first

	log *follower
}

func (x *executor) init() {
	x.attempts, x.done, x.entries = map[string]*attempt{}, map[string]bool{}, map[string]*entrypoint{}
	x.delayed, x.lent = map[string]bool{}, map[string]bool{}
	x.observed = make(chan struct{})
	x.create.wake, x.release.wake = make(chan struct{}, 1), make(chan struct{}, 1)
	x.conclude = make(chan struct{}, concluders)
}

// A queue holds IDs for workers. Each is in it once.
type queue struct {
	mu   sync.Mutex
	ids  []string
	in   map[string]bool
	wake chan struct{}
}

func (q *queue) put(id string) {
	q.mu.Lock()
	if !q.in[id] {
		if q.in == nil {
			q.in = map[string]bool{}
		}
		q.in[id] = true
		q.ids = append(q.ids, id)
	}
	q.mu.Unlock()
	q.nudge()
}

func (q *queue) nudge() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) take() (string, bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.ids) == 0 {
		return "", false
	}
	id := q.ids[0]
	q.ids = q.ids[1:]
	delete(q.in, id)
	if len(q.ids) > 0 {
		q.nudge()
	}
	return id, true
}

// work calls f for what is put into the queue, n at once, until ctx is done.
func (r *Run) work(ctx context.Context, q *queue, n int, f func(ctx context.Context, id string)) {
	for range n {
		r.working.Go(func() {
			for {
				id, ok := q.take()
				if !ok {
					select {
					case <-ctx.Done():
						return
					case <-q.wake:
					}
					continue
				}
				f(ctx, id)
			}
		})
	}
}

// Check implements engine.Executor.
func (r *Run) Check(_ context.Context, p *dag.Pipeline, _ map[string]string) error {
	return Check(p, r.object.Options, r.cluster.Namespace)
}

// Check reports, as a dag.Errors, why steps of the pipeline could not run in a
// namespace of a cluster by these options, as far as that is known without one.
func Check(p *dag.Pipeline, opts Options, namespace string) error {
	var faults dag.Errors
	fault := func(s *dag.Step, hint, format string, args ...any) {
		faults = append(faults, &dag.Error{Pos: s.Pos, Msg: fmt.Sprintf("step %q ", s.Name) + fmt.Sprintf(format, args...), Hint: hint})
	}
	for _, s := range p.Steps {
		if s.Resource != nil {
			faults = append(faults, resource.Check(s, namespace)...)
			continue
		}
		if s.Primitive == "job" && s.Once {
			fault(s, `leave out set_primitive("job"), or once=True`, "is to run once, and as a Job, which may start a pod twice")
		}
		if (len(s.Outputs) > 0 || len(s.Artifacts) > 0 || s.Once) && opts.Image == "" {
			fault(s, "make one with  make image  and name it with  --kfs-image, or in KFS_IMAGE", "needs kfs's own image in its pod, and no image is named")
		}
		for _, c := range slices.Concat(s.InitContainers, s.Sidecars) {
			if c.Get("name") == ioContainer {
				fault(s, "rename it", "has a container named %q, as kfs's own", ioContainer)
			}
		}
	}
	if _, _, err := newPodMaker(engine.RunInfo{}, p, opts).store(); err != nil {
		faults = append(faults, &dag.Error{Msg: err.Error()})
	}
	if err := accel.Check(p); err != nil {
		faults = append(faults, dag.Faults(err)...)
	}
	return faults.Err()
}

// Start implements engine.Executor: the pod is made in the background.
func (r *Run) Start(_ context.Context, e *engine.Attempt) error {
	x := &r.executor
	x.at.Lock()
	a := x.attempts[e.ID]
	switch {
	case a != nil && a.spec != nil:
		x.at.Unlock()
		return nil
	case a == nil:
		a = r.newAttempt(e.ID)
		a.last.Phase = engine.PhasePending
	}
	a.spec = e
	a.limit = r.pods.pendingLimit(e)
	x.at.Unlock()
	if e.Resource != nil {
		r.startResource(e)
		return nil
	}
	if a.pod == "" {
		x.create.put(e.ID)
	}
	return nil
}

// newAttempt adds an attempt. It is called with at held.
func (r *Run) newAttempt(id string) *attempt {
	a := &attempt{id: id, last: engine.Observation{ID: id}, since: map[waitKind]time.Time{}, made: time.Now(), limit: r.limits.Pending}
	r.attempts[id] = a
	return a
}

// tell reports an observation, unless a later one has been.
func (r *Run) tell(a *attempt, o engine.Observation) {
	o.ID = a.id
	r.at.Lock()
	if o.Phase > 0 {
		if o.Phase < a.last.Phase || a.last.Phase == engine.PhaseFinished {
			r.at.Unlock()
			return
		}
		if same(o, a.last) {
			r.at.Unlock()
			return
		}
		a.last = o
	}
	report := r.report
	r.at.Unlock()
	if report != nil {
		report(o)
	}
}

func same(a, b engine.Observation) bool {
	return a.Phase == b.Phase && a.Phase != engine.PhaseFinished && a.Reason == b.Reason && a.Message == b.Message && a.Started.Equal(b.Started)
}

// makePod makes the pod of an attempt, unless it has to wait.
func (r *Run) makePod(ctx context.Context, id string) {
	r.at.Lock()
	a := r.attempts[id]
	if a == nil || a.spec == nil || a.pod != "" || a.job || a.making || a.concluded {
		r.at.Unlock()
		return
	}
	if a.ending != nil && a.stuck { // it may have been made after all
		a.making = true
		r.at.Unlock()
		r.working.Go(func() { r.lookFor(ctx, a) })
		return
	}
	if a.ending != nil {
		a.concluded = true
		e := *a.ending
		r.at.Unlock()
		r.tell(a, engine.Observation{Phase: engine.PhaseFinished, Finished: time.Now(), Cause: e.Cause, Reason: e.Reason})
		return
	}
	if time.Now().Before(a.notBefore) {
		r.delayed[id] = true
		r.at.Unlock()
		return
	}
	if why := r.waitsFor(a); why != "" {
		r.at.Unlock()
		r.delay(a, why, "")
		return
	}
	a.making = true
	r.at.Unlock()

	pod, err := r.newPod(ctx, a)
	r.at.Lock()
	a.making, a.stuck = false, a.stuck || errors.Is(err, errStuck)
	if err == nil {
		if a.pod == "" && pod != nil {
			a.pod, a.uid, a.held = pod.Name, pod.UID, true
		}
		a.job = a.job || a.spec.Primitive == "job"
	}
	ending, waited := a.ending, time.Since(a.made)
	r.at.Unlock()
	switch {
	case err == nil && ending != nil:
		r.working.Go(func() { r.end(r.ctx, a) })
	case err == nil, ctx.Err() != nil, r.lostLease() != nil:
	case ending != nil:
		r.create.put(id)
	case exceededQuota(err):
		freed := countsFinished(err.Error()) && r.freeFinished(ctx)
		r.delay(a, "waits for the quota of the namespace", apiMessage(err))
		if freed {
			r.create.put(id)
		}
	case errors.Is(err, errNotYet) && waited < r.limits.PullBackoff:
		r.rest(a)
		r.delay(a, "its image cannot be looked up now, and is again", err.Error())
	case errors.Is(err, errStuck):
		r.rest(a)
		r.delay(a, "cannot be made now, and is tried again", err.Error())
	case namespaceTerminating(err):
		if r.stillThere(ctx) == nil {
			r.delay(a, "waits, as the namespace is being deleted", "")
		}
	default:
		r.at.Lock()
		a.concluded = true
		r.at.Unlock()
		r.tell(a, engine.Observation{Phase: engine.PhaseFinished, Finished: time.Now(), Cause: engine.CannotRun, Reason: "cannot run: " + apiMessage(err)})
	}
}

// lookFor looks for the pod of an attempt that is to end, or its Job: nobody
// knows whether it has been made.
func (r *Run) lookFor(ctx context.Context, a *attempt) {
	job := a.spec.Primitive == "job"
	var pod *corev1.Pod
	err := r.cluster.do(ctx, func(ctx context.Context) (err error) {
		if job {
			_, err = r.cluster.jobs.Get(ctx, a.id, metav1.GetOptions{})
		} else {
			pod, err = r.cluster.pods.Get(ctx, a.id, metav1.GetOptions{})
		}
		return err
	})
	r.at.Lock()
	a.making, a.stuck = false, err != nil && !apierrors.IsNotFound(err)
	a.job = a.job || job && err == nil
	r.at.Unlock()
	switch {
	case apierrors.IsNotFound(err):
		r.create.put(a.id)
	case err != nil:
		r.delay(a, "is to end, and it cannot be seen whether it was made", apiMessage(err))
	case job:
		r.end(r.ctx, a)
	default:
		r.see(pod) // which ends it
		r.at.Lock()
		other := a.pod == "" // it is not the attempt's
		r.at.Unlock()
		if other {
			r.create.put(a.id)
		}
	}
}

// delay has the pod of an attempt made later: when another pod has ended, or
// soon.
func (r *Run) delay(a *attempt, why, message string) {
	r.at.Lock()
	r.delayed[a.id] = true
	r.at.Unlock()
	r.tell(a, engine.Observation{Phase: engine.PhasePending, Reason: why, Message: message})
}

// rest lets an attempt whose pod cannot be made now wait longer each time: it is
// not to take a place that others could have. While the API server is away there
// are no others.
func (r *Run) rest(a *attempt) {
	if away, _ := r.cluster.health.away(); !away.IsZero() {
		return
	}
	r.at.Lock()
	defer r.at.Unlock()
	a.notBefore = time.Now().Add(min(time.Second<<min(a.rests, 10), 30*time.Second))
	a.rests++
}

// newPod makes the pod of an attempt. It returns nil for that of a Job.
func (r *Run) newPod(ctx context.Context, a *attempt) (*corev1.Pod, error) {
	entry, err := r.entrypoint(ctx, a.spec)
	if err != nil {
		return nil, err
	}
	tree, err := r.pods.pod(a.spec, entry)
	if err != nil {
		return nil, err
	}
	return r.send(ctx, a.spec, tree)
}

// apiMessage returns what the API server said.
func apiMessage(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Message != "" {
		return status.Status().Message
	}
	return err.Error()
}

// waitsFor returns what keeps an attempt's pod from being made, or "". It is
// called with at held.
func (r *Run) waitsFor(a *attempt) string {
	if n := a.spec.Number; n > 1 {
		if before := r.attempts[engine.AttemptID(r.info.ID, a.spec.Step, n-1)]; before != nil && before.pod != "" && !before.gone && !before.seen.settled {
			return fmt.Sprintf("waits for the pod of attempt %d to end", n-1)
		}
	}
	if !extended(a.spec) {
		return ""
	}
	if lent := slices.Sorted(maps.Keys(r.lent)); len(lent) > 0 {
		return fmt.Sprintf("waits for pod %s to give its devices back", r.attempts[lent[0]].pod)
	}
	return ""
}

// send makes the object of an attempt, or takes over the one that is there, if
// it is of this very attempt. It returns the pod, or nil for a Job.
func (r *Run) send(ctx context.Context, a *engine.Attempt, tree dag.Object) (*corev1.Pod, error) {
	limit := r.pods.pendingLimit(a).String()
	if a.Primitive == "job" {
		job := &batchv1.Job{}
		if err := typed(tree, job); err != nil {
			return nil, err
		}
		job.Spec.Template.Annotations[pendingAnnotation] = limit
		err := r.mutateOnce(ctx, func(ctx context.Context) error {
			_, err := r.cluster.jobs.Create(ctx, job, metav1.CreateOptions{})
			return err
		})
		if !apierrors.IsAlreadyExists(err) {
			return nil, err
		}
		var old *batchv1.Job
		if err := r.cluster.do(ctx, func(ctx context.Context) (err error) {
			old, err = r.cluster.jobs.Get(ctx, job.Name, metav1.GetOptions{})
			return err
		}); err != nil {
			return nil, err
		}
		return nil, r.verify(&old.ObjectMeta, &job.ObjectMeta, "job")
	}
	pod := &corev1.Pod{}
	if err := typed(tree, pod); err != nil {
		return nil, err
	}
	pod.Annotations[pendingAnnotation] = limit
	var made *corev1.Pod
	err := r.mutateOnce(ctx, func(ctx context.Context) (err error) {
		made, err = r.cluster.pods.Create(ctx, pod, metav1.CreateOptions{})
		return err
	})
	if !apierrors.IsAlreadyExists(err) {
		return made, err
	}
	if err := r.cluster.do(ctx, func(ctx context.Context) (err error) {
		made, err = r.cluster.pods.Get(ctx, pod.Name, metav1.GetOptions{})
		return err
	}); err != nil {
		return nil, err
	}
	if err := r.verify(&made.ObjectMeta, &pod.ObjectMeta, "pod"); err != nil {
		return nil, err
	}
	r.see(made)
	return made, nil
}

// mutateOnce does as mutate, but returns an errStuck if the API server fails in
// a way that may be the fault of a webhook, which is asked about some pods and
// not about others: these are not to wait for those.
func (r *Run) mutateOnce(ctx context.Context, f func(ctx context.Context) error) error {
	var stuck error
	err := r.mutate(ctx, func(ctx context.Context) error {
		err := f(ctx)
		if err != nil && (apierrors.IsInternalError(err) || errors.Is(ctx.Err(), context.DeadlineExceeded)) {
			stuck = fmt.Errorf("%w: %s", errStuck, apiMessage(err))
			return nil
		}
		return err
	})
	return cmp.Or(err, stuck)
}

// errStuck is wrapped by an error after which nobody knows whether the API
// server has done what it was asked.
var errStuck = errors.New("the API server cannot say now")

// mutate does what changes something in the cluster, if this driver holds the
// run.
func (r *Run) mutate(ctx context.Context, f func(ctx context.Context) error) error {
	return r.cluster.do(ctx, func(ctx context.Context) error {
		if err := r.holds(ctx); err != nil {
			return err
		}
		return f(ctx)
	})
}

// verify returns an error if an object of an attempt's name is not the one that
// would have been made: never is another's work taken for the attempt's.
func (r *Run) verify(old, want *metav1.ObjectMeta, kind string) error {
	for _, name := range []string{runIDAnnotation, stepAnnotation, specAnnotation} {
		if old.Annotations[name] != want.Annotations[name] {
			return fmt.Errorf("%s %s is there already and is not this attempt's: its annotation %s is %q, not %q", kind, old.Name, name, old.Annotations[name], want.Annotations[name])
		}
	}
	return nil
}

// Stop implements engine.Executor: the pod is deleted, with SIGTERM and time to
// end in good order, or at once.
func (r *Run) Stop(_ context.Context, id string, why engine.Cause, force bool) error {
	r.at.Lock()
	a := r.attempts[id]
	r.at.Unlock()
	if a == nil {
		return nil
	}
	if r.stopResource(id) {
		return nil
	}
	e := ending{Cause: why, Reason: "stopped"}
	if why == engine.TimedOut {
		e.Reason = "" // the engine knows after how long
	}
	r.finish(a, e, force)
	return nil
}

// finish ends an attempt, for the reason that it had first.
func (r *Run) finish(a *attempt, why ending, force bool) {
	r.at.Lock()
	if a.concluded || a.seen.ended {
		r.at.Unlock()
		return
	}
	none := a.pod == "" && !a.job
	if a.ending == nil {
		why.At = time.Now()
		if none && why.asked() {
			why.Reason += " before it began"
		}
		a.ending = &why
	}
	a.force = a.force || force
	making := a.making
	r.at.Unlock()
	switch {
	case making: // which looks whether it is to end
		return
	case none:
		r.create.put(a.id) // which ends what was not begun
		return
	}
	if force {
		r.working.Go(func() { r.kill(r.ctx, a) })
		return
	}
	r.working.Go(func() { r.end(r.ctx, a) })
}

func (r *Run) kill(ctx context.Context, a *attempt) {
	zero := int64(0)
	r.remove(ctx, a, &zero)
}

func (r *Run) end(ctx context.Context, a *attempt) {
	var grace *int64
	if set := r.object.Options.Limits.Grace; set > 0 {
		seconds := int64(max(set/time.Second, 1))
		grace = &seconds
	}
	r.at.Lock()
	begun := (a.ending == nil || a.ending.asked()) && !a.force
	r.at.Unlock()
	if !begun {
		zero := int64(0)
		grace = &zero
	}
	r.remove(ctx, a, grace)
}

// remove writes down why a pod is ended, and deletes it. What stands in the
// cluster first is the reason, so that whoever finds the pod knows it. A pod
// that has ended by itself is left as it is.
func (r *Run) remove(ctx context.Context, a *attempt, grace *int64) {
	r.at.Lock()
	pod, uid, job, why := a.pod, a.uid, a.job, a.ending
	a.removing++
	r.at.Unlock()
	defer func() {
		r.at.Lock()
		defer r.at.Unlock()
		a.removing--
		a.removed = time.Now()
	}()
	if pod != "" && why != nil {
		ended, err := r.writeEnding(ctx, a, pod, why)
		switch {
		case ended:
			return
		case errors.Is(err, errStuck): // a pod that is not to run is ended all the same
			r.at.Lock()
			a.mute = true
			r.at.Unlock()
		case err != nil && !apierrors.IsNotFound(err):
			r.notice("cannot end pod %s: %v", pod, err)
			return
		}
	}
	opts := metav1.DeleteOptions{GracePeriodSeconds: grace}
	if uid != "" {
		opts.Preconditions = &metav1.Preconditions{UID: &uid}
	}
	err := r.mutate(ctx, func(ctx context.Context) error {
		if job {
			background := metav1.DeletePropagationBackground
			err := r.cluster.jobs.Delete(ctx, a.id, metav1.DeleteOptions{PropagationPolicy: &background})
			if pod == "" || err != nil && !apierrors.IsNotFound(err) {
				return err
			}
		}
		return r.cluster.pods.Delete(ctx, pod, opts)
	})
	if err != nil && !apierrors.IsNotFound(err) {
		if ctx.Err() == nil && r.lostLease() == nil {
			r.notice("cannot delete pod %s: %v", firstText(pod, a.id), err)
		}
		return
	}
	if job && pod == "" {
		r.conclusion(a, engine.Observation{Finished: time.Now(), Cause: why.Cause, Reason: why.Reason})
	}
}

// writeEnding writes into a pod why it is ended, or tells that it has ended by
// itself, of which the driver may not have heard: it had no connection. What is
// written down is so only of pods that run, as far as the API server knows.
func (r *Run) writeEnding(ctx context.Context, a *attempt, pod string, why *ending) (ended bool, err error) {
	text, _ := json.Marshal(why)
	for n := 0; ; {
		r.at.Lock()
		version, ended := a.version, a.seen.ended
		r.at.Unlock()
		if ended {
			return true, nil
		}
		if version > 0 { // 0 would be any
			patch, _ := json.Marshal(map[string]any{"metadata": map[string]any{
				"resourceVersion": strconv.FormatUint(version, 10), "annotations": map[string]string{endAnnotation: string(text)}}})
			err := r.mutateOnce(ctx, func(ctx context.Context) error {
				_, err := r.cluster.pods.Patch(ctx, pod, types.StrategicMergePatchType, patch, metav1.PatchOptions{})
				return err
			})
			away, _ := r.cluster.health.away()
			switch {
			case errors.Is(err, errStuck) && (n < 3 || !away.IsZero()):
				if err := sleep(ctx, backoff(n, nil)); err != nil {
					return false, err
				}
				n++
			case !apierrors.IsConflict(err):
				return false, err
			}
		}
		var now *corev1.Pod
		if err := r.cluster.do(ctx, func(ctx context.Context) (err error) {
			now, err = r.cluster.pods.Get(ctx, pod, metav1.GetOptions{})
			return err
		}); err != nil {
			return false, err
		}
		r.see(now)
	}
}

// noteCommitted notes an attempt whose outcome was committed before.
func (r *Run) noteCommitted(id string) {
	r.at.Lock()
	r.done[id] = true
	r.at.Unlock()
}

// committed lets the pod of an attempt go, as its outcome is committed.
func (r *Run) committed(id string) {
	r.at.Lock()
	r.done[id] = true
	a := r.attempts[id]
	r.at.Unlock()
	if a != nil {
		r.release.put(id)
	}
}

// letPodGo takes the finalizer off a pod.
func (r *Run) letPodGo(ctx context.Context, id string) {
	r.at.Lock()
	a := r.attempts[id]
	if a == nil || a.pod == "" || a.gone || !a.held || a.released || time.Since(a.kept) < stopAgain {
		r.at.Unlock()
		return
	}
	pod := a.pod
	r.at.Unlock()
	bounded, cancel := context.WithTimeout(ctx, 2*r.cluster.RequestTimeout)
	defer cancel()
	if err := takeFinalizer(bounded, r.cluster, pod); err != nil {
		r.at.Lock()
		first := a.kept.IsZero()
		a.kept = time.Now() // tend tries again
		r.at.Unlock()
		if first && bounded.Err() == nil {
			r.notice("cannot let pod %s go: %v", pod, err)
		}
		return
	}
	r.at.Lock()
	a.released, a.freed = true, time.Now()
	r.at.Unlock()
}

// takeFinalizer takes kfs's finalizer off a pod. Those of others stay.
func takeFinalizer(ctx context.Context, c *Cluster, pod string) error {
	patch := []byte(`{"metadata":{"$deleteFromPrimitiveList/finalizers":["` + outcomeFinalizer + `"]}}`)
	err := c.do(ctx, func(ctx context.Context) error {
		return c.core.Patch(types.StrategicMergePatchType).Namespace(c.Namespace).Resource("pods").Name(pod).Body(patch).Do(ctx).Error()
	})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return err
}

// discard ends a pod that no attempt counts, and lets it go.
func (r *Run) discard(ctx context.Context, pod string, uid types.UID) {
	err := r.mutate(ctx, func(ctx context.Context) error {
		return r.cluster.pods.Delete(ctx, pod, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid}})
	})
	if err == nil {
		err = takeFinalizer(ctx, r.cluster, pod)
	}
	if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil && r.lostLease() == nil {
		r.notice("cannot delete pod %s: %v", pod, err)
	}
}

// deleteFinished deletes the pod of an attempt that was let go, and its Job.
func (r *Run) deleteFinished(ctx context.Context, a *attempt) {
	err := r.mutate(ctx, func(ctx context.Context) error {
		if !a.job {
			return r.cluster.pods.Delete(ctx, a.pod, metav1.DeleteOptions{})
		}
		background := metav1.DeletePropagationBackground
		return r.cluster.jobs.Delete(ctx, a.id, metav1.DeleteOptions{PropagationPolicy: &background})
	})
	if err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil && r.lostLease() == nil {
		r.notice("cannot delete pod %s: %v", a.pod, err)
	}
}

// countsFinished reports whether words of the API server are about a quota that
// finished pods fill: of those for pods, only the one that counts objects is.
func countsFinished(text string) bool {
	return strings.Contains(text, "exceeded quota") && strings.Contains(text, "count/pods")
}

// freeFinished deletes finished pods of the run whose outcome is committed, as
// they fill a quota, and reports whether there were any.
func (r *Run) freeFinished(ctx context.Context) bool {
	r.at.Lock()
	var finished []*attempt
	for _, a := range r.attempts {
		if a.released && !a.gone && a.seen.settled && !a.seen.deleting {
			finished = append(finished, a)
		}
	}
	r.at.Unlock()
	for _, a := range finished {
		r.deleteFinished(ctx, a)
	}
	return len(finished) > 0
}

// Tail returns the last lines, at most n, of what the container runtime kept
// of the log of the step's latest attempt.
func (r *Run) Tail(step string, n int) []string {
	ctx, cancel := r.cluster.request(context.Background())
	defer cancel()
	r.at.Lock()
	var latest *attempt
	for _, a := range r.attempts {
		if a.spec != nil && a.spec.Step == step && (latest == nil || a.spec.Number > latest.spec.Number) {
			latest = a
		}
	}
	r.at.Unlock()
	if latest == nil || latest.pod == "" {
		return nil
	}
	return r.tailOf(ctx, latest.pod, n)
}

// sortedKeys returns the keys of a map, sorted.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
