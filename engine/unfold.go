package engine

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

// This file unfolds a pipeline into tasks: a task is a step as often as it
// runs, once for each round of the loops and graphs around it.
//
// Groups become two nodes each, a begin and an end, which nobody sees. What
// stands in a group needs its begin; what needs a group needs its end; the
// begin holds the condition. The rounds of a loop whose items only the run
// knows, and further rounds of a graph, are unfolded once all is there that
// their begin needs; until then tasks that never start stand for a loop's, to
// tell what becomes of it. What is unfolded is a function of the committed
// facts, so a driver that takes over unfolds the same tasks.

// maxRounds is how deep a graph may call itself; only tests change it.
var maxRounds = 1000

// A node is a task, or the begin or end of a group.
type node struct {
	task  int // index of its task; -1 is a begin or end
	needs []int
	begin int // the begin of what it stands in; -1 is the pipeline itself

	// Of a begin:
	cond *dag.Condition // nil holds
	env  *env
	wait string // key of what is unfolded when all is there that it needs; "" is nothing
	none string // why nothing of it runs, though it is passed: an empty list
	from int    // the first of the tasks that stand for those to be unfolded,
	to   int    // and the one behind the last
}

// A task is a step in one round of what stands around it.
type task struct {
	name   string // of its record: that of the step, with the numbers of its rounds
	step   *dag.Step
	node   int
	env    *env
	fault  string // why it can never run
	stand  bool   // it stands for tasks that are not unfolded yet
	rounds []int  // the loops' rounds that it belongs to, as indexes of planner.rounds
	groups []int  // the groups with a parallelism that it belongs to, of planner.groups
	exit   bool   // it is the exit handler's
}

// An env is what is known of values in one round of a loop or graph.
type env struct {
	parent *env // of what stands around it in the script
	group  *dag.Group
	suffix string             // of the names of tasks in it
	item   *string            // JSON of the loop's item
	caller *env               // of a further round of a graph: the round that calls it
	call   *dag.Group         // and what calls it
	before string             // and the suffix before the first of the rounds that call has called in a row
	args   map[dag.Ref]string // and the values in place of those the graph was first called with
}

// A roundOf is one round of a loop that has a parallelism.
type roundOf struct {
	loop string // key
	max  int
}

// A groupOf is a group that has a parallelism.
type groupOf struct{ max int }

// unfolding is the part of a planner that grows with the run.
type unfolding struct {
	tasks  []task
	nodes  []node
	order  []int          // of nodes, each after those that it needs
	index  map[string]int // of tasks, by name
	rounds []roundOf
	groups []groupOf
	exit   int // the exit handler's task; -1 is none

	waits bool // some node waits to be unfolded

	// found are the items of loops and the rounds of graphs that are unfolded,
	// by key.
	found map[string][]string
}

// build makes the tasks of what is found.
func (pl *planner) build() error {
	u := &unfolder{pl: pl, out: unfolding{index: map[string]int{}, exit: -1, found: pl.found}}
	if u.out.found == nil {
		u.out.found = map[string][]string{}
	}
	if err := u.all(); err != nil {
		return err
	}
	pl.unfolding = u.out
	return nil
}

// unfold makes the tasks that follow from the records of those there are, and
// returns the records of all, and whether the tasks are others than before.
// New tasks are Waiting, unless they are known.
func (pl *planner) unfold(records []Record, known map[string]Record) ([]Record, bool, error) {
	changed := false
	for pl.discover(records) {
		changed = true
		old := pl.unfolding
		if err := pl.build(); err != nil {
			return nil, false, err
		}
		next := make([]Record, len(pl.tasks))
		for i, t := range pl.tasks {
			if k, ok := old.index[t.name]; ok {
				next[i] = records[k]
			} else if r, ok := known[t.name]; ok {
				next[i] = r
			} else {
				next[i] = Record{Step: t.name, State: Waiting}
			}
		}
		records = next
	}
	return records, changed, nil
}

