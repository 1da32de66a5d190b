// Package terminal makes text of strangers safe to show: a script's messages,
// the log of a step, the answer of a server.
package terminal

import (
	"strings"
	"unicode"
)

// Plain returns the text with U+FFFD for each character that a terminal would
// obey instead of showing it: control characters, but for tabs and line ends,
// and those that turn the direction of what follows.
func Plain(text string) string {
	return strings.Map(func(r rune) rune {
		if r != '\t' && r != '\n' && unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) {
			return '\uFFFD'
		}
		return r
	}, text)
}
