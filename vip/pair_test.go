package vip

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// simPair is what there is between two nodes beside heartbeats.
type simPair struct {
	available bool
	reach     [2]bool // which node reaches the tie-break
	wire      bool    // they share a segment
	mute      [2]bool // what this node sends on it is lost
	late      bool    // some answers of the tie-break come late
	two       bool    // two may answer: both reach the tie-break, and do not see each other
	judged    bool    // whether two may answer follows from the network, see mayBeTwo
	until     int64   // and they may until then, since they could a moment ago
	races     int     // see race
}

// passes is whether a frame of node i reaches the other one.
func (p *simPair) passes(i int) bool { return p.wire && !p.mute[i] }

// race tolerates what the tie-break cannot prevent, since it remembers nothing: both take the VIP within one life of its answers. On one
// segment one of them yields to the other's announcement; if one was cut off in between, it is out as soon as its answer has aged.
func (p *simPair) race(w *world, a, b *simNode, v int) bool {
	x, y := a.m.vips[v], b.m.vips[v]
	if d := a.put[v] - b.put[v]; max(d, -d) > tieLife || x.heldEpoch.Generation == 1 || y.heldEpoch.Generation == 1 {
		return false
	}
	p.races++
	end := tieLife + 5*ms
	if p.wire {
		end = 5 * ms
	}
	w.at(end, func() {
		if a.answers(v) && b.answers(v) {
			w.violate("n%d and n%d still answer for v%d", a.i, b.i, v)
		}
	})
	return true
}

func simMAC(i int) [6]byte { return [6]byte{2, 0, 0, 0, 0, byte(i + 1)} }

// edge does what only pairs and probes need: what is asked of the network and of the disk.
func (n *simNode) edge(a action) {
	w, m := n.w, n.m
	if w.pair == nil {
		return
	}
	later := func(d int64, f func(now int64)) {
		var do func()
		do = func() {
			switch {
			case n.m != m || n.down:
			case !n.running(): // it reads it when it goes on
				w.at(n.until-w.now, do)
			default:
				f(n.now())
				m.tick(n.now())
				n.act()
			}
		}
		w.at(d, do)
	}
	claims := func(o *simNode, by *simNode, v int) {
		w.at(ms/5, func() {
			if o.running() && o.m != nil && w.pair.passes(by.i) {
				o.m.foreign(o.now(), v, netip.MustParseAddr(fmt.Sprintf("198.18.0.%d", v+1)), simMAC(by.i))
				o.act()
			}
		})
	}
	other := w.nodes[1-n.i]
	switch a.kind {
	case actPing:
		if sent := n.now(); w.pair.reach[n.i] {
			d := ms/5 + w.rng.Int64N(ms)
			if w.pair.late && w.rng.IntN(8) == 0 {
				d += w.rng.Int64N(300 * ms)
			}
			later(d, func(now int64) { m.reached(now, 0, sent) })
		}
	case actSave:
		generation := m.pair.saving
		if n.full {
			later(20*ms, func(int64) { m.remembered(0, false, "no space left on device") })
			return
		}
		w.at(w.rng.Int64N(20*ms), func() { n.disk = max(n.disk, generation) })
		later(20*ms, func(int64) { m.remembered(generation, false, "") })
	case actProbe:
		if w.pair.passes(n.i) && other.answers(a.vip) {
			claims(n, other, a.vip)
		}
	case actAnnounce:
		if !other.down {
			claims(other, n, a.vip)
		}
	}
}

// newPair is a world of two, with a tie-break that each reaches or does not.
func newPair(t *testing.T, seed uint64, available bool) *world {
	w := pairWorld(t, seed, available)
	w.bootPair()
	return w
}

// pairWorld is one in which nothing runs yet.
func pairWorld(t *testing.T, seed uint64, available bool) *world {
	w := &world{t: t, rng: rand.New(rand.NewPCG(seed, 11)), now: worldStart, maxLat: ms / 2, cut: map[[2]int]bool{}, gated: true, trace: *simSeed != 0}
	w.pair = &simPair{available: available, reach: [2]bool{true, true}, wire: true}
	for v := range simVIPs {
		w.placements = append(w.placements, Placement{VIP: fmt.Sprint("v", v)})
	}
	for i := range 2 {
		nd := &simNode{w: w, i: i, alive: true, fit: true, links: make([]simLink, simVIPs), owed: make([]int64, simVIPs), put: make([]int64, simVIPs)}
		nd.seen = make([]Placement, simVIPs)
		w.nodes = append(w.nodes, nd)
	}
	return w
}

func (w *world) bootPair() {
	for _, n := range w.nodes {
		n.boot()
	}
	for _, n := range w.nodes {
		n.tell()
		n.act()
	}
	w.run(1500 * ms)
}

