package resource

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/kfs-project/kfs/engine"
)

// This file ends attempts that are to stop.

// late is how long the API server may take to carry out what it has not
// answered: its own --request-timeout is a minute.
const late = time.Minute

// clean deletes what the attempt has created. It returns an end, or why the
// attempt is left as it is.
func (t *task) clean(ctx context.Context) error {
	t.stop = nil
	stopped := func(format string, args ...any) error {
		return &end{cause: engine.Stopped, reason: "stopped; " + fmt.Sprintf(format, args...)}
	}
	in := t.intent
	if in == nil {
		return stopped("nothing was done")
	}
	gvk := schema.FromAPIVersionAndKind(in.APIVersion, in.Kind)
	switch {
	case in.Action != "create":
		return stopped("%s %q is left as it is", in.Kind, in.Name)
	case holdsData(gvk.GroupKind()):
		return stopped("%s %q is left, with its data", in.Kind, in.Name)
	}
	err := t.find(ctx, gvk)
	for n := 0; err == nil; n++ {
		var obj *unstructured.Unstructured
		obj, err = t.get(ctx)
		switch {
		case err != nil:
		case obj != nil && !t.ours(obj):
			return stopped("%s is left: somebody else made it", t.what())
		case obj != nil && obj.GetDeletionTimestamp() != nil:
			return stopped("deleted %s", t.what())
		case obj == nil && (t.unanswered.IsZero() || time.Since(t.unanswered) > late):
			return stopped("%s is not there", t.what())
		case obj == nil:
			err = t.pause(ctx, n, fmt.Sprintf("stopping: %s may still be made", t.what()), 0)
		default:
			if err = t.before(ctx); err != nil {
				return err
			}
			err = t.remove(ctx, obj)
			switch {
			case err == nil:
				return stopped("deleted %s", t.what())
			case apierrors.IsNotFound(err), apierrors.IsConflict(err): // another one by now, perhaps
				err = t.pause(ctx, n, "", 0)
			case temporary(err):
				err = t.pause(ctx, n, "stopping: "+t.why(err), retryAfter(err))
			default:
				err = t.refused("delete", err)
			}
		}
	}
	var e *end
	if errors.As(err, &e) {
		return stopped("%s %q is left: %s", in.Kind, in.Name, e.reason)
	}
	return err
}

// remove deletes this very object, in the background.
func (t *task) remove(ctx context.Context, obj *unstructured.Unstructured) error {
	uid, background := obj.GetUID(), metav1.DeletePropagationBackground
	return t.request(ctx, func(ctx context.Context) error {
		return t.objects.Delete(ctx, t.name, metav1.DeleteOptions{
			Preconditions: &metav1.Preconditions{UID: &uid}, PropagationPolicy: &background,
		})
	})
}

// holdsData reports whether objects of the kind hold data that nobody may lose.
func holdsData(k schema.GroupKind) bool {
	switch k.Group {
	case "":
		return k.Kind == "PersistentVolumeClaim" || k.Kind == "PersistentVolume"
	case "snapshot.storage.k8s.io", "groupsnapshot.storage.k8s.io":
		return true
	}
	return false
}
