package builtins

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/dag"
)

// This file defines blocks: groups of steps, opened by a for statement.
//
// A file is rewritten so that a for statement tells of itself before it asks
// its value for an iterator, and so that break, continue and return do:
//
//	for x in v:      for x in "for"(v, LINE, COLUMN):
//	break            "break"(LINE, COLUMN); break     of the innermost loop
//	return y         "return"(LINE, COLUMN, ...)      of all loops around it

// ForName, BreakName, ContinueName and ReturnName are the names under which
// the environment holds the functions that statements are rewritten to call.
// TruthName is that of the function which a composite condition goes through.
const (
	TruthName    = "truth of"
	ForName      = "for"
	BreakName    = "break"
	ContinueName = "continue"
	ReturnName   = "return"
)

// A block is what condition, parallel_for, exit_handler and sub_graph return.
type block struct {
	s     *Session
	word  string // that made it
	pos   dag.Pos
	g     *dag.Group
	item  starlark.Value // what the for statement's variable is
	open  func(*block) error
	outer *block    // that was open when it was opened; nil if none was
	place loopPlace // of the for statement that asked for an iterator; zero if none has
	used  bool

	inside *member // asks what belongs to it once it is over; nil if nobody has
}

// A loopPlace is the place of a for statement, and the depth of its call.
type loopPlace struct{ line, col, depth int }

var (
	_ starlark.Iterable = (*block)(nil)
	_ starlark.HasAttrs = (*block)(nil)
)

func (b *block) String() string        { return "<" + b.word + ">" }
func (b *block) Type() string          { return "block" }
func (b *block) Freeze()               {}
func (b *block) Truth() starlark.Bool  { return true }
func (b *block) Hash() (uint32, error) { return 0, fmt.Errorf("a block cannot be a key") }
func (b *block) AttrNames() []string   { return []string{"after", "name"} }

func (b *block) Attr(name string) (starlark.Value, error) {
	switch name {
	case "name":
		if b.g.Name == "" {
			return nil, fmt.Errorf("the block has no name before it is opened")
		}
		return starlark.String(b.g.Name), nil
	case "after":
		return b.s.builtin("after", func(c *call) (starlark.Value, error) {
			return b, c.addAfter(&b.g.After)
		}), nil
	}
	return nil, noAttr("a block", name, b.AttrNames())
}

// Iterate opens the block. An error cannot be returned from here, so it is
// recorded and the evaluation is stopped.
func (b *block) Iterate() starlark.Iterator {
	fail := func(format string, args ...any) starlark.Iterator {
		b.s.fail(fmt.Errorf(format, args...))
		return starlark.Tuple(nil).Iterate()
	}
	switch {
	case b.place == (loopPlace{}):
		return fail("a block is opened by a for statement:  for _ in %s(...):", b.word)
	case b.used:
		return fail("this block was opened before: a block is opened once")
	case b.s.body == nil:
		return fail("%s stands outside a pipeline: blocks are opened inside a pipeline's function", b.word)
	}
	b.used = true
	if err := b.open(b); err != nil {
		return fail("%w", err)
	}
	return &blockIterator{b: b}
}

// A blockIterator yields the block's item once, and closes the block.
type blockIterator struct {
	b       *block
	yielded bool
}

func (it *blockIterator) Next(p *starlark.Value) bool {
	if it.yielded {
		return false
	}
	it.yielded = true
	*p = it.b.item
	return true
}

func (it *blockIterator) Done() {
	if body := it.b.s.body; body != nil {
		body.close(it.b)
	}
}

// fail records an error that Starlark's interfaces leave no way to return, and
// stops the evaluation.
func (s *Session) fail(err error) {
	if s.failure == nil {
		s.failure = &Failure{Err: err, Stack: s.thread.CallStack()}
		s.thread.Cancel("an error that a value could not return")
	}
}

// A Failure is an error of a value that Starlark gave no way to return it.
type Failure struct {
	Err   error
	Stack starlark.CallStack // at the time
}

// Failure returns the first failure, or nil.
func (s *Session) Failure() *Failure { return s.failure }

