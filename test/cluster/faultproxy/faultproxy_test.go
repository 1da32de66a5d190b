package faultproxy

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	apiruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	restwatch "k8s.io/client-go/rest/watch"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		method, url, want string // want is verb, resource and name
	}{
		{"GET", "/readyz", "get  "},
		{"GET", "/", "get  "},
		{"GET", "/version", "get  "},
		{"POST", "/version", "post  "},
		{"GET", "/api", "get  "},
		{"GET", "/api/v1", "get  "},
		{"GET", "/apis/apps/v1", "get  "},
		{"GET", "/logs/api/v1/pods", "get  "},
		{"GET", "/api/v1/watch", "get  "},
		{"GET", "/api/v1/pods", "list pods "},
		{"GET", "/api/v1/pods/", "list pods "},
		{"HEAD", "/api/v1/pods", "list pods "},
		{"GET", "/api/v1/namespaces", "list namespaces "},
		{"GET", "/api/v1/namespaces/a", "get namespaces a"},
		{"PUT", "/api/v1/namespaces/a/finalize", "update namespaces a"},
		{"GET", "/api/v1/namespaces/a/status", "get namespaces a"},
		{"GET", "/api/v1/namespaces/a/pods", "list pods "},
		{"GET", "/api/v1/namespaces/a/pods/b", "get pods b"},
		{"HEAD", "/api/v1/namespaces/a/pods/b", "get pods b"},
		{"GET", "/api/v1/namespaces/a/pods/b/log", "get pods b"},
		{"GET", "/apis/batch/v1/namespaces/a/jobs", "list jobs.batch "},
		{"GET", "/apis/batch/v1/namespaces/a/jobs?watch=true", "watch jobs.batch "},
		{"GET", "/api/v1/pods?watch=1", "watch pods "},
		{"GET", "/api/v1/pods?watch=True", "watch pods "},
		{"GET", "/api/v1/pods?watch", "watch pods "},
		{"GET", "/api/v1/pods?watch=false", "list pods "},
		{"GET", "/api/v1/pods?watch=0", "list pods "},
		{"GET", "/api/v1/namespaces/a/pods/b?watch=true", "get pods b"},
		{"GET", "/api/v1/watch/pods", "watch pods "},
		{"GET", "/api/v1/watch/namespaces/a/pods/b", "watch pods b"},
		{"GET", "/apis/apps/v1/watch/deployments", "watch deployments.apps "},
		{"POST", "/api/v1/namespaces/a/pods", "create pods "},
		{"POST", "/api/v1/namespaces/a/pods/b/eviction", "create pods b"},
		{"PUT", "/api/v1/namespaces/a/pods/b", "update pods b"},
		{"PATCH", "/apis/batch/v1/namespaces/a/jobs/b/status", "patch jobs.batch b"},
		{"DELETE", "/api/v1/namespaces/a/pods/b", "delete pods b"},
		{"DELETE", "/api/v1/namespaces/a/pods", "deletecollection pods "},
		{"DELETE", "/api/v1/namespaces/a", "delete namespaces a"},
		{"POST", "/api/v1/namespaces/a/pods/b/exec?command=sh", "connect pods b"},
		{"GET", "/api/v1/namespaces/a/pods/b/exec?command=sh", "connect pods b"},
		{"POST", "/api/v1/namespaces/a/pods/b/attach", "connect pods b"},
		{"POST", "/api/v1/namespaces/a/pods/b/portforward", "connect pods b"},
		{"GET", "/api/v1/namespaces/a/services/b:80/proxy/index.html", "connect services b:80"},
		{"DELETE", "/api/v1/nodes/n/proxy/x", "connect nodes n"},
		{"GET", "/api/v1/proxy/namespaces/a/services/b", "connect services b"},
		{"OPTIONS", "/api/v1/pods", "options pods "},
	} {
		req := parse(httptest.NewRequest(tt.method, tt.url, nil))
		if got := fmt.Sprintf("%s %s %s", req.verb, req.resource, req.name); got != tt.want {
			t.Errorf("parse(%s %s) = %q, want %q", tt.method, tt.url, got, tt.want)
		}
	}
}

