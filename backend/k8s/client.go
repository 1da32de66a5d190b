package k8s

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
)

// This file talks to the API server.

// The typed clients are client-go's generic ones over a scheme of the few
// groups that a run needs: those of package kubernetes register all groups
// there are in every start of the program.
var (
	scheme         = sync.OnceValue(newScheme)
	parameterCodec = sync.OnceValue(func() runtime.ParameterCodec { return runtime.NewParameterCodec(scheme()) })
)

func newScheme() *runtime.Scheme {
	s := runtime.NewScheme()
	metav1.AddToGroupVersion(s, schema.GroupVersion{Version: "v1"})
	for _, add := range []func(*runtime.Scheme) error{corev1.AddToScheme, coordinationv1.AddToScheme, batchv1.AddToScheme, policyv1.AddToScheme} {
		if err := add(s); err != nil {
			panic(err) // two types of one name
		}
	}
	return s
}

// A Cluster is where runs are carried out: a namespace that an API server
// gives access to.
type Cluster struct {
	Namespace string
	Context   string // of the kubeconfig, for people; "" is none

	// NotCurrent says that Context is not, or may not be, the current one of the
	// kubeconfig, so that commands have to name it.
	NotCurrent bool

	// RequestTimeout bounds each request but watches and logs; default 10 s.
	RequestTimeout time.Duration

	// Notice is called with what people should know of a call that takes its
	// time. Nil is not to call.
	Notice func(text string)

	first  time.Duration // how long a server that has never answered is tried
	denial time.Duration // how long one may refuse who we are that has not before: a new token may be on its way

	config *rest.Config
	health *health
	core   rest.Interface

	pods       *gentype.ClientWithList[*corev1.Pod, *corev1.PodList]
	configMaps *gentype.ClientWithList[*corev1.ConfigMap, *corev1.ConfigMapList]
	events     *gentype.ClientWithList[*corev1.Event, *corev1.EventList]
	secrets    *gentype.Client[*corev1.Secret]
	accounts   *gentype.Client[*corev1.ServiceAccount]
	leases     *gentype.Client[*coordinationv1.Lease]
	jobs       *gentype.Client[*batchv1.Job]
	budgets    *gentype.Client[*policyv1.PodDisruptionBudget]
}

// NewCluster returns the cluster that a configuration of client-go describes.
// Without a rate of its own, it may make 100 requests a second, and 200 at
// once; a negative QPS means no limit. The configuration is copied.
func NewCluster(config *rest.Config, namespace string) (*Cluster, error) {
	c := &Cluster{Namespace: namespace, RequestTimeout: 10 * time.Second, first: 5 * time.Second, denial: 20 * time.Second, config: rest.CopyConfig(config), health: &health{}}
	if c.config.QPS == 0 {
		c.config.QPS, c.config.Burst = 100, 200
	}
	if c.config.QPS > 0 && c.config.RateLimiter == nil { // one for all groups
		c.config.RateLimiter = flowcontrol.NewTokenBucketRateLimiter(c.config.QPS, max(c.config.Burst, 1))
	}
	c.config.Wrap(func(next http.RoundTripper) http.RoundTripper { return &watchedTransport{next, c.health} })
	if c.config.UserAgent == "" {
		c.config.UserAgent = "kfs " + rest.DefaultKubernetesUserAgent()
	}
	var err error
	group := func(gv schema.GroupVersion, path string) rest.Interface {
		var client rest.Interface
		if err == nil {
			client, err = c.rest(gv, path)
		}
		return client
	}
	c.core = group(corev1.SchemeGroupVersion, "/api")
	coordination := group(coordinationv1.SchemeGroupVersion, "/apis")
	batch := group(batchv1.SchemeGroupVersion, "/apis")
	policy := group(policyv1.SchemeGroupVersion, "/apis")
	if err != nil {
		return nil, fmt.Errorf("cluster: %w", err)
	}
	c.pods = gentype.NewClientWithList("pods", c.core, parameterCodec(), namespace, func() *corev1.Pod { return &corev1.Pod{} }, func() *corev1.PodList { return &corev1.PodList{} })
	c.configMaps = gentype.NewClientWithList("configmaps", c.core, parameterCodec(), namespace, func() *corev1.ConfigMap { return &corev1.ConfigMap{} }, func() *corev1.ConfigMapList { return &corev1.ConfigMapList{} })
	c.events = gentype.NewClientWithList("events", c.core, parameterCodec(), namespace, func() *corev1.Event { return &corev1.Event{} }, func() *corev1.EventList { return &corev1.EventList{} })
	c.secrets = gentype.NewClient("secrets", c.core, parameterCodec(), namespace, func() *corev1.Secret { return &corev1.Secret{} })
	c.accounts = gentype.NewClient("serviceaccounts", c.core, parameterCodec(), namespace, func() *corev1.ServiceAccount { return &corev1.ServiceAccount{} })
	c.leases = gentype.NewClient("leases", coordination, parameterCodec(), namespace, func() *coordinationv1.Lease { return &coordinationv1.Lease{} })
	c.jobs = gentype.NewClient("jobs", batch, parameterCodec(), namespace, func() *batchv1.Job { return &batchv1.Job{} })
	c.budgets = gentype.NewClient("poddisruptionbudgets", policy, parameterCodec(), namespace, func() *policyv1.PodDisruptionBudget { return &policyv1.PodDisruptionBudget{} })
	return c, nil
}

