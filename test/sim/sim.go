// Package sim runs whole clusters in virtual time: several nodes as internal/node puts them together, with raft, memberlist, TLS,
// the admin API and bbolt unmodified, inside a bubble of testing/synctest. A minute passes in seconds.
//
// Not real: the wire (Network), the link and the kernel's ARP gate (here), the data plane (engine), and the guard's sockets and
// clock (vip.Virtual drives the guard's own machine). Two things are only approximated: a stopped node's agent is cut off and its
// guard stopped, but its own timers go on; and a seed fixes what happens to a cluster, not the order of goroutines at one instant.
// The one rule: an invariant is judged by what a client would see, never by what a node believes.
package sim

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/config"
)

// World is a cluster and all that can happen to it. Its methods are for the test's goroutine inside the bubble.
type World struct {
	tb    testing.TB
	seed  uint64
	rng   *rand.Rand
	net   *Network
	Nodes []*Node
	start time.Time
	trace trace
	level int   // of new hosts
	pair  *pair // nil: a majority decides

	mu sync.Mutex
	// mu guards the following, and the links of all nodes.
	broken []string        // invariants that did not hold
	takes  map[string]int  // by VIP: times that a node put it on its link
	voters map[string]bool // see votes; of the test's goroutine alone
	split  bool            // two clusters, by an operator's will: two holders are no violation

	replicas replicas
}

// New makes a cluster of size nodes, lb1 first, all of them members and, from three on, voters.
func New(tb testing.TB, seed uint64, size int) *World { return NewAt(tb, seed, size, 0) }

// NewAt makes a cluster of a version that applies commands up to that level; 0: this version.
func NewAt(tb testing.TB, seed uint64, size, level int) *World {
	w := empty(tb, seed, level)
	w.found(size)
	return w
}

// empty is a world without hosts.
func empty(tb testing.TB, seed uint64, level int) *World {
	w := &World{
		tb: tb, seed: seed, rng: rand.New(rand.NewPCG(seed, 2)), net: newNetwork(seed), start: time.Now(),
		takes: map[string]int{}, voters: map[string]bool{}, level: level,
	}
	w.trace.start = w.start
	return w
}

// found makes the cluster.
func (w *World) found(size int) {
	first := w.host("lb1", config.Balancer)
	if _, err := cluster.Found(first.newcomer()); err != nil {
		w.tb.Fatalf("found the cluster: %v", err)
	}
	first.boot()
	w.Until("the founder leads", 5*time.Second, func() bool { return first.report().Raft.State == "leader" && first.view().Founded() })
	for i := 1; i < size; i++ {
		w.Join(fmt.Sprint("lb", i+1), config.Balancer)
	}
	w.Until("all members vote", 20*time.Second, func() bool { return size < 3 || len(first.report().Raft.Voters) == size })
	w.votes()
}

// Close stops everything, prints the trace if the test failed, and must be called inside the bubble.
func (w *World) Close() {
	for _, n := range w.Nodes {
		n.powerOff()
	}
	for _, n := range w.Nodes {
		n.wait()
	}
	time.Sleep(time.Minute) // memberlist's probes end by their own clocks, and time stops with the test
	if w.tb.Failed() || *showTrace {
		w.tb.Logf("seed %d\n%s", w.seed, w.trace.String())
	}
}

func (w *World) violate(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.violated(format, args...)
}

func (w *World) violated(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if len(w.broken) < 5 { // one is enough; the rest is mostly the same again
		w.trace.add("", "VIOLATED: "+text)
		w.broken = append(w.broken, text)
	}
}

// Logf adds a line to the trace.
func (w *World) Logf(format string, args ...any) { w.trace.add("", fmt.Sprintf(format, args...)) }

// Fatalf ends the test.
func (w *World) Fatalf(format string, args ...any) {
	w.tb.Helper()
	w.trace.add("", "FAILED: "+fmt.Sprintf(format, args...))
	w.tb.Fatalf("at %v: %s", time.Since(w.start), fmt.Sprintf(format, args...))
}

