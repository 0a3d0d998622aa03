package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

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

// A second node joins as a non-voter, a third makes three voters. Proposals work on any node and end up on all.
func TestClusterGrowsToThreeVotersAndTakesProposalsAnywhere(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	b := w.join("b", a)
	ms := wait(t, "b is seen", a.Members(), func(ms []Member) bool { return memberOf(ms, "b").Alive })
	if !memberOf(ms, "a").Voter || memberOf(ms, "b").Voter {
		t.Fatalf("of two nodes the first votes, got %+v", ms)
	}
	b.applied(b.tick(1000))
	c := w.join("c", b) // a follower passes the request on
	for _, n := range []*node{a, b, c} {
		wait(t, "all vote", n.Members(), func(ms []Member) bool {
			return memberOf(ms, "a").Voter && memberOf(ms, "b").Voter && memberOf(ms, "c").Voter
		})
	}
	for i, n := range []*node{a, b, c} {
		index := n.tick(1000)
		for _, m := range []*node{a, b, c} {
			m.applied(index)
			if got, want := m.machine.LogTime(), uint64(1000*(i+2)); got != want {
				t.Errorf("%s: log time %d, want %d", m.name, got, want)
			}
		}
	}
	if _, err := os.Stat(filepath.Join(a.dir, fileFound)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the founder still keeps the file with the authority's key: %v", err)
	}
}

// The leader dies without a word. The others elect, and take proposals again; nothing that was acknowledged is lost.
func TestClusterGoesOnWithoutItsLeader(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.three()
	lead := leaderOf(t, a, b, c)
	var rest []*node
	for _, n := range []*node{a, b, c} {
		if n != lead {
			rest = append(rest, n)
		}
	}
	rest[0].tick(500)
	lead.kill()
	next := leaderOf(t, rest...)
	for _, n := range rest {
		n.applied(n.tick(250))
	}
	if got, want := next.machine.LogTime(), uint64(1000); got != want {
		t.Errorf("log time %d, want %d", got, want)
	}
	lead.start()
	index := lead.tick(1)
	lead.applied(index)
	if got := lead.machine.LogTime(); got != 1001 {
		t.Errorf("the former leader is back with log time %d, want 1001", got)
	}
}

// A follower that knows better than raft's timers starts an election and leads long before they would have run out, although the
// old leader is alive; then leadership is handed on as asked.
func TestElectAndTransferMoveLeadership(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.three()
	lead := leaderOf(t, a, b, c)
	if err := lead.Elect(); err != nil {
		t.Errorf("elect on the leader: %v", err)
	}
	next := b
	if lead == b {
		next = c
	}
	term := lead.Leadership().Get().Term
	if err := next.Elect(); err != nil {
		t.Fatal(err)
	}
	l := wait(t, next.name+" leads", next.Leadership(), func(l Leadership) bool { return l.Self && l.Barrier })
	if l.Term != term+1 {
		t.Errorf("it took elections up to term %d, was %d", l.Term, term)
	}
	if err := next.Transfer(lead.name); err != nil {
		t.Fatal(err)
	}
	wait(t, lead.name+" leads again", lead.Leadership(), func(l Leadership) bool { return l.Self && l.Barrier })
	if err := next.Transfer(""); !errors.Is(err, ErrNotLeader) {
		t.Errorf("transfer on a follower: %v", err)
	}
	wait(t, "the follower knows", next.Leadership(), func(l Leadership) bool { return l.Leader == lead.name })
	if err := lead.Transfer("nobody"); err == nil {
		t.Error("leadership was handed to nobody")
	}
}

// Two candidates that stood at the same time have split the votes. Raft would have both of them wait for 1 to 2 s; who is asked to stand
// again does so at once. A candidate that nobody answers stands for one that has too few votes.
func TestACandidateStandsAgain(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.three()
	lead := leaderOf(t, a, b, c)
	next, third := b, c
	if lead == b {
		next = a
	} else if lead == c {
		third = a
	}
	third.kill()
	lead.kill()
	stats := func() Stats { return next.Stats() }
	term := stats().Term
	for i := range 3 {
		if err := next.Elect(); err != nil {
			t.Fatal(err)
		}
		// The first attempt takes one term; each other one takes one to step down, and one to stand.
		want := term + 1 + 2*uint64(i)
		for ctx := soon(t); stats().Term < want; {
			select {
			case <-ctx.Done():
				t.Fatalf("after attempt %d the term is %d, want %d", i+1, stats().Term, want)
			case <-time.After(time.Millisecond):
			}
		}
	}
	third.start()
	if err := next.Elect(); err != nil {
		t.Fatal(err)
	}
	leaderOf(t, next, third)
}

