package main

import "slices"

// The rules of the guard that no schedule is about: an address in a VRRP group (vip/routing.go), two nodes that become a pair, what the other
// one of a pair leaves (vip/pair.go), and claims that arrive late. They are decisions at one moment, so each is found by a transcript
// (vip/testdata) or a table.
const guardTests = "Transcripts|ARouters|APair|APeers|AClaim"

var inVIP = []string{"./vip"}

// broken are rules of one file, broken one by one: its name, what stands there, and what instead.
func broken(file string, rules ...[3]string) (all []*mutant) {
	for _, r := range rules {
		all = append(all, &mutant{Name: r[0], file: file, old: r[1], new: r[2], in: inVIP, run: guardTests})
	}
	return all
}

var guardMutants = slices.Concat(
	broken("vip/routing.go",
		[3]string{"vrrp: who left the group stands by for good", "\t\tv.routing = routing{}\n", ""},
		[3]string{"vrrp: a silent death counts as a good-bye", "v.routing.skew + 2*int64(c.Interval)", "v.routing.skew"},
		[3]string{"vrrp: after a silent death an interval too long", "v.routing.skew + 2*int64(c.Interval)", "v.routing.skew + 3*int64(c.Interval)"},
		[3]string{"vrrp: nobody stands by", "return v.routing.in && !v.routing.active", "return false"},
		[3]string{"vrrp: who is in no group stands by", "return v.routing.in && !v.routing.active", "return !v.routing.active"},
		[3]string{"vrrp: the active router stands by", "return v.routing.in && !v.routing.active", "return v.routing.in"},
		[3]string{"vrrp: what did not change is news", "r.active != active {", "true {"},
		[3]string{"vrrp: the peers do not hear of it at once", "r.active, m.chatty = active, true", "r.active = active"},
		[3]string{"vrrp: the agent does not hear of it at once", "\t\tm.report()\n", ""},
		[3]string{"vrrp: who let go without a good-bye counts as active still", "case held && active:", "case active:"},
		[3]string{"vrrp: a holder that stands by counts as active", "case held && active:", "case held:"},
		[3]string{"vrrp: a holder that stands by has said good-bye", "case held: // it", "case false: // it"},
		[3]string{"vrrp: a holder that stands by says nothing of another router", "active\n\t\tr.last.node = 0", "active\n"},
		[3]string{"vrrp: the first peer that was active is the last", "r.last.node, r.last.at, r.last.bye = peer, now, false", "r.last.at, r.last.bye = now, false"},
		[3]string{"vrrp: nobody knows when a peer was active", "r.last.node, r.last.at, r.last.bye = peer, now, false", "r.last.node, r.last.bye = peer, false"},
		[3]string{"vrrp: a good-bye counts for good", "r.last.node, r.last.at, r.last.bye = peer, now, false", "r.last.node, r.last.at = peer, now"},
		[3]string{"vrrp: nobody's good-bye is heard", "case r.last.node == peer && !active:", "case false:"},
		[3]string{"vrrp: everybody's silence is a good-bye", "case r.last.node == peer && !active:", "case !active:"},
		[3]string{"vrrp: who let go without a good-bye has said one", "case r.last.node == peer && !active:", "case r.last.node == peer:"},
		[3]string{"vrrp: who stood by was active", "if !r.active {", "if false {"},
		[3]string{"vrrp: who stood by knows who was active before", "if !r.active {\n\t\tr.last.node = 0", "if !r.active {"},
		[3]string{"vrrp: good-bye though it is placed on another node", "passes := why == placedElsewhere || ", "passes := "},
		[3]string{"vrrp: good-bye though another node has a newer placement", "why == newerKnown || ", ""},
		[3]string{"vrrp: good-bye though the other one of a pair goes on", " || why == outranked", ""},
		[3]string{"vrrp: no good-bye", "passes := why == placedElsewhere ||", "passes := true ||"},
		[3]string{"vrrp: who let go is active still", "if r.active = false; passes {", "if passes {"},
		[3]string{"vrrp: who lets go without a good-bye does not say so", "r.passing = now + r.silence", "r.passing = now"},
		[3]string{"vrrp: who lets go without a good-bye says so for too short a time", "r.passing = now + r.silence", "r.passing = now + r.skew"},
		[3]string{"vrrp: who lets go without a good-bye says so for ever", "r.passing = now + r.silence", "r.passing = 1<<63 - 1"},
		[3]string{"vrrp: who let go forgets that it was active", "r.last.node, r.last.at, r.last.bye = m.self, now, !passes", "r.last.at, r.last.bye = now, !passes"},
		[3]string{"vrrp: who let go forgets when", "r.last.node, r.last.at, r.last.bye = m.self, now, !passes", "r.last.node, r.last.bye = m.self, !passes"},
		[3]string{"vrrp: who let go forgets its good-bye", "r.last.node, r.last.at, r.last.bye = m.self, now, !passes", "r.last.node, r.last.at, r.last.bye = m.self, now, false"},
		[3]string{"vrrp: who let go has said good-bye, whatever it said", "r.last.node, r.last.at, r.last.bye = m.self, now, !passes", "r.last.node, r.last.at, r.last.bye = m.self, now, true"},
		[3]string{"vrrp: a good-bye is a silent death", "if r.last.bye {", "if false {"},
		[3]string{"vrrp: a silent death is a good-bye", "if r.last.bye {", "if true {"},
		[3]string{"vrrp: nobody goes on after a good-bye", "wait = r.skew", "wait = 0"},
		[3]string{"vrrp: who goes on need not have been active", "return r.last.node != 0 && ", "return "},
		[3]string{"vrrp: whoever was active once is", "now-r.last.at < wait", "wait > 0"},
	),
	broken("vip/decide.go",
		[3]string{"vrrp: who goes on never says good-bye", "\tv.routing.passing = 0\n", ""},
		[3]string{"vrrp: nothing is parked, since the router has ended", "m.parkFor(now, i, why)\n\tm.endRouting(now, v, why)", "m.endRouting(now, v, why)\n\tm.parkFor(now, i, why)"},
	),
	broken("vip/grant.go",
		[3]string{"vrrp: nobody says that it is active", "if v.held && v.routing.active || now", "if now"},
		[3]string{"vrrp: nobody says that it was", " || now < v.routing.passing", ""},

		[3]string{"late: a claim that was overtaken is not granted", "c.owed = true\n", "c.owed = c.owed || false\n"},
		[3]string{"late: what is not asked for is granted", "if c := &p.claims[j]; c.flags&entryWant != 0 && c.granted != p.seq {", "if c := &p.claims[j]; c.granted != p.seq {\n\t\t\tc.flags |= entryWant"},
		[3]string{"late: what was granted is granted anew", "c.flags&entryWant != 0 && c.granted != p.seq {", "c.flags&entryWant != 0 {"},
	),
	broken("vip/detect.go",
		[3]string{"late: a replayed claim asks", "if p.note(msg.seq) && msg.flags&flagAnswer == 0 {", "if msg.flags&flagAnswer == 0 {"},
		[3]string{"late: an answer asks", "if p.note(msg.seq) && msg.flags&flagAnswer == 0 {", "if p.note(msg.seq) {"},
		[3]string{"late: nothing asks", "if p.note(msg.seq) && msg.flags&flagAnswer == 0 {", "if p.note(msg.seq) && false {"},
		[3]string{"late: what came in order is not noted", "\tp.note(msg.seq)\n", "\tp.seq = msg.seq\n"},
	),
	broken("vip/peer.go",
		[3]string{"late: what is too old to tell asks", "fresh := bit != 0 && ", "fresh := "},
		[3]string{"late: what was heard is fresh", "fresh := bit != 0 && p.window&bit == 0", "fresh := bit != 0"},
		[3]string{"late: what comes late comes again and again", "\tp.window |= bit\n", ""},
		[3]string{"late: the newest is not noted", "p.window<<(seq-p.seq)|1", "p.window<<(seq-p.seq)"},
		[3]string{"late: the window stands still", "p.window<<(seq-p.seq)|1", "p.window|1"},
		[3]string{"late: the window moves by one", "p.window<<(seq-p.seq)|1", "p.window<<1|1"},
	),
	broken("vip/pair.go",
		[3]string{"pair begins: who holds nothing counts on a tie-break that was not asked", "func (m *machine) keepsAll(now int64) (keeps bool) {\n", "func (m *machine) keepsAll(now int64) (keeps bool) {\n\tkeeps = true\n"},
		[3]string{"pair begins: who has no lease does", "if keeps = m.leaseAt(i, v.heldEpoch) > now; !keeps {", "if keeps = m.leaseAt(i, v.heldEpoch) > now || true; !keeps {"},
		[3]string{"pair begins: a lease that ends now is one", "if keeps = m.leaseAt(i, v.heldEpoch) > now; !keeps {", "if keeps = m.leaseAt(i, v.heldEpoch) >= now; !keeps {"},
		[3]string{"pair begins: the lease at another epoch counts", "if keeps = m.leaseAt(i, v.heldEpoch) > now; !keeps {", "if keeps = m.leaseAt(i, v.placed.Epoch) > now; !keeps {"},
		[3]string{"pair begins: the last one that is held decides", "> now; !keeps {", "> now; false {"},
		[3]string{"pair begins: what is not held needs a lease too", "if v.held {\n\t\t\tif keeps =", "if true {\n\t\t\tif keeps ="},
		[3]string{"pair begins: the holder does not keep what it has", "\t\t\tif keeps {", "\t\t\tif keeps && false {"},
		[3]string{"pair begins: the tie-break counts for whoever begins", "\t\t\tif keeps {", "\t\t\tif keeps || true {"},
		[3]string{"pair begins: the tie-break counts for too long before it was asked", "d.answers[k] = now + tieLife", "d.answers[k] = now + 2*tieLife"},

		[3]string{"pair leaves: what the other one has is ours", "ours := v.knownNode == m.self && ", "ours := "},
		[3]string{"pair leaves: it is ours before our agent says so", "v.placed.Node == m.name && !v.placed.First", "!v.placed.First"},
		[3]string{"pair leaves: a first placement is taken without being probed for", " && !v.placed.First && !v.entitled", " && !v.entitled"},
		[3]string{"pair leaves: what was taken is taken again", " && !v.placed.First && !v.entitled", " && !v.placed.First"},
		[3]string{"pair leaves: what is ours is never taken from one who is silent", "v.knownNode != p.id && !ours:", "v.knownNode != p.id:"},
		[3]string{"pair leaves: who is not heard has left what it left", "case p.suspect || v.knownNode", "case v.knownNode"},
		[3]string{"pair leaves: what is nobody's is taken", "case p.suspect || v.knownNode != p.id && !ours:", "case p.suspect:"},
		[3]string{"pair leaves: who is silent has left nothing", "case p.flags&flagSilent != 0:", "case false:"},
		[3]string{"pair leaves: who is silent is not believed that it holds", "return c&(entryHeld|entryWant) == 0", "return c&entryWant == 0"},
		[3]string{"pair leaves: who is silent is not believed that it asks", "return c&(entryHeld|entryWant) == 0", "return c&entryHeld == 0"},
		[3]string{"pair leaves: what is ours is taken from one who grants it", "\tcase ours:", "\tcase false:"},
		[3]string{"pair leaves: who lost its lease has not left it", "(p.flags&flagResigned != 0 || p.flags&flagFit == 0)", "(p.flags&flagFit == 0)"},
		[3]string{"pair leaves: who is not fit has not left it", "(p.flags&flagResigned != 0 || p.flags&flagFit == 0)", "(p.flags&flagResigned != 0)"},
		[3]string{"pair leaves: who is well has left what it released", "(p.flags&flagResigned != 0 || p.flags&flagFit == 0)", "true"},
		[3]string{"pair leaves: it is taken before it is off the link", " && c&entryReleased != 0", ""},
		[3]string{"pair young: who has just started takes", "\tif young {\n", "\tif false {\n"},
		[3]string{"pair young: who has just started does not ask", "|| young && left", "|| young"},
		[3]string{"pair young: the leader's time begins before it is told", " || young && left", ""},
		[3]string{"pair young: the end of the silence is slept through", "max(min(v.try.next, m.vocal()), now+1)", "v.try.next"},
		[3]string{"pair leaves: the leader is not waited for", "leftWait  = 100 * ms", "leftWait  = 1 * ms"},
	),
)
