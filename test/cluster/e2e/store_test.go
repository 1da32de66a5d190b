//go:build e2e

package e2e

import (
	"strings"
	"testing"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
	corev1 "k8s.io/api/core/v1"

	"github.com/kfs-project/kfs/test/cluster/supervisor"
)

// TestObjectStore puts an object from this machine, reads it back, and reaches
// the same store from a pod, which without keys is refused.
func TestObjectStore(t *testing.T) {
	t.Parallel()
	ctx, client := t.Context(), clientOf(t, up.Kubeconfig())
	store, err := minio.New(strings.TrimPrefix(up.S3(), "http://"), &minio.Options{
		Creds: credentials.NewStaticV4(up.Spec.Access.User, up.Spec.Access.Password, ""),
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.MakeBucket(ctx, "artifacts", minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	const content = "a model"
	_, err = store.PutObject(ctx, "artifacts", "run-1/model", strings.NewReader(content), int64(len(content)), minio.PutObjectOptions{})
	if err != nil {
		t.Fatal(err)
	}
	info, err := store.StatObject(ctx, "artifacts", "run-1/model", minio.StatObjectOptions{})
	if err != nil || info.Size != int64(len(content)) {
		t.Errorf("the object is %d bytes, %v; want %d", info.Size, err, len(content))
	}
	ns := namespace(ctx, t, client)
	create(ctx, t, client, ns, pod("reader", "get", "http://"+supervisor.S3Endpoint+"/artifacts/run-1/model"))
	waitPhase(ctx, t, client, ns, "reader", corev1.PodSucceeded)
	if log := logs(ctx, t, client, ns, "reader"); !strings.Contains(log, "AccessDenied") {
		t.Errorf("a pod without keys got from the object store\n%s\nwant AccessDenied", log)
	}
}
