// Package golden keeps what a test got in a file beside it, and compares. It is for tests alone: transcripts, tables and pages that are
// read by people and reviewed as text. It is not an assertion library. The one rule: -rewrite writes what the code does now, and what is
// not understood is not committed.
package golden

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var rewrite = flag.Bool("rewrite", false, "write what the tests got into the files that they are compared with; read the difference before you commit it")

// Rewriting reports whether files are to be written instead of compared.
func Rewriting() bool { return *rewrite }

// File compares got with the file at path.
func File(t testing.TB, path, got string) {
	t.Helper()
	want, err := os.ReadFile(path)
	switch {
	case err == nil && string(want) == got:
	case *rewrite:
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	case err != nil:
		t.Fatal(err)
	default:
		t.Errorf("%s is not what came of it (-rewrite accepts it; -file +got):\n%s", path, cmp.Diff(string(want), got))
	}
}

// Each runs a test for every file that pattern matches, at least so many: play takes what it needs of the text and returns the file as it
// should be.
func Each(t *testing.T, pattern string, atLeast int, play func(t *testing.T, text string) string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) < atLeast {
		t.Fatalf("%s: %d files, want at least %d (%v)", pattern, len(files), atLeast, err)
	}
	for _, path := range files {
		t.Run(strings.TrimSuffix(filepath.Base(path), filepath.Ext(path)), func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			File(t, path, play(t, string(text)))
		})
	}
}

// Blocks plays a transcript whose blocks are separated by empty lines: a command, what belongs to it, "----", what came of it. Lines that
// start with # are prose, and a block without ---- is kept as it is.
func Blocks(text string, run func(command, rest string) string) string {
	var out strings.Builder
	for _, block := range strings.Split(strings.TrimRight(text, "\n"), "\n\n") {
		said, _, isCommand := strings.Cut(block+"\n", "----\n")
		out.WriteString(strings.TrimRight(said, "\n") + "\n")
		if isCommand {
			var spoken strings.Builder
			for line := range strings.Lines(said) {
				if !strings.HasPrefix(line, "#") {
					spoken.WriteString(line)
				}
			}
			command, rest, _ := strings.Cut(spoken.String(), "\n")
			out.WriteString("----\n" + run(command, rest))
		}
		out.WriteString("\n")
	}
	return strings.TrimRight(out.String(), "\n") + "\n"
}