func TestAddFaults(t *testing.T) {
	for _, tt := range []struct {
		rule Rule
		want string
	}{
		{Rule{}, "no action: want delay, status, lose or hang"},
		{Rule{Verb: "get,gett", Hang: true}, `verb "gett": want * or some of get, list, watch, create, update, patch, delete, deletecollection, connect`},
		{Rule{Path: "(", Hang: true}, "path \"(\": error parsing regexp: missing closing ): `(`"},
		{Rule{ID: "a/b", Hang: true}, `id "a/b": want letters, digits, '.', '_' and '-', with a letter or digit first`},
		{Rule{ID: "taken", Hang: true}, `id "taken": a rule has it already`},
		{Rule{Status: 200}, "status 200: want a code from 400 to 599"},
		{Rule{Status: 600}, "status 600: want a code from 400 to 599"},
		{Rule{Status: 500, Lose: true, Hang: true}, "status and lose and hang: want only one of them"},
		{Rule{Hang: true, Message: "m", RetryAfter: 1}, "message \"m\": want a status with it\nretryAfter 1: want a status with it"},
		{
			Rule{Skip: -1, Times: -2, RetryAfter: -3, Delay: Duration(-time.Second)},
			"skip -1: want 0 or more\ntimes -2: want 0 or more\nretryAfter -3: want 0 or more\ndelay -1s: want 0s or more",
		},
	} {
		p := New(Config{})
		if _, err := p.Add(Rule{ID: "taken", Lose: true}); err != nil {
			t.Fatal(err)
		}
		_, err := p.Add(tt.rule)
		if err == nil || err.Error() != tt.want {
			t.Errorf("Add(%+v): got error\n%v\nwant\n%s", tt.rule, err, tt.want)
		}
		if n := len(p.Rules()); n != 1 {
			t.Errorf("Add(%+v): %d rules, want 1", tt.rule, n)
		}
	}
}

// start serves api and a proxy in front of it, both with TLS and HTTP/2.
func start(t *testing.T, api http.HandlerFunc) (*Proxy, *httptest.Server) {
	t.Helper()
	serve := func(h http.Handler) *httptest.Server {
		s := httptest.NewUnstartedServer(h)
		s.EnableHTTP2 = true
		s.Config.ErrorLog = log.New(io.Discard, "", 0) // connections that end early
		s.StartTLS()
		t.Cleanup(func() {
			s.CloseClientConnections()
			s.Close()
		})
		return s
	}
	back := serve(api)
	target, err := url.Parse(back.URL)
	if err != nil {
		t.Fatal(err)
	}
	p := New(Config{Target: target, Transport: back.Client().Transport})
	front := serve(p)
	t.Cleanup(p.Clear)
	return p, front
}

