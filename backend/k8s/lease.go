package k8s

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kfs-project/kfs/engine"
)

// This file decides who drives a run: the holder of its Lease.

// A HeldError says that another driver holds the run.
type HeldError struct {
	Run    string
	Holder Holder
	Since  time.Time // when it was last heard of
}

func (e *HeldError) Error() string {
	return fmt.Sprintf("run %s is driven by another kfs: %s, last heard of %v ago", e.Run, e.Holder, max(time.Since(e.Since).Round(time.Second), 0))
}

// Hint says what can be done.
func (e *HeldError) Hint() string {
	return "wait until it has ended, or end it there; a driver that is dead is replaced by itself"
}

// A Holder is a process that drives a run. Boot and Namespace tell apart
// machines and containers whose processes have the same numbers.
type Holder struct {
	Host      string
	Boot      string // id of the machine's start
	Namespace string // of process numbers
	PID       int
	Began     string // when the process was started, in ticks since the boot
	Token     string // random
}

// String names the process for people.
func (h Holder) String() string { return fmt.Sprintf("process %d on %s", h.PID, h.Host) }

// named is the Holder behind what it has done; nobody if it has let go since.
func (h Holder) named() string {
	if h == (Holder{}) {
		return ""
	}
	return ": " + h.String()
}

// identity is the Holder in a Lease.
func (h Holder) identity() string {
	return strings.Join([]string{h.Host, h.Boot, h.Namespace, strconv.Itoa(h.PID), h.Began, h.Token}, "/")
}

func parseHolder(identity string) Holder {
	parts := strings.Split(identity, "/")
	if len(parts) != 6 {
		return Holder{Host: identity}
	}
	pid, _ := strconv.Atoi(parts[3])
	return Holder{Host: parts[0], Boot: parts[1], Namespace: parts[2], PID: pid, Began: parts[4], Token: parts[5]}
}

// self returns who this process is.
func self() Holder {
	h := Holder{PID: os.Getpid()}
	h.Host, _ = os.Hostname()
	h.Boot, h.Namespace = bootID(), pidNamespace()
	h.Began, _ = processStart(h.PID)
	var token [6]byte
	rand.Read(token[:])
	h.Token = hex.EncodeToString(token[:])
	return h
}

// dead reports whether the process was one of this machine and is no more.
func (h Holder) dead() bool {
	if h.Boot == "" || h.Namespace == "" || h.Boot != bootID() || h.Namespace != pidNamespace() {
		return false
	}
	began, alive := processStart(h.PID)
	return !alive || began != h.Began
}

// alive reports whether it is one of this machine's.
func (h Holder) alive() bool {
	return h.Boot != "" && h.Boot == bootID() && h.Namespace == pidNamespace() && !h.dead()
}

func bootID() string {
	data, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	return strings.TrimSpace(string(data))
}

func pidNamespace() string {
	link, _ := os.Readlink("/proc/self/ns/pid")
	return strings.Trim(strings.TrimPrefix(link, "pid:"), "[]")
}

// processStart returns when a process was started, and whether there is one: a
// zombie is none.
func processStart(pid int) (string, bool) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", false
	}
	_, rest, _ := strings.Cut(string(data), ") ") // the program's name may hold anything
	fields := strings.Fields(rest)
	if len(fields) < 20 || fields[0] == "Z" {
		return "", false
	}
	return fields[19], true
}

// A lease is the hold of this driver on its run.
type lease struct {
	holder  Holder
	object  *coordinationv1.Lease
	renewed time.Time // by the wall clock, which goes on while a machine sleeps
	lost    error     // why it is held no more
}

// takeLease makes this driver the one of the run, and returns its number. New
// says that the run has never had another one, as far as its Lease tells.
func (r *Run) takeLease(ctx context.Context) (epoch int64, isNew bool, err error) {
	me := self()
	name := objectName(r.info.Name)
	w := leaseWatch{run: r.info.Name, notice: r.notice}
	for {
		var l *coordinationv1.Lease
		err := r.cluster.do(ctx, func(ctx context.Context) (err error) {
			l, err = r.cluster.leases.Get(ctx, name, metav1.GetOptions{})
			return err
		})
		if apierrors.IsNotFound(err) || err == nil && ofAnother(l, r.owner.UID) {
			l = &coordinationv1.Lease{ObjectMeta: r.owned(name, "")}
			fillLease(l, me, 1, r.limits.Lease)
			if err := makeOwned(ctx, r, r.cluster.leases, "lease", l); err != nil {
				return 0, false, err
			}
			isNew = true
			continue
		}
		if err != nil {
			return 0, false, access("take lease "+name, err)
		}
		if parseHolder(value(l.Spec.HolderIdentity)).Token == me.Token {
			r.mu.Lock()
			r.lease = &lease{holder: me, object: l, renewed: now()}
			r.mu.Unlock()
			epoch := int64(value(l.Spec.LeaseTransitions))
			return epoch, isNew && epoch == 1, nil
		}
		free, err := w.free(l)
		if err != nil {
			return 0, false, err
		}
		if !free {
			if err := sleep(ctx, w.pause()); err != nil {
				return 0, false, err
			}
			continue
		}
		if err := r.writeLease(ctx, l, me, value(l.Spec.LeaseTransitions)+1); err != nil && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err) {
			return 0, false, access("take lease "+name, err)
		}
	}
}

