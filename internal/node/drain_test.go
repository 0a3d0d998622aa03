package node

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"

	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// Connections that a node had before it lost an address are ended when another one has it: once, and not those that it still serves.
func TestWhatIsLeftOfALostAddressIsEndedOnce(t *testing.T) {
	view := &state.View{Config: oneVIP(t)}
	elsewhere := map[string]bool{}
	for i, x := range []struct{ self, other, want string }{
		{"", "", ""},           // nobody has it
		{"", "held", "v"},      // an agent that has just started, or has followed another
		{"", "held", ""},       // once
		{"held", "", ""},       // here
		{"", "", ""},           // its lease has ended: it may be given back to this node
		{"held", "", ""},       // and is
		{"", "", ""},           // again
		{"", "held", "v"},      // but now another one has it
		{"held", "held", ""},   // back by a move: the other one does not know yet
		{"held", "parked", ""}, //
		{"parked", "", ""},     // on its way to the other one: what is established is served
		{"parked", "held", ""}, //
		{"", "held", "v"},      // drained: there is nothing to end
		{"", "held", ""},       //
		{"", "", ""},           // the other one has lost it
		{"", "held", ""},       // and has it again
	} {
		seen := vip.State{Held: map[string]vip.Holding{}, Parked: map[string]vip.Parking{}}
		switch x.self {
		case "held":
			seen.Held["v"] = vip.Holding{}
		case "parked":
			seen.Parked["v"] = vip.Parking{}
		}
		var peer vip.PeerState
		switch x.other {
		case "held":
			peer.Held = []string{"v"}
		case "parked":
			peer.Parked = []string{"v"}
		}
		seen.Peers = map[string]vip.PeerState{"lb1": peer}
		if got := strings.Join(lost(view, seen, elsewhere), " "); got != x.want {
			t.Errorf("step %d, %+v: %q", i, x, got)
		}
	}
}

// Of several addresses that a node loses at once each is reset once, and again when it is lost at a later epoch.
func TestEachLossIsResetOnce(t *testing.T) {
	r, one, two := resets{}, vip.Epoch{Generation: 1, Index: 3}, vip.Epoch{Generation: 1, Index: 4}
	for i, x := range []struct {
		name string
		at   vip.Epoch
		want bool
	}{
		{"a", one, true}, {"b", one, true}, {"a", one, false}, {"b", one, false}, {"a", two, true}, {"b", one, false}, {"a", two, false},
	} {
		if got := r.first(x.name, x.at); got != x.want {
			t.Errorf("step %d: %s at %v is reset: %v, want %v", i, x.name, x.at, got, x.want)
		}
	}
}

// blindFlows is a host whose connections cannot be listed, or that has so many.
type blindFlows struct {
	err error
	has int
}

func (b blindFlows) Each(addrs []netip.Addr, f func(vip.Flow)) error {
	for i := range b.has {
		f(vip.Flow{VIP: netip.AddrPortFrom(addrs[0], 80), Client: netip.AddrPortFrom(netip.MustParseAddr("198.51.100.7"), uint16(i+1))})
	}
	return b.err
}

func (blindFlows) Reset([]netip.Addr) (int, error)                 { return 0, nil }
func (blindFlows) Tickle(context.Context, []vip.Flow) (int, error) { return 0, nil }
func (blindFlows) Close()                                          {}

// A host that cannot list its connections, or stops halfway, does not say that it has none: what has moved away is served for all of its
// time, and the report has no number.
func TestConnectionsThatCannotBeCountedAreNotNone(t *testing.T) {
	view := &state.View{Config: oneVIP(t)}
	seen := vip.State{Parked: map[string]vip.Parking{"v": {Planned: true}}}
	for _, x := range []struct {
		what string
		node *Node
		want int // -1: no number
	}{
		{"none", &Node{flows: blindFlows{}}, 0},
		{"three", &Node{flows: blindFlows{has: 3}}, 3},
		{"an error halfway", &Node{flows: blindFlows{has: 3, err: errors.New("no such module")}}, -1},
		{"no way to ask", &Node{uncounted: true}, -1},
		{"no connections at all, as in a simulation", &Node{}, 0},
	} {
		n := x.node
		n.log = slog.New(slog.DiscardHandler)
		n.count(view, seen)
		if got := n.drains.Get()["v"]; got != x.want {
			t.Errorf("%s: counted %d, want %d", x.what, got, x.want)
		}
		got := -1
		if p := n.reportParked(seen); p[0].Connections != nil {
			got = *p[0].Connections
		}
		if got != x.want {
			t.Errorf("%s: reported %d, want %d", x.what, got, x.want)
		}
	}
	if p := (&Node{}).reportParked(seen); p[0].Connections != nil {
		t.Errorf("before the first count: reported %d", *p[0].Connections)
	}
}
