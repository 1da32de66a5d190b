// Package artifact keeps the files that steps hand on: stores for package
// internal/launch, and their addresses.
//
//	address, err := artifact.Parse("s3://bucket/team/x?endpoint=http://minio:9000")
//	store, err := artifact.Open(ctx, address.String())
//
// An address is one of
//
//	s3://BUCKET/PREFIX?endpoint=URL&region=REGION   the S3 API
//	pvc://CLAIM/PREFIX                              a PersistentVolumeClaim
//	file:///FOLDER?prefix=PREFIX                    a folder, where a claim is mounted
//
// in which all but BUCKET, CLAIM and FOLDER can be left out. It holds no keys.
// Those of S3 are taken from the environment: AWS_ACCESS_KEY_ID,
// AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN; without them, from the identity
// that AWS gives to a pod or machine. AWS_ENDPOINT_URL_S3, AWS_ENDPOINT_URL and
// AWS_REGION stand for what the address leaves out.
package artifact

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/kfs-project/kfs/internal/launch"
	"github.com/kfs-project/kfs/internal/spell"
)

// The schemes of addresses.
const (
	S3    = "s3"
	Claim = "pvc"
	File  = "file"
)

// An Address says where a store is. It is none of a store that can be reached
// from anywhere: a claim, for one, must be mounted.
type Address struct {
	Scheme string // S3, Claim or File
	Name   string // of the bucket or the claim; the absolute path of the folder
	Prefix string // of all keys, a path as of fs.ValidPath; "" is none

	Endpoint, Region string // of S3; "" leaves them to the environment, and to AWS
}

// Parse reads an address.
func Parse(text string) (*Address, error) {
	fault := func(format string, args ...any) (*Address, error) {
		return nil, fmt.Errorf("artifact store %q: "+format, append([]any{text}, args...)...)
	}
	u, err := url.Parse(text)
	if err != nil {
		return fault("%w", errors.Unwrap(err))
	}
	if u.User != nil {
		return nil, errors.New("the address of the artifact store holds a key: want keys in the environment only, as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
	}
	query := u.Query()
	a := &Address{Scheme: u.Scheme, Name: u.Host, Prefix: strings.Trim(u.Path, "/"), Endpoint: query.Get("endpoint"), Region: query.Get("region")}
	var known []string
	switch u.Scheme {
	case S3:
		known = []string{"endpoint", "region"}
		if !bucketName().MatchString(a.Name) {
			return fault("bucket %q: want 3 to 63 small letters, digits, dots and hyphens, as in s3://BUCKET/PREFIX", a.Name)
		}
	case Claim:
		if !claimName().MatchString(a.Name) {
			return fault("claim %q: want the name of a PersistentVolumeClaim, as in pvc://CLAIM/PREFIX", a.Name)
		}
	case File:
		known = []string{"prefix"}
		if a.Name, a.Prefix = path.Clean(u.Path), strings.Trim(query.Get("prefix"), "/"); u.Host != "" || !path.IsAbs(u.Path) {
			return fault("want an absolute path behind three slashes, as in file:///mnt/store")
		}
	case "gs":
		return fault("Google's storage speaks S3 too: want s3://BUCKET/PREFIX?endpoint=https://storage.googleapis.com and an HMAC key")
	default:
		return fault("want s3://BUCKET/PREFIX?endpoint=URL, pvc://CLAIM/PREFIX or file:///FOLDER")
	}
	for name := range query {
		if !slices.Contains(known, name) {
			return fault("it has no option %q%s", name, didYouMean(name, known))
		}
	}
	if u.Fragment != "" || a.Prefix != "" && !fs.ValidPath(a.Prefix) {
		return fault("prefix %q: want names with single slashes between them", a.Prefix+strings.Repeat("#", min(len(u.Fragment), 1))+u.Fragment)
	}
	if query.Has("endpoint") {
		if err := checkEndpoint(a.Endpoint); err != nil {
			return fault("%w", err)
		}
	}
	return a, nil
}

var (
	bucketName = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`) })
	claimName  = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`) })
)

func didYouMean(name string, known []string) string {
	if hint := spell.DidYouMean(name, known); hint != "" {
		return ": " + hint
	}
	return ""
}

func checkEndpoint(endpoint string) error {
	e, err := url.Parse(endpoint)
	if err != nil || e.Scheme != "http" && e.Scheme != "https" || e.Host == "" || strings.Trim(e.Path, "/") != "" || e.RawQuery != "" || e.User != nil {
		return fmt.Errorf("endpoint %q: want http://HOST:PORT or https://HOST", endpoint)
	}
	return nil
}

// String returns the address as Parse reads it.
func (a *Address) String() string {
	u := url.URL{Scheme: a.Scheme, Host: a.Name, Path: "/" + a.Prefix}
	query := url.Values{}
	set := func(name, value string) {
		if value != "" {
			query.Set(name, value)
		}
	}
	set("endpoint", a.Endpoint)
	set("region", a.Region)
	if a.Scheme == File {
		u.Host, u.Path = "", a.Name
		set("prefix", a.Prefix)
	}
	u.RawQuery = query.Encode()
	return strings.TrimSuffix(u.String(), "/")
}

// Mounted returns the address of a claim's store for a container in which the
// claim is mounted at the folder.
func (a *Address) Mounted(folder string) *Address {
	return &Address{Scheme: File, Name: folder, Prefix: a.Prefix}
}

// Open opens the store at an address. Of one that is not there, or that refuses
// us, the error is final, as launch.Store has it.
func Open(ctx context.Context, address string) (launch.Store, error) {
	a, err := Parse(address)
	if err != nil {
		return nil, &storeError{err, fs.ErrInvalid}
	}
	switch a.Scheme {
	case S3:
		return openS3(ctx, a)
	case File:
		return openFolder(a)
	}
	return nil, &storeError{fmt.Errorf("artifact store %q: a claim can only be opened where it is mounted", address), fs.ErrInvalid}
}

// A storeError has a message of its own, and is of a kind that launch.Store
// knows to be final.
type storeError struct {
	error
	kind error
}

// Unwrap returns what the error is of.
func (e *storeError) Unwrap() []error { return []error{e.error, e.kind} }
