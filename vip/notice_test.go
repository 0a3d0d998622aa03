package vip

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"
)

// noticeKey is the heartbeat key of the cluster before it was recovered.
var noticeKey = bytes.Repeat([]byte{7}, 32)

// recoveredBy is what the guard of a node that went on without others is told.
func recoveredBy(self string, generation uint64, without ...string) *Setup {
	s := &Setup{Self: self, Generation: generation, Keys: [][]byte{bytes.Repeat([]byte{8}, 32)}}
	for _, name := range without {
		s.Former = append(s.Former, Former{Name: name, Addr: netip.MustParseAddrPort("198.18.0.9:7941"), Keys: [][]byte{noticeKey}})
	}
	return s
}

// noticesOf are the notices that such a node sends.
func noticesOf(self string, generation uint64, without ...string) (all [][]byte) {
	var f formers
	f.configure(recoveredBy(self, generation, without...))
	f.due(1, nil, func(_ netip.AddrPort, b []byte) { all = append(all, slices.Clone(b)) })
	return all
}

// What is taken for a notice, and for how long it counts.
func TestANoticeCountsFromWhoMaySayIt(t *testing.T) {
	old := &Setup{Self: "n1", Generation: 3, Keys: [][]byte{noticeKey}, Peers: []Peer{{Name: "n2"}, {Name: "n3"}}}
	flip := func(b []byte, at int) []byte { b = slices.Clone(b); b[at] ^= 1; return b }
	good := noticesOf("n2", 4, "n1")[0]
	for _, c := range []struct {
		what string
		b    []byte
		want Superseded
	}{
		{"a newer generation", good, Superseded{"n2", 4}},
		{"the same", noticesOf("n2", 3, "n1")[0], Superseded{}},
		{"an older one", noticesOf("n2", 2, "n1")[0], Superseded{}},
		{"for another node", noticesOf("n2", 4, "n3")[0], Superseded{}},
		{"from a stranger", noticesOf("n9", 4, "n1")[0], Superseded{}},
		{"changed on the way", flip(good, 31), Superseded{}},
		{"with another tag", flip(good, len(good)-1), Superseded{}},
		{"cut off", good[:len(good)-1], Superseded{}},
		{"nothing but its first byte", good[:1], Superseded{}},
	} {
		var f formers
		f.configure(old)
		f.hear(c.b)
		if f.heard != c.want {
			t.Errorf("%s: heard %+v, want %+v", c.what, f.heard, c.want)
		}
	}

	var f formers
	f.configure(old)
	if !f.hear(good) || f.hear(good) {
		t.Error("it is news once")
	}
	f.configure(old)
	if f.heard.By != "n2" {
		t.Error("forgotten with the next setup")
	}
	rejoined := &Setup{Self: "n1", Generation: 4, Keys: [][]byte{bytes.Repeat([]byte{8}, 32)}, Peers: []Peer{{Name: "n2"}}}
	if f.configure(rejoined); f.heard != (Superseded{}) {
		t.Error("remembered by a node that has joined the newer cluster")
	}
	if f.hear(good) {
		t.Error("a recorded notice counts for a node that has joined the newer cluster")
	}
}

// Two nodes were recovered, each without the other. Both tell the other, and the first by name goes on; a later generation outranks that.
func TestOfTwoRecoveredClustersOneGivesWay(t *testing.T) {
	for _, c := range []struct {
		gen1, gen2   uint64
		first, other bool // which of them gives way
	}{{2, 2, false, true}, {2, 3, true, false}, {3, 2, false, true}} {
		var a, b formers
		a.configure(recoveredBy("n1", c.gen1, "n2"))
		b.configure(recoveredBy("n2", c.gen2, "n1"))
		a.due(1, nil, func(_ netip.AddrPort, n []byte) { b.hear(n) })
		b.due(1, nil, func(_ netip.AddrPort, n []byte) { a.hear(n) })
		if got := [2]bool{a.heard.By != "", b.heard.By != ""}; got != [2]bool{c.first, c.other} {
			t.Errorf("generations %d and %d: who gives way is %v, want %v", c.gen1, c.gen2, got, [2]bool{c.first, c.other})
		}
	}
}

// A former node's heartbeat is answered, and no other's; not more often than it may be.
func TestAFormerNodesHeartbeatIsAnswered(t *testing.T) {
	var f formers
	f.configure(recoveredBy("n2", 4, "n1"))
	heartbeat := func(from, to string, key []byte) []byte {
		return newCodec("", [][]byte{key}).pack(nil, &message{from: idOf(from), to: idOf(to), boot: 1, seq: 1})
	}
	var told []netip.AddrPort
	answer := func(now int64, b []byte) bool {
		return f.answer(now, b, nil, func(to netip.AddrPort, _ []byte) { told = append(told, to) })
	}
	for _, b := range [][]byte{heartbeat("n3", "n2", noticeKey), heartbeat("n1", "n3", noticeKey), heartbeat("n1", "n2", bytes.Repeat([]byte{9}, 32)), {}} {
		if answer(noticeEvery, b) {
			t.Errorf("answered: %x", b)
		}
	}
	good := heartbeat("n1", "n2", noticeKey)
	for k, now := range []int64{noticeEvery, noticeEvery + 1, noticeEvery + noticeAnswer} {
		if !answer(now, good) {
			t.Errorf("heartbeat %d is not known", k)
		}
	}
	if len(told) != 2 || told[0] != netip.MustParseAddrPort("198.18.0.9:7941") {
		t.Errorf("told %v", told)
	}
}

func FuzzNotice(f *testing.F) {
	f.Add(noticesOf("n2", 4, "n1")[0])
	f.Add([]byte{noticeVersion})
	f.Fuzz(func(t *testing.T, b []byte) {
		var n formers
		n.configure(&Setup{Self: "n1", Generation: 3, Keys: [][]byte{noticeKey}, Peers: []Peer{{Name: "n2"}}, Former: recoveredBy("n1", 3, "n3").Former})
		n.hear(b)
		n.answer(1, b, nil, func(netip.AddrPort, []byte) {})
		if n.heard != (Superseded{}) && !bytes.Equal(b[:noticeHead-8], noticesOf("n2", 4, "n1")[0][:noticeHead-8]) {
			t.Errorf("heard %+v in %x", n.heard, b)
		}
	})
}
