package interp

import (
	"fmt"

	"go.starlark.net/resolve"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"
	"go.starlark.net/syntax"

	"github.com/kfs-project/kfs/builtins"
)

// This file defines how the values of a file become immutable once it is
// evaluated.

// freeze makes the globals of a file immutable. The interpreter goes down a
// value by recursion, which a deep one would drive through the end of the Go
// stack: that cannot be recovered from, so such a value is an error.
func freeze(thread *starlark.Thread, f *syntax.File, globals starlark.StringDict) error {
	const deepest = 100_000
	if thread.Steps > deepest { // it takes a step at least to nest a value once more
		d := depth{seen: map[any]bool{}}
		for _, b := range f.Module.(*resolve.Module).Globals {
			d.left = deepest
			if v := globals[b.First.Name]; v != nil && !d.fits(v) {
				return resolve.ErrorList{{Pos: b.First.NamePos, Msg: fmt.Sprintf(
					"the value of %s is nested more than %d deep", b.First.Name, deepest)}}
			}
		}
	}
	globals.Freeze()
	return nil
}

// A depth follows values as Freeze does: into each list, dict, set and variable
// of a closure once.
type depth struct {
	seen map[any]bool
	left int // how much deeper a value may be nested here
}

func (d *depth) fits(v starlark.Value) bool {
	switch v.(type) {
	case *starlark.List, *starlark.Dict, *starlark.Set, *starlark.Function, *starlark.Builtin, *starlarkstruct.Struct:
		if d.seen[v] {
			return true
		}
		d.seen[v] = true
	case starlark.Tuple:
	default:
		return true
	}
	if d.left == 0 {
		return false
	}
	d.left--
	defer func() { d.left++ }()
	if held := builtins.Inside(v, true); held != nil {
		for i := range held.Len() {
			if !d.fits(held.Index(i)) {
				return false
			}
		}
	}
	switch v := v.(type) {
	case *starlark.Builtin:
		return v.Receiver() == nil || d.fits(v.Receiver())
	case *starlark.Function:
		for i := range v.NumParams() {
			if e := v.ParamDefault(i); e != nil && !d.fits(e) {
				return false
			}
		}
		for i := range v.NumFreeVars() {
			if _, e := v.FreeVar(i); e != nil && !d.fits(e) {
				return false
			}
		}
	}
	return true
}
