package k8s

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/images"
)

// This file makes the pod of an attempt.

// mainContainer is the name of the step's own container, as in Argo.
const mainContainer = "main"

// A podMaker makes the pods of one run, as trees: they are printed for people
// too, with placeholders in them that no typed pod could hold.
type podMaker struct {
	run    engine.RunInfo
	conf   *dag.Conf
	opts   Options
	images *images.Map
	owner  dag.Object // an owner reference to the run; nil in print
}

func newPodMaker(run engine.RunInfo, p *dag.Pipeline, opts Options) *podMaker {
	opts.Limits = opts.Limits.withDefaults()
	return &podMaker{run: run, conf: conf(p), opts: opts, images: images.Mirrors(opts.Images)}
}

// image returns what stands in for an image.
func (m *podMaker) image(name string) string {
	if t, ok := m.images.Resolve(name); ok && t.Image != "" {
		return t.Image
	}
	return name
}

// pod returns the pod of an attempt. Entrypoint is what its image runs, if the
// step says no command and the launcher needs one.
func (m *podMaker) pod(a *engine.Attempt, entrypoint *entrypoint) (dag.Object, error) {
	spec := dag.Object{{Name: "restartPolicy", Value: "Never"}}
	set := func(name string, value any) {
		if !empty(value) {
			spec.Set(value, name)
		}
	}
	account := firstText(a.Pod.ServiceAccount, m.conf.ServiceAccount, m.opts.ServiceAccount)
	set("serviceAccountName", account)
	spec.Set(account != "", "automountServiceAccountToken")
	if a.Timeout > 0 { // ends it too if no kfs is there to
		seconds := math.Ceil(a.Timeout.Seconds() + m.pendingLimit(a).Seconds())
		spec.Set(int64(min(seconds, math.MaxInt32)), "activeDeadlineSeconds")
	}
	selector := a.Pod.NodeSelector
	if len(selector) == 0 {
		selector = m.conf.NodeSelector
	}
	set("nodeSelector", selector)
	set("affinity", a.Pod.Affinity)
	set("tolerations", list(a.Pod.Tolerations))
	set("imagePullSecrets", list(m.conf.ImagePullSecrets))
	set("dnsConfig", m.conf.DNSConfig)

	main := m.container(a.Container, nil, mainContainer)
	volumes := slices.Clone(a.Volumes)
	var inits []dag.Object
	for _, c := range a.Pod.InitContainers {
		inits = append(inits, m.container(c, main, ""))
	}
	for _, c := range a.Pod.Sidecars {
		c := m.container(c, main, "")
		if c.Get("restartPolicy") == nil {
			c.Set("Always", "restartPolicy")
		}
		inits = append(inits, c)
	}
	if launched(a) {
		io, more, err := m.launcher(a, &main, entrypoint)
		if err != nil {
			return nil, err
		}
		inits, volumes = append(inits, io), append(volumes, more...)
	} else if main.Get("terminationMessagePolicy") == nil {
		// The last lines of a failed step's log outlive its pod's log.
		main.Set("FallbackToLogsOnError", "terminationMessagePolicy")
	}
	set("initContainers", list(inits))
	set("containers", list([]dag.Object{main}))
	set("volumes", list(volumes))

	metadata := dag.Object{{Name: "name", Value: a.ID}}
	labels := slices.Clone(a.Pod.Labels)
	for _, l := range []dag.Member{
		{Name: managedBy, Value: "kfs"}, {Name: runLabel, Value: m.run.Name},
		{Name: stepLabel, Value: labelValue(a.Step)}, {Name: attemptLabel, Value: a.ID},
	} {
		labels.Set(l.Value, l.Name)
	}
	if !a.Pod.Mesh && labels.Get(meshLabel) == nil {
		labels.Set("false", meshLabel)
	}
	metadata.Set(labels, "labels")
	annotations := slices.Clone(a.Pod.Annotations)
	annotations.Set(m.run.ID, runIDAnnotation)
	annotations.Set(a.Step, stepAnnotation)
	metadata.Set(annotations, "annotations")
	metadata.Set([]any{outcomeFinalizer}, "finalizers")
	if m.owner != nil {
		metadata.Set([]any{m.owner}, "ownerReferences")
	}
	pod := dag.Object{{Name: "apiVersion", Value: "v1"}, {Name: "kind", Value: "Pod"}, {Name: "metadata", Value: metadata}, {Name: "spec", Value: spec}}
	hash := specHash(pod)
	pod.Set(hash, "metadata", "annotations", specAnnotation)
	if a.Primitive == "job" {
		return m.job(pod), nil
	}
	return pod, nil
}

