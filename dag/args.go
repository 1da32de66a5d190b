package dag

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kfs-project/kfs/internal/spell"
)

// This file defines which values the params of a pipeline take.

// Args returns the values of a run's params: the given ones, checked against
// their types, and the defaults of the others. The faults are all reported
// together: names that the pipeline does not have, values of another type,
// required params without a value. A default may hold tokens of the run's id
// and name.
func (p *Pipeline) Args(given map[string]string) (map[string]string, error) {
	args, err := p.CheckArgs(given)
	faults := Faults(err)
	for _, q := range p.Params {
		if _, ok := given[q.Name]; ok {
			continue
		}
		if q.Default == nil {
			faults = append(faults, &Error{
				Pos:  q.Pos,
				Msg:  fmt.Sprintf("param %q of pipeline %q is required and has no value", q.Name, p.Name),
				Hint: fmt.Sprintf("give one with  -p %s=VALUE  or in --params-file", q.Name),
			})
			continue
		}
		args[q.Name] = *q.Default
	}
	return args, faults.Err()
}

// CheckArgs is Args without the defaults: only what is given is checked and
// returned.
func (p *Pipeline) CheckArgs(given map[string]string) (map[string]string, error) {
	args := make(map[string]string, len(p.Params))
	var faults Errors
	var names []string
	for _, q := range p.Params {
		names = append(names, q.Name)
		value, ok := given[q.Name]
		if !ok {
			continue
		}
		value, err := q.Parse(value)
		if err != nil {
			faults = append(faults, &Error{Pos: q.Pos, Msg: err.Error()})
		}
		args[q.Name] = value
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if p.Param(name) == nil {
			hint := spell.DidYouMean(name, names)
			if hint == "" && len(names) > 0 {
				hint = "its params are " + strings.Join(names, ", ")
			}
			faults = append(faults, &Error{Msg: fmt.Sprintf("pipeline %q has no param %q", p.Name, name), Hint: hint})
		}
	}
	return args, faults.Err()
}

// Parse returns value as the param holds it, or an error if it does not fit
// the param's type: a Bool becomes True or False, JSON and the rest stay as
// written. A type of the author's own accepts any text. To KFP lists and dicts
// are one kind of JSON: a param of either type whose default is of the other
// takes both.
func (q *Param) Parse(value string) (string, error) {
	kind := q.Type
	if kind == "" {
		kind = q.Inferred
	}
	if HasRefs(value) {
		return "", fmt.Errorf("param %q: its value holds U+E000 or U+E001, which stand for values of the run", q.Name)
	}
	wrong := func(want string) (string, error) {
		return "", fmt.Errorf("param %q is of type %s: %q is not %s", q.Name, kind, value, want)
	}
	switch kind {
	case "Integer":
		if _, err := strconv.ParseInt(strings.TrimSpace(value), 10, 64); err != nil {
			return wrong("a whole number")
		}
	case "Float":
		// ParseFloat reads hexadecimal numbers too; Python's float does not.
		if _, err := strconv.ParseFloat(strings.TrimSpace(value), 64); err != nil || strings.ContainsAny(value, "xX") {
			return wrong("a number")
		}
	case "Bool", "Boolean":
		switch strings.ToLower(strings.TrimSpace(value)) {
		case "true":
			return "True", nil
		case "false":
			return "False", nil
		}
		return wrong("true or false")
	case "JsonArray", "List":
		if is := jsonKind(value); is != "JsonArray" && (is == "" || is != q.Inferred) {
			return wrong("a JSON list")
		}
	case "JsonObject", "Dict":
		if is := jsonKind(value); is != "JsonObject" && (is == "" || is != q.Inferred) {
			return wrong("a JSON object")
		}
	}
	return value, nil
}

// jsonKind returns JsonArray or JsonObject for text that is one, "" for other
// text.
func jsonKind(text string) string {
	var v any
	if json.Unmarshal([]byte(text), &v) != nil {
		return ""
	}
	switch v.(type) {
	case []any:
		return "JsonArray"
	case map[string]any:
		return "JsonObject"
	}
	return ""
}

// ParseBackoff returns the duration that a Retry's backoff means: a number of
// seconds, or one with a unit ("90s", "2m", "1h30m"); "" is 0.
func ParseBackoff(text string) (time.Duration, error) {
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if n, numErr := strconv.ParseFloat(text, 64); numErr == nil && math.Abs(n) < math.MaxInt64/float64(time.Second) {
		d, err = time.Duration(n*float64(time.Second)), nil
	}
	if err != nil || d < 0 {
		return 0, fmt.Errorf(`backoff %q: want seconds or a duration like "2m"`, Display(text))
	}
	return d, nil
}
