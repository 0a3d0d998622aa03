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
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/api/client"
	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/internal/node"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
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
	level int // of new hosts

	mu sync.Mutex
	// mu guards the following, and the links of all nodes.
	broken []string        // invariants that did not hold
	takes  map[string]int  // by VIP: times that a node put it on its link
	voters map[string]bool // see votes; of the test's goroutine alone
	split  bool            // two clusters, by an operator's will: two holders are no violation
}

// Node is one host: a kernel with a link, a guard, an agent, a directory that survives.
type Node struct {
	w     *World
	Name  string
	addr  netip.AddrPort
	dir   string
	role  config.Role
	guard *vip.Virtual
	kill  context.CancelFunc // the guard
	dead  chan struct{}      // closed when the guard's goroutine has ended

	agent  *vip.VirtualAgent // nil: no agent runs
	proc   *process
	cancel context.CancelFunc
	ended  chan struct{} // closed when the agent's goroutines have ended
	engine *engine
	node   *node.Node // the newest
	level  int        // of the commands that its version applies; 0: this version's
	admin  netip.AddrPort
	disk   disk

	up, paused, hung bool

	// Guarded by w.mu.
	links    map[string]*link
	cutSince time.Time // since when it can't exchange heartbeats with a majority of voters; zero: it can
}

// link is a VIP in a host's kernel: it answers while the address is there and the gate is open.
type link struct{ until, gate time.Time }

// longestLease bounds every lease and every life of an open gate: vip.maxPromise.
const longestLease = time.Second

// New makes a cluster of size nodes, lb1 first, all of them members and, from three on, voters.
func New(tb testing.TB, seed uint64, size int) *World { return NewAt(tb, seed, size, 0) }

