package engine

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/skeinlb/skein/engine/proxy"
)

// Leave names the addresses that have gone to another host, all of them each time. What is established there goes on: streams until
// they end, HTTP connections until their next answer, which asks the client to close. New connections that still come in are served
// the same way.
func (e *Engine) Leave(addrs []netip.Addr) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.leaving = slices.Clone(addrs)
	for _, l := range e.listeners {
		l.shared.Leave(slices.Contains(addrs, l.addr.Addr()))
	}
}

// Retire stops accepting, because another engine listens on the same sockets, and returns when the last connection has ended, or with
// ctx's error and the number of those that have not. HTTP connections are asked to close with their next answer, and none is closed
// without one: Drain does that, after it.
func (e *Engine) Retire(ctx context.Context) error {
	err := e.stopAccepting(func(l *listener) { l.shared.Leave(true) }, func(*proxy.Worker) {})
	if err != nil {
		return fmt.Errorf("retire: %w", err)
	}
	return e.emptied(ctx)
}
