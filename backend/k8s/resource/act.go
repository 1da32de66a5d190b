package resource

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/kfs-project/kfs/engine"
)

// This file does what the step is there to do, once.

// act creates, applies, patches or replaces the object, and returns it. Fresh
// says that this cannot have been done before.
func (t *task) act(ctx context.Context, fresh bool) (*unstructured.Unstructured, error) {
	if t.does("create") {
		obj, err := t.create(ctx, fresh)
		if err == nil {
			t.uid, t.started = obj.GetUID(), obj.GetCreationTimestamp().Time
		}
		return obj, err
	}
	if t.once() && !fresh {
		return nil, t.vanished()
	}
	obj, err := t.change(ctx, t.update)
	if err != nil {
		return nil, t.refused(t.a.Resource.Action, err)
	}
	t.started = time.Now()
	return obj, nil
}

// once reports whether the action, done twice, is not the same as done once.
func (t *task) once() bool { return t.does("patch") && t.a.Resource.MergeStrategy == "json" }

// vanished is the end of an attempt of which nobody knows what it has done.
func (t *task) vanished() error {
	return &end{cause: engine.Vanished, reason: fmt.Sprintf("%s: whether the %s was made is not known", t.what(), t.a.Resource.Action)}
}

// create creates the object, or adopts the one that it has created.
func (t *task) create(ctx context.Context, fresh bool) (*unstructured.Unstructured, error) {
	if !fresh {
		obj, err := t.get(ctx)
		switch {
		case err != nil:
			return nil, err
		case obj == nil:
			return nil, &end{cause: engine.Vanished, reason: fmt.Sprintf("%s is not there: whether it was ever made is not known", t.what())}
		case !t.ours(obj):
			return nil, t.taken(obj)
		}
		return obj, nil
	}
	for n := 0; ; n++ {
		obj, err := t.change(ctx, func(ctx context.Context) (*unstructured.Unstructured, error) {
			return t.objects.Create(ctx, &unstructured.Unstructured{Object: t.body}, metav1.CreateOptions{
				FieldManager: t.flags.manager, FieldValidation: t.flags.validation(),
			})
		})
		if err == nil {
			return obj, nil
		}
		if !apierrors.IsAlreadyExists(err) {
			return nil, t.refused("create", err)
		}
		there, err := t.get(ctx)
		switch {
		case err != nil:
			return nil, err
		case there != nil && t.ours(there): // the answer to an earlier call was lost
			return there, nil
		case there != nil && there.GetDeletionTimestamp() == nil:
			return nil, t.taken(there)
		}
		if err := t.pause(ctx, n, fmt.Sprintf("another %s is being deleted", t.what()), 0); err != nil {
			return nil, err
		}
	}
}

// taken is the end of an attempt that finds another object in place of its own.
func (t *task) taken(obj *unstructured.Unstructured) error {
	who := "made by somebody else"
	if id := obj.GetAnnotations()[Annotation]; id != "" {
		who = "made by attempt " + id
	}
	return &end{
		cause: engine.CannotRun, reason: fmt.Sprintf("%s already exists, %s", t.what(), who),
		message: "metadata.generateName in place of metadata.name gives each attempt an object of its own; the action apply changes the one that is there",
	}
}

// change makes a call that changes something, until it is done or refused.
func (t *task) change(ctx context.Context, call func(context.Context) (*unstructured.Unstructured, error)) (*unstructured.Unstructured, error) {
	retyped := false
	for n := 0; ; n++ {
		if err := t.before(ctx); err != nil {
			return nil, err
		}
		t.life.acted = true
		var obj *unstructured.Unstructured
		err := t.request(ctx, func(ctx context.Context) (err error) {
			obj, err = call(ctx)
			return err
		})
		if err == nil || ctx.Err() != nil {
			return obj, err
		}
		if unanswered(err) {
			t.unanswered = time.Now()
			if t.once() {
				return nil, t.vanished()
			}
		}
		if refusesType(err) && !retyped {
			retyped = true
			if t.retype(ctx) {
				continue
			}
		}
		wait := temporary(err)
		switch {
		case apierrors.IsConflict(err):
			wait = !managed(err) && t.text("metadata", "resourceVersion") == ""
		case apierrors.IsUnexpectedServerError(err) && apierrors.IsNotFound(err): // a kind that is not served yet, or no more
			wait = time.Since(t.began) < t.cfg.Settle
		}
		if !wait {
			return nil, err
		}
		if err := t.pause(ctx, n, t.why(err), retryAfter(err)); err != nil {
			return nil, err
		}
	}
}

// update applies, patches or replaces.
func (t *task) update(ctx context.Context) (*unstructured.Unstructured, error) {
	r := t.a.Resource
	if r.Action == "replace" {
		body := &unstructured.Unstructured{Object: t.body}
		if body.GetResourceVersion() == "" {
			there, err := t.objects.Get(ctx, t.name, metav1.GetOptions{})
			if err != nil {
				return nil, err
			}
			body = body.DeepCopy()
			body.SetResourceVersion(there.GetResourceVersion())
		}
		return t.objects.Update(ctx, body, metav1.UpdateOptions{FieldManager: t.flags.manager, FieldValidation: t.flags.validation()})
	}
	var body any = t.body
	o := metav1.PatchOptions{FieldManager: t.flags.manager}
	kind := types.StrategicMergePatchType
	switch {
	case r.Action == "apply":
		kind = types.ApplyPatchType
		force := t.flags.forceConflicts || !t.flags.serverSide
		o.Force, o.FieldValidation = &force, t.flags.validation()
	case r.MergeStrategy == "merge":
		kind = types.MergePatchType
	case r.MergeStrategy == "json":
		kind, body = types.JSONPatchType, t.body["patch"]
	}
	text, err := json.Marshal(body)
	if err != nil {
		return nil, err
	}
	return t.objects.Patch(ctx, t.name, kind, text, o)
}

// delete deletes the object, and waits until it is gone if the flags say so.
func (t *task) delete(ctx context.Context, fresh bool) error {
	_, err := t.change(ctx, func(ctx context.Context) (*unstructured.Unstructured, error) {
		return nil, t.objects.Delete(ctx, t.name, t.flags.deletion())
	})
	missing := apierrors.IsNotFound(err)
	if err != nil && !missing || missing && fresh && !t.flags.ignoreMissing {
		return t.refused("delete", err)
	}
	t.started = time.Now()
	if missing || !t.flags.wait {
		return nil
	}
	for n := 0; ; n++ {
		obj, err := t.get(ctx)
		if err != nil || obj == nil || obj.GetDeletionTimestamp() == nil { // another one by now
			return err
		}
		t.tell(engine.PhaseRunning, fmt.Sprintf("waiting until %s is gone", t.what()))
		if err := t.pause(ctx, min(n, 3), "", 0); err != nil {
			return err
		}
	}
}
