package node

import (
	"slices"
	"testing"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/vip"
)

// A link that fails while another one works is what an operator must hear of before the other one fails too; and nothing is said of
// what follows from something that is said already.
func TestLinkAlarms(t *testing.T) {
	up, down, never := vip.PeerLink{Addr: "10.0.0.2:7941", Up: true}, vip.PeerLink{Addr: "10.0.1.2:7941", Age: 12400 * time.Millisecond},
		vip.PeerLink{Addr: "10.0.2.2:7941", Age: -1}
	for _, c := range []struct {
		name  string
		state vip.State
		want  []string
	}{
		{"all is well", vip.State{Connected: true, Links: make([]vip.Link, 2), Peers: map[string]vip.PeerState{"lb2": {Alive: true, Links: []vip.PeerLink{up, up}}}}, nil},
		{"links are silent", vip.State{Connected: true, Links: make([]vip.Link, 3), Peers: map[string]vip.PeerState{"lb2": {Alive: true, Links: []vip.PeerLink{up, down, never}}}},
			[]string{
				"lb2 is not heard over heartbeat link 2 (10.0.1.2:7941), silent for 12s; another one works",
				"lb2 is not heard over heartbeat link 3 (10.0.2.2:7941), it never was heard there; another one works",
			}},
		{"the node is dead", vip.State{Connected: true, Links: make([]vip.Link, 2), Peers: map[string]vip.PeerState{"lb2": {Links: []vip.PeerLink{down, down}}}}, nil},
		{"our own end is broken", vip.State{Connected: true, Links: []vip.Link{{}, {Addr: "10.0.1.1:7941", Problem: "10.0.1.1 is not an address of this host"}},
			Peers: map[string]vip.PeerState{"lb2": {Alive: true, Links: []vip.PeerLink{up, down}}}},
			[]string{"no heartbeats go out at 10.0.1.1:7941: 10.0.1.1 is not an address of this host"}},
		{"an interface is down", vip.State{Connected: true, Unable: map[string]string{"public": "interface eth1 has no carrier"}},
			[]string{"this node could not hold public: interface eth1 has no carrier"}},
		{"there is no guard", vip.State{Unable: map[string]string{"public": "interface eth1 has no carrier"}}, nil},
	} {
		n := &Node{conf: &config.Node{Name: "lb1", Role: config.Balancer}}
		var got []string
		for _, a := range n.linkAlarms(c.state) {
			got = append(got, a.What)
			if a.Hint == "" {
				t.Errorf("%s: %q has no hint", c.name, a.What)
			}
		}
		if !slices.Equal(got, c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}
