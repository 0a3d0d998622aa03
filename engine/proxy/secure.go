package proxy

import (
	"bytes"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/loop"
	"github.com/skeinlb/skein/engine/plan"
	"github.com/skeinlb/skein/engine/tlsterm"
)

// secure is the TLS of a connection, on top of its socket: what is read is opened, what is written is sealed into the worker's
// scratch and sent from there. A connection without it pays for the question alone.
type secure struct {
	*tlsterm.Conn
	w   *Worker
	sni string // that the client asked for, in lower case
}

// sealedSize is room for a scratch and a head in records: 22 bytes each, 16 KiB at a time, and an alert.
const sealedSize = largeBuffer + 16<<10

// maxUnread bounds what is kept for a client who goes on asking for changes of keys without reading that they were made: more than can be
// kept of a response.
const maxUnread = 2 * sealedSize

// handshake begins the TLS of a client that has just been accepted. Its descriptor is the handshake's until that is over; c waits.
func (c *client) handshake(t *tlsterm.Terminator, fd int) {
	w, serial := c.w, c.serial
	done := func(conn *tlsterm.Conn, why tlsterm.Reason) {
		finish := func() { c.handshaken(serial, conn, why) }
		for !w.loop.Post(finish) {
			if w.loop.Ended() {
				if conn != nil {
					loop.Close(conn.FD())
				}
				return
			}
			time.Sleep(time.Millisecond) // its mailbox is full; this goroutine has time
		}
	}
	if !w.shared.Handshakes.Start(fd, t, c.front.Timeouts.Handshake, done) {
		c.fail(plan.HandshakeRefused)
		loop.Reset(fd)
		c.drop(true)
	}
}

// failures of handshakes, as the frontend counts them.
var handshakeFailure = [...]plan.Failure{
	tlsterm.Failed: plan.HandshakeFailed, tlsterm.TimedOut: plan.HandshakeTimeout, tlsterm.NoName: plan.NoCertificate,
	tlsterm.ClientAlert: plan.ClientAlert, tlsterm.ClientGone: plan.HandshakeClosed, tlsterm.Refused: plan.HandshakeRefused,
}

// handshaken takes a connection back on its loop.
func (c *client) handshaken(serial uint64, conn *tlsterm.Conn, why tlsterm.Reason) {
	if c.serial != serial { // c has been dropped meanwhile
		if conn != nil {
			loop.Close(conn.FD())
		}
		return
	}
	w := c.w
	if conn == nil {
		c.fail(handshakeFailure[why])
		c.drop(false)
		return
	}
	c.fd = conn.FD()
	c.tls = &secure{Conn: conn, w: w, sni: strings.ToLower(strings.TrimSuffix(conn.ServerName(), "."))}
	if w.sealed == nil {
		w.sealed = make([]byte, 0, sealedSize)
	}
	conn.Attach(&w.sealed)
	c.stats().Handshakes.Inc()
	if conn.Resumed() {
		c.stats().Resumed.Inc()
	}
	c.readable = true // crypto/tls may have read beyond the handshake
	c.welcome()
}

// recv is conn.recv with TLS.
func (s *secure) recv(c *conn, b []byte) (int, ioState) {
	s.Ready(c.ended)
	n, st := s.Read(b)
	c.readable = !s.Waiting()
	if len(s.w.sealed) > 0 { // an answer to a change of keys, or an alert
		if s.w.transmit(c, s.w.take(), false) == ioError {
			return n, ioError
		}
		if len(c.pend) > maxUnread { // nobody reads these answers, and there is no end to them
			st = tlsterm.Broken
		}
	}
	switch st {
	case tlsterm.Again:
		return 0, ioAgain
	case tlsterm.End:
		c.readable, c.ended = false, true
		return 0, ioEnd
	case tlsterm.Truncated, tlsterm.Broken:
		c.readable, c.ended, c.broken = false, true, true
		return 0, ioError
	}
	return n, ioOK
}

