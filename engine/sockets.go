package engine

import (
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/engine/loop"
)

// Sockets are those of one listener, one for each loop, on their way from one engine to another. A connection that waits in the queue of
// such a socket is taken by whichever engine comes first.
type Sockets struct {
	Addr netip.AddrPort
	FDs  []int
}

// Close closes the descriptors.
func (s Sockets) Close() {
	for _, fd := range s.FDs {
		loop.Close(fd)
	}
}

// Sockets returns duplicates of the descriptors that this engine listens on, in the order of addresses, for an engine that is to follow it:
// both accept until this one drains. They are the caller's to close.
func (e *Engine) Sockets() ([]Sockets, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var all []Sockets
	for _, l := range e.listeners {
		s := Sockets{Addr: l.addr}
		for _, fd := range l.fds {
			dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				for _, o := range append(all, s) {
					o.Close()
				}
				return nil, fmt.Errorf("duplicate a socket of %v: %w", l.addr, err)
			}
			s.FDs = append(s.FDs, dup)
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b Sockets) int { return a.Addr.Compare(b.Addr) })
	return all, nil
}

// inherit takes the sockets of a former engine, for the first configuration.
func (e *Engine) inherit(all []Sockets) error {
	e.inherited = map[addr][]int{}
	for _, s := range all {
		if len(s.FDs) != len(e.workers) {
			return fmt.Errorf("inherit %v: %d sockets for %d loops", s.Addr, len(s.FDs), len(e.workers))
		}
		e.inherited[s.Addr] = s.FDs
	}
	return nil
}

// disinherit closes the sockets on which the first configuration does not listen. The caller holds e.mu.
func (e *Engine) disinherit() {
	for at, fds := range e.inherited {
		if e.listeners[at] == nil {
			Sockets{at, fds}.Close()
		}
	}
	e.inherited = nil
}