// All nodes restart. Without a quorum the first one shows what was agreed on and refuses to write; with a second one all goes on.
func TestRestartShowsWhatWasAgreedOnWithoutAQuorum(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.three()
	a.tick(1000)
	index := b.tick(1000) // an entry carries the commit index of those before it
	for _, n := range []*node{a, b, c} {
		n.applied(index)
	}
	for _, n := range []*node{a, b, c} {
		n.stop()
	}
	a.start()
	wait(t, "the state is there", a.machine.Views(), func(v *state.View) bool { return len(v.Nodes) == 3 })
	wait(t, "members are shown", a.Members(), func(ms []Member) bool { return len(ms) == 3 })
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, _, err := a.Propose(ctx, state.Encode(state.Tick{ElapsedMs: 1})); !errors.Is(err, ErrNoQuorum) {
		t.Errorf("propose without a quorum: %v, want %v", err, ErrNoQuorum)
	}
	b.start()
	a.applied(a.tick(1000))
	if got := a.machine.LogTime(); got != 3000 {
		t.Errorf("log time %d, want 3000", got)
	}
}

// A node is away while the log behind it is cut off. It comes back by a snapshot.
func TestLongAbsenceIsHealedByASnapshot(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.three()
	c.stop()
	lead := leaderOf(t, a, b)
	rc := lead.raft.ReloadableConfig()
	rc.TrailingLogs = 1
	if err := lead.raft.ReloadConfig(rc); err != nil {
		t.Fatal(err)
	}
	var index uint64
	for range 50 {
		index = lead.tick(10)
	}
	if err := lead.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	if first, _, _ := lead.store.extent(); first < index-1 {
		t.Fatalf("the log still begins at %d, %d was the last", first, index)
	}
	c.start()
	c.applied(index)
	if got := c.machine.LogTime(); got != 500 {
		t.Errorf("log time %d, want 500", got)
	}
	c.applied(c.tick(1))
	c.stop()
	c.start() // from the installed snapshot
	c.applied(c.tick(1))
	if got := c.machine.LogTime(); got != 502 {
		t.Errorf("after a restart log time %d, want 502", got)
	}
}

// A node is removed: it leaves the voters, its certificate is refused, and a new one of that name may join.
func TestRemovedNodeIsRefused(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.three()
	lead := leaderOf(t, a, b, c)
	keys := lead.machine.Views().Get().Keys
	gone, stays := b, c
	if lead == b {
		gone, stays = c, a
	}
	if err := stays.RemoveNode(soon(t), "nobody"); !errors.Is(err, state.ErrUnknownNode) {
		t.Errorf("remove nobody: %v", err)
	}
	if err := stays.RemoveNode(soon(t), gone.name); err != nil {
		t.Fatal(err)
	}
	wait(t, "it has learned of it", gone.machine.Views(), func(v *state.View) bool { _, ok := v.Node(gone.name); return !ok })
	wait(t, "it is no member", stays.Members(), func(ms []Member) bool { return len(ms) == 2 })
	for ctx := soon(t); lead.voter(gone.name); {
		if ctx.Err() != nil {
			t.Fatal("it still votes")
		}
		time.Sleep(5 * time.Millisecond)
	}
	if conn, err := gone.mux.dial(soon(t), stays.addr, stays.name, ALPNAPI); err == nil {
		conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err = conn.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("the removed node was let in: %v", err)
		}
		conn.Close()
	}
	// Its address is forgotten with raft's new configuration; its certificate is refused before that.
	if _, err := stays.Dial(soon(t), gone.name, ALPNAPI); !errors.Is(err, ErrUnknownNode) && !errors.Is(err, ErrRemoved) {
		t.Errorf("dial the removed node: %v", err)
	}
	gone.kill()
	wait(t, "the keys that it knew are replaced and retired", stays.machine.Views(), func(v *state.View) bool {
		return len(v.Keys.Gossip) == 1 && !bytes.Equal(v.Keys.Gossip[0], keys.Gossip[0]) &&
			len(v.Keys.Heartbeat) == 1 && !bytes.Equal(v.Keys.Heartbeat[0], keys.Heartbeat[0])
	})
	wait(t, "the others still see each other", stays.Members(), func(ms []Member) bool { return memberOf(ms, lead.name).Alive })

	// With its old key it does not come back, with a new one it does.
	old := gone.newcomer()
	os.Remove(filepath.Join(old.Dir, fileCert))
	os.Remove(filepath.Join(old.Dir, fileStore))
	if _, err := Join(soon(t), old, lead.addr, w.token(lead)); !errors.Is(err, ErrJoinRefused) || !strings.Contains(err.Error(), "removed") {
		t.Errorf("join with the key of a removed node: %v", err)
	}
	os.RemoveAll(old.Dir)
	if _, err := Join(soon(t), old, lead.addr, w.token(lead)); err != nil {
		t.Fatal(err)
	}
	gone.start()
	wait(t, "it votes again", stays.Members(), func(ms []Member) bool { return memberOf(ms, gone.name).Voter })
	gone.applied(gone.tick(1))
}

