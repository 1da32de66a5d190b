package resource

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/kfs-project/kfs/engine"
)

// This file watches the object until it has come to its end.

// wait returns the end to which the object comes.
//
// A watch may be ended at any time: by the API server that is busy or begins
// anew, by a proxy, as its version is too old. Then the object is read again,
// and watched from there.
func (t *task) wait(ctx context.Context, obj *unstructured.Unstructured) error {
	for n := 0; ; n++ {
		if err := t.judge(obj); err != nil {
			return err
		}
		began := time.Now()
		seen, err := t.watch(ctx, obj)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil && !temporary(err) && !apierrors.IsNotFound(err):
			return t.refused("watch", err)
		case seen || time.Since(began) > t.cfg.MaxBackoff:
			n = 0
		}
		if err := t.pause(ctx, n, "", retryAfter(err)); err != nil {
			return err
		}
		if obj, err = t.get(ctx); err != nil {
			return err
		}
		if obj == nil || t.uid != "" && obj.GetUID() != t.uid {
			return &end{cause: engine.Vanished, reason: fmt.Sprintf("%s is gone: whether it had come to its end is not known", t.what())}
		}
	}
}

// watchTime is how long a watch lasts, if nothing ends it before.
const watchTime = 5 * time.Minute

// watch watches the object from the version given, and reports whether a
// change was seen. It returns the end, or why the watch has ended.
func (t *task) watch(ctx context.Context, obj *unstructured.Unstructured) (seen bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, watchTime+t.cfg.Request)
	defer cancel()
	seconds := int64(watchTime / time.Second)
	slow := time.AfterFunc(t.cfg.Request, cancel)
	w, err := t.objects.Watch(ctx, metav1.ListOptions{
		FieldSelector:   fields.OneTermEqualSelector("metadata.name", t.name).String(),
		ResourceVersion: obj.GetResourceVersion(),
		TimeoutSeconds:  &seconds,
	})
	if err != nil {
		return false, err
	}
	defer w.Stop()
	if !slow.Stop() {
		return false, nil
	}
	for {
		select {
		case <-t.stop:
			return seen, errStopped
		case <-ctx.Done():
			return seen, nil
		case ev, ok := <-w.ResultChan():
			if !ok {
				return seen, nil
			}
			obj, isObject := ev.Object.(*unstructured.Unstructured)
			switch {
			case ev.Type == watch.Error:
				return seen, nil // whatever it is, reading the object again tells
			case !isObject || ev.Type == watch.Bookmark:
				continue
			case t.uid != "" && obj.GetUID() != t.uid:
				return seen, nil
			}
			seen = true
			if err := t.judge(obj); err != nil {
				return seen, err
			}
			if ev.Type == watch.Deleted {
				return seen, &end{cause: engine.Lost, reason: fmt.Sprintf("%s was deleted before its end", t.what())}
			}
		}
	}
}

// judge returns the end if the object has come to it; nil is to wait on.
func (t *task) judge(obj *unstructured.Unstructured) error {
	f := object(obj.Object)
	fail := func(format string, args ...any) error {
		return &end{cause: engine.Exited, exitCode: 1, reason: t.what() + " failed: " + fmt.Sprintf(format, args...)}
	}
	// One requirement of a failure condition is enough, all of a success
	// condition must hold, and failure comes first: as in Argo.
	for _, req := range t.failure.requirements {
		if req.Matches(f) {
			return fail("%s", t.shown(req.String(), f, req.Key()))
		}
	}
	if t.success.given() && t.success.holds(f) {
		return t.succeed(obj)
	}
	last, known := terminals[obj.GroupVersionKind().GroupKind()]
	known = known && (t.success.given() || t.does("create", "apply"))
	if known && current(obj) {
		for _, m := range last.failed {
			if why, failed := m.match(f); failed {
				return fail("%s", why)
			}
		}
		if _, done := last.done.match(f); done && !t.success.given() {
			return t.succeed(obj)
		}
	}
	if !known && !t.success.given() {
		return t.succeed(obj)
	}
	reason := "waiting for "
	if t.success.given() {
		reason += t.shown(t.success.text, f, t.success.fields()...)
	} else {
		reason += last.done.String() + state(f)
	}
	if obj.GetDeletionTimestamp() != nil {
		reason = "is being deleted; " + reason
	}
	t.tell(engine.PhaseRunning, reason)
	return nil
}

// shown is a condition with the present values of its fields.
func (t *task) shown(condition string, f object, paths ...string) string {
	if t.secret() {
		return condition
	}
	return condition + values(f, paths)
}

// succeed is the end of an attempt whose object is as it was to be.
func (t *task) succeed(obj *unstructured.Unstructured) error {
	outputs, err := t.outputs(obj.Object)
	if err != nil {
		e := &end{cause: engine.BadOutput, reason: err.Error()}
		if !errors.Is(err, errTooLong) {
			e.message = "a success_condition makes the step wait for what the object does not have at once"
		}
		return e
	}
	return &end{cause: engine.Exited, outputs: outputs}
}
