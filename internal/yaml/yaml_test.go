package yaml

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	yamlv2 "go.yaml.in/yaml/v2"
	sigs "sigs.k8s.io/yaml"

	"github.com/kfs-project/kfs/dag"
)

var update = flag.Bool("update", false, "write the golden files")

func TestStyle(t *testing.T) {
	got := Append([]byte("# head\n"), dag.Object{
		{Name: "apiVersion", Value: "argoproj.io/v1alpha1"},
		{Name: "metadata", Value: dag.Object{
			{Name: "generateName", Value: "p-"},
			{Name: "annotations", Value: dag.Object{{Name: "a/b", Value: `{"name": "p"}`}}},
		}},
		{Name: "none", Value: nil},
		{Name: "empty", Value: []any{"", []any{}, dag.Object{}}},
		{Name: "numbers", Value: []any{1, int64(-2), 1.0, 1e-5, 1.5e300, math.Inf(1), math.Inf(-1), math.NaN(), true}},
		{Name: "texts", Value: []any{
			"--flag", "--steps={{inputs.parameters.n}}", "$(HOME)/x", "/bin/sh", "a:b", "über",
			"-c", "{{x}}", "yes", "No", "null", "~", "1e3", "0x1F", "2001-01-01", "12:30", "it's: so", "a #b", "tab\t", " space", "\u0085\ufeff😀\x00", "one line\n",
		}},
		{Name: "on", Value: "x"},
		{Name: "a\nb", Value: "x"},
		{Name: "block", Value: []any{
			"set -e\n  indented\n\n\ttab\n", "no end\nhere", "two ends\nhere\n\n", " leading\nspace", "\nleading line\n",
			dag.Object{{Name: "in", Value: "a\nb"}, {Name: "list", Value: []any{[]any{"x", []any{1}}, dag.Object{{Name: "y", Value: dag.Object{}}}}}},
		}},
	})
	const file = "testdata/style.yaml"
	if *update {
		if err := os.WriteFile(file, got, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s -want +got:\n%s", file, diff)
	}
}

// nasty are strings that one reader or another takes for something else, and
// pieces of such strings.
var nasty = []string{
	"", "a", "word", "two words", "\n", "\n\n", " ", "  ", "\t", "\r", "\r\n", "\u0085", "\u2028", "\u2029", "\ufeff", "\u00a0", "\x00", "\x07", "\x1b", "\x7f", "\u009f", "\ufffd", "\ufffe", "\uffff", "😀", "\U0010ffff", "é", "\ue000param:n\ue001", "\xff",
	"---", "...", "--- a", "... a", "---\n", "- a", "-", "--", "-a", "--a", "? x", "?", "key: v", "key:", ":", ": a", "a:b", "::", "#", "#a", "a #b", "a#b", "&", "&a", "*", "*a", "!", "!!str", "! a", "%", "%YAML 1.1", "@", "`", "<<", "=", "~", "|", "|-", ">", ">+", "[", "]", "[]", "{", "}", "{}", ",", "'", "''", `"`, `\`, `\n`, "'a'", `"a"`, "a'b", "{{inputs.parameters.n}}", "$(x)", "(a)", "/a", "_", "_1",
	"y", "Y", "n", "N", "yes", "Yes", "YES", "no", "NO", "on", "On", "off", "OFF", "true", "True", "TRUE", "tRue", "false", "null", "Null", "NULL", "nan", "NaN", ".nan", ".NaN", ".inf", "-.inf", "+.Inf", "inf", "Infinity",
	"0", "1", "-1", "+1", "007", "0o17", "0x1F", "0b11", "1_000", "0.1", ".5", "5.", "1e3", "1E3", "1e-05", "1.0e+16", "e3", "12:30", "1:2:3.4", "190:20:30", "2001-01-01", "2001-12-14t21:59:43.10-05:00", "2001-01-01 00:00:00", "0.1.2", "1.2.3.4", "1,000",
	"a\nb", "a\nb\n", "a\nb\n\n", "a\n\nb", "a\n  b\n", "a\n   \nb", "a\nb\n  ", "a\nb\n  \n", "a\n\tb", "a\t\nb", "a \nb ", "\na\nb", " a\nb", "\ta\nb", "a\n#b", "a\n---\nb", "a\n...\nb\n", "a\n\n\n", "\n\n\na", "a\n ", "a\r\nb\r\n", "a\nb: c\n- d",
}

var numbers = []any{nil, true, false, int64(0), int64(-7), int64(1 << 53), 0.0, 0.1, -2.5, 100.0, 1e-5, 1e16, 1e22, 1.2345678901234568e17, 5e-324, 1.7976931348623157e308}

func text(r *rand.Rand) string {
	s := nasty[r.IntN(len(nasty))]
	for range r.IntN(4) {
		s += nasty[r.IntN(len(nasty))]
	}
	return s
}

func tree(r *rand.Rand, depth int) any {
	switch k := r.IntN(8); {
	case k < 2 && depth > 0:
		list := []any{}
		for range r.IntN(4) {
			list = append(list, tree(r, depth-1))
		}
		return list
	case k < 5 && depth > 0:
		o := dag.Object{}
		for range r.IntN(4) {
			o.Set(tree(r, depth-1), valid(text(r)))
		}
		return o
	case k == 5:
		return numbers[r.IntN(len(numbers))]
	}
	return text(r)
}

// around returns trees that hold the text at every kind of place.
func around(s string) []any {
	return []any{
		s, []any{s}, []any{[]any{s}, s}, []any{s, "x"},
		dag.Object{{Name: "k", Value: s}, {Name: "l", Value: s}},
		dag.Object{{Name: s, Value: s}},
		dag.Object{{Name: s, Value: []any{s, dag.Object{{Name: s, Value: dag.Object{{Name: s, Value: nil}}}}}}},
		[]any{dag.Object{{Name: s, Value: []any{}}, {Name: s + "k", Value: s}}},
	}
}

func TestReadBack(t *testing.T) {
	for _, s := range nasty {
		for _, v := range around(s) {
			readBack(t, v)
		}
	}
	for n := range 12 { // a name may have 1024 characters, quotes included
		for _, s := range []string{strings.Repeat("k", 1018+n), strings.Repeat("'", 509+n), strings.Repeat("\n", 509+n), strings.Repeat("é", 509+n)} {
			for _, v := range around(s) {
				readBack(t, v)
			}
		}
	}
	for _, n := range numbers {
		readBack(t, n)
		readBack(t, []any{n, dag.Object{{Name: "k", Value: n}}})
	}
	for seed := range uint64(1000) {
		readBack(t, tree(rand.New(rand.NewPCG(seed, 0)), 4))
	}
}

func FuzzReadBack(f *testing.F) {
	for _, s := range nasty {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, v := range around(s) {
			readBack(t, v)
		}
	})
}

// readBack fails if a reader of YAML takes what Append writes for another tree.
func readBack(t *testing.T, v any) {
	t.Helper()
	text := Append(nil, v)
	want := generic(v)
	var got any
	if data, err := sigs.YAMLToJSON(text); err != nil {
		t.Errorf("sigs.k8s.io/yaml: %v\n%q\n%s", err, want, text)
	} else if err := json.Unmarshal(data, &got); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("sigs.k8s.io/yaml reads %q, %v\nwant %q\n%s", got, err, want, text)
	}
	var got2 any
	if err := yamlv2.Unmarshal(text, &got2); err != nil {
		t.Errorf("yaml/v2: %v\n%q\n%s", err, want, text)
	} else if got2 = generic(got2); !reflect.DeepEqual(got2, want) {
		t.Errorf("yaml/v2 reads %q\nwant %q\n%s", got2, want, text)
	}
}

// generic returns a tree as encoding/json reads one.
func generic(v any) any {
	switch v := v.(type) {
	case dag.Object:
		m := map[string]any{}
		for _, e := range v {
			m[valid(e.Name)] = generic(e.Value)
		}
		return m
	case map[any]any:
		m := map[string]any{}
		for k, e := range v {
			name, ok := k.(string)
			if !ok {
				name = fmt.Sprintf("%T %v", k, k)
			}
			m[name] = generic(e)
		}
		return m
	case []any:
		l := make([]any, len(v))
		for i, e := range v {
			l[i] = generic(e)
		}
		return l
	case string:
		return valid(v)
	case int:
		return float64(v)
	case int64:
		return float64(v)
	}
	return v
}

// valid returns s with what is not UTF-8 as Append writes it.
func valid(s string) string { return string([]rune(s)) }

func BenchmarkAppend(b *testing.B) {
	const n = 100_000
	list := make([]any, n)
	for i := range list {
		list[i] = dag.Object{
			{Name: "name", Value: fmt.Sprintf("step-%d", i)},
			{Name: "image", Value: "registry.example.com/image:v1"},
			{Name: "args", Value: []any{"--steps", "{{inputs.parameters.n}}", "set -e\necho hello\n"}},
			{Name: "limit", Value: int64(i)},
		}
	}
	for b.Loop() {
		b.SetBytes(int64(len(Append(nil, list))))
	}
}
