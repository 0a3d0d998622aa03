package vip

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// This file plays seeded schedules of two nodes without a third voter, and holds each mode to what docs/two-hosts.md promises.

// What a pair promises in these schedules, where all runs in profile fast and no packet is lost.
const (
	// Two that both hold, and hear each other again: one lets go within five heartbeats, a new life's proof included.
	promiseHeard = 100 * ms
	// Two that both hold, and share a segment again without hearing each other: at the next announcement.
	promiseSeen = apartSays + 10*ms
	// One of two that both hold loses the tie-break as well: its last answer ages, which takes a pairing.life more.
	promiseTie = 10 * ms
	// The other one is served by the survivor of a death, from a peace in which nothing else was wrong but that its last heartbeat may
	// have been under way for 30 ms.
	promiseTaken     = 330 * ms
	promiseAvailable = 110*ms + 30*ms
	promiseLeft      = leftWait + 60*ms // the agent's death, which its guard tells
	// Somebody holds everything, whatever came before, once nothing is wrong any more: a cold attempt, and its second one.
	promisePeace = 15 * int64(time.Second)
)

// pairFaults is what a schedule of a pair may do: probabilities, and weights of what happens at a step.
type pairFaults struct {
	Available bool
	Steps     int
	Loss      float64 // of a heartbeat
	Duplicate float64
	SkewPPM   int64
	Late      bool // some answers of the tie-break

	Place, Corner, Power, Blackout, Cable, Heartbeats, OneWay, Segment, Gateway, NoGateway, Restart, Stop, Agent, Unfit, Disk, Change, Heal, Death int
}

func drawPairFaults(seed uint64) pairFaults {
	r := rand.New(rand.NewPCG(seed, 13))
	return pairFaults{
		Available: r.IntN(2) == 0, Steps: 40, Loss: []float64{0, 0, 0.02, 0.1}[r.IntN(4)], Duplicate: []float64{0, 0.05}[r.IntN(2)],
		SkewPPM: []int64{0, 200}[r.IntN(2)], Late: r.IntN(2) == 0,
		Place: r.IntN(3), Corner: r.IntN(3), Power: r.IntN(3), Blackout: r.IntN(2), Cable: r.IntN(3), Heartbeats: r.IntN(2), OneWay: r.IntN(3),
		Segment: r.IntN(3), Gateway: r.IntN(3), NoGateway: r.IntN(2), Restart: r.IntN(2), Stop: r.IntN(3), Agent: r.IntN(2), Unfit: r.IntN(2),
		Disk: r.IntN(2), Change: r.IntN(2), Heal: 3, Death: r.IntN(2),
	}
}

// kinds are the faults that can be left out, for reduce.
func (f *pairFaults) kinds() map[string]func() {
	return map[string]func(){
		"loss": func() { f.Loss = 0 }, "duplicate": func() { f.Duplicate = 0 }, "skew": func() { f.SkewPPM = 0 }, "late": func() { f.Late = false },
		"place": func() { f.Place = 0 }, "corner": func() { f.Corner = 0 }, "power": func() { f.Power = 0 }, "blackout": func() { f.Blackout = 0 },
		"cable": func() { f.Cable = 0 }, "heartbeats": func() { f.Heartbeats = 0 }, "one way": func() { f.OneWay = 0 }, "segment": func() { f.Segment = 0 },
		"gateway": func() { f.Gateway = 0 }, "no gateway": func() { f.NoGateway = 0 }, "restart": func() { f.Restart = 0 }, "stop": func() { f.Stop = 0 },
		"agent": func() { f.Agent = 0 }, "unfit": func() { f.Unfit = 0 }, "disk": func() { f.Disk = 0 }, "change": func() { f.Change = 0 }, "death": func() { f.Death = 0 },
	}
}

// mayBeTwo is whether the two may answer for one address: both reach the tie-break (that of an available pair always answers), neither is sure to
// hear the other, and a probe or its answer is lost. And for as long after that as it takes to see it.
func (w *world) mayBeTwo() bool {
	p := w.pair
	if !p.judged {
		return p.two
	}
	return w.apart() || w.now < p.until
}

