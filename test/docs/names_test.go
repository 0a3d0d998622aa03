package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// verbs knows which verbs and flags skein has, from their own help.
type verbs struct {
	help map[string]string // by path, as "skein vip list"
}

var usageLine = regexp.MustCompile(`(?m)^Usage:\n  (.+)$`)

func (v *verbs) of(path string) (string, error) {
	if h, ok := v.help[path]; ok {
		return h, nil
	}
	out, err := exec.Command(binary, append(strings.Fields(path)[1:], "--help")...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("`%s --help`: %w: %s", path, err, out)
	}
	v.help[path] = string(out)
	return string(out), nil
}

// is reports whether path names a command, and not merely an argument of a shorter one.
func (v *verbs) is(path string) bool {
	h, err := v.of(path)
	if err != nil {
		return false
	}
	usage := usageLine.FindStringSubmatch(h)
	return usage != nil && (usage[1] == path || strings.HasPrefix(usage[1], path+" "))
}

var word = regexp.MustCompile(`^[a-z]+$`)

// check says what is wrong with a command line that begins with "skein": a verb or a flag that does not exist.
func (v *verbs) check(line string) error {
	words := strings.Fields(line)
	for i, w := range words { // "skein check|fmt FILE" and what follows a pipe or a redirection
		if slices.Contains([]string{"|", ">", ">>", "<", "&&", "||", ";", "&", "#"}, w) {
			words = words[:i]
			break
		}
	}
	path, rest := "skein", words[1:]
	for len(rest) > 0 && word.MatchString(rest[0]) && v.is(path+" "+rest[0]) {
		path, rest = path+" "+rest[0], rest[1:]
	}
	h, err := v.of(path)
	if err != nil {
		return err
	}
	if len(rest) > 0 && word.MatchString(rest[0]) && strings.Contains(h, "Available Commands:") || len(rest) > 0 && path == "skein" && word.MatchString(rest[0]) {
		return fmt.Errorf("`%s` has no command %q", path, rest[0])
	}
	for _, w := range rest {
		name, _, _ := strings.Cut(strings.Trim(w, "[],.:"), "=")
		if strings.HasPrefix(name, "-") && name != "-" && !regexp.MustCompile(regexp.QuoteMeta(name)+`\b`).MatchString(h) {
			return fmt.Errorf("`%s` has no flag %s", path, name)
		}
	}
	return nil
}

var inline = regexp.MustCompile("`(skein [^`\n]+)`")

// Every verb and flag that a page, a message or a hint of skein itself names exists.
func TestNamedCommandsExist(t *testing.T) {
	v := &verbs{help: map[string]string{}}
	if v.check("skein vip moov") == nil || v.check("skein frobnicate") == nil || v.check("skein status --nonsense") == nil {
		t.Fatal("the check finds nothing")
	}
	for _, p := range pages(t) {
		for _, m := range inline.FindAllStringSubmatch(fence.ReplaceAllString(p.text, ""), -1) {
			if err := v.check(m[1]); err != nil {
				t.Errorf("%s: `%s`: %v", p.path, m[1], err)
			}
		}
		for _, b := range p.blocks {
			if b.kind == "sh" {
				for i, line := range strings.Split(b.body, "\n") {
					if err := checkShell(v, line); err != nil {
						t.Errorf("%s:%d: %s: %v", p.path, b.line+1+i, line, err)
					}
				}
			}
		}
	}
	eachLiteral(t, func(pos token.Position, text string) {
		for _, m := range inline.FindAllStringSubmatch(text, -1) {
			if strings.ContainsAny(m[1], "%") {
				m[1] = regexp.MustCompile(`%[a-z]`).ReplaceAllString(m[1], "X")
			}
			if err := v.check(m[1]); err != nil {
				t.Errorf("%v: `%s`: %v", pos, m[1], err)
			}
		}
	})
}

