package dag

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"github.com/kfs-project/kfs/internal/spell"
)

// This file defines what makes a pipeline valid.

// outputName is the form of names of outputs; KFP has the same.
var outputName = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^[A-Za-z][A-Za-z0-9\s_-]*$`)
})

// CheckOutputName returns what is wrong with the name of an output, or "".
func CheckOutputName(name string) string {
	if !outputName().MatchString(name) {
		return fmt.Sprintf("output name %q: want a letter, then letters, digits, spaces, _ or -", name)
	}
	return ""
}

// Validate reports all faults of the pipeline, as an Errors sorted by place:
// names that are missing or coincide, references to what does not exist,
// damaged tokens, bad counts, mounts without a volume, and cycles.
func (p *Pipeline) Validate() error {
	v := validator{p: p, steps: map[string]*Step{}, groups: map[string]*Group{}, params: map[string]bool{}, fullNames: map[string]Pos{}, hints: map[string]string{}, exclusives: map[Ref]bool{}}
	v.pipeline()
	t := newTree(p)
	t.refs = make([][]Ref, len(p.Steps))
	for i, s := range p.Steps {
		v.about = s.Name
		t.refs[i] = v.step(s)
	}
	v.scopes(t)
	if _, err := t.order(); err != nil {
		v.faults = append(v.faults, Faults(err)...)
	}
	return v.faults.Err()
}

type validator struct {
	p          *Pipeline
	steps      map[string]*Step
	groups     map[string]*Group
	params     map[string]bool
	exit       string         // the step of the exit handler; "" is none
	fullNames  map[string]Pos // of outputs, as KFP's compiler writes them
	hints      map[string]string
	exclusives map[Ref]bool // of one_of, whether only one of the outputs can be there
	about      string       // the step or group that is looked at, or ""
	faults     Errors
}

func (v *validator) fault(pos Pos, format string, args ...any) *Error {
	e := &Error{Pos: pos, Name: v.about, Msg: fmt.Sprintf(format, args...)}
	v.faults = append(v.faults, e)
	return e
}

func (v *validator) pipeline() {
	p := v.p
	switch {
	case K8sName(p.Name) == "":
		v.fault(p.Pos, "pipeline name %q: want at least one ASCII letter or digit", p.Name)
	case len(K8sName(p.Name)) > MaxName:
		v.fault(p.Pos, "pipeline name %q: %d characters; want at most %d", p.Name, len(K8sName(p.Name)), MaxName)
	}
	if len(p.Steps) == 0 {
		v.fault(p.Pos, "pipeline %q has no steps", p.Name)
	}
	for _, q := range p.Params {
		if v.params[q.Name] {
			v.fault(q.Pos, "two params are named %q", q.Name)
		}
		v.params[q.Name] = true
	}
	for _, s := range p.Steps {
		if other := v.steps[s.Name]; other != nil {
			v.fault(s.Pos, "step %q: the step at %s has this name too", s.Name, other.Pos)
		}
		v.steps[s.Name] = s
	}
	for _, g := range p.Groups {
		if other := v.steps[g.Name]; other != nil {
			v.fault(g.Pos, "block %q: the step at %s has this name too", g.Name, other.Pos)
		}
		v.groups[g.Name] = g
	}
}

// step checks a step and returns its Refs, which are met on the way.
func (v *validator) step(s *Step) []Ref {
	switch {
	case s.Name == "" || s.Name != K8sName(s.Name):
		v.fault(s.Pos, "step name %q: want small letters, digits and hyphens", s.Name)
	case len(s.Name) > MaxName:
		v.fault(s.Pos, "step name %q: %d characters; want at most %d", s.Name, len(s.Name), MaxName)
	}
	if s.Resource == nil && s.Image() == "" {
		v.fault(s.Pos, "step %q has no image", s.Name)
	}
	for _, e := range s.After {
		if v.steps[e.Step] == nil && v.groups[e.Step] == nil {
			v.fault(e.Pos, "step %q needs unknown step %q", s.Name, e.Step).Hint = v.didYouMean(e.Step)
		}
	}
	refs := distinct[Ref]{list: []Ref{}}
	s.WalkText(func(field *Field, text string) {
		for _, r := range v.text(s, field, text) {
			refs.add(r)
		}
	})
	files := map[string]string{}
	for _, a := range s.Artifacts {
		for _, r := range v.text(s, &Field{prefix: "artifact " + a.Name}, a.Text) {
			refs.add(r)
		}
		if !path.IsAbs(a.Path) || path.Clean(a.Path) == "/" {
			v.fault(a.Pos, "step %q takes %q as a file: path %q: want an absolute path in the container", s.Name, a.Name, a.Path)
		}
		if other, ok := files[path.Clean(a.Path)]; ok {
			v.fault(a.Pos, "step %q takes %q and %q as one file, %s", s.Name, other, a.Name, a.Path)
		}
		files[path.Clean(a.Path)] = a.Name
	}
	if s.Resource != nil {
		v.resource(s)
	} else {
		for _, o := range s.Outputs {
			v.output(s, files, o)
		}
	}
	v.count(s, "timeout", s.Timeout, 1)
	if r := s.Retry; r != nil {
		v.count(s, "retry limit", r.Limit, 0)
		if r.Policy != "" && !slices.Contains(RetryPolicies, r.Policy) {
			v.fault(s.Pos, "step %q: retry policy %q: want %s", s.Name, r.Policy, strings.Join(RetryPolicies, ", "))
		}
		for _, d := range []string{r.Backoff, r.MaxBackoff} {
			if _, err := ParseBackoff(d); err != nil && !HasRefs(d) {
				v.fault(s.Pos, "step %q: %v", s.Name, err)
			}
		}
		if f, err := r.Factor.Float64(); r.Factor != "" && (err != nil || f <= 0) {
			v.fault(s.Pos, "step %q: retry factor %s: want a positive number", s.Name, r.Factor)
		}
	}
	v.mounts(s)
	v.accelerator(s)
	v.conduct(s)
	v.dataVolume(s)
	return refs.list
}

// didYouMean gives the hint for an unknown step, and none after the first few:
// each costs a look at every step.
func (v *validator) didYouMean(name string) string {
	hint, ok := v.hints[name]
	if !ok && len(v.hints) < 10 {
		var names []string
		for _, s := range v.p.Steps {
			names = append(names, s.Name)
		}
		hint = spell.DidYouMean(name, names)
		v.hints[name] = hint
	}
	return hint
}

// text checks one text of a step and returns the values whose tokens stand in
// it.
func (v *validator) text(s *Step, field *Field, text string) []Ref {
	refs, whole := Refs(text)
	if whole && !utf8.ValidString(text) {
		v.fault(s.Pos, "step %q, %s: %q is not valid UTF-8", s.Name, field, Display(text))
	}
	if strings.ContainsRune(text, 0) {
		v.fault(s.Pos, "step %q, %s: it holds a zero byte, which no argument or variable can hold", s.Name, field)
	}
	if !whole {
		v.fault(s.Pos, "step %q, %s: a value known only at run time was cut in two", s.Name, field)
	}
	for _, r := range refs {
		switch r.Kind {
		case RefParam:
			if !v.params[r.Name] {
				v.fault(s.Pos, "step %q, %s: unknown param %q", s.Name, field, r.Name)
			}
		}
		for _, o := range r.Outputs() {
			if from := v.steps[o.Step]; from == nil {
				v.fault(s.Pos, "step %q, %s: output of unknown step %q", s.Name, field, o.Step)
			} else if from.Output(o.Name) == nil {
				v.fault(s.Pos, "step %q, %s: step %q has no output %q", s.Name, field, o.Step, o.Name)
			}
		}
	}
	return refs
}

// output checks an output of a step; files are the names of the outputs before
// it by their paths.
func (v *validator) output(s *Step, files map[string]string, o Output) {
	v.outputName(s, o)
	if !path.IsAbs(o.Path) || path.Clean(o.Path) == "/" || strings.ContainsFunc(o.Path, unicode.IsControl) {
		v.fault(o.Pos, "output %q of step %q: path %q: want the absolute path of a file in the container", o.Name, s.Name, o.Path)
		return
	}
	file := path.Clean(o.Path)
	if other, ok := files[file]; ok {
		v.fault(o.Pos, "outputs %q and %q of step %q are one file, %s", other, o.Name, s.Name, o.Path)
	} else {
		files[file] = o.Name
	}
}

// outputName checks the name of an output.
func (v *validator) outputName(s *Step, o Output) {
	if fault := CheckOutputName(o.Name); fault != "" {
		v.fault(o.Pos, "step %q: %s", s.Name, fault)
	}
	full := FullName(s.Name, o.Name)
	if other, ok := v.fullNames[full]; ok {
		v.fault(o.Pos, "output %q of step %q: its full name %q is that of the output at %s too", o.Name, s.Name, full, other)
	} else {
		v.fullNames[full] = o.Pos
	}
}

// count checks a whole number that may be a token.
func (v *validator) count(s *Step, field, text string, least int) {
	if text == "" {
		return
	}
	if _, ok := SoleRef(text); ok {
		return
	}
	if n, err := strconv.Atoi(text); err != nil || n < least {
		v.fault(s.Pos, "step %q: %s %q: want a whole number, %d or more", s.Name, field, Display(text), least)
	}
}

// mounts checks that each mount has its volume and each name and path is once.
func (v *validator) mounts(s *Step) {
	volumes := map[string]bool{}
	for _, vol := range s.Volumes {
		name, _ := vol.Get("name").(string)
		if name == "" {
			v.fault(s.Pos, "step %q has a volume without a name", s.Name)
		} else if volumes[name] {
			v.fault(s.Pos, "step %q has two volumes named %q", s.Name, Display(name))
		}
		volumes[name] = true
	}
	paths := map[string]string{}
	list, _ := s.Container.Get("volumeMounts").([]any)
	for _, m := range list {
		mount, _ := m.(Object)
		name, _ := mount.Get("name").(string)
		at, _ := mount.Get("mountPath").(string)
		if !volumes[name] {
			v.fault(s.Pos, "step %q mounts volume %q, which it does not have", s.Name, Display(name)).Hint = "give it the volume too:  .add_volume(...)"
		}
		if other, ok := paths[at]; ok {
			v.fault(s.Pos, "step %q mounts two volumes at %s: %q and %q", s.Name, Display(at), Display(other), Display(name))
		}
		paths[at] = name
	}
}
