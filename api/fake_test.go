package api_test

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/api/client"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/internal/watch"
	"github.com/skeinlb/skein/state"
)

const shop = `
vip "public" { address = "192.0.2.10/24" }
frontend "shop" {
  vip     = "public"
  http    = 80
  backend = "shop"
}
backend "shop" {
  check "http" { path = "/healthz" }
  server "s1" { address = "198.51.100.21:8080" }
  server "s2" { address = "198.51.100.22:8080" }
}
`

// fakeCluster is a log without Raft: what one node proposes, all replicas apply at once. The replicas and the API servers are real.
type fakeCluster struct {
	nodes map[string]*fakeNode

	mu sync.Mutex
	// mu guards the following.
	index uint64
	fail  error // of every proposal
}

type fakeNode struct {
	name    string
	cluster *fakeCluster
	machine *state.Machine
	running watch.Value[api.Running]
	pipe    pipeListener

	mu sync.Mutex
	// mu guards the following.
	dead    bool          // nobody reaches it
	refuse  string        // why its engine takes no new configuration
	slow    time.Duration // of its engine to take one
	removed []string
}

// newCluster starts the named nodes. They end with the test.
func newCluster(t *testing.T, names ...string) *fakeCluster {
	t.Helper()
	c := &fakeCluster{nodes: map[string]*fakeNode{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	for _, name := range names {
		n := &fakeNode{name: name, cluster: c, machine: state.New(), pipe: newPipeListener()}
		c.nodes[name] = n
		s := api.New(api.Options{
			Self: name, Views: n.machine.Views(), Running: &n.running, Report: n.report, Check: n.check, Explain: n.explain,
			Proposer: n, Peers: n, Operations: n, Log: slog.New(slog.DiscardHandler),
		})
		wg.Go(func() {
			if err := s.Serve(ctx, n.pipe); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() { n.machine.Views().Each(ctx, n.take) })
	}
	key := make([]byte, 32)
	first := names[0]
	c.must(t, state.Found{ClusterID: "c1", Gossip: key, Heartbeat: key, Node: member(first)})
	for _, name := range names[1:] {
		c.must(t, state.PutNode{Node: member(name)})
	}
	return c
}

func member(name string) state.Node {
	return state.Node{Name: name, Role: state.Balancer, Fingerprint: "fp-" + name, Advertise: netip.MustParseAddrPort("198.51.100.1:7940")}
}

func (c *fakeCluster) must(t *testing.T, cmd state.Command) {
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

func (c *fakeCluster) propose(cmd []byte) (result []byte, index uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fail != nil {
		return nil, 0, c.fail
	}
	c.index++
	for _, n := range c.nodes {
		result = n.machine.Apply(c.index, cmd).([]byte)
	}
	return result, c.index, nil
}

func (c *fakeCluster) setFail(err error) {
	c.mu.Lock()
	c.fail = err
	c.mu.Unlock()
}

// client returns a client of a node; it is closed with the test.
func (c *fakeCluster) client(t *testing.T, node string) *client.Client {
	cl := client.NewDial(node, c.nodes[node].pipe.dial)
	t.Cleanup(cl.Close)
	return cl
}

func (n *fakeNode) set(f func(*fakeNode)) {
	n.mu.Lock()
	f(n)
	n.mu.Unlock()
}

// take is the engine's side of a view.
func (n *fakeNode) take(v *state.View) {
	n.mu.Lock()
	refuse, slow := n.refuse, n.slow
	n.mu.Unlock()
	time.Sleep(slow) // virtual time
	if refuse != "" && v.Revision.Number > n.running.Get().Revision {
		n.running.Update(func(r api.Running) api.Running {
			return api.Running{Revision: r.Revision, Tried: v.Revision.Number, Error: refuse}
		})
		return
	}
	n.running.Set(api.Running{Revision: v.Revision.Number, Tried: v.Revision.Number})
}

func (n *fakeNode) report() api.NodeReport {
	v, run := n.machine.Views().Get(), n.running.Get()
	r := api.NodeReport{
		Name: n.name, Version: "v1.0.0", Role: "balancer", At: time.Now(), StartedAt: time.Now().Add(-time.Hour),
		Revision: api.RevisionReport{Committed: v.Revision.Number, Running: run.Revision, Error: run.Error},
		Raft:     api.RaftReport{State: "follower", Leader: "lb1", Quorum: true, Voter: true},
		Disk:     api.DiskReport{OK: true}, Guard: api.GuardReport{Running: true, Fit: true},
	}
	if v.Config != nil {
		for _, b := range v.Config.Backends {
			for _, s := range b.Servers {
				r.Servers = append(r.Servers, api.ServerReport{Backend: b.Name, Server: s.Name, Checked: true, Up: true, Requests: 10})
			}
		}
	}
	return r
}

func (n *fakeNode) check(c *config.Config) error {
	if len(c.Frontends) == 0 {
		return errors.New("nothing would listen")
	}
	return nil
}

func (n *fakeNode) explain(vip string) []string { return []string{n.name + " does not hold " + vip} }

func (n *fakeNode) Propose(_ context.Context, cmd []byte) ([]byte, uint64, error) {
	return n.cluster.propose(cmd)
}

func (n *fakeNode) Members() []api.Member {
	var out []api.Member
	for _, other := range n.cluster.nodes {
		other.mu.Lock()
		out = append(out, api.Member{Name: other.name, Voter: true, Alive: !other.dead})
		other.mu.Unlock()
	}
	return out
}

func (n *fakeNode) Dial(ctx context.Context, node string) (net.Conn, error) {
	other := n.cluster.nodes[node]
	other.mu.Lock()
	dead := other.dead
	other.mu.Unlock()
	if dead { // packets vanish
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return other.pipe.dial(ctx)
}

func (n *fakeNode) NewToken(_ context.Context, role string, expires time.Duration, uses int) (api.Token, error) {
	return api.Token{ID: "t1", Token: "secret", Role: role, Uses: uses, ExpiresAt: time.Now().Add(expires), Address: "198.51.100.1:7940"}, nil
}

func (n *fakeNode) RemoveNode(_ context.Context, name string) error {
	n.set(func(n *fakeNode) { n.removed = append(n.removed, name) })
	key := make([]byte, 32)
	_, _, err := n.cluster.propose(state.Encode(state.RemoveNode{Name: name, Gossip: key, Heartbeat: key}))
	return err
}

// pipeListener is a listener whose connections live in memory, so that they run in virtual time.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   *sync.Once
}

func newPipeListener() pipeListener {
	return pipeListener{conns: make(chan net.Conn), closed: make(chan struct{}), once: new(sync.Once)}
}

func (l pipeListener) dial(ctx context.Context) (net.Conn, error) {
	here, there := net.Pipe()
	select {
	case l.conns <- there:
		return here, nil
	case <-l.closed:
		return nil, errors.New("closed")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l pipeListener) Addr() net.Addr { return pipeAddr{} }

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }
