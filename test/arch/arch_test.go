package arch

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
)

const module = "github.com/skeinlb/skein"

// mayImport says which of our packages the packages at or below a directory may import. The longest matching directory counts;
// a directory is always allowed to import what lies below itself. Everybody may import internal/watch.
var mayImport = map[string][]string{
	"config":             {},
	"engine":             {"config", "engine"},
	"engine/loop":        {},
	"engine/h1":          {"config"},
	"engine/accesslog":   {"config"},
	"engine/plan":        {"config", "engine/h1", "engine/balance"},
	"engine/proxy":       {"config", "engine/h1", "engine/balance", "engine/plan", "engine/loop", "engine/tlsterm", "engine/accesslog"},
	"engine/tlsterm":     {"engine/loop"},
	"vip":                {},
	"healthcheck":        {"config"},
	"state":              {"config"},
	"cluster":            {"state", "config"},
	"api":                {"state", "config"},
	"internal/metrics":   {"api", "engine", "config"},
	"internal/node":      {"internal/metrics", "api", "cluster", "config", "engine", "healthcheck", "state", "vip"},
	"internal/golden":    {},
	"internal/race":      {},
	"internal/lab":       {},
	"internal/lab/fleet": {"internal/lab", "api"},
	"cmd/skein":          {"internal/node", "internal/lab", "api", "api/client", "config"},
	"test":               {"api", "cluster", "cmd", "config", "engine", "healthcheck", "internal", "state", "vip"},
}

// owners says who may use a heavy dependency.
var owners = map[string][]string{
	"github.com/gaissmai/bart":            {"engine/plan"},
	"github.com/hashicorp/raft":           {"cluster", "test/sim"},
	"github.com/hashicorp/memberlist":     {"cluster", "test/sim"},
	"go.etcd.io/bbolt":                    {"cluster"},
	"github.com/vishvananda/netlink":      {"vip", "internal/lab", "test/lab"},
	"github.com/vishvananda/netns":        {"vip", "internal/lab", "test/lab"},
	"github.com/mdlayher/arp":             {"vip", "internal/lab"},
	"github.com/google/nftables":          {"vip", "internal/lab"},
	"github.com/mdlayher/netlink":         {"vip"},
	"github.com/hashicorp/hcl/v2":         {"config"},
	"github.com/spf13/cobra":              {"cmd/skein"},
	"github.com/anishathalye/porcupine":   {"test/sim"},
	"golang.org/x/net/icmp":               {"healthcheck"},
	"github.com/stretchr/testify":         {},
	"github.com/prometheus/client_golang": {"internal/metrics"},
}

// Packages of pure decisions: neither sockets nor clocks nor processes.
var pure = map[string][]string{
	"config":         {"net", "net/http", "os", "os/exec", "syscall", "golang.org/x/sys/unix"},
	"engine/h1":      {"net", "net/http", "os", "syscall", "golang.org/x/sys/unix"},
	"engine/balance": {"net", "net/http", "os", "syscall", "golang.org/x/sys/unix"},
	"engine/plan":    {"net", "os", "syscall", "golang.org/x/sys/unix"},
	"state":          {"net", "net/http", "os", "syscall", "golang.org/x/sys/unix"},
}

type file struct {
	dir  string // slash-separated, relative to the root
	path string
	test bool
	ast  *ast.File
}

func files(t *testing.T) []file {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	var out []file
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, path)
		if d.IsDir() {
			if name := d.Name(); path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, path, src, parser.ImportsOnly|parser.ParseComments)
		if err != nil {
			return err
		}
		out = append(out, file{filepath.ToSlash(filepath.Dir(rel)), filepath.ToSlash(rel), strings.HasSuffix(rel, "_test.go"), f})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 20 {
		t.Fatalf("only %d Go files found below %s: the walk is broken", len(out), root)
	}
	return out
}

// below reports whether dir is root or lies below it.
func below(dir, root string) bool { return dir == root || strings.HasPrefix(dir, root+"/") }

func rule(dir string) (string, []string, bool) {
	for d := dir; ; d = filepath.Dir(d) {
		if allowed, ok := mayImport[d]; ok {
			return d, allowed, true
		}
		if d == "." || d == "/" {
			return "", nil, false
		}
	}
}

