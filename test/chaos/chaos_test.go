package chaos

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/api/client"
	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/fleet"
	"github.com/skeinlb/skein/internal/lab/stage"
)

var (
	length  = flag.Duration("chaos.for", time.Minute, "how long faults are made")
	seed    = flag.Uint64("chaos.seed", 0, "makes the same faults again; 0: others each time")
	binary  = flag.String("chaos.binary", "", "the skein to test; by default it is built from this tree")
	results = flag.String("chaos.results", "", "directory to write the log and the table to")

	enterErr error
)

func TestMain(m *testing.M) {
	enterErr = lab.Enter()
	os.Exit(m.Run())
}

// Bounds.
const (
	// bootPatience is for the beginning, the end and what has no bound of its own.
	bootPatience = 2 * time.Minute
	// backWithin is how soon the client must be served again after a fault that leaves a majority, and after the end of any other. It is
	// far more than a takeover needs: an agent that restarts for the third time within a minute is not trusted with an address for 8 s.
	backWithin = 40 * time.Second
	// stoppedTwo is for how long two may answer where guard and agent were stopped together; see vip/DESIGN.md.
	stoppedTwo = 100 * time.Millisecond
	// disk is how much each node's log may take, in bytes.
	disk = 64 << 20
)

// arena is the cluster under attack.
type arena struct {
	*stage.Stage
	fleet  *fleet.Fleet
	dir    string
	random *rand.Rand
	begin  time.Time
	log    io.Writer // what happens, in the order in which it does
	writer *writer
	thaw   map[string]func() error // by node
}

// say writes a line of the log.
func (a *arena) say(format string, args ...any) {
	fmt.Fprintf(a.log, "%8.2f s  %s\n", time.Since(a.begin).Seconds(), fmt.Sprintf(format, args...))
}

// TestChaos makes faults, one after the other and sometimes two at a time, each on a random node or on the one that holds the address. A
// cluster that has a majority must serve again while the fault lasts, every cluster when it is over.
func TestChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("real processes on a network of their own: not with -short")
	}
	if enterErr != nil {
		t.Skipf("no lab on this machine: %v", enterErr)
	}
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	a := newArena(t, s)
	defer a.end(t)
	report := newReport(s)
	t.Logf("seed %d, for %v", s, *length)
	said := a.begin
	for end := a.begin.Add(*length); time.Now().Before(end) && !t.Failed(); {
		e, err := a.strike(t.Context(), report)
		if err != nil {
			a.say("FAILED %v", err)
			t.Errorf("%s: %v", e, err)
		}
		if time.Since(said) > time.Minute {
			said = time.Now()
			t.Log(report.progress(a))
		}
	}
	a.writer.stop()
	if err := a.nothingLost(t.Context()); err != nil {
		a.say("FAILED %v", err)
		t.Error(err)
	}
	report.finish(a)
	table := report.table()
	t.Logf("\n%s", table)
	if t.Failed() {
		t.Logf("to make the same faults again: -chaos.seed %d -chaos.for %v", s, *length)
	}
	if *results != "" {
		if err := os.WriteFile(filepath.Join(*results, "chaos.txt"), []byte(table), 0o644); err != nil {
			t.Error(err)
		}
	}
}