// Run lets time pass and ends the test when an invariant did not hold.
func (w *World) Run(d time.Duration) {
	w.tb.Helper()
	time.Sleep(d)
	w.mu.Lock()
	broken := slices.Clone(w.broken)
	w.mu.Unlock()
	if len(broken) > 0 {
		w.tb.Fatalf("at %v (seed %d): %s", time.Since(w.start), w.seed, broken[0])
	}
}

// Until waits until ok, in steps of 10 ms, and ends the test when that takes longer than limit. It returns how long it took.
func (w *World) Until(what string, limit time.Duration, ok func() bool) time.Duration {
	w.tb.Helper()
	begin := time.Now()
	for !ok() {
		if time.Since(begin) > limit {
			w.Fatalf("after %v still not: %s", limit, what)
		}
		w.Run(10 * time.Millisecond)
	}
	return time.Since(begin)
}

// Leader is the node that leads, as it says itself; nil when none does.
func (w *World) Leader() *Node {
	for _, n := range w.running() {
		if n.report().Raft.State == "leader" {
			return n
		}
	}
	return nil
}

// Settled waits until the cluster is as it should be after trouble: every VIP answered for by the one node on which it is placed, and
// the same state on all nodes. It returns how long that took.
func (w *World) Settled(limit time.Duration) time.Duration {
	w.tb.Helper()
	why := ""
	begin := time.Now()
	for {
		if why = w.unsettled(); why == "" {
			return time.Since(begin)
		}
		if time.Since(begin) > limit {
			w.Fatalf("not settled after %v: %s", limit, why)
		}
		w.Run(20 * time.Millisecond)
	}
}

// unsettled says what is not as it should be.
func (w *World) unsettled() string {
	nodes := w.running()
	if len(nodes) == 0 {
		return "no node runs"
	}
	first := nodes[0].view()
	for _, n := range nodes {
		if v := n.view(); v != nil && (v.Index != first.Index || v.Revision.Number != first.Revision.Number) {
			return fmt.Sprintf("%s is at index %d, %s at %d", n.Name, v.Index, nodes[0].Name, first.Index)
		}
		if v := n.view(); v != nil && !n.engine.runs(v.Config) {
			return fmt.Sprintf("%s does not run revision %d", n.Name, v.Revision.Number)
		}
	}
	if len(first.Scope.VIPs) == 0 {
		return "no configuration runs"
	}
	for _, name := range first.Scope.VIPs {
		p := first.Placements[name]
		for _, n := range w.Nodes {
			w.mu.Lock()
			answers := n.answers(name)
			w.mu.Unlock()
			if want := n.Name == p.Node; answers != want || p.Node == "" {
				return fmt.Sprintf("%s is placed on %q; %s answers: %v", name, p.Node, n.Name, answers)
			}
		}
	}
	leaders := 0
	applied := map[uint64]bool{}
	for _, n := range nodes {
		r := n.report()
		if r.Raft.State == "leader" {
			leaders++
		}
		if r.Raft.Leader == "" {
			return n.Name + " knows no leader"
		}
		applied[r.Raft.AppliedIndex] = true
		for _, name := range first.Scope.VIPs { // a guard that was killed leaves an address that is still answered for, but not for long
			holds := slices.ContainsFunc(r.VIPs, func(h api.HeldVIP) bool { return h.Name == name })
			if first.Placements[name].Node == n.Name && !(holds && r.Guard.Running) {
				return fmt.Sprintf("%s is placed on %s, whose guard does not hold it", name, n.Name)
			}
		}
	}
	if leaders != 1 || len(applied) != 1 {
		return fmt.Sprintf("%d leaders, applied %v", leaders, applied)
	}
	var want []byte
	for i, n := range nodes {
		if n.engine == nil {
			continue
		}
		got := n.snapshot()
		if i == 0 {
			want = got
		} else if !bytes.Equal(got, want) {
			return fmt.Sprintf("the states of %s and %s differ", nodes[0].Name, n.Name)
		}
	}
	return ""
}
