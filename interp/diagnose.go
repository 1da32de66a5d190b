package interp

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"sync"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/kfs-project/kfs/builtins"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
	"github.com/kfs-project/kfs/internal/terminal"
)

// This file defines diagnostics and how errors become them.

// An Error is a script's faults, sorted by place.
type Error struct {
	Diagnostics []Diagnostic
	cause       error
}

func newError(ds []Diagnostic, cause error) *Error {
	slices.SortStableFunc(ds, func(a, b Diagnostic) int { return a.Pos.Compare(b.Pos) })
	type key struct {
		pos, from dag.Pos // from is that of the innermost call
		msg       string
	}
	first := map[key]int{}
	seen := map[key]bool{}
	var each []Diagnostic
	for _, d := range ds {
		at := key{pos: d.Pos, msg: d.Msg}
		from := at
		if len(d.Stack) > 0 {
			from.from = d.Stack[0].Pos
		}
		if i, twice := first[at]; !twice {
			first[at] = len(each)
			each = append(each, d)
		} else if !seen[from] && from != at {
			each[i].Also = append(each[i].Also, d.Stack[0])
		}
		seen[from] = true
	}
	return &Error{each, cause}
}

// Error returns a line for each fault; Diagnostics hold the rest.
func (e *Error) Error() string {
	var lines []string
	for _, d := range e.Diagnostics {
		lines = append(lines, (&dag.Error{Pos: d.Pos, Msg: d.Msg}).Error())
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the error of the interpreter that led to the faults, or nil.
func (e *Error) Unwrap() error { return e.cause }

// A Diagnostic is one fault of a script.
type Diagnostic struct {
	Pos, End dag.Pos // File is relative to the root; zero if no place is to blame
	Msg      string
	Hint     string  // what to do; may be "" or several lines
	Stack    []Frame // the calls that led there, innermost first
	Also     []Frame // other calls that led there, the innermost of each
	Excerpt  string  // the source line and a caret line, or ""
}

// A Frame is one call that was under way.
type Frame struct {
	Pos  dag.Pos // of the call
	Func string  // the function that holds the call; "" is the file itself
}

// String returns the place and the function.
func (f Frame) String() string {
	if f.Func == "" {
		return f.Pos.String()
	}
	return f.Pos.String() + " in " + f.Func
}

// String returns the diagnostic as a user reads it: place and message,
// excerpt, calls, hint. It has no final newline.
func (d Diagnostic) String() string {
	var b strings.Builder
	b.WriteString((&dag.Error{Pos: d.Pos, Msg: d.Msg}).Error())
	if d.Excerpt != "" {
		b.WriteString("\n" + d.Excerpt)
	}
	for _, f := range d.Stack {
		fmt.Fprintf(&b, "\ncalled from %s", f)
	}
	const most = 5 // of other calls, that are shown
	for _, f := range d.Also[:min(most, len(d.Also))] {
		fmt.Fprintf(&b, "\nalso called from %s", f)
	}
	if more := len(d.Also) - most; more > 0 {
		fmt.Fprintf(&b, "\nand from %d other places", more)
	}
	if d.Hint != "" {
		b.WriteString("\nhint: " + strings.ReplaceAll(d.Hint, "\n", "\n      "))
	}
	return b.String()
}

// diagnostic makes a Diagnostic with an excerpt. Without an end, the word at
// pos is marked.
func (l *loader) diagnostic(pos, end dag.Pos, msg, hint string) Diagnostic {
	d := Diagnostic{Pos: pos, End: end, Msg: clean(dag.Display(msg)), Hint: clean(dag.Display(hint))}
	if l.modules[pos.File] != nil && pos.IsValid() {
		d.Excerpt, d.End = excerpt(l.line(pos), pos, end)
	}
	return d
}

// excerpt returns the line at pos with a caret line below it, and the end of
// what is marked.
func excerpt(source string, pos, end dag.Pos) (string, dag.Pos) {
	line := []rune(source)
	from := min(max(pos.Col-1, 0), len(line))
	to := len(line) // of a span that goes on in the next line
	switch {
	case end.Line == pos.Line:
		to = min(max(end.Col-1, from), len(line))
	case end.Line == 0:
		to = from
		for to < len(line) && isWord(line[to]) {
			to++
		}
		end = dag.Pos{File: pos.File, Line: pos.Line, Col: max(to, from+1) + 1}
	}
	const longest = 200 // characters of a line that are shown
	cut := ""
	if len(line) > longest {
		shift := max(0, from-longest/2)
		line = line[shift:]
		from, to = from-shift, to-shift
		if len(line) > longest {
			line, cut = line[:longest], "..."
		}
		to = min(to, len(line))
	}
	pad := make([]rune, from)
	for i, r := range line {
		if i < from {
			pad[i] = ' '
			if r == '\t' {
				pad[i] = '\t'
			}
		}
	}
	return fmt.Sprintf("%5d | %s%s\n      | %s%s", pos.Line, clean(string(line)), cut,
		string(pad), strings.Repeat("^", max(to-from, 1))), end
}

func isWord(r rune) bool {
	return r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r >= 0x80
}

// clean returns text without the characters that could steer a terminal, or
// that stand for values of the run.
func clean(text string) string {
	return terminal.Plain(strings.Map(func(r rune) rune {
		if r == 0xe000 || r == 0xe001 {
			return '\uFFFD'
		}
		return r
	}, text))
}

// line returns the source line at a place, or "".
func (l *loader) line(pos dag.Pos) string {
	m := l.modules[pos.File]
	if m == nil || pos.Line < 1 {
		return ""
	}
	lines := strings.SplitN(string(m.src), "\n", pos.Line+1)
	if pos.Line > len(lines) {
		return ""
	}
	return strings.TrimSuffix(lines[pos.Line-1], "\r")
}

// source returns the text of a span of one line, or "".
func (l *loader) source(file string, s span) string {
	line := []rune(l.line(dag.Pos{File: file, Line: int(s.start.line)}))
	if s.start.line != s.end.line || int(s.end.col)-1 > len(line) {
		return ""
	}
	return string(line[s.start.col-1 : s.end.col-1])
}

// fault returns the diagnostic of a fault of a call.
func (l *loader) fault(e *builtins.Error) Diagnostic {
	pos, end := e.Pos, dag.Pos{}
	if m := l.modules[pos.File]; m != nil && m.index != nil && e.Arg != "" {
		if s, ok := m.index.argument(place{int32(pos.Line), int32(pos.Col)}, e.Arg, e.Place, e.Elem); ok {
			pos, end = s.in(pos.File)
		} else if s, ok := l.operatorSpan(pos); ok { // an assignment to a field
			pos, end = s.in(pos.File)
		}
	}
	hint := e.Hint
	if hint == "" {
		hint = insteadOf(e.Msg)
	}
	d := l.diagnostic(pos, end, e.Msg, hint)
	_, d.Stack = l.frames(e.Stack)
	return d
}

// in returns the places of the span in a file.
func (s span) in(file string) (start, end dag.Pos) {
	return dag.Pos{File: file, Line: int(s.start.line), Col: int(s.start.col)},
		dag.Pos{File: file, Line: int(s.end.line), Col: int(s.end.col)}
}

// diagnose turns an error of an evaluation into diagnostics.
func (l *loader) diagnose(err error, limits Limits) []Diagnostic {
	var stack starlark.CallStack
	// The innermost EvalError has the whole stack, because load runs on the
	// same thread.
	for e := (*starlark.EvalError)(nil); errors.As(err, &e); err = e.Unwrap() {
		stack = e.CallStack
		if e.Unwrap() == nil {
			err = errors.New(e.Msg)
			break
		}
	}
	var syntaxErr syntax.Error
	if errors.As(err, &syntaxErr) {
		return []Diagnostic{l.syntax(syntaxErr)}
	}
	var resolveErrs resolve.ErrorList
	if errors.As(err, &resolveErrs) {
		var ds []Diagnostic
		for _, e := range resolveErrs {
			ds = append(ds, l.resolveError(e))
		}
		return ds
	}
	at, frames := l.frames(stack)
	var fault *builtins.Error
	if errors.As(err, &fault) {
		d := l.fault(fault)
		if strings.Contains(fault.Msg, "stands outside a pipeline") {
			for i := range stack {
				if hint := hidden(stack.At(i).Name); hint != "" && stack.At(i).Pos.Line > 0 {
					d.Hint += "\n" + hint
				}
			}
		}
		d.Stack = frames
		return []Diagnostic{d}
	}
	if own := dag.Faults(err); own != nil { // of a function of the host
		var ds []Diagnostic
		for _, f := range own {
			d := l.diagnostic(cmp.Or(f.Pos, at), dag.Pos{}, f.Msg, f.Hint)
			d.Stack = frames
			ds = append(ds, d)
		}
		return ds
	}
	msg, hint := l.explain(err.Error(), limits)
	var end dag.Pos
	if s, ok := l.operatorSpan(at); ok {
		at, end = s.in(at.File)
	}
	if calledWrongly().MatchString(msg) && len(frames) > 0 {
		if m := unknownKeyword().FindStringSubmatch(msg); m != nil && l.modules[at.File] != nil && l.modules[at.File].index != nil {
			params := l.modules[at.File].index.paramsOf(m[1], place{int32(at.Line), int32(at.Col)})
			if meant := spell.DidYouMean(m[2], params); meant != "" {
				msg += ": " + meant
			} else if len(params) > 0 && hint == "" {
				hint = "its arguments are " + strings.Join(params, ", ")
			}
		}
		at, frames = frames[0].Pos, frames[1:] // of the call, not of the def
	}
	if name := l.called(msg, at); hint == "" && (strings.HasPrefix(msg, "function ") || l.binds(at.File, name)) {
		hint = hidden(name)
	}
	if m := notInModule().FindStringSubmatch(msg); m != nil {
		words, _ := l.module(m[2])
		if m[2] == "@kfp" {
			hint = pythonWords[m[1]]
		}
		if _, own := l.env[m[1]]; own && hint == "" {
			hint = m[1] + " stands by itself: it needs no load"
		}
		hint = cmp.Or(hint, spell.DidYouMean(m[1], slices.Sorted(maps.Keys(words))))
		msg, _, _ = strings.Cut(msg, " (did you mean")
	}
	if m := noAttr().FindStringSubmatch(msg); m != nil && hint == "" {
		hint = pythonMethods[m[1]]
	}
	d := l.diagnostic(at, end, msg, hint)
	d.Stack = frames
	return []Diagnostic{d}
}

// wrongCall matches what the interpreter says of a call that failed.
var wrongCall = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^function (\S+) (got |missing |accepts |called recursively)|^invalid call of non-function`)
})

// noAttr matches what the interpreter says of an attribute that is not there.
var noAttr = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`has no \.(\w+) field or method`)
})

// unknownKeyword matches what it says of a keyword that a function of the
// script does not have.
var unknownKeyword = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^function (\S+) got an unexpected keyword argument "(\w+)"$`)
})