// discover finds what can be unfolded, and reports whether there is anything.
func (pl *planner) discover(records []Record) bool {
	if !pl.waits {
		return false
	}
	r := &round{planner: pl, records: records}
	r.weigh()
	more := false
	for i, n := range pl.nodes {
		if n.wait == "" || r.needed(i).state != passed {
			continue
		}
		if slices.ContainsFunc(records[n.from:n.to], func(r Record) bool { return r.State == Cancelled }) {
			continue // the run was stopped before the items were known
		}
		more = true
		pl.found[n.wait] = nil
		if !strings.HasSuffix(n.wait, "()") {
			continue
		}
		items, err := pl.items(n.env, records)
		if err != nil {
			items = []string{"!" + err.Error()}
		}
		pl.found[n.wait] = items
	}
	return more
}

// items returns the items of a loop whose list only the run knows, as JSON;
// env is that of the loop's begin.
func (pl *planner) items(e *env, records []Record) ([]string, error) {
	text := dag.Expand(e.group.Loop.From, pl.value(records, e))
	var items []json.RawMessage
	if err := json.Unmarshal([]byte(text), &items); err != nil || items == nil && strings.TrimSpace(text) != "[]" {
		return nil, fmt.Errorf("the items of the loop%s are %q: want a JSON list", origin(e.group.Loop.From), shorten(text))
	}
	list := make([]string, len(items))
	for i, item := range items {
		var b bytes.Buffer
		if err := json.Compact(&b, item); err != nil {
			return nil, err
		}
		list[i] = b.String()
		for _, part := range pl.parts(e.group) {
			var parts map[string]json.RawMessage
			if json.Unmarshal(item, &parts) != nil || parts[part] == nil {
				return nil, fmt.Errorf("item %d of the loop%s is %s: want an object with %q", i, origin(e.group.Loop.From), shorten(list[i]), part)
			}
		}
	}
	return list, nil
}

// parts returns the parts of its item that what stands in a loop uses.
func (pl *planner) parts(loop *dag.Group) []string {
	var refs []dag.Ref
	for _, s := range pl.p.Steps {
		if pl.within(s.Name, loop.Name) {
			refs = append(refs, s.Refs()...)
		}
	}
	for _, g := range pl.p.Groups {
		if pl.within(g.Name, loop.Name) {
			refs = append(refs, g.Condition.Refs()...)
			if g.Loop != nil {
				refs = append(refs, g.Loop.Refs()...)
			}
			for _, a := range g.Args {
				of, _ := dag.Refs(a.Value)
				refs = append(refs, of...)
			}
		}
	}
	var parts []string
	for _, r := range refs {
		if r.Kind == dag.RefItem && r.Step == loop.Loop.Item && r.Name != "" && !slices.Contains(parts, r.Name) {
			parts = append(parts, r.Name)
		}
	}
	return parts
}

// An unfolder makes an unfolding.
type unfolder struct {
	pl  *planner
	out unfolding

	ends map[string]int // node of a step, or end of a group, by name and suffix
	todo []func()       // edges to add once all nodes are there
}

func (u *unfolder) all() error {
	u.ends = map[string]int{}
	root := &env{}
	u.members("", -1, root, nil, nil)
	for _, f := range u.todo {
		f()
	}
	return u.sort()
}

// members unfolds the steps and groups of a group, whose begin is a node, and
// returns their last nodes.
func (u *unfolder) members(group string, begin int, e *env, rounds, groups []int) []int {
	var last []int
	for _, name := range u.pl.members[group] {
		if s := u.pl.steps[name]; s != nil {
			last = append(last, u.step(s, begin, e, rounds, groups))
			continue
		}
		last = append(last, u.group(u.pl.groupsByName[name], begin, e, rounds, groups))
	}
	return last
}

func (u *unfolder) node(n node) int {
	u.out.nodes = append(u.out.nodes, n)
	return len(u.out.nodes) - 1
}

// edges adds, later, what a member of a group needs of the other members.
func (u *unfolder) edges(id int, name, suffix string) {
	u.todo = append(u.todo, func() {
		for _, need := range u.pl.needs[name] {
			if other, ok := u.ends[need+suffix]; ok {
				u.out.nodes[id].needs = append(u.out.nodes[id].needs, other)
			}
		}
	})
}

