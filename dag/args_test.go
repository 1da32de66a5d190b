package dag

import (
	"errors"
	"maps"
	"testing"
	"time"
)

// TestParamParseJSON shows that a JSON param takes what its default is, too.
func TestParamParseJSON(t *testing.T) {
	for _, tt := range []struct {
		kind, inferred, in string
		fits               bool
	}{
		{"JsonObject", "JsonArray", "[1]", true},
		{"JsonObject", "JsonArray", `{"a": 1}`, true},
		{"JsonObject", "JsonArray", "1", false},
		{"List", "JsonObject", "{}", true},
		{"List", "JsonObject", "{", false},
		{"List", "String", "{}", false},
		{"Dict", "", "[]", false},
	} {
		q := &Param{Name: "n", Type: tt.kind, Inferred: tt.inferred}
		if got, err := q.Parse(tt.in); err == nil != tt.fits || err == nil && got != tt.in {
			t.Errorf("%+v.Parse(%q) = %q, %v; want that it fits: %v", *q, tt.in, got, err, tt.fits)
		}
	}
}

func TestParamParse(t *testing.T) {
	for _, tt := range []struct{ kind, in, want, err string }{
		{"", "anything", "anything", ""},
		{"GCSPath", "anything", "anything", ""},
		{"String", "", "", ""},
		{"Integer", "42", "42", ""},
		{"Integer", " -7 ", " -7 ", ""},
		{"Integer", "1.0", "", `param "n" is of type Integer: "1.0" is not a whole number`},
		{"Integer", "1_000", "", `param "n" is of type Integer: "1_000" is not a whole number`},
		{"Integer", "", "", `param "n" is of type Integer: "" is not a whole number`},
		{"Float", "1", "1", ""},
		{"Float", "-2.5e-3", "-2.5e-3", ""},
		{"Float", "nan", "nan", ""},
		{"Float", "abc", "", `param "n" is of type Float: "abc" is not a number`},
		{"Float", "0x10p0", "", `param "n" is of type Float: "0x10p0" is not a number`},
		{"Bool", "true", "True", ""},
		{"Boolean", " FALSE ", "False", ""},
		{"Bool", "1", "", `param "n" is of type Bool: "1" is not true or false`},
		{"JsonArray", "[1, 2]", "[1, 2]", ""},
		{"List", "[]", "[]", ""},
		{"List", "null", "", `param "n" is of type List: "null" is not a JSON list`},
		{"List", "{}", "", `param "n" is of type List: "{}" is not a JSON list`},
		{"JsonObject", `{"a": 1}`, `{"a": 1}`, ""},
		{"Dict", "{} x", "", `param "n" is of type Dict: "{} x" is not a JSON object`},
		{"Dict", "null", "", `param "n" is of type Dict: "null" is not a JSON object`},
	} {
		for _, q := range []*Param{{Name: "n", Type: tt.kind}, {Name: "n", Inferred: tt.kind}, {Name: "n", Type: tt.kind, Inferred: "Integer"}} {
			if q.Type == "" && q.Inferred == "Integer" && tt.kind == "" {
				continue
			}
			got, err := q.Parse(tt.in)
			if got != tt.want || errText(err) != tt.err {
				t.Errorf("%+v.Parse(%q) = %q, %v; want %q, %s", *q, tt.in, got, err, tt.want, tt.err)
			}
		}
	}
}

func TestParseBackoff(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want time.Duration
	}{
		{"", 0},
		{"0", 0},
		{"90", 90 * time.Second},
		{"1.5", 1500 * time.Millisecond},
		{"90s", 90 * time.Second},
		{"1h30m", 90 * time.Minute},
	} {
		if got, err := ParseBackoff(tt.in); err != nil || got != tt.want {
			t.Errorf("ParseBackoff(%q) = %v, %v; want %v", tt.in, got, err, tt.want)
		}
	}
	for _, tt := range []struct{ in, want string }{
		{"soon", `backoff "soon": want seconds or a duration like "2m"`},
		{"-1", `backoff "-1": want seconds or a duration like "2m"`},
		{"-2m", `backoff "-2m": want seconds or a duration like "2m"`},
		{"NaN", `backoff "NaN": want seconds or a duration like "2m"`},
		{"inf", `backoff "inf": want seconds or a duration like "2m"`},
		{"1e10", `backoff "1e10": want seconds or a duration like "2m"`},
		{Ref{Kind: RefParam, Name: "b"}.Token(), `backoff "<b>": want seconds or a duration like "2m"`},
	} {
		if got, err := ParseBackoff(tt.in); errText(err) != tt.want {
			t.Errorf("ParseBackoff(%q) = %v, %v; want %s", tt.in, got, err, tt.want)
		}
	}
}

