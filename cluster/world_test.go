package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/internal/watch"
	"github.com/skeinlb/skein/state"
)

// node is a member under test: a real Cluster on loopback with a real machine.
type node struct {
	t       *testing.T
	name    string
	dir     string
	addr    netip.AddrPort
	machine *state.Machine
	*Cluster
	cancel context.CancelFunc
	done   chan error
	change func(*Options)
}

// world makes nodes and sees that nothing of this package is left behind.
type world struct {
	t     *testing.T
	nodes []*node
}

func newWorld(t *testing.T) *world {
	w := &world{t: t}
	t.TempDir() // its removal is registered now, so that it comes after the nodes have stopped
	t.Cleanup(func() {
		for _, n := range w.nodes {
			n.kill()
		}
		leaks(t)
	})
	return w
}

// leaks fails the test when goroutines that run this package's code, raft's or memberlist's survive.
func leaks(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for {
		buf := make([]byte, 1<<20)
		buf = buf[:runtime.Stack(buf, true)]
		var left []string
		for _, g := range strings.Split(string(buf), "\n\n") {
			if strings.Contains(g, "testing.tRunner") || strings.Contains(g, "leaks(") {
				continue
			}
			if strings.Contains(g, "skein/cluster.") || strings.Contains(g, "hashicorp/raft.") || strings.Contains(g, "hashicorp/memberlist.") {
				left = append(left, g)
			}
		}
		if len(left) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Errorf("%d goroutines are left, the first:\n%s", len(left), left[0])
			return
		}
		runtime.Gosched()
		time.Sleep(10 * time.Millisecond) // goroutines that have been told to end need a moment on a processor
	}
}

// freeAddr returns a loopback address whose TCP and UDP ports are free.
func freeAddr(t *testing.T) netip.AddrPort {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		a := l.Addr().(*net.TCPAddr).AddrPort()
		l.Close()
		p, err := net.ListenPacket("udp", a.String())
		if err == nil {
			p.Close()
			return a
		}
	}
	t.Fatal("no port is free for both TCP and UDP")
	panic("unreachable")
}

func (w *world) node(name string) *node {
	n := &node{t: w.t, name: name, dir: filepath.Join(w.t.TempDir(), "cluster"), addr: freeAddr(w.t)}
	w.nodes = append(w.nodes, n)
	return n
}

func (n *node) newcomer() Newcomer {
	return Newcomer{Dir: n.dir, Name: n.name, Advertise: n.addr, Role: state.Balancer}
}

func (n *node) options() Options {
	n.machine = state.New()
	var h slog.Handler = slog.DiscardHandler
	if os.Getenv("SKEIN_TEST_LOG") != "" {
		h = slog.NewTextHandler(n.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})
	}
	o := Options{Dir: n.dir, Advertise: n.addr, Role: state.Balancer, Machine: n.machine, Views: n.machine.Views(), Log: slog.New(h)}
	if n.change != nil {
		n.change(&o)
	}
	return o
}

func (n *node) start() *node {
	n.t.Helper()
	c, err := Open(n.options())
	if err != nil {
		n.t.Fatalf("open %s: %v", n.name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	n.Cluster, n.cancel, n.done = c, cancel, make(chan error, 1)
	go func() { n.done <- c.Run(ctx) }()
	return n
}

// kill ends a node as SIGKILL does for the others: without handing leadership over.
func (n *node) kill() {
	if n.cancel == nil {
		return
	}
	select {
	case <-n.started:
		n.raft.Shutdown().Error()
	case err := <-n.done:
		n.done <- err
	}
	n.stop()
}

func (n *node) stop() {
	n.cancel()
	if err := <-n.done; err != nil {
		n.t.Errorf("%s: %v", n.name, err)
	}
	n.cancel = nil
}

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func wait[T any](t *testing.T, what string, v *watch.Value[T], ok func(T) bool) T {
	t.Helper()
	got, err := v.Wait(soon(t), ok)
	if err != nil {
		t.Fatalf("%s: still %.400s", what, fmt.Sprintf("%+v", got))
	}
	return got
}

// found makes the first node of a cluster and waits until it leads.
func (w *world) found(name string) *node {
	w.t.Helper()
	n := w.node(name)
	if _, err := Found(n.newcomer()); err != nil {
		w.t.Fatal(err)
	}
	n.start()
	wait(w.t, "founder leads", n.Leadership(), func(l Leadership) bool { return l.Self && l.Barrier })
	wait(w.t, "cluster is founded", n.machine.Views(), func(v *state.View) bool { return v != nil && v.Founded() })
	return n
}

func (w *world) token(n *node) string {
	w.t.Helper()
	_, tok, err := n.CreateToken(soon(w.t), state.Balancer, time.Hour, 1)
	if err != nil {
		w.t.Fatal(err)
	}
	return tok
}

// join makes a new member through via and starts it.
func (w *world) join(name string, via *node) *node {
	w.t.Helper()
	n := w.node(name)
	if _, err := Join(soon(w.t), n.newcomer(), via.addr, w.token(via)); err != nil {
		w.t.Fatalf("join %s: %v", name, err)
	}
	return n.start()
}

// three makes a cluster of three voters.
func (w *world) three() (a, b, c *node) {
	w.t.Helper()
	a = w.found("a")
	b = w.join("b", a)
	c = w.join("c", b)
	for _, n := range []*node{a, b, c} {
		wait(w.t, "three voters are seen by "+n.name, n.Members(), func(ms []Member) bool {
			voters := 0
			for _, m := range ms {
				if m.Voter && m.Alive {
					voters++
				}
			}
			return voters == 3
		})
	}
	return a, b, c
}

// tick proposes a command that everybody can count.
func (n *node) tick(ms uint64) uint64 {
	n.t.Helper()
	b, index, err := n.Propose(soon(n.t), state.Encode(state.Tick{ElapsedMs: ms}))
	if err != nil {
		n.t.Fatalf("propose on %s: %v", n.name, err)
	}
	r, err := state.DecodeResult(b)
	if err != nil || r.Err() != nil {
		n.t.Fatalf("propose on %s: result %+v, %v", n.name, r, err)
	}
	return index
}

// applied waits until a node has applied an index.
func (n *node) applied(index uint64) {
	n.t.Helper()
	ctx := soon(n.t)
	for n.AppliedIndex() < index {
		select {
		case <-ctx.Done():
			n.t.Fatalf("%s applied %d, want %d; %+v", n.name, n.AppliedIndex(), index, n.Stats())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func leaderOf(t *testing.T, nodes ...*node) *node {
	t.Helper()
	ctx := soon(t)
	for {
		for _, n := range nodes {
			if l := n.Leadership().Get(); l.Self && l.Barrier {
				return n
			}
		}
		select {
		case <-ctx.Done():
			t.Fatal("nobody leads")
		case <-time.After(5 * time.Millisecond):
		}
	}
}
