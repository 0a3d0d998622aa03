package config

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skeinlb/skein/internal/golden"
)

// Each file of testdata/format is a file, a divider, and its canonical form.
func TestFormat(t *testing.T) {
	for _, path := range glob(t, "testdata/format/*.txt", 3) {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txt"), func(t *testing.T) {
			src, _, _ := strings.Cut(readCase(t, path), divider)
			got, diags := Format("edge.hcl", []byte(src))
			if len(diags) > 0 {
				t.Fatal(diags)
			}
			golden.File(t, path, src+divider+string(got))
			checkFormat(t, []byte(src))
		})
	}
}

func TestFormatHandlesWhatEditorsLeave(t *testing.T) {
	for src, want := range map[string]string{
		"":                                     "",
		"\n\n":                                 "",
		"# c":                                  "# c\n",
		"a=1":                                  "a = 1\n",
		"a=1\r\nbb=2\r\n":                      "a  = 1\nbb = 2\n",
		"a = \"x\"  \r\n\r\n\r\n\r\nb = 1\r\n": "a = \"x\"\n\nb = 1\n",
		"# c \t\r\na=1":                        "# c\na = 1\n",
		"a = <<E\n x\n\n\n y \nE\n":            "a = <<E\n x\n\n\n y \nE\n",
	} {
		got, diags := Format("edge.hcl", []byte(src))
		if string(got) != want || got == nil {
			t.Errorf("%q: got %q, want %q (%v)", src, got, want, diags)
		}
	}
}

func TestFormatRefusesBrokenSyntax(t *testing.T) {
	got, diags := Format("edge.hcl", []byte("a = \n"))
	if got != nil || !diags.HasErrors() {
		t.Errorf("got %q, %v", got, diags)
	}
}

// checkFormat checks what holds for every file: the form is final, and says the same.
func checkFormat(t *testing.T, src []byte) {
	t.Helper()
	once, diags := Format("edge.hcl", src)
	if once == nil {
		if !diags.HasErrors() {
			t.Fatal("no result and no error")
		}
		return
	}
	twice, _ := Format("edge.hcl", once)
	if !bytes.Equal(once, twice) {
		t.Errorf("formatted again it is different:\n%s", cmp.Diff(string(once), string(twice)))
	}
	before, _ := Parse("edge.hcl", src)
	after, diags := Parse("edge.hcl", once)
	if (before == nil) != (after == nil) {
		t.Fatalf("before: %v, after: %v\n%s\n%v", before != nil, after != nil, once, diags)
	}
	if before == nil {
		return
	}
	if changes := Diff(before, after); len(changes) > 0 {
		t.Errorf("it says something else: %v", changes)
	}
}

// seeds adds all files of testdata as seeds.
func seeds(f *testing.F) {
	for _, pattern := range []string{"testdata/bad/*.txt", "testdata/good/*.hcl", "testdata/format/*.txt"} {
		paths, _ := filepath.Glob(pattern)
		for _, path := range paths {
			b, err := os.ReadFile(path)
			if err != nil {
				f.Fatal(err)
			}
			src, _, _ := bytes.Cut(b, []byte(divider))
			f.Add(src)
		}
	}
}

func FuzzParse(f *testing.F) {
	seeds(f)
	f.Fuzz(func(t *testing.T, src []byte) {
		for _, name := range []string{"edge.hcl", "node_"} {
			diags := parseAny(t, name, src)
			diags.Print(&bytes.Buffer{}, true)
			_ = diags.Error()
		}
	})
}

func FuzzFormat(f *testing.F) {
	seeds(f)
	f.Fuzz(checkFormat)
}
