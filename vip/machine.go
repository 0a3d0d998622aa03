package vip

import (
	"net/netip"
	"slices"
	"time"
)

// machine is the guard's mind: messages, local facts and the time go in, actions come out. It does no I/O, reads no clock and
// starts nothing, so that a whole cluster of them runs in a test. Times are nanoseconds of CLOCK_BOOTTIME, which goes on while
// a machine sleeps; 0 is never.
//
// After every call the caller executes out in order and empties it, then waits until next.
type machine struct {
	// Immutable.
	boot  uint64
	start int64
	reads Formats

	// What we were told.
	self        nodeID
	name        string
	selfVoter   bool
	witness     bool
	votersIndex uint64
	applied     uint64
	peers       []*peer
	vips        []*vip
	configured  bool
	former      formers // whom to tell that they were left behind, and whether we were
	listenTo    int64   // until when nothing is claimed after the first setup
	gateTo      int64   // until when nothing is claimed since its gate is being made; 0: that was tried

	// Local facts.
	agentAlive bool
	hadAgent   bool
	deserted   bool // its process has ended: hung or stopped it still has its connections
	fit        bool
	unfitWhy   string
	realTime   bool
	late       lateness
	mac        [6]byte
	links      int // for heartbeats, our ends

	prof     profile
	needLate damped // lateness of the worst voter, ours included
	needRTT  damped // to the nearest majority
	nextBeat int64
	sends    uint64   // messages sent so far, to all peers
	gasps    [2]int64 // when to say once more that the agent has died: one lost packet must not cost a detection time
	chatty   bool     // something changed that the peers shall hear of before the next beat

	pair pairing // see pair.go

	out []action
}

// action is one thing for the edges to do.
type action struct {
	kind actionKind
	peer int  // index into peers, for actSend and actGreet
	vip  int  // index into vips, for all others
	ans  bool // actSend answers a claim
}

type actionKind uint8

const (
	actSend     actionKind = iota + 1 // fill a message for the peer and send it
	actGreet                          // the same, in answer to a life that has not proved itself
	actAdd                            // put the addresses on the link
	actDel                            // take them off; then call removed
	actRefresh                        // prolong the addresses' life in the kernel
	actGate                           // let the kernel answer ARP for one gate more
	actProbe                          // ask who has the addresses
	actAnnounce                       // tell everybody that we have them
	actReport                         // the state changed in a way that the agent should hear of at once
	actPark                           // put the addresses on the loopback, silent, or prolong their life there
	actUnpark                         // take them off the loopback
	actPing                           // ask the tie-break; then call reached for each answer
	actSave                           // put the generation pair.saving on the disk; then call remembered
)

func (k actionKind) String() string {
	return [...]string{"", "send", "greet", "add", "del", "refresh", "gate", "probe", "announce", "report", "park", "unpark", "ping", "save"}[k]
}

// claim is what a peer said of a VIP.
type claim struct {
	epoch   Epoch
	flags   entryFlags
	mac     [6]byte
	seq     uint64 // of the message that asked
	owed    bool   // it asked, and was granted nothing for it yet
	granted uint64 // the seq that was last granted
}

// lease is one voter's share of ours.
type lease struct {
	epoch Epoch
	until int64
}

// vip is a VIP as a voter and as a holder see it.
type vip struct {
	// Immutable until the next setup.
	id       vipID
	name     string
	prefixes []netip.Prefix
	dev      string
	router   uint8     // of its virtual MAC; 0: it has none
	placed   Placement // our agent's

	// As one who grants.
	known     Epoch // newest placement heard of, from our agent or from anybody
	knownNode nodeID
	planned   bool // it is a move from a holder that is well
	promised  nodeID
	promEpoch Epoch
	promUntil int64

	// As one who may hold.
	looked    bool // its interface was looked for
	linkUp    bool
	mac       [6]byte // of its interface
	noLink    string  // why it is not up, when more is known
	brokenTo  int64   // the kernel did not take the addresses; not asked for before this
	want      bool
	wantSends uint64 // machine.sends when wanting began: only what was sent later counts
	onLink    bool   // the addresses are, or may be, on the link
	held      bool
	heldSince int64
	heldEpoch Epoch
	own       lease // our own grant
	lapsed    bool  // the last hold ended with the lease
	lapsedAt  int64
	lostWhy   refusal
	released  bool // the peers shall hear that we gave it back
	yielding  bool // held for the node that it moves to, until that one is ready, see handover.go
	park      parking
	routing   routing // in a VRRP group

	// As one of a pair, see pair.go.
	taken    Placement // by this node itself; newer than placed, or zero
	entitled bool      // it was taken, and not let go since: the tie-break counts
	beaten   bool      // it was yielded to a claim on the wire
	showed   bool      // it was held, as the other one has heard last
	try      attempt

	refreshAt  int64
	gateAt     int64 // when to open the gate once more for this lease; 0: it was
	gateEnd    int64 // the lease's end when the gate was opened last
	announceN  int
	announceAt int64
	defendedAt int64
	lostSince  int64 // when lostN began to count
	lostN      int   // how often the address was taken off the link by somebody else
	probeN     int
	probeAt    int64
	probed     bool // for the epoch in probeEpoch
	probeEpoch Epoch
	conflicts  []foreign
}

