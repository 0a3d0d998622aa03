package node

import (
	"context"
	"time"

	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/state/cert"
)

// Session ticket keys turn so that one that was stolen opens few sessions, and stay a while so that clients that come back can
// resume.
const (
	ticketLife = 8 * time.Hour
	ticketKeep = 3
	ticketLook = time.Minute // how often the leader looks whether it is time
)

// coupleTickets: keys of session tickets in the log -> the engine.
func (n *Node) coupleTickets(ctx context.Context) {
	if n.engine == nil {
		return
	}
	var told uint64
	n.machine.Views().Each(ctx, func(v *state.View) {
		if len(v.Tickets) == 0 || v.Tickets[0].Number == told {
			return
		}
		told = v.Tickets[0].Number
		var keys []engine.TicketKey
		for _, t := range v.Tickets {
			b, err := n.cluster.SealKey().Open(cert.TicketPurpose, t.Key)
			if err != nil || len(b) != len(engine.TicketKey{}) {
				n.log.Error("session ticket key not usable", "number", t.Number, "why", err)
				continue
			}
			keys = append(keys, engine.TicketKey(b))
		}
		if err := n.engine.SetTicketKeys(keys); err != nil {
			n.log.Error("session ticket keys not taken", "why", err)
			return
		}
		n.log.Info("session ticket keys", "newest", told, "number", len(keys))
	})
}

// turnTickets makes the next key when it is time, on the leader: at once when the first configuration with TLS comes.
func (n *Node) turnTickets(ctx context.Context) {
	look := time.NewTicker(ticketLook)
	defer look.Stop()
	for {
		view, changed := n.machine.Views().Watch()
		if n.cluster.Leadership().Get().Self && ticketDue(view, n.machine.LogTime()) {
			if err := n.makeTicketKey(ctx, view); err != nil && ctx.Err() == nil {
				n.log.Warn("make a session ticket key", "why", err)
			}
		}
		if ticketDue(view, 0) {
			changed = nil // it may be due all the time on a node that cannot make one: not at every change, then
		}
		select {
		case <-changed:
		case <-look.C:
		case <-ctx.Done():
			return
		}
	}
}

// ticketDue says whether a key is to be made at that log time.
func ticketDue(v *state.View, now uint64) bool {
	if len(v.Scope.Certificates) == 0 {
		return false
	}
	return len(v.Tickets) == 0 || now >= v.Tickets[0].Made+uint64(ticketLife/time.Millisecond)
}

func (n *Node) makeTicketKey(ctx context.Context, v *state.View) error {
	sealed, err := n.cluster.SealKey().Seal(cert.TicketPurpose, cert.NewSealKey())
	if err != nil {
		return err
	}
	c := state.PutTicketKey{Key: sealed, Keep: ticketKeep}
	if len(v.Tickets) > 0 {
		c.Expect = v.Tickets[0].Number
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	b, _, err := n.cluster.Propose(ctx, state.Encode(c))
	if err != nil {
		return err
	}
	r, err := state.DecodeResult(b)
	if err != nil {
		return err
	}
	return r.Err()
}
