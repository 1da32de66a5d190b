package images

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSplit(t *testing.T) {
	for _, tt := range []struct{ image, name, suffix string }{
		{"busybox", "busybox", ""},
		{"busybox:1.36", "busybox", ":1.36"},
		{"localhost:5000/x", "localhost:5000/x", ""},
		{"localhost:5000/x:tag", "localhost:5000/x", ":tag"},
		{"gcr.io/a/b@sha256:0123", "gcr.io/a/b", "@sha256:0123"},
		{"gcr.io:443/a/b:v1@sha256:0123", "gcr.io:443/a/b", ":v1@sha256:0123"},
		{"", "", ""},
	} {
		if name, suffix := Split(tt.image); name != tt.name || suffix != tt.suffix {
			t.Errorf("Split(%q) = %q, %q; want %q, %q", tt.image, name, suffix, tt.name, tt.suffix)
		}
	}
}

func TestResolve(t *testing.T) {
	m, err := Parse("/etc/kfs/images.yaml", []byte(`
images:
  gcr.io/team/train: registry.local:5000/train
  gcr.io/team/train:v3: other/train:pinned
  gcr.io/team/eval: {exec: [./bin/py, -u], dir: src, env: {A: "1"}, pass_env: [GPU], background: true}
  busybox: {exec: []}
`))
	if err != nil {
		t.Fatal(err)
	}
	eval := Target{Exec: &Exec{
		Command: []string{"/etc/kfs/bin/py", "-u"}, Dir: "/etc/kfs/src",
		Env: map[string]string{"A": "1"}, PassEnv: []string{"GPU"}, Background: true,
	}}
	for _, tt := range []struct {
		image string
		want  Target
		ok    bool
	}{
		{"gcr.io/team/train:v2", Target{Image: "registry.local:5000/train:v2"}, true},
		{"gcr.io/team/train@sha256:ab", Target{Image: "registry.local:5000/train@sha256:ab"}, true},
		{"gcr.io/team/train:v3", Target{Image: "other/train:pinned"}, true},
		{"gcr.io/team/train", Target{Image: "registry.local:5000/train"}, true},
		{"gcr.io/team/eval:v9", eval, true},
		{"busybox:1", Target{Exec: &Exec{Env: map[string]string{}}}, true},
		{"gcr.io/team/trainer:v2", Target{}, false},
	} {
		got, ok := m.Resolve(tt.image)
		if diff := cmp.Diff(tt.want, got); diff != "" || ok != tt.ok {
			t.Errorf("Resolve(%q): ok %v, want %v; (-want +got):\n%s", tt.image, ok, tt.ok, diff)
		}
	}
	if _, ok := (*Map)(nil).Resolve("x"); ok {
		t.Error("an empty map resolves x")
	}
}

func TestFaults(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"imges:\n  a: b\n", `images.yaml:1:1: unknown key "imges": did you mean "images"?`},
		{"{}", `images.yaml:1:1: want the key images, a map from image to what stands in for it`},
		{"a", `images.yaml: want a map with the key images`},
		{"images:\n  a: b\n  a: c\n", `images.yaml:3:3: key "a" stands there twice`},
		{"images:\n  ok: x\n  a: 3\n", `images.yaml:3:6: image "a": found 3: want an image, or {exec: [...]}`},
		{"images:\n  a:\n    exec: true\n", `images.yaml:3:11: image "a": exec is true: want a list of strings`},
		{"images:\n  a:\n    exec: [python, 3]\n", `images.yaml:3:11: image "a": exec is a list: want a list of strings`},
		{"images:\n  a:\n    dir: x\n", `images.yaml:2:3: image "a" has no exec: want  exec: [COMMAND, ...]  ([] runs the step's own command)`},
		{"images:\n  b:\n    exec: []\n  a:\n    exec: []\n    passenv: [X]\n", `images.yaml:6:5: image "a": unknown key "passenv": did you mean "pass_env"?`},
		{"images:\n  a: {exec: [], env: {NUM: 1}}\n", `images.yaml:2:28: image "a": env NUM is 1: want text; put it in quotes`},
		{"images:\n  a: {exec: [], background: 'yes'}\n", `images.yaml:2:29: image "a": background is "yes": want true or false`},
		{"images:\n  a: {exec: [], dir: 3}\n  b: ''\n", "images.yaml:2:22: image \"a\": dir is 3: want the path of a folder\n" +
			`images.yaml:3:6: image "b": its mirror is "": want the name of an image`},
		{"images:\n  a: {exec: [], env: {A=B: c}}\n", `images.yaml:2:23: image "a": env name "A=B": want a name without =`},
		{"images: {}\n---\nimages: {}\n", `images.yaml: want one YAML document, found more`},
		{"", `images.yaml: want a map with the key images`},
		{"images: [", `images.yaml:1: did not find expected node content`},
	} {
		_, err := Parse("images.yaml", []byte(tt.text))
		if err == nil || strings.TrimSpace(err.Error()) != tt.want {
			t.Errorf("Parse(%q):\n got %v\nwant %s", tt.text, err, tt.want)
		}
	}
}
