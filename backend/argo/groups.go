package argo

import (
	"maps"
	"slices"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

// This file defines the templates of the pipeline itself and of its groups:
// which tasks they have, in which order, and how values get from the step that
// made them to the steps and conditions that use them.
//
// A template sees only its own inputs and its own tasks. So a value is passed
// down as an input through each group from where it is known to where it is
// used, and an output is passed up through each group around the step that
// made it. The rules are those of kfp/compiler/compiler.py of kfp 1.8.22
// (_get_inputs_outputs, _get_dependencies, _group_to_dag_template), with what
// its _data_passing_rewriter removes left out from the start.

// A node is a step, a group, or the pipeline itself.
type node struct {
	name   string
	step   *dag.Step
	group  *dag.Group // nil of a step and of the pipeline
	parent *node      // nil of the pipeline
	kids   []*node

	// Of its template:
	inputs  map[string]bool   // by full name
	outputs map[string]*node  // full name to the child whose task has it
	files   map[string]bool   // inputs that are artifacts
	made    map[string]string // outputs that are artifacts

	// Of its task in the parent's template:
	args      map[string]string     // input to value
	fileArgs  map[string]dag.Member // artifact to where it comes from: from, or raw
	deps      map[string]bool
	noDeps    bool // it has a list of deps even if that is empty
	when      string
	items     any
	withParam string
}

func (n *node) add(kid *node) *node {
	kid.parent = n
	if kid.step == nil { // the template of a step is made from the step
		kid.inputs, kid.outputs = map[string]bool{}, map[string]*node{}
		kid.files, kid.made = map[string]bool{}, map[string]string{}
	}
	kid.args, kid.fileArgs, kid.deps = map[string]string{}, map[string]dag.Member{}, map[string]bool{}
	n.kids = append(n.kids, kid)
	return kid
}

// tree makes the nodes of the pipeline, and fills them.
func (c *compiler) tree(entry string) *node {
	root := &node{name: entry, inputs: map[string]bool{}, outputs: map[string]*node{}, files: map[string]bool{}}
	c.nodes = map[string]*node{"": root}
	for _, g := range c.p.Groups {
		c.nodes[g.Name] = c.nodes[g.Group].add(&node{name: g.Name, group: g})
	}
	for _, s := range c.p.Steps {
		if c.exits(s) {
			continue
		}
		c.nodes[s.Name] = c.nodes[s.Group].add(&node{name: s.Name, step: s})
	}
	for _, s := range c.p.Steps {
		n := c.nodes[s.Name]
		if n == nil {
			continue
		}
		for _, r := range inputs(s) {
			n.args[fullName(r)] = c.pass(r, n)
		}
		for _, a := range s.Artifacts {
			if r, file := a.Ref(); file {
				n.fileArgs[fullName(r)] = c.passFile(r, n)
			}
		}
		c.needs(n, s.After)
	}
	for _, g := range c.p.Groups {
		n := c.nodes[g.Name]
		c.needs(n, g.After)
		if g.Condition != nil {
			n.when = c.when(g.Condition, n)
		}
		if g.Loop != nil {
			n.items, n.withParam = c.loop(n)
		}
		if g.Kind == dag.GroupCall {
			for _, r := range g.Refs() {
				for _, o := range r.Outputs() {
					if from := c.nodes[o.Step]; from != nil {
						c.depend(from, n)
					}
				}
			}
		}
	}
	for again := true; again; { // what one round takes may have to be passed by others
		again = false
		for _, g := range c.p.Groups {
			if g.Kind == dag.GroupCall && c.passRound(g) {
				again = true
			}
		}
	}
	return root
}

// exits reports whether the step is that of an exit handler, which stands
// outside of the pipeline's own template.
func (c *compiler) exits(s *dag.Step) bool { return c.exit == s.Name }

// needs adds the edges of a node: between those of its ancestors and of the
// ancestors of what it needs that stand in one template.
func (c *compiler) needs(n *node, after []dag.Edge) {
	for _, e := range after {
		if from := c.nodes[e.Step]; from != nil {
			c.depend(from, n)
		}
	}
}

// depend adds the edge from one node to another, and returns the two tasks in
// one template that it joins.
func (c *compiler) depend(from, to *node) (*node, *node) {
	a, b := siblings(from, to)
	if a != b {
		b.deps[a.task()] = true
	}
	return a, b
}

// siblings returns the ancestors of two nodes, or the nodes, that stand in one
// template. If one node stands in the other, both are the other.
func siblings(a, b *node) (*node, *node) {
	da, db := a.depth(), b.depth()
	for da > db {
		a, da = a.parent, da-1
	}
	for db > da {
		b, db = b.parent, db-1
	}
	for a.parent != b.parent {
		a, b = a.parent, b.parent
	}
	return a, b
}

func (n *node) depth() int {
	d := 0
	for n.parent != nil {
		n, d = n.parent, d+1
	}
	return d
}

// task is the name of the node's task and template.
func (n *node) task() string {
	if n.group != nil && n.group.Kind == dag.GroupCall {
		return n.group.Calls
	}
	return n.name
}

// pass passes a value to a node, down through the groups around it, and
// returns what stands for the value in the template that has the node's task.
func (c *compiler) pass(r dag.Ref, to *node) string {
	name := fullName(r)
	input := "{{inputs.parameters." + name + "}}"
	switch r.Kind {
	case dag.RefOutput, dag.RefCollected, dag.RefOneOf:
		output, b := c.made(r, to)
		if b == nil {
			return input // of an exit handler: Validate refuses it
		}
		if b == to {
			return output
		}
		for n := to.parent; n != b; n = n.parent {
			n.inputs[name], n.args[name] = true, input
		}
		b.inputs[name], b.args[name] = true, output
	case dag.RefItem:
		for n := to.parent; n != nil; n = n.parent {
			n.inputs[name] = true
			if n.group != nil && n.group.Loop != nil && n.group.Loop.Item == r.Step {
				n.args[name] = "{{item}}"
				if r.Name != "" {
					n.args[name] = "{{item." + r.Name + "}}"
				}
				break
			}
			if n.parent != nil {
				n.args[name] = input
			}
		}
	case dag.RefParam:
		for n := to.parent; n != nil; n = n.parent {
			n.inputs[name] = true
			if n.parent != nil {
				n.args[name] = input
			}
		}
	}
	return input
}

// made passes a value that steps make up through the groups around them, and
// returns what stands for it in the template that has both a task of theirs
// and one of the node, and that node.
//
// Argo gives the outputs of the rounds of a loop as a JSON list, which is what
// collected means, and nothing at all for a loop without rounds. Which branch
// ran is decided by the tasks' states.
func (c *compiler) made(r dag.Ref, to *node) (text string, at *node) {
	var choices []string
	for _, o := range r.Outputs() {
		from := c.nodes[o.Step]
		if from == nil {
			return "", nil
		}
		c.consumed[o] = true
		name := fullName(o)
		var a *node
		a, at = c.depend(from, to)
		for n := from.parent; n != nil && n != a.parent; n = n.parent {
			n.outputs[name] = c.below(n, from)
		}
		if r.Kind != dag.RefOneOf {
			if e := a.roundsOutput(name); e != "" {
				return "{{=" + e + "}}", at
			}
			return "{{tasks." + a.task() + ".outputs.parameters." + name + "}}", at
		}
		choices = append(choices, a.inExpression()+".status == 'Succeeded' ? "+a.inExpression()+".outputs.parameters['"+name+"'] : ")
	}
	return "{{=" + strings.Join(choices, "") + "''}}", at
}

// inExpression is the node's task in an expression. Argo 4 waits without end
// for what an expression names and is not there, also in a branch of it that
// does not count, as the outputs of a task that was skipped: a name that is put
// together it does not find.
func (n *node) inExpression() string { return "tasks['' + '" + n.task() + "']" }

// roundsOutput is an expression for the outputs of all rounds of a loop that
// may have none, or "" if the node is no such loop.
func (n *node) roundsOutput(name string) string {
	if n.group == nil || n.group.Loop == nil || n.group.Loop.From == "" {
		return ""
	}
	task := n.inExpression()
	return "'outputs' in " + task + " ? " + task + ".outputs.parameters['" + name + "'] : '[]'"
}

// below returns the child of a node that has the other node in it.
func (c *compiler) below(n, other *node) *node {
	for other.parent != n {
		other = other.parent
	}
	return other
}

// when is a condition as Argo evaluates it, in the template that has the
// node's task. KFP writes a comparison of text with quotes around both sides.
func (c *compiler) when(cond *dag.Condition, n *node) string {
	switch cond.Op {
	case "all", "any":
		sep := " && "
		if cond.Op == "any" {
			sep = " || "
		}
		var parts []string
		for _, of := range cond.Of {
			parts = append(parts, "("+c.when(of, n)+")")
		}
		return strings.Join(parts, sep)
	case "not":
		return "!(" + c.when(cond.Of[0], n) + ")"
	}
	side := func(text string) string {
		return dag.Expand(text, func(r dag.Ref) string {
			if r.OfRun() {
				return expand(r.Token())
			}
			return c.pass(r, n)
		})
	}
	x, y := side(cond.X), side(cond.Y)
	if cond.Op == "==" || cond.Op == "!=" {
		x, y = `"`+x+`"`, `"`+y+`"`
	}
	return x + " " + cond.Op + " " + y
}

// passRound passes to another round of a graph the inputs that the graph has:
// its arguments, of which it takes no more than its steps use, and the rest as
// they are. It reports whether there were new ones.
func (c *compiler) passRound(g *dag.Group) bool {
	n, graph := c.nodes[g.Name], c.nodes[g.Calls]
	args := map[string]dag.Ref{} // by the inputs that the graph has for its arguments
	for _, first := range graph.group.Args {
		for _, a := range g.Args {
			r, ok := dag.SoleRef(first.Value)
			value, sole := dag.SoleRef(a.Value)
			if a.Name == first.Name && ok && sole {
				args[fullName(r)] = value
			}
		}
	}
	added := false
	for _, name := range slices.Sorted(maps.Keys(graph.inputs)) {
		if _, given := n.args[name]; given {
			continue
		}
		added = true
		if r, ok := args[name]; ok {
			n.args[name] = c.pass(r, n)
			continue
		}
		n.args[name] = "{{inputs.parameters." + name + "}}"
		for m := n.parent; m != graph; m = m.parent {
			m.inputs[name], m.args[name] = true, n.args[name]
		}
	}
	for _, name := range slices.Sorted(maps.Keys(graph.files)) {
		if _, given := n.fileArgs[name]; given {
			continue
		}
		added = true
		if r, ok := args[name]; ok {
			n.fileArgs[name] = c.passFile(r, n)
			continue
		}
		n.fileArgs[name] = fileInput(name)
		for m := n.parent; m != graph; m = m.parent {
			m.files[name], m.fileArgs[name] = true, n.fileArgs[name]
		}
	}
	return added
}

// dagTemplates returns the templates of the pipeline and of its groups.
func dagTemplates(n *node) []dag.Object {
	var tasks []dag.Object
	templates := []dag.Object{nil} // this one's place
	for _, kid := range n.kids {
		tasks = append(tasks, kid.taskObject())
		if kid.group != nil && kid.group.Kind != dag.GroupCall {
			templates = append(templates, dagTemplates(kid)...)
		}
	}
	byName(tasks)

	t := dag.Object{{Name: "name", Value: n.name}}
	if g := n.group; g != nil && (g.Kind == dag.GroupLoop || g.Parallelism > 0) {
		t.Set(int64(g.Parallelism), "parallelism")
	}
	if len(n.inputs) > 0 {
		t.Set(named(slices.Sorted(maps.Keys(n.inputs))), "inputs", "parameters")
	}
	if len(n.files) > 0 {
		t.Set(named(slices.Sorted(maps.Keys(n.files))), "inputs", "artifacts")
	}
	if len(n.outputs) > 0 {
		var outputs []dag.Object
		for _, name := range slices.Sorted(maps.Keys(n.outputs)) {
			value := dag.Object{{Name: "parameter", Value: "{{tasks." + n.outputs[name].task() + ".outputs.parameters." + name + "}}"}}
			if e := n.outputs[name].roundsOutput(name); e != "" {
				value = dag.Object{{Name: "expression", Value: e}}
			}
			outputs = append(outputs, dag.Object{{Name: "name", Value: name}, {Name: "valueFrom", Value: value}})
		}
		t.Set(list(outputs), "outputs", "parameters")
	}
	if len(n.made) > 0 {
		var made []dag.Object
		for _, name := range slices.Sorted(maps.Keys(n.made)) {
			made = append(made, dag.Object{
				{Name: "name", Value: name},
				{Name: "from", Value: "{{tasks." + n.made[name] + ".outputs.artifacts." + name + "}}"},
			})
		}
		t.Set(list(made), "outputs", "artifacts")
	}
	t.Set(list(tasks), "dag", "tasks")
	templates[0] = t
	return templates
}

// taskObject returns the node's task in its parent's template.
func (n *node) taskObject() dag.Object {
	t := dag.Object{{Name: "name", Value: n.task()}, {Name: "template", Value: n.task()}}
	if n.when != "" {
		t.Set(n.when, "when")
	}
	if len(n.deps) > 0 || n.noDeps {
		t.Set(list(slices.Sorted(maps.Keys(n.deps))), "dependencies")
	}
	var args []dag.Object
	for _, name := range slices.Sorted(maps.Keys(n.args)) {
		args = append(args, dag.Object{{Name: "name", Value: name}, {Name: "value", Value: n.args[name]}})
	}
	if args != nil {
		t.Set(list(args), "arguments", "parameters")
	}
	var files []dag.Object
	for _, name := range slices.Sorted(maps.Keys(n.fileArgs)) {
		files = append(files, dag.Object{{Name: "name", Value: name}, n.fileArgs[name]})
	}
	if files != nil {
		t.Set(list(files), "arguments", "artifacts")
	}
	if n.items != nil {
		t.Set(n.items, "withItems")
	}
	if n.withParam != "" {
		t.Set(n.withParam, "withParam")
	}
	return t
}

// loop returns the items of a loop as its task has them. KFP begins a list of
// dependencies for a loop over an output, and adds nothing to it in a subgraph.
func (c *compiler) loop(n *node) (items any, withParam string) {
	resolve := func(text string) string {
		return dag.Expand(text, func(r dag.Ref) string {
			if r.Kind == dag.RefParam {
				return "{{workflow.parameters." + r.Name + "}}"
			}
			return c.pass(r, n)
		})
	}
	l := n.group.Loop
	if l.From != "" {
		r, _ := dag.SoleRef(l.From)
		n.noDeps = r.Kind == dag.RefOutput && n.parent.group != nil && n.parent.group.Kind == dag.GroupSub
		return nil, resolve(l.From)
	}
	return dag.MapText(l.Items, resolve), ""
}