// notInModule matches what the interpreter says of a load of what is not there.
var notInModule = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^load: name (\S+) not found in module (@\S+)`)
})

// called returns the name of what a failed call called, or "".
func (l *loader) called(msg string, at dag.Pos) string {
	m := wrongCall().FindStringSubmatch(msg)
	if m == nil {
		return ""
	}
	if m[1] != "" {
		return m[1]
	}
	line := []rune(l.line(at)) // a call's place is that of its parenthesis
	end := min(max(at.Col-1, 0), len(line))
	for end < len(line) && isWord(line[end]) { // or that of the name
		end++
	}
	start := end
	for start > 0 && isWord(line[start-1]) {
		start--
	}
	return string(line[start:end])
}

// binds reports whether a file gives a name a value of its own.
func (l *loader) binds(file, name string) bool {
	m := l.modules[file]
	return m != nil && m.index != nil && slices.Contains(m.index.names, name)
}

// hidden returns the hint for a name of the file's own that is a word of the
// language too, or "".
func hidden(name string) string {
	if !slices.Contains(builtins.Words(), name) || name == "None" || name == "True" || name == "False" {
		return ""
	}
	other := name + "_word"
	if name == "pipeline" {
		other = "register"
	}
	return fmt.Sprintf("%s is a name of this file's own here, and hides the word of the language:\nload(\"@kfs\", %s = %q)  gets the word under another name", name, other, name)
}

func (l *loader) operatorSpan(at dag.Pos) (span, bool) {
	m := l.modules[at.File]
	if m == nil || m.index == nil {
		return span{}, false
	}
	s, ok := m.index.spans[place{int32(at.Line), int32(at.Col)}]
	return s, ok
}

// frames returns the innermost place in a script of a stack, and the calls
// that led there, innermost first.
func (l *loader) frames(stack starlark.CallStack) (at dag.Pos, frames []Frame) {
	for i := range stack {
		f := stack.At(i)
		if f.Pos.Line <= 0 {
			continue // a builtin
		}
		name := f.Name
		if name == "<toplevel>" {
			name = ""
		}
		if at == (dag.Pos{}) {
			at = position(f.Pos)
		} else {
			frames = append(frames, Frame{Pos: position(f.Pos), Func: name})
		}
	}
	return at, frames
}

// calledWrongly matches what the interpreter says of a call whose arguments do
// not fit a function of the script.
var calledWrongly = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^function \S+ (got |missing |accepts )`)
})

