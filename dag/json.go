package dag

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// This file writes and reads pipelines as JSON, and writes JSON as Python does.

// jsonVersion is the version of the JSON form of a Pipeline.
const jsonVersion = 1

// plain has the fields of a Pipeline and none of its methods.
type plain Pipeline

// MarshalJSON writes the pipeline as one object: "version", then the fields.
func (p *Pipeline) MarshalJSON() ([]byte, error) {
	return marshal(struct {
		Version int `json:"version"`
		*plain
	}{jsonVersion, (*plain)(p)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (p *Pipeline) UnmarshalJSON(data []byte) error {
	v := struct {
		Version int `json:"version"`
		*plain
	}{plain: (*plain)(p)}
	if err := json.Unmarshal(data, &v); err != nil {
		return fmt.Errorf("read pipeline: %w", err)
	}
	if v.Version != jsonVersion {
		return fmt.Errorf("read pipeline: version %d: want %d", v.Version, jsonVersion)
	}
	return nil
}

// plainLoop has the fields of a Loop and none of its methods.
type plainLoop Loop

// MarshalJSON writes the items as Object.MarshalJSON writes trees.
func (l *Loop) MarshalJSON() ([]byte, error) {
	var items bytes.Buffer
	if l.Items != nil {
		if err := encodeValue(&items, l.Items); err != nil {
			return nil, err
		}
	}
	return marshal(struct {
		Items json.RawMessage `json:"items,omitempty"`
		*plainLoop
	}{items.Bytes(), (*plainLoop)(l)})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (l *Loop) UnmarshalJSON(data []byte) error {
	v := struct {
		Items json.RawMessage `json:"items"`
		*plainLoop
	}{plainLoop: (*plainLoop)(l)}
	if err := json.Unmarshal(data, &v); err != nil || v.Items == nil {
		return err
	}
	tree, err := decodeTree(v.Items)
	l.Items, _ = tree.([]any)
	return err
}

// JSON returns the pipeline as indented JSON with a final newline. Tokens are
// written as \ue000...\ue001, so that a reader sees them.
func (p *Pipeline) JSON() ([]byte, error) {
	text, err := marshal(p)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	if err := json.Indent(&b, text, "", "  "); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	out := bytes.ReplaceAll(b.Bytes(), []byte(string(tokenOpen)), []byte(`\ue000`))
	return bytes.ReplaceAll(out, []byte(string(tokenClose)), []byte(`\ue001`)), nil
}

// PythonJSON returns what Python's json.dumps(v, sort_keys=True) returns: a
// space behind each comma and colon, and only ASCII. Tokens stay whole.
func PythonJSON(v any) string {
	var b strings.Builder
	pythonJSON(&b, v)
	return b.String()
}

func pythonJSON(b *strings.Builder, v any) {
	switch v := v.(type) {
	case nil:
		b.WriteString("null")
	case bool:
		b.WriteString(strconv.FormatBool(v))
	case int64:
		b.WriteString(strconv.FormatInt(v, 10))
	case int:
		b.WriteString(strconv.Itoa(v))
	case float64:
		switch {
		case math.IsNaN(v):
			b.WriteString("NaN")
		case math.IsInf(v, 1):
			b.WriteString("Infinity")
		case math.IsInf(v, -1):
			b.WriteString("-Infinity")
		default:
			b.WriteString(PythonFloat(v))
		}
	case string:
		pythonQuote(b, v)
	case []any:
		b.WriteByte('[')
		for i, e := range v {
			if i > 0 {
				b.WriteString(", ")
			}
			pythonJSON(b, e)
		}
		b.WriteByte(']')
	case Object:
		b.WriteByte('{')
		for i, m := range v.Sorted() {
			if i > 0 {
				b.WriteString(", ")
			}
			pythonQuote(b, m.Name)
			b.WriteString(": ")
			pythonJSON(b, m.Value)
		}
		b.WriteByte('}')
	default:
		panic(fmt.Sprintf("dag: PythonJSON of a %T", v))
	}
}

func pythonQuote(b *strings.Builder, s string) {
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\b':
			b.WriteString(`\b`)
		case r == '\f':
			b.WriteString(`\f`)
		case r >= ' ' && r <= '~', r == tokenOpen, r == tokenClose:
			b.WriteRune(r)
		case r > 0xffff:
			hi, lo := utf16.EncodeRune(r)
			fmt.Fprintf(b, `\u%04x\u%04x`, hi, lo)
		default:
			fmt.Fprintf(b, `\u%04x`, r)
		}
	}
	b.WriteByte('"')
}

// PythonFloat returns what Python's repr of a float returns: the shortest
// digits that read back the same, with an exponent below 1e-4 and from 1e16.
func PythonFloat(f float64) string {
	switch {
	case math.IsNaN(f):
		return "nan"
	case math.IsInf(f, 1):
		return "inf"
	case math.IsInf(f, -1):
		return "-inf"
	}
	digits := strconv.FormatFloat(f, 'e', -1, 64)
	mantissa, exp, _ := strings.Cut(digits, "e")
	if e, _ := strconv.Atoi(exp); e < -4 || e >= 16 {
		return fmt.Sprintf("%se%c%02d", mantissa, exp[0], max(e, -e))
	}
	s := strconv.FormatFloat(f, 'f', -1, 64)
	if !slices.Contains([]byte(s), '.') {
		s += ".0"
	}
	return s
}
