// Package component reads the component files of KFP v1, which say how a step
// is made: its inputs, outputs, image and command.
//
//	Read      a file's text to a Spec; the error is Faults, each with its place
//	Spec      inputs, outputs, and a Container or a Graph of tasks
//	Arg       one part of a command, or a placeholder for one
//	Lock      kfs.lock: the copies of components that URLs name
//
// The schema is that of kfp 1.8.22 (components/_structures.py), which accepts
// no key that it does not know. Text is read as PyYAML reads it, by the rules
// of YAML 1.1.
package component

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

// A Spec is one component. Either Container or Graph is set.
type Spec struct {
	Name        string // "" if it has none
	Description string
	Inputs      []Input
	Outputs     []Output
	Annotations []Text // of the pods of its steps
	Labels      []Text
	Container   *Container
	Graph       *Graph

	// Tree is the component as KFP writes it back: without what is null or
	// equal to its default.
	Tree dag.Object

	// Digest is the SHA-256 of the component's text in hexadecimal, line ends
	// as \n; "" for a component that stands inside of another one.
	Digest string
}

// An Input is a value that a step of the component takes.
type Input struct {
	Name     string
	Type     any // nil, a string, or a dag.Object whose first member names the type
	Default  any // nil (none), string, bool, int64 or float64
	Optional bool
	Line     int
}

// An Output is a file that a step of the component leaves.
type Output struct {
	Name string
	Type any // as of Input
	Line int
}

// A Text is a name and a text.
type Text struct{ Name, Value string }

// A Container is what a step of the component runs.
type Container struct {
	Image       string
	Command     []Arg
	Args        []Arg
	Env         []Text
	FileOutputs []Text // fixed paths, by the names of outputs
}

// An Arg is one part of a command.
type Arg struct {
	Kind ArgKind
	Text string // the text itself, or the name of the input or output
	Of   []Arg  // of Concat: what is joined
	If   *If
	Line int
}

// An ArgKind says what an Arg becomes.
type ArgKind uint8

// The kinds of Arg.
const (
	ArgText       ArgKind = iota // itself
	ArgInputValue                // the value of an input
	ArgInputPath                 // the path of a file that holds the value of an input
	ArgOutputPath                // the path of the file that is to hold an output
	ArgConcat                    // several joined
	ArgIf                        // one list or another
)

// An If is decided when the step is made.
type If struct {
	Present    string // the input that must have a value, or ""
	Input      string // the input whose value decides, or ""
	Constant   bool   // what decides if neither is set
	Then, Else []Arg
}

// A Graph is a component made of tasks, each a component with its arguments.
type Graph struct {
	Tasks   []Task // each behind those whose outputs it takes
	Outputs []Argument
}

// A Task is a component with its arguments. Of Ref, either Spec or URL is set.
type Task struct {
	ID        string
	Spec      *Spec
	URL       string
	Ref       dag.Object // componentRef without the spec
	Arguments []Argument

	MaxRetries        *int
	MaxCacheStaleness string
	Line              int
}

// An Argument is the value of a task's input, or of a graph's output: an input
// of the graph, the output of a task, or else the constant Value.
type Argument struct {
	Name   string
	Input  string
	Task   string
	Output string
	Value  any // string, bool, int64 or float64
	Line   int
}

// Input returns the input of the name, or nil.
func (s *Spec) Input(name string) *Input {
	for i := range s.Inputs {
		if s.Inputs[i].Name == name {
			return &s.Inputs[i]
		}
	}
	return nil
}

// Output returns the output of the name, or nil.
func (s *Spec) Output(name string) *Output {
	for i := range s.Outputs {
		if s.Outputs[i].Name == name {
			return &s.Outputs[i]
		}
	}
	return nil
}

func (s *Spec) inputNames() []string {
	var names []string
	for _, in := range s.Inputs {
		names = append(names, in.Name)
	}
	return names
}

func (s *Spec) outputNames() []string {
	var names []string
	for _, out := range s.Outputs {
		names = append(names, out.Name)
	}
	return names
}

// URLs returns the URLs of the components that the tasks of a graph name, each
// once, in the order they stand.
func (s *Spec) URLs() []string {
	var urls []string
	if s.Graph == nil {
		return nil
	}
	for _, t := range s.Graph.Tasks {
		found := []string{t.URL}
		if t.Spec != nil {
			found = t.Spec.URLs()
		}
		for _, url := range found {
			if url != "" && !slices.Contains(urls, url) {
				urls = append(urls, url)
			}
		}
	}
	return urls
}

// A Fault is one thing wrong in a component's text.
type Fault struct {
	Line, Col int // from 1; 0 if no place is known
	Msg       string
	Hint      string
}

// Faults are all that is wrong in a component's text, sorted by place.
type Faults []*Fault

// Error returns "line:col: message" for each fault, a line each.
func (f Faults) Error() string {
	var lines []string
	for _, e := range f {
		lines = append(lines, fmt.Sprintf("%d:%d: %s", e.Line, e.Col, e.Msg))
	}
	return strings.Join(lines, "\n")
}

func (f Faults) sort() {
	slices.SortStableFunc(f, func(a, b *Fault) int { return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col)) })
}

// TypeName returns the name of a type, "" for none.
func TypeName(t any) string {
	switch t := t.(type) {
	case string:
		return t
	case dag.Object:
		if len(t) > 0 {
			return t[0].Name
		}
	}
	return ""
}

// TypeText returns a type as a message shows it.
func TypeText(t any) string {
	if name, ok := t.(string); ok {
		return name
	}
	return dag.PythonJSON(t)
}

// Fits reports whether a value of the type given may be passed to an input of
// the type wanted. A missing type fits all; so does Artifact, but to and from
// the types of parameters. Otherwise the names must be equal, and what given
// says beside its name, wanted must say too. The source is dsl/types.py of kfp
// 1.8.22.
func Fits(given, wanted any) bool {
	if given == nil || wanted == nil {
		return true
	}
	if isArtifact(given) && !isParameter(wanted) || isArtifact(wanted) && !isParameter(given) {
		return true
	}
	g, w := properties(given), properties(wanted)
	if len(g) == 0 || len(w) == 0 || g[0].Name == "" || w[0].Name == "" {
		return true
	}
	if g[0].Name != w[0].Name {
		return false
	}
	has, _ := g[0].Value.(dag.Object)
	wants, _ := w[0].Value.(dag.Object)
	for _, m := range has {
		other := slices.IndexFunc(wants, func(o dag.Member) bool { return o.Name == m.Name })
		if other < 0 || dag.PythonJSON(wants[other].Value) != dag.PythonJSON(m.Value) {
			return false
		}
	}
	return true
}

func properties(t any) dag.Object {
	switch t := t.(type) {
	case string:
		return dag.Object{{Name: t}}
	case dag.Object:
		return t
	}
	return nil
}

func isArtifact(t any) bool {
	name, ok := t.(string)
	return ok && strings.EqualFold(name, "artifact")
}

// isParameter reports whether KFP takes the type for one of parameters.
func isParameter(t any) bool {
	name, _ := t.(string)
	switch strings.ToLower(name) {
	case "integer", "int", "double", "float", "string", "str", "text", "bool", "boolean", "dict", "list", "jsonobject", "jsonarray":
		return true
	}
	return false
}
