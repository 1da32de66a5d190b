package dag

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// The two ends of a token.
const left, right = string(tokenOpen), string(tokenClose)

var (
	refN   = Ref{Kind: RefParam, Name: "n"}
	refAcc = Ref{Kind: RefOutput, Step: "train", Name: "my acc"}
	refID  = Ref{Kind: RefRunID}
	refRun = Ref{Kind: RefRunName}
)

func TestRefs(t *testing.T) {
	for _, tt := range []struct {
		text    string
		refs    []Ref
		whole   bool
		display string
	}{
		{"", nil, true, ""},
		{"plain {{x}} $(y) param:n", nil, true, "plain {{x}} $(y) param:n"},
		{refN.Token(), []Ref{refN}, true, "<n>"},
		{"a" + refN.Token() + refN.Token() + "b", []Ref{refN, refN}, true, "a<n><n>b"},
		{refAcc.Token() + refID.Token() + refRun.Token(), []Ref{refAcc, refID, refRun}, true,
			`<train.outputs["my acc"]><run_id()><run_name()>`},

		{left, nil, false, left},
		{right, nil, false, right},
		{left + right, nil, false, left + right},
		{left + "param:n", nil, false, left + "param:n"},
		{"param:n" + right, nil, false, "param:n" + right},
		{left + "param:" + right, nil, false, left + "param:" + right},
		{left + "output:train" + right, nil, false, left + "output:train" + right},
		{left + "output::x" + right, nil, false, left + "output::x" + right},
		{left + "run:time" + right, nil, false, left + "run:time" + right},
		{left + "other:n" + right, nil, false, left + "other:n" + right},
		{left + "param:" + refN.Token(), []Ref{refN}, false, left + "param:<n>"},
		{refN.Token() + right, []Ref{refN}, false, "<n>" + right},
		{refN.Token()[2:], nil, false, refN.Token()[2:]},
	} {
		refs, whole := Refs(tt.text)
		if !slices.Equal(refs, tt.refs) || whole != tt.whole {
			t.Errorf("Refs(%q) = %v, %t; want %v, %t", tt.text, refs, whole, tt.refs, tt.whole)
		}
		if got := Display(tt.text); got != tt.display {
			t.Errorf("Display(%q) = %q; want %q", tt.text, got, tt.display)
		}
		ref, ok := SoleRef(tt.text)
		if want := len(tt.refs) == 1 && tt.text == tt.refs[0].Token(); ok != want || ok && ref != tt.refs[0] {
			t.Errorf("SoleRef(%q) = %v, %t; want %t", tt.text, ref, ok, want)
		}
	}
}

// Many damaged tokens must not take time that grows with their square.
func TestRefsDamaged(t *testing.T) {
	start := time.Now()
	for _, text := range []string{strings.Repeat(left, 1e6), strings.Repeat(left, 1e6) + right, strings.Repeat(right, 1e6)} {
		if refs, whole := Refs(text); refs != nil || whole {
			t.Errorf("Refs(%.10q...) = %v, %t; want none, false", text, refs, whole)
		}
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("took %v", d)
	}
}

func FuzzExpand(f *testing.F) {
	for _, s := range []string{"", "a", left, right, left + right, refN.Token(), left + "param:" + refAcc.Token(), left + "run:id" + right + right, "\xee\x80" + left, left + "output:a:b:c" + right, left + "\xff" + right} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		var seen []Ref
		got := Expand(text, func(r Ref) string {
			seen = append(seen, r)
			return r.Token()
		})
		if got != text {
			t.Errorf("Expand(%q) with each token for itself = %q", text, got)
		}
		refs, whole := Refs(text)
		if !slices.Equal(refs, seen) {
			t.Errorf("Refs(%q) = %v; Expand gave %v", text, refs, seen)
		}
		rest := Expand(text, func(Ref) string { return "." })
		if whole == HasRefs(rest) {
			t.Errorf("Refs(%q): whole %t, but %q is left", text, whole, rest)
		}
		if r, ok := SoleRef(text); ok && (r.Token() != text || len(refs) != 1 || refs[0] != r) {
			t.Errorf("SoleRef(%q) = %v, Refs %v", text, r, refs)
		}
		for _, r := range refs {
			if HasRefs(r.Step) || HasRefs(r.Name) {
				t.Errorf("Refs(%q): %q holds a token", text, r)
			}
		}
	})
}