func (w *world) apart() bool {
	p := w.pair
	heard := !w.cut[[2]int{0, 1}] && !w.cut[[2]int{1, 0}]
	asked := p.passes(0) && p.passes(1)
	return !heard && !asked && (p.available || p.reach[0] && p.reach[1])
}

// change changes the network.
func (w *world) change(what string, f func()) {
	p := w.pair
	was := w.apart() || w.now < p.until
	f()
	w.logf("%s: heartbeats lost %v %v, frames lost %v %v %v, tie-break reached %v", what, w.cut[[2]int{0, 1}], w.cut[[2]int{1, 0}], !p.wire, p.mute[0], p.mute[1], p.reach)
	if !was || w.apart() {
		return
	}
	bound := int64(1 << 62)
	if !w.cut[[2]int{0, 1}] && !w.cut[[2]int{1, 0}] {
		bound = promiseHeard
		if w.loss > 0 {
			bound *= 5
		}
	}
	if p.passes(0) && p.passes(1) {
		bound = min(bound, promiseSeen)
	}
	if !p.available && !(p.reach[0] && p.reach[1]) {
		bound = min(bound, promiseTie+max(w.nodes[0].m.pair.life, w.nodes[1].m.pair.life))
	}
	p.until = w.now + bound
}

// tookByTheRules is called when a node puts an address on its link: what it took itself, it took at a generation that is on its disk.
func (n *simNode) tookByTheRules(v int) {
	x := n.m.vips[v]
	n.put[v] = n.w.now
	if x.taken.Epoch == x.heldEpoch && n.disk < x.heldEpoch.Generation {
		n.w.violate("n%d holds v%d at epoch %v, which it took, and generation %d is on its disk", n.i, v, x.heldEpoch, n.disk)
	}
}

// playPair plays the schedule of a seed.
func playPair(t *testing.T, seed uint64, f pairFaults, trace bool) (broken string, seen counts, virtual time.Duration) {
	w := pairWorld(t, seed, f.Available)
	w.schedule, w.seen, w.trace, w.pair.judged, w.pair.late = &faults{Duplicate: f.Duplicate}, counts{}, trace, true, f.Late
	defer func() {
		seen, virtual = w.seen, time.Duration(w.now-worldStart)
		if v, ok := recover().(violation); ok {
			broken = string(v)
		}
	}()
	for _, n := range w.nodes {
		n.off = w.rng.Int64N(int64(100 * time.Hour))
		if f.SkewPPM > 0 {
			n.ppm = w.rng.Int64N(2*f.SkewPPM+1) - f.SkewPPM
		}
	}
	w.bootPair()
	w.placeBoth()
	w.loss = f.Loss
	for range f.Steps {
		w.run(w.rng.Int64N(500 * ms))
		w.commit()
		w.pairMischief(&f)
	}
	w.peace()
	if w.seen["two at once"] += w.pair.races; w.opened == 0 {
		w.violate("nobody ever answered")
	}
	return "", nil, 0
}

// commit is the log, whose only vote n0 has: it takes in what a guard has taken, and tells whoever hears it.
func (w *world) commit() {
	a := w.nodes[0]
	if !a.running() || !a.alive {
		return
	}
	for v := range simVIPs {
		if k := a.m.vips[v]; k.known.Compare(w.placements[v].Epoch) > 0 {
			w.placements[v] = Placement{VIP: k.name, Node: a.m.nameOf(k.knownNode), Epoch: k.known}
			w.index = max(w.index, k.known.Index)
			w.logf("v%d adopted on %s at %v", v, w.placements[v].Node, k.known)
			w.seen.count("adopted")
		}
	}
	w.tellPlacements()
}

func (w *world) tellPlacements() {
	for v, p := range w.placements {
		for _, n := range w.nodes {
			if n.alive && (n.i == 0 || w.nodes[0].running() && !w.cut[[2]int{0, 1}] && !w.cut[[2]int{1, 0}]) {
				n.apply(v, p)
			}
		}
	}
}

