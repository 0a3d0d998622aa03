// Command mutants breaks rules on purpose, one at a time in a copy that nobody else sees, and shows that each break is found: the guard's
// by the seeded schedules of vip, those of three and five nodes or those of a pair, or those of test/sim for two whole hosts, or by its
// transcripts; a recovery's by the tests of it. A rule whose break is not found is not tested.
//
// It changes no file of the tree: the compiler gets the broken source as an overlay.
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
)

// mutant is one rule, broken: in file, old is replaced by new.
type mutant struct {
	Name string `json:"name"`
	file string
	old  string
	new  string
	pair bool     // the schedules of pairs find it
	host bool     // those of pairs as whole hosts do, see test/sim
	in   []string // not schedules, but tests, in the first of these packages that finds it
	run  string   // which ones

	Found bool   `json:"found"`
	After int    `json:"after_schedules,omitempty"`
	By    string `json:"by,omitempty"` // what did not hold
}

var mutants = []*mutant{
	{
		Name: "a lease lasts longer than the promise behind it", file: "vip/profile.go",
		old: "p.lease = p.promise - max(", new: "p.lease = p.promise + max(",
	},
	{
		Name: "a guard that starts is not silent", file: "vip/machine.go",
		old: "return now < m.start+maxPromise", new: "return now < m.start",
	},
	{
		Name: "the gate is opened without a lease", file: "vip/decide.go",
		old: "case end-now < m.prof.gate:", new: "case end-now < -1000*ms:",
	},
	{
		Name: "an older epoch is granted", file: "vip/grant.go",
		old: "v.knownNode == p.id && c.epoch == v.known &&", new: "",
	},
	{
		Name: "a grant counts from when it is heard", file: "vip/grant.go",
		old: "l.until = max(l.until, s.at+s.lease)", new: "l.until = max(l.until, now+s.lease)",
	},
	{
		Name: "a promise to another does not bind", file: "vip/grant.go",
		old: "(v.promised == p.id || v.promUntil <= now)", new: "true",
	},
	{
		Name: "one grant is a majority", file: "vip/grant.go",
		old: "return ends[n-m.quorum()]", new: "return ends[n-1]",
	},
	{
		Name: "released is said before the address is off the link", file: "vip/grant.go",
		old: "if v.released && !v.onLink && !v.want {", new: "if v.lostWhy != mayAsk && !v.held {",
	},
	{
		Name: "pair: nobody yields to an announcement of the other node", file: "vip/pair.go", pair: true,
		old: "if !m.pair.on || !v.held || !m.peers[0].suspect ||", new: "if true ||",
	},
	{
		Name: "pair: an answer to a probe does not count", file: "vip/pair.go", pair: true,
		old: "if v.held || v.onLink || v.try.askAt == 0 {", new: "if true {",
	},
	{
		Name: "pair: who is apart does not announce more often", file: "vip/pair.go", pair: true,
		old: "if m.pair.on && m.peers[0].suspect {\n\t\treturn apartSays", new: "if false {\n\t\treturn apartSays",
	},
	{
		Name: "pair: the agent's older placement undoes what was taken", file: "vip/pair.go", pair: true,
		old: "if v.taken.Epoch.Compare(v.placed.Epoch) > 0 {", new: "if false {",
	},
	{
		Name: "pair: what is taken gets no higher epoch", file: "vip/pair.go", pair: true,
		old: "return max(v.known.Generation, m.pair.former) + 1", new: "return max(v.known.Generation, m.pair.former)",
	},
	{
		Name: "pair: it is taken while the other node may live on an answer of the tie-break", file: "vip/pair.go", pair: true,
		old: "return max(tieLife, m.peers[0].detect) + tieMargin", new: "return 0",
	},
	{
		Name: "pair: the tie-break always answers", file: "vip/pair.go", pair: true,
		old: "return a[d.asks-(d.asks/2+1)]", new: "return 1<<63 - 1",
	},
	{
		Name: "pair: the tie-break counts for what is not held", file: "vip/pair.go", pair: true,
		old: "if v := m.vips[i]; v.held || v.onLink || v.entitled {", new: "if v := m.vips[i]; v != nil {",
	},
	{
		Name: "pair: a generation is used before it is on the disk", file: "vip/pair.go", pair: true,
		old: "if !due || m.pair.saved < generation {", new: "if !due {",
	},
	{
		Name: "pair: who yielded asks in full for good", file: "vip/grant.go", pair: true,
		old: "v.beaten = false // who is right is known now", new: "",
	},
	{
		Name: "pair of hosts: what was taken does not come into the log", file: "internal/node/couple_pair.go", host: true,
		old: "if by := e.Compare(p.Epoch); by > 0 ||", new: "if by := e.Compare(p.Epoch); by > 1 ||",
	},
	{
		Name: "pair of hosts: the guard is not told that they are a pair", file: "internal/node/couple_pair.go", host: true,
		old: "if v.Config == nil || v.Config.Pair == nil || !v.Pair() {", new: "if v.Config == nil || true {",
	},
	{
		Name: "pair of hosts: whoever is apart keeps what it has", file: "vip/pair.go", host: true,
		old: "return a[d.asks-(d.asks/2+1)]", new: "return 1<<63 - 1",
	},
}

