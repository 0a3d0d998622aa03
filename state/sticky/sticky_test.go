package sticky

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
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

func TestAFullTableLosesItsOldest(t *testing.T) {
	a := tables(t, shop(3))
	for n := uint64(1); n <= 3; n++ {
		a.Learn(ID("shop"), key(n), n, time.Minute)
		commit(t, a, a)
		advance(15*second, a)
	}
	wantServer(t, a, "", 1, 1) // 45 s old: asks for a refresh
	commit(t, a, a)
	a.Learn(ID("shop"), key(4), 4, time.Minute)
	commit(t, a, a)
	for n, want := range map[uint64]uint64{1: 1, 2: 0, 3: 3, 4: 4} {
		wantServer(t, a, "after the fourth", n, want)
	}
	if s := a.Stats()[0]; s.Evicted != 1 || s.Entries != 3 {
		t.Errorf("evicted %d, entries %d; want 1, 3", s.Evicted, s.Entries)
	}
}

func TestATableThatShrinksLosesItsOldestLittleByLittle(t *testing.T) {
	a := tables(t, shop(100))
	for n := uint64(1); n <= 100; n++ {
		a.Learn(ID("shop"), key(n), n, time.Minute)
	}
	commit(t, a, a)
	if err := a.Configure([]Spec{shop(10)}); err != nil {
		t.Fatal(err)
	}
	if n := a.Stats()[0].Entries; n != 100 {
		t.Errorf("%d entries right after the change, want all 100", n)
	}
	a.Learn(ID("shop"), key(101), 101, time.Minute)
	commit(t, a, a)
	if n := a.Stats()[0].Entries; n != 99 {
		t.Errorf("%d entries after one more, want 99", n)
	}
	advance(1, a)
	if n := a.Stats()[0].Entries; n != 10 {
		t.Errorf("%d entries after a tick, want 10", n)
	}
	wantServer(t, a, "the newest", 101, 101)
}

func TestATableThatIsGoneForgetsWhatItHad(t *testing.T) {
	other := Spec{ID: ID("db"), Name: "db", TTL: time.Minute, Size: 10}
	a := tables(t, shop(10), other)
	a.Learn(ID("shop"), key(1), 1, time.Minute)
	commit(t, a, a)
	a.Learn(ID("shop"), key(2), 2, time.Minute)
	a.Learn(other.ID, key(2), 2, time.Minute)
	late, _ := a.Drain(1)
	if err := a.Configure([]Spec{other}); err != nil {
		t.Fatal(err)
	}
	wantServer(t, a, "gone", 1, 0)
	a.Learn(ID("shop"), key(3), 3, time.Minute)
	if _, err := a.Apply(late, 0); err != nil {
		t.Errorf("a batch for a table that is gone: %v", err)
	}
	for {
		if _, n := a.Drain(10); n == 0 {
			break
		}
	}
	if a.Pending() != 0 {
		t.Errorf("%d wait for ever", a.Pending())
	}
	if err := a.Configure([]Spec{shop(10), other}); err != nil {
		t.Fatal(err)
	}
	wantServer(t, a, "a new table of the same name", 1, 0)
}

func TestConfigureRefusesWhatMakesNoSenseAndChangesNothing(t *testing.T) {
	for name, specs := range map[string][]Spec{
		"no size":  {shop(0)},
		"no ttl":   {{ID: 1, Name: "x", Size: 1}},
		"size":     {shop(MaxSize + 1)},
		"twice":    {shop(1), shop(2)},
		"ttl":      {{ID: 1, Name: "x", Size: 1, TTL: MaxTTL + 1}},
		"negative": {{ID: 1, Name: "x", Size: -1, TTL: -1}},
	} {
		a := tables(t, shop(10))
		if err := a.Configure(specs); err == nil {
			t.Errorf("%s: accepted", name)
		}
		if got := a.Specs(); len(got) != 1 || got[0] != shop(10) {
			t.Errorf("%s: specs are now %v", name, got)
		}
	}
}

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

// model is the specification: a map and a list, with no thought of speed.
type model struct {
	size    int
	now     uint64
	order   []Key // oldest first
	entries map[Key]modelEntry
}

type modelEntry struct{ server, expires uint64 }

func (m *model) drop(k Key) {
	delete(m.entries, k)
	m.order = slices.DeleteFunc(m.order, func(o Key) bool { return o == k })
}

