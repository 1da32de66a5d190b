package dag

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// graph returns a pipeline of the steps that the text names, a line each: a
// name, then the steps it comes after, those with a bang by their output "o".
// A line gives its number to its positions.
func graph(text string) *Pipeline {
	p := &Pipeline{Name: "p"}
	for i, line := range strings.Split(strings.TrimSpace(text), "\n") {
		words := strings.Fields(line)
		s := step(words[0], i+1)
		for j, need := range words[1:] {
			if name, ok := strings.CutSuffix(need, "!"); ok {
				s.Container.Append("args", Ref{Kind: RefOutput, Step: name, Name: "o"}.Token())
			} else {
				s.After = append(s.After, Edge{need, Pos{"in.star", i + 1, j + 2}})
			}
		}
		p.Steps = append(p.Steps, s)
	}
	return p
}

func step(name string, line int) *Step {
	at := Pos{"in.star", line, 1}
	return &Step{Name: name, Pos: at, Container: Object{{"image", "i"}}, Outputs: []Output{{Name: "o", Path: "/o", Pos: at}}}
}

func stepNames(steps []*Step) string {
	var names []string
	for _, s := range steps {
		names = append(names, s.Name)
	}
	return strings.Join(names, " ")
}

func TestOrder(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"a\nb\nc", "a b c"},
		{"a b\nb\nc", "b a c"},
		{"d c!\nb\nc b\na", "b c d a"},
		{"e a!\nd a\na\nb", "a e d b"},
		{"a b b!\nb", "b a"},   // one step needed twice
		{"a nobody\nb", "a b"}, // Validate's to report
	} {
		got, err := graph(tt.in).Order()
		if err != nil || stepNames(got) != tt.want {
			t.Errorf("Order of %q = %s, %v; want %s", tt.in, stepNames(got), err, tt.want)
		}
	}
	p := graph("a\nb\nc\nd c b! c! a b")
	if got, want := p.Edges()["d"], []string{"a", "b", "c"}; !slices.Equal(got, want) {
		t.Errorf("Edges of d = %q; want %q", got, want)
	}
}

func TestOrderCycles(t *testing.T) {
	long := &strings.Builder{}
	for i := range 30 {
		fmt.Fprintf(long, "s%d s%d\n", i, (i+1)%30)
	}
	for _, tt := range []struct{ in, want string }{
		{"a a", `in.star:1:2: step "a" needs itself`},
		{"a a!", `in.star:1:1: step "a" needs itself`},
		{"a b\nb a", `in.star:2:2: cycle: a -> b -> a, where each step needs the next one`},
		{"a b\nb a a a!", `in.star:2:2: cycle: a -> b -> a, where each step needs the next one`},
		{"x a\na b!\nb c\nc a!\ny", `in.star:4:1: cycle: a -> b -> c -> a, where each step needs the next one`},
		{"a b\nb a\nc d\nd c!", "in.star:2:2: cycle: a -> b -> a, where each step needs the next one\n" +
			"in.star:4:1: cycle: c -> d -> c, where each step needs the next one"},
		{"a b\nb a c\nc b", "in.star:2:2: cycle: a -> b -> a, where each step needs the next one\n" +
			"in.star:3:2: cycle: b -> c -> b, where each step needs the next one"},
		{"a c\nb a\nc a b", "in.star:3:2: cycle: a -> c -> a, where each step needs the next one\n" +
			"in.star:3:3: cycle: a -> c -> b -> a, where each step needs the next one"},
		{long.String(), "in.star:30:2: cycle: s0 -> s1 -> s2 -> s3 -> s4 -> s5 -> s6 -> s7 -> s8 -> s9 -> (10 more) -> " +
			"s20 -> s21 -> s22 -> s23 -> s24 -> s25 -> s26 -> s27 -> s28 -> s29 -> s0, where each step needs the next one"},
	} {
		order, err := graph(tt.in).Order()
		if order != nil || errText(err) != tt.want {
			t.Errorf("Order of %q = %s, %v\nwant %s", tt.in, stepNames(order), err, tt.want)
		}
	}
}

