package vip

import "slices"

// learn takes note of a placement, from our agent or from anybody's heartbeat. Nobody asks for a VIP without a committed
// placement, so a higher epoch anywhere is the end of the lower one.
func (m *machine) learn(v *vip, e Epoch, node nodeID, planned bool) {
	if e.Compare(v.known) > 0 || m.pair.on && e == v.known && e != (Epoch{}) && m.nameOf(node) < m.nameOf(v.knownNode) {
		v.known, v.knownNode, v.planned = e, node, planned
		m.report()
	}
	v.planned = v.planned || planned && e == v.known
}

// hear takes what a peer says of the VIPs. s is our message that it answers, or nil.
func (m *machine) hear(now int64, i int, msg *message, s *sent) {
	p := m.peers[i]
	asks := false
	answer := msg.flags&flagAnswer != 0
	unable := uint64(0) // as it was
	serving := p.serving()
	for j := range p.claims {
		if p.claims[j].flags&entryUnable != 0 {
			unable |= 1 << j
		}
		p.claims[j].flags = 0
		p.claims[j].owed = p.claims[j].owed && answer // an answer asks nothing new, or two who want would answer for ever
	}
	for _, e := range msg.entries[:msg.nentries] {
		j := m.vipIndex(e.vip)
		if j < 0 {
			continue // one of us has not heard of the newest configuration
		}
		v, c := m.vips[j], &p.claims[j]
		m.learn(v, e.epoch, e.node, e.flags&entryPlanned != 0)
		v.beaten = false // who is right is known now
		if (e.flags&entryUnable != 0) != (unable&(1<<j) != 0) {
			m.report()
		}
		c.epoch, c.flags, c.seq, c.mac = e.epoch, e.flags, msg.seq, e.mac
		v.hearRouting(now, p.id, e.flags)
		c.owed = c.owed && e.flags&entryWant != 0
		if e.flags&entryReleased != 0 && v.promised == p.id && v.promEpoch.Compare(e.epoch) <= 0 {
			v.promised, v.promUntil = 0, 0
		}
		if e.flags&entryWant != 0 && e.node == p.id {
			c.owed, asks = c.owed || !answer, !answer
		}
		if e.flags&entryGranted != 0 && s != nil && s.claimed&(1<<j) != 0 && s.n > v.wantSends && v.want && e.epoch == v.placed.Epoch {
			l := &p.leases[j]
			if l.epoch != e.epoch {
				*l = lease{epoch: e.epoch}
			}
			l.until = max(l.until, s.at+s.lease)
			if end := m.leaseEnd(j); !v.held && end > now && end < now+m.prof.gate {
				m.chatty = true // granted late, for an old claim: a fresh one is answered within a round trip
			}
		}
	}
	if p.serving() != serving {
		m.report() // our agent hands packets on to whoever has connections
	}
	if s != nil {
		for j, v := range m.vips {
			v.showed = s.held&(1<<j) != 0
		}
	}
	if asks {
		m.answer(i)
	}
}

// hearLate takes a claim that the answer sent just after it has overtaken, as happens where packets change their order. The answer asked
// nothing by itself; the claim asks on behalf of it, as it is the newest that the peer said. It is granted with what else is owed.
func (p *peer) hearLate() {
	for j := range p.claims {
		if c := &p.claims[j]; c.flags&entryWant != 0 && c.granted != p.seq {
			c.owed = true
		}
	}
}

// serving is for which VIPs p has connections, a bit each: those that it holds and those that it held.
func (p *peer) serving() (bits uint64) {
	for j, c := range p.claims {
		if c.flags&(entryHeld|entryParked) != 0 {
			bits |= 1 << j
		}
	}
	return bits
}

// may is whether p could be granted its claim on VIP j now.
func (m *machine) may(now int64, j int, p *peer) bool {
	v, c := m.vips[j], &p.claims[j]
	return !m.silent(now) && !m.superseded() && c.flags&entryWant != 0 && v.knownNode == p.id && c.epoch == v.known &&
		(v.promised == p.id || v.promUntil <= now)
}

