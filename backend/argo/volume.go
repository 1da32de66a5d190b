package argo

import (
	"path"
	"slices"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

// This file defines how files are passed on by a volume in place of the
// artifacts of Argo: a step writes into a folder of the volume, and what is
// passed on is the name of the folder, as a parameter. The source is
// compiler/_data_passing_using_volume.py of kfp 1.8.22; unlike it, files that
// are not the outputs of steps stay artifacts. A file for KFP's page gets a
// folder too, and stays an artifact, which is where the page looks.

const (
	dataVolume = "data-storage"
	subpath    = "-subpath" // ends the name of a parameter that names a folder
)

// passByVolume rewrites the spec of a Workflow if the pipeline has a volume
// for its data.
func (c *compiler) passByVolume(spec *dag.Object) {
	if c.p.Conf == nil || c.p.Conf.DataVolume == nil {
		return
	}
	volume := slices.Clone(c.p.Conf.DataVolume)
	volume.Set(dataVolume, "name")
	spec.Append("volumes", volume)

	outputs := map[string]bool{} // names of those of steps
	for _, s := range c.p.Steps {
		for _, o := range s.Outputs {
			if _, page := o.Page(); !page {
				outputs[dag.FullName(s.Name, o.Name)] = true
			}
		}
	}
	folder := c.p.Conf.DataPrefix + "{{workflow.uid}}_{{pod.name}}/"
	templates := spec.Get("templates").([]any)
	for i, v := range templates {
		t := v.(dag.Object)
		var mounts []dag.Object
		passed := func(file dag.Object, name string) bool { return outputs[name] || isPage(name) && alone(t, file) }
		files := cutFiles(&t, passed, "inputs", func(f dag.Object, name string) dag.Object {
			at, _ := f.Get("path").(string)
			mounts = append(mounts, dag.Object{
				{Name: "mountPath", Value: path.Dir(at)},
				{Name: "name", Value: dataVolume},
				{Name: "subPath", Value: "{{inputs.parameters." + name + "}}"},
				{Name: "readOnly", Value: true},
			})
			return dag.Object{{Name: "name", Value: name}}
		})
		files = append(files, cutFiles(&t, passed, "outputs", func(f dag.Object, name string) dag.Object {
			if from, ok := f.Get("from").(string); ok {
				return dag.Object{{Name: "name", Value: name}, {Name: "valueFrom", Value: dag.Object{{Name: "parameter", Value: folderOf(from)}}}}
			}
			at, _ := f.Get("path").(string)
			in := folder + strings.TrimSuffix(name, subpath)
			mounts = append(mounts, dag.Object{
				{Name: "mountPath", Value: path.Dir(at)},
				{Name: "name", Value: dataVolume},
				{Name: "subPath", Value: in},
			})
			return dag.Object{{Name: "name", Value: name}, {Name: "value", Value: in}}
		})...)
		if container, ok := t.Get("container").(dag.Object); ok && len(files) > 0 {
			for _, m := range mounts {
				container.Append("volumeMounts", m)
			}
			t.Set(container, "container")
		}
		if tasks, ok := t.Get("dag", "tasks").([]any); ok {
			tasks = slices.Clone(tasks)
			for j, v := range tasks {
				task := v.(dag.Object)
				cutFiles(&task, passed, "arguments", func(f dag.Object, name string) dag.Object {
					from, _ := f.Get("from").(string)
					return dag.Object{{Name: "name", Value: name}, {Name: "value", Value: folderOf(from)}}
				})
				tasks[j] = task
			}
			t.Set(tasks, "dag", "tasks")
		}
		templates[i] = t
	}
}

// isPage reports whether an artifact is a file for KFP's page.
func isPage(name string) bool {
	_, page := dag.PageOutput(name)
	return page
}

// alone reports whether a file of a template has a folder of its own, at which
// a volume can be mounted.
func alone(t, file dag.Object) bool {
	in := func(f dag.Object) string {
		at, _ := f.Get("path").(string)
		return path.Dir(at)
	}
	n := 0
	for _, part := range []string{"inputs", "outputs"} {
		files, _ := t.Get(part, "artifacts").([]any)
		for _, f := range files {
			if in(f.(dag.Object)) == in(file) {
				n++
			}
		}
	}
	return n == 1 && in(file) != "/"
}

// cutFiles takes the artifacts that are passed by the volume out of a part of
// a template or task, all but those for KFP's page, and adds the parameter
// that f makes of each.
func cutFiles(t *dag.Object, passed func(file dag.Object, name string) bool, part string, f func(file dag.Object, name string) dag.Object) []dag.Object {
	of, _ := t.Get(part).(dag.Object)
	artifacts, _ := of.Get("artifacts").([]any)
	var cut []dag.Object
	var kept []any
	for _, v := range artifacts {
		file := v.(dag.Object)
		name, _ := file.Get("name").(string)
		cutting := passed(file, name) && file.Get("raw") == nil
		if !cutting || isPage(name) {
			kept = append(kept, file)
		}
		if !cutting {
			continue
		}
		cut = append(cut, file)
		of.Append("parameters", f(file, name+subpath))
	}
	if cut == nil {
		return nil
	}
	of = slices.DeleteFunc(slices.Clone(of), func(m dag.Member) bool { return m.Name == "artifacts" })
	if kept != nil {
		of.Set(kept, "artifacts")
	}
	t.Set(of, part)
	return cut
}

// folderOf returns the reference to the folder of the file that an artifact's
// reference names.
func folderOf(from string) string {
	return strings.ReplaceAll(strings.ReplaceAll(from, ".artifacts.", ".parameters."), "}}", subpath+"}}")
}
