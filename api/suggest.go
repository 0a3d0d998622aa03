package api

import (
	"fmt"
	"strings"
)

// suggest is the hint for an unknown name: the nearest known one, or otherwise.
func suggest(name string, known []string, otherwise string) string {
	best, near := 3, "" // a distance of three is no typing mistake any more
	for _, k := range known {
		if d := distance(strings.ToLower(name), strings.ToLower(k)); d < best && d < len(k) {
			best, near = d, k
		}
	}
	if near == "" {
		return otherwise
	}
	return fmt.Sprintf("did you mean %q?", near)
}

// distance is Levenshtein's, in bytes: names are short and nearly always ASCII.
func distance(a, b string) int {
	if len(a) > 64 || len(b) > 64 {
		return 64
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
