// Command bench prints the figures of docs/performance.md. It is run by
// make bench from the root of the project, after make build.
//
// Whole processes are timed in turn with a floor, the cheapest thing that the
// same program does, so that a figure can be read as a ratio on any machine.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"time"
)

// rounds is how often each command runs.
const rounds = 41

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run() error {
	cases := []*sample{
		{name: "floor: kfs version", args: []string{"version"}},
		{name: "kfs compile examples/mnist.star", args: []string{"compile", "examples/mnist.star"}},
		{name: "kfs compile examples/mnist.star --target json", args: []string{"compile", "examples/mnist.star", "--target", "json"}},
		{name: "kfs graph examples/mnist.star", args: []string{"graph", "examples/mnist.star"}},
	}
	for range rounds {
		for _, c := range cases { // in turn, so that all see the same machine
			if err := c.measure("bin/kfs"); err != nil {
				return err
			}
		}
	}
	fmt.Println("| whole process | median | least | of the floor | most memory |")
	fmt.Println("|---|---|---|---|---|")
	floor := cases[0].median()
	for _, c := range cases {
		fmt.Printf("| %s | %.1f ms | %.1f ms | %.1f x | %.0f MiB |\n", c.name,
			ms(c.median()), ms(slices.Min(c.times)), float64(c.median())/float64(floor), float64(c.memory)/(1<<20))
	}
	fmt.Println()
	return compileTable() // last: a process is charged with the memory of the one that started it
}

// A sample is the times of one command.
type sample struct {
	name   string
	args   []string
	times  []time.Duration
	memory int64 // bytes, the most that any run held
}

func (s *sample) measure(program string) error {
	cmd := exec.Command(program, s.args...)
	cmd.Stderr = os.Stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", s.name, err)
	}
	s.times = append(s.times, time.Since(start))
	s.memory = max(s.memory, maxMemory(cmd.ProcessState))
	return nil
}

func (s *sample) median() time.Duration {
	sorted := slices.Sorted(slices.Values(s.times))
	return sorted[len(sorted)/2]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
