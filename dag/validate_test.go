package dag

import (
	"errors"
	"strings"
	"testing"
)

func TestValidate(t *testing.T) {
	long := strings.Repeat("x", MaxName+1)
	token := func(step, name string) string { return Ref{Kind: RefOutput, Step: step, Name: name}.Token() }
	volumes := func(s *Step, names ...string) {
		for _, n := range names {
			s.Volumes = append(s.Volumes, Object{{"name", n}})
		}
	}
	mount := func(s *Step, name, at string) {
		s.Container.Append("volumeMounts", Object{{"mountPath", at}, {"name", name}})
	}
	// Each change is made to a pipeline "p" at 9:9 of two steps, "train" at 1:1
	// and "eval" at 2:1, which uses the output "o" of "train" at 1:1.
	for _, tt := range []struct {
		name   string
		change func(p *Pipeline, train, eval *Step)
		want   string
	}{
		{"valid", func(p *Pipeline, train, eval *Step) {}, ""},
		{"name that is not Kubernetes'", func(p *Pipeline, train, eval *Step) { p.Name = "My P!" }, ""},
		{"name", func(p *Pipeline, train, eval *Step) { p.Name = "日本" },
			`in.star:9:9: pipeline name "日本": want at least one ASCII letter or digit`},
		{"long name", func(p *Pipeline, train, eval *Step) { p.Name = "é" + long },
			`in.star:9:9: pipeline name "é` + long + `": 254 characters; want at most 253`},
		{"no steps", func(p *Pipeline, train, eval *Step) { p.Steps = nil },
			`in.star:9:9: pipeline "p" has no steps`},
		{"params", func(p *Pipeline, train, eval *Step) {
			p.Params = []*Param{{Name: "n"}, {Name: "n", Pos: Pos{"in.star", 9, 20}}}
		}, `in.star:9:20: two params are named "n"`},
		{"step twice", func(p *Pipeline, train, eval *Step) {
			p.Steps = append(p.Steps, step("eval", 3))
			p.Steps[2].Outputs = nil
		},
			`in.star:3:1: step "eval": the step at in.star:2:1 has this name too`},
		{"step name", func(p *Pipeline, train, eval *Step) { eval.Name = "Eval_1" },
			`in.star:2:1: step name "Eval_1": want small letters, digits and hyphens`},
		{"no step name", func(p *Pipeline, train, eval *Step) { eval.Name = "" },
			`in.star:2:1: step name "": want small letters, digits and hyphens`},
		{"long step name", func(p *Pipeline, train, eval *Step) { eval.Name = long },
			`in.star:2:1: step name "` + long + `": 254 characters; want at most 253`},
		{"image", func(p *Pipeline, train, eval *Step) { eval.Container.Set("", "image") },
			`in.star:2:1: step "eval" has no image`},
		{"unknown need", func(p *Pipeline, train, eval *Step) { eval.After = []Edge{{"trian", Pos{"in.star", 2, 5}}} },
			`in.star:2:5: step "eval" needs unknown step "trian" | did you mean "train"?`},
		{"unknown need twice", func(p *Pipeline, train, eval *Step) { // sorted among known ones
			eval.After = []Edge{{"x", Pos{"in.star", 2, 7}}, {"train", Pos{}}, {"x", Pos{"in.star", 2, 5}}}
		}, `in.star:2:5: step "eval" needs unknown step "x"
in.star:2:7: step "eval" needs unknown step "x"`},
		{"cycle", func(p *Pipeline, train, eval *Step) { train.After = []Edge{{"eval", Pos{"in.star", 1, 5}}} },
			`in.star:2:1: cycle: train -> eval -> train, where each step needs the next one | remove one of these needs: an after(...) or the use of an output`},

		{"unknown param", func(p *Pipeline, train, eval *Step) { eval.Container.Append("args", refN.Token()) },
			`in.star:2:1: step "eval", container.args[1]: unknown param "n"`},
		{"unknown step", func(p *Pipeline, train, eval *Step) { eval.Timeout = token("x", "o") },
			`in.star:2:1: step "eval", timeout: output of unknown step "x"`},
		{"unknown output", func(p *Pipeline, train, eval *Step) { eval.Retry = &Retry{Limit: token("train", "p")} },
			`in.star:2:1: step "eval", retry limit: step "train" has no output "p"`},
		{"in a volume", func(p *Pipeline, train, eval *Step) {
			eval.Volumes = []Object{{{"name", "v"}, {"secret", Object{{"secretName", refN.Token()}}}}}
		}, `in.star:2:1: step "eval", volume v: secret.secretName: unknown param "n"`},
		{"in a member's name", func(p *Pipeline, train, eval *Step) { eval.Container.Set("x", "env", refN.Token()) },
			`in.star:2:1: step "eval", container.env.` + refN.Token() + `: unknown param "n"`},
		{"cut", func(p *Pipeline, train, eval *Step) { eval.Container.Append("args", "x"+refN.Token()[:5]) },
			`in.star:2:1: step "eval", container.args[1]: a value known only at run time was cut in two`},
		{"a token in a cut one", func(p *Pipeline, train, eval *Step) { eval.Container.Append("args", left+"param:"+refID.Token()) },
			`in.star:2:1: step "eval", container.args[1]: a value known only at run time was cut in two`},
		{"cut at both ends", func(p *Pipeline, train, eval *Step) {
			eval.Container.Append("args", refN.Token()[1:len(refN.Token())-1])
		}, `in.star:2:1: step "eval", container.args[1]: "\x80\x80param:n\xee\x80" is not valid UTF-8`},
		{"equal faults", func(p *Pipeline, train, eval *Step) {
			eval.Container.Append("args", refN.Token()+token("x", "y")+refN.Token())
		}, `in.star:2:1: step "eval", container.args[1]: unknown param "n"
in.star:2:1: step "eval", container.args[1]: output of unknown step "x"`},

		{"output name", func(p *Pipeline, train, eval *Step) { eval.Outputs[0].Name = "1:2" },
			`in.star:2:1: step "eval": output name "1:2": want a letter, then letters, digits, spaces, _ or -`},
		{"full names", func(p *Pipeline, train, eval *Step) {
			eval.Name = "train-a"
			train.Outputs = append(train.Outputs, Output{Name: "a-o", Path: "/p", Pos: Pos{"in.star", 1, 3}})
		}, `in.star:2:1: output "o" of step "train-a": its full name "train-a-o" is that of the output at in.star:1:3 too`},
		{"output path", func(p *Pipeline, train, eval *Step) { eval.Outputs[0].Path = "o" },
			`in.star:2:1: output "o" of step "eval": path "o": want the absolute path of a file in the container`},
		{"output root", func(p *Pipeline, train, eval *Step) { eval.Outputs[0].Path = "/x/.." },
			`in.star:2:1: output "o" of step "eval": path "/x/..": want the absolute path of a file in the container`},
		{"one file", func(p *Pipeline, train, eval *Step) {
			eval.Outputs = append(eval.Outputs, Output{Name: "p", Path: "//o/", Pos: Pos{"in.star", 2, 4}})
		}, `in.star:2:4: outputs "o" and "p" of step "eval" are one file, //o/`},

		{"timeout", func(p *Pipeline, train, eval *Step) { eval.Timeout = "0" },
			`in.star:2:1: step "eval": timeout "0": want a whole number, 1 or more`},
		{"timeout of two", func(p *Pipeline, train, eval *Step) { eval.Timeout = refID.Token() + "0" },
			`in.star:2:1: step "eval": timeout "<run_id()>0": want a whole number, 1 or more`},
		{"timeout token", func(p *Pipeline, train, eval *Step) { eval.Timeout = refID.Token() }, ""},
		{"retry", func(p *Pipeline, train, eval *Step) {
			eval.Retry = &Retry{Limit: "0", Policy: "Always", Backoff: "2m", Factor: "2", MaxBackoff: refID.Token()}
		}, ""},
		{"retry limit", func(p *Pipeline, train, eval *Step) { eval.Retry = &Retry{Limit: "-1"} },
			`in.star:2:1: step "eval": retry limit "-1": want a whole number, 0 or more`},
		{"retry policy", func(p *Pipeline, train, eval *Step) { eval.Retry = &Retry{Policy: "Never"} },
			`in.star:2:1: step "eval": retry policy "Never": want Always, OnFailure, OnError, OnTransientError`},
		{"backoff", func(p *Pipeline, train, eval *Step) {
			eval.Retry = &Retry{Backoff: "soon", MaxBackoff: "-1", Factor: "-2"}
		},
			`in.star:2:1: step "eval": backoff "soon": want seconds or a duration like "2m"
in.star:2:1: step "eval": backoff "-1": want seconds or a duration like "2m"
in.star:2:1: step "eval": retry factor -2: want a positive number`},

		{"mounts", func(p *Pipeline, train, eval *Step) {
			volumes(eval, "v", "w")
			mount(eval, "v", "/v")
			mount(eval, "w", "/w")
		}, ""},
		{"no volume", func(p *Pipeline, train, eval *Step) { mount(eval, "v", "/v") },
			`in.star:2:1: step "eval" mounts volume "v", which it does not have | give it the volume too:  .add_volume(...)`},
		{"two volumes", func(p *Pipeline, train, eval *Step) { volumes(eval, "v", "v") },
			`in.star:2:1: step "eval" has two volumes named "v"`},
		{"no volume name", func(p *Pipeline, train, eval *Step) { eval.Volumes = []Object{{{"emptyDir", Object{}}}} },
			`in.star:2:1: step "eval" has a volume without a name`},
		{"two mounts", func(p *Pipeline, train, eval *Step) {
			volumes(eval, "v", "w")
			mount(eval, "v", "/v")
			mount(eval, "w", "/v")
		}, `in.star:2:1: step "eval" mounts two volumes at /v: "v" and "w"`},

		{"many, sorted", func(p *Pipeline, train, eval *Step) {
			p.Name = "!"
			eval.Container.Set("", "image")
			eval.After = []Edge{{"x", Pos{"a.star", 1, 1}}}
			train.Timeout = "z"
			train.After = []Edge{{"train", Pos{"in.star", 1, 7}}}
		}, `a.star:1:1: step "eval" needs unknown step "x"
in.star:1:1: step "train": timeout "z": want a whole number, 1 or more
in.star:1:7: step "train" needs itself
in.star:2:1: step "eval" has no image
in.star:9:9: pipeline name "!": want at least one ASCII letter or digit`},
	} {
		p := graph("train\neval train!")
		p.Pos = Pos{"in.star", 9, 9}
		tt.change(p, p.Steps[0], p.Steps[1])
		err := p.Validate()
		var got []string
		for _, e := range Faults(err) {
			line := e.Error()
			if e.Hint != "" {
				line += " | " + e.Hint
			}
			got = append(got, line)
		}
		if got := strings.Join(got, "\n"); got != tt.want {
			t.Errorf("%s: Validate:\n%s\nwant\n%s", tt.name, got, tt.want)
		}
		if all := Errors(nil); err != nil && !errors.As(err, &all) {
			t.Errorf("%s: Validate returned a %T", tt.name, err)
		}
	}
}

func TestStep(t *testing.T) {
	s := full().Steps[0]
	if s.Image() != "i" || len(s.Command()) != 0 || len(s.Args()) != 2 || s.Output("acc").Path != "/tmp/acc" || s.Output("x") != nil {
		t.Errorf("step %q: image %q, command %q, args %q, outputs %v", s.Name, s.Image(), s.Command(), s.Args(), s.Outputs)
	}
	if got := s.Refs(); len(got) != 1 || got[0] != refN {
		t.Errorf("Refs() = %v; want n once", got)
	}
	p := full()
	if p.Step("eval") != p.Steps[1] || p.Step("x") != nil || p.Param("m") != p.Params[1] || p.Param("x") != nil {
		t.Error("Step or Param does not find by name")
	}
}
