package sticky

import (
	"io"
	"testing"
	"time"
)

const million = 1_000_000

func full(b *testing.B) *Tables {
	a := tables(b, shop(million))
	for n := uint64(0); n < million; n++ {
		a.Learn(ID("shop"), key(n), n%7, time.Minute)
		if n%20000 == 0 {
			commit(b, a, a)
		}
	}
	commit(b, a, a)
	return a
}

func BenchmarkLookup(b *testing.B) {
	a := full(b)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for n := uint64(0); pb.Next(); n += 7919 {
			a.Lookup(ID("shop"), key(n%million))
		}
	})
}

// BenchmarkLearn is the whole way of a new entry on one node: learned, drained, applied; the table is full, so each evicts another.
func BenchmarkLearn(b *testing.B) {
	a := full(b)
	b.ReportAllocs()
	for n := uint64(0); b.Loop(); n++ {
		a.Learn(ID("shop"), key(million+n), n%7, time.Minute)
		if n%500 == 0 {
			commit(b, a, a)
		}
	}
}

// BenchmarkSnapshot reports the longest time in which nothing can be committed because of a snapshot of a million entries: the freeze
// itself, and the slowest batch of 500 random moves (the worst there is: four pages each) while pages are copied.
func BenchmarkSnapshot(b *testing.B) {
	a := full(b)
	var freeze, batch, calm time.Duration
	server := uint64(100)
	apply := func(most *time.Duration) {
		server++
		for i := range uint64(500) {
			a.Learn(ID("shop"), key((server*500+i)*7919%million), server, time.Minute)
		}
		bytes, _ := a.Drain(500)
		start := time.Now()
		if _, err := a.Apply(bytes, 0); err != nil {
			b.Fatal(err)
		}
		*most = max(*most, time.Since(start))
	}
	for b.Loop() {
		for range 20 {
			apply(&calm)
		}
		start := time.Now()
		f := a.Freeze()
		freeze = max(freeze, time.Since(start))
		done := make(chan error)
		go func() { done <- f.Write(io.Discard) }()
		for range 20 {
			apply(&batch)
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		f.Release()
	}
	b.ReportMetric(float64(freeze.Microseconds()), "freeze-max-us")
	b.ReportMetric(float64(batch.Microseconds()), "batch-max-us")
	b.ReportMetric(float64(calm.Microseconds()), "calm-batch-max-us")
}
