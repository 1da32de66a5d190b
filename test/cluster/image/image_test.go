package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"

	"github.com/kfs-project/kfs/test/cluster/registry"
)

// pause is a small program of the module.
const pause = "../parts/pause"

func TestBuild(t *testing.T) {
	config := Config{
		Programs: []string{pause},
		Files:    map[string][]byte{"/etc/b": []byte("b"), "/etc/a": []byte("a")},
		Env:      []string{"A=1"},
		User:     "65532",
		Labels:   map[string]string{"version": "1"},
	}
	img := build(t, config)
	file, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if c := file.Config; !slices.Equal(c.Entrypoint, []string{"/pause"}) || !slices.Equal(c.Env, []string{"PATH=/", "A=1"}) || c.User != "65532" || c.Labels["version"] != "1" {
		t.Errorf("the image's config is %+v", c)
	}
	if file.OS != "linux" || file.Architecture == "" || len(file.RootFS.DiffIDs) != 1 {
		t.Errorf("the image is for %s/%s, with layers %v", file.OS, file.Architecture, file.RootFS.DiffIDs)
	}
	if got, want := contents(t, img), []string{"tmp/", "pause", "etc/a", "etc/b"}; !slices.Equal(got, want) {
		t.Errorf("the layer holds %v, want %v", got, want)
	}
	one, err := img.Digest()
	if err != nil {
		t.Fatal(err)
	}
	two, err := build(t, config).Digest()
	if err != nil || one != two {
		t.Errorf("built twice, the image is %s and %s, %v", one, two, err)
	}
	config.Entrypoint, config.Cmd = []string{}, []string{"x"}
	file, err = build(t, config).ConfigFile()
	if err != nil || len(file.Config.Entrypoint) != 0 || !slices.Equal(file.Config.Cmd, []string{"x"}) {
		t.Errorf("without an entrypoint the config is %+v, %v", file.Config, err)
	}
}

func build(t *testing.T, c Config) v1.Image {
	t.Helper()
	img, err := Build(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// contents lists the names in the only layer of img.
func contents(t *testing.T, img v1.Image) []string {
	t.Helper()
	layers, err := img.Layers()
	if err != nil || len(layers) != 1 {
		t.Fatalf("the image has %d layers, %v; want 1", len(layers), err)
	}
	r, err := layers[0].Uncompressed()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var names []string
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return names
		}
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, h.Name)
	}
}

func TestBuildFaults(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		config Config
		want   string
	}{
		{Config{}, "at least one program"},
		{Config{Programs: []string{"."}}, "no main packages to build"},
		{Config{Programs: []string{"./nowhere"}}, "build ./nowhere: "},
		{Config{Programs: []string{text}}, "is not executable"},
		{Config{Programs: []string{pause, pause}}, "two files are named /pause"},
		{Config{Programs: []string{pause}, Files: map[string][]byte{"etc/a": nil}}, `"etc/a" of the image: want an absolute path`},
	} {
		if _, err := Build(t.Context(), tt.config); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("Build(%+v): %v; want %q", tt.config, err, tt.want)
		}
	}
}

// TestWritePush writes an archive and pushes to a registry that wants a login.
func TestWritePush(t *testing.T) {
	img := build(t, Config{Programs: []string{pause}})
	file := filepath.Join(t.TempDir(), "pause.tar")
	if err := Write(file, "localhost/pause:1", img); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(file)
	if err != nil || !bytes.Contains(data, []byte("localhost/pause:1")) {
		t.Errorf("the archive does not name its image: %v", err)
	}
	server := httptest.NewServer(registry.WithLogin(registry.New(t.TempDir()), "user", "password"))
	defer server.Close()
	ref := strings.TrimPrefix(server.URL, "http://") + "/pause:1"
	if err := Push(t.Context(), ref, img, "user", "password"); err != nil {
		t.Error(err)
	}
	logins := t.TempDir() // as docker login leaves them
	t.Setenv("DOCKER_CONFIG", logins)
	config := fmt.Sprintf(`{"auths": {%q: {"username": "user", "password": "password"}}}`, strings.TrimPrefix(server.URL, "http://"))
	if err := os.WriteFile(filepath.Join(logins, "config.json"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Publish(t.Context(), ref, img); err != nil {
		t.Error(err)
	}
	for _, password := range []string{"", "wrong"} {
		user := ""
		if password != "" {
			user = "user"
		}
		var refused *transport.Error
		if err := Push(t.Context(), ref, img, user, password); !errors.As(err, &refused) || refused.StatusCode != 401 {
			t.Errorf("pushed with the password %q: %v; want 401", password, err)
		}
	}
}
