package builtins

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/kfs-project/kfs/dag"
)

// This file defines the operators that a file calls once it is rewritten, and
// the stock functions that must not see a run-time value.

// OperatorName returns the name under which the environment holds the function
// that an operator is rewritten to call, or "" if it is left alone. No file
// can use or hide the name, because it is no identifier.
func OperatorName(op syntax.Token) string {
	switch op {
	case syntax.EQL, syntax.NEQ, syntax.LT, syntax.LE, syntax.GT, syntax.GE,
		syntax.IN, syntax.NOT_IN, syntax.PERCENT, syntax.PLUS, syntax.STAR:
		return op.String()
	case syntax.PERCENT_EQ, syntax.PLUS_EQ, syntax.STAR_EQ:
		return op.String()
	}
	return ""
}

// MethodName returns the name under which the environment holds the function
// that an attribute .name is rewritten to call, or "" if it is left alone.
func MethodName(name string) string {
	if name == "join" || name == "format" || boundMethods[name] != nil {
		return "." + name
	}
	return ""
}

// IsOperator reports whether the name of a frame or of the environment is that
// of a rewritten operator or attribute.
func IsOperator(name string) bool {
	switch name {
	case "==", "!=", "<", "<=", ">", ">=", "in", "not in", "%", "%=", "+", "+=", "*", "*=", TupleName,
		ForName, BreakName, ContinueName, ReturnName, TruthName, SetName, GetName, IntoName:
		return true
	}
	return name != "" && name[0] == '.'
}

// guards adds the operators and the guarded stock functions to the environment.
func (s *Session) guards() {
	for _, op := range []syntax.Token{syntax.EQL, syntax.NEQ, syntax.LT, syntax.LE, syntax.GT, syntax.GE} {
		s.env[op.String()] = operator(op.String(), func(x, y starlark.Value) (starlark.Value, error) { return compare(op, x, y) })
	}
	for _, op := range []syntax.Token{syntax.IN, syntax.NOT_IN} {
		s.env[op.String()] = operator(op.String(), func(x, y starlark.Value) (starlark.Value, error) {
			in := y
			if _, ok := y.(*starlark.Dict); ok {
				in = starlark.None // only its keys are looked at, and they hold none
			}
			if r := firstRuntime(x, in); r != nil {
				return nil, cannot(r, "be looked for with %q", op)
			}
			if err := fit(op.String(), x, in); err != nil {
				return nil, err
			}
			return starlark.Binary(op, x, y)
		})
	}
	s.env["%"] = operator("%", s.percent)
	s.env["%="] = starlark.NewBuiltin("%=", func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
		if r := firstRuntime(args...); r != nil {
			return nil, cannot(r, "be formatted by %%= into an element: write x[i] = x[i] %% v")
		}
		return args[0], nil
	})
	methods := []string{"join", "format"}
	for name := range boundMethods {
		methods = append(methods, name)
	}
	for _, name := range methods {
		s.env["."+name] = starlark.NewBuiltin("."+name, func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
			return s.attr(args[0], name)
		})
	}
	s.env["str"] = starlark.NewBuiltin("str", s.str)
	s.env["getattr"] = starlark.NewBuiltin("getattr", s.getattr)
	for _, name := range []string{"abs", "bytes", "chr", "float", "hash", "int", "len", "max", "min", "ord", "range", "repr", "sorted"} {
		stock := starlark.Universe[name].(*starlark.Builtin)
		s.env[name] = starlark.NewBuiltin(name, func(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			if r := guarded(name, args, kwargs); r != nil {
				return nil, fmt.Errorf("%s%s`%s` cannot take it here", r.What(), onlyAtRunTime, name)
			}
			if name == "repr" {
				if err := noText(name, args...); err != nil {
					return nil, err
				}
			}
			return stock.CallInternal(thread, args, kwargs)
		})
	}
}

// guarded returns the run-time value for which a stock function would fail, or
// answer wrongly; nil if there is none.
func guarded(name string, args starlark.Tuple, kwargs []starlark.Tuple) Runtime {
	switch name {
	case "repr":
		return firstRuntime(args...)
	case "max", "min", "sorted":
		if len(kwargs) == 0 && len(args) == 1 {
			_, isValue := args[0].(Runtime)
			if list, ok := args[0].(starlark.Indexable); ok && !isValue {
				for i := range list.Len() {
					if r, ok := list.Index(i).(Runtime); ok {
						return r
					}
				}
			}
		}
	}
	for _, v := range args {
		if r, ok := v.(Runtime); ok {
			return r
		}
	}
	return nil
}

