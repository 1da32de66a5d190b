// Package faultproxy is an HTTP proxy that stands in front of a Kubernetes API
// server in tests and makes chosen requests go wrong: it delays them, fails
// them, loses their answers or lets them hang, and it ends watches on demand.
//
// A [Proxy] is an [http.Handler] for the API. It forwards every request, also
// those that upgrade their connection (exec, attach, port-forward), unless a
// [Rule] matches it. Rules are added and removed in the same process, or from
// elsewhere by a [Client] of the handler that [Proxy.Control] returns:
//
//	p := faultproxy.New(faultproxy.Config{Target: api, Transport: transport})
//	go http.ServeTLS(apiListener, p, certFile, keyFile)
//	go http.Serve(controlListener, p.Control())
//
//	p.Add(faultproxy.Rule{Verb: "create", Path: "/pods$", Times: 1, Lose: true})
//	p.ExpireWatches()
//
// The proxy authenticates nobody. It passes on what a request carries, such as
// a bearer token; a client certificate ends at the proxy's own TLS server.
//
// To cut a request is to end it without an answer. Over HTTP/1.1 that closes
// the client's connection; over HTTP/2 it resets the request's stream, and the
// other streams of the connection go on.
package faultproxy

import (
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httputil"
	"net/url"
	"slices"
	"strconv"
	"sync"
)

// Config says what a Proxy stands in front of.
type Config struct {
	// Target is the URL of the API server. It must be set.
	Target *url.URL

	// Transport carries the requests to the API server; nil means
	// http.DefaultTransport. Requests that upgrade their connection need
	// HTTP/1.1: an *http.Transport is copied for them and restricted to it,
	// and any other RoundTripper must see to it by itself.
	Transport http.RoundTripper

	// ErrorLog is told why a request could not be forwarded, which its client
	// is not; nil means the log package's standard logger.
	ErrorLog *log.Logger
}

// A Proxy forwards the requests of an API server's clients, except where a rule
// says otherwise. Its methods may be called at any time from any goroutine.
type Proxy struct {
	target    *url.URL
	transport http.RoundTripper
	upgrade   http.RoundTripper
	errorLog  *log.Logger

	mu      sync.Mutex
	rules   []*rule
	lastID  int
	watches map[*watch]bool
}

// New returns a Proxy without rules.
func New(c Config) *Proxy {
	p := &Proxy{
		target:    c.Target,
		transport: c.Transport,
		errorLog:  c.ErrorLog,
		watches:   make(map[*watch]bool),
	}
	if p.transport == nil {
		p.transport = http.DefaultTransport
	}
	if p.errorLog == nil {
		p.errorLog = log.Default()
	}
	p.upgrade = p.transport
	if t, ok := p.transport.(*http.Transport); ok {
		p.upgrade = http1(t)
	}
	return p
}

// http1 returns a copy of t that speaks HTTP/1.1 only.
func http1(t *http.Transport) *http.Transport {
	t = t.Clone()
	t.DisableKeepAlives = true // an upgraded connection is used once
	t.Protocols = new(http.Protocols)
	t.Protocols.SetHTTP1(true)
	if t.TLSClientConfig != nil {
		t.TLSClientConfig.NextProtos = nil
	}
	return t
}

// Add appends a rule to those of the proxy and returns it with its ID. The
// error joins all that is wrong with the rule, one fault a line.
func (p *Proxy) Add(r Rule) (Rule, error) {
	c, err := compile(r)
	if err != nil {
		return Rule{}, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for c.ID == "" {
		p.lastID++
		if id := strconv.Itoa(p.lastID); p.index(id) < 0 {
			c.ID = id
		}
	}
	if p.index(c.ID) >= 0 {
		return Rule{}, fmt.Errorf("id %q: a rule has it already", c.ID)
	}
	p.rules = append(p.rules, c)
	return c.Rule, nil
}

// Remove removes a rule. Requests that the rule delays go on at once, to its
// Status or Lose if it has one, and those that it lets hang are cut. The error
// is about an ID that no rule has.
func (p *Proxy) Remove(id string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	i := p.index(id)
	if i < 0 {
		return fmt.Errorf("id %q: no rule has it", id)
	}
	close(p.rules[i].removed)
	p.rules = slices.Delete(p.rules, i, i+1)
	return nil
}

// Clear removes all rules, as Remove does. Call it before the Shutdown of the
// server that serves the proxy, which waits for the requests that hang.
func (p *Proxy) Clear() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.rules {
		close(r.removed)
	}
	p.rules = nil
}

// Rules returns the rules in the order in which they are asked.
func (p *Proxy) Rules() []RuleStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := make([]RuleStatus, len(p.rules))
	for i, r := range p.rules {
		s[i] = RuleStatus{Rule: r.Rule, Matched: r.matched, Applied: r.applied}
	}
	return s
}

// index returns the place of a rule among the rules, or -1.
func (p *Proxy) index(id string) int {
	return slices.IndexFunc(p.rules, func(r *rule) bool { return r.ID == id })
}

// take returns the rule that a request falls under and counts the request. A
// request that goes through untouched gets a rule that does nothing.
func (p *Proxy) take(verb, path string) *rule {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, r := range p.rules {
		if !r.matches(verb, path) {
			continue
		}
		r.matched++
		if r.matched <= r.Skip {
			break
		}
		if r.Times == 0 || r.applied < r.Times {
			r.applied++
			return r
		}
	}
	return new(rule)
}

// ServeHTTP answers a request as the API server does, or as a rule says. A
// request that cannot be forwarded is cut, because that is what a client sees
// of an API server that is gone.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	req := parse(r)
	ru := p.take(req.verb, r.URL.Path)
	ru.hold(r)
	switch {
	case ru.Status != 0:
		reply(w, ru.answer(req))
	case ru.Lose:
		p.forward(w, r, func(*http.Response) error { return errLost }, cut)
	case req.verb == "watch":
		p.serveWatch(w, r)
	default:
		p.forward(w, r, nil, cut)
	}
}

// errLost stands for an answer that came and is not passed on.
var errLost = errors.New("answer lost")

// cut ends the request that is being served without an answer.
func cut(http.ResponseWriter) { panic(http.ErrAbortHandler) }

// forward sends a request to the API server and passes on the answer, after
// modify if that is not nil. If there is no answer to pass on, or modify returns
// an error, it calls fail.
func (p *Proxy) forward(w http.ResponseWriter, r *http.Request, modify func(*http.Response) error, fail func(http.ResponseWriter)) {
	transport := p.transport
	if r.Header.Get("Upgrade") != "" {
		transport = p.upgrade
	}
	rp := httputil.ReverseProxy{
		Transport:      transport,
		FlushInterval:  -1,
		ErrorLog:       p.errorLog,
		ModifyResponse: modify,
		Rewrite: func(pr *httputil.ProxyRequest) {
			// A malformed query is for the API server to judge.
			pr.Out.URL.RawQuery = pr.In.URL.RawQuery
			pr.SetURL(p.target)
			// Without the header the transport would ask for gzip and
			// unpack what it gets.
			if pr.In.Header.Get("Accept-Encoding") == "" {
				pr.Out.Header.Set("Accept-Encoding", "identity")
			}
		},
		ErrorHandler: func(w http.ResponseWriter, r *http.Request, err error) {
			if err != errLost && r.Context().Err() == nil {
				p.errorLog.Printf("forward %s %s: %v", r.Method, r.URL.Path, err)
			}
			fail(w)
		},
	}
	rp.ServeHTTP(w, r)
}
