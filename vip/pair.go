package vip

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"time"
)

// This file is what two nodes without a third voter do about a VIP. Two grants are needed, as with three; where the third would have
// been stands the tie-break: addresses that each node asks for itself (Pair.Available: the network as such, which always answers). Whoever
// holds a VIP keeps it on its own grant and the tie-break's answer.
//
// The tie-break remembers nothing: it would grant a VIP to both. So who does not hold has to *take* it: the other node is not heard, the
// tie-break answers, and for as long as the other could live on an old answer of it (survive) nobody answers a probe for the VIP. The
// generation of the taken epoch is on the disk before it is used. When the two hear each other again, the higher epoch wins as ever, among
// equal ones the first node by name.

// MaxTiebreak bounds what is asked.
const MaxTiebreak = 4

// Pair is how two nodes do without a majority.
type Pair struct {
	Available bool         // each holds on by itself; else Tiebreak decides
	Tiebreak  []netip.Addr // empty: the default gateway
	File      string       // keeps the highest generation that this node has taken
}

// Standing is a pair as this guard sees it.
type Standing struct {
	Available  bool
	Apart      bool // the other node is not heard
	Reaches    bool // enough of the tie-break answers
	Tiebreak   []Tie
	Problem    string // why nothing could be asked, or why the generation is not on the disk
	Generation uint64 // the highest that is on the disk
}

// Tie is one address of the tie-break.
type Tie struct {
	Addr string
	Up   bool
}

// Newest is the newest placement of a VIP that a guard has heard of. In a pair it may be newer than what the cluster has committed: one
// that a node has taken.
type Newest struct {
	Epoch Epoch
	Node  string
}

const (
	pingCalm  = int64(time.Second) // to know before it matters
	pingDoubt = 50 * ms
	tieLife   = 150 * ms // that an answer of the tie-break is good for, from the asking; longer where the promise is
	tieMargin = 50 * ms  // more than that the other one waits: a lost probe, and two late guards
	claimAsk  = 50 * ms  // between probes for a VIP that nobody answers for
	claimBusy = 200 * ms // and for one that somebody does
	claimLast = 500 * ms // how much longer one of the two waits
	coldDelay = int64(time.Second)
	coldRetry = 2 * int64(time.Second)
	leftWait  = 100 * ms // for the leader, if there is one, to place what the other node has left
	apartSays = int64(time.Second)
)

// pairing is the machine's part of it.
type pairing struct {
	on        bool
	available bool
	asks      int
	answers   [MaxTiebreak]int64 // by address: until when its last answer is good
	life      int64              // what tieLife was when the other node was heard last: that one counts on it
	pingAt    int64

	reaches bool  // in this step
	well    bool  // it has answered of late
	broke   int64 // when it was last found silent although it was needed

	former  uint64 // highest generation of former lives
	saved   uint64 // highest that is on the disk
	saving  uint64 // being written, one at a time; 0: none
	savedAt int64  // when that began
	problem string
}

// attempt is a VIP's way to being taken.
type attempt struct {
	from  int64 // of the first probe that nobody has answered since; 0: none yet
	askAt int64
	n     int   // probes, of a cold attempt
	left  int64 // since when the other node has said that it left the VIP
	next  int64 // when something is due; 0: something else has to happen first
}

// setPair takes over whether these two are a pair.
func (m *machine) setPair(now int64, p *Pair, asks int) {
	d := &m.pair
	if p == nil || len(m.peers) != 1 || m.witness || m.peers[0].witness {
		if d.on {
			*d = pairing{former: d.former, saved: d.saved}
		}
		return
	}
	if !d.on || d.available != p.Available || d.asks != asks {
		keeps := m.keepsAll(now)
		d.on, d.available, d.asks = true, p.Available, asks
		d.answers, d.pingAt = [MaxTiebreak]int64{}, now
		for k := range d.asks {
			if keeps {
				d.answers[k] = now + tieLife
			}
		}
	}
	m.selfVoter, m.peers[0].voter = true, true
}