// foreign is somebody else who claims a VIP.
type foreign struct {
	addr  netip.Addr
	mac   [6]byte
	at    int64
	count int
}

const maxConflicts = 8 // per VIP; the oldest goes

// announcements after a claim: the first wins the race, the others cover loss and hosts that lock an entry for a second.
var announcements = [...]int64{0, 50 * ms, 150 * ms, 400 * ms, 1100 * ms, 2100 * ms, 5000 * ms}

const (
	announceEvery = int64(30 * time.Second) // switches forget after 300 s, MetalLB's users lost 15 minutes
	refreshEvery  = int64(time.Second)      // of a kernel life of three
	defendEvery   = 20 * ms
	gateSlack     = 4 * ms // before the last moment, for a late wake-up
	retryEvery    = 5 * ms

	// RFC 5227 section 1.1, without the random wait for many hosts that start at once: only the one that was granted probes.
	probeNum      = 3
	probeInterval = int64(time.Second)
	probeWait     = int64(2 * time.Second)
	probeRetry    = int64(10 * time.Second)
	putRetry      = int64(5 * time.Second) // after the kernel refused an address
)

// newMachine returns a machine that knows nobody. boot tells its life from its former ones.
func newMachine(now int64, boot uint64, realTime bool) *machine {
	m := &machine{boot: boot, start: now, reads: OwnFormats(), realTime: realTime, nextBeat: now}
	m.prof = profileFor(realTime, 0, 0)
	return m
}

// listenFirst is how long a guard that has just heard who its peers are claims nothing. Who knows that the cluster went on without
// this node answers its first heartbeat.
const listenFirst = 250 * ms

// superseded is whether this node was told that the cluster goes on without it.
func (m *machine) superseded() bool { return m.former.heard != Superseded{} }

// silent is whether the life before may still be bound by promises.
func (m *machine) silent(now int64) bool { return now < m.vocal() }

// vocal is when the silence ends.
func (m *machine) vocal() int64 { return m.start + maxPromise }

