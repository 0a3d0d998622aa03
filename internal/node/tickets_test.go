package node

import (
	"testing"

	"github.com/skeinlb/skein/state"
)

func TestTicketKeysAreMadeWhenTLSBeginsAndTurnEveryEightHours(t *testing.T) {
	const hour = 60 * 60 * 1000
	plain, secure := state.Scope{}, state.Scope{Certificates: []string{"shop"}}
	made := func(at uint64) []state.TicketKey { return []state.TicketKey{{Number: 7, Made: at}} }
	for _, c := range []struct {
		name    string
		scope   state.Scope
		tickets []state.TicketKey
		now     uint64
		want    bool
	}{
		{"nothing ends TLS", plain, nil, 100 * hour, false},
		{"nothing ends TLS any more", plain, made(1 * hour), 100 * hour, false},
		{"the first", secure, nil, 0, true},
		{"young", secure, made(1 * hour), 9*hour - 1, false},
		{"old", secure, made(1 * hour), 9 * hour, true},
	} {
		if got := ticketDue(&state.View{Scope: c.scope, Tickets: c.tickets}, c.now); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