// ofRuntime matches messages of stock operations that met a run-time value.
var ofRuntime = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\b(param|step output|loop item|(text|condition) of the run)\b`)
})

// explain says an interpreter's message in words of kfs, with a hint.
func (l *loader) explain(msg string, limits Limits) (string, string) {
	if reason, ok := strings.CutPrefix(msg, "Starlark computation cancelled: "); ok {
		switch reason {
		case "too many steps":
			return fmt.Sprintf("the script ran for more than %d steps of the interpreter and was stopped here", limits.Steps), "does a loop go on for longer than you meant?"
		case errMemory.Error():
			return fmt.Sprintf("the script took more than %d MiB of memory and was stopped here", limits.Memory>>20), "does a loop make more than you meant?"
		case errTime.Error():
			return fmt.Sprintf("the script ran for more than %v and was stopped here", limits.Time), "does a loop go on for longer than you meant?"
		}
		return "evaluation was stopped: " + reason, ""
	}
	if own, ok := strings.CutPrefix(msg, "fail:"); ok {
		if own = strings.TrimPrefix(own, " "); own == "" {
			own = "fail() was called"
		}
		return own, ""
	}
	if name, ok := strings.CutSuffix(msg, " referenced before assignment"); ok {
		_, name, _ = strings.Cut(name, "variable ")
		if slices.Contains(l.names(), name) {
			return msg, fmt.Sprintf("%s is a word of the language, and here the name of a variable too: give the variable another name", name)
		}
	}
	if !strings.Contains(msg, "known only when the pipeline runs") && ofRuntime().MatchString(msg) {
		return builtins.PlainTypes(msg), "params and outputs are known only when the pipeline runs: text can be built from them\nwith +, % and format, and nothing else"
	}
	if strings.Contains(msg, "unknown conversion %") || strings.HasPrefix(msg, "format spec features not supported") {
		return msg, "there are no widths and precisions: %s, %d, %f and {} stand alone"
	}
	return builtins.PlainTypes(msg), insteadOf(msg)
}

// needed matches messages of a value that was needed now, with no advice
// behind them; its group is the name of a param.
var needed = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?:(\w+)(?: is|,) a param)?: it is known only when the pipeline runs, so [^:]*$`)
})

