package node

import (
	"context"
	"time"

	"github.com/skeinlb/skein/state"
)

// logTick is how often time passes in the log: sticky entries and tokens end by it.
const logTick = time.Second

// ticketTick is how often time passes in a log in which nothing ends but keys of session tickets.
const ticketTick = 10 * time.Minute

// coupleTime: the leader's monotonic clock -> log time. Only while something in the log can end, so that a quiet cluster's log is
// quiet; time that was not needed is made up for with the next tick.
func (n *Node) coupleTime(ctx context.Context) {
	tick := time.NewTicker(logTick)
	defer tick.Stop()
	var since time.Time // zero: not leading
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !n.cluster.Leadership().Get().Self {
			since = time.Time{}
			continue
		}
		if since.IsZero() {
			since = time.Now()
			continue
		}
		view := n.machine.Views().Get()
		now := time.Now()
		switch {
		case len(view.Tokens) > 0 || len(view.Scope.Tables) > 0:
		case len(view.Tickets) > 0 && now.Sub(since) < ticketTick: // which last for hours
			continue
		case len(view.Tickets) == 0:
			since = now
			continue
		}
		pctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, _, err := n.cluster.Propose(pctx, state.Encode(state.Tick{ElapsedMs: uint64(now.Sub(since).Milliseconds())}))
		cancel()
		if err == nil {
			since = now
		}
	}
}