func (u *unfolder) step(s *dag.Step, begin int, e *env, rounds, groups []int) int {
	t := task{name: s.Name + e.suffix, step: s, env: e, rounds: rounds, groups: groups}
	if s.Name == u.pl.exitName {
		t.exit = true
		u.out.exit = len(u.out.tasks)
	}
	id := u.node(node{task: len(u.out.tasks), begin: begin})
	t.node = id
	u.out.index[t.name] = len(u.out.tasks)
	u.out.tasks = append(u.out.tasks, t)
	u.ends[s.Name+e.suffix] = id
	u.edges(id, s.Name, e.suffix)
	return id
}

// group unfolds a group and returns its end.
func (u *unfolder) group(g *dag.Group, begin int, e *env, rounds, groups []int) int {
	b := u.node(node{task: -1, begin: begin, cond: g.Condition, env: e})
	u.edges(b, g.Name, e.suffix)
	if g.Parallelism > 0 && g.Kind != dag.GroupLoop {
		u.out.groups = append(u.out.groups, groupOf{g.Parallelism})
		groups = append(slices.Clip(groups), len(u.out.groups)-1)
	}
	var last []int
	switch g.Kind {
	case dag.GroupLoop:
		last = u.loop(g, b, e, rounds, groups)
	case dag.GroupCall:
		last = u.call(g, b, e, rounds, groups)
	default:
		last = u.members(g.Name, b, e, rounds, groups)
	}
	end := u.node(node{task: -1, begin: b, needs: append([]int{b}, last...)})
	u.ends[g.Name+e.suffix] = end
	return end
}

// loop unfolds the rounds of a loop.
func (u *unfolder) loop(g *dag.Group, begin int, e *env, rounds, groups []int) []int {
	key := g.Name + e.suffix + "()"
	items, known := u.out.found[key], true
	if g.Loop.From == "" {
		items = nil
		for _, item := range g.Loop.Items {
			items = append(items, itemJSON(item))
		}
	} else if items, known = u.out.found[key]; !known {
		u.wait(begin, key, &env{parent: e, group: g, suffix: e.suffix})
	}
	stand := func(fault string) []int {
		from, first := len(u.out.tasks), len(u.out.nodes)
		last := u.members(g.Name, begin, &env{parent: e, group: g, suffix: e.suffix}, rounds, groups)
		for i := from; i < len(u.out.tasks); i++ {
			u.out.tasks[i].stand, u.out.tasks[i].fault = true, fault
		}
		u.out.nodes[begin].from, u.out.nodes[begin].to = from, len(u.out.tasks)
		for i := first; fault != "" && i < len(u.out.nodes); i++ {
			u.out.nodes[i].cond, u.out.nodes[i].wait = nil, "" // they may be about items
		}
		return last
	}
	switch {
	case !known:
		return stand("")
	case len(items) == 1 && strings.HasPrefix(items[0], "!"):
		return stand(items[0][1:])
	case len(items) == 0:
		u.out.nodes[begin].none = "the loop has no items"
		return stand("")
	}
	var last []int
	for i, item := range items {
		inner := &env{parent: e, group: g, suffix: e.suffix + "[" + strconv.Itoa(i) + "]", item: &item}
		of := rounds
		if g.Parallelism > 0 {
			u.out.rounds = append(u.out.rounds, roundOf{key, g.Parallelism})
			of = append(slices.Clip(rounds), len(u.out.rounds)-1)
		}
		last = append(last, u.members(g.Name, begin, inner, of, groups)...)
	}
	return last
}