// seal is Worker.send with TLS.
func (w *Worker) seal(c *conn, b []byte, more bool) ioState {
	if !c.tls.Write(b) {
		w.sealed = w.sealed[:0]
		c.broken = true
		return ioError
	}
	return w.transmit(c, w.take(), more)
}

// take returns what has been sealed, which must be sent before anything else is sealed.
func (w *Worker) take() []byte {
	b := w.sealed
	w.sealed = b[:0]
	return b
}

// closeWrite ends our direction of c: by TLS's word first, where there is TLS.
func (w *Worker) closeWrite(c *conn) {
	if c.tls != nil {
		c.tls.CloseWrite()
		if b := w.take(); len(b) > 0 && w.transmit(c, b, true) != ioOK || c.full {
			return // the end of TCP's stream must not overtake what is kept; TLS's word is enough
		}
	}
	loop.CloseWrite(c.fd)
}

// farewell says close_notify on a connection that is about to be closed, if there is room for it.
func (w *Worker) farewell(c *conn) {
	if c.full || c.broken {
		return
	}
	c.tls.CloseWrite()
	if b := w.take(); len(b) > 0 {
		_, _ = loop.Send(c.fd, b, true)
		c.held = true
	}
}

// plain says that bytes of c may be moved without being looked at.
func (c *conn) plain() bool { return c.tls == nil }

// scheme is what X-Forwarded-Proto says.
func (c *conn) scheme() string {
	if c.tls != nil {
		return "https"
	}
	return "http"
}

// againWithTLS is what is done with a request that is to come again with TLS.
var againWithTLS = plan.Action{Name: "https"}

// acmePath is where a certificate authority looks for its challenge, without TLS.
var acmePath = []byte("/.well-known/acme-challenge/")

// toHTTPS says that the request in w.q is to come again with TLS. A proxy in front of us may have ended TLS already.
func (c *client) toHTTPS() bool {
	q := &c.w.q
	if c.front.ToHTTPS == 0 || c.tls != nil || bytes.HasPrefix(q.Path, acmePath) {
		return false
	}
	return c.front.Trusted == nil || string(q.Header("x-forwarded-proto")) != "https" || !c.front.Trusts(c.peer)
}

// sendToHTTPS answers the request in w.q with its own address, by https.
func (c *client) sendToHTTPS() {
	w, x, q := c.w, &c.x, &c.w.q
	if q.Authority == nil { // whom it is for, only the address says that it came to
		q.Host = hostOf(c.local().Addr(), w.addr[:0])
	}
	minor := x.minor
	c.ready()
	out := append(w.out[:0], "HTTP/1.1 308 Permanent Redirect\r\nDate: "...)
	out = append(append(out, w.date()...), "\r\nLocation: https://"...)
	out = append(out, q.Host...)
	if port := c.front.ToHTTPS; port != 443 {
		out = strconv.AppendUint(append(out, ':'), uint64(port), 10)
	}
	if string(q.Path) != "*" {
		out = append(out, q.Path...)
	}
	if q.Query != nil {
		out = append(append(out, '?'), q.Query...)
	}
	out = append(out, "\r\nContent-Length: 0\r\n"...)
	switch {
	case x.closing:
		out = append(out, "Connection: close\r\n"...)
	case minor == 0:
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	c.answer(http.StatusPermanentRedirect, append(out, "\r\n"...))
}

// hostOf writes an address as the host of a URL.
func hostOf(a netip.Addr, dst []byte) []byte {
	if a.Is4() {
		return a.AppendTo(dst)
	}
	return append(a.AppendTo(append(dst, '[')), ']')
}

// welcome begins to serve a client whose connection is ready: HTTP waits for a head, TCP for a server.
func (c *client) welcome() {
	if c.front.Mode != config.TCP {
		c.state = clientHead
		c.readHead()
		return
	}
	c.state = clientBusy
	if !c.watched && !c.w.watch(&c.conn) {
		c.drop(true)
		return
	}
	if kind := c.tooMuch(nil); kind != plan.None {
		c.w.retryAfter = 0 // nobody is told
		c.fail(kind)
		c.drop(true)
		return
	}
	c.beginStream()
}
