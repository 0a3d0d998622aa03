package sticky

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func key(n uint64) (k Key) {
	binary.BigEndian.PutUint64(k[8:], n)
	return k
}

const (
	second = uint64(1000)
	minute = 60 * second
)

// shop is a table of a size that tests can fill.
func shop(size int) Spec {
	return Spec{ID: ID("shop"), Name: "shop", TTL: time.Minute, Size: size}
}

func tables(t testing.TB, specs ...Spec) *Tables {
	t.Helper()
	ts := New()
	if err := ts.Configure(specs); err != nil {
		t.Fatal(err)
	}
	return ts
}

// commit carries all that waits in from to every replica, as the log would.
func commit(t testing.TB, from *Tables, replicas ...*Tables) (n int) {
	t.Helper()
	for {
		batch, k := from.Drain(500)
		if k == 0 {
			return n
		}
		n += k
		for _, r := range replicas {
			if got, err := r.Apply(batch, r.LogTime()); err != nil || got != k {
				t.Fatalf("Apply = %d, %v; want %d, nil", got, err, k)
			}
		}
	}
}

func advance(ms uint64, all ...*Tables) {
	for _, ts := range all {
		ts.Advance(ts.LogTime() + ms)
	}
}

func dump(t testing.TB, ts *Tables) []byte {
	t.Helper()
	f := ts.Freeze()
	defer f.Release()
	var b bytes.Buffer
	if err := f.Write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func wantServer(t testing.TB, ts *Tables, who string, n, server uint64) {
	t.Helper()
	got, ok := ts.Lookup(ID("shop"), key(n))
	if ok != (server != 0) || got != server {
		t.Errorf("%s: Lookup(%d) = %d, %v; want %d", who, n, got, ok, server)
	}
}

func TestWhatIsLearnedIsSeenAtOnceHereAndOnceCommittedElsewhere(t *testing.T) {
	a, b := tables(t, shop(10)), tables(t, shop(10))
	a.Learn(ID("shop"), key(1), 7, time.Minute)
	wantServer(t, a, "a", 1, 7)
	wantServer(t, b, "b", 1, 0)
	if n := commit(t, a, a, b); n != 1 {
		t.Errorf("drained %d entries, want 1", n)
	}
	wantServer(t, a, "a", 1, 7)
	wantServer(t, b, "b", 1, 7)
	if a.Pending() != 0 {
		t.Errorf("%d entries wait after all was drained", a.Pending())
	}
}

// Both nodes see the same new client at the same time. The one that comes first in the log wins on both.
func TestTheFirstInTheLogWins(t *testing.T) {
	a, b := tables(t, shop(10)), tables(t, shop(10))
	a.Learn(ID("shop"), key(1), 7, time.Minute)
	b.Learn(ID("shop"), key(1), 8, time.Minute)
	wantServer(t, b, "b, before anything is committed", 1, 8)
	fromA, _ := a.Drain(10)
	fromB, _ := b.Drain(10)
	for _, ts := range []*Tables{a, b} {
		for _, batch := range [][]byte{fromA, fromB} {
			if _, err := ts.Apply(batch, 0); err != nil {
				t.Fatal(err)
			}
		}
		wantServer(t, ts, "both", 1, 7)
	}
	if s := b.Stats()[0]; s.Learned != 1 || s.Lost != 1 || s.Entries != 1 {
		t.Errorf("learned %d, lost %d, entries %d; want 1, 1, 1", s.Learned, s.Lost, s.Entries)
	}
}

// A queued entry that has already lost is not even proposed.
func TestWhatHasLostBeforeItWasSentIsNotSent(t *testing.T) {
	a, b := tables(t, shop(10)), tables(t, shop(10))
	a.Learn(ID("shop"), key(1), 7, time.Minute)
	b.Learn(ID("shop"), key(1), 8, time.Minute)
	commit(t, a, a, b)
	if _, n := b.Drain(10); n != 0 || b.Pending() != 0 {
		t.Errorf("b drained %d entries and has %d waiting, want none", n, b.Pending())
	}
	wantServer(t, b, "b", 1, 7)
}

// Server 7 is down: the engine sees the entry, picks server 8 and says so. That is a move, and wins unless somebody moved it
// first.
func TestLearningOverAnotherServerMovesTheEntry(t *testing.T) {
	a, b := tables(t, shop(10)), tables(t, shop(10))
	a.Learn(ID("shop"), key(1), 7, time.Minute)
	commit(t, a, a, b)
	a.Learn(ID("shop"), key(1), 8, time.Minute)
	wantServer(t, a, "a, at once", 1, 8)
	b.Learn(ID("shop"), key(1), 9, time.Minute)
	fromA, _ := a.Drain(10)
	fromB, _ := b.Drain(10)
	for _, ts := range []*Tables{a, b} {
		_, _ = ts.Apply(fromA, 0)
		_, _ = ts.Apply(fromB, 0)
		wantServer(t, ts, "both", 1, 8)
	}
	// Moved twice before the first is back: the second stands on the first.
	a.Learn(ID("shop"), key(1), 10, time.Minute)
	first, _ := a.Drain(10)
	a.Learn(ID("shop"), key(1), 11, time.Minute)
	for _, ts := range []*Tables{a, b} {
		_, _ = ts.Apply(first, 0)
	}
	wantServer(t, a, "a, while its second move waits", 1, 11)
	wantServer(t, b, "b", 1, 10)
	commit(t, a, a, b)
	wantServer(t, b, "b", 1, 11)
}

func TestARefreshIsProposedWhenLessThanHalfIsLeft(t *testing.T) {
	a, b := tables(t, shop(10)), tables(t, shop(10))
	a.Learn(ID("shop"), key(1), 7, time.Minute)
	commit(t, a, a, b)
	for _, c := range []struct {
		ms      uint64
		pending int
	}{{0, 0}, {29 * second, 0}, {2 * second, 1}, {0, 1}} {
		advance(c.ms, a, b)
		wantServer(t, a, "a", 1, 7)
		if a.Pending() != c.pending {
			t.Errorf("at %d ms %d entries wait, want %d", a.LogTime(), a.Pending(), c.pending)
		}
	}
	commit(t, a, a, b)
	if s := b.Stats()[0]; s.Refreshed != 1 || s.Learned != 1 {
		t.Errorf("refreshed %d, learned %d; want 1, 1", s.Refreshed, s.Learned)
	}
	advance(59*second, a, b)
	wantServer(t, b, "b, 59 s after the refresh", 1, 7)
	advance(1*second, a, b)
	wantServer(t, b, "b, 60 s after the refresh", 1, 0)
	if s := b.Stats()[0]; s.Expired != 1 || s.Entries != 0 {
		t.Errorf("expired %d, entries %d; want 1, 0", s.Expired, s.Entries)
	}
}

// Four loops look up and learn, one goroutine drains, one applies, snapshots and reconfigures. The race detector watches.
func TestLoopsAndApplyTogether(t *testing.T) {
	a := tables(t, shop(5000))
	var loops, pump sync.WaitGroup
	var stop atomic.Bool
	batches := make(chan []byte, 4)
	for l := range uint64(4) {
		loops.Go(func() {
			r := rand.New(rand.NewPCG(l, 5))
			for range 20000 {
				k := key(r.Uint64N(8000))
				if _, ok := a.Lookup(ID("shop"), k); !ok || r.IntN(20) == 0 {
					a.Learn(ID("shop"), k, 1+r.Uint64N(4), time.Minute)
				}
			}
		})
	}
	pump.Go(func() {
		defer close(batches)
		for {
			batch, n := a.Drain(200)
			if n > 0 {
				batches <- batch
			} else if stop.Load() {
				return
			} else {
				select {
				case <-a.Ready():
				case <-time.After(time.Millisecond):
				}
			}
		}
	})
	pump.Go(func() {
		var persist sync.WaitGroup
		i := 0
		for batch := range batches {
			if _, err := a.Apply(batch, a.LogTime()); err != nil {
				t.Error(err)
			}
			a.Advance(a.LogTime() + 50)
			if i++; i%20 == 0 {
				f := a.Freeze()
				persist.Go(func() {
					defer f.Release()
					if err := f.Write(&bytes.Buffer{}); err != nil {
						t.Error(err)
					}
				})
				_ = a.Stats()
				if err := a.Configure([]Spec{shop(4000 + i)}); err != nil {
					t.Error(err)
				}
			}
		}
		persist.Wait()
	})
	loops.Wait()
	stop.Store(true)
	pump.Wait()
	if a.Pending() != 0 || a.Stats()[0].Learned == 0 {
		t.Errorf("%d wait, %+v", a.Pending(), a.Stats()[0])
	}
}

func TestTheRequestPathDoesNotAllocate(t *testing.T) {
	a := tables(t, shop(1000))
	n := uint64(0)
	learn := func() {
		n++
		a.Learn(ID("shop"), key(n), n, time.Minute)
	}
	for range 3 * ringMax * shardCount / 2 { // the rings have their full size now
		learn()
	}
	for {
		if _, k := a.Drain(MaxBatch); k == 0 {
			break
		}
	}
	if got := testing.AllocsPerRun(1000, learn); got != 0 {
		t.Errorf("Learn allocates %v times", got)
	}
	if got := testing.AllocsPerRun(1000, func() { n++; a.Lookup(ID("shop"), key(n/2)) }); got != 0 {
		t.Errorf("Lookup allocates %v times", got)
	}
}