// newArena boots three nodes whose logs lie on small disks, and starts the traffic and the operator.
func newArena(t *testing.T, seed uint64) *arena {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir, err := os.MkdirTemp("", "skein-chaos-") // not t.TempDir: its path is too long for a unix socket
	must(err)
	path := *binary
	if path == "" {
		path = filepath.Join(dir, "skein")
		cmd := exec.Command("go", "build", "-o", path, "../../cmd/skein")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("build skein: %v\n%s", err, out)
		}
	} else if path, err = filepath.Abs(path); err != nil {
		t.Fatal(err)
	}
	a := &arena{dir: dir, random: rand.New(rand.NewPCG(seed, 0)), begin: time.Now(), thaw: map[string]func() error{}}
	log, err := os.Create(filepath.Join(dir, "chaos.log"))
	must(err)
	t.Cleanup(func() { log.Close() })
	a.log = log
	a.Stage, err = stage.New(slog.New(slog.DiscardHandler))
	must(err)
	a.fleet = &fleet.Fleet{World: a.World, Binary: path, Dir: dir}
	for _, name := range []string{"lb1", "lb2", "lb3"} {
		n, err := a.fleet.Add(name)
		must(err)
		must(os.Mkdir(logDir(n), 0o700))
		must(n.Host.MountMemory(logDir(n), disk))
	}
	ctx, cancel := context.WithTimeout(t.Context(), bootPatience)
	defer cancel()
	must(a.fleet.Found(ctx, func(string, string) {}))
	a.writer = newWriter(a)
	must(a.writer.write(ctx, a.fleet.Nodes()[0]))
	must(stage.Until(ctx, func() bool { return a.Holder() != "" }))
	a.Open()
	_, err = a.fleet.WaitWhole(ctx)
	must(err)
	_, err = a.Fresh.Record.Settled(ctx, time.Now(), time.Second)
	must(err)
	a.begin = time.Now()
	a.say("seed %d, %v holds %v", seed, a.Holder(), stage.VIP)
	a.writer.start()
	return a
}

// logDir is where a node keeps its log.
func logDir(n *fleet.Node) string { return filepath.Join(n.Dir, "cluster") }

// keepLogs copies the nodes' logs to where they outlive their small disks.
func (a *arena) keepLogs(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), bootPatience)
	defer cancel()
	for _, n := range a.fleet.Nodes() {
		if _, err := n.Host.Output(ctx, "/bin/cp", "-a", logDir(n), logDir(n)+".kept"); err != nil {
			t.Logf("keep the log of %s: %v", n.Name, err)
		}
	}
}

// end takes the arena down. After a failure everything that was written stays.
func (a *arena) end(t *testing.T) {
	a.writer.stop()
	if t.Failed() {
		a.keepLogs(t)
	}
	if err := a.Close(); err != nil {
		t.Errorf("take the arena down: %v", err)
	}
	text, err := os.ReadFile(filepath.Join(a.dir, "chaos.log"))
	if err != nil {
		t.Error(err)
	}
	if *results != "" {
		if err := os.WriteFile(filepath.Join(*results, "chaos.log"), text, 0o644); err != nil {
			t.Error(err)
		}
	}
	if !t.Failed() {
		os.RemoveAll(a.dir)
		return
	}
	t.Logf("\n%s", text)
	for _, n := range a.fleet.Nodes() {
		t.Logf("--- the end of %s's log\n%s", n.Name, n.LogTail(30))
	}
	t.Logf("the logs of the nodes: %s", a.dir)
}

