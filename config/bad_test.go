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