// keepsAll is whether something is held here, and nothing without a lease. Then these two become a pair with a holder, whose tie-break
// has not been asked yet: it counts as asked now, which is within what the other one waits for before it takes anything.
func (m *machine) keepsAll(now int64) (keeps bool) {
	for i, v := range m.vips {
		if v.held {
			if keeps = m.leaseAt(i, v.heldEpoch) > now; !keeps {
				return false
			}
		}
	}
	return keeps
}

// keepTaken puts a VIP that was taken in the place of an older placement that the agent tells.
func (v *vip) keepTaken() {
	if v.taken.Epoch.Compare(v.placed.Epoch) > 0 {
		v.placed = v.taken
	} else {
		v.taken = Placement{}
	}
}

// remembered says which generation stands on the disk. At the first word of a life it is one that a former life may have used.
func (m *machine) remembered(generation uint64, first bool, problem string) {
	d := &m.pair
	if !first {
		d.saving = 0
	}
	if d.problem = problem; problem != "" {
		m.report()
		return
	}
	d.saved = max(d.saved, generation)
	if first {
		d.former = max(d.former, generation)
	}
}

// reached says that address k of the tie-break has answered what was sent at that time.
func (m *machine) reached(now int64, k int, sent int64) {
	if k < m.pair.asks && sent <= now {
		m.pair.answers[k] = max(m.pair.answers[k], sent+m.pair.life)
	}
}

// tieUntil is until when the tie-break's word is good: more than half of it must have answered.
func (m *machine) tieUntil() int64 {
	d := &m.pair
	switch {
	case d.available:
		return 1<<63 - 1
	case d.asks == 0:
		return 0
	}
	a := d.answers
	slices.Sort(a[:d.asks])
	return a[d.asks-(d.asks/2+1)]
}

// tieShare is the tie-break's part in the lease of VIP i.
func (m *machine) tieShare(i int) int64 {
	if v := m.vips[i]; v.held || v.onLink || v.entitled {
		return m.tieUntil()
	}
	return 0
}

// survive is for how long the other node may live on an answer of the tie-break, and a margin.
func (m *machine) survive() int64 {
	if m.pair.available {
		return tieMargin
	}
	return max(tieLife, m.peers[0].detect) + tieMargin
}

// pace keeps what is known of the tie-break, and asks it: often while it may be needed at any moment.
func (m *machine) pace(now int64) {
	d := &m.pair
	if !d.on {
		return
	}
	p := m.peers[0]
	if !p.suspect || !p.ever {
		d.life = max(tieLife, m.prof.promise)
	}
	d.reaches = m.tieUntil() > now
	if well := d.available || m.tieUntil() > now-2*pingCalm; well != d.well {
		d.well = well
		m.report()
	}
	if d.available || d.asks == 0 {
		return
	}
	at := d.pingAt
	if m.doubts(now) {
		at = min(at, d.pingAt-pingCalm+pingDoubt)
	}
	if now >= at {
		d.pingAt = now + pingCalm
		m.out = append(m.out, action{kind: actPing})
	}
}

// doubts is whether the other node's word may be missing soon.
func (m *machine) doubts(now int64) bool { return now >= m.doubtAt() }

// doubtAt is when that begins: half-way to suspecting it, or to the end of a lease.
func (m *machine) doubtAt() int64 {
	p := m.peers[0]
	at := p.heard + p.detect/2
	if p.flags&(flagOrphan|flagResigned|flagSilent) != 0 {
		at = 0
	}
	for i, v := range m.vips {
		if v.held {
			at = min(at, m.grantedUntil(i)-m.prof.lease/2)
		}
	}
	return at
}

// grantedUntil is the other node's share.
func (m *machine) grantedUntil(i int) int64 {
	v := m.vips[i]
	if l := m.peers[0].leases[i]; l.epoch == v.heldEpoch || l.epoch == v.placed.Epoch {
		return l.until
	}
	return 0
}

// pairNext is when the pair has something to do.
func (m *machine) pairNext(t int64) int64 {
	d := &m.pair
	if !d.on {
		return t
	}
	if !d.available && d.asks > 0 {
		t = min(t, d.pingAt, max(m.doubtAt(), d.pingAt-pingCalm+pingDoubt))
		if d.reaches {
			t = min(t, m.tieUntil())
		}
	}
	for _, v := range m.vips {
		if v.try.next > 0 {
			t = min(t, v.try.next)
		}
	}
	return t
}

