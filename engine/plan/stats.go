package plan

import (
	"sync/atomic"

	"github.com/skeinlb/skein/engine/h1"
)

// Counters are one loop's share of a Stats. Only that loop adds; any goroutine reads.
type Counters struct {
	Connections Counter    // accepted (frontend), opened (server)
	Ended       Counter    // of those, closed again (frontend)
	Requests    Counter    // HTTP requests or TCP sessions begun
	Active      Gauge      // of those, under way (backend); what waits in its queue is
	Reused      Counter    // requests sent on a connection that had been used before
	Retries     Counter    // tried again on another server or connection
	BytesIn     Counter    // from the client
	BytesOut    Counter    // to the client
	Idle        Counter    // connections that ended after their idle time; nothing was lost by it
	Handshakes  Counter    // of TLS, completed
	Resumed     Counter    // of those, with an earlier session
	Waiting     Gauge      // in the queue (backend)
	MostWaiting Gauge      // that Waiting ever was
	Status      [6]Counter // responses by class: Status[2] counts 2xx
	Failures    [NumFailures]Counter
	Malformed   [h1.NumErrors]Counter // messages refused, by reason
	spans       spans
	_           [64]byte // whatever is allocated next to it belongs to another loop
}

// Took counts the length of a span, in nanoseconds, for c and for others, which may be nil.
func (c *Counters) Took(span Span, ns int64, others ...*Counters) {
	b := BucketOf(ns)
	c.spans.of(span).add(b, ns)
	for _, o := range others {
		if o != nil {
			o.spans.of(span).add(b, ns)
		}
	}
}

// Waits counts one more client in the queue, or one less.
func (c *Counters) Waits(n int64) {
	c.Waiting.Add(n)
	if over := c.Waiting.Load() - c.MostWaiting.Load(); over > 0 {
		c.MostWaiting.Add(over)
	}
}

// Stats counts for all loops without their sharing a cache line. Its zero value is ready.
type Stats struct {
	loops [MaxLoops]atomic.Pointer[Counters]
}

// Loop returns the counters of that loop, which alone may call it.
func (s *Stats) Loop(loop int) *Counters {
	if c := s.loops[loop].Load(); c != nil {
		return c
	}
	c := new(Counters)
	s.loops[loop].Store(c)
	return c
}

// Open returns how many of a frontend's connections have not ended, on so many loops. Any loop may call it.
func (s *Stats) Open(loops int) int64 {
	open := int64(0)
	for i := range s.loops[:loops] {
		if c := s.loops[i].Load(); c != nil {
			open += int64(c.Connections.Load() - c.Ended.Load())
		}
	}
	return open
}

// Totals is a copy of Counters, or a sum of them.
type Totals struct {
	Connections, Ended, Requests, Reused, Retries, BytesIn, BytesOut, Idle, Handshakes, Resumed uint64
	Active, Waiting, MostWaiting                                                                int64 // MostWaiting on one loop

	Status    [6]uint64
	Failures  [NumFailures]uint64
	Malformed [h1.NumErrors]uint64
	Times     [NumSpans]*Times // nil: there was none
}

// Failed returns how many requests and sessions did not get what they came for.
func (t *Totals) Failed() uint64 {
	var n uint64
	for f := None + 1; f < NumFailures; f++ {
		n += t.Failures[f]
	}
	return n
}

// Open returns how many of a frontend's connections have not ended.
func (t Totals) Open() int64 { return int64(t.Connections - t.Ended) }

// Totals sums up the loops. Each number is right by itself; they are not of one instant.
func (s *Stats) Totals() Totals {
	var t Totals
	for i := range s.loops {
		c := s.loops[i].Load()
		if c == nil {
			continue
		}
		t.Ended += c.Ended.Load() // first, so that Open is never negative for long
		t.Connections += c.Connections.Load()
		t.Requests += c.Requests.Load()
		t.Reused += c.Reused.Load()
		t.Retries += c.Retries.Load()
		t.BytesIn += c.BytesIn.Load()
		t.BytesOut += c.BytesOut.Load()
		t.Idle += c.Idle.Load()
		t.Active += c.Active.Load()
		t.Waiting += c.Waiting.Load()
		t.MostWaiting = max(t.MostWaiting, c.MostWaiting.Load())
		t.Handshakes += c.Handshakes.Load()
		t.Resumed += c.Resumed.Load()
		addAll(t.Status[:], c.Status[:])
		addAll(t.Failures[:], c.Failures[:])
		addAll(t.Malformed[:], c.Malformed[:])
		for span := range t.Times {
			if h := c.spans[span].Load(); h != nil {
				if t.Times[span] == nil {
					t.Times[span] = new(Times)
				}
				t.Times[span].add(h)
			}
		}
	}
	return t
}

// Now returns how many connections are open and how many exchanges are under way on the first loops.
func (s *Stats) Now(loops int) (open, active int64) {
	for i := range s.loops[:loops] {
		if c := s.loops[i].Load(); c != nil {
			open += int64(c.Connections.Load() - c.Ended.Load())
			active += c.Active.Load()
		}
	}
	return open, active
}

func addAll(sum []uint64, of []Counter) {
	for i := range of {
		sum[i] += of[i].Load()
	}
}
