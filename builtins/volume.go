package builtins

import (
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/kube"
)

// This file defines volumes that go from step to step: pipeline_volume, what
// makes and copies claims, and pvolumes.

// volumeModes are the constants of the language for volume_op(modes=...).
var volumeModes = map[string]string{
	"VOLUME_MODE_RWO": "ReadWriteOnce",
	"VOLUME_MODE_RWM": "ReadWriteMany",
	"VOLUME_MODE_ROM": "ReadOnlyMany",
}

// A pipelineVolume is what pipeline_volume returns: a volume, and the steps
// that come before whatever mounts it. It cannot be changed.
type pipelineVolume struct {
	s     *Session
	obj   dag.Object // a core/v1 Volume
	after []dag.Edge
}

var _ starlark.HasAttrs = (*pipelineVolume)(nil)

func (v *pipelineVolume) name() string {
	name, _ := v.obj.Get("name").(string)
	return name
}

func (v *pipelineVolume) String() string {
	return fmt.Sprintf("<pipeline_volume %q>", dag.Display(v.name()))
}
func (v *pipelineVolume) Type() string         { return "pipeline_volume" }
func (v *pipelineVolume) Freeze()              {}
func (v *pipelineVolume) Truth() starlark.Bool { return true }
func (v *pipelineVolume) Hash() (uint32, error) {
	return 0, fmt.Errorf("a pipeline_volume cannot be a key")
}

// object is the volume as an object of k8s.
func (v *pipelineVolume) object() *object {
	return v.s.fromTree("Volume", v.obj).(*object)
}

func (v *pipelineVolume) AttrNames() []string {
	names := append(v.object().AttrNames(), "after")
	slices.Sort(names)
	return names
}

func (v *pipelineVolume) Attr(name string) (starlark.Value, error) {
	if name == "after" {
		return v.s.builtin(name, v.afterSteps), nil
	}
	if v.object().typ.Field(name) == nil {
		return nil, noAttr("a pipeline_volume", name, v.AttrNames())
	}
	return v.object().Attr(name)
}

// afterSteps: volume.after(*steps) -> volume
//
// The same volume, for steps that come after these.
//
// It is the same volume, to be mounted after these steps too. Those that
// they come after are left out.
func (v *pipelineVolume) afterSteps(c *call) (starlark.Value, error) {
	w := &pipelineVolume{s: v.s, obj: v.obj}
	if err := c.addAfter(&w.after); err != nil {
		return nil, err
	}
	added := slices.Clone(w.after)
	for _, old := range v.after {
		seen := map[string]bool{}
		if !slices.ContainsFunc(added, func(e dag.Edge) bool { return v.s.implies(e.Step, old.Step, seen) }) {
			w.after = append(w.after, old)
		}
	}
	return w, nil
}

// implies reports whether a step is the other one or says that it comes after
// it, by way of others or not.
func (s *Session) implies(name, other string, seen map[string]bool) bool {
	if name == other {
		return true
	}
	if seen[name] || s.body == nil {
		return false
	}
	seen[name] = true
	st := s.body.p.Step(name)
	return st != nil && slices.ContainsFunc(st.After, func(e dag.Edge) bool { return s.implies(e.Step, other, seen) })
}

