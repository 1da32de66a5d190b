package resource

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
)

// This file defines the conditions of a step, over the fields of its object.

// A condition is a list of requirements as a label selector has them, with
// paths into the object in place of labels:
//
//	status.succeeded > 0, status.phase in (Bound, Ready), status.conditions.0.type == Complete
//
// The form is Argo's (matchConditions in argo-workflows,
// workflow/executor/resource.go). Parts of a path stand between dots: the name
// of a member, or the number of an element of a list.
type condition struct {
	text         string
	requirements labels.Requirements
}

func parseCondition(text string) (condition, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return condition{}, nil
	}
	selector, err := labels.Parse(text)
	if err != nil {
		return condition{}, fmt.Errorf("%q: %w", text, err)
	}
	requirements, _ := selector.Requirements()
	return condition{text, requirements}, nil
}

func (c condition) given() bool { return len(c.requirements) > 0 }

// holds reports whether the object meets all requirements.
func (c condition) holds(f object) bool {
	return !slices.ContainsFunc(c.requirements, func(req labels.Requirement) bool { return !req.Matches(f) })
}

// fields returns the paths of the condition.
func (c condition) fields() []string {
	var paths []string
	for _, req := range c.requirements {
		if !slices.Contains(paths, req.Key()) {
			paths = append(paths, req.Key())
		}
	}
	return paths
}

// An object is an object's fields, as the labels of a selector.
type object map[string]any

var _ labels.Labels = object(nil)

// Has reports whether the field is there, null too.
func (o object) Has(path string) bool {
	_, ok := o.find(path)
	return ok
}

// Get returns the field as text: an object or list as JSON, null as "".
func (o object) Get(path string) string {
	text, _ := o.Lookup(path)
	return text
}

// Lookup returns the field as text, and whether it is there.
func (o object) Lookup(path string) (string, bool) {
	v, ok := o.find(path)
	switch v := v.(type) {
	case nil:
		return "", ok
	case string:
		return v, true
	case float64:
		return strconv.FormatFloat(v, 'f', -1, 64), true
	}
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // it was JSON
	}
	return string(text), true
}

func (o object) find(path string) (any, bool) {
	var v any = map[string]any(o)
	for part := range strings.SplitSeq(path, ".") {
		switch in := v.(type) {
		case map[string]any:
			e, ok := in[part]
			if !ok {
				return nil, false
			}
			v = e
		case []any:
			i, err := strconv.Atoi(part)
			if err != nil || i < 0 || i >= len(in) {
				return nil, false
			}
			v = in[i]
		default:
			return nil, false
		}
	}
	return v, true
}

// values shows the fields of the paths, or if the object has none of them what
// its status tells: ": status.active=1".
func values(f object, paths []string) string {
	var shown []string
	for _, path := range paths {
		if text, ok := f.Lookup(path); ok {
			shown = append(shown, path+"="+shorten(text, 60))
		}
	}
	if shown == nil {
		return state(f)
	}
	return ": " + strings.Join(shown, ", ")
}

// state shows the numbers and short texts of the object's status, and its
// latest condition.
func state(f object) string {
	const most = 4
	fields, _ := f["status"].(map[string]any)
	var shown []string
	for name, v := range fields {
		switch v.(type) {
		case string, bool, int64, float64:
			if text := f.Get("status." + name); len(text) < len("2006-01-02T15:04:05Z") { // times are no news
				shown = append(shown, "status."+name+"="+text)
			}
		}
	}
	slices.Sort(shown)
	shown = shown[:min(len(shown), most)]
	var latest conditionOf
	for _, c := range conditions(f) {
		if c.status == "True" && c.at >= latest.at {
			latest = c
		}
	}
	if latest.name != "" {
		shown = append(shown, latest.name)
	}
	if shown == nil {
		return ""
	}
	return ": " + strings.Join(shown, ", ")
}

// A conditionOf is an element of status.conditions.
type conditionOf struct{ name, status, reason, message, at string }

func conditions(f object) []conditionOf {
	list, _, _ := unstructured.NestedSlice(f, "status", "conditions")
	var found []conditionOf
	for _, e := range list {
		if m, ok := e.(map[string]any); ok {
			c := object(m)
			found = append(found, conditionOf{c.Get("type"), c.Get("status"), c.Get("reason"), c.Get("message"), c.Get("lastTransitionTime")})
		}
	}
	return found
}
