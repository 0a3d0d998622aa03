package golden

import (
	"os"
	"path/filepath"
	"testing"
)

func TestBlocks(t *testing.T) {
	got := Blocks("# prose\n\n# why\nadd 1\n2\n3\n----\nold\n\nnone\n----\n\n", func(command, rest string) string {
		if command == "none" {
			return ""
		}
		return command + "|" + rest
	})
	if want := "# prose\n\n# why\nadd 1\n2\n3\n----\nadd 1|2\n3\n\nnone\n----\n"; got != want {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

// A file that differs fails the test, and is left as it is.
func TestFileThatDiffers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, []byte("was\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	probe := &failing{TB: t}
	File(probe, path, "was\n")
	if probe.failed {
		t.Error("the same text failed")
	}
	File(probe, path, "is\n")
	if b, _ := os.ReadFile(path); !probe.failed || string(b) != "was\n" {
		t.Errorf("failed: %v, the file has %q", probe.failed, b)
	}
}

type failing struct {
	testing.TB
	failed bool
}

func (f *failing) Helper()               {}
func (f *failing) Errorf(string, ...any) { f.failed = true }
