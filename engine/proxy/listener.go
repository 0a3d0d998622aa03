package proxy

import (
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/skeinlb/skein/engine/loop"
	"github.com/skeinlb/skein/engine/plan"
	"github.com/skeinlb/skein/engine/tlsterm"
)

// Listener is an address on which connections arrive. It stays while configurations come and go; each loop has a socket of it.
type Listener struct {
	Addr  netip.AddrPort
	front atomic.Pointer[plan.Frontend] // nil: removed; what is established goes on with what it has
	tls   atomic.Pointer[tlsterm.Terminator]
	moved atomic.Bool // clients are asked to connect anew
}

// SetTLS has TLS end at the listener, as t says, from the next connection on; nil: it does not. Any goroutine may call it.
func (l *Listener) SetTLS(t *tlsterm.Terminator) { l.tls.Store(t) }

// SetFrontend has the listener serve f from the next connection or request on; nil says that it is going away. Any goroutine
// may call it.
func (l *Listener) SetFrontend(f *plan.Frontend) { l.front.Store(f) }

// Frontend returns what the listener serves, or nil. Any goroutine may call it.
func (l *Listener) Frontend() *plan.Frontend { return l.front.Load() }

// removed says that connections end as soon as they can.
func (l *Listener) removed() bool { return l.front.Load() == nil }

// Leave says whether the listener's address has gone to another host: connections go on, and each is asked with its next answer to
// end. Any goroutine may call it.
func (l *Listener) Leave(on bool) { l.moved.Store(on) }

// leaving says that connections end with the exchange that is under way.
func (l *Listener) leaving() bool { return l.removed() || l.moved.Load() }

// socket is one loop's part of a listener.
type socket struct {
	w        *Worker
	listener *Listener
	front    *plan.Frontend // the last one: for what arrived before the listener was removed
	fd       int
	timer    loop.Timer // set while it is paused
	paused   bool
}

// Bounds of accepting.
const (
	acceptBatch = 64                     // in a row, while others wait
	acceptPause = 100 * time.Millisecond // at most, for lack of room: what is freed ends it sooner
)

// Listen begins to accept on fd, which is a socket of l's.
func (w *Worker) Listen(l *Listener, fd int) error {
	s := &socket{w: w, listener: l, fd: fd, front: l.front.Load()}
	s.timer.Owner = s
	if err := w.loop.WatchLevel(fd, s); err != nil {
		return err
	}
	w.sockets[l] = s
	return nil
}

// Unlisten ends accepting on l, after taking what waits in its queue: to close the socket would reset that. Of what comes meanwhile it takes
// a batch: more would be a flood, which could go on for ever.
func (w *Worker) Unlisten(l *Listener) {
	s := w.sockets[l]
	if s == nil {
		return
	}
	for n := loop.Queued(s.fd) + acceptBatch; n > 0 && s.accept(); n-- {
	}
	s.close()
}

// close ends accepting at once.
func (s *socket) close() {
	w := s.w
	delete(w.sockets, s.listener)
	w.unpause(s)
	w.loop.Pause(s.fd) // not Forget: the socket may live on in another process, and then to close it here takes it from no poller
	loop.Close(s.fd)
}

// Ready takes connections.
func (s *socket) Ready(loop.Events) {
	for range acceptBatch {
		if !s.accept() {
			return
		}
	}
}

// accept takes one connection and reports whether there may be more.
func (s *socket) accept() bool {
	w := s.w
	if f := s.listener.front.Load(); f != nil {
		s.front = f
	}
	if !w.admits(s.front) {
		s.pause()
		return false
	}
	fd, addr, e := loop.Accept(s.fd)
	switch e {
	case 0:
		if s.front.Guarded() && s.front.Denies(addr.Addr()) {
			s.front.Stats.Loop(w.id).Failures[plan.Denied].Inc()
			loop.Reset(fd)
			return true
		}
		w.scarce = w.scarce || fd >= w.shared.Descriptors.scarceFrom()
		w.newClient(s.listener, s.front, fd, addr)
		return true
	case syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM:
		// The connection stays in the queue. To be told of it again and again would help nobody.
		s.front.Stats.Loop(w.id).Failures[plan.OutOfDescriptors].Inc()
		w.makeRoom()
		s.pause()
	}
	return false
}

// Expired goes on accepting after a pause.
func (s *socket) Expired() { s.resume() }
