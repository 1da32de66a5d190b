package artifact

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// A fakeS3 is as much of the S3 API as small files need.
type fakeS3 struct {
	bucket string

	mu    sync.Mutex
	files map[string]string
	fail  []string // what the next requests for files are answered: a status and a code
	seen  []string
}

func (f *fakeS3) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen = append(f.seen, r.Method+" "+r.URL.Path)
	answer := func(status int, code string) {
		w.WriteHeader(status)
		if r.Method != http.MethodHead {
			fmt.Fprintf(w, "<Error><Code>%s</Code><Message>said the server</Message></Error>", code)
		}
	}
	bucket, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if bucket != f.bucket {
		answer(404, "NoSuchBucket")
		return
	}
	if _, ok := r.URL.Query()["location"]; ok {
		fmt.Fprint(w, "<LocationConstraint/>")
		return
	}
	for user, code := range map[string]string{"reader": "AccessDenied", "nobody": "InvalidAccessKeyId"} {
		if strings.Contains(r.Header.Get("Authorization"), "Credential="+user) {
			answer(403, code)
			return
		}
	}
	if len(f.fail) > 0 {
		status, code, _ := strings.Cut(f.fail[0], " ")
		f.fail = f.fail[1:]
		n, _ := strconv.Atoi(status)
		answer(n, code)
		return
	}
	switch r.Method {
	case http.MethodPut:
		data, _ := io.ReadAll(r.Body)
		f.files[key] = unchunked(string(data))
		w.Header().Set("ETag", `"x"`)
	case http.MethodGet, http.MethodHead:
		data, ok := f.files[key]
		if !ok {
			answer(404, "NoSuchKey")
			return
		}
		w.Header().Set("ETag", `"x"`)
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		io.WriteString(w, data)
	}
}

// unchunked takes the chunks of a signed stream apart.
func unchunked(data string) string {
	var b strings.Builder
	for {
		head, rest, ok := strings.Cut(data, "\r\n")
		size, _, chunked := strings.Cut(head, ";chunk-signature=")
		n, err := strconv.ParseInt(size, 16, 64)
		if !ok || !chunked || err != nil {
			return b.String() + data
		}
		if n == 0 {
			return b.String()
		}
		b.WriteString(rest[:n])
		data = rest[n+2:]
	}
}

func keys(t *testing.T, env map[string]string) {
	for _, name := range []string{
		"AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN",
		"AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI",
	} {
		t.Setenv(name, "")
	}
	all := map[string]string{"AWS_ACCESS_KEY_ID": "somebody", "AWS_SECRET_ACCESS_KEY": "secret"}
	maps.Copy(all, env)
	for name, value := range all {
		t.Setenv(name, value)
	}
}

func TestS3(t *testing.T) {
	server := &fakeS3{bucket: "bucket", files: map[string]string{}}
	listener := httptest.NewServer(server)
	defer listener.Close()
	address := func(bucket string) string { return "s3://" + bucket + "/team?endpoint=" + listener.URL }

	keys(t, nil)
	s, err := Open(t.Context(), address("bucket"))
	if err != nil {
		t.Fatal(err)
	}
	testStore(t, s, 1<<20)
	if got := server.files["team/runs/1/a"]; got != "another" {
		t.Errorf("the server has %q", got)
	}
	for _, tt := range []struct {
		fail []string
		kind error // nil is one that may pass
		want string
	}{
		{[]string{"403 AccessDenied"}, fs.ErrPermission, `write team/k in bucket "bucket" at ` + listener.URL + ": said the server (AccessDenied): want keys that may read and write there"},
		{[]string{"403 SignatureDoesNotMatch"}, fs.ErrPermission, "(SignatureDoesNotMatch): want keys"},
		{[]string{"404 NoSuchBucket"}, fs.ErrNotExist, `bucket "bucket" at ` + listener.URL + " does not exist: make it, or name another one with --artifacts"},
		{[]string{"400 InvalidArgument"}, fs.ErrInvalid, "said the server"},
		{[]string{"503 SlowDown", "503 SlowDown", "503 SlowDown"}, nil, `write team/k in bucket "bucket" at ` + listener.URL + ": said the server"},
		{[]string{"503 SlowDown", "500 InternalError"}, nil, ""},
	} {
		server.mu.Lock()
		server.fail = tt.fail
		server.mu.Unlock()
		err := s.Put(t.Context(), "k", strings.NewReader("x"), 1)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%q: %v; want that it is tried again", tt.fail, err)
			}
			continue
		}
		final := errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid)
		if err == nil || !strings.Contains(err.Error(), tt.want) || final != (tt.kind != nil) || final && !errors.Is(err, tt.kind) {
			t.Errorf("%q: %v; want %q", tt.fail, err, tt.want)
		}
	}

	if _, err := Open(t.Context(), address("other-bucket")); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), `bucket "other-bucket" at`) {
		t.Errorf("a bucket that is not there: %v", err)
	}
	if _, err := Open(t.Context(), strings.Replace(address("bucket"), "endpoint=http:", "endpoint=https:", 1)); !errors.Is(err, fs.ErrInvalid) || !strings.Contains(err.Error(), "speaks http, not https") {
		t.Errorf("https where there is none: %v", err)
	}
	keys(t, map[string]string{"AWS_ACCESS_KEY_ID": "nobody"})
	if _, err := Open(t.Context(), address("bucket")); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "InvalidAccessKeyId") {
		t.Errorf("keys that are not known: %v", err)
	}
	keys(t, map[string]string{"AWS_ENDPOINT_URL": listener.URL, "AWS_ACCESS_KEY_ID": "reader"})
	if _, err := Open(t.Context(), "s3://bucket"); err != nil {
		t.Errorf("keys that may not look at the bucket: %v", err)
	}
	keys(t, map[string]string{"AWS_ACCESS_KEY_ID": "", "AWS_WEB_IDENTITY_TOKEN_FILE": "/no/such/token"})
	if _, err := Open(t.Context(), address("bucket")); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), `no keys for bucket "bucket"`) || !strings.Contains(err.Error(), "/no/such/token") {
		t.Errorf("without keys: %v", err)
	}
	listener.Close()
	keys(t, nil)
	if _, err := Open(t.Context(), address("bucket")); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("a server that is down: %v", err)
	}
}