// pipelineVolume: pipeline_volume(pvc=None, volume=None, name=None, **source) -> volume
//
// A volume of a claim that is there, of a `k8s.Volume`, or of one of its
// sources: `empty_dir = {}`. One of a name alone is an empty folder.
//
// The source is a field of k8s.Volume. A volume without a name gets the one
// that PipelineVolume of kfp 1.8.22 gives it, which depends on its content.
func (s *Session) pipelineVolume(c *call) (starlark.Value, error) {
	var pvc, name text
	var volume starlark.Value
	t := kube.TypeOf("Volume")
	var source dag.Object
	c.kwargs = slices.DeleteFunc(slices.Clone(c.kwargs), func(kw starlark.Tuple) bool {
		key := string(kw[0].(starlark.String))
		if key == "name" || t.Field(key) == nil {
			return false // unpack says what is unknown
		}
		if kw[1] != starlark.None {
			tree, err := k8sTree(kw[1])
			if err != nil {
				c.report(key, "%s, %s: %v", c.name, key, err)
			}
			source = append(source, dag.Member{Name: key, Value: tree})
		}
		return true
	})
	for _, f := range t.Fields {
		c.also = append(c.also, kube.Snake(f.Name))
	}
	if err := c.unpack("pvc??", &pvc, "volume??", &volume, "name??", &name); err != nil {
		return nil, err
	}
	switch {
	case volume != nil && (pvc != "" || name != "" || len(source) > 0):
		return nil, c.errorf("volume", "pipeline_volume: a volume has all that there is to say: want nothing beside it")
	case volume != nil:
		if v, ok := volume.(*pipelineVolume); ok {
			return &pipelineVolume{s: s, obj: v.obj}, nil
		}
		obj := c.fitObject("volume", "Volume", volume)
		if obj == nil {
			return nil, c.errorf("volume", "pipeline_volume: want a volume, got %s", typeName(volume))
		}
		return &pipelineVolume{s: s, obj: obj.Sorted()}, nil
	case pvc != "" && len(source) > 0:
		return nil, c.errorf("pvc", "pipeline_volume: beside pvc, only a name can be given")
	case pvc == "" && name == "" && len(source) == 0:
		e := c.errorf("", "pipeline_volume: want a pvc, a volume, a source of one, or a name")
		e.Hint = `write  pipeline_volume(pvc = "my-claim")`
		return nil, e
	}
	if name != "" {
		c.checkLabel("name", string(name))
	}
	if pvc != "" {
		source.Set(string(pvc), "persistentVolumeClaim", "claimName")
	}
	source.Set("pvolume-placeholder", "name")
	fitted, faults := kube.Fit(t.Name, source)
	c.reportFaults("", faults)
	obj, _ := fitted.(dag.Object)
	if name == "" {
		name = text(hashedName(obj))
	}
	obj.Set(string(name), "name")
	return &pipelineVolume{s: s, obj: obj.Sorted()}, nil
}

// hashedName is the name that KFP gives a volume of this content, with values
// known only at run time as KFP has them in text.
func hashedName(volume dag.Object) string {
	tree := dag.MapText(pythonFields("Volume", volume), func(text string) string {
		return dag.Expand(text, func(r dag.Ref) string {
			return "{{pipelineparam:op=" + r.Step + ";name=" + r.Name + "}}"
		})
	})
	name := fmt.Sprintf("pvolume-%x", sha256.Sum256([]byte(dag.PythonJSON(tree))))
	return name[:63]
}

// pythonFields returns a tree with the fields of its objects as Kubernetes'
// Python client names them.
func pythonFields(holds string, tree any) any {
	elem := strings.TrimPrefix(strings.TrimPrefix(holds, "[]"), "{}")
	switch tree := tree.(type) {
	case []any:
		var list []any
		for _, e := range tree {
			list = append(list, pythonFields(elem, e))
		}
		return list
	case dag.Object:
		var obj dag.Object
		t := kube.TypeOf(holds)
		for _, m := range tree {
			if t == nil {
				obj = append(obj, dag.Member{Name: m.Name, Value: pythonFields(elem, m.Value)})
			} else if f := t.Field(m.Name); f != nil {
				obj = append(obj, dag.Member{Name: kube.Snake(f.Name), Value: pythonFields(f.Type, m.Value)})
			}
		}
		return obj
	}
	return tree
}

// addPVolumes: step.add_pvolumes(pvolumes) -> step
//
// Mounts volumes: `{path: volume}`, see [Volumes](#volumes).
func addPVolumes(c *call, st *step) error {
	var pvolumes *starlark.Dict
	if err := c.unpack("pvolumes", &pvolumes); err != nil {
		return err
	}
	c.addPVolumes(st, pvolumes)
	return nil
}

