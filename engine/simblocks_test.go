package engine

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/kfs-project/kfs/dag"
)

// This file adds blocks to the simulation: it makes random ones, and says what
// a run of them must do. It does so by walking through the script with all
// outputs known, as an interpreter would; there are no nodes, and no time.

// A refTask is what must become of a task.
type refTask struct {
	Record
	exit   bool
	needs  []string // tasks that have ended before, well or by choice
	args   []string
	rounds []refRound
	limits []refLimit
}

type refRound struct {
	loop string
	n    int
	max  int
}

type refLimit struct {
	group string
	max   int
}

// outputs are what an attempt leaves when it succeeds: a text, a number and a list.
func (w *world) outputs(task string, number int) map[string]string {
	if w.ref == nil {
		return map[string]string{"o": outputOf(task, number)}
	}
	h := w.hash(task + " outputs")
	depth := 0
	for _, part := range strings.Split(task, "~")[1:] {
		n, _ := strconv.Atoi(part[:1])
		depth += n
	}
	n := int(h % 3)
	if depth >= 3 {
		n = 0
	}
	l := "nope"
	switch k := h / 3 % 10; {
	case k == 0:
	case k == 1:
		l = " [ ]"
	case k < 6:
		var items []string
		for i := range h/30%3 + 1 {
			items = append(items, fmt.Sprintf(`{"k":%d,"t":"$%d\n"}`, (h+i)%3, i))
		}
		l = "[" + strings.Join(items, ", ") + "]"
	default:
		var items []string
		for i := range h/30%3 + 1 {
			items = append(items, []string{fmt.Sprint(i), `"$(x)"`, `["y",null]`}[(h/100+i)%3])
		}
		l = "[" + strings.Join(items, ",") + "]"
	}
	return map[string]string{"o": outputOf(task, number), "n": fmt.Sprint(n), "l": l}
}

// A blockMaker makes random blocks.
type blockMaker struct {
	*world
	script
	all    []string // steps and closed blocks, which others may come after
	n      int
	depth  int
	graphs []string // open ones
}

func (m *blockMaker) pick(scope []dag.Ref, name string) (dag.Ref, bool) {
	var of []dag.Ref
	for _, r := range scope {
		if name == "" || r.Kind == dag.RefOutput && r.Name == name {
			of = append(of, r)
		}
	}
	if len(of) == 0 {
		return dag.Ref{}, false
	}
	return of[m.rng.IntN(len(of))], true
}

func (m *blockMaker) name(word string) string {
	m.n++
	return fmt.Sprintf("%s%d", word, m.n)
}

func (m *blockMaker) after() []dag.Edge {
	if len(m.all) == 0 || !m.chance(0.25) {
		return nil
	}
	return []dag.Edge{{Step: m.all[m.rng.IntN(len(m.all))]}}
}

func (m *blockMaker) addStep(scope []dag.Ref) []dag.Ref {
	s := m.step(m.name("s"), "text")
	s.Outputs = []dag.Output{{Name: "o", Path: "/o"}, {Name: "n", Path: "/n"}, {Name: "l", Path: "/l"}}
	s.After = m.after()
	for range m.rng.IntN(3) {
		if r, ok := m.pick(scope, ""); ok {
			s.Container.Append("args", r.Token()+"!")
		}
	}
	m.settings(s)
	m.all = append(m.all, s.Name)
	for _, o := range []string{"o", "n", "l"} {
		scope = append(scope, dag.Ref{Kind: dag.RefOutput, Step: s.Name, Name: o})
	}
	return scope
}

func (m *blockMaker) condition(scope []dag.Ref, deep int) *dag.Condition {
	if deep > 0 && m.chance(0.3) {
		c := &dag.Condition{Op: []string{"all", "any", "not"}[m.rng.IntN(3)], Of: []*dag.Condition{m.condition(scope, deep-1)}}
		if c.Op != "not" {
			c.Of = append(c.Of, m.condition(scope, deep-1))
		}
		return c
	}
	r, ok := m.pick(scope, "n")
	if !ok || m.chance(0.1) {
		r, ok = m.pick(scope, "")
	}
	if !ok || m.chance(0.1) {
		r = dag.Ref{Kind: dag.RefParam, Name: "p"}
	}
	return cmpOf(r.Token(), []string{"==", "!=", "<", "<=", ">", ">="}[m.rng.IntN(6)], fmt.Sprint(m.rng.IntN(3)))
}

