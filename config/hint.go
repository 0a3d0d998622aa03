package config

import (
	"fmt"
	"slices"
	"strings"
)

// foreign are words that people bring along from other load balancers, with ours.
var foreign = map[string]string{
	"algorithm":       "balance",
	"cert":            "certificates",
	"default_backend": "backend",
	"domain":          "host",
	"headers":         "header",
	"hostname":        "host",
	"inter":           "interval",
	"listen":          "frontend",
	"location":        "route",
	"max_conns":       "max_connections",
	"maxconn":         "max_connections",
	"methods":         "method",
	"proxy_pass":      "backend",
	"return":          "respond",
	"upstream":        "backend",
	"slowstart":       "slow_start",
	"use_backend":     "backend",
	"virtual_ip":      "vip",
	"virtual_server":  "frontend",
}

// closest returns the one of words that was probably meant by word, or "".
func closest(word string, words []string) string {
	if w := foreign[word]; w != "" && slices.Contains(words, w) {
		return w
	}
	limit := max(1, min(3, len(word)/3))
	best, distance := "", limit+1
	for _, w := range words {
		d := levenshtein(strings.ToLower(word), strings.ToLower(w), distance)
		if d < distance {
			best, distance = w, d
		}
	}
	return best
}

// didYouMean is the hint for a word that is none of words: the closest of them, or all of them when there are few.
func didYouMean(word string, words []string, all string) string {
	if w := closest(word, words); w != "" {
		return fmt.Sprintf("did you mean %q?", w)
	}
	if len(words) == 0 {
		return all + " nothing"
	}
	if len(words) > 16 {
		return ""
	}
	return all + " " + strings.Join(words, ", ")
}

// levenshtein counts the letters to insert, delete or replace to make a into b, or to swap with their neighbour. It gives up
// and returns limit when the answer cannot be below it.
func levenshtein(a, b string, limit int) int {
	x, y := []rune(a), []rune(b)
	if len(x)-len(y) >= limit || len(y)-len(x) >= limit || len(x) > 64 {
		return limit
	}
	before, prev, row := make([]int, len(y)+1), make([]int, len(y)+1), make([]int, len(y)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(x); i++ {
		row[0] = i
		for j := 1; j <= len(y); j++ {
			cost := 1
			if x[i-1] == y[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && x[i-1] == y[j-2] && x[i-2] == y[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev, row = prev, row, before
	}
	return min(limit, prev[len(y)])
}