func TestArgs(t *testing.T) {
	id := Ref{Kind: RefRunID}.Token()
	p := &Pipeline{Name: "fit", Params: []*Param{
		{Name: "steps", Type: "Integer", Pos: Pos{"in.star", 3, 9}},
		{Name: "fast", Inferred: "Bool", Default: new("False"), Pos: Pos{"in.star", 3, 16}},
		{Name: "out", Default: new("s3://b/" + id), Pos: Pos{"in.star", 3, 30}},
	}}
	for _, tt := range []struct {
		given, want map[string]string
		err, hint   string // the hint of the first fault
	}{
		{map[string]string{"steps": "3"}, map[string]string{"steps": "3", "fast": "False", "out": "s3://b/" + id}, "", ""},
		{map[string]string{"steps": "3", "fast": "TRUE", "out": ""}, map[string]string{"steps": "3", "fast": "True", "out": ""}, "", ""},
		{nil, nil, `in.star:3:9: param "steps" of pipeline "fit" is required and has no value`,
			"give one with  -p steps=VALUE  or in --params-file"},
		{map[string]string{"step": "3", "zzz": "", "fast": "no"}, nil,
			`pipeline "fit" has no param "step"
pipeline "fit" has no param "zzz"
in.star:3:9: param "steps" of pipeline "fit" is required and has no value
in.star:3:16: param "fast" is of type Bool: "no" is not true or false`, `did you mean "steps"?`},
		{map[string]string{"steps": "3", "zzz": ""}, nil, `pipeline "fit" has no param "zzz"`, "its params are steps, fast, out"},
	} {
		for range 5 { // map order must not show
			got, err := p.Args(tt.given)
			if errText(err) != tt.err {
				t.Fatalf("Args(%q): %v\nwant %s", tt.given, err, tt.err)
			}
			if err == nil && !maps.Equal(got, tt.want) {
				t.Errorf("Args(%q) = %q; want %q", tt.given, got, tt.want)
			}
			if err != nil && Faults(err)[0].Hint != tt.hint {
				t.Errorf("Args(%q): hint %q; want %q", tt.given, Faults(err)[0].Hint, tt.hint)
			}
		}
	}
	got, err := p.CheckArgs(map[string]string{"fast": "true"})
	if want := map[string]string{"fast": "True"}; err != nil || !maps.Equal(got, want) {
		t.Errorf("CheckArgs = %q, %v; want %q: no defaults, none required", got, err, want)
	}
	if _, err := new(Pipeline).CheckArgs(map[string]string{"a": ""}); Faults(err)[0].Hint != "" {
		t.Errorf("hint %q for a pipeline without params; want none", Faults(err)[0].Hint)
	}
}

func TestErrors(t *testing.T) {
	a, b, none := &Error{Pos: Pos{"f", 1, 1}, Msg: "a"}, &Error{Pos: Pos{"f", 1, 1}, Msg: "b"}, &Error{Msg: "none"}
	es := Errors{b, a, none, b, a}
	err := es.Err()
	if got, want := errText(err), "none\nf:1:1: b\nf:1:1: a"; got != want {
		t.Errorf("Err() =\n%s\nwant each fault once, sorted by place:\n%s", got, want)
	}
	if es[0] != b || es[4] != a {
		t.Error("Err changed its receiver")
	}
	if !errors.Is(err, a) {
		t.Error("errors.Is does not find a fault of an Errors")
	}
	if got := Faults(a); len(got) != 1 || got[0] != a {
		t.Errorf("Faults of one Error = %v", got)
	}
	if got := Faults(errors.New("x")); got != nil {
		t.Errorf("Faults of another error = %v; want nil", got)
	}
	if err := (Errors{}).Err(); err != nil {
		t.Errorf("Err() of no faults = %v; want nil", err)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
