// Package argo writes a pipeline as the Argo Workflow that the compiler of the
// KFP SDK 1.8.22 would write, so that clusters and tools made for KFP v1 take
// it as one of theirs.
//
//	Check      what a Workflow cannot say
//	Workflow   the manifest as a tree
//	Compile    the manifest as YAML
//	Archive    YAML in the archive that a file name asks for
//
// Names, labels, annotations and the order of keys and lists are KFP's.
package argo

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/kfs-project/kfs/backend/accel"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/yaml"
)

// sdkVersion is the version of the KFP SDK whose output this is.
const sdkVersion = "1.8.22"

// Options are what a manifest depends on beside the pipeline. The zero value
// works.
type Options struct {
	// Params are values for params of the pipeline, in place of their defaults.
	Params map[string]string

	// CompilationTime is noted in an annotation; zero leaves the annotation
	// out, so that equal pipelines give equal manifests.
	CompilationTime time.Time

	// Image returns the image to use for one that the pipeline names; nil
	// keeps them all.
	Image func(image string) string

	// Profile says which labels the nodes of the cluster have.
	Profile accel.Profile
}

// Check reports, as a dag.Errors, what a valid pipeline asks for and no
// Workflow can say.
func Check(p *dag.Pipeline, opts Options) error {
	_, err := accel.Place(p, opts.Profile)
	return err
}

// Compile returns the manifest of a valid pipeline as YAML. The error is that
// of Check.
func Compile(p *dag.Pipeline, opts Options) ([]byte, error) {
	w, err := Workflow(p, opts)
	if err != nil {
		return nil, err
	}
	size := 4096 + 1024*len(p.Steps) // about that of a step with two arguments
	return yaml.Append(make([]byte, 0, size), w), nil
}

// Workflow returns the manifest of a valid pipeline. The error is that of
// Check.
func Workflow(p *dag.Pipeline, opts Options) (dag.Object, error) {
	p, err := accel.Place(p, opts.Profile)
	if err != nil {
		return nil, err
	}
	c := compiler{p: p, opts: opts, consumed: map[dag.Ref]bool{}}
	for _, g := range p.Groups {
		if g.Kind == dag.GroupExitHandler {
			c.exit = g.Exit
		}
	}
	entry := dag.K8sName(p.Name)
	for i := 2; p.Step(entry) != nil || p.GroupNamed(entry) != nil; i++ {
		entry = dag.K8sName(p.Name) + "-" + strconv.Itoa(i)
	}

	annotations := dag.Object{{Name: "pipelines.kubeflow.org/kfp_sdk_version", Value: sdkVersion}}
	if !opts.CompilationTime.IsZero() {
		annotations.Set(opts.CompilationTime.UTC().Format("2006-01-02T15:04:05.000000"), "pipelines.kubeflow.org/pipeline_compilation_time")
	}
	annotations.Set(dag.PythonJSON(c.pipelineSpec()), "pipelines.kubeflow.org/pipeline_spec")

	root := c.tree(entry)
	templates := dagTemplates(root)
	for _, s := range p.Steps {
		templates = append(templates, c.stepTemplate(s))
	}
	byName(templates)

	spec := dag.Object{
		{Name: "entrypoint", Value: entry},
		{Name: "templates", Value: list(templates)},
		{Name: "arguments", Value: dag.Object{{Name: "parameters", Value: list(c.arguments())}}},
		{Name: "serviceAccountName", Value: "pipeline-runner"},
	}
	if len(root.files) > 0 {
		spec.Set(list(c.workflowArtifacts(root)), "arguments", "artifacts")
	}
	c.conf(&spec, c.exit)
	c.passByVolume(&spec)
	return dag.Object{
		{Name: "apiVersion", Value: "argoproj.io/v1alpha1"},
		{Name: "kind", Value: "Workflow"},
		{Name: "metadata", Value: dag.Object{
			{Name: "generateName", Value: entry + "-"},
			{Name: "annotations", Value: annotations},
			{Name: "labels", Value: dag.Object{{Name: "pipelines.kubeflow.org/kfp_sdk_version", Value: sdkVersion}}},
		}},
		{Name: "spec", Value: spec},
	}, nil
}

