package dag

import "slices"

// This file defines artifacts: values that a step takes as files.

// An Artifact is a value that a step takes as the content of a file.
type Artifact struct {
	Name string `json:"name"`
	Path string `json:"path"` // absolute, inside the step's container
	Text string `json:"text"` // the value; a token alone is passed as the file that it is
	Pos  Pos    `json:"pos,omitzero"`
}

// Ref returns the value if the artifact is one known only at run time, and
// nothing else: it is passed from file to file.
func (a *Artifact) Ref() (Ref, bool) { return SoleRef(a.Text) }

// TextRefs returns the values that the step's text holds, each once, in the
// order they stand: all of Refs but those that it takes only as files.
func (s *Step) TextRefs() []Ref {
	refs := s.walkRefs()
	for _, a := range s.Artifacts {
		if _, file := a.Ref(); !file {
			addRefs(&refs, a.Text)
		}
	}
	return refs.list
}

// Refs returns the values known only at run time that the step uses, each
// once, in the order they stand: those in its text, then those that it takes
// as files.
func (s *Step) Refs() []Ref {
	refs := s.walkRefs()
	for _, a := range s.Artifacts {
		addRefs(&refs, a.Text)
	}
	return refs.list
}

func (s *Step) walkRefs() (refs distinct[Ref]) {
	s.WalkText(func(_ *Field, text string) { addRefs(&refs, text) })
	return refs
}

func addRefs(refs *distinct[Ref], text string) {
	found, _ := Refs(text)
	for _, r := range found {
		refs.add(r)
	}
}

// A distinct holds values, each once, in the order they came.
type distinct[T comparable] struct {
	list []T
	seen map[T]bool // once they are so many that a search would take longer
}

// add reports whether the value was not there yet.
func (d *distinct[T]) add(v T) bool {
	const few = 16
	if d.seen == nil && len(d.list) == few {
		d.seen = map[T]bool{}
		for _, old := range d.list {
			d.seen[old] = true
		}
	}
	if d.seen[v] || d.seen == nil && slices.Contains(d.list, v) {
		return false
	}
	if d.seen != nil {
		d.seen[v] = true
	}
	d.list = append(d.list, v)
	return true
}
