package builtins

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
	"github.com/kfs-project/kfs/kube"
)

// This file defines containers: that of a step, init containers and sidecars,
// and the methods that all of these have.

// A target is the container that a method changes.
type target struct {
	obj  *dag.Object // a core/v1 Container
	what string      // for messages: step "train"
}

func (st *step) target() target {
	return target{&st.d.Container, fmt.Sprintf("step %q", st.d.Name)}
}

// A containerMethod is a method of a container. What it returns is the value
// of the call; nil is the container, or the step if it was called on that.
type containerMethod func(c *call, k target) (starlark.Value, error)

// containerMethods stand on containers and on steps.
var containerMethods = map[string]containerMethod{
	// x.set_image(image), x.set_command(command), x.set_arguments(arguments)
	//
	// In place of what the container has.
	"set_image":     setText("image", "image", ""),
	"set_command":   setTexts("command", "command"),
	"set_arguments": setTexts("arguments", "args"),

	// x.set_memory_limit(memory), x.set_memory_request(memory),
	// x.set_cpu_limit(cpu), x.set_cpu_request(cpu),
	// x.set_ephemeral_storage_limit(size),
	// x.set_ephemeral_storage_request(size)
	//
	// How much it may take at most, and how much it is sure to get: `"512Mi"`,
	// `"2G"`, `"500m"`.
	"set_memory_limit":              resourceMethod("limits", "memory"),
	"set_memory_request":            resourceMethod("requests", "memory"),
	"set_cpu_limit":                 resourceMethod("limits", "cpu"),
	"set_cpu_request":               resourceMethod("requests", "cpu"),
	"set_ephemeral_storage_limit":   resourceMethod("limits", "ephemeral-storage"),
	"set_ephemeral_storage_request": resourceMethod("requests", "ephemeral-storage"),

	"set_gpu_limit": setGPULimit,

	// x.add_resource_limit(resource_name, value),
	// x.add_resource_request(resource_name, value)
	//
	// The same for any resource.
	"add_resource_limit":   resourceMethod("limits", ""),
	"add_resource_request": resourceMethod("requests", ""),

	// x.get_resource_limit(resource_name),
	// x.get_resource_request(resource_name)
	//
	// What was set, or None.
	"get_resource_limit":   getResource("limits"),
	"get_resource_request": getResource("requests"),

	// x.add_env_variable(env_variable), x.add_env_from(env_from)
	//
	// A `k8s.EnvVar`; a `k8s.EnvFromSource`.
	"add_env_variable": addObject("env_variable", "EnvVar", "env", "name", "variable"),
	"add_env_from":     addObject("env_from", "EnvFromSource", "envFrom", "", "environment"),

	// x.add_volume_mount(volume_mount), x.add_volume_devices(volume_device),
	// x.add_port(container_port)
	//
	// A `k8s.VolumeMount`; a `k8s.VolumeDevice`; a `k8s.ContainerPort`.
	"add_volume_mount":   addObject("volume_mount", "VolumeMount", "volumeMounts", "mountPath", "mount at"),
	"add_volume_devices": addObject("volume_device", "VolumeDevice", "volumeDevices", "devicePath", "device at"),
	"add_port":           addObject("container_port", "ContainerPort", "ports", "name", "port"),

	// x.set_image_pull_policy(image_pull_policy)
	//
	// `Always`, `Never` or `IfNotPresent`.
	"set_image_pull_policy": setText("image_pull_policy", "imagePullPolicy", "PullPolicy"),

	// x.set_security_context(security_context),
	// x.set_liveness_probe(liveness_probe),
	// x.set_readiness_probe(readiness_probe), x.set_lifecycle(lifecycle)
	//
	// A `k8s.SecurityContext`; a `k8s.Probe`; a `k8s.Lifecycle`.
	"set_security_context": setObject("security_context", "SecurityContext", "securityContext"),
	"set_liveness_probe":   setObject("liveness_probe", "Probe", "livenessProbe"),
	"set_readiness_probe":  setObject("readiness_probe", "Probe", "readinessProbe"),
	"set_lifecycle":        setObject("lifecycle", "Lifecycle", "lifecycle"),

	// x.set_stdin(stdin=True), x.set_stdin_once(stdin_once=True),
	// x.set_tty(tty=True),
	// x.set_termination_message_path(termination_message_path),
	// x.set_termination_message_policy(termination_message_policy)
	//
	// The fields of these names; the policy is `File` or
	// `FallbackToLogsOnError`.
	"set_stdin":                      setFlag("stdin", "stdin"),
	"set_stdin_once":                 setFlag("stdin_once", "stdinOnce"),
	"set_tty":                        setFlag("tty", "tty"),
	"set_termination_message_path":   setText("termination_message_path", "terminationMessagePath", ""),
	"set_termination_message_policy": setText("termination_message_policy", "terminationMessagePolicy", "TerminationMessagePolicy"),
}

