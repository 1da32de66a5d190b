// Package images reads the file that says what stands in for the images of a
// pipeline: another image, or a command of this machine.
//
//	m, err := images.Read("images.yaml")
//	target, ok := m.Resolve("gcr.io/team/train:v3")
//
// Such a file is YAML. A key is an image without tag and digest, which means
// all of them, or an image exactly as the script names it, which comes first:
//
//	images:
//	  gcr.io/team/train: registry.local/train      # a mirror; keeps the tag
//	  gcr.io/team/train:v3: registry.local/t:v3    # exactly this image
//	  gcr.io/team/eval:                            # a command
//	    exec: [./venv/bin/python, -u]   # the step's command and arguments follow
//	    dir: src                        # working folder; default: one of its own
//	    env: {PYTHONPATH: src}          # what the image would set
//	    pass_env: [CUDA_VISIBLE_DEVICES]
//	    background: true                # what it starts may outlive the step
//
// Paths are relative to the folder of the file: dir, and the program if it
// holds a slash.
package images

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/kfs-project/kfs/internal/spell"
)

// A Target is what stands in for an image: an Image or an Exec.
type Target struct {
	Image string // another image; its tag is that of the original, unless it has its own
	Exec  *Exec
}

// An Exec is a command of this machine that stands in for an image.
type Exec struct {
	Command    []string          // the step's command and arguments follow; may be empty
	Dir        string            // absolute, or "" for a folder of the attempt's own
	Env        map[string]string // what the image would set
	PassEnv    []string          // names of variables of kfs that the command gets
	Background bool              // what the command starts may outlive it
}

// A Map says what stands in for images. The zero value and nil are empty.
type Map struct {
	File    string // as it was given to Read
	targets map[string]Target
}

// Read reads a file. Its faults are all reported, one error each, joined.
func Read(file string) (*Map, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("images: %w", err)
	}
	return Parse(file, data)
}

// Parse reads the text of a file. The file's name is used in messages and for
// relative paths.
func Parse(file string, data []byte) (*Map, error) {
	r := reader{file: file}
	var doc, more yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	if err := decoder.Decode(&doc); err != nil && err != io.EOF {
		return nil, syntaxError(file, err)
	}
	if len(doc.Content) > 0 && decoder.Decode(&more) != io.EOF {
		return nil, fmt.Errorf("%s: want one YAML document, found more", file)
	}
	m := &Map{File: file, targets: map[string]Target{}}
	if len(doc.Content) == 0 || resolve(doc.Content[0]).Kind != yaml.MappingNode {
		return nil, fmt.Errorf("%s: want a map with the key images", file)
	}
	top := resolve(doc.Content[0])
	found := false
	for _, e := range r.entries(top) {
		if e.key != "images" {
			r.fault(e.node, "%s", unknownKey(e.key, []string{"images"}))
			continue
		}
		found = true
		if e.value.Kind != yaml.MappingNode {
			r.fault(e.value, "images is %s: want a map from image to what stands in for it", kind(e.value))
			continue
		}
		for _, image := range r.entries(e.value) {
			m.targets[image.key] = r.target(image)
		}
	}
	if !found && len(r.faults) == 0 {
		r.fault(top, "want the key images, a map from image to what stands in for it")
	}
	if len(r.faults) > 0 {
		return nil, errors.Join(r.faults...)
	}
	return m, nil
}

// Mirrors returns the map in which other images stand in for images, as
// [Map.Mirrors] gives them.
func Mirrors(of map[string]string) *Map {
	m := &Map{targets: map[string]Target{}}
	for image, other := range of {
		m.targets[image] = Target{Image: other}
	}
	return m
}

// Mirrors returns the images that stand in for images, by the keys of the map;
// nil if there are none.
func (m *Map) Mirrors() map[string]string {
	if m == nil {
		return nil
	}
	var of map[string]string
	for key, t := range m.targets {
		if t.Image != "" {
			if of == nil {
				of = map[string]string{}
			}
			of[key] = t.Image
		}
	}
	return of
}

// Images returns the keys, sorted.
func (m *Map) Images() []string {
	if m == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(m.targets))
}

// Resolve returns what stands in for the image: the entry of exactly this
// text, else the one of the image without its tag and digest.
func (m *Map) Resolve(image string) (Target, bool) {
	if m == nil {
		return Target{}, false
	}
	if t, ok := m.targets[image]; ok {
		return t, true
	}
	name, suffix := Split(image)
	t, ok := m.targets[name]
	if !ok {
		return Target{}, false
	}
	if _, own := Split(t.Image); t.Image != "" && own == "" {
		t.Image += suffix
	}
	return t, true
}

// Split returns an image in two parts: its name, and its tag and digest with
// the characters before them ("" if it has neither). The port of a registry
// belongs to the name.
func Split(image string) (name, suffix string) {
	end := len(image)
	if i := strings.IndexByte(image, '@'); i >= 0 {
		end = i
	}
	if i := strings.LastIndexByte(image[:end], ':'); i > strings.LastIndexByte(image[:end], '/') {
		end = i
	}
	return image[:end], image[end:]
}

// A reader collects the faults of a file.
type reader struct {
	file   string
	faults []error
}