func TestPackagesImportOnlyWhatTheTreeAllows(t *testing.T) {
	for _, f := range files(t) {
		for _, imp := range f.ast.Imports {
			path := strings.Trim(imp.Path.Value, `"`)
			target, ours := strings.CutPrefix(path, module+"/")
			if !ours || target == "internal/watch" {
				continue
			}
			if f.dir == "internal/watch" {
				t.Errorf("%s: internal/watch is a leaf and imports %s", f.path, target)
				continue
			}
			home, allowed, ok := rule(f.dir)
			if !ok {
				t.Errorf("%s: %s is not in the tree; add it to mayImport and give its reason in docs/ARCHITECTURE.md", f.path, f.dir)
				continue
			}
			if below(target, home) || slices.ContainsFunc(allowed, func(a string) bool { return below(target, a) }) {
				continue
			}
			if f.test && (target == "internal/golden" || target == "internal/race" || target == "internal/lab") { // edge tests need network namespaces
				continue
			}
			t.Errorf("%s: %s may not import %s (allowed: %s)", f.path, f.dir, target, strings.Join(allowed, ", "))
		}
	}
}

func TestHeavyDependenciesHaveOneOwner(t *testing.T) {
	for _, f := range files(t) {
		for _, imp := range f.ast.Imports {
			path := strings.Trim(imp.Path.Value, `"`)
			for dep, who := range owners {
				if below(path, dep) && !slices.ContainsFunc(who, func(o string) bool { return below(f.dir, o) }) {
					t.Errorf("%s: %s belongs to %s", f.path, dep, strings.Join(who, ", "))
				}
			}
		}
	}
}

func TestPurePackagesTouchNothingOutside(t *testing.T) {
	for _, f := range files(t) {
		for dir, banned := range pure {
			if f.test || !below(f.dir, dir) {
				continue
			}
			for _, imp := range f.ast.Imports {
				if path := strings.Trim(imp.Path.Value, `"`); slices.Contains(banned, path) {
					t.Errorf("%s: %s decides and does not act; it may not import %s", f.path, f.dir, path)
				}
			}
		}
	}
}

// unsafe is for the event loop; elsewhere the file says why it needs it, in a comment that starts with "unsafe:".
func TestUnsafeIsDeclared(t *testing.T) {
	for _, f := range files(t) {
		if f.test || below(f.dir, "engine/loop") {
			continue
		}
		for _, imp := range f.ast.Imports {
			if imp.Path.Value != `"unsafe"` {
				continue
			}
			said := slices.ContainsFunc(f.ast.Comments, func(c *ast.CommentGroup) bool {
				return strings.Contains(c.Text(), "unsafe:")
			})
			if !said {
				t.Errorf(`%s: imports unsafe without a comment "unsafe: <why>"`, f.path)
			}
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	docs := map[string][]string{}
	for _, f := range files(t) {
		if f.test {
			continue
		}
		docs[f.dir] = append(docs[f.dir], "")
		if f.ast.Doc == nil {
			continue
		}
		docs[f.dir] = append(docs[f.dir], f.ast.Doc.Text())
		if n := strings.Count(f.ast.Doc.Text(), "\n"); n > 12 {
			t.Errorf("%s: the package comment has %d lines; it should fit in ten", f.path, n)
		}
	}
	var dirs []string
	for d := range docs {
		dirs = append(dirs, d)
	}
	sort.Strings(dirs)
	for _, d := range dirs {
		n := 0
		for _, text := range docs[d] {
			if text != "" {
				n++
			}
		}
		if n != 1 {
			t.Errorf("%s: %d package comments, want exactly one", d, n)
		}
	}
}

// Work that is announced in a comment is work that is not there.
func TestNoUnfinishedWorkIsAnnounced(t *testing.T) {
	for _, f := range files(t) {
		if f.dir == "test/arch" {
			continue
		}
		for _, c := range f.ast.Comments {
			for _, word := range []string{"TODO", "FIXME", "XXX", "HACK"} {
				if strings.Contains(c.Text(), word) {
					t.Errorf("%s: a comment says %s", f.path, word)
				}
			}
		}
	}
}

func TestTheRulesNameOnlyWhatExists(t *testing.T) {
	have := map[string]bool{}
	for _, f := range files(t) {
		for d := f.dir; d != "."; d = filepath.Dir(d) {
			have[d] = true
		}
	}
	for d, allowed := range mayImport {
		for _, x := range append([]string{d}, allowed...) {
			if !have[x] {
				t.Errorf("the rules name %s, which has no Go file", x)
			}
		}
	}
}
