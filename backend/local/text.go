package local

import (
	"cmp"
	"path"
	"slices"
	"strings"
)

// This file defines how the texts of a step change before it runs.

// expand replaces $(NAME) by the variable and $$ by a dollar sign. What is
// neither, and names of no variable, stay as they are.
//
// The rules are those of the kubelet: k8s.io/kubernetes,
// third_party/forked/golang/expansion.
func expand(text string, env map[string]string) string {
	if !strings.Contains(text, "$") {
		return text
	}
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '$' || i+1 == len(text) {
			b.WriteByte(text[i])
			continue
		}
		i++
		switch text[i] {
		case '$':
			b.WriteByte('$')
		case '(':
			end := strings.IndexByte(text[i:], ')')
			if end < 0 {
				b.WriteString("$(")
				continue
			}
			name := text[i+1 : i+end]
			if value, ok := env[name]; ok {
				b.WriteString(value)
			} else {
				b.WriteString("$(" + name + ")")
			}
			i += end
		default:
			b.WriteByte('$')
			b.WriteByte(text[i])
		}
	}
	return b.String()
}

// rewriter returns a function that replaces the paths of the attempt's files in
// text by those where the process finds them, or is to leave them. A path counts only
// where it stands alone, or begins one below it: /out/a is replaced in
// /out/a/b, and not in /out/a.bak or /data/out/a.
func (a *attempt) rewriter() func(string) string {
	type pair struct{ from, to string }
	var pairs []pair
	for _, o := range a.Outputs {
		pairs = append(pairs, pair{o.Path, a.outPath(o.Output)})
		if clean := path.Clean(o.Path); clean != o.Path {
			pairs = append(pairs, pair{clean, a.outPath(o.Output)})
		}
	}
	for _, f := range a.Artifacts {
		pairs = append(pairs, pair{f.Path, a.inPath(f.Artifact)})
	}
	slices.SortStableFunc(pairs, func(p, q pair) int { return cmp.Compare(len(q.from), len(p.from)) })
	return func(text string) string {
		for _, p := range pairs {
			text = replacePath(text, p.from, p.to)
		}
		return text
	}
}

func replacePath(text, from, to string) string {
	var b strings.Builder
	rest := text
	for {
		i := strings.Index(rest, from)
		if i < 0 {
			break
		}
		before, after := text[:len(text)-len(rest)+i], rest[i+len(from):]
		if startsPath(before) && endsPath(after) {
			b.WriteString(rest[:i] + to)
			rest = after
		} else {
			b.WriteString(rest[:i+1])
			rest = rest[i+1:]
		}
	}
	return b.String() + rest
}

// startsPath reports whether an absolute path may begin behind the text.
func startsPath(before string) bool {
	if before == "" || strings.HasSuffix(before, "://") {
		return true
	}
	c := before[len(before)-1]
	return !pathByte(c) && c != ')' && c != '}'
}

// endsPath reports whether a path may end before the text, or go on below what
// is a folder then.
func endsPath(after string) bool { return after == "" || after[0] == '/' || !pathByte(after[0]) }

func pathByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		strings.IndexByte("/._-~+@%", c) >= 0 || c >= 0x80
}
