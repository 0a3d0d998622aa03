package docs

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// page is a page of documentation: text and blocks in turn.
type page struct {
	path   string // relative to the root
	text   string
	blocks []*block
}

// block is what stands between two fences.
type block struct {
	kind       string // the words after the opening fence
	line       int    // of the opening fence
	begin, end int    // of the body in the page's text
	body       string
	steps      []*step // of a console block
}

// step is a command and what it prints.
type step struct {
	command string
	want    string
	got     string // what was printed, once it was run
	failed  bool
}

const root = "../.."

// pages are all pages for operators, in a stable order.
func pages(t *testing.T) []*page {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	more, err := filepath.Glob(filepath.Join(root, "docs", "decisions", "*.md"))
	if err != nil {
		t.Fatal(err)
	}
	var ps []*page
	for _, path := range append(append([]string{filepath.Join(root, "README.md"), filepath.Join(root, "CHANGELOG.md")}, paths...), more...) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		rel, _ := filepath.Rel(root, path)
		ps = append(ps, parsePage(t, rel, string(b)))
	}
	return ps
}

var fence = regexp.MustCompile("(?ms)^```([^\n`]*)\n(.*?)^```$")

func parsePage(t *testing.T, path, text string) *page {
	t.Helper()
	p := &page{path: path, text: text}
	if n := len(regexp.MustCompile("(?m)^```").FindAllString(text, -1)); n%2 != 0 {
		t.Fatalf("%s: a fence is not closed", path)
	}
	for _, at := range fence.FindAllStringSubmatchIndex(text, -1) {
		b := &block{
			kind: strings.TrimSpace(text[at[2]:at[3]]), line: 1 + strings.Count(text[:at[0]], "\n"), begin: at[4], end: at[5], body: text[at[4]:at[5]],
		}
		switch b.kind {
		case "console":
			b.steps = parseSteps(b.body)
			if len(b.steps) == 0 {
				t.Errorf("%s:%d: a console block without a command: begin its line with \"$ \"", path, b.line)
			}
		case "", "hcl", "hcl node", "hcl bad", "sh", "nft":
		default:
			t.Errorf("%s:%d: unknown kind of block %q", path, b.line, b.kind)
		}
		p.blocks = append(p.blocks, b)
	}
	return p
}

func parseSteps(body string) []*step {
	var steps []*step
	for line := range strings.Lines(body) {
		if command, ok := strings.CutPrefix(line, "$ "); ok {
			steps = append(steps, &step{command: strings.TrimSpace(command)})
		} else if len(steps) > 0 {
			steps[len(steps)-1].want += line
		}
	}
	return steps
}

// runs reports whether the page has anything to run.
func (p *page) runs() bool {
	for _, b := range p.blocks {
		if b.kind == "console" && !b.demo() {
			return true
		}
	}
	return false
}

// demo reports whether the block is a performance of `skein demo`, which needs no world around it.
func (b *block) demo() bool {
	return len(b.steps) == 1 && b.steps[0].command == "skein demo"
}

// rewritten is the page with the output that was really seen where the one shown did not fit.
func (p *page) rewritten() string {
	var out strings.Builder
	at := 0
	for _, b := range p.blocks {
		if b.kind != "console" {
			continue
		}
		out.WriteString(p.text[at:b.begin])
		for _, s := range b.steps {
			out.WriteString("$ " + s.command + "\n")
			if !s.failed {
				out.WriteString(s.want)
			} else if got := strings.Trim(s.got, "\n"); got != "" {
				out.WriteString(got + "\n")
			}
		}
		at = b.end
	}
	out.WriteString(p.text[at:])
	return out.String()
}
