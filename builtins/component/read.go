package component

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
)

// This file defines how a component's text is read.

const (
	maxDepth  = 100    // of lists and mappings in each other
	maxNodes  = 50_000 // that are looked at, those behind aliases each time
	maxFaults = 20     // that are reported
)

// Read reads the text of a component file. The error is Faults.
func Read(text []byte) (*Spec, error) {
	doc, err := parse(text)
	if err != nil {
		return nil, err
	}
	r := &reader{left: maxNodes}
	s := r.spec(doc, 0)
	if len(r.faults) > 0 {
		r.faults.sort()
		return nil, r.faults[:min(len(r.faults), maxFaults)]
	}
	sum := sha256.Sum256(bytes.ReplaceAll(text, []byte("\r\n"), []byte("\n")))
	s.Digest = hex.EncodeToString(sum[:])
	return s, nil
}

// parse returns the root of the only document of a text.
func parse(text []byte) (*yaml.Node, error) {
	switch {
	case bytes.HasPrefix(text, []byte("PK\x03\x04")):
		return nil, Faults{{Msg: "it is a zip file: want the component.yaml that it holds"}}
	case !utf8.Valid(text):
		return nil, Faults{{Msg: "the text is not in UTF-8"}}
	case dag.HasRefs(string(text)):
		return nil, Faults{{Msg: "the text holds characters that no component can hold (U+E000 or U+E001)"}}
	}
	d := yaml.NewDecoder(bytes.NewReader(text))
	var doc yaml.Node
	if err := d.Decode(&doc); errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0 {
		return nil, Faults{{Line: 1, Col: 1, Msg: "the text is empty: want a component"}}
	} else if err != nil {
		return nil, Faults{notYAML(err)}
	}
	var more yaml.Node
	if err := d.Decode(&more); err == nil {
		return nil, Faults{{Line: more.Line, Col: 1, Msg: "a second document begins here: want one component"}}
	} else if !errors.Is(err, io.EOF) {
		return nil, Faults{notYAML(err)}
	}
	return doc.Content[0], nil
}