func (w *world) between(cut bool) {
	w.logf("the two hear each other: %v", !cut)
	w.cut[[2]int{0, 1}], w.cut[[2]int{1, 0}] = cut, cut
}

// pairPlaced is a pair whose first VIP n0 holds.
func pairPlaced(t *testing.T, seed uint64, available bool) *world {
	w := newPair(t, seed, available)
	w.placeBoth()
	return w
}

func (w *world) placeBoth() {
	w.place(0, 0, 1)
	w.place(1, 1, 1)
	held := func() bool { return w.nodes[0].answers(0) && w.nodes[1].answers(1) }
	w.run(300 * ms)
	for range 10 { // late packets
		if !held() {
			w.run(100 * ms)
		}
	}
	if !held() {
		w.t.Fatal("the VIPs are not held where they are placed")
	}
}

func (w *world) until(most int64, ok func() bool) int64 {
	begin := w.now
	for !ok() {
		if w.now-begin > most {
			for _, n := range w.nodes {
				for v := range simVIPs {
					for _, l := range n.m.explain(n.now(), v) {
						w.t.Logf("n%d v%d: %s", n.i, v, l)
					}
				}
			}
			w.t.Fatalf("not within %d ms", most/ms)
		}
		w.run(ms)
	}
	return w.now - begin
}

// The holder loses power. The other one reaches the tie-break and nobody answers: it takes over within the time that is promised.
func TestPairTakesOverWhenTheOtherDies(t *testing.T) {
	worst := int64(0)
	for seed := range uint64(30) {
		w := pairPlaced(t, seed, false)
		w.run(int64(seed) * ms)
		w.nodes[0].down = true
		worst = max(worst, w.until(450*ms, func() bool { return w.nodes[1].answers(0) }))
		if !w.nodes[1].answers(1) {
			t.Errorf("seed %d: what it held itself was lost", seed)
		}
	}
	t.Logf("worst of 30: %d ms", worst/ms)
}

// What a node holds itself it keeps without a gap when the other one dies: the tie-break is asked before the lease ends.
func TestPairHolderDoesNotNoticeTheOthersDeath(t *testing.T) {
	for seed := range uint64(20) {
		w := pairPlaced(t, seed, false)
		w.run(int64(seed) * ms)
		w.nodes[1].down = true
		for range 500 {
			w.run(ms)
			if !w.nodes[0].answers(0) {
				t.Fatalf("seed %d: v0 is not answered for", seed)
			}
		}
	}
}

// A node that reaches neither the other nor the tie-break lets go, and before the other one has it; when it is back it takes nothing
// back, and hears of the higher epoch.
func TestPairLetsGoWithoutTheTieBreak(t *testing.T) {
	for seed := range uint64(20) {
		w := pairPlaced(t, seed, false)
		w.run(int64(seed) * ms)
		w.between(true)
		w.pair.reach[0] = false
		w.pair.wire = false // its cable is out
		w.until(450*ms, func() bool { return w.nodes[1].answers(0) })
		w.run(int64(seed) * 100 * ms)
		w.between(false)
		w.pair.reach[0], w.pair.wire = true, true
		w.run(int64(time.Second))
		if w.nodes[0].answers(0) || !w.nodes[1].answers(0) {
			t.Errorf("seed %d: after the heal the VIP has moved", seed)
		}
		if n := w.nodes[0].m.vips[0]; n.known.Generation != 2 || n.knownNode != idOf("n1") {
			t.Errorf("seed %d: n0 knows of %v on %s", seed, n.known, w.nodes[0].m.nameOf(n.knownNode))
		}
	}
}

// Heartbeats are cut, and the segment is not: whoever holds answers the probe, and nothing is taken.
func TestPairTakesNothingThatIsAnsweredFor(t *testing.T) {
	w := pairPlaced(t, 1, false)
	w.between(true)
	for range 3000 {
		w.run(ms)
		if !w.nodes[0].answers(0) || w.nodes[1].answers(0) {
			t.Fatal("the VIP was taken although its holder answers for it")
		}
	}
	w.nodes[0].down = true
	w.until(900*ms, func() bool { return w.nodes[1].answers(0) })
}