func operator(name string, fn func(x, y starlark.Value) (starlark.Value, error)) *starlark.Builtin {
	return starlark.NewBuiltin(name, func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
		return fn(args[0], args[1])
	})
}

// compare is x op y: a condition if one side is a run-time value.
func compare(op syntax.Token, x, y starlark.Value) (starlark.Value, error) {
	r := firstRuntime(x, y)
	if r == nil {
		if err := fit("comparing", x, y); err != nil {
			return nil, err
		}
		if err := noScalar(x, y); err != nil {
			return nil, err
		}
		ok, err := starlark.Compare(op, x, y)
		return starlark.Bool(ok), err
	}
	for _, side := range []starlark.Value{x, y} {
		switch side.(type) {
		case *value, starlark.String, starlark.Int, starlark.Float, starlark.Bool:
		case starlark.NoneType:
			return nil, cannot(r, "be compared with None: it will be text, which None never is")
		default:
			return nil, cannot(r, "be compared with a value of type %s: want text or a number", typeName(side))
		}
	}
	if op != syntax.EQL && op != syntax.NEQ {
		for _, side := range []starlark.Value{x, y} {
			if !number(side) {
				return nil, cannot(r, "be compared with %s by %s, which compares numbers: == and != compare text", side, op)
			}
		}
	}
	a, _ := scalarText(x)
	b, _ := scalarText(y)
	return &condition{s: r.session(), c: &dag.Condition{Op: op.String(), X: a, Y: b}}, nil
}

// number reports whether a value is a number, or may be one at run time.
func number(v starlark.Value) bool {
	switch v := v.(type) {
	case starlark.Bool:
		return false
	case starlark.String:
		_, err := strconv.ParseFloat(strings.TrimSpace(string(v)), 64)
		return err == nil
	}
	return true
}

// noScalar refuses to compare a step and the like with text or a number: they
// are never equal.
func noScalar(x, y starlark.Value) error {
	for range 2 {
		switch x.(type) {
		case *step, *outputs, *container, *block:
			if text, ok := scalarText(y); ok {
				return fmt.Errorf("%s is never equal to %q: a value that it leaves is one of its outputs", kind(x), text)
			}
		}
		x, y = y, x
	}
	return nil
}

// str is str(x): text stays text.
func (s *Session) str(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if len(args) == 1 && len(kwargs) == 0 {
		if v, ok := args[0].(*value); ok {
			return v, nil
		}
		if err := noText("str", args[0]); err != nil {
			return nil, err
		}
		if err := plainText("str", args[0]); err != nil {
			return nil, err
		}
	}
	return starlark.Universe["str"].(*starlark.Builtin).CallInternal(thread, args, kwargs)
}

// noText refuses to make text of a step and the like: "<step \"train\">" among
// the arguments of another step is no answer.
func noText(op string, vs ...starlark.Value) error {
	var found starlark.Value
	f := finder{wanted: func(v starlark.Value) bool {
		switch v.(type) {
		case *step, *container, *outputs, *block, *graph, *factory, *made, *madeOutputs, *inputPath, *pipelineVolume, *conf:
			found = v
		}
		return found != nil
	}}
	if !slices.ContainsFunc(vs, f.in) {
		return nil
	}
	switch v := found.(type) {
	case *step:
		return fmt.Errorf("%s: the step %q cannot become text: write .output or .name", op, v.d.Name)
	case *outputs:
		return fmt.Errorf("%s: the outputs of step %q cannot become text: write .outputs[NAME]", op, v.st.d.Name)
	}
	return fmt.Errorf("%s: %s cannot become text", op, kind(found))
}

// plainText refuses to make text of what holds a run-time value inside.
func plainText(op string, v starlark.Value) error {
	if r := firstRuntime(v); r != nil {
		if _, ok := r.(*condition); ok {
			return cannot(r, "be compared here and made text by %s", op)
		}
		return cannot(r, "be made text by %s inside %s: use json.encode", op, kind(v))
	}
	return nil
}

func (s *Session) getattr(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if len(args) >= 2 {
		if name, ok := args[1].(starlark.String); ok && MethodName(string(name)) != "" {
			if _, ok := args[0].(starlark.String); ok {
				return s.attr(args[0], string(name))
			}
		}
	}
	return starlark.Universe["getattr"].(*starlark.Builtin).CallInternal(thread, args, kwargs)
}

