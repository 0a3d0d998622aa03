package state

import (
	"bytes"
	"fmt"
	"net/netip"
	"testing"
	"time"

	"github.com/skeinlb/skein/state/sticky"
)

func sumOf(l *log) uint32 { return l.Views().Get().Sum() }

// Versions that sum one state up differently would take each other for gone astray.
func TestTheSumIsWhatItAlwaysWas(t *testing.T) {
	if got := sumOf(populated(t)); got != 0xdde68174 {
		t.Errorf("the sum of a known state is %#x", got)
	}
}

// A replica that refuses one command has another sum from then on, whatever the command is, and however it goes on.
func TestTheSumIsOfAllThatCommandsChange(t *testing.T) {
	seen := map[uint32]string{sumOf(populated(t)): "what both have"}
	for _, c := range []Command{
		Place{VIP: "a", Node: "lb1", Expect: Epoch{1, 3}},
		Unplace{VIP: "a", Expect: Epoch{1, 3}},
		SetConfig{BasedOn: 1, Text: []byte("vip \"a\" { address = \"198.18.1.2/24\" }\n"), Scope: Scope{VIPs: []string{"a"}}},
		SetServer{Backend: "b/1", Server: "s", State: Enabled},
		SetServer{Backend: "b/1", Server: "s", State: Disabled},
		PutNode{Node: testNode("lb2", "c2")},
		SetNode{Name: "lb1", Drained: true, Drain: time.Minute},
		RotateKeys{Gossip: fixedKey('b', 32), Heartbeat: fixedKey('a', 32), Keep: 2},
		RotateKeys{Gossip: fixedKey('c', 32), Heartbeat: fixedKey('a', 32), Keep: 2},
		PutToken{ID: "u", SecretHash: []byte("hash"), Role: Witness, TTL: time.Hour, Uses: 1},
		PutToken{ID: "u", SecretHash: []byte("HASH"), Role: Witness, TTL: time.Hour, Uses: 1},
		PutCertificate{Name: "c", Pairs: []CertificatePair{{"ecdsa", []byte("chain"), []byte("sealed")}}},
		PutTicketKey{Key: []byte("sealed"), Keep: 2},
		Raise{To: 2, Members: []string{"lb1"}},
		Recover{Keep: []string{"lb1"}, Gossip: fixedKey('a', 32), Heartbeat: fixedKey('a', 32)},
	} {
		what := fmt.Sprintf("%T", c)
		did, refused := populated(t), populated(t)
		did.must(c)
		refused.index++
		if before := seen[sumOf(did)]; before != "" {
			t.Errorf("%+v makes the sum of %s", c, before)
		}
		seen[sumOf(did)] = what
		for _, l := range []*log{did, refused} {
			l.must(SetConfig{BasedOn: l.Views().Get().Revision.Number, Text: []byte("# goes on"),
				Scope: Scope{VIPs: []string{"a"}, Servers: []ServerKey{{"b/1", "s"}}}})
		}
		if sumOf(did) == sumOf(refused) {
			t.Errorf("without %s it is the same", what)
		}
	}
}

// What passes time, or fills the sticky tables, is no part of it, nor whether a state was applied or restored.
func TestTheSumOfARestoredStateIsTheSame(t *testing.T) {
	l := populated(t)
	sum := sumOf(l)
	l.Tables().Learn(sticky.ID("b/1"), sticky.Key{9}, 7, time.Minute)
	batch, _ := l.Tables().Drain(10)
	l.must(Tick{ElapsedMs: 2000}, StickyLearn{Batch: batch})
	again := newLog(t)
	if err := again.Restore(bytes.NewReader(l.snapshot())); err != nil {
		t.Fatal(err)
	}
	for _, l := range []*log{l, again} {
		if got := sumOf(l); got != sum {
			t.Errorf("it was %#x and is %#x", sum, got)
		}
	}
}

// The largest configuration there can be, and a full address list.
func BenchmarkSum(b *testing.B) {
	v := *populated(b).Views().Get()
	v.Revision.Text = bytes.Repeat([]byte("0123456789abcdef"), MaxText/16)
	entries := make([]ListEntry, MaxListEntries)
	for i := range entries {
		entries[i].Prefix = netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)
	}
	v.Lists = map[string][]ListEntry{"l": entries}
	for b.Loop() {
		v.Sum()
	}
}
