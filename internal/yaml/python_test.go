package yaml

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	sigs "sigs.k8s.io/yaml"

	"github.com/kfs-project/kfs/dag"
)

// What is wanted is what PyYAML 6.0.3 writes, save for what it says of quotes.
func TestPython(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"2Gi", "k: 2Gi\n"},
		{"1", "k: '1'\n"},
		{"1.0e+3", "k: '1.0e+3'\n"},
		{"yes", "k: 'yes'\n"},
		{"", "k: ''\n"},
		{"{{inputs.parameters.x}}", "k: '{{inputs.parameters.x}}'\n"},
		{"cm-{{x}}", "k: cm-{{x}}\n"},
		{`it's: "so"`, `k: 'it''s: "so"'` + "\n"},
		{"a\nb\n", "k: 'a\n\n  b\n\n  '\n"},
		{"a \nb", `k: "a \nb"` + "\n"},
		{"é\t", `k: "\xE9\t"` + "\n"},
		{"  x", "k: '  x'\n"},
		{"2024-01-01", "k: '2024-01-01'\n"},
		{"k: v", "k: 'k: v'\n"},
		{"word word word word word word word word word word word word word word word word word word word word ",
			"k: 'word word word word word word word word word word word word word word word word\n  word word word word '\n"},
		{"1e3", "k: '1e3'\n"}, // PyYAML: k: 1e3
		{"y", "k: 'y'\n"},     // PyYAML: k: y
	} {
		got := Python(dag.Object{{Name: "k", Value: tt.in}})
		if got != tt.want {
			t.Errorf("Python of %q:\n%s\nwant\n%s", tt.in, got, tt.want)
		}
		var back map[string]any
		if err := sigs.Unmarshal([]byte(got), &back); err != nil || back["k"] != tt.in {
			t.Errorf("Python of %q reads back as %#v, %v", tt.in, back["k"], err)
		}
	}
	got := Python(dag.Object{
		{Name: "b", Value: []any{int64(1), dag.Object{{Name: "z", Value: 1.5}, {Name: "a", Value: []any{}}}, []any{true, nil}}},
		{Name: "a", Value: dag.Object{{Name: "k", Value: dag.Object{}}}},
	})
	want := "a:\n  k: {}\nb:\n- 1\n- a: []\n  z: 1.5\n- - true\n  - null\n"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("Python of a tree (-want +got):\n%s", diff)
	}
}