// insteadOf says what to do instead of what such a message refuses, or "".
func insteadOf(msg string) string {
	m := needed().FindStringSubmatch(msg)
	if m == nil {
		return ""
	}
	hint := "text can be built from it with +, % and format, and a condition(...) can compare it"
	if m[1] != "" {
		hint += fmt.Sprintf("\nto know it now, make it a setting:  %s = config(%q, default = ...)", m[1], m[1])
	}
	return hint
}

// misuse returns the diagnostic of a run-time value whose content was needed.
func (l *loader) misuse(m *builtins.Misuse) Diagnostic {
	at, frames := l.frames(m.Stack)
	var end dag.Pos
	consequence := map[builtins.MisuseKind]string{
		builtins.MisuseTruth: "nothing can be decided by it here",
		builtins.MisuseHash:  "it cannot be a key of a dict or an element of a set",
		builtins.MisuseLoop:  "it cannot be looped over here",
		builtins.MisusePart:  "neither its length nor a part of it can be had here",
	}[m.Kind]
	expr, op := "", ""
	if mod := l.modules[at.File]; mod != nil && mod.index != nil {
		inBuiltin := len(m.Stack) > 0 && m.Stack.At(0).Pos.Line <= 0
		if inBuiltin && !builtins.IsOperator(m.Stack.At(0).Name) {
			consequence = fmt.Sprintf("`%s` cannot take it here", m.Stack.At(0).Name)
		} else if t, ok := mod.index.at(place{int32(at.Line), int32(at.Col)}, m.Kind == builtins.MisuseLoop); ok && (m.Kind == builtins.MisuseTruth || m.Kind == builtins.MisuseLoop) {
			if m.Stack.At(0).Name != builtins.TruthName { // of a composite, one part is meant
				expr = l.source(at.File, t.span)
			}
			at, end = t.in(at.File)
			if m.Kind == builtins.MisuseTruth {
				consequence, op = "it cannot decide "+article(t.kind)+" here", t.kind
			}
		}
	}
	if s, ok := l.operatorSpan(at); ok && end == (dag.Pos{}) {
		at, end = s.in(at.File)
	}
	msg, hint := m.Message(consequence), m.Hint(expr, op)
	if hint == "" {
		hint = insteadOf(msg)
	}
	d := l.diagnostic(at, end, msg, hint)
	d.Stack = frames
	return d
}