func (c *Cluster) rest(gv schema.GroupVersion, path string) (rest.Interface, error) {
	config := rest.CopyConfig(c.config)
	config.GroupVersion, config.APIPath = &gv, path
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme()).WithoutConversion()
	config.ContentType = runtime.ContentTypeProtobuf
	config.AcceptContentTypes = runtime.ContentTypeProtobuf + "," + runtime.ContentTypeJSON
	return rest.RESTClientFor(config)
}

// Config returns a copy of the configuration of client-go.
func (c *Cluster) Config() *rest.Config { return rest.CopyConfig(c.config) }

// Command returns the command line that does what a verb of kfs says with a run
// of this cluster.
func (c *Cluster) Command(verb, run string) string {
	text := fmt.Sprintf("kfs %s %s -n %s", verb, run, c.Namespace)
	if c.NotCurrent {
		text += " --context " + c.Context
	}
	return text
}

// request returns a context for one request.
func (c *Cluster) request(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.RequestTimeout)
}

// do calls f until it succeeds or fails for good: while the API server is away
// or busy it waits, a few seconds at most between two tries, until ctx is done.
// A server that has never answered is soon given up, as one is that does not
// know who we are.
func (c *Cluster) do(ctx context.Context, f func(ctx context.Context) error) error {
	began := time.Now()
	for n := 0; ; n++ {
		err := c.once(ctx, f)
		if err == nil || !transient(err) && !(c.early(err) && time.Since(began) < youth) || ctx.Err() != nil || c.giveUp(err, n, time.Since(began)) {
			return err
		}
		if err := sleep(ctx, backoff(n, err)); err != nil {
			return err
		}
	}
}

// youth is how long a server that was started may take to know who may do what.
const youth = time.Minute

// early reports whether a server that has just been started refuses what it may
// allow as soon as it has read the rules.
func (c *Cluster) early(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), " cannot ") && c.health.young()
}

// giveUp reports whether a request is not made again that has failed in passing
// for the n-th time, from 0, since it was made first.
func (c *Cluster) giveUp(err error, n int, since time.Duration) bool {
	answered, accepted := c.health.contact()
	var dns *net.DNSError
	switch {
	case credentials(err):
		c.health.refused(err)
		return !accepted || c.denied() != nil
	case unauthorized(err):
		return !accepted && n > 0 || c.denied() != nil // the second try has a new token, if there is a plugin that gives one
	case answered:
		return false
	case errors.As(err, &dns) && dns.IsNotFound:
		return true
	}
	return since > c.first
}

