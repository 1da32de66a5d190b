package kube

import (
	"strings"
	"testing"

	"github.com/kfs-project/kfs/dag"
)

func TestCheckQuantity(t *testing.T) {
	n := dag.Ref{Kind: dag.RefParam, Name: "n"}.Token()
	const notOne = "is not a quantity: want a number with an optional unit, such as"
	for _, tt := range []struct{ resource, text, want string }{
		{"cpu", "2", ""},
		{"cpu", "0", ""},
		{"cpu", "500m", ""},
		{"cpu", "0.5", ""},
		{"cpu", "1e3", ""},
		{"memory", "512Mi", ""},
		{"memory", "1.5Gi", ""},
		{"memory", "2G", ""},
		{"ephemeral-storage", "8Ei", ""},
		{"nvidia.com/gpu", "1", ""},
		{"nvidia.com/gpu", "1000m", ""},
		{"storage", "1.5Gi", ""},
		{"hugepages-2Mi", "16Pi", ""},
		{"cpu", n, ""},
		{"nvidia.com/gpu", n, ""},
		{"cpu", "", `cpu "" ` + notOne + ` "500m" or "2"`},
		{"cpu", "two", `cpu "two" ` + notOne + ` "500m" or "2"`},
		{"cpu", " 2", `cpu " 2" ` + notOne + ` "500m" or "2"`},
		{"memory", "512 Mi", `memory "512 Mi" ` + notOne + ` "512Mi" or "2G"`},
		{"memory", "512MB", `memory "512MB" ` + notOne + ` "512Mi" or "2G"`},
		{"memory", "1,5Gi", `memory "1,5Gi" ` + notOne + ` "512Mi" or "2G"`},
		{"memory", n + "Gi", `memory "<n>Gi" ` + notOne + ` "512Mi" or "2G"`},
		{"nvidia.com/gpu", "one", `nvidia.com/gpu "one" ` + notOne + ` "1"`},
		{"cpu", "-1", `cpu "-1": want no less than 0`},
		{"nvidia.com/gpu", "500m", `nvidia.com/gpu "500m": want a whole number`},
		{"nvidia.com/gpu", "0.5", `nvidia.com/gpu "0.5": want a whole number`},
		{"nvidia.com/gpu", "1000000001n", `nvidia.com/gpu "1000000001n": want a whole number`},
	} {
		if got := errText(CheckQuantity(tt.resource, tt.text)); got != tt.want {
			t.Errorf("CheckQuantity(%q, %q) = %s; want %s", tt.resource, tt.text, got, tt.want)
		}
	}
}

func TestCheckNames(t *testing.T) {
	x63 := strings.Repeat("x", 63)
	for _, tt := range []struct {
		name                  string
		label, subdomain, env bool // good as such a name
	}{
		{"", false, false, false},
		{"a", true, true, true},
		{"0", true, true, true},
		{"my-volume-1", true, true, true},
		{"my.claim-1", false, true, true},
		{"-a", false, false, true},
		{"a-", false, false, true},
		{".a", false, false, true},
		{"a..b", false, false, true},
		{"a.-b", false, false, true},
		{"A", false, false, true},
		{"a_b", false, false, true},
		{"ä", false, false, false},
		{"A B", false, false, false},
		{"A=B", false, false, false},
		{"A\n", false, false, false},
		{"A\x7f", false, false, false},
		{"~!.-/9", false, false, true},
		{x63, true, true, true},
		{x63 + "x", false, true, true},
		{x63 + "." + x63 + "." + x63 + "." + x63[:61], false, true, true},
		{x63 + "." + x63 + "." + x63 + "." + x63[:62], false, false, true},
	} {
		for _, c := range []struct {
			name  string
			check func(string) error
			want  bool
		}{{"CheckLabel", CheckLabel, tt.label}, {"CheckSubdomain", CheckSubdomain, tt.subdomain}, {"CheckEnvName", CheckEnvName, tt.env}} {
			if err := c.check(tt.name); (err == nil) != c.want {
				t.Errorf("%s(%q) = %v; want good %t", c.name, tt.name, err, c.want)
			}
		}
	}
	if got, want := errText(CheckLabel("A")), `"A": want at most 63 small letters, digits and hyphens, with no hyphen at either end`; got != want {
		t.Errorf("CheckLabel: %s; want %s", got, want)
	}
}

