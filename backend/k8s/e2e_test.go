//go:build e2e

package k8s

import (
	"context"
	"testing"
	"time"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/engine"
	"github.com/kfs-project/kfs/engine/enginetest"
	"github.com/kfs-project/kfs/internal/clustertest"
)

// shortened are limits that tests need not wait for.
var shortened = Limits{Grace: 2 * time.Second, Lease: 6 * time.Second, BadImage: 3 * time.Second, PullBackoff: 10 * time.Second,
	BadConfig: 3 * time.Second, Mount: 10 * time.Second, Pending: time.Minute, Slow: time.Second, Settle: 20 * time.Second, Away: 2 * time.Second}

// newCluster returns a cluster of a namespace of its own.
func newCluster(t testing.TB) *Cluster {
	t.Helper()
	c, err := NewCluster(clustertest.Config(t), clustertest.Namespace(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// newTestRun makes a run, which is closed and deleted after the test.
func newTestRun(t testing.TB, c *Cluster, info engine.RunInfo, p *dag.Pipeline, opts Options) *Run {
	t.Helper()
	r, err := Create(t.Context(), c, p, info, opts, "test")
	if err != nil {
		t.Fatal(err)
	}
	r.Notice = func(text string) { t.Log("notice: " + text) }
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		r.Close(ctx, true)
		if err := Delete(ctx, c, info.Name, true); err != nil {
			t.Errorf("delete: %v", err)
		}
	})
	return r
}

// TestE2EExecutor runs the suite of all executors, with files in the state of
// the run, on a volume, and in an object store.
func TestE2EExecutor(t *testing.T) {
	clustertest.Busybox(t)
	clustertest.Kfs(t)
	c := newCluster(t)
	enginetest.Run(t, func(t *testing.T, run engine.RunInfo, p *dag.Pipeline) engine.Executor {
		return newTestRun(t, c, run, p, Options{Image: clustertest.KfsImage, Limits: shortened})
	}, 256<<10)
}
