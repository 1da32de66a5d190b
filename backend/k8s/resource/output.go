package resource

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"k8s.io/client-go/util/jsonpath"
)

// This file takes the outputs of a step from its object.

// parsePath reads a path as kubectl has them: a template like "{.metadata.name}".
func parsePath(path string) (*jsonpath.JSONPath, error) {
	if !strings.Contains(path, "{") {
		return nil, fmt.Errorf("path %q has no braces", path)
	}
	p := jsonpath.New("output")
	if err := p.Parse(path); err != nil {
		return nil, fmt.Errorf("path %q: %w", path, err)
	}
	return p, nil
}

var errTooLong = errors.New("too long")

// outputs returns the outputs that an object has. An output that something
// uses must be there; one that nothing uses is empty if it is not, and shows no
// data of a Secret.
func (t *task) outputs(obj map[string]any) (map[string]string, error) {
	obj = without(obj, []string{"metadata", "managedFields"})
	texts := make(map[string]string, len(t.a.Outputs))
	for _, o := range t.a.Outputs {
		used := !o.File || o.Taken
		shown := obj
		if !used {
			shown = t.public(obj)
		}
		text, err := extract(o.JSONPath, shown)
		if err == nil && len(text) > t.cfg.MaxOutput {
			err = fmt.Errorf("%w: %d bytes, of at most %d", errTooLong, len(text), t.cfg.MaxOutput)
		}
		if err != nil && used {
			return nil, fmt.Errorf("output %q, %s of %s: %w", o.Name, o.JSONPath, t.what(), err)
		}
		if err != nil {
			text = ""
		}
		texts[o.Name] = text
	}
	return texts, nil
}

// extract returns what the path selects of an object. A whole object or list is
// JSON, as kubectl prints it.
func extract(path string, obj map[string]any) (string, error) {
	p, err := parsePath(path)
	if err != nil {
		return "", err
	}
	var b bytes.Buffer
	if err := p.Execute(&b, obj); err != nil {
		return "", err
	}
	return b.String(), nil
}
