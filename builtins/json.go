package builtins

import (
	"regexp"
	"sync"

	"go.starlark.net/lib/json"
	"go.starlark.net/starlark"
	"go.starlark.net/starlarkstruct"

	"github.com/kfs-project/kfs/dag"
)

// This file defines the json module, for which text may hold run-time values.

// json is the json module: encode takes run-time values anywhere in its data,
// decode and indent inside a string of their text.
func (s *Session) json() *starlarkstruct.Module {
	members := starlark.StringDict{}
	for name, v := range json.Module.Members {
		fn := boundJSON(name, v.(*starlark.Builtin))
		members[name] = starlark.NewBuiltin("json."+name, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
			if err := noText("json."+name, args...); err != nil {
				return nil, err
			}
			v, isValue := arg(args, 0).(*value)
			takesText := name == "decode" || name == "indent"
			if isValue && takesText {
				if forgedEscape().MatchString(v.t) {
					return nil, cannot(v, "stand in JSON beside the escapes of U+E000 or U+E001, which stand for values of the run")
				}
				args = append(starlark.Tuple{starlark.String(v.t)}, args[1:]...)
			}
			result, err := fn.CallInternal(thread, args, kwargs)
			switch {
			case err != nil && isValue && takesText:
				plain := starlark.String(dag.Expand(v.t, func(dag.Ref) string { return "0" }))
				if _, err := fn.CallInternal(thread, append(starlark.Tuple{plain}, args[1:]...), kwargs); err != nil {
					return nil, err // the text is no JSON, whatever the values are
				}
				return nil, cannot(v, "stand in JSON but in a string: put it between quotes")
			case err != nil:
				return nil, err
			case name != "decode":
				return s.text(string(result.(starlark.String))), nil
			case isValue:
				return s.revive(v, result)
			}
			return result, nil
		})
	}
	return &starlarkstruct.Module{Name: "json", Members: members}
}

// forgedEscape matches what JSON reads as the characters of tokens.
var forgedEscape = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`(?i)\\ue00[01]`) })

// revive makes the strings of decoded JSON that hold tokens of v run-time
// values again.
func (s *Session) revive(v *value, decoded starlark.Value) (starlark.Value, error) {
	switch d := decoded.(type) {
	case starlark.String:
		return s.text(string(d)), nil
	case *starlark.List:
		for i := range d.Len() {
			e, err := s.revive(v, d.Index(i))
			if err != nil {
				return nil, err
			}
			if err := d.SetIndex(i, e); err != nil {
				return nil, err
			}
		}
	case *starlark.Dict:
		for _, item := range d.Items() {
			if key, _ := starlark.AsString(item[0]); dag.HasRefs(key) {
				return nil, cannot(v, "be a key")
			}
			e, err := s.revive(v, item[1])
			if err != nil {
				return nil, err
			}
			if err := d.SetKey(item[0], e); err != nil {
				return nil, err
			}
		}
	}
	return decoded, nil
}
