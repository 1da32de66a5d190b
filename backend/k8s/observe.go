package k8s

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/kfs-project/kfs/engine"
)

// This file observes the pods of a run.

// Observe implements engine.Executor. The first call lists all pods of the run,
// as they are now and not as a cache has them, and watches them from then on.
func (r *Run) Observe(ctx context.Context, _ engine.RunInfo, report func(engine.Observation)) error {
	guarded := func(o engine.Observation) {
		if ctx.Err() == nil {
			report(o)
		}
	}
	r.observing.Do(func() {
		r.failed = r.observeResources(ctx)
		r.startObserving()
	})
	if r.failed != nil {
		return r.failed
	}
	select {
	case <-r.observed:
	case <-r.lostRun:
		return r.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
	r.at.Lock()
	r.report = guarded
	var known []engine.Observation
	for _, a := range r.attempts {
		if a.last.Phase > 0 {
			known = append(known, a.last)
		}
	}
	r.at.Unlock()
	for _, o := range known {
		report(o)
	}
	return nil
}

// startObserving starts what goes on beside calls, until Close.
func (r *Run) startObserving() {
	n := r.Logs
	if n == 0 {
		n = 100
	}
	r.follow = make(chan struct{}, max(n, 0))
	r.reflect(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			opts.LabelSelector = selector(r.info.Name, "").LabelSelector
			opts.ResourceVersion, opts.ResourceVersionMatch = "", "" // as it is now, not as a cache has it
			list, err := r.cluster.pods.List(ctx, opts)
			r.mayObserve("list pods", err)
			return list, err
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.LabelSelector = selector(r.info.Name, "").LabelSelector
			w, err := r.cluster.pods.Watch(ctx, opts)
			r.mayObserve("watch pods", err)
			return w, err
		},
	}, &corev1.Pod{}, (*podStore)(r), "pods")
	killings := fields.Set{"reason": "Killing", "involvedObject.kind": "Pod", "involvedObject.fieldPath": mainPath}.String()
	r.kills.pods = map[types.UID]bool{}
	r.kills.list = func(ctx context.Context) (*corev1.EventList, error) {
		ctx, cancel := context.WithTimeout(ctx, listFor) // of all events of the namespace, which may be many
		defer cancel()
		return r.cluster.events.List(ctx, metav1.ListOptions{FieldSelector: killings})
	}
	r.reflect(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, opts metav1.ListOptions) (runtime.Object, error) {
			opts.FieldSelector = killings
			return r.cluster.events.List(ctx, opts)
		},
		WatchFuncWithContext: func(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error) {
			opts.FieldSelector = killings
			w, err := r.cluster.events.Watch(ctx, opts)
			if err != nil {
				return nil, err
			}
			return r.kills.watches(w, opts.SendInitialEvents != nil && *opts.SendInitialEvents), nil
		},
	}, &corev1.Event{}, &r.kills, "killings")
	r.working.Go(func() { r.watchRun(r.ctx) })
	r.working.Go(func() { r.tend(r.ctx) })
	r.work(r.ctx, &r.create, creators, r.makePod)
	r.work(r.ctx, &r.release, releasers, r.letPodGo)
}

// mayObserve gives the run up if its pods may not be seen: at once if they never
// were, and else when it has lasted.
func (r *Run) mayObserve(doing string, err error) {
	if !apierrors.IsForbidden(err) {
		r.at.Lock()
		r.blind = time.Time{}
		r.at.Unlock()
		return
	}
	before := false
	select {
	case <-r.observed:
		before = true
	default:
	}
	r.at.Lock()
	if r.blind.IsZero() {
		r.blind = time.Now()
	}
	lasted := time.Since(r.blind)
	r.at.Unlock()
	if !before && !r.cluster.early(err) || lasted > r.cluster.denial {
		r.lose(access(doing, err))
	}
}

// reflect keeps a store up to date, until Close.
func (r *Run) reflect(what cache.ListerWatcher, kind runtime.Object, store cache.ReflectorStore, name string) {
	reflector := cache.NewReflectorWithOptions(what, kind, store, cache.ReflectorOptions{
		Name:    name + " of run " + r.info.Name,
		Backoff: &wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 10, Cap: 3 * time.Second},
	})
	r.working.Go(func() { reflector.RunWithContext(r.ctx) })
}

// A podStore takes in what the reflector sees. It keeps no pods, but what is
// to be known of them.
type podStore Run

