package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/kfs-project/kfs/dag"
)

// This file tests blocks: whole runs of small pipelines on an executor whose
// steps give back what they are given. Each is run once without a fault, and
// once for each of its commits with a driver that ends there and another one
// that takes over.

// A script makes a pipeline the way a script does, block in block.
type script struct {
	p    *dag.Pipeline
	open []string
}

func (s *script) group() string {
	if len(s.open) == 0 {
		return ""
	}
	return s.open[len(s.open)-1]
}

// step adds a step whose output o is the text; "fail" makes it fail.
func (s *script) step(name, text string, after ...string) *dag.Step {
	st := &dag.Step{
		Name: name, Group: s.group(), Outputs: []dag.Output{{Name: "o", Path: "/o"}},
		Container: dag.Object{{Name: "image", Value: "i"}, {Name: "args", Value: []any{text}}},
	}
	for _, a := range after {
		st.After = append(st.After, dag.Edge{Step: a})
	}
	s.p.Steps = append(s.p.Steps, st)
	return st
}

func (s *script) block(g *dag.Group, body func()) *dag.Group {
	g.Group = s.group()
	s.p.Groups = append(s.p.Groups, g)
	s.open = append(s.open, g.Name)
	body()
	s.open = s.open[:len(s.open)-1]
	return g
}

func (s *script) cond(name string, c *dag.Condition, body func()) *dag.Group {
	return s.block(&dag.Group{Name: name, Kind: dag.GroupCondition, Condition: c}, body)
}

func (s *script) loop(name string, l dag.Loop, parallelism int, body func()) *dag.Group {
	l.Item = name
	return s.block(&dag.Group{Name: name, Kind: dag.GroupLoop, Loop: &l, Parallelism: parallelism}, body)
}

// graph adds a function of one argument, x, and call another round of it.
func (s *script) graph(name, x string, body func()) *dag.Group {
	return s.block(&dag.Group{Name: name, Kind: dag.GroupGraph, Args: []dag.Arg{{Name: "x", Value: x}}}, body)
}

func (s *script) call(name, graph, x string) *dag.Group {
	return s.block(&dag.Group{Name: name, Kind: dag.GroupCall, Calls: graph, Args: []dag.Arg{{Name: "x", Value: x}}}, func() {})
}

func (s *script) exit(step string, body func()) *dag.Group {
	return s.block(&dag.Group{Name: "handler", Kind: dag.GroupExitHandler, Exit: step}, body)
}

func (s *script) sub(name string, parallelism int, body func()) *dag.Group {
	return s.block(&dag.Group{Name: name, Kind: dag.GroupSub, Parallelism: parallelism}, body)
}

func out(step string) string   { return dag.Ref{Kind: dag.RefOutput, Step: step, Name: "o"}.Token() }
func param(name string) string { return dag.Ref{Kind: dag.RefParam, Name: name}.Token() }
func item(loop string, part ...string) string {
	return dag.Ref{Kind: dag.RefItem, Step: loop, Name: strings.Join(part, "")}.Token()
}

func cmpOf(x, op, y string) *dag.Condition             { return &dag.Condition{Op: op, X: x, Y: y} }
func of(op string, c ...*dag.Condition) *dag.Condition { return &dag.Condition{Op: op, Of: c} }
func list(items ...any) dag.Loop                       { return dag.Loop{Items: items} }
func from(text string) dag.Loop                        { return dag.Loop{From: text} }

// An echoRun is a run of a script.
type echoRun struct {
	*fake
	again []string // attempts that Start was called for once more
}

func (e *echoRun) Start(ctx context.Context, a *Attempt) error {
	e.mu.Lock()
	if e.known[a.ID] != nil {
		e.again = append(e.again, a.Step)
	}
	e.mu.Unlock()
	return e.fake.Start(ctx, a)
}

// Stop stops all but what is deaf.
func (e *echoRun) Stop(ctx context.Context, id string, why Cause, force bool) error {
	if strings.HasPrefix(id, "deaf") {
		return nil
	}
	return e.fake.Stop(ctx, id, why, force)
}

// echo says what an attempt does: it runs for a second and leaves its
// argument. "fail" fails, "slow" runs for a minute, "dec N" leaves N-1.
func echo(a *Attempt) Observation {
	text := a.Container.Get("args").([]any)[0].(string)
	time.Sleep(time.Second)
	var n int
	switch {
	case text == "fail":
		return exits(1, nil)
	case text == "raw": // an output that looks like a token
		text = `["` + dag.Ref{Kind: dag.RefRunID}.Token() + `"]`
	case text == "slow":
		time.Sleep(time.Minute)
	case strings.HasPrefix(text, "dec "):
		if _, err := fmt.Sscanf(text, "dec %d", &n); err != nil {
			return exits(2, nil)
		}
		text = fmt.Sprint(n - 1)
	}
	return exits(0, map[string]string{"o": text})
}

