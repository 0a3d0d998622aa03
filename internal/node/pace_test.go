package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
)

// traffic counts n requests that took d each, of which one in ten failed.
func traffic(s *plan.Stats, n int, d time.Duration) {
	c := s.Loop(0)
	for i := range n {
		c.Requests.Inc()
		c.BytesOut.Add(1000)
		c.Took(plan.SpanTotal, int64(d))
		c.Failures[[]plan.Failure{plan.None, plan.ServerClosed}[max(0, i%10-8)]].Inc()
	}
}

func TestThePaceIsOfTheLastSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var counted plan.Stats
		stats := func() engine.Stats {
			return engine.Stats{Frontends: []engine.FrontendStats{{Name: "f", Totals: counted.Totals()}}}
		}
		var p pacer
		if _, _, ok := p.since(time.Now()); ok {
			t.Error("there is a pace before anything was copied")
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); p.run(ctx, stats) }()
		synctest.Wait()
		now := func() api.Pace {
			synctest.Wait()
			before, elapsed, ok := p.since(time.Now())
			if !ok {
				t.Fatal("no copy")
			}
			return pacesOf(before, stats(), elapsed).frontends["f"]
		}
		traffic(&counted, 100, 200*time.Millisecond)
		time.Sleep(2 * time.Second)
		if got := now(); got.Requests != 50 || got.Failed != 5 || got.BytesOut != 50_000 || got.P50Ms < 190 || got.P99Ms > 210 {
			t.Errorf("after 2 s: %+v", got)
		}
		time.Sleep(12 * time.Second)
		if got := now(); got != (api.Pace{}) {
			t.Errorf("after 14 s, of which the last 12 were quiet: %+v", got)
		}
		traffic(&counted, 90, 2*time.Millisecond)
		if got := now(); got.Requests != 10 || got.P99Ms > 2.5 { // of the last 9 s: the slow ones are over
			t.Errorf("then: %+v", got)
		}
		counted = plan.Stats{} // the frontend was taken out and put back
		traffic(&counted, 9, time.Millisecond)
		if got := now(); got.Requests != 1 {
			t.Errorf("after a new beginning: %+v", got)
		}
		cancel()
		<-done
	})
}