// addPVolumes mounts the volumes of a dict of paths, after the steps that they
// come after. The step's own volume comes after the step.
func (c *call) addPVolumes(st *step, pvolumes *starlark.Dict) {
	for k, v := range pvolumes.Entries() {
		at, ok := k.(starlark.String)
		if !ok {
			c.report("pvolumes", "pvolumes: want paths as keys, got %s", typeName(k))
			continue
		}
		pv, ok := v.(*pipelineVolume)
		if !ok {
			if v == starlark.None {
				c.report("pvolumes", "pvolumes[%s] is None: want a volume", at)
				continue
			}
			obj := c.fitObject("pvolumes", "Volume", v)
			if obj.Get("name") == nil {
				continue
			}
			pv = &pipelineVolume{s: c.s, obj: obj.Sorted()}
		}
		for _, e := range pv.after {
			if !slices.ContainsFunc(st.d.After, func(o dag.Edge) bool { return o.Step == e.Step }) {
				st.d.After = append(st.d.After, dag.Edge{Step: e.Step, Pos: c.pos})
			}
		}
		own := &pipelineVolume{s: c.s, obj: pv.obj, after: []dag.Edge{{Step: st.d.Name, Pos: c.pos}}}
		st.pvolumes = append(st.pvolumes, pvolume{string(at), own})
		c.addVolume(st.d, pv.obj)
		c.addMount(st.target(), pv.name(), string(at))
	}
}

// A pvolume is a volume that a step mounts at a path, as those that follow the
// step mount it.
type pvolume struct {
	path string
	v    *pipelineVolume
}

// pvolumeField is step.pvolumes or step.pvolume.
func (st *step) pvolumeField(name string) (starlark.Value, error) {
	if name == "pvolume" {
		if n := len(st.pvolumes); n != 1 {
			return nil, fmt.Errorf("step %q has %d pvolumes, and .pvolume is for one: want .pvolumes[PATH]", st.d.Name, n)
		}
		return st.pvolumes[0].v, nil
	}
	d := starlark.NewDict(len(st.pvolumes))
	for _, p := range st.pvolumes {
		d.SetKey(starlark.String(p.path), p.v)
	}
	d.Freeze()
	return d, nil
}

// volumeOp: volume_op(name, resource_name=None, size=None, storage_class=None, modes=VOLUME_MODE_RWM, annotations=None, data_source=None, volume_name=None, generate_unique_name=True, k8s_resource=None, action="create", merge_strategy=None, success_condition=None, failure_condition=None, attribute_outputs=None, set_owner_reference=None, flags=None) -> step
//
// A step that makes a claim, named like the run and `resource_name` behind
// it; `.volume` is its volume. It has an output `size` too. `data_source` is
// the name of a VolumeSnapshot, `.snapshot` of a step, or a
// `k8s.TypedLocalObjectReference`. `k8s_resource` is the whole claim
// instead. The rest is as in `resource_op`.
//
// The source of this and the next one is kfp.dsl of kfp 1.8.22.
func (s *Session) volumeOp(c *call) (starlark.Value, error) {
	b, err := c.inBody()
	if err != nil {
		return nil, err
	}
	var name string
	var resourceName, storageClass, modes, annotations, source, volumeName, given starlark.Value
	var size scalar
	unique := true
	var args resourceArgs
	if err := c.unpack(args.pairs("name", &name, "resource_name??", &resourceName, "size??", &size, "storage_class??", &storageClass,
		"modes??", &modes, "annotations??", &annotations, "data_source??", &source, "volume_name??", &volumeName,
		"generate_unique_name?", &unique, "k8s_resource??", &given)...); err != nil {
		return nil, err
	}
	if args.action == "delete" {
		return nil, c.errorf("action", "volume_op makes a volume: want another action than delete")
	}
	var claim dag.Object
	if given != nil {
		if err := c.alone(resourceName != nil, size != "", storageClass != nil, modes != nil, annotations != nil, source != nil, volumeName != nil); err != nil {
			return nil, err
		}
		if claim, err = c.manifest(args.action, given); err != nil {
			return nil, err
		}
		if kind, _ := claim.Get("kind").(string); kind != "" && kind != "PersistentVolumeClaim" {
			return nil, c.errorf("k8s_resource", "volume_op: k8s_resource is a %s: want a PersistentVolumeClaim", dag.Display(kind))
		}
	} else {
		claim = c.claim(c.metadata(resourceName, unique, annotations), string(size), storageClass, modes, source, volumeName)
	}
	st, err := c.newResource(b, name, claim, args, dag.Output{Name: "size", JSONPath: "{.status.capacity.storage}"})
	if err != nil {
		return nil, err
	}
	if err := kube.CheckLabel(st.d.Name); err != nil {
		c.report("name", "volume_op: the volume has the name of the step, %v", err)
	}
	claimName := dag.Ref{Kind: dag.RefOutput, Step: st.d.Name, Name: "name"}
	st.r.volume = &pipelineVolume{s: s, obj: dag.Object{
		{Name: "name", Value: st.d.Name},
		{Name: "persistentVolumeClaim", Value: dag.Object{{Name: "claimName", Value: claimName.Token()}}},
	}}
	return st, nil
}

