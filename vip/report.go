package vip

import (
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// report is what the agent is told, filled again and again in the same memory, which a setup makes anew: it is as large as what it tells of,
// and comes twice a second. The zero report is ready.
type report struct {
	wireStatus
	Explain map[string]*prose // in the place of State.Explain: as they are said, text that nobody keeps needs no strings

	// What is said in the same words every time.
	macs  map[[6]byte]string
	addrs map[netip.AddrPort]string
	prof  profile
	said  string // of prof
}

const macsMax = 1024 // kept as text; strangers may have any number

func (r *report) mac(mac [6]byte) string {
	s, ok := r.macs[mac]
	if !ok {
		if r.macs == nil || len(r.macs) >= macsMax {
			r.macs = map[[6]byte]string{}
		}
		s = string(appendMAC(nil, mac[:]))
		r.macs[mac] = s
	}
	return s
}

// addr is for those of a setup alone.
func (r *report) addr(a netip.AddrPort) string {
	s, ok := r.addrs[a]
	if !ok {
		s = a.String()
		again(&r.addrs)[a] = s
	}
	return s
}

// again returns the map, made if there is none.
func again[K comparable, V any](m *map[K]V) map[K]V {
	if *m == nil {
		*m = map[K]V{}
	}
	return *m
}

func cleared[K comparable, V any](m *map[K]V) map[K]V {
	clear(*m)
	return again(m)
}

// status is what the machine has to tell.
func (m *machine) status(now int64) *wireStatus {
	var r report
	m.fillReport(now, &r)
	w := &r.wireStatus
	w.Explain = map[string][]string{}
	for name, l := range r.Explain {
		w.Explain[name] = l.strings()
	}
	return w
}

func (m *machine) fillReport(now int64, r *report) {
	if r.said == "" || r.prof != m.prof {
		r.prof, r.said = m.prof, m.prof.describe()
	}
	w := &r.wireStatus
	w.State = State{
		Reads: m.reads,
		Fit:   m.agentAlive && m.fit, Silent: m.silent(now), RealTime: m.realTime,
		Profile: r.said, ProfileWhy: m.profileWhy(now), Lateness: time.Duration(m.late.worst()), VotersIndex: m.votersIndex, Confirmed: m.votersIndex,
		Held: cleared(&w.Held), Parked: cleared(&w.Parked), Unable: cleared(&w.Unable), Newest: w.Newest,
		Peers:     again(&w.Peers), // by nodes, which a setup names: each is overwritten
		Conflicts: w.Conflicts[:0], Links: w.Links[:0], Routers: w.Routers, Interfaces: w.Interfaces,
	}
	cleared(&w.Ages)
	w.ConflictAges = w.ConflictAges[:0]
	if !w.Fit {
		w.Unfit = m.unfitWhy
	}
	if w.Pair = m.standing(now); w.Pair == nil {
		w.Newest = nil
	}
	if m.superseded() {
		heard := m.former.heard
		w.Superseded = &heard
	}
	for i, v := range m.vips {
		m.reportVIP(now, i, v, r)
	}
	for _, p := range m.peers {
		m.reportPeer(now, p, r)
	}
}

func (m *machine) reportVIP(now int64, i int, v *vip, r *report) {
	w := &r.wireStatus
	l := r.Explain[v.name]
	if l == nil {
		l = &prose{}
		again(&r.Explain)[v.name] = l
	}
	l.reset()
	if s, ok := w.Routers[v.name]; ok {
		l.say("%s", s.String())
	}
	m.explainTo(l, now, i)
	if w.Pair != nil && v.known != (Epoch{}) {
		again(&w.Newest)[v.name] = Newest{Epoch: v.known, Node: m.nameOf(v.knownNode)}
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
		c := Conflict{VIP: v.name, Address: f.addr, MAC: r.mac(f.mac), Count: f.count, Stranger: true}
		if p := m.ownerOf(f.mac); p != nil {
			c.Node, c.Stranger = p.name, false
		}
		w.Conflicts = append(w.Conflicts, c)
		w.ConflictAges = append(w.ConflictAges, time.Duration(now-f.at))
	}
}

func (m *machine) reportPeer(now int64, p *peer, r *report) {
	w := &r.wireStatus
	old := w.Peers[p.name]
	s := PeerState{
		Reads: p.reads, Format: int(p.format), NotUnderstood: m.unreadWhy(now, p),
		Voter: p.voter, Witness: p.witness, Alive: p.ever && !p.suspect, ConfirmedDead: p.confirmed, Age: -1,
		Lateness: time.Duration(p.lateness), RTT: time.Duration(p.rtt.least()), VotersIndex: p.votersIndex, Applied: p.applied,
		Held: old.Held[:0], Parked: old.Parked[:0], Unable: old.Unable[:0], Links: old.Links[:0], MACs: old.MACs,
	}
	clear(s.MACs)
	if p.ever {
		s.Age = time.Duration(now - p.heard)
		s.MAC = r.mac(p.mac)
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
		if c.mac != [6]byte{} && c.flags&(entryHeld|entryParked) != 0 { // those of all VIPs of all nodes would not fit a packet
			mac := c.mac
			if m.vips[i].router != 0 {
				mac = p.mac // by which the node itself can be reached
			}
			again(&s.MACs)[m.vips[i].name] = r.mac(mac)
		}
		if !p.buried && c.flags&entryParked != 0 { // hung or unfit it still has its connections
			s.Parked = append(s.Parked, m.vips[i].name)
		}
		if c.flags&entryUnable != 0 {
			s.Unable = append(s.Unable, m.vips[i].name)
		}
		claims = claims || c.flags&(entryHeld|entryWant) != 0
	}
	for k := range m.ways(p) {
		l := &p.links[k]
		pl := PeerLink{Addr: r.addr(p.addrs[k]), Up: l.up, Age: -1, RTT: time.Duration(l.rtt.least())}
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

// report tells the agent.
func (g *guard) report() {
	now := g.now()
	g.reportAt, g.dirty = now+reportEvery, false
	c := g.ctl.agent()
	if c == nil || !g.m.configured {
		return
	}
	r := &g.told
	w := &r.wireStatus
	clear(w.Routers)
	for i, v := range g.m.vips {
		if s, ok := g.standing(i); ok {
			again(&w.Routers)[v.name] = s
		}
	}
	g.m.fillReport(now, r)
	w.PID, w.Version, w.Gate, w.Locked, w.Listen = os.Getpid(), g.opts.Version, g.gate.String(), g.locked, r.addr(g.beats[0].at)
	w.Dropped = g.dropped
	for k := range g.m.links {
		w.Links = append(w.Links, Link{Addr: r.addr(g.beats[k].at), Problem: g.beats[k].problem()})
	}
	for k := range g.ties {
		if w.Pair != nil && k < len(w.Pair.Tiebreak) {
			w.Pair.Tiebreak[k].Addr = g.ties[k].addr.String()
		}
	}
	w.Connected = true
	cleared(&w.Interfaces)
	for i, v := range g.m.vips {
		if d := g.devs[i]; d != nil {
			if d.below != nil {
				d = d.below // where packets of a virtual MAC come in, too
			}
			in := Interface{Name: d.name}
			if len(d.mac) == 6 {
				in.MAC = r.mac([6]byte(d.mac))
			} else {
				in.MAC = d.mac.String()
			}
			w.Interfaces[v.name] = in
		}
	}
	g.ctl.tell(c, r)
}

// tell sends a report.
func (s *controlServer) tell(g *guest, r *report) bool {
	s.out = s.json.append(append(s.out[:0], `{"state":`...), r)
	s.out = append(s.out, '}')
	return len(s.out) <= controlMax && unix.Send(g.fd, s.out, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL) == nil
}