// show renders how a run ended, a task a line: with its output, or why it has
// none; with the second at which it started, if times is set.
func show(r *Result, times bool) string {
	var b strings.Builder
	for _, s := range r.Steps {
		at := ""
		if times && !s.Started.IsZero() {
			at = fmt.Sprintf("@%d", int(s.Started.Sub(r.Started)/time.Second))
		}
		switch {
		case s.State == Succeeded:
			fmt.Fprintf(&b, "%s%s = %s\n", s.Step, at, s.Outputs["o"])
		case s.ByChoice:
			fmt.Fprintf(&b, "%s%s not: %s\n", s.Step, at, s.Reason)
		default:
			fmt.Fprintf(&b, "%s%s %s: %s\n", s.Step, at, s.State, s.Reason)
		}
	}
	return b.String() + string(r.State) + "\n"
}

// blockCases are scripts and how they end.
var blockCases = []struct {
	name   string
	script func(s *script)
	args   map[string]string
	times  bool
	stop   StopKind // at 1.5 s
	want   string
}{
	{name: "a condition on text", script: func(s *script) {
		s.step("flip", "heads")
		s.cond("c1", cmpOf(out("flip"), "==", "heads"), func() { s.step("heads", "h") })
		s.cond("c2", cmpOf(out("flip"), "!=", "heads"), func() { s.step("tails", "t") })
		s.step("end", "e", "heads", "tails")
		s.step("end2", "e", "c2")
	}, want: `flip = heads
heads = h
tails not: flip.outputs["o"] != "heads" does not hold
end = e
end2 = e
succeeded
`},
	{name: "conditions on numbers", args: map[string]string{"n": " 10 "}, script: func(s *script) {
		for i, c := range []*dag.Condition{
			cmpOf(param("n"), ">", "9"), cmpOf(param("n"), ">=", "10.0"), cmpOf(param("n"), "<=", "1e1"), cmpOf("-1", "<", param("n")),
			cmpOf(param("n"), "<", "9"), cmpOf(param("n"), ">", "10"), cmpOf(param("n"), "==", "10"),
		} {
			s.cond(fmt.Sprint("c", i), c, func() { s.step(fmt.Sprint("s", i), "x") })
		}
	}, want: `s0 = x
s1 = x
s2 = x
s3 = x
s4 not: n < "9" does not hold
s5 not: n > "10" does not hold
s6 not: n == "10" does not hold
succeeded
`},
	{name: "no numbers", args: map[string]string{"n": "many"}, script: func(s *script) {
		s.cond("c", cmpOf(param("n"), "<", "9"), func() { s.step("a", "x") })
		s.cond("either", of("any", cmpOf(param("n"), "==", "many"), cmpOf(param("n"), "<", "9")), func() { s.step("b", "x") })
		s.cond("not", of("not", cmpOf(param("n"), "<", "9")), func() { s.step("c1", "x") })
		s.step("d", "x", "c")
	}, want: `a skipped: n < "9" compares "many" with "9": want two numbers
b = x
c1 skipped: n < "9" compares "many" with "9": want two numbers
d skipped: n < "9" compares "many" with "9": want two numbers
failed
`},
	{name: "combined", args: map[string]string{"n": "5"}, script: func(s *script) {
		yes, no := cmpOf(param("n"), ">", "4"), cmpOf(param("n"), ">", "5")
		for i, c := range []*dag.Condition{
			of("all", yes, yes), of("all", yes, no), of("any", no, yes), of("any", no, no), of("not", no), of("not", yes),
			of("all", of("not", no), of("any", no, yes)),
		} {
			s.cond(fmt.Sprint("c", i), c, func() { s.step(fmt.Sprint("s", i), "x") })
		}
	}, want: `s0 = x
s1 not: all_of(n > "4", n > "5") does not hold
s2 = x
s3 not: any_of(n > "5", n > "5") does not hold
s4 = x
s5 not: not_(n > "4") does not hold
s6 = x
succeeded
`},
	{name: "a failed need is no choice", script: func(s *script) {
		s.step("bad", "fail")
		s.step("good", "g")
		s.cond("on-failed", cmpOf(out("bad"), "==", "x"), func() { s.step("a", "x") })
		s.cond("holds", cmpOf(out("good"), "==", "g"), func() {
			s.step("b", "x", "bad") // so that the block comes after it
			s.step("b2", "x")
		})
		s.cond("not", cmpOf(out("good"), "==", "x"), func() { s.step("c", "x") }).After = []dag.Edge{{Step: "bad"}}
		s.cond("not2", cmpOf(out("good"), "==", "x"), func() { s.step("d", "x") })
		s.step("e", "x", "not")
		s.step("f", "x", "not2")
	}, want: `bad failed: exited with 1
good = g
a skipped: step "bad" failed
b skipped: step "bad" failed
b2 skipped: step "bad" failed
c skipped: step "bad" failed
d not: good.outputs["o"] == "x" does not hold
e skipped: step "bad" failed
f = x
failed
`},
	{name: "a chain", args: map[string]string{"n": "2"}, script: func(s *script) {
		one, two := cmpOf(param("n"), "==", "1"), cmpOf(param("n"), "==", "2")
		not1, not2 := cmpOf(param("n"), "!=", "1"), cmpOf(param("n"), "!=", "2")
		s.cond("if", one, func() { s.step("a", "x") })
		s.cond("elif", of("all", not1, two), func() { s.step("b", "x") })
		s.cond("else", of("all", not1, not2), func() { s.step("c", "x") })
		s.step("d", "x", "if", "elif", "else")
	}, want: `a not: n == "1" does not hold
b = x
c not: all_of(n != "1", n != "2") does not hold
d = x
succeeded
`},
	{name: "nested", args: map[string]string{"n": "2"}, script: func(s *script) {
		yes, no := cmpOf(param("n"), "==", "2"), cmpOf(param("n"), "==", "1")
		s.cond("y", yes, func() {
			s.step("a", "a")
			s.cond("yn", cmpOf(out("a"), "==", "b"), func() {
				s.step("b", "x")
				s.loop("l", list(1, 2), 0, func() { s.step("c", item("l")) })
			})
			s.cond("yy", cmpOf(out("a"), "==", "a"), func() { s.step("d", out("a")+"!") })
			s.step("e", "x", "yn", "yy")
		})
		s.cond("n", no, func() {
			s.cond("ny", yes, func() { s.step("f", "x") })
			s.loop("m", from(param("n")), 0, func() { s.step("g", item("m")) })
			s.step("h", "fail", "f", "g")
		})
		s.step("i", "x", "n", "y")
	}, want: `a = a
b not: a.outputs["o"] == "b" does not hold
c[0] not: a.outputs["o"] == "b" does not hold
c[1] not: a.outputs["o"] == "b" does not hold
d = a!
e = x
f not: n == "1" does not hold
g not: n == "1" does not hold
h not: n == "1" does not hold
i = x
succeeded
`},
	{name: "items of a list in the script", args: map[string]string{"who": `a "b" <c> \ you`}, script: func(s *script) {
		s.step("say", "said")
		s.loop("l1", list("a", "b c"), 0, func() { s.step("text", item("l1")) })
		s.loop("l2", list(1, 2.5, true), 0, func() { s.step("number", item("l2")) })
		s.loop("l3", list(dag.Object{{Name: "k", Value: 1}, {Name: "s", Value: "x"}, {Name: "t", Value: []any{1}}}), 0, func() {
			s.step("part", item("l3", "k")+"/"+item("l3", "s")+"/"+item("l3", "t"))
			s.step("whole", item("l3"))
		})
		s.loop("l4", list([]any{1, "x"}), 0, func() { s.step("list", item("l4")) })
		s.loop("l5", list(param("who"), "by "+out("say")), 0, func() { s.step("value", item("l5")) })
		s.loop("l6", list(dag.Object{{Name: "w", Value: "to " + param("who")}}), 0, func() {
			s.step("inpart", item("l6", "w"))
			s.step("inwhole", item("l6"))
		})
		s.step("end", "e", "l5")
	}, want: `say = said
text[0] = a
text[1] = b c
number[0] = 1
number[1] = 2.5
number[2] = true
part[0] = 1/x/[1]
whole[0] = {"k":1,"s":"x","t":[1]}
list[0] = [1,"x"]
value[0] = a "b" <c> \ you
value[1] = by said
inpart[0] = to a "b" <c> \ you
inwhole[0] = {"w":"to a \"b\" <c> \\ you"}
end = e
succeeded
`},
	{name: "a list that the run gives", args: map[string]string{"p": ` [ ] `}, script: func(s *script) {
		s.step("l", `[1, "two", {"k": [1, 2]}, null, false, "a<b"]`)
		s.step("one", `["only"]`)
		s.loop("all", from(out("l")), 0, func() {
			s.step("a", item("all"))
			s.step("b", out("a")+"'")
		})
		s.loop("single", from(out("one")), 0, func() { s.step("c", item("single")) })
		s.loop("none", from(param("p")), 0, func() {
			s.step("d", item("none"))
			s.cond("in-none", cmpOf(item("none"), "<", "1"), func() { s.step("d2", "x") })
			s.loop("none-in-none", from(out("one")), 0, func() { s.step("d3", "x") })
			s.loop("list-in-none", list(1), 0, func() { s.step("d4", "x") })
		})
		s.step("end", "e", "all", "single", "none")
	}, want: `l = [1, "two", {"k": [1, 2]}, null, false, "a<b"]
one = ["only"]
a[0] = 1
b[0] = 1'
a[1] = two
b[1] = two'
a[2] = {"k":[1,2]}
b[2] = {"k":[1,2]}'
a[3] = null
b[3] = null'
a[4] = false
b[4] = false'
a[5] = a<b
b[5] = a<b'
c[0] = only
d not: the loop has no items
d2 not: the loop has no items
d3 not: the loop has no items
d4[0] not: the loop has no items
end = e
succeeded
`},
	{name: "objects", script: func(s *script) {
		s.step("l", `[{"k": 1, "t": "x"}, {"k": null, "t": "y", "u": 0}]`)
		s.loop("m", from(out("l")), 0, func() {
			s.step("a", item("m", "k")+item("m", "t"))
			s.cond("c", cmpOf(item("m", "t"), "==", "y"), func() { s.step("b", item("m", "t")) })
		})
		s.loop("parts", from(out("l")), 0, func() {
			s.cond("d", cmpOf(item("parts", "u"), "==", "0"), func() { s.step("e", "x") })
		})
	}, want: `l = [{"k": 1, "t": "x"}, {"k": null, "t": "y", "u": 0}]
a[0] = 1x
b[0] not: item.t == "y" does not hold
a[1] = nully
b[1] = y
e failed: item 0 of the loop, from l.outputs["o"] is {"k":1,"t":"x"}: want an object with "u"
failed
`},
	{name: "no list", script: func(s *script) {
		s.step("l", "not a list")
		s.step("null", "null")
		s.step("one", "[1]")
		s.loop("m", from(out("l")), 0, func() {
			s.step("a", item("m"))
			s.step("b", out("a"))
			s.cond("c", cmpOf(item("m"), "==", "x"), func() { s.step("d", "x") })
			s.loop("n", from(out("one")), 0, func() { s.step("e", "x") })
		})
		s.loop("only", from(out("null")), 0, func() {
			s.cond("c2", cmpOf(item("only"), "==", "x"), func() { s.step("f", "x") })
		})
		s.step("end", "e", "m")
	}, want: `l = not a list
null = null
one = [1]
a failed: the items of the loop, from l.outputs["o"] are "not a list": want a JSON list
b skipped: step "a" failed
d failed: the items of the loop, from l.outputs["o"] are "not a list": want a JSON list
e failed: the items of the loop, from l.outputs["o"] are "not a list": want a JSON list
f failed: the items of the loop, from null.outputs["o"] are "null": want a JSON list
end skipped: step "a" failed
failed
`},
	{name: "an item is data", script: func(s *script) {
		s.step("l", "raw")
		s.loop("m", from(out("l")), 0, func() { s.step("a", item("m")); s.step("b", item("m")) })
	}, want: "l = [\"" + dag.Ref{Kind: dag.RefRunID}.Token() + "\"]\na[0] = " + dag.Ref{Kind: dag.RefRunID}.Token() +
		"\nb[0] = " + dag.Ref{Kind: dag.RefRunID}.Token() + "\nsucceeded\n"},
	{name: "loops in loops", script: func(s *script) {
		s.step("l", `["x", "y"]`)
		s.loop("m", from(out("l")), 0, func() {
			s.step("inner", `["`+item("m")+`1", "`+item("m")+`2"]`)
			s.loop("n", from(out("inner")), 0, func() {
				s.step("a", item("m")+item("n"))
				s.loop("o", list("p", item("n")), 0, func() { s.step("b", out("a")+"."+item("o")+"."+out("inner")) })
			})
			s.step("after", "in "+item("m"), "n")
		})
		s.step("end", "e", "b")
	}, want: `l = ["x", "y"]
inner[0] = ["x1", "x2"]
a[0][0] = xx1
b[0][0][0] = xx1.p.["x1", "x2"]
b[0][0][1] = xx1.x1.["x1", "x2"]
a[0][1] = xx2
b[0][1][0] = xx2.p.["x1", "x2"]
b[0][1][1] = xx2.x2.["x1", "x2"]
after[0] = in x
inner[1] = ["y1", "y2"]
a[1][0] = yy1
b[1][0][0] = yy1.p.["y1", "y2"]
b[1][0][1] = yy1.y1.["y1", "y2"]
a[1][1] = yy2
b[1][1][0] = yy2.p.["y1", "y2"]
b[1][1][1] = yy2.y2.["y1", "y2"]
after[1] = in y
end = e
succeeded
`},
	{name: "a loop that is over before the list around it is known", script: func(s *script) {
		s.step("early", `["a"]`)
		s.step("late", "slow")
		s.step("l", `[]`, "late")
		s.loop("m", from(out("l")), 0, func() {
			s.loop("n", from(out("early")), 0, func() { s.step("x", item("n")) })
		})
	}, want: `early = ["a"]
late = slow
l = []
x not: the loop has no items
succeeded
`},
	{name: "a choice about items that are not known yet", args: map[string]string{"p": `["x"]`, "no": "n"}, script: func(s *script) {
		s.cond("never", cmpOf(param("no"), "==", "y"), func() { s.step("a", "x") })
		s.loop("m", from(param("p")), 0, func() {
			s.cond("c", cmpOf(item("m"), "==", "x"), func() { s.step("b", item("m")) })
		}).After = []dag.Edge{{Step: "a"}}
		s.step("end", "e", "m")
	}, want: `a not: no == "y" does not hold
b[0] = x
end = e
succeeded
`},
	{name: "one of, and all of", args: map[string]string{"n": "2", "none": "[]"}, script: func(s *script) {
		collected := func(step string) string { return dag.Ref{Kind: dag.RefCollected, Step: step, Name: "o"}.Token() }
		either := dag.OneOf([]dag.Ref{{Kind: dag.RefOutput, Step: "a", Name: "o"}, {Kind: dag.RefOutput, Step: "b", Name: "o"}})
		s.cond("if", cmpOf(param("n"), "==", "1"), func() { s.step("a", "is a") }).Chain = "if"
		s.cond("else", cmpOf(param("n"), "!=", "1"), func() { s.step("b", "is b") }).Chain = "if"
		s.step("which", either.Token())
		s.loop("outer", list("p", "q"), 0, func() {
			s.loop("inner", list("<x>", 2), 0, func() { s.step("c", item("outer")+item("inner")) })
			s.step("all", collected("c"))
			s.loop("again", from(collected("c")), 0, func() { s.step("d", item("again")) })
		})
		s.loop("empty", from(param("none")), 0, func() { s.step("e", "x") })
		s.step("no", collected("e"))
	}, want: `a not: n == "1" does not hold
b = is b
which = is b
c[0][0] = p<x>
c[0][1] = p2
all[0] = ["p<x>","p2"]
d[0][0] = p<x>
d[0][1] = p2
c[1][0] = q<x>
c[1][1] = q2
all[1] = ["q<x>","q2"]
d[1][0] = q<x>
d[1][1] = q2
e not: the loop has no items
no = []
succeeded
`},
	{name: "failure in a round", script: func(s *script) {
		s.loop("m", list("a", "fail", "c"), 0, func() {
			s.step("x", item("m"))
			s.step("y", out("x"))
		})
		s.step("end", "e", "m")
		s.step("other", "o")
	}, want: `x[0] = a
y[0] = a
x[1] failed: exited with 1
y[1] skipped: step "x[1]" failed
x[2] = c
y[2] = c
end skipped: step "x[1]" failed
other = o
failed
`},
	{name: "rounds at once", times: true, script: func(s *script) {
		s.loop("m", list(0, 1, 2, 3, 4), 2, func() {
			s.step("a", item("m"))
			s.step("b", out("a"))
		})
	}, want: `a[0]@0 = 0
b[0]@1 = 0
a[1]@0 = 1
b[1]@1 = 1
a[2]@2 = 2
b[2]@3 = 2
a[3]@2 = 3
b[3]@3 = 3
a[4]@4 = 4
b[4]@5 = 4
succeeded
`},
	{name: "rounds at once, in rounds", times: true, script: func(s *script) {
		s.step("l", `["x", "fail", "z"]`)
		s.loop("m", from(out("l")), 1, func() {
			s.step("a", item("m"))
			s.loop("n", list("p", "q"), 1, func() { s.step("b", out("a")+item("n")) })
		})
	}, want: `l@0 = ["x", "fail", "z"]
a[0]@1 = x
b[0][0]@2 = xp
b[0][1]@3 = xq
a[1]@4 failed: exited with 1
b[1][0] skipped: step "a[1]" failed
b[1][1] skipped: step "a[1]" failed
a[2]@5 = z
b[2][0]@6 = zp
b[2][1]@7 = zq
failed
`},
	{name: "tasks at once", times: true, script: func(s *script) {
		s.sub("g", 2, func() {
			for i := range 3 {
				s.step(fmt.Sprint("a", i), "x")
			}
			s.sub("h", 1, func() { s.step("b", "x"); s.step("c", "x") })
		})
		s.step("free", "x")
		s.step("end", "x", "g")
	}, want: `a0@0 = x
a1@0 = x
a2@1 = x
b@1 = x
c@2 = x
free@0 = x
end@3 = x
succeeded
`},
	{name: "order between blocks and steps", times: true, script: func(s *script) {
		s.step("a", "x")
		s.sub("g", 0, func() { s.step("b", "x"); s.step("c", "x", "b") }).After = []dag.Edge{{Step: "a"}}
		s.loop("l", list(1, 2), 0, func() { s.step("d", "x") }).After = []dag.Edge{{Step: "g"}}
		s.step("e", "x", "l")
		s.step("f", "x", "b") // a step in a block: after the block
		s.sub("i", 0, func() { s.step("h", "x", "d") })
	}, want: `a@0 = x
b@1 = x
c@2 = x
d[0]@3 = x
d[1]@3 = x
e@4 = x
f@3 = x
h@4 = x
succeeded
`},
	{name: "exit handler", times: true, script: func(s *script) {
		s.step("cleanup", "c")
		s.exit("cleanup", func() { s.step("a", "x"); s.step("b", out("a")) })
		s.step("c", "slow")
	}, want: `cleanup@61 = c
a@0 = x
b@1 = x
c@0 = slow
succeeded
`},
	{name: "exit handler after a failure", times: true, script: func(s *script) {
		s.exit("cleanup", func() { s.step("a", "fail"); s.step("b", out("a")) })
		s.step("cleanup", "c")
	}, want: `a@0 failed: exited with 1
b skipped: step "a" failed
cleanup@1 = c
failed
`},
	{name: "exit handler that fails", times: true, script: func(s *script) {
		s.exit("cleanup", func() { s.step("a", "x") })
		s.step("cleanup", "fail").Retry = &dag.Retry{Limit: "1", Backoff: "10"}
	}, want: `a@0 = x
cleanup@1 failed: exited with 1; after 1 retries
failed
`},
	{name: "exit handler that takes too long", times: true, script: func(s *script) {
		s.exit("cleanup", func() { s.step("a", "x") })
		s.step("cleanup", "slow").Timeout = "5"
	}, want: `a@0 = x
cleanup@1 failed: timed out after 5s
failed
`},
	{name: "exit handler after what the run unfolds", times: true, script: func(s *script) {
		s.step("cleanup", "c")
		s.exit("cleanup", func() {
			s.step("l", `["x"]`)
			s.loop("m", from(out("l")), 0, func() { s.step("a", item("m")) })
		})
	}, want: `cleanup@2 = c
l@0 = ["x"]
a[0]@1 = x
succeeded
`},
	{name: "exit handler after a stop", times: true, stop: StopGraceful, script: func(s *script) {
		s.exit("cleanup", func() { s.step("a", "slow"); s.step("b", out("a")); s.step("c", "x"); s.step("d", "x", "c") })
		s.step("cleanup", "c")
	}, want: `a@0 cancelled: the run was stopped
b cancelled: the run was stopped
c@0 = x
d@1 cancelled: the run was stopped
cleanup@1 = c
cancelled
`},
	{name: "exit handler after a stop that takes time", times: true, stop: StopGraceful, script: func(s *script) {
		s.exit("cleanup", func() { s.step("deaf", "slow") })
		s.step("cleanup", "c")
	}, want: `deaf@0 = slow
cleanup@61 = c
succeeded
`},
	{name: "exit handler after a stop by force that takes time", times: true, stop: StopForce, script: func(s *script) {
		s.exit("cleanup", func() { s.step("deaf", "slow") })
		s.step("cleanup", "c")
	}, want: `deaf@0 = slow
cleanup cancelled: the run was stopped
cancelled
`},
	{name: "exit handler that fails after a stop", times: true, stop: StopGraceful, script: func(s *script) {
		s.exit("cleanup", func() { s.step("a", "slow") })
		s.step("cleanup", "fail").Retry = &dag.Retry{Limit: "1", Backoff: "10"}
	}, want: `a@0 cancelled: the run was stopped
cleanup@1 failed: exited with 1; after 1 retries
cancelled
`},
	{name: "exit handler after a stop by force", times: true, stop: StopForce, script: func(s *script) {
		s.exit("cleanup", func() { s.step("a", "slow") })
		s.step("cleanup", "c")
	}, want: `a@0 cancelled: the run was stopped
cleanup cancelled: the run was stopped
cancelled
`},
	{name: "a loop whose list comes after a stop", stop: StopGraceful, times: true, script: func(s *script) {
		s.step("a", "x")
		s.step("deaf", "[1, 2]", "a")
		s.loop("m", from(out("deaf")), 0, func() { s.step("b", item("m")) })
	}, want: `a@0 = x
deaf@1 = [1, 2]
b cancelled: the run was stopped
cancelled
`},
	{name: "recursion", args: map[string]string{"n": "3"}, script: func(s *script) {
		s.graph("count", param("n"), func() {
			s.step("dec", "dec "+param("n"))
			s.cond("more", cmpOf(out("dec"), ">", "0"), func() {
				s.step("say", param("n")+" and "+out("dec"))
				s.call("again", "count", out("dec"))
			})
			s.step("last", "of "+param("n"), "more")
		})
		s.step("end", "e "+out("dec"), "count")
	}, want: `dec = 2
say = 3 and 2
dec~1 = 1
say~1 = 2 and 1
dec~2 = 0
say~2 not: dec.outputs["o"] > "0" does not hold
last~2 = of 1
last~1 = of 2
last = of 3
end = e 2
succeeded
`},
	{name: "recursion that fails", args: map[string]string{"n": "2"}, script: func(s *script) {
		s.graph("count", param("n"), func() {
			s.step("dec", "dec "+param("n"))
			s.cond("more", cmpOf(out("dec"), ">", "0"), func() { s.call("again", "count", out("dec")) })
			s.cond("zero", cmpOf(out("dec"), "==", "0"), func() { s.step("bad", "fail") })
			s.step("last", "x", "more")
		})
		s.step("end", "e", "count")
	}, want: `dec = 1
bad not: dec.outputs["o"] == "0" does not hold
last skipped: step "bad~1" failed
dec~1 = 0
bad~1 failed: exited with 1
last~1 = x
end skipped: step "bad~1" failed
failed
`},
	{name: "recursion in a loop, and a loop in a recursion", script: func(s *script) {
		s.loop("m", list("1", "2"), 0, func() {
			s.graph("g", item("m"), func() {
				s.step("a", "dec "+item("m"))
				s.step("l", `["`+item("m")+`"]`)
				s.loop("n", from(out("l")), 0, func() {
					s.step("b", out("a")+" "+item("n")+" "+item("m"))
					s.cond("c", cmpOf(out("a"), ">", "0"), func() { s.call("again", "g", out("a")) })
				})
			})
		})
	}, want: `a[0] = 0
l[0] = ["1"]
b[0][0] = 0 1 1
a[1] = 1
l[1] = ["2"]
b[1][0] = 1 2 2
a[1][0]~1 = 0
l[1][0]~1 = ["1"]
b[1][0]~1[0] = 0 1 1
succeeded
`},
	{name: "two calls", args: map[string]string{"n": "3"}, script: func(s *script) {
		s.graph("g", param("n"), func() {
			s.step("a", "dec "+param("n"))
			s.step("b", "dec "+out("a"))
			s.cond("c", cmpOf(out("a"), ">", "0"), func() {
				s.call("first", "g", out("a"))
				s.call("second", "g", out("b"))
			})
		})
		s.step("end", "e", "g")
	}, want: `a = 2
b = 1
a~1.1 = 1
b~1.1 = 0
a~2.1 = 0
b~2.1 = -1
a~1.1~2.2 = -1
b~1.1~2.2 = -2
a~1.2 = 0
b~1.2 = -1
end = e
succeeded
`},
	{name: "a recursion that calls the one around it", args: map[string]string{"n": "4"}, script: func(s *script) {
		s.graph("g", param("n"), func() {
			s.step("a", "dec "+param("n"))
			s.graph("h", out("a"), func() {
				s.step("b", "dec "+out("a"))
				s.cond("more", cmpOf(out("b"), ">", "1"), func() { s.call("call-h", "h", out("b")) })
				s.cond("last", cmpOf(out("b"), "==", "1"), func() { s.call("call-g", "g", out("b")) })
			})
		})
	}, want: `a = 3
b = 2
b~1.1 = 1
a~1.1~1.2 = 0
b~1.1~1.2 = -1
succeeded
`},
	{name: "a recursion in a recursion", args: map[string]string{"n": "2", "m": "2"}, script: func(s *script) {
		s.graph("g", param("n"), func() {
			s.step("a", "dec "+param("n"))
			s.graph("h", param("m"), func() {
				s.step("b", "dec "+param("m"))
				s.step("c", param("n")+param("m"))
				s.cond("again-h", cmpOf(out("b"), ">", "0"), func() { s.call("call-h", "h", out("b")) })
			})
			s.cond("again-g", cmpOf(out("a"), ">", "0"), func() { s.call("call-g", "g", out("a")) })
		})
	}, want: `a = 1
b = 1
c = 22
b~1.1 = 0
c~1.1 = 21
a~1.2 = 0
b~1.2 = 1
c~1.2 = 12
b~1.2~1.1 = 0
c~1.2~1.1 = 11
succeeded
`},
}