// clientset returns a Kubernetes client that speaks the content type.
func clientset(t *testing.T, front *httptest.Server, contentType string) *kubernetes.Clientset {
	t.Helper()
	c, err := kubernetes.NewForConfig(&rest.Config{
		Host: front.URL,
		QPS:  -1,
		TLSClientConfig: rest.TLSClientConfig{
			CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.Certificate().Raw}),
		},
		ContentConfig: rest.ContentConfig{ContentType: contentType, AcceptContentTypes: contentType},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// add adds a rule that must be right.
func add(t *testing.T, p *Proxy, r Rule) Rule {
	t.Helper()
	r, err := p.Add(r)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// applied waits until a rule, the first of the proxy, has taken n requests.
func applied(p *Proxy, n int) {
	for p.Rules()[0].Applied < n {
		runtime.Gosched()
	}
}

// pod answers with a pod.
func pod(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(&corev1.Pod{
		TypeMeta:   metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"},
		ObjectMeta: metav1.ObjectMeta{Name: "p"},
	})
}

func TestForward(t *testing.T) {
	type seen struct {
		Proto, Method, URI, Authorization, Encoding, Body string
	}
	var got seen
	p, front := start(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = seen{r.Proto, r.Method, r.RequestURI, r.Header.Get("Authorization"), r.Header.Get("Accept-Encoding"), string(body)}
		w.Header().Set("Content-Encoding", "gzip")
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, "not unpacked")
	})
	add(t, p, Rule{Verb: "get, list", Hang: true})
	add(t, p, Rule{Path: "/services", Hang: true})

	transport := front.Client().Transport.(*http.Transport).Clone()
	transport.DisableCompression = true
	defer transport.CloseIdleConnections()
	for _, encoding := range []string{"", "gzip"} {
		req, err := http.NewRequest("POST", front.URL+"/api/v1/namespaces/a/pods/b%2Fc?x=1;y", strings.NewReader("body"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer t")
		want := seen{"HTTP/2.0", "POST", "/api/v1/namespaces/a/pods/b%2Fc?x=1;y", "Bearer t", "identity", "body"}
		if encoding != "" {
			req.Header.Set("Accept-Encoding", encoding)
			want.Encoding = encoding
		}
		res, err := transport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if res.Proto != "HTTP/2.0" || res.StatusCode != http.StatusAccepted || res.Header.Get("Content-Encoding") != "gzip" || string(body) != "not unpacked" {
			t.Errorf("answer: got %s %s, %v, body %q", res.Proto, res.Status, res.Header, body)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("request at the API server (-want +got):\n%s", diff)
		}
	}
}

func TestUpgrade(t *testing.T) {
	p, front := start(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "Upgrade")
		w.Header().Set("Upgrade", r.Header.Get("Upgrade"))
		w.WriteHeader(http.StatusSwitchingProtocols)
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		line, err := rw.ReadString('\n')
		if err != nil {
			t.Error(err)
		}
		io.WriteString(conn, "echo "+line)
	})
	client := http1(front.Client().Transport.(*http.Transport))
	dial := func(protocol string) (*http.Response, error) {
		req, err := http.NewRequest("POST", front.URL+"/api/v1/namespaces/a/pods/b/exec", nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Connection", "Upgrade")
		req.Header.Set("Upgrade", protocol)
		return client.RoundTrip(req)
	}
	for _, protocol := range []string{"websocket", "SPDY/3.1"} {
		res, err := dial(protocol)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("%s: got %s, want 101", protocol, res.Status)
		}
		conn := res.Body.(io.ReadWriteCloser)
		io.WriteString(conn, "hello\n")
		if got, err := io.ReadAll(conn); string(got) != "echo hello\n" {
			t.Errorf("%s: got %q, %v", protocol, got, err)
		}
		conn.Close()
	}
	add(t, p, Rule{Verb: "connect", Status: 403})
	res, err := dial("SPDY/3.1")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("got %s, want 403", res.Status)
	}
}

func TestDeadTarget(t *testing.T) {
	back := httptest.NewServer(nil)
	target, err := url.Parse(back.URL)
	if err != nil {
		t.Fatal(err)
	}
	back.Close()
	var logged bytes.Buffer
	front := httptest.NewServer(New(Config{Target: target, ErrorLog: log.New(&logged, "", 0)}))
	res, err := http.Get(front.URL + "/readyz")
	if err == nil {
		t.Errorf("got %s, want no answer", res.Status)
		res.Body.Close()
	}
	front.Close()
	if got := logged.String(); !strings.HasPrefix(got, "forward GET /readyz: dial tcp ") {
		t.Errorf("logged %q", got)
	}
}

