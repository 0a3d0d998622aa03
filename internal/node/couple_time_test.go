package node

import (
	"testing"
	"time"

	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/state/sticky"
)

// While nothing but ticket keys can end, the log hears of the time every ten minutes. A token or a sticky entry that comes in between
// must not be older by that than it is.
func TestTimeBeforeATokenDoesNotCountForIt(t *testing.T) {
	quiet := &state.View{}
	tls := &state.View{Tickets: []state.TicketKey{{Number: 1}}}
	token := &state.View{Tickets: tls.Tickets, Tokens: []state.Token{{ID: "t"}}}
	table := &state.View{Tickets: tls.Tickets, Scope: state.Scope{Tables: []sticky.Spec{{Name: "b"}}}}
	var c logClock
	now := time.Unix(1000, 0)
	for i, step := range []struct {
		after time.Duration // the last one
		view  *state.View
		want  time.Duration
	}{
		{0, quiet, 0},
		{time.Hour, quiet, 0},
		{time.Second, tls, 0},
		{ticketTick - 2*time.Second, tls, 0},
		{time.Second, tls, ticketTick},
		{9 * time.Minute, tls, 0},
		{time.Second, token, 0},
		{time.Second, token, time.Second},
		{time.Second, table, time.Second},
		{time.Second, tls, 0},
		{9 * time.Minute, tls, 0},
		{time.Second, table, 0},
		{3 * time.Second, table, 3 * time.Second}, // a look that was late
	} {
		now = now.Add(step.after)
		got := c.look(now, step.view)
		if got > 0 {
			c.since = now
		}
		if got != step.want {
			t.Errorf("look %d, %v after the last: %v, want %v", i, step.after, got, step.want)
		}
	}
	c.look(now.Add(time.Second), table) // not taken by the log
	if got := c.look(now.Add(2*time.Second), table); got != 2*time.Second {
		t.Errorf("after a tick that failed: %v, want %v", got, 2*time.Second)
	}
}
