package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

func drawn(t *testing.T, seed uint64, n int) *dataset {
	t.Helper()
	d, err := drawDigits(t.Context(), seed, n)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestIDXRoundTrip(t *testing.T) {
	dir := t.TempDir()
	learn, test := drawn(t, 1, 30), drawn(t, 2, 20)
	if err := saveSet(dir, trainImages, trainLabels, learn); err != nil {
		t.Fatal(err)
	}
	if err := saveSet(dir, testImages, testLabels, test); err != nil {
		t.Fatal(err)
	}
	// As the files are offered for download: one is compressed.
	var packed bytes.Buffer
	zw := gzip.NewWriter(&packed)
	zw.Write(idxBytes(test.images, imagesMagic, 20, side, side))
	zw.Close()
	name := filepath.Join(dir, testImages)
	if err := os.WriteFile(name+".gz", packed.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}

	gotLearn, gotTest, err := loadMNIST(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct{ got, want *dataset }{{gotLearn, learn}, {gotTest, test}} {
		if !bytes.Equal(tt.got.images, tt.want.images) || !bytes.Equal(tt.got.labels, tt.want.labels) {
			t.Errorf("loadMNIST returns other images or labels than saveSet got")
		}
	}
}

func TestIDXDamage(t *testing.T) {
	good := idxBytes(make([]byte, 2*pixels), imagesMagic, 2, side, side)
	for _, tt := range []struct {
		name           string
		images, labels []byte // nil leaves the file out
		want           string
	}{
		{"no file", nil, idxBytes([]byte{1, 2}, labelsMagic, 2), "found neither"},
		{"empty", []byte{}, idxBytes([]byte{1, 2}, labelsMagic, 2), "header is cut short"},
		{"short header", good[:10], nil, "header is cut short"},
		{"labels as images", idxBytes([]byte{1, 2, 3, 4, 5, 6, 7, 8, 9}, labelsMagic, 9), nil, "begins with 0x00000801: wanted 0x00000803"},
		{"not IDX", []byte("<!doctype html><title>404</title>"), nil, "wanted 0x00000803"},
		{"short items", good[:len(good)-1], nil, "found 1567 bytes of items, wanted 1568"},
		{"long items", append(bytes.Clone(good), 0), nil, "too long"},
		{"other size", idxBytes(make([]byte, 64), imagesMagic, 1, 8, 8), nil, "images are 8x8: wanted 28x28"},
		{"absurd size", idxBytes(nil, imagesMagic, 1, 1<<31, 1<<31), nil, "wanted 28x28"},
		{"absurd count", idxBytes(nil, imagesMagic, 1<<32-1, side, side), nil, "wanted 10000000 at most"},
		{"count without items", idxBytes(nil, imagesMagic, maxImages, side, side), nil, "found 0 bytes of items"},
		{"no images", idxBytes(nil, imagesMagic, 0, side, side), idxBytes(nil, labelsMagic, 0), "holds no images"},
		{"more labels than images", good, idxBytes([]byte{1, 2, 3}, labelsMagic, 3), "has 3 labels and train-images-idx3-ubyte has 2 images"},
		{"label over 9", good, idxBytes([]byte{1, 10}, labelsMagic, 2), "label 1 is 10: wanted 0 to 9"},
		{"short gzip", []byte{0x1f, 0x8b, 8}, nil, "unexpected EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, data := range map[string][]byte{trainImages: tt.images, trainLabels: tt.labels} {
				if data == nil {
					continue
				}
				if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := loadSet(dir, trainImages, trainLabels)
			runtime.ReadMemStats(&after)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("loadSet = %v; want an error with %q", err, tt.want)
			}
			if took := after.TotalAlloc - before.TotalAlloc; took > 1<<20 {
				t.Errorf("loadSet took %d bytes of memory for a damaged file", took)
			}
		})
	}
}

func TestDrawDigits(t *testing.T) {
	a, b, other := drawn(t, 1, 200), drawn(t, 1, 100), drawn(t, 2, 100)
	if !bytes.Equal(a.images[:100*pixels], b.images) || !bytes.Equal(a.labels[:100], b.labels) {
		t.Error("equal seeds draw different digits")
	}
	if bytes.Equal(b.images, other.images) {
		t.Error("different seeds draw equal digits")
	}
	var count [10]int
	for i := range a.len() {
		count[a.labels[i]]++
		ink := 0
		for _, v := range a.image(i) {
			if v > 127 {
				ink++
			}
		}
		if ink < 15 || ink > 300 {
			t.Errorf("digit %d, a %d, has %d pixels of ink; want 15 to 300", i, a.labels[i], ink)
		}
	}
	for digit, n := range count {
		if n == 0 {
			t.Errorf("200 digits hold no %d", digit)
		}
	}
}

func TestDrawDigitsEndsWithContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := drawDigits(ctx, 1, 1000); err == nil {
		t.Error("drawDigits with an ended context returns no error")
	}
}

func TestLocalDir(t *testing.T) {
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		in     string
		want   string // "" for an error
		mapped bool
	}{
		{"/tmp/export", "/tmp/export", false},
		{"export", filepath.Join(wd, "export"), false},
		{"file:///tmp/ex%20port", "/tmp/ex port", false},
		{"gs://your-bucket/export", "/home/gs/your-bucket/export", true},
		{"gs://bucket", "/home/gs/bucket", true},
		{"s3://bucket/a/b", "/home/s3/bucket/a/b", true},
		{"", "", false},
		{"gs://", "", false},
		{"gs:///export", "", false},
		{"gs://../../etc", "", false},
		{"gs://bucket/../../../etc", "", false},
		{"file://elsewhere/tmp", "", false},
		{"https://example.com/export", "", false},
		{"a\x00b", "", false},
	} {
		got, mapped, err := localDir("/home", tt.in)
		if got != tt.want || mapped != tt.mapped || (err == nil) != (tt.want != "") {
			t.Errorf("localDir(%q) = %q, %v, %v; want %q, %v", tt.in, got, mapped, err, tt.want, tt.mapped)
		}
	}
}
