//go:build e2e

package k8s

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	s3credentials "github.com/minio/minio-go/v7/pkg/credentials"

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
	opts := Options{Image: clustertest.KfsImage, Limits: shortened, Artifacts: bucket(t), ArtifactSecret: "store"}
	clustertest.Kubectl(t, "create", "secret", "generic", "store", "-n", c.Namespace,
		"--from-literal=AWS_ACCESS_KEY_ID="+os.Getenv("AWS_ACCESS_KEY_ID"), "--from-literal=AWS_SECRET_ACCESS_KEY="+os.Getenv("AWS_SECRET_ACCESS_KEY"))
	enginetest.Run(t, func(t *testing.T, run engine.RunInfo, p *dag.Pipeline) engine.Executor {
		return newTestRun(t, c, run, p, opts)
	}, 256<<10)
}

// bucket makes a bucket, and returns its address for pods.
func bucket(t testing.TB) string {
	t.Helper()
	u, err := url.Parse(os.Getenv("AWS_ENDPOINT_URL"))
	if err != nil || u.Host == "" {
		t.Fatalf("AWS_ENDPOINT_URL is %q; make e2e sets it", u)
	}
	client, err := minio.New(u.Host, &minio.Options{Creds: s3credentials.NewEnvAWS(), Secure: u.Scheme == "https"})
	if err != nil {
		t.Fatal(err)
	}
	name := newName("bucket")
	if err := client.MakeBucket(t.Context(), name, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	return "s3://" + name + "/suite?endpoint=" + os.Getenv("KFS_S3_IN_CLUSTER")
}

// TestE2EFilesOnClaim hands files on by a volume.
func TestE2EFilesOnClaim(t *testing.T) {
	t.Parallel()
	c := podCluster(t)
	claim := newName("files")
	folder := t.TempDir()
	kubectlApply(t, c.Namespace, fmt.Sprintf(`
{apiVersion: v1, kind: PersistentVolume, metadata: {name: %[1]s}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], storageClassName: "", persistentVolumeReclaimPolicy: Retain,
	hostPath: {path: %[2]s}, claimRef: {namespace: %[3]s, name: %[1]s}}}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: %[1]s}, spec: {accessModes: [ReadWriteOnce], storageClassName: "", volumeName: %[1]s, resources: {requests: {storage: 1Gi}}}}
`, claim, folder, c.Namespace))
	t.Cleanup(func() { clustertest.Kubectl(t, "delete", "persistentvolume", claim, "--wait=false") })
	const size = 3 << 20
	write := nodeStep("write", fmt.Sprintf(`mkdir -p /tmp/out; head -c %d /dev/zero > /tmp/out/o`, size))
	write.Outputs = []dag.Output{{Name: "o", Path: "/tmp/out/o"}}
	read := nodeStep("read", `mkdir -p /tmp/out; wc -c < /tmp/in/o > /tmp/out/o; echo >> /tmp/in/o`, out)
	read.Artifacts = []dag.Artifact{{Name: "o", Path: "/tmp/in/o", Text: dag.Ref{Kind: dag.RefOutput, Step: "write", Name: "o"}.Token()}}
	again := nodeStep("again", `mkdir -p /tmp/out; wc -c < /tmp/in/o > /tmp/out/o`, out)
	again.Artifacts, again.After = read.Artifacts, []dag.Edge{{Step: "read"}}
	x := beginPods(t, c, Options{Artifacts: "pvc://" + claim + "/team"}, &dag.Pipeline{Name: "files", Steps: []*dag.Step{write, read, again}})
	got := x.end()
	x.wantCases(got, []podCase{
		{write, engine.Succeeded, engine.Exited, "", nil},
		{read, engine.Succeeded, engine.Exited, "", outputIs(fmt.Sprint(size))},
		{again, engine.Succeeded, engine.Exited, "", outputIs(fmt.Sprint(size))}, // another's copy of it was changed
	})
	if entries, err := os.ReadDir(filepath.Join(folder, "team")); err != nil || len(entries) == 0 {
		t.Errorf("on the volume: %v, %v; want the files of the run", entries, err)
	}
}