// A leaseWatch finds out whether whoever holds a Lease is alive. What a holder
// on another machine says of the time is by its clock, so that only whether the
// Lease changes can tell.
type leaseWatch struct {
	run    string
	notice func(format string, args ...any)

	seen  coordinationv1.LeaseSpec // as it was first
	since time.Time                // when that was; zero if it was not yet
	limit time.Duration            // as its holder has it
}

// free reports whether a Lease has no driver any more. If it cannot be told
// yet, it is to be asked with the Lease as it is some time later. The error is
// a *HeldError if there is a driver.
func (w *leaseWatch) free(l *coordinationv1.Lease) (bool, error) {
	holder := parseHolder(value(l.Spec.HolderIdentity))
	limit := time.Duration(max(value(l.Spec.LeaseDurationSeconds), 1)) * time.Second
	at := value(l.Spec.RenewTime).Time
	switch {
	case value(l.Spec.HolderIdentity) == "", holder.dead(): // it has let go, or cannot come back
		return true, nil
	case holder.alive() && now().Sub(at).Abs() < limit: // of this machine, by whose clock it is
		return false, &HeldError{Run: w.run, Holder: holder, Since: at}
	case w.since.IsZero():
		w.seen, w.since, w.limit = l.Spec, time.Now(), limit
		w.notice("run %s was driven by %s: waiting up to %v to see whether it still is", w.run, holder, limit)
	case value(l.Spec.HolderIdentity) != value(w.seen.HolderIdentity), !at.Equal(value(w.seen.RenewTime).Time):
		return false, &HeldError{Run: w.run, Holder: holder, Since: now()}
	}
	return time.Since(w.since) >= w.limit, nil
}

// pause is how long to wait before free is asked again.
func (w *leaseWatch) pause() time.Duration { return min(time.Second, w.limit/4) }

// ofAnother reports whether an object is one that an earlier run of the same
// name has left behind.
func ofAnother(o metav1.Object, owner types.UID) bool {
	refs := o.GetOwnerReferences()
	return len(refs) > 0 && !slices.ContainsFunc(refs, func(r metav1.OwnerReference) bool { return r.UID == owner })
}

func value[T any](p *T) T {
	var zero T
	if p == nil {
		return zero
	}
	return *p
}

func now() time.Time { return time.Now().Round(0) } // without the monotonic clock, which stops while a machine sleeps

func fillLease(l *coordinationv1.Lease, me Holder, transitions int32, duration time.Duration) {
	identity, seconds := me.identity(), int32(max(duration.Round(time.Second)/time.Second, 1))
	at := metav1.NowMicro()
	l.Spec = coordinationv1.LeaseSpec{
		HolderIdentity: &identity, LeaseDurationSeconds: &seconds, LeaseTransitions: &transitions,
		AcquireTime: l.Spec.AcquireTime, RenewTime: &at,
	}
	if l.Spec.AcquireTime == nil {
		l.Spec.AcquireTime = &at
	}
}

// writeLease writes this driver into a Lease, if it is as it was read.
func (r *Run) writeLease(ctx context.Context, l *coordinationv1.Lease, me Holder, transitions int32) error {
	next := l.DeepCopy()
	if value(next.Spec.LeaseTransitions) != transitions {
		next.Spec.AcquireTime = nil
	}
	fillLease(next, me, transitions, r.limits.Lease)
	return r.cluster.do(ctx, func(ctx context.Context) error {
		_, err := r.cluster.leases.Update(ctx, next, metav1.UpdateOptions{})
		return err
	})
}

// raise gives this driver, which holds the Lease, a higher number: somebody has
// deleted a Lease of the run, and the numbers began anew.
func (r *Run) raise(ctx context.Context, epoch int64) error {
	r.renewing.Lock()
	defer r.renewing.Unlock()
	r.mu.Lock()
	r.lease.object = r.lease.object.DeepCopy()
	transitions := int32(epoch)
	r.lease.object.Spec.LeaseTransitions = &transitions
	r.mu.Unlock()
	return r.cluster.do(ctx, r.renewHeld)
}