func (s *podStore) Add(o any) error    { (*Run)(s).see(o.(*corev1.Pod)); return nil }
func (s *podStore) Update(o any) error { (*Run)(s).see(o.(*corev1.Pod)); return nil }
func (s *podStore) Resync() error      { return nil }

func (s *podStore) Delete(o any) error {
	if pod, ok := o.(*corev1.Pod); ok {
		(*Run)(s).see(pod)
		(*Run)(s).left(attemptID(pod), pod.UID)
	}
	return nil
}

func (s *podStore) Replace(list []any, _ string) error {
	r := (*Run)(s)
	there := make(map[string]bool, len(list))
	for _, o := range list {
		pod := o.(*corev1.Pod)
		there[string(pod.UID)] = true
		r.see(pod)
	}
	type missed struct {
		pod string
		a   *attempt
	}
	var missing []missed
	r.at.Lock()
	for _, a := range r.attempts {
		if a.pod != "" && !a.gone && !there[string(a.uid)] {
			missing = append(missing, missed{a.pod, a})
		}
	}
	r.at.Unlock()
	for _, m := range missing {
		// A pod that was made while the list was on its way is not in it.
		r.working.Go(func() {
			err := r.cluster.do(r.ctx, func(ctx context.Context) error {
				pod, err := r.cluster.pods.Get(ctx, m.pod, metav1.GetOptions{})
				if err == nil {
					r.see(pod)
				}
				return err
			})
			if apierrors.IsNotFound(err) {
				r.left(m.a.id, m.a.uid)
			}
		})
	}
	select {
	case <-r.observed:
	default:
		close(r.observed)
	}
	return nil
}

// see takes in how a pod is.
func (r *Run) see(pod *corev1.Pod) {
	id := attemptID(pod)
	if id == "" || pod.Annotations[runIDAnnotation] != r.info.ID || pod.Name != id && !ofJob(pod, id) {
		return // of an earlier run of this name, perhaps, or somebody's copy of one
	}
	pod = r.marked(pod, id)
	s := look(pod, r.cluster.health.local, time.Now())
	version, _ := strconv.ParseUint(pod.ResourceVersion, 10, 64)
	r.at.Lock()
	a := r.attempts[id]
	if a == nil {
		a = r.newAttempt(id)
	}
	if a.pod != "" && a.uid != pod.UID { // a Job has made two
		told := a.second == pod.UID
		a.second = pod.UID
		r.at.Unlock()
		if !told {
			r.notice("pod %s is a second one of attempt %s: it is ended, and its outcome does not count", pod.Name, id)
			r.working.Go(func() { r.discard(r.ctx, pod.Name, pod.UID) })
		}
		return
	}
	if version < a.version {
		r.at.Unlock()
		return
	}
	first := a.pod == ""
	if first {
		a.pod, a.uid = pod.Name, pod.UID
	}
	a.version = version
	a.held = slices.Contains(pod.Finalizers, outcomeFinalizer)
	a.job = a.job || pod.Name != id
	a.made = r.cluster.health.local(pod.CreationTimestamp.Time)
	if limit, err := time.ParseDuration(pod.Annotations[pendingAnnotation]); err == nil {
		a.limit = limit
	}
	if s.stranger && !s.ended {
		a.cut = true
	}
	before := a.seen
	if s.Phase == engine.PhaseRunning && before.Phase == engine.PhaseRunning && !before.Started.IsZero() {
		s.Started = before.Started // it does not begin later because it is looked at again
	}
	a.seen = s
	if s.extended && s.ended && !s.settled {
		r.lent[id] = true
	} else {
		delete(r.lent, id)
	}
	if e := endingOf(pod); e != nil && a.ending == nil && !s.ended {
		a.ending = e // by a driver before this one, which may not have come to delete the pod
	}
	committed, concluded, giving, held := r.done[id], a.concluded, a.ending != nil, a.held
	var o engine.Observation
	start, late := false, false
	switch {
	case committed || concluded:
		if late = first && !s.ended && !s.deleting; late { // it was given up before it was seen: an answer that came late
			a.ending = &ending{Cause: engine.Stopped, Reason: "its attempt was over before the pod was made"}
		}
	case s.ended && (s.decided || !a.overdue.IsZero() && time.Now().After(a.overdue)):
		a.concluded, start = true, true
	case s.ended:
		if a.overdue.IsZero() && !s.restarts {
			a.overdue = time.Now().Add(undecided)
		}
	default:
		a.overdue = time.Time{} // what had ended was started again
		o = s.Observation
		if o.Phase == engine.PhasePending && o.Reason == "" {
			o.Reason = a.why
		}
	}
	r.at.Unlock()
	switch {
	case late:
		r.working.Go(func() { r.kill(r.ctx, a); r.release.put(id) })
	case committed && held:
		r.release.put(id)
	case start:
		r.working.Go(func() { r.concludePod(r.ctx, a, s) })
	case o.Phase > 0:
		if giving && first && !s.deleting {
			r.working.Go(func() { r.end(r.ctx, a) })
		}
		r.tell(a, o)
		if o.Phase == engine.PhaseRunning {
			r.followLog(a)
		}
	}
	if s.settled && !before.settled {
		r.settledPod()
	}
}

