package vip

import (
	"fmt"
	"net"
	"slices"
	"time"
)

// explain says in a few lines why VIP i is held here or is not.
func (m *machine) explain(now int64, i int) []string {
	v := m.vips[i]
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	why := m.refusal(now, i)
	switch {
	case v.held && v.standsBy():
		say("this node has its lease at epoch %v for %v, and not the address: that is the VRRP group's active router's", v.heldEpoch, span(now-v.heldSince))
	case v.held:
		say("held here at epoch %v for %v; the lease has %v left", v.heldEpoch, span(now-v.heldSince), span(m.leaseEnd(i)-now))
	case v.onLink:
		say("being taken off the link: %s", m.text(v.lostWhy, i))
	case why != mayAsk:
		say("not held here: %s", m.text(why, i))
	case v.probeAt > now && v.probeN > 0:
		say("probing the network before the first claim: probe %d of %d is out, nobody has answered", v.probeN, probeNum)
	case v.probeAt > now:
		say("not held: somebody else answers for the address; the next probe follows in %v", span(v.probeAt-now))
	default:
		say("asking for it at epoch %v: waiting for grants", v.placed.Epoch)
	}
	if v.yielding {
		say("kept for %s until it asks: the move is planned", m.nameOf(v.knownNode))
	}
	if v.park.until > now {
		say("what was established here is served for another %v at most", span(v.park.until-now))
	}
	if v.lostWhy != mayAsk && v.lostWhy != why && !v.held {
		say("last lost because %s", m.text(v.lostWhy, i))
	}
	if v.known != (Epoch{}) {
		say("newest placement: on %s, epoch %v", m.nameOf(v.knownNode), v.known)
	}
	if v.promUntil > now {
		say("this node has promised it to %s (epoch %v) for another %v", m.nameOf(v.promised), v.promEpoch, span(v.promUntil-now))
	}
	if v.want {
		n := 0
		line := func(name string, l lease) {
			if l.epoch == v.placed.Epoch && l.until > now {
				n++
				say("granted by %s for another %v", name, span(l.until-now))
			} else {
				say("not granted by %s", name)
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
			say("the pair is available: each holds on by itself")
		} else if left := m.tieShare(i) - now; m.pair.on && left > 0 {
			n++
			say("the tie-break answers: good for another %v", span(left))
		}
		say("%d grants, %d needed", n, m.quorum())
	}
	if t := &v.try; t.askAt > 0 || t.left > 0 {
		say("%s", m.trying(now, i))
	} else if m.pair.on && !v.held && m.peers[0].suspect && !m.pair.reaches {
		say("%s is not heard, and the tie-break does not answer: nothing is taken", m.peers[0].name)
	}
	for _, p := range m.peers {
		if p.ever && !p.suspect && p.claims[i].flags&entryHeld != 0 {
			say("%s says that it holds it (epoch %v)", p.name, p.claims[i].epoch)
		}
	}
	for _, f := range v.conflicts {
		say("%v was claimed by %v, %d times, last %v ago", f.addr, net.HardwareAddr(f.mac[:]), f.count, span(now-f.at))
	}
	return out
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

// status is what the agent is told.
func (m *machine) status(now int64) *wireStatus {
	w := &wireStatus{State: State{
		Reads: m.reads,
		Fit:   m.agentAlive && m.fit, Silent: m.silent(now), RealTime: m.realTime,
		Profile: m.prof.describe(), ProfileWhy: m.profileWhy(now), Lateness: time.Duration(m.late.worst()), VotersIndex: m.votersIndex, Confirmed: m.votersIndex,
		Held: map[string]Holding{}, Parked: map[string]Parking{}, Peers: map[string]PeerState{}, Explain: map[string][]string{},
		Unable: map[string]string{},
	}, Ages: map[string]time.Duration{}}
	if !w.Fit {
		w.Unfit = m.unfitWhy
	}
	w.Pair = m.standing(now)
	if m.superseded() {
		heard := m.former.heard
		w.Superseded = &heard
	}
	for i, v := range m.vips {
		w.Explain[v.name] = m.explain(now, i)
		if w.Pair != nil && v.known != (Epoch{}) {
			if w.Newest == nil {
				w.Newest = map[string]Newest{}
			}
			w.Newest[v.name] = Newest{Epoch: v.known, Node: m.nameOf(v.knownNode)}
		}
		if m.unable(now, i) {
			why := linkDown
			if v.linkUp {
				why = notTaken
			}
			w.Unable[v.name] = m.text(why, i)
		}
		if v.held {
			w.Held[v.name] = Holding{Epoch: v.heldEpoch, LeaseLeft: time.Duration(m.leaseEnd(i) - now)}
			w.Ages[v.name] = time.Duration(now - v.heldSince)
		}
		if p := v.park; p.until > 0 {
			w.Parked[v.name] = Parking{Epoch: p.epoch, Planned: p.planned, For: time.Duration(now - p.since), Left: time.Duration(p.until - now)}
		}
		for _, f := range v.conflicts {
			c := Conflict{VIP: v.name, Address: f.addr, MAC: net.HardwareAddr(f.mac[:]).String(), Count: f.count, Stranger: true}
			if p := m.ownerOf(f.mac); p != nil {
				c.Node, c.Stranger = p.name, false
			}
			w.Conflicts = append(w.Conflicts, c)
			w.ConflictAges = append(w.ConflictAges, time.Duration(now-f.at))
		}
	}
	for _, p := range m.peers {
		s := PeerState{
			Reads: p.reads, Format: int(p.format), NotUnderstood: m.unreadWhy(now, p),
			Voter: p.voter, Witness: p.witness, Alive: p.ever && !p.suspect, ConfirmedDead: p.confirmed, Age: -1,
			Lateness: time.Duration(p.lateness), RTT: time.Duration(p.rtt.least()), VotersIndex: p.votersIndex, Applied: p.applied,
		}
		if p.ever {
			s.Age = time.Duration(now - p.heard)
			s.MAC = net.HardwareAddr(p.mac[:]).String()
			if int(p.profile) < len(profileNames) {
				s.Profile = profileNames[p.profile]
			}
		}
		if p.ever { // as it said last: that we lost sight of it makes it neither unfit nor dead, ConfirmedDead does
			s.Fit, s.AgentAlive = p.flags&flagFit != 0, p.flags&flagAgent != 0
			s.Silent = p.flags&flagSilent != 0
			s.Resigned = p.flags&(flagResigned|flagOrphan) != 0
		}
		claims := false
		for i, c := range p.claims {
			if !p.confirmed && c.flags&entryHeld != 0 {
				s.Held = append(s.Held, m.vips[i].name)
			}
			if c.mac != [6]byte{} {
				if s.MACs == nil {
					s.MACs = map[string]string{}
				}
				mac := c.mac
				if m.vips[i].router != 0 {
					mac = p.mac // by which the node itself can be reached
				}
				s.MACs[m.vips[i].name] = net.HardwareAddr(mac[:]).String()
			}
			if !(p.suspect && p.confirmed) && c.flags&entryParked != 0 { // hung or unfit it still has its connections
				s.Parked = append(s.Parked, m.vips[i].name)
			}
			if c.flags&entryUnable != 0 {
				s.Unable = append(s.Unable, m.vips[i].name)
			}
			claims = claims || c.flags&(entryHeld|entryWant) != 0
		}
		for k := range m.ways(p) {
			l := &p.links[k]
			pl := PeerLink{Addr: p.addrs[k].String(), Up: l.up, Age: -1, RTT: time.Duration(l.rtt.least())}
			if l.seq != 0 {
				pl.Age = time.Duration(now - l.heard)
			}
			s.Links = append(s.Links, pl)
		}
		// Whoever may still hold counts; whoever was silent for the longest promise holds nothing.
		if p.ever && claims && now-p.heard <= maxPromise {
			w.Confirmed = min(w.Confirmed, p.votersIndex)
		}
		w.Peers[p.name] = s
	}
	return w
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