// Who may not join is told why and what to do, and leaves nothing behind. Who asks again is the same newcomer.
func TestJoinRefusals(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	other := w.found("x")
	b := w.node("b")

	tok, err := parseToken(w.token(a))
	if err != nil {
		t.Fatal(err)
	}
	wrongSecret, wrongPin := tok, tok
	wrongSecret.secret = make([]byte, tokenSecret)
	wrongPin.pin = make([]byte, len(tok.pin))
	spent := w.token(a)
	if _, err := Join(soon(t), w.join("c", a).newcomer(), a.addr, spent); !errors.Is(err, ErrMember) {
		t.Errorf("join as a member: %v", err)
	}
	d := w.node("d")
	if _, err := Join(soon(t), d.newcomer(), a.addr, spent); err != nil {
		t.Fatal(err)
	}
	_, late, err := a.CreateToken(soon(t), state.Balancer, time.Second, 1)
	if err != nil {
		t.Fatal(err)
	}
	a.tick(2000)
	named := func(name string) func(*Newcomer) { return func(n *Newcomer) { n.Name = name } }
	for _, tc := range []struct {
		name   string
		token  string
		change func(*Newcomer)
		is     error
		says   string
	}{
		{"no token", "hello", nil, ErrToken, "skein cluster token"},
		{"cut off", tok.String()[:60], nil, ErrToken, "copy all of it again"},
		{"wrong secret", wrongSecret.String(), nil, ErrJoinRefused, "skein cluster token"},
		{"used up", spent, nil, ErrJoinRefused, "skein cluster token"},
		{"expired", late, nil, ErrJoinRefused, "skein cluster token"},
		{"wrong pin", wrongPin.String(), nil, ErrPin, ""},
		{"token of another cluster", w.tokenOf(other, a.addr), nil, ErrPin, ""},
		{"name taken", w.token(a), named("a"), ErrJoinRefused, "skein node remove a"},
		{"bad name", w.token(a), named("a/b"), nil, "node name"},
		{"address taken", w.token(a), func(n *Newcomer) { n.Advertise = a.addr }, ErrJoinRefused, "advertise another"},
		{"no address", w.token(a), func(n *Newcomer) { n.Advertise = netip.AddrPort{} }, nil, "advertise"},
		{"another role than the token's", w.token(a), func(n *Newcomer) { n.Role = state.Witness }, ErrJoinRefused, ""},
		{"unknown role", w.token(a), func(n *Newcomer) { n.Role = "boss" }, ErrJoinRefused, "witness"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			n := b.newcomer()
			if tc.change != nil {
				tc.change(&n)
			}
			_, err := Join(soon(t), n, a.addr, tc.token)
			if err == nil || tc.is != nil && !errors.Is(err, tc.is) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("got %v, want %v with %q", err, tc.is, tc.says)
			}
			if _, err := Open(b.options()); !errors.Is(err, ErrNoCluster) {
				t.Errorf("open after a refused join: %v, want %v", err, ErrNoCluster)
			}
		})
	}

	// The answer is lost: the newcomer has its key and no certificate. It asks again with a token that is used up.
	os.Remove(filepath.Join(d.dir, fileCert))
	if _, err := Join(soon(t), d.newcomer(), a.addr, spent); err != nil {
		t.Errorf("ask again: %v", err)
	}
	if _, err := Found(d.newcomer()); !errors.Is(err, ErrMember) {
		t.Errorf("found on a member: %v", err)
	}
}