func TestBlocks(t *testing.T) {
	for _, tt := range blockCases {
		t.Run(tt.name, func(t *testing.T) {
			s := &script{p: &dag.Pipeline{Name: "p"}}
			tt.script(s)
			for name := range tt.args {
				s.p.Params = append(s.p.Params, &dag.Param{Name: name})
			}
			if err := s.p.Validate(); err != nil {
				t.Fatal(err)
			}
			// end is how many commits the first driver makes; it is cut off
			// before it has made them all, but for the first time.
			var end, commits int
			for commits = 1 << 30; end <= commits; end++ {
				synctest.Test(t, func(t *testing.T) {
					f := &echoRun{fake: &fake{}}
					f.do = echo
					store := &cutStore{left: end - 1}
					if end == 0 {
						store.left = 1 << 30
					}
					stop := make(chan StopKind, 2)
					if tt.stop != "" {
						time.AfterFunc(1500*time.Millisecond, func() { stop <- tt.stop })
					}
					begin := time.Now()
					var result *Result
					ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
					defer cancel()
					for result == nil {
						r, err := Run(ctx, f, s.p, RunInfo{ID: "r", Args: tt.args}, Config{Store: store, Stop: stop})
						if err != nil && (store.left >= 0 || ctx.Err() != nil) {
							t.Fatalf("after %d commits of the first driver: %v; started %v", end-1, err, f.starts)
						}
						result = r
						if store.left < 0 {
							store.left = 1 << 30
							if tt.stop != "" && time.Since(begin) > time.Second {
								stop <- tt.stop // the first one may be lost
							}
						}
					}
					if end == 0 {
						commits = store.n
					}
					if diff := cmp.Diff(tt.want, show(result, tt.times)); diff != "" {
						t.Errorf("after %d commits of the first driver (-want +got):\n%s", end-1, diff)
					}
					if f.again != nil {
						t.Errorf("after %d commits of the first driver, started again: %v", end-1, f.again)
					}
					store.check(t, result)
					time.Sleep(time.Hour)
				})
				if t.Failed() {
					return
				}
			}
		})
	}
}

