package spell

import "testing"

func TestNearest(t *testing.T) {
	words := []string{"container_op", "config", "condition", "name", "image", "command", "file_outputs"}
	for _, tt := range []struct{ word, want string }{
		{"contaner_op", "container_op"},
		{"nam", "name"},
		{"nmae", "name"},
		{"fileOutputs", "file_outputs"},
		{"comand", "command"},
		{"conditon", "condition"},
		{"x", ""},
		{"", ""},
		{"entirely_different", ""},
		{"name", ""}, // itself is no suggestion
	} {
		if got := Nearest(tt.word, words); got != tt.want {
			t.Errorf("Nearest(%q) = %q; want %q", tt.word, got, tt.want)
		}
	}
}
