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
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

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
	r := reader{file: file, data: data}
	var top map[string]any
	if err := yaml.UnmarshalStrict(data, &top); err != nil {
		return nil, syntaxError(file, err)
	}
	m := &Map{File: file, targets: map[string]Target{}}
	for _, key := range slices.Sorted(maps.Keys(top)) {
		if key != "images" {
			r.fault(key, unknownKey(key, []string{"images"}))
		}
	}
	entries, ok := top["images"].(map[string]any)
	if !ok && len(r.faults) == 0 {
		r.fault("images", "images: want a map from image to what stands in for it")
	}
	for _, image := range slices.Sorted(maps.Keys(entries)) {
		m.targets[image] = r.target(image, entries[image])
	}
	if len(r.faults) > 0 {
		return nil, errors.Join(r.faults...)
	}
	return m, nil
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
	data   []byte
	faults []error
}

// fault adds a fault about a key, at the first line that begins with it.
func (r *reader) fault(key, msg string) { r.faultIn("", key, msg) }

// faultIn is fault for a key below another one.
func (r *reader) faultIn(above, key, msg string) {
	from := max(0, r.line(0, above))
	at := r.line(from, key)
	if at < 0 {
		at = from
	}
	r.faults = append(r.faults, fmt.Errorf("%s:%d: %s", r.file, at+1, msg))
}

// line returns the line, from 0, on which a key stands at or behind line
// from, or -1. It finds keys in block and flow style, and knows no more YAML.
func (r *reader) line(from int, key string) int {
	if key == "" {
		return -1
	}
	for i, line := range bytes.Split(r.data, []byte("\n")) {
		if i < from {
			continue
		}
		text := string(line)
		for {
			at := strings.Index(text, key)
			if at < 0 {
				break
			}
			before, after := text[:at], strings.TrimLeft(text[at+len(key):], `"' `)
			if strings.HasPrefix(after, ":") && strings.TrimRight(before, `"'`) == strings.TrimRight(before, `"'abcdefghijklmnopqrstuvwxyz_`) {
				return i
			}
			text = text[at+len(key):]
		}
	}
	return -1
}

var execKeys = []string{"exec", "dir", "env", "pass_env", "background"}

func (r *reader) target(image string, v any) Target {
	if image == "" {
		r.fault("images", `image "": want the name of an image`)
	}
	switch v := v.(type) {
	case string:
		if v == "" || strings.ContainsAny(v, " \t\n") {
			r.fault(image, fmt.Sprintf("image %q: its mirror is %q: want the name of an image", image, v))
		}
		return Target{Image: v}
	case map[string]any:
		return Target{Exec: r.exec(image, v)}
	}
	r.fault(image, fmt.Sprintf("image %q: found %s: want an image, or {exec: [...]}", image, kind(v)))
	return Target{}
}

func (r *reader) exec(image string, fields map[string]any) *Exec {
	x := &Exec{Env: map[string]string{}}
	base := filepath.Dir(r.file)
	if abs, err := filepath.Abs(base); err == nil {
		base = abs
	}
	wrong := func(field, want string) {
		r.faultIn(image, field, fmt.Sprintf("image %q: %s is %s: want %s", image, field, kind(fields[field]), want))
	}
	texts := func(field string) []string {
		list, ok := fields[field].([]any)
		var texts []string
		for _, e := range list {
			text, isText := e.(string)
			if !isText {
				ok = false
				break
			}
			texts = append(texts, text)
		}
		if !ok {
			wrong(field, "a list of strings")
		}
		return texts
	}
	if _, ok := fields["exec"]; !ok {
		r.fault(image, fmt.Sprintf("image %q has no exec: want  exec: [COMMAND, ...]  ([] runs the step's own command)", image))
	}
	for _, field := range slices.Sorted(maps.Keys(fields)) {
		switch v := fields[field]; field {
		case "exec":
			x.Command = texts(field)
			if len(x.Command) > 0 && strings.Contains(x.Command[0], "/") && !filepath.IsAbs(x.Command[0]) {
				x.Command[0] = filepath.Join(base, x.Command[0])
			}
		case "pass_env":
			x.PassEnv = texts(field)
		case "dir":
			dir, ok := v.(string)
			if !ok || dir == "" {
				wrong(field, "the path of a folder")
			} else if !filepath.IsAbs(dir) {
				dir = filepath.Join(base, dir)
			}
			x.Dir = dir
		case "env":
			env, ok := v.(map[string]any)
			if !ok {
				wrong(field, "a map from name to text")
			}
			for _, name := range slices.Sorted(maps.Keys(env)) {
				text, ok := env[name].(string)
				switch {
				case (name == "true" || name == "false") && r.line(0, name) < 0: // YAML 1.1 reads N and on as truth values
					r.faultIn(image, field, fmt.Sprintf("image %q: a name in env reads as %s: put it in quotes", image, name))
				case !ok:
					r.faultIn(image, name, fmt.Sprintf("image %q: env %s is %s: want text; put it in quotes", image, name, kind(env[name])))
				}
				x.Env[name] = text
			}
		case "background":
			background, ok := v.(bool)
			if !ok {
				wrong(field, "true or false")
			}
			x.Background = background
		default:
			r.faultIn(image, field, fmt.Sprintf("image %q: %s", image, unknownKey(field, execKeys)))
		}
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
func kind(v any) string {
	switch v := v.(type) {
	case nil:
		return "nothing"
	case string:
		return fmt.Sprintf("%q", v)
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	}
	return fmt.Sprint(v)
}

// syntaxError is an error of the YAML library with its place put first.
func syntaxError(file string, err error) error {
	msg := err.Error()
	for _, prefix := range []string{
		"error converting YAML to JSON: ", "yaml: ", "unmarshal errors:\n", "error unmarshaling JSON: while decoding JSON: ",
	} {
		msg = strings.TrimPrefix(strings.TrimSpace(msg), prefix)
	}
	msg = strings.TrimSpace(msg)
	if strings.Contains(msg, "cannot unmarshal") {
		msg = "want a map with the key images"
	}
	if line, rest, ok := strings.Cut(strings.TrimPrefix(msg, "line "), ": "); ok && strings.HasPrefix(msg, "line ") {
		return fmt.Errorf("%s:%s: %s", file, line, rest)
	}
	return fmt.Errorf("%s: %s", file, msg)
}
