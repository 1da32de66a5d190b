package program

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"bin/run": 0o755, "bin/plain": 0o644, "late/plain": 0o755} {
		os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o777)
		if err := os.WriteFile(filepath.Join(dir, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	bin, late := filepath.Join(dir, "bin"), filepath.Join(dir, "late")
	for _, tt := range []struct {
		program, path string
		want          string // below dir; "" is an error
		fault         string
		missing       bool
	}{
		{"run", bin, "bin/run", "", false},
		{"plain", bin + ":" + late, "late/plain", "", false},
		{"bin/run", "", "bin/run", "", false},
		{bin + "/run", "", "bin/run", "", false},
		{"run", ":bin:" + late, "", `program "run" is not in PATH`, true},
		{"plain", bin, "", `program "plain" is not executable: chmod +x it`, false},
		{"./none", bin, "", `program "./none" does not exist`, true},
		{"bin/run/x", bin, "", `program "bin/run/x" does not exist`, true},
		{"./bin", bin, "", `program "./bin" is a folder`, false},
		{"", bin, "", "the program is an empty text", false},
	} {
		got, err := Find(tt.program, tt.path, dir)
		if tt.want != "" {
			if want := filepath.Join(dir, tt.want); err != nil || got != want {
				t.Errorf("Find(%q, %q) = %q, %v; want %q", tt.program, tt.path, got, err, want)
			}
			continue
		}
		if err == nil || !strings.HasPrefix(err.Error(), tt.fault) || errors.Is(err, fs.ErrNotExist) != tt.missing {
			t.Errorf("Find(%q, %q) = %q, %v; want %q", tt.program, tt.path, got, err, tt.fault)
		}
	}
}
