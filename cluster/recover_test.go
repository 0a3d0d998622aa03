package cluster

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/skeinlb/skein/state"
)

func (n *node) recovery() *Recovery {
	n.t.Helper()
	r, err := OpenRecovery(n.options())
	if err != nil {
		n.t.Fatalf("recover %s: %v", n.name, err)
	}
	return r
}

// recover makes n, which does not run, a cluster with the nodes in keep.
func (n *node) recover(keep ...string) {
	n.t.Helper()
	r := n.recovery()
	if err := r.Check(r.Ask(soon(n.t)), keep, nil); err != nil {
		n.t.Fatal(err)
	}
	if err := r.Recover(keep, 0); err != nil {
		n.t.Fatal(err)
	}
	if err := r.Close(); err != nil {
		n.t.Fatal(err)
	}
}

// Two of three nodes are lost. The third goes on with all that it has, alone, and others join it. The lost ones come back with what they
// had: nobody talks to them, nothing of the new cluster changes, and they cannot recover theirs while it lives.
func TestASurvivorGoesOnWithoutTheMajority(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.three()
	a.applied(b.tick(700))
	if _, err := OpenRecovery(a.options()); !errors.Is(err, ErrRunning) {
		t.Fatalf("while its agent runs: %v", err)
	}
	a.machine = a.opt.Machine.(*state.Machine) // options made another
	ca := a.machine.Views().Get().CA
	before := a.Leadership().Get().Term
	b.kill()
	c.kill()
	a.stop()

	r := a.recovery()
	if got := strings.Join(r.Voters, " "); got != "a b c" {
		t.Errorf("voters %q", got)
	}
	if r.Known > r.Last() || r.Known == 0 {
		t.Errorf("%d entries are known to be committed of %d", r.Known, r.Last())
	}
	if err := r.Recover([]string{"b", "c"}, 0); err == nil || !strings.Contains(err.Error(), "without a itself") {
		t.Errorf("recover the others and not itself: %v", err)
	}
	last := r.Last()
	if err := r.Close(); err != nil { // the operator has thought better of it
		t.Fatal(err)
	}
	a.recover("a")

	a.start()
	leaderOf(t, a)
	v := a.machine.Views().Get()
	if len(v.Nodes) != 1 || v.Cluster.Generation != 2 || len(v.Removed) != 2 || len(v.Former) != 2 || !bytes.Equal(v.CA.KeyPEM, ca.KeyPEM) {
		t.Errorf("the cluster is %+v of generation %d, removed %v, former %v", v.Nodes, v.Cluster.Generation, v.Removed, v.Former)
	}
	if got := a.tick(100); got <= last || a.machine.LogTime() != 800 {
		t.Errorf("log time %d at index %d, want 800 behind index %d", a.machine.LogTime(), got, last)
	}

	b.start()
	c.start()
	leaderOf(t, b, c) // they know nothing yet: telling them is the guards' part
	term := a.Leadership().Get().Term
	if term <= before {
		t.Errorf("a leads in term %d, and term %d was seen before it was recovered", term, before)
	}
	if _, err := b.askOnce(soon(t), "a", frameIndex, nil); err == nil {
		t.Error("a talks to b")
	}
	if _, err := a.askOnce(soon(t), "b", frameIndex, nil); !errors.Is(err, ErrUnknownNode) {
		t.Errorf("a asks b: %v", err)
	}
	b.Supersede("a", 2)
	var left *Superseded
	if _, _, err := b.Propose(soon(t), state.Encode(state.Tick{ElapsedMs: 1})); !errors.As(err, &left) || left.Own != 1 {
		t.Errorf("a node that was left behind takes proposals: %v", err)
	}
	c.kill()
	b.stop()
	r = b.recovery()
	if err := r.Check(r.Ask(soon(t)), []string{"b"}, []string{"a", "c"}); !errors.Is(err, ErrNotNewest) || !strings.Contains(err.Error(), "recovered there") {
		t.Errorf("recover a lost node beside the new cluster: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}

	d := w.join("b", a) // a new host of that name
	e := w.join("e", d)
	for _, n := range []*node{a, d, e} {
		wait(t, "three vote", n.Members(), func(ms []Member) bool {
			return len(ms) == 3 && !slices.ContainsFunc(ms, func(m Member) bool { return !m.Voter })
		})
	}
	e.applied(e.tick(1))
	if l := a.Leadership().Get(); l.Term != term || !l.Self {
		t.Errorf("a does not lead without a break: %+v, was term %d", l, term)
	}
	if v := e.machine.Views().Get(); len(v.Former) != 1 || v.Former[0].Name != "c" {
		t.Errorf("former nodes %v, want c alone", v.Former)
	}
}

// Recovered, and interrupted before the log behind the snapshot was cleared; then asked for again.
func TestARecoveryThatWasInterruptedIsDone(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.three()
	a.applied(b.tick(700))
	b.kill()
	c.kill()
	a.stop()
	log := filepath.Join(a.dir, fileStore)
	before, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	a.recover("a")
	if err := os.WriteFile(log, before, 0o600); err != nil {
		t.Fatal(err)
	}
	r := a.recovery()
	if err := r.Check(nil, []string{"a"}, nil); !errors.Is(err, ErrNotLost) {
		t.Errorf("once more: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	a.start()
	leaderOf(t, a)
	if a.tick(1); a.machine.LogTime() != 701 || a.machine.Views().Get().Cluster.Generation != 2 {
		t.Errorf("log time %d in generation %d", a.machine.LogTime(), a.machine.Views().Get().Cluster.Generation)
	}
}

// Three of five are lost. Of the two that are left one knows more, and is the one that goes on; the other is kept, runs all the time, and
// takes what the first one has in the place of its own.
func TestASurvivorThatIsKeptFollows(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.three()
	d := w.join("d", a)
	e := w.join("e", a)
	wait(t, "five vote", a.Members(), func(ms []Member) bool {
		return len(ms) == 5 && !slices.ContainsFunc(ms, func(m Member) bool { return !m.Voter })
	})
	b.kill()
	a.applied(a.tick(900)) // b does not have it
	for _, n := range []*node{c, d, e} {
		n.kill()
	}
	a.stop()
	a.start()
	r := b.recovery()
	peers := r.Ask(soon(t))
	for !peers[0].Answers { // a begins
		peers = r.Ask(soon(t))
	}
	if err := r.Check(peers, []string{"a", "b"}, nil); !errors.Is(err, ErrNotNewest) {
		t.Errorf("recover on the one that knows less: %v", err)
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	a.stop()
	b.start()
	a.recover("a", "b")
	a.start()
	leaderOf(t, a)
	index := a.tick(1)
	b.applied(index)
	if v := b.machine.Views().Get(); b.machine.LogTime() != 901 || v.Cluster.Generation != 2 || len(v.Nodes) != 2 {
		t.Errorf("b has log time %d of generation %d with %d nodes", b.machine.LogTime(), v.Cluster.Generation, len(v.Nodes))
	}
	f := w.join("f", b)
	wait(t, "three vote", f.Members(), func(ms []Member) bool {
		return len(ms) == 3 && !slices.ContainsFunc(ms, func(m Member) bool { return !m.Voter })
	})
}

// When a recovery is refused.
func TestRecoverIsRefusedWhileTheMajorityLives(t *testing.T) {
	three := &Recovery{Name: "a", Voters: []string{"a", "b", "c"}}
	five := &Recovery{Name: "a", Voters: []string{"a", "b", "c", "d", "e"}}
	up := func(name string) Peer { return Peer{Name: name, Voter: true, Answers: true} }
	down := func(name string) Peer { return Peer{Name: name, Voter: true} }
	for _, c := range []struct {
		what  string
		r     *Recovery
		peers []Peer
		keep  string
		force string
		want  error
		says  string
	}{
		{"nobody answers", three, []Peer{down("b"), down("c")}, "a", "", nil, ""},
		{"one of three answers", three, []Peer{up("b"), down("c")}, "a", "", ErrNotLost, "b answers, so 2 of 3 voters live when this node runs, and 2 are needed"},
		{"and is to be kept", three, []Peer{up("b"), down("c")}, "a b", "", ErrNotLost, "b answers, so 2 of 3"},
		{"and is named", three, []Peer{up("b"), down("c")}, "a", "b", nil, ""},
		{"two answer, one is named", three, []Peer{up("b"), up("c")}, "a", "b", ErrNotLost, "c answers, so 3 of 3"},
		{"one of five answers and is kept", five, []Peer{up("b"), down("c"), down("d"), down("e")}, "a b", "", nil, ""},
		{"and is not kept", five, []Peer{up("b"), down("c"), down("d"), down("e")}, "a", "", ErrNotLost, "b answers, and would be left behind"},
		{"two of five answer", five, []Peer{up("b"), up("c"), down("d"), down("e")}, "a b c", "", ErrNotLost, "b and c answer, so 3 of 5"},
		{"one knows more", five, []Peer{{Name: "b", Voter: true, Answers: true, Newer: true}}, "a b", "", ErrNotNewest, "recover on b"},
		{"it is recovered already", five, []Peer{{Name: "b", Voter: true, Answers: true, Ahead: true}}, "a", "b", ErrNotNewest, "recovered there already"},
		{"the voter of a pair lives", &Recovery{Name: "b", Voters: []string{"a"}}, []Peer{up("a")}, "b", "", ErrNotLost, "a answers, so 1 of 1"},
		{"the voter of a pair is lost", &Recovery{Name: "b", Voters: []string{"a"}}, []Peer{down("a")}, "b", "", nil, ""},
		{"it votes alone", &Recovery{Name: "a", Voters: []string{"a"}}, []Peer{{Name: "b"}}, "a", "", ErrNotLost, "this node alone votes"},
	} {
		err := c.r.Check(c.peers, strings.Fields(c.keep), strings.Fields(c.force))
		if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want %v: %s", c.what, err, c.want, c.says)
		}
	}
}
