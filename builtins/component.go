package builtins

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/builtins/component"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
)

// This file defines load_component: functions that make steps from component
// files of KFP.

// loadComponent: load_component(path) -> fn, load_component(url=...) -> fn
//
// A function that makes a step from a component file of KFP, see
// [Components](#components).
//
// KFP's names of the arguments, filename and text, are taken too.
func (s *Session) loadComponent(c *call) (starlark.Value, error) {
	var file, url, text, filename string
	if err := c.unpack("path?", &file, "url??", &url, "text??", &text, "filename??", &filename); err != nil {
		return nil, err
	}
	given := 0
	for _, source := range []string{file, url, text, filename} {
		if source != "" {
			given++
		}
	}
	switch {
	case given != 1:
		return nil, c.errorf("", "load_component: want one source, a path or url = ..., got %d", given)
	case strings.Contains(file, "://"):
		return nil, c.errorf("path", "load_component: %q is a URL: write  load_component(url = %q)", file, file)
	case url != "":
		return s.loadURL(c, "url", url)
	case text != "":
		return s.newComponent(c, source{arg: "text"}, text)
	case filename != "":
		return s.loadFile(c, "filename", filename)
	}
	return s.loadFile(c, "path", file)
}

// loadComponentFromText: load_component_from_text(text) -> fn
//
// The same, from the text of such a file.
func (s *Session) loadComponentFromText(c *call) (starlark.Value, error) {
	var text string
	if err := c.unpack("text", &text); err != nil {
		return nil, err
	}
	return s.newComponent(c, source{arg: "text"}, text)
}

// A source is where a component is from.
type source struct {
	arg  string // of the call that names it
	file string // the name of the file, for messages; "" for text of the script
	url  string // for KFP's note of where it is from
}

// place says where a line of the component is.
func (s source) place(line int) string {
	switch {
	case line == 0 && s.file == "":
		return "the component's text"
	case line == 0:
		return s.file
	case s.file == "":
		return fmt.Sprintf("line %d of the component's text", line)
	}
	return fmt.Sprintf("%s:%d", s.file, line)
}

func (s *Session) loadFile(c *call, arg, name string) (starlark.Value, error) {
	if s.cfg.ReadFile == nil {
		return nil, c.errorf("", "%s: this host lets scripts read no files", c.name)
	}
	text, err := s.cfg.ReadFile(name, c.pos.File)
	if err != nil {
		return nil, c.errorf(arg, "%s: %v", c.name, err)
	}
	file, fromRoot := strings.CutPrefix(name, "//")
	if file = path.Clean(file); !fromRoot {
		file = path.Join(path.Dir(c.pos.File), name)
	}
	return s.newComponent(c, source{arg, file, name}, text)
}

func (s *Session) loadURL(c *call, arg, url string) (*factory, error) {
	url = component.FixURL(url)
	if s.cfg.ReadURL == nil {
		return nil, c.errorf("", "%s: this host lets scripts read no URLs", c.name)
	}
	text, err := s.cfg.ReadURL(url)
	from := source{arg, url, url}
	if err != nil {
		e := c.report(arg, "%s: %v", c.name, err)
		var hinted interface{ Hint() string }
		if errors.As(err, &hinted) {
			e.Hint = hinted.Hint()
		} else if s.cfg.VendorCommand != "" {
			e.Hint = "evaluation fetches nothing: the copies of components are made by  " + s.cfg.VendorCommand
		}
		return s.unknownComponent(from), nil
	}
	return s.newComponent(c, from, text)
}

// newComponent reads a component. It reports what is wrong in it.
func (s *Session) newComponent(c *call, from source, text string) (*factory, error) {
	spec, err := component.Read([]byte(text))
	var faults component.Faults
	if errors.As(err, &faults) {
		for _, f := range faults {
			c.report(from.arg, "%s: %s", from.place(f.Line), f.Msg).Hint = f.Hint
		}
		return s.unknownComponent(from), nil
	}
	ref := dag.Object{{Name: "digest", Value: spec.Digest}}
	if from.url != "" {
		ref.Set(from.url, "url")
	}
	return newFactory(s, spec, from, ref), nil
}

// A factory is what load_component returns: a function that makes a step, or
// the steps of a graph.
type factory struct {
	s       *Session
	spec    *component.Spec
	from    source
	ref     dag.Object
	inputs  []string          // names of inputs, required ones first
	keyword map[string]string // Python's forms of the names of inputs, by these

	unknown bool // it could not be read: it takes anything, and so does its step
}

var _ starlark.Callable = (*factory)(nil)

func newFactory(s *Session, spec *component.Spec, from source, ref dag.Object) *factory {
	f := &factory{s: s, spec: spec, from: from, ref: ref}
	var names, optional []string
	for _, in := range spec.Inputs {
		names = append(names, in.Name)
		if in.Optional || in.Default != nil {
			optional = append(optional, in.Name)
		} else {
			f.inputs = append(f.inputs, in.Name)
		}
	}
	f.inputs = append(f.inputs, optional...)
	f.keyword = pythonNames(names)
	return f
}

// unknownComponent stands for a component that could not be read, so that
// evaluation goes on to the faults behind it. Which inputs and outputs it has,
// nobody asks.
func (s *Session) unknownComponent(from source) *factory {
	s.incomplete = true
	f := newFactory(s, &component.Spec{}, from, nil)
	f.unknown = true
	return f
}

