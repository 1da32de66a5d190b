package interp

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.starlark.net/starlark"
	"go.starlark.net/syntax"

	"github.com/kfs-project/kfs/builtins"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/internal/spell"
)

// This file defines what a host adds to the language, and what its functions
// may ask of the evaluation that called them.

// A Runtime is a value known only when the pipeline runs, as a function of the
// host may be given one: a param, an output, a loop item, or text or a
// condition made of such. It can be passed on to a word, and nothing else.
type Runtime = builtins.Runtime

// Call calls a word of the language ("container_op", "condition") from a
// function of the host that a script called on the thread. The steps that it
// makes have the place of the script's call. The error is the function's to
// return.
func Call(thread *starlark.Thread, word string, args starlark.Tuple, kwargs []starlark.Tuple) (starlark.Value, error) {
	session, ok := thread.Local(sessionKey).(*builtins.Session)
	if !ok {
		return nil, fmt.Errorf("interp.Call of %s: the thread is not one of a script", word)
	}
	fn := session.Word(word)
	if fn == nil {
		return nil, fmt.Errorf("interp.Call: the language has no word %q", word)
	}
	return starlark.Call(thread, fn, args, kwargs)
}

// Position returns the place in a script that called the function of the host
// which is running on the thread; zero if there is none.
func Position(thread *starlark.Thread) dag.Pos { return builtins.Caller(thread) }

// sessionKey is the name of the thread's local that Call reads.
const sessionKey = "kfs session"

// checkHost returns what is wrong with what the host adds.
func (c *Config) checkHost() error {
	for _, name := range slices.Sorted(maps.Keys(c.Words)) {
		if !isIdentifier(name) {
			return fmt.Errorf("interp.Config.Words: %q is no name of Starlark", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Modules)) {
		if !isIdentifier(name) || name == "kfp" || name == "kfs" {
			return fmt.Errorf("interp.Config.Modules: %q: want a name other than kfp and kfs, without the @", name)
		}
	}
	return nil
}

func isIdentifier(name string) bool {
	expr, err := syntax.ParseExpr("", name, 0)
	if err != nil {
		return false
	}
	id, ok := expr.(*syntax.Ident)
	return ok && id.Name == name
}

// module returns the words that load("@name", ...) gives.
func (l *loader) module(name string) (starlark.StringDict, error) {
	if words, ok := l.words(name); ok {
		return words, nil
	}
	if words, ok := l.modulesOfHost[strings.TrimPrefix(name, "@")]; ok {
		return words, nil
	}
	names := []string{"@kfp", "@kfs"}
	for own := range l.modulesOfHost {
		names = append(names, "@"+own)
	}
	slices.Sort(names)
	want := spell.DidYouMean(name, names)
	if want == "" {
		want = "want " + strings.Join(names, ", ") + " or a file"
	}
	return nil, fmt.Errorf("no module is named %q: %s", name, want)
}

// names returns the words that a file can use without defining them.
func (l *loader) names() []string {
	names := slices.Collect(maps.Keys(starlark.Universe))
	for name := range l.env {
		if !builtins.IsOperator(name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// A Setting is what one config(...) asks for.
type Setting struct {
	Name    string
	Type    string   // that the value must have: "string", "int", "float" or "bool"
	Default string   // as --set would give it; "" if there is none
	Choices []string // the values that it may have; nil is any
	Doc     string
	Pos     dag.Pos
}

// Settings returns the settings that the files asked for so far, in order:
// those of pipelines' functions are there once Pipeline has run them.
func (s *Script) Settings() []Setting {
	var all []Setting
	for _, set := range s.session.Settings() {
		out := Setting{Name: set.Name, Type: set.Default.Type(), Default: settingText(set.Default), Doc: set.Doc, Pos: set.Pos}
		if set.Default == starlark.None {
			out.Type, out.Default = "string", ""
		}
		for _, choice := range set.Choices {
			out.Choices = append(out.Choices, settingText(choice))
		}
		all = append(all, out)
	}
	return all
}

func settingText(v starlark.Value) string {
	if text, ok := starlark.AsString(v); ok {
		return text
	}
	return v.String()
}
