// Package resource carries out the attempts of steps that change an object of
// the cluster: resource_op, volume_op, volume_snapshot_op.
//
//	r, err := resource.New(restConfig, intents, resource.Config{Namespace: ns, Owner: owner, Labels: labels})
//	err = r.Run(ctx, attempt, report) // in a goroutine; returns when the attempt has finished
//	err = r.Stop(ctx, id, report)     // from any other
//
//	Runner   carries out the resource attempts of one run
//	Intents  keeps what each attempt is about to do, before it does it
//	Check    reports what is wrong with a step and known before the run
//	Access   is what a step must be allowed to do
//
// The actions are those of kubectl, as Argo's executor calls it
// (argo-workflows, workflow/executor/resource.go), done without kubectl:
//
//	create   fails if the object exists; metadata.generateName may name it
//	apply    server-side, as field manager kfs. It takes over what other
//	         managers have set to other values, as kubectl's own apply does;
//	         with the flag --server-side only if --force-conflicts is there too
//	patch    with the manifest: strategic, merge, or json, whose operations
//	         are the list "patch" of the manifest. What is absent is a fault
//	replace  the whole object; what is absent is a fault
//	delete   in the background; what is absent is done. Without the flag
//	         --wait=false it waits until the object is gone
//
// Fields that are unknown are refused, as kubectl does, but by a patch. A text
// where the API server wants a number or a boolean is sent as one, if it reads
// as one: a run-time value is text.
//
// An attempt acts once. Before the first call that may change something its
// Intent is committed, with the name that generateName became. Who finds an
// Intent of an earlier driver does not know whether the call was made:
//
//	create           looks for the object. With the attempt's own annotation it
//	                 is adopted; of somebody else it is a conflict (CannotRun);
//	                 if there is none it may have been made and be gone (Vanished)
//	patch with json  may have been done (Vanished)
//	all others       are done again, with the same effect
//
// Then the conditions of the step are watched for, see condition. An object of
// a kind in the table terminals, that was created or applied and has no
// success condition, is waited for until it has come to its end; that differs
// from Argo, which goes on at once. If the object is seen to be deleted before
// its end the attempt is Lost; if it is found to be gone, Vanished.
//
// Only objects that were created get the labels of the run and the annotation,
// and are deleted by Stop. Claims, volumes and snapshots never are.
//
// An API server that is away, busy or in trouble makes an attempt wait, with a
// reason, and never fail. Of an object of kind Secret no data gets into a
// reason or message, nor into an output that nothing uses.
package resource

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/rand"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/kfs-project/kfs/engine"
)

// This file defines the runner and what it keeps of each attempt.

// Annotation is on each object that an attempt has created, and says which one.
const Annotation = "kfs.dev/attempt"

// Intents keeps the intents of the attempts of one run. An error is tried
// again.
type Intents interface {
	// Put commits the intent, unless the attempt has one; it returns the one
	// that the attempt has.
	Put(ctx context.Context, id string, in Intent) (Intent, error)

	// Get returns the attempt's intent, or nil if it has none.
	Get(ctx context.Context, id string) (*Intent, error)
}

// An Intent is what an attempt is about to do.
type Intent struct {
	Runner     string `json:"runner"` // which Runner committed it
	Action     string `json:"action"`
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Namespace  string `json:"namespace,omitempty"` // "" is an object of the whole cluster
	Name       string `json:"name"`                // with generateName resolved
	Manifest   string `json:"manifest"`            // hash of what is sent, but for the data of a Secret
}

// A Config says how attempts are carried out. Namespace must be given; the
// rest has defaults.
type Config struct {
	Namespace string                      // of objects that name none, and of Owner
	Owner     metav1.OwnerReference       // of objects that go with the run
	Labels    map[string]string           // of objects that are created
	Before    func(context.Context) error // called before each call that changes something; an error ends Run
	MaxOutput int                         // bytes of an output; default 256 KiB

	Request    time.Duration // the longest that one request may take; default 30 s
	Backoff    time.Duration // before the first request that is made again; then twice as long each time; default 500 ms
	MaxBackoff time.Duration // default 30 s
	Settle     time.Duration // how long a kind may be unknown, as its definition was made just now; default 10 s
}

// A Runner carries out the resource attempts of one run.
type Runner struct {
	cfg     Config
	intents Intents
	rest    rest.Interface
	client  dynamic.Interface
	name    string

	mu       sync.Mutex
	kinds    map[schema.GroupVersion]map[string]kind
	attempts map[string]*life
}

