package builtins

import (
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
	"github.com/kfs-project/kfs/kube"
)

// This file defines resource_op and the steps that it makes, which have no
// container: they change an object of the cluster.

// A resource is what a step of resource_op, volume_op or volume_snapshot_op has
// beside its dag.Resource.
type resource struct {
	output   string          // the output that step.output is
	volume   *pipelineVolume // of volume_op
	snapshot *object         // of volume_snapshot_op
}

// resourceArgs are the arguments that resource_op shares with its kin.
type resourceArgs struct {
	action                     string
	strategy, success, failure text
	outputs                    *starlark.Dict
	owner                      *bool
	flags                      starlark.Value
}

// pairs are the arguments for unpack, and those of the call's own before them.
func (a *resourceArgs) pairs(own ...any) []any {
	a.action = "create"
	return append(own, "action?", &a.action, "merge_strategy??", &a.strategy, "success_condition??", &a.success,
		"failure_condition??", &a.failure, "attribute_outputs??", &a.outputs, "set_owner_reference??", optionalBool{&a.owner}, "flags??", &a.flags)
}

// resourceOp: resource_op(name, k8s_resource, action="create", merge_strategy=None, success_condition=None, failure_condition=None, attribute_outputs=None, set_owner_reference=None, flags=None) -> step
//
// A step that changes an object of the cluster, see
// [below](#steps-without-a-container).
func (s *Session) resourceOp(c *call) (starlark.Value, error) {
	b, err := c.inBody()
	if err != nil {
		return nil, err
	}
	var name string
	var v starlark.Value
	var args resourceArgs
	if err := c.unpack(args.pairs("name", &name, "k8s_resource", &v)...); err != nil {
		return nil, err
	}
	manifest, err := c.manifest(args.action, v)
	if err != nil {
		return nil, err
	}
	return c.newResource(b, name, manifest, args)
}

// newResource adds a step that changes the object of a manifest. More are
// outputs that it has if the author gives none of their names.
func (c *call) newResource(b *body, name string, manifest dag.Object, args resourceArgs, more ...dag.Output) (*step, error) {
	st, err := c.newStep(b, name)
	if err != nil {
		return nil, err
	}
	r := &dag.Resource{
		Action: args.action, MergeStrategy: string(args.strategy), SuccessCondition: string(args.success),
		FailureCondition: string(args.failure), SetOwnerReference: args.owner, Manifest: manifest,
	}
	st.d.Resource, st.r = r, &resource{output: "name"}
	if !slices.Contains(dag.ResourceActions, r.Action) {
		e := c.report("action", "%s: action %q: want one of %s", c.name, r.Action, strings.Join(quoted(dag.ResourceActions), ", "))
		e.Hint = spell.DidYouMean(r.Action, dag.ResourceActions)
		r.Action, r.MergeStrategy = "create", "" // what is reported here is not to be reported again
	}
	if m := r.MergeStrategy; m != "" {
		if r.Action != "apply" && r.Action != "patch" {
			c.report("merge_strategy", "%s: only the actions apply and patch have a merge_strategy, not %s", c.name, r.Action)
			r.MergeStrategy = ""
		} else if !slices.Contains(dag.MergeStrategies, m) && !dag.HasRefs(m) {
			e := c.report("merge_strategy", "%s: merge_strategy %q: want one of %s", c.name, m, strings.Join(quoted(dag.MergeStrategies), ", "))
			e.Hint = spell.DidYouMean(m, dag.MergeStrategies)
			r.MergeStrategy = ""
		}
	}
	if args.flags != nil {
		for _, flag := range c.texts("flags", args.flags) {
			r.Flags = append(r.Flags, flag.(string))
		}
	}
	if r.Action != "delete" {
		c.attributeOutputs(st, args.outputs, more)
		b.add(st)
		return st, nil
	}
	for _, given := range []struct {
		arg string
		is  bool
	}{
		{"success_condition", r.SuccessCondition != ""},
		{"failure_condition", r.FailureCondition != ""},
		{"attribute_outputs", args.outputs != nil && args.outputs.Len() > 0},
	} {
		if given.is {
			c.report(given.arg, "%s: the action delete leaves no object for %s", c.name, given.arg)
		}
	}
	r.SuccessCondition, r.FailureCondition = "", ""
	if args.flags == nil {
		r.Flags = []string{"--wait=false"}
	}
	b.add(st)
	return st, nil
}

