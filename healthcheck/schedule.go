package healthcheck

import (
	"context"
	"hash/fnv"
	"time"
)

const (
	// The first probes are spread over at most this: whatever the interval, a node knows its servers a second after its start.
	firstSpread = time.Second
	// Probes of one server start at least this far apart, however often traffic fails there.
	minSpacing = 100 * time.Millisecond
)

// watch probes m until ctx ends. It owns m's rhythm; results go through record. The probe itself runs beside it, so that
// failures seen by traffic count while a probe waits for its time-out.
func (c *Checker) watch(ctx context.Context, m *member) {
	var (
		r       = newRhythm(m.Key, m.pace, time.Now())
		results = make(chan result, 1)
		probing bool
		timer   = time.NewTimer(r.first)
	)
	if m.pace.lazy && c.isUp(m) { // one that its former check has left down is probed until it answers
		timer.Stop()
	}
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			if probing {
				<-results
			}
			return

		case <-m.wake:
			n := m.failed.Swap(0)
			if n == 0 {
				continue
			}
			c.record(m, result{passive: true, count: n, why: "connection failed (seen by traffic)"})
			if !probing {
				timer.Reset(r.soon(time.Now()))
			}

		case <-timer.C:
			r.last, probing = time.Now(), true
			go func() { results <- m.ask(ctx) }()

		case res := <-results:
			probing = false
			if ctx.Err() != nil {
				return
			}
			at := c.record(m, res)
			if wait, ok := r.next(at, time.Now()); ok {
				timer.Reset(wait)
			}
		}
	}
}

// isUp says where m stands now.
func (c *Checker) isUp(m *member) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return m.standing.up
}

// ask makes one probe.
func (m *member) ask(ctx context.Context) result {
	ctx, cancel := context.WithTimeout(ctx, m.pace.timeout)
	defer cancel()
	start := time.Now()
	said, err := m.probe(ctx)
	res := result{good: err == nil, why: said, latency: time.Since(start)}
	if err != nil {
		res.why, res.void = inWords(err, m.pace.timeout), isLocal(err)
	}
	return res
}

// rhythm is when a server is probed: on a grid of its own, whose phase is a hash of its name, so that the servers of a large
// configuration never answer all at once; and more often while in doubt. Nodes share the phases on purpose: it makes a run
// repeatable, and a server sees one probe per node and interval in any case.
type rhythm struct {
	pace  pace
	base  time.Time     // a point of the grid
	first time.Duration // from the start to the first probe
	last  time.Time     // start of the last probe
}

func newRhythm(k Key, p pace, start time.Time) rhythm {
	h := fnv.New64a()
	h.Write([]byte(k.Backend))
	h.Write([]byte{0})
	h.Write([]byte(k.Server))
	// FNV's high bits hardly move for short names that differ in the last byte; fold them (the finalizer of MurmurHash3).
	sum := h.Sum64()
	sum ^= sum >> 33
	sum *= 0xff51afd7ed558ccd
	sum ^= sum >> 33
	return rhythm{
		pace:  p,
		base:  start.Add(time.Duration(sum % uint64(p.interval))),
		first: time.Duration(sum % uint64(min(p.interval, firstSpread))),
		last:  start.Add(-minSpacing),
	}
}

// fast is the interval while in doubt: a quarter of the normal one, so that a dead server with fall = 3 is out after one
// interval and a half instead of three.
func (r *rhythm) fast() time.Duration {
	return min(r.pace.interval, max(r.pace.interval/4, minSpacing))
}

// next returns how long to wait for the next probe after one that ended now; false means until traffic fails.
func (r *rhythm) next(at standing, now time.Time) (time.Duration, bool) {
	switch {
	case r.pace.lazy && at.up && !at.inDoubt():
		return 0, false
	case at.inDoubt():
		return max(r.last.Add(r.fast()).Sub(now), 0), true
	}
	// The next point of the grid that keeps a decent distance from the last probe.
	from := r.last.Add(r.fast())
	into := from.Sub(r.base) % r.pace.interval
	if into < 0 {
		into += r.pace.interval
	}
	return max(from.Add(r.pace.interval-into).Sub(now), 0), true
}

// soon returns how long to wait for a probe that should come at once.
func (r *rhythm) soon(now time.Time) time.Duration {
	return max(r.last.Add(minSpacing).Sub(now), 0)
}
