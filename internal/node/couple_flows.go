package node

import (
	"context"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// peerFlows is what the other nodes have told of their connections. Any goroutine may use it.
type peerFlows struct {
	mu sync.Mutex
	// mu guards the following.
	known map[string]map[flow]struct{} // by node
}

// count returns how many connections of a node are known.
func (p *peerFlows) count(node string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.known[node])
}

// take removes a node's connections to addrs and returns them.
func (p *peerFlows) take(node string, addrs []netip.Addr) []vip.Flow {
	p.mu.Lock()
	defer p.mu.Unlock()
	return takeFlows(p.known[node], addrs)
}

const (
	flowDial  = 5 * time.Second // to reach a node, and until the next attempt
	flowWrite = 2 * time.Second // for a node to take a frame
	flowKeep  = time.Minute     // what a node has told stays, after its stream has ended
	wakeAgain = time.Second     // after the first waking: what was lost on the way, or went to the old holder
)

// tellFlows: this node's connections -> one other node, as long as ctx lasts.
func (n *Node) tellFlows(ctx context.Context, name string) {
	for ctx.Err() == nil {
		if _, err := n.own.Wait(ctx, func(own []flow) bool { return len(own) > 0 }); err != nil {
			return
		}
		n.tellFlowsOnce(ctx, name)
		select {
		case <-time.After(flowDial):
		case <-ctx.Done():
		}
	}
}

// tellFlowsOnce keeps one stream until it breaks. The node may be down: what it would have to hear, it hears when it is back.
func (n *Node) tellFlowsOnce(ctx context.Context, name string) {
	dial, cancel := context.WithTimeout(ctx, flowDial)
	conn, err := n.cluster.Dial(dial, name, cluster.ALPNFlows)
	cancel()
	if err != nil {
		return
	}
	n.tellFlowsOver(ctx, conn)
}

// tellFlowsOver tells over conn until either end has had enough. The node at the other end says nothing; when it ends, it has forgotten all,
// and has to be told anew although nothing has changed here.
func (n *Node) tellFlowsOver(ctx context.Context, conn net.Conn) {
	ended := make(chan struct{})
	go func() { // ends with conn
		defer close(ended)
		_, _ = io.Copy(io.Discard, conn)
	}()
	defer func() { conn.Close(); <-ended }()
	var told []flow
	for {
		own, changed := n.own.Watch()
		if err := conn.SetWriteDeadline(time.Now().Add(flowWrite)); err != nil {
			return
		}
		if writeChanges(conn, appendChanges(nil, told, own)) != nil {
			return
		}
		told = own
		select {
		case <-changed:
		case <-ended:
			return
		case <-ctx.Done():
			return
		}
	}
}

// coupleTellFlows: who is a balancer -> a stream of our connections to each.
func (n *Node) coupleTellFlows(ctx context.Context) {
	if n.flows == nil {
		return
	}
	streams := map[string]context.CancelFunc{}
	var wg sync.WaitGroup
	defer wg.Wait()
	n.machine.Views().Each(ctx, func(v *state.View) {
		for name, stop := range streams {
			if m, ok := v.Node(name); !ok || m.Role != state.Balancer {
				stop()
				delete(streams, name)
			}
		}
		for _, m := range v.Nodes {
			if m.Name == n.conf.Name || m.Role != state.Balancer || streams[m.Name] != nil {
				continue
			}
			one, stop := context.WithCancel(ctx)
			streams[m.Name] = stop
			wg.Go(func() { n.tellFlows(one, m.Name) })
		}
	})
}

// hearFlows takes the others' streams until ctx ends.
func (n *Node) hearFlows(ctx context.Context) error {
	l := n.cluster.FlowListener()
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		c, err := l.Accept()
		if err != nil {
			return nil // closed
		}
		wg.Go(func() {
			defer c.Close()
			stop := context.AfterFunc(ctx, func() { c.Close() })
			defer stop()
			n.hearFlowsOf(c)
		})
	}
}

// hearFlowsOf takes one stream. What a node had told before stands until the first word of its new stream: it may have died.
func (n *Node) hearFlowsOf(c net.Conn) {
	from, ok := c.(*cluster.PeerConn)
	if !ok {
		return
	}
	var known map[flow]struct{}
	defer func() { // it may have died, and be needed in a moment; not in a minute
		time.AfterFunc(flowKeep, func() {
			n.peerFlows.mu.Lock()
			defer n.peerFlows.mu.Unlock()
			clear(known)
		})
	}()
	for {
		frame, err := readFrame(c)
		if err != nil {
			return
		}
		n.peerFlows.mu.Lock()
		if known == nil {
			known = map[flow]struct{}{}
			if n.peerFlows.known == nil {
				n.peerFlows.known = map[string]map[flow]struct{}{}
			}
			n.peerFlows.known[from.Node] = known
		}
		err = readChanges(frame, known)
		n.peerFlows.mu.Unlock()
		if err != nil {
			n.log.Warn("connections of a node not understood", "node", from.Node, "err", err)
			return
		}
	}
}

// coupleWake: this node holds an address that a node which has gone, or lost it, had connections to -> their clients, which hear of it.
func (n *Node) coupleWake(ctx context.Context) {
	if n.flows == nil {
		return
	}
	flows, err := vip.OpenFlows()
	if err != nil {
		n.log.Warn("clients of dead nodes will not be woken", "why", err)
		return
	}
	defer flows.Close()
	var again []vip.Flow
	var due <-chan time.Time
	for {
		seen, saw := n.guard.State().Watch()
		view := n.machine.Views().Get()
		for name := range seen.Held {
			for _, m := range view.Nodes {
				p := seen.Peers[m.Name]
				if m.Name == n.conf.Name || slices.Contains(p.Parked, name) || !gone(p) && slices.Contains(p.Held, name) {
					continue
				}
				if lost := n.peerFlows.take(m.Name, addrsOf(view, name)); len(lost) > 0 {
					sent, err := flows.Tickle(ctx, lost)
					n.log.Info("clients woken", "vip", name, "of", m.Name, "clients", sent, "err", err)
					again, due = append(again, lost...), time.After(wakeAgain)
				}
			}
		}
		select {
		case <-saw:
		case <-due:
			_, _ = flows.Tickle(ctx, again)
			again, due = nil, nil
		case <-ctx.Done():
			return
		}
	}
}
