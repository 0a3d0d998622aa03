package docs

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/internal/golden"
)

// binary is skein as an operator has it.
var binary string

// A demo's figures are not compared, so that -rewrite alone leaves those that the page has.
var renew = flag.Bool("demo", false, "with -rewrite: put the figures of this performance of `skein demo` into its page; on a quiet machine")

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "skein-docs-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		if err := os.Chmod(dir, 0o755); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		binary = filepath.Join(dir, "skein")
		build := exec.Command("go", "build", "-trimpath", "-o", binary, "./cmd/skein")
		build.Dir, build.Env = root, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build skein: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// Every configuration that a page shows is read as an operator's file would be, without a warning, and stands in canonical form.
// One that is marked as bad is wrong.
func TestConfigurationsAreRight(t *testing.T) {
	for _, p := range pages(t) {
		for _, b := range p.blocks {
			var diags config.Diagnostics
			switch b.kind {
			default:
				continue
			case "hcl", "hcl bad":
				_, diags = config.Parse(p.path, []byte(b.body))
			case "hcl node":
				_, diags = config.ParseNode(p.path, []byte(b.body))
			}
			if len(diags) == 1 && diags[0].Summary == "the configuration is empty" {
				diags = nil // a fragment that defines nothing yet
			}
			if b.kind == "hcl bad" {
				if !diags.HasErrors() {
					t.Errorf("%s:%d: it is marked as bad, and is fine", p.path, b.line)
				}
				continue
			}
			if len(diags) > 0 {
				var s strings.Builder
				diags.Print(&s, false)
				t.Errorf("%s:%d: %s", p.path, b.line, s.String())
			}
			if canonical, _ := config.Format(p.path, []byte(b.body)); len(diags) == 0 && string(canonical) != b.body {
				t.Errorf("%s:%d: not in canonical form:\n%s", p.path, b.line, cmp.Diff(string(canonical), b.body))
			}
		}
	}
}

var fileName = regexp.MustCompile(`^# ([\w.-]+\.hcl)\b`)

// Every page's commands print what the page shows.
func TestCommandsPrintWhatPagesShow(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds whole clusters; not with -short")
	}
	ps := pages(t)
	for _, p := range ps {
		for _, b := range p.blocks {
			if b.kind == "console" && b.demo() {
				t.Run("demo/"+p.path, func(t *testing.T) { t.Parallel(); perform(t, p, b) })
			}
		}
		if p.runs() {
			t.Run(p.path, func(t *testing.T) { t.Parallel(); runPage(t, p) })
		}
	}
	if golden.Rewriting() {
		t.Cleanup(func() { // when all pages have been run
			for _, p := range ps {
				if text := p.rewritten(); text != p.text {
					if err := os.WriteFile(filepath.Join(root, p.path), []byte(text), 0o644); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
}

// runPage runs a page in a world of its own. Who holds the address and who takes it over is the same in every world (see demoConfig); who leads
// is not compared. What is left is a machine so overloaded that a node is not in time: a page that did not fit gets a second world, and a
// third, and the log says what was different.
func runPage(t *testing.T, p *page) {
	for world := 1; ; world++ {
		last, wrong := world == 3, playPage(t, p)
		if len(wrong) == 0 {
			return
		}
		if last || golden.Rewriting() {
			for _, w := range wrong {
				complain(t, p, w.block, w.step, false)
			}
			return
		}
		t.Logf("%s:%d: $ %s: once more in a new world (-page +real):\n%s", p.path, wrong[0].block.line, wrong[0].step.command, difference(wrong[0].step, false))
	}
}

// wrong is a step that printed something else.
type wrong struct {
	block *block
	step  *step
}

func playPage(t *testing.T, p *page) (all []wrong) {
	w := newWorld(t, binary)
	defer w.end()
	for _, b := range p.blocks {
		if name := fileName.FindStringSubmatch(b.body); name != nil && strings.HasPrefix(b.kind, "hcl") {
			if err := os.WriteFile(filepath.Join(w.dir, name[1]), []byte(b.body), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if b.kind != "console" || b.demo() {
			continue
		}
		for _, s := range b.steps {
			if err := w.step(s); err != nil {
				if len(all) > 0 { // in a world that has gone another way, a command may also wait for what never comes
					return all
				}
				t.Fatalf("%s:%d: $ %s: %v\n%s", p.path, b.line, s.command, err, s.got)
			}
			if s.failed {
				all = append(all, wrong{b, s})
			}
		}
	}
	return all
}

func perform(t *testing.T, p *page, b *block) {
	s := b.steps[0]
	out, err := exec.CommandContext(t.Context(), binary, "demo").CombinedOutput()
	if err != nil {
		if strings.Contains(string(out), "namespace") && os.Getuid() != 0 {
			t.Skipf("this user may not build a network here: %s", out)
		}
		t.Fatalf("%v\n%s", err, out)
	}
	s.got = string(out)
	if s.failed = *renew || !fits(masked(s.want, true), masked(s.got, true)); s.failed {
		complain(t, p, b, s, true)
	}
}

func complain(t *testing.T, p *page, b *block, s *step, demo bool) {
	t.Helper()
	if golden.Rewriting() {
		t.Logf("%s:%d: $ %s: rewritten", p.path, b.line, s.command)
		return
	}
	t.Errorf("%s:%d: $ %s: the page shows something else (-page +real, times and the like masked):\n%s", p.path, b.line, s.command,
		difference(s, demo))
}

func difference(s *step, demo bool) string {
	return cmp.Diff(strings.Split(masked(s.want, demo), "\n"), strings.Split(masked(s.got, demo), "\n"))
}