// members fills the open block, and returns what those behind it may use.
func (m *blockMaker) members(scope []dag.Ref) []dag.Ref {
	scope = slices.Clip(scope)
	for range 1 + m.rng.IntN(3) {
		kind := m.rng.IntN(10)
		if m.depth > 2 || len(m.script.p.Steps) > 8 {
			kind = 0
		}
		m.depth++
		after := m.after()
		var g *dag.Group
		switch kind {
		default:
			scope = m.addStep(scope)
		case 4:
			g = m.cond(m.name("if"), m.condition(scope, 2), func() { m.members(scope) })
		case 5:
			items := list()
			for i := range 1 + m.rng.IntN(3) {
				text := fmt.Sprint("i", i)
				if r, ok := m.pick(scope, ""); ok && m.chance(0.3) {
					text += r.Token()
				}
				items.Items = append(items.Items, dag.Object{{Name: "k", Value: i}, {Name: "t", Value: text}})
			}
			g = m.addLoop(items, scope)
		case 6, 7:
			if r, ok := m.pick(scope, "l"); ok {
				g = m.addLoop(from(r.Token()), scope)
			} else {
				g = m.addLoop(from(param("p")), scope)
			}
		case 8:
			g = m.sub(m.name("sub"), m.rng.IntN(3), func() { scope = m.members(scope) })
		case 9:
			x, ok := m.pick(scope, "")
			if !ok {
				x = dag.Ref{Kind: dag.RefParam, Name: "p"}
			}
			name := m.name("graph")
			g = m.graph(name, x.Token(), func() {
				m.graphs = append(m.graphs, name)
				scope = m.addStep(append(slices.Clip(scope), x))
				n := scope[len(scope)-2] // of a step of each round, so that there is an end
				for range 1 + m.rng.IntN(2) {
					scope = m.members(scope)
					inner := scope
					more := func() {
						to := m.graphs[m.rng.IntN(len(m.graphs))]
						v, _ := m.pick(inner, "")
						m.call(m.name("call"), to, v.Token())
					}
					m.cond(m.name("more"), cmpOf(n.Token(), ">", "0"), func() {
						if m.chance(0.3) {
							m.addLoop(list(dag.Object{{Name: "k", Value: 1}, {Name: "t", Value: "x"}}), inner)
						}
						more()
					})
				}
				m.graphs = m.graphs[:len(m.graphs)-1]
			})
		}
		m.depth--
		if g != nil {
			g.After = after
			m.all = append(m.all, g.Name)
		}
	}
	return scope
}

func (m *blockMaker) addLoop(l dag.Loop, scope []dag.Ref) *dag.Group {
	name := m.name("loop")
	scope = append(slices.Clip(scope), dag.Ref{Kind: dag.RefItem, Step: name})
	if l.From == "" {
		scope = scope[:len(scope)-1] // an object as text is a matter of its own
	}
	if l.From == "" || m.chance(0.5) {
		scope = append(scope, dag.Ref{Kind: dag.RefItem, Step: name, Name: "k"}, dag.Ref{Kind: dag.RefItem, Step: name, Name: "t"})
	}
	g := m.loop(name, l, m.rng.IntN(3), func() { m.members(scope) })
	return g
}

// addBlocks makes a random pipeline with blocks, and what must become of it.
func (w *world) addBlocks() {
	w.ref = map[string]*refTask{}
	m := &blockMaker{world: w, script: script{p: w.p}}
	def := []string{"[1, 2]", "1", "x"}[w.rng.IntN(3)]
	w.p.Params = []*dag.Param{{Name: "p", Default: &def}}
	if w.chance(0.5) {
		w.settings(m.step("cleanup", param("p")))
		m.exit("cleanup", func() { m.members(nil) })
		m.members(nil)
	} else {
		m.members(nil)
	}
	if w.chance(0.2) {
		w.rng.Shuffle(len(w.p.Steps), func(i, j int) { w.p.Steps[i], w.p.Steps[j] = w.p.Steps[j], w.p.Steps[i] })
	}
	if err := w.p.Validate(); err != nil {
		w.t.Fatal(err)
	}
	newReference(w).all()
}