// attr is x.join or x.format, of strings a form that takes run-time values.
func (s *Session) attr(x starlark.Value, name string) (starlark.Value, error) {
	if check := boundMethods[name]; check != nil {
		v, err := s.plainAttr(x, name)
		fn, ok := v.(*starlark.Builtin)
		if err != nil || !ok {
			return v, err
		}
		return starlark.NewBuiltin(name, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			if err := check(x, args); err != nil {
				return nil, err
			}
			return fn.CallInternal(thread, args, kwargs)
		}), nil
	}
	if str, ok := x.(starlark.String); ok {
		fn := s.join
		if name == "format" {
			fn = s.format
		}
		return starlark.NewBuiltin(name, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			return fn(thread, str, args, kwargs)
		}), nil
	}
	if v, ok := x.(*value); ok && name == "join" {
		return starlark.NewBuiltin(name, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			return s.join(thread, starlark.String(v.t), args, kwargs)
		}), nil
	}
	return s.plainAttr(x, name)
}

// plainAttr is x.name as the interpreter has it.
func (s *Session) plainAttr(x starlark.Value, name string) (starlark.Value, error) {
	if x, ok := x.(starlark.HasAttrs); ok {
		v, err := x.Attr(name)
		if v != nil || err != nil {
			return v, err
		}
	}
	return nil, fmt.Errorf("%s has no .%s field or method", typeName(x), name)
}

// stock calls the method that go.starlark.net has.
func stock(thread *starlark.Thread, x starlark.String, name string, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	method, err := x.Attr(name)
	if err != nil {
		return nil, err
	}
	return method.(*starlark.Builtin).CallInternal(thread, args, kwargs)
}

// join is sep.join(list).
func (s *Session) join(thread *starlark.Thread, sep starlark.String, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	if len(args) == 1 {
		if it, ok := args[0].(starlark.Iterable); ok {
			if _, isValue := it.(*value); !isValue {
				var list []starlark.Value
				for e := range starlark.Elements(it) {
					if v, ok := e.(*value); ok {
						e = starlark.String(v.t)
					}
					list = append(list, e)
				}
				args = starlark.Tuple{starlark.NewList(list)}
			}
		}
	}
	if len(args) == 1 {
		if list, ok := args[0].(*starlark.List); ok {
			n := len(sep) * list.Len()
			for i := range list.Len() {
				n += length(list.Index(i))
			}
			if n > maxText {
				return nil, tooLong("join: the text", n, maxText)
			}
		}
	}
	joined, err := stock(thread, sep, "join", args, kwargs)
	if err != nil {
		return nil, err
	}
	return s.text(string(joined.(starlark.String))), nil
}

// format is text.format(...): a value may stand in {} and {name}.
func (s *Session) format(thread *starlark.Thread, format starlark.String, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	n := len(format)
	fields := strings.Count(string(format), "{")
	for _, v := range args {
		n += fields * length(v)
	}
	for _, kw := range kwargs {
		n += fields * length(kw[1])
	}
	if n > maxText && fields > 0 {
		return nil, tooLong("format: the text", n, maxText)
	}
	if err := fit("format", args...); err != nil {
		return nil, err
	}
	for _, kw := range kwargs {
		if err := noText("format", kw[1]); err != nil {
			return nil, err
		}
	}
	if err := noText("format", args...); err != nil {
		return nil, err
	}
	r := firstRuntime(args...)
	for _, kw := range kwargs {
		if r == nil {
			r = firstRuntime(kw[1])
		}
	}
	if r == nil {
		return stock(thread, format, "format", args, kwargs)
	}
	for _, field := range strings.Split(strings.ReplaceAll(string(format), "{{", ""), "{")[1:] {
		if field, _, _ = strings.Cut(field, "}"); strings.Contains(field, "!r") {
			return nil, cannot(r, "be formatted by {!r}: use {}")
		}
	}
	plain := func(v starlark.Value) (starlark.Value, error) {
		if v, ok := v.(*value); ok {
			return starlark.String(v.t), nil
		}
		return v, plainText("format", v)
	}
	args, kwargs = append(starlark.Tuple(nil), args...), append([]starlark.Tuple(nil), kwargs...)
	var err error
	for i := range args {
		if args[i], err = plain(args[i]); err != nil {
			return nil, err
		}
	}
	for i, kw := range kwargs {
		v, err := plain(kw[1])
		if err != nil {
			return nil, err
		}
		kwargs[i] = starlark.Tuple{kw[0], v}
	}
	formatted, err := stock(thread, format, "format", args, kwargs)
	if err != nil {
		return nil, err
	}
	return s.text(string(formatted.(starlark.String))), nil
}

