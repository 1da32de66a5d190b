package resource

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/kfs-project/kfs/engine"
)

// This file tells apart what may go wrong with a request, and words it.

// status returns what the API server answered, or nil if it did not.
func status(err error) *metav1.Status {
	var s apierrors.APIStatus
	if !errors.As(err, &s) {
		return nil
	}
	found := s.Status()
	return &found
}

// temporary reports whether a request may be answered otherwise if it is made
// again.
func temporary(err error) bool {
	var e *end
	var u *unknownKind
	if err == nil || errors.Is(err, errStopped) || errors.As(err, &e) || errors.As(err, &u) {
		return false
	}
	s := status(err)
	switch {
	case s == nil: // no answer
		return true
	case overQuota(s):
		return true
	case wrongType(s):
		return false
	}
	switch s.Code {
	case http.StatusUnauthorized, http.StatusRequestTimeout, http.StatusGone, http.StatusTooManyRequests:
		return true
	case http.StatusConflict:
		return s.Reason == metav1.StatusReasonConflict
	}
	return s.Code >= 500
}

// unanswered reports whether a request may have been carried out, although it
// has come back with an error.
func unanswered(err error) bool {
	if s := status(err); s != nil {
		return s.Code >= 500 && !wrongType(s)
	}
	var op *net.OpError
	return !(errors.As(err, &op) && op.Op == "dial") // no connection, no request
}

// overQuota: the quota's admission answers with 403, and the number of objects
// may go down again.
func overQuota(s *metav1.Status) bool {
	return s.Code == http.StatusForbidden && strings.Contains(s.Message, "exceeded quota:")
}

// wrongType: what server-side apply finds wrong with the types and names of
// fields comes as a plain error (structuredmerge.go in apimachinery,
// util/managedfields), and so with 500, as does what is wrong with etcd.
func wrongType(s *metav1.Status) bool {
	return s.Code == http.StatusInternalServerError && s.Reason == "" && strings.HasPrefix(s.Message, "failed to ")
}

// refusesType reports whether the error may come from a field of another type.
func refusesType(err error) bool {
	s := status(err)
	return s != nil && (s.Code == http.StatusBadRequest || s.Code == http.StatusUnprocessableEntity || wrongType(s))
}

// managed reports whether other field managers have set the fields.
func managed(err error) bool {
	return apierrors.HasStatusCause(err, metav1.CauseTypeFieldManagerConflict)
}

func retryAfter(err error) time.Duration {
	seconds, _ := apierrors.SuggestsClientDelay(err)
	return time.Duration(seconds) * time.Second
}

// why says in a few words why a request is to be made again.
func (t *task) why(err error) string {
	if s := status(err); s != nil && t.secret() && !overQuota(s) {
		return fmt.Sprintf("the API server: error %d", s.Code)
	}
	return why(err)
}

func why(err error) string {
	s := status(err)
	var u *url.Error
	switch {
	case s == nil && errors.Is(err, context.DeadlineExceeded):
		return "the API server does not answer"
	case s == nil && errors.As(err, &u): // the URL says nothing new
		return "the API server cannot be reached: " + shorten(u.Err.Error(), 300)
	case s == nil:
		return shorten(err.Error(), 300)
	case overQuota(s):
		return s.Message[strings.Index(s.Message, "exceeded quota:"):]
	case s.Code == http.StatusTooManyRequests:
		return "the API server is busy"
	}
	return "the API server: " + shorten(s.Message, 300)
}

// refused returns the end of an attempt whose request was refused; an error
// that is no refusal is returned as it is.
func (t *task) refused(verb string, err error) error {
	s := status(err)
	if s == nil {
		return err
	}
	e := &end{cause: engine.CannotRun}
	switch action := t.action(); {
	case s.Code == http.StatusForbidden && strings.Contains(s.Message, " cannot "):
		a := t.access()
		e.reason = "may not " + verb + " " + a.what()
		if action == verb || action == "" {
			e.reason += ": forbidden"
		} else {
			e.reason += ", to " + action + " " + t.what() + ": forbidden"
		}
		e.message = s.Message + "\nwhat the step needs:\n" + a.Role()
	case apierrors.HasStatusCause(err, "NamespaceTerminating"):
		e.reason = fmt.Sprintf("namespace %q is being deleted", t.namespace)
	case s.Code == http.StatusNotFound && s.Details != nil && s.Details.Kind == "namespaces":
		e.reason = fmt.Sprintf("namespace %q does not exist", t.namespace)
	case s.Code == http.StatusNotFound && !apierrors.IsUnexpectedServerError(err):
		e.reason = fmt.Sprintf("%s is not there", t.what())
		e.message = "the action apply makes what is not there"
	case s.Code == http.StatusUnsupportedMediaType && action == "patch":
		e.reason = fmt.Sprintf("%s cannot be patched by merge strategy %q: its kind is not one of Kubernetes' own", t.what(), "strategic")
		e.message = `merge_strategy = "merge" works for all kinds`
	case managed(err):
		e.reason = fmt.Sprintf("%s has fields that others manage: %s", t.what(), t.detail(s))
		e.message = "the flag --force-conflicts takes them over"
	default:
		e.reason = fmt.Sprintf("the API server refuses %s: %s", t.what(), t.detail(s))
	}
	return e
}

// action returns the action of the attempt, or "" if it is being ended.
func (t *task) action() string {
	if t.a.Resource == nil {
		return ""
	}
	return t.a.Resource.Action
}

// detail says what the API server has found wrong: of a Secret only where.
func (t *task) detail(s *metav1.Status) string {
	var parts []string
	if s.Details != nil {
		for _, c := range s.Details.Causes {
			switch message := brief(c.Message); {
			case t.secret() && c.Field != "":
				parts = append(parts, c.Field)
			case t.secret():
			case c.Field == "" || c.Field == "patch":
				parts = append(parts, message)
			default:
				parts = append(parts, c.Field+": "+message)
			}
		}
	}
	if len(parts) == 0 && t.secret() {
		return string(s.Reason)
	}
	if len(parts) == 0 {
		parts = []string{brief(s.Message)}
	}
	return shorten(strings.Join(parts, "; "), 500)
}

// brief leaves out the value in "Invalid value: VALUE: what is wrong with it"
// if it is long: it may be the whole object.
func brief(message string) string {
	const most = 200
	value := max(strings.LastIndex(message, `": `), strings.LastIndex(message, `}: `)) // where it ends
	if len(message) > most && strings.Contains(message, "Invalid value: ") && value > 0 {
		return message[value+3:]
	}
	return message
}

// shorten cuts a text to n bytes.
func shorten(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "") + "..."
}
