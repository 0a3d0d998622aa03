package balance

import (
	"math"
	"math/bits"
)

// Hash picks by weighted rendezvous: every index draws a number from the key and its own seed, and the highest wins. All nodes
// agree without talking, and when an index goes away only its own keys move, in proportion to the shares of the others. seeds
// must stay with their servers for as long as keys shall stay. (A Maglev table is faster with very many servers; it would have
// to be made anew at every change of health, on every node alike.)
func Hash(shares []int32, seeds []uint64, key uint64) int {
	key = bits.RotateLeft64(Mix(key), 32)
	best, high := None, uint64(0)
	share, uniform := int32(0), true
	for i, w := range shares {
		if w <= 0 {
			continue
		}
		if best < 0 {
			share = w
		} else if w != share {
			uniform = false
			break
		}
		if d := draw(seeds[i], key); best < 0 || d > high {
			best, high = i, d
		}
	}
	if uniform {
		return best
	}
	// With u uniform in (0,1), -w/ln(u) is highest for index i with probability w[i]/sum(w). For equal shares this orders as u
	// does, so that a key stays where it is when shares stop being equal.
	best = None
	var most float64
	for i, w := range shares {
		if w <= 0 {
			continue
		}
		u := (float64(draw(seeds[i], key)) + 0.5) / (1 << 53)
		if score := -float64(w) / math.Log(u); best < 0 || score > most {
			best, most = i, score
		}
	}
	return best
}

// draw returns 53 bits: what a float64 holds exactly. key is mixed already, so that near keys do not draw alike.
func draw(seed, key uint64) uint64 { return Mix(seed^key) >> 11 }

// Mix spreads every bit of x over all of the result (the finalizer of splitmix64).
func Mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
