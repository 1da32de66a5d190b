package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/images"
	"github.com/kfs-project/kfs/interp"
)

// This file defines the flags that every command on a script shares.

// scriptFlags say which pipeline of a script is meant, and with which values.
type scriptFlags struct {
	root     string
	pipeline string
	set      []string
}

func (f *scriptFlags) add(cmd *cobra.Command) {
	f.addFile(cmd)
	cmd.Flags().StringVar(&f.pipeline, "pipeline", "", "which pipeline, if FILE registers several")
}

// addFile adds the flags that say how a file is evaluated.
func (f *scriptFlags) addFile(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.root, "root", "", "folder that the script may load from (default: the folder of FILE)")
	flags.StringArrayVar(&f.set, "set", nil, "`name=value` of a setting, known while the script is evaluated")
}

// valueFlags are the values for the params of a pipeline, and its images.
type valueFlags struct {
	params     []string
	paramsFile string
	images     string
}

func (f *valueFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVarP(&f.params, "param", "p", nil, "`name=value` of a param, known when the pipeline runs")
	flags.StringVar(&f.paramsFile, "params-file", "", "YAML or JSON `file` with values of params; -p comes first")
	flags.StringVar(&f.images, "images", "", "YAML `file` that says what stands in for images")
}

// load evaluates the script and returns the pipeline. What the script prints
// goes to stderr.
func (f *scriptFlags) load(ctx context.Context, stderr io.Writer, file string) (*dag.Pipeline, *interp.Script, error) {
	script, err := f.evaluate(ctx, stderr, file, interp.Config{})
	if err != nil {
		return nil, nil, &scriptError{f.rootOf(file), err}
	}
	p, err := script.Pipeline(ctx, f.pipeline)
	if err != nil {
		return nil, nil, &scriptError{f.rootOf(file), err}
	}
	return p, script, nil
}

// evaluate evaluates the script, and none of its pipelines. The flags fill in
// cfg.
func (f *scriptFlags) evaluate(ctx context.Context, stderr io.Writer, file string, cfg interp.Config) (*interp.Script, error) {
	settings, err := assignments("--set", f.set)
	if err != nil {
		return nil, err
	}
	root := f.rootOf(file)
	cfg.Root, cfg.Settings = f.root, settings
	cfg.Print = func(pos dag.Pos, msg string) {
		fmt.Fprintf(stderr, "%s: %s\n", shown(root, pos), msg)
	}
	return interp.Load(ctx, file, cfg)
}

// wrap gives an error that dag or a backend found in the pipeline the excerpts
// of the script.
func (f *scriptFlags) wrap(script *interp.Script, file string, err error) error {
	if err == nil {
		return nil
	}
	return &scriptError{f.rootOf(file), script.Explain(err)}
}

func (f *scriptFlags) rootOf(file string) string {
	if f.root != "" {
		return f.root
	}
	return interp.DefaultRoot(file)
}

// values returns the given values of params: those of the file, then those of
// the command line, as text.
func (f *valueFlags) values() (map[string]string, error) {
	values := map[string]string{}
	if f.paramsFile != "" {
		var err error
		if values, err = readParams(f.paramsFile); err != nil {
			return nil, err
		}
	}
	given, err := assignments("-p", f.params)
	maps.Copy(values, given)
	return values, err
}

// imageMap returns the map of --images; nil without one.
func (f *valueFlags) imageMap() (*images.Map, error) {
	if f.images == "" {
		return nil, nil
	}
	return images.Read(f.images)
}

// assignments returns name=value pairs as a map.
func assignments(flag string, pairs []string) (map[string]string, error) {
	m := map[string]string{}
	for _, pair := range pairs {
		name, value, ok := strings.Cut(pair, "=")
		if !ok || name == "" {
			return nil, fmt.Errorf("%s %q: want name=value", flag, pair)
		}
		if old, twice := m[name]; twice && old != value {
			return nil, fmt.Errorf("%s %s is given twice: %q and %q", flag, name, old, value)
		}
		m[name] = value
	}
	return m, nil
}

// readParams reads a file of params: a mapping of names to values. A scalar is
// taken as it is written, but for true and false; a list or mapping becomes
// JSON as KFP writes it.
func readParams(file string) (map[string]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("--params-file: %w", err)
	}
	values := map[string]string{}
	var doc, more yaml.Node
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	switch err := decoder.Decode(&doc); {
	case err == io.EOF:
		return values, nil // an empty file
	case err != nil:
		return nil, fmt.Errorf("--params-file %s: %w", file, err)
	case decoder.Decode(&more) != io.EOF:
		return nil, fmt.Errorf("--params-file %s: want one YAML document, found more", file)
	}
	top := doc.Content[0]
	if top.Kind != yaml.MappingNode {
		return nil, fmt.Errorf("--params-file %s: want a mapping of params to values", file)
	}
	var faults []error
	for i := 0; i < len(top.Content); i += 2 {
		key, node := top.Content[i], top.Content[i+1]
		value, err := paramText(node)
		if _, twice := values[key.Value]; twice && err == nil {
			err = errors.New("it is given twice")
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("--params-file %s:%d: param %q: %w", file, key.Line, key.Value, err))
		}
		values[key.Value] = value
	}
	return values, errors.Join(faults...)
}

func paramText(n *yaml.Node) (string, error) {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if n.Kind != yaml.ScalarNode {
		var v any
		if err := n.Decode(&v); err != nil {
			return "", err
		}
		text, err := json.Marshal(v)
		if err != nil {
			return "", fmt.Errorf("it cannot become JSON: %w", err)
		}
		var holder dag.Object
		if err := json.Unmarshal([]byte(`{"v":`+string(text)+`}`), &holder); err != nil {
			return "", err
		}
		return dag.PythonJSON(holder.Get("v")), nil
	}
	switch n.ShortTag() {
	case "!!null":
		return "", errors.New("null is no value; leave the param out to use its default")
	case "!!bool":
		return strings.ToUpper(n.Value[:1]) + strings.ToLower(n.Value[1:]), nil
	}
	return n.Value, nil
}
