package sim

import (
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/vip"
)

// pair is what two balancers without a third voter have beside heartbeats and streams: the segment, on which they ask who has an address
// and announce what they have, the addresses that break a tie, and the disk that keeps the generation of what was taken. A world of three
// has none; the methods that every world calls do nothing then.
//
// It is also their judge: what docs/two-hosts.md promises of each mode.
type pair struct {
	w    *World
	mode config.PairMode
	ties []netip.Addr

	// Guarded by w.mu.
	guards map[*Node]*vip.Virtual
	notes  map[*Node]uint64 // the generation on its disk
	deaf   map[way]bool     // frames on the segment that are lost
	silent map[asked]bool   // addresses that do not answer a node
	late   bool             // some answers of the tie-break come late
	apart  bool             // two may answer: neither can know of the other, and both may go on
	until  time.Time        // and they may until then, since they could a moment ago
	alone  map[*Node]time.Time
	single bool // an operator has made one of them the cluster
	over   bool // there is a third node: a majority decides
	races  map[string]bool
}

type way struct{ from, to *Node }

type asked struct {
	by  *Node
	tie netip.Addr
}

// What docs/two-hosts.md and vip/DESIGN.md promise, with the delays of a simulated agent and of its wire.
const (
	promiseTaken     = 330 * time.Millisecond // the survivor of a death answers
	promiseAvailable = 130 * time.Millisecond // in an available pair
	promiseLeft      = 160 * time.Millisecond // the agent's death, which its guard tells
	promiseHeard     = 100 * time.Millisecond // two that hold hear each other again: one lets go
	promiseSeen      = 1020 * time.Millisecond
	promiseTie       = 170 * time.Millisecond // an answer of the tie-break has aged
	promisePeace     = 15 * time.Second       // everything is held, whatever came before
	raceWithin       = 150 * time.Millisecond // two that took the same address in such a time: the bound that is documented
)

// The tie-break of a simulated pair, and the head of its configuration.
var pairTies = []netip.Addr{netip.MustParseAddr("192.0.2.1")}

const (
	tiebreak  = "cluster {\n  pair     = \"tiebreak\"\n  tiebreak = [\"192.0.2.1\"]\n}\n"
	gateway   = "cluster {\n  pair = \"tiebreak\"\n}\n"
	available = "cluster {\n  pair = \"available\"\n}\n"
)

// inPair runs a scenario of two balancers with that head of their configuration, from the moment on at which all addresses are answered
// for. ties are what can be asked; none: the usual one.
func inPair(t *testing.T, seed uint64, head string, f func(w *World, c *Clients), ties ...netip.Addr) {
	t.Helper()
	inYoungPair(t, seed, head, func(w *World, c *Clients) {
		w.Settled(20 * time.Second)
		f(w, c)
	}, ties...)
}

// inYoungPair runs one that begins before that.
func inYoungPair(t *testing.T, seed uint64, head string, f func(w *World, c *Clients), ties ...netip.Addr) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := empty(t, seed, 0)
		w.pair = &pair{
			w: w, mode: config.PairTiebreak, ties: slices.Concat(ties, pairTies[:max(0, 1-len(ties))]), guards: map[*Node]*vip.Virtual{}, notes: map[*Node]uint64{},
			deaf: map[way]bool{}, silent: map[asked]bool{}, alone: map[*Node]time.Time{}, races: map[string]bool{},
		}
		if head == available {
			w.pair.mode = config.PairAvailable
		}
		defer w.Close()
		w.found(2)
		c := newClients(w)
		c.conf = head + edge
		c.start()
		f(w, c)
	})
}

// edge is what lies under the guard of a host; nil in a world without a pair.
func (p *pair) edge(n *Node) vip.PairEdge {
	if p == nil {
		return nil
	}
	return pairEdge{p, n}
}