// keepLease renews the lease until ctx is done or it is lost.
func (r *Run) keepLease(ctx context.Context) {
	for sleep(ctx, r.limits.Lease/3) == nil {
		r.renewing.Lock()
		r.renewHeld(ctx) // if it could not, it is tried again
		r.renewing.Unlock()
		if r.lostLease() != nil {
			return
		}
	}
}

// renew writes into the Lease that this driver lives, if none of the calls that
// waited for the same has. An error says that it could not, for now; if the run
// has another driver, or is gone, lease.lost is set, and no call that changes
// anything is made any more.
func (r *Run) renew(ctx context.Context) error {
	r.renewing.Lock()
	defer r.renewing.Unlock()
	if lost, since := r.leaseAge(); lost != nil || since < r.limits.Lease/2 {
		return lost
	}
	return r.renewHeld(ctx)
}

// renewHeld is called with renewing held.
func (r *Run) renewHeld(ctx context.Context) error {
	ctx, cancel := r.cluster.request(ctx)
	defer cancel()
	r.mu.Lock()
	old, me := r.lease.object, r.lease.holder
	r.mu.Unlock()
	for {
		at := now()
		next := old.DeepCopy()
		fillLease(next, me, value(old.Spec.LeaseTransitions), r.limits.Lease)
		l, err := r.cluster.leases.Update(ctx, next, metav1.UpdateOptions{})
		switch {
		case err == nil:
			r.mu.Lock()
			r.lease.object, r.lease.renewed = l, at
			r.mu.Unlock()
			return nil
		case apierrors.IsConflict(err): // by another driver, by hand, or by a call of ours whose answer was lost
			if l, err = r.cluster.leases.Get(ctx, old.Name, metav1.GetOptions{}); err == nil {
				if holder := parseHolder(value(l.Spec.HolderIdentity)); holder.Token != me.Token {
					return r.lose(fmt.Errorf("%w%s", engine.ErrStale, holder.named()))
				}
				l.Spec.LeaseTransitions = old.Spec.LeaseTransitions
				old = l
				continue
			}
		}
		if !apierrors.IsNotFound(err) {
			return err
		}
		// Whoever has deleted the Lease has not ended the run. If another driver
		// has made itself one meanwhile, the create or the shards say so.
		if gone := r.stillThere(ctx); gone != nil {
			return gone
		}
		l = &coordinationv1.Lease{ObjectMeta: r.owned(old.Name, "")}
		fillLease(l, me, value(old.Spec.LeaseTransitions), r.limits.Lease)
		l, err = r.cluster.leases.Create(ctx, l, metav1.CreateOptions{})
		if err == nil {
			old = l
		} else if !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
}

// leaseAge returns why the lease is lost, or how long ago it was renewed.
func (r *Run) leaseAge() (lost error, since time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lease == nil {
		return fmt.Errorf("the run %s is not held", r.info.Name), 0
	}
	return r.lease.lost, now().Sub(r.lease.renewed).Abs()
}

// lose notes that the run is held no more.
func (r *Run) lose(err error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lease.lost == nil {
		r.lease.lost = err
		close(r.lostRun)
	}
	return r.lease.lost
}

func (r *Run) lostLease() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.lease == nil {
		return nil
	}
	return r.lease.lost
}

// holds returns nil if this driver may change what is in the cluster. If the
// lease was last renewed some time ago, as the machine slept or the API server
// was away, it is renewed first.
func (r *Run) holds(ctx context.Context) error {
	if lost, since := r.leaseAge(); lost != nil || since < r.limits.Lease/2 {
		return lost
	}
	return r.renew(ctx)
}

// letGo gives the lease back, so that another driver need not wait. If that
// fails, the lease runs out.
func (r *Run) letGo(ctx context.Context) {
	r.renewing.Lock()
	defer r.renewing.Unlock()
	if lost, _ := r.leaseAge(); lost != nil {
		return
	}
	ctx, cancel := r.cluster.request(ctx)
	defer cancel()
	for old := r.lease.object; ; {
		next := old.DeepCopy()
		nobody := ""
		next.Spec.HolderIdentity = &nobody
		_, err := r.cluster.leases.Update(ctx, next, metav1.UpdateOptions{})
		if !apierrors.IsConflict(err) {
			return
		}
		if old, err = r.cluster.leases.Get(ctx, next.Name, metav1.GetOptions{}); err != nil || parseHolder(value(old.Spec.HolderIdentity)).Token != r.lease.holder.Token {
			return
		}
	}
}