func TestStatus(t *testing.T) {
	p, front := start(t, func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s: forwarded", r.Method, r.URL)
	})
	c := clientset(t, front, apiruntime.ContentTypeJSON).CoreV1().RESTClient()
	for _, tt := range []struct {
		rule   Rule
		method string
		path   string
		is     func(error) bool
		want   string
	}{
		{Rule{Status: 400}, "GET", "/api/v1/namespaces/a/pods/p", apierrors.IsBadRequest,
			"the server rejected our request for an unknown reason (get pods p)"},
		{Rule{Status: 401}, "GET", "/api/v1/namespaces/a/pods/p", apierrors.IsUnauthorized,
			"Unauthorized"},
		{Rule{Status: 403}, "GET", "/apis/batch/v1/namespaces/a/jobs/j", apierrors.IsForbidden,
			`jobs.batch "j" is forbidden: cannot get resource "jobs" in API group "batch"`},
		{Rule{Status: 403}, "GET", "/readyz", apierrors.IsForbidden,
			`forbidden: cannot get path "/readyz"`},
		{Rule{Status: 404}, "GET", "/apis/batch/v1/namespaces/a/jobs/j", apierrors.IsNotFound,
			`jobs.batch "j" not found`},
		{Rule{Status: 404}, "GET", "/api/v1/pods", apierrors.IsNotFound,
			"the server could not find the requested resource (get pods)"},
		{Rule{Status: 409}, "PUT", "/api/v1/namespaces/a/pods/p", apierrors.IsConflict,
			`Operation cannot be fulfilled on pods "p": the object has been modified; please apply your changes to the latest version and try again`},
		{Rule{Status: 409}, "POST", "/api/v1/namespaces/a/pods", apierrors.IsAlreadyExists,
			"the server reported a conflict (post pods)"},
		{Rule{Status: 410}, "GET", "/api/v1/pods", apierrors.IsResourceExpired,
			"The resourceVersion for the provided list is too old."},
		{Rule{Status: 410}, "GET", "/api/v1/watch/pods", apierrors.IsResourceExpired,
			"The resourceVersion for the provided watch is too old."},
		{Rule{Status: 429}, "GET", "/api/v1/pods", apierrors.IsTooManyRequests,
			"Too many requests, please try again later."},
		{Rule{Status: 500}, "GET", "/api/v1/pods", apierrors.IsInternalError,
			"Internal error occurred: a rule of the proxy failed the request"},
		{Rule{Status: 503}, "GET", "/api/v1/pods", apierrors.IsServiceUnavailable,
			"apiserver is shutting down"},
		{Rule{Status: 504}, "GET", "/api/v1/pods", apierrors.IsTimeout,
			"Timeout: request did not complete within the allotted timeout"},
		{Rule{Status: 503, Message: "etcdserver: no leader"}, "GET", "/api/v1/pods", apierrors.IsServiceUnavailable,
			"etcdserver: no leader"},
	} {
		r := add(t, p, tt.rule)
		err := c.Verb(tt.method).AbsPath(tt.path).Do(t.Context()).Error()
		if err == nil || !tt.is(err) || err.Error() != tt.want {
			t.Errorf("status %d for %s %s: got %#v\nwant message %s", tt.rule.Status, tt.method, tt.path, err, tt.want)
		}
		if err := p.Remove(r.ID); err != nil {
			t.Error(err)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	p, front := start(t, pod)
	for _, status := range []int{429, 503} {
		r := add(t, p, Rule{Status: status, RetryAfter: 7})
		res, err := front.Client().Get(front.URL + "/api/v1/namespaces/a/pods/p")
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if got := res.Header.Get("Retry-After"); res.StatusCode != status || got != "7" {
			t.Errorf("got %s with Retry-After %q, want %d with 7", res.Status, got, status)
		}
		c := clientset(t, front, apiruntime.ContentTypeProtobuf).CoreV1().RESTClient()
		err = c.Get().AbsPath("/api/v1/namespaces/a/pods/p").MaxRetries(0).Do(t.Context()).Error()
		if s, ok := apierrors.SuggestsClientDelay(err); status == 429 && (!ok || s != 7) {
			t.Errorf("%v: got delay %d, want 7", err, s)
		}
		if s, ok := err.(apierrors.APIStatus); !ok || s.Status().Details.RetryAfterSeconds != 7 {
			t.Errorf("got %#v, want details with 7 seconds", err)
		}
		if err := p.Remove(r.ID); err != nil {
			t.Error(err)
		}
	}
}

func TestSkipTimes(t *testing.T) {
	p, front := start(t, pod)
	pods := clientset(t, front, apiruntime.ContentTypeJSON).CoreV1().Pods("a")
	add(t, p, Rule{Verb: "delete", Status: 500})
	add(t, p, Rule{Verb: "get", Path: "/pods/p$", Skip: 1, Times: 2, Status: 503})
	add(t, p, Rule{ID: "last", Verb: "*", Times: 1, Status: 404})

	var got []string
	for range 5 {
		_, err := pods.Get(t.Context(), "p", metav1.GetOptions{})
		got = append(got, string(apierrors.ReasonForError(err)))
	}
	want := []string{"", "ServiceUnavailable", "ServiceUnavailable", "NotFound", ""}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reasons of the errors (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]RuleStatus{
		{Rule: Rule{ID: "1", Verb: "delete", Status: 500}},
		{Rule: Rule{ID: "2", Verb: "get", Path: "/pods/p$", Skip: 1, Times: 2, Status: 503}, Matched: 5, Applied: 2},
		{Rule: Rule{ID: "last", Verb: "*", Times: 1, Status: 404}, Matched: 2, Applied: 1},
	}, p.Rules()); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}

