package builtins

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
	"github.com/kfs-project/kfs/kube"
)

// This file defines the methods and fields of a step that are about its pod
// and about whoever runs it.

// A podMethod is a method of a step that returns the step.
type podMethod func(c *call, st *step) error

var podMethods = map[string]podMethod{
	"add_affinity":                 addAffinity,
	"add_init_container":           addInitContainer,
	"add_node_selector_constraint": addNodeSelector,
	"add_pod_annotation":           addAnnotation,
	"add_pod_label":                addLabel,
	"add_pvolumes":                 addPVolumes,
	"add_sidecar":                  addSidecar,
	"add_toleration":               addToleration,
	"add_volume":                   addVolume,
	"set_accelerator":              setAccelerator,
	"set_caching_options":          setCachingOptions,
	"set_display_name":             setDisplayName,
	"set_infra_retries":            setInfraRetries,
	"set_mesh":                     setMesh,
	"set_pending_timeout":          setPendingTimeout,
	"set_primitive":                setPrimitive,
	"set_service_account":          setServiceAccount,
}

// addVolume: step.add_volume(volume) -> step
//
// A `k8s.Volume`.
func addVolume(c *call, st *step) error {
	var v starlark.Value
	if err := c.unpack("volume", &v); err != nil {
		return err
	}
	if obj := c.fitObject("volume", "Volume", v); obj.Get("name") != nil {
		c.addVolume(st.d, obj)
	}
	return nil
}

// addToleration: step.add_toleration(tolerations) -> step
//
// A `k8s.Toleration` of its pod.
//
// KFP named the argument so, though it takes one.
func addToleration(c *call, st *step) error {
	var v starlark.Value
	if err := c.unpack("tolerations", &v); err != nil {
		return err
	}
	if obj := c.fitObject("tolerations", "Toleration", v); obj != nil {
		c.addToleration(st.d, obj)
	}
	return nil
}

// addToleration adds a toleration that the step does not have yet.
func (c *call) addToleration(d *dag.Step, toleration dag.Object) {
	if c.full(fmt.Sprintf("step %q", d.Name), "tolerations", len(d.Tolerations), maxNamed/5) {
		return
	}
	if !slices.ContainsFunc(d.Tolerations, func(o dag.Object) bool { return equalTrees(o, toleration) }) {
		d.Tolerations = append(d.Tolerations, toleration)
	}
}

// addAffinity: step.add_affinity(affinity) -> step
//
// A `k8s.Affinity` of its pod, in place of the one it had.
func addAffinity(c *call, st *step) error {
	var v starlark.Value
	if err := c.unpack("affinity", &v); err != nil {
		return err
	}
	if obj := c.fitObject("affinity", "Affinity", v); obj != nil {
		st.d.Affinity = obj
	}
	return nil
}

// addNodeSelector: step.add_node_selector_constraint(label_name, value) -> step
//
// A label that its node must have.
func addNodeSelector(c *call, st *step) error {
	return c.addPair(st, &st.d.NodeSelector, "label_name", "node selector", true)
}

// addAnnotation: step.add_pod_annotation(name, value) -> step
//
// An annotation of its pod.
func addAnnotation(c *call, st *step) error {
	return c.addPair(st, &st.d.Annotations, "name", "annotation", false)
}

// addLabel: step.add_pod_label(name, value) -> step
//
// A label of its pod. `add-pod-env` with the value `true` gives the
// container the variables `KFP_POD_NAME`, `KFP_POD_UID`, `KFP_NAMESPACE`,
// `WORKFLOW_ID`, `KFP_RUN_ID` and `ENABLE_CACHING`, unless
// it is a transformer that adds it.
func addLabel(c *call, st *step) error {
	return c.addPair(st, &st.d.Labels, "name", "label", true)
}

// addPair adds a name and a value: a label, if labels is set, else any text.
func (c *call) addPair(st *step, to *dag.Object, arg, what string, labels bool) error {
	var name text
	var v scalarOrBool
	if err := c.unpack(arg, &name, "value", &v); err != nil {
		return err
	}
	c.setPair(to, fmt.Sprintf("step %q", st.d.Name), arg, what, string(name), string(v), labels)
	return nil
}

