package builtins

import (
	"fmt"
	"path"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
	"github.com/kfs-project/kfs/kube"
)

// This file defines container_op, steps, and their methods.

// A step is what container_op returns.
type step struct {
	s *Session
	d *dag.Step
}

var (
	_ starlark.HasAttrs = (*step)(nil)
	_ starlark.HasAttrs = (*container)(nil)
)

func (st *step) String() string        { return fmt.Sprintf("<step %q>", st.d.Name) }
func (st *step) Type() string          { return "step" }
func (st *step) Freeze()               {}
func (st *step) Truth() starlark.Bool  { return true }
func (st *step) Hash() (uint32, error) { return starlark.String(st.d.Name).Hash() }

// containerOp: container_op(name, image, command=None, arguments=None, file_outputs=None, env=None) -> step
func (s *Session) containerOp(c *call) (starlark.Value, error) {
	b, err := c.inBody()
	if err != nil {
		return nil, err
	}
	var name string
	var image text
	var command, arguments starlark.Value
	var outputs, env *starlark.Dict
	if err := c.unpack("name", &name, "image", &image, "command??", &command, "arguments??", &arguments,
		"file_outputs??", &outputs, "env??", &env); err != nil {
		return nil, err
	}
	if b.fed++; s.cfg.MaxSteps > 0 && b.fed > s.cfg.MaxSteps {
		return nil, c.errorf("", "the pipeline has more than %d steps", s.cfg.MaxSteps)
	}
	st := &step{s, &dag.Step{Pos: c.pos}}
	if st.d.Name, err = b.names.name(name); err != nil {
		c.report("name", "%v", err)
	}
	st.d.Container.Set(string(image), "image")
	if command != nil {
		st.d.Container.Set(c.texts("command", command), "command")
	}
	if arguments != nil {
		st.d.Container.Set(c.texts("arguments", arguments), "args")
	}
	c.fileOutputs(st.d, outputs)
	if env != nil {
		for k, v := range env.Entries() {
			name, ok := k.(starlark.String)
			value, isText := scalarText(v)
			switch {
			case !ok:
				c.report("env", "env: want names of variables as keys, got %s", k.Type())
			case !isText:
				c.report("env", "env: value of %s: want text, got %s", name, v.Type())
			default:
				c.addEnv(st.d, string(name), value)
			}
		}
	}
	b.p.Steps = append(b.p.Steps, st.d)
	return st, nil
}

// texts returns an argument that is a list of texts, or a scalar that stands
// for a list of one.
func (c *call) texts(arg string, v starlark.Value) []any {
	list := []any{}
	it, ok := v.(starlark.Iterable)
	if _, isValue := v.(Runtime); isValue || !ok {
		it = starlark.Tuple{v}
	}
	i := 0
	for e := range starlark.Elements(it) {
		if text, ok := scalarText(e); ok {
			list = append(list, text)
		} else {
			c.badText(arg, i, e)
		}
		i++
	}
	return list
}

// badText reports an element that is no text.
func (c *call) badText(arg string, i int, v starlark.Value) {
	switch v := v.(type) {
	case *step:
		e := c.report(arg, "%s[%d] is the step %q: want text or an output", arg, i, v.d.Name)
		switch len(v.d.Outputs) {
		case 0:
			e.Hint = `to run after it, write  .after(...);  to use what it writes, give it file_outputs = {"name": "/path"}`
		default:
			e.Hint = fmt.Sprintf("pass one of its outputs:  .outputs[%q]", v.d.Outputs[0].Name)
		}
	case starlark.NoneType:
		c.report(arg, "%s[%d] is None: want text", arg, i).Hint = "leave it out, or write the text that is meant"
	case *condition:
		c.report(arg, "%s[%d]: %s%sa comparison of it is no text", arg, i, v.What(), onlyAtRunTime)
	case *starlark.List, starlark.Tuple, *starlark.Dict:
		c.report(arg, "%s[%d] is a %s: want text", arg, i, v.Type()).Hint = "write json.encode(x) to pass it as JSON, or + to join two lists"
	default:
		c.report(arg, "%s[%d] is a %s: want text", arg, i, v.Type())
	}
}

