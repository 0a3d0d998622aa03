package node

import (
	"fmt"
	"strings"
	"testing"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// oneVIP is a configuration with a VIP "v".
func oneVIP(t *testing.T) *config.Config {
	t.Helper()
	c, diags := config.Parse("edge.hcl", []byte("vip \"v\" { address = \"198.18.1.10/24\" }\n"+
		"frontend \"f\" {\n  vip = \"v\"\n  tcp = 80\n  backend = \"b\"\n}\nbackend \"b\" {\n  server \"s\" { address = \"198.18.2.1:80\" }\n}\n"))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	return c
}

// Who hands what is not its own to whom, as lb2 sees it, for a ring in the order in which the nodes first held the address.
func TestEachNodeHandsOnToTheOneBeforeItThatStillHasConnections(t *testing.T) {
	c := oneVIP(t)
	for _, x := range []struct {
		ring   string // oldest first
		node   string // where the VIP is placed
		self   string // of lb2: held, parked, or nothing
		others string // who else has connections: NAME=held, parked, or with -gone behind it
		want   string // to whom, and how many others there are
	}{
		{"lb1 lb2", "lb2", "", "lb1=held", "lb1 1"}, // asked for: ready before it is held
		{"lb1 lb2", "lb2", "held", "lb1=parked", "lb1 1"},
		{"lb1 lb2", "lb2", "held", "", ""},                                    // nothing is left there
		{"lb1 lb2", "lb2", "held", "lb1=held-gone", ""},                       // it died
		{"lb1 lb2", "lb2", "held", "lb1=parked-gone", "lb1 1"},                // hung, but not dead: it has its connections
		{"lb1 lb2 lb3", "lb3", "parked", "lb1=parked lb3=held", "lb1 2"},      // in the middle
		{"lb1 lb2 lb3", "lb3", "parked", "lb3=held", "lb3 1"},                 // the last in line hands on to the first
		{"lb1 lb2 lb3", "lb1", "parked", "lb1=held lb3=parked", "lb1 2"},      // it went back: everybody keeps his place
		{"lb1 lb2 lb3", "lb3", "", "lb1=parked lb3=held", ""},                 // not in the ring any more
		{"lb2 lb3", "lb3", "parked", "", ""},                                  // the new one does not have it yet
		{"lb2", "lb2", "held", "", ""},                                        // never moved
		{"lb1 lb3 lb2", "lb2", "held", "lb1=parked lb3=parked", "lb3 2"},      // by age, not by name
		{"lb1 lb3 lb2", "lb2", "held", "lb1=parked", "lb1 1"},                 // over a gap
		{"lb3 lb1", "lb1", "held", "lb1=held lb3=parked", ""},                 // never held it
		{"lb1 lb2 lb3", "lb2", "", "lb1=parked lb3=held", "lb1 2"},            // it gets it back from lb3
		{"lb1 lb2 lb3", "lb2", "parked", "lb1=parked lb3=held", "lb1 2"},      // and has connections of before
		{"lb3 lb2 lb1", "lb1", "parked", "lb1=parked lb3=parked", "lb3 2"},    // nobody holds it for a moment
		{"lb3 lb2 lb1", "lb1", "held", "lb3=parked", "lb3 1"},                 // it yields
		{"lb1 lb2", "lb2", "held", "lb1=parked nomac", ""},                    // where to is not known
		{"lb4 lb1 lb2", "lb2", "held", "lb1=parked-gone lb4=parked", "lb1 2"}, // two
	} {
		v := &state.View{Config: c, Placements: map[string]state.Placement{"v": {VIP: "v", Node: x.node, Ring: strings.Fields(x.ring)}}}
		seen := vip.State{Interfaces: map[string]vip.Interface{"v": {Name: "eth0"}}, Held: map[string]vip.Holding{}, Parked: map[string]vip.Parking{}, Peers: map[string]vip.PeerState{}}
		if x.self == "held" {
			seen.Held["v"] = vip.Holding{}
		}
		if x.self == "parked" {
			seen.Parked["v"] = vip.Parking{}
		}
		for i, name := range []string{"lb1", "lb3", "lb4"} {
			p := vip.PeerState{AgentAlive: true, MACs: map[string]string{"v": fmt.Sprintf("02:00:00:00:00:0%d", i+1)}}
			for _, said := range strings.Fields(x.others) {
				if said == "nomac" {
					p.MACs = nil
				}
				if n, what, _ := strings.Cut(said, "="); n == name {
					what, gone := strings.CutSuffix(what, "-gone")
					p.AgentAlive = !gone
					if what == "held" {
						p.Held = []string{"v"}
					} else {
						p.Parked = []string{"v"}
					}
				}
			}
			seen.Peers[name] = p
		}
		got := ""
		for _, h := range handsOf("lb2", v, seen) {
			name := map[string]string{"02:00:00:00:00:01": "lb1", "02:00:00:00:00:02": "lb3", "02:00:00:00:00:03": "lb4"}[h.To.String()]
			got += fmt.Sprintf("%s %d", name, h.Hops)
			if h.Link != "eth0" || h.Address.String() != "198.18.1.10" {
				t.Errorf("%+v: hands on %v of %s", x, h.Address, h.Link)
			}
		}
		if got != x.want {
			t.Errorf("ring %s, on %s, lb2 %q, others %q: hands on to %q, want %q", x.ring, x.node, x.self, x.others, got, x.want)
		}
	}
}
