package parts

import (
	"context"
	"debug/buildinfo"
	"os"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
)

// TestPinned wants a version of each part, and of Kubernetes' staging modules
// the same.
func TestPinned(t *testing.T) {
	for _, p := range All() {
		if !regexp.MustCompile(`^v\d+(\.\d+\.\d+)?$`).MatchString(p.Version) {
			t.Errorf("part %s is of version %q", p.Name, p.Version)
		}
		if p.Name != "kubernetes" {
			continue
		}
		staging := "v0" + strings.TrimPrefix(p.Version, "v1")
		replaced := regexp.MustCompile(`(?m)^\tk8s\.io/\S+ => k8s\.io/\S+ (\S+)$`).FindAllSubmatch(read("parts.mod"), -1)
		if len(replaced) < 20 {
			t.Errorf("parts.mod replaces %d staging modules", len(replaced))
		}
		for _, m := range replaced {
			if string(m[1]) != staging {
				t.Errorf("parts.mod: %s; want version %s beside %s", m[0], staging, p.Version)
			}
		}
	}
}

// small is the part that takes no time to build.
func small(t *testing.T) Part {
	for _, p := range All() {
		if p.Name == "pause" {
			return p
		}
	}
	t.Fatal("no part pause")
	return Part{}
}

func TestBuild(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cache")
	var reports []Progress
	report := func(p Progress) { reports = append(reports, p) }
	programs, err := build(t.Context(), dir, []Part{small(t)}, report)
	if err != nil {
		t.Fatal(err)
	}
	info, err := buildinfo.ReadFile(programs["pause"])
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Contains(info.Settings, debug.BuildSetting{Key: "CGO_ENABLED", Value: "0"}) {
		t.Errorf("a part is built with %v, want CGO_ENABLED=0", info.Settings)
	}
	if last := reports[len(reports)-1]; !last.Done || last.Total == 0 {
		t.Errorf("the last report is %+v", last)
	}
	if got := programs.PATH(); got != filepath.Dir(programs["pause"]) {
		t.Errorf("PATH is %q, want the folder of %s", got, programs["pause"])
	}

	reports = nil
	again, err := build(t.Context(), dir, []Part{small(t)}, report)
	if err != nil || again["pause"] != programs["pause"] {
		t.Errorf("the second build gives %v, %v; want %v", again, err, programs)
	}
	if len(reports) > 0 {
		t.Errorf("what is there was built again: %+v", reports)
	}
}

// TestBuildTogether builds from several goroutines, as several processes do.
func TestBuildTogether(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := build(t.Context(), dir, []Part{small(t)}, nil); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	wantOnly(t, dir, folder([]Part{small(t)}), "lock")
}

func TestBuildFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, workPrefix+"killed", "src"), 0o755); err != nil {
		t.Fatal(err)
	}
	broken := small(t)
	broken.Programs = map[string]string{"pause": "parts/nowhere"}
	if _, err := build(t.Context(), dir, []Part{broken}, nil); err == nil || !strings.Contains(err.Error(), "build the parts of a cluster: ") || !strings.Contains(err.Error(), "nowhere") {
		t.Errorf("a package that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := build(ctx, dir, []Part{small(t)}, nil); err == nil {
		t.Error("a build that is cut off succeeds")
	}
	wantOnly(t, dir, "lock")
}

// wantOnly wants these files in dir and no other.
func wantOnly(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(names, " ") {
		t.Errorf("the folder holds %v, want %v", got, names)
	}
}