// fault adds a fault at a node.
func (r *reader) fault(n *yaml.Node, format string, args ...any) {
	r.faults = append(r.faults, fmt.Errorf("%s:%d:%d: %s", r.file, n.Line, n.Column, fmt.Sprintf(format, args...)))
}

// An entry is one key of a map and its value.
type entry struct {
	key   string
	node  *yaml.Node // of the key
	value *yaml.Node
}

// entries returns the entries of a map, in their order.
func (r *reader) entries(m *yaml.Node) []entry {
	var entries []entry
	for i := 0; i+1 < len(m.Content); i += 2 {
		e := entry{m.Content[i].Value, m.Content[i], resolve(m.Content[i+1])}
		if slices.ContainsFunc(entries, func(o entry) bool { return o.key == e.key }) {
			r.fault(e.node, "key %q stands there twice", e.key)
		}
		entries = append(entries, e)
	}
	return entries
}

// resolve returns the node that an alias stands for, or the node itself.
func resolve(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// text returns the value of a string.
func text(n *yaml.Node) (string, bool) {
	return n.Value, n.Kind == yaml.ScalarNode && n.ShortTag() == "!!str"
}

var execKeys = []string{"exec", "dir", "env", "pass_env", "background"}

func (r *reader) target(e entry) Target {
	if e.key == "" {
		r.fault(e.node, `image "": want the name of an image`)
	}
	if mirror, ok := text(e.value); ok {
		if mirror == "" || strings.ContainsAny(mirror, " \t\n") {
			r.fault(e.value, "image %q: its mirror is %q: want the name of an image", e.key, mirror)
		}
		return Target{Image: mirror}
	}
	if e.value.Kind == yaml.MappingNode {
		return Target{Exec: r.exec(e)}
	}
	r.fault(e.value, "image %q: found %s: want an image, or {exec: [...]}", e.key, kind(e.value))
	return Target{}
}

func (r *reader) exec(image entry) *Exec {
	x := &Exec{Env: map[string]string{}}
	base := filepath.Dir(r.file)
	if abs, err := filepath.Abs(base); err == nil {
		base = abs
	}
	hasExec := false
	for _, field := range r.entries(image.value) {
		wrong := func(want string) {
			r.fault(field.value, "image %q: %s is %s: want %s", image.key, field.key, kind(field.value), want)
		}
		texts := func() []string {
			var list []string
			ok := field.value.Kind == yaml.SequenceNode
			for _, n := range field.value.Content {
				t, isText := text(resolve(n))
				ok = ok && isText
				list = append(list, t)
			}
			if !ok {
				wrong("a list of strings")
			}
			return list
		}
		switch field.key {
		case "exec":
			hasExec = true
			x.Command = texts()
			if len(x.Command) > 0 && strings.Contains(x.Command[0], "/") && !filepath.IsAbs(x.Command[0]) {
				x.Command[0] = filepath.Join(base, x.Command[0])
			}
		case "pass_env":
			x.PassEnv = texts()
		case "dir":
			dir, ok := text(field.value)
			if !ok || dir == "" {
				wrong("the path of a folder")
			} else if !filepath.IsAbs(dir) {
				dir = filepath.Join(base, dir)
			}
			x.Dir = dir
		case "env":
			if field.value.Kind != yaml.MappingNode {
				wrong("a map from name to text")
				continue
			}
			for _, v := range r.entries(field.value) {
				t, ok := text(v.value)
				if !ok {
					r.fault(v.value, "image %q: env %s is %s: want text; put it in quotes", image.key, v.key, kind(v.value))
				}
				if v.key == "" || strings.ContainsAny(v.key, "=\x00") {
					r.fault(v.node, "image %q: env name %q: want a name without =", image.key, v.key)
				}
				x.Env[v.key] = t
			}
		case "background":
			if field.value.ShortTag() != "!!bool" || field.value.Decode(&x.Background) != nil {
				wrong("true or false")
			}
		default:
			r.fault(field.node, "image %q: %s", image.key, unknownKey(field.key, execKeys))
		}
	}
	if !hasExec {
		r.fault(image.node, "image %q has no exec: want  exec: [COMMAND, ...]  ([] runs the step's own command)", image.key)
	}
	return x
}

func unknownKey(key string, known []string) string {
	msg := fmt.Sprintf("unknown key %q", key)
	if hint := spell.DidYouMean(key, known); hint != "" {
		return msg + ": " + hint
	}
	return msg + ": want " + strings.Join(known, ", ")
}

// kind names a value as a message shows it.
func kind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "a map"
	case n.ShortTag() == "!!null":
		return "nothing"
	case n.ShortTag() == "!!str":
		return fmt.Sprintf("%q", n.Value)
	}
	return n.Value
}

// syntaxError is an error of the YAML library with its place put first.
func syntaxError(file string, err error) error {
	msg := strings.TrimPrefix(err.Error(), "yaml: ")
	if line, rest, ok := strings.Cut(strings.TrimPrefix(msg, "line "), ": "); ok && strings.HasPrefix(msg, "line ") {
		return fmt.Errorf("%s:%s: %s", file, line, rest)
	}
	return fmt.Errorf("%s: %s", file, msg)
}
