package lab

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/internal/lab"
	"github.com/skeinlb/skein/internal/lab/fleet"
)

// failure is one thing that can happen to the node that holds the address.
type failure struct {
	name   string
	before func(*stage) // nil: nothing; sets the scene
	do     func(*stage, *fleet.Node) error
	undo   func(*stage, *fleet.Node)
	most   int // runs; 0: as many as are asked for
	// Limits, held from 20 runs on; 0: none.
	median, max time.Duration
	twoHolders  time.Duration // for how long two may answer; 0: never
}

var failures = []failure{
	{
		name: "agent killed", median: 60 * time.Millisecond,
		do:   func(_ *stage, n *fleet.Node) error { return n.Kill() },
		undo: (*stage).restart,
	},
	{
		// Whoever has just crashed is not trusted with the address for a while, at each crash for longer. It may lead, and must give the
		// address to the third.
		name: "agent killed, the next in turn unfit", most: 5,
		before: (*stage).crash,
		do:     func(_ *stage, n *fleet.Node) error { return n.Kill() },
		undo:   (*stage).restart,
	},
	{
		name: "agent and guard killed",
		do:   func(_ *stage, n *fleet.Node) error { return n.Host.Kill() },
		undo: (*stage).restart,
	},
	{
		name: "power off", median: 150 * time.Millisecond, max: 500 * time.Millisecond,
		do: func(_ *stage, n *fleet.Node) error { return n.Host.PowerOff() },
		undo: func(s *stage, n *fleet.Node) {
			s.must(n.Host.PowerOn())
			s.restart(n)
		},
	},
	{
		name: "agent stopped (SIGSTOP)",
		do:   func(_ *stage, n *fleet.Node) error { return n.Agent().Signal(unix.SIGSTOP) },
		undo: func(s *stage, n *fleet.Node) { s.must(n.Agent().Signal(unix.SIGCONT)) },
	},
	{
		name: "agent and guard stopped (SIGSTOP)", twoHolders: 100 * time.Millisecond,
		do:   func(_ *stage, n *fleet.Node) error { return n.Host.Signal(unix.SIGSTOP) },
		undo: func(s *stage, n *fleet.Node) { s.must(n.Host.Signal(unix.SIGCONT)) },
	},
	{
		name: "cut off from all",
		do:   func(s *stage, n *fleet.Node) error { return s.world.Cut(n.Host) },
		undo: func(s *stage, _ *fleet.Node) { s.must(s.world.Heal()) },
	},
	{
		name: "cable unplugged",
		do:   func(s *stage, n *fleet.Node) error { return s.world.Unplug(n.Host) },
		undo: func(s *stage, _ *fleet.Node) { s.must(s.world.Heal()) },
	},
	{
		// The client still reaches both sides: the case in which VRRP has two holders until it heals.
		name: "cut off from the other nodes only",
		do: func(s *stage, n *fleet.Node) error {
			return s.world.Partition([]*lab.Host{n.Host}, s.others(n))
		},
		undo: func(s *stage, _ *fleet.Node) { s.must(s.world.Heal()) },
	},
	{
		name: "nodes do not hear it (one way)",
		do:   func(s *stage, n *fleet.Node) error { return s.oneWay(n, true) },
		undo: func(s *stage, _ *fleet.Node) { s.must(s.world.Heal()) },
	},
	{
		name: "it does not hear the nodes (one way)",
		do:   func(s *stage, n *fleet.Node) error { return s.oneWay(n, false) },
		undo: func(s *stage, _ *fleet.Node) { s.must(s.world.Heal()) },
	},
	{
		name: "agent ended (SIGTERM)",
		do:   func(_ *stage, n *fleet.Node) error { return n.Agent().Signal(unix.SIGTERM) },
		undo: func(s *stage, n *fleet.Node) {
			s.ended(n)
			s.restart(n)
		},
	},
}

// crash kills the agent that holds the address, and has it back as a member that is not fit yet.
func (s *stage) crash() {
	s.t.Helper()
	n, since := s.holding(), time.Now()
	s.must(n.Kill())
	s.until("another node holds the address", func() bool { h := s.holder(); return h != "" && h != n.Name })
	s.settled(since)
	s.restart(n)
	s.back()
}

// oneWay cuts what n says to the other nodes, or what they say to n.
func (s *stage) oneWay(n *fleet.Node, says bool) error {
	for _, o := range s.others(n) {
		from, to := n.Host, o
		if !says {
			from, to = to, from
		}
		if err := s.world.CutOneWay(from, to); err != nil {
			return err
		}
	}
	return nil
}

// TestHolderFails plays every failure on whichever node holds the address. Each time another one must take over, the client
// must be served again, and never may two nodes answer for the address, neither then nor when the failed one comes back.
func TestHolderFails(t *testing.T) {
	s := newStage(t)
	report := newReport("failover")
	for _, f := range failures {
		t.Run(f.name, func(t *testing.T) {
			s.t = t
			times := *runs
			if f.most > 0 {
				times = min(times, f.most)
			}
			for range times {
				r := s.play(f)
				report.add(f.name, r)
				t.Logf("%s -> %s: outage %v, %d of %d requests failed %v, %d samples with two holders; the machine stood still for %v, "+
					"its disk for %v",
					r.before, r.after, r.outage.Length().Round(100*time.Microsecond), r.outage.Failed, r.outage.Requests, r.outage.Errors, r.two,
					r.stalled.Round(100*time.Microsecond), r.disk.Round(100*time.Microsecond))
				if t.Failed() {
					return
				}
			}
			report.hold(t, f)
		})
		s.t = t
		if t.Failed() {
			break // what follows would start from a broken cluster
		}
	}
	report.write(t)
}

