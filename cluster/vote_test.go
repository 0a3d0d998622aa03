package cluster

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/hashicorp/raft"
	bolt "go.etcd.io/bbolt"
)

// crashed opens the file of s as it is on the disk now.
func crashed(t *testing.T, s *store) *store {
	t.Helper()
	b, err := os.ReadFile(s.db.Path())
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), fileStore)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return reopen(t, path)
}

// Raft writes a vote as three values. They take one transaction, and are all on the disk before the vote is given.
func TestAVoteIsOneWrite(t *testing.T) {
	s, _ := newStore(t)
	writes := 0
	s.commit = func(f func(*bolt.Tx) error) error { writes++; return s.db.Update(f) }
	vote := func(term uint64, candidate string) {
		t.Helper()
		if err := errors.Join(s.SetUint64(keyTerm, term), s.SetUint64(keyVoteTerm, term), s.Set([]byte("LastVoteCand"), []byte(candidate))); err != nil {
			t.Fatal(err)
		}
	}
	vote(7, "b")
	vote(8, "c")
	if writes != 2 {
		t.Errorf("two votes took %d writes, want 2", writes)
	}
	for _, s := range []*store{s, crashed(t, s)} {
		term, err1 := s.GetUint64(keyTerm)
		in, err2 := s.GetUint64(keyVoteTerm)
		who, err3 := s.Get([]byte("LastVoteCand"))
		if err := errors.Join(err1, err2, err3); err != nil || term != 8 || in != 8 || string(who) != "c" {
			t.Errorf("term %d, voted in %d for %q, %v; want 8, 8, c", term, in, who, err)
		}
	}
}

// A term alone is no write. Raft reads it back all the same, and the next entries, or the orderly end, take it to the disk.
func TestATermGoesToTheDiskWithTheNextEntries(t *testing.T) {
	s, path := newStore(t)
	writes := 0
	s.commit = func(f func(*bolt.Tx) error) error { writes++; return s.db.Update(f) }
	is := func(s *store, want uint64) {
		t.Helper()
		if n, _ := s.GetUint64(keyTerm); n != want {
			t.Errorf("term %d, want %d", n, want)
		}
	}
	if err := s.SetUint64(keyTerm, 3); err != nil || writes != 0 {
		t.Errorf("a term took %d writes, %v", writes, err)
	}
	is(s, 3)
	is(crashed(t, s), 0)
	if err := s.StoreLogs(entries(1, 1)); err != nil || writes != 1 {
		t.Errorf("an entry and a term took %d writes, %v", writes, err)
	}
	is(crashed(t, s), 3)
	if err := s.SetUint64(keyTerm, 4); err != nil {
		t.Fatal(err)
	}
	is(crashed(t, s), 3)
	s.close()
	is(reopen(t, path), 4)
}

// A new leader that has carried out every command of its log says so at once; nothing is written for it.
func TestALeaderThatMissesNothingWritesNoBarrier(t *testing.T) {
	w := newWorld(t)
	a, b, c := w.three()
	lead := leaderOf(t, a, b, c)
	next := b
	if lead == b {
		next = c
	}
	index := lead.tick(5)
	next.applied(index)
	if err := next.Elect(); err != nil {
		t.Fatal(err)
	}
	l := wait(t, next.name+" leads", next.Leadership(), func(l Leadership) bool { return l.Self && l.Barrier })
	next.tick(5)
	last, _ := next.store.LastIndex()
	for i := index + 1; i <= last; i++ {
		var e raft.Log
		if err := next.store.GetLog(i, &e); err == nil && e.Term == l.Term && e.Type == raft.LogBarrier {
			t.Errorf("entry %d is a barrier", i)
		}
	}
	// One that has an entry which it has not carried out does not say so.
	applied := next.fsm.applied.Swap(index - 1)
	if next.caughtUp() {
		t.Errorf("it takes itself for caught up at %d, with a command at %d", index-1, index)
	}
	next.fsm.applied.Store(applied)
}