// runs says which guard a host has from now on.
func (p *pair) runs(n *Node, g *vip.Virtual) {
	if p == nil {
		return
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	p.guards[n] = g
}

// generation is what stands on a host's disk.
func (p *pair) generation(n *Node) uint64 {
	if p == nil {
		return 0
	}
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.notes[n]
}

// change changes the segment or the tie-break.
func (p *pair) change(what string, f func()) {
	p.w.mu.Lock()
	f()
	p.w.mu.Unlock()
	p.w.Logf("%s", what)
	p.w.reachable()
}

// split cuts the segment between the two: no frame passes, and nothing else either.
func (p *pair) split() {
	w := p.w
	w.Partition(w.Nodes[0])
	p.change("the segment is split", func() {
		p.deaf[way{w.Nodes[0], w.Nodes[1]}], p.deaf[way{w.Nodes[1], w.Nodes[0]}] = true, true
	})
}

// unplug pulls the only cable of a host.
func (p *pair) unplug(n *Node) {
	p.split()
	p.mute(n)
}

// mute lets no address of the tie-break answer a node.
func (p *pair) mute(n *Node) {
	p.change(n.Name+" does not reach the tie-break", func() {
		for _, a := range p.ties {
			p.silent[asked{n, a}] = true
		}
	})
}

// heal repairs the segment and the tie-break with the network.
func (p *pair) heal() {
	p.w.mu.Lock()
	clear(p.deaf)
	clear(p.silent)
	p.w.mu.Unlock()
	p.w.Heal()
}

// reaches is whether more than half of the tie-break answers a node. w.mu is held.
func (p *pair) reaches(n *Node) bool {
	up := 0
	for _, a := range p.ties {
		if !p.silent[asked{n, a}] {
			up++
		}
	}
	return 2*up > len(p.ties)
}

// look notes what the network as it is now permits. The state is kept and not computed anew by the judge, since a guard may act in the
// instant of a change.
func (p *pair) look() {
	if p == nil || len(p.w.Nodes) < 2 {
		return
	}
	w, now := p.w, time.Now()
	a, b := w.Nodes[0], w.Nodes[1]
	w.net.mu.Lock()
	wire := func(from, to *Node) bool {
		return w.net.cuts[route{from.addr.Addr(), to.addr.Addr()}]&cutDatagrams == 0
	}
	heard, lossy := wire(a, b) && wire(b, a), w.net.loss > 0
	w.net.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	seen := !p.deaf[way{a, b}] && !p.deaf[way{b, a}]
	may := p.mode == config.PairAvailable || p.reaches(a) && p.reaches(b)
	was := p.apart || now.Before(p.until)
	p.apart = !heard && !seen && may
	if was && !p.apart {
		end := time.Hour
		if heard {
			if end = promiseHeard; lossy {
				end *= 5
			}
		}
		if seen {
			end = min(end, promiseSeen)
		}
		if !may {
			end = min(end, promiseTie)
		}
		p.until = now.Add(end)
	}
	for i, n := range []*Node{a, b} {
		o := w.Nodes[1-i]
		switch {
		case heard && o.up && !o.paused || p.reaches(n):
			delete(p.alone, n)
		case p.alone[n].IsZero():
			p.alone[n] = now
		}
	}
}

// judge is called with w.mu held whenever a node of the pair begins or goes on to answer.
func (p *pair) judge(n *Node, name string) {
	w, now := p.w, time.Now()
	for _, o := range w.Nodes {
		if o == n || !o.answers(name) || p.apart || now.Before(p.until) {
			continue
		}
		// The tie-break remembers nothing: two may take in one life of its answers.
		x, y := n.links[name].since, o.links[name].since
		if d := x.Sub(y).Abs(); d <= raceWithin && now.Sub(x) <= promiseTie && now.Sub(y) <= promiseTie {
			p.races[name+x.String()] = true
			continue
		}
		w.violated("%s and %s both answer for %s, and one of them can know", n.Name, o.Name, name)
	}
	if at := p.alone[n]; !at.IsZero() && now.Sub(at) > longestLease && p.mode == config.PairTiebreak && !p.single {
		w.violated("%s answers for %s, but has reached neither the other one nor the tie-break for %v", n.Name, name, now.Sub(at))
	}
}

// pairEdge is the segment, the tie-break and the disk as one host has them.
type pairEdge struct {
	p *pair
	n *Node
}

func (e pairEdge) MAC() [6]byte { return [6]byte{2, 0, 0, 0, 0, byte(e.n.addr.Addr().As4()[3])} }

// Probe is answered by every other kernel that answers for the address, its processes stopped or not.
func (e pairEdge) Probe(name string) {
	e.each(func(o *Node) bool { return o.answers(name) && !e.p.deaf[way{o, e.n}] }, func(o *Node) {
		e.p.guard(e.n).Claimed(name, pairEdge{e.p, o}.MAC())
	})
}

func (e pairEdge) Announce(name string) {
	e.each(func(*Node) bool { return true }, func(o *Node) { e.p.guard(o).Claimed(name, e.MAC()) })
}

// each calls f for every other host that a frame arrives at, and that is as it should be then.
func (e pairEdge) each(is func(o *Node) bool, f func(o *Node)) {
	w := e.p.w
	time.AfterFunc(e.late(300*time.Microsecond), func() {
		w.mu.Lock()
		nodes := slices.Clone(w.Nodes)
		w.mu.Unlock()
		for _, o := range nodes {
			if o == e.n {
				continue
			}
			w.net.mu.Lock()
			up := w.net.hosts[o.addr.Addr()].up && w.net.hosts[e.n.addr.Addr()].up
			w.net.mu.Unlock()
			w.mu.Lock()
			arrives := up && !e.p.deaf[way{e.n, o}] && is(o)
			w.mu.Unlock()
			if arrives {
				f(o)
			}
		}
	})
}

func (p *pair) guard(n *Node) *vip.Virtual {
	p.w.mu.Lock()
	defer p.w.mu.Unlock()
	return p.guards[n]
}

func (e pairEdge) late(most time.Duration) time.Duration {
	return wireTime + dice(e.p.w, func(r *rand.Rand) time.Duration { return time.Duration(r.Int64N(int64(most))) })()
}

func (e pairEdge) Gateways() []netip.Addr { return e.p.ties }

func (e pairEdge) Ask(tie netip.Addr, answered func()) {
	w, d := e.p.w, e.late(time.Millisecond)
	w.mu.Lock()
	answers, late := !e.p.silent[asked{e.n, tie}] && slices.Contains(e.p.ties, tie), e.p.late
	w.mu.Unlock()
	if late && d%8 == 0 {
		d += e.late(300 * time.Millisecond)
	}
	if answers {
		time.AfterFunc(d, answered)
	}
}

func (e pairEdge) Generation(string) (uint64, error) { return e.p.generation(e.n), nil }

// Save takes as long as the disk does.
func (e pairEdge) Save(_ string, generation uint64, done func(error)) {
	d := e.late(20 * time.Millisecond)
	go func() {
		time.Sleep(d)
		err := e.n.disk.sync()
		if err == nil {
			e.p.w.mu.Lock()
			e.p.notes[e.n] = max(e.p.notes[e.n], generation)
			e.p.w.mu.Unlock()
		}
		done(err)
	}()
}

// holders are all that answer for a VIP now.
func (w *World) holders(name string) []*Node {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.Nodes), func(n *Node) bool { return !n.answers(name) })
}

// placed is who answers for each VIP now.
func (w *World) placed() map[string]*Node {
	all := map[string]*Node{}
	for _, name := range vips {
		all[name] = w.Holder(name)
	}
	return all
}

// stays fails the test unless the addresses are where they were.
func (w *World) stays(before map[string]*Node, why string) {
	w.tb.Helper()
	if now := w.placed(); !maps.Equal(before, now) {
		for _, name := range vips {
			w.Logf("%s was held by %v and is held by %v", name, nameOf(before[name]), nameOf(now[name]))
		}
		w.Fatalf("an address moved: %s", why)
	}
}

func nameOf(n *Node) string {
	if n == nil {
		return "nobody"
	}
	return n.Name
}

// other is the one of the two that n is not.
func (w *World) other(n *Node) *Node {
	if n == w.Nodes[0] {
		return w.Nodes[1]
	}
	return w.Nodes[0]
}