// tokenOf makes a token of one cluster that points at a node of another.
func (w *world) tokenOf(n *node, addr netip.AddrPort) string {
	w.t.Helper()
	t, err := parseToken(w.token(n))
	if err != nil {
		w.t.Fatal(err)
	}
	t.addrs = []netip.AddrPort{addr}
	return t.String()
}

// The leader's disk fails a write. What it was asked to write is not acknowledged, it says so and leads no more; the others go on at
// once, and after a restart it is back with everything.
func TestFailedDiskEndsLeadershipAndNeverAcknowledges(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.three()
	lead := leaderOf(t, a, b, c)
	var rest []*node
	for _, n := range []*node{a, b, c} {
		if n != lead {
			rest = append(rest, n)
		}
	}
	eio := errors.New("fdatasync: input/output error")
	lead.store.commit = func(func(*bolt.Tx) error) error { return eio }
	if _, _, err := lead.Propose(soon(t), state.Encode(state.Tick{ElapsedMs: 7})); !errors.Is(err, ErrDisk) {
		t.Errorf("propose: %v, want %v", err, ErrDisk)
	}
	wait(t, "the disk's state is published", lead.Disk(), func(err error) bool { return errors.Is(err, eio) })
	leaderOf(t, rest...)
	wait(t, "it does not lead", lead.Leadership(), func(l Leadership) bool { return !l.Self })
	if _, _, err := lead.Propose(soon(t), state.Encode(state.Tick{ElapsedMs: 7})); !errors.Is(err, ErrDisk) {
		t.Errorf("propose again: %v, want %v", err, ErrDisk)
	}
	if err := lead.Elect(); !errors.Is(err, ErrDisk) {
		t.Errorf("elect: %v, want %v", err, ErrDisk)
	}
	rest[0].tick(1000)
	lead.kill()
	lead.start()
	lead.applied(lead.tick(1))
}

// The leader's disk hangs. Raft would lead on, since heartbeats need no disk; another node is asked to.
func TestHangingDiskGivesLeadershipAway(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.three()
	lead := leaderOf(t, a, b, c)
	release := make(chan struct{})
	works := lead.store.commit
	lead.store.commit = func(f func(*bolt.Tx) error) error { <-release; return works(f) }
	asked := make(chan error, 1)
	go func() {
		_, _, err := lead.Propose(context.Background(), state.Encode(state.Tick{ElapsedMs: 1}))
		asked <- err
	}()
	var rest []*node
	for _, n := range []*node{a, b, c} {
		if n != lead {
			rest = append(rest, n)
		}
	}
	rest[0].applied(leaderOf(t, rest...).tick(1))
	close(release)
	if err := <-asked; err != nil && !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("the proposal that hung: %v", err)
	}
	lead.applied(rest[0].tick(1))
	if err := lead.Disk().Get(); err != nil {
		t.Errorf("a disk that was slow counts as failed: %v", err)
	}
}

// What was written since the last snapshot makes the next one due, however few entries it was.
func TestSnapshotsGoByBytes(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	index := a.tick(1)
	a.store.written.Store(snapshotBytes)
	for ctx := soon(t); a.Stats().SnapshotIndex < index; {
		if ctx.Err() != nil {
			t.Fatalf("no snapshot: %+v", a.Stats())
		}
		time.Sleep(5 * time.Millisecond)
	}
	a.stop()
	a.start()
	if wait(t, "state from the snapshot", a.machine.Views(), func(v *state.View) bool { return v.Founded() }); a.machine.LogTime() != 1 {
		t.Errorf("log time %d, want 1", a.machine.LogTime())
	}
}