// A frame is what is known in one round of a loop or graph.
type frame struct {
	parent  *frame
	suffix  string
	item    string // the loop's
	object  any    // the item
	values  map[dag.Ref]string
	outputs map[string]map[string]string // of the steps in it
	call    string
	before  string
	graph   string
	caller  *frame
	graphs  map[string]bool // recorded in it
}

// A place is where members are evaluated.
type place struct {
	*frame
	status string // of what they stand in: pass, closed or bad
	fault  bool   // they fail when it is their turn
	needs  []string
	rounds []refRound
	limits []refLimit
}

type reference struct {
	*world
	parent  map[string]string
	members map[string][]string // in the order of the script
	steps   map[string]*dag.Step
	groups  map[string]*dag.Group
	uses    map[string][]string // steps and groups that a step or group itself comes after
	exit    string
}

func newReference(w *world) *reference {
	r := &reference{
		world: w, parent: map[string]string{}, members: map[string][]string{},
		steps: map[string]*dag.Step{}, groups: map[string]*dag.Group{}, uses: map[string][]string{},
	}
	use := func(name string, after []dag.Edge, refs []dag.Ref) {
		for _, e := range after {
			r.uses[name] = append(r.uses[name], e.Step)
		}
		for _, ref := range refs {
			if ref.Kind == dag.RefOutput {
				r.uses[name] = append(r.uses[name], ref.Step)
			}
		}
	}
	first := map[string]int{}
	for i, s := range w.p.Steps {
		r.steps[s.Name], r.parent[s.Name] = s, s.Group
		first[s.Name] = i
		use(s.Name, s.After, s.Refs())
	}
	for i, g := range w.p.Groups {
		r.groups[g.Name], r.parent[g.Name] = g, g.Group
		first[g.Name] = 1000 + i
		refs := g.Condition.Refs()
		if g.Loop != nil {
			refs = append(refs, g.Loop.Refs()...)
		}
		for _, a := range g.Args {
			of, _ := dag.Refs(a.Value)
			refs = append(refs, of...)
		}
		use(g.Name, g.After, refs)
		if g.Exit != "" {
			r.exit = g.Exit
		}
	}
	for i, s := range w.p.Steps {
		for g := s.Group; g != ""; g = r.parent[g] {
			first[g] = min(first[g], i)
		}
	}
	names := slices.Sorted(maps.Keys(first))
	slices.SortStableFunc(names, func(a, b string) int { return first[a] - first[b] })
	for _, name := range names {
		r.members[r.parent[name]] = append(r.members[r.parent[name]], name)
	}
	return r
}

func (r *reference) inside(name, of string) bool {
	for ; name != ""; name = r.parent[name] {
		if name == of {
			return true
		}
	}
	return of == ""
}

// needs returns what a member needs of the others.
func (r *reference) needs(member string) []string {
	var needs []string
	for name := range r.parent {
		if !r.inside(name, member) {
			continue
		}
		for _, use := range r.uses[name] {
			for at := use; at != ""; at = r.parent[at] {
				if r.parent[at] == r.parent[member] && at != member && !slices.Contains(needs, at) {
					needs = append(needs, at)
				}
			}
		}
	}
	return needs
}

func (r *reference) all() {
	_, r.refOrder = r.group("", place{frame: &frame{outputs: map[string]map[string]string{}}, status: "pass"})
	if r.exit != "" {
		r.ref[r.exit].exit = true
	}
}

