package vip

import (
	"bytes"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func sampleMessage() *message {
	m := &message{
		format: 2, reads: Formats{2, 2}, from: idOf("n1"), to: idOf("n2"), boot: 7, seq: 8, echoBoot: 9, echoSeq: 10, echoDelay: 1500_000, interval: 20 * ms, promise: 60 * ms,
		lateness: 2 * ms, profile: 1, flags: flagAgent | flagFit, mac: [6]byte{2, 0, 0, 0, 0, 1}, votersIndex: 11, applied: 12, nviews: 2, nentries: 2,
	}
	m.views[0], m.views[1] = view{idOf("n3"), true}, view{idOf("n4"), false}
	m.links[0], m.links[1], m.nlinks = linkEcho{10, 1500_000}, linkEcho{9, 2500_000}, 2
	m.entries[0] = entry{vipKey("public"), Epoch{1, 42}, idOf("n1"), entryWant | entryHeld, [6]byte{2, 0, 0, 0, 0, 1}}
	m.entries[1] = entry{vipKey("db"), Epoch{2, 1}, idOf("n2"), entryGranted | entryUnable, [6]byte{2, 0, 0, 0, 0, 7}}
	return m
}

var (
	keyA = []byte("a secret of some length")
	keyB = []byte("another secret like that")
)

func TestHeartbeatSurvivesTheWire(t *testing.T) {
	want := sampleMessage()
	b := newCodec("c1", [][]byte{keyA}).pack(nil, want)
	var got message
	// A receiver that has rotated already still accepts the old key.
	if why := newCodec("c1", [][]byte{keyB, keyA}).unpack(b, &got); why != "" {
		t.Fatal(why)
	}
	if got != *want {
		t.Errorf("got %+v, want %+v", got, *want)
	}
}

func TestHeartbeatThatIsNotOursIsRefused(t *testing.T) {
	good := newCodec("c1", [][]byte{keyA}).pack(nil, sampleMessage())
	for _, c := range []struct {
		name  string
		codec *codec
		b     []byte
		want  string
	}{
		{"another key", newCodec("c1", [][]byte{keyB}), good, "not signed"},
		{"another cluster with the same key", newCodec("c2", [][]byte{keyA}), good, "not signed"},
		{"no key", newCodec("c1", nil), good, "not signed"},
		{"cut short", newCodec("c1", [][]byte{keyA}), good[:len(good)-1], "not signed"},
		{"too long", newCodec("c1", [][]byte{keyA}), append(bytes.Clone(good), 0), "not signed"},
		{"shorter than it says", newCodec("c1", [][]byte{keyA}), sealed(good[:len(good)-wireTag-1]), "wrong length"},
		{"empty", newCodec("c1", [][]byte{keyA}), nil, "wrong length"},
		{"huge", newCodec("c1", [][]byte{keyA}), make([]byte, wireMax+1), "wrong length"},
		{"another format", newCodec("c1", [][]byte{keyA}), sealed(append([]byte{9}, good[1:len(good)-wireTag]...)), "in another format"},
		{"another format, not signed", newCodec("c1", [][]byte{keyA}), append([]byte{9}, good[1:]...), "not signed"},
	} {
		var m message
		if why := c.codec.unpack(c.b, &m); !strings.HasPrefix(why, c.want) {
			t.Errorf("%s: %q, want %q", c.name, why, c.want)
		}
	}
	// One flipped bit anywhere, the tail included.
	good = sealed(append(bytes.Clone(good[:len(good)-wireTag]), "later"...))
	c := newCodec("c1", [][]byte{keyA})
	for i := range good {
		b := bytes.Clone(good)
		b[i] ^= 1 << (i % 8)
		if c.unpack(b, new(message)) == "" {
			t.Fatalf("accepted with byte %d changed", i)
		}
	}
}

// sealed is a heartbeat without its tag, signed again.
func sealed(b []byte) []byte {
	c := newCodec("c1", [][]byte{keyA})
	return append(bytes.Clone(b), c.tag(c.keys[0], b)...)
}

func FuzzHeartbeat(f *testing.F) {
	c := newCodec("c1", [][]byte{keyA})
	f.Add(c.pack(nil, sampleMessage()))
	f.Add(append(c.pack(nil, sampleMessage()), "a tail, and room for the tag"...))
	f.Add(c.pack(nil, &message{}))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		// Unsigned: never taken, never a panic.
		var m message
		if len(b) >= wireTag {
			// Signed by us, so that what follows the check is reached: what unpacks, packs to the same.
			signed := append(bytes.Clone(b[:len(b)-wireTag]), make([]byte, wireTag)...)
			if len(signed) > 1 {
				signed[1] = c.keys[0].id
			}
			copy(signed[len(signed)-wireTag:], c.tag(c.keys[0], signed[:len(signed)-wireTag]))
			if c.unpack(signed, &m) == "" {
				var again message
				if why := c.unpack(c.pack(nil, &m), &again); why != "" || again != clip(m) {
					t.Fatalf("%q: %+v became %+v", why, m, again)
				}
				machineTakes(&m, false)
				machineTakes(&m, true)
			}
		}
		c.unpack(b, &m)
	})
}

