// Package yaml writes JSON trees of package dag as YAML in plain block style.
// Reading is left to sigs.k8s.io/yaml.
//
// The writer keeps the order of members, quotes each string that a reader of
// YAML 1.1 or 1.2 could take for something else, and writes text of several
// lines as a literal block. A Workflow of 100,000 steps takes it about a
// thirtieth of the time of a general library.
package yaml

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/kfs-project/kfs/dag"
)

// Append appends the tree to b as a YAML document.
func Append(b []byte, v any) []byte {
	w := writer{b}
	switch v := v.(type) {
	case dag.Object:
		if len(v) > 0 {
			w.object(v, 0)
			return w.b
		}
	case []any:
		if len(v) > 0 {
			w.list(v, 0)
			return w.b
		}
	}
	w.scalar(v, 2) // lines of a block at 0 could be taken for the document's end
	return append(w.b, '\n')
}

type writer struct{ b []byte }

func (w *writer) indent(n int) {
	for range n {
		w.b = append(w.b, ' ')
	}
}

// object writes the members at the indent; the first one stands where the
// writer is.
func (w *writer) object(o dag.Object, indent int) {
	for i, m := range o {
		if i > 0 {
			w.indent(indent)
		}
		w.name(m.Name, indent)
		w.b = append(w.b, ':')
		w.value(m.Value, indent, indent)
	}
}

// name writes the name of a member; YAML wants a question mark before one of
// more than 1024 characters.
func (w *writer) name(s string, indent int) {
	start := len(w.b)
	w.text(s, indent, false)
	if len(w.b)-start > 1024 {
		w.b = slices.Insert(w.b, start, '?', ' ')
		w.b = append(w.b, '\n')
		w.indent(indent)
	}
}

func (w *writer) list(list []any, indent int) {
	for i, v := range list {
		if i > 0 {
			w.indent(indent)
		}
		w.b = append(w.b, '-')
		switch v := v.(type) {
		case dag.Object:
			if len(v) > 0 {
				w.b = append(w.b, ' ')
				w.object(v, indent+2)
				continue
			}
		case []any:
			if len(v) > 0 {
				w.b = append(w.b, ' ')
				w.list(v, indent+2)
				continue
			}
		}
		w.b = append(w.b, ' ')
		w.scalar(v, indent+2)
		w.b = append(w.b, '\n')
	}
}

// value writes what stands behind a name: a list keeps the indent of its name.
func (w *writer) value(v any, indent, listIndent int) {
	switch v := v.(type) {
	case dag.Object:
		if len(v) > 0 {
			w.b = append(w.b, '\n')
			w.indent(indent + 2)
			w.object(v, indent+2)
			return
		}
	case []any:
		if len(v) > 0 {
			w.b = append(w.b, '\n')
			w.indent(listIndent)
			w.list(v, listIndent)
			return
		}
	}
	w.b = append(w.b, ' ')
	w.scalar(v, indent+2)
	w.b = append(w.b, '\n')
}

// scalar writes a value that has no members; the lines of a literal block
// stand at the indent.
func (w *writer) scalar(v any, indent int) {
	switch v := v.(type) {
	case nil:
		w.b = append(w.b, "null"...)
	case bool:
		w.b = strconv.AppendBool(w.b, v)
	case int:
		w.b = strconv.AppendInt(w.b, int64(v), 10)
	case int64:
		w.b = strconv.AppendInt(w.b, v, 10)
	case float64:
		w.b = append(w.b, float(v)...)
	case string:
		w.text(v, indent, true)
	case dag.Object:
		w.b = append(w.b, "{}"...)
	case []any:
		w.b = append(w.b, "[]"...)
	default:
		panic(fmt.Sprintf("yaml: cannot write a %T", v))
	}
}