type compiler struct {
	p        *dag.Pipeline
	opts     Options
	consumed map[dag.Ref]bool // outputs that are used as parameters
	nodes    map[string]*node // by name; "" is the pipeline itself
	exit     string           // the step of the exit handler; "" is none
}

// pipelineSpec is what KFP's user interface shows of the pipeline.
func (c *compiler) pipelineSpec() dag.Object {
	spec := dag.Object{{Name: "name", Value: c.p.Name}}
	if c.p.Description != "" {
		spec.Set(c.p.Description, "description")
	}
	var inputs []dag.Object
	for _, q := range c.p.Params {
		in := dag.Object{{Name: "name", Value: q.Name}}
		if q.Description != "" {
			in.Set(q.Description, "description")
		}
		switch {
		case q.Properties != nil:
			in.Set(q.Properties, "type", q.Type)
		case q.Type != "":
			in.Set(q.Type, "type")
		}
		if q.Default != nil {
			in.Set(expand(*q.Default), "default")
		}
		if q.Optional {
			in.Set(true, "optional")
		}
		inputs = append(inputs, in)
	}
	if inputs != nil {
		spec.Set(list(inputs), "inputs")
	}
	return spec
}

// arguments are the params with their values, in the order of the script.
func (c *compiler) arguments() []dag.Object {
	var args []dag.Object
	for _, q := range c.p.Params {
		arg := dag.Object{{Name: "name", Value: q.Name}}
		if v, ok := c.opts.Params[q.Name]; ok {
			arg.Set(v, "value")
		} else if q.Default != nil {
			arg.Set(expand(*q.Default), "value")
		}
		args = append(args, arg)
	}
	return args
}

func (c *compiler) stepTemplate(s *dag.Step) dag.Object {
	t := dag.Object{{Name: "name", Value: s.Name}}
	var patch dag.Object
	if s.Resource != nil {
		t.Set(resource(s.Resource), "resource")
	} else {
		t.Set(c.container(s, &patch), "container")
	}
	if refs := inputs(s); len(refs) > 0 {
		var names []string
		for _, r := range refs {
			names = append(names, fullName(r))
		}
		t.Set(named(names), "inputs", "parameters")
	}
	if len(s.Artifacts) > 0 {
		t.Set(list(inputArtifacts(s)), "inputs", "artifacts")
	}
	if s.Resource != nil {
		resourceOutputs(&t, s)
	} else {
		c.outputs(&t, s)
	}
	nodeSelector(&t, &patch, s)
	scheduling(&t, s)
	t.Set(metadata(s), "metadata")
	if r := retryStrategy(s.Retry); r != nil {
		t.Set(r, "retryStrategy")
	}
	if s.Timeout != "" {
		t.Set(number(s.Timeout), "activeDeadlineSeconds")
	}
	if s.ServiceAccount != "" {
		t.Set(expand(s.ServiceAccount), "serviceAccountName")
	}
	c.moreContainers(&t, &patch, s)
	if len(s.Volumes) > 0 {
		volumes := slices.Clone(s.Volumes)
		byName(volumes)
		t.Set(expandTree(list(volumes)), "volumes")
	}
	if patch != nil {
		t.Set(dag.PythonJSON(patch), "podSpecPatch")
	}
	return t
}

// container returns the step's container, and adds those of its resources that
// only the run will know to the podSpecPatch.
func (c *compiler) container(s *dag.Step, patch *dag.Object) dag.Object {
	container := s.Container.Sorted()
	if c.opts.Image != nil {
		container.Set(c.opts.Image(s.Image()), "image")
	}
	had := container.Get("resources") != nil
	container = fixedResources(container, patch, "containers", "main")
	if had && container.Get("resources") == nil {
		container.Set(dag.Object{}, "resources") // KFP leaves the empty object
		container = container.Sorted()
	}
	return expandTree(container).(dag.Object)
}

