package node

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/healthcheck"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// A summary must fit into gossip's metadata however many servers are down, and say how many it left out.
func TestASummaryOfManyDeadServersFitsAndCountsTheRest(t *testing.T) {
	verdicts := map[healthcheck.Key]healthcheck.Verdict{{Backend: "up", Server: "s"}: {Up: true}}
	for i := range 100 {
		verdicts[healthcheck.Key{Backend: "backend", Server: fmt.Sprintf("server%03d", i)}] = healthcheck.Verdict{}
	}
	b := summarize(summary{Level: 2, Version: "0.2.0"}, nil, api.Running{}, verdicts)
	var s summary
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	if len(b) > summaryMax || len(s.Down)+s.More != 100 || len(s.Down) == 0 {
		t.Errorf("%d bytes, %d named, %d more; want at most %d bytes and 100 in all", len(b), len(s.Down), s.More, summaryMax)
	}
	if !slices.IsSorted(s.Down) {
		t.Errorf("not in order: %v", s.Down)
	}
}

func TestANodeStartsWithWhatMostOthersSee(t *testing.T) {
	c, diags := config.Parse("t.hcl", []byte(`frontend "f" {
  bind    = ["127.0.0.1"]
  http    = 80
  backend = "b"
}
backend "b" {
  server "one" { address = "127.0.0.1:1" }
  server "two" { address = "127.0.0.1:2" }
}
`))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	meta := func(down ...string) []byte { b, _ := json.Marshal(summary{Down: down}); return b }
	members := []cluster.Member{
		{Name: "self", Alive: true, Meta: meta("b/two")}, // its own old word does not count
		{Name: "n1", Alive: true, Meta: meta("b/one")},
		{Name: "n2", Alive: true, Meta: meta("b/one", "b/two", "gone/server")},
		{Name: "n3", Alive: false, Meta: meta("b/two")}, // nor does a dead node's
		{Name: "w", Alive: true, Role: state.Witness, Meta: meta()},
	}
	got := seeds(members, "self", &state.View{Config: c})
	want := map[healthcheck.Key]bool{{Backend: "b", Server: "one"}: false}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("seeds (-want +got):\n%s", d)
	}
	if got := seeds([]cluster.Member{members[0], members[1], members[4]}, "self", &state.View{Config: c}); len(got) != 1 {
		t.Errorf("with one other balancer, and a witness, which checks nothing: %v, want what the balancer sees", got)
	}
}

func TestTheGuardIsToldWhatTheViewSays(t *testing.T) {
	c, diags := config.Parse("t.hcl", []byte("vip \"public\" {\n  address = \"198.51.100.100/24\"\n}\nfrontend \"f\" {\n  vip     = \"public\"\n  tcp     = 80\n"+
		"  backend = \"b\"\n}\nbackend \"b\" {\n  server \"one\" { address = \"198.51.100.9:1\" }\n}\n"))
	if diags.HasErrors() {
		t.Fatal(diags)
	}
	at := func(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }
	view := &state.View{
		Index: 9, Cluster: state.Cluster{ID: "c1"}, Config: c, Keys: state.Keys{Heartbeat: [][]byte{make([]byte, 32)}},
		Nodes: []state.Node{
			{Name: "lb1", Advertise: at("198.51.100.1:7940"), Role: state.Balancer},
			{Name: "lb2", Advertise: at("198.51.100.2:7940"), Role: state.Balancer},
			{Name: "w", Advertise: at("198.51.100.3:7940"), Role: state.Witness},
		},
		Placements: map[string]state.Placement{"public": {VIP: "public", Node: "lb2", Epoch: state.Epoch{Generation: 1, Index: 7}, First: true}},
	}
	self := &config.Node{Name: "lb1", Advertise: netip.MustParseAddr("198.51.100.1"), Port: 7940, Interface: "eth1", Role: config.Balancer}
	got := setup(self, view, cluster.VoterSet{Names: []string{"lb1", "w"}, Index: 5})
	want := vip.Setup{
		Self: "lb1", ClusterID: "c1", Keys: view.Keys.Heartbeat, Listen: at("198.51.100.1:7941"), SelfVoter: true, VotersIndex: 5, Applied: 9,
		Peers: []vip.Peer{
			{Name: "lb2", Addr: at("198.51.100.2:7941")},
			{Name: "w", Addr: at("198.51.100.3:7941"), Voter: true, Witness: true},
		},
		VIPs:       []vip.VIP{{Name: "public", Addresses: []netip.Prefix{netip.MustParsePrefix("198.51.100.100/24")}, Interface: "eth1"}},
		Placements: []vip.Placement{{VIP: "public", Node: "lb2", Epoch: vip.Epoch{Generation: 1, Index: 7}, First: true}},
	}
	if d := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); d != "" {
		t.Errorf("setup (-want +got):\n%s", d)
	}
	if err := got.Check(); err != nil {
		t.Errorf("the guard would refuse it: %v", err)
	}
}