// A life is what the runner knows of an attempt.
type life struct {
	stop    chan struct{} // closed when the attempt is to stop
	stopped bool
	running bool // Run has it
	ended   bool // its end has been reported
	acted   bool // a call that changes something may have been made, by this runner
}

// New returns a Runner that talks to the API server of rc.
func New(rc *rest.Config, intents Intents, cfg Config) (*Runner, error) {
	cfg.MaxOutput = cmp.Or(cfg.MaxOutput, 256<<10)
	cfg.Request = cmp.Or(cfg.Request, 30*time.Second)
	cfg.Backoff = cmp.Or(cfg.Backoff, 500*time.Millisecond)
	cfg.MaxBackoff = cmp.Or(cfg.MaxBackoff, 30*time.Second)
	cfg.Settle = cmp.Or(cfg.Settle, 10*time.Second)
	rc = dynamic.ConfigFor(rc)
	rc.Timeout = 0 // would cut watches off
	rc.Wrap(func(rt http.RoundTripper) http.RoundTripper { return plain{rt} })
	if rc.WarningHandler == nil && rc.WarningHandlerWithContext == nil {
		rc.WarningHandler = rest.NoWarnings{} // the default writes to stderr
	}
	client, err := rest.UnversionedRESTClientFor(rc)
	if err != nil {
		return nil, fmt.Errorf("client of the cluster: %w", err)
	}
	return &Runner{
		cfg: cfg, intents: intents, rest: client, client: dynamic.New(client), name: rand.String(10),
		kinds: map[schema.GroupVersion]map[string]kind{}, attempts: map[string]*life{},
	}, nil
}

// plain keeps client-go from making a request again by itself when the API
// server asks for that: it does so with a patch, too, that may have been done.
type plain struct{ http.RoundTripper }

func (p plain) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := p.RoundTripper.RoundTrip(req)
	if err == nil {
		resp.Header.Del("Retry-After")
	}
	return resp, err
}

// life returns what is known of an attempt; r.mu is held.
func (r *Runner) life(id string) *life {
	l := r.attempts[id]
	if l == nil {
		l = &life{stop: make(chan struct{})}
		r.attempts[id] = l
	}
	return l
}

// Run carries out an attempt that has a Resource, and reports how far it has
// come: pending, until the action is done, running, as long as the object has
// not come to its end, and finished. A condition that fails is an exit code
// of 1. It may be called again, by another driver too, for an attempt that has
// begun.
//
// The error is nil if the end was reported. Else it is that of ctx or of
// Config.Before, and the attempt is left as it is.
func (r *Runner) Run(ctx context.Context, a *engine.Attempt, report func(engine.Observation)) error {
	r.mu.Lock()
	l := r.life(a.ID)
	busy := l.running
	l.running = true
	r.mu.Unlock()
	if busy {
		return fmt.Errorf("attempt %s runs already", a.ID)
	}
	t := &task{Runner: r, a: a, life: l, stop: l.stop, report: report, began: time.Now(), phase: engine.PhasePending}
	err := t.run(ctx)
	if errors.Is(err, errStopped) {
		err = t.clean(ctx)
	}
	err = t.finish(err)
	r.mu.Lock()
	l.running, l.ended = false, err == nil
	r.mu.Unlock()
	return err
}

// Stop ends an attempt: an object that it has created is deleted, but for
// claims, volumes and snapshots, which are left with their data, as is what
// others have made. There is no more force than that. If Run carries the
// attempt out, Stop returns at once, and Run reports the end; else the intent
// says what there is to delete, and Stop itself reports the end. An attempt
// that has ended, or has no intent, is left alone.
func (r *Runner) Stop(ctx context.Context, id string, report func(engine.Observation)) error {
	r.mu.Lock()
	l := r.life(id)
	if !l.stopped {
		l.stopped = true
		close(l.stop)
	}
	leave := l.running || l.ended
	r.mu.Unlock()
	if leave {
		return nil
	}
	in, err := r.intents.Get(ctx, id)
	if err != nil {
		return fmt.Errorf("intent of %s: %w", id, err)
	}
	if in == nil {
		return nil
	}
	t := &task{Runner: r, a: &engine.Attempt{ID: id}, report: report, began: time.Now(), phase: engine.PhasePending, intent: in}
	return t.finish(t.clean(ctx))
}