// takeAt is when VIP i may be taken if nobody answers for it until then. The two must not come to it at once: the first is the one that did
// not have it when they heard each other last, unless nobody had it, or both had lost the tie-break; then it is the one where it is placed.
func (m *machine) takeAt(i int) int64 {
	v, p := m.vips[i], m.peers[0]
	at := v.try.from + m.survive()
	switch held := p.claims[i].flags&entryHeld != 0; {
	case v.knownNode == m.self && v.showed, v.knownNode != m.self && !held:
		at += claimLast
	}
	if v.knownNode != m.self && m.pair.broke > p.heard {
		at += 2 * claimLast
	}
	return at
}

// cold is whether nothing is known of the other node, or of who is right: then the network is asked in full.
func (m *machine) cold(v *vip) bool { return !m.peers[0].ever || v.beaten }

// attempt goes the steps until VIP i is taken, if it should be.
func (m *machine) attempt(now int64, i int) {
	v := m.vips[i]
	if !m.pair.on {
		return
	}
	p := m.peers[0]
	left := m.leaves(i)
	lost := p.suspect && !v.entitled
	young := m.silent(now) // it takes nothing yet; but a question that nobody answers is as good as one asked later
	if v.held || v.onLink || v.known == (Epoch{}) || !m.couldTake(now, v) || !left && !lost || young && left {
		v.try = attempt{}
		return
	}
	generation := m.nextGeneration(v)
	m.save(now, generation)
	v.try.next = 0
	due := false
	if left {
		if v.try.left == 0 {
			v.try = attempt{left: now}
		}
		if due = now >= v.try.left+leftWait; !due {
			v.try.next = v.try.left + leftWait
		}
	} else {
		v.try.left = 0
		if !m.pair.reaches {
			if v.try = (attempt{}); now > p.heard+p.detect+2*pingDoubt {
				m.pair.broke = now
			}
			return
		}
		due = m.ask(now, i)
	}
	if young {
		v.try.next = max(min(v.try.next, m.vocal()), now+1)
		return
	}
	if !due || m.pair.saved < generation {
		return
	}
	if v.promised != m.self && v.promUntil > now {
		v.try.next = v.promUntil
		return
	}
	if lost && !m.pair.available && m.tieUntil() < now+m.pair.life-2*pingDoubt {
		return // the next answer is due
	}
	v.taken = Placement{VIP: v.name, Node: m.name, Epoch: Epoch{generation, v.known.Index}}
	v.placed, v.entitled, v.beaten, v.lapsed, v.try = v.taken, true, false, false, attempt{}
	m.learn(v, v.taken.Epoch, m.self, false)
	m.chatty = true
}

// leaves is whether the other node is heard and says that it cannot hold VIP i, which is its to hold: its agent has died or hangs, it lost
// its lease, it is not fit, or its guard has just started. Without a leader, which may be just what is broken there, nobody would place it
// anew. A guard that has just started grants nothing either, so that a VIP that was placed here meanwhile has to be taken as well.
func (m *machine) leaves(i int) bool {
	v, p, c := m.vips[i], m.peers[0], m.peers[0].claims[i].flags
	ours := v.knownNode == m.self && v.placed.Node == m.name && !v.placed.First && !v.entitled
	switch {
	case p.suspect || v.knownNode != p.id && !ours:
		return false
	case p.flags&flagSilent != 0: // a life that has not held anything yet; what the one before it left on the link is swept, and its gate shut
		return c&(entryHeld|entryWant) == 0
	case ours:
		return false // it grants
	}
	return (p.flags&flagResigned != 0 || p.flags&flagFit == 0) && c&entryReleased != 0
}

// save has the generation written. What else may be taken in the same breath shall not wait for a write of its own.
func (m *machine) save(now int64, generation uint64) {
	d := &m.pair
	if d.saved >= generation || d.saving > 0 || d.problem != "" && now-d.savedAt < claimBusy {
		return
	}
	for _, v := range m.vips {
		generation = max(generation, m.nextGeneration(v))
	}
	d.saving, d.savedAt = generation, now
	m.out = append(m.out, action{kind: actSave})
}