// grant makes the promise for which may was the condition. The promise runs from now, later than the claim was sent: the
// claimant counts its lease from there.
func (m *machine) grant(now int64, j int, p *peer) {
	v := m.vips[j]
	if v.promised != p.id {
		v.promUntil = 0
	}
	v.promised, v.promEpoch, v.promUntil = p.id, v.known, max(v.promUntil, now+p.detect)
	p.claims[j].owed, p.claims[j].granted = false, p.claims[j].seq
}

// answer queues an answer to peer i, once.
func (m *machine) answer(i int) {
	if p := m.peers[i]; !p.answering {
		p.answering = true
		m.out = append(m.out, action{kind: actSend, peer: i, ans: true})
	}
}

// owes is whether somebody heard of late waits for a grant of VIP j that a promise to another still forbids.
func (m *machine) owes(j int) bool {
	for _, p := range m.peers {
		if c := &p.claims[j]; c.owed && !p.suspect && m.vips[j].knownNode == p.id && c.epoch == m.vips[j].known {
			return true
		}
	}
	return false
}

// owed answers claims that could not be granted when they arrived and can be now.
func (m *machine) owed(now int64) {
	for i, p := range m.peers {
		if p.suspect {
			continue
		}
		for j := range p.claims {
			if p.claims[j].owed && m.may(now, j, p) {
				m.answer(i)
				break
			}
		}
	}
}

// leaseEnd is until when VIP i may be held: the q-th longest share, q being a majority of the voters.
func (m *machine) leaseEnd(i int) int64 {
	if v := m.vips[i]; !v.yielding {
		return m.leaseAt(i, v.placed.Epoch)
	}
	return m.leaseAt(i, m.vips[i].heldEpoch)
}

// leaseAt is the same of the shares that were granted for that epoch.
func (m *machine) leaseAt(i int, epoch Epoch) int64 {
	var ends [MaxPeers + 2]int64
	n := 0
	add := func(l lease) {
		if l.epoch == epoch {
			ends[n] = l.until
		}
		n++
	}
	if m.selfVoter {
		add(m.vips[i].own)
	}
	for _, p := range m.peers {
		if p.voter {
			add(p.leases[i])
		}
	}
	if n == 0 {
		return 0
	}
	if m.pair.on {
		ends[n] = m.tieShare(i)
		n++
	}
	slices.Sort(ends[:n])
	return ends[n-m.quorum()]
}

// speak sends heartbeats when they are due, and earlier when there is news.
func (m *machine) speak(now int64) {
	for i, g := range m.gasps {
		if g > 0 && now >= g {
			m.gasps[i], m.chatty = 0, true
		}
	}
	if !m.chatty && now < m.nextBeat {
		return
	}
	if m.nextBeat += m.prof.interval; m.nextBeat <= now || m.nextBeat > now+m.prof.interval {
		m.nextBeat = now + m.prof.interval
	}
	m.chatty = false
	for j, v := range m.vips {
		if v.want {
			m.grantSelf(now, j)
		}
	}
	for i := range m.peers {
		m.out = append(m.out, action{kind: actSend, peer: i})
	}
}

// grantSelf is a voter's grant to itself, under the same rule as to any other.
func (m *machine) grantSelf(now int64, j int) {
	v := m.vips[j]
	if m.silent(now) || m.superseded() || v.knownNode != m.self || v.known != v.placed.Epoch || (v.promised != m.self && v.promUntil > now) {
		return
	}
	v.promised, v.promEpoch, v.promUntil = m.self, v.known, now+m.prof.promise
	v.own = lease{epoch: v.known, until: now + m.prof.lease}
}

