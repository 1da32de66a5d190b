// Package spell finds the word that a misspelt one was probably meant to be.
package spell

import (
	"strings"
	"unicode"
)

// Nearest returns the candidate closest to word, or "" if none is close
// enough to be worth suggesting. Case, underscores and hyphens count for
// nothing; of equally close candidates the first wins.
//
// The distance is that of optimal string alignment: insertions, deletions,
// substitutions and swaps of neighbours, each of cost one.
func Nearest(word string, candidates []string) string {
	w := fold(word)
	best, bestDist := "", len(w)/3+1 // one error in three letters
	for _, c := range candidates {
		if c == word {
			continue
		}
		if d := distance(w, fold(c), bestDist); d < bestDist {
			best, bestDist = c, d
		}
	}
	return best
}

// DidYouMean returns `did you mean "x"?` for the candidate nearest to word,
// or "" if there is none.
func DidYouMean(word string, candidates []string) string {
	if n := Nearest(word, candidates); n != "" {
		return `did you mean "` + n + `"?`
	}
	return ""
}

func fold(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '_' || r == '-' {
			return -1
		}
		return unicode.ToLower(r)
	}, s)
}

// distance returns the distance of a and b, or some number of at least limit
// once it is certain to be no less.
func distance(a, b string, limit int) int {
	if d := len(a) - len(b); d >= limit || -d >= limit {
		return limit
	}
	prev2, prev, cur := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		cur[0] = i
		low := cur[0]
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			d := min(prev[j]+1, cur[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				d = min(d, prev2[j-2]+1)
			}
			cur[j] = d
			low = min(low, d)
		}
		if low >= limit {
			return limit
		}
		prev2, prev, cur = prev, cur, prev2
	}
	return prev[len(b)]
}
