package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/skeinlb/skein/internal/golden"
)

const divider = "----------\n"

// Each file of testdata/bad is a wrong configuration, a divider, and what the operator is told. A file whose name begins with
// node_ is a node.hcl.
func TestBadFileIsExplained(t *testing.T) {
	for _, path := range glob(t, "testdata/bad/*.txt", 40) {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			var got bytes.Buffer
			src, _, _ := strings.Cut(readCase(t, path), divider)
			diags := parseAny(t, filepath.Base(path), []byte(src))
			if len(diags) == 0 {
				t.Error("nothing was found")
			}
			diags.Print(&got, false)
			golden.File(t, path, src+divider+got.String())
		})
	}
}

// parseAny parses a configuration or a node.hcl, by the name of the case, and checks what holds for every finding.
func parseAny(t *testing.T, name string, src []byte) Diagnostics {
	t.Helper()
	var diags Diagnostics
	var result bool
	if strings.HasPrefix(name, "node_") {
		n, ds := ParseNode("node.hcl", src)
		result, diags = n != nil, ds
	} else {
		c, ds := Parse("edge.hcl", src)
		result, diags = c != nil, ds
	}
	if result == diags.HasErrors() {
		t.Errorf("a result: %v, errors: %v", result, diags.HasErrors())
	}
	checkPlaces(t, src, diags)
	return diags
}

// checkPlaces checks that every finding points into the file and that they come in the file's order.
func checkPlaces(t *testing.T, src []byte, diags Diagnostics) {
	t.Helper()
	lines := strings.Split(string(src), "\n")
	last := Pos{}
	for _, d := range diags {
		if d.Pos.Line < 1 || d.Pos.Line > len(lines) {
			t.Fatalf("%v: the file has %d lines", d, len(lines))
		}
		if line := strings.TrimSuffix(lines[d.Pos.Line-1], "\r"); d.Line != line {
			t.Errorf("%v: shows %q, and the line is %q", d, d.Line, line)
		}
		if d.Pos.Column < 1 || d.Pos.Column > utf8.RuneCountInString(d.Line)+1 {
			t.Errorf("%v: the line %q has no such column", d, d.Line)
		}
		if d.Width < 1 || d.Summary == "" {
			t.Errorf("%v: width %d, summary %q", d, d.Width, d.Summary)
		}
		if d.Pos.Line < last.Line || d.Pos.Line == last.Line && d.Pos.Column < last.Column {
			t.Errorf("%v comes after line %d column %d", d, last.Line, last.Column)
		}
		last = d.Pos
	}
}

func glob(t *testing.T, pattern string, atLeast int) []string {
	t.Helper()
	paths, err := filepath.Glob(pattern)
	if err != nil || len(paths) < atLeast {
		t.Fatalf("%s: %d files, want at least %d (%v)", pattern, len(paths), atLeast, err)
	}
	return paths
}

func readCase(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// What is no text is one mistake, however many bytes it has.
func TestWhatIsNoTextIsOneMistake(t *testing.T) {
	for _, tc := range []struct{ what, src, want string }{
		{"a program", "\x7fELF\x02\x01\x01\x00\x00\x00>\x00\x01\nmore\x00\xff{{{", "edge.hcl:1:8: error: this is no text in UTF-8 (save it as UTF-8)"},
		{"UTF-16", "\xff\xfel\x00o\x00g\x00", "edge.hcl:1:1: error: this is no text in UTF-8 (save it as UTF-8)"},
		{"Latin-1 in a comment", "# one\r\n# gr\xfc\xdfe\r\n", "edge.hcl:2:5: error: this is no text in UTF-8 (save it as UTF-8)"},
		{"cut within a character", "# \xc3", "edge.hcl:1:3: error: this is no text in UTF-8 (save it as UTF-8)"},
	} {
		diags := parseAny(t, "", []byte(tc.src))
		if len(diags) != 1 || diags[0].String() != tc.want {
			t.Errorf("%s: %v, want %s", tc.what, diags, tc.want)
		}
		if out, found := Format("edge.hcl", []byte(tc.src)); out != nil || len(found) != 1 {
			t.Errorf("%s is formatted: %q, %v", tc.what, out, found)
		}
	}
	if _, diags := Parse("edge.hcl", []byte("# \ufffd is a character like others\n")); diags.HasErrors() {
		t.Error(diags)
	}
}
