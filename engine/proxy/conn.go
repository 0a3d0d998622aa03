package proxy

import (
	"syscall"

	"github.com/skeinlb/skein/engine/loop"
)

// conn is one socket on a loop: what is known of its two directions. Readiness is remembered, because an edge is told once.
type conn struct {
	fd       int
	owner    loop.Handler
	tls      *secure // nil: none
	readable bool    // there may be something to read, the end included
	ended    bool    // the peer has said that it sends no more, or is broken: a short read does not mean that all is read
	broken   bool    // reset, or both directions shut
	full     bool    // the socket took less than it was given; the next Writable resumes
	watched  bool    // registered with the loop
	held     bool    // the kernel holds back the end of what was sent, for more to go with it (see hold)

	pend []byte // accepted for sending, but the socket is full; on loan from the buffer pool
	off  int    // 0 <= off <= len(pend): sent already
}

// note records an event.
func (c *conn) note(ev loop.Events) {
	if ev&(loop.Readable|loop.PeerClosed|loop.Broken) != 0 {
		c.readable = true
		if ev&(loop.PeerClosed|loop.Broken) != 0 {
			c.ended = true
			c.broken = c.broken || ev&loop.Broken != 0
		}
	}
}

// state of a read or write that did not move everything.
type ioState uint8

const (
	ioOK    ioState = iota
	ioAgain         // nothing more for now
	ioEnd           // the peer has ended its direction
	ioError         // the connection is broken
)

// recv reads into b what there is.
func (c *conn) recv(b []byte) (int, ioState) {
	if c.tls != nil {
		return c.tls.recv(c, b)
	}
	n, e := loop.Recv(c.fd, b)
	switch {
	case e == syscall.EAGAIN:
		c.readable = false
		return 0, ioAgain
	case e != 0:
		c.readable, c.ended, c.broken = false, true, true
		return 0, ioError
	case n == 0:
		c.readable, c.ended = false, true
		return 0, ioEnd
	}
	if n < len(b) && !c.ended {
		c.readable = false // drained: the next byte is a new edge
	}
	return n, ioOK
}

// write sends b, and keeps what does not fit. It returns ioOK or ioError.
func (w *Worker) write(c *conn, b []byte) ioState { return w.send(c, b, false) }

// send is write; more says that more follows in a moment, the end of the stream perhaps, so that the kernel need not send a segment for b
// alone.
func (w *Worker) send(c *conn, b []byte, more bool) ioState {
	if c.tls != nil {
		return w.seal(c, b, more)
	}
	return w.transmit(c, b, more)
}

// transmit is send below TLS.
func (w *Worker) transmit(c *conn, b []byte, more bool) ioState {
	if !c.full {
		c.held = more
		n, e := loop.Send(c.fd, b, more)
		switch {
		case e == syscall.EAGAIN:
			n = 0
		case e != 0:
			c.broken = true
			return ioError
		}
		if n == len(b) {
			return ioOK
		}
		b = b[n:]
		c.full = true
		if !c.watched && !w.watch(c) {
			return ioError
		}
	}
	if c.pend == nil {
		c.pend = w.bufs.get(len(b))
	}
	c.pend = append(c.pend, b...)
	return ioOK
}

// flush sends what was kept.
func (w *Worker) flush(c *conn) ioState {
	for c.off < len(c.pend) {
		n, e := loop.Send(c.fd, c.pend[c.off:], false)
		if e == syscall.EAGAIN {
			c.full = true
			return ioAgain
		}
		if e != 0 {
			c.broken = true
			return ioError
		}
		c.off += n
	}
	c.full, c.held = false, false
	if c.pend != nil {
		w.bufs.put(c.pend)
		c.pend, c.off = nil, 0
	}
	return ioOK
}

// release closes the descriptor and gives back what c had on loan.
func (w *Worker) release(c *conn, reset bool) {
	switch {
	case c.fd < 0: // a handshake has it
	case reset:
		w.loop.Forget(c.fd)
		loop.Reset(c.fd)
	default:
		if c.tls != nil {
			w.farewell(c)
		}
		w.loop.Forget(c.fd)
		if c.held { // to close would lose it, if the peer has said something that was not read
			loop.CloseWrite(c.fd)
		}
		loop.Close(c.fd)
	}
	if c.pend != nil {
		w.bufs.put(c.pend)
	}
	*c = conn{fd: -1}
}