func float(f float64) string {
	switch s := dag.PythonFloat(f); s {
	case "nan", "inf":
		return "." + s
	case "-inf":
		return "-.inf"
	default:
		if !strings.Contains(s, ".") {
			s = strings.Replace(s, "e", ".0e", 1) // YAML 1.1 has no float without a point
		}
		return s
	}
}

func (w *writer) text(s string, indent int, block bool) {
	switch {
	case isPlain(s):
		w.b = append(w.b, s...)
	case block && isBlock(s):
		w.block(s, indent)
	case isPrintable(s):
		w.b = append(w.b, '\'')
		w.b = append(w.b, strings.ReplaceAll(s, "'", "''")...)
		w.b = append(w.b, '\'')
	default:
		w.quote(s)
	}
}

// block writes text of several lines as a literal block, without the last
// line's end, which its caller writes.
func (w *writer) block(s string, indent int) {
	body := strings.TrimRight(s, "\n")
	w.b = append(w.b, '|')
	switch len(s) - len(body) {
	case 0:
		w.b = append(w.b, '-')
	case 1:
	default:
		w.b = append(w.b, '+')
		body = s[:len(s)-1]
	}
	for line := range strings.SplitSeq(body, "\n") {
		w.b = append(w.b, '\n')
		if line != "" {
			w.indent(indent)
			w.b = append(w.b, line...)
		}
	}
}

// quote writes a double-quoted string.
func (w *writer) quote(s string) {
	w.b = append(w.b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			w.b = append(w.b, '\\', byte(r))
		case r == '\n':
			w.b = append(w.b, `\n`...)
		case r == '\t':
			w.b = append(w.b, `\t`...)
		case r == '\r':
			w.b = append(w.b, `\r`...)
		case printable(r):
			w.b = utf8.AppendRune(w.b, r)
		case r > 0xffff:
			w.b = fmt.Appendf(w.b, `\U%08X`, r)
		default:
			w.b = fmt.Appendf(w.b, `\u%04X`, r)
		}
	}
	w.b = append(w.b, '"')
}

// printable reports whether YAML lets the character stand for itself on a
// line of a quoted string in every version.
func printable(r rune) bool {
	return ' ' <= r && r <= '~' ||
		0xa0 <= r && r <= 0xd7ff && r != 0x2028 && r != 0x2029 ||
		0xe000 <= r && r <= 0xfffc && r != 0xfeff ||
		0x10000 <= r && r <= 0x10ffff
}

func isPrintable(s string) bool {
	for _, r := range s {
		if !printable(r) {
			return false
		}
	}
	return true
}

// isBlock reports whether a literal block can hold the text: several lines,
// none of which would be read otherwise than it is written.
func isBlock(s string) bool {
	if !strings.Contains(strings.TrimRight(s, "\n"), "\n") || s[0] == ' ' || s[0] == '\t' || s[0] == '\n' {
		return false
	}
	for _, r := range s {
		if r != '\n' && r != '\t' && !printable(r) {
			return false
		}
	}
	return true
}

// isPlain reports whether the string may stand without quotes.
func isPlain(s string) bool {
	if s == "" || words[s] || strings.HasSuffix(s, " ") || strings.HasSuffix(s, ":") ||
		strings.Contains(s, ": ") || strings.Contains(s, " #") {
		return false
	}
	switch c := s[0]; {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', c == '/', c == '_', c == '$', c == '(', c >= 0x80:
	case c == '-' && len(s) > 2 && s[1] == '-' && s[2] != '-' && s[2] != ' ': // --flag
	default:
		return false // a number, a date, or an indicator of YAML
	}
	return isPrintable(s)
}

// words are the strings that YAML 1.1 reads as something else.
var words = func() map[string]bool {
	m := map[string]bool{}
	for _, w := range []string{"y", "n", "yes", "no", "true", "false", "on", "off", "null"} {
		m[w], m[strings.ToUpper(w)], m[strings.ToUpper(w[:1])+w[1:]] = true, true, true
	}
	return m
}()