// On random graphs each step comes after its needs, and of the steps that
// could stand at a place the first of the script does.
func TestOrderRandom(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		p := randomDAG(r, 1+r.IntN(30), 3)
		order, err := p.Order()
		if err != nil || len(order) != len(p.Steps) {
			t.Fatalf("seed %d: Order: %d steps, %v; want %d", seed, len(order), err, len(p.Steps))
		}
		edges, done := p.Edges(), map[string]bool{}
		for _, got := range order {
			i := slices.IndexFunc(p.Steps, func(s *Step) bool {
				return !done[s.Name] && !slices.ContainsFunc(edges[s.Name], func(n string) bool { return !done[n] })
			})
			if p.Steps[i] != got {
				t.Fatalf("seed %d: Order has %q; want %q", seed, got.Name, p.Steps[i].Name)
			}
			done[got.Name] = true
		}
		if err := p.Validate(); err != nil {
			t.Errorf("seed %d: %v", seed, err)
		}
	}
}

// randomDAG returns n steps in random order, each with up to k needs.
func randomDAG(r *rand.Rand, n, k int) *Pipeline {
	p := &Pipeline{Name: "p"}
	for i := range n {
		s := step(fmt.Sprintf("s%d", i), i+1)
		for range r.IntN(k + 1) {
			if i == 0 {
				break
			}
			need := fmt.Sprintf("s%d", r.IntN(i))
			if r.IntN(2) == 0 {
				s.After = append(s.After, Edge{Step: need, Pos: s.Pos})
			} else {
				s.Container.Append("args", Ref{Kind: RefOutput, Step: need, Name: "o"}.Token())
			}
		}
		p.Steps = append(p.Steps, s)
	}
	r.Shuffle(n, func(i, j int) { p.Steps[i], p.Steps[j] = p.Steps[j], p.Steps[i] })
	return p
}

var sizes = []int{1_000, 10_000, 100_000}

func BenchmarkOrder(b *testing.B) {
	for _, n := range sizes {
		p := randomDAG(rand.New(rand.NewPCG(1, 1)), n, 4)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if _, err := p.Order(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkValidate(b *testing.B) {
	for _, n := range sizes {
		p := randomDAG(rand.New(rand.NewPCG(1, 1)), n, 4)
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				if err := p.Validate(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Steps whose shape or faults could cost the square of their number.
func BenchmarkValidateHard(b *testing.B) {
	const n = 100_000
	name := func(i int) string { return fmt.Sprintf("s%d", i) }
	shapes := map[string]func(i int, s *Step){
		"join": func(i int, s *Step) { // the last needs all
			for j := 0; i == n-1 && j < i; j++ {
				s.After = append(s.After, Edge{Step: name(j)})
			}
		},
		"cycles": func(i int, s *Step) { // each step closes a cycle with the first
			s.After = []Edge{{Step: name(0)}, {Step: name((i + 1) % n)}}
		},
		"unknown": func(i int, s *Step) { s.After = []Edge{{Step: "t" + name(i)}} },
		"outputs": func(i int, s *Step) {
			for j := 0; i == 0 && j < n; j++ {
				s.Outputs = append(s.Outputs, Output{Name: "x" + name(j), Path: "/x/" + name(j)})
			}
		},
	}
	for _, shape := range []string{"join", "cycles", "unknown", "outputs"} {
		p := &Pipeline{Name: "p"}
		for i := range n {
			s := step(name(i), i+1)
			shapes[shape](i, s)
			p.Steps = append(p.Steps, s)
		}
		b.Run(shape, func(b *testing.B) {
			for b.Loop() {
				p.Validate()
			}
		})
	}
}

// TestUsesOfOneOf shows that the pairs of its branches are looked at once, not
// for each step that uses it.
func TestUsesOfOneOf(t *testing.T) {
	const branches, uses = 1500, 300
	p := &Pipeline{Name: "p"}
	var outputs []Ref
	for i := range branches {
		g := &Group{Name: fmt.Sprintf("c%d", i), Kind: GroupCondition, Chain: "c0", Condition: &Condition{Op: "==", X: "a", Y: "b"}}
		s := &Step{Name: fmt.Sprintf("s%d", i), Group: g.Name, Container: Object{{"image", "i"}}, Outputs: []Output{{Name: "o", Path: "/o"}}}
		p.Groups, p.Steps = append(p.Groups, g), append(p.Steps, s)
		outputs = append(outputs, Ref{Kind: RefOutput, Step: s.Name, Name: "o"})
	}
	for i := range uses {
		p.Steps = append(p.Steps, &Step{Name: fmt.Sprintf("u%d", i), Container: Object{{"image", "i"}, {"args", []any{OneOf(outputs).Token()}}}})
	}
	start := time.Now()
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}
