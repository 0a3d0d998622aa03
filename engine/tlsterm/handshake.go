package tlsterm

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of handshakes, per node.
const (
	// maxHandshakes go on at once. Each takes a goroutine of some 30 KB; most of them wait for their client.
	maxHandshakes = 2048
	// maxWaiting wait for their turn, in memory no more than a descriptor each.
	maxWaiting = 4096
	// crowdTime is what a handshake may take while more than half of maxHandshakes go on: who connects and says no more must
	// not keep the others out for as long as a slow client may take in quiet times.
	crowdTime = 2 * time.Second
	// keepWorkers is how many goroutines stay when there is nothing to do: a new one would grow its stack anew.
	keepWorkers = 64
)

// Reason is why a handshake came to nothing.
type Reason uint8

const (
	Done        Reason = iota // it did not
	Failed                    // no version, cipher or key in common, or what came is no TLS
	TimedOut                  // not over in time
	NoName                    // no certificate for the client's name, and none is to be shown for others
	ClientAlert               // the client said no: it trusts the certificate's issuer not, for example
	ClientGone                // the client closed the connection
	Refused                   // too many handshakes
)

// Handshakes carries out the handshakes of a node, in goroutines. The zero value is ready. Its methods are for any goroutine.
type Handshakes struct {
	most, mostWaiting int // 0: maxHandshakes, maxWaiting; set before use

	workers atomic.Int64
	idle    atomic.Int64

	once  sync.Once
	ready chan job // to a worker that waits; unbuffered
	queue chan job

	mu sync.Mutex
	// mu guards the following.
	open   map[*os.File]struct{} // connections in handshakes
	closed bool
	stop   chan struct{}
	wg     sync.WaitGroup
}

// job is one handshake to be done.
type job struct {
	fd       int
	term     *Terminator
	deadline time.Time
	done     func(*Conn, Reason)
}

func (h *Handshakes) init() {
	h.once.Do(func() {
		if h.most == 0 {
			h.most, h.mostWaiting = maxHandshakes, maxWaiting
		}
		h.ready, h.queue = make(chan job), make(chan job, h.mostWaiting)
		h.open, h.stop = map[*os.File]struct{}{}, make(chan struct{})
	})
}

// Start begins the handshake of an accepted connection and returns at once; it does not block. fd is the handshake's from now on: it
// goes on to done with the Conn, which has it under another number, or is closed. done is called from another goroutine, exactly
// once, unless Start returns false: then too much is under way, and fd stays the caller's.
func (h *Handshakes) Start(fd int, t *Terminator, timeout time.Duration, done func(*Conn, Reason)) bool {
	h.init()
	if h.workers.Load()-h.idle.Load() > int64(h.most/2) {
		timeout = min(timeout, crowdTime)
	}
	j := job{fd, t, time.Now().Add(timeout), done}
	select {
	case h.ready <- j:
		return true
	default:
	}
	if h.workers.Add(1) <= int64(h.most) && h.enter() {
		go h.work(j)
		return true
	}
	h.workers.Add(-1)
	if h.ended() {
		return false
	}
	select {
	case h.queue <- j:
		return true
	default:
		return false
	}
}

// enter counts a new worker, unless all is over.
func (h *Handshakes) enter() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.closed {
		h.wg.Add(1)
	}
	return !h.closed
}

func (h *Handshakes) ended() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.closed
}

// Pending returns how many handshakes go on or wait for their turn.
func (h *Handshakes) Pending() int {
	h.init()
	return int(h.workers.Load()-h.idle.Load()) + len(h.queue)
}

// Close ends all handshakes and returns when every done has been called. None begins any more.
func (h *Handshakes) Close() {
	h.init()
	h.mu.Lock()
	if !h.closed {
		h.closed = true
		close(h.stop)
		for f := range h.open {
			f.SetDeadline(time.Unix(1, 0))
		}
	}
	h.mu.Unlock()
	h.wg.Wait()
	for {
		select {
		case j := <-h.queue:
			unix.Close(j.fd)
			j.done(nil, Refused)
		default:
			return
		}
	}
}

// work does one handshake after the other as long as there are any.
func (h *Handshakes) work(j job) {
	defer h.wg.Done()
	defer h.workers.Add(-1)
	for {
		j.done(h.handshake(j))
		select {
		case j = <-h.queue:
			continue
		default:
		}
		if h.idle.Add(1) > keepWorkers {
			h.idle.Add(-1)
			return
		}
		select {
		case j = <-h.ready:
			h.idle.Add(-1)
		case j = <-h.queue:
			h.idle.Add(-1)
		case <-h.stop:
			h.idle.Add(-1)
			return
		}
	}
}

// handshake does one handshake, and waits for the client where it must.
func (h *Handshakes) handshake(j job) (*Conn, Reason) {
	f := os.NewFile(uintptr(j.fd), "") // it is non-blocking: the runtime's poller takes it
	h.mu.Lock()
	refused := h.closed || f.SetDeadline(j.deadline) != nil
	if !refused {
		h.open[f] = struct{}{}
	}
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		delete(h.open, f)
		h.mu.Unlock()
		f.Close()
	}()
	if refused {
		return nil, Refused
	}
	c := &Conn{raw: socket{file: f}}
	c.tls = tls.Server(&c.raw, j.term.config)
	if err := c.tls.Handshake(); err != nil {
		return nil, c.raw.reason(err)
	}
	fd, err := duplicate(f)
	if err != nil {
		return nil, Failed
	}
	c.raw.fd, c.raw.file, c.raw.more = fd, nil, true
	return c, Done
}

// duplicate takes a connection out of the runtime's poller: what is closed afterwards is another number of the same connection.
func duplicate(f *os.File) (fd int, err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	cerr := raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0) })
	if cerr != nil {
		return -1, cerr
	}
	if err != nil {
		return -1, fmt.Errorf("duplicate a connection: %w", err)
	}
	return fd, nil
}

// reason says what a handshake failed from. Who speaks HTTP without TLS is told so in HTTP.
func (s *socket) reason(err error) Reason {
	var head tls.RecordHeaderError
	var op *net.OpError
	switch {
	case errors.As(err, &head):
		if looksLikeHTTP(head.RecordHeader[:]) {
			_, _ = s.file.WriteString(plainHTTP)
		}
		return Failed
	case s.noName:
		return NoName
	case errors.Is(err, os.ErrDeadlineExceeded):
		return TimedOut
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return ClientGone
	case errors.As(err, &op) && op.Op == "remote error":
		return ClientAlert
	}
	return Failed
}

// looksLikeHTTP tells the first bytes of a request from those of anything else.
func looksLikeHTTP(b []byte) bool {
	for _, m := range []string{"GET /", "HEAD ", "POST ", "PUT /", "OPTIO", "DELET", "PATCH"} {
		if bytes.HasPrefix(b, []byte(m)) {
			return true
		}
	}
	return false
}

const plainHTTP = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 60\r\nConnection: close\r\n\r\n" +
	"400 Bad Request: this port speaks HTTPS, and you spoke HTTP\n"
