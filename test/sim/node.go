package sim

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"path/filepath"
	"testing/synctest"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/api/client"
	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/internal/node"
	"github.com/skeinlb/skein/internal/race"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// Node is one host: a kernel with a link, a guard, an agent, a directory that survives.
type Node struct {
	w     *World
	Name  string
	addr  netip.AddrPort
	dir   string
	role  config.Role
	guard *vip.Virtual
	kill  context.CancelFunc // the guard
	dead  chan struct{}      // closed when the guard's goroutine has ended

	agent  *vip.VirtualAgent // nil: no agent runs
	proc   *process
	cancel context.CancelFunc
	ended  chan struct{} // closed when the agent's goroutines have ended
	engine *engine
	node   *node.Node // the newest
	level  int        // of the commands that its version applies; 0: this version's
	drain  time.Duration
	admin  netip.AddrPort
	disk   disk

	up, paused, hung bool

	// Guarded by w.mu.
	links    map[string]*link
	cutSince time.Time // since when it can't exchange heartbeats with a majority of voters; zero: it can
}

// host makes a host that belongs to no cluster.
func (w *World) host(name string, role config.Role) *Node {
	i := len(w.Nodes) + 1
	a := netip.AddrFrom4([4]byte{198, 18, 0, byte(i)})
	n := &Node{
		w: w, Name: name, addr: netip.AddrPortFrom(a, config.DefaultPort), dir: filepath.Join(w.tb.TempDir(), name), role: role, level: w.level, drain: 200 * time.Millisecond,
		admin: netip.AddrPortFrom(a, 1), links: map[string]*link{},
	}
	w.mu.Lock()
	w.Nodes = append(w.Nodes, n)
	w.mu.Unlock()
	return n
}

func (n *Node) newcomer() cluster.Newcomer {
	role := state.Balancer
	if n.role == config.Witness {
		role = state.Witness
	}
	return cluster.Newcomer{
		Dir: filepath.Join(n.dir, "cluster"), Name: n.Name, Advertise: n.addr, Role: role, Network: n.w.net.process(n.addr.Addr()), Level: n.level,
	}
}

// Join makes a new host a member, by a token from the first node that runs, and boots it.
func (w *World) Join(name string, role config.Role) *Node {
	via := w.running()[0]
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c := via.client()
	defer c.Close()
	tok, err := c.NewToken(ctx, api.TokenRequest{Role: role.String()})
	if err != nil {
		w.Fatalf("make a token on %s: %v", via.Name, err)
	}
	n := w.host(name, role)
	if _, err := cluster.Join(ctx, n.newcomer(), via.addr, tok.Token); err != nil {
		w.Fatalf("join %s: %v", name, err)
	}
	n.boot()
	w.Logf("%s joined through %s", name, via.Name)
	w.Until(name+" has the log", 10*time.Second, func() bool {
		v := n.view()
		if v == nil {
			return true
		}
		_, ok := v.Node(name)
		return ok
	})
	return n
}

// running are the nodes whose agents run and are not stopped.
func (w *World) running() []*Node {
	var ns []*Node
	for _, n := range w.Nodes {
		if n.up && n.agent != nil && !n.paused && !n.hung {
			ns = append(ns, n)
		}
	}
	return ns
}

// boot powers a host on: guard, then agent.
func (n *Node) boot() { n.bootSlowly(0) }

// bootSlowly lets so much time pass before the agent.
func (n *Node) bootSlowly(d time.Duration) {
	if n.up {
		return
	}
	n.w.net.change(func() { n.w.net.host(n.addr.Addr()).up = true })
	n.up = true
	n.startGuard()
	time.Sleep(d)
	n.startAgent()
	n.w.reachable()
}

func (n *Node) startGuard() {
	ctx, cancel := context.WithCancel(context.Background())
	n.guard, n.kill, n.dead = vip.NewVirtual(vip.VirtualOptions{
		Edge: n, Pair: n.w.pair.edge(n), Boot: dice(n.w, func(r *rand.Rand) uint64 { return r.Uint64() }), RealTime: true,
		Late: dice(n.w, func(r *rand.Rand) time.Duration { return time.Duration(r.Int64N(int64(100 * time.Microsecond))) }),
	}), cancel, make(chan struct{})
	g, dead := n.guard, n.dead
	n.w.pair.runs(n, g)
	n.w.net.bind(n.heartbeats(), func(b []byte, _ netip.AddrPort) { g.Heartbeat(b) })
	go func() {
		defer close(dead)
		g.Run(ctx)
	}()
}

func (n *Node) heartbeats() netip.AddrPort {
	return netip.AddrPortFrom(n.addr.Addr(), n.addr.Port()+1)
}

