package node

import (
	"context"
	"sync"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
)

// paceEvery is how often the counters are copied. What is shown as the pace is of the time since the copy before the last.
const paceEvery = 5 * time.Second

// pacer keeps two copies of the engine's counters, so that a report can say how fast they change.
type pacer struct {
	mu sync.Mutex
	// mu guards the following.
	before, last paceSample
}

type paceSample struct {
	at    time.Time
	stats engine.Stats
}

// run copies the counters until ctx ends.
func (p *pacer) run(ctx context.Context, stats func() engine.Stats) {
	tick := time.NewTicker(paceEvery)
	defer tick.Stop()
	for {
		now := paceSample{time.Now(), stats()}
		p.mu.Lock()
		p.before, p.last = p.last, now
		if p.before.at.IsZero() {
			p.before = now
		}
		p.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// since returns the copy to compare with, and how long ago it was taken; not ok before there is one.
func (p *pacer) since(now time.Time) (before engine.Stats, elapsed time.Duration, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	elapsed = now.Sub(p.before.at)
	return p.before.stats, elapsed, !p.before.at.IsZero() && elapsed > 0
}

// paces are the paces of an engine's parts, by name; of servers by backend and name.
type paces struct {
	frontends, backends map[string]api.Pace
	servers             map[[2]string]api.Pace
}

// pacesOf compares two copies of the counters. What is new, or has begun anew, has come from nothing.
func pacesOf(before, now engine.Stats, elapsed time.Duration) paces {
	out := paces{map[string]api.Pace{}, map[string]api.Pace{}, map[[2]string]api.Pace{}}
	was := map[[3]string]*plan.Totals{}
	for i := range before.Frontends {
		was[[3]string{"frontend", before.Frontends[i].Name}] = &before.Frontends[i].Totals
	}
	for i := range before.Backends {
		b := &before.Backends[i]
		was[[3]string{"backend", b.Name}] = &b.Totals
		for k := range b.Servers {
			was[[3]string{"server", b.Name, b.Servers[k].Name}] = &b.Servers[k].Totals
		}
	}
	for i := range now.Frontends {
		f := &now.Frontends[i]
		out.frontends[f.Name] = paceOf(was[[3]string{"frontend", f.Name}], &f.Totals, plan.SpanTotal, elapsed)
	}
	for i := range now.Backends {
		b := &now.Backends[i]
		out.backends[b.Name] = paceOf(was[[3]string{"backend", b.Name}], &b.Totals, plan.SpanTotal, elapsed)
		for k := range b.Servers {
			s := &b.Servers[k]
			out.servers[[2]string{b.Name, s.Name}] = paceOf(was[[3]string{"server", b.Name, s.Name}], &s.Totals, plan.SpanResponse, elapsed)
		}
	}
	return out
}

// paceOf compares two copies of the counters of one thing.
func paceOf(before, now *plan.Totals, span plan.Span, elapsed time.Duration) api.Pace {
	if before == nil || before.Requests > now.Requests || before.BytesIn > now.BytesIn {
		before = &plan.Totals{}
	}
	per := func(now, before uint64) float64 { return float64(now-min(before, now)) / elapsed.Seconds() }
	p := api.Pace{
		Requests: per(now.Requests, before.Requests), Failed: per(now.Failed(), before.Failed()),
		BytesIn: per(now.BytesIn, before.BytesIn), BytesOut: per(now.BytesOut, before.BytesOut),
	}
	if t := now.Times[span]; t != nil {
		recent := *t
		if b := before.Times[span]; b != nil {
			recent = t.Since(b)
		}
		p.P50Ms, p.P99Ms = millis(recent.Quantile(0.5)), millis(recent.Quantile(0.99))
	}
	return p
}
