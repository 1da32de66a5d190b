package builtins

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/dag"
)

// This file defines values that a step takes as files.

// An inputPath is what input_argument_path returns: among arguments, it is the
// path of a file that holds the value.
type inputPath struct {
	text, name, path string
}

func (p *inputPath) String() string       { return "<input_argument_path>" }
func (p *inputPath) Type() string         { return "input_argument_path" }
func (p *inputPath) Freeze()              {}
func (p *inputPath) Truth() starlark.Bool { return true }
func (p *inputPath) Hash() (uint32, error) {
	return 0, fmt.Errorf("an input_argument_path cannot be a key")
}

// inputArgumentPath: input_argument_path(value, input=None, path=None) -> argument
//
// Among the arguments of a step: the value as a file, by its path. `input`
// names it, and `path` is where it is to be.
func (s *Session) inputArgumentPath(c *call) (starlark.Value, error) {
	var v starlark.Value
	p := &inputPath{}
	if err := c.unpack("value", &v, "input??", &p.name, "path??", &p.path); err != nil {
		return nil, err
	}
	text, ok := scalarText(v)
	switch v.(type) {
	case *starlark.List, starlark.Tuple, *starlark.Dict:
		tree, err := toJSON(v)
		if err != nil {
			return nil, c.errorf("value", "input_argument_path: %v", err)
		}
		text, ok = dag.PythonJSON(tree), true
	}
	if !ok {
		return nil, c.errorf("value", "input_argument_path: want text, a value of the run, or a list or dict that becomes JSON, got %s", typeName(v))
	}
	if p.path != "" && !path.IsAbs(p.path) {
		return nil, c.errorf("path", "input_argument_path: path %q: want an absolute path in the container", p.path)
	}
	p.text = text
	return p, nil
}

// takeFile makes the step take the value as a file, and returns its path. The
// names and paths are those that KFP gives.
func (c *call) takeFile(d *dag.Step, p *inputPath) string {
	name := p.name
	if name == "" {
		name = "input-" + strconv.Itoa(len(d.Artifacts))
	}
	a := dag.Artifact{Name: dag.ArtifactName(name), Path: p.path, Text: p.text, Pos: c.pos}
	if a.Path == "" {
		a.Path = "/tmp/inputs/" + fileName(name) + "/data"
	}
	for _, other := range d.Artifacts {
		if other.Path == a.Path && other.Text == a.Text {
			return a.Path
		}
	}
	d.Artifacts = append(d.Artifacts, a)
	return a.Path
}

// fileName is what KFP makes of a name in a path: each run of characters that
// are no letter, digit, _, - or . becomes one underscore.
func fileName(name string) string {
	var b strings.Builder
	for _, r := range name {
		if 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("-_.", r) {
			b.WriteRune(r)
		} else if !strings.HasSuffix(b.String(), "_") {
			b.WriteByte('_')
		}
	}
	return b.String()
}

// artifactPaths: container_op(artifact_argument_paths=[input_argument_path(...), ...])
func (c *call) artifactPaths(d *dag.Step, list starlark.Iterable) {
	i := 0
	for e := range starlark.Elements(list) {
		if p, ok := e.(*inputPath); ok {
			c.takeFile(d, p)
		} else {
			c.report("artifact_argument_paths", "artifact_argument_paths[%d] is %s: want an input_argument_path(...)", i, kind(e)).Elem = i + 1
		}
		i++
	}
}
