package builtins

import (
	"strings"
	"testing"

	"go.starlark.net/starlark"
)

// TestModules shows that every word of KFP is one of the language, or says
// what to write instead.
func TestModules(t *testing.T) {
	s := New(new(starlark.Thread), Config{})
	kfp, ok := s.Module("@kfp")
	if !ok {
		t.Fatal("no module @kfp")
	}
	for module, words := range kfpModules {
		m := kfp[module].(*kfpModule)
		for name, w := range words {
			v, err := m.member(name)
			if err != nil {
				t.Errorf("%s.%s: %v", module, name, err)
			}
			if kfp[name] == nil {
				t.Errorf("load(\"@kfp\", %q) gives nothing", name)
			}
			if r, ok := v.(*refused); ok && (r.instead == "" || w.word != "") {
				t.Errorf("%s.%s: %+v is refused without a word of what to write instead", module, name, w)
			}
		}
	}
	for _, name := range []string{"k8s_client", "V1Toleration", "V1EnvVar", "compiler"} {
		if kfp[name] == nil {
			t.Errorf("load(\"@kfp\", %q) gives nothing", name)
		}
	}
	kfs, _ := s.Module("@kfs")
	for _, word := range Words() {
		if kfs[word] == nil {
			t.Errorf("load(\"@kfs\", %q) gives nothing", word)
		}
	}
	if _, ok := s.Module("@kubernetes"); ok {
		t.Error("there is a module @kubernetes")
	}
}

// TestKFPArguments shows that the alias of a word names none of its arguments
// wrongly: a call with all of KFP's fails for no unknown argument.
func TestKFPArguments(t *testing.T) {
	for module, words := range kfpModules {
		for name, w := range words {
			var kwargs []starlark.Tuple
			for _, arg := range w.order {
				if w.refused[arg] == "" {
					kwargs = append(kwargs, starlark.Tuple{starlark.String(arg), starlark.None})
				}
			}
			for arg := range w.rename {
				kwargs = append(kwargs, starlark.Tuple{starlark.String(arg), starlark.None})
			}
			if kwargs == nil {
				continue
			}
			thread := new(starlark.Thread)
			s := New(thread, Config{})
			s.body = newBody(&Pipeline{conf: &conf{s: s}})
			v, err := (&kfpModule{s, module, words}).member(name)
			if err != nil {
				t.Errorf("%s.%s: %v", module, name, err)
				continue
			}
			if _, err := starlark.Call(thread, v, nil, kwargs); err != nil && strings.Contains(err.Error(), "has no argument") {
				t.Errorf("%s.%s: %v", module, name, err)
			}
		}
	}
}

func TestPythonNames(t *testing.T) {
	names := []string{"In Text", "in-text", "in_text 2", "1st", "Ünï", "!", "a__b", "in text"}
	want := []string{"in_text", "in_text_2", "in_text_2_2", "n1st", "ünï", "", "a_b", "in_text_3"}
	got := pythonNames(names)
	for i, name := range names {
		if got[name] != want[i] {
			t.Errorf("pythonNames: %q is %q; want %q", name, got[name], want[i])
		}
	}
}
