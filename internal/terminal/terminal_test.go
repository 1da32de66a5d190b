package terminal

import "testing"

func TestPlain(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"grüße, 世界\t1\n2", "grüße, 世界\t1\n2"},
		{"a\x1b[31mb\x00\r\x7f", "a\uFFFD[31mb\uFFFD\uFFFD\uFFFD"},
		{"\u009b1m", "\uFFFD1m"},
		{"txt.\u202eexe\u2066", "txt.\uFFFDexe\uFFFD"},
	} {
		if got := Plain(tt.in); got != tt.want {
			t.Errorf("Plain(%q) = %q; want %q", tt.in, got, tt.want)
		}
	}
}
