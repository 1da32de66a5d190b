package resource

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	utiljson "k8s.io/apimachinery/pkg/util/json"
	"k8s.io/client-go/dynamic"

	"github.com/kfs-project/kfs/engine"
)

// This file takes an attempt from its beginning to its end.

// A task is an attempt under way.
type task struct {
	*Runner
	a      *engine.Attempt
	life   *life
	stop   <-chan struct{} // closed when the attempt is to stop; nil when it is being ended
	report func(engine.Observation)
	began  time.Time

	flags            flags
	success, failure condition
	kind             kind
	namespace, name  string
	body             map[string]any // the manifest, as it is sent
	intent           *Intent
	objects          dynamic.ResourceInterface

	unanswered time.Time // when a call that changes something had no answer, the last time
	uid        types.UID // of the object, if this attempt created it

	// What was reported.
	phase   engine.Phase
	reason  string
	started time.Time
}

// An end is how an attempt has finished. It goes up as an error.
type end struct {
	cause           engine.Cause
	exitCode        int
	reason, message string
	outputs         map[string]string
}

// Error returns the reason.
func (e *end) Error() string { return e.reason }

func cannot(format string, args ...any) error {
	return &end{cause: engine.CannotRun, reason: fmt.Sprintf(format, args...)}
}

// errStopped is that the attempt is to stop.
var errStopped = errors.New("stopped")

// run returns an end, errStopped, or why the attempt is left as it is.
func (t *task) run(ctx context.Context) error {
	if err := t.prepare(); err != nil {
		return err
	}
	gvk := schema.FromAPIVersionAndKind(t.text("apiVersion"), t.text("kind"))
	if err := t.find(ctx, gvk); err != nil {
		return err
	}
	manifest := hash(t.public(t.body))
	if err := t.own(); err != nil {
		return err
	}
	fresh, err := t.intend(ctx, manifest)
	if err != nil {
		return err
	}
	if t.does("delete") {
		if err := t.delete(ctx, fresh); err != nil {
			return err
		}
		return &end{cause: engine.Exited}
	}
	obj, err := t.act(ctx, fresh)
	if err != nil {
		return err
	}
	return t.wait(ctx, obj)
}

// prepare reads the attempt, which has no tokens any more.
func (t *task) prepare() error {
	r := t.a.Resource
	var err error
	if t.flags, err = parseFlags(r.Action, r.Flags); err != nil {
		return cannot("flags: %v", err)
	}
	if t.success, err = parseCondition(r.SuccessCondition); err != nil {
		return cannot("success_condition %v", err)
	}
	if t.failure, err = parseCondition(r.FailureCondition); err != nil {
		return cannot("failure_condition %v", err)
	}
	if fault := checkAction(r, t.cfg.Namespace); fault != "" {
		return cannot("%s", fault)
	}
	text, err := json.Marshal(r.Manifest)
	if err == nil {
		err = utiljson.Unmarshal(text, &t.body)
	}
	if err != nil {
		return cannot("manifest: %v", err)
	}
	return nil
}

// text returns a text of the manifest.
func (t *task) text(path ...string) string {
	text, _, _ := unstructured.NestedString(t.body, path...)
	return text
}

// find finds the kind of the object, and where the object is.
func (t *task) find(ctx context.Context, gvk schema.GroupVersionKind) error {
	for n := 0; ; n++ {
		err := t.ask(ctx, func(ctx context.Context) (err error) {
			t.kind, err = t.lookup(ctx, gvk)
			return err
		})
		if err == nil {
			break
		}
		var unknown *unknownKind
		switch {
		case !errors.As(err, &unknown):
			if status(err) != nil {
				return cannot("kinds of %s: %s", gvk.GroupVersion(), why(err))
			}
			return err
		case !unknown.custom() || time.Since(t.began) > t.cfg.Settle:
			return &end{cause: engine.CannotRun, reason: err.Error(), message: unknown.hint()}
		}
		if err := t.pause(ctx, n, err.Error(), 0); err != nil {
			return err
		}
	}
	if t.intent != nil {
		t.namespace, t.name = t.intent.Namespace, t.intent.Name
	} else {
		if t.kind.namespaced {
			t.namespace = cmp.Or(t.text("metadata", "namespace"), t.flags.namespace, t.cfg.Namespace)
		}
		t.name = objectName(t.text("metadata", "name"), t.text("metadata", "generateName"), t.a.ID)
	}
	objects := t.client.Resource(t.kind.resource())
	t.objects = objects
	if t.namespace != "" {
		t.objects = objects.Namespace(t.namespace)
	}
	return nil
}

