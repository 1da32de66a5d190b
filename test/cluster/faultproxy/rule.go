package faultproxy

// This file defines rules: what they say, what is wrong with them, and what
// they do to a request.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A Rule says which requests go wrong, and how. Of the rules that match a
// request the first that is not used up takes it, and no other is asked.
//
// At least one of Delay, Status, Lose and Hang must be set, and at most one of
// the last three. Delay comes first; with Hang it changes nothing.
//
// The Kubernetes client repeats some failed requests by itself: any that got a
// Retry-After with code 429 or 5xx, and reads that were cut over HTTP/1.1. A
// rule that is to be noticed there needs Times to be 0, or large enough.
type Rule struct {
	// ID names the rule: letters, digits, '.', '_' and '-'. The proxy gives
	// one to a rule without.
	ID string `json:"id,omitempty"`

	// Verb is a list, separated by commas, of the verbs that match: get, list,
	// watch, create, update, patch, delete, deletecollection, and connect for
	// exec, attach, portforward and proxy. Empty or "*" matches any verb, also
	// the HTTP methods other than GET on a path that is no resource.
	Verb string `json:"verb,omitempty"`

	// Path is a regular expression (RE2) that matches somewhere in the path of
	// the URL, without the query. Empty matches any path.
	Path string `json:"path,omitempty"`

	// Skip is how many matching requests the rule first lets through
	// untouched, by later rules too.
	Skip int `json:"skip,omitempty"`

	// Times is how many requests after those the rule applies to; 0 sets no
	// limit.
	Times int `json:"times,omitempty"`

	// Delay is how long a request waits before it is forwarded or answered.
	Delay Duration `json:"delay,omitempty"`

	// Status is a code from 400 to 599 that answers the request instead of the
	// API server. The body is the metav1.Status that the API server would send
	// with it; 410 has the reason Expired.
	Status int `json:"status,omitempty"`

	// Message replaces the message that goes with Status.
	Message string `json:"message,omitempty"`

	// RetryAfter is the number of seconds, told with Status, after which a
	// client should try again; 0 says nothing about it.
	RetryAfter int `json:"retryAfter,omitempty"`

	// Lose forwards the request, so that it has its effect, and cuts it when
	// the API server has answered.
	Lose bool `json:"lose,omitempty"`

	// Hang keeps the request from the API server and leaves it without an
	// answer until its client goes away or the rule is removed.
	Hang bool `json:"hang,omitempty"`
}

// RuleStatus is a rule and how often it was used.
type RuleStatus struct {
	Rule
	Matched int `json:"matched"` // requests that the rule matched, skipped ones and those after its last included
	Applied int `json:"applied"` // requests that the rule took
}

// Duration is a time.Duration that is written as in Go source: "1m30s".
type Duration time.Duration

// MarshalText writes d as a time.Duration prints.
func (d Duration) MarshalText() ([]byte, error) {
	return []byte(time.Duration(d).String()), nil
}

// UnmarshalText reads what time.ParseDuration reads.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	*d = Duration(v)
	return err
}

// verbs are the verbs that a rule can name.
var verbs = []string{"get", "list", "watch", "create", "update", "patch", "delete", "deletecollection", "connect"}

// idRE is narrow because an ID is a segment of a URL.
var idRE = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// A rule is a Rule in use.
type rule struct {
	Rule
	verbs   []string // nil matches any
	path    *regexp.Regexp
	removed chan struct{} // closed when the rule is removed

	// Guarded by the mutex of the proxy.
	matched, applied int
}

// compile checks a rule. The error joins all its faults.
func compile(r Rule) (*rule, error) {
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf(format, args...))
	}
	c := &rule{Rule: r, removed: make(chan struct{})}
	if r.ID != "" && !idRE.MatchString(r.ID) {
		fault("id %q: want letters, digits, '.', '_' and '-', with a letter or digit first", r.ID)
	}
	if r.Verb != "" && r.Verb != "*" {
		for v := range strings.SplitSeq(r.Verb, ",") {
			v = strings.TrimSpace(v)
			if !slices.Contains(verbs, v) {
				fault("verb %q: want * or some of %s", v, strings.Join(verbs, ", "))
			}
			c.verbs = append(c.verbs, v)
		}
	}
	var err error
	if c.path, err = regexp.Compile(r.Path); err != nil {
		fault("path %q: %w", r.Path, err)
	}
	for _, n := range []struct {
		name  string
		value int
	}{
		{"skip", r.Skip},
		{"times", r.Times},
		{"retryAfter", r.RetryAfter},
	} {
		if n.value < 0 {
			fault("%s %d: want 0 or more", n.name, n.value)
		}
	}
	if r.Delay < 0 {
		fault("delay %v: want 0s or more", time.Duration(r.Delay))
	}
	if r.Status != 0 && (r.Status < 400 || r.Status > 599) {
		fault("status %d: want a code from 400 to 599", r.Status)
	}
	if r.Status == 0 && r.Message != "" {
		fault("message %q: want a status with it", r.Message)
	}
	if r.Status == 0 && r.RetryAfter > 0 {
		fault("retryAfter %d: want a status with it", r.RetryAfter)
	}
	var ends []string
	if r.Status != 0 {
		ends = append(ends, "status")
	}
	if r.Lose {
		ends = append(ends, "lose")
	}
	if r.Hang {
		ends = append(ends, "hang")
	}
	if len(ends) > 1 {
		fault("%s: want only one of them", strings.Join(ends, " and "))
	}
	if len(ends) == 0 && r.Delay == 0 {
		fault("no action: want delay, status, lose or hang")
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return c, nil
}

