package kfs

import (
	"context"
	"fmt"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
	"go.starlark.net/starlark"

	"github.com/kfs-project/kfs/builtins"
	"github.com/kfs-project/kfs/dag"
	"github.com/kfs-project/kfs/interp"
)

// This file generates the tables of docs/language.md from the comments of
// package builtins. A comment that begins with signatures, as a script writes
// them, is a row: they are its first cell, and the paragraph behind them is the
// second. A table of the document says in a comment above it which rows it has:
//
//	<!-- rows: config, step.set_retry -->

// A row is what one comment says of words or methods.
type row struct {
	signatures []string
	text       string
	pos        token.Position
	used       bool
}

// TestLanguage compares docs/language.md with what the comments say, and sees
// that no word or method is missing.
func TestLanguage(t *testing.T) {
	const file = "docs/language.md"
	rows := commentRows(t)
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	got := withRows(t, string(old), rows)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	} else if diff := cmp.Diff(string(old), got); diff != "" {
		t.Errorf("%s differs from the comments of builtins (-file +comments); after reading: go test . -update\n%s", file, diff)
	}
	for _, r := range rows {
		if !r.used {
			t.Errorf("%s: no table of %s has this row", r.pos, file)
		}
	}
	for _, word := range builtins.Words() {
		if starlark.Universe[word] == nil && !regexp.MustCompile("`"+word+"[`(.]").MatchString(got) {
			t.Errorf("%s does not name the word %s", file, word)
		}
	}
	for what, names := range attributes(t) {
		for _, name := range names {
			if !regexp.MustCompile(`\.` + name + `\b`).MatchString(got) {
				t.Errorf("%s does not name .%s of %s", file, name, what)
			}
		}
	}
}

// commentRows returns the rows by their first signature up to its parenthesis.
func commentRows(t *testing.T) map[string]*row {
	t.Helper()
	files, err := filepath.Glob("builtins/*.go")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string]*row{}
	fset := token.NewFileSet()
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range f.Comments {
			paragraphs := strings.Split(strings.TrimSpace(c.Text()), "\n\n")
			signatures, ok := signatures(oneLine(paragraphs[0]))
			if !ok || len(paragraphs) < 2 {
				continue
			}
			key, _, _ := strings.Cut(signatures[0], "(")
			r := &row{signatures: signatures, text: oneLine(paragraphs[1]), pos: fset.Position(c.Pos())}
			if other := rows[key]; other != nil {
				t.Errorf("%s: %s has a comment at %s too", r.pos, key, other.pos)
			}
			rows[key] = r
		}
	}
	return rows
}

func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// signatures returns the calls that text is a list of, without their results.
func signatures(text string) ([]string, bool) {
	text = regexp.MustCompile(`^\w+: `).ReplaceAllString(text, "")
	name := regexp.MustCompile(`^[\w.]+\(`)
	result := regexp.MustCompile(`^ -> \w+( or \w+)?`)
	var all []string
	for {
		n := len(name.FindString(text))
		if n == 0 {
			return nil, false
		}
		for deep, quoted := 1, false; deep > 0; n++ {
			if n == len(text) {
				return nil, false
			}
			switch c := text[n]; {
			case c == '"':
				quoted = !quoted
			case quoted:
			case c == '(':
				deep++
			case c == ')':
				deep--
			}
		}
		all = append(all, text[:n])
		text = text[n:]
		text = text[len(result.FindString(text)):]
		if text == "" {
			return all, true
		}
		var more bool
		if text, more = strings.CutPrefix(text, ", "); !more {
			return nil, false
		}
	}
}

// withRows returns the document with the rows of its tables.
func withRows(t *testing.T, doc string, rows map[string]*row) string {
	t.Helper()
	table := regexp.MustCompile(`(?m)^<!-- rows: (.*) -->\n\n(\|.*\n\|.*\n)((?:\|.*\n)*)`)
	return table.ReplaceAllStringFunc(doc, func(found string) string {
		m := table.FindStringSubmatch(found)
		var b strings.Builder
		fmt.Fprintf(&b, "<!-- rows: %s -->\n\n%s", m[1], m[2])
		for _, key := range strings.Split(m[1], ", ") {
			r := rows[key]
			if r == nil {
				t.Errorf("docs/language.md wants a row for %s, and no comment of builtins begins with it", key)
				continue
			}
			r.used = true
			var cells []string
			for _, s := range r.signatures {
				for _, self := range []string{"step.", "x.", "conf.", "volume."} {
					if rest, ok := strings.CutPrefix(s, self); ok {
						s = "." + rest
						break
					}
				}
				cells = append(cells, "`"+s+"`")
			}
			fmt.Fprintf(&b, "| %s | %s |\n", strings.Join(cells, ", "), r.text)
		}
		return b.String()
	})
}

// attributes returns what a script can ask of the values that it is given.
func attributes(t *testing.T) map[string][]string {
	t.Helper()
	of := map[string][]string{}
	script, err := interp.LoadFS(context.Background(), fstest.MapFS{"in.star": {Data: []byte(`
def p():
    step = container_op("a", "i")
    for name, v in [("a step", step), ("its container", step.container), ("a sidecar", sidecar("b", "i")),
                    ("a conf", pipeline_conf()), ("a step on an object", volume_op("v", "r", size = "1Gi"))]:
        print(name + ":" + ",".join(dir(v)))

pipeline(p)
`)}}, "in.star", interp.Config{Print: func(_ dag.Pos, msg string) {
		what, names, _ := strings.Cut(msg, ":")
		of[what] = strings.Split(names, ",")
	}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := script.Pipeline(context.Background(), ""); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"its container", "a sidecar"} {
		of[what] = slices.DeleteFunc(of[what], func(name string) bool { // the fields of k8s.Container
			return !strings.HasPrefix(name, "add_") && !strings.HasPrefix(name, "set_")
		})
	}
	return of
}