// alone returns the fault of a k8s_resource that is given along with arguments
// that say the same.
func (c *call) alone(others ...bool) error {
	if slices.Contains(others, true) {
		return c.errorf("k8s_resource", "%s: k8s_resource has all that there is to say of the object: want none of the other arguments about it", c.name)
	}
	return nil
}

// claim returns the manifest of a PersistentVolumeClaim.
func (c *call) claim(metadata dag.Object, size string, storageClass, modes, source, volumeName starlark.Value) dag.Object {
	if size == "" {
		c.report("", "volume_op: want a size").Hint = `such as  size = "10Gi"`
	} else if err := kube.CheckQuantity("storage", size); err != nil && !dag.HasRefs(size) {
		c.report("size", "volume_op: %v", err)
	}
	var accessModes []any
	if modes != nil {
		accessModes, _ = c.fit("modes", "[]PersistentVolumeAccessMode", modes).([]any)
	}
	if len(accessModes) == 0 {
		accessModes = []any{volumeModes["VOLUME_MODE_RWM"]}
	}
	spec := dag.Object{{Name: "accessModes", Value: accessModes}}
	switch source.(type) {
	case nil:
	case starlark.String, *value:
		spec.Set(dag.Object{
			{Name: "apiGroup", Value: "snapshot.storage.k8s.io"},
			{Name: "kind", Value: "VolumeSnapshot"},
			{Name: "name", Value: c.optText("data_source", source)},
		}, "dataSource")
	default:
		spec.Set(c.fitObject("data_source", "TypedLocalObjectReference", source), "dataSource")
	}
	spec.Set(size, "resources", "requests", "storage")
	if class := c.optText("storage_class", storageClass); class != nil {
		spec.Set(class, "storageClassName")
	}
	if volume := c.optText("volume_name", volumeName); volume != nil {
		spec.Set(volume, "volumeName")
	}
	return dag.Object{
		{Name: "apiVersion", Value: "v1"},
		{Name: "kind", Value: "PersistentVolumeClaim"},
		{Name: "metadata", Value: metadata},
		{Name: "spec", Value: spec},
	}
}

// optText returns an argument that is text, or nil if it is not given.
func (c *call) optText(arg string, v starlark.Value) any {
	if v == nil {
		return nil
	}
	var t text
	if err := t.Unpack(v); err != nil {
		c.report(arg, "%s, argument %q: %v", c.name, arg, err)
		return nil
	}
	return string(t)
}

// metadata returns the metadata of an object that is made; if unique is set,
// its name begins with that of the run.
func (c *call) metadata(resourceName starlark.Value, unique bool, annotations starlark.Value) dag.Object {
	name, ok := c.optText("resource_name", resourceName).(string)
	if resourceName == nil {
		e := c.report("", "%s: want a resource_name", c.name)
		e.Hint = "it is the name of the object, behind that of the run"
	} else if ok && !dag.HasRefs(name) {
		written := name
		if name = dag.K8sName(name); name == "" {
			c.report("resource_name", "%s: resource_name %q: want at least one ASCII letter or digit", c.name, written)
		} else {
			c.checkName("resource_name", name)
		}
	}
	if unique {
		name = dag.Ref{Kind: dag.RefRunName}.Token() + "-" + name
	}
	metadata := dag.Object{{Name: "name", Value: name}}
	if annotations != nil {
		notes, _ := c.fit("annotations", "{}string", annotations).(dag.Object)
		for _, m := range notes {
			if err := kube.CheckLabelName(m.Name); err != nil && !dag.HasRefs(m.Name) {
				c.report("annotations", "%s: annotation name %v", c.name, err)
			}
		}
		metadata.Set(notes, "annotations")
	}
	return metadata
}

