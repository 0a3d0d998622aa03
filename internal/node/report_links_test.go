package node

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/cluster"
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
		{"versions apart", vip.State{Connected: true, Reads: vip.OwnFormats(), Peers: map[string]vip.PeerState{"lb2": {NotUnderstood: "that one is too old"}, "lb3": {Alive: true}}},
			[]string{"lb2 is not understood, and counts as not heard: that one is too old"}},
		{"the guard was never restarted", vip.State{Connected: true, Reads: vip.Formats{Oldest: 1, Newest: 1}},
			[]string{fmt.Sprintf("the guard of this node is of an older version than its agent: it reads heartbeats of format 1, a new one %v", vip.OwnFormats())}},
		{"an older guard", vip.State{Connected: true, Unknown: "colour"},
			[]string{`the guard of this node is of an older version than its agent, and knows nothing of "colour": that has no effect`}},
		{"a guard that does not take it", vip.State{Connected: true, Problem: "the node has no name"}, []string{"the guard goes on with what it was told before: the node has no name"}},
		{"the guard does not say what it reads", vip.State{Connected: true}, nil},
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

// A guard that runs, here or on another node, and is too old for the guard of the version to come.
func TestAnUpgradeTooFarFromAGuardIsRefused(t *testing.T) {
	says := func(oldest, newest byte) vip.Formats { return vip.Formats{Oldest: oldest, Newest: newest} }
	peers := func(alive bool, r vip.Formats) map[string]vip.PeerState {
		return map[string]vip.PeerState{"lb2": {Alive: true, Reads: says(3, 4)}, "lb3": {Alive: alive, Reads: r}}
	}
	for _, c := range []struct {
		name string
		next vip.Formats
		seen vip.State
		want string
	}{
		{"all neighbours", says(4, 5), vip.State{Reads: says(3, 4), Peers: peers(true, says(4, 5))}, ""},
		{"our own", says(4, 5), vip.State{Reads: says(2, 3), Peers: peers(true, says(3, 4))}, "the one of lb1, of an older version than its agent, reads formats 2 to 3"},
		{"another node's", says(4, 5), vip.State{Reads: says(3, 4), Peers: peers(true, says(2, 2))}, "the one of lb3, of an older version than its agent, reads format 2"},
		{"one that is away", says(4, 5), vip.State{Reads: says(3, 4), Peers: peers(false, says(2, 2))}, ""},
		{"those that do not say", says(4, 5), vip.State{Peers: peers(true, vip.Formats{})}, ""},
		{"a version that does not say", vip.Formats{}, vip.State{Reads: says(2, 2)}, ""},
	} {
		if got := tooFar(c.next, "lb1", c.seen); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	var e *api.Error
	if err := upgradeError(fmt.Errorf("%w: x", errFar), "lb1"); !errors.As(err, &e) || !strings.Contains(e.Hint, "restart that guard") {
		t.Errorf("%v says not what to do: %+v", err, e)
	}
}

// A write to the log that was slow is an alarm for ten minutes.
func TestASlowDiskIsAnAlarmForAWhile(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		slow cluster.SlowWrite
		want string // "": no alarm
	}{
		{cluster.SlowWrite{}, ""},
		{cluster.SlowWrite{Took: 2100 * time.Millisecond, At: now.Add(-time.Minute)}, "a write to the log took 2.1s, 1m0s ago: an address that moves waits for three to five of them"},
		{cluster.SlowWrite{Took: 2100 * time.Millisecond, At: now.Add(-slowDiskFor)}, ""},
	} {
		var got string
		for _, a := range slowDiskAlarms("lb1", now, c.slow) {
			got += a.What
		}
		if got != c.want {
			t.Errorf("%+v: %q, want %q", c.slow, got, c.want)
		}
	}
}
