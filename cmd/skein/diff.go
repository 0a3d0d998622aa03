package main

import (
	"fmt"
	"strings"
)

// hunk is a part of a unified difference: lines that start with ' ', '-' or '+'.
type hunk struct {
	fromLine, fromCount int
	toLine, toCount     int
	lines               []string
}

func (h *hunk) head() string {
	return fmt.Sprintf("@@ -%d,%d +%d,%d @@", h.fromLine, h.fromCount, h.toLine, h.toCount)
}

// diffContext is the number of unchanged lines around a change.
const diffContext = 3

// edit is one line of a difference with its place in both texts, from 0.
type edit struct {
	op       byte
	text     string
	from, to int
}

// diffLines returns what turns one text into the other, in hunks.
func diffLines(from, to []byte) []hunk {
	edits := diffEdits(splitLines(string(from)), splitLines(string(to)))
	var hunks []hunk
	end := 0 // of the last hunk
	for i := 0; i < len(edits); i++ {
		if edits[i].op == ' ' {
			continue
		}
		start := max(i-diffContext, end)
		last := i
		for j := i; j < len(edits) && j-last <= 2*diffContext; j++ {
			if edits[j].op != ' ' {
				last = j
			}
		}
		end = min(last+1+diffContext, len(edits))
		h := hunk{fromLine: edits[start].from + 1, toLine: edits[start].to + 1}
		for _, e := range edits[start:end] {
			h.lines = append(h.lines, string(e.op)+e.text)
			if e.op != '+' {
				h.fromCount++
			}
			if e.op != '-' {
				h.toCount++
			}
		}
		hunks = append(hunks, h)
		i = end - 1
	}
	return hunks
}

func splitLines(s string) []string {
	if s == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(s, "\n"), "\n")
}

// maxEdits bounds the search of Myers's algorithm, whose memory grows with its square. Texts that differ in more are shown as
// replaced.
const maxEdits = 2000

// diffEdits is Myers's greedy algorithm (E. Myers, "An O(ND) Difference Algorithm", 1986).
func diffEdits(a, b []string) []edit {
	n, m := len(a), len(b)
	limit := min(n+m, maxEdits)
	v := make([]int, 2*limit+3)
	at := func(k int) *int { return &v[k+limit+1] }
	var trace [][]int
	for d := 0; d <= limit; d++ {
		trace = append(trace, append([]int(nil), v...))
		for k := -d; k <= d; k += 2 {
			var x int
			if k == -d || k != d && *at(k - 1) < *at(k + 1) {
				x = *at(k + 1)
			} else {
				x = *at(k - 1) + 1
			}
			y := x - k
			for x < n && y < m && a[x] == b[y] {
				x, y = x+1, y+1
			}
			*at(k) = x
			if x >= n && y >= m {
				return backtrack(a, b, trace, limit)
			}
		}
	}
	var all []edit
	for i, s := range a {
		all = append(all, edit{'-', s, i, 0})
	}
	for j, s := range b {
		all = append(all, edit{'+', s, n, j})
	}
	return all
}

func backtrack(a, b []string, trace [][]int, limit int) []edit {
	x, y := len(a), len(b)
	var rev []edit
	for d := len(trace) - 1; d >= 0; d-- {
		at := func(k int) int { return trace[d][k+limit+1] }
		k := x - y
		prev := k - 1
		if k == -d || k != d && at(k-1) < at(k+1) {
			prev = k + 1
		}
		px := at(prev)
		py := px - prev
		for x > px && y > py && x > 0 && y > 0 {
			x, y = x-1, y-1
			rev = append(rev, edit{' ', a[x], x, y})
		}
		if d == 0 {
			break
		}
		if x == px {
			y--
			rev = append(rev, edit{'+', b[y], x, y})
		} else {
			x--
			rev = append(rev, edit{'-', a[x], x, y})
		}
	}
	for i, j := 0, len(rev)-1; i < j; i, j = i+1, j-1 {
		rev[i], rev[j] = rev[j], rev[i]
	}
	return rev
}
