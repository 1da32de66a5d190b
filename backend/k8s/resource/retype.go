package resource

import (
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
)

// This file makes numbers and booleans of texts, where the API server wants
// them: a run-time value is text, replicas: "3" too.

// retype gives the manifest the types that the API server's schema has, and
// reports whether anything has changed. The text of a field that may be either
// ("80" for a port) becomes a number. An error means that nothing is known.
func (t *task) retype(ctx context.Context) bool {
	if t.once() {
		return false // its values have no path in the schema
	}
	var text []byte
	err := t.request(ctx, func(ctx context.Context) (err error) {
		text, err = t.rest.Get().AbsPath("/openapi/v3" + groupPath(t.kind.GroupVersion())).DoRaw(ctx)
		return err
	})
	var doc struct {
		Components struct{ Schemas map[string]*node }
	}
	if err != nil || json.Unmarshal(text, &doc) != nil {
		return false
	}
	for _, n := range doc.Components.Schemas {
		if slices.Contains(n.Kinds, groupVersionKind{t.kind.Group, t.kind.Version, t.kind.Kind}) {
			c := converter{schemas: doc.Components.Schemas}
			c.convert(n, t.body)
			return c.changed
		}
	}
	return false
}

// A node is what is used here of a schema of OpenAPI 3.
type node struct {
	Ref        string `json:"$ref"`
	Type       string
	Format     string
	AllOf      []*node
	Properties map[string]*node
	Items      *node
	Additional json.RawMessage    `json:"additionalProperties"` // a node, or true
	Either     bool               `json:"x-kubernetes-int-or-string"`
	Kinds      []groupVersionKind `json:"x-kubernetes-group-version-kind"`
}

type groupVersionKind struct{ Group, Version, Kind string }

// A converter converts a tree in place.
type converter struct {
	schemas map[string]*node
	changed bool
}

// convert returns the value as the node has it.
func (c *converter) convert(n *node, v any) any {
	for n != nil && (n.Ref != "" || len(n.AllOf) == 1) {
		if n.Ref != "" {
			n = c.schemas[strings.TrimPrefix(n.Ref, "#/components/schemas/")]
		} else {
			n = n.AllOf[0]
		}
	}
	if n == nil {
		return v
	}
	switch v := v.(type) {
	case map[string]any:
		for name, e := range v {
			child := n.Properties[name]
			if child == nil && len(n.Additional) > 0 && n.Additional[0] == '{' {
				child = &node{}
				if json.Unmarshal(n.Additional, child) != nil {
					continue
				}
			}
			v[name] = c.convert(child, e)
		}
	case []any:
		for i, e := range v {
			v[i] = c.convert(n.Items, e)
		}
	case string:
		if typed := n.parse(strings.TrimSpace(v)); typed != nil {
			c.changed = true
			return typed
		}
	}
	return v
}

// parse returns the text as the number or boolean that the node is, or nil.
func (n *node) parse(text string) any {
	switch {
	case n.Type == "integer" || n.Either || n.Format == "int-or-string":
		if i, err := strconv.ParseInt(text, 10, 64); err == nil {
			return i
		}
	case n.Type == "number":
		if json.Valid([]byte(text)) {
			if f, err := strconv.ParseFloat(text, 64); err == nil {
				return f
			}
		}
	case n.Type == "boolean" && (text == "true" || text == "True"): // True is how KFP writes it
		return true
	case n.Type == "boolean" && (text == "false" || text == "False"):
		return false
	}
	return nil
}