func TestWhoMayHold(t *testing.T) {
	balancer, witness := &Node{conf: &config.Node{Role: config.Balancer}}, &Node{conf: &config.Node{Role: config.Witness}}
	leaving := &Node{conf: &config.Node{Role: config.Balancer}}
	leaving.draining.Store(true)
	for _, c := range []struct {
		name    string
		node    *Node
		running api.Running
		disk    error
		want    string // "": fit
	}{
		{"serves", balancer, api.Running{Revision: 3, Tried: 3}, nil, ""},
		{"serves an older one than it should", balancer, api.Running{Revision: 3, Tried: 4, Error: "no port"}, nil, ""},
		{"nothing yet", balancer, api.Running{}, nil, "no configuration runs yet"},
		{"the first one failed", balancer, api.Running{Tried: 1, Error: "port 80 is taken"}, nil, "port 80 is taken"},
		{"witness", witness, api.Running{Revision: 3}, nil, "a witness holds no addresses"},
		{"stopping", leaving, api.Running{Revision: 3}, nil, "the agent is stopping"},
		{"disk", balancer, api.Running{Revision: 3}, fmt.Errorf("fsync: EIO"), "fsync: EIO"},
	} {
		ok, why := c.node.fit(c.running, c.disk)
		if ok != (c.want == "") || why != c.want {
			t.Errorf("%s: fit %v, %q; want %q", c.name, ok, why, c.want)
		}
	}
}

// Two candidates at once split the votes, so those who can stand for election take turns, by name.
func TestFollowersTakeTurnsByName(t *testing.T) {
	alive := vip.PeerState{Voter: true, Alive: true, AgentAlive: true}
	dead := vip.PeerState{Voter: true, Age: time.Second, ConfirmedDead: true}
	peers := map[string]vip.PeerState{"a": dead, "b": alive, "d": alive, "e": {Alive: true, AgentAlive: true}}
	for self, want := range map[string]int{"c": 1, "e2": 2} {
		n := &Node{conf: &config.Node{Name: self}}
		if got, of := n.rank("a", vip.State{Peers: peers}); got != want || of != 3 {
			t.Errorf("rank of %s after a's death = %d of %d, want %d of 3: b and d vote and live, e does not vote", self, got, of, want)
		}
	}
}

// Of two candidates, each round gives each twice the time of the round before, and no two attempts fall together.
func TestRoundsOfACampaignGetLonger(t *testing.T) {
	var steps []int
	for tries := range electionTries {
		for rank := range 2 {
			at, ok := (campaign{lost: "a", tries: tries}).due(rank, 2)
			if !ok {
				t.Fatalf("attempt %d of rank %d is not due at all", tries, rank)
			}
			steps = append(steps, int(at.Sub(time.Time{})/electionStep))
		}
	}
	if want := []int{0, 1, 2, 4, 6, 10, 14, 22}; !slices.Equal(steps, want) {
		t.Errorf("attempts after %v steps, want %v", steps, want)
	}
}

// The first candidate's attempt makes everybody forget who led, and may fail. The second one must still have its turn, and the first
// one not at the same time.
func TestACampaignGoesOnUntilThereIsALeader(t *testing.T) {
	now := time.Unix(100, 0)
	gone := func(name string) bool { return name == "a" }
	c := campaign{}.next(now, cluster.Leadership{Leader: "a", Term: 3}, cluster.Rival{}, gone)
	if at, ok := c.due(1, 2); !ok || at != now.Add(electionStep) {
		t.Errorf("the second of two stands at %v, %v; want one step later", at, ok)
	}
	c = c.next(now.Add(10*time.Millisecond), cluster.Leadership{}, cluster.Rival{}, gone)
	if at, ok := c.due(1, 2); !ok || at != now.Add(electionStep) {
		t.Errorf("once nobody is known to lead, the second stands at %v, %v; want as before", at, ok)
	}
	c.tries++
	if at, ok := c.due(1, 2); !ok || at != now.Add(4*electionStep) {
		t.Errorf("its next attempt is at %v, %v; want after the first one's next", at, ok)
	}
	if _, ok := c.next(now.Add(time.Second), cluster.Leadership{Leader: "b", Term: 4}, cluster.Rival{}, gone).due(0, 2); ok {
		t.Error("there is a leader, and still an attempt is due")
	}
	c.tries = electionTries
	if _, ok := c.due(0, 1); ok {
		t.Error("attempts without end")
	}
}

