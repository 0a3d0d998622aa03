package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestTextWidthCountsColumns(t *testing.T) {
	for s, want := range map[string]int{
		"": 0, "lb1": 3, "Zürich": 6, "Zu\u0308rich": 6, "東京": 4, "a\u200bb": 2, "한국": 4, "🪿": 2, "→": 1,
	} {
		if got := textWidth(s); got != want {
			t.Errorf("textWidth(%q) = %d, want %d", s, got, want)
		}
	}
}

func TestTableAlignsWhateverIsInIt(t *testing.T) {
	for _, tt := range []struct {
		name  string
		width int
		color painter
		want  string
	}{
		{"unlimited", 0, false, `
NAME  STATE  WHY
東京  ok     -
b     down   connection refused (seen by lb1, lb2 and lb3)
  a note that belongs to b and is long enough to be wrapped on a narrow terminal
`},
		{"narrow", 40, false, `
NAME  STATE  WHY
東京  ok     -
b     down   connection refused (seen by
             lb1, lb2 and lb3)
  a note that belongs to b and is long
    enough to be wrapped on a narrow
    terminal
`},
		{"too narrow for anything", 5, false, `
NAME  STATE  WHY
東京  ok     -
b     down   connection refused
             (seen by lb1, lb2
             and lb3)
  a note that belongs
    to b and is long
    enough to be wrapped
    on a narrow terminal
`},
		{"colour", 0, true, `
<2mNAME<0m  <2mSTATE<0m  <2mWHY<0m
東京  ok     <2m-<0m
b     <31;1mdown<0m   connection refused (seen by lb1, lb2 and lb3)
  <33ma note that belongs to b and is long enough to be wrapped on a narrow terminal<0m
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tab := newTable("NAME", "STATE", "WHY")
			tab.row("東京", "ok", "")
			tab.row("b", toned(bad, "down"), "connection refused (seen by lb1, lb2 and lb3)")
			tab.note(warn, "a note that belongs to b and is long enough to be wrapped on a narrow terminal")
			var b strings.Builder
			tab.write(&b, tt.width, tt.color)
			got := "\n" + strings.ReplaceAll(b.String(), "\x1b[", "<")
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
		})
	}
}

// What a server answered to a probe is printed; it must not be able to repaint a terminal.
func TestCleanLeavesNoControlCharacters(t *testing.T) {
	if got := clean("HTTP 500\x1b[2J\r\nok\u009b\x00"); strings.ContainsAny(got, "\x1b\r\n\u009b\x00") {
		t.Errorf("clean left control characters: %q", got)
	}
}

func TestWrapLosesNoWord(t *testing.T) {
	text := "a averyverylongwordthatfitsnowhere b ccc dd"
	for room := range 50 {
		lines := wrap(text, room)
		if got := strings.Join(lines, " "); got != text {
			t.Errorf("room %d: %q", room, lines)
		}
		for _, l := range lines {
			if room > 0 && textWidth(l) > room && strings.Contains(l, " ") {
				t.Errorf("room %d: line %q is too long and could be broken", room, l)
			}
		}
	}
}