// configure takes a checked Setup. What it does not change goes on: peers, promises, leases, held addresses.
func (m *machine) configure(now int64, s *Setup) {
	first := !m.configured
	m.self, m.name, m.selfVoter, m.witness = idOf(s.Self), s.Self, s.SelfVoter, s.Witness
	m.votersIndex, m.applied, m.configured = s.VotersIndex, s.Applied, true
	m.links = 1 + len(s.Also)
	m.former.configure(s)
	if first && len(s.Peers) > 0 {
		m.listenTo = now + listenFirst
	}

	oldVIPs := m.vips
	index := make([]int, len(s.VIPs)) // from new to old
	vips := make([]*vip, len(s.VIPs))
	for i, c := range s.VIPs {
		id := vipKey(c.Name)
		index[i] = slices.IndexFunc(oldVIPs, func(v *vip) bool { return v.id == id && v.is(c) })
		if index[i] >= 0 {
			vips[i] = oldVIPs[index[i]]
		} else {
			vips[i] = &vip{id: id, name: c.Name, prefixes: c.Addresses, dev: c.Interface, router: c.RouterID}
			// A VIP with other addresses is another VIP to the link, but the promises made for its name hold.
			if j := slices.IndexFunc(oldVIPs, func(v *vip) bool { return v.id == id }); j >= 0 {
				o := oldVIPs[j]
				vips[i].known, vips[i].knownNode, vips[i].planned = o.known, o.knownNode, o.planned
				vips[i].promised, vips[i].promEpoch, vips[i].promUntil = o.promised, o.promEpoch, o.promUntil
			}
		}
		vips[i].setGroup(c.VRRP)
		vips[i].placed = Placement{}
	}
	same := len(vips) == len(oldVIPs)
	for i := range index {
		same = same && index[i] == i
	}

	peers := make([]*peer, len(s.Peers))
	for i, c := range s.Peers {
		id := idOf(c.Name)
		j := slices.IndexFunc(m.peers, func(p *peer) bool { return p.id == id })
		if j >= 0 {
			peers[i] = m.peers[j]
		} else {
			peers[i] = &peer{id: id, name: c.Name, heard: now, detect: maxPromise}
		}
		p := peers[i]
		p.voter, p.witness = c.Voter, c.Witness
		if addrs := append([]netip.AddrPort{c.Addr}, c.Also...); !slices.Equal(addrs, p.addrs) {
			p.addrs, p.links = addrs, [MaxLinks]way{}
			for k := range p.links {
				p.links[k].heard = now
			}
		}
		if !same || j < 0 {
			p.reindex(index)
		}
	}
	m.peers, m.vips = peers, vips
	asks := 0
	if s.Pair != nil {
		asks = len(s.Pair.Tiebreak)
	}
	m.setPair(now, s.Pair, asks)
	for _, pl := range s.Placements {
		i := m.vipIndex(vipKey(pl.VIP))
		if i < 0 {
			continue
		}
		m.vips[i].placed = pl
		m.learn(m.vips[i], pl.Epoch, idOf(pl.Node), pl.Drain > 0)
		m.vips[i].park.told(now, pl)
	}
	for _, v := range vips {
		v.keepTaken()
	}
	m.chatty = true
	m.step(now)
}

// is tells whether the VIP is configured like c: then what is held stays held.
func (v *vip) is(c VIP) bool {
	return v.name == c.Name && slices.Equal(v.prefixes, c.Addresses) && v.dev == c.Interface && v.router == c.RouterID
}

func (m *machine) vipIndex(id vipID) int {
	for i, v := range m.vips {
		if v.id == id {
			return i
		}
	}
	return -1
}

func (m *machine) peerIndex(id nodeID) int {
	for i, p := range m.peers {
		if p.id == id {
			return i
		}
	}
	return -1
}

// local takes the facts about our own agent: whether it lives, and whether the node may hold.
func (m *machine) local(now int64, alive, fit bool, why string) {
	if alive == m.agentAlive && fit == m.fit && why == m.unfitWhy {
		return
	}
	m.chatty = m.chatty || alive != m.agentAlive || fit != m.fit
	m.agentAlive, m.fit, m.unfitWhy = alive, fit, why
	if m.hadAgent = m.hadAgent || alive; !alive {
		m.gasps = [...]int64{now + 2*ms, now + 5*ms}
	}
	m.report()
	m.step(now)
}

// link says whether a VIP's interface exists and is up, and if not, why.
func (m *machine) link(now int64, i int, up bool, why string) {
	v := m.vips[i]
	if v.looked && v.linkUp == up && v.noLink == why {
		return
	}
	v.looked = true
	if m.report(); v.linkUp != up {
		m.chatty = true // whoever places VIPs must know
	}
	v.linkUp, v.noLink, v.brokenTo = up, why, 0
	m.step(now)
}

// broken says that the kernel did not take an address of a VIP: the VIP is for another node, and this one tries again later.
func (m *machine) broken(now int64, i int, why string) {
	v := m.vips[i]
	v.brokenTo, v.noLink = now+putRetry, why
	m.chatty = true
	m.report()
	m.step(now)
}

// gated says that the gate for what is new was made, or can't be. Who waited for that asks anew: what was granted meanwhile is old.
func (m *machine) gated() {
	if m.gateTo > 0 {
		m.gateTo, m.chatty = 0, true
	}
}

// unable is whether VIP i can't be held here whatever anybody wants.
func (m *machine) unable(now int64, i int) bool {
	v := m.vips[i]
	return v.looked && !v.linkUp || now < v.brokenTo
}

