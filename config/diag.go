package config

import (
	"fmt"
	"io"
	"sort"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Severity says whether a finding stops the file.
type Severity uint8

const (
	Error   Severity = iota + 1 // the file is refused
	Warning                     // the file is taken, but says something that cannot be meant
)

func (s Severity) String() string {
	switch s {
	case Error:
		return "error"
	case Warning:
		return "warning"
	}
	return "unknown"
}

// MarshalText makes a severity a word in JSON.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads what MarshalText wrote.
func (s *Severity) UnmarshalText(b []byte) error {
	switch string(b) {
	case "error":
		*s = Error
	case "warning":
		*s = Warning
	default:
		return fmt.Errorf("unknown severity %q", b)
	}
	return nil
}

// Diagnostic is one finding in a file.
type Diagnostic struct {
	Severity Severity `json:"severity"`
	Pos      Pos      `json:"pos"`
	Summary  string   `json:"summary"`
	Hint     string   `json:"hint,omitempty"` // what to do; "": nothing to add
	Line     string   `json:"line"`           // the source line that Pos is in
	Width    int      `json:"width"`          // characters to underline, from Pos on; at least 1
}

func (d Diagnostic) String() string {
	s := fmt.Sprintf("%s:%d:%d: %s: %s", d.Pos.File, d.Pos.Line, d.Pos.Column, d.Severity, d.Summary)
	if d.Hint != "" {
		s += " (" + d.Hint + ")"
	}
	return s
}

// Diagnostics are the findings in a file, in the order of the file. They are an error only when HasErrors says so.
type Diagnostics []Diagnostic

// HasErrors tells whether one of the findings stops the file.
func (ds Diagnostics) HasErrors() bool {
	for _, d := range ds {
		if d.Severity == Error {
			return true
		}
	}
	return false
}

// Error gives the errors, not the warnings, one a line.
func (ds Diagnostics) Error() string {
	var lines []string
	for _, d := range ds {
		if d.Severity == Error {
			lines = append(lines, d.String())
		}
	}
	if lines == nil {
		return "no errors"
	}
	return strings.Join(lines, "\n")
}

// sort puts the findings in the order of the file; those of one place stay in the order in which they were found.
func (ds Diagnostics) sort() {
	sort.SliceStable(ds, func(i, j int) bool {
		a, b := ds[i].Pos, ds[j].Pos
		if a.Line != b.Line {
			return a.Line < b.Line
		}
		return a.Column < b.Column
	})
}

// The escape sequences of Print.
const (
	plain  = "\x1b[0m"
	bold   = "\x1b[1m"
	red    = "\x1b[1;31m"
	yellow = "\x1b[1;33m"
	blue   = "\x1b[34m"
)

// Print writes the findings for a person, each with its source line, a caret and the hint:
//
//	edge.hcl:14:3: error: unknown attribute "balnce" in backend "shop"
//	   14 |   balnce = "least_conn"
//	      |   ^^^^^^
//	  hint: did you mean "balance"?
func (ds Diagnostics) Print(w io.Writer, color bool) {
	paint := func(code, s string) string {
		if !color {
			return s
		}
		return code + s + plain
	}
	for _, d := range ds {
		mark := red
		if d.Severity == Warning {
			mark = yellow
		}
		fmt.Fprintf(w, "%s %s %s\n", paint(bold, fmt.Sprintf("%s:%d:%d:", printable(d.Pos.File), d.Pos.Line, d.Pos.Column)),
			paint(mark, d.Severity.String()+":"), printable(d.Summary))
		line, pad, caret := excerpt(d.Line, d.Pos.Column, d.Width)
		number := strconv.Itoa(d.Pos.Line)
		fmt.Fprintf(w, "%s %s\n", paint(blue, fmt.Sprintf("%5s |", number)), line)
		fmt.Fprintf(w, "%s %s%s\n", paint(blue, strings.Repeat(" ", max(5, len(number)))+" |"), pad, paint(mark, caret))
		if d.Hint != "" {
			fmt.Fprintf(w, "  hint: %s\n", printable(d.Hint))
		}
	}
}

const (
	excerptWidth = 160 // characters of a source line that are shown
	excerptLead  = 40  // characters shown before the caret when the line is longer than that
)

// excerpt cuts a long line to the part around column, makes it safe for a terminal, and returns what stands before the caret
// (tabs kept, so that the caret stays below its word) and the caret itself.
func excerpt(line string, column, width int) (shown, pad, caret string) {
	var cells []string // one per character: a rune and the marks that combine with it
	for _, r := range line {
		if len(cells) > 0 && unicode.In(r, unicode.Mn, unicode.Me) {
			cells[len(cells)-1] += string(r)
			continue
		}
		cells = append(cells, string(r))
	}
	at := min(max(column-1, 0), len(cells))
	before, after := "", ""
	if len(cells) > excerptWidth {
		from := max(0, at-excerptLead)
		to := min(len(cells), from+excerptWidth)
		if from > 0 {
			before = "..."
		}
		if to < len(cells) {
			after = "..."
		}
		cells, at = cells[from:to], at-from
	}
	var p strings.Builder
	p.WriteString(strings.Repeat(" ", len(before)))
	for _, c := range cells[:at] {
		if c == "\t" {
			p.WriteByte('\t')
		} else {
			p.WriteByte(' ')
		}
	}
	width = max(1, min(width, len(cells)-at))
	return before + printable(strings.Join(cells, "")) + after, p.String(), strings.Repeat("^", width)
}

// printable replaces what could move a terminal's cursor or change its colours; a file must not be able to do either.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' || r != utf8.RuneError && unicode.IsPrint(r) {
			return r
		}
		return '\uFFFD'
	}, s)
}
