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
// quiet.
func (n *Node) coupleTime(ctx context.Context) {
	tick := time.NewTicker(logTick)
	defer tick.Stop()
	var clock logClock
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if !n.cluster.Leadership().Get().Self {
			clock = logClock{}
			continue
		}
		now := time.Now()
		elapsed := clock.look(now, n.machine.Views().Get())
		if elapsed == 0 {
			continue
		}
		pctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		_, _, err := n.cluster.Propose(pctx, state.Encode(state.Tick{ElapsedMs: uint64(elapsed.Milliseconds())}))
		cancel()
		if err == nil {
			clock.since = now
		}
	}
}

// logClock is the time of which the log has not heard. Its zero value begins with the first look.
type logClock struct {
	since time.Time // up to when it has
	brief bool      // something that lives for minutes was in it at the last look
}

// look returns how much time is to pass in the log now; 0: none yet. Of the time before something that lives for minutes came, the log does not
// hear: that would have ended at once.
func (c *logClock) look(now time.Time, v *state.View) (elapsed time.Duration) {
	brief := len(v.Tokens) > 0 || len(v.Scope.Tables) > 0
	switch {
	case c.since.IsZero(), brief && !c.brief, !brief && len(v.Tickets) == 0:
		c.since = now
	case brief, now.Sub(c.since) >= ticketTick: // keys of tickets last for hours
		elapsed = now.Sub(c.since)
	}
	c.brief = brief
	return elapsed
}