// own gives the manifest what makes the object one of the run.
func (t *task) own() error {
	metadata, ok := t.body["metadata"].(map[string]any)
	if !ok {
		return cannot("manifest: metadata is no object")
	}
	set := func(field, name, value string) {
		if metadata[field] == nil {
			metadata[field] = map[string]any{}
		}
		// What is no object is left to the API server to refuse.
		if m, ok := metadata[field].(map[string]any); ok {
			m[name] = value
		}
	}
	r := t.a.Resource
	if t.namespace != "" {
		metadata["namespace"] = t.namespace
	}
	if r.Action == "create" {
		metadata["name"] = t.name
		delete(metadata, "generateName")
		for name, value := range t.cfg.Labels {
			set("labels", name, value)
		}
		set("annotations", Annotation, t.a.ID)
	}
	if r.SetOwnerReference == nil || !*r.SetOwnerReference {
		return nil
	}
	if t.namespace != t.cfg.Namespace {
		where := fmt.Sprintf("is in namespace %q", t.namespace)
		if !t.kind.namespaced {
			where = "belongs to the whole cluster"
		}
		return cannot("set_owner_reference: %s %s, and the run is in namespace %q: the cluster would delete it at once", t.what(), where, t.cfg.Namespace)
	}
	o := t.cfg.Owner
	owners, _ := metadata["ownerReferences"].([]any)
	metadata["ownerReferences"] = append(owners, map[string]any{
		"apiVersion": o.APIVersion, "kind": o.Kind, "name": o.Name, "uid": string(o.UID),
	})
	return nil
}

// intend commits the intent; fresh reports that nothing can have been done yet.
func (t *task) intend(ctx context.Context, manifest string) (fresh bool, err error) {
	r := t.a.Resource
	want := Intent{
		Runner: t.Runner.name, Action: r.Action, APIVersion: t.text("apiVersion"), Kind: t.text("kind"),
		Namespace: t.namespace, Name: t.name, Manifest: manifest,
	}
	var kept Intent
	for n := 0; ; n++ {
		if err := t.before(ctx); err != nil {
			return false, err
		}
		if kept, err = t.intents.Put(ctx, t.a.ID, want); err == nil {
			break
		}
		if err := t.pause(ctx, n, "its intent is not kept: "+why(err), 0); err != nil {
			return false, err
		}
	}
	t.intent = &kept
	fresh = kept.Runner == want.Runner && !t.life.acted
	if want.Runner = kept.Runner; kept != want {
		return false, cannot("it has begun as another attempt: %s %s %q (%s), and is now %s %s %q (%s)",
			kept.Action, kept.Kind, kept.Name, kept.Manifest, want.Action, want.Kind, want.Name, want.Manifest)
	}
	return fresh, nil
}

// before makes sure that this driver may change something, and that the
// attempt is not to stop.
func (t *task) before(ctx context.Context) error {
	select {
	case <-t.stop:
		return errStopped
	default:
	}
	if t.cfg.Before == nil {
		return ctx.Err()
	}
	return t.cfg.Before(ctx)
}

// ask makes requests that change nothing, until one has an answer.
func (t *task) ask(ctx context.Context, f func(context.Context) error) error {
	for n := 0; ; n++ {
		err := t.request(ctx, f)
		if !temporary(err) || ctx.Err() != nil {
			return err
		}
		if err := t.pause(ctx, n, t.why(err), retryAfter(err)); err != nil {
			return err
		}
	}
}

// request makes one request.
func (t *task) request(ctx context.Context, f func(context.Context) error) error {
	c, cancel := context.WithTimeout(ctx, t.cfg.Request)
	defer cancel()
	err := f(c)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// get returns the object, or nil if there is none.
func (t *task) get(ctx context.Context) (obj *unstructured.Unstructured, err error) {
	err = t.ask(ctx, func(ctx context.Context) (err error) {
		obj, err = t.objects.Get(ctx, t.name, metav1.GetOptions{})
		return err
	})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, t.refused("get", err)
	}
	return obj, nil
}