// addObject: x.add_NAME(object) -> x. Objects that agree in the field key are
// one: what is equal is not added again, and what is not equal is a fault.
func addObject(arg, typ, field, key, what string) containerMethod {
	return func(c *call, k target) (starlark.Value, error) {
		var v starlark.Value
		if err := c.unpack(arg, &v); err != nil {
			return nil, err
		}
		if obj := c.fitObject(arg, typ, v); obj != nil {
			c.addNamed(k, field, key, what, obj)
		}
		return nil, nil
	}
}

// setObject: x.set_NAME(object) -> x
func setObject(arg, typ, field string) containerMethod {
	return func(c *call, k target) (starlark.Value, error) {
		var v starlark.Value
		if err := c.unpack(arg, &v); err != nil {
			return nil, err
		}
		if obj := c.fitObject(arg, typ, v); obj != nil {
			k.obj.Set(obj, field)
		}
		return nil, nil
	}
}

// setText: x.set_NAME(text) -> x. If enum is not "", the text must be one of
// the values of that type.
func setText(arg, field, enum string) containerMethod {
	return func(c *call, k target) (starlark.Value, error) {
		var t text
		if err := c.unpack(arg, &t); err != nil {
			return nil, err
		}
		if enum != "" {
			if fault := kube.CheckEnum(enum, string(t)); fault != "" {
				c.report(arg, "%s: %s", c.name, fault)
				return nil, nil
			}
		}
		k.obj.Set(string(t), field)
		return nil, nil
	}
}

// setFlag: x.set_NAME(flag=True) -> x
func setFlag(arg, field string) containerMethod {
	return func(c *call, k target) (starlark.Value, error) {
		on := true
		if err := c.unpack(arg+"?", &on); err != nil {
			return nil, err
		}
		k.obj.Set(on, field)
		return nil, nil
	}
}

// setTexts: x.set_command(command) -> x, x.set_arguments(arguments) -> x
func setTexts(arg, field string) containerMethod {
	return func(c *call, k target) (starlark.Value, error) {
		var v starlark.Value
		if err := c.unpack(arg, &v); err != nil {
			return nil, err
		}
		k.set(field, c.texts(arg, v))
		return nil, nil
	}
}

// set gives a field a value; nil takes it away.
func (k target) set(field string, v any) {
	if v != nil {
		k.obj.Set(v, field)
		return
	}
	*k.obj = slices.DeleteFunc(slices.Clone(*k.obj), func(m dag.Member) bool { return m.Name == field })
}

// addEnv, addMount and addNamed add what the container does not have yet. What
// is equal is not added again; what only has the same name is a fault.

func (c *call) addEnv(k target, name, value string) {
	if err := kube.CheckEnvName(name); err != nil && !dag.HasRefs(name) {
		c.report("env", "variable %v", err)
		return
	}
	c.addNamed(k, "env", "name", "variable", dag.Object{{Name: "name", Value: name}, {Name: "value", Value: value}})
}

// addSecretEnv adds a variable whose value is that of a key of a secret.
func (c *call) addSecretEnv(k target, name, secret, key string) {
	c.addNamed(k, "env", "name", "variable", dag.Object{{Name: "name", Value: name}, {Name: "valueFrom", Value: dag.Object{
		{Name: "secretKeyRef", Value: dag.Object{{Name: "key", Value: key}, {Name: "name", Value: secret}}},
	}}})
}