// NewAt makes a cluster of a version that applies commands up to that level; 0: this version.
func NewAt(tb testing.TB, seed uint64, size, level int) *World {
	w := &World{
		tb: tb, seed: seed, rng: rand.New(rand.NewPCG(seed, 2)), net: newNetwork(seed), start: time.Now(),
		takes: map[string]int{}, voters: map[string]bool{}, level: level,
	}
	w.trace.start = w.start
	first := w.host("lb1", config.Balancer)
	if _, err := cluster.Found(first.newcomer()); err != nil {
		tb.Fatalf("found the cluster: %v", err)
	}
	first.boot()
	w.Until("the founder leads", 5*time.Second, func() bool { return first.report().Raft.State == "leader" && first.view().Founded() })
	for i := 1; i < size; i++ {
		w.Join(fmt.Sprint("lb", i+1), config.Balancer)
	}
	w.Until("all members vote", 20*time.Second, func() bool { return size < 3 || len(first.report().Raft.Voters) == size })
	w.votes()
	return w
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

// host makes a host that belongs to no cluster.
func (w *World) host(name string, role config.Role) *Node {
	i := len(w.Nodes) + 1
	a := netip.AddrFrom4([4]byte{198, 18, 0, byte(i)})
	n := &Node{
		w: w, Name: name, addr: netip.AddrPortFrom(a, config.DefaultPort), dir: filepath.Join(w.tb.TempDir(), name), role: role, level: w.level,
		admin: netip.AddrPortFrom(a, 1), links: map[string]*link{},
	}
	w.mu.Lock()
	w.Nodes = append(w.Nodes, n)
	w.mu.Unlock()
	return n
}

func (n *Node) newcomer() cluster.Newcomer {
	role := state.Balancer
	if n.role == config.Witness {
		role = state.Witness
	}
	return cluster.Newcomer{
		Dir: filepath.Join(n.dir, "cluster"), Name: n.Name, Advertise: n.addr, Role: role, Network: n.w.net.process(n.addr.Addr()), Level: n.level,
	}
}

// Join makes a new host a member, by a token from the first node that runs, and boots it.
func (w *World) Join(name string, role config.Role) *Node {
	via := w.running()[0]
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c := via.client()
	defer c.Close()
	tok, err := c.NewToken(ctx, api.TokenRequest{Role: role.String()})
	if err != nil {
		w.Fatalf("make a token on %s: %v", via.Name, err)
	}
	n := w.host(name, role)
	if _, err := cluster.Join(ctx, n.newcomer(), via.addr, tok.Token); err != nil {
		w.Fatalf("join %s: %v", name, err)
	}
	n.boot()
	w.Logf("%s joined through %s", name, via.Name)
	w.Until(name+" has the log", 10*time.Second, func() bool { v := n.view(); return v == nil || len(v.Nodes) == len(w.Nodes) })
	return n
}

// running are the nodes whose agents run and are not stopped.
func (w *World) running() []*Node {
	var ns []*Node
	for _, n := range w.Nodes {
		if n.up && n.agent != nil && !n.paused && !n.hung {
			ns = append(ns, n)
		}
	}
	return ns
}

// boot powers a host on: guard, then agent.
func (n *Node) boot() { n.bootSlowly(0) }

// bootSlowly lets so much time pass before the agent.
func (n *Node) bootSlowly(d time.Duration) {
	if n.up {
		return
	}
	n.w.net.change(func() { n.w.net.host(n.addr.Addr()).up = true })
	n.up = true
	n.startGuard()
	time.Sleep(d)
	n.startAgent()
	n.w.reachable()
}

func (n *Node) startGuard() {
	ctx, cancel := context.WithCancel(context.Background())
	n.guard, n.kill, n.dead = vip.NewVirtual(vip.VirtualOptions{
		Edge: n, Boot: dice(n.w, func(r *rand.Rand) uint64 { return r.Uint64() }), RealTime: true,
		Late: dice(n.w, func(r *rand.Rand) time.Duration { return time.Duration(r.Int64N(int64(100 * time.Microsecond))) }),
	}), cancel, make(chan struct{})
	g, dead := n.guard, n.dead
	n.w.net.bind(n.heartbeats(), func(b []byte, _ netip.AddrPort) { g.Heartbeat(b) })
	go func() {
		defer close(dead)
		g.Run(ctx)
	}()
}

func (n *Node) heartbeats() netip.AddrPort {
	return netip.AddrPortFrom(n.addr.Addr(), n.addr.Port()+1)
}

// startAgent starts the agent, after the last one of this host has ended.
func (n *Node) startAgent() {
	n.wait()
	n.proc = n.w.net.process(n.addr.Addr())
	n.agent = n.guard.Attach()
	n.disk.mend()
	admin, err := n.proc.Listen(n.admin)
	if err != nil {
		n.w.Fatalf("%s: admin API: %v", n.Name, err)
	}
	opt := node.Options{
		Config: &config.Node{
			Name: n.Name, DataDir: n.dir, Advertise: n.addr.Addr(), Port: n.addr.Port(), Interface: "eth0", Role: n.role,
		},
		Version: "sim", Log: slog.New(n.w.trace.handler(n.Name)),
		Level: n.level, Network: n.proc, Guard: n.agent, Admin: admin, Disk: n.disk.sync,
		Engine: func(m *state.Machine) node.Engine {
			e := newEngine(m)
			n.w.mu.Lock()
			n.engine = e
			n.w.mu.Unlock()
			return e
		},
	}
	nd, err := node.Open(opt)
	if err != nil {
		n.w.Fatalf("%s: open: %v", n.Name, err)
	}
	n.node = nd
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.ended = cancel, make(chan struct{})
	ended, proc := n.ended, n.proc
	go func() {
		defer close(ended)
		if err := nd.Run(ctx, 200*time.Millisecond); err != nil && ctx.Err() == nil && !proc.isDead() {
			n.w.violate("%s: the agent ended: %v", n.Name, err)
		}
	}()
}

func (p *process) isDead() bool {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	return p.dead
}

// killAgent is kill -9 of the agent alone.
func (n *Node) killAgent() {
	if n.agent == nil {
		return
	}
	n.hang(false)
	n.w.Logf("%s agent killed", n.Name)
	n.agent.Die()
	n.proc.kill()
	n.cancel()
	n.agent = nil
}

// powerOff ends the host at once.
func (n *Node) powerOff() {
	if !n.up {
		return
	}
	n.w.Logf("%s powered off", n.Name)
	n.resume()
	n.w.net.change(func() { n.w.net.host(n.addr.Addr()).up = false })
	n.up = false
	n.kill()
	<-n.dead
	n.w.mu.Lock()
	clear(n.links)
	n.w.mu.Unlock()
	n.killAgent()
	n.w.reachable()
}

// stop ends the agent as an operator does, and its guard with it.
func (n *Node) stop() {
	n.hang(false)
	n.w.Logf("%s agent told to stop", n.Name)
	n.cancel()
	n.wait()
	n.proc.kill()
	n.agent = nil
}

// wait returns when the last agent has ended. One that never does is a bug, of which its goroutines tell most.
func (n *Node) wait() {
	if n.ended == nil {
		return
	}
	select {
	case <-n.ended:
	case <-time.After(time.Minute):
		panic(fmt.Sprintf("seed %d: the agent of %s does not end\n%s", n.w.seed, n.Name, n.w.trace.String()))
	}
}

// pause stops agent and guard of a host as SIGSTOP does; its kernel goes on.
func (n *Node) pause() {
	if !n.up || n.paused {
		return
	}
	n.w.Logf("%s stopped", n.Name)
	n.paused = true
	n.guard.Pause(true)
	n.w.net.change(func() { n.w.net.host(n.addr.Addr()).paused = true })
	n.w.reachable()
}

func (n *Node) resume() {
	if !n.paused {
		return
	}
	n.w.Logf("%s runs on", n.Name)
	n.paused = false
	n.w.net.change(func() { n.w.net.host(n.addr.Addr()).paused = false })
	n.guard.Pause(false)
	n.w.reachable()
}

// hang stops the agent's process alone, or lets it run again; the guard lives. No connection of the agent carries anything meanwhile.
func (n *Node) hang(on bool) {
	if n.agent == nil || n.hung == on {
		return
	}
	n.hung = on
	n.w.Logf("%s agent hangs: %v", n.Name, on)
	n.agent.Stop(on)
	n.w.net.change(func() { n.w.net.host(n.addr.Addr()).hung = on })
}

// crashGuard is kill -9 of the guard; its agent starts another.
func (n *Node) crashGuard() {
	n.w.Logf("%s guard killed", n.Name)
	n.guard.Crash()
}

// Cut stops what a sends to b.
func (w *World) Cut(a, b *Node, what cut) {
	w.Logf("cut %s -> %s%s", a.Name, b.Name, map[cut]string{cutStreams: " (tcp only)", cutDatagrams: " (udp only)"}[what])
	w.net.cut(a.addr.Addr(), b.addr.Addr(), what)
	w.reachable()
}

// Partition lets only nodes of the same side talk.
func (w *World) Partition(side ...*Node) {
	var names []string
	for _, n := range side {
		names = append(names, n.Name)
	}
	w.Logf("partition: %v against the rest", names)
	for _, a := range w.Nodes {
		for _, b := range w.Nodes {
			if a != b && slices.Contains(side, a) != slices.Contains(side, b) {
				w.net.cut(a.addr.Addr(), b.addr.Addr(), cutAll)
			}
		}
	}
	w.reachable()
}

// Heal repairs the network.
func (w *World) Heal() {
	w.Logf("network healed")
	w.net.change(func() { clear(w.net.cuts); w.net.loss = 0 })
	w.reachable()
}

// Loss makes datagrams get lost, and some of the others late.
func (w *World) Loss(p float64) {
	w.Logf("datagram loss %.0f %%", 100*p)
	w.net.change(func() { w.net.loss = p })
}

// votes tells the world's judge who votes now: what the nodes say while all is well.
func (w *World) votes() { w.votesOf(w.running()[0]) }

// votesOf takes that node's word for it.
func (w *World) votesOf(n *Node) {
	clear(w.voters)
	for _, name := range n.report().Raft.Voters {
		w.voters[name] = true
	}
	w.reachable()
}

// reachable notes for every node whether it can exchange heartbeats with a majority of the voters.
func (w *World) reachable() {
	now := time.Now()
	for _, n := range w.Nodes {
		voters, heard := 0, 0
		for _, o := range w.Nodes {
			if len(w.voters) > 0 && !w.voters[o.Name] {
				continue
			}
			voters++
			w.net.mu.Lock()
			both := w.net.open(n.addr.Addr(), o.addr.Addr(), cutDatagrams) && w.net.open(o.addr.Addr(), n.addr.Addr(), cutDatagrams)
			w.net.mu.Unlock()
			if n == o || both && !o.paused {
				heard++
			}
		}
		w.mu.Lock()
		switch {
		case 2*heard > voters:
			n.cutSince = time.Time{}
		case n.cutSince.IsZero():
			n.cutSince = now
		}
		w.mu.Unlock()
	}
}

// dice makes draws from the world's dice safe for other goroutines.
func dice[T any](w *World, draw func(*rand.Rand) T) func() T {
	return func() T {
		w.net.mu.Lock()
		defer w.net.mu.Unlock()
		return draw(w.net.rng)
	}
}

// Send, Put, Take and Gate make a Node the edge of its guard.
func (n *Node) Send(to netip.AddrPort, b []byte) { n.w.net.send(n.heartbeats(), to, b) }

func (n *Node) Put(name string, life time.Duration) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	l := n.link(name)
	if now := time.Now(); !l.until.After(now) {
		n.w.takes[name]++
		n.w.Logf("%s takes %s", n.Name, name)
	}
	l.until = time.Now().Add(life)
	n.w.judge(n, name)
}