func (c *call) setPair(to *dag.Object, owner, arg, what, name, v string, labels bool) {
	if err := kube.CheckLabelName(name); err != nil && !dag.HasRefs(name) {
		c.report(arg, "%s: %s name %v", c.name, what, err)
		return
	}
	if err := kube.CheckLabelValue(v); labels && err != nil && !dag.HasRefs(v) {
		c.report("value", "%s: %s value %v", c.name, what, err)
		return
	}
	if other := to.Get(name); other != nil && other != v {
		c.report("value", "%s: %s has another %s %q: %q there, %q here", c.name, owner, what, dag.Display(name), dag.Display(fmt.Sprint(other)), dag.Display(v))
		return
	}
	if !c.full(owner, what+"s", len(*to), maxNamed) {
		to.Set(v, name)
	}
}

// addInitContainer: step.add_init_container(init_container) -> step
//
// A container that runs before: `user_container(...)`, a `k8s.Container` or
// a dict.
func addInitContainer(c *call, st *step) error {
	var v starlark.Value
	if err := c.unpack("init_container", &v); err != nil {
		return err
	}
	st.inits.add(c, "init_container", v)
	return nil
}

// addSidecar: step.add_sidecar(sidecar) -> step
//
// A container that runs beside: `sidecar(...)`, a `k8s.Container` or a dict.
func addSidecar(c *call, st *step) error {
	var v starlark.Value
	if err := c.unpack("sidecar", &v); err != nil {
		return err
	}
	st.sidecars.add(c, "sidecar", v)
	return nil
}

// setDisplayName: step.set_display_name(name) -> step
//
// The name that KFP's pages show.
func setDisplayName(c *call, st *step) error {
	var name text
	if err := c.unpack("name", &name); err != nil {
		return err
	}
	st.d.DisplayName = string(name)
	return nil
}

// setCachingOptions: step.set_caching_options(enable_caching) -> step
//
// Whether KFP may take the outputs of an earlier run.
func setCachingOptions(c *call, st *step) error {
	var on bool
	if err := c.unpack("enable_caching", &on); err != nil {
		return err
	}
	st.d.NoCache = !on
	return nil
}

// setPendingTimeout: step.set_pending_timeout(seconds) -> step
//
// How long an attempt may wait to be started.
func setPendingTimeout(c *call, st *step) error {
	var seconds scalar
	if err := c.unpack("seconds", &seconds); err != nil {
		return err
	}
	if c.checkCount("seconds", string(seconds), 1) {
		st.d.PendingTimeout = string(seconds)
	}
	return nil
}

// setInfraRetries: step.set_infra_retries(n) -> step
//
// How many attempts the infrastructure may lose before that is the step's
// failure.
func setInfraRetries(c *call, st *step) error {
	var n int
	if err := c.unpack("n", &n); err != nil {
		return err
	}
	if n < 0 {
		c.report("n", "set_infra_retries: n is %d: want a whole number, 0 or more", n)
		return nil
	}
	st.d.InfraRetries = &n
	return nil
}

// setPrimitive: step.set_primitive(primitive) -> step
//
// What it runs as: `"pod"` or `"job"`.
func setPrimitive(c *call, st *step) error {
	var primitive string
	if err := c.unpack("primitive", &primitive); err != nil {
		return err
	}
	if !slices.Contains(dag.Primitives, primitive) {
		e := c.report("primitive", "set_primitive: %q: want one of %s", primitive, strings.Join(quoted(dag.Primitives), ", "))
		e.Hint = spell.DidYouMean(primitive, dag.Primitives)
		return nil
	}
	st.d.Primitive = primitive
	return nil
}

// setMesh: step.set_mesh(mesh=True) -> step
//
// Keeps the sidecar of a service mesh.
func setMesh(c *call, st *step) error {
	on := true
	if err := c.unpack("mesh?", &on); err != nil {
		return err
	}
	st.d.Mesh = on
	return nil
}

// setServiceAccount: step.set_service_account(name) -> step
//
// The account that it runs as.
func setServiceAccount(c *call, st *step) error {
	var name text
	if err := c.unpack("name", &name); err != nil {
		return err
	}
	c.checkName("name", string(name))
	st.d.ServiceAccount = string(name)
	return nil
}

// checkLabel reports a name that must be a DNS label and is none.
func (c *call) checkLabel(arg, name string) {
	if err := kube.CheckLabel(name); err != nil && !dag.HasRefs(name) {
		c.report(arg, "%s: %s %v", c.name, arg, err)
	}
}