// eachLiteral calls f with every string of the program, tests left out.
func eachLiteral(t *testing.T, f func(token.Position, string)) {
	t.Helper()
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "test" || strings.HasPrefix(d.Name(), ".") && d.Name() != ".." && path != root):
			return filepath.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		tree, err := parser.ParseFile(fset, path, src, 0)
		if err != nil {
			return err
		}
		ast.Inspect(tree, func(n ast.Node) bool {
			if l, ok := n.(*ast.BasicLit); ok && l.Kind == token.STRING {
				if text, err := strconv.Unquote(l.Value); err == nil {
					f(fset.Position(l.Pos()), text)
				}
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tools are what pages may use on a host besides skein. A name that is not here is a typing error, or a tool to think about.
var tools = []string{"apt-get", "arping", "cat", "cd", "cp", "curl", "export", "git", "ip", "journalctl", "ls", "mv", "nft", "ping", "rm",
	"scp", "ssh", "sysctl", "tar", "vagrant"}

var flagWord = regexp.MustCompile(`^--[a-z-]+`)

// checkShell says what is wrong with a line of a ```sh block.
func checkShell(v *verbs, line string) error {
	line, _, _ = strings.Cut(strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(line), "$ ")), " # ")
	line = strings.TrimSpace(line)
	if line == "" || strings.HasPrefix(line, "#") {
		return nil
	}
	for part := range strings.SplitSeq(line, "&&") {
		words := strings.Fields(part)
		if len(words) > 0 && words[0] == "sudo" {
			words = words[1:]
		}
		if len(words) == 0 {
			return fmt.Errorf("an empty command")
		}
		switch name := words[0]; {
		case name == "skein":
			if err := v.check(strings.Join(words, " ")); err != nil {
				return err
			}
		case name == "make":
			b, err := os.ReadFile(filepath.Join(root, "Makefile"))
			if err != nil {
				return err
			}
			for _, target := range words[1:] {
				if !strings.Contains(target, "=") && !strings.Contains(string(b), "\n"+target+":") {
					return fmt.Errorf("the Makefile has no target %s", target)
				}
			}
		case strings.HasPrefix(name, "scripts/") || strings.HasPrefix(name, "./scripts/"):
			b, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				return err
			}
			for _, w := range words[1:] {
				if f := flagWord.FindString(w); f != "" && !strings.Contains(string(b), f) {
					return fmt.Errorf("%s has no flag %s", name, f)
				}
			}
		case name == "systemctl":
			for _, unit := range words[2:] {
				if strings.HasPrefix(unit, "-") {
					continue
				}
				if _, err := os.ReadFile(filepath.Join(root, "scripts/systemd", strings.TrimSuffix(unit, ".service")+".service")); err != nil {
					return err
				}
			}
		case name == "for" || name == "done": // the shell's own words
		case !slices.Contains(tools, name):
			return fmt.Errorf("%s is not among the tools that pages use", name)
		}
	}
	return nil
}

// What the units start exists, with the flags that it is given.
func TestUnitsStartWhatExists(t *testing.T) {
	v := &verbs{help: map[string]string{}}
	units, err := filepath.Glob(filepath.Join(root, "scripts/systemd/*.service"))
	if err != nil || len(units) == 0 {
		t.Fatalf("no units: %v", err)
	}
	for _, unit := range units {
		b, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`(?m)^Exec\w+=/usr/local/bin/(skein .*)$`).FindAllStringSubmatch(string(b), -1) {
			if err := v.check(m[1]); err != nil {
				t.Errorf("%s: %s: %v", filepath.Base(unit), m[1], err)
			}
		}
	}
}

var link = regexp.MustCompile(`(?:\]\(|src="|srcset=")([^)"\s]+)`)

// Every link within the repository leads somewhere, down to the heading.
func TestLinksLeadSomewhere(t *testing.T) {
	for _, p := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(p.text, ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			target, anchor, _ := strings.Cut(m[1], "#")
			path := filepath.Join(root, filepath.Dir(p.path), target)
			if target == "" {
				path = filepath.Join(root, p.path)
			}
			if _, err := os.Stat(path); err != nil {
				t.Errorf("%s: link to %s: %v", p.path, m[1], err)
				continue
			}
			if anchor == "" {
				continue
			}
			b, err := os.ReadFile(path)
			if err != nil {
				t.Errorf("%s: link to %s: %v", p.path, m[1], err)
			} else if !slices.Contains(anchors(string(b)), anchor) {
				t.Errorf("%s: link to %s: no such heading", p.path, m[1])
			}
		}
	}
}

// anchors are the headings of a page as GitHub links to them.
func anchors(text string) []string {
	var as []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		a := strings.ToLower(m[1])
		a = regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(a, "")
		as = append(as, strings.ReplaceAll(a, " ", "-"))
	}
	return as
}
