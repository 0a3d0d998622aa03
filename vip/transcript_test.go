package vip

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/internal/golden"
)

// TestTranscripts plays testdata/*.txt against one machine, n1 of three voters n1, n2, n3, with one VIP "public". A block is
// commands, ----, and what the machine then did; times are milliseconds since the start.
//
//	start [norealtime] [witness] [links=N]   a new guard; its silence is over unless "young" is given; "fresh" has just been told of its peers
//	start pair=tiebreak|available [disk=N]   one of two, n1 and n2, without a third voter; generation N is on its disk
//	start vrrp=INTERVAL              the address is in a VRRP group, version 3, in which we have priority 100
//	start alone                      n1 has no peers; `pair tiebreak|available` makes it a pair with n2, which is new;
//	                                 with late=D the guard has not run for D before
//	tie up|down                      from now on the tie-break answers, or does not
//	disk full|well                   from now on the generation can't be written, or can
//	agent up|hung|down               fit [why not]        interface up|down
//	place NODE EPOCH [first|drain=D] a setup with this placement (EPOCH is the log index, or generation.index); with drain it is a planned move
//	hear NODE [WORD..] [EPOCH on NODE]   a heartbeat that answers our newest; words: want held released granted planned parked active, agent fit
//	                                 orphan unfit silent resigned answer, suspects=NODE, life=N, deaf (answers nothing), echo=-N (answers an
//	                                 older one), seq=N (its message N, however late it arrives)
//	chat DURATION NODE [WORD..]      advance, while NODE answers every heartbeat of ours like that; several with +
//	advance DURATION                 time passes, ticks are served
//	stop DURATION                    time passes and the guard does not run
//	late DURATION                    it woke up late
//	rtt DURATION                     from now on who chats answers after so long
//	link K NODE..                    from now on link K delivers what these nodes say, and no others'
//	profile                          which one, and why
//	links                            how the peers are heard
//	broken WHY                       the kernel does not take the address
//	foreign MAC                      somebody claims the address; of a pair, n1 has MAC 5 and n2 MAC 2
//	lost                             the address was taken off the link by somebody else
//	drained EPOCH                    the agent says that nothing is left of what was established at that epoch
//	router active|backup             what our router in the VRRP group has become
//	group none|INTERVAL              the address leaves the VRRP group, or enters one
//	recovered NODE GENERATION        NODE says that the cluster was recovered without n1
//	explain                          state
func TestTranscripts(t *testing.T) {
	golden.Each(t, "testdata/*.txt", 20, playTranscript)
}

func playTranscript(t *testing.T, text string) string {
	s := &script{t: t}
	var out strings.Builder
	inOutput := false
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "----":
			inOutput = true
			fmt.Fprintln(&out, line)
			for _, l := range s.out {
				fmt.Fprintln(&out, l)
			}
			s.out = nil
		case inOutput && line != "":
		case line == "":
			inOutput = false
			fmt.Fprintln(&out)
		default:
			fmt.Fprintln(&out, line)
			if !strings.HasPrefix(line, "#") {
				s.command(strings.Fields(line))
			}
		}
	}
	return out.String()
}

// script drives one machine.
type script struct {
	t    *testing.T
	m    *machine
	now  int64
	zero int64
	out  []string

	setup  Setup
	seqs   map[string]uint64
	lives  map[string]uint64
	said   map[nodeID]string // what each peer was last told, to print what is new only
	gated  bool
	chats  [][]string
	echoed map[string]uint64
	rtt    int64
	deaf   [MaxLinks]map[string]bool // by link: whom it does not deliver
	tie    bool                      // the tie-break answers
	full   bool                      // the disk
}

func (s *script) say(format string, args ...any) {
	s.out = append(s.out, fmt.Sprintf("%6.1f  %s", float64(s.now-s.zero)/1e6, fmt.Sprintf(format, args...)))
}