func (m *model) trim(n int, room int) {
	for ; n > 0 && len(m.order) > 0; n-- {
		if m.entries[m.order[0]].expires > m.now && len(m.order)+room <= m.size {
			return
		}
		m.drop(m.order[0])
	}
}

func (m *model) put(e *batchEntry, ttl uint64) {
	old, ok := m.entries[e.key]
	switch {
	case ok && old.expires > m.now && old.server == e.server && 2*(old.expires-m.now) >= ttl:
		return
	case ok && old.expires > m.now && old.server != e.server && !(e.move && e.prev == old.server):
		return
	case !ok:
		m.trim(trimPerInsert, 1)
	}
	m.drop(e.key)
	m.entries[e.key] = modelEntry{e.server, m.now + ttl}
	m.order = append(m.order, e.key)
}

// check looks for broken invariants in what no Lookup shows.
func check(t *testing.T, ts *Tables) {
	t.Helper()
	queued := 0
	for _, table := range ts.set.Load().order {
		indexed := 0
		for i := range table.shards {
			s := &table.shards[i]
			indexed += s.index.count
			o := &s.over
			live, waiting := 0, 0
			for n := o.head; n != o.tail; n++ {
				r := &o.ring[o.place(n)]
				if r.dead {
					continue
				}
				live++
				if !r.sent {
					waiting++
				}
				if r.sent != (int32(n-o.mid) < 0) {
					t.Fatalf("shard %d: record %d is sent=%v, and mid is %d", i, n, r.sent, o.mid)
				}
				if o.find(&r.key, uint64(r.hash)) != r {
					t.Fatalf("shard %d: record %d is not in the index", i, n)
				}
			}
			if live != o.live || waiting != o.queued || o.mid-o.head > o.tail-o.head || o.tail-o.head > ringMax {
				t.Fatalf("shard %d: head %d mid %d tail %d, %d live (counted %d), %d queued (counted %d)", i, o.head, o.mid, o.tail, o.live,
					live, o.queued, waiting)
			}
			queued += waiting
		}
		if indexed != int(table.count.Load()) {
			t.Fatalf("%d entries are in an index, of %d", indexed, table.count.Load())
		}
	}
	if queued != ts.Pending() {
		t.Fatalf("%d wait, counted %d", ts.Pending(), queued)
	}
}

// TestAgainstTheModel drives three replicas and the model with random operations: everything that is committed must agree, and
// snapshots must be the same to the byte, also on a replica that was restored midway.
func TestAgainstTheModel(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			spec := shop(150)
			nodes := []*Tables{tables(t, spec), tables(t, spec), tables(t, spec)}
			m := &model{size: spec.Size, entries: map[Key]modelEntry{}}
			for step := range 6000 {
				n := r.IntN(len(nodes))
				ts := nodes[n]
				switch op := r.IntN(100); {
				case op < 50:
					k := key(r.Uint64N(400))
					if _, ok := ts.Lookup(spec.ID, k); !ok || r.IntN(10) == 0 {
						server := 1 + r.Uint64N(5)
						ts.Learn(spec.ID, k, server, spec.TTL)
						if got, ok := ts.Lookup(spec.ID, k); !ok || got != server {
							t.Fatalf("step %d: learned %d for %x and found %d, %v", step, server, k, got, ok)
						}
					}
				case op < 90:
					batch, k := ts.Drain(1 + r.IntN(30))
					switch {
					case k == 0:
					case r.IntN(10) == 0:
						ts.Abandon(batch)
					case r.IntN(10) == 0: // lost without a word
					default:
						for _, o := range nodes {
							if _, err := o.Apply(batch, o.LogTime()); err != nil {
								t.Fatal(err)
							}
						}
						_, _ = walk(batch, func(e *batchEntry) { m.put(e, uint64(spec.TTL/time.Millisecond)) })
					}
				case op < 97:
					ms := r.Uint64N(3 * second)
					advance(ms, nodes...)
					m.now += ms
					m.trim(trimPerTick, 0)
				case op < 98:
					spec.Size = 50 + r.IntN(150)
					spec.TTL = time.Duration(20+r.IntN(60)) * time.Second
					for _, o := range nodes {
						if err := o.Configure([]Spec{spec}); err != nil {
							t.Fatal(err)
						}
					}
					m.size = spec.Size
				default:
					fresh := New()
					l, err := fresh.Load(bytes.NewReader(dump(t, ts)))
					if err != nil {
						t.Fatal(err)
					}
					fresh.Adopt(l, ts.LogTime())
					nodes[n] = fresh
				}
				if step%10 == 0 {
					check(t, nodes[n])
				}
			}
			want := dump(t, nodes[0])
			for i, ts := range nodes {
				if !bytes.Equal(dump(t, ts), want) {
					t.Errorf("the snapshot of node %d differs from that of node 0", i)
				}
				for { // what was not committed is of no interest here
					batch, n := ts.Drain(MaxBatch)
					if n == 0 {
						break
					}
					ts.Abandon(batch)
				}
			}
			fresh := New()
			l, err := fresh.Load(bytes.NewReader(want))
			if err != nil {
				t.Fatal(err)
			}
			fresh.Adopt(l, nodes[0].LogTime())
			live := 0
			for n := range uint64(400) {
				e, ok := m.entries[key(n)]
				ok = ok && e.expires > m.now
				if ok {
					live++
				}
				if got, found := fresh.Lookup(spec.ID, key(n)); found != ok || ok && got != e.server {
					t.Errorf("key %d: %d, %v; the model says %d, %v", n, got, found, e.server, ok)
				}
			}
			if got := fresh.Stats()[0].Entries; got != len(m.order) || live < 10 {
				t.Errorf("%d entries, the model has %d, %d of them live", got, len(m.order), live)
			}
		})
	}
}

