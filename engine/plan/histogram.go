package plan

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// Span is a part of an exchange's life whose length is counted.
type Span uint8

const (
	SpanRequest  Span = iota // from the first byte of a request's head to its last, where that took more than one read
	SpanQueue                // waiting for a place on a server, where that was needed
	SpanConnect              // making a connection to a server, where none was at hand
	SpanResponse             // from the connection being there to the response's head being complete
	SpanTotal                // from the first byte of the request, or the beginning of the session, to the end

	NumSpans // the length of an array by Span
)

var spanNames = [NumSpans]string{
	SpanRequest: "request", SpanQueue: "queue", SpanConnect: "connect", SpanResponse: "response", SpanTotal: "total",
}

func (s Span) String() string {
	if s < NumSpans {
		return spanNames[s]
	}
	return "unknown"
}

// Buckets of a Histogram: linear up to 15.6 us, then 8 to every doubling, up to 35 minutes; whatever is longer counts as the longest.
// The unit is 1/512 ms, so that the doublings end at 1 ms, 2 ms, 4 ms ... and at 0.5, 0.25 and 0.125 ms below.
const (
	perOctave  = 8
	octaves    = 27
	NumBuckets = perOctave * (octaves + 1)
)

// Histogram counts durations of one loop. Its zero value is ready.
type Histogram struct {
	sum     Counter // ns
	buckets [NumBuckets]Counter
}

// BucketOf returns the bucket of a duration in nanoseconds.
func BucketOf(ns int64) int {
	if ns <= 0 {
		return 0
	}
	u := uint64(ns) * 8 / 15625 // 512 in a millisecond
	if u < perOctave {
		return int(u)
	}
	e := bits.Len64(u) - 4 // u >> e is 8 to 15
	return min(e*perOctave+int(u>>e), NumBuckets-1)
}

// BucketEnd returns where a bucket ends and the next one begins.
func BucketEnd(i int) time.Duration {
	u := uint64(i + 1)
	if i >= perOctave {
		e := i/perOctave - 1
		u = (uint64(i%perOctave) + perOctave + 1) << e
	}
	return time.Duration(u * 15625 / 8)
}

// add counts one duration, whose bucket the caller knows.
func (h *Histogram) add(bucket int, ns int64) {
	h.buckets[bucket].Inc()
	h.sum.Add(uint64(ns))
}

// Times is a copy of a Histogram, or a sum of them.
type Times struct {
	Count   uint64
	Sum     time.Duration
	Buckets [NumBuckets]uint64
}

func (t *Times) add(h *Histogram) {
	t.Sum += time.Duration(h.sum.Load())
	for i := range h.buckets {
		n := h.buckets[i].Load()
		t.Buckets[i] += n
		t.Count += n
	}
}

// Quantile returns the duration that a share q of all did not exceed, interpolated within its bucket; 0 of nothing.
func (t *Times) Quantile(q float64) time.Duration {
	if t.Count == 0 {
		return 0
	}
	rank := q * float64(t.Count)
	seen := 0.0
	for i, n := range t.Buckets {
		if n == 0 {
			continue
		}
		if seen+float64(n) >= rank {
			var from time.Duration
			if i > 0 {
				from = BucketEnd(i - 1)
			}
			return from + time.Duration((rank-seen)/float64(n)*float64(BucketEnd(i)-from))
		}
		seen += float64(n)
	}
	return BucketEnd(NumBuckets - 1)
}

// Since returns what was counted after before, which is an earlier copy of the same.
func (t *Times) Since(before *Times) Times {
	d := Times{Count: t.Count - before.Count, Sum: t.Sum - before.Sum}
	for i := range d.Buckets {
		d.Buckets[i] = t.Buckets[i] - before.Buckets[i]
	}
	return d
}

// spans are the histograms of one loop, made when they are first needed: most servers never make anybody wait.
type spans [NumSpans]atomic.Pointer[Histogram]

func (s *spans) of(span Span) *Histogram {
	if h := s[span].Load(); h != nil {
		return h
	}
	h := new(Histogram)
	s[span].Store(h)
	return h
}
