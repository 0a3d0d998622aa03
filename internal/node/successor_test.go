package node

import (
	"errors"
	"strings"
	"testing"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/internal/watch"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// A drained leader hands leadership only to a voter whose guard is heard at this moment: to lb2 before lb3. Found by chaos: lb1 was drained
// while lb2 was frozen, and gossip still took lb2 for alive; nothing was committed for as long as lb2 was frozen.
func TestLeadershipGoesToWhomTheGuardHears(t *testing.T) {
	for _, c := range []struct{ lb2, lb3, want string }{
		{"heard", "heard", "lb2"},
		{"silent", "heard", "lb3"},
		{"heard dead", "heard", "lb3"},
		{"heard agentless", "heard", "lb3"},
		{"heard drained", "heard", "lb3"},
		{"heard nonvoter", "heard", "lb3"},
		{"heard left", "heard", "lb3"},
		{"silent", "silent", ""},
		{"unknown", "unknown", ""},
	} {
		members := []cluster.Member{{Name: "lb1", Voter: true, Alive: true}}
		view := &state.View{Drained: map[string]state.Drained{"lb1": {}}}
		seen := vip.State{Peers: map[string]vip.PeerState{}}
		for _, n := range []struct{ name, is string }{{"lb2", c.lb2}, {"lb3", c.lb3}} {
			is := func(word string) bool { return strings.Contains(n.is, word) }
			members = append(members, cluster.Member{Name: n.name, Voter: !is("nonvoter"), Alive: !is("left")})
			if is("drained") {
				view.Drained[n.name] = state.Drained{}
			}
			if !is("unknown") {
				seen.Peers[n.name] = vip.PeerState{Alive: is("heard"), AgentAlive: !is("agentless"), ConfirmedDead: is("dead")}
			}
		}
		if got := successor("lb1", members, view, seen); got != c.want {
			t.Errorf("lb2 %s, lb3 %s: leadership goes to %q, want %q", c.lb2, c.lb3, got, c.want)
		}
	}
}

// stillGuard is a guard of which nothing is new.
type stillGuard struct {
	Guard
	state watch.Value[vip.State]
}

func (g *stillGuard) State() *watch.Value[vip.State] { return &g.state }

// A node that could not put the newest configuration in force serves the one before. A successor has the newest alone, would fail as this
// one did, and so would this binary in another process: nobody would serve.
func TestANodeThatServesAnOlderConfigurationIsNotFollowed(t *testing.T) {
	n := &Node{machine: state.New(), guard: &stillGuard{}, program: "/nowhere"}
	n.running.Set(api.Running{Revision: 4, Tried: 5, Error: "listen on 198.51.100.100:80: address already in use"})
	if h, err := n.readyHeir(t.Context()); !errors.Is(err, errBehind) || !strings.Contains(err.Error(), "revision 5: listen on") {
		t.Errorf("%+v, %v; want that it is refused, and why", h, err)
	}
	n.running.Set(api.Running{Revision: 5, Tried: 5})
	if _, err := n.readyHeir(t.Context()); !errors.Is(err, errSuccessor) {
		t.Errorf("%v; want an attempt to start %s", err, n.program)
	}
}
