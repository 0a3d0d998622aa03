package engine

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/loop"
	"github.com/skeinlb/skein/engine/plan"
	"github.com/skeinlb/skein/engine/proxy"
	"github.com/skeinlb/skein/engine/tlsterm"
)

// addr is what a listener is known by. Its mode may change without its sockets being opened again.
type addr = netip.AddrPort

// listener is an address with one socket for each loop.
type listener struct {
	addr   addr
	mode   config.Mode
	tls    bool
	name   string // of the frontend
	shared *proxy.Listener
	fds    []int // by loop; closed by the loops
	heir   bool  // the sockets were a former engine's
}

// Listener is what somebody who looks at the engine sees of one.
type Listener struct {
	Addr     netip.AddrPort
	Mode     config.Mode
	TLS      bool
	Frontend string
}

// Protocol is what clients speak there, in the configuration's word.
func (l Listener) Protocol() string {
	switch {
	case l.TLS && l.Mode == config.HTTP:
		return "https"
	case l.TLS:
		return "tls"
	}
	return l.Mode.String()
}

// Listeners returns what is listened on, in the order of addresses.
func (e *Engine) Listeners() []Listener {
	e.mu.Lock()
	defer e.mu.Unlock()
	var ls []Listener
	for _, l := range e.listeners {
		ls = append(ls, Listener{l.addr, l.mode, l.tls, l.name})
	}
	slices.SortFunc(ls, func(a, b Listener) int { return a.Addr.Compare(b.Addr) })
	return ls
}

// open opens the listeners that next has and e has not. On any error it leaves nothing open.
func (e *Engine) open(next *plan.Plan) ([]*listener, error) {
	var opened []*listener
	var errs []error
	for _, f := range next.Frontends {
		for _, want := range f.Listeners {
			if e.listeners[want.Addr] != nil {
				continue
			}
			l := &listener{addr: want.Addr, mode: want.Mode, tls: want.TLS, name: f.Name, shared: &proxy.Listener{Addr: want.Addr}}
			l.shared.SetFrontend(f)
			l.shared.Leave(slices.Contains(e.leaving, want.Addr.Addr()))
			opened = append(opened, l)
			if l.fds = e.inherited[want.Addr]; l.fds != nil {
				l.heir = true
				for _, fd := range l.fds {
					loop.DeferAccept(fd, clientFirst(want))
					loop.BoundUnsent(fd) // a former version may not have
				}
				continue
			}
			for i := range e.workers {
				fd, err := loop.Listen(want.Addr, loop.ListenOptions{
					FreeBind: e.opts.FreeBind,
					Defer:    clientFirst(want),
					Share:    i > 0,
				})
				if err != nil {
					errs = append(errs, fmt.Errorf("frontend %q: listen on %v: %w%s", f.Name, want.Addr, err, hint(err)))
					break
				}
				l.fds = append(l.fds, fd)
			}
		}
	}
	if len(errs) > 0 {
		closeFDs(opened)
		return nil, errors.Join(errs...)
	}
	return opened, nil
}

// hint says what an operator may do about an address that cannot be listened on.
func hint(err error) string {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return " (another process listens there, or another engine on this host)"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return " (the address is not on this host)"
	case errors.Is(err, syscall.EACCES):
		return " (ports below 1024 need root, CAP_NET_BIND_SERVICE or a lower net.ipv4.ip_unprivileged_port_start)"
	}
	return ""
}

// clientFirst says that the client speaks first, so that there is nothing to do for a connection before it has.
func clientFirst(l config.Listener) bool { return l.Mode == config.HTTP || l.TLS }

// swap has every listener serve its frontend of next, and returns those that have none any more.
func (e *Engine) swap(next *plan.Plan, opened []*listener, terms map[string]*tlsterm.Terminator) (gone []*listener) {
	for _, l := range opened {
		e.listeners[l.addr] = l
	}
	served := map[addr]bool{}
	for _, f := range next.Frontends {
		for _, want := range f.Listeners {
			l := e.listeners[want.Addr]
			if l.mode != want.Mode || l.tls != want.TLS {
				l.mode, l.tls = want.Mode, want.TLS
				for _, fd := range l.fds {
					loop.DeferAccept(fd, clientFirst(want))
				}
			}
			l.name = f.Name
			l.shared.SetFrontend(f)
			l.shared.SetTLS(terminatorOf(want, f.Name, terms))
			served[want.Addr] = true
		}
	}
	for key, l := range e.listeners {
		if !served[key] {
			l.shared.SetFrontend(nil)
			gone = append(gone, l)
			delete(e.listeners, key)
		}
	}
	return gone
}