// clip clears what lies beyond the counts, which a reused message may hold.
func clip(m message) message {
	clear(m.links[m.nlinks:])
	clear(m.views[m.nviews:])
	clear(m.entries[m.nentries:])
	return m
}

// machineTakes shows a signed message of any content to a machine that is its receiver, and one that it has overtaken: a peer gone mad must
// not stop us.
func machineTakes(msg *message, pair bool) {
	m := newMachine(int64(3600e9), 1, true)
	s := Setup{Self: "n2", SelfVoter: true, Also: make([]netip.AddrPort, 1), Peers: []Peer{{Name: "n1", Voter: true, Also: make([]netip.AddrPort, 1)}, {Name: "n3", Voter: true}}, VIPs: []VIP{{Name: "public"}, {Name: "db", VRRP: &VRRP{ID: 51, Version: 3, Priority: 100, Interval: time.Second}}}}
	if pair {
		s.Pair, s.Peers = &Pair{Tiebreak: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, File: "pair.json"}, s.Peers[:1]
	}
	now := int64(3602e9)
	m.configure(now, &s)
	msg.from, msg.to = idOf("n1"), idOf("n2")
	for i, a := range m.out {
		if a.peer == 0 {
			m.fill(now, m.out[i], new(message))
		}
	}
	msg.echoBoot, msg.echoSeq = 1, 1
	m.receive(now+ms, 0, msg)
	m.receive(now+ms, 1, msg)
	late := *msg
	late.seq--
	m.receive(now+ms, 0, &late)
	m.tick(now + 2*ms)
	m.status(now + 3*ms)
}

func FuzzARP(f *testing.F) {
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x01\x08\x06\x00\x01\x08\x00\x06\x04\x00\x01\x02\x00\x00\x00\x00\x01\xc0\x00\x02\x0a\x00\x00\x00\x00\x00\x00\xc0\x00\x02\x0a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if mac, addr := parseClaim(b); addr.IsValid() && (!addr.Is4() || addr.IsUnspecified()) {
			t.Fatalf("%v %v", mac, addr)
		}
	})
}

// The loop of the guard runs without the garbage collector, so what runs for every heartbeat must not allocate.
func TestHeartbeatsDoNotAllocate(t *testing.T) {
	w := newWorld(t, 1, 3)
	for _, n := range w.nodes {
		n.tell()
		n.act()
	}
	w.run(1500 * ms)
	w.place(0, 0, 1)
	w.run(500 * ms)
	m, c := w.nodes[0].m, newCodec("c1", [][]byte{keyA})
	var msg, in message
	var b []byte
	now, seq := w.now, m.peers[0].seq
	rng := rand.New(rand.NewPCG(1, 1))
	allocs := testing.AllocsPerRun(1000, func() {
		now += 5*ms + rng.Int64N(ms)
		m.tick(now)
		for k := range m.out {
			if m.out[k].kind == actSend {
				m.fill(now, m.out[k], &msg)
				b = c.pack(b[:0], &msg)
			}
		}
		m.out = m.out[:0]
		seq++
		in = message{from: m.peers[0].id, to: m.self, boot: m.peers[0].boot, seq: seq, echoBoot: m.boot, echoSeq: m.peers[0].seqOut,
			interval: 20 * ms, promise: 60 * ms, flags: flagAgent | flagFit, nentries: 1}
		in.entries[0] = entry{vipKey("v0"), m.vips[0].known, m.self, entryGranted, [6]byte{}}
		b = c.pack(b[:0], &in)
		if why := c.unpack(b, &in); why != "" {
			t.Fatal(why)
		}
		if why := m.receive(now, 0, &in); why != "" {
			t.Fatal(why)
		}
		m.tick(now)
		m.out = m.out[:0]
	})
	if !m.vips[0].held {
		t.Error("the VIP was lost meanwhile; this measures nothing")
	}
	if allocs != 0 {
		t.Errorf("%v allocations per heartbeat, want 0", allocs)
	}
}
