package load

import (
	"bytes"
	"fmt"
	"net"
	"strconv"

	"golang.org/x/sys/unix"
)

// What a target asks of the origin: its last element is /b and a number of bytes, and ?close ends the connection behind the answer.
//
//	GET /b128, GET /shop/b1024, GET /b65536?close, POST /b128

const (
	smallBody = 16 << 10 // up to here an answer is one send; beyond it the body goes by sendfile
	largest   = 4 << 20
)

// originHead has the fields that nginx sends with a file.
const originHead = "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sun, 22 Nov 2026 08:46:35 GMT\r\nContent-Type: text/plain\r\n" +
	"Content-Length: %d\r\nLast-Modified: Sun, 22 Nov 2026 08:00:00 GMT\r\nETag: \"65a1b2c3-%x\"\r\nAccept-Ranges: bytes\r\nConnection: %s\r\n\r\n"

// Origin is the server behind the proxies, on one thread.
type Origin struct {
	listener int
	poll     *poller
	conns    []server // by descriptor
	buf      []byte
	file     int // in memory, of largest bytes
	answers  map[answerKey][]byte
}

type answerKey struct {
	size  int
	close bool
}

// server is a connection from a proxy.
type server struct {
	open   bool
	head   []byte // of a request, when it comes in pieces
	upload int    // of a request's body, not here yet
	asked  answerKey
	out    []byte // of an answer, not sent yet
	rest   int    // of its body by sendfile, not sent yet
}

// Serve answers on a port of all of this machine's addresses and does not return but with an error. ready is called when it listens.
func Serve(port int, ready func()) error {
	own()
	o := &Origin{buf: make([]byte, scratchSize), answers: map[answerKey][]byte{}}
	var err error
	if o.poll, err = newPoller(); err != nil {
		return err
	}
	if o.file, err = unix.MemfdCreate("origin", unix.MFD_CLOEXEC); err != nil {
		return fmt.Errorf("make a file in memory: %w", err)
	}
	if _, err := unix.Write(o.file, bytes.Repeat([]byte("x"), largest)); err != nil {
		return fmt.Errorf("fill the file: %w", err)
	}
	if err := o.listen(port); err != nil {
		return err
	}
	ready()
	for {
		events, err := o.poll.wait(-1)
		if err != nil {
			return err
		}
		for _, e := range events {
			if int(e.Fd) == o.listener {
				o.accept()
				continue
			}
			o.event(int(e.Fd), e.Events)
		}
	}
}

func (o *Origin) listen(port int) (err error) {
	if o.listener, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err != nil {
		return fmt.Errorf("open a socket: %w", err)
	}
	if err := unix.SetsockoptInt(o.listener, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(o.listener, &unix.SockaddrInet4{Port: port, Addr: [4]byte(net.IPv4zero.To4())}); err != nil {
		return fmt.Errorf("bind port %d: %w", port, err)
	}
	if err := unix.Listen(o.listener, 1<<16); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return o.poll.add(o.listener, o.listener)
}

func (o *Origin) accept() {
	for {
		fd, _, err := unix.Accept4(o.listener, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
		if err != nil {
			return
		}
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		for fd >= len(o.conns) {
			o.conns = append(o.conns, make([]server, 1024)...)
		}
		s := &o.conns[fd]
		*s = server{open: true, head: s.head[:0]}
		if o.poll.add(fd, fd) != nil {
			o.close(fd, s)
			continue
		}
		o.pull(fd, s, false) // the request may be here, and its event is not lost if it is not
	}
}

func (o *Origin) close(fd int, s *server) {
	unix.Close(fd)
	s.open = false
}

func (o *Origin) event(fd int, events uint32) {
	s := &o.conns[fd]
	if s.open && events&unix.EPOLLOUT != 0 && (len(s.out) > 0 || s.rest > 0) {
		o.push(fd, s)
	}
	if s.open && events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		o.pull(fd, s, events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0)
	}
}

// pull reads requests, one at a time: proxies do not pipeline.
func (o *Origin) pull(fd int, s *server, last bool) {
	for s.open {
		limit, flags := len(o.buf), 0
		if s.upload > 0 {
			limit, flags = s.upload, unix.MSG_TRUNC
		}
		n, errno := recv(fd, o.buf, limit, flags)
		switch {
		case errno == unix.EAGAIN:
			return
		case errno != 0 || n <= 0:
			o.close(fd, s)
			return
		case s.upload > 0:
			if s.upload -= n; s.upload == 0 {
				o.answer(fd, s)
			}
		default:
			if !o.request(fd, s, o.buf[:n]) {
				o.close(fd, s)
				return
			}
		}
		if n < limit && !last {
			return
		}
	}
}

// request takes a head, or a piece of one. false: it is none.
func (o *Origin) request(fd int, s *server, b []byte) bool {
	if len(s.head) > 0 {
		s.head = append(s.head, b...)
		b = s.head
	}
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(s.head) == 0 {
			s.head = append(s.head, b...)
		}
		return len(b) <= 64<<10
	}
	line := b[:bytes.IndexByte(b, '\r')]
	var ok bool
	if s.asked, ok = wanted(line); !ok {
		return false
	}
	body := len(b) - end - 4
	s.upload = 0
	if b[0] == 'P' {
		s.upload = contentLength(b[:end+2]) - body
		if s.upload < 0 {
			return false
		}
	} else if body > 0 {
		return false
	}
	s.head = s.head[:0]
	if s.upload == 0 {
		o.answer(fd, s)
	}
	return true
}

// wanted reads a request line.
func wanted(line []byte) (k answerKey, ok bool) {
	i := bytes.LastIndex(line, []byte("/b"))
	if i < 0 {
		return answerKey{size: 0}, bytes.Contains(line, []byte(" /health "))
	}
	rest := line[i+2:]
	n := 0
	for n < len(rest) && rest[n] >= '0' && rest[n] <= '9' {
		n++
	}
	size, err := strconv.Atoi(string(rest[:n]))
	return answerKey{size, bytes.HasPrefix(rest[n:], []byte("?close"))}, err == nil && size <= largest
}

func (o *Origin) answer(fd int, s *server) {
	out, ok := o.answers[s.asked]
	if !ok {
		connection := "keep-alive"
		if s.asked.close {
			connection = "close"
		}
		out = fmt.Appendf(nil, originHead, s.asked.size, s.asked.size, connection)
		if s.asked.size <= smallBody {
			out = append(out, bytes.Repeat([]byte("x"), s.asked.size)...)
		}
		o.answers[s.asked] = out
	}
	s.out = out
	if s.asked.size > smallBody {
		s.rest = s.asked.size
	}
	o.push(fd, s)
}

func (o *Origin) push(fd int, s *server) {
	for len(s.out) > 0 {
		flags := 0
		if s.rest > 0 {
			flags = unix.MSG_MORE
		}
		n, errno := send(fd, s.out, flags)
		if errno == unix.EAGAIN {
			return
		}
		if errno != 0 {
			o.close(fd, s)
			return
		}
		s.out = s.out[n:]
	}
	for s.rest > 0 {
		at := int64(0)
		n, err := unix.Sendfile(fd, o.file, &at, s.rest)
		if err == unix.EAGAIN {
			return
		}
		if err != nil || n == 0 {
			o.close(fd, s)
			return
		}
		s.rest -= n
	}
	if s.asked.close {
		o.close(fd, s)
	}
}