// statements adds the functions that rewritten statements call.
func (s *Session) statements() {
	s.env[ForName] = starlark.NewBuiltin(ForName, func(thread *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
		if b, ok := args[0].(*block); ok {
			b.place = s.loopPlace(args[1], args[2])
		}
		return args[0], nil
	})
	s.env[TruthName] = starlark.NewBuiltin(TruthName, func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
		if r, ok := args[0].(Runtime); ok {
			r.Truth() // records the misuse
		}
		return args[0], nil
	})
	leave := func(name string) *starlark.Builtin {
		return starlark.NewBuiltin(name, func(_ *starlark.Thread, _ *starlark.Builtin, args starlark.Tuple, _ []starlark.Tuple) (starlark.Value, error) {
			if s.body == nil {
				return starlark.None, nil
			}
			for i := 0; i+1 < len(args); i += 2 {
				at := s.loopPlace(args[i], args[i+1])
				if slices.ContainsFunc(s.body.open, func(b *block) bool { return b.place == at }) {
					return nil, fmt.Errorf("%s cannot leave a block: its steps belong to it whether or not they will run", name)
				}
			}
			return starlark.None, nil
		})
	}
	for _, name := range []string{BreakName, ContinueName, ReturnName} {
		s.env[name] = leave(name)
	}
}

func (s *Session) loopPlace(line, col starlark.Value) loopPlace {
	l, _ := starlark.AsInt32(line)
	c, _ := starlark.AsInt32(col)
	return loopPlace{l, c, s.thread.CallStackDepth()}
}

// open makes the group part of the pipeline, inside the group that is open.
func (b *body) openGroup(g *dag.Group, name string) {
	b.groups++
	id := strconv.Itoa(b.groups)
	g.Name = dag.K8sName(string(g.Kind) + "-" + name + "-" + id)
	g.Group = b.group()
	b.p.Groups = append(b.p.Groups, g)
	b.parents[g.Name] = g.Group
	b.last[g.Group] = g
	b.stack = append(b.stack, g)
}

// group is the name of the group that is open; "" is the pipeline.
func (b *body) group() string {
	if len(b.stack) == 0 {
		return ""
	}
	return b.stack[len(b.stack)-1].Name
}

// inLoop reports whether a loop whose items have the name is open.
func (b *body) inLoop(item string) bool {
	return slices.ContainsFunc(b.stack, func(g *dag.Group) bool { return g.Loop != nil && g.Loop.Item == item })
}

// close closes a block, and those in it that an error left open.
func (b *body) close(bl *block) {
	if i := slices.Index(b.open, bl); i >= 0 {
		b.open = b.open[:i]
	}
	if i := slices.Index(b.stack, bl.g); i >= 0 {
		b.stack = b.stack[:i]
	}
}

// newBlock returns a block that has yet to be opened.
func (c *call) newBlock(kind dag.GroupKind, name *string, open func(*block) error) (*block, error) {
	b, err := c.inBody()
	if err != nil {
		return nil, err
	}
	suffix := ""
	if name != nil {
		suffix = *name
		if dag.K8sName(suffix) == "" {
			c.report("name", "%s: name %q: want at least one ASCII letter or digit", c.name, suffix)
		}
	}
	stack := c.s.stack()
	bl := &block{s: c.s, word: c.name, pos: c.pos, g: &dag.Group{Kind: kind, Pos: c.pos}, item: starlark.None}
	bl.open = func(bl *block) error {
		if open != nil {
			if err := open(bl); err != nil {
				return err
			}
		}
		b.openGroup(bl.g, suffix)
		if stack != nil {
			c.s.calls[bl.g.Name] = stack
		}
		if n := len(b.open); n > 0 {
			bl.outer = b.open[n-1]
		}
		b.open = append(b.open, bl)
		return nil
	}
	b.blocks = append(b.blocks, bl)
	return bl, nil
}

// condition: condition(c, name=None) -> block
//
// Its steps run if `c` holds: a comparison with a value known only at run time, or
// several combined by `all_of(...)`, `any_of(...)`, `not_(c)`.
func (s *Session) condition(c *call) (starlark.Value, error) {
	cond, name, err := c.conditionAndName()
	if err != nil {
		return nil, err
	}
	b, err := c.inBody()
	if err != nil {
		return nil, err
	}
	return c.branch(b, name, nil, cond)
}

// conditionAndName unpacks the arguments c and name.
func (c *call) conditionAndName() (*dag.Condition, *string, error) {
	var v starlark.Value
	var name *string
	if err := c.unpack("c", &v, "name??", optional(&name)); err != nil {
		return nil, nil, err
	}
	return c.toCondition(v), name, nil
}

// elifCondition: elif_condition(c, name=None) -> block
//
// Its steps run if none of the branches before them did, and `c` holds. It
// stands right behind the block before.
func (s *Session) elifCondition(c *call) (starlark.Value, error) {
	cond, name, err := c.conditionAndName()
	if err != nil {
		return nil, err
	}
	return c.otherwise(cond, name)
}

