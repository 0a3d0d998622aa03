package tlsterm

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"github.com/skeinlb/skein/engine/loop"
)

// Conn is a TLS connection. During its handshake it belongs to a goroutine; from then on to one loop, where it neither blocks nor
// sends: what is to be sent is appended to a buffer of the loop's, see Attach.
type Conn struct {
	tls *tls.Conn
	raw socket
}

// socket is what crypto/tls takes for the network.
type socket struct {
	fd   int
	file *os.File // during the handshake: reads and writes wait in the runtime's poller; nil afterwards
	out  *[]byte  // where ciphertext goes afterwards

	more   bool // the socket may have more to read
	ended  bool // the peer has said that it sends no more: a short read does not mean that all is read
	eof    bool // and the end of the stream has been read
	sent   bool // close_notify
	noName bool // the handshake failed for want of a certificate

	// Which records have arrived, so that crypto/tls need not be asked whether it has one left: to say no costs it an allocation.
	whole int // complete ones that crypto/tls may still have; never too few
	head  int // bytes of the present record's head that are there, 0..5
	left  int // bytes of its body that are not
	size  [2]byte
}

// State is what a read came to.
type State uint8

const (
	OK        State = iota
	Again           // nothing more for now
	End             // the peer has ended its direction as the protocol says (close_notify)
	Truncated       // the stream has ended without that: whether something is missing, nobody can tell
	Broken          // the connection is broken, or what came is not TLS
)

// Attach gives the connection to a loop: ciphertext is appended to *out from now on, and the loop sends it after every call.
func (c *Conn) Attach(out *[]byte) { c.raw.out = out }

// FD returns the connection's descriptor, which belongs to whoever has the connection.
func (c *Conn) FD() int { return c.raw.fd }

// Resumed says that the client has resumed an earlier session.
func (c *Conn) Resumed() bool { return c.tls.ConnectionState().DidResume }

// ServerName returns the name that the client asked for, in the form in which it did.
func (c *Conn) ServerName() string { return c.tls.ConnectionState().ServerName }

// Ready notes that there may be something to read; ended, that the peer has ended its direction.
func (c *Conn) Ready(ended bool) { c.raw.more, c.raw.ended = true, c.raw.ended || ended }

// Waiting says that nothing can be read before the socket becomes readable.
func (c *Conn) Waiting() bool { return !c.raw.more && c.raw.whole <= 0 }

// Read fills b as far as there is something to read. Bytes come with OK; what else there is to say is said by the next call.
func (c *Conn) Read(b []byte) (n int, st State) {
	for n < len(b) && !c.Waiting() {
		m, err := c.tls.Read(b[n:])
		n += m
		if n < len(b) && m > 0 {
			c.raw.whole-- // a record has been read to its end
		}
		if err == nil {
			continue
		}
		if err == errAgain {
			break
		}
		if n > 0 {
			c.raw.more = true // the error stays, and is what the next call finds
			return n, OK
		}
		c.raw.more, c.raw.whole = false, 0
		switch {
		case err != io.EOF:
			return 0, Broken
		case c.raw.eof:
			return 0, Truncated
		}
		return 0, End
	}
	if n == 0 {
		return 0, Again
	}
	return n, OK
}

// Write seals b. It reports whether the connection is still good.
func (c *Conn) Write(b []byte) bool {
	_, err := c.tls.Write(b)
	return err == nil
}

// CloseWrite says that nothing more will be sent, once.
func (c *Conn) CloseWrite() {
	if !c.raw.sent {
		c.raw.sent = true
		_ = c.tls.CloseWrite() // it can only fail where nothing can be sent any more
	}
}

// again is what a read returns when the socket has nothing. crypto/tls remembers every error of its network for ever but those
// that are temporary.
type again struct{}

func (again) Error() string   { return "nothing to read for now" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

var errAgain net.Error = again{}

// errSocket is any error of a socket; which one makes no difference to anybody.
var errSocket = errors.New("the connection is broken")

// Read reads from the socket.
func (s *socket) Read(b []byte) (int, error) {
	s.whole = 0 // it has used up what it had, or it would not ask
	if s.file != nil {
		n, err := s.file.Read(b)
		s.follow(b[:max(n, 0)])
		return n, err
	}
	if !s.more {
		return 0, errAgain
	}
	n, e := loop.Recv(s.fd, b)
	switch {
	case e == syscall.EAGAIN:
		s.more = false
		return 0, errAgain
	case e != 0:
		s.more = false
		return 0, errSocket
	case n == 0:
		s.more, s.eof = false, true
		return 0, io.EOF
	}
	if n < len(b) && !s.ended {
		s.more = false // drained: the next byte is a new edge
	}
	s.follow(b[:n])
	return n, nil
}

// follow counts the records that end in b, by the lengths in their heads.
func (s *socket) follow(b []byte) {
	for len(b) > 0 {
		if s.head < recordHead {
			if s.head >= 3 {
				s.size[s.head-3] = b[0]
			}
			s.head++
			b = b[1:]
			if s.head == recordHead {
				s.left = int(s.size[0])<<8 | int(s.size[1])
			}
		} else {
			n := min(s.left, len(b))
			s.left -= n
			b = b[n:]
		}
		if s.head == recordHead && s.left == 0 {
			s.head = 0
			s.whole++
		}
	}
}

// recordHead is type, version and length (RFC 8446 5.1).
const recordHead = 5

// Write sends during the handshake, and appends to the loop's buffer afterwards.
func (s *socket) Write(b []byte) (int, error) {
	if s.file != nil {
		return s.file.Write(b)
	}
	*s.out = append(*s.out, b...)
	return len(b), nil
}

// The rest of net.Conn. Deadlines are the handshake's, or the loop's.
func (s *socket) Close() error                     { return nil }
func (s *socket) LocalAddr() net.Addr              { return noAddr{} }
func (s *socket) RemoteAddr() net.Addr             { return noAddr{} }
func (s *socket) SetDeadline(time.Time) error      { return nil }
func (s *socket) SetReadDeadline(time.Time) error  { return nil }
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

type noAddr struct{}

func (noAddr) Network() string { return "tcp" }
func (noAddr) String() string  { return "client" }
