package cluster

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/state"
)

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