// excuse is from which standstill of the machine on a deadline of 250 ms may be missed.
const excuse = 100 * time.Millisecond

// result is one run of one failure.
type result struct {
	stalled       time.Duration // the machine, see stage.stalled
	disk          time.Duration // the slowest recent write of a survivor's log: an election waits for four of them
	before, after string
	moved         time.Duration // until the wire showed a new holder
	outage        lab.Outage
	two           int
	twoFor        time.Duration
}

// play lets one failure happen and mends it again.
func (s *stage) play(f failure) result {
	s.t.Helper()
	if f.before != nil {
		f.before(s)
	}
	n := s.holding()
	r := result{before: n.Name}
	since := time.Now()
	s.must(f.do(s, n))
	s.until("another node holds the address", func() bool {
		h := s.holder()
		return h != "" && h != n.Name
	})
	r.moved = time.Since(since)
	r.outage = s.settled(since)
	r.after, r.stalled = s.holder(), s.stalled(since)

	mended := time.Now()
	f.undo(s, n)
	for _, o := range s.whole().Nodes {
		if o.Name != n.Name {
			r.disk = max(r.disk, time.Duration(o.Report.Disk.FsyncMs*float64(time.Millisecond)))
		}
	}
	// Nothing may fail when a node comes back. A request that timed out while the machine stood still says nothing about skein.
	o, stalled := s.settled(mended), s.stalled(mended)
	if o.Failed > 0 && (stalled < excuse || o.Failed > o.Errors["timeout"]) {
		s.t.Errorf("when %s came back, %d of %d requests failed: %v; the machine stood still for %v\n%s", n.Name, o.Failed, o.Requests, o.Errors,
			stalled, s.failures(mended))
	}
	if h := s.holder(); h != r.after {
		s.t.Errorf("when %s came back, the address moved from %s to %s", n.Name, r.after, h)
	}
	r.two, r.twoFor = s.watch.TwoHolders(since)
	if r.two > 0 && r.twoFor >= f.twoHolders {
		s.t.Errorf("two nodes answered for the address in %d samples over %v, want at most %v\n%s", r.two, r.twoFor, f.twoHolders,
			timeline(s, since))
	}
	return r
}

// failures lists the requests that have failed since then.
func (s *stage) failures(since time.Time) string {
	text := ""
	for _, o := range s.load.Record.Since(since) {
		if !o.Good() {
			text += fmt.Sprintf("  begun at %7.1f ms: %s after %.1f ms\n", ms(o.At.Sub(since)), o.Err, ms(o.Took))
		}
	}
	return text
}

// timeline says who answered when.
func timeline(s *stage, since time.Time) string {
	text := ""
	for _, r := range s.watch.Timeline(s.world, since) {
		text += fmt.Sprintf("  %7.1f ms  %v for %v\n", float64(r.From.Sub(since).Microseconds())/1000, r.Holders, r.To.Sub(r.From).Round(time.Millisecond))
	}
	return text
}

// TestSoak plays failures in random order for as long as -lab.soak says.
func TestSoak(t *testing.T) {
	if *soak == 0 {
		return // asked for by `make soak` only
	}
	s := newStage(t)
	stream := &lab.Stream{Target: s.db}
	s.background("a stream past the cluster", func(ctx context.Context) error { return stream.Run(ctx, s.client) })
	report := newReport("soak")
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for end := time.Now().Add(*soak); time.Now().Before(end) && !t.Failed(); {
		f := failures[random.IntN(len(failures))]
		r := s.play(f)
		t.Logf("%s: %s -> %s, outage %v", f.name, r.before, r.after, r.outage.Length())
		report.add(f.name, r)
	}
	if r := stream.Report(); !r.Cut.IsZero() {
		t.Errorf("the lab itself is at fault: a stream that no failure touched was cut (%s)", r.Why)
	}
	report.write(t)
}

// TestAllNodesRestart kills everything at once. The cluster must be back by itself, with its configuration and its address.
func TestAllNodesRestart(t *testing.T) {
	s := newStage(t)
	revision := s.whole().Revision.Number
	since := time.Now()
	for _, n := range s.fleet.Nodes() {
		s.must(n.Host.Kill())
	}
	for _, n := range s.fleet.Nodes() {
		s.must(n.Start())
	}
	o := s.settled(since)
	t.Logf("all nodes restarted: outage %v", o.Length().Round(time.Millisecond))
	if got := s.whole().Revision.Number; got != revision {
		t.Errorf("after the restart the configuration has revision %d, want %d", got, revision)
	}
	if n, d := s.watch.TwoHolders(since); n > 0 {
		t.Errorf("two nodes answered for the address in %d samples over %v\n%s", n, d, timeline(s, since))
	}
}