// Fields of a step that can be read, and of those the ones that can be
// assigned to by the name of the container's field.
var (
	stepFields     = []string{"arguments", "command", "container", "dependent_names", "display_name", "env_variables", "execution_options", "image", "name", "output", "output_artifact_paths", "outputs", "pvolume", "pvolumes"}
	assignedFields = map[string]string{"image": "image", "command": "command", "arguments": "args", "env_variables": "env"}
)

// field returns the value of a field of a step; nil if it has none.
func (st *step) field(name string) starlark.Value {
	switch name {
	case "display_name":
		if st.d.DisplayName == "" {
			return starlark.None
		}
		return st.s.text(st.d.DisplayName)
	case "execution_options":
		return &options{st, name}
	case "dependent_names":
		var names []starlark.Value
		for _, e := range st.d.After {
			names = append(names, starlark.String(e.Step))
		}
		return starlark.NewList(names)
	}
	if field, ok := assignedFields[name]; ok {
		return st.s.fromTree(kube.TypeOf("Container").Field(field).Type, st.d.Container.Get(field))
	}
	return nil
}

// SetField is step.image = v, step.command = v, step.arguments = v,
// step.env_variables = v.
func (st *step) SetField(name string, v starlark.Value) error {
	field, ok := assignedFields[name]
	if !ok {
		return noField("a step", name, st.AttrNames())
	}
	if st.r != nil {
		return st.noContainer(name)
	}
	if field == "image" && v == starlark.None {
		return fmt.Errorf("a step needs an image")
	}
	c := &call{s: st.s, name: name, pos: assignment(st.s.thread)}
	if v != starlark.None && (field == "command" || field == "args") {
		st.target().set(field, c.texts(name, v))
		return nil
	}
	return st.s.setContainerField("a step", st.target(), field, v)
}

// options are step.execution_options and its caching_strategy, of which
// max_cache_staleness can be assigned to.
type options struct {
	st   *step
	name string
}

var _ starlark.HasSetField = (*options)(nil)

func (o *options) String() string        { return fmt.Sprintf("<%s of step %q>", o.name, o.st.d.Name) }
func (o *options) Type() string          { return o.name }
func (o *options) Freeze()               {}
func (o *options) Truth() starlark.Bool  { return true }
func (o *options) Hash() (uint32, error) { return 0, fmt.Errorf("%s cannot be a key", o.name) }

func (o *options) AttrNames() []string {
	if o.name == "execution_options" {
		return []string{"caching_strategy"}
	}
	return []string{"max_cache_staleness"}
}

func (o *options) Attr(name string) (starlark.Value, error) {
	switch o.name + "." + name {
	case "execution_options.caching_strategy":
		return &options{o.st, name}, nil
	case "caching_strategy.max_cache_staleness":
		if o.st.d.MaxCacheStaleness == "" {
			return starlark.None, nil
		}
		return o.st.s.text(o.st.d.MaxCacheStaleness), nil
	}
	return nil, noAttr(o.name, name, o.AttrNames())
}

// isoDuration matches durations of ISO 8601, and too much: CheckStaleness
// looks for what is missing.
var isoDuration = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^P(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?$`)
})

// SetField is step.execution_options.caching_strategy.max_cache_staleness = "P30D".
func (o *options) SetField(name string, v starlark.Value) error {
	if o.name != "caching_strategy" || name != "max_cache_staleness" {
		msg := fmt.Sprintf("%s has no .%s to assign to", o.name, name)
		if hint := spell.DidYouMean(name, o.AttrNames()); hint != "" && o.name == "caching_strategy" {
			msg += ": " + hint
		}
		return fmt.Errorf("%s", msg)
	}
	var t text
	if v != starlark.None {
		if err := t.Unpack(v); err != nil {
			return fmt.Errorf("max_cache_staleness: %w", err)
		}
		s := string(t)
		if !dag.HasRefs(s) && (!isoDuration().MatchString(s) || s == "P" || strings.HasSuffix(s, "T")) {
			return fmt.Errorf(`max_cache_staleness %q: want a duration of ISO 8601 such as "P30D", or "P0D" for no cache`, s)
		}
	}
	o.st.d.MaxCacheStaleness = string(t)
	return nil
}

// A scalarOrBool is a text that may also be given as a number or a boolean.
type scalarOrBool string

// Unpack implements starlark.Unpacker.
func (t *scalarOrBool) Unpack(v starlark.Value) error {
	s, ok := scalarText(v)
	if !ok {
		return fmt.Errorf("got %s, want string or number", typeName(v))
	}
	*t = scalarOrBool(s)
	return nil
}
