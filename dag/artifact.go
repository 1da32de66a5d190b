package dag

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
	var texts []string
	s.WalkText(func(_, text string) { texts = append(texts, text) })
	for _, a := range s.Artifacts {
		if _, file := a.Ref(); !file {
			texts = append(texts, a.Text)
		}
	}
	return distinctRefs(texts)
}

// Refs returns the values known only at run time that the step uses, each
// once, in the order they stand: those in its text, then those that it takes
// as files.
func (s *Step) Refs() []Ref {
	var texts []string
	s.WalkText(func(_, text string) { texts = append(texts, text) })
	for _, a := range s.Artifacts {
		texts = append(texts, a.Text)
	}
	return distinctRefs(texts)
}

func distinctRefs(texts []string) []Ref {
	var refs []Ref
	seen := map[Ref]bool{}
	for _, text := range texts {
		found, _ := Refs(text)
		for _, r := range found {
			if !seen[r] {
				seen[r] = true
				refs = append(refs, r)
			}
		}
	}
	return refs
}
