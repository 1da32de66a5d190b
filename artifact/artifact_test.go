package artifact

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kfs-project/kfs/internal/launch"
)

func TestParse(t *testing.T) {
	for _, tt := range []struct {
		text string
		want Address
		back string // how it is written; "" is as text
	}{
		{"s3://bucket", Address{Scheme: S3, Name: "bucket"}, ""},
		{"s3://my.bucket-1/", Address{Scheme: S3, Name: "my.bucket-1"}, "s3://my.bucket-1"},
		{"s3://bucket/team/x/?endpoint=http://minio:9000&region=eu-west-1",
			Address{Scheme: S3, Name: "bucket", Prefix: "team/x", Endpoint: "http://minio:9000", Region: "eu-west-1"},
			"s3://bucket/team/x?endpoint=http%3A%2F%2Fminio%3A9000&region=eu-west-1"},
		{"pvc://claim/runs", Address{Scheme: Claim, Name: "claim", Prefix: "runs"}, ""},
		{"file:///mnt/a%20store", Address{Scheme: File, Name: "/mnt/a store"}, ""},
		{"file:///mnt/store/?prefix=a/b", Address{Scheme: File, Name: "/mnt/store", Prefix: "a/b"}, "file:///mnt/store?prefix=a%2Fb"},
	} {
		got, err := Parse(tt.text)
		if err != nil || *got != tt.want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", tt.text, got, err, tt.want)
			continue
		}
		if tt.back == "" {
			tt.back = tt.text
		}
		if back := got.String(); back != tt.back {
			t.Errorf("Parse(%q).String() = %q; want %q", tt.text, back, tt.back)
		}
		if again, err := Parse(tt.back); err != nil || *again != tt.want {
			t.Errorf("Parse(%q) = %+v, %v; want %+v", tt.back, again, err, tt.want)
		}
	}
	claim := Address{Scheme: Claim, Name: "c", Prefix: "p"}
	if got := claim.Mounted("/mnt/c").String(); got != "file:///mnt/c?prefix=p" {
		t.Errorf("Mounted = %q", got)
	}
}

func TestParseFaults(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"", `artifact store "": want s3://BUCKET/PREFIX`},
		{"bucket/x", "want s3://BUCKET/PREFIX"},
		{"gs://bucket", "want s3://BUCKET/PREFIX?endpoint=https://storage.googleapis.com"},
		{"s3://", `bucket "": want 3 to 63`},
		{"s3://My_Bucket", `bucket "My_Bucket": want 3 to 63 small letters`},
		{"s3://bucket?endpont=http://x", `it has no option "endpont": did you mean "endpoint"?`},
		{"s3://bucket?endpoint=minio:9000", `endpoint "minio:9000": want http://HOST:PORT or https://HOST`},
		{"s3://bucket?endpoint=http://minio:9000/bucket", "want http://HOST:PORT"},
		{"s3://bucket?endpoint=", `endpoint "": want`},
		{"s3://bucket/a//b", `prefix "a//b": want`},
		{"s3://bucket/../b", `prefix "../b": want`},
		{"s3://bucket/a#b", `prefix "a#b": want`},
		{"pvc:///x", `claim "": want the name`},
		{"pvc://claim?endpoint=http://x", `it has no option "endpoint"`},
		{"file://mnt/store", "want an absolute path behind three slashes"},
		{"file:", "want an absolute path"},
		{"s3://%zz", "invalid URL escape"},
	} {
		if a, err := Parse(tt.text); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Parse(%q) = %+v, %v; want %q", tt.text, a, err, tt.want)
		}
	}
	if _, err := Parse("s3://AKIA:topsecret@bucket"); err == nil || strings.Contains(err.Error(), "topsecret") {
		t.Errorf("of an address with a key: %v", err)
	}
}

// testStore tests a store that is empty, as whoever uses it does.
func testStore(t *testing.T, s launch.Store, large int64) {
	t.Helper()
	ctx := t.Context()
	put := func(key, text string) {
		t.Helper()
		if err := s.Put(ctx, key, strings.NewReader(text), int64(len(text))); err != nil {
			t.Errorf("put %s: %v", key, err)
		}
	}
	get := func(key string) string {
		t.Helper()
		r, err := s.Get(ctx, key)
		if err != nil {
			t.Errorf("get %s: %v", key, err)
			return ""
		}
		defer r.Close()
		data, err := io.ReadAll(r)
		if err != nil {
			t.Errorf("read %s: %v", key, err)
		}
		return string(data)
	}
	for key, text := range map[string]string{"runs/1/a": "one", "runs/1/a%20b": "", "deep/er/than/that": "x\x00y"} {
		put(key, text)
		if got := get(key); got != text {
			t.Errorf("get %s = %q; want %q", key, got, text)
		}
	}
	put("runs/1/a", "another")
	if got := get("runs/1/a"); got != "another" {
		t.Errorf("what was put again is %q", got)
	}
	if r, err := s.Get(ctx, "runs/1/none"); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "runs/1/none") {
		t.Errorf("get what is not there: %v, %v; want that it does not exist", r, err)
	}
	if err := s.Put(ctx, "large", pattern{}, large); err != nil {
		t.Fatal(err)
	}
	r, err := s.Get(ctx, "large")
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	want, got := io.NewSectionReader(pattern{}, 0, large), make([]byte, 1<<20)
	for at := int64(0); ; {
		n, err := io.ReadFull(r, got)
		part := make([]byte, n)
		io.ReadFull(want, part)
		if string(part) != string(got[:n]) {
			t.Fatalf("large differs behind byte %d", at)
		}
		at += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			if at != large {
				t.Errorf("large has %d bytes; want %d", at, large)
			}
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

// pattern is a long file, of which each part is another one.
type pattern struct{}

func (pattern) ReadAt(p []byte, off int64) (int, error) {
	for i := range p {
		n := off + int64(i)
		p[i] = byte(n ^ n>>8 ^ n>>16 ^ n>>24)
	}
	return len(p), nil
}

func TestFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s, err := Open(t.Context(), "file://"+dir+"?prefix=team/x")
	if err != nil {
		t.Fatal(err)
	}
	testStore(t, s, 3<<20)
	if data, err := os.ReadFile(filepath.Join(dir, "team/x/runs/1/a")); string(data) != "another" {
		t.Errorf("the file: %q, %v", data, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, "team/x/runs/1/*"))
	if err != nil || len(left) != 2 {
		t.Errorf("the folder holds %v, %v", left, err)
	}
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "team/x/out")); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"out/x", "../../../x", "/x"} {
		if err := s.Put(t.Context(), key, strings.NewReader("x"), 1); err == nil {
			t.Errorf("put %s: no error", key)
		}
		if _, err := s.Get(t.Context(), "out/x"); err == nil {
			t.Errorf("get %s: no error", key)
		}
	}
	if left, _ := os.ReadDir(outside); len(left) > 0 {
		t.Errorf("it wrote outside: %v", left)
	}
	if err := s.Put(t.Context(), "short", strings.NewReader("x"), 2); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("put more than there is: %v", err)
	}
	if _, err := s.Get(t.Context(), "short"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("get what was not put: %v", err)
	}
	for _, address := range []string{"file://" + dir + "/none", "pvc://claim", "nonsense"} {
		if _, err := Open(t.Context(), address); !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) {
			t.Errorf("Open(%q) = %v; want an error that is final", address, err)
		}
	}
}
