package main

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing/fstest"
	"time"

	"github.com/kfs-project/kfs/backend/argo"
	"github.com/kfs-project/kfs/interp"
)

// This file times evaluation and compilation inside the process.

// chain is a pipeline whose steps each use a param and the output of the step
// before.
const chain = `
n = config("n", default = 1)

def chain(x = "1"):
    last = x
    for i in range(n):
        last = container_op("step-%d" % i, "image", arguments = ["--x", x, "--in", last], file_outputs = {"out": "/out"}).output

pipeline(chain)
`

// sameName is a pipeline whose steps are all of one name, and ownName one that
// differs from it in the names alone.
const (
	sameName = `
n = config("n", default = 1)

def steps():
    for i in range(n):
        container_op("step", "image", arguments = ["%d" % i])

pipeline(steps)
`
	ownName = `
n = config("n", default = 1)

def steps():
    for i in range(n):
        container_op("step-%d" % i, "image", arguments = ["i"])

pipeline(steps)
`
)

// compileTable prints how long scripts of many steps take from source to
// Workflow, and for each the time of a step as a ratio to that of the first.
func compileTable() error {
	fmt.Println("| in process, from source to Workflow | least | a step | of the first | most memory |")
	fmt.Println("|---|---|---|---|---|")
	var first float64
	for _, c := range []struct {
		name, src string
		n, rounds int
	}{
		{"1,000 steps in a chain of data", chain, 1000, 10},
		{"5,000 steps in a chain of data", chain, 5000, 10},
		{"20,000 steps in a chain of data", chain, 20000, 3},
		{"100,000 steps in a chain of data", chain, 100000, 2},
		{"1,000 steps of 1,000 names", ownName, 1000, 10},
		{"1,000 steps of one name", sameName, 1000, 10},
	} {
		var times []time.Duration
		for range c.rounds {
			runtime.GC()
			start := time.Now()
			if err := compile(c.src, c.n); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			times = append(times, time.Since(start))
		}
		var stats runtime.MemStats
		runtime.ReadMemStats(&stats)
		least := slices.Min(times)
		each := float64(least) / float64(c.n)
		if first == 0 {
			first = each
		}
		fmt.Printf("| %s | %.0f ms | %.0f µs | %.2f x | %d MiB |\n", c.name, ms(least), each/1e3, each/first, stats.Sys>>20)
	}
	return nil
}

func compile(src string, n int) error {
	ctx := context.Background()
	s, err := interp.LoadFS(ctx, fstest.MapFS{"in.star": {Data: []byte(src)}}, "in.star", interp.Config{
		Settings: map[string]string{"n": fmt.Sprint(n)},
		Limits:   interp.Limits{Memory: 2 << 30},
	})
	if err != nil {
		return err
	}
	p, err := s.Pipeline(ctx, "")
	if err != nil {
		return err
	}
	_, err = argo.Compile(p, argo.Options{})
	return err
}