// volumeSnapshotOp: volume_snapshot_op(name, resource_name=None, pvc=None, snapshot_class=None, annotations=None, volume=None, api_version="snapshot.storage.k8s.io/v1alpha1", k8s_resource=None, action="create", merge_strategy=None, success_condition="status.readyToUse == true", failure_condition=None, attribute_outputs=None, set_owner_reference=None, flags=None) -> step
//
// A step that makes a snapshot of the claim `pvc`, or of that of a volume;
// `.snapshot` refers to it. It waits until the snapshot is ready.
func (s *Session) volumeSnapshotOp(c *call) (starlark.Value, error) {
	b, err := c.inBody()
	if err != nil {
		return nil, err
	}
	var name string
	var resourceName, class, annotations, volume, given starlark.Value
	var pvc text
	var version text = "snapshot.storage.k8s.io/v1alpha1"
	var args resourceArgs
	args.success = "status.readyToUse == true"
	for _, kw := range c.kwargs {
		if kw[0] == starlark.String("success_condition") && kw[1] == starlark.None {
			args.success = "" // as in KFP
		}
	}
	if err := c.unpack(args.pairs("name", &name, "resource_name??", &resourceName, "pvc??", &pvc, "snapshot_class??", &class,
		"annotations??", &annotations, "volume??", &volume, "api_version??", &version, "k8s_resource??", &given)...); err != nil {
		return nil, err
	}
	if args.action == "delete" {
		return nil, c.errorf("action", "volume_snapshot_op makes a snapshot: want another action than delete")
	}
	var snapshot dag.Object
	var after []dag.Edge
	if given != nil {
		if err := c.alone(resourceName != nil, pvc != "", class != nil, annotations != nil, volume != nil); err != nil {
			return nil, err
		}
		if snapshot, err = c.manifest(args.action, given); err != nil {
			return nil, err
		}
	} else {
		claim := string(pvc)
		switch {
		case pvc != "" && volume != nil:
			return nil, c.errorf("volume", "volume_snapshot_op: want a pvc or a volume, got both")
		case volume != nil:
			if pv, ok := volume.(*pipelineVolume); ok {
				after = pv.after
			}
			claim, _ = c.fitObject("volume", "Volume", volume).Get("persistentVolumeClaim", "claimName").(string)
			if claim == "" {
				return nil, c.errorf("volume", "volume_snapshot_op: the volume is not that of a claim: want one with a persistent_volume_claim")
			}
		case pvc == "":
			return nil, c.errorf("", "volume_snapshot_op: want a pvc or a volume")
		}
		spec := dag.Object{{Name: "source", Value: dag.Object{{Name: "kind", Value: "PersistentVolumeClaim"}, {Name: "name", Value: claim}}}}
		if class := c.optText("snapshot_class", class); class != nil && class != "" {
			spec.Set(class, "snapshotClassName")
		}
		snapshot = dag.Object{
			{Name: "apiVersion", Value: string(version)},
			{Name: "kind", Value: "VolumeSnapshot"},
			{Name: "metadata", Value: c.metadata(resourceName, true, annotations)},
			{Name: "spec", Value: spec},
		}
	}
	st, err := c.newResource(b, name, snapshot, args, dag.Output{Name: "size", JSONPath: "{.status.restoreSize}"})
	if err != nil {
		return nil, err
	}
	for _, e := range after {
		st.d.After = append(st.d.After, dag.Edge{Step: e.Step, Pos: c.pos})
	}
	ref := dag.Object{
		{Name: "apiGroup", Value: "snapshot.storage.k8s.io"},
		{Name: "kind", Value: "VolumeSnapshot"},
		{Name: "name", Value: dag.Ref{Kind: dag.RefOutput, Step: st.d.Name, Name: "name"}.Token()},
	}
	st.r.snapshot = s.fromTree("TypedLocalObjectReference", ref).(*object)
	return st, nil
}
