package k8s

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"

	"github.com/kfs-project/kfs/engine"
)

var (
	pods       = schema.GroupResource{Resource: "pods"}
	refused    = &url.Error{Op: "Get", URL: "https://x", Err: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}}
	noHost     = &url.Error{Op: "Get", URL: "https://x", Err: &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "x", IsNotFound: true}}}
	noAnswer   = &url.Error{Op: "Get", URL: "https://x", Err: context.DeadlineExceeded}
	noLogin    = &url.Error{Op: "Get", URL: "https://x", Err: errors.New("getting credentials: exec: executable aws not found")}
	unknownCA  = &url.Error{Op: "Get", URL: "https://x", Err: x509.UnknownAuthorityError{}}
	badName    = &url.Error{Op: "Get", URL: "https://x", Err: x509.HostnameError{Certificate: &x509.Certificate{}, Host: "x"}}
	notKnown   = apierrors.NewUnauthorized("Unauthorized")
	terminated = func() error {
		err := apierrors.NewForbidden(pods, "p", errors.New("it is being terminated"))
		err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: corev1.NamespaceTerminatingCause}}
		return err
	}()
)

// TestTransient wants errors to be told apart that may pass.
func TestTransient(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want bool
	}{
		{refused, true}, {noHost, true}, {noAnswer, true}, {noLogin, true}, {notKnown, true},
		{&url.Error{Op: "Get", URL: "https://x", Err: io.ErrUnexpectedEOF}, true},
		{fmt.Errorf("http2: client connection lost"), true},
		{apierrors.NewTooManyRequests("wait", 1), true},
		{apierrors.NewInternalError(errors.New("etcd")), true},
		{apierrors.NewServiceUnavailable("starting"), true},
		{apierrors.NewTimeoutError("slow", 1), true},
		{unknownCA, false}, {badName, false}, {terminated, false},
		{&url.Error{Op: "Get", URL: "https://x", Err: x509.CertificateInvalidError{Cert: &x509.Certificate{}, Reason: x509.Expired}}, false},
		{apierrors.NewForbidden(pods, "p", errors.New("no")), false},
		{apierrors.NewNotFound(pods, "p"), false},
		{apierrors.NewConflict(pods, "p", errors.New("changed")), false},
		{apierrors.NewAlreadyExists(pods, "p"), false},
		{apierrors.NewBadRequest("bad"), false},
		{apierrors.NewMethodNotSupported(pods, "get"), false},
		{engine.ErrStale, false}, {errors.New("any other"), false},
	} {
		if got := transient(tt.err); got != tt.want {
			t.Errorf("transient(%v) = %v; want %v", tt.err, got, tt.want)
		}
	}
}

// TestHints wants an error to say what can be done.
func TestHints(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{unknownCA, "--certificate-authority"}, {badName, "--tls-server-name"}, {noHost, "kubectl config view"},
		{notKnown, "log in again"}, {noLogin, "run it by hand"}, {terminated, "the namespace is being deleted"},
		{apierrors.NewForbidden(pods, "p", errors.New("no")), "Role"},
		{refused, ""}, {apierrors.NewBadRequest("bad"), ""},
	} {
		var e *AccessError
		if err := access("read pod p", tt.err); !errors.As(err, &e) || !errors.Is(err, tt.err) || !strings.HasPrefix(err.Error(), "read pod p: ") {
			t.Errorf("access(%v) = %v", tt.err, err)
		} else if got := e.Hint(); !strings.Contains(got, tt.want) || (got == "") != (tt.want == "") {
			t.Errorf("hint of %v: %q; want %q", tt.err, got, tt.want)
		}
	}
	if access("read", nil) != nil {
		t.Error("access of no error is one")
	}
}

// answer is what a server says to a request: a code, or an error.
type answer struct {
	code int
	err  error
}

func (h *health) take(a answer) {
	if a.err != nil {
		h.saw(time.Now(), nil, a.err)
		return
	}
	h.saw(time.Now(), &http.Response{StatusCode: a.code, Status: http.StatusText(a.code)}, nil)
}

