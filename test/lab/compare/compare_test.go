package main

import (
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/internal/golden"
	"github.com/skeinlb/skein/internal/lab"
)

var (
	runs   = flag.Int("lab.runs", 3, "how often each scenario is played")
	binary = flag.String("lab.binary", "", "the skein to test; by default it is built from this tree")
	keep   = flag.Bool("lab.keep", false, "keep the nodes' data and logs")

	enterErr error
)

func TestMain(m *testing.M) {
	enterErr = lab.Enter()
	os.Exit(m.Run())
}

// shortened is the scenario with a shorter hang: what is resumed comes back before the kernel has swept its addresses, once after that is
// enough, and the next faults hit the next holders.
func (s *scenario) shortened() *scenario {
	short := *s
	short.lasts = min(s.lasts, hang/2)
	return &short
}

// build makes the binary where none is given.
func build(t *testing.T) string {
	t.Helper()
	if *binary != "" {
		path, err := filepath.Abs(*binary)
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
	path := filepath.Join(t.TempDir(), "skein")
	cmd := exec.Command("go", "build", "-o", path, "../../../cmd/skein")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build skein: %v\n%s", err, out)
	}
	return path
}

// TestEveryFaultIsSurvived plays every scenario on skein, on whichever node holds the address. Never may two nodes answer for it, neither
// then nor when the failed one comes back, and the client must be served again. For how long it was not is for the comparison, on
// a machine that does nothing else.
func TestEveryFaultIsSurvived(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes on a network of their own: not with -short")
	}
	if enterErr != nil {
		t.Skipf("no lab on this machine: %v", enterErr)
	}
	o := options{binary: build(t), keep: *keep, overload: 10 * time.Second}
	for _, name := range []string{"skein", "skein-witness", "skein-tiebreak"} {
		t.Run(name, func(t *testing.T) {
			m, err := makerOf(name)
			if err != nil {
				t.Fatal(err)
			}
			v, err := open(t.Context(), o, m)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if t.Failed() {
					t.Log(v.logs())
				}
				if err := v.Close(); err != nil {
					t.Errorf("take the venue down: %v", err)
				}
			}()
			for _, s := range o.due(m) {
				for i := range *runs {
					if s.once && i > 0 {
						break
					}
					if i > 0 {
						s = s.shortened()
					}
					first, back, err := v.play(t.Context(), s)
					if err != nil {
						t.Fatal(err) // what follows would start from a broken cluster
					}
					t.Logf("%-12s %s", s.key, first.run)
					if err := first.unsafe(s); err != nil {
						t.Errorf("%s: %v", s.key, err)
					}
					if back == nil {
						continue
					}
					t.Logf("%-12s %s", s.back, back.run)
					if err := back.unsafe(scenarioOf(s.back)); err != nil {
						t.Errorf("%s: %v", s.back, err)
					}
					if back.Switches > 0 || back.Before != back.After {
						t.Errorf("%s: the address moved from %s to %s\n%s", s.back, back.Before, back.After, back.timeline)
					}
				}
			}
		})
	}
}

// example is a document with everything that a document can have.
func example() *document {
	d := &document{Kernel: "6.1.0", CPUs: 2, Versions: map[string]string{"skein": "skein 1.0", "keepalived": "Keepalived v2, HAProxy 2"}}
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for i, outage := range []float64{14, 20, 92, 18} {
		d.add("skein", "killed", run{At: at.Add(time.Duration(i) * time.Minute), Commit: "0123456789ab", Load: "0.50 0.40 0.30", Before: "lb1", After: "lb2",
			OutageMs: outage, Requests: 200, Failed: 4, Active: 25, Idle: i, NoneMs: 8})
	}
	d.add("keepalived", "killed", run{At: at, Load: "1.50 1.00 0.30", Before: "lb1", After: "lb1", OutageMs: 8000, Never: true, Requests: 1600, Failed: 1600,
		Active: 25, Idle: 25, Download: true})
	d.add("keepalived", "all-stopped", run{At: at, Load: "1.50 1.00 0.30", Before: "lb1", After: "lb1", OutageMs: 3600, Requests: 1600, Failed: 700, TwoMs: 1400})
	d.add("skein", "return", run{At: at, Commit: "0123456789ab", Load: "0.50 0.40 0.30", Before: "lb1", After: "lb1", Requests: 100})
	return d
}

func TestTable(t *testing.T) {
	golden.File(t, "testdata/table.txt", example().table())
}

// The picture is well-formed and has a dot for each run.
func TestPicture(t *testing.T) {
	d := example()
	if strings.Contains(d.picture(), "%!") {
		t.Error("a format is wrong")
	}
	dots, p := 0, xml.NewDecoder(strings.NewReader(d.picture()))
	for {
		tok, err := p.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if e, ok := tok.(xml.StartElement); ok && e.Name.Local == "circle" {
			for _, a := range e.Attr {
				if a.Name.Local == "class" && strings.HasPrefix(a.Value, "dot ") {
					dots++
				}
			}
		}
	}
	if dots != 7 {
		t.Errorf("%d dots for 7 runs", dots)
	}
}

// A comparison that was interrupted goes on where it was; with another version of somebody, his part begins anew.
func TestKeptRunsAreCompletedNotMixed(t *testing.T) {
	dir := t.TempDir()
	if err := example().write(dir); err != nil {
		t.Fatal(err)
	}
	counts := func(who string, v version) string {
		d, err := readDocument(dir)
		if err != nil {
			t.Fatal(err)
		}
		d.begin(who, v)
		return fmt.Sprint(d.count("skein", "killed"), d.count("skein", "return"), d.count("keepalived", "killed"), d.count("keepalived", "all-stopped"))
	}
	for _, c := range []struct {
		who  string
		v    version
		want string
	}{
		{"skein", version{"skein 1.0", "0123456789ab"}, "4 1 1 1"},
		{"skein", version{"skein 1.0", "ba9876543210"}, "0 0 1 1"},
		{"keepalived", version{Name: "Keepalived v2, HAProxy 2"}, "4 1 1 1"},
		{"keepalived", version{Name: "Keepalived v3, HAProxy 2"}, "4 1 0 0"},
	} {
		if got := counts(c.who, c.v); got != c.want {
			t.Errorf("after %s began with %v, %s runs are kept, want %s", c.who, c.v, got, c.want)
		}
	}
}

func TestFigures(t *testing.T) {
	f := example().cell("skein", "killed").figures()
	if f.Median != 20 || f.P95 != 92 || f.Max != 92 || f.Idle != 1.5 || f.Moved != 4 {
		t.Errorf("figures %+v", f)
	}
	for _, c := range []struct {
		goal goal
		f    figures
		want string
	}{
		{goal{Median: 20 * millisecond, Max: 100 * millisecond}, f, "met"},
		{goal{Median: 19 * millisecond, Max: 100 * millisecond}, f, "missed"},
		{goal{Median: 20 * millisecond, Max: 90 * millisecond}, f, "missed"},
		{goal{Max: 100 * millisecond}, f, "met"},
		{goal{Moves: true, Max: 100 * millisecond}, f, "missed"},
		{goal{Moves: true, Max: 100 * millisecond}, figures{Max: 100}, "met"},
		{goal{Max: 100 * millisecond}, figures{Never: 1}, "missed"},
		{goal{}, f, ""},
	} {
		if got := c.goal.verdict(c.f); got != c.want {
			t.Errorf("goal %v: %q, want %q", c.goal, got, c.want)
		}
	}
}
