package vip

import "time"

// This file is a move from a holder that is well, as its guard sees it.
//
// The holder yields: it goes on answering, on the grants that it has, until the node that the VIP moves to asks for it, which that
// one does when it is ready to hand on what is not its own (flows.go and second.go, in its agent); or until those grants run out, which
// takes no longer than a lease. Then the addresses go from the link to the loopback: nobody hears of them any more, but what
// arrives for them is served. The VIP is parked. It stays so until the agent says that nothing is left, or until the time is over.
//
// A holder that is unfit or whose agent has died parks as well, for a moment: so that the resets of its connections can leave.

// parking is a VIP's time on the loopback.
type parking struct {
	until     int64 // 0: it is not parked
	since     int64
	refreshAt int64
	epoch     Epoch // at which it was held
	planned   bool
	guessed   bool // our agent has not said yet for how long
}

const (
	parkGuess = 10 * int64(time.Second) // for a move of which only a peer has told us; our own agent applies it within moments
	parkReset = int64(time.Second)      // for resets to leave
)

// yields is whether a held VIP is kept although it is placed elsewhere.
func (m *machine) yields(now int64, i int, why refusal) bool {
	v := m.vips[i]
	if !v.held || !v.planned || v.knownNode == m.self || (why != placedElsewhere && why != newerKnown) {
		return false
	}
	if !m.agentAlive || !m.fit || !v.linkUp {
		return false
	}
	j := m.peerIndex(v.knownNode)
	if j < 0 || m.peers[j].confirmed {
		return false
	}
	if c := &m.peers[j].claims[i]; c.flags&entryWant != 0 && c.epoch == v.known {
		return false
	}
	before := v.yielding
	v.yielding = true // for the end of the lease at which it is held
	end := m.leaseEnd(i)
	v.yielding = before
	return end > now
}

// parkFor parks a VIP that is dropped for that reason, if there is something to be served or said after it. The caller removes the
// addresses from the link after that.
func (m *machine) parkFor(now int64, i int, why refusal) {
	v := m.vips[i]
	if v.standsBy() {
		return
	}
	p := parking{since: now, refreshAt: now + refreshEvery, epoch: v.heldEpoch}
	switch why {
	case placedElsewhere, newerKnown:
		if !v.planned || v.knownNode == m.self || !m.agentAlive {
			return
		}
		p.planned, p.guessed, p.until = true, true, now+parkGuess
		p.told(now, v.placed)
	case agentGone, notFit:
		p.until = now + parkReset
	default:
		return
	}
	v.park = p
	m.do(actPark, i)
}

// told takes the word of our agent for how long a move may take.
func (p *parking) told(now int64, pl Placement) {
	if p.until > 0 && p.guessed && pl.Drain > 0 && pl.Epoch.Compare(p.epoch) > 0 {
		p.guessed, p.until = false, max(p.since+int64(pl.Drain), now+1)
	}
}

// parked does what is due for a parked VIP.
func (m *machine) parked(now int64, i int) {
	p := &m.vips[i].park
	if p.until == 0 {
		return
	}
	if p.planned && m.deserted { // and with the agent went everything that was served
		p.planned, p.until = false, min(p.until, now+parkReset)
		m.chatty = true
		m.report()
	}
	switch {
	case now >= p.until:
		m.unpark(i)
	case now >= p.refreshAt:
		p.refreshAt = now + refreshEvery
		m.do(actPark, i)
	}
}

// unpark ends a parking, if there is one.
func (m *machine) unpark(i int) {
	v := m.vips[i]
	if v.park.until == 0 {
		return
	}
	v.park = parking{}
	m.do(actUnpark, i)
	m.chatty = true
	m.report()
}

// drained says that nothing is left of what was established when the VIP was held at that epoch.
func (m *machine) drained(now int64, i int, e Epoch) {
	if p := &m.vips[i].park; p.until > 0 && p.epoch == e {
		m.unpark(i)
		m.step(now)
	}
}
