package engine

import (
	"net/netip"
	"slices"
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
