// Package lines cuts the output of programs into lines that can be shown.
package lines

import (
	"bytes"
	"strings"
)

// A Splitter takes text piece by piece and returns its lines.
type Splitter struct {
	Max int // bytes of a line; longer ones come in pieces

	part []byte // of a line whose end has not been seen
}

// Add takes text and returns the lines that are complete, without their ends.
func (s *Splitter) Add(text []byte) []string {
	var lines []string
	for len(text) > 0 {
		piece, rest, whole := bytes.Cut(text, []byte("\n"))
		for len(s.part)+len(piece) > s.Max {
			n := s.Max - len(s.part)
			lines = append(lines, Text(append(s.part, piece[:n]...)))
			s.part, piece = nil, piece[n:]
		}
		s.part = append(s.part, piece...)
		if !whole {
			break
		}
		lines = append(lines, Text(s.part))
		s.part, text = nil, rest
	}
	return lines
}

// Rest returns what is left without an end, and whether there is any, and
// forgets it.
func (s *Splitter) Rest() (string, bool) {
	part := s.part
	s.part = nil
	return Text(part), len(part) > 0
}

// Text returns a line as text: what is not UTF-8 is replaced, and the carriage
// return of a line end of Windows is taken off.
func Text(line []byte) string {
	return strings.ToValidUTF8(strings.TrimSuffix(string(line), "\r"), "\uFFFD")
}