// TestGiveUp wants a server that has never been of use to be given up soon, and
// any other one to be waited for.
func TestGiveUp(t *testing.T) {
	never := []answer{{err: refused}}
	before := []answer{{code: 200}, {err: refused}}
	busy := []answer{{code: 503}}
	strange := []answer{{code: 401}}
	known := []answer{{code: 200}, {code: 401}}
	for _, tt := range []struct {
		name   string
		health []answer
		denied time.Duration // how long ago the first refusal was
		err    error
		n      int
		since  time.Duration
		want   bool
	}{
		{"refused at first", never, 0, refused, 3, time.Second, false},
		{"refused, and it was never there", never, 0, refused, 8, 6 * time.Second, true},
		{"refused, and it was there", before, 0, refused, 100, time.Hour, false},
		{"no such host", never, 0, noHost, 0, 0, true},
		{"no such host, and it was there", before, 0, noHost, 100, time.Hour, false},
		{"no answer", never, 0, noAnswer, 0, 10 * time.Second, true},
		{"starting", busy, 0, apierrors.NewServiceUnavailable("starting"), 100, time.Hour, false},
		{"unknown: with the next token", strange, 0, notKnown, 0, 0, false},
		{"unknown", strange, 0, notKnown, 1, 0, true},
		{"no longer known", known, 0, notKnown, 5, 10 * time.Second, false},
		{"no longer known for long", known, 21 * time.Second, notKnown, 5, 21 * time.Second, true},
		{"no login", nil, 0, noLogin, 0, 0, true},
		{"no login any more", known, 0, noLogin, 3, time.Second, false},
		{"no login any more for long", known, 21 * time.Second, noLogin, 3, time.Second, true},
	} {
		c, err := NewCluster(&rest.Config{Host: "https://x"}, "ns")
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range tt.health {
			c.health.take(a)
		}
		if tt.denied > 0 {
			c.health.denied = time.Now().Add(-tt.denied)
		}
		if got := c.giveUp(tt.err, tt.n, tt.since); got != tt.want {
			t.Errorf("%s: giveUp = %v; want %v", tt.name, got, tt.want)
		}
	}
}

// TestHealth wants to be known since when the server is away, and that it is
// back.
func TestHealth(t *testing.T) {
	h := &health{}
	want := func(when, words string) {
		t.Helper()
		since, why := h.away()
		if since.IsZero() != (words == "") || !strings.Contains(why, words) {
			t.Errorf("%s: away since %v, %q; want %q", when, since, why, words)
		}
	}
	want("at first", "")
	h.take(answer{err: refused})
	first, _ := h.away()
	want("refused", "does not answer: ")
	h.take(answer{code: 503})
	want("starting", "does not answer: Service Unavailable")
	if since, _ := h.away(); since != first {
		t.Error("the time of the first failure is not kept")
	}
	h.take(answer{err: &url.Error{Op: "Get", URL: "https://x", Err: context.Canceled}})
	h.take(answer{code: 404})
	want("an answer", "")
	h.take(answer{code: 401})
	want("unknown", "does not know who we are")
	h.take(answer{code: 429})
	want("busy", "")
	h.take(answer{err: &url.Error{Op: "Get", URL: "https://x", Err: context.Canceled}})
	want("given up by ourselves", "")
	h.refused(noLogin)
	want("no login", "getting credentials")
}

// TestClock wants times of a server's clock to be told as ours, which cannot
// have yet to come.
func TestClock(t *testing.T) {
	for _, skew := range []time.Duration{0, time.Second, -time.Second, time.Hour, -time.Hour, 5 * time.Second} {
		h := &health{}
		h.stamped(metav1.Time{}) // of an object that has none
		ours := time.Now().Add(-time.Minute)
		theirs := ours.Add(skew)
		if got := h.local(theirs); !got.Equal(theirs) {
			t.Errorf("local of a server that was not heard = %v; want %v", got, theirs)
		}
		h.stamped(metav1.NewTime(time.Now().Add(skew).Truncate(time.Second)))
		if got := h.local(theirs).Sub(ours); got.Abs() > 2*time.Second {
			t.Errorf("clock off by %v: local is off by %v", skew, got)
		}
		if got := h.local(time.Now().Add(skew)); skew.Abs() > 2*time.Second && got.After(time.Now()) {
			t.Errorf("clock off by %v: local has yet to come", skew)
		}
		if !h.local(time.Time{}).IsZero() {
			t.Error("local of no time is one")
		}
	}
}

// TestDo wants a request to be made again until it has succeeded or cannot.
func TestDo(t *testing.T) {
	c, err := NewCluster(&rest.Config{Host: "https://x"}, "ns")
	if err != nil {
		t.Fatal(err)
	}
	c.health.take(answer{code: 200})
	n := 0
	try := func(errs ...error) func(context.Context) error {
		n = 0
		return func(ctx context.Context) error {
			if _, ok := ctx.Deadline(); !ok {
				t.Error("a request has no deadline")
			}
			n++
			return errs[n-1]
		}
	}
	if err := c.do(t.Context(), try(refused, apierrors.NewTooManyRequests("wait", 0), nil)); err != nil || n != 3 {
		t.Errorf("do: %v after %d requests; want success after 3", err, n)
	}
	if err := c.do(t.Context(), try(refused, terminated)); !errors.Is(err, terminated) || n != 2 {
		t.Errorf("do: %v after %d requests; want the second error", err, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.do(ctx, try(refused)); err == nil || n != 1 {
		t.Errorf("do with nobody waiting: %v after %d requests; want an error", err, n)
	}
	for n := range 40 {
		if d := backoff(n, refused); d < 100*time.Millisecond || d > 4*time.Second {
			t.Errorf("backoff(%d) = %v", n, d)
		}
	}
	if d := backoff(0, apierrors.NewTooManyRequests("wait", 7)); d < 7*time.Second {
		t.Errorf("backoff of a server that asks for 7 s = %v", d)
	}
}