// matches reports whether the rule is about such a request.
func (r *rule) matches(verb, path string) bool {
	return (r.verbs == nil || slices.Contains(r.verbs, verb)) && r.path.MatchString(path)
}

// hold returns when the request may go on, and cuts it if it never may.
func (r *rule) hold(req *http.Request) {
	if r.Delay == 0 && !r.Hang {
		return
	}
	// An HTTP/1.1 server learns that a client went away only once it has read
	// the body.
	body, err := io.ReadAll(req.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	req.Body = io.NopCloser(bytes.NewReader(body))

	var due <-chan time.Time
	if !r.Hang {
		due = time.After(time.Duration(r.Delay))
	}
	select {
	case <-due:
	case <-r.removed:
	case <-req.Context().Done():
		panic(http.ErrAbortHandler)
	}
	if r.Hang {
		panic(http.ErrAbortHandler)
	}
}

// answer returns what the API server would say to a request that it refuses
// with the code of the rule.
func (r *rule) answer(req request) *metav1.Status {
	var err *apierrors.StatusError
	switch r.Status {
	case http.StatusUnauthorized:
		err = apierrors.NewUnauthorized("Unauthorized")
	case http.StatusForbidden:
		what := fmt.Sprintf("path %q", req.path)
		if !req.resource.Empty() {
			what = fmt.Sprintf("resource %q in API group %q", req.resource.Resource, req.resource.Group)
		}
		err = apierrors.NewForbidden(req.resource, req.name, fmt.Errorf("cannot %s %s", req.verb, what))
	case http.StatusNotFound:
		if req.name == "" {
			err = generic(r.Status, req)
			break
		}
		err = apierrors.NewNotFound(req.resource, req.name)
	case http.StatusConflict:
		if req.verb == "create" {
			err = generic(r.Status, req) // AlreadyExists; the name is in the body
			break
		}
		err = apierrors.NewConflict(req.resource, req.name, errors.New("the object has been modified; please apply your changes to the latest version and try again"))
	case http.StatusGone:
		verb := "list"
		if req.verb == "watch" {
			verb = "watch"
		}
		err = tooOld(verb)
	case http.StatusTooManyRequests:
		err = apierrors.NewTooManyRequests("Too many requests, please try again later.", r.RetryAfter)
	case http.StatusInternalServerError:
		err = apierrors.NewInternalError(errors.New("a rule of the proxy failed the request"))
	case http.StatusServiceUnavailable:
		err = apierrors.NewServiceUnavailable("apiserver is shutting down")
	case http.StatusGatewayTimeout:
		err = apierrors.NewTimeoutError("request did not complete within the allotted timeout", r.RetryAfter)
	default:
		err = generic(r.Status, req)
	}
	s := typed(err)
	if r.Message != "" {
		s.Message = r.Message
	}
	if r.RetryAfter > 0 {
		if s.Details == nil {
			s.Details = new(metav1.StatusDetails)
		}
		s.Details.RetryAfterSeconds = int32(r.RetryAfter)
	}
	return s
}

// generic returns the error that stands for a code alone.
func generic(code int, req request) *apierrors.StatusError {
	return apierrors.NewGenericServerResponse(code, req.method, req.resource, req.name, http.StatusText(code), 0, false)
}

// tooOld returns the error about a watch or list that starts before the history
// that the API server still has.
func tooOld(verb string) *apierrors.StatusError {
	return apierrors.NewResourceExpired(fmt.Sprintf("The resourceVersion for the provided %s is too old.", verb))
}

// typed returns the status of an error as it is sent, with its kind.
func typed(err *apierrors.StatusError) *metav1.Status {
	s := err.Status()
	s.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	return &s
}

// reply writes a status as the answer to a request.
func reply(w http.ResponseWriter, s *metav1.Status) {
	w.Header().Set("Content-Type", "application/json")
	if s.Details != nil && s.Details.RetryAfterSeconds > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(s.Details.RetryAfterSeconds)))
	}
	w.WriteHeader(int(s.Code))
	json.NewEncoder(w).Encode(s)
}