// placeAnew is the leader, which is n0 or nobody, that moves an address.
func (w *world) placeAnew(v, to int) bool {
	if a := w.nodes[0]; !a.running() || !a.alive || w.cut[[2]int{0, 1}] || w.cut[[2]int{1, 0}] {
		return false
	}
	w.index++
	w.placements[v] = Placement{VIP: fmt.Sprint("v", v), Node: simName(to), Epoch: Epoch{w.placements[v].Epoch.Generation, w.index}}
	w.logf("v%d placed on n%d at %v", v, to, w.placements[v].Epoch)
	w.at(w.rng.Int64N(5*ms), w.tellPlacements)
	return true
}

// pairMischief does one random bad thing, or repairs something.
func (w *world) pairMischief(f *pairFaults) {
	p, n := w.pair, w.nodes[w.rng.IntN(2)]
	i, o := n.i, 1-n.i
	pull := func() {
		w.cut[[2]int{0, 1}], w.cut[[2]int{1, 0}] = true, true
		p.wire, p.reach[i] = false, false
	}
	w.oneOf([]act{
		{"placement", f.Place, func() { w.placeAnew(w.rng.IntN(simVIPs), i) }},
		{"cornered", f.Corner, func() { // the address goes elsewhere, and in that moment the holder is cut off, or from the other one alone
			v := w.rng.IntN(simVIPs)
			h := w.holder(v)
			if h == nil || !w.placeAnew(v, 1-h.i) {
				return
			}
			w.run(w.rng.Int64N(3 * ms))
			i = h.i
			if w.rng.IntN(2) == 0 {
				w.change("cable pulled", pull)
				return
			}
			w.change("heartbeats cut", func() { w.cut[[2]int{0, 1}], w.cut[[2]int{1, 0}] = true, true })
		}},
		{"power lost", f.Power, func() { w.powerOff(n, w.rng.Int64N(int64(3*time.Second))) }},
		{"blackout", f.Blackout, func() {
			w.powerOff(n, w.rng.Int64N(int64(3*time.Second)))
			w.powerOff(w.nodes[o], w.rng.Int64N(int64(3*time.Second)))
		}},
		{"cable pulled", f.Cable, func() { w.change("cable pulled", pull) }},
		{"heartbeats cut", f.Heartbeats, func() {
			w.change("heartbeats cut", func() { w.cut[[2]int{0, 1}], w.cut[[2]int{1, 0}] = true, true })
		}},
		{"cut one way", f.OneWay, func() {
			w.change("cut one way", func() {
				w.cut[[2]int{i, o}] = true
				p.mute[i] = w.rng.IntN(2) == 0
			})
		}},
		{"segment split", f.Segment, func() {
			w.change("segment split", func() {
				w.cut[[2]int{0, 1}], w.cut[[2]int{1, 0}] = true, true
				p.wire = false
			})
			if w.rng.IntN(2) == 0 { // each holds for a while; then they share the segment again, and still do not hear each other
				w.run(int64(time.Second) + w.rng.Int64N(6*int64(time.Second)))
				w.change("segment joined", func() { p.wire, p.mute = true, [2]bool{} })
				w.run(promiseSeen + 200*ms)
			}
		}},
		{"tie-break lost by one", f.Gateway, func() { w.change("tie-break lost by one", func() { p.reach[i] = false }) }},
		{"tie-break lost by both", f.NoGateway, func() { w.change("tie-break lost by both", func() { p.reach = [2]bool{} }) }},
		{"guard restarted", f.Restart, func() {
			if n.running() {
				w.logf("n%d guard restarts", i)
				n.boot()
			}
		}},
		{"guard stopped", f.Stop, func() {
			if n.running() {
				n.stop(w.rng.Int64N(400 * ms))
			}
		}},
		{"agent died or came back", f.Agent, func() {
			if n.alive = !n.alive; n.running() {
				w.logf("n%d agent=%v", i, n.alive)
				n.m.local(n.now(), n.alive, n.alive && n.fit, "mischief")
				n.act()
			}
		}},
		{"fitness changed", f.Unfit, func() {
			if n.fit = !n.fit; n.running() {
				w.logf("n%d fit=%v", i, n.fit)
				n.m.local(n.now(), n.alive, n.alive && n.fit, "mischief")
				n.act()
			}
		}},
		{"disk full or well", f.Disk, func() { n.full = !n.full; w.logf("n%d disk full=%v", i, n.full) }},
		{"network changed", f.Change, func() {
			w.change("something is different", func() {
				for _, way := range [][2]int{{0, 1}, {1, 0}} {
					w.cut[way] = w.rng.IntN(2) == 0
					p.mute[way[0]], p.reach[way[0]] = w.rng.IntN(4) == 0, w.rng.IntN(4) > 0
				}
				p.wire = w.rng.IntN(3) > 0
			})
		}},
		{"healed", f.Heal, w.healPair},
		{"checked death", f.Death, w.checkedDeath},
	})
}

