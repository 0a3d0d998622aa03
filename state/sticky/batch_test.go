package sticky

import (
	"bytes"
	"encoding/binary"
	"errors"
	"testing"
	"time"
)

// Nobody drains: the rings fill, what is too much is dropped and counted, and what was accepted is all handed out.
func TestFullRingsDropAndCount(t *testing.T) {
	const n = 2 * shardCount * ringMax
	a := tables(t, shop(n))
	for i := uint64(0); i < n; i++ {
		a.Learn(ID("shop"), key(i), i, time.Minute)
	}
	s := a.Stats()[0]
	if s.Pending != a.Pending() || s.Pending+int(s.Dropped) != n ||
		s.Pending > shardCount*ringMax || s.Pending < shardCount*ringMax*9/10 {
		t.Errorf("pending %d (%d), dropped %d; want them to add up to %d, and at most %d pending", s.Pending, a.Pending(), s.Dropped, n,
			shardCount*ringMax)
	}
	if got := commit(t, a, a); got != s.Pending || a.Stats()[0].Entries != got {
		t.Errorf("drained %d, %d entries; want %d", got, a.Stats()[0].Entries, s.Pending)
	}
}

// Batches are lost without a word. The rings are used again, and new entries get through.
func TestSentEntriesThatNeverComeBackGiveWay(t *testing.T) {
	a := tables(t, shop(1<<20))
	for round := uint64(0); round < 3; round++ {
		for i := uint64(0); i < shardCount*ringMax; i++ {
			a.Learn(ID("shop"), key(round<<32|i), i+1, time.Minute)
		}
		sent := 0
		for {
			_, n := a.Drain(MaxBatch)
			if n == 0 {
				break
			}
			sent += n
		}
		if sent < shardCount*ringMax*9/10 {
			t.Errorf("round %d: only %d got out", round, sent)
		}
		check(t, a)
	}
}

func TestAnAbandonedBatchIsForgotten(t *testing.T) {
	a := tables(t, shop(10))
	a.Learn(ID("shop"), key(1), 7, time.Minute)
	batch, _ := a.Drain(10)
	wantServer(t, a, "in flight", 1, 7)
	a.Abandon(batch)
	wantServer(t, a, "abandoned", 1, 0)
	a.Learn(ID("shop"), key(1), 8, time.Minute)
	a.Abandon(batch)
	wantServer(t, a, "learned anew", 1, 8)
	a.Learn(ID("shop"), key(1), 7, time.Minute)
	a.Abandon(batch)
	wantServer(t, a, "learned anew, the same, and not yet sent", 1, 7)
	if s := a.Stats()[0]; s.Dropped != 1 || s.Pending != 1 {
		t.Errorf("dropped %d, pending %d; want 1, 1", s.Dropped, s.Pending)
	}
}

func TestReadyYieldsWhenSomethingWaits(t *testing.T) {
	a := tables(t, shop(10))
	select {
	case <-a.Ready():
		t.Error("ready with nothing learned")
	default:
	}
	for range 2 {
		a.Learn(ID("shop"), key(1), 1, time.Minute)
		<-a.Ready()
		a.Learn(ID("shop"), key(2), 1, time.Minute)
		commit(t, a, a)
		advance(2*minute, a)
	}
}

func TestCorruptBatchesAreRefusedAsAWhole(t *testing.T) {
	a := tables(t, shop(10))
	a.Learn(ID("shop"), key(1), 7, time.Minute)
	a.Learn(ID("shop"), key(2), 7, time.Minute)
	good, _ := a.Drain(10)
	flags := bytes.Clone(good)
	flags[11] |= 0x80
	many := bytes.Clone(good)
	binary.LittleEndian.PutUint16(many[9:], MaxBatch+1)
	for name, b := range map[string][]byte{
		"empty": {}, "version": {9}, "flags": flags, "too many": many, "longer": append(bytes.Clone(good), 0), "none": good[:11],
		"shorter": good[:len(good)-1],
	} {
		if n, err := a.Apply(b, 0); n != 0 || !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: Apply = %d, %v; want 0, %v", name, n, err, ErrCorrupt)
		}
	}
	if s := a.Stats()[0]; s.Entries != 0 {
		t.Errorf("%d entries came of it", s.Entries)
	}
}

func FuzzApply(f *testing.F) {
	a := tables(f, shop(10))
	a.Learn(ID("shop"), key(1), 7, time.Minute)
	good, _ := a.Drain(10)
	f.Add(good)
	_, _ = a.Apply(good, 0)
	a.Learn(ID("shop"), key(1), 8, time.Minute)
	move, _ := a.Drain(10)
	f.Add(move)
	f.Fuzz(func(t *testing.T, b []byte) {
		x, y := tables(t, shop(10)), tables(t, shop(10))
		nx, ex := x.Apply(b, 0)
		ny, ey := y.Apply(b, 0)
		if nx != ny || (ex == nil) != (ey == nil) || !bytes.Equal(dump(t, x), dump(t, y)) {
			t.Error("two replicas made different things of the same batch")
		}
	})
}