// group evaluates the members of a group, and returns what becomes of it and
// its tasks.
func (r *reference) group(name string, at place) (string, []string) {
	status, tasks := map[string]string{}, map[string][]string{}
	for len(status) < len(r.members[name]) {
	members:
		for _, m := range r.members[name] {
			if status[m] != "" {
				continue
			}
			needs := r.needs(m)
			for _, need := range needs {
				if status[need] == "" {
					continue members
				}
			}
			in := at
			in.needs = slices.Clone(at.needs)
			for _, need := range needs {
				in.needs = append(in.needs, tasks[need]...)
				if at.status == "pass" && status[need] == "bad" {
					in.status = "bad"
				}
			}
			status[m], tasks[m] = r.member(m, in)
		}
	}
	end, all := at.status, []string(nil)
	for _, m := range r.members[name] {
		if end == "pass" && status[m] == "bad" {
			end = "bad"
		}
		all = append(all, tasks[m]...)
	}
	return end, all
}

func (r *reference) member(name string, at place) (string, []string) {
	if s := r.steps[name]; s != nil {
		return r.task(s, at)
	}
	g := r.groups[name]
	if g.Parallelism > 0 && g.Kind != dag.GroupLoop {
		at.limits = append(slices.Clip(at.limits), refLimit{g.Name + at.suffix, g.Parallelism})
	}
	if g.Kind == dag.GroupGraph {
		if at.frame.graphs == nil {
			at.frame.graphs = map[string]bool{}
		}
		at.frame.graphs[g.Name] = true
	}
	switch {
	case g.Kind == dag.GroupLoop:
		return r.loop(g, at)
	case g.Kind == dag.GroupCall:
		return r.call(g, at)
	case g.Condition != nil && at.status == "pass" && !at.fault:
		switch ok, err := r.holds(g.Condition, at.frame); {
		case err != nil:
			at.status = "bad"
		case !ok:
			at.status = "closed"
		}
	}
	return r.group(g.Name, at)
}

func (r *reference) task(s *dag.Step, at place) (string, []string) {
	name := s.Name + at.suffix
	t := &refTask{Record: Record{Step: name}, needs: at.needs, rounds: at.rounds, limits: at.limits}
	at.frame.outputs[s.Name] = nil
	status := "bad"
	switch {
	case at.status != "pass":
		t.State, t.ByChoice = Skipped, at.status == "closed"
		status = at.status
	case at.fault:
		t.State = Failed
	default:
		var attempts int
		t.State, attempts = r.fate(s, name)
		t.Attempts = make([]Outcome, attempts)
		for _, text := range s.Args() {
			t.args = append(t.args, dag.Expand(text, func(ref dag.Ref) string {
				return strings.ReplaceAll(r.value(ref, at.frame), "$", "$$")
			}))
		}
		if t.State == Succeeded {
			status = "pass"
			at.frame.outputs[s.Name] = r.outputs(name, attempts)
		}
	}
	if r.ref[name] != nil {
		r.t.Errorf("the reference has two tasks %s", name)
	}
	r.ref[name] = t
	return status, []string{name}
}

func (r *reference) loop(g *dag.Group, at place) (string, []string) {
	var items []any
	stand := at.status != "pass" || at.fault
	if g.Loop.From != "" && !stand {
		var list []json.RawMessage
		text := dag.Expand(g.Loop.From, func(ref dag.Ref) string { return r.value(ref, at.frame) })
		if json.Unmarshal([]byte(text), &list) != nil {
			at.fault = true
		}
		for _, raw := range list {
			var object map[string]any
			if json.Unmarshal(raw, &object) != nil && r.usesParts(g) {
				at.fault = true
			}
			items = append(items, raw)
		}
		if len(list) == 0 && !at.fault {
			at.status = "closed"
		}
		stand = at.fault || at.status == "closed"
	}
	if g.Loop.From != "" && stand {
		in := at
		in.frame = &frame{parent: at.frame, suffix: at.suffix, outputs: map[string]map[string]string{}}
		return r.group(g.Name, in)
	}
	if g.Loop.From == "" {
		items = g.Loop.Items
	}
	end, all := at.status, []string(nil)
	for i, item := range items {
		in := at
		in.frame = &frame{
			parent: at.frame, suffix: fmt.Sprintf("%s[%d]", at.suffix, i), item: g.Loop.Item, object: item,
			outputs: map[string]map[string]string{},
		}
		if g.Parallelism > 0 {
			in.rounds = append(slices.Clip(at.rounds), refRound{g.Name + at.suffix, i, g.Parallelism})
		}
		status, tasks := r.group(g.Name, in)
		if status == "bad" {
			end = "bad"
		}
		all = append(all, tasks...)
	}
	return end, all
}

