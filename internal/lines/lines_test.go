package lines

import (
	"slices"
	"strings"
	"testing"
)

func TestSplitter(t *testing.T) {
	for _, tt := range []struct {
		pieces []string
		want   []string
	}{
		{[]string{"one\ntwo\n"}, []string{"one", "two"}},
		{[]string{"o", "ne\n\ntw", "o"}, []string{"one", "", "two"}},
		{[]string{"a\r\nb\377c\n"}, []string{"a", "b\uFFFDc"}},
		{[]string{strings.Repeat("x", 25) + "\n", "y"}, []string{strings.Repeat("x", 10), strings.Repeat("x", 10), strings.Repeat("x", 5), "y"}},
		{nil, nil},
	} {
		s := Splitter{Max: 10}
		var got []string
		for _, piece := range tt.pieces {
			got = append(got, s.Add([]byte(piece))...)
		}
		if rest, ok := s.Rest(); ok {
			got = append(got, rest)
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%q became %q; want %q", tt.pieces, got, tt.want)
		}
	}
}
