// Package apitest is a cluster without Raft for the tests of package api and of whoever uses it.
//
// The API servers and the replicas of the state are real; the log is a lock, the network is memory, and what a node would observe
// is made up. It runs in virtual time. The one rule: it holds no opinion of its own that a test could then prove.
package apitest

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/api/client"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/internal/watch"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/state/cert"
)

// Cluster is a log without Raft: what one node proposes, all replicas apply at once. The replicas and the API servers are real.
type Cluster struct {
	Nodes map[string]*Node // by name
	first string           // the leader

	mu sync.Mutex
	// mu guards the following.
	index uint64
	fail  error // of every proposal
}

// Node is one replica with its API, and what a test says of it. The zero values are a node that is well.
type Node struct {
	name    string
	cluster *Cluster
	machine *state.Machine
	running watch.Value[api.Running]
	pipe    pipeListener
	started time.Time

	mu sync.Mutex
	// mu guards the following.
	world World
	conns []net.Conn // of its peers to it
}

// World is what a test says of a node.
type World struct {
	Dead    bool                  // nobody reaches it
	Refuse  string                // why its engine takes no new configuration
	Slow    time.Duration         // of its engine to take one
	Edit    func(*api.NodeReport) // changes what it reports; nil: nothing
	Removed []string              // by it, in order

	// Of its program.
	Version string // that runs; "" is programVersion
	OnDisk  string // that lies at its path; "": the same
	PID     int    // of the agent

	Level       int    // of the commands that it applies; 0: state.Level
	LevelOnDisk int    // that the binary at its path applies; 0: the same
	Outdated    string // why it has stopped applying the log

	Unready error              // why a process of that binary would not be ready to follow
	Breaks  string             // why one that was ready fails; "": it does not
	Failed  *api.FailedUpgrade // such an attempt

	// Of a VIP that moves away from it.
	Draining int       // connections that stay; negative: it cannot count them
	Until    time.Time // when they end
}

// New starts the named nodes, of which the first founds the cluster and the others join it. They end with the test.
func New(t testing.TB, names ...string) *Cluster {
	t.Helper()
	c := Young(t, names...)
	key := make([]byte, 32)
	c.Must(t, state.Found{ClusterID: "c1", Gossip: key, Heartbeat: key, Node: member(c.first, 1), Level: state.Level})
	for i, name := range names[1:] {
		c.Must(t, state.PutNode{Node: member(name, i+2), Level: state.Level})
	}
	return c
}

// Young starts the named nodes, which have not heard yet what their cluster is.
func Young(t testing.TB, names ...string) *Cluster {
	t.Helper()
	c := &Cluster{Nodes: map[string]*Node{}, first: names[0]}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for i, name := range names {
		n := &Node{name: name, cluster: c, machine: state.New(), pipe: newPipeListener(), started: time.Now().Add(-26 * time.Hour)}
		n.world.Slow = time.Duration(4+3*i) * time.Millisecond // so that answers have an order
		c.Nodes[name] = n
		s := api.New(n.Options())
		wg.Go(func() {
			if err := s.Serve(ctx, n.pipe); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() { n.machine.Views().Each(ctx, n.take) })
	}
	return c
}

// member is the i-th node. Names that begin with "w" are witnesses.
func member(name string, i int) state.Node {
	role := state.Balancer
	if strings.HasPrefix(name, "w") {
		role = state.Witness
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{198, 51, 100, byte(i)}), 7940)
	return state.Node{Name: name, Role: role, Fingerprint: "fp-" + name, Advertise: addr}
}

// Must carries out a command on every replica.
func (c *Cluster) Must(t testing.TB, cmd state.Command) {
	t.Helper()
	b, _, err := c.propose(state.Encode(cmd))
	if err != nil {
		t.Fatal(err)
	}
	r, err := state.DecodeResult(b)
	if err == nil {
		err = r.Err()
	}
	if err != nil {
		t.Fatalf("%T: %v", cmd, err)
	}
}

// Place gives a VIP to a node.
func (c *Cluster) Place(t testing.TB, vip, node string) {
	t.Helper()
	c.Must(t, state.Place{VIP: vip, Node: node, Expect: c.Nodes[node].View().Placements[vip].Epoch})
}

func (c *Cluster) names() []string { return slices.Sorted(maps.Keys(c.Nodes)) }

func (c *Cluster) propose(cmd []byte) (result []byte, index uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return nil, 0, c.fail
	}
	c.index++
	for _, n := range c.Nodes {
		result = n.machine.Apply(c.index, cmd).([]byte)
	}
	c.lead()
	return result, c.index, nil
}

