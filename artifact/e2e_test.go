//go:build e2e

package artifact

import (
	"errors"
	"io/fs"
	"net/url"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// TestE2EStore keeps files in a real store that speaks the S3 API, large ones
// in several parts.
func TestE2EStore(t *testing.T) {
	endpoint, id, secret := os.Getenv("AWS_ENDPOINT_URL"), os.Getenv("AWS_ACCESS_KEY_ID"), os.Getenv("AWS_SECRET_ACCESS_KEY")
	if endpoint == "" || id == "" || secret == "" {
		t.Fatal("want AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment: make e2e sets them")
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		t.Fatal(err)
	}
	client, err := minio.New(u.Host, &minio.Options{Creds: credentials.NewStaticV4(id, secret, ""), Secure: u.Scheme == "https"})
	if err != nil {
		t.Fatal(err)
	}
	bucket := "artifact-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	address := "s3://" + bucket + "/team/x?endpoint=" + endpoint
	if _, err := Open(t.Context(), address); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), bucket) {
		t.Errorf("before the bucket is made: %v", err)
	}
	if err := client.MakeBucket(t.Context(), bucket, minio.MakeBucketOptions{}); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), address)
	if err != nil {
		t.Fatal(err)
	}
	testStore(t, s, 70<<20)
	for _, env := range []struct{ name, value string }{{"AWS_SECRET_ACCESS_KEY", "wrong"}, {"AWS_ACCESS_KEY_ID", "nobody"}} {
		t.Setenv(env.name, env.value)
		s, err := Open(t.Context(), address)
		if err == nil {
			err = s.Put(t.Context(), "k", strings.NewReader("x"), 1)
		}
		if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), bucket) || !strings.Contains(err.Error(), endpoint) {
			t.Errorf("with a wrong %s: %v; want a permission error that names bucket and endpoint", env.name, err)
		}
	}
}
