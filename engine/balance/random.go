package balance

import (
	"math/bits"
	"slices"
)

// Random draws two, in proportion to their shares. The caller takes the one that has less to do: with two to choose from, nobody
// who is slow gets more than the rare draw in which both are, and no number is looked at but theirs. One loop owns it.
type Random struct {
	state uint64
}

// Seed makes r's draws differ from those of others.
func (r *Random) Seed(seed uint64) { r.state = Mix(seed) }

// Two returns two places in upto, where upto[i] is the sum of the shares of places 0 to i, each of them above 0. They differ unless
// there is only one.
func (r *Random) Two(upto []int64) (i, j int) {
	total := upto[len(upto)-1]
	i = r.place(upto, total, 0, 0)
	if len(upto) == 1 {
		return i, i
	}
	from := int64(0)
	if i > 0 {
		from = upto[i-1]
	}
	// The second is drawn from what is left when the first is taken out.
	return i, r.place(upto, total-(upto[i]-from), from, upto[i]-from)
}

// place draws from [0, total); what is not below from is moved up by skip.
func (r *Random) place(upto []int64, total, from, skip int64) int {
	r.state += 0x9e3779b97f4a7c15
	high, _ := bits.Mul64(Mix(r.state), uint64(total))
	n := int64(high)
	if n >= from {
		n += skip
	}
	i, found := slices.BinarySearch(upto, n)
	if found { // upto[i] is the first number that does not belong to i
		i++
	}
	return i
}