// removed says that actDel was done: from here on the peers may hear that the VIP is free.
func (m *machine) removed(now int64, i int) {
	v := m.vips[i]
	v.onLink = false
	m.chatty = true
	m.step(now)
}

// woke says how late the caller came back from waiting.
// Later than the longest promise is no lateness but a stop, which no profile can cover and the lease answers for.
func (m *machine) woke(now, late int64) {
	if late < maxPromise {
		m.late.add(now, max(late, 0))
	}
}

// lost says that somebody took a held address off the link. False: that happened too often to put it back once more.
func (m *machine) lost(now int64, i int) bool {
	v := m.vips[i]
	if now-v.lostSince > mendWindow {
		v.lostSince, v.lostN = now, 0
	}
	if v.lostN++; v.lostN > mendMax {
		return false
	}
	if v.held && m.leaseEnd(i) > now {
		v.refreshAt, v.announceN, v.announceAt = now, 0, now
		m.step(now)
	}
	return true
}

// foreign says that an ARP frame named mac as the owner of addr, which is one of the VIP's.
func (m *machine) foreign(now int64, i int, addr netip.Addr, mac [6]byte) {
	v := m.vips[i]
	probing := v.probeN > 0 && !v.probed
	m.answered(now, i)
	if !v.held && !probing {
		return
	}
	j := slices.IndexFunc(v.conflicts, func(f foreign) bool { return f.addr == addr && f.mac == mac })
	if j < 0 {
		if len(v.conflicts) == maxConflicts {
			v.conflicts = slices.Delete(v.conflicts, 0, 1)
		}
		v.conflicts = append(v.conflicts, foreign{addr: addr, mac: mac})
		j = len(v.conflicts) - 1
		m.report()
	}
	v.conflicts[j].at, v.conflicts[j].count = now, v.conflicts[j].count+1
	switch {
	case m.yieldsTo(i, mac):
		m.drop(now, i, outranked)
		v.beaten = true
	case probing:
		v.probeN, v.probeAt = 0, now+probeRetry
		m.report()
	case now-v.defendedAt >= defendEvery:
		v.defendedAt = now
		v.announceN, v.announceAt = 0, now
		m.step(now)
	}
}

func (m *machine) report() {
	for _, a := range m.out {
		if a.kind == actReport {
			return
		}
	}
	m.out = append(m.out, action{kind: actReport})
}

func (m *machine) do(k actionKind, vip int) { m.out = append(m.out, action{kind: k, vip: vip}) }

// tick does what is due.
func (m *machine) tick(now int64) { m.step(now) }

// step is the one place where the machine decides. Every input ends here.
func (m *machine) step(now int64) {
	if !m.configured {
		return
	}
	m.retune(now)
	m.detect(now)
	m.pace(now)
	if now >= m.gateTo {
		m.gateTo = 0
	}
	for i, v := range m.vips {
		if v.brokenTo > 0 && now >= v.brokenTo {
			v.brokenTo, v.noLink, m.chatty = 0, "", true
		}
		m.decide(now, i)
	}
	m.speak(now)
	for i := range m.vips {
		m.decide(now, i) // a lone voter grants itself while it speaks
	}
	m.owed(now)
}

// next is when tick has something to do.
func (m *machine) next() int64 {
	if !m.configured {
		return m.start + int64(time.Hour)
	}
	if m.chatty {
		return 0
	}
	t := m.nextBeat
	at := func(x int64) {
		if x > 0 && x < t {
			t = x
		}
	}
	for _, g := range m.gasps {
		at(g)
	}
	at(m.gateTo)
	for _, p := range m.peers {
		if !p.suspect {
			at(p.heard + p.detect + 1)
		}
		for k := range m.ways(p) {
			if w := &p.links[k]; w.up {
				at(w.heard + linkSilent + 1)
			}
		}
	}
	for i, v := range m.vips {
		if v.held {
			at(m.leaseEnd(i))
			at(v.refreshAt)
			at(v.announceAt)
			at(v.gateAt)
		} else if v.want && v.probeN > 0 {
			at(v.probeAt)
		}
		at(v.park.until)
		at(v.park.refreshAt)
		at(v.brokenTo)
		if m.owes(i) {
			at(max(v.promUntil, m.vocal()))
		}
	}
	return m.pairNext(t)
}
