package builtins

import (
	"testing"

	"go.starlark.net/starlark"
)

// TestSerialize shows the text of a constant for an input of each type, or
// what is wanted instead. The texts are those of kfp 1.8.22.
func TestSerialize(t *testing.T) {
	list := starlark.NewList([]starlark.Value{starlark.MakeInt(1), starlark.String("a")})
	for _, tt := range []struct {
		typ         any
		v           starlark.Value
		text, fault string
	}{
		{nil, starlark.MakeInt(1), "1", ""},
		{nil, list, `[1, "a"]`, ""},
		{"Integer", starlark.String("x"), "x", ""},
		{"Integer", starlark.MakeInt(1), "1", ""},
		{"Integer", starlark.Float(1.5), "", `got the float 1.5 for the type "Integer": want a whole number`},
		{"Integer", starlark.True, "", `got the bool True for the type "Integer": want a whole number`},
		{"Float", starlark.MakeInt(1), "1", ""},
		{"Float", starlark.Float(1.5), "1.5", ""},
		{"Float", starlark.True, "", `got the bool True for the type "Float": want a number`},
		{"Bool", starlark.True, "True", ""},
		{"Bool", starlark.MakeInt(1), "", `got the int 1 for the type "Bool": want True or False`},
		{"Bool", starlark.Float(1.5), "", `got the float 1.5 for the type "Bool": want True or False`},
		{"String", starlark.MakeInt(1), "", `got the int 1 for the type "String": want text`},
		{"String", list, "", `got a list for the type "String": want text`},
		{"JsonArray", list, `[1, "a"]`, ""},
		{"Base64Pickle", starlark.MakeInt(1), "", `got the int 1 for the type "Base64Pickle": want text in base64`},
		{"Base64Pickle", list, "", `got a list for the type "Base64Pickle": want text in base64`},
		{"GCSPath", starlark.MakeInt(1), "", `got the int 1 for the type "GCSPath": want text`},
		{"GCSPath", list, `[1, "a"]`, ""},
	} {
		text, fault := serialize(tt.typ, tt.v)
		if text != tt.text || fault != tt.fault {
			t.Errorf("%v, %v: %q, %q; want %q, %q", tt.typ, tt.v, text, fault, tt.text, tt.fault)
		}
	}
}
