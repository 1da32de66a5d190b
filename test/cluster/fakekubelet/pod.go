package fakekubelet

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// This file leads a pod through its life.

// stage is where a pod stands. It lasts until life.due.
type stage int

const (
	starting    stage = iota // not started, or not yet again
	pulling                  // a pull has failed
	working                  // the main container runs
	resting                  // the main container ended and will start again
	settling                 // the main container ended, the pod has not
	terminating              // asked to stop
	ended                    // nothing runs any more
)

// pause is the time from an exit or a failed pull to the next attempt.
const pause = time.Second

// life is what the kubelet knows of a pod that it acts for.
type life struct {
	uid     types.UID
	entries []Behavior
	entry   int // the one taken, from 0; the last of entries stands for all beyond
	runs    int // starts with that entry

	stage stage
	due   time.Time // zero for never
	cut   bool      // due is the end of the grace period, not of Behavior.Grace
	timer *time.Timer

	// What the server is to know.
	status  corev1.PodStatus
	dirty   bool // it does not have the status
	events  []*corev1.Event
	named   int  // events so far
	deleted bool // it knows that nothing runs
}

// do returns what the pod does now.
func (l *life) do() *Behavior {
	return &l.entries[min(l.entry, len(l.entries)-1)]
}

// enter begins a stage that lasts for d.
func (l *life) enter(s stage, now time.Time, d time.Duration) {
	l.stage, l.due = s, now.Add(d)
}

// stay begins a stage that does not end by itself.
func (l *life) stay(s stage) {
	l.stage, l.due = s, time.Time{}
}

// sync does what is due for the pod with the key.
func (k *Kubelet) sync(ctx context.Context, key string) error {
	obj, exists, err := k.pods.GetByKey(key)
	if err != nil {
		return err
	}
	pod, _ := obj.(*corev1.Pod)
	k.mu.Lock()
	l := k.lives[key]
	if l != nil && (!exists || l.uid != pod.UID) {
		l.timer.Stop()
		delete(k.lives, key)
		l = nil
	}
	k.mu.Unlock()
	if !exists {
		return nil
	}
	node := k.node(pod.Spec.NodeName)
	if asleep(node) {
		// The node may have become awake before tend knew that a pod waits.
		k.hold(pod.Spec.NodeName)
		if node = k.node(pod.Spec.NodeName); asleep(node) {
			return nil
		}
	}

	now := time.Now()
	if l == nil {
		l = k.adopt(pod, node, now)
		l.timer = time.AfterFunc(time.Hour, func() { k.podQueue.Add(key) })
		k.mu.Lock()
		k.lives[key] = l
		k.mu.Unlock()
	}
	if done(pod) && l.stage != ended {
		// Somebody else ended it, as the garbage collector does if the node
		// looks dead. There is no way back from there.
		l.stay(ended)
		l.dirty, l.events = false, nil
	}
	if pod.DeletionTimestamp != nil {
		l.terminate(pod, now)
	}
	for !l.due.IsZero() && !now.Before(l.due) {
		if err := k.step(l, pod, now); err != nil {
			return err
		}
	}
	l.timer.Stop()
	if !l.due.IsZero() {
		l.timer.Reset(l.due.Sub(now))
	}
	return k.flush(ctx, l, pod, now)
}