// marked returns the pod with the reason why kfs ends it, if that could not be
// written into it.
func (r *Run) marked(pod *corev1.Pod, id string) *corev1.Pod {
	r.at.Lock()
	defer r.at.Unlock()
	a := r.attempts[id]
	if a == nil || !a.mute || a.uid != pod.UID || endingOf(pod) != nil {
		return pod
	}
	text, _ := json.Marshal(a.ending)
	pod = pod.DeepCopy()
	metav1.SetMetaDataAnnotation(&pod.ObjectMeta, endAnnotation, string(text))
	return pod
}

// ofJob reports whether a pod was made by the Job of an attempt.
func ofJob(pod *corev1.Pod, id string) bool {
	owner := metav1.GetControllerOf(pod)
	return owner != nil && owner.Kind == "Job" && owner.Name == id
}

// left takes in that the pod of an attempt is not there any more.
func (r *Run) left(id string, uid types.UID) {
	r.at.Lock()
	a := r.attempts[id]
	if a == nil || a.pod == "" || a.uid != uid || a.gone {
		r.at.Unlock()
		return
	}
	a.gone = true
	delete(r.lent, id)
	s, concluded, why := a.seen, a.concluded || r.done[a.id], a.ending
	a.concluded = true
	r.at.Unlock()
	r.settledPod()
	switch {
	case concluded:
	case s.ended:
		r.working.Go(func() { r.concludePod(r.ctx, a, s) })
	default:
		o := engine.Observation{Phase: engine.PhaseFinished, Finished: time.Now(), Started: s.Started, Cause: engine.Vanished,
			Reason: "its pod was removed by somebody, finalizer and all"}
		if why != nil {
			o.Cause, o.Reason = why.Cause, why.Reason
		}
		r.tell(a, o)
	}
}

// settledPod looks at what was delayed. It is called for each pod that ends, so
// it must not look at all attempts.
func (r *Run) settledPod() {
	r.at.Lock()
	delayed := slices.Sorted(maps.Keys(r.delayed))
	clear(r.delayed)
	r.at.Unlock()
	for _, id := range delayed {
		r.create.put(id)
	}
}

// concludePod says how the attempt of a pod has ended, which may need its log
// and its events.
func (r *Run) concludePod(ctx context.Context, a *attempt, s sight) {
	r.conclude <- struct{}{}
	defer func() { <-r.conclude }()
	r.flushLog(ctx, a)
	o := s.Observation
	o.Phase = engine.PhaseFinished
	switch {
	case s.unlocated:
		r.locate(ctx, a, &o)
	case o.Cause == engine.Exited && s.ran: // and not an init container
		r.judge(ctx, a, s, &o)
	}
	r.conclusion(a, o)
}

// locate decides whether a container has run of which the node knows nothing:
// if so, its node has told by an event. Without any event nothing is known.
func (r *Run) locate(ctx context.Context, a *attempt, o *engine.Observation) {
	began, known := false, false
	for _, e := range r.eventsOf(ctx, a) {
		known = true
		began = began || e.Reason == "Started" && e.InvolvedObject.FieldPath == mainPath
	}
	switch {
	case began:
		o.Cause, o.Reason = engine.Vanished, "its node has lost the record of how it ended"
	case !known:
		o.Cause, o.Reason = engine.Vanished, o.Reason+", as it seems: nobody knows"
	}
}

// conclusion reports how an attempt has ended.
func (r *Run) conclusion(a *attempt, o engine.Observation) {
	if r.ctx.Err() != nil {
		return
	}
	o.Phase = engine.PhaseFinished
	if o.Log == "" && a.pod != "" {
		o.Log = "kubectl logs -n " + r.cluster.Namespace + " " + a.pod
	}
	r.at.Lock()
	a.concluded = true
	r.at.Unlock()
	r.tell(a, o)
}