// Another node's guard may have told its agent sooner, and that one's request for our vote makes raft forget who led before our own guard
// knows that he is gone.
func TestACampaignBeginsAlthoughRaftHasForgottenWhoLed(t *testing.T) {
	now := time.Unix(100, 0)
	alive, dead := func(string) bool { return false }, func(name string) bool { return name == "a" }
	c := campaign{}.next(now, cluster.Leadership{Leader: "a", Term: 3}, cluster.Rival{}, alive)
	c = c.next(now, cluster.Leadership{}, cluster.Rival{}, alive)
	if _, ok := c.due(0, 2); ok {
		t.Error("an attempt is due although nobody is gone")
	}
	c = c.next(now, cluster.Leadership{}, cluster.Rival{}, dead)
	if at, ok := c.due(1, 2); !ok || at != now.Add(electionStep) {
		t.Errorf("an attempt at %v, %v; want in its turn", at, ok)
	}
}

// Who was asked for its vote waits for the one that asked. On a slow disk that one's own vote takes as long as a turn.
func TestACampaignWaitsForWhoStands(t *testing.T) {
	now := time.Unix(100, 0)
	lead := cluster.Leadership{Leader: "a", Term: 3}
	gone := func(name string) bool { return name == "a" }
	for _, c := range []struct {
		name  string
		rival cluster.Rival
		want  time.Duration // of the second of three, after the loss
	}{
		{"nobody stands", cluster.Rival{}, electionStep},
		{"somebody stood when the leader was elected", cluster.Rival{Term: 3, At: now.Add(-time.Hour)}, electionStep},
		{"somebody stands", cluster.Rival{Term: 4, At: now.Add(electionStep - 1)}, 2*electionStep - 1},
		{"somebody stands who cannot win", cluster.Rival{Term: 4, At: now.Add(2), Behind: true}, 0},
	} {
		g := campaign{}.next(now, lead, cluster.Rival{}, gone).next(now, cluster.Leadership{}, c.rival, gone)
		g = g.next(now, cluster.Leadership{}, c.rival, gone) // the same one once more
		if at, ok := g.due(1, 3); !ok || at.Sub(now) != c.want {
			t.Errorf("%s: stands after %v, %v; want %v", c.name, at.Sub(now), ok, c.want)
		}
		if at, _ := g.due(2, 3); c.rival.Behind && at.Sub(now) != electionStep {
			t.Errorf("%s: the third stands after %v, want %v", c.name, at.Sub(now), electionStep)
		}
	}
}

// A witness that leads has to give every address away, so it stands last.
func TestAWitnessStandsLast(t *testing.T) {
	alive := vip.PeerState{Voter: true, Alive: true, AgentAlive: true}
	witness := alive
	witness.Witness = true
	for _, c := range []struct {
		self  string
		role  config.Role
		peers map[string]vip.PeerState
		want  int
	}{
		{"a", config.Witness, map[string]vip.PeerState{"b": alive, "c": alive}, 2},
		{"b", config.Balancer, map[string]vip.PeerState{"a": witness, "c": alive}, 0},
		{"c", config.Balancer, map[string]vip.PeerState{"a": witness, "b": alive}, 1},
	} {
		n := &Node{conf: &config.Node{Name: c.self, Role: c.role}}
		if got, of := n.rank("x", vip.State{Peers: c.peers}); got != c.want || of != 3 {
			t.Errorf("rank of %s = %d of %d, want %d of 3", c.self, got, of, c.want)
		}
	}
}

func TestAddressesAsOperatorsTypeThem(t *testing.T) {
	for in, want := range map[string]string{
		"198.51.100.1": "198.51.100.1:7940", "198.51.100.1:8000": "198.51.100.1:8000", "198.51.100.1:0": "", "198.51.100.1:http": "",
	} {
		got, err := joinAddress(in)
		if (err != nil) != (want == "") || err == nil && got.String() != want {
			t.Errorf("joinAddress(%q) = %v, %v; want %q", in, got, err, want)
		}
	}
}

// What another version says of itself in gossip: more than is known here, less, or in another shape, which says nothing.
func TestASummaryOfAnotherVersion(t *testing.T) {
	for _, c := range []struct {
		meta    string
		level   int
		version string
	}{
		{`{"level":3,"version":"9","colour":{"red":1},"runs":7}`, 3, "9"},
		{`{"version":"0.1"}`, 0, "0.1"},
		{`{}`, 0, ""},
		{`{"level":"three","version":"9"}`, 0, ""},
		{`{"level":3,"vers`, 0, ""},
		{``, 0, ""},
	} {
		if s := readSummary([]byte(c.meta)); s.Level != c.level || s.Version != c.version {
			t.Errorf("%s: %+v, want level %d of %q", c.meta, s, c.level, c.version)
		}
	}
}