// powerOff lets a node be without power for a while. What it finds on its disk then may be older, as from a backup, or newer than what the
// other one has heard of.
func (w *world) powerOff(n *simNode, d int64) {
	if n.down {
		return
	}
	w.logf("n%d loses its power", n.i)
	n.down = true
	n.outages++
	this, disk := n.outages, w.rng.IntN(6)
	w.at(d, func() {
		if n.outages != this || !n.down {
			return
		}
		switch disk {
		case 0:
			n.disk = 0
		case 1:
			n.disk += 3
		}
		w.powerOn(n)
	})
}

func (w *world) powerOn(n *simNode) {
	if !n.down {
		return
	}
	w.logf("n%d boots, generation %d on its disk", n.i, n.disk)
	n.down, n.until = false, 0
	for v := range n.links {
		n.links[v] = simLink{}
	}
	n.boot()
}

// healPair repairs the network. Where exactly one of two that are well has an address, and nobody knows better, it stays there.
func (w *world) healPair() {
	a, b := w.nodes[0], w.nodes[1]
	var has [simVIPs]*simNode
	for v := range simVIPs {
		if !a.running() || !b.running() || a.answers(v) == b.answers(v) || w.loss > 0 || w.pair.late {
			continue
		}
		h, o := a, b
		if b.answers(v) {
			h, o = b, a
		}
		x, y := h.m.vips[v], o.m.vips[v]
		knows := func(e Epoch, node nodeID) bool { // of one that wins against the holder's
			return e.Compare(x.heldEpoch) > 0 || e == x.heldEpoch && node != h.m.self
		}
		if taking := y.try.askAt > 0; h.alive && h.fit && x.held && (w.pair.available || w.pair.reach[h.i]) && !taking && !knows(y.known, y.knownNode) && !knows(w.placements[v].Epoch, idOf(w.placements[v].Node)) {
			has[v] = h
		}
	}
	w.change("healed", func() {
		clear(w.cut)
		w.pair.wire, w.pair.mute, w.pair.reach = true, [2]bool{}, [2]bool{true, true}
	})
	w.run(300 * ms)
	for v, h := range has {
		if h != nil && !h.answers(v) {
			w.violate("v%d was held by n%d alone, and is not after the two hear each other again\n%s", v, h.i, strings.Join(h.m.explain(h.now(), v), "\n"))
		}
	}
}

// peace repairs everything. Each address must be held then, by one.
func (w *world) peace() {
	w.loss = 0
	for _, n := range w.nodes {
		w.run(max(n.until-w.now, 0)) // a stopped one resumes
		n.full = false
		w.powerOn(n)
	}
	w.healPair()
	for _, n := range w.nodes {
		n.alive, n.fit = true, true
		n.m.local(n.now(), true, true, "")
		n.act()
	}
	w.within(promisePeace, "each address is held by one, after the trouble", func() bool {
		w.commit()
		for v := range simVIPs {
			if w.nodes[0].answers(v) == w.nodes[1].answers(v) {
				return false
			}
		}
		return true
	})
	w.run(1100 * ms) // all has been said, and the tie-break was asked
	w.commit()
	w.run(50 * ms)
}

