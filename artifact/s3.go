package artifact

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// A bucket is a store that speaks the S3 API.
type bucket struct {
	core         minio.Core
	name, prefix string
	endpoint     string
}

// openS3 opens a bucket, and sees that it and our keys exist.
func openS3(ctx context.Context, a *Address) (*bucket, error) {
	endpoint := cmp.Or(a.Endpoint, os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL"), "https://s3.amazonaws.com")
	if err := checkEndpoint(endpoint); err != nil {
		return nil, &storeError{err, fs.ErrInvalid}
	}
	u, err := url.Parse(endpoint)
	if err != nil {
		return nil, err
	}
	region := cmp.Or(a.Region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION"))
	client, err := minio.New(u.Host, &minio.Options{
		Creds:      accessKeys(),
		Secure:     u.Scheme == "https",
		Region:     region,
		MaxRetries: 3, // the caller tries again, and waits longer between
	})
	if err != nil {
		return nil, &storeError{err, fs.ErrInvalid}
	}
	s := &bucket{core: minio.Core{Client: client}, name: a.Name, prefix: a.Prefix, endpoint: endpoint}
	if _, err := client.GetCreds(); err != nil {
		return nil, &storeError{fmt.Errorf("no keys for bucket %q at %s: want AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or an identity of the pod that AWS knows: %w", a.Name, endpoint, err), fs.ErrPermission}
	}
	// Ask for a file that is not there. The answer to HEAD has no body, so it
	// would not tell a bucket that is not there from keys that are not known.
	r, _, _, err := s.core.GetObject(ctx, a.Name, path.Join(a.Prefix, ".kfs"), minio.GetObjectOptions{})
	if err == nil {
		r.Close()
		return s, nil
	}
	switch minio.ToErrorResponse(err).Code {
	case minio.NoSuchKey, minio.AccessDenied: // who may write need not be allowed to look
		return s, nil
	}
	return nil, s.explain("open", "", err)
}

// accessKeys returns the keys of the environment or, if it has none, those
// that AWS gives out to a pod, by web identity, or to a machine.
func accessKeys() *credentials.Credentials {
	if id := os.Getenv("AWS_ACCESS_KEY_ID"); id != "" {
		return credentials.NewStaticV4(id, os.Getenv("AWS_SECRET_ACCESS_KEY"), os.Getenv("AWS_SESSION_TOKEN"))
	}
	return credentials.New(&credentials.IAM{Client: &http.Client{Transport: http.DefaultTransport, Timeout: 10 * time.Second}})
}

// Put keeps a file.
func (s *bucket) Put(ctx context.Context, key string, r io.ReaderAt, size int64) error {
	_, err := s.core.Client.PutObject(ctx, s.name, path.Join(s.prefix, key), io.NewSectionReader(r, 0, size), size, minio.PutObjectOptions{})
	return s.explain("write", key, err)
}

// Get returns a file.
func (s *bucket) Get(ctx context.Context, key string) (io.ReadCloser, error) {
	r, _, _, err := s.core.GetObject(ctx, s.name, path.Join(s.prefix, key), minio.GetObjectOptions{})
	return r, s.explain("read", key, err)
}

// explain returns an error with the names of all that it is about, what to do,
// and whether it is final.
func (s *bucket) explain(verb, key string, err error) error {
	if err == nil {
		return nil
	}
	where := fmt.Sprintf("bucket %q at %s", s.name, s.endpoint)
	what := where
	if key != "" {
		what = fmt.Sprintf("%s in %s", path.Join(s.prefix, key), where)
	}
	final := func(kind error, format string, args ...any) error {
		return &storeError{fmt.Errorf(format, args...), kind}
	}
	response := minio.ToErrorResponse(err)
	switch response.Code {
	case minio.NoSuchBucket:
		return final(fs.ErrNotExist, "%s does not exist: make it, or name another one with --artifacts", where)
	case minio.NoSuchKey:
		return final(fs.ErrNotExist, "%s does not exist: it was deleted, or another store was named with --artifacts when it was written", what)
	case minio.AccessDenied, "InvalidAccessKeyId", "SignatureDoesNotMatch", "XAdminUserNotFound": // the last is versitygw's
		return final(fs.ErrPermission, "%s %s: %s (%s): want keys that may read and write there", verb, what, cmp.Or(response.Message, "access denied"), response.Code)
	case "InvalidBucketName", minio.EntityTooLarge, minio.InvalidArgument:
		return final(fs.ErrInvalid, "%s %s: %w", verb, what, err)
	}
	var certificate x509.UnknownAuthorityError
	switch {
	case response.StatusCode == http.StatusForbidden:
		return final(fs.ErrPermission, "%s %s: %w", verb, what, err)
	case errors.Is(err, http.ErrSchemeMismatch):
		return final(fs.ErrInvalid, "%s %s: the endpoint speaks http, not https: want endpoint=http://...", verb, what)
	case errors.As(err, &certificate):
		return final(fs.ErrInvalid, "%s %s: %w", verb, what, err)
	}
	return fmt.Errorf("%s %s: %w", verb, what, err)
}
