package graph

import (
	"strings"
	"unicode"

	"github.com/kfs-project/kfs/dag"
)

// This file makes text safe to show and estimates its width.

// clean returns text as one line that is safe in every picture: tokens as
// <name>, white space of any kind as one space, and U+FFFD for what is not
// UTF-8, what XML forbids and what turns the direction of the text around it.
func clean(text string) string {
	text = strings.ToValidUTF8(dag.Display(text), "\uFFFD")
	text = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), unicode.Is(unicode.Noncharacter_Code_Point, r):
			return '\uFFFD'
		}
		return r
	}, text)
	return strings.Join(strings.Fields(text), " ")
}

// wide are the ranges of characters that take two columns: those of East
// Asian scripts, and emoji.
var wide = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x1100, 0x115F, 1}, {0x2E80, 0xA4CF, 1}, {0xAC00, 0xD7A3, 1},
		{0xF900, 0xFAFF, 1}, {0xFE30, 0xFE6F, 1}, {0xFF00, 0xFF60, 1}, {0xFFE0, 0xFFE6, 1},
	},
	R32: []unicode.Range32{{0x1F300, 0x1FAFF, 1}, {0x20000, 0x3FFFD, 1}},
}

// runeColumns returns how many columns of a terminal the character takes.
func runeColumns(r rune) int {
	switch {
	case r < 0x300:
		return 1
	case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		return 0
	case unicode.Is(wide, r):
		return 2
	}
	return 1
}

// columns returns how many columns of a terminal the text takes.
func columns(text string) int {
	n := 0
	for _, r := range text {
		n += runeColumns(r)
	}
	return n
}

// shorten returns text cut to the number of columns, with an ellipsis if
// anything was cut.
func shorten(text string, limit int) string {
	if columns(text) <= limit {
		return text
	}
	n := 1 // the ellipsis
	for i, r := range text {
		if n += runeColumns(r); n > limit {
			return strings.TrimRight(text[:i], " ") + "…"
		}
	}
	return text
}

// textWidth estimates the width of text in pixels in a sans-serif font of the
// size, on the generous side. It is a whole number, so that equal pipelines
// give equal pictures on every machine.
func textWidth(text string, size float64) float64 {
	hundredths := 0 // of the size
	for _, r := range text {
		switch {
		case strings.ContainsRune("iljtfr.,:;'|!()[] ", r):
			hundredths += 38
		case strings.ContainsRune("mwMW%@", r), unicode.IsUpper(r):
			hundredths += 82
		default:
			hundredths += 60 * runeColumns(r)
		}
	}
	return float64((hundredths*int(size) + 99) / 100)
}
