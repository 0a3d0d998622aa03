package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/skeinlb/skein/state/sticky"
)

const (
	backend  = "shop"
	lifetime = 24 * time.Hour
)

var tableID = sticky.ID(backend)

// keyOf is the i-th client: spread over the shards like any hash, and always the same.
func keyOf(i int) (k sticky.Key) {
	binary.LittleEndian.PutUint64(k[:], mix(uint64(i)))
	binary.LittleEndian.PutUint64(k[8:], mix(uint64(i)^0xa5a5a5a5))
	return k
}

// serverOf is what the i-th client is learned with.
func serverOf(i int) uint64 { return 1 + mix(uint64(i))%1000 }

// mix is splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// learning is a run of learners, one per node, that share a range of clients.
type learning struct {
	t        *trio
	from, to int // clients
	rate     int // per second, all nodes together; 0: as fast as the log takes them

	next   atomic.Int64
	sample chan sighting // nil: nobody watches
}

// Learned is what came of a learning.
type Learned struct {
	Entries int     `json:"entries"`
	Target  int     `json:"target_per_second"` // 0: as fast as possible
	Seconds float64 `json:"seconds"`           // from the first Learn until every node has every entry
	Rate    float64 `json:"per_second"`
	Dropped uint64  `json:"dropped"` // rings that were full
	Samples int     `json:"samples"`
	P50Ms   float64 `json:"visible_p50_ms"` // from Learn on one node to Lookup on another
	P99Ms   float64 `json:"visible_p99_ms"`
	MaxMs   float64 `json:"visible_max_ms"`
	CPU     float64 `json:"cpu_seconds"` // of all three nodes, learners and watcher included
	missing int     // entries that were watched and never seen
}

const (
	// sampleEvery is one entry in how many is watched on its way to the other nodes.
	sampleEvery = 61
	// backlog is how much a learner without a pace leaves waiting: enough for full batches, far from what the rings hold.
	backlog = 4000
)

// run learns all clients and waits until every node has them.
func (l *learning) run(ctx context.Context) (Learned, error) {
	l.sample = make(chan sighting, 1<<16)
	l.next.Store(int64(l.from))
	dropped, had := l.t.dropped(), l.t.entries()
	watch := &watcher{t: l.t, in: l.sample, every: time.Millisecond}
	watched := make(chan struct{})
	start, cpu := time.Now(), cpuTime()
	go func() { watch.run(ctx); close(watched) }()
	var wg sync.WaitGroup
	for i := range l.t.nodes {
		wg.Go(func() { l.learn(ctx, i, start) })
	}
	wg.Wait()
	close(l.sample)
	n := l.to - l.from
	err := poll(ctx, fmt.Sprintf("%d entries on every node", n), func() bool {
		have, n := l.t.entries(), n-int(l.t.dropped()-dropped)
		for i := range have {
			if have[i] < had[i]+n {
				return false
			}
		}
		return true
	})
	took := time.Since(start)
	<-watched
	lost := l.t.dropped() - dropped
	n -= int(lost)
	r := Learned{
		Entries: n, Target: l.rate, Seconds: took.Seconds(), Rate: float64(n) / took.Seconds(),
		Dropped: lost, missing: watch.missing,
	}
	r.CPU = (cpuTime() - cpu).Seconds()
	r.setSights(watch.took)
	if err != nil {
		return r, fmt.Errorf("%w: entries %v, before %v, dropped %d", err, l.t.entries(), had, r.Dropped)
	}
	return r, nil
}

// learn is the learner of one node: a burst per millisecond that keeps up with the pace, or as much as the backlog allows.
func (l *learning) learn(ctx context.Context, at int, start time.Time) {
	tables := l.t.nodes[at].tables
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	done := 0
	for {
		due := 500
		if l.rate > 0 {
			due = int(time.Since(start).Seconds()*float64(l.rate)/float64(len(l.t.nodes))) - done
		}
		for ; due > 0 && (l.rate > 0 || tables.Pending() < backlog); due-- {
			i := int(l.next.Add(1)) - 1
			if i >= l.to {
				return
			}
			key := keyOf(i)
			tables.Learn(tableID, key, serverOf(i), lifetime)
			done++
			if l.sample != nil && i%sampleEvery == 0 {
				l.sample <- sighting{key: key, from: at, at: time.Now()}
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// sighting is an entry on its way to the other nodes.
type sighting struct {
	key  sticky.Key
	from int
	at   time.Time
	seen [3]bool
}

// watcher looks for entries on the nodes that did not learn them, as a loop there would.
type watcher struct {
	t     *trio
	in    <-chan sighting
	every time.Duration

	took    []time.Duration // a figure per entry and other node; late by at most every and the scheduler
	missing int             // never seen
}

// giveUp is when an entry counts as not seen.
const giveUp = 10 * time.Second

func (w *watcher) run(ctx context.Context) {
	var open []*sighting
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	more := true
	for more || len(open) > 0 {
		for more {
			select {
			case s, ok := <-w.in:
				if more = ok; ok {
					s.seen[s.from] = true
					open = append(open, &s)
				}
				continue
			default:
			}
			break
		}
		open = slices.DeleteFunc(open, w.look)
		select {
		case <-tick.C:
		case <-ctx.Done():
			w.missing += len(open)
			return
		}
	}
}

// look looks for s where it was not seen yet.
func (w *watcher) look(s *sighting) (done bool) {
	done = true
	for i, m := range w.t.nodes {
		if s.seen[i] {
			continue
		}
		if _, ok := m.tables.Lookup(tableID, s.key); ok {
			s.seen[i] = true
			w.took = append(w.took, time.Since(s.at))
			continue
		}
		done = false
	}
	if !done && time.Since(s.at) > giveUp {
		w.missing++
		return true
	}
	return done
}

func (l *Learned) setSights(took []time.Duration) {
	l.Samples = len(took)
	l.P50Ms, l.P99Ms, l.MaxMs = millis(quantile(took, 0.5)), millis(quantile(took, 0.99)), millis(quantile(took, 1))
}

// quantile returns the q-th part of ds, which it sorts.
func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	slices.Sort(ds)
	return ds[min(len(ds)-1, int(q*float64(len(ds))))]
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (t *trio) entries() (n [3]int) {
	for i, m := range t.nodes {
		for _, s := range m.tables.Stats() {
			n[i] += s.Entries
		}
	}
	return n
}

func (t *trio) dropped() (n uint64) {
	for _, m := range t.nodes {
		for _, s := range m.tables.Stats() {
			n += s.Dropped
		}
	}
	return n
}

// verify looks every client up on every node and returns how many answers are missing or wrong.
func (t *trio) verify(from, to int) (wrong int) {
	for _, m := range t.nodes {
		for i := from; i < to; i++ {
			if server, ok := m.tables.Lookup(tableID, keyOf(i)); !ok || server != serverOf(i) {
				wrong++
			}
		}
	}
	return wrong
}
