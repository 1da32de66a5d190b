package builtins

import (
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
)

// This file defines what values hold, and how they are looked through.

// Inside returns what a list, tuple, dict, set or struct holds, of a dict the
// keys too if they are asked for; nil for all other values.
func Inside(v starlark.Value, keys bool) starlark.Indexable {
	switch v := v.(type) {
	case *starlark.List:
		return v
	case starlark.Tuple:
		return v
	case *starlark.Dict:
		held := make(starlark.Tuple, 0, v.Len())
		for k, e := range v.Entries() {
			if keys {
				held = append(held, k)
			}
			held = append(held, e)
		}
		return held
	case *starlark.Set:
		held := make(starlark.Tuple, 0, v.Len())
		for e := range v.Elements() {
			held = append(held, e)
		}
		return held
	case *starlarkstruct.Struct:
		var held starlark.Tuple
		for _, name := range v.AttrNames() {
			if e, err := v.Attr(name); err == nil && e != nil {
				held = append(held, e)
			}
		}
		return held
	}
	return nil
}

// A finder looks for a value that is wanted, into each list, tuple, dict, set
// and struct once, however often it is shared, and without recursion, however
// deep it is nested. It does not look at keys.
type finder struct {
	wanted func(starlark.Value) bool
	seen   map[any]int // what was looked into, and how many elements it had
	gaveUp bool        // at maxWalk containers in one value, which fit refuses
}

// in reports whether the value, or one that it holds, is wanted; it looks at
// none behind that one.
func (f *finder) in(v starlark.Value) bool {
	type part struct {
		starlark.Indexable
		next int
	}
	var parts []part
	looked := 0
	look := func(v starlark.Value) bool {
		if f.wanted(v) {
			return true
		}
		if f.once(v) {
			looked++
			parts = append(parts, part{Indexable: Inside(v, false)})
		}
		return false
	}
	if look(v) {
		return true
	}
	for len(parts) > 0 {
		if looked > maxWalk {
			f.gaveUp = true
			return false
		}
		last := &parts[len(parts)-1]
		if last.next == last.Len() {
			parts = parts[:len(parts)-1]
			continue
		}
		last.next++
		if look(last.Index(last.next - 1)) {
			return true
		}
	}
	return false
}

// once reports whether a value holds some that have yet to be looked at.
func (f *finder) once(v starlark.Value) bool {
	var id any = v
	n := 1
	switch v := v.(type) {
	case *starlark.List:
		n = v.Len()
	case *starlark.Dict:
		n = v.Len()
	case *starlark.Set:
		n = v.Len()
	case starlark.Tuple:
		if n = len(v); n > 0 {
			id = &v[0]
		}
	case *starlarkstruct.Struct:
	default:
		return false
	}
	if n == 0 || f.seen[id] == n {
		return false
	}
	if f.seen == nil {
		f.seen = map[any]int{}
	}
	f.seen[id] = n
	return true
}
