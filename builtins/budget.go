package builtins

import (
	"fmt"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"
)

// This file bounds single operations. The interpreter counts steps and looks
// for cancellation between operations only, so one operation that makes much
// of little (repeat, concatenate, join, replace, format, list, str, ==, hash of
// what is shared) could take all memory, or never end.

const (
	maxText  = 16 << 20 // bytes of a string that an operation makes
	maxList  = 4 << 20  // elements of a list, tuple, dict or set that an operation makes
	maxWalk  = 1 << 20  // values that str, ==, json.encode and the like go through, shared ones each time
	maxTuple = 1 << 16  // values in a tuple, shared ones each time: each hash goes through all
	maxNest  = 10_000   // how deep these may be nested
	maxBits  = 1 << 20  // of an int that * makes
	maxDigit = 10_000   // of an int that int() reads
)

const (
	maxCompare = 1000      // comparisons and words of a condition, shared ones each time
	maxNamed   = 5000      // variables, mounts, volumes, tolerations and the like of a step
	maxCopied  = 2 << 30   // elements and bytes that sums copy, of a script
	maxEdges   = 1_000_000 // that after makes, of a pipeline
)

func tooLong(what string, n, most int) error {
	return fmt.Errorf("%s would have %d elements or bytes: want at most %d", what, n, most)
}

// A walk counts the values in one, shared ones each time, and those that hold
// themselves once.
type walk struct {
	left, deep int
	path       map[starlark.Value]bool
}

// fits reports whether a value holds at most n values, nested no deeper than
// maxNest.
func fits(v starlark.Value, n int) bool {
	w := walk{left: n}
	return w.in(v)
}

func (w *walk) in(v starlark.Value) bool {
	if w.left--; w.left < 0 || w.deep > maxNest {
		return false
	}
	switch v.(type) {
	case *starlark.List, *starlark.Dict:
		if w.path[v] {
			return true
		}
		if w.path == nil {
			w.path = map[starlark.Value]bool{}
		}
		w.path[v] = true
		defer delete(w.path, v)
	}
	w.deep++
	defer func() { w.deep-- }()
	if held := Inside(v, true); held != nil {
		for i := range held.Len() {
			if !w.in(held.Index(i)) {
				return false
			}
		}
	}
	return true
}

// fit returns an error if an operation would go through too much.
func fit(op string, vs ...starlark.Value) error {
	for _, v := range vs {
		if !fits(v, maxWalk) {
			return fmt.Errorf("%s: the value holds more than %d values, or is nested more than %d deep", op, maxWalk, maxNest)
		}
	}
	return nil
}

// length returns the number of elements of a sequence or bytes of a string; 0
// of all else.
func length(v starlark.Value) int {
	switch v := v.(type) {
	case starlark.String:
		return len(v)
	case starlark.Bytes:
		return len(v)
	case Runtime:
		return len(v.String())
	case starlark.Sequence:
		return v.Len()
	}
	return 0
}

// most is how many elements or bytes a value of the kind may have.
func most(v starlark.Value) int {
	switch v.(type) {
	case starlark.String, starlark.Bytes, Runtime:
		return maxText
	}
	return maxList
}

// plus is x + y.
func (s *Session) plus(x, y starlark.Value) (starlark.Value, error) {
	n := length(x) + length(y)
	if n > most(x) {
		return nil, tooLong("the sum", n, most(x))
	}
	if err := s.copies(n); err != nil {
		return nil, err
	}
	return starlark.Binary(syntax.PLUS, x, y)
}

// copies counts what sums copy: to make a text longer by a letter copies it.
func (s *Session) copies(n int) error {
	if s.copied += n; s.copied > maxCopied {
		return fmt.Errorf("the script's sums copy more than %d elements or bytes in all: put the parts into a list, and join that", maxCopied)
	}
	return nil
}

// times is x * y.
func times(x, y starlark.Value) (starlark.Value, error) {
	if err := repeats(x, y); err != nil {
		return nil, err
	}
	return starlark.Binary(syntax.STAR, x, y)
}

func repeats(x, y starlark.Value) error {
	a, okA := x.(starlark.Int)
	b, okB := y.(starlark.Int)
	switch {
	case okA && okB:
		if n := a.BigInt().BitLen() + b.BigInt().BitLen(); n > maxBits {
			return fmt.Errorf("the product would have %d bits: want at most %d", n, maxBits)
		}
	case okA || okB:
		seq, count := x, b
		if okA {
			seq, count = y, a
		}
		n, err := starlark.AsInt32(count)
		size := length(seq)
		if err == nil && size > 0 && n > most(seq)/size { // a larger count the interpreter refuses
			return fmt.Errorf("excessive repeat (%d * %d elements): want at most %d", size, n, most(seq))
		}
	}
	return nil
}

