package node

import (
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