// itemJSON returns an item of a list in the script as JSON; tokens in it are
// filled in when it is used.
func itemJSON(item any) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(item); err != nil {
		return "null" // no tree of package dag comes here
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// wait notes that there is more to unfold behind a begin.
func (u *unfolder) wait(begin int, key string, e *env) {
	n := &u.out.nodes[begin]
	n.wait, n.env = key, e
	u.out.waits = true
}

// call unfolds another round of a graph, once all is there that its begin
// needs.
func (u *unfolder) call(g *dag.Group, begin int, e *env, rounds, groups []int) []int {
	key := g.Name + e.suffix
	graph := u.pl.groupsByName[g.Calls]
	n := 1
	for at := e; at != nil; at = cmp.Or(at.caller, at.parent) {
		if at.group == graph {
			n++
		}
	}
	if n > maxRounds+1 {
		return nil // the round that calls fails
	}
	if _, known := u.out.found[key]; !known {
		u.wait(begin, key, e)
		return nil
	}
	// The values are those of the round that calls.
	args := map[dag.Ref]string{}
	for _, a := range g.Args {
		for _, first := range graph.Args {
			if r, ok := dag.SoleRef(first.Value); ok && first.Name == a.Name {
				args[r] = a.Value
			}
		}
	}
	before := e.suffix
	if e.call == g {
		before = e.before
	}
	around := e
	for around.group != nil && u.pl.within(around.group.Name, graph.Name) {
		around = around.parent
	}
	inner := &env{
		parent: around, caller: e, group: graph, suffix: before + "~" + strconv.Itoa(n) + u.pl.callTags[g.Name],
		call: g, before: before, args: args,
	}
	from := len(u.out.tasks)
	last := u.members(graph.Name, begin, inner, rounds, groups)
	if n > maxRounds {
		for i := from; i < len(u.out.tasks); i++ {
			u.out.tasks[i].fault = fmt.Sprintf("%s called itself more than %d times", graph.Name, maxRounds)
		}
	}
	return last
}

// sort orders the nodes so that each comes after those it needs.
func (u *unfolder) sort() error {
	nodes := u.out.nodes
	state := make([]int8, len(nodes))
	var visit func(i int) error
	visit = func(i int) error {
		switch state[i] {
		case 1:
			return fmt.Errorf("the needs of %s form a cycle", u.pl.p.Name)
		case 2:
			return nil
		}
		state[i] = 1
		if b := nodes[i].begin; b >= 0 {
			if err := visit(b); err != nil {
				return err
			}
		}
		for _, j := range nodes[i].needs {
			if err := visit(j); err != nil {
				return err
			}
		}
		state[i] = 2
		u.out.order = append(u.out.order, i)
		return nil
	}
	for i := range nodes {
		if err := visit(i); err != nil {
			return err
		}
	}
	return nil
}

// A verdict is what is known of a node.
type verdict struct {
	state  verdictState
	reason string
}

type verdictState uint8

const (
	waiting  verdictState = iota
	passed                // what needs it may start
	closed                // nothing of it runs, by choice; what needs it may start
	hindered              // it failed, or something that it needs did
)

// weigh finds the verdicts of all nodes, by the records as they will be after
// this round.
func (r *round) weigh() {
	r.verdicts = make([]verdict, len(r.nodes))
	for _, i := range r.order {
		r.verdicts[i] = r.verdict(i)
	}
}

// verdict returns what is known of a node, given the verdicts of what it needs.
func (r *round) verdict(i int) verdict {
	n := &r.nodes[i]
	if n.task >= 0 {
		rec := r.record(n.task)
		switch rec.State {
		case Succeeded:
			if _, new := r.decided[n.task]; new {
				return verdict{} // nothing may follow from what is not committed
			}
			return verdict{state: passed}
		case Failed:
			return verdict{hindered, fmt.Sprintf("step %q failed", rec.Step)}
		case Unknown:
			return verdict{hindered, fmt.Sprintf("the outcome of step %q is unknown", rec.Step)}
		case Skipped:
			if rec.ByChoice {
				return verdict{state: closed}
			}
			return verdict{hindered, rec.Reason}
		}
		return verdict{}
	}
	v := r.needed(i)
	switch {
	case v.state != passed:
		return v
	case n.wait != "":
		return verdict{} // what is known of those who stand here is not yet theirs
	case n.none != "":
		return verdict{closed, n.none}
	case n.cond == nil:
		return v
	}
	holds, err := r.holds(n.cond, r.value(r.records, n.env))
	switch {
	case err != nil:
		return verdict{hindered, err.Error()}
	case !holds:
		return verdict{closed, n.cond.String() + " does not hold"}
	}
	return verdict{state: passed}
}

// needed returns the verdict over all that a node needs: closed if it stands
// in what is closed.
func (r *round) needed(i int) verdict {
	n := &r.nodes[i]
	if n.begin >= 0 && r.verdicts[n.begin].state != passed {
		return r.verdicts[n.begin]
	}
	all := verdict{state: passed}
	for _, j := range n.needs {
		switch v := r.verdicts[j]; v.state {
		case hindered:
			return v
		case waiting:
			all.state = waiting
		}
	}
	return all
}

// holds evaluates a condition: == and != compare text, the others numbers.
func (r *round) holds(c *dag.Condition, value func(dag.Ref) string) (bool, error) {
	switch c.Op {
	case "all", "any":
		for _, of := range c.Of {
			ok, err := r.holds(of, value)
			if err != nil || ok == (c.Op == "any") {
				return ok, err
			}
		}
		return c.Op == "all", nil
	case "not":
		ok, err := r.holds(c.Of[0], value)
		return !ok, err
	}
	x, y := dag.Expand(c.X, value), dag.Expand(c.Y, value)
	switch c.Op {
	case "==":
		return x == y, nil
	case "!=":
		return x != y, nil
	}
	a, err1 := strconv.ParseFloat(strings.TrimSpace(x), 64)
	b, err2 := strconv.ParseFloat(strings.TrimSpace(y), 64)
	if err1 != nil || err2 != nil {
		return false, fmt.Errorf("%s compares %q with %q: want two numbers", c, shorten(x), shorten(y))
	}
	switch c.Op {
	case "<":
		return a < b, nil
	case "<=":
		return a <= b, nil
	case ">":
		return a > b, nil
	}
	return a >= b, nil
}

// value returns the function that gives each run-time value in an env.
func (pl *planner) value(records []Record, e *env) func(dag.Ref) string {
	var value func(e *env, r dag.Ref) string
	value = func(e *env, r dag.Ref) string {
		for at := e; at != nil; at = at.parent {
			if text, ok := at.args[r]; ok {
				return dag.Expand(text, func(r dag.Ref) string { return value(at.caller, r) })
			}
			if r.Kind == dag.RefItem && at.item != nil && at.group.Loop.Item == r.Step {
				item := *at.item
				if at.group.Loop.From == "" { // an output's text is no text of the script
					item = dag.Expand(item, func(r dag.Ref) string { return jsonInner(value(at.parent, r)) })
				}
				return itemText(item, r.Name)
			}
		}
		switch r.Kind {
		case dag.RefParam:
			return pl.args[r.Name]
		case dag.RefOutput:
			if i, ok := pl.index[r.Step+pl.suffix(r.Step, e)]; ok {
				return records[i].Outputs[r.Name]
			}
			return ""
		case dag.RefOneOf:
			for _, o := range r.Outputs() {
				if i, ok := pl.index[o.Step+pl.suffix(o.Step, e)]; ok && records[i].State == Succeeded {
					return records[i].Outputs[o.Name]
				}
			}
			return ""
		case dag.RefCollected:
			list := []string{}
			suffix := pl.suffix(r.Step, e)
			for n := 0; ; n++ {
				i, ok := pl.index[r.Step+suffix+"["+strconv.Itoa(n)+"]"]
				if !ok {
					break
				}
				list = append(list, records[i].Outputs[r.Name])
			}
			return itemJSON(list)
		}
		return pl.run.value(r)
	}
	return func(r dag.Ref) string { return value(e, r) }
}

// suffix returns the numbers of the rounds that a step and an env have in
// common.
func (pl *planner) suffix(step string, e *env) string {
	for ; e != nil && e.parent != nil; e = e.parent {
		if e.group != nil && pl.within(step, e.group.Name) {
			return e.suffix
		}
	}
	return ""
}

// within reports whether a step or group stands in a group, or is it.
func (pl *planner) within(name, group string) bool {
	for name != "" {
		if name == group {
			return true
		}
		if s := pl.steps[name]; s != nil {
			name = s.Group
		} else if g := pl.groupsByName[name]; g != nil {
			name = g.Group
		} else {
			return false
		}
	}
	return false
}

// itemText returns an item, or a part of one, as text: a string as it is, all
// else as JSON.
func itemText(item, part string) string {
	if part != "" {
		var parts map[string]json.RawMessage
		if json.Unmarshal([]byte(item), &parts) != nil {
			return ""
		}
		item = string(parts[part])
	}
	var text string
	if strings.HasPrefix(item, `"`) && json.Unmarshal([]byte(item), &text) == nil {
		return text
	}
	return item
}

// jsonInner returns text as it stands between the quotes of a JSON string.
func jsonInner(text string) string {
	quoted := itemJSON(text)
	return quoted[1 : len(quoted)-1]
}
