package vip

// burialWait is for how long connections that a node has parked are still handed on to it although it is suspected and confirmed dead. Who holds an address and
// stalls for as long as a lease loses it, and its clients with it; but what a node has parked waits for nobody else, and shall survive a
// stall. Clients of one that is dead indeed are woken by so much later.
const burialWait = 500 * ms

// detect keeps the peers' health: who was not heard for its detection time, and whom a majority of voters has not heard.
func (m *machine) detect(now int64) {
	for _, p := range m.peers {
		if s := now-p.heard > p.detect; s != p.suspect {
			p.suspect = s
			m.chatty = true // the others wait for our word to make a majority
			m.report()
			if !s {
				m.healed(now)
			}
		}
	}
	for _, p := range m.peers {
		for k := range m.ways(p) {
			if w := &p.links[k]; w.up && now-w.heard > linkSilent {
				w.up = false
				m.report()
			}
		}
	}
	for _, p := range m.peers {
		if c := m.gone(p); c != p.confirmed {
			p.confirmed = c
			m.report()
		}
		if b := p.suspect && p.confirmed && now-p.heard > p.detect+burialWait; b != p.buried {
			p.buried = b
			m.report()
		}
	}
}

// ways is how many links there are to a peer: those that both ends have.
func (m *machine) ways(p *peer) int { return min(m.links, len(p.addrs), MaxLinks) }

// gone is whether p is lost for certain: it said so itself, or a majority of voters has not heard from it. Two nodes that lost
// sight of one another are both alive to the rest.
func (m *machine) gone(p *peer) bool {
	if !p.suspect {
		return p.flags&(flagOrphan|flagResigned) != 0
	}
	n := 0
	if m.selfVoter {
		n++
	}
	for _, o := range m.peers {
		if o == p || !o.voter || o.suspect {
			continue
		}
		for _, id := range o.suspects {
			if id == p.id {
				n++
				break
			}
		}
	}
	return n >= m.quorum()
}

// quorum is a majority of the voters.
func (m *machine) quorum() int {
	n := 0
	if m.selfVoter {
		n++
	}
	for _, p := range m.peers {
		if p.voter {
			n++
		}
	}
	return n/2 + 1
}

// hearsMajority is whether enough voters are heard for a lease to be possible. Who hears nobody does not ask: its claims may
// still arrive, and would bind the voters to a node that can't hear their answer. After a lapse, only what was heard since
// counts: the silence that ended the lease may have just begun.
func (m *machine) hearsMajority(v *vip) bool {
	since := int64(0)
	if v.lapsed {
		since = v.lapsedAt
	}
	n := 0
	if m.selfVoter {
		n++
	}
	if m.pair.on && m.pair.reaches && (v.held || v.onLink || v.entitled) {
		n++
	}
	for _, p := range m.peers {
		if p.voter && p.ever && !p.suspect && p.heard > since {
			n++
		}
	}
	return n >= m.quorum()
}

// healed announces again what we hold: on the other side of a partition somebody may have claimed it meanwhile.
func (m *machine) healed(now int64) {
	for _, v := range m.vips {
		if v.held {
			v.announceN, v.announceAt = 0, now
		}
	}
}

// receive takes a message whose authenticity was checked and that came over link k. It returns why it was dropped, or "". It decides
// nothing: after the last message that waits, the caller calls tick, so that nobody is suspected whose word is already in the queue.
func (m *machine) receive(now int64, k int, msg *message) string {
	if msg.to != m.self {
		return "addressed to another node"
	}
	i := m.peerIndex(msg.from)
	if i < 0 {
		return "from an unknown node"
	}
	p := m.peers[i]
	if msg.promise <= 0 || msg.promise > maxPromise || msg.interval <= 0 || msg.interval > msg.promise {
		return "profile out of bounds"
	}
	s := p.answered(msg, m.boot)
	switch {
	case msg.boot == p.boot:
		if m.heardOver(now, k, p, msg); msg.seq <= p.seq {
			if p.note(msg.seq) && msg.flags&flagAnswer == 0 {
				p.hearLate()
			}
			return overtaken
		}
	case s != nil && now-s.at <= maxPromise:
		// A new life proves itself by an answer to something that we said a moment ago: a recorded one can't.
		p.forget(msg.boot)
		m.heardOver(now, k, p, msg)
		m.chatty = true // it waits for the same from us
	default:
		if msg.boot == p.newBoot && msg.seq <= p.newSeq {
			return overtaken
		}
		p.newBoot, p.newSeq, p.newReads = msg.boot, msg.seq, msg.reads
		m.out = append(m.out, action{kind: actGreet, peer: i})
		return "first word of a new life"
	}

	before := p.flags
	p.note(msg.seq)
	p.heard, p.ever = now, true
	p.reads, p.format, p.unread = msg.reads, msg.format, unread{}
	p.detect, p.flags, p.lateness, p.profile = msg.promise, msg.flags, msg.lateness, msg.profile
	p.mac, p.votersIndex, p.applied = msg.mac, msg.votersIndex, msg.applied
	p.suspects = p.suspects[:0]
	for _, v := range msg.views[:msg.nviews] {
		if v.suspect {
			p.suspects = append(p.suspects, v.node)
		}
	}
	if s != nil && msg.echoSeq != p.echoed { // else it says the same of the same way once more
		p.echoed = msg.echoSeq
		p.rtt.add(now, now-s.at-msg.echoDelay)
	}
	const health = flagAgent | flagOrphan | flagFit | flagResigned | flagSilent
	if (before^msg.flags)&health != 0 {
		m.report()
	}
	m.hear(now, i, msg, s)
	return ""
}

// overtaken is said of what was heard before: a replay, or the second copy of what came over another link.
const overtaken = "replayed or overtaken"

// heardOver notes that a message of the peer's present life came over link k. Its copies on the other links say nothing more, but
// show that these links work.
func (m *machine) heardOver(now int64, k int, p *peer, msg *message) {
	if k >= m.ways(p) {
		return
	}
	w := &p.links[k]
	if msg.seq <= w.seq {
		return
	}
	if w.seq, w.heard = msg.seq, now; !w.up {
		w.up = true
		m.report()
	}
	if k >= msg.nlinks || msg.echoBoot != m.boot {
		return
	}
	e := msg.links[k]
	if s := &p.sent[e.seq%sentRing]; e.seq != 0 && uint32(s.seq) == e.seq {
		w.rtt.add(now, now-s.at-e.delay)
	}
}

// answered finds our message that msg refers to. Nil: none, a forgotten one, or one from a former life of ours.
func (p *peer) answered(msg *message, boot uint64) *sent {
	if msg.echoBoot != boot || msg.echoSeq == 0 {
		return nil
	}
	if s := &p.sent[msg.echoSeq%sentRing]; s.seq == msg.echoSeq {
		return s
	}
	return nil
}

// forget starts a new life of the peer. What we promised it stands; so does what it granted us, since it starts by keeping
// silent for longer than it can have promised.
func (p *peer) forget(boot uint64) {
	p.boot, p.seq, p.newBoot, p.newSeq = boot, 0, 0, 0
	for k := range p.links {
		p.links[k].seq = 0
	}
	clear(p.claims)
}