// A cutStore makes a driver end after so many commits.
type cutStore struct {
	MemStore
	left, n int
}

func (s *cutStore) Commit(ctx context.Context, epoch int64, run *RunRecord, steps []Record) error {
	if s.left--; s.left < 0 {
		return ErrStale
	}
	s.n++
	return s.MemStore.Commit(ctx, epoch, run, steps)
}

// check checks that what is committed is what the result has.
func (s *cutStore) check(t *testing.T, r *Result) {
	names := map[string]bool{}
	for _, rec := range r.Steps {
		if names[rec.Step] {
			t.Errorf("two tasks are named %s", rec.Step)
		}
		names[rec.Step] = true
	}
	for name := range s.facts.Steps {
		if !names[name] {
			t.Errorf("%s is committed, and not in the result", name)
		}
	}
	if len(s.facts.Steps) != len(names) {
		t.Errorf("%d steps are committed, %d in the result", len(s.facts.Steps), len(names))
	}
}

// TestMaxRounds shows that a graph does not call itself for ever, neither one
// that runs its steps each time nor one that needs none of them.
func TestMaxRounds(t *testing.T) {
	defer func(n int) { maxRounds = n }(maxRounds)
	maxRounds = 50
	for _, tt := range []struct {
		name string
		arg  string
	}{
		{"each round needs the one before", out("a")},
		{"nothing is needed", param("n")},
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &script{p: &dag.Pipeline{Name: "p", Params: []*dag.Param{{Name: "n"}}}}
			s.graph("g", param("n"), func() {
				s.step("a", param("n"))
				s.call("again", "g", tt.arg)
			})
			f := &fake{do: func(a *Attempt) Observation { return exits(0, map[string]string{"o": "x"}) }}
			r, err := Run(t.Context(), f, s.p, RunInfo{ID: "r", Args: map[string]string{"n": "1"}}, Config{})
			if err != nil {
				t.Fatal(err)
			}
			last := r.Steps[len(r.Steps)-1]
			want := fmt.Sprintf("g called itself more than %d times", maxRounds)
			if r.State != Failed || len(r.Steps) != maxRounds+2 || last.State != Failed || last.Reason != want || last.Attempts != nil {
				t.Errorf("%s: %s, %d tasks, the last %+v", tt.name, r.State, len(r.Steps), last)
			}
			if i := slices.IndexFunc(r.Steps[:maxRounds+1], func(r Record) bool { return r.State != Succeeded }); i >= 0 {
				t.Errorf("%s: %+v", tt.name, r.Steps[i])
			}
		})
	}
}

// TestFillLater shows that an attempt's texts can be filled in when the tasks
// are others already.
func TestFillLater(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &script{p: &dag.Pipeline{Name: "p"}}
		s.step("l", `["x", "y", "z"]`)
		s.step("v", "value")
		s.loop("m", from(out("l")), 0, func() { s.step("a", item("m")) })
		s.step("b", out("v")).Timeout = "1000"
		var attempt *Attempt
		f := &fake{do: func(a *Attempt) Observation {
			if a.Step == "b" {
				attempt = a
			}
			return echo(a)
		}}
		if _, err := Run(t.Context(), f, s.p, RunInfo{ID: "r"}, Config{}); err != nil {
			t.Fatal(err)
		}
		if got := attempt.Fill(out("v") + dag.Ref{Kind: dag.RefRunID}.Token()); got != "valuer" {
			t.Errorf("Fill gives %q", got)
		}
	})
}