// lead gives away the VIPs of drained nodes, as a leader does. c.mu is held.
func (c *Cluster) lead() {
	v := c.Nodes[c.first].View()
	if len(v.Drained) == 0 {
		return
	}
	health := map[string]state.NodeHealth{}
	for name, n := range c.Nodes {
		alive := !n.World().Dead
		h := state.NodeHealth{Alive: alive, Fit: alive}
		for _, u := range n.report().Guard.Unable {
			h.Unable = append(h.Unable, u.Name)
		}
		health[name] = h
	}
	decisions, _ := state.Placements(v, health, c.first)
	for _, d := range decisions {
		c.index++
		for _, n := range c.Nodes {
			n.machine.Apply(c.index, state.Encode(d.Command()))
		}
	}
}

// Fail makes every proposal fail with err from now on; nil: no longer.
func (c *Cluster) Fail(err error) {
	c.mu.Lock()
	c.fail = err
	c.mu.Unlock()
}

// Client returns a client of a node. It is closed with the test.
func (c *Cluster) Client(t testing.TB, node string) *client.Client {
	cl := client.NewDial(node, c.Nodes[node].DialAPI)
	t.Cleanup(cl.Close)
	return cl
}

// Set changes what is true of the node.
func (n *Node) Set(f func(*World)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(&n.world)
	if n.world.Dead {
		for _, c := range n.conns {
			c.Close()
		}
		n.conns = nil
	}
}

// World returns what is true of the node.
func (n *Node) World() World {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.world
}

// View returns the node's replica of the state.
func (n *Node) View() *state.View { return n.machine.Views().Get() }

// DialAPI connects to the node's API.
func (n *Node) DialAPI(ctx context.Context) (net.Conn, error) { return n.pipe.dial(ctx) }

// Options is what the node gives to its API server.
func (n *Node) Options() api.Options {
	return api.Options{
		Self: n.name, Views: n.machine.Views(), Running: &n.running, Report: n.report, Check: n.check, Explain: n.explain,
		Seal:     cert.SealKey(make([]byte, 32)).Seal,
		Proposer: n, Peers: n, Operations: n, Log: slog.New(slog.DiscardHandler),
	}
}

// take is the engine's side of a view.
func (n *Node) take(v *state.View) {
	w := n.World()
	if v.Revision.Number == n.running.Get().Revision {
		return
	}
	time.Sleep(w.Slow) // virtual time
	if w.Refuse != "" {
		n.running.Update(func(r api.Running) api.Running {
			return api.Running{Revision: r.Revision, Tried: v.Revision.Number, Error: w.Refuse}
		})
		return
	}
	n.running.Set(api.Running{Revision: v.Revision.Number, Tried: v.Revision.Number})
}

func (n *Node) report() api.NodeReport {
	v, run, w := n.View(), n.running.Get(), n.World()
	role := state.Balancer
	if m, ok := v.Node(n.name); ok {
		role = m.Role
	}
	r := api.NodeReport{
		Name: n.name, Version: cmp.Or(w.Version, programVersion), Role: string(role), At: time.Now(), StartedAt: n.started,
		PID: w.PID, Program: w.program(), Level: cmp.Or(w.Level, state.Level), Outdated: w.Outdated,
		Revision: api.RevisionReport{Committed: v.Revision.Number, Running: run.Revision, Error: run.Error},
		Raft: api.RaftReport{
			State: "follower", Leader: n.cluster.first, Quorum: true, Term: 2, Voter: true, Voters: n.cluster.names(), AppliedIndex: v.Index,
		},
		Disk:  api.DiskReport{OK: true, FsyncMs: 1.5},
		Guard: api.GuardReport{Running: true, Profile: "20ms x 3", RealTime: true, Gate: "nftables", Fit: true},
	}
	for _, p := range v.SortedPlacements() {
		if p.Node == n.name {
			r.VIPs = append(r.VIPs, api.HeldVIP{
				Name: p.VIP, Epoch: p.Epoch.String(), Interface: "eth0", Since: n.started.Add(time.Hour), LeaseLeftMs: 40,
			})
		}
	}
	for _, p := range v.SortedPlacements() {
		if left := n.World().Draining; time.Now().Before(n.World().Until) && p.Node != n.name && slices.Contains(p.Ring, n.name) {
			parked := api.ParkedVIP{Name: p.VIP, Epoch: "1.2", Planned: true, ForMs: 2000, LeftMs: max(p.Drain.Milliseconds()-2000, 0)}
			if left >= 0 {
				parked.Connections = &left
			}
			r.Parked = append(r.Parked, parked)
		}
	}
	if v.Config != nil && role != state.Witness {
		for i, f := range v.Config.Frontends {
			pace := api.Pace{Requests: 120.5, Failed: 0.2, BytesIn: 48_000, BytesOut: 3_500_000, P50Ms: 1.2, P99Ms: 18}
			if i > 0 {
				pace = api.Pace{Requests: float64(i)}
			}
			r.Frontends = append(r.Frontends, api.FrontendReport{
				Name: f.Name, Mode: f.Mode.String(), Active: 40, Connections: 900, Requests: 3000, BytesIn: 1 << 20, BytesOut: 1 << 26, Pace: pace,
			})
		}
		for _, b := range v.Config.Backends {
			for _, s := range b.Servers {
				r.Servers = append(r.Servers, api.ServerReport{
					Backend: b.Name, Server: s.Name, Checked: b.Check != nil, Up: true, Since: n.started, Active: 2, Requests: 1000,
					Pace: api.Pace{Requests: 30, BytesIn: 12_000, BytesOut: 870_000, P50Ms: 0.8, P99Ms: 11},
				})
			}
		}
	}
	if edit := n.World().Edit; edit != nil {
		edit(&r)
	}
	return r
}