// percent is x % y: in text, %s takes run-time values.
func (s *Session) percent(x, y starlark.Value) (starlark.Value, error) {
	format, isText := x.(starlark.String)
	if isText {
		if err := formatFits(string(format), y); err != nil {
			return nil, err
		}
		if err := noText("%", y); err != nil {
			return nil, err
		}
	}
	r := firstRuntime(y)
	if v, ok := x.(*value); ok {
		format, isText, r = starlark.String(v.t), true, v
	}
	if !isText || r == nil {
		return starlark.Binary(syntax.PERCENT, x, y)
	}
	verbs := verbs(string(format))
	// plain returns an argument as the stock operator may see it.
	plain := func(v starlark.Value, verb string) (starlark.Value, error) {
		switch v := v.(type) {
		case *value:
			if verb != "s" && verb != "" {
				return nil, cannot(v, "be formatted by %%%s: use %%s", verb)
			}
			return starlark.String(v.t), nil
		}
		return v, plainText("%", v)
	}
	var err error
	switch args := y.(type) {
	case starlark.Tuple:
		c := append(starlark.Tuple(nil), args...)
		for i := range c {
			verb := ""
			if i < len(verbs) {
				verb = verbs[i].conversion
			}
			if c[i], err = plain(c[i], verb); err != nil {
				return nil, err
			}
		}
		y = c
	case *starlark.Dict:
		for _, verb := range verbs {
			if verb.key == "" {
				return nil, plainText("%", args)
			}
		}
		c := starlark.NewDict(args.Len())
		for _, verb := range verbs {
			key := starlark.String(verb.key)
			v, found, _ := args.Get(key)
			if !found {
				continue
			}
			if v, err = plain(v, verb.conversion); err != nil {
				return nil, err
			}
			if err := c.SetKey(key, v); err != nil {
				return nil, err
			}
		}
		y = c
	default:
		verb := ""
		if len(verbs) > 0 {
			verb = verbs[0].conversion
		}
		if y, err = plain(y, verb); err != nil {
			return nil, err
		}
	}
	text, err := starlark.Binary(syntax.PERCENT, format, y)
	if err != nil {
		return nil, err
	}
	return s.text(string(text.(starlark.String))), nil
}

// formatFits bounds the text that a % format makes.
func formatFits(format string, y starlark.Value) error {
	if err := fit("%", y); err != nil {
		return err
	}
	n := len(format)
	switch y := y.(type) {
	case starlark.Tuple:
		for _, v := range y {
			n += length(v)
		}
	case *starlark.Dict:
		longest := 0
		for _, v := range y.Entries() {
			longest = max(longest, length(v))
		}
		n += longest * strings.Count(format, "%(")
	default:
		n += length(y)
	}
	if n > maxText {
		return tooLong("the text", n, maxText)
	}
	return nil
}

// A verb is one conversion of a % format: %s, %(key)d.
type verb struct{ key, conversion string }

func verbs(format string) []verb {
	var vs []verb
	for {
		_, rest, ok := strings.Cut(format, "%")
		if !ok || rest == "" {
			return vs
		}
		var v verb
		if rest[0] == '(' {
			v.key, rest, ok = strings.Cut(rest[1:], ")")
			if !ok || rest == "" {
				return vs
			}
		}
		v.conversion, format = rest[:1], rest[1:]
		if v.conversion != "%" {
			vs = append(vs, v)
		}
	}
}

// scalarText returns a scalar as the text that Python's str makes of it, and
// whether v is one. A string of the author's own that holds the characters of
// tokens is none; see badString.
func scalarText(v starlark.Value) (string, bool) {
	switch v := v.(type) {
	case starlark.String:
		return string(v), !dag.HasRefs(string(v))
	case *value:
		return v.t, true
	case starlark.Int:
		return v.String(), true
	case starlark.Bool:
		return v.String(), true // True, False: as in Python
	case starlark.Float:
		return dag.PythonFloat(float64(v)), true
	}
	return "", false
}

// badString is what is wrong with a string that scalarText refuses.
const badString = "it holds U+E000 or U+E001, which stand for values of the run"
