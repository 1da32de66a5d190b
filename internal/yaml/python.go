package yaml

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/kfs-project/kfs/dag"
)

// This file writes YAML as Python's PyYAML does.

// Python returns the tree as yaml.dump(v, default_flow_style=False) of PyYAML
// writes it: keys sorted, lines folded at 80 columns, only ASCII. KFP writes
// manifests inside of a Workflow so, where they are text, of which every
// character counts. There is one difference: text that Kubernetes' reader of
// YAML would take for a number or a boolean ("1e3", "y") has quotes, which
// PyYAML, whose reader does not, leaves out.
//
// The source is yaml/emitter.py and yaml/resolver.py of PyYAML 6.
func Python(v any) string {
	p := python{whitespace: true, indention: true}
	p.node(v, -1, false)
	if !strings.HasSuffix(p.b.String(), "\n") {
		p.b.WriteByte('\n')
	}
	return p.b.String()
}

// pythonWidth is the column behind which a line is folded.
const pythonWidth = 80

type python struct {
	b          strings.Builder
	column     int
	whitespace bool // the last character was one
	indention  bool // the line has nothing but indentation and indicators
}

func (p *python) write(s string) {
	p.b.WriteString(s)
	p.column += utf8.RuneCountInString(s)
}

func (p *python) indicator(s string, needSpace, whitespace, indention bool) {
	if !p.whitespace && needSpace {
		s = " " + s
	}
	p.whitespace = whitespace
	p.indention = p.indention && indention
	p.write(s)
}

// newline begins a line at the indent, unless the line stands there already.
func (p *python) newline(indent int) {
	indent = max(indent, 0)
	if !p.indention || p.column > indent || p.column == indent && !p.whitespace {
		p.lineBreak()
	}
	if p.column < indent {
		p.whitespace = true
		p.write(strings.Repeat(" ", indent-p.column))
	}
}

func (p *python) lineBreak() {
	p.b.WriteByte('\n')
	p.whitespace, p.indention, p.column = true, true, 0
}

// node writes a value that stands in a collection at the indent; -1 is the
// document itself. A list that is the value of a member keeps its indent.
func (p *python) node(v any, indent int, ofMember bool) {
	inner := indent + 2
	if indent < 0 {
		inner = 0
	}
	switch v := v.(type) {
	case dag.Object:
		if len(v) > 0 {
			p.members(v, inner)
			return
		}
	case []any:
		if len(v) > 0 {
			if ofMember && !p.indention {
				inner = indent
			}
			for _, e := range v {
				p.newline(inner)
				p.indicator("-", true, false, true)
				p.node(e, inner, false)
			}
			return
		}
	}
	if indent < 0 {
		inner = 2
	}
	p.scalar(v, inner, false)
}

func (p *python) members(o dag.Object, indent int) {
	for _, m := range o.Sorted() {
		p.newline(indent)
		if a := analyze(m.Name); len(m.Name) > 0 && !a.multiline && utf8.RuneCountInString(m.Name)+len("!!str") < 128 {
			p.scalar(m.Name, indent+2, true)
			p.indicator(":", false, false, false)
			p.node(m.Value, indent, true)
			continue
		}
		p.indicator("?", true, false, true)
		p.node(m.Name, indent, true)
		p.newline(indent)
		p.indicator(":", true, false, true)
		p.node(m.Value, indent, true)
	}
}

func (p *python) scalar(v any, indent int, key bool) {
	var s string
	switch v := v.(type) {
	case string:
		a := analyze(v)
		switch {
		case a.plain && !resolves(v) && !(key && (v == "" || a.multiline)):
			p.plain(v, indent, !key)
		case a.single && !(key && a.multiline):
			p.single(v, indent, !key)
		default:
			p.double(v, indent, !key)
		}
		return
	case nil:
		s = "null"
	case bool:
		s = strconv.FormatBool(v)
	case int64:
		s = strconv.FormatInt(v, 10)
	case float64:
		s = float(v)
	case dag.Object:
		s = "{}"
	case []any:
		s = "[]"
	default:
		panic(fmt.Sprintf("yaml: cannot write a %T", v))
	}
	p.plain(s, indent, !key)
}

// An analysis says in which styles a text can stand.
type analysis struct{ multiline, plain, single bool }

func isBreak(r rune) bool { return r == '\n' || r == 0x85 || r == 0x2028 || r == 0x2029 }

// space reports whether what stands there ends a word; so does the end of the
// text.
func space(text []rune, i int) bool {
	return i < 0 || i >= len(text) || strings.ContainsRune("\x00 \t\r\n\u0085\u2028\u2029", text[i])
}