func done(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// adopt returns the life of a pod that this process sees for the first time.
// The status and the ledger tell how far it is.
func (k *Kubelet) adopt(pod *corev1.Pod, node *corev1.Node, now time.Time) *life {
	l := &life{uid: pod.UID, status: *pod.Status.DeepCopy()} // the informer's pod is not ours to change
	if done(pod) {
		l.stay(ended)
		return l
	}
	fill(pod, &l.status, node, now)
	main := mainOf(pod, &l.status)

	var err error
	if l.entries, err = behaviors(pod); err != nil {
		l.entries = []Behavior{{}}
		l.stay(starting)
		main.State = waiting("BadBehavior", err.Error())
		l.dirty = true
		l.event(pod, now, corev1.EventTypeWarning, "BadBehavior", "", err.Error())
		return l
	}

	shown := 0 // starts that the status tells of
	if main.State.Waiting == nil {
		shown = int(main.RestartCount) + 1
	}
	past, recorded := k.ledger.of(pod.UID)
	l.entry, l.runs = past.entry, past.runs
	if !recorded {
		l.runs = shown
		if pod.DeletionTimestamp == nil {
			l.entry = k.ledger.take(startKey(pod))
		}
	}
	if past.starts > shown {
		// The process ended between the start and its status.
		if main.State.Running != nil {
			end(main, l.do().exit(), reasonFor(l.do().exit()), past.last)
		}
		place(pod, &l.status)
		begin(pod, &l.status, past.last)
		l.dirty = true
	}
	switch {
	case main.State.Running != nil && recorded:
		l.work(past.last) // the status has whole seconds only
	case main.State.Running != nil:
		l.work(main.State.Running.StartedAt.Time)
	case main.State.Terminated != nil:
		l.rest(pod, main.State.Terminated.FinishedAt.Time)
	default:
		l.dirty = true
		l.wait(l.status.StartTime.Time)
	}
	return l
}

// wait begins the time before a start.
func (l *life) wait(now time.Time) {
	if l.do().Do == doPending {
		l.stay(starting)
		return
	}
	l.enter(starting, now, l.do().Pending.Duration)
}

// work begins the time of the main container.
func (l *life) work(now time.Time) {
	if l.do().Do == doRun {
		l.stay(working)
		return
	}
	l.enter(working, now, l.do().After.Duration)
}

// rest begins the time after the main container's end.
func (l *life) rest(pod *corev1.Pod, now time.Time) {
	if again(pod, mainOf(pod, &l.status).State.Terminated.ExitCode) {
		l.enter(resting, now, pause)
		return
	}
	l.enter(settling, now, l.do().Settle.Duration)
}

// step ends the stage of the pod and begins the next.
func (k *Kubelet) step(l *life, pod *corev1.Pod, now time.Time) error {
	b, st := l.do(), &l.status
	main := mainOf(pod, st)
	switch l.stage {
	case starting:
		place(pod, st)
		if b.Do == doPullBackoff {
			l.failPull(pod, now)
			l.enter(pulling, now, pause)
			break
		}
		if err := k.record(l, pod, now); err != nil {
			return err
		}
		l.start(pod, k.config.Events, now)
	case pulling:
		l.backOff(pod, now)
		l.stay(pulling)
	case working:
		switch {
		case b.Do == doRestart && l.runs == 1:
			if err := k.record(l, pod, now); err != nil {
				return err
			}
			end(main, b.exit(), reasonFor(b.exit()), now)
			main.State.Terminated.Message = l.message(pod)
			l.start(pod, k.config.Events, now)
		case b.Do == doEvict:
			l.evict(pod, now)
		case b.Do == doLost:
			running(st, func(s *corev1.ContainerStatus, _ string) { lose(s) })
			l.finish(pod, now)
		default:
			l.exit(pod, now)
			l.rest(pod, now)
		}
	case resting:
		l.entry, l.runs = k.ledger.take(startKey(pod)), 0
		l.wait(now)
		return nil
	case settling:
		l.finish(pod, now)
	case terminating:
		code := b.term()
		if l.cut {
			code = killed
		}
		l.stop(pod, code, now)
		l.finish(pod, now)
	}
	l.dirty = true
	return nil
}

// record records that the containers start. What is not recorded must not start.
func (k *Kubelet) record(l *life, pod *corev1.Pod, now time.Time) error {
	err := k.ledger.start(Start{
		Key:       startKey(pod),
		Namespace: pod.Namespace,
		Pod:       pod.Name,
		UID:       string(pod.UID),
		Node:      pod.Spec.NodeName,
		Time:      now,
	}, l.entry)
	if err != nil {
		return fmt.Errorf("record start: %w", err)
	}
	return nil
}

// start starts the containers, and announces it by events if asked to.
func (l *life) start(pod *corev1.Pod, events bool, now time.Time) {
	l.runs++
	begin(pod, &l.status, now)
	if events {
		l.announce(pod, now)
	}
	l.work(now)
}

// exit ends all containers but the sidecars, the main one as it is told.
func (l *life) exit(pod *corev1.Pod, now time.Time) {
	b, main := l.do(), mainOf(pod, &l.status)
	for i := range l.status.ContainerStatuses {
		s := &l.status.ContainerStatuses[i]
		switch {
		case s.State.Running == nil:
			continue
		case s != main || b.Do == doRestart:
			end(s, 0, reasonFor(0), now)
		case b.Do == doOOM:
			end(s, b.exit(), "OOMKilled", now)
			l.reportOOM(pod, now)
		default:
			end(s, b.exit(), reasonFor(b.exit()), now)
		}
		if s == main {
			s.State.Terminated.Message = l.message(pod)
		}
	}
}

// stop ends all containers, sidecars too, with one exit code.
func (l *life) stop(pod *corev1.Pod, code int32, now time.Time) {
	main := mainOf(pod, &l.status)
	running(&l.status, func(s *corev1.ContainerStatus, _ string) {
		end(s, code, reasonFor(code), now)
		if s == main {
			s.State.Terminated.Message = l.message(pod)
		}
	})
}

// message returns the main container's termination message.
func (l *life) message(pod *corev1.Pod) string {
	return clip(l.do().Message, len(pod.Spec.Containers)+len(pod.Spec.InitContainers))
}

// evict ends the pod as a node does that is short of memory.
func (l *life) evict(pod *corev1.Pod, now time.Time) {
	const message = "The node was low on resource: memory."
	l.event(pod, now, corev1.EventTypeWarning, "Evicted", "", message)
	l.kill(pod, now)
	l.stop(pod, killed, now)
	l.finish(pod, now)
	l.status.Reason, l.status.Message = "Evicted", message
	disrupt(pod, &l.status, message, now)
}

// terminate begins the end of a pod that was deleted.
func (l *life) terminate(pod *corev1.Pod, now time.Time) {
	switch l.stage {
	case ended:
		return
	case working:
		l.kill(pod, now)
		l.enter(terminating, now, l.do().Grace.Duration)
	case terminating:
	default:
		l.finish(pod, now)
		l.dirty = true
		return
	}
	// The grace period may have become shorter by another deletion.
	limit := now
	if s := pod.DeletionGracePeriodSeconds; s != nil {
		limit = now.Add(time.Duration(*s) * time.Second)
	}
	if limit.Before(l.due) {
		l.due, l.cut = limit, true
	}
}

// kill reports that all running containers are asked to stop.
func (l *life) kill(pod *corev1.Pod, now time.Time) {
	running(&l.status, func(s *corev1.ContainerStatus, path string) {
		l.event(pod, now, corev1.EventTypeNormal, "Killing", path, "Stopping container "+s.Name)
	})
}

// finish ends the pod: what still runs are sidecars.
func (l *life) finish(pod *corev1.Pod, now time.Time) {
	l.kill(pod, now)
	running(&l.status, func(s *corev1.ContainerStatus, _ string) { end(s, 0, reasonFor(0), now) })
	finish(pod, &l.status)
	l.stay(ended)
}