// judge decides whether the exit of a container whose pod was deleted is its
// own, by whomever, and takes in what the launcher says.
func (r *Run) judge(ctx context.Context, a *attempt, s sight, o *engine.Observation) {
	r.at.Lock()
	killed := a.cut
	r.at.Unlock()
	unknown, told, signalled := false, false, false
	if s.launched {
		told, signalled = r.launcherResult(ctx, a, s, o)
	}
	switch {
	case !s.stranger && s.early == nil:
		killed = false
	case told: // which knows better than who has seen the pod being deleted a moment before
		killed = signalled
	case !killed:
		killed, unknown = r.askEvents(ctx, a)
	}
	if s.early != nil && (killed || unknown) {
		s.endBy(s.early)
		*o = s.Observation
		return
	}
	if o.Cause != engine.Exited && o.Cause != engine.BadOutput {
		return
	}
	if !s.deleting && s.ExitCode == 0 && (told && signalled || !s.launched && s.swept) && r.kills.has(ctx, a.uid, s.at) {
		// A node that has evicted a pod which takes that well writes Succeeded,
		// and no word of it.
		o.Cause, o.Reason = engine.Lost, "its node has ended it"
		for _, e := range r.eventsOf(ctx, a) {
			if e.Reason == "Evicted" {
				o.Reason = "evicted: " + shortText(strings.TrimSuffix(strings.TrimSpace(e.Message), "."), 300)
			}
		}
		o.Reason += ", while it ran; " + exitReason(s.ExitCode)
		o.Outputs, o.Files = nil, nil
		return
	}
	if !killed && !unknown {
		return
	}
	*o = engine.Observation{Phase: o.Phase, Started: o.Started, Finished: o.Finished, Message: o.Message}
	why := firstText(s.disruption, "its pod was deleted by somebody")
	o.Cause, o.Reason = engine.Lost, why+" while it ran; "+exitReason(s.ExitCode)
	if unknown {
		o.Cause, o.Reason = engine.Vanished, why+", and nobody knows whether it had ended before; "+exitReason(s.ExitCode)
	}
}

// A killList holds the pods whose command their nodes have killed, as far as
// events tell. It is the store of a reflector, and lists them itself while that
// has not watched them for long enough to be up to date.
type killList struct {
	list func(context.Context) (*corev1.EventList, error)

	mu    sync.Mutex
	pods  map[types.UID]bool
	watch watch.Interface // nil if none goes on
	since time.Time       // from when on it tells all; zero if it does not

	listing sync.Mutex // held while they are listed
	listed  time.Time  // when the last list was asked for that has come
}

// listFor is how long a list of events may take.
const listFor = 30 * time.Second

// caughtUp is how long after its beginning a watch may still be telling of what
// was before.
const caughtUp = 2 * time.Second

// has reports whether the command of a pod, which was seen to have ended at a
// time, was killed by its node.
func (k *killList) has(ctx context.Context, pod types.UID, seen time.Time) bool {
	k.mu.Lock()
	killed, watched := k.pods[pod], !k.since.IsZero() && time.Since(k.since) > caughtUp
	k.mu.Unlock()
	if killed || watched {
		return killed
	}
	k.listing.Lock() // one list serves all that have ended before it
	defer k.listing.Unlock()
	if !k.listed.After(seen) {
		asked := time.Now()
		if list, err := k.list(ctx); err == nil { // else nobody tells
			for i := range list.Items {
				k.Add(&list.Items[i])
			}
		}
		k.listed = asked
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.pods[pod]
}

// watches passes a watch on, and notes how long it lasts. If it first tells of
// what is there already, it counts from Replace on, which is called then.
func (k *killList) watches(w watch.Interface, initial bool) watch.Interface {
	events := make(chan watch.Event)
	p := watch.NewProxyWatcher(events)
	k.mu.Lock()
	k.watch, k.since = p, time.Time{}
	if !initial {
		k.since = time.Now()
	}
	k.mu.Unlock()
	go func() {
		defer close(events)
		defer w.Stop()
		defer func() {
			k.mu.Lock()
			defer k.mu.Unlock()
			if k.watch == p {
				k.watch, k.since = nil, time.Time{}
			}
		}()
		for {
			select {
			case ev, ok := <-w.ResultChan():
				if !ok {
					return
				}
				select {
				case events <- ev:
				case <-p.StopChan():
					return
				}
			case <-p.StopChan():
				return
			}
		}
	}()
	return p
}

func (k *killList) Add(o any) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.pods[o.(*corev1.Event).InvolvedObject.UID] = true
	return nil
}