// nextGeneration is the one at which this node would take a VIP: above what anybody has told of, and above its own former lives.
func (m *machine) nextGeneration(v *vip) uint64 { return max(v.known.Generation, m.pair.former) + 1 }

// couldTake is whether this node could hold the VIP if it had it, as soon as its guard is not silent any more.
func (m *machine) couldTake(now int64, v *vip) bool {
	return m.agentAlive && m.fit && !m.superseded() && now >= m.listenTo && v.linkUp && now >= v.brokenTo
}

// ask probes for VIP i, and is true once nobody has answered for long enough.
func (m *machine) ask(now int64, i int) bool {
	t := &m.vips[i].try
	if m.cold(m.vips[i]) {
		if t.askAt == 0 { // both may have started at once
			t.askAt = now + 1 + int64(m.boot%uint64(coldDelay))
		}
		if now >= t.askAt && t.n == probeNum {
			return true
		}
		if now >= t.askAt {
			t.n, t.askAt = t.n+1, now+probeInterval
			if t.n == probeNum {
				t.askAt = now + probeWait
			}
			m.do(actProbe, i)
		}
		t.next = t.askAt
		return false
	}
	if now >= t.askAt {
		if t.from == 0 {
			t.from = now
		}
		t.askAt = now + claimAsk
		m.do(actProbe, i)
	}
	if t.next = t.askAt; t.from == 0 {
		return false
	}
	at := m.takeAt(i)
	if now < at {
		t.next = min(t.askAt, at)
	}
	return now >= at
}

// answered says that somebody answers for VIP i, which this node would take.
func (m *machine) answered(now int64, i int) {
	v := m.vips[i]
	if v.held || v.onLink || v.try.askAt == 0 {
		return
	}
	v.try = attempt{askAt: now + claimBusy}
	if m.cold(v) {
		v.try.askAt = now + coldRetry
	}
	v.try.next = v.try.askAt
}

// announceGap is how long a holder is silent on the wire. Of two that do not hear each other, both may hold, and if they share a segment
// again while heartbeats are still cut, an announcement is what tells one of them.
func (m *machine) announceGap() int64 {
	if m.pair.on && m.peers[0].suspect {
		return apartSays
	}
	return announceEvery
}

// yieldsTo is whether this node lets go of VIP i, since the other one claims it and cannot be heard to say at what epoch: the lower
// MAC keeps it. Whoever is not the other node is a stranger, and not yielded to.
func (m *machine) yieldsTo(i int, mac [6]byte) bool {
	v := m.vips[i]
	if !m.pair.on || !v.held || !m.peers[0].suspect || bytes.Compare(mac[:], v.mac[:]) >= 0 {
		return false
	}
	return !m.peers[0].ever || m.ownerOf(mac) != nil
}

// standing is what people see of the pair; nil: there is none.
func (m *machine) standing(now int64) *Standing {
	d := &m.pair
	if !d.on {
		return nil
	}
	s := &Standing{Available: d.available, Apart: m.peers[0].suspect || !m.peers[0].ever, Reaches: d.well, Problem: d.problem, Generation: d.saved}
	for k := range d.asks {
		s.Tiebreak = append(s.Tiebreak, Tie{Up: d.answers[k] > now-2*pingCalm})
	}
	return s
}

// trying says how far VIP i is on its way to being taken.
func (m *machine) trying(now int64, i int) string {
	v := m.vips[i]
	other := m.peers[0].name
	switch t := &v.try; {
	case m.pair.problem != "" && m.pair.saved < m.nextGeneration(v):
		return fmt.Sprintf("generation %d is not on the disk, and it is not taken before that: %s", m.nextGeneration(v), m.pair.problem)
	case t.left > 0:
		return other + " has left it: it is taken unless it is placed"
	case m.cold(v):
		return fmt.Sprintf("asking the network in full before it is taken: %d of %d probes are out", t.n, probeNum)
	case t.from == 0:
		return other + " is not heard, but somebody answers for the address: it is not taken"
	}
	return fmt.Sprintf("%s is not heard and nobody answers for the address: it is taken in %v", other, span(max(m.takeAt(i)-now, m.vocal()-now, 0)))
}