func (c *call) addMount(k target, name, mountPath string) {
	c.addNamed(k, "volumeMounts", "mountPath", "mount at", dag.Object{{Name: "mountPath", Value: mountPath}, {Name: "name", Value: name}})
}

func (c *call) addNamed(k target, field, key, what string, obj dag.Object) {
	list, _ := k.obj.Get(field).([]any)
	if most := maxNamed; c.full(k.what, field, len(list), most) || key == "" && c.full(k.what, field, len(list), most/5) {
		return
	}
	name := memberOf(obj, key)
	text := dag.PythonJSON(obj)
	for _, other := range list {
		other, _ := other.(dag.Object)
		if key != "" && memberOf(other, key) != name || len(other) != len(obj) && key == "" {
			continue
		}
		if dag.PythonJSON(other) == text {
			return
		}
		if key != "" && name != nil {
			c.report("", "%s: %s has another %s %q", c.name, k.what, what, dag.Display(fmt.Sprint(name)))
			return
		}
	}
	k.obj.Append(field, obj)
}

// full stops the evaluation if there are as many entries as there may be: each
// one more would be compared with all of them.
func (c *call) full(owner, field string, n, most int) bool {
	if n < most {
		return false
	}
	c.s.fail(fmt.Errorf("%s: %s has %d entries in its %s: want no more", c.name, owner, n, field))
	return true
}

// memberOf returns the value of an object's member, or nil.
func memberOf(o dag.Object, name string) any {
	for _, m := range o {
		if m.Name == name {
			return m.Value
		}
	}
	return nil
}

// resourceMethod: x.set_memory_limit(memory) -> x, and its kin. Without a
// resource, the name of one comes first: x.add_resource_limit(resource_name, value) -> x.
func resourceMethod(kind, resource string) containerMethod {
	return func(c *call, k target) (starlark.Value, error) {
		name, arg := text(resource), "size"
		var q quantity
		var err error
		switch resource {
		case "":
			arg = "value"
			err = c.unpack("resource_name", &name, "value", &q)
		case "cpu", "memory":
			arg = resource
			err = c.unpack(resource, &q)
		default:
			err = c.unpack("size", &q)
		}
		if err != nil {
			return nil, err
		}
		c.setResource(k, kind, string(name), arg, q)
		return nil, nil
	}
}

func (c *call) setResource(k target, kind, name, arg string, q quantity) {
	if err := kube.CheckLabelName(name); err != nil && !dag.HasRefs(name) {
		c.report("resource_name", "%s: resource %v", c.name, err)
		return
	}
	if err := kube.CheckQuantity(name, q.text); err != nil {
		c.report(arg, "%s: %v", c.name, err)
		return
	}
	if listed, _ := k.obj.Get("resources", kind).(dag.Object); c.full(k.what, kind, len(listed), maxNamed) {
		return
	}
	k.obj.Set(q.tree, "resources", kind, name)
}

// A quantity is an argument that is text, a number, or a value known only at
// run time. A number stays one in the step's container.
type quantity struct {
	text string
	tree any
}

// textQuantity returns text as a quantity.
func textQuantity(text scalar) quantity { return quantity{string(text), string(text)} }

// Unpack implements starlark.Unpacker.
func (q *quantity) Unpack(v starlark.Value) error {
	var text scalar
	if err := text.Unpack(v); err != nil {
		return err
	}
	*q = textQuantity(text)
	switch v.(type) {
	case starlark.Int, starlark.Float:
		tree, err := toJSON(v)
		q.tree = tree
		return err
	}
	return nil
}

// getResource: x.get_resource_limit(resource_name) -> text or None, and
// x.get_resource_request
func getResource(kind string) containerMethod {
	return func(c *call, k target) (starlark.Value, error) {
		var name text
		if err := c.unpack("resource_name", &name); err != nil {
			return nil, err
		}
		return c.s.fromTree("quantity", k.obj.Get("resources", kind, string(name))), nil
	}
}