// attributeOutputs gives the step its outputs: those of the author, the ones in
// more, and name and manifest. The only one of the author is step.output.
func (c *call) attributeOutputs(st *step, given *starlark.Dict, more []dag.Output) {
	set := func(name, jsonPath string, replace bool) {
		o := st.d.Output(name)
		if o == nil {
			st.d.Outputs = append(st.d.Outputs, dag.Output{Name: name, JSONPath: jsonPath, Pos: c.pos})
		} else if replace {
			o.JSONPath = jsonPath
		}
	}
	for _, o := range more {
		set(o.Name, o.JSONPath, false)
	}
	if given != nil {
		for k, v := range given.Entries() {
			name, ok := k.(starlark.String)
			var jsonPath text
			switch err := jsonPath.Unpack(v); {
			case !ok:
				c.report("attribute_outputs", "%s, attribute_outputs: want names of outputs as keys, got %s", c.name, typeName(k))
			case err != nil || jsonPath == "":
				e := c.report("attribute_outputs", "%s, attribute_outputs[%s]: want a path into the object as text, got %s", c.name, name, typeName(v))
				e.Hint = `a path is written as for kubectl:  "{.metadata.uid}"`
			case dag.CheckOutputName(string(name)) != "":
				c.report("attribute_outputs", "%s", dag.CheckOutputName(string(name)))
			default:
				set(string(name), string(jsonPath), true)
				if given.Len() == 1 {
					st.r.output = string(name)
				}
			}
		}
	}
	set("name", "{.metadata.name}", false)
	set("manifest", "{}", false)
}

// manifest returns the argument k8s_resource as a manifest. What it lacks is
// reported; an object of core/v1 is checked as one.
func (c *call) manifest(action string, v starlark.Value) (dag.Object, error) {
	var manifest dag.Object
	hint := ""
	switch v := v.(type) {
	case *object:
		manifest = v.obj
		if v.typ.Field("metadata") != nil {
			hint = fmt.Sprintf("write  k8s.%s(api_version = \"v1\", kind = %q, metadata = k8s.ObjectMeta(name = ...), ...)", v.typ.Name, v.typ.Name)
		}
	case *starlark.Dict:
		hint = `write  {"apiVersion": ..., "kind": ..., "metadata": {"name": ...}, ...}`
		before := len(c.s.faults)
		if t := coreType(v); t != nil && action != "patch" && action != "delete" {
			manifest = c.fitManifest(t, v)
		} else if tree, err := toJSON(v); err != nil {
			c.report("k8s_resource", "%s, k8s_resource: %v", c.name, err)
		} else {
			manifest = tree.(dag.Object)
		}
		if len(c.s.faults) > before {
			return whole(manifest), nil
		}
	case *pipelineVolume:
		return nil, c.errorf("k8s_resource", "%s: k8s_resource is a volume of a pod: want an object of the cluster, such as a PersistentVolumeClaim", c.name)
	case Runtime:
		e := c.errorf("k8s_resource", "%s%sit cannot be a k8s_resource", v.What(), onlyAtRunTime)
		e.Hint = "a dict or an object of k8s may hold it in any text"
		return nil, e
	case starlark.NoneType:
		e := c.errorf("k8s_resource", "%s: k8s_resource is None: want a dict or an object of k8s", c.name)
		e.Hint = "a function that makes one must return it"
		return nil, e
	default:
		return nil, c.errorf("k8s_resource", "%s: k8s_resource is %s: want a dict or an object of k8s", c.name, kind(v))
	}
	if missing := (&dag.Resource{Manifest: manifest}).Missing(); missing != "" {
		c.report("k8s_resource", "%s: k8s_resource has no %s", c.name, missing).Hint = hint
	} else if name, _ := manifest.Get("metadata", "name").(string); manifest.Get("apiVersion") == "v1" && name != "" && !strings.Contains(name, "{{") {
		if err := kube.CheckSubdomain(name); err != nil && !dag.HasRefs(name) {
			c.report("k8s_resource", "%s: metadata.name of k8s_resource %v", c.name, err)
		}
	}
	return whole(manifest), nil
}

// fitManifest returns k8s_resource as an object of the type.
func (c *call) fitManifest(t *kube.Type, v starlark.Value) dag.Object {
	tree, err := k8sTree(v)
	if err != nil {
		c.report("k8s_resource", "%s, k8s_resource: %v", c.name, err)
		return nil
	}
	fitted, faults := kube.FitManifest(t.Name, tree)
	c.reportFaults("k8s_resource", faults)
	obj, _ := fitted.(dag.Object)
	return obj
}

// whole returns the manifest with what it lacks, so that the fault that was
// reported for it is not reported again.
func whole(manifest dag.Object) dag.Object {
	for _, path := range [][]string{{"apiVersion"}, {"kind"}, {"metadata", "name"}} {
		if (&dag.Resource{Manifest: manifest}).Missing() != "" {
			if text, _ := manifest.Get(path...).(string); text == "" {
				manifest.Set("unnamed", path...)
			}
		}
	}
	return manifest
}

