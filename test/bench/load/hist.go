package load

import "math/bits"

// hist counts latencies in nanoseconds in buckets of less than 1 % width: exact below 256, then 128 to every doubling.
type hist struct {
	n       uint64
	buckets [(64-8)*128 + 256]uint32
}

func bucketOf(v uint64) int {
	if v < 256 {
		return int(v)
	}
	s := bits.Len64(v) - 8
	return s*128 + int(v>>s)
}

// topOf is the greatest value of a bucket.
func topOf(i int) uint64 {
	if i < 256 {
		return uint64(i)
	}
	s := i/128 - 1
	return uint64(i-s*128+1)<<s - 1
}

func (h *hist) add(ns int64) {
	h.n++
	h.buckets[bucketOf(uint64(max(ns, 0)))]++
}

// quantile returns the least value that a share q of all does not exceed, or 0 of nothing.
func (h *hist) quantile(q float64) uint64 {
	left := uint64(q*float64(h.n) + .5)
	left = max(min(left, h.n), 1)
	for i, n := range h.buckets {
		if uint64(n) >= left && n > 0 {
			return topOf(i)
		}
		left -= uint64(n)
	}
	return 0
}