// Both reach the tie-break, and neither the other: the limit of a pair. Each holds; as soon as they share a segment again, although
// heartbeats do not pass, one yields; when they pass, the higher epoch wins.
func TestPairYieldsOnTheWire(t *testing.T) {
	for seed := range uint64(40) {
		available := seed%2 == 1
		w := pairPlaced(t, seed, available)
		w.pair.two = true
		w.between(true)
		w.pair.wire = false
		w.until(450*ms, func() bool { return w.nodes[1].answers(0) && w.nodes[1].answers(1) })
		if !w.nodes[0].answers(0) {
			t.Fatal("n0 lets go although it reaches the tie-break")
		}
		w.pair.wire = true
		for _, n := range w.nodes { // the next announcement is seen
			n.m.healed(n.now())
			n.m.tick(n.now())
			n.act()
		}
		w.run(10 * ms)
		w.pair.two = false
		for v := range simVIPs {
			if w.nodes[0].answers(v) == w.nodes[1].answers(v) {
				t.Errorf("seed %d, available %v: on one segment n0 and n1 answer for v%d: %v", seed, available, v, w.nodes[0].answers(v))
			}
		}
		w.between(false)
		w.run(1500 * ms)
		for v := range simVIPs {
			if w.nodes[0].answers(v) == w.nodes[1].answers(v) {
				t.Errorf("seed %d, available %v: after the heal n0 and n1 answer for v%d: %v", seed, available, v, w.nodes[0].answers(v))
			}
		}
	}
}

// The agent of the holder dies, and with it whoever could place the VIP. Its guard says so, and the other one takes it at once.
func TestPairTakesWhatTheOtherHasLeft(t *testing.T) {
	w := pairPlaced(t, 4, false)
	n := w.nodes[0]
	n.alive = false
	n.m.local(n.now(), false, false, "killed")
	n.act()
	if took := w.until(200*ms, func() bool { return w.nodes[1].answers(0) }); took > 150*ms {
		t.Errorf("taken after %d ms", took/ms)
	}
}

// The holder is heard, and cannot hold: it is not fit, say since its disk is broken, or its guard has just been started anew and is silent.
// Nobody may be there who could place the VIP; the other one takes it.
func TestPairTakesWhatTheOtherCannotHold(t *testing.T) {
	for name, harm := range map[string]func(n *simNode){
		"not fit": func(n *simNode) {
			n.m.local(n.now(), true, false, "its disk is broken")
			n.act()
		},
		"a new guard": func(n *simNode) { n.boot() },
		"a new guard, and the leader places it anew at once": func(n *simNode) {
			n.boot()
			n.w.place(0, 1, 2)
		},
	} {
		for _, available := range []bool{false, true} {
			w := pairPlaced(t, 6, available)
			harm(w.nodes[0])
			if took := w.until(int64(time.Second), func() bool { return w.nodes[1].answers(0) }); took > 250*ms {
				t.Errorf("%s, available %v: taken after %d ms", name, available, took/ms)
			}
		}
	}
}

// A node that boots alone asks the network in full; one that has the VIP is not disturbed.
func TestPairNodeThatBootsAlone(t *testing.T) {
	w := pairPlaced(t, 5, false)
	w.nodes[0].down, w.nodes[1].down = true, true
	w.run(int64(time.Second))
	b := w.nodes[1]
	b.down = false
	b.boot()
	b.seen[0] = w.placements[0]
	b.tell()
	b.act()
	if took := w.until(8*int64(time.Second), func() bool { return b.answers(0) }); took < 5*int64(time.Second) {
		t.Errorf("taken after %d ms, before the network was asked in full", took/ms)
	}
	w.between(true)
	a := w.nodes[0]
	a.down = false
	a.boot()
	w.run(9 * int64(time.Second))
	if a.answers(0) {
		t.Error("taken although it is answered for")
	}
	w.between(false)
	w.run(2 * int64(time.Second))
	if a.answers(0) || !b.answers(0) {
		t.Errorf("after the heal: n0 %v, n1 %v", a.answers(0), b.answers(0))
	}
}

// Whatever happens to two nodes: while at most one side reaches the tie-break or they share a segment, no two answer; afterwards each VIP is
// answered for by one.
func TestPairUnderRandomTrouble(t *testing.T) {
	seeds := 60
	if testing.Short() {
		seeds = 20
	}
	raced := 0
	defer func() {
		if t.Logf("%d of %d schedules had a race", raced, seeds); raced > 1+seeds/500 {
			t.Errorf("%d of %d schedules had a race: it should take three faults in a second", raced, seeds)
		}
	}()
	for seed := range uint64(seeds) {
		if *simSeed != 0 && seed != *simSeed {
			continue
		}
		w := pairPlaced(t, seed, false)
		w.loss = []float64{0, 0.02, 0.1}[seed%3]
		for range 40 {
			w.run(w.rng.Int64N(700 * ms))
			w.adopt()
			n := w.nodes[w.rng.IntN(2)]
			switch w.rng.IntN(9) {
			case 0: // cut off from everything
				w.between(true)
				w.pair.wire, w.pair.reach[n.i] = false, false
				w.logf("n%d cut off", n.i)
			case 1: // the heartbeats alone
				w.between(true)
			case 2: // one way
				w.logf("n%d->n%d cut", n.i, 1-n.i)
				w.cut[[2]int{n.i, 1 - n.i}] = true
			case 3:
				w.logf("tie-break gone")
				w.pair.reach = [2]bool{}
			case 4, 5, 6:
				w.heal()
			case 7:
				w.logf("n%d restarts", n.i)
				n.boot()
			case 8:
				w.logf("n%d agent dies and is back", n.i)
				for _, up := range []bool{false, true} {
					n.m.local(n.now(), up, up, "")
					n.act()
					w.run(w.rng.Int64N(300 * ms))
				}
			}
		}
		w.heal()
		w.loss = 0
		w.run(9 * int64(time.Second))
		w.adopt()
		w.run(int64(time.Second))
		for v := range simVIPs {
			if a, b := w.nodes[0].answers(v), w.nodes[1].answers(v); a == b {
				for _, n := range w.nodes {
					for _, l := range n.m.explain(n.now(), v) {
						t.Logf("n%d: %s", n.i, l)
					}
				}
				t.Fatalf("seed %d: after the trouble n0 and n1 answer for v%d: %v", seed, v, a)
			}
		}
		if w.pair.races > 0 {
			raced++
		}
	}
}