// job returns a Job that makes the pod, once.
func (m *podMaker) job(pod dag.Object) dag.Object {
	metadata, _ := pod.Get("metadata").(dag.Object)
	keep := func(names ...string) dag.Object {
		var o dag.Object
		for _, name := range names {
			if v := metadata.Get(name); v != nil {
				o.Set(v, name)
			}
		}
		return o
	}
	return dag.Object{
		{Name: "apiVersion", Value: "batch/v1"}, {Name: "kind", Value: "Job"},
		{Name: "metadata", Value: keep("name", "labels", "annotations", "ownerReferences")},
		{Name: "spec", Value: dag.Object{
			{Name: "backoffLimit", Value: int64(0)}, {Name: "completions", Value: int64(1)}, {Name: "parallelism", Value: int64(1)},
			{Name: "template", Value: dag.Object{
				{Name: "metadata", Value: keep("labels", "annotations", "finalizers")}, {Name: "spec", Value: pod.Get("spec")},
			}},
		}},
	}
}

// container returns a container as the pod has it; name is one that the author
// did not give. Main is the step's own, whose mounts another may mirror.
func (m *podMaker) container(c, main dag.Object, name string) dag.Object {
	var out dag.Object
	if name != "" {
		out = dag.Object{{Name: "name", Value: name}}
	}
	mirror := c.Get("mirrorVolumeMounts") == true
	for _, member := range c {
		switch member.Name {
		case "mirrorVolumeMounts":
		case "image":
			image, _ := member.Value.(string)
			out.Set(m.image(image), "image")
		default:
			out.Set(member.Value, member.Name)
		}
	}
	if mirror {
		mounts, _ := main.Get("volumeMounts").([]any)
		for _, mount := range mounts {
			out.Append("volumeMounts", mount)
		}
	}
	return out
}

// extended reports whether an attempt asks for resources of which a node has a
// number, as GPUs.
func extended(a *engine.Attempt) bool {
	limits, _ := a.Container.Get("resources", "limits").(dag.Object)
	return slices.ContainsFunc(limits, func(l dag.Member) bool { return strings.Contains(l.Name, "/") })
}

// list returns objects as the value of a field.
func list(objects []dag.Object) []any {
	var l []any
	for _, o := range objects {
		l = append(l, o)
	}
	return l
}

func empty(v any) bool {
	switch v := v.(type) {
	case string:
		return v == ""
	case dag.Object:
		return len(v) == 0
	case []any:
		return len(v) == 0
	}
	return v == nil
}

func firstText(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

// maxObject is what etcd takes of one object, with room for what the API
// server adds.
const maxObject = 1_400_000

// maxArgument is the longest text that Linux takes as one argument or variable
// of a process, with its final zero: 32 pages.
const maxArgument = 128 << 10

// typed turns a tree into an object of the API: into is a Pod or a Job.
func typed(tree dag.Object, into any) error {
	data, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	if len(data) > maxObject {
		return fmt.Errorf("its pod has %d bytes: Kubernetes takes objects of at most %d; hand large values on in files: input_argument_path", len(data), maxObject)
	}
	if err := json.Unmarshal(data, into); err != nil {
		return fmt.Errorf("its pod is none that Kubernetes takes: %w", err)
	}
	var spec *corev1.PodSpec
	switch o := into.(type) {
	case *corev1.Pod:
		spec = &o.Spec
	case *batchv1.Job:
		spec = &o.Spec.Template.Spec
	}
	for _, c := range slices.Concat(spec.InitContainers, spec.Containers) {
		for i, arg := range slices.Concat(c.Command, c.Args) {
			if len(arg) >= maxArgument {
				return fmt.Errorf("argument %d of container %q has %d bytes: Linux takes at most %d in one; hand the value on in a file: input_argument_path", i+1, c.Name, len(arg), maxArgument-1)
			}
		}
		for _, v := range c.Env {
			if len(v.Name)+1+len(v.Value) >= maxArgument {
				return fmt.Errorf("variable %q of container %q has %d bytes: Linux takes at most %d in one; hand the value on in a file: input_argument_path", v.Name, c.Name, len(v.Value), maxArgument-1)
			}
		}
	}
	return nil
}

// limitOf returns the memory limit of the step's container, as it is written.
func limitOf(a *engine.Attempt) string {
	switch v := a.Container.Get("resources", "limits", "memory").(type) {
	case string:
		return v
	case int64:
		return strconv.FormatInt(v, 10)
	}
	return ""
}