func main() {
	runs := flag.Int("runs", 2000, "schedules to look for each break in")
	out := flag.String("o", "", "file to write the results to")
	only := flag.String("only", "", "break only rules whose name contains this")
	flag.Parse()
	if err := run(*runs, *out, *only); err != nil {
		fmt.Fprintln(os.Stderr, "mutants:", err)
		os.Exit(1)
	}
}

var (
	found      = regexp.MustCompile(`seed \d+, after (\d+) schedules: ([^\n]*)`)
	failed     = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)|^panic: (.*)$`)
	foundHosts = regexp.MustCompile(`TestPairsHoldUnderRandomTrouble/seed_(\d+)[^\n]*\n\s*\S+_?\w*\.go:\d+: at [^\n:]*: ([^\n]*)`)
)

// hostRuns is in how many schedules of whole hosts a break must be found: each takes about a second.
const hostRuns = 60

func run(runs int, out, only string) error {
	mutants := slices.DeleteFunc(slices.Concat(mutants, guardMutants, vrrpMutants, recoverMutants), func(m *mutant) bool { return !strings.Contains(m.Name, only) })

	dir, err := os.MkdirTemp("", "skein-mutants-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	missed := 0
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, m := range mutants {
		fmt.Fprintf(os.Stderr, "%s ... ", m.Name)
		if err := m.look(dir, runs); err != nil {
			return fmt.Errorf("%s: %w", m.Name, err)
		}
		switch fmt.Fprintln(os.Stderr, m.After, m.By); {
		case m.Found && m.in != nil:
			fmt.Fprintf(w, "%s\tfound by a test\t%s\n", m.Name, m.By)
		case m.Found:
			fmt.Fprintf(w, "%s\tfound after %d schedules\t%s\n", m.Name, m.After, m.By)
		case m.in != nil:
			missed++
			fmt.Fprintf(w, "%s\tNOT FOUND in %s\n", m.Name, strings.Join(m.in, ", "))
		default:
			missed++
			fmt.Fprintf(w, "%s\tNOT FOUND in %d schedules\n", m.Name, runs)
		}
	}
	w.Flush()
	if out != "" {
		b, err := json.MarshalIndent(mutants, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(out, append(b, '\n'), 0o644); err != nil {
			return err
		}
	}
	if missed > 0 {
		return fmt.Errorf("%d of %d broken rules were not found", missed, len(mutants))
	}
	return nil
}

// look plays schedules against the broken code until one finds it.
func (m *mutant) look(dir string, runs int) error {
	src, err := os.ReadFile(m.file)
	if err != nil {
		return fmt.Errorf("%w; run it from the root of the tree", err)
	}
	if n := strings.Count(string(src), m.old); n != 1 {
		return fmt.Errorf("%q occurs %d times in %s, want once: the rule has moved", m.old, n, m.file)
	}
	broken := filepath.Join(dir, filepath.Base(m.file))
	if err := os.WriteFile(broken, []byte(strings.Replace(string(src), m.old, m.new, 1)), 0o644); err != nil {
		return err
	}
	abs, err := filepath.Abs(m.file)
	if err != nil {
		return err
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {abs: broken}})
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(file, overlay, 0o644); err != nil {
		return err
	}
	if m.in != nil {
		return m.lookIn(file)
	}
	test, found := []string{"-run=^TestSchedules$", "./vip", "-vip.runs", strconv.Itoa(runs)}, found
	if m.pair {
		test[0] = "-run=^TestPairSchedules$"
	}
	if m.host {
		test, found = []string{"-run=^TestPairsHoldUnderRandomTrouble$", "-failfast", "./test/sim", "-sim.pairs", strconv.Itoa(min(runs, hostRuns))}, foundHosts
	}
	said, err := exec.Command("go", append([]string{"test", "-overlay", file, "-count=1", "-timeout=20m"}, test...)...).CombinedOutput()
	if err == nil {
		return nil
	}
	hit := found.FindStringSubmatch(string(said))
	if hit == nil {
		return fmt.Errorf("it does not run: %w\n%s", err, said)
	}
	m.Found, m.By = true, hit[2]
	m.After, _ = strconv.Atoi(hit[1])
	return nil
}

// lookIn runs tests against the broken code, until one finds it.
func (m *mutant) lookIn(overlay string) error {
	for _, pkg := range m.in {
		said, err := exec.Command("go", "test", "-overlay", overlay, "-count=1", "-timeout=10m", "-vet=off", "-run", m.run, pkg).CombinedOutput()
		if err == nil {
			continue
		}
		hits := failed.FindAllStringSubmatch(string(said), -1)
		if hits == nil {
			return fmt.Errorf("it does not run: %w\n%s", err, said)
		}
		last := hits[len(hits)-1] // subtests stand below theirs
		if m.By = pkg + " " + last[1]; last[1] == "" {
			m.By = pkg + " panics: " + last[2]
		}
		m.Found = true
		return nil
	}
	return nil
}