// fill writes the message for peer i that is sent at now. Called once for each send, just before it.
func (m *machine) fill(now int64, a action, msg *message) {
	p := m.peers[a.peer]
	p.seqOut++
	m.sends++
	s := &p.sent[p.seqOut%sentRing]
	*s = sent{seq: p.seqOut, n: m.sends, at: now, lease: m.prof.lease}

	msg.format, msg.reads = m.formatFor(p, a.kind == actGreet), m.reads
	msg.from, msg.to, msg.boot, msg.seq = m.self, p.id, m.boot, p.seqOut
	msg.echoBoot, msg.echoSeq, msg.echoDelay = p.boot, p.seq, max(now-p.heard, 0)
	if a.kind == actGreet {
		msg.echoBoot, msg.echoSeq, msg.echoDelay = p.newBoot, p.newSeq, 0
	}
	msg.nlinks = m.ways(p)
	for k := range msg.links[:msg.nlinks] {
		w := &p.links[k]
		msg.links[k] = linkEcho{seq: uint32(w.seq), delay: max(now-w.heard, 0)}
	}
	msg.interval, msg.promise, msg.lateness = m.prof.interval, m.prof.promise, m.late.worst()
	msg.profile = profileCode(m.prof.name)
	msg.mac, msg.votersIndex, msg.applied = m.mac, m.votersIndex, m.applied
	msg.flags = m.flags(now)
	if a.ans {
		msg.flags |= flagAnswer
		p.answering = false
	}
	msg.nviews = 0
	for _, o := range m.peers {
		msg.views[msg.nviews] = view{node: o.id, suspect: o.suspect}
		msg.nviews++
	}
	msg.nentries = 0
	for j, v := range m.vips {
		e := &msg.entries[msg.nentries]
		*e = entry{vip: v.id, epoch: v.known, node: v.knownNode, mac: v.mac}
		if m.unable(now, j) {
			e.flags |= entryUnable
		}
		if v.want {
			e.flags |= entryWant
			s.claimed |= 1 << j
		}
		if v.held {
			e.flags |= entryHeld
			s.held |= 1 << j
		}
		if v.held && v.routing.active || now < v.routing.passing {
			e.flags |= entryActive
		}
		if v.released && !v.onLink && !v.want {
			e.flags |= entryReleased
		}
		if v.planned {
			e.flags |= entryPlanned
		}
		if v.park.until > 0 && v.park.planned {
			e.flags |= entryParked
		}
		// A grant answers the newest message of the peer's present life, the one that echoSeq names. It is made once, and may be
		// repeated while it stands: the claimant counts from the sending of its claim, however often it hears the answer.
		if c := &p.claims[j]; a.kind == actSend && c.seq == p.seq && !p.suspect {
			if c.owed && m.may(now, j, p) {
				m.grant(now, j, p)
			}
			if c.granted == p.seq && v.promised == p.id && v.promUntil > now && v.known == c.epoch {
				e.flags |= entryGranted
			}
		}
		msg.nentries++
	}
}

func (m *machine) flags(now int64) msgFlags {
	f := msgFlags(0)
	set := func(on bool, bit msgFlags) {
		if on {
			f |= bit
		}
	}
	set(m.agentAlive, flagAgent)
	set(m.hadAgent && !m.agentAlive, flagOrphan)
	set(m.agentAlive && m.fit && !m.witness && !m.silent(now) && !m.superseded(), flagFit)
	set(m.resigned(now), flagResigned)
	set(m.witness, flagWitness)
	set(m.silent(now) || m.superseded(), flagSilent)
	set(m.realTime, flagRT)
	return f
}

// resigned is whether we lost a lease and hold nothing: to the others we are gone, though they may hear us.
func (m *machine) resigned(now int64) bool {
	lapsed := false
	for _, v := range m.vips {
		if v.held || v.onLink {
			return false
		}
		lapsed = lapsed || (v.lapsed && v.knownNode == m.self && (now-v.lapsedAt > m.prof.promise || !m.hearsMajority(v)))
	}
	return lapsed
}