func TestLose(t *testing.T) {
	var creates atomic.Int32
	p, front := start(t, func(w http.ResponseWriter, r *http.Request) {
		creates.Add(1)
		pod(w, r)
	})
	pods := clientset(t, front, apiruntime.ContentTypeJSON).CoreV1().Pods("a")
	add(t, p, Rule{Verb: "create", Times: 1, Lose: true})

	_, err := pods.Create(t.Context(), new(corev1.Pod), metav1.CreateOptions{})
	if _, ok := err.(apierrors.APIStatus); err == nil || ok {
		t.Errorf("lost: got error %v, want that of a cut request", err)
	}
	if n := creates.Load(); n != 1 {
		t.Errorf("the API server saw %d requests, want 1", n)
	}
	if _, err := pods.Create(t.Context(), new(corev1.Pod), metav1.CreateOptions{}); err != nil {
		t.Errorf("after the rule was used up: %v", err)
	}
}

func TestHang(t *testing.T) {
	p, front := start(t, func(w http.ResponseWriter, r *http.Request) {
		t.Errorf("%s %s: forwarded", r.Method, r.URL)
	})
	for _, tt := range []struct {
		name string
		free func(Rule, context.CancelFunc)
	}{
		{"cleared", func(Rule, context.CancelFunc) { p.Clear() }},
		{"removed", func(r Rule, _ context.CancelFunc) { p.Remove(r.ID) }},
		{"client gone", func(_ Rule, cancel context.CancelFunc) { cancel() }},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		p.Clear()
		r := add(t, p, Rule{Hang: true, Delay: 1})
		failed := make(chan error)
		go func() {
			failed <- post(ctx, front.Client(), front.URL)
		}()
		applied(p, 1)
		tt.free(r, cancel)
		if err := <-failed; err == nil {
			t.Errorf("%s: got an answer, want none", tt.name)
		}
		cancel()
	}
}

// A client that goes away over HTTP/1.1 with the body of its request unread
// must not leave the request hanging.
func TestHangHTTP1(t *testing.T) {
	p := New(Config{Target: new(url.URL)})
	ended := make(chan bool)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer close(ended)
		p.ServeHTTP(w, r)
	}))
	defer front.Close()
	add(t, p, Rule{Hang: true})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		failed <- post(ctx, front.Client(), front.URL)
	}()
	applied(p, 1)
	cancel()
	if err := <-failed; err == nil {
		t.Error("got an answer, want none")
	}
	<-ended
}

// post creates what stands for a pod and returns why there was no answer.
func post(ctx context.Context, c *http.Client, base string) error {
	req, err := http.NewRequestWithContext(ctx, "POST", base+"/api/v1/namespaces/a/pods", strings.NewReader("body"))
	if err != nil {
		return err
	}
	res, err := c.Do(req)
	if err != nil {
		return err
	}
	return res.Body.Close()
}

func TestDelay(t *testing.T) {
	var bodies []string
	p, front := start(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		bodies = append(bodies, string(b))
	})
	add(t, p, Rule{Delay: 1})
	if err := post(t.Context(), front.Client(), front.URL); err != nil {
		t.Error(err)
	}
	p.Clear()

	r := add(t, p, Rule{Delay: Duration(time.Hour)})
	failed := make(chan error)
	go func() {
		failed <- post(t.Context(), front.Client(), front.URL)
	}()
	applied(p, 1)
	if err := p.Remove(r.ID); err != nil {
		t.Error(err)
	}
	if err := <-failed; err != nil {
		t.Errorf("released by the removal of its rule: %v", err)
	}
	if diff := cmp.Diff([]string{"body", "body"}, bodies); diff != "" {
		t.Errorf("bodies at the API server (-want +got):\n%s", diff)
	}
}

