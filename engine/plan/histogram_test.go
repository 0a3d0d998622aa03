package plan

import (
	"math/rand/v2"
	"testing"
	"time"
)

func TestBucketsOfAHistogramJoinWithoutAGap(t *testing.T) {
	for i := range NumBuckets - 1 {
		// A bucket's end is the first duration of the next one; ends that are no whole nanoseconds belong to either.
		end := int64(BucketEnd(i))
		if got := BucketOf(end + 1); got != i+1 {
			t.Errorf("BucketOf(%d) = %d, and bucket %d ends at %d", end+1, got, i, end)
		}
		if got := BucketOf(end - 1); got != i {
			t.Errorf("BucketOf(%d) = %d, and bucket %d ends at %d", end-1, got, i, end)
		}
	}
	for i := 2 * perOctave; i < NumBuckets; i++ {
		width := BucketEnd(i) - BucketEnd(i-1)
		if from := BucketEnd(i - 1); float64(width) > 0.126*float64(from) {
			t.Errorf("bucket %d is %v wide and begins at %v: more than an eighth", i, width, from)
		}
	}
}

func TestBucketOf(t *testing.T) {
	for _, tc := range []struct {
		d      time.Duration
		bucket int
		end    time.Duration
	}{
		{-1, 0, 1953},
		{0, 0, 1953},
		{time.Microsecond, 0, 1953},
		{2 * time.Microsecond, 1, 3906},
		{15624, 7, 15625},
		{15625, 8, 17578},
		{125 * time.Microsecond, 32, 140625},
		{time.Millisecond - 1, 55, time.Millisecond},
		{time.Millisecond, 56, 1125 * time.Microsecond},
		{2 * time.Millisecond, 64, 2250 * time.Microsecond},
		{1024 * time.Millisecond, 136, 1152 * time.Millisecond},
		{65536 * time.Millisecond, 184, 73728 * time.Millisecond},
		{100 * time.Hour, NumBuckets - 1, 2097152 * time.Millisecond},
		{1<<63 - 1, NumBuckets - 1, 2097152 * time.Millisecond},
	} {
		if got := BucketOf(int64(tc.d)); got != tc.bucket {
			t.Errorf("BucketOf(%v) = %d, want %d", tc.d, got, tc.bucket)
		}
		if got := BucketEnd(tc.bucket); got != tc.end {
			t.Errorf("BucketEnd(%d) = %v, want %v", tc.bucket, got, tc.end)
		}
	}
}

func TestQuantilesAreRightToASixteenth(t *testing.T) {
	var s Stats
	for _, d := range rand.New(rand.NewPCG(1, 2)).Perm(100_000) { // 1 us to 100 ms, evenly
		s.Loop(d%3).Took(SpanTotal, int64(d+1)*1000)
	}
	got := s.Totals().Times[SpanTotal]
	if got.Count != 100_000 || got.Sum != 5_000_050*time.Millisecond {
		t.Errorf("count %d, sum %v", got.Count, got.Sum)
	}
	for q, want := range map[float64]time.Duration{0.01: time.Millisecond, 0.5: 50 * time.Millisecond, 0.99: 99 * time.Millisecond, 1: 100 * time.Millisecond} {
		if d := got.Quantile(q); d < want*15/16 || d > want*17/16 {
			t.Errorf("Quantile(%v) = %v, want about %v", q, d, want)
		}
	}
	if none := (&Times{}); none.Quantile(0.5) != 0 {
		t.Error("a histogram of nothing has a quantile")
	}
	before := *got
	s.Loop(0).Took(SpanTotal, int64(time.Second), s.Loop(1), nil)
	after := s.Totals().Times[SpanTotal]
	if since := after.Since(&before); since.Count != 2 || since.Sum != 2*time.Second || since.Buckets[BucketOf(1e9)] != 2 {
		t.Errorf("since: %d in %v", since.Count, since.Sum)
	}
}

func TestSpansThatNeverHappenTakeNoMemory(t *testing.T) {
	var s Stats
	s.Loop(0).Took(SpanTotal, 1)
	for span, times := range s.Totals().Times {
		if (times != nil) != (Span(span) == SpanTotal) {
			t.Errorf("%v: %v", Span(span), times)
		}
	}
	if n := testing.AllocsPerRun(100, func() { s.Loop(0).Took(SpanTotal, 5, s.Loop(0)) }); n != 0 {
		t.Errorf("counting allocates %v times", n)
	}
}

func TestTheQueuesHighWaterMarkStays(t *testing.T) {
	var s Stats
	for _, n := range []int64{1, 1, 1, -1, -1, 1} {
		s.Loop(0).Waits(n)
	}
	s.Loop(1).Waits(1)
	if got := s.Totals(); got.Waiting != 3 || got.MostWaiting != 3 {
		t.Errorf("%d wait, at most %d did on one loop; want 3 and 3", got.Waiting, got.MostWaiting)
	}
}

func BenchmarkTook(b *testing.B) {
	var f, be, s Stats
	for i := range b.N {
		ns := int64(i&0xffff) << 8
		f.Loop(0).Took(SpanTotal, ns, be.Loop(0), s.Loop(0))
	}
}
