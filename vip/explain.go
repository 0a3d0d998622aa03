package vip

import (
	"fmt"
	"net"
	"slices"
	"time"
)

// explain says in a few lines why VIP i is held here or is not.
func (m *machine) explain(now int64, i int) []string {
	var l prose
	m.explainTo(&l, now, i)
	return l.strings()
}

func (m *machine) explainTo(l *prose, now int64, i int) {
	v := m.vips[i]
	why := m.refusal(now, i)
	switch {
	case v.held && v.standsBy():
		l.say("this node has its lease at epoch %v for %v, and not the address: that is the VRRP group's active router's", v.heldEpoch, span(now-v.heldSince))
	case v.held:
		l.say("held here at epoch %v for %v; the lease has %v left", v.heldEpoch, span(now-v.heldSince), span(m.leaseEnd(i)-now))
	case v.onLink:
		l.say("being taken off the link: %s", m.text(v.lostWhy, i))
	case why != mayAsk:
		l.say("not held here: %s", m.text(why, i))
		if h := m.hindrance(now, i); (why == placedElsewhere || why == newerKnown) && h != mayAsk && !(m.pair.on && h == hearsNobody) {
			l.say("could not take it either: %s", m.text(h, i))
		}
	case v.probeAt > now && v.probeN > 0:
		l.say("probing the network before the first claim: probe %d of %d is out, nobody has answered", v.probeN, probeNum)
	case v.probeAt > now:
		l.say("not held: somebody else answers for the address; the next probe follows in %v", span(v.probeAt-now))
	default:
		l.say("asking for it at epoch %v: waiting for grants", v.placed.Epoch)
	}
	if v.yielding {
		l.say("kept for %s until it asks: the move is planned", m.nameOf(v.knownNode))
	}
	if v.park.until > now {
		l.say("what was established here is served for another %v at most", span(v.park.until-now))
	}
	if v.lostWhy != mayAsk && v.lostWhy != why && !v.held {
		l.say("last lost because %s", m.text(v.lostWhy, i))
	}
	if v.known != (Epoch{}) {
		l.say("newest placement: on %s, epoch %v", m.nameOf(v.knownNode), v.known)
	}
	if v.promUntil > now {
		l.say("this node has promised it to %s (epoch %v) for another %v", m.nameOf(v.promised), v.promEpoch, span(v.promUntil-now))
	}
	if v.want {
		n := 0
		line := func(name string, share lease) {
			if share.epoch == v.placed.Epoch && share.until > now {
				n++
				l.say("granted by %s for another %v", name, span(share.until-now))
			} else {
				l.say("not granted by %s", name)
			}
		}
		if m.selfVoter {
			line(m.name, v.own)
		}
		for _, p := range m.peers {
			if p.voter {
				line(p.name, p.leases[i])
			}
		}
		if m.pair.on && (v.held || v.entitled) && m.pair.available {
			n++
			l.say("the pair is available: each holds on by itself")
		} else if left := m.tieShare(i) - now; m.pair.on && left > 0 {
			n++
			l.say("the tie-break answers: good for another %v", span(left))
		}
		l.say("%d grants, %d needed", n, m.quorum())
	}
	if t := &v.try; t.askAt > 0 || t.left > 0 {
		l.say("%s", m.trying(now, i))
	} else if m.pair.on && !v.held && m.peers[0].suspect && !m.pair.reaches {
		l.say("%s is not heard, and the tie-break does not answer: nothing is taken", m.peers[0].name)
	}
	for _, p := range m.peers {
		if p.ever && !p.suspect && p.claims[i].flags&entryHeld != 0 {
			l.say("%s says that it holds it (epoch %v)", p.name, p.claims[i].epoch)
		}
	}
	for _, f := range v.conflicts {
		l.say("%v was claimed by %v, %d times, last %v ago", f.addr, net.HardwareAddr(f.mac[:]), f.count, span(now-f.at))
	}
}

// text is a refusal in words, for VIP i as it is now.
func (m *machine) text(r refusal, i int) string {
	v := m.vips[i]
	switch r {
	case notPlaced:
		return "it is not placed on any node yet"
	case placedElsewhere:
		return fmt.Sprintf("it is placed on %s", m.nameOf(v.knownNode))
	case newerKnown:
		return fmt.Sprintf("a newer placement is known (epoch %v on %s; our agent has applied %v)", v.known, m.nameOf(v.knownNode), v.placed.Epoch)
	case isWitness:
		return "this node is a witness: it grants and never holds"
	case agentGone:
		if !m.agentAlive && m.unfitWhy != "" {
			return m.unfitWhy
		}
		return "the agent is gone"
	case notFit:
		if m.unfitWhy != "" {
			return "this node is not fit: " + m.unfitWhy
		}
		return "this node was not fit"
	case keepsSilent:
		return "the guard has just started and keeps silent until old promises have run out"
	case leftBehind:
		return fmt.Sprintf("%s says that the cluster was recovered without this node (generation %d)", m.former.heard.By, m.former.heard.Generation)
	case linkDown:
		if v.noLink != "" {
			return v.noLink
		}
		return "its interface is missing or down"
	case notTaken:
		return "the kernel did not take the address: " + v.noLink
	case outranked:
		return "the other node claims it, and has the lower MAC"
	case hearsNobody:
		switch {
		case m.pair.on && m.pair.reaches:
			return "the other node of the pair is not heard, so the address has to be taken"
		case m.pair.on:
			return "the other node of the pair is not heard, and the tie-break does not vouch for it"
		}
		return "no majority of voters is heard"
	case leaseOver:
		if m.pair.on {
			return "the lease ran out: neither the other node nor the tie-break answered"
		}
		return "the lease ran out: no majority of voters was heard"
	case grantsOver:
		return "the lease ran out: no majority of voters granted it in time"
	}
	return "nothing stands against it"
}

func (m *machine) nameOf(id nodeID) string {
	if id == m.self {
		return m.name
	}
	if i := m.peerIndex(id); i >= 0 {
		return m.peers[i].name
	}
	return "a node that is not known here"
}

// span is a duration as a person reads it.
func span(d int64) time.Duration {
	t := time.Duration(d)
	switch {
	case t > 10*time.Second:
		return t.Round(time.Second)
	case t > time.Second:
		return t.Round(10 * time.Millisecond)
	}
	return t.Round(time.Millisecond)
}

var profileNames = [...]string{"", fast.name, safe.name, far.name}

func profileCode(name string) uint8 {
	for i, n := range profileNames {
		if n == name {
			return uint8(i)
		}
	}
	return 0
}

// ownerOf is the peer that holds, or would hold, addresses under a MAC; nil: none.
func (m *machine) ownerOf(mac [6]byte) *peer {
	for _, p := range m.peers {
		if p.mac == mac || slices.ContainsFunc(p.claims, func(c claim) bool { return c.mac == mac }) {
			return p
		}
	}
	return nil
}

func (p profile) describe() string {
	return fmt.Sprintf("%s: %v x %.4g, lease %v", p.name, time.Duration(p.interval), float64(p.promise)/float64(p.interval), time.Duration(p.lease).Round(time.Millisecond))
}