// budgets adds the operators and functions that are bounded.
func (s *Session) budgets() {
	s.env["+"] = operator("+", s.plus)
	s.env["*"] = operator("*", times)
	// x += y is done by the interpreter, which may change x in place; the
	// function is asked for y first, with x where it is a variable.
	s.env["+="] = starlark.NewBuiltin("+=", func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
		n := 0
		for _, v := range args {
			n += length(v)
		}
		if n > most(args[0]) {
			return nil, tooLong("the sum", n, most(args[0]))
		}
		if _, inPlace := args[0].(*starlark.List); !inPlace {
			if err := s.copies(n); err != nil {
				return nil, err
			}
		}
		return args[0], nil
	})
	s.env["*="] = starlark.NewBuiltin("*=", func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
		if n, ok := args[0].(starlark.Int); ok && n.BigInt().BitLen() > 4 {
			return nil, fmt.Errorf("write x[i] = x[i] * n for a large n")
		}
		return args[0], nil
	})
	s.env[TupleName] = starlark.NewBuiltin(TupleName, func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
		t := append(starlark.Tuple(nil), args...)
		return t, tupleFits(t)
	})
	for _, name := range []string{"dict", "enumerate", "list", "reversed", "set", "sorted", "tuple", "zip"} {
		s.bound(name, func(args starlark.Tuple, kwargs []starlark.Tuple) error {
			for _, v := range args {
				if n := length(v); n > maxList {
					return tooLong(name, n, maxList)
				}
			}
			if name == "sorted" {
				return fit(name, args...)
			}
			return nil
		})
	}
	for _, name := range []string{"fail", "max", "min", "print", "repr", "str"} {
		s.bound(name, func(args starlark.Tuple, _ []starlark.Tuple) error { return fit(name, args...) })
	}
	s.bound("hash", func(args starlark.Tuple, _ []starlark.Tuple) error { return fit("hash", args...) })
	s.bound("int", func(args starlark.Tuple, _ []starlark.Tuple) error {
		if len(args) > 0 && length(args[0]) > maxDigit {
			return fmt.Errorf("int: the text has %d digits: want at most %d", length(args[0]), maxDigit)
		}
		return nil
	})
	s.env["struct"] = starlark.NewBuiltin("struct", func(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		v, err := starlarkstruct.Make(thread, b, args, kwargs)
		if err == nil && !fits(v, maxTuple) {
			err = fmt.Errorf("struct: its fields hold more than %d values", maxTuple)
		}
		return v, err
	})
}

// TupleName is the name under which the environment holds the function that
// tuples in a file are rewritten to call.
const TupleName = "tuple of"

func tupleFits(t starlark.Tuple) error {
	if !fits(t, maxTuple) {
		return fmt.Errorf("the tuple holds more than %d values, shared ones each time, or is nested more than %d deep", maxTuple, maxNest)
	}
	return nil
}

// bound puts a check before a function of the environment, or a stock one, and
// behind it one of the tuples that it makes.
func (s *Session) bound(name string, check func(args starlark.Tuple, kwargs []starlark.Tuple) error) {
	fn, ok := s.env[name].(*starlark.Builtin)
	if !ok {
		fn = starlark.Universe[name].(*starlark.Builtin)
	}
	s.env[name] = starlark.NewBuiltin(name, func(thread *starlark.Thread, b *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if err := check(args, kwargs); err != nil {
			return nil, err
		}
		v, err := fn.CallInternal(thread, args, kwargs)
		if t, ok := v.(starlark.Tuple); ok && err == nil {
			return v, tupleFits(t)
		}
		return v, err
	})
}

// boundMethods are the methods that are bounded, or must not see a run-time
// value, beside join and format.
var boundMethods = map[string]func(x starlark.Value, args starlark.Tuple) error{
	"replace": func(x starlark.Value, args starlark.Tuple) error {
		if len(args) < 2 {
			return nil
		}
		text, _ := starlark.AsString(x)
		old, _ := starlark.AsString(args[0])
		with, _ := starlark.AsString(args[1])
		if n := len(text) + strings.Count(text, old)*(len(with)-len(old)); n > maxText {
			return tooLong("replace: the text", n, maxText)
		}
		return nil
	},
	"split":      splits,
	"rsplit":     splits,
	"splitlines": splits,
	"extend": func(x starlark.Value, args starlark.Tuple) error {
		if len(args) == 1 && length(x)+length(args[0]) > maxList {
			return tooLong("extend: the list", length(x)+length(args[0]), maxList)
		}
		return nil
	},
	"index":   compares,
	"remove":  compares,
	"pop":     looksUp,
	"discard": looksUp,
}

func splits(x starlark.Value, args starlark.Tuple) error {
	text, _ := starlark.AsString(x)
	sep := "\n"
	if len(args) > 0 {
		sep, _ = starlark.AsString(args[0])
	}
	n := len(text) / 2 // words, at most
	if sep != "" {
		n = strings.Count(text, sep)
	}
	if n > maxList {
		return tooLong("split: the list", n, maxList)
	}
	return nil
}

func compares(x starlark.Value, args starlark.Tuple) error {
	list, ok := x.(*starlark.List)
	if !ok {
		return looksUp(x, args)
	}
	if r := firstRuntime(append(starlark.Tuple{list}, args...)...); r != nil {
		return cannot(r, "be compared here: what is looked for in a list is compared with its elements")
	}
	return fit("comparing", append(starlark.Tuple{x}, args...)...)
}

// looksUp refuses a run-time value as the key of a dict or the element of a
// set, which an empty one would not ask for its hash.
func looksUp(x starlark.Value, args starlark.Tuple) error {
	switch x.(type) {
	case *starlark.Dict, *starlark.Set:
		if r := firstRuntime(arg(args, 0)); r != nil {
			return cannot(r, "be looked for here")
		}
	}
	return nil
}

// boundJSON bounds the json module's functions.
func boundJSON(name string, fn *starlark.Builtin) *starlark.Builtin {
	return starlark.NewBuiltin("json."+name, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
		if err := fit("json."+name, args...); err != nil {
			return nil, err
		}
		if text, ok := starlark.AsString(arg(args, 0)); ok {
			deep, most := 0, 0
			for i := range len(text) {
				switch text[i] {
				case '[', '{':
					deep++
					most = max(most, deep)
				case ']', '}':
					deep--
				}
			}
			if most > maxNest || len(text) > maxText {
				return nil, fmt.Errorf("json.%s: the text is longer than %d bytes, or nested more than %d deep", name, maxText, maxNest)
			}
		}
		return fn.CallInternal(thread, args, kwargs)
	})
}

func arg(args starlark.Tuple, i int) starlark.Value {
	if i < len(args) {
		return args[i]
	}
	return starlark.None
}