func (s *script) duration(text string) int64 {
	d, err := time.ParseDuration(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return int64(d)
}

func (s *script) command(f []string) {
	s.t.Helper()
	m := s.m
	switch f[0] {
	case "start":
		*s = script{t: s.t, now: int64(time.Hour), seqs: map[string]uint64{}, lives: map[string]uint64{}, said: map[nodeID]string{}, echoed: map[string]uint64{}}
		s.zero = s.now
		begin := s.now - maxPromise
		if slices.Contains(f, "young") {
			begin = s.now
		}
		s.m = newMachine(begin, 4711, !slices.Contains(f, "norealtime"))
		also := make([]netip.AddrPort, 0, MaxLinks)
		var pair *Pair
		for _, w := range f {
			if n, ok := strings.CutPrefix(w, "links="); ok {
				also = also[:n[0]-'1']
			}
			if mode, ok := strings.CutPrefix(w, "pair="); ok {
				pair = &Pair{Available: mode == "available", Tiebreak: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, File: "pair.json"}
			}
			if n, ok := strings.CutPrefix(w, "disk="); ok {
				s.m.remembered(uint64(n[0]-'0'), true, "")
			}
		}
		s.setup = Setup{Self: "n1", Also: also, Generation: 1, Keys: [][]byte{noticeKey}, SelfVoter: true, Witness: slices.Contains(f, "witness"),
			Peers: []Peer{{Name: "n2", Voter: true, Also: also}, {Name: "n3", Voter: true, Also: also}},
			VIPs:  []VIP{{Name: "public", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.10/24")}}}}
		for _, w := range f {
			if every, ok := strings.CutPrefix(w, "vrrp="); ok {
				s.setup.VIPs[0].VRRP = s.group(every)
			}
		}
		if slices.Contains(f, "alone") {
			s.setup.Peers = nil
		}
		if s.tie = true; pair != nil {
			s.setup.Pair, s.setup.Peers = pair, s.setup.Peers[:1]
		}
		s.m.configure(s.now, &s.setup)
		if begin < s.now && !slices.Contains(f, "fresh") { // it has known its peers for long
			s.m.listenTo = 0
		}
		if pair != nil {
			s.m.mac, s.m.vips[0].mac = nodeMAC('5'), nodeMAC('5')
		}
		s.m.link(s.now, 0, true, "")
	case "pair":
		if late, ok := strings.CutPrefix(f[len(f)-1], "late="); ok {
			s.now += s.duration(late)
		}
		s.setup.Pair = &Pair{Available: f[1] == "available", Tiebreak: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, File: "pair.json"}
		s.setup.Peers = []Peer{{Name: "n2"}}
		m.configure(s.now, &s.setup)
	case "tie":
		s.tie = f[1] == "up"
	case "disk":
		s.full = f[1] == "full"
	case "agent":
		m.deserted = f[1] == "down"
		m.local(s.now, f[1] == "up", f[1] == "up", "")
	case "fit":
		m.local(s.now, true, len(f) == 1, strings.Join(f[1:], " "))
	case "router":
		m.routes(0, f[1] == "active")
	case "group":
		vip := &s.setup.VIPs[0]
		if vip.VRRP = nil; f[1] != "none" {
			vip.VRRP = s.group(f[1])
		}
		m.configure(s.now, &s.setup)
	case "interface":
		m.link(s.now, 0, f[1] == "up", "")
	case "place":
		s.setup.Placements = []Placement{{VIP: "public", Node: f[1], Epoch: s.epoch(f[2]), First: slices.Contains(f, "first")}}
		if drain, ok := strings.CutPrefix(f[len(f)-1], "drain="); ok {
			s.setup.Placements[0].Drain = time.Duration(s.duration(drain))
		}
		m.configure(s.now, &s.setup)
	case "hear":
		s.hear(f[1:])
		m.tick(s.now)
	case "recovered":
		g, _ := strconv.ParseUint(f[2], 10, 64)
		for _, b := range noticesOf(f[1], g, "n1") {
			m.notice(s.now, b)
		}
	case "chat":
		s.chats = nil
		for _, c := range strings.Split(strings.Join(f[2:], " "), "+") {
			s.chats = append(s.chats, strings.Fields(c))
		}
		s.advance(s.duration(f[1]))
		s.chats = nil
	case "advance":
		s.advance(s.duration(f[1]))
	case "stop":
		s.now += s.duration(f[1])
		m.tick(s.now)
	case "late":
		m.woke(s.now, s.duration(f[1]))
	case "rtt":
		s.rtt = s.duration(f[1])
	case "link":
		k := f[1][0] - '1'
		s.deaf[k] = map[string]bool{"n2": true, "n3": true}
		for _, n := range f[2:] {
			s.deaf[k][n] = false
		}
	case "profile":
		st := m.status(s.now)
		s.say("%s", st.Profile)
		if st.ProfileWhy != "" {
			s.say("%s", st.ProfileWhy)
		}
	case "links":
		st := m.status(s.now)
		for _, n := range []string{"n2", "n3"} {
			for k, l := range st.Peers[n].Links {
				s.say("%s over link %d: up %v, age %v, rtt %v; alive %v", n, k+1, l.Up, l.Age, l.RTT, st.Peers[n].Alive)
			}
		}
	case "parked":
		st := m.status(s.now)
		for _, n := range []string{"n2", "n3"} {
			p := st.Peers[n]
			s.say("%s: parked %v, dead %v", n, p.Parked, p.ConfirmedDead)
		}
	case "broken":
		m.broken(s.now, 0, strings.Join(f[1:], " "))
	case "foreign":
		m.foreign(s.now, 0, netip.MustParseAddr("192.0.2.10"), nodeMAC(f[1][0]))
	case "lost":
		m.lost(s.now, 0)
	case "drained":
		var index uint64
		fmt.Sscan(f[1], &index)
		m.drained(s.now, 0, Epoch{1, index})
	case "explain":
		for _, l := range m.explain(s.now, 0) {
			s.say("%s", l)
		}
	default:
		s.t.Fatalf("unknown command %q", f)
	}
	s.act()
}

func (s *script) group(interval string) *VRRP {
	return &VRRP{ID: 51, Version: 3, Priority: 100, Interval: time.Duration(s.duration(interval)), Preempt: true}
}

func (s *script) hear(f []string) {
	node := f[0]
	if s.lives[node] == 0 {
		s.lives[node] = 100
	}
	p := s.m.peers[s.m.peerIndex(idOf(node))]
	msg := &message{from: idOf(node), to: idOf("n1"), echoBoot: 4711, echoSeq: p.seqOut, interval: s.m.prof.interval, promise: s.m.prof.promise, flags: flagAgent | flagFit}
	e := entry{vip: vipKey("public")}
	seq := uint64(0)
	if s.setup.Pair != nil {
		e.mac, msg.mac = nodeMAC(node[1]), nodeMAC(node[1])
	}
	for i := 1; i < len(f); i++ {
		words := map[string]entryFlags{"want": entryWant, "held": entryHeld, "released": entryReleased, "granted": entryGranted, "planned": entryPlanned, "parked": entryParked, "active": entryActive}
		flags := map[string]msgFlags{"orphan": flagOrphan, "silent": flagSilent, "resigned": flagResigned, "answer": flagAnswer}
		switch w := f[i]; {
		case words[w] != 0:
			e.flags |= words[w]
		case w == "unfit":
			msg.flags &^= flagFit
		case flags[w] != 0:
			msg.flags |= flags[w]
			if w == "orphan" {
				msg.flags &^= flagAgent
			}
			if w == "orphan" || w == "silent" {
				msg.flags &^= flagFit
			}
		case strings.HasPrefix(w, "suspects="):
			msg.views[0], msg.nviews = view{node: idOf(w[9:]), suspect: true}, 1
		case strings.HasPrefix(w, "echo=-"):
			var n uint64
			fmt.Sscan(w[6:], &n)
			msg.echoSeq -= n
		case strings.HasPrefix(w, "life="):
			fmt.Sscan(w[5:], new(int))
			s.lives[node]++
			s.seqs[node] = 0
		case strings.HasPrefix(w, "seq="):
			fmt.Sscan(w[4:], &seq)
		case w == "deaf":
			msg.echoSeq = 0
		case w == "on":
			e.node = idOf(f[i+1])
			i++
		default:
			e.epoch = s.epoch(w)
		}
	}
	if e.epoch.Index != 0 {
		msg.entries[0], msg.nentries = e, 1
	}
	if seq == 0 {
		seq = s.seqs[node] + 1
	}
	s.seqs[node] = max(s.seqs[node], seq)
	msg.seq, msg.boot = seq, s.lives[node]
	first := true
	for k := range 1 + len(s.setup.Also) {
		if s.deaf[k][node] {
			continue
		}
		msg.links[k], msg.nlinks = linkEcho{seq: uint32(msg.echoSeq), delay: msg.echoDelay}, k+1
		if why := s.m.receive(s.now, k, msg); why != "" && first {
			s.say("not taken from %s: %s", node, why)
		}
		first = false
	}
}

// epoch reads an index of generation 1, or GENERATION.INDEX.
func (s *script) epoch(w string) Epoch {
	e := Epoch{Generation: 1}
	into := []any{&e.Index}
	if strings.Contains(w, ".") {
		into = []any{&e.Generation, &e.Index}
	}
	if _, err := fmt.Sscan(strings.Replace(w, ".", " ", 1), into...); err != nil {
		s.t.Fatalf("epoch %q: %v", w, err)
	}
	return e
}

func nodeMAC(last byte) [6]byte { return [6]byte{2, 0, 0, 0, 0, last} }

// advance serves the machine's ticks. A peer that chats answers each of our messages half a millisecond later.
func (s *script) advance(d int64) {
	end := s.now + d
	for {
		s.act()
		next := min(max(s.m.next(), s.now+ms/10), end)
		answer := func(c []string) (at int64, due bool) {
			p := s.m.peers[s.m.peerIndex(idOf(c[0]))]
			at = p.sent[p.seqOut%sentRing].at + max(s.rtt, ms/2)
			return at, p.seqOut > s.echoed[c[0]]
		}
		for _, c := range s.chats {
			if at, due := answer(c); due {
				next = min(next, max(at, s.now))
			}
		}
		s.now = next
		for _, c := range s.chats {
			if at, due := answer(c); due && s.now >= at {
				s.echoed[c[0]] = s.m.peers[s.m.peerIndex(idOf(c[0]))].seqOut
				s.hear(append(slices.Clone(c), "answer"))
			}
		}
		s.m.woke(s.now, 0)
		s.m.tick(s.now)
		if s.now >= end {
			s.act()
			return
		}
	}
}

func (s *script) act() {
	for k := 0; k < len(s.m.out); k++ {
		a := s.m.out[k]
		switch a.kind {
		case actSend, actGreet:
			var msg message
			s.m.fill(s.now, a, &msg)
			p := s.m.peers[a.peer]
			if text := describe(s.m, &msg); text != s.said[p.id] {
				s.said[p.id] = text
				s.say("tell %s: %s", p.name, text)
			}
		case actGate:
			if !s.gated {
				s.say("gate opens")
			}
			s.gated = true
		case actRefresh, actReport:
		case actPing:
			if s.tie {
				s.m.reached(s.now, 0, s.now)
			}
		case actSave:
			if s.full {
				s.say("generation %d can't be written", s.m.pair.saving)
				s.m.remembered(0, false, "no space left on device")
				continue
			}
			s.say("write generation %d", s.m.pair.saving)
			s.m.remembered(s.m.pair.saving, false, "")
		case actPark:
			if m := s.m.vips[0].park; m.since == s.now {
				s.say("park, for %v at most", span(m.until-s.now))
			}
		case actDel:
			s.gated = false
			s.say("del: %s", s.m.text(s.m.vips[0].lostWhy, 0))
			if r := &s.m.vips[0].routing; r.last.node == s.m.self {
				s.say("%s", map[bool]string{true: "good-bye to the VRRP group", false: "no word to the VRRP group"}[r.goodBye()])
			}
			s.m.removed(s.now, 0)
		case actAdd:
			s.say("add, the lease has %.1f ms", float64(s.m.leaseEnd(0)-s.now)/1e6)
			if s.m.vips[0].routing.in {
				s.say("%s", map[bool]string{true: "go on as the active router", false: "listen to the VRRP group first"}[s.m.succeeds(s.now, 0)])
			}
		default:
			s.say("%v", a.kind)
		}
	}
	s.m.out = s.m.out[:0]
}

func describe(m *machine, msg *message) string {
	var w []string
	for i, name := range []string{"answer", "agent", "orphan", "fit", "resigned", "witness", "silent"} {
		if msg.flags&(1<<i) != 0 && name != "answer" {
			w = append(w, name)
		}
	}
	for _, v := range msg.views[:msg.nviews] {
		if v.suspect {
			w = append(w, "suspects="+m.nameOf(v.node))
		}
	}
	for _, e := range msg.entries[:msg.nentries] {
		if e.epoch == (Epoch{}) {
			continue
		}
		epoch := fmt.Sprint(e.epoch.Index)
		if m.pair.on {
			epoch = e.epoch.String()
		}
		w = append(w, fmt.Sprintf("| %s on %s", epoch, m.nameOf(e.node)))
		for i, name := range []string{"want", "held", "released", "granted", "planned", "parked", "unable", "active"} {
			if e.flags&(1<<i) != 0 {
				w = append(w, name)
			}
		}
	}
	return strings.Join(w, " ")
}
