package dag

import (
	"fmt"
	"strings"
)

// This file defines groups: the blocks that steps stand in.

// A Group is a block of steps that is decided, repeated or guarded as one. It
// stands in another group or in the pipeline itself.
type Group struct {
	Name  string    `json:"name"` // final; unique among groups and steps
	Kind  GroupKind `json:"kind"`
	Pos   Pos       `json:"pos,omitzero"`
	Group string    `json:"group,omitempty"` // the group it stands in; "" is the pipeline
	After []Edge    `json:"after,omitempty"` // needs of order alone, of steps and groups

	Condition *Condition `json:"condition,omitempty"` // of a GroupCondition
	Chain     string     `json:"chain,omitempty"`     // of conditions that exclude each other: the name of the first
	Loop      *Loop      `json:"loop,omitempty"`      // of a GroupLoop
	Exit      string     `json:"exit,omitempty"`      // of a GroupExitHandler: the step that runs last

	// Of a GroupGraph and a GroupCall: the values passed, by the names of the
	// function's arguments. A call runs the graph named Calls again, with its
	// values in place of those that the graph was first called with.
	Args  []Arg  `json:"args,omitempty"`
	Calls string `json:"calls,omitempty"`

	// Parallelism is how many steps of the group, or rounds of a loop, run at
	// once; 0 means no limit.
	Parallelism int `json:"parallelism,omitempty"`
}

// A GroupKind says what a Group is for.
type GroupKind string

// The kinds of groups.
const (
	GroupCondition   GroupKind = "condition"    // runs if its Condition holds
	GroupLoop        GroupKind = "for-loop"     // runs once for each item of its Loop
	GroupExitHandler GroupKind = "exit-handler" // its Exit runs when the pipeline is over, whatever happened
	GroupGraph       GroupKind = "graph"        // a function recorded once, which may call itself
	GroupSub         GroupKind = "subgraph"     // runs as one, with a parallelism of its own
	GroupCall        GroupKind = "call"         // another round of a graph, inside it
)

// An Arg is a value passed to a graph.
type Arg struct {
	Name  string `json:"name"`
	Value string `json:"value"` // text
}

// A Condition is a comparison of two texts, or several conditions combined.
type Condition struct {
	// Op is == or !=, which compare text; <, <=, > or >=, which compare
	// numbers; or all, any, not, which combine Of.
	Op string       `json:"op"`
	X  string       `json:"x,omitempty"`
	Y  string       `json:"y,omitempty"`
	Of []*Condition `json:"of,omitempty"`
}

// Texts returns the texts that the condition compares, in their order.
func (c *Condition) Texts() []string {
	if c == nil {
		return nil
	}
	var texts []string
	if c.Of == nil {
		texts = []string{c.X, c.Y}
	}
	for _, of := range c.Of {
		texts = append(texts, of.Texts()...)
	}
	return texts
}

// Refs returns the values that the condition compares, in their order.
func (c *Condition) Refs() []Ref {
	var refs []Ref
	for _, text := range c.Texts() {
		found, _ := Refs(text)
		refs = append(refs, found...)
	}
	return refs
}

// Not returns the condition that holds if and only if c does not: the opposite
// comparison, or what not holds, where there is one.
func (c *Condition) Not() *Condition {
	if opposite := opposites[c.Op]; opposite != "" {
		return &Condition{Op: opposite, X: c.X, Y: c.Y}
	}
	if c.Op == "not" && len(c.Of) == 1 {
		return c.Of[0]
	}
	return &Condition{Op: "not", Of: []*Condition{c}}
}

var opposites = map[string]string{"==": "!=", "!=": "==", "<": ">=", ">=": "<", ">": "<=", "<=": ">"}

// Conjuncts returns conditions that all hold if and only if c does.
func (c *Condition) Conjuncts() []*Condition {
	if c.Op == "all" {
		return c.Of
	}
	return []*Condition{c}
}

// String returns the condition as an author would write it.
func (c *Condition) String() string {
	switch c.Op {
	case "all", "any":
		var parts []string
		for _, of := range c.Of {
			parts = append(parts, of.String())
		}
		return c.Op + "_of(" + strings.Join(parts, ", ") + ")"
	case "not":
		return "not_(" + c.Of[0].String() + ")"
	}
	return operand(c.X) + " " + c.Op + " " + operand(c.Y)
}

func operand(text string) string {
	if r, ok := SoleRef(text); ok {
		return r.String()
	}
	return fmt.Sprintf("%q", Display(text))
}

// A Loop says what a group is repeated for.
type Loop struct {
	// Items are the items as JSON trees, all of one kind; objects have the
	// same names. If From is set, the items are known only at run time: it is
	// a token whose text will be a JSON list.
	Items []any  `json:"items,omitempty"`
	From  string `json:"from,omitempty"`

	// Item is the name of the item, by which a Ref and a Workflow know it. No
	// loop inside another has its name.
	Item string `json:"item"`
}

// Refs returns the values that the loop's items hold, in their order.
func (l *Loop) Refs() []Ref {
	var refs []Ref
	WalkText(l.Items, func(_ *Field, text string) {
		found, _ := Refs(text)
		refs = append(refs, found...)
	})
	found, _ := Refs(l.From)
	return append(refs, found...)
}

// Refs returns the values that the group itself uses: those that decide it,
// that it is repeated for, and that are passed to it.
func (g *Group) Refs() []Ref {
	var refs []Ref
	if g.Condition != nil {
		refs = append(refs, g.Condition.Refs()...)
	}
	if g.Loop != nil {
		refs = append(refs, g.Loop.Refs()...)
	}
	for _, a := range g.Args {
		found, _ := Refs(a.Value)
		refs = append(refs, found...)
	}
	return refs
}

// GroupNamed returns the group of the name, or nil.
func (p *Pipeline) GroupNamed(name string) *Group {
	for _, g := range p.Groups {
		if g.Name == name {
			return g
		}
	}
	return nil
}
