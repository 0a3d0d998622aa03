package config

import (
	"strings"
	"testing"
)

func TestPrint(t *testing.T) {
	ds := Diagnostics{
		{Error, Pos{"edge.hcl", 7, 4}, "a", "do b", "\t é\u0301x = 1", 2},
		{Warning, Pos{"edge.hcl", 123456, 61}, "w", "", strings.Repeat("0123456789", 30), 5},
		{Error, Pos{"edge.hcl", 8, 1}, "\x1b[31mred", "", "a\x1b[2J", 9},
	}
	want := `edge.hcl:7:4: error: a
    7 | ` + "\t é\u0301x = 1" + `
      | ` + "\t" + `  ^^
  hint: do b
edge.hcl:123456:61: warning: w
123456 | ...` + strings.Repeat("0123456789", 16) + `...
       |    ` + strings.Repeat(" ", 40) + `^^^^^
edge.hcl:8:1: error: ` + "\uFFFD[31mred" + `
    8 | a` + "\uFFFD" + `[2J
      | ^^^^^
`
	var b strings.Builder
	ds.Print(&b, false)
	if b.String() != want {
		t.Errorf("got\n%s\nwant\n%s", b.String(), want)
	}
	b.Reset()
	ds.Print(&b, true)
	if got := b.String(); !strings.Contains(got, "\x1b[1;31merror:\x1b[0m") || strings.Contains(got, "\x1b[31mred") || strings.Contains(got, "\x1b[2J") {
		t.Errorf("in colour: %q", got)
	}
	if got := ds.Error(); got != "edge.hcl:7:4: error: a (do b)\nedge.hcl:8:1: error: \x1b[31mred" {
		t.Errorf("Error: %q", got)
	}
}

func TestClosestWord(t *testing.T) {
	words := []string{"balance", "backend", "bind", "timeouts", "max_connections", "http"}
	for word, want := range map[string]string{
		"balnce": "balance", "Balance": "balance", "timeout": "timeouts", "htpp": "http", "maxconn": "max_connections", "bakcend": "backend",
		"upstream": "backend", "colour": "", "x": "", "bin": "bind", "": "",
	} {
		if got := closest(word, words); got != want {
			t.Errorf("%q: got %q, want %q", word, got, want)
		}
	}
}
