// Package dag is the pipeline as plain data: what a script declares, and what
// every target and the engine read.
//
//	Pipeline     params and steps, in the order of the script
//	Param        a value given from outside, before the run
//	Step         one command in one image; its needs, outputs, retries
//	Resource     what a step does to an object of the cluster instead
//	Pod          what a step asks of its pod; Conduct, of whoever runs it
//	Accelerator  what a step asks of the devices of its machine
//	Conf         what a pipeline sets for its run and all of its pods
//	Group        a block that steps stand in: decided, repeated, guarded as one
//	Object       a JSON tree that keeps its order: the Kubernetes part of a step
//	Ref          a value known only at run time; stands in text as a token
//	Pos          a place in a script
//	Error        a fault with its place
//
// Text is any string of a step. A value known only at run time stands in it as
// a token (see Ref); Expand renders the tokens of a text for a target and Refs
// lists them.
//
// A Pipeline does not change once the interpreter has returned it, and it is
// safe for concurrent use from then on. Validate reports all of its faults;
// Order and Edges may be asked of a valid pipeline. Everything keeps the order
// of the script, so that equal scripts give equal bytes.
package dag

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// A Pipeline is all that one call of pipeline(...) declares.
type Pipeline struct {
	Name        string   `json:"name"` // as the author wrote it; see K8sName
	Description string   `json:"description,omitempty"`
	Pos         Pos      `json:"pos,omitzero"`
	Params      []*Param `json:"params,omitempty"`
	Groups      []*Group `json:"groups,omitempty"` // in the order they were opened
	Steps       []*Step  `json:"steps"`
	Conf        *Conf    `json:"conf,omitempty"` // nil: nothing is set
}

// A Param is a value given from outside, before the run.
type Param struct {
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	Pos         Pos    `json:"pos,omitzero"`

	// Type is the type that the author named ("Integer", "GCSPath", any name),
	// or "". Inferred is the type of the default where no type was named.
	Type     string `json:"type,omitempty"`
	Inferred string `json:"inferred,omitempty"`

	// Properties are what the author said of the type beside its name; nil is
	// nothing. They mean something to the author only.
	Properties Object `json:"properties,omitempty"`

	// Default is the text used when no value is given; nil makes the param
	// required. Optional records that the author wrote a default, which may
	// have been None: KFP marks such a param optional, though it has no value.
	Default  *string `json:"default,omitempty"`
	Optional bool    `json:"optional,omitempty"`
}

// A Step is one command in one image, or a change of one object of the cluster.
type Step struct {
	Name string `json:"name"` // final and unique: lower-case letters, digits, hyphens
	Pos  Pos    `json:"pos,omitzero"`

	Group string `json:"group,omitempty"` // the group it stands in; "" is the pipeline

	// Container is a core/v1 Container without its name, and Volumes are
	// core/v1 Volumes, both as the author wrote them.
	Container Object   `json:"container,omitempty"`
	Volumes   []Object `json:"volumes,omitempty"`

	// Resource is what the step does to an object of the cluster; then it has
	// no container of its own. It is nil for most steps.
	Resource *Resource `json:"resource,omitempty"`

	Artifacts []Artifact `json:"artifacts,omitempty"` // values that it takes as files
	Outputs   []Output   `json:"outputs,omitempty"`
	After     []Edge     `json:"after,omitempty"` // needs of order alone; needs of data are the Refs
	Retry     *Retry     `json:"retry,omitempty"` // nil: none

	// Timeout is the wall clock of one attempt in whole seconds, as text that
	// may be a token; "" is none.
	Timeout string `json:"timeout,omitempty"`

	Component *Component `json:"component,omitempty"` // that the step was made from; nil: none

	Accelerator *Accelerator `json:"accelerator,omitempty"` // devices that it needs; nil: none

	Pod
	Conduct
}

// An Output is a file that a step leaves and whose content others may use; of
// a step with a Resource, a part of the object.
type Output struct {
	Name     string `json:"name"`
	Path     string `json:"path,omitempty"`     // absolute, inside the step's container
	JSONPath string `json:"jsonPath,omitempty"` // of a Resource: where the part is, as kubectl writes it ("{.metadata.name}")
	Aside    bool   `json:"aside,omitempty"`    // kept under its own name, for people to look at: no step can use it
	Pos      Pos    `json:"pos,omitzero"`
}