// setGPULimit: x.set_gpu_limit(gpu, vendor="nvidia") -> x
//
// GPUs: a number, and `nvidia` or `amd`. A vendor known only at run time is
// the whole name of a resource.
func setGPULimit(c *call, k target) (starlark.Value, error) {
	var gpu quantity
	vendor := text("nvidia")
	if err := c.unpack("gpu", &gpu, "vendor??", &vendor); err != nil {
		return nil, err
	}
	name := string(vendor)
	if _, sole := dag.SoleRef(name); !sole {
		name += ".com/gpu"
		if vendor != "nvidia" && vendor != "amd" {
			c.report("vendor", "set_gpu_limit: vendor %q: want nvidia or amd", dag.Display(string(vendor))).Hint =
				spell.DidYouMean(string(vendor), []string{"nvidia", "amd"})
			return nil, nil
		}
	}
	if c.checkCount("gpu", gpu.text, 1) {
		c.setResource(k, "limits", name, "gpu", gpu)
	}
	return nil, nil
}

// bindContainer returns a method of a container for self, or nil.
func (s *Session) bindContainer(name string, k target, self starlark.Value) starlark.Value {
	m := containerMethods[name]
	if m == nil {
		return nil
	}
	return s.builtin(name, func(c *call) (starlark.Value, error) {
		v, err := m(c, k)
		if v == nil {
			v = self
		}
		return v, err
	})
}

// containerField returns the value of a container's field, or an error.
func (s *Session) containerField(what string, k target, name string) (starlark.Value, error) {
	t := kube.TypeOf("Container")
	f := t.Field(name)
	if f == nil || f.Name == "name" {
		return nil, noAttr(what, name, containerAttrs())
	}
	return s.fromTree(f.Type, k.obj.Get(f.Name)), nil
}

// setContainerField is the assignment x.name = v.
func (s *Session) setContainerField(what string, k target, name string, v starlark.Value) error {
	f := kube.TypeOf("Container").Field(name)
	if f == nil || f.Name == "name" {
		return noField(what, name, containerAttrs())
	}
	c := &call{s: s, name: name, pos: assignment(s.thread)}
	switch {
	case v == starlark.None:
		k.set(f.Name, nil)
	case f.Name == "command" || f.Name == "args":
		k.set(f.Name, c.texts(name, v))
	default:
		if tree := c.fit(name, f.Type, v); tree != nil {
			k.set(f.Name, tree)
		}
	}
	return nil
}

// noField is the error of an assignment to a field that cannot be assigned.
func noField(what, name string, names []string) error {
	if slices.Contains(names, "set_"+name) {
		return fmt.Errorf("%s has no .%s to assign to: write .set_%s(...)", what, name, name)
	}
	if slices.Contains(names, name) {
		return fmt.Errorf(".%s of %s cannot be assigned to", name, what)
	}
	msg := fmt.Sprintf("%s has no .%s to assign to", what, name)
	var fields []string
	for _, n := range names {
		if !strings.HasPrefix(n, "set_") && !strings.HasPrefix(n, "add_") && !strings.HasPrefix(n, "get_") {
			fields = append(fields, n)
		}
	}
	if hint := spell.DidYouMean(name, fields); hint != "" {
		msg += ": " + hint
	}
	return fmt.Errorf("%s", msg)
}

// assignment returns the place of the assignment that is running.
func assignment(thread *starlark.Thread) dag.Pos {
	p := thread.CallFrame(0).Pos
	return dag.Pos{File: p.Filename(), Line: int(p.Line), Col: int(p.Col)}
}

// containerAttrs are the names of the methods and fields of a container.
var containerAttrs = sync.OnceValue(func() []string {
	names := attrNames(containerMethods)
	for _, f := range kube.TypeOf("Container").Fields {
		if f.Name != "name" {
			names = append(names, kube.Snake(f.Name))
		}
	}
	slices.Sort(names)
	return names
})

// container is step.container.
type container struct{ st *step }

var _ starlark.HasSetField = (*container)(nil)