func article(kind string) string {
	switch kind {
	case "if", "elif", "and", "or":
		return "an `" + kind + "`"
	}
	return "a `" + kind + "`"
}

// resolveError returns the diagnostic of a name that is wrong.
func (l *loader) resolveError(e resolve.Error) Diagnostic {
	pos := position(e.Pos)
	name, undefined := strings.CutPrefix(e.Msg, "undefined: ")
	if !undefined {
		return l.diagnostic(pos, dag.Pos{}, e.Msg, pythonHint(l.line(pos), e.Msg, pos.Col))
	}
	name, _, _ = strings.Cut(name, " ") // the resolver may add a suggestion of its own
	msg, hint := fmt.Sprintf("unknown word %q", name), pythonWords[name]
	if typ, ok := strings.CutPrefix(name, "V1"); ok && hint == "" {
		hint = "a type of Kubernetes is written  k8s." + typ
	}
	if hint == "" {
		hint = builtins.Refused(name)
	}
	words := l.names()
	if m := l.modules[pos.File]; m != nil && m.index != nil {
		words = append(words, m.index.names...)
	}
	if meant := spell.DidYouMean(name, words); meant != "" && hint == "" {
		msg += ": " + meant
	}
	return l.diagnostic(pos, dag.Pos{}, msg, hint)
}