func (n *Node) check(c *config.Config) error {
	if len(c.Frontends) == 0 {
		return errors.New("nothing would listen")
	}
	return nil
}

func (n *Node) explain(vip string) []string {
	if p, ok := n.View().Placements[vip]; ok && p.Node == n.name {
		return []string{"holds it: placed here at epoch " + p.Epoch.String()}
	}
	return []string{"does not hold it: it is not placed here"}
}

// Propose implements api.Proposer.
func (n *Node) Propose(_ context.Context, cmd []byte) ([]byte, uint64, error) {
	return n.cluster.propose(cmd)
}

// Members implements api.Peers.
func (n *Node) Members() []api.Member {
	var out []api.Member
	for _, name := range n.cluster.names() {
		other := n.cluster.Nodes[name]
		out = append(out, api.Member{Name: other.name, Voter: true, Alive: !other.World().Dead})
	}
	return out
}

// Dial implements api.Peers.
func (n *Node) Dial(ctx context.Context, node string) (net.Conn, error) {
	other := n.cluster.Nodes[node]
	if other.World().Dead { // packets vanish
		<-ctx.Done()
		return nil, ctx.Err()
	}
	conn, err := other.pipe.dial(ctx)
	if err == nil {
		other.mu.Lock()
		other.conns = append(other.conns, conn)
		other.mu.Unlock()
	}
	return conn, err
}

// NewToken implements api.Operations.
func (n *Node) NewToken(_ context.Context, role string, expires time.Duration, uses int) (api.Token, error) {
	return api.Token{ID: "t1", Token: "c2tlaW4tZXhhbXBsZS10b2tlbg", Role: role, Uses: uses, ExpiresAt: time.Now().Add(expires), Address: "198.51.100.1:7940"}, nil
}

// Upgrade implements api.Operations: the successor serves at once, or the former agent goes on in another process.
func (n *Node) Upgrade(_ context.Context, drain time.Duration) (api.Successor, error) {
	w := n.World()
	if w.Unready != nil {
		return api.Successor{}, api.UpgradeRefused("put a working binary there, and try again", w.Unready)
	}
	p := w.program()
	next := api.Successor{Node: n.name, From: cmp.Or(w.Version, programVersion), To: p.Version, PID: w.PID + 1, DrainSeconds: drain.Seconds()}
	n.Set(func(w *World) {
		if w.PID, w.Failed = next.PID, nil; w.Breaks != "" {
			w.PID, w.Failed = next.PID+1, &api.FailedUpgrade{PID: next.PID, Version: next.To, Why: w.Breaks, At: time.Now()}
		} else {
			w.Version, w.Level = next.To, p.Level
		}
	})
	return next, nil
}

// programVersion is what every node runs that a test says nothing else of.
const programVersion = "v1.0.0"

// program is what it reports of its binary.
func (w *World) program() api.Program {
	runs := cmp.Or(w.Version, programVersion)
	lies := cmp.Or(w.OnDisk, runs)
	return api.Program{Path: "/usr/local/bin/skein", Version: lies, Level: cmp.Or(w.LevelOnDisk, w.Level, state.Level), Differs: lies != runs, Failed: w.Failed}
}

// RemoveNode implements api.Operations.
func (n *Node) RemoveNode(_ context.Context, name string) error {
	n.Set(func(w *World) { w.Removed = append(w.Removed, name) })
	key := make([]byte, 32)
	_, _, err := n.cluster.propose(state.Encode(state.RemoveNode{Name: name, Gossip: key, Heartbeat: key}))
	return err
}
