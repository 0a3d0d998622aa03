package sticky

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

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
