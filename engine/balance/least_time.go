package balance

import "time"

// A Latency remembers how long somebody takes to answer: a moving average that jumps up at once and comes down with time ("Peak
// EWMA"). It is one word, so that loops can share it without a lock; an answer that is lost because two store at once is no harm.
//
//	bits 63..32  when it was stored, in milliseconds, wrapping
//	bits 31..0   microseconds; 0: nothing is known
type Latency uint64

// latencyHalf is how long a memory takes to fade to half: a server that answered 40 times as slowly as the others is asked again
// after some 25 s without being asked.
const latencyHalf = 5 * time.Second

// maxLatency is beyond any timeout that makes sense, and leaves room to multiply.
const maxLatency = 1 << 30 // us, 18 minutes

// Observe returns l with an answer that took so long. now is in nanoseconds.
func (l Latency) Observe(now int64, took time.Duration) Latency {
	us := uint64(min(max(took.Microseconds(), 1), maxLatency))
	if was := uint64(uint32(l)); us < was {
		age := l.age(now)
		// was fades towards us, not to 0: with 2^-age/half of the difference left.
		us += fade(was-us, age)
	}
	return Latency(uint64(uint32(now/1e6))<<32 | us)
}

// Cost is what is expected of the next answer, in microseconds: less and less the longer nobody has asked. 0: nothing is known.
func (l Latency) Cost(now int64) int64 {
	us := uint64(uint32(l))
	if us == 0 {
		return 0
	}
	return int64(max(1, fade(us, l.age(now))))
}

// age is the time since l was stored. Loops' clocks differ a little: never below 0.
func (l Latency) age(now int64) time.Duration {
	ms := int32(uint32(now/1e6) - uint32(l>>32))
	return time.Duration(max(0, ms)) * time.Millisecond
}

// fade halves v for every latencyHalf of age, in straight lines between.
func fade(v uint64, age time.Duration) uint64 {
	halves := min(age/latencyHalf, 63)
	v >>= halves
	return v - v*uint64(age%latencyHalf)/uint64(2*latencyHalf)
}

// LeastTime picks whoever is expected to answer first: the cost of one answer times those that are under way and this one, by
// share. Who is not known yet gets one to find out. Its zero value is ready; one loop owns it.
type LeastTime struct {
	turn int
}

// unknownCost is what one is expected to cost of whom nothing is known, and who has not answered yet.
const unknownCost = 1e6 // us

// Pick returns the index with the lowest (active[i]+1) * cost[i] / shares[i]. Among equals it takes turns.
func (l *LeastTime) Pick(shares []int32, active, cost []int64) int {
	n := len(shares)
	if l.turn++; l.turn >= n {
		l.turn = 0
	}
	best, low := None, 0.0
	for k := range n {
		i := l.turn + k
		if i >= n {
			i -= n
		}
		if shares[i] <= 0 {
			continue
		}
		c := float64(cost[i])
		if cost[i] == 0 && active[i] > 0 {
			c = unknownCost
		}
		c *= float64(active[i]+1) / float64(shares[i])
		if best < 0 || c < low {
			best, low = i, c
		}
	}
	return best
}
