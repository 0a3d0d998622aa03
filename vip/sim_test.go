package vip

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// world is a cluster of machines in virtual time: a network that delays, loses and cuts, nodes that stop, restart and lose
// their agents, and an oracle in place of Raft that commits placements and tells the agents late. What it checks is what a
// client would see: at no instant do two nodes answer for one address.
type world struct {
	t     *testing.T
	rng   *rand.Rand
	now   int64
	queue events
	order int
	nodes []*simNode
	trace bool

	loss   float64
	maxLat int64
	cut    map[[2]int]bool // from, to
	gated  bool
	steady bool // no packet is much later than the others

	schedule *faults // nil: a scenario, whose test fails at once
	seen     counts

	pair       *simPair    // nil: three nodes or more, and no tie-break
	placements []Placement // newest per VIP
	index      uint64
	opened     int // times an address began to be answered
	spins      int // events at one instant
}

type simNode struct {
	w       *world
	i       int
	m       *machine
	seen    []Placement
	alive   bool // agent
	fit     bool
	down    bool // powered off
	outages int  // of power, of a pair's node
	until   int64
	wakes   int64 // time of the next tick, to drop superseded ones
	inbox   []*message
	links   []simLink
	owed    []int64 // by VIP: until when its promise was seen to last
	off     int64   // its clock is ahead of the world's by this
	ppm     int64   // and goes so much faster, in millionths
	disk    uint64  // the generation that is on it
	full    bool    // the disk
	put     []int64 // by VIP: when the address was put on the link, by the world's time
	codec   *codec  // nil: messages are handed over as they are
}

// now is what the node's clock says.
func (n *simNode) now() int64 { return n.w.now + n.off + (n.w.now-worldStart)*n.ppm/1_000_000 }

// in is how much of the world's time passes until the node's clock says at.
func (n *simNode) in(at int64) int64 {
	d := at - n.now()
	return d - d*n.ppm/1_000_000
}

// worldStart is when a world begins.
const worldStart = int64(time.Hour)

// simLink is the kernel: it answers while the address is there and the gate is open.
type simLink struct {
	has  bool
	lft  int64
	gate int64
}

type event struct {
	at    int64
	order int
	f     func()
}
type events []event

func (e events) Len() int { return len(e) }
func (e events) Less(i, j int) bool {
	return e[i].at < e[j].at || e[i].at == e[j].at && e[i].order < e[j].order
}
func (e events) Swap(i, j int) { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)   { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	x := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return x
}

const simVIPs = 2

func newWorld(t *testing.T, seed uint64, n int) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 7)), now: worldStart, maxLat: ms / 2, cut: map[[2]int]bool{}, gated: true}
	for v := range simVIPs {
		w.placements = append(w.placements, Placement{VIP: fmt.Sprint("v", v)})
	}
	for i := range n {
		nd := &simNode{w: w, i: i, alive: true, fit: true, links: make([]simLink, simVIPs), owed: make([]int64, simVIPs)}
		nd.seen = make([]Placement, simVIPs)
		w.nodes = append(w.nodes, nd)
		nd.boot()
	}
	return w
}

// violate ends the world: an invariant does not hold.
func (w *world) violate(format string, args ...any) {
	if w.schedule != nil {
		panic(violation(fmt.Sprintf(format, args...)))
	}
	w.t.Fatalf(format, args...)
}

func (w *world) logf(format string, args ...any) {
	if w.trace {
		w.t.Logf("%10.3f %s", float64(w.now-worldStart)/1e6, fmt.Sprintf(format, args...))
	}
}

func (w *world) at(d int64, f func()) {
	w.order++
	heap.Push(&w.queue, event{w.now + d, w.order, f})
}

func (w *world) run(d int64) {
	end := w.now + d
	for len(w.queue) > 0 && w.queue[0].at <= end {
		e := heap.Pop(&w.queue).(event)
		if e.at == w.now {
			if w.spins++; w.spins > 10000 {
				for _, n := range w.nodes {
					w.t.Logf("n%d next %d now %d silent %v chatty %v beat %d", n.i, n.m.next()-n.now(), w.now, n.m.silent(n.now()), n.m.chatty, n.m.nextBeat-n.now())
				}
				w.violate("time stands still at %.3f ms", float64(w.now-worldStart)/1e6)
			}
		} else {
			w.spins = 0
		}
		w.now = e.at
		e.f()
	}
	w.now = end
}

func simName(i int) string { return fmt.Sprint("n", i) }

