package engine

import (
	"github.com/kfs-project/kfs/dag"
)

// This file defines how outputs are passed on as the files that they are.

// An Output is one that an attempt declares.
type Output struct {
	dag.Output

	// File says that no text is made of the output: nothing uses it, or only
	// as a file. Then it may be of any size, binary, or a folder. Its text is
	// collected where it has one all the same; see Observation.
	File bool `json:"file,omitempty"`

	// Taken says that some step takes the output as the file that it is.
	Taken bool `json:"taken,omitempty"`
}

// An Artifact is a file that is to be there when an attempt begins.
type Artifact struct {
	dag.Artifact

	// From is where the executor keeps what it is to be a copy of: a place of
	// Observation.Files. "" is a file with the content Text.
	From string `json:"from,omitempty"`
}

// taken returns the outputs that some step takes as files.
func taken(p *dag.Pipeline) map[dag.Ref]bool {
	used := map[dag.Ref]bool{}
	for _, s := range p.Steps {
		for _, a := range s.Artifacts {
			if r, ok := a.Ref(); ok {
				for _, o := range r.Outputs() {
					used[o] = true
				}
			}
		}
	}
	for _, g := range p.Groups { // a graph may hand on to itself what its steps take
		for _, a := range g.Args {
			if r, ok := dag.SoleRef(a.Value); ok {
				for _, o := range r.Outputs() {
					used[o] = true
				}
			}
		}
	}
	return used
}

// textual returns the outputs that text is made of somewhere in the pipeline.
// What a graph passes to itself counts if its steps make text of the value
// that it takes the place of.
func textual(p *dag.Pipeline) map[dag.Ref]bool {
	used := map[dag.Ref]bool{}
	use := func(refs []dag.Ref) {
		for _, r := range refs {
			used[r] = true
			for _, o := range r.Outputs() {
				used[o] = true
			}
		}
	}
	for _, s := range p.Steps {
		use(s.TextRefs())
		for _, r := range s.Refs() {
			if r.Kind == dag.RefCollected {
				use([]dag.Ref{r})
			}
		}
	}
	first := map[string]map[string]dag.Ref{} // what a graph was first called with, by graph and argument
	for _, g := range p.Groups {
		if g.Condition != nil {
			use(g.Condition.Refs())
		}
		if g.Loop != nil {
			use(g.Loop.Refs())
		}
		if g.Kind == dag.GroupGraph {
			first[g.Name] = map[string]dag.Ref{}
			for _, a := range g.Args {
				if r, ok := dag.SoleRef(a.Value); ok {
					first[g.Name][a.Name] = r
				}
			}
		}
	}
	for again := true; again; {
		before := len(used)
		for _, g := range p.Groups {
			for _, a := range g.Args {
				if r, ok := first[g.Calls][a.Name]; g.Kind == dag.GroupCall && (!ok || used[r]) {
					refs, _ := dag.Refs(a.Value)
					use(refs)
				}
			}
		}
		again = len(used) > before
	}
	return used
}

// outputs returns the outputs of a step as an attempt declares them.
func (pl *planner) outputs(s *dag.Step) []Output {
	var outputs []Output
	for _, o := range s.Outputs {
		r := dag.Ref{Kind: dag.RefOutput, Step: s.Name, Name: o.Name}
		outputs = append(outputs, Output{Output: o, File: !pl.textual[r], Taken: pl.taken[r]})
	}
	return outputs
}

// file returns the place of the file that a value is for the tasks of an env,
// or "" if it is none: then its text is all there is.
func (pl *planner) file(records []Record, e *env, r dag.Ref) string {
	for at := e; at != nil; at = at.parent {
		if text, ok := at.args[r]; ok {
			if r, ok := dag.SoleRef(text); ok {
				return pl.file(records, at.caller, r)
			}
			return ""
		}
	}
	if r.Kind != dag.RefOutput && r.Kind != dag.RefOneOf {
		return ""
	}
	for _, o := range r.Outputs() {
		if i, ok := pl.index[o.Step+pl.suffix(o.Step, e)]; ok && records[i].State == Succeeded {
			return records[i].Files[o.Name]
		}
	}
	return ""
}