// strike makes one fault or two, and holds what came of it against what must be.
func (a *arena) strike(ctx context.Context, r *report) (event string, err error) {
	ready, cancel := context.WithTimeout(ctx, bootPatience)
	defer cancel()
	if _, err := a.fleet.WaitWhole(ready); err != nil {
		return "before the next fault", err
	}
	// On a machine that stands still for a moment the address may just be on its way to another node.
	calm, enough := context.WithTimeout(ctx, backWithin)
	defer enough()
	if stage.Until(calm, func() bool { return a.Holder() != "" }) != nil {
		return "before the next fault", errors.New("nobody holds the address")
	}
	since, holder := time.Now(), a.Holder()
	nodes := a.fleet.Nodes()
	victim := nodes[a.random.IntN(len(nodes))]
	if a.random.IntN(2) == 0 {
		victim = a.fleet.Node(holder)
	}
	strikes := []strike{a.pick(victim)}
	if a.random.IntN(5) == 0 {
		others := slices.DeleteFunc(slices.Clone(nodes), func(n *fleet.Node) bool { return n == victim })
		strikes = append(strikes, a.pick(others[a.random.IntN(len(others))]))
	}
	var names []string
	allowed, most, hurt := time.Duration(0), time.Duration(0), 0
	for _, s := range strikes {
		names = append(names, fmt.Sprintf("%s of %s for %v", s.name, s.victim.Name, s.lasts))
		allowed, most = max(allowed, s.two), max(most, s.lasts)
		if !s.harmless {
			hurt++
		}
	}
	event = strings.Join(names, " and ")
	a.say("%s; %s holds the address", event, holder)
	for _, s := range strikes {
		if err := s.do(a, s.victim); err != nil {
			return event, err
		}
	}
	if hurt < 2 { // a majority is left
		if err := a.served(ctx, since, "while it lasts"); err != nil {
			return event, err
		}
	}
	if err := pause(ctx, time.Until(since.Add(most))); err != nil {
		return event, err
	}
	for _, s := range strikes {
		if err := s.undo(a, s.victim); err != nil {
			return event, err
		}
	}
	a.say("over")
	undone := time.Now()
	if err := a.served(ctx, undone, "after it"); err != nil {
		return event, err
	}
	whole, err := a.fleet.WaitWhole(ready)
	if err != nil {
		return event, fmt.Errorf("the cluster is not whole again: %w", err)
	}
	for _, alarm := range whole.Alarms {
		if strings.Contains(alarm.What, "of the state") { // see judgeCopies
			return event, errors.New(alarm.What)
		}
	}
	if err := a.agreed(ready); err != nil {
		return event, err
	}
	held := a.Held(since)
	o := outcome{names: names, spans: a.Fresh.Record.Spans(since), held: held, failed: a.Fresh.Record.Outage(since).Failed, stalled: a.Stalled(since)}
	r.add(strikes, o)
	a.say("whole: not served for %v, %d requests failed, %s -> %s, nobody for %v, two for %v; the machine stood still for %v; configuration %s",
		o.outage().Round(time.Millisecond), o.failed, holder, a.Holder(), held.None.Round(time.Millisecond), held.Two.Round(time.Millisecond),
		o.stalled.Round(time.Millisecond), a.writer)
	if held.Longest > allowed || held.Two > 0 && allowed == 0 {
		return event, fmt.Errorf("two hosts answered for the address for %v, at most %v is allowed\n%s", held.Longest, allowed, a.Timeline(since))
	}
	return event, a.Err()
}

// served waits until the client is served.
func (a *arena) served(ctx context.Context, since time.Time, when string) error {
	ctx, cancel := context.WithTimeout(ctx, backWithin)
	defer cancel()
	o, err := a.Fresh.Record.Settled(ctx, since, 300*time.Millisecond)
	if err != nil {
		return fmt.Errorf("the client is not served within %v (%s): %d of %d requests failed: %v", backWithin, when, o.Failed, o.Requests, o.Errors)
	}
	return nil
}

// agreed waits until all nodes have the same placement in their copies of the state. A node that has none of it, or another one, may not
// show it for long: it has the newest configuration, and only its guard knows from the others that it is wrong.
func (a *arena) agreed(ctx context.Context) error {
	var said []string
	if stage.Until(ctx, func() bool {
		said = said[:0]
		for _, n := range a.fleet.Nodes() {
			c := client.New(n.Socket())
			l, err := c.VIPs(ctx)
			c.Close()
			if err != nil {
				return false
			}
			for _, v := range l.VIPs {
				said = append(said, fmt.Sprintf("%s is on %s at %s", v.Name, v.Placed, v.Epoch))
			}
		}
		return len(slices.Compact(slices.Clone(said))) == 1
	}) != nil {
		return fmt.Errorf("the nodes' copies of the state differ: %q", said)
	}
	return nil
}

// pause lets a fault last.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