// pythonNames returns Python's forms of names, made unique by _2, _3, ... A
// name that is its own form keeps it, wherever it stands. The source is
// generate_unique_name_conversion_table of kfp 1.8.22.
func pythonNames(names []string) map[string]string {
	forms := map[string]string{}
	used := map[string]bool{}
	for _, name := range names {
		if normalize(name) == name {
			forms[name] = name
			used[name] = true
		}
	}
	for _, name := range names {
		if forms[name] != "" {
			continue
		}
		form := normalize(name)
		for i := 2; used[form]; i++ {
			form = normalize(name + " " + strconv.Itoa(i))
		}
		forms[name] = form
		used[form] = true
	}
	return forms
}

func (f *factory) Name() string {
	if f.spec.Name == "" {
		return "Component"
	}
	return f.spec.Name
}

func (f *factory) String() string        { return fmt.Sprintf("<component %q>", f.Name()) }
func (f *factory) Type() string          { return "component" }
func (f *factory) Freeze()               {}
func (f *factory) Truth() starlark.Bool  { return true }
func (f *factory) Hash() (uint32, error) { return starlark.String(f.Name()).Hash() }

// title names the component in messages.
func (f *factory) title() string { return fmt.Sprintf("component %q", f.Name()) }

// CallInternal makes a step, or the steps of a graph.
func (f *factory) CallInternal(thread *starlark.Thread, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	c := &call{s: f.s, name: f.title(), pos: f.s.caller(thread), args: args, kwargs: kwargs}
	b, err := c.inBody()
	if err != nil {
		return nil, err
	}
	if f.unknown {
		return f.make(c, b, nil, 0)
	}
	given, err := f.bind(c)
	if err != nil {
		return nil, err
	}
	return f.make(c, b, given, 0)
}

// bind returns the values that the call gives, by the names of inputs.
func (f *factory) bind(c *call) (map[string]starlark.Value, error) {
	var keywords []string
	for _, name := range f.inputs {
		keywords = append(keywords, f.keyword[name])
	}
	if len(c.args) > len(keywords) {
		return nil, c.errorf("", "%s got %d positional arguments: want at most %d (%s)", c.name, len(c.args), len(keywords), strings.Join(keywords, ", "))
	}
	given := map[string]starlark.Value{}
	for i, v := range c.args {
		given[f.inputs[i]] = v
	}
	for _, kw := range c.kwargs {
		name := string(kw[0].(starlark.String))
		i := slices.Index(keywords, name)
		switch {
		case i < 0:
			e := c.errorf(name, "%s has no argument %q", c.name, name)
			if hint := spell.DidYouMean(name, keywords); hint != "" {
				e.Msg += ": " + hint
			} else if len(keywords) > 0 {
				e.Hint = "its arguments are " + strings.Join(keywords, ", ")
			} else {
				e.Hint = "it has no inputs"
			}
			return nil, e
		case given[f.inputs[i]] != nil:
			return nil, c.errorf(name, "%s got two values for %q", c.name, name)
		}
		given[f.inputs[i]] = kw[1]
	}
	var missing []string
	for _, in := range f.spec.Inputs {
		if in.Default == nil && !in.Optional && given[in.Name] == nil {
			missing = append(missing, strconv.Quote(f.keyword[in.Name]))
		}
	}
	if missing != nil {
		return nil, c.errorf("", "%s lacks the argument %s", c.name, strings.Join(missing, " and "))
	}
	return given, nil
}

// maxComponentDepth is how deep components may stand in each other.
const maxComponentDepth = 20

// make makes the step, or the steps of a graph, from the values of inputs;
// depth is how many graphs it stands in.
func (f *factory) make(c *call, b *body, given map[string]starlark.Value, depth int) (starlark.Value, error) {
	if depth > maxComponentDepth {
		return nil, c.errorf("", "%s: graphs stand in each other more than %d deep", c.name, maxComponentDepth)
	}
	if f.spec.Graph != nil {
		return f.makeGraph(c, b, given, depth)
	}
	st, err := c.newStep(b, f.Name())
	if err != nil {
		return nil, err
	}
	if f.unknown {
		st.unknown = true
		b.add(st)
		return st, nil
	}
	k := f.spec.Container
	x := &expansion{f: f, c: c, st: st, texts: map[string]string{}}
	x.values(given)
	for _, o := range f.spec.Outputs {
		for _, fixed := range k.FileOutputs {
			if fixed.Name == o.Name {
				x.output(o.Name, fixed.Value, 0)
			}
		}
	}
	command, args := x.list(k.Command), x.list(k.Args)
	x.unnamed()
	st.d.Container.Set(k.Image, "image")
	st.d.Container.Set(command, "command")
	st.d.Container.Set(args, "args")
	for _, e := range k.Env {
		c.addEnv(st.target(), e.Name, e.Value)
	}
	owner := fmt.Sprintf("step %q", st.d.Name)
	for _, a := range f.spec.Annotations {
		c.setPair(&st.d.Annotations, owner, "", "annotation", a.Name, a.Value, false)
		if a.Name == "volatile_component" && a.Value == "true" {
			st.d.MaxCacheStaleness = "P0D"
		}
	}
	for _, l := range f.spec.Labels {
		c.setPair(&st.d.Labels, owner, "", "label", l.Name, l.Value, true)
	}
	st.d.Component = &dag.Component{Spec: f.spec.Tree, Ref: f.ref, Arguments: x.byValue.Sorted()}
	var outputs []string
	for _, o := range f.spec.Outputs {
		outputs = append(outputs, o.Name)
	}
	st.aliases = map[string]string{}
	for name, form := range pythonNames(outputs) {
		st.aliases[form] = name
	}
	if b.components == nil {
		b.components = map[string]*component.Spec{}
	}
	b.components[st.d.Name] = f.spec
	b.add(st)
	return st, nil
}
