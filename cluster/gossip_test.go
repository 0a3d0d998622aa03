package cluster

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/skeinlb/skein/state"
)

// silentHost is a network on which one address does not answer.
type silentHost struct {
	Host
	silent netip.AddrPort
	called chan struct{} // somebody has time for it
	ended  chan error    // and why he gave up
}

func (s silentHost) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	if addr != s.silent {
		return s.Host.Dial(ctx, addr)
	}
	if at, ok := ctx.Deadline(); !ok || time.Until(at) <= dialTimeout { // raft's own
		<-ctx.Done()
		return nil, ctx.Err()
	}
	s.called <- struct{}{}
	<-ctx.Done()
	s.ended <- ctx.Err()
	return nil, ctx.Err()
}

// Gossip calls a node that is down, which takes seconds. A node that stops meanwhile does not wait for that: an agent that is to be followed
// by another one has to end first.
func TestANodeThatStopsWaitsForNoneThatIsDown(t *testing.T) {
	w := newWorld(t)
	n := w.node("a")
	s := silentHost{silent: freeAddr(t), called: make(chan struct{}, 100), ended: make(chan error, 100)}
	n.change = func(o *Options) { o.Network = s }
	if _, err := Found(n.newcomer()); err != nil {
		t.Fatal(err)
	}
	n.start()
	wait(t, "cluster is founded", n.machine.Views(), func(v *state.View) bool { return v != nil && v.Founded() })
	down := state.Node{Name: "down", Advertise: s.silent, Role: state.Balancer, Fingerprint: "f"}
	if _, _, err := n.Propose(soon(t), state.Encode(state.PutNode{Node: down, Level: state.Level})); err != nil {
		t.Fatal(err)
	}
	select {
	case <-s.called:
	case <-soon(t).Done():
		t.Fatal("nobody calls the node that is down")
	}
	n.stop()
	if err := <-s.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the call ended by %v, want that the node that stops ends it", err)
	}
}