// denied returns an *AccessError if the server has refused who we are for too
// long.
func (c *Cluster) denied() error {
	since, cause := c.health.denial()
	if since.IsZero() || time.Since(since) < c.denial {
		return nil
	}
	return access("use the cluster", cause)
}

func (c *Cluster) once(ctx context.Context, f func(ctx context.Context) error) error {
	ctx, cancel := c.request(ctx)
	defer cancel()
	return f(ctx)
}

// backoff is how long to wait after the n-th failure in a row, from 0. No two
// wait alike, so that not all come back at once.
func backoff(n int, err error) time.Duration {
	wait := min(100*time.Millisecond<<min(n, 10), 3*time.Second)
	wait += rand.N(wait / 4)
	if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
		wait = max(wait, min(time.Duration(seconds)*time.Second, 10*time.Second))
	}
	return wait
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

// transient reports whether an error says nothing about the request itself: it
// may succeed when it is made again.
func transient(err error) bool {
	var status apierrors.APIStatus
	if errors.As(err, &status) {
		code := status.Status().Code
		return code == http.StatusTooManyRequests || code >= 500 && code != http.StatusNotImplemented || code == http.StatusUnauthorized ||
			apierrors.IsTimeout(err) || apierrors.IsServerTimeout(err)
	}
	var unknownCA x509.UnknownAuthorityError
	var badName x509.HostnameError
	var invalid x509.CertificateInvalidError
	if errors.As(err, &unknownCA) || errors.As(err, &badName) || errors.As(err, &invalid) {
		return false
	}
	var network net.Error
	var op *net.OpError
	return errors.As(err, &network) || errors.As(err, &op) || errors.Is(err, context.DeadlineExceeded) ||
		strings.Contains(err.Error(), "EOF") || strings.Contains(err.Error(), "http2:") || strings.Contains(err.Error(), "client rate limiter")
}

func unauthorized(err error) bool { return apierrors.IsUnauthorized(err) }

// credentials reports whether a request was not made because the program that
// the kubeconfig names gave nothing to log in with.
func credentials(err error) bool { return strings.Contains(err.Error(), "getting credentials: ") }

// An AccessError is what keeps kfs from using a cluster.
type AccessError struct {
	Doing string // what was tried, of which object
	Err   error
	hint  string
}

func (e *AccessError) Error() string { return e.Doing + ": " + e.Err.Error() }
func (e *AccessError) Unwrap() error { return e.Err }

// Hint says what can be done about it; "" if that is not known.
func (e *AccessError) Hint() string { return e.hint }

// access wraps an error of a request, with what can be done about it.
func access(doing string, err error) error {
	if err == nil {
		return nil
	}
	e := &AccessError{Doing: doing, Err: err}
	var unknownCA x509.UnknownAuthorityError
	var badName x509.HostnameError
	var dns *net.DNSError
	switch {
	case errors.As(err, &unknownCA):
		e.hint = "the server's certificate is signed by an authority that this machine does not know: give its certificate with  --certificate-authority FILE, or as certificate-authority in the kubeconfig"
	case errors.As(err, &badName):
		e.hint = "the certificate is for another name: use the name that it is for as the server of the kubeconfig, or give that with  --tls-server-name"
	case errors.As(err, &dns):
		e.hint = "the server's name is not known here: look at  kubectl config view --minify"
	case credentials(err):
		e.hint = "the program that the kubeconfig names to log in by (users, exec) has failed: run it by hand; a run that has begun goes on with  kfs resume RUN"
	case unauthorized(err):
		e.hint = "the server does not know who this is, or no longer: log in again; a run that has begun goes on with  kfs resume RUN"
	case apierrors.IsForbidden(err) && namespaceTerminating(err):
		e.hint = "the namespace is being deleted"
	case apierrors.IsForbidden(err):
		e.hint = "ask for a Role with this verb on this resource; docs/role.yaml is one"
	}
	return e
}