func (n *Node) Take(name string) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	if l := n.link(name); l.until.After(time.Now()) {
		n.w.Logf("%s lets go of %s", n.Name, name)
	}
	n.link(name).until = time.Time{}
}

func (n *Node) Gate(name string, life time.Duration) {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	n.link(name).gate = time.Now().Add(life)
	n.w.judge(n, name)
}

func (n *Node) link(name string) *link {
	if n.links[name] == nil {
		n.links[name] = &link{}
	}
	return n.links[name]
}

// answers is whether a client's ARP request for the VIP is answered by this host's kernel. w.mu is held.
func (n *Node) answers(name string) bool {
	l, now := n.links[name], time.Now()
	return l != nil && l.until.After(now) && l.gate.After(now)
}

// judge is called with w.mu held whenever a node begins or goes on to answer.
func (w *World) judge(n *Node, name string) {
	if !n.answers(name) || w.split {
		return
	}
	for _, o := range w.Nodes {
		if o != n && o.answers(name) {
			w.violated("%s and %s both answer for %s", n.Name, o.Name, name)
		}
	}
	if at := n.cutSince; !at.IsZero() && time.Since(at) > longestLease {
		w.violated("%s answers for %s, but has been without a majority for %v", n.Name, name, time.Since(at))
	}
}