func (n *simNode) boot() {
	n.m = newMachine(n.now(), n.w.rng.Uint64(), n.i%3 != 2) // every third node has no real time
	if n.codec != nil {
		n.m.reads = n.codec.reads
	}
	for v := range n.links {
		n.links[v].has = false // swept
	}
	n.inbox = nil
	clear(n.owed)
	if n.w.pair != nil {
		n.m.remembered(n.disk, true, "")
	}
	n.tell()
	n.m.local(n.now(), n.alive, n.fit, "")
	for v := range simVIPs {
		n.m.link(n.now(), v, true, "")
	}
	n.act()
}

func (n *simNode) tell() {
	s := Setup{Self: simName(n.i), SelfVoter: true}
	for j := range n.w.nodes {
		if j != n.i {
			s.Peers = append(s.Peers, Peer{Name: simName(j), Voter: true})
		}
	}
	if p := n.w.pair; p != nil {
		s.SelfVoter = n.i == 0 // as Raft has it; the guards have it otherwise
		s.Peers[0].Voter = n.i == 1
		s.Pair = &Pair{Available: p.available, Tiebreak: []netip.Addr{netip.MustParseAddr("198.18.0.254")}, File: "pair.json"}
	}
	for j := len(n.w.nodes); j < 3 && n.w.pair == nil; j++ { // while the world is being made
		if j != n.i {
			s.Peers = append(s.Peers, Peer{Name: simName(j), Voter: true})
		}
	}
	for v := range simVIPs {
		s.VIPs = append(s.VIPs, VIP{Name: fmt.Sprint("v", v), Addresses: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("198.18.0.%d/24", v+1))}})
	}
	for _, p := range n.seen {
		if p.Node != "" {
			s.Placements = append(s.Placements, p)
		}
	}
	n.m.configure(n.now(), &s)
	for _, v := range n.m.vips {
		v.mac = simMAC(n.i)
	}
	n.m.mac = simMAC(n.i)
}

func (n *simNode) running() bool { return !n.down && n.w.now >= n.until }

// act executes what the machine asked for and arms its next tick.
func (n *simNode) act() {
	w := n.w
	for k := 0; k < len(n.m.out); k++ {
		a := n.m.out[k]
		switch a.kind {
		case actSend, actGreet:
			msg := new(message)
			n.m.fill(n.now(), a, msg)
			j := 0
			for j = range w.nodes {
				if idOf(simName(j)) == n.m.peers[a.peer].id {
					break
				}
			}
			if w.cut[[2]int{n.i, j}] || w.rng.Float64() < w.loss {
				continue
			}
			lat := 50_000 + w.rng.Int64N(w.maxLat)
			if !w.steady && w.rng.IntN(50) == 0 {
				lat += w.rng.Int64N(30 * ms)
			}
			to := w.nodes[j]
			if n.codec != nil {
				b := n.codec.pack(nil, msg)
				w.at(lat, func() { to.read(b) })
				continue
			}
			w.at(lat, func() { to.deliver(msg) })
			if f := w.schedule; f != nil && w.rng.Float64() < f.Duplicate {
				w.at(lat+w.rng.Int64N(50*ms), func() { to.deliver(msg) })
			}
		case actAdd, actRefresh:
			if a.kind == actAdd {
				w.logf("n%d add v%d epoch %v lease %d", n.i, a.vip, n.m.vips[a.vip].heldEpoch, (n.m.leaseEnd(a.vip)-n.now())/ms)
			}
			if n.m.leaseEnd(a.vip) <= n.now() {
				w.violate("n%d: %v without a lease", n.i, a.kind)
			}
			if w.pair != nil && a.kind == actAdd {
				n.tookByTheRules(a.vip)
			}
			n.links[a.vip].has, n.links[a.vip].lft = true, n.now()+int64(3*time.Second)
			if !w.gated {
				w.check(n, a.vip)
			}
		case actDel:
			w.logf("n%d del v%d: %s", n.i, a.vip, n.m.text(n.m.vips[a.vip].lostWhy, a.vip))
			if w.pair == nil { // the reasons of a pair have epochs in them that differ every time
				w.seen.count("released: " + n.m.text(n.m.vips[a.vip].lostWhy, a.vip))
			}
			if w.schedule != nil && w.rng.IntN(3) == 0 { // the kernel takes its time
				m, i := n.m, a.vip
				w.at(w.rng.Int64N(3*ms), func() {
					if n.m == m && !n.down {
						n.links[i].has = false
						m.removed(n.now(), i)
						n.act()
					}
				})
				continue
			}
			n.links[a.vip].has = false
			n.m.removed(n.now(), a.vip)
		case actGate:
			n.links[a.vip].gate = n.now() + n.m.prof.gate
			w.check(n, a.vip)
		default:
			n.edge(a)
		}
	}
	n.m.out = n.m.out[:0]
	n.keepsItsWord()
	at := n.m.next()
	if n.i%3 == 2 {
		at += w.rng.Int64N(3 * ms) // no real time: it wakes late
	} else {
		at += w.rng.Int64N(ms / 10)
	}
	n.arm(at)
}