// fileOutputs adds the outputs that a dict of name to path declares.
func (c *call) fileOutputs(d *dag.Step, outputs *starlark.Dict) {
	if outputs == nil {
		return
	}
	for k, v := range outputs.Entries() {
		name, ok1 := k.(starlark.String)
		file, ok2 := v.(starlark.String)
		switch {
		case !ok1 || !ok2:
			c.report("file_outputs", "file_outputs: want names to paths, got %s to %s", k.Type(), v.Type())
		case dag.CheckOutputName(string(name)) != "":
			c.report("file_outputs", "%s", dag.CheckOutputName(string(name)))
		case !path.IsAbs(string(file)):
			c.report("file_outputs", "output %q: path %q: want an absolute path in the container", string(name), string(file))
		default:
			d.Outputs = append(d.Outputs, dag.Output{Name: string(name), Path: string(file), Pos: c.pos})
		}
	}
}

// addEnv, addVolume and addMount add what the step does not have yet. What is
// equal is not added again; what only has the same name is a fault.

func (c *call) addEnv(d *dag.Step, name, value string) {
	if err := kube.CheckEnvName(name); err != nil {
		c.report("env", "variable %v", err)
		return
	}
	c.addNamed(d, "env", "name", "variable", dag.Object{{Name: "name", Value: name}, {Name: "value", Value: value}})
}

func (c *call) addMount(d *dag.Step, name, mountPath string) {
	c.addNamed(d, "volumeMounts", "mountPath", "mount at", dag.Object{{Name: "mountPath", Value: mountPath}, {Name: "name", Value: name}})
}

func (c *call) addNamed(d *dag.Step, field, key, what string, obj dag.Object) {
	list, _ := d.Container.Get(field).([]any)
	for _, other := range list {
		if other, _ := other.(dag.Object); other.Get(key) == obj.Get(key) {
			if !reflect.DeepEqual(other, obj) {
				c.report("", "%s: step %q has another %s %q", c.name, d.Name, what, dag.Display(obj.Get(key).(string)))
			}
			return
		}
	}
	d.Container.Append(field, obj)
}

func (c *call) addVolume(d *dag.Step, volume dag.Object) {
	name := volume.Get("name").(string)
	if err := kube.CheckLabel(name); err != nil && !dag.HasRefs(name) {
		c.report("volume_name", "%s: volume name %v", c.name, err)
		return
	}
	for _, other := range d.Volumes {
		if other.Get("name") == name {
			if !reflect.DeepEqual(other, volume) {
				c.report("", "%s: step %q has another volume %q", c.name, d.Name, dag.Display(name))
			}
			return
		}
	}
	d.Volumes = append(d.Volumes, volume)
}

// A method is a method of a step or container; self is what it returns.
type method func(c *call, d *dag.Step, self starlark.Value) (starlark.Value, error)

var stepMethods = map[string]method{
	"after":       after,
	"apply":       apply,
	"set_retry":   setRetry,
	"set_timeout": setTimeout,
}

// containerMethods stand both on a step and on its container.
var containerMethods = map[string]method{
	"add_resource_limit":            resourceMethod("limits", ""),
	"add_resource_request":          resourceMethod("requests", ""),
	"set_cpu_limit":                 resourceMethod("limits", "cpu"),
	"set_cpu_request":               resourceMethod("requests", "cpu"),
	"set_ephemeral_storage_limit":   resourceMethod("limits", "ephemeral-storage"),
	"set_ephemeral_storage_request": resourceMethod("requests", "ephemeral-storage"),
	"set_gpu_limit":                 setGPULimit,
	"set_memory_limit":              resourceMethod("limits", "memory"),
	"set_memory_request":            resourceMethod("requests", "memory"),
}

