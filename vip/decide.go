package vip

// decide moves one VIP: want it or not, hold it or not, and what a holder has to do now.
func (m *machine) decide(now int64, i int) {
	v := m.vips[i]
	m.attempt(now, i)
	why := m.refusal(now, i)
	if v.placed.Node != m.name || v.known != v.placed.Epoch {
		v.lapsed = false // somebody else's turn
	}
	m.parked(now, i)
	if v.yielding = m.yields(now, i, why); v.yielding {
		v.want = false // nothing more is asked for; what was granted is used up
		m.keep(now, i)
		return
	}
	if want := why == mayAsk; want && !v.want {
		v.want, v.wantSends, v.released = true, m.sends, false
		v.own = lease{}
		m.chatty = true
	}
	lapsed := v.held && m.leaseEnd(i) <= now
	switch {
	case v.held && why != mayAsk:
		m.drop(now, i, why)
	case lapsed:
		if m.hearsMajority(v) {
			m.drop(now, i, grantsOver)
		} else {
			m.drop(now, i, leaseOver)
		}
		v.lapsed, v.lapsedAt = true, now
	}
	if v.want && why != mayAsk {
		m.giveBack(i)
	}
	if !v.want && !v.onLink && v.promised == m.self {
		v.promised, v.promUntil = 0, 0 // our own promise to ourselves
	}
	// With less than a gate left the kernel would swallow the announcement.
	if v.want && !v.held && !v.onLink && m.gateTo == 0 && m.leaseEnd(i) >= now+m.prof.gate {
		m.claim(now, i)
	}
	if v.held {
		m.keep(now, i)
	}
}

// refusal is why this node must not ask for a VIP.
type refusal uint8

const (
	mayAsk refusal = iota
	notPlaced
	placedElsewhere
	newerKnown
	isWitness
	agentGone
	notFit
	keepsSilent
	linkDown
	notTaken
	hearsNobody
	leftBehind
	leaseOver // only as the reason of a loss
	grantsOver
	outranked
)

func (m *machine) refusal(now int64, i int) refusal {
	v := m.vips[i]
	switch {
	case m.superseded():
		return leftBehind
	case v.placed.Node == "":
		return notPlaced
	case v.placed.Node != m.name:
		return placedElsewhere
	case v.known != v.placed.Epoch:
		return newerKnown
	case v.knownNode != m.self: // a pair: the other one has taken the same epoch, and comes first
		return newerKnown
	}
	return m.hindrance(now, i)
}

// hindrance is why this node could not ask for a VIP, wherever that is placed.
func (m *machine) hindrance(now int64, i int) refusal {
	v := m.vips[i]
	switch {
	case m.witness:
		return isWitness
	case !m.agentAlive:
		return agentGone
	case !m.fit:
		return notFit
	case m.silent(now), now < m.listenTo:
		return keepsSilent
	case !v.linkUp:
		return linkDown
	case now < v.brokenTo:
		return notTaken
	case !m.hearsMajority(v):
		return hearsNobody
	}
	return mayAsk
}

// drop takes a held VIP off the link. The caller executes actDel before anything that was asked for later, and says removed.
func (m *machine) drop(now int64, i int, why refusal) {
	v := m.vips[i]
	v.held, v.yielding, v.lostWhy = false, false, why
	v.refreshAt, v.announceAt, v.gateAt, v.gateEnd = 0, 0, 0, 0
	m.giveBack(i)
	if why == agentGone || why == notFit {
		m.warn()
	}
	m.parkFor(now, i, why)
	m.endRouting(now, v, why)
	m.do(actDel, i)
	m.report()
}

// warn tells the peers of this node's health before the kernel is asked for anything: they can elect and place meanwhile. That an
// address is free they hear when it is off the link, as ever.
func (m *machine) warn() {
	for _, a := range m.out {
		if a.kind == actSend && !a.ans {
			return
		}
	}
	for i := range m.peers {
		m.out = append(m.out, action{kind: actSend, peer: i})
	}
}

// giveBack ends the wanting, and with it every grant we have.
func (m *machine) giveBack(i int) {
	v := m.vips[i]
	v.want, v.released, v.entitled = false, true, false
	v.probeN, v.probeAt = 0, 0
	v.own = lease{}
	for _, p := range m.peers {
		p.leases[i] = lease{}
	}
	m.chatty = true
}

// claim goes the last steps from a lease to an address.
func (m *machine) claim(now int64, i int) {
	v := m.vips[i]
	if v.placed.First && !(v.probed && v.probeEpoch == v.placed.Epoch) && !m.probe(now, i) {
		return
	}
	if !v.placed.First {
		m.do(actProbe, i) // one, without waiting; an answer is a conflict to defend against
	}
	v.held, v.onLink, v.lapsed, v.released = true, true, false, false
	v.heldSince, v.heldEpoch, v.lostWhy = now, v.placed.Epoch, mayAsk
	v.routing.passing = 0
	v.refreshAt = now + refreshEvery
	v.announceN, v.announceAt = 0, now
	m.do(actAdd, i)
	m.unpark(i)
	m.chatty = true
	m.report()
}

// probe asks in full who has the addresses, RFC 5227 section 2.1.1, and is true once nobody has answered.
func (m *machine) probe(now int64, i int) bool {
	v := m.vips[i]
	if now < v.probeAt {
		return false
	}
	if v.probeN < probeNum {
		m.do(actProbe, i)
		v.probeN++
		v.probeAt = now + probeInterval
		if v.probeN == probeNum {
			v.probeAt = now + probeWait
		}
		return false
	}
	v.probed, v.probeEpoch = true, v.placed.Epoch
	return true
}

// keep does what is due for a held VIP. Its lease was found valid in this very step.
func (m *machine) keep(now int64, i int) {
	v := m.vips[i]
	// Open the gate with each renewal, which wakes us anyway, and once more at the last moment that the lease allows: together
	// they outlive one lost heartbeat.
	end := m.leaseEnd(i)
	switch last := end - m.prof.gate - gateSlack; {
	case end-now < m.prof.gate:
		v.gateAt = 0
	case end-v.gateEnd >= m.prof.interval/2 || (v.gateAt > 0 && now >= v.gateAt):
		m.do(actGate, i)
		if v.gateEnd, v.gateAt = end, last; now >= last {
			v.gateAt = 0
		}
	}
	if now >= v.refreshAt {
		v.refreshAt = now + refreshEvery
		m.do(actRefresh, i)
	}
	v.announceAt = min(v.announceAt, now+m.announceGap())
	if now >= v.announceAt {
		m.do(actAnnounce, i)
		at := v.announceAt
		if v.announceN++; v.announceN < len(announcements) {
			at += announcements[v.announceN] - announcements[v.announceN-1]
		} else {
			at += m.announceGap()
		}
		if at <= now {
			at = now + retryEvery
		}
		v.announceAt = at
	}
}
