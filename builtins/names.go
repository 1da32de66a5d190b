package builtins

import (
	"fmt"
	"strings"
	"unicode"

	"github.com/kfs-project/kfs/dag"
)

// This file defines the names of steps, as kfp 1.8.22 makes them.

// A namer gives the steps of a pipeline their names.
type namer struct {
	used map[string]bool // names before the second pass
	next map[string]int  // by base: the suffix to try first
	last map[string]bool // names after it
}

func newNamer() namer {
	return namer{used: map[string]bool{}, next: map[string]int{}, last: map[string]bool{}}
}

// name returns the final name of a step that the author called name. KFP
// normalises it, adds -2, -3, ... until it is free, and then drops what
// Kubernetes does not allow; where that last pass leaves nothing or makes two
// names alike, it loses a step, and so the name is refused.
func (n *namer) name(name string) (string, error) {
	base := strings.ReplaceAll(normalize(name), "_", "-")
	if base == "" {
		base = "task"
	}
	unique := base
	for i := max(n.next[base], 2); n.used[unique]; i++ {
		unique = fmt.Sprintf("%s-%d", base, i)
		n.next[base] = i + 1
	}
	n.used[unique] = true
	final := dag.K8sName(unique)
	var fault error
	switch {
	case final == "":
		fault = fmt.Errorf("step name %q: want at least one ASCII letter or digit", name)
	case n.last[final]:
		fault = fmt.Errorf("step name %q becomes %q, as that of another step does: only ASCII letters and digits are kept", name, final)
	case len(final) > dag.MaxName:
		fault = fmt.Errorf("step name %q: %d characters; want at most %d", name, len(final), dag.MaxName)
	}
	for i := 1; fault != nil && (i == 1 || n.last[final]); i++ {
		final = fmt.Sprintf("unnamed-%d", i) // so that one fault is not reported as two
	}
	n.last[final] = true
	return final, fault
}

// normalize is KFP's _normalize_identifier_name: small letters, with each run
// of characters that are no letter or digit as one underscore, and an n before
// a digit at the start.
func normalize(name string) string {
	words := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !unicode.IsNumber(r)
	})
	joined := strings.Join(words, "_")
	if joined != "" && '0' <= joined[0] && joined[0] <= '9' {
		joined = "n" + joined
	}
	return joined
}