func TestCheck(t *testing.T) {
	n := dag.Ref{Kind: dag.RefParam, Name: "n"}.Token()
	out := dag.Ref{Kind: dag.RefOutput, Step: "a", Name: "my out"}.Token() // holds colons and a space
	env := func(names ...string) (list []any) {
		for _, name := range names {
			list = append(list, dag.Object{{Name: "name", Value: name}, {Name: "value", Value: "v"}})
		}
		return list
	}
	mount := func(at string) []any {
		return []any{dag.Object{{Name: "mountPath", Value: at}, {Name: "name", Value: "v"}}}
	}
	resources := func(name, request, limit string) dag.Object {
		var o dag.Object
		if limit != "" {
			o.Set(limit, "limits", name)
		}
		if request != "" {
			o.Set(request, "requests", name)
		}
		return o
	}
	for _, tt := range []struct {
		field string // of the container; volume names a volume
		value any
		want  string
	}{
		{"image", "i", ""},
		{"image", "repo/" + out, ""},
		{"image", "my image", `image "my image": want no spaces`},
		{"image", "i:v1\n", `image "i:v1\n": want no spaces`},
		{"image", n + " x", `image "<n> x": want no spaces`},

		{"env", env("A", "B", n, n+"x"), ""},
		{"env", env("A", "B", "A"), `variable "A" is set twice`},
		{"env", env("A B"), `variable "A B": want printable ASCII without spaces and =`},
		{"env", env(""), `variable "": want printable ASCII without spaces and =`},
		{"env", []any{"text", nil}, ""},

		{"volumeMounts", mount("/data"), ""},
		{"volumeMounts", mount("/data/" + out), ""},
		{"volumeMounts", mount(n), ""},
		{"volumeMounts", mount("/a:b"), `mount path "/a:b": want a path without a colon`},
		{"volumeMounts", mount("/a:" + n), `mount path "/a:<n>": want a path without a colon`},
		{"volumeMounts", mount(""), `mount path "": want a path without a colon`},
		{"volume", "v-1", ""},
		{"volume", n, ""},
		{"volume", "V", `volume name "V": want at most 63 small letters, digits and hyphens, with no hyphen at either end`},

		{"resources", resources("cpu", "1", "1000m"), ""},
		{"resources", resources("cpu", "1", ""), ""},
		{"resources", resources("cpu", "", "1"), ""},
		{"resources", resources("cpu", n, "1"), ""},
		{"resources", resources("memory", "1G", n), ""},
		{"resources", resources("cpu", "1001m", "1"), `its cpu request 1001m is above its limit 1`},
		{"resources", resources("memory", "1Gi", "1G"), `its memory request 1Gi is above its limit 1G`},
		{"resources", resources("nvidia.com/gpu", "1", "1"), ""},
		{"resources", resources("nvidia.com/gpu", "", "1"), ""},
		{"resources", resources("nvidia.com/gpu", "1", n), ""},
		{"resources", resources("nvidia.com/gpu", "1", "2"), `its nvidia.com/gpu request 1 is not its limit 2: the two must be equal`},
		{"resources", resources("nvidia.com/gpu", "2", "1"), `its nvidia.com/gpu request 2 is above its limit 1`},
		{"resources", resources("nvidia.com/gpu", "1", ""), `it requests nvidia.com/gpu without a limit: the two must be equal`},
	} {
		s := &dag.Step{Name: "a", Pos: dag.Pos{File: "in.star", Line: 2, Col: 3}}
		if tt.field == "volume" {
			s.Volumes = []dag.Object{{{Name: "name", Value: tt.value}}}
		} else {
			s.Container.Set(tt.value, tt.field)
		}
		want := tt.want
		if want != "" {
			want = `in.star:2:3: step "a": ` + want
		}
		if got := errText(Check(&dag.Pipeline{Steps: []*dag.Step{s}})); got != want {
			t.Errorf("Check of %s %v:\n%s\nwant\n%s", tt.field, tt.value, got, want)
		}
	}
	p := &dag.Pipeline{Steps: []*dag.Step{
		{Name: "b", Pos: dag.Pos{File: "in.star", Line: 5, Col: 1}, Container: dag.Object{{Name: "image", Value: "a b"}, {Name: "env", Value: env("=")}}},
		{Name: "a", Pos: dag.Pos{File: "in.star", Line: 1, Col: 1}, Container: dag.Object{{Name: "image", Value: "a b"}}},
	}}
	want := `in.star:1:1: step "a": image "a b": want no spaces
in.star:5:1: step "b": image "a b": want no spaces
in.star:5:1: step "b": variable "=": want printable ASCII without spaces and =`
	if got := errText(Check(p)); got != want {
		t.Errorf("Check of several faults:\n%s\nwant\n%s", got, want)
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
