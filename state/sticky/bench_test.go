package sticky

import (
	"bytes"
	"io"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for n := uint64(0); pb.Next(); n += 7919 {
			a.Lookup(ID("shop"), key(n%million))
		}
	})
}

// BenchmarkLearn is the whole way of a new entry on one node: learned, drained, applied; the table is full, so each evicts
// another.
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

// BenchmarkRestore reads a snapshot of a million entries.
func BenchmarkRestore(b *testing.B) {
	snapshot := dump(b, full(b))
	b.SetBytes(int64(len(snapshot)))
	for b.Loop() {
		a := New()
		l, err := a.Load(bytes.NewReader(snapshot))
		if err != nil {
			b.Fatal(err)
		}
		a.Adopt(l, 0)
	}
}

// BenchmarkSnapshot reports the longest time in which nothing can be committed because of a snapshot of a million entries: the
// freeze itself, and the slowest batch of 500 random moves (the worst there is: three cold pages each) while pages are copied;
// for comparison, the slowest batch without a snapshot. On a machine with other work to do, wall clock shows mostly that work:
// hence also the time that the thread itself ran.
func BenchmarkSnapshot(b *testing.B) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	a := full(b)
	var freeze, batch, calm stall
	server := uint64(100)
	apply := func(most *stall) {
		server++
		for i := range uint64(500) {
			a.Learn(ID("shop"), key((server*500+i)*7919%million), server, time.Minute)
		}
		moves, _ := a.Drain(500)
		most.measure(func() {
			if _, err := a.Apply(moves, 0); err != nil {
				b.Fatal(err)
			}
		})
	}
	for b.Loop() {
		for range 20 {
			apply(&calm)
		}
		var f *Frozen
		freeze.measure(func() { f = a.Freeze() })
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
	freeze.report(b, "freeze")
	batch.report(b, "batch")
	calm.report(b, "calm-batch")
}

// stall is the longest that something took, by the clock and in CPU time of its thread.
type stall struct{ wall, cpu time.Duration }

func (s *stall) measure(f func()) {
	wall, cpu := time.Now(), threadTime()
	f()
	s.wall, s.cpu = max(s.wall, time.Since(wall)), max(s.cpu, threadTime()-cpu)
}

func (s *stall) report(b *testing.B, name string) {
	b.ReportMetric(float64(s.wall.Microseconds()), name+"-max-us")
	b.ReportMetric(float64(s.cpu.Microseconds()), name+"-cpu-max-us")
}

func threadTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano())
}