func (k *container) String() string        { return fmt.Sprintf("<container of step %q>", k.st.d.Name) }
func (k *container) Type() string          { return "container" }
func (k *container) Freeze()               {}
func (k *container) Truth() starlark.Bool  { return true }
func (k *container) Hash() (uint32, error) { return k.st.Hash() }
func (k *container) AttrNames() []string   { return containerAttrs() }

func (k *container) Attr(name string) (starlark.Value, error) {
	if m := k.st.s.bindContainer(name, k.st.target(), k); m != nil {
		return m, nil
	}
	return k.st.s.containerField("a container", k.st.target(), name)
}

// SetField is step.container.name = v; None takes the field away.
func (k *container) SetField(name string, v starlark.Value) error {
	if name == "image" {
		if v == starlark.None {
			return fmt.Errorf("a step's container needs an image")
		}
	}
	return k.st.s.setContainerField("a container", k.st.target(), name, v)
}

// A userContainer is what user_container and sidecar return: a container that
// can be added to steps. What is changed later is changed in those steps too.
type userContainer struct {
	s      *Session
	word   string // that made it
	obj    dag.Object
	frozen bool
}

var _ starlark.HasSetField = (*userContainer)(nil)

func (u *userContainer) name() string {
	name, _ := u.obj.Get("name").(string)
	return name
}

func (u *userContainer) target() target {
	return target{&u.obj, fmt.Sprintf("%s %q", u.word, u.name())}
}

func (u *userContainer) String() string       { return fmt.Sprintf("<%s %q>", u.word, dag.Display(u.name())) }
func (u *userContainer) Type() string         { return u.word }
func (u *userContainer) Freeze()              { u.frozen = true }
func (u *userContainer) Truth() starlark.Bool { return true }
func (u *userContainer) Hash() (uint32, error) {
	return 0, fmt.Errorf("a %s cannot be a key or an element of a set", u.word)
}
func (u *userContainer) AttrNames() []string {
	return append([]string{"name", "set_mirror_volume_mounts"}, containerAttrs()...)
}

func (u *userContainer) Attr(name string) (starlark.Value, error) {
	if _, isMethod := containerMethods[name]; (isMethod || name == "set_mirror_volume_mounts") && u.frozen && !strings.HasPrefix(name, "get_") {
		return nil, fmt.Errorf("the %s %q was made outside the pipeline's function and cannot be changed in it", u.word, u.name())
	}
	switch name {
	case "name":
		return u.s.text(u.name()), nil
	// x.set_mirror_volume_mounts(mirror_volume_mounts=True)
	//
	// Of user containers and sidecars only: they get the mounts of the step's
	// container too.
	case "set_mirror_volume_mounts":
		return u.s.builtin(name, func(c *call) (starlark.Value, error) {
			_, err := setFlag("mirror_volume_mounts", "mirrorVolumeMounts")(c, u.target())
			return u, err
		}), nil
	}
	if m := u.s.bindContainer(name, u.target(), u); m != nil {
		return m, nil
	}
	return u.s.containerField("a "+u.word, u.target(), name)
}

func (u *userContainer) SetField(name string, v starlark.Value) error {
	if u.frozen {
		return fmt.Errorf("the %s %q was made outside the pipeline's function and cannot be changed in it", u.word, u.name())
	}
	return u.s.setContainerField("a "+u.word, u.target(), name, v)
}

// userContainerOf: user_container(name, image, command=None, args=None, mirror_volume_mounts=None, **fields) -> container, sidecar(name, image, ...) -> container
//
// A container for `add_init_container` and `add_sidecar`; `fields` are those
// of `k8s.Container`.
func (s *Session) userContainerOf(word string) func(c *call) (starlark.Value, error) {
	return func(c *call) (starlark.Value, error) {
		var name, image text
		var command, args starlark.Value
		var mirror *bool
		own := []string{"name", "image", "command", "args", "mirror_volume_mounts"}
		var fields []starlark.Tuple
		t := kube.TypeOf("Container")
		c.kwargs = slices.DeleteFunc(slices.Clone(c.kwargs), func(kw starlark.Tuple) bool {
			key := string(kw[0].(starlark.String))
			if slices.Contains(own, key) || t.Field(key) == nil {
				return false // unpack says what else is unknown
			}
			fields = append(fields, kw)
			return true
		})
		for _, f := range t.Fields {
			c.also = append(c.also, kube.Snake(f.Name))
		}
		if err := c.unpack("name", &name, "image", &image, "command??", &command, "args??", &args,
			"mirror_volume_mounts??", optionalBool{&mirror}); err != nil {
			return nil, err
		}
		u := &userContainer{s: s, word: word}
		c.checkLabel("name", string(name))
		u.obj.Set(string(name), "name")
		u.obj.Set(string(image), "image")
		if command != nil {
			u.obj.Set(c.texts("command", command), "command")
		}
		if args != nil {
			u.obj.Set(c.texts("args", args), "args")
		}
		c.setFields(u.target(), "", fields)
		if mirror != nil {
			u.obj.Set(*mirror, "mirrorVolumeMounts")
		}
		return u, nil
	}
}