// ours reports whether the attempt has created the object.
func (t *task) ours(obj *unstructured.Unstructured) bool {
	return obj.GetAnnotations()[Annotation] == t.a.ID
}

// pause waits before the n-th time that something is tried again, and says
// why; "" leaves the reason as it is.
func (t *task) pause(ctx context.Context, n int, reason string, least time.Duration) error {
	if reason != "" {
		t.tell(t.phase, reason)
	}
	if limit := t.a.PendingTimeout; limit > 0 && t.stop != nil && t.phase == engine.PhasePending && time.Since(t.began) > limit {
		cause := engine.CannotRun
		if !t.unanswered.IsZero() {
			cause = engine.Vanished
		}
		return &end{cause: cause, reason: fmt.Sprintf("pending for %v: %s", limit, t.reason)}
	}
	timer := time.NewTimer(max(least, min(t.cfg.Backoff<<min(n, 20), t.cfg.MaxBackoff)))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.stop:
		return errStopped
	case <-timer.C:
		return nil
	}
}

// tell reports how far the attempt has come, if that is new.
func (t *task) tell(phase engine.Phase, reason string) {
	if phase == t.phase && reason == t.reason {
		return
	}
	t.phase, t.reason = phase, reason
	t.report(engine.Observation{ID: t.a.ID, Phase: phase, Started: t.started, Reason: reason})
}

// finish reports the end that err is; another error is returned.
func (t *task) finish(err error) error {
	var e *end
	if !errors.As(err, &e) {
		return err
	}
	t.report(engine.Observation{
		ID: t.a.ID, Phase: engine.PhaseFinished, Started: t.started, Finished: time.Now(),
		Cause: e.cause, ExitCode: e.exitCode, Reason: e.reason, Message: e.message, Outputs: e.outputs,
	})
	return nil
}

// what names the object, as a message does.
func (t *task) what() string {
	s := fmt.Sprintf("%s %q", t.kind.Kind, t.name)
	if t.namespace != "" && t.namespace != t.cfg.Namespace {
		s += fmt.Sprintf(" in namespace %q", t.namespace)
	}
	return s
}

// suffix returns what follows generateName in the name of an attempt's object.
// It is the same each time, so that a call that comes late makes no second
// object, and longer than the API server's own five characters, so that
// thousands of objects do not meet. The characters are the API server's.
func suffix(id string) string {
	const alphabet = "bcdfghjklmnpqrstvwxz2456789"
	sum := sha256.Sum256([]byte(id))
	n := binary.BigEndian.Uint64(sum[:])
	s := make([]byte, 8)
	for i := range s {
		s[i] = alphabet[n%uint64(len(alphabet))]
		n /= uint64(len(alphabet))
	}
	return string(s)
}

// objectName returns the name of an attempt's object. A generateName is cut so
// that the name has at most 63 bytes, as the API server does.
func objectName(name, generateName, id string) string {
	if name != "" {
		return name
	}
	s := suffix(id)
	return generateName[:min(len(generateName), 63-len(s))] + s
}

// hash returns what identifies a manifest.
func hash(manifest map[string]any) string {
	text, err := json.Marshal(manifest)
	if err != nil {
		panic(err) // it was JSON
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:16])
}

// secret reports whether the object's data must not be shown.
func (t *task) secret() bool { return t.kind.Group == "" && t.kind.Kind == "Secret" }

// public returns the object without what must not be shown.
func (t *task) public(obj map[string]any) map[string]any {
	if !t.secret() {
		return obj
	}
	return without(obj, []string{"data"}, []string{"stringData"}, []string{"patch"},
		[]string{"metadata", "annotations", "kubectl.kubernetes.io/last-applied-configuration"})
}

// without returns a copy of the object that lacks the fields.
func without(obj map[string]any, fields ...[]string) map[string]any {
	obj = runtime.DeepCopyJSON(obj)
	for _, path := range fields {
		unstructured.RemoveNestedField(obj, path...)
	}
	return obj
}

// does reports whether the attempt's action is one of these.
func (t *task) does(actions ...string) bool { return slices.Contains(actions, t.a.Resource.Action) }
