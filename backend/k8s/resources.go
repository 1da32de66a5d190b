package k8s

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kfs-project/kfs/backend/k8s/resource"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
)

// This file carries out the attempts that change an object of the cluster, by
// package resource.

const (
	intentKey  = "intent.json"
	attemptKey = "attempt.json.gz"
)

func intentName(attempt string) string { return attempt + "-intent" }

// intents keeps intents in ConfigMaps, one an attempt, with the attempt itself:
// a driver that takes over goes on with it. An attempt that writes a Secret is
// not kept: the engine has it once more when it starts it once more.
type intents struct{ *Run }

// Put implements resource.Intents.
func (s intents) Put(ctx context.Context, id string, in resource.Intent) (resource.Intent, error) {
	s.at.Lock()
	a := s.attempts[id]
	s.at.Unlock()
	text, err := json.Marshal(in)
	if err != nil {
		return in, err
	}
	immutable := true
	m := &corev1.ConfigMap{ObjectMeta: s.owned(intentName(id), kindIntent), Immutable: &immutable,
		Data: map[string]string{intentKey: string(text)}, BinaryData: map[string][]byte{}}
	m.Annotations = map[string]string{attemptLabel: id}
	if in.Kind != "Secret" {
		if m.BinaryData[attemptKey], err = pack(a.spec); err != nil {
			return in, err
		}
	}
	err = s.mutate(ctx, func(ctx context.Context) error {
		_, err := s.cluster.configMaps.Create(ctx, m, metav1.CreateOptions{})
		return err
	})
	if apierrors.IsAlreadyExists(err) {
		old, err := s.Get(ctx, id)
		if err == nil && old == nil {
			err = fmt.Errorf("config map %s was deleted by somebody", m.Name)
		}
		if err != nil {
			return in, err
		}
		return *old, nil
	}
	return in, err
}

// Get implements resource.Intents.
func (s intents) Get(ctx context.Context, id string) (*resource.Intent, error) {
	var m *corev1.ConfigMap
	err := s.cluster.do(ctx, func(ctx context.Context) (err error) {
		m, err = s.cluster.configMaps.Get(ctx, intentName(id), metav1.GetOptions{})
		return err
	})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	in := &resource.Intent{}
	if err := json.Unmarshal([]byte(m.Data[intentKey]), in); err != nil {
		return nil, fmt.Errorf("config map %s: %w", m.Name, err)
	}
	return in, nil
}

// runner returns what carries resource attempts out, made once.
func (r *Run) runner() (*resource.Runner, error) {
	r.resourceOnce.Do(func() {
		r.resources, r.resourceErr = resource.New(r.cluster.Config(), intents{r}, resource.Config{
			Namespace: r.cluster.Namespace, Owner: r.owner, Labels: runLabels(r.info.Name), Before: r.holds, MaxOutput: r.limits.Values,
		})
	})
	return r.resources, r.resourceErr
}

// startResource carries an attempt out in the background.
func (r *Run) startResource(e *engine.Attempt) {
	r.working.Go(func() {
		r.at.Lock()
		a := r.attempts[e.ID]
		r.at.Unlock()
		runner, err := r.runner()
		if err != nil {
			r.conclusion(a, engine.Observation{Finished: time.Now(), Cause: engine.CannotRun, Reason: "cannot run: " + err.Error()})
			return
		}
		if err := runner.Run(r.ctx, e, func(o engine.Observation) { r.tell(a, o) }); err != nil && r.ctx.Err() == nil && r.lostLease() == nil {
			r.notice("step %q: %v", e.Step, err)
		}
	})
}

// stopResource stops an attempt that changes an object, if it is one.
func (r *Run) stopResource(id string) bool {
	r.at.Lock()
	a := r.attempts[id]
	is := a.spec != nil && a.spec.Resource != nil
	r.at.Unlock()
	if !is {
		return false
	}
	runner, err := r.runner()
	if err != nil {
		return true
	}
	r.working.Go(func() {
		if err := runner.Stop(r.ctx, id, func(o engine.Observation) { r.tell(a, o) }); err != nil && r.ctx.Err() == nil {
			r.notice("cannot stop step %q: %v", a.spec.Step, err)
		}
	})
	return true
}

// observeResources goes on with the attempts that an earlier driver has begun.
func (r *Run) observeResources(ctx context.Context) error {
	var found *corev1.ConfigMapList
	if err := r.cluster.do(ctx, func(ctx context.Context) (err error) {
		found, err = r.cluster.configMaps.List(ctx, selector(r.info.Name, kindIntent))
		return err
	}); err != nil {
		return access("list config maps", err)
	}
	for i := range found.Items {
		m := &found.Items[i]
		id := m.Annotations[attemptLabel]
		e := &engine.Attempt{ID: id, Resource: &dag.Resource{}}
		kept := m.BinaryData[attemptKey] != nil
		if kept {
			if err := unpack(m.BinaryData[attemptKey], e); err != nil {
				return fmt.Errorf("config map %s, which holds what a step is about to do: %w", m.Name, err)
			}
		}
		r.at.Lock()
		known := r.done[id] || r.attempts[id] != nil
		if known = known || !kept && !r.stopping; !known {
			a := r.newAttempt(id)
			a.spec, a.last.Phase = e, engine.PhasePending
		}
		r.at.Unlock()
		if !known && kept {
			r.startResource(e)
		}
	}
	return nil
}