// Holder is who answers for a VIP now; nil: nobody.
func (w *World) Holder(name string) *Node {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, n := range w.Nodes {
		if n.answers(name) {
			return n
		}
	}
	return nil
}

// Takes is how often a node put the VIP on its link.
func (w *World) Takes(name string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.takes[name]
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

// view is what a node wants by its own log; nil for a witness, whose log nobody can look into.
func (n *Node) view() *state.View {
	if n.engine == nil {
		return nil
	}
	return n.engine.machine.Views().Get()
}

// client is the admin API's client on the node itself.
func (n *Node) client() *client.Client {
	outside := n.w.net.process(n.addr.Addr())
	return client.NewDial(n.Name, func(ctx context.Context) (net.Conn, error) { return outside.Dial(ctx, n.admin) })
}

// report is what the node says of itself; empty when it does not answer.
func (n *Node) report() api.NodeReport {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c := n.client()
	defer c.Close()
	r, err := c.Node(ctx)
	if err != nil {
		return api.NodeReport{}
	}
	return *r
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

// snapshot is a node's whole replicated state as bytes; under the race detector what is published of it.
func (n *Node) snapshot() []byte {
	if underRace {
		b, err := json.Marshal(n.view())
		if err != nil {
			n.w.Fatalf("%s: view: %v", n.Name, err)
		}
		return b
	}
	synctest.Wait() // nothing is being applied
	s, err := n.engine.machine.Snapshot()
	if err != nil {
		n.w.Fatalf("%s: snapshot: %v", n.Name, err)
	}
	defer s.Release()
	var b bytes.Buffer
	if err := s.Persist(&b); err != nil {
		n.w.Fatalf("%s: snapshot: %v", n.Name, err)
	}
	return b.Bytes()
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
	for _, name := range first.Scope.VIPs {
		p := first.Placements[name]
		for _, n := range w.Nodes {
			w.mu.Lock()
			answers := n.answers(name)
			w.mu.Unlock()
			if want := n.Name == p.Node; answers != want {
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

// disk is a node's disk, as far as it can fail.
type disk struct {
	mu     sync.Mutex
	broken bool
	takes  time.Duration // each synced write
}

var errDisk = errors.New("input/output error")

func (d *disk) sync() error {
	d.mu.Lock()
	takes := d.takes
	d.mu.Unlock()
	time.Sleep(takes)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.broken {
		return errDisk
	}
	return nil
}

func (d *disk) fail()                    { d.mu.Lock(); d.broken = true; d.mu.Unlock() }
func (d *disk) slow(takes time.Duration) { d.mu.Lock(); d.takes = takes; d.mu.Unlock() }

func (d *disk) mend() { d.mu.Lock(); d.broken = false; d.mu.Unlock() }