// fixedResources returns the container without those of its resources that
// only the run will know, and adds these to the podSpecPatch, to the container
// of the name in the list: a Workflow has no place for them in the container,
// whose quantities are read before.
func fixedResources(container dag.Object, patch *dag.Object, list, name string) dag.Object {
	resources, _ := container.Get("resources").(dag.Object)
	var fixed, dynamic dag.Object
	for _, kind := range []string{"limits", "requests"} {
		quantities, _ := resources.Get(kind).(dag.Object)
		for _, q := range quantities {
			text, _ := q.Value.(string)
			if dag.HasRefs(text) && patchable(q.Name) {
				dynamic.Set(expand(text), kind, expand(q.Name))
			} else {
				fixed.Set(q.Value, kind, q.Name)
			}
		}
	}
	for _, m := range resources {
		if m.Name != "limits" && m.Name != "requests" {
			fixed.Set(m.Value, m.Name)
		}
	}
	if dynamic != nil {
		patch.Append(list, dag.Object{{Name: "name", Value: name}, {Name: "resources", Value: dynamic}})
	}
	switch {
	case fixed == nil && dynamic == nil:
		return container
	case fixed == nil:
		return slices.DeleteFunc(slices.Clone(container), func(m dag.Member) bool { return m.Name == "resources" })
	}
	container.Set(fixed, "resources")
	return container
}

// patchable reports whether KFP moves a quantity of the resource that is known
// only at run time into the podSpecPatch.
func patchable(resource string) bool {
	switch resource {
	case "cpu", "memory", "ephemeral-storage", "nvidia.com/gpu", "amd.com/gpu":
		return true
	}
	_, sole := dag.SoleRef(resource)
	return sole
}

// outputs adds the step's output files: each as an artifact, and as a
// parameter if a step uses its content.
func (c *compiler) outputs(t *dag.Object, s *dag.Step) {
	if len(s.Outputs) == 0 {
		return
	}
	var outputs []dag.Output
	var parameters, artifacts []dag.Object
	for _, o := range s.Outputs {
		if name, page := o.Page(); page {
			artifacts = append(artifacts, dag.Object{{Name: "name", Value: name}, {Name: "path", Value: o.Path}})
		} else {
			outputs = append(outputs, o)
		}
	}
	slices.SortFunc(outputs, func(a, b dag.Output) int {
		return cmp.Compare(dag.FullName(s.Name, a.Name), dag.FullName(s.Name, b.Name))
	})
	for _, o := range outputs {
		name := dag.FullName(s.Name, o.Name)
		if c.consumed[dag.Ref{Kind: dag.RefOutput, Step: s.Name, Name: o.Name}] {
			parameters = append(parameters, dag.Object{
				{Name: "name", Value: name},
				{Name: "valueFrom", Value: dag.Object{{Name: "path", Value: o.Path}}},
			})
		}
		artifacts = append(artifacts, dag.Object{{Name: "name", Value: name}, {Name: "path", Value: o.Path}})
	}
	if parameters != nil {
		t.Set(list(parameters), "outputs", "parameters")
	}
	t.Set(list(artifacts), "outputs", "artifacts")
}

