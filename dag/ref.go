package dag

import (
	"fmt"
	"strings"
)

// This file defines values known only at run time and their tokens in text.

// A Ref is a value known only at run time.
type Ref struct {
	Kind RefKind
	Step string // of an output: the name of its step; of an item: its name, see Loop
	Name string // of a param or an output; of an item that is a part of one: the name of the part

	// A RefOneOf has the steps and the names of several outputs, with a | between them.
}

// A RefKind is what a Ref refers to.
type RefKind uint8

// The kinds of Ref.
const (
	RefParam       RefKind = 1 + iota // a param of the pipeline
	RefOutput                         // the content of a step's output file
	RefRunID                          // the unique id of the run
	RefRunName                        // the name of the run
	RefExecutionID                    // the unique id of the attempt
	RefItem                           // the item of a loop, or a part of it
	RefOneOf                          // the output of whichever of several steps ran; see Outputs
	RefCollected                      // the JSON list of an output of a step in a loop, a round each
	RefPodName                        // the name of the attempt's pod
)

// A token is tokenOpen, a body, tokenClose. The two are private-use
// characters, so that no brace, quote or template syntax of an author's own
// text can be taken for one. No name of a param, step or output holds a colon.
const (
	tokenOpen  = '\uE000'
	tokenClose = '\uE001'
)

// Token returns the text that stands for the value.
func (r Ref) Token() string {
	var body string
	switch r.Kind {
	case RefParam:
		body = "param:" + r.Name
	case RefOutput:
		body = "output:" + r.Step + ":" + r.Name
	case RefItem:
		body = "item:" + r.Step + ":" + r.Name
	case RefOneOf:
		body = "oneof:" + r.Step + ":" + r.Name
	case RefCollected:
		body = "collected:" + r.Step + ":" + r.Name
	case RefRunID:
		body = "run:id"
	case RefRunName:
		body = "run:name"
	case RefExecutionID:
		body = "run:execution"
	case RefPodName:
		body = "run:pod"
	default:
		panic(fmt.Sprintf("dag: token of a Ref of kind %d", r.Kind))
	}
	return string(tokenOpen) + body + string(tokenClose)
}

// String names the value as an author would: train_steps,
// train.outputs["accuracy"], run_id().
func (r Ref) String() string {
	switch r.Kind {
	case RefParam:
		return r.Name
	case RefOutput:
		return fmt.Sprintf("%s.outputs[%q]", r.Step, r.Name)
	case RefOneOf:
		var parts []string
		for _, o := range r.Outputs() {
			parts = append(parts, o.String())
		}
		return "one_of(" + strings.Join(parts, ", ") + ")"
	case RefCollected:
		return "collected(" + r.Outputs()[0].String() + ")"
	case RefItem:
		if r.Name == "" {
			return "item"
		}
		return "item." + r.Name
	case RefRunID:
		return "run_id()"
	case RefRunName:
		return "run_name()"
	case RefExecutionID:
		return "execution_id()"
	case RefPodName:
		return "{{pod.name}}"
	}
	return "no value"
}

func parseRef(body string) (Ref, bool) {
	kind, rest, _ := strings.Cut(body, ":")
	switch kind {
	case "param":
		return Ref{Kind: RefParam, Name: rest}, rest != ""
	case "output", "oneof", "collected":
		step, name, _ := strings.Cut(rest, ":")
		r := Ref{Kind: RefOutput, Step: step, Name: name}
		switch kind {
		case "oneof":
			r.Kind = RefOneOf
		case "collected":
			r.Kind = RefCollected
		}
		return r, step != "" && name != "" && (r.Kind != RefOneOf || strings.Count(step, "|") == strings.Count(name, "|"))
	case "item":
		loop, name, ok := strings.Cut(rest, ":")
		return Ref{Kind: RefItem, Step: loop, Name: name}, ok && loop != ""
	case "run":
		switch rest {
		case "id":
			return Ref{Kind: RefRunID}, true
		case "name":
			return Ref{Kind: RefRunName}, true
		case "execution":
			return Ref{Kind: RefExecutionID}, true
		case "pod":
			return Ref{Kind: RefPodName}, true
		}
	}
	return Ref{}, false
}