// keepsItsWord is the discipline of a voter, which two holders may take long to come of: a promise is made, or prolonged, to nobody
// but whom the newest placement known names, for a claim of that very epoch, and never by a guard that keeps silent.
func (n *simNode) keepsItsWord() {
	w, now := n.w, n.now()
	for j, v := range n.m.vips {
		if v.promUntil > now && v.promUntil > n.owed[j] {
			claimed := v.placed.Epoch
			if v.promised != n.m.self {
				claimed = n.m.peers[n.m.peerIndex(v.promised)].claims[j].epoch
			}
			switch {
			case n.m.silent(now):
				w.violate("n%d keeps silent, and promised v%d to %s", n.i, j, n.m.nameOf(v.promised))
			case v.promised != v.knownNode || claimed != v.known:
				w.violate("n%d promised v%d to %s, which claimed %v; it knows of %v on %s", n.i, j, n.m.nameOf(v.promised), claimed, v.known, n.m.nameOf(v.knownNode))
			}
		}
		n.owed[j] = v.promUntil
	}
}

// isolated reports whether n neither hears anybody nor is heard.
func (n *simNode) isolated() bool {
	if n.w.pair != nil && n.i == 0 {
		return false // it has the only vote
	}
	for j := range n.w.nodes {
		if j != n.i && (!n.w.cut[[2]int{n.i, j}] || !n.w.cut[[2]int{j, n.i}]) {
			return false
		}
	}
	return true
}

func (n *simNode) arm(at int64) {
	n.wakes = at
	m := n.m
	n.w.at(max(n.in(at), 0), func() {
		if n.m != m || n.wakes != at || !n.running() {
			return
		}
		n.m.tick(n.now())
		n.act()
	})
}

func (n *simNode) deliver(msg *message) {
	if n.down {
		return
	}
	if !n.running() {
		if len(n.inbox) < 200 {
			n.inbox = append(n.inbox, msg)
		}
		return
	}
	n.m.receive(n.now(), 0, msg)
	n.m.tick(n.now())
	n.act()
}

// stop is SIGSTOP for the guard; the kernel goes on.
func (n *simNode) stop(d int64) {
	n.w.logf("n%d stopped for %dms", n.i, d/ms)
	n.until = n.w.now + d
	m := n.m
	n.w.at(d, func() {
		if n.m != m || n.down {
			return
		}
		n.w.logf("n%d resumed", n.i)
		for _, msg := range n.inbox {
			n.m.receive(n.now(), 0, msg)
		}
		n.inbox = nil
		n.m.tick(n.now())
		n.act()
	})
}

func (n *simNode) answers(v int) bool {
	l, now := n.links[v], n.now()
	return !n.down && l.has && now < l.lft && (now < l.gate || !n.w.gated)
}

// check is called when a node begins or goes on to answer: nobody else may.
func (w *world) check(n *simNode, v int) {
	if !n.answers(v) {
		return
	}
	w.opened++
	for _, o := range w.nodes {
		if o != n && o.answers(v) && (w.pair == nil || !w.mayBeTwo() && !w.pair.race(w, n, o, v)) {
			w.violate("at %.3f ms: n%d and n%d both answer for v%d", float64(w.now-worldStart)/1e6, n.i, o.i, v)
		}
	}
}

// place commits a placement and lets the agents know, each in its own time.
func (w *world) place(v, node int, late int64) {
	w.index++
	p := Placement{VIP: fmt.Sprint("v", v), Node: simName(node), Epoch: Epoch{1, w.index}}
	if f := w.schedule; f != nil && w.rng.Float64() < f.Planned {
		p.Drain = time.Duration(1+w.rng.IntN(5)) * time.Second
	}
	w.placements[v] = p
	w.logf("v%d placed on n%d at %v", v, node, p.Epoch)
	for _, n := range w.nodes {
		d := w.rng.Int64N(late)
		w.at(d, func() {
			if !n.alive || n.down || n.until > w.now { // a stopped one reads it later, or never
				if n.until > w.now {
					w.at(n.until-w.now+ms, func() { n.apply(v, p) })
				}
				return
			}
			n.apply(v, p)
		})
	}
}

func (n *simNode) apply(v int, p Placement) {
	if n.w.schedule != nil && n.isolated() { // so is its agent
		n.w.at(20*ms, func() { n.apply(v, p) })
		return
	}
	if n.down || !n.running() || p.Epoch.Compare(n.seen[v].Epoch) <= 0 {
		return
	}
	n.seen[v] = p
	n.tell()
	n.act()
}