func retryStrategy(r *dag.Retry) dag.Object {
	if r == nil {
		return nil
	}
	var o, backoff dag.Object
	retries := r.Limit != "" && r.Limit != "0"
	if !retries && r.Policy == "" {
		return nil // KFP passes over a backoff alone; Argo would retry without end
	}
	if retries {
		o.Set(number(r.Limit), "limit")
	}
	if r.Policy != "" {
		o.Set(r.Policy, "retryPolicy")
	}
	if r.Backoff != "" {
		backoff.Set(expand(r.Backoff), "duration")
	}
	if n, err := r.Factor.Int64(); err == nil {
		backoff.Set(n, "factor")
	} else if f, err := r.Factor.Float64(); err == nil {
		backoff.Set(f, "factor")
	}
	if r.MaxBackoff != "" {
		backoff.Set(expand(r.MaxBackoff), "maxDuration")
	}
	if backoff != nil {
		o.Set(backoff, "backoff")
	}
	return o
}

// inputs returns the values that a step's template takes, sorted by name.
func inputs(s *dag.Step) []dag.Ref {
	refs := slices.DeleteFunc(s.TextRefs(), func(r dag.Ref) bool { return r.OfRun() })
	slices.SortFunc(refs, func(a, b dag.Ref) int { return cmp.Compare(fullName(a), fullName(b)) })
	return refs
}

// input matches a placeholder for an input of the template that holds it.
var input = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\{\{\s*inputs\.(?:parameters|artifacts)\.([^{}\s.]+)[^{}]*\}\}`)
})

// Warnings returns what is probably not meant: what accel says, and placeholders
// that an author wrote for inputs that the step's template does not have.
func Warnings(p *dag.Pipeline, opts Options) dag.Errors {
	warnings := accel.Warnings(p, opts.Profile)
	for _, s := range p.Steps {
		s.WalkText(func(field *dag.Field, text string) {
			if !strings.Contains(text, "{{") {
				return
			}
			for _, m := range input().FindAllStringSubmatch(text, -1) {
				if !slices.ContainsFunc(s.Refs(), func(r dag.Ref) bool { return fullName(r) == m[1] }) {
					warnings = append(warnings, &dag.Error{Pos: s.Pos, Msg: fmt.Sprintf(
						"step %q, %s: %s names an input that the template will not have: Argo refuses such a Workflow", s.Name, field, m[0])})
				}
			}
		})
	}
	return warnings
}

// fullName is the name by which a template knows a value.
func fullName(r dag.Ref) string {
	switch {
	case r.Kind == dag.RefOutput || r.Kind == dag.RefCollected:
		return dag.FullName(r.Step, r.Name)
	case r.Kind == dag.RefOneOf:
		name := "one-of"
		for _, o := range r.Outputs() {
			name += "-" + fullName(o)
		}
		return name
	case r.Kind == dag.RefItem && r.Name != "":
		return r.Step + "-subvar-" + r.Name
	case r.Kind == dag.RefItem:
		return r.Step
	}
	return r.Name
}

// expand renders the values in a text as Argo's placeholders.
func expand(text string) string {
	return dag.Expand(text, func(r dag.Ref) string {
		switch r.Kind {
		case dag.RefRunID:
			return "{{workflow.uid}}"
		case dag.RefRunName:
			return "{{workflow.name}}"
		case dag.RefExecutionID:
			return "{{workflow.uid}}-{{pod.name}}"
		case dag.RefPodName:
			return "{{pod.name}}"
		}
		return "{{inputs.parameters." + fullName(r) + "}}"
	})
}

func expandTree(v any) any { return dag.MapText(v, expand) }

// number returns a count as a number, or as a placeholder.
func number(text string) any {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil {
		return n
	}
	return expand(text)
}

// named returns a list of objects that have only a name.
func named(names []string) []any {
	var objs []dag.Object
	for _, n := range names {
		objs = append(objs, dag.Object{{Name: "name", Value: n}})
	}
	return list(objs)
}

func byName(objs []dag.Object) {
	slices.SortStableFunc(objs, func(a, b dag.Object) int {
		return cmp.Compare(a.Get("name").(string), b.Get("name").(string))
	})
}

// list returns a list of any type as one of a JSON tree.
func list[T any](items []T) []any {
	l := make([]any, len(items))
	for i, v := range items {
		l[i] = v
	}
	return l
}
