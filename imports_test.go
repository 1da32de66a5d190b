package kfs

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/kfs-project/kfs"

// arrows says which packages of ours each package may import. A package that
// is not listed may import none, and no package may import one outside its
// line, not even by way of another.
var arrows = map[string][]string{
	"backend/accel":        {"dag", "internal/spell", "kube"},
	"backend/argo":         {"backend/accel", "dag", "internal/spell", "internal/yaml", "kube"},
	"artifact":             {"internal/collect", "internal/launch", "internal/program", "internal/spell"},
	"backend/k8s":          {"artifact", "backend/accel", "backend/k8s/resource", "dag", "engine", "images", "internal/collect", "internal/launch", "internal/lines", "internal/program", "internal/spell", "internal/yaml", "kube"},
	"backend/k8s/resource": {"dag", "engine", "internal/spell"},
	"backend/local":        {"backend/accel", "dag", "engine", "images", "internal/collect", "internal/lines", "internal/program", "internal/spell", "kube"},
	"bench":                {"backend/accel", "backend/argo", "builtins", "builtins/component", "dag", "internal/spell", "internal/terminal", "internal/yaml", "interp", "kube"},
	"builtins":             {"builtins/component", "dag", "internal/spell", "kube"},
	"builtins/component":   {"dag", "internal/spell"},
	"dag":                  {"internal/spell"},
	"engine":               {"dag", "internal/spell"},
	"engine/enginetest":    {"dag", "engine", "internal/spell"},
	"examples/embed":       {"backend/accel", "backend/argo", "builtins", "builtins/component", "dag", "internal/spell", "internal/terminal", "internal/yaml", "interp", "kube"},
	"graph":                {"dag", "internal/spell"},
	"images":               {"internal/spell"},
	"internal/launch":      {"internal/collect", "internal/program"},
	"internal/yaml":        {"dag", "internal/spell"},
	"interp":               {"builtins", "builtins/component", "dag", "internal/spell", "internal/terminal", "kube"},
	"interp/worker":        {"builtins", "builtins/component", "dag", "internal/spell", "internal/terminal", "interp", "kube"},
	"kube":                 {"dag", "internal/spell"},
	"vendoring":            {"builtins/component", "dag", "internal/spell", "internal/terminal"},
}

// standardOnly are the packages that import nothing from other modules.
var standardOnly = []string{"dag", "engine", "graph", "internal/collect", "internal/launch", "internal/program", "internal/spell", "internal/terminal", "internal/yaml"}

// networked are the packages that speak HTTP: what evaluates scripts never
// fetches, and a program that embeds it needs none of net/http.
var networked = []string{"artifact", "backend/k8s", "backend/k8s/resource", "cmd/kfs", "examples/mnist", "internal/clustertest", "vendoring"}

// clusterClients are the packages that speak to an API server.
var clusterClients = []string{"backend/k8s", "backend/k8s/resource", "cmd/kfs", "internal/clustertest"}

// TestArrows keeps the imports between packages pointing one way.
func TestArrows(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-json=ImportPath,Deps,Module,Standard", "./...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	standard := map[string]bool{}
	deps := map[string][]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var pkg struct {
			ImportPath string
			Deps       []string
			Standard   bool
		}
		if err := d.Decode(&pkg); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		standard[pkg.ImportPath] = pkg.Standard
		if name, ours := strings.CutPrefix(pkg.ImportPath, module+"/"); ours {
			deps[name] = pkg.Deps
		}
	}
	if len(deps) < len(arrows) {
		t.Fatalf("go list found %d packages of ours; want at least the %d of arrows", len(deps), len(arrows))
	}
	for name, imports := range deps {
		for _, path := range imports {
			if strings.HasPrefix(path, "k8s.io/") && !slices.Contains(clusterClients, name) {
				t.Errorf("%s imports %s: want it in %v only; package kube has a table of what core/v1 says", name, path, clusterClients)
			}
			if path == "k8s.io/client-go/kubernetes" {
				t.Errorf("%s imports %s: it registers all groups of the API in each start of a program", name, path)
			}
			if path == "net/http" && !slices.Contains(networked, name) {
				t.Errorf("%s imports %s: want it in %v only", name, path, networked)
			}
		}
		if strings.HasPrefix(name, "cmd/") {
			continue // a command may import all
		}
		for _, path := range imports {
			dep, ours := strings.CutPrefix(path, module+"/")
			if ours && !slices.Contains(arrows[name], dep) {
				t.Errorf("%s imports %s: want only %v", name, dep, arrows[name])
			}
			if !ours && !standard[path] && slices.Contains(standardOnly, name) {
				t.Errorf("%s imports %s: want only the standard library", name, path)
			}
		}
	}
}
