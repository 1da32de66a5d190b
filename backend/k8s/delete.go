package k8s

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// This file ends what a driver does, and deletes runs.

// Close ends this driver's work. If the run has ended, it first lets the pods
// go and waits, for at most Limits.Settle, until those have ended that have
// containers which may not end by themselves; if the pipeline has a time to
// live, the cluster is told to delete the run after it. Another driver may take
// the run over at once.
func (r *Run) Close(ctx context.Context, ended bool) {
	if ended && r.lostLease() == nil {
		if held := r.settle(ctx); held > 0 {
			r.notice("%d pods of the run could not be let go, and their finalizer keeps them: to delete them with the run:  %s", held, r.cluster.Command("delete", r.info.Name))
		} else {
			r.expire(ctx)
		}
	}
	r.cancel()
	r.working.Wait()
	if r.over.Load() { // also what was being made when the others were let go
		r.releaseOver(ctx)
	}
	r.letGo(context.WithoutCancel(ctx))
}

// settle waits until all pods of the run are let go, and none may hang. It
// returns how many are not let go, after a while.
func (r *Run) settle(ctx context.Context) (held int) {
	ctx, cancel := context.WithTimeout(ctx, r.limits.Settle+10*time.Second)
	defer cancel()
	for {
		open := 0
		held = 0
		r.at.Lock()
		for _, a := range r.attempts {
			if a.pod == "" || a.gone {
				continue
			}
			if a.held && !a.released {
				held++
				if r.done[a.id] {
					r.release.put(a.id)
				}
			} else if a.seen.mayHang() {
				open++
			}
		}
		r.at.Unlock()
		if held+open == 0 || sleep(ctx, 50*time.Millisecond) != nil || r.lostLease() != nil {
			return held
		}
	}
}

// Discard deletes a run that was made, if it has not been claimed: it leaves no
// trace of a run that cannot begin.
func (r *Run) Discard(ctx context.Context) error {
	r.mu.Lock()
	claimed := r.lease != nil
	r.mu.Unlock()
	if claimed {
		return nil
	}
	return Delete(ctx, r.cluster, r.info.Name, false)
}

// Delete deletes a run and all of its objects, after it has let its pods go.
// The error is a *HeldError if a driver holds it, unless force is set; to find
// that out may take as long as the driver's lease.
func Delete(ctx context.Context, c *Cluster, name string, force bool) error {
	m, err := getRun(ctx, c, name)
	if errors.Is(err, ErrNoRun) {
		if n, releaseErr := releaseAll(ctx, c, name); releaseErr != nil || n > 0 { // what was left of it
			return releaseErr
		}
	}
	if err != nil {
		return err
	}
	if !force {
		if err := free(ctx, c, m, name); err != nil {
			return err
		}
	}
	background := metav1.DeletePropagationBackground
	remove := func(dryRun ...string) error {
		err := c.do(ctx, func(ctx context.Context) error {
			return c.configMaps.Delete(ctx, m.Name, metav1.DeleteOptions{PropagationPolicy: &background, Preconditions: &metav1.Preconditions{UID: &m.UID}, DryRun: dryRun})
		})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return access("delete config map "+m.Name, err)
	}
	if err := remove(metav1.DryRunAll); err != nil {
		return err // before the pods have lost what keeps them
	}
	if _, err := releaseAll(ctx, c, name); err != nil {
		return err
	}
	if err := remove(); err != nil {
		return err
	}
	if err := deleteExpiry(ctx, c, m); err != nil {
		return err
	}
	// A pod that a driver has made meanwhile is let go too.
	_, err = releaseAll(ctx, c, name)
	return err
}

// free returns a *HeldError if a driver holds the run.
func free(ctx context.Context, c *Cluster, run *corev1.ConfigMap, name string) error {
	w := leaseWatch{run: name, notice: func(format string, args ...any) {
		if c.Notice != nil {
			c.Notice(fmt.Sprintf(format, args...))
		}
	}}
	for {
		var l *coordinationv1.Lease
		err := c.do(ctx, func(ctx context.Context) (err error) {
			l, err = c.leases.Get(ctx, objectName(name), metav1.GetOptions{})
			return err
		})
		if apierrors.IsNotFound(err) || err == nil && ofAnother(l, run.UID) {
			return nil
		}
		if err != nil {
			return access("read lease "+objectName(name), err)
		}
		if is, err := w.free(l); is || err != nil {
			return err
		}
		if err := sleep(ctx, w.pause()); err != nil {
			return err
		}
	}
}

// releaseAll takes the finalizer off all pods of a run, and returns how many had
// it.
func releaseAll(ctx context.Context, c *Cluster, run string) (int, error) {
	opts := selector(run, "")
	opts.Limit = 500
	held := map[types.UID]bool{}
	for {
		var page *corev1.PodList
		err := c.do(ctx, func(ctx context.Context) (err error) {
			page, err = c.pods.List(ctx, opts)
			return err
		})
		if apierrors.IsResourceExpired(err) { // it was too slow: from the beginning
			opts.Continue = ""
			continue
		}
		if err != nil {
			return len(held), access("list pods", err)
		}
		var wg sync.WaitGroup
		errs := make([]error, len(page.Items))
		slots := make(chan struct{}, releasers)
		for i := range page.Items {
			pod := &page.Items[i]
			if !slices.Contains(pod.Finalizers, outcomeFinalizer) {
				continue
			}
			held[pod.UID] = true
			slots <- struct{}{}
			wg.Go(func() {
				errs[i] = access("let pod "+pod.Name+" go", takeFinalizer(ctx, c, pod.Name))
				<-slots
			})
		}
		wg.Wait()
		for _, err := range errs {
			if err != nil {
				return len(held), err
			}
		}
		if opts.Continue = page.Continue; opts.Continue == "" {
			return len(held), nil
		}
	}
}

// makeBudget makes the disruption budget of the run's pods, if the pipeline
// sets one.
func (r *Run) makeBudget(ctx context.Context) error {
	text := conf(r.object.Pipeline).MinAvailable
	if text == "" {
		return nil
	}
	least := intstr.Parse(text)
	b := &policyv1.PodDisruptionBudget{ObjectMeta: r.owned(objectName(r.info.Name), ""), Spec: policyv1.PodDisruptionBudgetSpec{
		MinAvailable: &least, Selector: &metav1.LabelSelector{MatchLabels: map[string]string{runLabel: r.info.Name}},
	}}
	return makeOwned(ctx, r, r.cluster.budgets, "pod disruption budget", b)
}
