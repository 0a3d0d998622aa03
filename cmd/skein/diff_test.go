package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

// TestDifferenceTurnsOneTextIntoTheOther applies every hunk as patch(1) would and compares.
func TestDifferenceTurnsOneTextIntoTheOther(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	text := func() string {
		var b strings.Builder
		for range r.IntN(30) {
			fmt.Fprintf(&b, "line %d\n", r.IntN(6))
		}
		return b.String()
	}
	for range 2000 {
		from, to := text(), text()
		if got := patch(t, from, diffLines([]byte(from), []byte(to))); got != to {
			t.Fatalf("from %q to %q: the difference makes %q", from, to, got)
		}
	}
}

func patch(t *testing.T, text string, hunks []hunk) string {
	t.Helper()
	lines := splitLines(text)
	var out []string
	at := 0
	for _, h := range hunks {
		for at < h.fromLine-1 {
			out = append(out, lines[at])
			at++
		}
		if h.toCount > 0 && len(out) != h.toLine-1 {
			t.Fatalf("%s: it starts at line %d of the result", h.head(), len(out)+1)
		}
		from, to := 0, 0
		for _, l := range h.lines {
			if l[0] != '+' {
				if lines[at] != l[1:] {
					t.Fatalf("%s: line %d is %q, not %q", h.head(), at+1, lines[at], l[1:])
				}
				at++
				from++
			}
			if l[0] != '-' {
				out = append(out, l[1:])
				to++
			}
		}
		if from != h.fromCount || to != h.toCount {
			t.Fatalf("%s: counted %d and %d", h.head(), from, to)
		}
	}
	out = append(out, lines[at:]...)
	if len(out) == 0 {
		return ""
	}
	return strings.Join(out, "\n") + "\n"
}

func TestEqualTextsHaveNoDifference(t *testing.T) {
	if h := diffLines([]byte("a\nb\n"), []byte("a\nb\n")); len(h) != 0 {
		t.Errorf("hunks %v", h)
	}
}

// A file that shares nothing with its canonical form must not take memory by the square of its size.
func TestHugeDifferencesAreBounded(t *testing.T) {
	var a, b strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&a, "a%d\n", i)
		fmt.Fprintf(&b, "b%d\n", i)
	}
	if h := diffLines([]byte(a.String()), []byte(b.String())); len(h) != 1 || len(h[0].lines) != 40000 {
		t.Errorf("%d hunks", len(h))
	}
}