// coreType returns the type of core/v1 that a manifest says it is of, or nil.
func coreType(manifest *starlark.Dict) *kube.Type {
	version, _, _ := manifest.Get(starlark.String("apiVersion"))
	kind, _, _ := manifest.Get(starlark.String("kind"))
	name, ok := kind.(starlark.String)
	if !ok || version != starlark.String("v1") {
		return nil
	}
	t := kube.TypeOf(string(name))
	if t == nil || t.Name != string(name) || t.Field("metadata") == nil {
		return nil
	}
	return t
}

// noContainer says why the step has none of the methods of a container.
func (st *step) noContainer(name string) error {
	return fmt.Errorf("step %q has no .%s, because it has no container: it changes the cluster (%s)", st.d.Name, name, st.d.Resource)
}

// containerOnly are the words of steps that make no sense without a container,
// beside the methods of containers.
var containerOnly = []string{"add_pvolumes", "arguments", "command", "container", "image", "pvolume", "pvolumes", "set_accelerator", "set_primitive"}

// resourceAttrs are the names of the methods and fields of the step.
func (st *step) resourceAttrs() []string {
	names := slices.Concat([]string{"delete", "dependent_names", "display_name", "execution_options", "name", "output", "outputs"}, attrNames(stepMethods))
	for _, name := range attrNames(podMethods) {
		if !slices.Contains(containerOnly, name) {
			names = append(names, name)
		}
	}
	if st.r.volume != nil {
		names = append(names, "volume")
	}
	if st.r.snapshot != nil {
		names = append(names, "snapshot")
	}
	slices.Sort(names)
	return names
}

// resourceAttr is Attr of a step that has no container.
func (st *step) resourceAttr(name string) (starlark.Value, error) {
	if names := st.resourceAttrs(); !slices.Contains(names, name) {
		if _, ofContainer := containerMethods[name]; ofContainer || slices.Contains(containerOnly, name) {
			return nil, st.noContainer(name)
		}
		return nil, noAttr("a step without a container", name, names)
	}
	switch name {
	case "name":
		return starlark.String(st.d.Name), nil
	case "outputs":
		return &outputs{st}, nil
	case "output":
		v, _, err := (&outputs{st}).Get(starlark.String(st.r.output))
		return v, err
	case "volume":
		return st.r.volume, nil
	case "snapshot":
		return st.r.snapshot, nil
	case "delete":
		return st.s.builtin(name, st.delete), nil
	}
	if v := st.field(name); v != nil {
		return v, nil
	}
	if m := podMethods[name]; m != nil {
		return st.s.builtin(name, func(c *call) (starlark.Value, error) { return st, m(c, st) }), nil
	}
	return st.s.bind(name, stepMethods[name], st.d, st), nil
}

// delete: step.delete(flags=None) -> step
//
// Another step, which deletes the object that this one made.
//
// The new step deletes the object.
func (st *step) delete(c *call) (starlark.Value, error) {
	b, err := c.inBody()
	if err != nil {
		return nil, err
	}
	var flags starlark.Value
	if err := c.unpack("flags??", &flags); err != nil {
		return nil, err
	}
	if st.d.Resource.Action == "delete" {
		return nil, c.errorf("", "delete: step %q is the deletion of its object already", st.d.Name)
	}
	d, err := c.newStep(b, "kubernetes_resource_delete")
	if err != nil {
		return nil, err
	}
	name := dag.Ref{Kind: dag.RefOutput, Step: st.d.Name, Name: "name"}
	command := []any{"kubectl", "delete", st.d.Resource.Kind(), name.Token(), "--ignore-not-found", "--output", "name"}
	given := []any{"--wait=false"}
	if flags != nil {
		if texts := c.texts("flags", flags); len(texts) > 0 {
			given = texts
		}
	}
	d.d.Container.Set("gcr.io/cloud-builders/kubectl", "image")
	d.d.Container.Set(append(command, given...), "command")
	b.add(d)
	return d, nil
}

// skips reports whether a modifier of the name passes over the step, because it
// is about containers and the step has none; an error if it cannot.
func (c *call) skips(st *step) (bool, error) {
	if st.d.Resource == nil {
		return false, nil
	}
	switch c.name {
	case "add_default_resource_spec": // as in KFP: it is meant for all steps
		return true, nil
	case "add_gpu_toleration", "use_preemptible_nodepool":
		return false, nil
	}
	return false, c.errorf("", "%s: step %q has no container: it changes the cluster (%s)", c.name, st.d.Name, st.d.Resource)
}