// adopt is the leader on n0, which takes into the log what a guard has taken.
func (w *world) adopt() {
	a := w.nodes[0]
	for v := range simVIPs {
		if k := a.m.vips[v]; a.running() && k.known.Compare(w.placements[v].Epoch) > 0 {
			w.placements[v] = Placement{VIP: k.name, Node: a.m.nameOf(k.knownNode), Epoch: k.known}
			w.logf("v%d adopted on %s at %v", v, w.placements[v].Node, k.known)
		}
		for _, n := range w.nodes {
			if n == a || !w.cut[[2]int{0, 1}] && !w.cut[[2]int{1, 0}] {
				n.apply(v, w.placements[v])
			}
		}
	}
}

func (w *world) heal() {
	w.logf("healed")
	clear(w.cut)
	w.pair.wire, w.pair.reach = true, [2]bool{true, true}
}

func TestGenerationIsKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pair.json")
	if n, err := readNote(path); err != nil || n.Generation != 0 {
		t.Errorf("of no file: %v, %v", n, err)
	}
	if err := writeNote(path, note{7}); err != nil {
		t.Fatal(err)
	}
	if n, err := readNote(path); err != nil || n.Generation != 7 {
		t.Errorf("got %v, %v, want 7", n, err)
	}
	if err := os.WriteFile(path, []byte("7"), 0o600); err != nil {
		t.Fatal(err)
	}
	if n, err := readNote(path); err == nil {
		t.Errorf("of a damaged file: %v", n)
	}
}

func TestEchoIsReadAsItWasSent(t *testing.T) {
	for _, six := range []bool{false, true} {
		b := packEcho(nil, six, 4711, 1234)
		if _, ok := parseEcho(b, six, 4711); ok {
			t.Error("a request passes for its reply")
		}
		b[0] = echoReply6
		if !six {
			b[0] = echoReply4
			b = append(make([]byte, 20), b...)
			b[0] = 0x45
		}
		if at, ok := parseEcho(b, six, 4711); !ok || at != 1234 {
			t.Errorf("six %v: got %d, %v, want 1234", six, at, ok)
		}
		if _, ok := parseEcho(b, six, 4712); ok {
			t.Error("an answer to a former life is taken")
		}
		for n := range b {
			parseEcho(b[:n], six, 4711)
		}
	}
}

func FuzzEcho(f *testing.F) {
	f.Add(append([]byte{0x45, 19: 0}, packEcho(nil, false, 1, 2)...), false)
	f.Add(packEcho(nil, true, 1, 2), true)
	f.Fuzz(func(t *testing.T, b []byte, six bool) { parseEcho(b, six, 1) })
}

func TestPairSetupIsChecked(t *testing.T) {
	s := validSetup()
	if err := s.Check(); err != nil {
		t.Fatal(err)
	}
	s.Pair = &Pair{Tiebreak: []netip.Addr{netip.IPv4Unspecified()}}
	if err := s.Check(); err == nil {
		t.Error("a tie-break of nowhere and no file: taken")
	}
}

// Nobody is asked in an available pair but whoever may answer for the address.
func TestAvailablePairTakesOverWhenTheOtherDies(t *testing.T) {
	worst := int64(0)
	for seed := range uint64(30) {
		w := pairPlaced(t, seed, true)
		w.run(int64(seed) * ms)
		w.nodes[0].down = true
		worst = max(worst, w.until(200*ms, func() bool { return w.nodes[1].answers(0) }))
	}
	t.Logf("worst of 30: %d ms", worst/ms)
}