// Damaged files are refused with what to do about it.
func TestDamageIsRefusedWithTheWayOut(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	for range 20 {
		a.tick(1)
	}
	if err := a.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	a.stop()
	snaps, _ := filepath.Glob(filepath.Join(a.dir, snapDir, "*", "state.bin"))
	if len(snaps) != 1 {
		t.Fatalf("snapshots: %v", snaps)
	}
	db := filepath.Join(a.dir, fileStore)
	for _, tc := range []struct {
		name, file string
		damage     func([]byte) []byte
	}{
		{"database cut off", db, func(b []byte) []byte { return b[:len(b)/3] }},
		{"database overwritten", db, func(b []byte) []byte { return []byte(strings.Repeat("no database ", 4000)) }},
		{"snapshot cut off", snaps[0], func(b []byte) []byte { return b[:len(b)-1] }},
		{"snapshot changed", snaps[0], func(b []byte) []byte { b[len(b)/2] ^= 1; return b }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			whole, err := os.ReadFile(tc.file)
			if err != nil {
				t.Fatal(err)
			}
			defer os.WriteFile(tc.file, whole, 0o600)
			os.WriteFile(tc.file, tc.damage(slices.Clone(whole)), 0o600)
			_, err = Open(a.options())
			for _, want := range []string{strings.TrimSuffix(tc.file, "/state.bin"), "skein node remove a", "skein cluster join", "mv " + a.dir} {
				if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), want) {
					t.Fatalf("got %v, want %v that says %q", err, ErrCorrupt, want)
				}
			}
		})
	}
	a.start()
	a.tick(1)
	if _, err := Open(a.options()); !errors.Is(err, errBusy) {
		t.Errorf("open what another agent has open: %v", err)
	}
}

// A certificate past two thirds of its life is replaced through the leader, for the same key.
func TestCertificateRenewsItself(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	b := w.join("b", a)
	b.applied(a.tick(1))
	before := b.Stats().Certificate
	b.stop()
	a.stop()
	later := func(o *Options) { o.Now = func() time.Time { return time.Now().Add(nodeLife * 3 / 4) } }
	a.change, b.change = later, later
	a.start()
	b.start()
	for ctx := soon(t); b.Stats().Certificate.Before(before.Add(nodeLife / 2)); {
		if ctx.Err() != nil {
			t.Fatalf("the certificate still ends on %v", b.Stats().Certificate)
		}
		time.Sleep(5 * time.Millisecond)
	}
	fp := b.identity.Load().fingerprint
	b.stop()
	b.start()
	b.applied(b.tick(1))
	if got := b.identity.Load().fingerprint; got != fp {
		t.Errorf("the key changed from %s to %s", fp, got)
	}
}

// A node comes back at another address, which its node.hcl says. It tells the others by itself.
func TestMovedNodeTellsItsAddress(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.three()
	gone := b
	if leaderOf(t, a, b, c) == b {
		gone = c
	}
	gone.stop()
	gone.addr = freeAddr(t)
	gone.start()
	wait(t, "the new address is known", a.machine.Views(), func(v *state.View) bool {
		n, _ := v.Node(gone.name)
		return n.Advertise == gone.addr
	})
	wait(t, "it is seen there", a.Members(), func(ms []Member) bool { m := memberOf(ms, gone.name); return m.Alive && m.Addr == gone.addr })
	gone.applied(a.tick(1))
}

// What a node says of itself reaches the others; connections of the API protocol arrive with their certificates.
func TestMetaAndAPIConnections(t *testing.T) {
	w := newWorld(t)
	a := w.found("a")
	b := w.join("b", a)
	if err := b.SetMeta(make([]byte, maxMeta+1)); err == nil {
		t.Error("a summary that is too long was taken")
	}
	if err := b.SetMeta([]byte("well")); err != nil {
		t.Fatal(err)
	}
	wait(t, "b's summary", a.Members(), func(ms []Member) bool { return string(memberOf(ms, "b").Meta) == "well" })

	got := make(chan string, 1)
	go func() {
		c, err := b.APIListener().Accept()
		if err != nil {
			got <- err.Error()
			return
		}
		defer c.Close()
		_, name, _ := certName(c.(*tls.Conn).ConnectionState().PeerCertificates[0])
		buf := make([]byte, 2)
		io.ReadFull(c, buf)
		got <- name + " says " + string(buf)
	}()
	c, err := a.Dial(soon(t), "b", ALPNAPI)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.Write([]byte("hi"))
	if s := <-got; s != "a says hi" {
		t.Error(s)
	}
}
