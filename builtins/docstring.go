package builtins

import "strings"

// This file reads the docstring of a pipeline's function, as KFP does.

// docstring is the first line of a docstring, and what it says of arguments.
type docstring struct {
	short string
	args  map[string]string
}

// parseDocstring reads a docstring in the style of Google (a section Args:) or
// of reStructuredText (:param x: ...).
func parseDocstring(doc string) docstring {
	lines := strings.Split(strings.TrimSpace(doc), "\n")
	d := docstring{short: strings.TrimSpace(lines[0]), args: map[string]string{}}
	section, indent, name := false, 0, ""
	for _, line := range lines[1:] {
		text := strings.TrimSpace(line)
		depth := len(line) - len(strings.TrimLeft(line, " \t"))
		switch {
		case text == "":
			name = ""
		case strings.HasPrefix(text, ":param "):
			before, about, ok := strings.Cut(text[len(":param "):], ":")
			if words := strings.Fields(before); ok && len(words) > 0 {
				section, name = false, words[len(words)-1] // a type may stand before it
				d.args[name] = strings.TrimSpace(about)
			}
		case text == "Args:" || text == "Arguments:" || text == "Parameters:" || text == "Params:":
			section, indent, name = true, 0, ""
		case section && indent == 0 || section && depth == indent:
			indent = depth
			before, about, ok := strings.Cut(text, ":")
			before, _, _ = strings.Cut(before, "(") // its type
			if name = strings.TrimSpace(before); !ok || strings.ContainsAny(name, " \t") {
				section, name = false, ""
				break
			}
			d.args[name] = strings.TrimSpace(about)
		case name != "" && depth > indent:
			d.args[name] += "\n" + text
		default:
			section, name = false, ""
		}
	}
	return d
}