var yamlLine = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^yaml: (?:line (\d+): )?(?s:(.*))$`) })

func notYAML(err error) *Fault {
	f := &Fault{Msg: err.Error()}
	if m := yamlLine().FindStringSubmatch(f.Msg); m != nil {
		f.Line, _ = strconv.Atoi(m[1])
		f.Msg = m[2]
	}
	f.Msg = "it is no YAML: " + f.Msg
	return f
}

// A reader collects what is wrong.
type reader struct {
	faults Faults
	left   int // nodes that may still be looked at
}

func (r *reader) fault(n *yaml.Node, format string, args ...any) *Fault {
	f := &Fault{Line: n.Line, Col: n.Column, Msg: fmt.Sprintf(format, args...)}
	r.faults = append(r.faults, f)
	return f
}

// resolve follows aliases; nil if there is too much to look at.
func (r *reader) resolve(n *yaml.Node, depth int) *yaml.Node {
	if r.left--; r.left == 0 {
		r.fault(n, "the component is too large: it holds more than %d values", maxNodes)
	} else if depth == maxDepth && r.left > 0 {
		r.left = -1
		r.fault(n, "lists and mappings are nested more than %d deep", maxDepth)
	}
	if r.left <= 0 || depth >= maxDepth {
		return nil
	}
	for n.Kind == yaml.AliasNode {
		n = n.Alias // that of an alias is none
	}
	return n
}

// An entry is one key of a mapping.
type entry struct {
	name  string
	key   *yaml.Node
	value *yaml.Node
}

// entries returns the entries of a mapping; what names it in messages.
func (r *reader) entries(n *yaml.Node, what string, depth int) []entry {
	if n = r.resolve(n, depth); n == nil {
		return nil
	}
	if n.Kind != yaml.MappingNode {
		r.fault(n, "%s is %s: want a mapping", what, kind(n))
		return nil
	}
	var own, merged []entry
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := r.resolve(n.Content[i], depth+1)
		switch {
		case key == nil:
			return nil
		case key.Kind != yaml.ScalarNode:
			r.fault(key, "a key of %s is %s: want text", what, kind(key))
		case key.Value == "<<" && key.Style == 0:
			sources := []*yaml.Node{n.Content[i+1]}
			if list := r.resolve(n.Content[i+1], depth+1); list == nil {
				return nil
			} else if list.Kind == yaml.SequenceNode {
				sources = list.Content
			}
			for _, source := range sources {
				merged = append(merged, r.entries(source, what, depth+1)...)
			}
		case seen[key.Value]:
			r.fault(key, "%q is given twice in %s", key.Value, what)
		default:
			seen[key.Value] = true
			own = append(own, entry{key.Value, key, n.Content[i+1]})
		}
	}
	for _, e := range merged {
		if !seen[e.name] {
			seen[e.name] = true
			own = append(own, e)
		}
	}
	return own
}

// fields is entries of a mapping that may hold only certain keys, by key. Those
// that are null are as if they were not there.
func (r *reader) fields(n *yaml.Node, what string, depth int, keys ...string) map[string]*yaml.Node {
	fields := map[string]*yaml.Node{}
	for _, e := range r.entries(n, what, depth) {
		if !slices.Contains(keys, e.name) {
			r.unknown(e, what, keys)
			continue
		}
		v := r.resolve(e.value, depth+1)
		if v == nil {
			return fields
		}
		if v.Kind != yaml.ScalarNode || scalar(v) != nil {
			fields[e.name] = v
		}
	}
	return fields
}

func (r *reader) unknown(e entry, what string, keys []string) {
	f := r.fault(e.key, "unknown key %q of %s", e.name, what)
	if len(r.faults) > maxFaults {
		return
	}
	if hint := spell.DidYouMean(e.name, keys); hint != "" {
		f.Msg += ": " + hint
		return
	}
	f.Hint = "its keys are " + strings.Join(keys, ", ")
	switch e.name {
	case "schemaVersion", "deploymentSpec", "pipelineInfo", "sdkVersion", "components", "root":
		f.Hint = "this is a compiled pipeline or component of KFP v2: want a component.yaml of KFP v1"
	case "apiVersion", "kind", "spec":
		f.Hint = "this is an object of Kubernetes: want a component.yaml of KFP v1, with  implementation: {container: {image: ..., command: [...]}}"
	}
}

// items returns the elements of a list.
func (r *reader) items(n *yaml.Node, what string, depth int) []*yaml.Node {
	if n == nil {
		return nil
	}
	if n = r.resolve(n, depth); n == nil {
		return nil
	}
	if n.Kind != yaml.SequenceNode {
		r.fault(n, "%s is %s: want a list", what, kind(n))
		return nil
	}
	var items []*yaml.Node
	for _, e := range n.Content {
		if e = r.resolve(e, depth+1); e == nil {
			return nil
		}
		items = append(items, e)
	}
	return items
}

// text returns a scalar that is text, "" for nil.
func (r *reader) text(n *yaml.Node, what string) string {
	if n == nil {
		return ""
	}
	if n.Kind == yaml.ScalarNode {
		if text, ok := scalar(n).(string); ok {
			if strings.Contains(text, "{{$.") {
				r.fault(n, "%s holds {{$. , a placeholder of KFP v2, which a component of v1 cannot have", what).Hint = "write  {inputValue: NAME}, {inputPath: NAME} or {outputPath: NAME}"
			}
			return text
		}
		r.fault(n, "%s is %s, which YAML takes for %s: want text", what, n.Value, kind(n)).Hint = "quote it:  " + strconv.Quote(n.Value)
		return ""
	}
	r.fault(n, "%s is %s: want text", what, kind(n))
	return ""
}

// flag returns a scalar that is true or false.
func (r *reader) flag(n *yaml.Node, what string) bool {
	if n == nil {
		return false
	}
	on, ok := scalar(n).(bool)
	if !ok || n.Kind != yaml.ScalarNode {
		r.fault(n, "%s is %s: want true or false", what, kind(n))
	}
	return on
}

// texts returns a mapping of names to texts.
func (r *reader) texts(n *yaml.Node, what string, depth int) []Text {
	if n == nil {
		return nil
	}
	var texts []Text
	for _, e := range r.entries(n, what, depth) {
		if v := r.resolve(e.value, depth+1); v != nil {
			texts = append(texts, Text{e.name, r.text(v, what+" "+e.name)})
		}
	}
	return texts
}

// kind says what a node is.
func kind(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch scalar(n).(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case int64, float64:
		return "a number"
	}
	return "text"
}

// tree returns a node as a JSON tree of package dag.
func (r *reader) tree(n *yaml.Node, depth int) any {
	if n = r.resolve(n, depth); n == nil {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		obj := dag.Object{}
		for _, e := range r.entries(n, "the mapping", depth) {
			obj = append(obj, dag.Member{Name: e.name, Value: r.tree(e.value, depth+1)})
		}
		return obj
	case yaml.SequenceNode:
		list := []any{}
		for _, e := range n.Content {
			list = append(list, r.tree(e, depth+1))
		}
		return list
	}
	return scalar(n)
}

// The forms of plain scalars in YAML 1.1, as PyYAML has them.
var (
	intForm = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^[-+]?(0b[01_]+|0[0-7_]+|0|[1-9][0-9_]*|0x[0-9a-fA-F_]+)$`)
	})
	floatForm = sync.OnceValue(func() *regexp.Regexp {
		return regexp.MustCompile(`^([-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+][0-9]+)?|[-+]?\.[0-9][0-9_]*([eE][-+][0-9]+)?)$`)
	})
)

// scalar returns the value of a scalar: nil, bool, int64, float64 or string.
func scalar(n *yaml.Node) any {
	if n.Kind != yaml.ScalarNode || n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) != 0 ||
		n.Style&yaml.TaggedStyle != 0 && n.ShortTag() == "!!str" {
		return n.Value
	}
	switch n.Value {
	case "", "~", "null", "Null", "NULL":
		return nil
	case "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON":
		return true
	case "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF":
		return false
	}
	plain := strings.ReplaceAll(n.Value, "_", "")
	if intForm().MatchString(n.Value) {
		if i, err := strconv.ParseInt(octal(plain), 0, 64); err == nil {
			return i
		}
	}
	if floatForm().MatchString(n.Value) {
		if f, err := strconv.ParseFloat(plain, 64); err == nil {
			return f
		}
	}
	return n.Value
}

// octal returns a number that begins with a zero in the form that Go reads.
func octal(digits string) string {
	sign, rest := "", digits
	if rest != "" && strings.ContainsRune("+-", rune(rest[0])) {
		sign, rest = rest[:1], rest[1:]
	}
	if len(rest) > 1 && rest[0] == '0' && '0' <= rest[1] && rest[1] <= '9' {
		rest = "0o" + rest[1:]
	}
	return sign + rest
}