// startAgent starts the agent, after the last one of this host has ended.
func (n *Node) startAgent() {
	n.wait()
	n.proc = n.w.net.process(n.addr.Addr())
	n.agent = n.guard.Attach()
	n.disk.mend()
	admin, err := n.proc.Listen(n.admin)
	if err != nil {
		n.w.Fatalf("%s: admin API: %v", n.Name, err)
	}
	opt := node.Options{
		Config: &config.Node{
			Name: n.Name, DataDir: n.dir, Advertise: n.addr.Addr(), Port: n.addr.Port(), Interface: "eth0", Role: n.role,
		},
		Version: "sim", Log: slog.New(n.w.trace.handler(n.Name)),
		Level: n.level, Network: n.proc, Guard: n.agent, Admin: admin, Disk: n.disk.sync,
		Engine: func(m *state.Machine) node.Engine {
			e := newEngine(m)
			n.w.mu.Lock()
			n.engine = e
			n.w.mu.Unlock()
			return e
		},
	}
	nd, err := node.Open(opt)
	if err != nil {
		n.w.Fatalf("%s: open: %v", n.Name, err)
	}
	n.node = nd
	ctx, cancel := context.WithCancel(context.Background())
	n.cancel, n.ended = cancel, make(chan struct{})
	ended, proc, drain := n.ended, n.proc, n.drain
	if n.role == config.Balancer {
		go n.w.replicas.follow(ctx, n.Name, n.engine.machine, func(why string) { n.w.violate("%s", why) })
	}
	go func() {
		defer close(ended)
		if err := nd.Run(ctx, drain); err != nil && ctx.Err() == nil && !proc.isDead() {
			n.w.violate("%s: the agent ended: %v", n.Name, err)
		}
	}()
}

func (p *process) isDead() bool {
	p.n.mu.Lock()
	defer p.n.mu.Unlock()
	return p.dead
}

// killAgent is kill -9 of the agent alone.
func (n *Node) killAgent() {
	if n.agent == nil {
		return
	}
	n.hang(false)
	n.w.Logf("%s agent killed", n.Name)
	n.agent.Die()
	n.proc.kill()
	n.cancel()
	n.agent = nil
}

// powerOff ends the host at once.
func (n *Node) powerOff() {
	if !n.up {
		return
	}
	n.w.Logf("%s powered off", n.Name)
	n.resume()
	n.w.net.change(func() { n.w.net.host(n.addr.Addr()).up = false })
	n.up = false
	n.kill()
	<-n.dead
	n.w.mu.Lock()
	clear(n.links)
	n.w.mu.Unlock()
	n.killAgent()
	n.w.reachable()
}

// stop ends the agent as an operator does, and its guard with it.
func (n *Node) stop() {
	n.hang(false)
	n.w.Logf("%s agent told to stop", n.Name)
	n.cancel()
	n.wait()
	n.proc.kill()
	n.agent = nil
}

// wait returns when the last agent has ended. One that never does is a bug, of which its goroutines tell most.
func (n *Node) wait() {
	if n.ended == nil {
		return
	}
	select {
	case <-n.ended:
	case <-time.After(time.Minute):
		panic(fmt.Sprintf("seed %d: the agent of %s does not end\n%s", n.w.seed, n.Name, n.w.trace.String()))
	}
}

// pause stops agent and guard of a host as SIGSTOP does; its kernel goes on.
func (n *Node) pause() {
	if !n.up || n.paused {
		return
	}
	n.w.Logf("%s stopped", n.Name)
	n.paused = true
	n.guard.Pause(true)
	n.w.net.change(func() { n.w.net.host(n.addr.Addr()).paused = true })
	n.w.reachable()
}

func (n *Node) resume() {
	if !n.paused {
		return
	}
	n.w.Logf("%s runs on", n.Name)
	n.paused = false
	n.w.net.change(func() { n.w.net.host(n.addr.Addr()).paused = false })
	n.guard.Pause(false)
	n.w.reachable()
}

// hang stops the agent's process alone, or lets it run again; the guard lives. No connection of the agent carries anything meanwhile.
func (n *Node) hang(on bool) {
	if n.agent == nil || n.hung == on {
		return
	}
	n.hung = on
	n.w.Logf("%s agent hangs: %v", n.Name, on)
	n.agent.Stop(on)
	n.w.net.change(func() { n.w.net.host(n.addr.Addr()).hung = on })
}

// crashGuard is kill -9 of the guard; its agent starts another.
func (n *Node) crashGuard() {
	n.w.Logf("%s guard killed", n.Name)
	n.guard.Crash()
}

// view is what a node wants by its own log; nil for a witness, whose log nobody can look into.
func (n *Node) view() *state.View {
	if n.engine == nil {
		return nil
	}
	return n.engine.machine.Views().Get()
}

// client is the admin API's client on the node itself.
func (n *Node) client() *client.Client {
	outside := n.w.net.process(n.addr.Addr())
	return client.NewDial(n.Name, func(ctx context.Context) (net.Conn, error) { return outside.Dial(ctx, n.admin) })
}

// report is what the node says of itself; empty when it does not answer.
func (n *Node) report() api.NodeReport {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	c := n.client()
	defer c.Close()
	r, err := c.Node(ctx)
	if err != nil {
		return api.NodeReport{}
	}
	return *r
}

// snapshot is a node's whole replicated state as bytes; under the race detector what is published of it.
func (n *Node) snapshot() []byte {
	// A snapshot is for the goroutine that applies. A bubble in which all wait makes it safe for others too, which the race detector
	// cannot know.
	if race.Enabled {
		b, err := json.Marshal(n.view())
		if err != nil {
			n.w.Fatalf("%s: view: %v", n.Name, err)
		}
		return b
	}
	synctest.Wait() // nothing is being applied
	s, err := n.engine.machine.Snapshot()
	if err != nil {
		n.w.Fatalf("%s: snapshot: %v", n.Name, err)
	}
	defer s.Release()
	var b bytes.Buffer
	if err := s.Persist(&b); err != nil {
		n.w.Fatalf("%s: snapshot: %v", n.Name, err)
	}
	return b.Bytes()
}