func (r *reference) usesParts(loop *dag.Group) bool {
	token := dag.Ref{Kind: dag.RefItem, Step: loop.Loop.Item, Name: "k"}.Token()
	token = token[:len(token)-len("k\uE001")]
	text := ""
	for _, s := range r.p.Steps {
		text += strings.Join(s.Args(), "")
	}
	for _, g := range r.p.Groups {
		text += strings.Join(g.Condition.Texts(), "")
		for _, a := range g.Args {
			text += a.Value
		}
		if g.Loop != nil {
			for _, item := range g.Loop.Items {
				text += fmt.Sprint(item)
			}
		}
	}
	return strings.Contains(text, token+"k") || strings.Contains(text, token+"t")
}

func (r *reference) call(g *dag.Group, at place) (string, []string) {
	if at.status != "pass" || at.fault {
		return at.status, nil
	}
	n, before := 1, at.suffix
	for f := at.frame; f != nil; {
		if f.graph == g.Calls {
			n++
		}
		if f.caller != nil {
			f = f.caller
		} else {
			f = f.parent
		}
	}
	home := at.frame
	for !home.graphs[g.Calls] {
		if home.caller != nil {
			home = home.caller
		} else {
			home = home.parent
		}
	}
	if at.call == g.Name {
		before = at.before
	}
	outermost := ""
	for of := g.Name; of != ""; of = r.parent[of] {
		if r.groups[of].Kind == dag.GroupGraph {
			outermost = of
		}
	}
	tag, calls := "", 0
	for _, other := range r.p.Groups {
		if other.Kind == dag.GroupCall && r.inside(other.Name, outermost) {
			calls++
			if other == g {
				tag = fmt.Sprintf(".%d", calls)
			}
		}
	}
	if calls == 1 {
		tag = ""
	}
	in := at
	in.frame = &frame{
		parent: home, caller: at.frame, suffix: fmt.Sprintf("%s~%d%s", before, n, tag), graph: g.Calls, call: g.Name, before: before,
		outputs: map[string]map[string]string{}, values: map[dag.Ref]string{},
	}
	first, _ := dag.SoleRef(r.groups[g.Calls].Args[0].Value)
	in.frame.values[first] = dag.Expand(g.Args[0].Value, func(ref dag.Ref) string { return r.value(ref, at.frame) })
	return r.group(g.Calls, in)
}

func (r *reference) value(ref dag.Ref, at *frame) string {
	for f := at; f != nil; f = f.parent {
		if text, ok := f.values[ref]; ok {
			return text
		}
		if outputs, ok := f.outputs[ref.Step]; ok && ref.Kind == dag.RefOutput {
			return outputs[ref.Name]
		}
		if ref.Kind != dag.RefItem || f.item != ref.Step {
			continue
		}
		switch item := f.object.(type) {
		case dag.Object:
			text := fmt.Sprint(item.Get(ref.Name))
			return dag.Expand(text, func(ref dag.Ref) string { return r.value(ref, f.parent) })
		case json.RawMessage:
			var v any
			json.Unmarshal(item, &v)
			if ref.Name != "" {
				v = v.(map[string]any)[ref.Name]
			}
			if text, ok := v.(string); ok {
				return text
			} else if ref.Name == "" {
				return string(item)
			}
			return fmt.Sprint(v)
		}
	}
	if ref.Kind == dag.RefParam {
		return *r.p.Params[0].Default
	}
	return ""
}

func (r *reference) holds(c *dag.Condition, at *frame) (bool, error) {
	switch c.Op {
	case "not":
		ok, err := r.holds(c.Of[0], at)
		return !ok, err
	case "all":
		for _, of := range c.Of {
			if ok, err := r.holds(of, at); !ok || err != nil {
				return false, err
			}
		}
		return true, nil
	case "any":
		for _, of := range c.Of {
			if ok, err := r.holds(of, at); ok || err != nil {
				return ok, err
			}
		}
		return false, nil
	}
	x := dag.Expand(c.X, func(ref dag.Ref) string { return r.value(ref, at) })
	if c.Op == "==" || c.Op == "!=" {
		return (x == c.Y) == (c.Op == "=="), nil
	}
	a, err := strconv.Atoi(strings.TrimSpace(x))
	b, _ := strconv.Atoi(c.Y)
	return c.Op[0] == '<' && a < b || c.Op[0] == '>' && a > b || len(c.Op) == 2 && a == b, err
}

// checkTask checks what must hold when a task's attempt is started.
func (w *world) checkTask(d *simDriver, a *Attempt) {
	t := w.ref[a.Step]
	if t == nil || t.Attempts == nil {
		if !w.loose {
			w.t.Errorf("%s started; want no such task, or not to run it", a.Step)
		}
		return
	}
	for _, need := range t.needs {
		if r := w.facts.Steps[need]; r.State != Succeeded && !r.ByChoice {
			w.t.Errorf("%s started; %s, which it needs, is %q", a.Step, need, r.State)
		}
	}
	var args []string
	list, _ := a.Container.Get("args").([]any)
	for _, arg := range list {
		args = append(args, arg.(string))
	}
	if !w.loose && !slices.Equal(args, t.args) {
		w.t.Errorf("%s started with %q; want %q", a.Step, args, t.args)
	}
	flying := map[string]bool{}
	for _, s := range w.attempts {
		if s.obs.Phase != PhaseFinished {
			flying[s.a.Step] = true
		}
	}
	if t.exit {
		for name := range w.ref {
			if name != a.Step && (flying[name] || w.facts.Run.Stop == "" && !w.facts.Steps[name].State.Ended()) && !w.loose && !w.zombies {
				w.t.Errorf("%s started before %s had ended", a.Step, name)
			}
		}
	}
	if w.zombies || w.loose {
		return
	}
	for _, l := range t.limits {
		n := 1
		for name := range flying {
			if slices.Contains(w.ref[name].limits, l) {
				n++
			}
		}
		if n > l.max {
			w.t.Errorf("%s started as one of %d in %s; want at most %d", a.Step, n, l.group, l.max)
		}
	}
	for _, round := range t.rounds {
		begun, open := map[int]bool{round.n: true}, map[int]bool{round.n: true}
		for name, other := range w.ref {
			for _, o := range other.rounds {
				if o.loop == round.loop {
					begun[o.n] = begun[o.n] || w.attempts[AttemptID(w.run.ID, name, 1)] != nil
					open[o.n] = open[o.n] || !w.facts.Steps[name].State.Ended()
				}
			}
		}
		n := 0
		for i := range begun {
			if begun[i] && open[i] {
				n++
			}
		}
		if n > round.max {
			w.t.Errorf("%s started in one of %d rounds of %s; want at most %d", a.Step, n, round.loop, round.max)
		}
	}
}

// checkTasks checks which tasks a run has had, and returns how they must end.
func (w *world) checkTasks(result *Result) map[string]Record {
	names, got := map[string]bool{}, []string{}
	for _, r := range result.Steps {
		if names[r.Step] {
			w.t.Errorf("two tasks are named %s", r.Step)
		}
		names[r.Step] = true
		got = append(got, r.Step)
	}
	for name := range w.facts.Steps {
		if !names[name] {
			w.t.Errorf("%s is committed, and not in the result", name)
		}
	}
	if w.facts.Run.Stop == "" && !w.loose && !slices.Equal(got, w.refOrder) {
		w.t.Errorf("the tasks are %v; want %v", got, w.refOrder)
	}
	want := map[string]Record{}
	for name, t := range w.ref {
		want[name] = t.Record
	}
	return want
}