// Page returns the name under which a file is kept that no step can use, and
// whether the output is one: those that KFP's page shows, and those aside.
func (o *Output) Page() (string, bool) {
	if o.Aside {
		return o.Name, true
	}
	return PageOutput(o.Name)
}

// An Edge says that a step runs after another one.
type Edge struct {
	Step string `json:"step"`
	Pos  Pos    `json:"pos,omitzero"`
}

// A Retry says when a failed step is started again.
type Retry struct {
	Limit  string `json:"limit"`            // how many more attempts, as text that may be a token
	Policy string `json:"policy,omitempty"` // one of RetryPolicies; "" is OnFailure

	// Backoff is the wait before the first retry and MaxBackoff the longest
	// time since the first start in which one may begin: a number of seconds
	// or one with a unit ("2m"); "" is none. Each wait is Factor times the one
	// before, as the author wrote it (2 or 2.0); "" is 1.
	Backoff    string      `json:"backoff,omitempty"`
	Factor     json.Number `json:"factor,omitempty"`
	MaxBackoff string      `json:"maxBackoff,omitempty"`
}

// RetryPolicies are the policies of Argo Workflows. OnFailure retries a
// command that exited with an error, OnError a step that the infrastructure
// lost, OnTransientError those errors that are known to pass, Always all.
var RetryPolicies = []string{"Always", "OnFailure", "OnError", "OnTransientError"}

// Param returns the param of the name, or nil.
func (p *Pipeline) Param(name string) *Param {
	for _, q := range p.Params {
		if q.Name == name {
			return q
		}
	}
	return nil
}

// Step returns the step of the name, or nil.
func (p *Pipeline) Step(name string) *Step {
	for _, s := range p.Steps {
		if s.Name == name {
			return s
		}
	}
	return nil
}

// Output returns the output of the name, or nil.
func (s *Step) Output(name string) *Output {
	for i := range s.Outputs {
		if s.Outputs[i].Name == name {
			return &s.Outputs[i]
		}
	}
	return nil
}

// Image returns the text of the step's image.
func (s *Step) Image() string {
	image, _ := s.Container.Get("image").(string)
	return image
}

// Command returns the texts of the step's command; nil leaves it to the image.
func (s *Step) Command() []string { return s.texts("command") }

// Args returns the texts of the step's arguments.
func (s *Step) Args() []string { return s.texts("args") }

func (s *Step) texts(field string) []string {
	list, _ := s.Container.Get(field).([]any)
	var texts []string
	for _, v := range list {
		if text, ok := v.(string); ok {
			texts = append(texts, text)
		}
	}
	return texts
}

// Pos is a place in a script. The zero value is an unknown place.
type Pos struct {
	File string // relative to the root that scripts are loaded from
	Line int    // from 1
	Col  int    // from 1, in characters
}

// IsValid reports whether the place is known.
func (p Pos) IsValid() bool { return p.File != "" && p.Line > 0 }

// Compare orders places by file, line and column.
func (p Pos) Compare(q Pos) int {
	return cmp.Or(cmp.Compare(p.File, q.File), cmp.Compare(p.Line, q.Line), cmp.Compare(p.Col, q.Col))
}

// String returns file:line:col, or "" for an unknown place.
func (p Pos) String() string {
	if !p.IsValid() {
		return ""
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// MarshalText returns file:line:col.
func (p Pos) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (p *Pos) UnmarshalText(text []byte) error {
	*p = Pos{}
	if len(text) == 0 {
		return nil
	}
	rest, col, ok1 := cutLast(string(text))
	file, line, ok2 := cutLast(rest)
	if !ok1 || !ok2 || file == "" {
		return fmt.Errorf("position %q: want file:line:column", text)
	}
	*p = Pos{File: file, Line: line, Col: col}
	return nil
}

func cutLast(s string) (before string, n int, ok bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", 0, false
	}
	n, err := strconv.Atoi(s[i+1:])
	return s[:i], n, err == nil && n >= 0
}