func namespaceTerminating(err error) bool {
	return apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

func exceededQuota(err error) bool {
	return apierrors.IsForbidden(err) && strings.Contains(err.Error(), "exceeded quota")
}

// health is how the API server is: when it last answered, and since when it
// has not.
type health struct {
	mu       sync.Mutex
	answered bool          // it has, whatever it said
	accepted bool          // it has known who we are
	failed   time.Time     // the first request since the last answer that has failed; zero if there is none
	cause    string        // of the last failure
	back     time.Time     // when it last answered after a failure
	denied   time.Time     // the first 401 since another answer
	deniedBy error         // the last 401, or what else kept us from logging in
	skew     time.Duration // what its clock is ahead of ours
}

// saw takes in what became of a request.
func (h *health) saw(began time.Time, response *http.Response, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if errors.Is(err, context.Canceled) {
		return
	}
	if err != nil || response.StatusCode >= 500 {
		if h.failed.IsZero() {
			h.failed = began
		}
		if err != nil {
			h.cause = err.Error()
		} else {
			h.answered, h.cause = true, response.Status
		}
		return
	}
	if !h.failed.IsZero() && h.accepted {
		h.back = time.Now()
	}
	h.answered, h.failed = true, time.Time{}
	if response.StatusCode != http.StatusUnauthorized {
		h.accepted, h.denied = true, time.Time{}
		return
	}
	h.deny(apierrors.NewUnauthorized("Unauthorized"))
}

// refused takes in that nothing was there to log in with.
func (h *health) refused(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deny(err)
}

func (h *health) deny(err error) {
	if h.denied.IsZero() {
		h.denied = time.Now()
	}
	h.deniedBy = err
}

// away returns since when the server has not answered, or not known who we are,
// and what it does instead; zero if it does.
func (h *health) away() (time.Time, string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.failed.IsZero() && !h.denied.IsZero() {
		return h.denied, "does not know who we are: " + h.deniedBy.Error()
	}
	return h.failed, "does not answer: " + h.cause
}

// young reports whether the server may have been started a moment ago.
func (h *health) young() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return time.Since(h.back) < youth
}

func (h *health) contact() (answered, accepted bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.answered, h.accepted
}

func (h *health) denial() (time.Time, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.denied, h.deniedBy
}

// stamped takes in a time that the server has just put on an object, in whole
// seconds. The Date of its answers may be that of a proxy.
func (h *health) stamped(t metav1.Time) {
	if t.IsZero() {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.skew = t.Add(time.Second / 2).Sub(now())
}

// local returns a time of the server's clock as one of ours, which has not yet
// to come. The server gives whole seconds, so that clocks that differ by less
// are taken as equal.
func (h *health) local(t time.Time) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	if t.IsZero() || h.skew.Abs() < 2*time.Second {
		return t
	}
	t = t.Add(-h.skew)
	if now := time.Now(); t.After(now) {
		return now
	}
	return t
}

type watchedTransport struct {
	next   http.RoundTripper
	health *health
}

func (t *watchedTransport) RoundTrip(r *http.Request) (*http.Response, error) {
	began := time.Now()
	response, err := t.next.RoundTrip(r)
	// A log comes from a node, and the pods that are to be changed may be kept by
	// a webhook that fails or does not answer.
	pods := strings.Contains(r.URL.Path, "/pods") || strings.Contains(r.URL.Path, "/jobs")
	failed := err != nil && errors.Is(r.Context().Err(), context.DeadlineExceeded) || err == nil && response.StatusCode == http.StatusInternalServerError
	if !strings.HasSuffix(r.URL.Path, "/log") && !(pods && failed && r.Method != http.MethodGet) {
		t.health.saw(began, response, err)
	}
	return response, err
}