// setFields sets fields of a container that were given by name; arg is the
// argument that holds them, or "" if they are arguments themselves.
func (c *call) setFields(k target, arg string, fields []starlark.Tuple) {
	var names []string
	for _, f := range kube.TypeOf("Container").Fields {
		names = append(names, kube.Snake(f.Name))
	}
	for _, kw := range fields {
		key, _ := starlark.AsString(kw[0])
		f := kube.TypeOf("Container").Field(key)
		at := arg
		if at == "" {
			at = key
		}
		switch {
		case f == nil:
			e := c.report(at, "%s, %s: a container has no field %s", c.name, arg, kw[0])
			e.Hint = spell.DidYouMean(key, names)
		case k.obj.Get(f.Name) != nil || f.Name == "name":
			c.report(at, "%s: %s is given twice", c.name, key)
		case kw[1] == starlark.None:
		case arg == "":
			k.set(f.Name, c.fit(at, f.Type, kw[1]))
		default:
			tree, err := k8sTree(kw[1])
			if err != nil {
				c.report(at, "%s, %s.%s: %v", c.name, arg, key, err)
				continue
			}
			tree, faults := kube.Fit(f.Type, tree)
			for i := range faults {
				faults[i].Path = strings.TrimSuffix(key+"."+faults[i].Path, ".")
			}
			c.reportFaults(arg, faults)
			k.set(f.Name, tree)
		}
	}
}

// optionalBool unpacks a boolean into a pointer that stays nil if there is none.
type optionalBool struct{ p **bool }

func (o optionalBool) Unpack(v starlark.Value) error {
	b, ok := v.(starlark.Bool)
	if !ok {
		return fmt.Errorf("got %s, want True or False", typeName(v))
	}
	on := bool(b)
	*o.p = &on
	return nil
}

// containers are init containers or sidecars that were added to a step: each
// a *userContainer, which may still change, or a dag.Object.
type containers []any

// add adds a container that is given as user_container, sidecar, k8s.Container
// or dict.
func (cs *containers) add(c *call, arg string, v starlark.Value) {
	if c.full("the step", arg, len(*cs), maxNamed) {
		return
	}
	if u, ok := v.(*userContainer); ok {
		if !slices.Contains(*cs, any(u)) {
			*cs = append(*cs, u)
		}
		return
	}
	if obj := c.fitObject(arg, "Container", v); obj != nil {
		*cs = append(*cs, obj)
	}
}

// addAll adds the containers of a list; one alone stands for a list of one.
func (cs *containers) addAll(c *call, arg string, v starlark.Value) {
	switch list := v.(type) {
	case *starlark.List, starlark.Tuple:
		for e := range starlark.Elements(list.(starlark.Iterable)) {
			cs.add(c, arg, e)
		}
	default:
		cs.add(c, arg, v)
	}
}

// objects returns the containers as they are now, equal ones once.
func (cs containers) objects() []dag.Object {
	var objs []dag.Object
	seen := map[string]bool{}
	for _, e := range cs {
		obj, ok := e.(dag.Object)
		if !ok {
			obj = e.(*userContainer).obj
		}
		if text := dag.PythonJSON(obj); !seen[text] {
			seen[text] = true
			objs = append(objs, obj)
		}
	}
	return objs
}