// A snapshot is persisted while everything in it is refreshed, moved, evicted and overwritten.
func TestASnapshotShowsOneMoment(t *testing.T) {
	const n = 20000
	a := tables(t, shop(n))
	r := rand.New(rand.NewPCG(3, 3))
	churn := func() {
		for range 3000 {
			a.Learn(ID("shop"), key(r.Uint64N(2*n)), 1+r.Uint64N(9), time.Minute)
		}
		advance(second/2, a)
		commit(t, a, a)
	}
	for range 20 {
		churn()
	}
	for range 5 {
		want := dump(t, a)
		f := a.Freeze()
		var wg sync.WaitGroup
		var got bytes.Buffer
		started := make(chan struct{})
		wg.Go(func() {
			close(started)
			if err := f.Write(&got); err != nil {
				t.Error(err)
			}
		})
		<-started
		for range 10 {
			churn()
		}
		wg.Wait()
		f.Release()
		f.Release()
		if !bytes.Equal(got.Bytes(), want) {
			t.Fatal("what was written meanwhile shows in the snapshot")
		}
		if bytes.Equal(dump(t, a), want) {
			t.Fatal("nothing was written meanwhile")
		}
	}
	if a.snapshots.Load() != 0 {
		t.Errorf("%d snapshots are still held", a.snapshots.Load())
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

func TestCorruptSnapshotsAreRefused(t *testing.T) {
	a := tables(t, shop(10))
	a.Learn(ID("shop"), key(1), 7, time.Minute)
	a.Learn(ID("shop"), key(2), 7, time.Minute)
	commit(t, a, a)
	good := dump(t, a)
	twice := bytes.Clone(good)
	copy(twice[len(twice)-32:], twice[len(twice)-64:len(twice)-32])
	for i := range good {
		if _, err := New().Load(bytes.NewReader(good[:i])); err == nil {
			t.Errorf("the first %d of %d bytes were taken for the whole", i, len(good))
		}
	}
	for name, b := range map[string][]byte{"longer": append(bytes.Clone(good), 0), "twice": twice} {
		if _, err := New().Load(bytes.NewReader(b)); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v, want %v", name, err, ErrCorrupt)
		}
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

func FuzzLoad(f *testing.F) {
	a := tables(f, shop(10))
	f.Add(dump(f, New()))
	a.Learn(ID("shop"), key(1), 7, time.Minute)
	commit(f, a, a)
	f.Add(dump(f, a))
	f.Fuzz(func(t *testing.T, b []byte) {
		x := New()
		l, err := x.Load(bytes.NewReader(b))
		if err != nil {
			return
		}
		x.Adopt(l, 0)
		if got := dump(t, x); !bytes.Equal(got, b) {
			t.Errorf("read %x and wrote %x", b, got)
		}
	})
}
