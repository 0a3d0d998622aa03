// Package balance says who gets the next one: round robin, least connections, least time, random of two, consistent hashing.
// Numbers only.
//
// It knows no servers, no health and no names: the caller gathers the shares of its servers in a slice, 0 for each that may not
// be picked, and gets an index back. Values are owned by one loop each and never locked; nothing here allocates after the first
// pick. The one rule: a pick depends on its arguments and on the picks before it, never on a clock or on chance.
package balance

import "slices"

// None is what a pick returns when every share is 0.
const None = -1

// RoundRobin hands out turns in proportion to the shares, as evenly spread as it can: smooth weighted round robin. In any
// sum-of-shares turns everybody gets exactly its share. Its zero value is ready; one loop owns it.
type RoundRobin struct {
	credit []int64
}

// Pick returns whose turn it is. shares may change between picks in value and in length.
func (r *RoundRobin) Pick(shares []int32) int {
	if len(r.credit) != len(shares) {
		r.start(shares)
	}
	credit := r.credit[:len(shares)]
	best, total := None, int64(0)
	for i, w := range shares {
		if w <= 0 {
			continue
		}
		total += int64(w)
		credit[i] += int64(w)
		if best < 0 || credit[i] > credit[best] {
			best = i
		}
	}
	if best >= 0 {
		credit[best] -= total
	}
	return best
}

// Restart forgets what is due to whom: for shares that are of another scale from here on.
func (r *RoundRobin) Restart() { r.credit = r.credit[:0] }

// start spreads the first credits evenly over half a round (over a whole one, a round is no longer exact). From equal credits
// the small shares would all have their turns next to one another, and the largest a long run: 5:1:1 ran 4 times, this way 3.
func (r *RoundRobin) start(shares []int32) {
	r.credit = slices.Grow(r.credit[:0], len(shares))[:len(shares)]
	clear(r.credit)
	total, n := int64(0), int64(0)
	for _, w := range shares {
		if w > 0 {
			total += int64(w)
			n++
		}
	}
	k := int64(0)
	for i, w := range shares {
		if w > 0 {
			r.credit[i] = total * (n - 1 - 2*k) / (4 * n)
			k++
		}
	}
}

// LeastConn picks the lowest load per share; among equals it takes turns. Its zero value is ready; one loop owns it.
type LeastConn struct {
	turns RoundRobin
	equal []int32
}

// Pick returns the index with the lowest active[i]/shares[i].
func (l *LeastConn) Pick(shares []int32, active []int64) int {
	if len(l.equal) != len(shares) {
		l.equal = make([]int32, len(shares))
	}
	best, ties := None, 0
	for i, w := range shares {
		l.equal[i] = 0
		if w <= 0 {
			continue
		}
		if best >= 0 {
			// active[i]/w against active[best]/shares[best], without the division
			mine, least := active[i]*int64(shares[best]), active[best]*int64(w)
			if mine > least {
				continue
			}
			if mine < least {
				clear(l.equal[:i])
				ties = 0
			}
		}
		best, l.equal[i] = i, w
		ties++
	}
	if ties > 1 {
		return l.turns.Pick(l.equal)
	}
	return best
}
