package main

import (
	"fmt"
	"io"
	"strings"
	"unicode"
)

// tone is what a colour underlines. Every cell says the same in words.
type tone uint8

const (
	plain tone = iota
	good
	warn
	bad
	dim
	strong
)

var toneCodes = [...]string{good: "32", warn: "33", bad: "31;1", dim: "2", strong: "1"}

// painter colours text, or leaves it alone when false.
type painter bool

func (p painter) paint(t tone, s string) string {
	if !p || t == plain || s == "" {
		return s
	}
	return "\x1b[" + toneCodes[t] + "m" + s + "\x1b[0m"
}

// cell is one field of a table.
type cell struct {
	text string
	tone tone
}

func toned(t tone, s string) cell { return cell{text: s, tone: t} }

// table draws aligned columns. The last column is wrapped when a terminal is too narrow, never cut; the zero width is unlimited.
type table struct {
	head []string
	rows []line
}

// line is a row, or a note below one: text of its own, indented, that spans all columns.
type line struct {
	cells []cell
	note  bool
}

func newTable(head ...string) *table { return &table{head: head} }

// row adds a row; a cell is a string, a cell, or anything that prints itself. Empty cells are drawn as "-".
func (t *table) row(cells ...any) {
	row := make([]cell, len(cells))
	for i, v := range cells {
		switch v := v.(type) {
		case cell:
			row[i] = v
		default:
			row[i] = cell{text: fmt.Sprint(v)}
		}
		if row[i].text == "" {
			row[i] = toned(dim, "-")
		}
	}
	t.rows = append(t.rows, line{cells: row})
}

// note adds a line that belongs to the row above it.
func (t *table) note(tn tone, text string) {
	t.rows = append(t.rows, line{cells: []cell{{text: text, tone: tn}}, note: true})
}

// gap is the space between columns.
const gap = 2

// write draws the table.
func (t *table) write(w io.Writer, width int, p painter) {
	widths := make([]int, len(t.head))
	for i, h := range t.head {
		widths[i] = textWidth(h)
	}
	for _, r := range t.rows {
		if r.note {
			continue
		}
		for i, c := range r.cells {
			widths[i] = max(widths[i], textWidth(c.text))
		}
	}
	last := len(widths) - 1
	before := 0
	for _, n := range widths[:last] {
		before += n + gap
	}
	room := 0
	if width > 0 {
		room = max(width-before, 20)
	}

	head := make([]cell, len(t.head))
	for i, h := range t.head {
		head[i] = toned(dim, h)
	}
	writeRow(w, head, widths, before, room, p)
	for _, r := range t.rows {
		if !r.note {
			writeRow(w, r.cells, widths, before, room, p)
			continue
		}
		noteRoom := 0
		if width > 0 {
			noteRoom = max(width-4, 20)
		}
		for i, s := range wrap(r.cells[0].text, noteRoom) {
			indent := "  "
			if i > 0 {
				indent = "    "
			}
			fmt.Fprintf(w, "%s%s\n", indent, p.paint(r.cells[0].tone, s))
		}
	}
}

func writeRow(w io.Writer, cells []cell, widths []int, before, room int, p painter) {
	var b strings.Builder
	last := len(cells) - 1
	for i, c := range cells[:last] {
		b.WriteString(p.paint(c.tone, c.text))
		b.WriteString(strings.Repeat(" ", widths[i]-textWidth(c.text)+gap))
	}
	for i, s := range wrap(cells[last].text, room) {
		if i > 0 {
			b.WriteString("\n" + strings.Repeat(" ", before))
		}
		b.WriteString(p.paint(cells[last].tone, s))
	}
	fmt.Fprintln(w, strings.TrimRight(b.String(), " "))
}

// wrap breaks s between words into lines of at most room columns; a longer word stays whole. Room 0 is unlimited.
func wrap(s string, room int) []string {
	if room <= 0 || textWidth(s) <= room {
		return []string{s}
	}
	var lines []string
	cur, n := "", 0
	for word := range strings.FieldsSeq(s) {
		k := textWidth(word)
		if cur != "" && n+1+k > room {
			lines = append(lines, cur)
			cur, n = "", 0
		}
		if cur != "" {
			cur, n = cur+" ", n+1
		}
		cur, n = cur+word, n+k
	}
	return append(lines, cur)
}

// textWidth is the number of terminal columns that s takes: combining marks take none, East Asian wide characters and emoji two.
func textWidth(s string) int {
	n := 0
	for _, r := range s {
		switch {
		case r < 0x7f:
			n++
		case unicode.In(r, unicode.Mn, unicode.Me, unicode.Cf):
		case wide(r):
			n += 2
		default:
			n++
		}
	}
	return n
}

// wide covers the blocks of UAX #11 that occur in names and messages.
func wide(r rune) bool {
	return r >= 0x1100 && r <= 0x115f || // Hangul initials
		r >= 0x2e80 && r <= 0xa4cf && r != 0x303f || // CJK, kana
		r >= 0xac00 && r <= 0xd7a3 || // Hangul
		r >= 0xf900 && r <= 0xfaff || // CJK compatibility
		r >= 0xfe30 && r <= 0xfe6f || r >= 0xff00 && r <= 0xff60 || r >= 0xffe0 && r <= 0xffe6 || // forms
		r >= 0x1f300 && r <= 0x1f64f || r >= 0x1f680 && r <= 0x1f6ff || r >= 0x1f900 && r <= 0x1faff || // emoji
		r >= 0x20000 && r <= 0x3fffd
}

// clean makes text from elsewhere fit to be printed: control characters, with which a server's banner could repaint a terminal,
// become spaces.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}
