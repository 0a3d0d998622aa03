package cluster

import (
	"encoding/binary"
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"
)

// This file is what raft keeps beside its log: its term and its vote.
//
// Raft writes a vote as three values, one after the other: the term that it has come to, the term that it votes in, and for whom. Each
// would be a transaction of two syncs, on the candidate and then on the voter, in the middle of a fail-over. So the two terms are
// kept in memory and go to the disk with what gives them a meaning: the vote, or the next entries.
//
// A crash may forget a term that no vote and no entry of this node bears, and that is safe. A second vote in one term: a vote is on the
// disk with its term before it is given. A commit in an older term: who forgot that it had heard of a newer leader may vote for an
// older candidate, but each majority that has taken an entry of the newer term, on the disk and with it the term, has one node in
// common with each majority that elects, and that one refuses.

var (
	keyTerm     = []byte("CurrentTerm") // raft's names
	keyVoteTerm = []byte("LastVoteTerm")
)

// terms are what raft takes for written. 0: nothing is to be written.
type terms struct{ current, vote uint64 }

// put writes them.
func (t terms) put(b *bolt.Bucket) error {
	for _, p := range []struct {
		key []byte
		n   uint64
	}{{keyTerm, t.current}, {keyVoteTerm, t.vote}} {
		if p.n == 0 {
			continue
		}
		if err := b.Put(p.key, encodeValue(p.key, binary.BigEndian.AppendUint64(nil, p.n))); err != nil {
			return err
		}
	}
	return nil
}

// written forgets what is on the disk now.
func (t *terms) written(w terms) {
	if t.current == w.current {
		t.current = 0
	}
	if t.vote == w.vote {
		t.vote = 0
	}
}

// of finds the one that raft keeps under key.
func (t *terms) of(key []byte) *uint64 {
	switch string(key) {
	case string(keyTerm):
		return &t.current
	case string(keyVoteTerm):
		return &t.vote
	}
	return nil
}

// Set writes a value, and the terms that wait for one. When it returns nil, they have been synced.
func (s *store) Set(key, val []byte) error {
	s.mu.Lock()
	wait := s.terms
	s.mu.Unlock()
	err := s.update("write the vote", func(tx *bolt.Tx) error {
		b := tx.Bucket(bucketStable)
		if err := wait.put(b); err != nil {
			return err
		}
		return b.Put(key, encodeValue(key, val))
	})
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.terms.written(wait)
	s.mu.Unlock()
	return nil
}

func (s *store) Get(key []byte) ([]byte, error) {
	s.mu.Lock()
	if n := s.terms.of(key); n != nil && *n != 0 {
		defer s.mu.Unlock()
		return binary.BigEndian.AppendUint64(nil, *n), nil
	}
	s.mu.Unlock()
	var out []byte
	err := s.db.View(func(tx *bolt.Tx) error {
		v := tx.Bucket(bucketStable).Get(key)
		if v == nil {
			return errStoreKey
		}
		v, err := decodeValue(key, v)
		out = append(out, v...)
		return err
	})
	return out, err
}

// SetUint64 keeps a term for the next write, and writes any other number. Raft panics when the current term cannot be written, so a
// failed disk is not reported here: this node no longer votes (Set fails), stores nothing (StoreLogs fails) and is about to stop raft,
// and a term by itself promises nothing to anybody.
func (s *store) SetUint64(key []byte, val uint64) error {
	s.mu.Lock()
	n := s.terms.of(key)
	if n != nil {
		*n = val
	}
	s.mu.Unlock()
	switch {
	case n == nil:
		return s.Set(key, binary.BigEndian.AppendUint64(nil, val))
	case string(key) == string(keyTerm):
		return nil
	}
	return s.disk.refused()
}

func (s *store) GetUint64(key []byte) (uint64, error) {
	v, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(v) != 8 {
		return 0, fmt.Errorf("%s: %d bytes where a number was expected", key, len(v))
	}
	return binary.BigEndian.Uint64(v), nil
}

// close closes the file. A term that waits for a write gets it.
func (s *store) close() error {
	s.mu.Lock()
	left := s.terms
	s.mu.Unlock()
	var err error
	if left != (terms{}) && s.disk.refused() == nil {
		err = s.update("write the term", func(tx *bolt.Tx) error { return left.put(tx.Bucket(bucketStable)) })
	}
	return errors.Join(err, s.db.Close())
}
