package engine

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/kfs-project/kfs/dag"
)

// An instant is an executor whose attempts are over at once.
type instant struct {
	report func(Observation)
	known  []Observation
}

func (x *instant) Check(context.Context, *dag.Pipeline, map[string]string) error { return nil }
func (x *instant) Stop(context.Context, string, Cause, bool) error               { return nil }

func (x *instant) Observe(_ context.Context, _ RunInfo, report func(Observation)) error {
	x.report = report
	for _, o := range x.known {
		report(o)
	}
	return nil
}

func (x *instant) Start(_ context.Context, a *Attempt) error {
	text := a.Container.Get("args").([]any)[0].(string)
	o := Observation{ID: a.ID, Phase: PhaseFinished, Cause: Exited, Outputs: map[string]string{"o": text}}
	x.known = append(x.known, o)
	x.report(o)
	return nil
}

// BenchmarkRun runs many tasks in several shapes, with up to so many at once;
// the time of a task must not grow with their number by much.
func BenchmarkRun(b *testing.B) {
	list := func(n int) string { return "[" + strings.TrimSuffix(strings.Repeat("1,", n), ",") + "]" }
	for _, shape := range []struct {
		name string
		make func(s *script, n int)
	}{
		{"flat", func(s *script, n int) {
			for i := range n {
				s.step(fmt.Sprint("s", i), "x")
			}
		}},
		{"chain", func(s *script, n int) {
			for i := range n {
				st := s.step(fmt.Sprint("s", i), "x")
				if i >= 100 {
					st.After = []dag.Edge{{Step: fmt.Sprint("s", i-100)}}
				}
			}
		}},
		{"loop", func(s *script, n int) {
			s.step("l", list(n))
			s.loop("m", from(out("l")), 0, func() { s.step("a", item("m")) })
		}},
		{"rounds", func(s *script, n int) {
			s.step("l", list(n))
			s.loop("m", from(out("l")), 100, func() { s.step("a", item("m")) })
		}},
		{"conditions", func(s *script, n int) {
			s.step("l", list(n/2))
			s.loop("m", from(out("l")), 100, func() {
				s.step("a", item("m"))
				s.cond("c", cmpOf(out("a"), ">", "0"), func() { s.step("b", item("m")) })
			})
		}},
		{"nested", func(s *script, n int) { // each inner list comes by itself
			s.step("l", list(n/10))
			s.loop("m", from(out("l")), 10, func() {
				s.step("inner", list(9))
				s.loop("n", from(out("inner")), 0, func() { s.step("a", item("n")) })
			})
		}},
	} {
		for _, n := range []int{1000, 10_000} {
			for _, at := range []int{0, 100, 1} {
				b.Run(fmt.Sprintf("%s/tasks=%d/atonce=%d", shape.name, n, at), func(b *testing.B) {
					s := &script{p: &dag.Pipeline{Name: "p"}}
					shape.make(s, n)
					for b.Loop() {
						r, err := Run(b.Context(), &instant{}, s.p, RunInfo{ID: "r"}, Config{Parallelism: at})
						if err != nil || r.State != Succeeded || len(r.Steps) < n {
							b.Fatal(r, err)
						}
					}
				})
			}
		}
	}
}