// added returns an event about a pod as the API server sends it.
func added(t *testing.T, mediaType string) []byte {
	info, ok := apiruntime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), mediaType)
	if !ok {
		t.Fatalf("no serializer for %s", mediaType)
	}
	var b bytes.Buffer
	e := restwatch.NewEncoder(
		streaming.NewEncoder(info.StreamSerializer.Framer.NewFrameWriter(&b), scheme.Codecs.EncoderForVersion(info.StreamSerializer.Serializer, corev1.SchemeGroupVersion)),
		scheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion))
	err := e.Encode(&apiwatch.Event{Type: apiwatch.Added, Object: &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Name:        "p",
		Annotations: map[string]string{"large": strings.Repeat("x", 100<<10)},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// oneAndAHalf serves a watch that stops in the middle of its second event.
func oneAndAHalf(t *testing.T, mediaType string) http.HandlerFunc {
	event := added(t, mediaType)
	if mediaType == apiruntime.ContentTypeProtobuf {
		mediaType += ";stream=watch"
	}
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.Write(event)
		w.Write(event[:len(event)/2])
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
}

func TestExpireWatches(t *testing.T) {
	for _, mediaType := range []string{apiruntime.ContentTypeJSON, apiruntime.ContentTypeProtobuf} {
		t.Run(mediaType, func(t *testing.T) {
			p, front := start(t, oneAndAHalf(t, mediaType))
			w, err := clientset(t, front, mediaType).CoreV1().Pods("a").Watch(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			defer w.Stop()
			if e := <-w.ResultChan(); e.Type != apiwatch.Added {
				t.Fatalf("got %+v, want an event of type ADDED", e)
			}
			if n := p.ExpireWatches(); n != 1 {
				t.Errorf("ExpireWatches() = %d, want 1", n)
			}
			if n := p.ExpireWatches(); n != 0 {
				t.Errorf("second ExpireWatches() = %d, want 0", n)
			}
			e := <-w.ResultChan()
			if err := apierrors.FromObject(e.Object); e.Type != apiwatch.Error || !apierrors.IsResourceExpired(err) {
				t.Errorf("got %+v, want an event of type ERROR with the reason Expired", e)
			}
			if e, ok := <-w.ResultChan(); ok {
				t.Errorf("got %+v after the last event", e)
			}
		})
	}
}

func TestDropWatches(t *testing.T) {
	for _, mediaType := range []string{apiruntime.ContentTypeJSON, apiruntime.ContentTypeProtobuf, "application/cbor-seq"} {
		t.Run(mediaType, func(t *testing.T) {
			api := func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", mediaType)
				http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}
			end := (*Proxy).DropWatches
			if mediaType == "application/cbor-seq" {
				end = (*Proxy).ExpireWatches
			} else {
				api = oneAndAHalf(t, mediaType)
			}
			p, front := start(t, api)
			client := front.Client().Transport.(*http.Transport)
			for _, transport := range []*http.Transport{client, http1(client)} {
				req, err := http.NewRequest("GET", front.URL+"/api/v1/pods?watch=true", nil)
				if err != nil {
					t.Fatal(err)
				}
				res, err := transport.RoundTrip(req)
				if err != nil {
					t.Fatal(err)
				}
				if n := end(p); n != 1 {
					t.Errorf("%s: %d watches ended, want 1", res.Proto, n)
				}
				if _, err := io.Copy(io.Discard, res.Body); err == nil {
					t.Errorf("%s: the watch ended as if complete, want it cut", res.Proto)
				}
				res.Body.Close()
			}
		})
	}
}

func TestUnansweredWatches(t *testing.T) {
	arrived := make(chan bool)
	p, front := start(t, func(w http.ResponseWriter, r *http.Request) {
		arrived <- true
		<-r.Context().Done()
	})
	c := clientset(t, front, apiruntime.ContentTypeJSON).CoreV1().RESTClient()
	for _, tt := range []struct {
		end  func() int
		want bool // an answer that says expired
	}{
		{p.ExpireWatches, true},
		{p.DropWatches, false},
	} {
		failed := make(chan error)
		go func() {
			failed <- c.Get().AbsPath("/api/v1/pods").Param("watch", "true").MaxRetries(0).Do(t.Context()).Error()
		}()
		<-arrived
		if n := tt.end(); n != 1 {
			t.Errorf("%d watches ended, want 1", n)
		}
		if err := <-failed; err == nil || apierrors.IsResourceExpired(err) != tt.want {
			t.Errorf("got %v, want expired %t", err, tt.want)
		}
	}
}

// A watch that ends by itself, and one that expires in the middle of an event,
// while the reader has seen only a part of the event before.
func TestStream(t *testing.T) {
	for mediaType, f := range formats {
		event := added(t, mediaType)
		half := event[:len(event)/2]
		for _, expire := range []bool{false, true} {
			w := new(watch)
			s := &stream{
				r:      bufio.NewReader(iotest.OneByteReader(io.MultiReader(bytes.NewReader(event), bytes.NewReader(half)))),
				watch:  w,
				format: f,
			}
			got := make([]byte, 3)
			if _, err := io.ReadFull(s, got); err != nil {
				t.Fatal(err)
			}
			want := string(event) + string(half)
			if expire {
				w.expired.Store(true)
				want = string(event) + string(f.expired())
			}
			rest, err := io.ReadAll(s)
			if err != nil {
				t.Error(err)
			}
			if got := string(got) + string(rest); got != want {
				t.Errorf("%s, expired %t: got %d bytes ending in %q\nwant %d bytes ending in %q", mediaType, expire,
					len(got), got[len(got)-100:], len(want), want[len(want)-100:])
			}
		}
	}
}

func TestControl(t *testing.T) {
	p := New(Config{})
	s := httptest.NewServer(p.Control())
	defer s.Close()
	c := &Client{URL: s.URL + "/"}
	ctx := t.Context()

	rule := Rule{
		ID: "a.b", Verb: "get,list", Path: "^/api/", Skip: 1, Times: 2, Delay: Duration(90 * time.Second),
		Status: 429, Message: "m", RetryAfter: 3,
	}
	if got, err := c.Add(ctx, rule); err != nil || got != rule {
		t.Errorf("Add(%+v) = %+v, %v", rule, got, err)
	}
	added, err := c.Add(ctx, Rule{Lose: true})
	if want := (Rule{ID: "1", Lose: true}); err != nil || added != want {
		t.Errorf("Add = %+v, %v, want %+v", added, err, want)
	}
	if _, err := c.Add(ctx, Rule{Verb: "x"}); err == nil || err.Error() != `POST /rules: verb "x": want * or some of `+strings.Join(verbs, ", ")+"\nno action: want delay, status, lose or hang" {
		t.Errorf("Add of a bad rule: %v", err)
	}
	got, err := c.Rules(ctx)
	if diff := cmp.Diff([]RuleStatus{{Rule: rule}, {Rule: added}}, got); err != nil || diff != "" {
		t.Errorf("Rules: %v (-want +got):\n%s", err, diff)
	}
	if err := c.Remove(ctx, "a.b"); err != nil {
		t.Error(err)
	}
	if err := c.Remove(ctx, "a.b"); err == nil || err.Error() != `DELETE /rules/a.b: id "a.b": no rule has it` {
		t.Errorf("Remove of no rule: %v", err)
	}
	if err := c.Clear(ctx); err != nil {
		t.Error(err)
	}
	if got, err := c.Rules(ctx); err != nil || got == nil || len(got) != 0 {
		t.Errorf("Rules after Clear = %v, %v", got, err)
	}
	if n, err := c.DropWatches(ctx); n != 0 || err != nil {
		t.Errorf("DropWatches() = %d, %v", n, err)
	}
	if n, err := c.ExpireWatches(ctx); n != 0 || err != nil {
		t.Errorf("ExpireWatches() = %d, %v", n, err)
	}

	for _, tt := range []struct{ in, want string }{
		{`{"hang": true, "times": 1, "tmes": 1}`, `decode rule: json: unknown field "tmes"`},
		{`{"delay": "soon"}`, `decode rule: time: invalid duration "soon"`},
		{`{"hang": true} {}`, "decode rule: more follows the first value: want one rule"},
		{``, "decode rule: EOF"},
	} {
		res, err := http.Post(s.URL+"/rules", "application/json", strings.NewReader(tt.in))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.TrimSpace(string(b)); res.StatusCode != http.StatusBadRequest || got != tt.want {
			t.Errorf("POST %s: got %s\n%s\nwant\n%s", tt.in, res.Status, got, tt.want)
		}
	}
}