func analyze(s string) analysis {
	if s == "" {
		return analysis{plain: true, single: true}
	}
	text := []rune(s)
	indicators := strings.HasPrefix(s, "---") || strings.HasPrefix(s, "...")
	var breaks, special, breakSpace, spaceBreak, previousSpace, previousBreak bool
	for i, r := range text {
		switch {
		case i == 0:
			indicators = indicators || strings.ContainsRune("#,[]{}&*!|>'\"%@`", r) || strings.ContainsRune("?:-", r) && space(text, 1)
		case r == ':':
			indicators = indicators || space(text, i+1)
		case r == '#':
			indicators = indicators || space(text, i-1)
		}
		breaks = breaks || isBreak(r)
		special = special || r != '\n' && (r < ' ' || r > '~')
		breakSpace = breakSpace || r == ' ' && previousBreak
		spaceBreak = spaceBreak || isBreak(r) && previousSpace
		previousSpace, previousBreak = r == ' ', isBreak(r)
	}
	first, last := text[0], text[len(text)-1]
	edge := first == ' ' || last == ' ' || isBreak(first) || isBreak(last)
	return analysis{
		multiline: breaks,
		plain:     !indicators && !breaks && !special && !edge,
		single:    !special && !spaceBreak && !breakSpace,
	}
}

// notText matches what YAML 1.1 reads as something other than text, and in the
// last line what only other readers do.
var notText = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(?:` + strings.Join([]string{
		`yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF`,
		`[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+][0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+][0-9]+)?`,
		`[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)`,
		`[-+]?0b[0-1_]+|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x[0-9a-fA-F_]+|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+`,
		`<<|~|null|Null|NULL||=|!|&|\*`,
		`[0-9]{4}-[0-9]{2}-[0-9]{2}`,
		`[0-9]{4}-[0-9][0-9]?-[0-9][0-9]?(?:[Tt]|[ \t]+)[0-9][0-9]?:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?(?:[ \t]*(?:Z|[-+][0-9][0-9]?(?::[0-9]{2})?))?`,
		`y|Y|n|N|[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)[eE][-+]?[0-9]+|[-+]?0o[0-7_]+|[-+]0b[01_]+`,
	}, "|") + `)$`)
})

func resolves(s string) bool { return notText().MatchString(s) }

func (p *python) plain(s string, indent int, fold bool) {
	if s == "" {
		return
	}
	if !p.whitespace {
		p.write(" ")
	}
	p.whitespace, p.indention = false, false
	p.words(s, func(spaces string, edge bool) {
		if len(spaces) == 1 && p.column > pythonWidth && fold {
			p.newline(indent)
			p.whitespace, p.indention = false, false
		} else {
			p.write(spaces)
		}
	}, nil)
}

func (p *python) single(s string, indent int, fold bool) {
	p.indicator("'", true, false, false)
	p.words(strings.ReplaceAll(s, "'", "''"), func(spaces string, edge bool) {
		if len(spaces) == 1 && p.column > pythonWidth && fold && !edge {
			p.newline(indent)
		} else {
			p.write(spaces)
		}
	}, func(breaks string) {
		if breaks[0] == '\n' {
			p.lineBreak()
		}
		for range breaks {
			p.lineBreak()
		}
		p.newline(indent)
	})
	p.indicator("'", false, false, false)
}

// words writes text, with f called for each run of spaces, which says whether
// it stands at either end, and g for each run of line breaks.
func (p *python) words(s string, f func(spaces string, edge bool), g func(breaks string)) {
	for i := 0; i < len(s); {
		end := i
		for end < len(s) && (s[end] == s[i] || s[i] != ' ' && s[i] != '\n' && s[end] != ' ' && s[end] != '\n') {
			end++
		}
		switch part := s[i:end]; part[0] {
		case ' ':
			f(part, i == 0 || end == len(s))
		case '\n':
			g(part)
		default:
			p.write(part)
		}
		i = end
	}
}

var pythonEscapes = map[rune]string{
	0: "0", '\a': "a", '\b': "b", '\t': "t", '\n': "n", '\v': "v", '\f': "f", '\r': "r", 0x1b: "e",
	'"': `"`, '\\': `\`, 0x85: "N", 0xa0: "_", 0x2028: "L", 0x2029: "P",
}

func (p *python) double(s string, indent int, fold bool) {
	p.indicator(`"`, true, false, false)
	text := []rune(s)
	start := 0 // of what is not written yet
	for end := 0; end <= len(text); end++ {
		if end == len(text) || text[end] < ' ' || text[end] > '~' || text[end] == '"' || text[end] == '\\' {
			p.write(string(text[start:end]))
			start = end
			if end < len(text) {
				p.write(pythonEscape(text[end]))
				start = end + 1
			}
		}
		if end > 0 && end < len(text)-1 && (text[end] == ' ' || start >= end) && p.column+end-start > pythonWidth && fold {
			p.write(string(text[min(start, end):end]) + `\`)
			start = max(start, end)
			p.newline(indent)
			p.whitespace, p.indention = false, false
			if text[start] == ' ' {
				p.write(`\`)
			}
		}
	}
	p.indicator(`"`, false, false, false)
}

func pythonEscape(r rune) string {
	switch e, ok := pythonEscapes[r]; {
	case ok:
		return `\` + e
	case r <= 0xff:
		return fmt.Sprintf(`\x%02X`, r)
	case r <= 0xffff:
		return fmt.Sprintf(`\u%04X`, r)
	}
	return fmt.Sprintf(`\U%08X`, r)
}