// elseCondition: else_condition(name=None) -> block
//
// Its steps run if none of the branches before them did. It stands right
// behind the block before.
func (s *Session) elseCondition(c *call) (starlark.Value, error) {
	var name *string
	if err := c.unpack("name??", optional(&name)); err != nil {
		return nil, err
	}
	return c.otherwise(nil, name)
}

// otherwise returns the block of a condition that holds only if none of the
// chain before it does; cond is nil for the last of a chain.
func (c *call) otherwise(cond *dag.Condition, name *string) (starlark.Value, error) {
	b, err := c.inBody()
	if err != nil {
		return nil, err
	}
	before, _ := b.last[b.group()].(*dag.Group)
	if before == nil || b.others[before] == nil {
		return nil, c.errorf("", "%s does not follow a condition: want it right behind the block of condition or elif_condition", c.name)
	}
	return c.branch(b, name, before, cond)
}

// branch returns the block of one condition of a chain: the first if before is
// nil, and the last if cond is.
func (c *call) branch(b *body, name *string, before *dag.Group, cond *dag.Condition) (*block, error) {
	bl, err := c.newBlock(dag.GroupCondition, name, func(bl *block) error {
		if before != nil && b.last[b.group()] != before {
			return fmt.Errorf("%s does not follow the condition that it was made behind: want its for statement right behind that block", bl.word)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	all := b.others[before]
	if cond != nil {
		b.others[bl.g] = slices.Concat(all, cond.Not().Conjuncts())
		all = append(slices.Clone(all), cond)
	}
	if bl.g.Condition = all[0]; len(all) > 1 {
		bl.g.Condition = &dag.Condition{Op: "all", Of: all}
	}
	if countParts(bl.g.Condition) > maxCompare {
		return nil, c.errorf("", "%s: with what it excludes of the conditions before it, its condition has more than %d parts", c.name, maxCompare)
	}
	open := bl.open
	bl.open = func(bl *block) error {
		err := open(bl)
		if bl.g.Chain = bl.g.Name; before != nil {
			bl.g.Chain = before.Chain
		}
		return err
	}
	return bl, nil
}

// countParts counts the comparisons and words of a condition, shared ones each time.
func countParts(c *dag.Condition) int {
	n := 1
	for _, of := range c.Of {
		n += countParts(of)
	}
	return n
}

// toCondition returns the condition that a value is, or one in place of what it
// reports to be none.
func (c *call) toCondition(v starlark.Value) *dag.Condition {
	switch v := v.(type) {
	case *condition:
		return v.c
	case *value:
		c.report("", "%s: %s: want a comparison", c.name, v.What()).Hint =
			"write what it is compared with, as in  " + v.Ref().String() + ` == "true"`
	case starlark.Bool:
		c.report("", "%s: want a comparison with a value known only when the pipeline runs, got %s", c.name, v).Hint =
			"what is known while the script is evaluated is decided by an if"
	default:
		c.report("", "%s: want a comparison, got %s", c.name, typeName(v))
	}
	return &dag.Condition{Op: "=="}
}

// combine: all_of(*conditions) -> condition, any_of(*conditions) -> condition
//
// Conditions combined: all, or at least one of them.
func combine(op string) func(c *call) (starlark.Value, error) {
	return func(c *call) (starlark.Value, error) {
		if len(c.kwargs) > 0 || len(c.args) == 0 {
			return nil, c.errorf("", "%s: want one or more conditions", c.name)
		}
		all := &dag.Condition{Op: op}
		for _, v := range c.args {
			all.Of = append(all.Of, c.toCondition(v))
		}
		if len(all.Of) == 1 {
			all = all.Of[0]
		}
		if countParts(all) > maxCompare {
			return nil, c.errorf("", "%s: the condition has more than %d parts", c.name, maxCompare)
		}
		return &condition{s: c.s, c: all}, nil
	}
}

// notCondition: not_(c) -> condition
//
// A condition that holds if `c` does not.
func (s *Session) notCondition(c *call) (starlark.Value, error) {
	var v starlark.Value
	if err := c.unpack("c", &v); err != nil {
		return nil, err
	}
	cond := c.toCondition(v).Not()
	if countParts(cond) > maxCompare {
		return nil, c.errorf("", "%s: the condition has more than %d parts", c.name, maxCompare)
	}
	return &condition{s: s, c: cond}, nil
}

// exitHandler: exit_handler(step, name=None) -> block
//
// The step runs when all of the pipeline is over, whatever happened. It
// depends on nothing; a pipeline has one such block.
func (s *Session) exitHandler(c *call) (starlark.Value, error) {
	var v starlark.Value
	var name *string
	if err := c.unpack("step", &v, "name??", optional(&name)); err != nil {
		return nil, err
	}
	st, ok := v.(*step)
	if !ok {
		return nil, c.errorf("step", "exit_handler: want the step that runs last, got %s", typeName(v))
	}
	bl, err := c.newBlock(dag.GroupExitHandler, name, func(*block) error {
		b := s.body
		if b.group() != "" {
			return fmt.Errorf("an exit_handler stands in no other block: its step runs when the whole pipeline is over")
		}
		for _, g := range b.p.Groups {
			if g.Kind == dag.GroupExitHandler {
				return fmt.Errorf("a pipeline has only one exit_handler: the other is at %s", g.Pos)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	bl.g.Exit = st.d.Name
	return bl, nil
}

// subGraph: sub_graph(name=None, parallelism=None) -> block
//
// Its steps run as one, at most `parallelism` at once.
func (s *Session) subGraph(c *call) (starlark.Value, error) {
	var name *string
	var parallelism starlark.Value
	if err := c.unpack("name??", optional(&name), "parallelism??", &parallelism); err != nil {
		return nil, err
	}
	bl, err := c.newBlock(dag.GroupSub, name, nil)
	if err != nil {
		return nil, err
	}
	bl.g.Parallelism, err = c.parallelism(parallelism)
	return bl, err
}

// parallelism returns a limit; nil is none.
func (c *call) parallelism(v starlark.Value) (int, error) {
	if v == nil {
		return 0, nil
	}
	if r, ok := v.(Runtime); ok {
		return 0, c.errorf("parallelism", "%s%sit cannot be a parallelism", r.What(), onlyAtRunTime)
	}
	n, err := starlark.AsInt32(v)
	if err != nil || n < 1 {
		what := kind(v) // the text of a list might have no end
		if n, ok := v.(starlark.Int); ok && n.BigInt().BitLen() < 64 {
			what = n.String()
		}
		e := c.report("parallelism", "%s: parallelism is %s: want a whole number, 1 or more", c.name, what)
		e.Hint = "leave it out for no limit"
		return 0, nil
	}
	return n, nil
}

// parallelFor: parallel_for(items, parallelism=None, name=None) -> block
//
// Its steps run once for each item, side by side, or `parallelism` rounds at once.
// `items` is a list (of text and numbers, of lists, or of dicts with the
// same keys), or a param or an output that will be a JSON list. Parts of an
// item that is a dict are `item.key` and `item["key"]`.
func (s *Session) parallelFor(c *call) (starlark.Value, error) {
	b, err := c.inBody()
	if err != nil {
		return nil, err
	}
	var items, parallelism starlark.Value
	var name *string
	if err := c.unpack("items", &items, "parallelism??", &parallelism, "name??", optional(&name)); err != nil {
		return nil, err
	}
	loop := &dag.Loop{}
	names := []string(nil) // of the parts that items have; nil if that is not known
	switch v := items.(type) {
	case *value:
		if _, sole := dag.SoleRef(v.t); !sole {
			return nil, c.errorf("items", "parallel_for: %s: want a list, a param or an output alone", v.What())
		}
		if r := v.Ref(); r.Kind == dag.RefItem {
			return nil, c.errorf("items", "parallel_for: %s: want a list, a param or an output", v.What())
		}
		loop.From = v.t
		loop.Item = v.Ref().Name + "-loop-item"
		if r := v.Ref(); r.Kind == dag.RefOutput {
			loop.Item = dag.FullName(r.Step, r.Name) + "-loop-item"
		}
	case starlark.NoneType:
		return nil, c.errorf("items", "parallel_for: want a list, a param or an output, got None")
	case *starlark.List, starlark.Tuple:
		if loop.Items, names, err = c.items(items); err != nil {
			return nil, err
		}
		b.groups++
		loop.Item = "loop-item-param-" + strconv.Itoa(b.groups)
	default:
		return nil, c.errorf("items", "parallel_for: want a list, a param or an output, got %s", typeName(items))
	}
	bl, err := c.newBlock(dag.GroupLoop, name, nil)
	if err != nil {
		return nil, err
	}
	bl.g.Loop = loop
	if bl.g.Parallelism, err = c.parallelism(parallelism); err != nil {
		return nil, err
	}
	open := bl.open
	bl.open = func(bl *block) error {
		for i := 2; b.inLoop(loop.Item); i++ { // over the same values as a loop around it
			loop.Item = strings.TrimSuffix(loop.Item, "-"+strconv.Itoa(i-1)) + "-" + strconv.Itoa(i)
		}
		if err := open(bl); err != nil {
			return err
		}
		item := s.ref(dag.Ref{Kind: dag.RefItem, Step: loop.Item})
		item.parts = &parts{names: names, known: loop.From == ""}
		bl.item = item
		return nil
	}
	return bl, nil
}

// items returns the items of a list as JSON trees, and the names of their
// parts if they are dicts.
func (c *call) items(list starlark.Value) ([]any, []string, error) {
	var items []any
	var names []string
	kind := ""
	i := 0
	for e := range starlark.Elements(list.(starlark.Iterable)) {
		tree, err := toJSON(e)
		if err != nil {
			return nil, nil, c.errorf("items", "parallel_for: item %d: %v", i, err)
		}
		k := "scalar"
		switch v := tree.(type) {
		case nil:
			return nil, nil, c.errorf("items", "parallel_for: item %d is None", i)
		case []any:
			k = "list"
		case dag.Object:
			k = "dict"
			var keys []string
			for _, m := range v {
				keys = append(keys, m.Name)
				if !isIdentifier(m.Name) {
					return nil, nil, c.errorf("items", "parallel_for: item %d: key %q: want an identifier, of letters, digits and _", i, m.Name)
				}
			}
			slices.Sort(keys)
			if names != nil && !slices.Equal(names, keys) {
				return nil, nil, c.errorf("items", "parallel_for: item %d has the keys %s, those before it %s: want the same in all", i, strings.Join(keys, ", "), strings.Join(names, ", "))
			}
			names = keys
		}
		if kind != "" && kind != k {
			return nil, nil, c.errorf("items", "parallel_for: item %d is a %s, those before it are %ss: want one kind", i, k, kind)
		}
		kind = k
		items = append(items, tree)
		i++
	}
	if len(items) == 0 {
		return nil, nil, c.errorf("items", "parallel_for: the list is empty: want at least one item")
	}
	return items, names, nil
}

func isIdentifier(s string) bool {
	for i, r := range s {
		if !(r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || i > 0 && '0' <= r && r <= '9') {
			return false
		}
	}
	return s != ""
}

// parts are the parts of a loop's item: item.a and item["a"].
type parts struct {
	names []string // nil if the items are no dicts
	known bool     // the items stand in the script
}

// part returns a part of a loop's item.
func (v *value) part(name string) (starlark.Value, error) {
	if v.parts.known && !slices.Contains(v.parts.names, name) {
		if v.parts.names == nil {
			return nil, fmt.Errorf("the items of this loop are no dicts and have no .%s", name)
		}
		return nil, noAttr("an item of this loop", name, v.parts.names)
	}
	if !isIdentifier(name) {
		return nil, fmt.Errorf("part %q of an item: want a name, of letters, digits and _", name)
	}
	return v.s.ref(dag.Ref{Kind: dag.RefItem, Step: v.Ref().Step, Name: name}), nil
}

// oneOf: one_of(*outputs) -> value
//
// The output of whichever branch ran.
func (s *Session) oneOf(c *call) (starlark.Value, error) {
	if len(c.kwargs) > 0 || len(c.args) < 2 {
		return nil, c.errorf("", "one_of: want two or more outputs of steps in different branches")
	}
	var outputs []dag.Ref
	for i, v := range c.args {
		r, err := c.output(i, v)
		if err != nil {
			return nil, err
		}
		outputs = append(outputs, r)
	}
	return s.ref(dag.OneOf(outputs)), nil
}

// collected: collected(output) -> value
//
// The JSON list of the outputs of all rounds of a loop, the innermost around the
// step.
func (s *Session) collected(c *call) (starlark.Value, error) {
	var v starlark.Value
	if err := c.unpack("output", &v); err != nil {
		return nil, err
	}
	r, err := c.output(0, v)
	if err != nil {
		return nil, err
	}
	return s.ref(dag.Ref{Kind: dag.RefCollected, Step: r.Step, Name: r.Name}), nil
}

// output returns the output that an argument is.
func (c *call) output(i int, v starlark.Value) (dag.Ref, error) {
	if v, ok := v.(*value); ok {
		if r, sole := dag.SoleRef(v.t); sole && r.Kind == dag.RefOutput {
			return r, nil
		}
	}
	return dag.Ref{}, c.errorf("", "%s: argument %d is %s: want an output of a step", c.name, i+1, kind(v))
}
