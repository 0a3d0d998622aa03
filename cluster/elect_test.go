package cluster

import (
	"errors"
	"testing"
	"time"
)

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