// within runs until something is so, and that must not take longer than is promised.
func (w *world) within(most int64, what string, ok func() bool) {
	for begin := w.now; !ok(); w.run(ms) {
		if w.now-begin <= most {
			continue
		}
		var text []string
		for _, n := range w.nodes {
			for v := range simVIPs {
				for _, l := range n.m.explain(n.now(), v) {
					text = append(text, fmt.Sprintf("n%d v%d: %s", n.i, v, l))
				}
			}
		}
		w.violate("not within %d ms: %s\n%s", most/ms, what, strings.Join(text, "\n"))
	}
}

// checkedDeath lets one of two die out of a peace. The other one must serve everything within what is promised, what it has itself without a gap, and
// nothing moves when the dead one is back.
func (w *world) checkedDeath() {
	loss, late := w.loss, w.pair.late
	w.pair.late = false
	w.peace()
	n := w.nodes[w.rng.IntN(2)]
	o := w.nodes[1-n.i]
	young := w.rng.IntN(3) == 0
	if young { // the survivor has just started, and heard the other one, which has all, and dies before the silence is over
		w.logf("n%d guard restarts", o.i)
		o.boot()
		w.within(promiseLeft, fmt.Sprintf("n%d serves what n%d had", n.i, o.i), func() bool { return n.answers(0) && n.answers(1) && o.m.peers[0].ever })
		w.run(w.rng.Int64N(600 * ms))
		w.commit()
	}
	var own [simVIPs]bool
	for v := range simVIPs {
		own[v] = o.answers(v)
	}
	bound := promiseTaken
	if w.pair.available {
		bound = promiseAvailable
	}
	kind := w.rng.IntN(3)
	switch kind {
	case 0:
		w.logf("n%d dies: power", n.i)
		n.down = true
		n.outages++
	case 1:
		w.change("dies: cable", func() {
			w.cut[[2]int{0, 1}], w.cut[[2]int{1, 0}] = true, true
			w.pair.wire, w.pair.reach[n.i] = false, false
		})
	case 2:
		w.logf("n%d dies: agent", n.i)
		bound = max(bound, promiseLeft)
		n.alive = false
		n.m.local(n.now(), false, false, "killed")
		n.act()
	}
	how := "longest " + []string{"power", "cable", "agent"}[kind]
	if young {
		how += ", just started"
		rest := o.m.vocal() - o.now() + 2*ms
		if kind == 2 {
			rest += promiseLeft // it is said to whoever may take it
		}
		bound = max(bound, rest)
	}
	begin := w.now
	w.within(bound, fmt.Sprintf("n%d serves what n%d had", o.i, n.i), func() bool {
		all := true
		for v := range simVIPs {
			if own[v] && !o.answers(v) {
				w.violate("n%d does not answer for v%d, which it had itself, %d ms after the other one died", o.i, v, (w.now-begin)/ms)
			}
			all = all && o.answers(v)
		}
		return all
	})
	w.seen[how] = max(w.seen[how], int((w.now-begin)/ms))
	w.run(w.rng.Int64N(2 * int64(time.Second)))
	o.tell() // of what its log has, which is older than what was taken
	o.act()
	for v := range simVIPs {
		if !o.answers(v) {
			w.violate("v%d was taken by n%d, and its agent's older placement undid that\n%s", v, o.i, strings.Join(o.m.explain(o.now(), v), "\n"))
		}
	}
	w.powerOn(n)
	w.healPair()
	n.alive = true
	n.m.local(n.now(), true, true, "")
	n.act()
	w.run(1500 * ms)
	for v := range simVIPs {
		if !o.answers(v) && !w.pair.available { // two of an available pair may both have taken it
			w.violate("when n%d came back v%d moved from n%d", n.i, v, o.i)
		}
	}
	w.loss, w.pair.late = loss, late
}

// Two nodes of a pair must never answer for one address but as their mode says, and for no longer than is promised; and what one has lost the
// other one has within what is promised.
func TestPairSchedules(t *testing.T) {
	seen := seeded("TestPairSchedules", drawPairFaults, (*pairFaults).kinds, func(f *pairFaults) *int { return &f.Steps }, playPair).run(t)
	t.Logf("%v", seen)
}