var stepAttrs, containerAttrs = attrNames(stepMethods, containerMethods), attrNames(containerMethods)

func attrNames(tables ...map[string]method) []string {
	var names []string
	for _, t := range tables {
		for name := range t {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (st *step) AttrNames() []string {
	return append([]string{"container", "name", "output", "outputs"}, stepAttrs...)
}

func (st *step) Attr(name string) (starlark.Value, error) {
	switch name {
	case "name":
		return starlark.String(st.d.Name), nil
	case "container":
		return &container{st}, nil
	case "outputs":
		return &outputs{st}, nil
	case "output":
		return st.output()
	}
	m := stepMethods[name]
	if m == nil {
		m = containerMethods[name]
	}
	if m == nil {
		return nil, noAttr("a step", name, st.AttrNames())
	}
	return st.s.bind(name, m, st.d, st), nil
}

// bind returns the method of a value.
func (s *Session) bind(name string, m method, d *dag.Step, self starlark.Value) starlark.Value {
	return s.builtin(name, func(c *call) (starlark.Value, error) { return m(c, d, self) })
}

func noAttr(what, name string, names []string) error {
	msg := fmt.Sprintf("%s has no .%s", what, name)
	if hint := spell.DidYouMean(name, names); hint != "" {
		return fmt.Errorf("%s: %s", msg, hint)
	}
	return fmt.Errorf("%s", msg)
}

// output is step.output: the step's output, if it has exactly one.
func (st *step) output() (starlark.Value, error) {
	switch n := len(st.d.Outputs); n {
	case 1:
		return st.s.ref(dag.Ref{Kind: dag.RefOutput, Step: st.d.Name, Name: st.d.Outputs[0].Name}), nil
	case 0:
		return nil, fmt.Errorf(`step %q has no outputs: declare one with  file_outputs = {"name": "/path"}`, st.d.Name)
	default:
		return nil, fmt.Errorf("step %q has %d outputs: write .outputs[NAME] with one of %s", st.d.Name, n, strings.Join(quoted(st.outputNames()), ", "))
	}
}

func (st *step) outputNames() []string {
	var names []string
	for _, o := range st.d.Outputs {
		names = append(names, o.Name)
	}
	return names
}

func quoted(names []string) []string {
	var q []string
	for _, name := range names {
		q = append(q, strconv.Quote(name))
	}
	return q
}

// outputs is step.outputs: outputs by name.
type outputs struct{ st *step }

var _ starlark.IterableMapping = (*outputs)(nil)

func (o *outputs) String() string        { return fmt.Sprintf("<outputs of step %q>", o.st.d.Name) }
func (o *outputs) Type() string          { return "outputs" }
func (o *outputs) Freeze()               {}
func (o *outputs) Truth() starlark.Bool  { return len(o.st.d.Outputs) > 0 }
func (o *outputs) Hash() (uint32, error) { return 0, fmt.Errorf("outputs cannot be a key") }

func (o *outputs) Get(k starlark.Value) (starlark.Value, bool, error) {
	name, ok := k.(starlark.String)
	if !ok {
		return nil, false, fmt.Errorf("outputs of step %q: want the name of an output, got %s", o.st.d.Name, k.Type())
	}
	if o.st.d.Output(string(name)) == nil {
		names := o.st.outputNames()
		msg := fmt.Sprintf("step %q has no output %q", o.st.d.Name, string(name))
		hint := spell.DidYouMean(string(name), names)
		switch {
		case hint != "":
			msg += ": " + hint
		case len(names) == 0:
			msg += `: it declares none with  file_outputs = {"name": "/path"}`
		default:
			msg += ": its outputs are " + strings.Join(quoted(names), ", ")
		}
		return nil, false, fmt.Errorf("%s", msg)
	}
	return o.st.s.ref(dag.Ref{Kind: dag.RefOutput, Step: o.st.d.Name, Name: string(name)}), true, nil
}

func (o *outputs) Items() []starlark.Tuple {
	var items []starlark.Tuple
	for _, name := range o.st.outputNames() {
		v, _, _ := o.Get(starlark.String(name))
		items = append(items, starlark.Tuple{starlark.String(name), v})
	}
	return items
}

func (o *outputs) Iterate() starlark.Iterator {
	var keys starlark.Tuple
	for _, name := range o.st.outputNames() {
		keys = append(keys, starlark.String(name))
	}
	return keys.Iterate()
}

// container is step.container.
type container struct{ st *step }

func (k *container) String() string        { return fmt.Sprintf("<container of step %q>", k.st.d.Name) }
func (k *container) Type() string          { return "container" }
func (k *container) Freeze()               {}
func (k *container) Truth() starlark.Bool  { return true }
func (k *container) Hash() (uint32, error) { return k.st.Hash() }
func (k *container) AttrNames() []string   { return containerAttrs }

func (k *container) Attr(name string) (starlark.Value, error) {
	m := containerMethods[name]
	if m == nil {
		return nil, noAttr("a container", name, containerAttrs)
	}
	return k.st.s.bind(name, m, k.st.d, k), nil
}

// after: step.after(*steps) -> step
func after(c *call, d *dag.Step, self starlark.Value) (starlark.Value, error) {
	if len(c.kwargs) > 0 {
		return nil, c.errorf("", "after has no keyword arguments: want steps")
	}
	for i, v := range c.args {
		other, ok := v.(*step)
		if !ok {
			e := c.report("", "after: argument %d is a %s: want a step", i+1, v.Type())
			if v == starlark.None {
				e.Hint = "a function that makes a step must return it"
			}
			continue
		}
		if !slices.ContainsFunc(d.After, func(e dag.Edge) bool { return e.Step == other.d.Name }) {
			d.After = append(d.After, dag.Edge{Step: other.d.Name, Pos: c.pos})
		}
	}
	return self, nil
}

// apply: step.apply(fn) -> step
func apply(c *call, d *dag.Step, self starlark.Value) (starlark.Value, error) {
	var fn starlark.Callable
	if err := c.unpack("fn", &fn); err != nil {
		return nil, err
	}
	_, err := starlark.Call(c.s.thread, fn, starlark.Tuple{self}, nil)
	return self, err
}

// setRetry: step.set_retry(num_retries, policy=None, backoff_duration=None, backoff_factor=None, backoff_max_duration=None) -> step
func setRetry(c *call, d *dag.Step, self starlark.Value) (starlark.Value, error) {
	var limit scalar
	var policy string
	var backoff, maxBackoff scalar
	var factor starlark.Value
	if err := c.unpack("num_retries", &limit, "policy??", &policy, "backoff_duration??", &backoff,
		"backoff_factor??", &factor, "backoff_max_duration??", &maxBackoff); err != nil {
		return nil, err
	}
	r := &dag.Retry{}
	if c.checkCount("num_retries", string(limit), 0) {
		r.Limit = string(limit)
	} else {
		return self, nil
	}
	if policy != "" && !slices.Contains(dag.RetryPolicies, policy) {
		e := c.report("policy", "set_retry: policy %q: want one of %s", policy, strings.Join(dag.RetryPolicies, ", "))
		e.Hint = spell.DidYouMean(policy, dag.RetryPolicies)
	} else {
		r.Policy = policy
	}
	r.Backoff = c.backoff("backoff_duration", string(backoff))
	r.MaxBackoff = c.backoff("backoff_max_duration", string(maxBackoff))
	if factor != nil {
		f, ok := starlark.AsFloat(factor)
		if !ok || f <= 0 {
			c.report("backoff_factor", "set_retry: backoff_factor %s: want a number above 0", factor)
		} else {
			r.Factor = f
		}
	}
	d.Retry = r
	return self, nil
}

// backoff returns a duration of set_retry, or "" if it is reported as wrong.
func (c *call) backoff(arg, text string) string {
	if _, ok := dag.SoleRef(text); ok {
		return text
	}
	if _, err := dag.ParseBackoff(text); err != nil {
		c.report(arg, "set_retry: %v", err)
		return ""
	}
	return text
}

// setTimeout: step.set_timeout(seconds) -> step
func setTimeout(c *call, d *dag.Step, self starlark.Value) (starlark.Value, error) {
	var seconds scalar
	if err := c.unpack("seconds", &seconds); err != nil {
		return nil, err
	}
	if c.checkCount("seconds", string(seconds), 1) {
		d.Timeout = string(seconds)
	}
	return self, nil
}

// checkCount reports an argument that is neither a whole number of at least
// least nor one value known only at run time.
func (c *call) checkCount(arg, text string, least int) bool {
	if _, ok := dag.SoleRef(text); ok {
		return true
	}
	if n, err := strconv.Atoi(text); err != nil || n < least {
		c.report(arg, "%s: %s is %s: want a whole number, %d or more", c.name, arg, dag.Display(text), least)
		return false
	}
	return true
}

// resourceMethod: step.set_memory_limit(memory) -> step, and its kin. Without
// a resource, the name of one comes first: step.add_resource_limit(resource_name, value) -> step.
func resourceMethod(kind, resource string) method {
	return func(c *call, d *dag.Step, self starlark.Value) (starlark.Value, error) {
		name, arg := resource, "size"
		var quantity scalar
		var err error
		switch resource {
		case "":
			arg = "value"
			err = c.unpack("resource_name", &name, "value", &quantity)
		case "cpu", "memory":
			arg = resource
			err = c.unpack(resource, &quantity)
		default:
			err = c.unpack("size", &quantity)
		}
		if err != nil {
			return nil, err
		}
		c.setResource(d, kind, name, arg, string(quantity))
		return self, nil
	}
}

func (c *call) setResource(d *dag.Step, kind, name, arg, quantity string) {
	if err := kube.CheckQuantity(name, quantity); err != nil {
		c.report(arg, "%s: %v", c.name, err)
		return
	}
	d.Container.Set(quantity, "resources", kind, name)
}

// setGPULimit: step.set_gpu_limit(gpu, vendor="nvidia") -> step
func setGPULimit(c *call, d *dag.Step, self starlark.Value) (starlark.Value, error) {
	var gpu scalar
	vendor := "nvidia"
	if err := c.unpack("gpu", &gpu, "vendor??", &vendor); err != nil {
		return nil, err
	}
	if vendor != "nvidia" && vendor != "amd" {
		c.report("vendor", "set_gpu_limit: vendor %q: want nvidia or amd", vendor)
		return self, nil
	}
	if c.checkCount("gpu", string(gpu), 1) {
		c.setResource(d, "limits", vendor+".com/gpu", "gpu", string(gpu))
	}
	return self, nil
}

// A text is an argument that is a string or a value known only at run time.
type text string

// Unpack implements starlark.Unpacker.
func (t *text) Unpack(v starlark.Value) error {
	switch v := v.(type) {
	case starlark.String:
		*t = text(v)
	case *value:
		*t = text(v.t)
	default:
		return fmt.Errorf("got %s, want string", v.Type())
	}
	return nil
}

// A scalar is a text that may also be given as a number.
type scalar string

// Unpack implements starlark.Unpacker.
func (t *scalar) Unpack(v starlark.Value) error {
	s, ok := scalarText(v)
	if _, isBool := v.(starlark.Bool); !ok || isBool {
		return fmt.Errorf("got %s, want string or number", v.Type())
	}
	*t = scalar(s)
	return nil
}
