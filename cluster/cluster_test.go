package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/skeinlb/skein/state"
)

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
