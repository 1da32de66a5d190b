package argo

import (
	"cmp"
	"slices"

	"github.com/kfs-project/kfs/dag"
)

// This file defines how values get to steps as files. They go the way of
// parameters, as artifacts; see groups.go.

// passFile is pass for a value that the node takes as a file: it returns where
// the file comes from.
func (c *compiler) passFile(r dag.Ref, to *node) dag.Member {
	name := fullName(r)
	input := fileInput(name)
	switch r.Kind {
	case dag.RefOutput:
		from := c.nodes[r.Step]
		if from == nil {
			return input // of an exit handler: Validate refuses it
		}
		a, b := c.depend(from, to)
		output := dag.Member{Name: "from", Value: "{{tasks." + a.task() + ".outputs.artifacts." + name + "}}"}
		part := from.step != nil && from.step.Resource != nil // of an object: no file, but a parameter
		if part {
			output = raw("{{tasks." + a.task() + ".outputs.parameters." + name + "}}")
		}
		for n := from.parent; n != nil && n != a.parent; n = n.parent {
			if part {
				n.outputs[name] = c.below(n, from)
			} else {
				n.made[name] = c.below(n, from).task()
			}
		}
		if b == to {
			return output
		}
		for n := to.parent; n != b; n = n.parent {
			n.files[name], n.fileArgs[name] = true, input
		}
		b.files[name], b.fileArgs[name] = true, output
	case dag.RefItem, dag.RefParam:
		for n := to.parent; n != nil; n = n.parent {
			n.files[name] = true
			if n.group != nil && n.group.Loop != nil && r.Kind == dag.RefItem && n.group.Loop.Item == r.Step {
				item := "{{item}}"
				if r.Name != "" {
					item = "{{item." + r.Name + "}}"
				}
				n.fileArgs[name] = raw(item)
				break
			}
			if n.parent != nil {
				n.fileArgs[name] = input
			}
		}
	case dag.RefOneOf, dag.RefCollected:
		return raw(c.pass(r, to))
	default:
		return raw(expand(r.Token()))
	}
	return input
}

// fileInput is an artifact that a template takes as an input of the name.
func fileInput(name string) dag.Member {
	return dag.Member{Name: "from", Value: "{{inputs.artifacts." + name + "}}"}
}

// raw is an artifact whose content stands in the manifest.
func raw(text string) dag.Member {
	return dag.Member{Name: "raw", Value: dag.Object{{Name: "data", Value: text}}}
}

// inputArtifacts are the files that a step's template takes, sorted by the
// names of the inputs that they are of; KFP renames some of them after that.
func inputArtifacts(s *dag.Step) []dag.Object {
	var files []dag.Object
	byInput := slices.SortedStableFunc(slices.Values(s.Artifacts), func(a, b dag.Artifact) int { return cmp.Compare(a.Name, b.Name) })
	for _, a := range byInput {
		if r, ok := a.Ref(); ok {
			files = append(files, dag.Object{{Name: "name", Value: fullName(r)}, {Name: "path", Value: a.Path}})
			continue
		}
		files = append(files, dag.Object{{Name: "name", Value: a.Name}, {Name: "path", Value: a.Path}, raw(expand(a.Text))})
	}
	return files
}

// workflowArtifacts are the files that the pipeline's template takes: params
// whose values become files, in the order of the script.
func (c *compiler) workflowArtifacts(root *node) []dag.Object {
	var files []dag.Object
	for _, q := range c.p.Params {
		if root.files[q.Name] {
			files = append(files, dag.Object{{Name: "name", Value: q.Name}, raw("{{workflow.parameters." + q.Name + "}}")})
		}
	}
	return files
}