// OneOf returns the value that is the output of whichever step ran.
func OneOf(outputs []Ref) Ref {
	steps, names := make([]string, len(outputs)), make([]string, len(outputs))
	for i, o := range outputs {
		steps[i], names[i] = o.Step, o.Name
	}
	return Ref{Kind: RefOneOf, Step: strings.Join(steps, "|"), Name: strings.Join(names, "|")}
}

// Outputs returns the outputs that the value comes from: itself if it is one.
func (r Ref) Outputs() []Ref {
	switch r.Kind {
	case RefOutput:
		return []Ref{r}
	case RefCollected:
		return []Ref{{Kind: RefOutput, Step: r.Step, Name: r.Name}}
	case RefOneOf:
		steps, names := strings.Split(r.Step, "|"), strings.Split(r.Name, "|")
		outputs := make([]Ref, len(steps))
		for i := range steps {
			outputs[i] = Ref{Kind: RefOutput, Step: steps[i], Name: names[i]}
		}
		return outputs
	}
	return nil
}

// OfRun reports whether the value belongs to the run as a whole or to an
// attempt: it is known everywhere, and comes from no param or step.
func (r Ref) OfRun() bool {
	return r.Kind == RefRunID || r.Kind == RefRunName || r.Kind == RefExecutionID || r.Kind == RefPodName
}

// HasRefs reports whether text holds a token, whole or damaged.
func HasRefs(text string) bool {
	return strings.ContainsRune(text, tokenOpen) || strings.ContainsRune(text, tokenClose)
}

// Expand returns text with each token replaced by what f returns for it. A
// damaged token stays as it is; Validate reports those.
func Expand(text string, f func(Ref) string) string {
	if !HasRefs(text) {
		return text
	}
	var b strings.Builder
	for part, ref := range tokens(text) {
		if ref.Kind != 0 {
			b.WriteString(f(ref))
		} else {
			b.WriteString(part)
		}
	}
	return b.String()
}

// Display returns text as a message shows it: each token as <train_steps>.
func Display(text string) string {
	return Expand(text, func(r Ref) string { return "<" + r.String() + ">" })
}

// Refs returns the values whose tokens stand in text, in their order, and
// whether all tokens are whole.
func Refs(text string) (refs []Ref, whole bool) {
	whole = true
	if !HasRefs(text) {
		return nil, true
	}
	for part, ref := range tokens(text) {
		if ref.Kind != 0 {
			refs = append(refs, ref)
		} else if HasRefs(part) {
			whole = false
		}
	}
	return refs, whole
}

// SoleRef returns the value if text is one token and nothing else.
func SoleRef(text string) (Ref, bool) {
	body, ok := strings.CutPrefix(text, string(tokenOpen))
	if !ok {
		return Ref{}, false
	}
	body, ok = strings.CutSuffix(body, string(tokenClose))
	if !ok || HasRefs(body) {
		return Ref{}, false
	}
	return parseRef(body)
}

// tokens yields text in parts: plain ones with a zero Ref, tokens with theirs.
func tokens(text string) func(yield func(string, Ref) bool) {
	return func(yield func(string, Ref) bool) {
		for text != "" {
			i := strings.IndexRune(text, tokenOpen)
			if i < 0 {
				yield(text, Ref{})
				return
			}
			if i > 0 && !yield(text[:i], Ref{}) {
				return
			}
			text = text[i:]
			n, ref := len(string(tokenOpen)), Ref{} // this part, if it turns out to be no token
			if body, ok := cutBody(text[n:]); ok {
				if r, ok := parseRef(body); ok {
					n, ref = n+len(body)+len(string(tokenClose)), r
				}
			}
			if !yield(text[:n], ref) {
				return
			}
			text = text[n:]
		}
	}
}

// cutBody returns what stands before tokenClose, if no tokenOpen comes first.
func cutBody(text string) (string, bool) {
	i := strings.IndexFunc(text, func(r rune) bool { return r == tokenOpen || r == tokenClose })
	if i < 0 || !strings.HasPrefix(text[i:], string(tokenClose)) {
		return "", false
	}
	return text[:i], true
}