func (k *killList) Update(o any) error { return k.Add(o) }
func (k *killList) Delete(any) error   { return nil } // events are forgotten after a while
func (k *killList) Resync() error      { return nil }

func (k *killList) Replace(list []any, _ string) error {
	for _, o := range list {
		k.Add(o)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.watch != nil && k.since.IsZero() {
		k.since = time.Now()
	}
	return nil
}

// mainPath is what the events of the step's own container are about.
const mainPath = "spec.containers{" + mainContainer + "}"

// askEvents asks whether the container of a deleted pod was killed, which the
// node says by an event, perhaps a moment later. Without any event nothing is
// known.
func (r *Run) askEvents(ctx context.Context, a *attempt) (killed, unknown bool) {
	for n := range 2 {
		if n > 0 && sleep(ctx, time.Second) != nil {
			break
		}
		unknown = true
		for _, e := range r.eventsOf(ctx, a) {
			switch {
			case e.InvolvedObject.FieldPath != mainPath:
			case e.Reason == "Killing" && strings.HasPrefix(e.Message, "Stopping container"):
				return true, false
			case e.Reason == "Started":
				unknown = false
			}
		}
	}
	return false, unknown
}

// eventsOf returns the events of an attempt's pod, or of its Job if that has
// made none yet; none if they cannot be had.
func (r *Run) eventsOf(ctx context.Context, a *attempt) []corev1.Event {
	r.at.Lock()
	about := fields.Set{"involvedObject.kind": "Pod", "involvedObject.name": a.pod, "involvedObject.uid": string(a.uid)}
	if a.pod == "" {
		about = fields.Set{"involvedObject.kind": "Job", "involvedObject.name": a.id}
	}
	r.at.Unlock()
	var list *corev1.EventList
	if err := r.cluster.do(ctx, func(ctx context.Context) (err error) {
		list, err = r.cluster.events.List(ctx, metav1.ListOptions{FieldSelector: about.String()})
		return err
	}); err != nil {
		return nil
	}
	return list.Items
}

// tend looks after what time decides: pods that do not start, failures of which
// a pod says no more, pods that do not end, and what waits to be made.
func (r *Run) tend(ctx context.Context) {
	every := max(min(time.Second, r.limits.BadImage/4, r.limits.Slow/2), 50*time.Millisecond)
	var counted time.Time // up to when the API server was away
	for sleep(ctx, every) == nil {
		var explain, give, again, conclude, clear []*attempt
		var sights []sight
		finished := 0
		now := time.Now()
		away, _ := r.cluster.health.away()
		lost := time.Duration(0)
		if !away.IsZero() {
			if counted.Before(away) {
				counted = away
			}
			lost, counted = now.Sub(counted), now
		}
		r.at.Lock()
		for _, a := range r.attempts {
			switch {
			case a.gone:
			case r.done[a.id] && a.seen.ended && !a.seen.settled && !a.seen.deleting && a.released && now.Sub(a.freed) > r.limits.Settle:
				clear = append(clear, a) // something in it goes on, though the step is over
			case r.done[a.id]:
				if a.released && a.seen.settled {
					finished++
				}
				if a.held && !a.released && !a.kept.IsZero() && now.Sub(a.kept) > stopAgain {
					r.release.put(a.id)
				}
			case a.concluded, a.spec != nil && a.spec.Resource != nil:
			case a.seen.ended:
				if !a.overdue.IsZero() && now.After(a.overdue) {
					a.concluded = true
					conclude, sights = append(conclude, a), append(sights, a.seen)
				}
			case a.ending != nil && (a.pod != "" || a.job):
				if a.removing == 0 && !a.seen.deleting && now.Sub(a.removed) > stopAgain {
					a.removed = now
					again = append(again, a)
				}
			case a.ending != nil || a.giving || a.seen.Phase == engine.PhaseRunning:
			case lost > 0: // in which nothing could come on, or be seen to
				a.excused += lost
				maps.DeleteFunc(a.since, func(waitKind, time.Time) bool { return true })
			default:
				made := a.pod != "" || a.job
				if made && !r.asking && now.After(r.rested) && now.Sub(a.made) > r.limits.Slow && now.Sub(a.asked) > 2*r.limits.Slow && len(explain) < 5 {
					a.asked = now
					explain = append(explain, a)
				}
				if r.overLimit(a, now) {
					a.giving = true
					give = append(give, a)
				}
			}
		}
		r.asking = r.asking || len(explain) > 0
		r.at.Unlock()
		for i, a := range conclude {
			r.working.Go(func() { r.concludePod(ctx, a, sights[i]) })
		}
		for _, a := range again {
			r.working.Go(func() { r.end(r.ctx, a) })
		}
		for _, a := range give {
			r.working.Go(func() { r.giveUp(ctx, a) })
		}
		if len(explain) > 0 {
			r.working.Go(func() { r.explainAll(ctx, explain) })
		}
		for _, a := range clear {
			r.working.Go(func() { r.deleteFinished(ctx, a) })
		}
		if finished > maxFinished {
			r.thin(ctx)
		}
		r.settledPod()
	}
}

// overLimit reports whether an attempt has taken too long to start. It is
// called with at held.
func (r *Run) overLimit(a *attempt, now time.Time) bool {
	kind := a.seen.waits
	if kind == waitsOther || kind == waitsScheduler {
		kind = max(kind, a.whyKind)
	}
	if kind == waitsOther {
		clear(a.since) // what it waited for has come
	}
	if limit := r.limits.limit(kind); limit > 0 {
		if a.since[kind].IsZero() {
			a.since[kind] = now
		}
		if now.Sub(a.since[kind]) > limit {
			return true
		}
	}
	return now.Sub(a.made)-a.excused > a.limit
}

// giveUp ends an attempt that does not start, unless it just has: what this
// driver has seen last may be old, as it was cut off.
func (r *Run) giveUp(ctx context.Context, a *attempt) {
	r.at.Lock()
	pod := a.pod
	r.at.Unlock()
	if pod != "" {
		err := r.cluster.do(ctx, func(ctx context.Context) error {
			now, err := r.cluster.pods.Get(ctx, pod, metav1.GetOptions{})
			if err == nil {
				r.see(now)
			}
			return err
		})
		if err != nil && !apierrors.IsNotFound(err) {
			return
		}
	}
	r.at.Lock()
	mute := (pod != "" || a.job) && a.seen.Reason == "" && a.why == ""
	r.at.Unlock()
	if mute {
		r.explain(ctx, a)
	}
	r.at.Lock()
	a.giving = false
	still := a.seen.Phase <= engine.PhasePending && a.pod == pod && r.overLimit(a, time.Now())
	why := firstText(a.seen.Reason, a.why, a.last.Reason, "nobody knows why")
	if message := firstText(a.seen.Message, a.last.Message); message != "" {
		why += ": " + shortText(message, 500)
	}
	since := a.made
	r.at.Unlock()
	if still {
		r.finish(a, ending{Cause: engine.CannotRun, Reason: fmt.Sprintf("did not start in %v: %s", time.Since(since).Round(time.Second), why)}, false)
	}
}

// explainAll explains why pods do not start. For one pod's events the API
// server reads all of the namespace, so that it is asked for a twentieth of the
// time at most: pods of a large run wait because it is busy.
func (r *Run) explainAll(ctx context.Context, pods []*attempt) {
	began := time.Now()
	for _, a := range pods {
		if r.explain(ctx, a); time.Since(began) > time.Second/2 {
			break
		}
	}
	r.at.Lock()
	r.asking, r.rested = false, time.Now().Add(20*time.Since(began))
	r.at.Unlock()
}

// explain asks the events of a pod why it does not start.
func (r *Run) explain(ctx context.Context, a *attempt) {
	kind, why := byEvents(r.eventsOf(ctx, a))
	r.at.Lock()
	a.whyKind, a.why = kind, why
	o := a.seen.Observation
	none := a.pod == ""
	if none {
		o.Phase = engine.PhasePending
	}
	pending := o.Phase == engine.PhasePending && !a.concluded
	r.at.Unlock()
	if none && countsFinished(why) { // of a Job, which tries again by itself
		r.freeFinished(ctx)
	}
	if pending && o.Reason == "" && why != "" {
		o.Reason = why
		r.tell(a, o)
	}
}

// thin deletes finished pods of a run that has very many of them, those that
// were let go long ago.
func (r *Run) thin(ctx context.Context) {
	r.at.Lock()
	var old []*attempt
	for _, a := range r.attempts {
		if a.released && a.seen.settled && !a.gone && !a.seen.deleting && time.Since(a.freed) > r.limits.Keep {
			old = append(old, a)
		}
	}
	r.at.Unlock()
	for _, a := range old[:min(len(old), 100)] {
		r.deleteFinished(ctx, a)
	}
}
