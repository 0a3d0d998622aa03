package load

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net/netip"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// client asks from one thread.
type client struct {
	Job
	to     netip.AddrPort
	poll   *poller
	conns  []conn
	idle   []int32 // connections that may ask, oldest first; a ring over idle[first : first+ready]
	first  int
	ready  int
	turn   int // of Requests
	buf    []byte
	body   []byte // what is uploaded
	errors uint64

	// With a rate: request i is due at begin + i*gap.
	begin int64
	gap   float64
	next  int64

	// Of what is counted: answers to requests that were due from since on, and completed before until (with a rate: due before).
	since, until int64
	done         uint64
	left         uint64 // with a rate: requests of that time without an answer yet
	hist         hist
}

type state uint8

const (
	closed state = iota
	resting
	sending
	heading
	reading
	ending // answered; waiting for the other side to end the connection
)

// conn is one connection. It has one request under way at most.
type conn struct {
	fd    int
	state state
	due   int64
	out   []byte // of the request's head, not sent yet
	up    int    // of its body, not sent yet
	need  int    // of the answer's body, not here yet
	head  []byte // of the answer, when it comes in pieces
	tls   *tls.Conn
}

func runClient(j Job) (Result, error) {
	to, err := netip.ParseAddrPort(j.Addr)
	if err != nil {
		return Result{}, err
	}
	own()
	c := &client{Job: j, to: to, conns: make([]conn, j.Conns), idle: make([]int32, j.Conns), buf: make([]byte, scratchSize), since: 1 << 62, until: 1 << 62}
	if j.Upload > 0 {
		c.body = bytes.Repeat([]byte("x"), min(j.Upload, scratchSize))
	}
	if c.poll, err = newPoller(); err != nil {
		return Result{}, err
	}
	defer c.stop()
	for i := range c.conns {
		c.conns[i].fd = -1
		if !j.Close {
			if err := c.open(&c.conns[i], i); err != nil {
				return Result{}, err
			}
		}
		c.rest(i)
	}
	return c.run()
}

func (c *client) stop() {
	for i := range c.conns {
		if c.conns[i].fd >= 0 {
			unix.Close(c.conns[i].fd)
		}
	}
	c.poll.close()
}

func (c *client) run() (Result, error) {
	m := meter{watch: c.Watch}
	c.begin = nanos()
	if c.Rate > 0 {
		c.gap = 1e9 / c.Rate
	}
	warm := c.begin + int64(c.Warm)
	if err := c.turns(func() bool { return nanos() >= warm }, warm); err != nil {
		return Result{}, err
	}
	if err := m.mark(); err != nil {
		return Result{}, err
	}
	c.since = m.at
	c.until = c.since + int64(c.For)
	end := c.until
	stop := func() bool { return nanos() >= end }
	if c.Rate == 0 { // a round without an answer says nothing: rather a longer one
		c.until = 1 << 62
		stop = func() bool { now := nanos(); return now >= end && c.done > 0 || now >= end+int64(silence) }
	}
	if err := c.turns(stop, end); err != nil {
		return Result{}, err
	}
	r := Result{Requests: c.done}
	var err error
	if r.CPU, r.Seconds, err = m.since(); err != nil {
		return r, err
	}
	if c.Rate > 0 {
		grace := end + int64(graceTime)
		if err := c.turns(func() bool { return c.left == 0 && c.dueAt() >= end || nanos() >= grace }, grace); err != nil {
			return r, err
		}
		r.Late = c.late()
	}
	r.Errors = c.errors
	r.latencies(&c.hist)
	return r, nil
}

// late counts what was due and has no answer, with the latency that it has at least.
func (c *client) late() (n uint64) {
	now := nanos()
	count := func(due int64) {
		if due >= c.since && due < c.until {
			n++
			c.hist.add(now - due)
		}
	}
	for i := range c.conns {
		if s := c.conns[i].state; s == sending || s == heading || s == reading {
			count(c.conns[i].due)
		}
	}
	for ; c.dueAt() < c.until; c.next++ {
		count(c.dueAt())
	}
	return n
}

// turns handles events until stop says so; it is asked again at the time limit at the latest.
func (c *client) turns(stop func() bool, limit int64) error {
	for !stop() {
		now := nanos()
		wait := max(limit-now, int64(time.Millisecond))
		if at := c.ask(now); at >= 0 {
			wait = min(wait, at-now)
		}
		events, err := c.poll.wait(max(wait, 0))
		if err != nil {
			return err
		}
		for _, e := range events {
			if err := c.event(int(e.Fd), e.Events); err != nil {
				return err
			}
		}
		if c.errors > maxErrors {
			return fmt.Errorf("%d errors and %d answers from %v", c.errors, c.done, c.to)
		}
	}
	return nil
}

// dueAt is when the next request is due.
func (c *client) dueAt() int64 { return c.begin + int64(float64(c.next)*c.gap) }

// ask sends what is due, while there are connections, and returns when the next is; below zero: when a connection is free.
func (c *client) ask(now int64) int64 {
	for c.ready > 0 {
		due := now
		if c.Rate > 0 {
			if due = c.dueAt(); due > now || due >= c.until {
				return due
			}
			c.next++
			if due >= c.since {
				c.left++
			}
		}
		i := c.idle[c.first]
		c.first = (c.first + 1) % len(c.idle)
		c.ready--
		c.start(int(i), due)
	}
	return -1
}

// rest puts a connection behind the others that may ask.
func (c *client) rest(i int) {
	c.conns[i].state = resting
	c.idle[(c.first+c.ready)%len(c.idle)] = int32(i)
	c.ready++
}

func (c *client) open(k *conn, i int) (err error) {
	if k.fd, err = dial(c.to); err != nil {
		return err
	}
	if c.TLS {
		if k.tls, err = handshake(k.fd, nil); err != nil {
			return err
		}
	}
	return c.poll.add(k.fd, i)
}

func (c *client) start(i int, due int64) {
	k := &c.conns[i]
	k.due, k.out, k.up, k.head = due, c.Requests[c.turn], c.Upload, k.head[:0]
	if c.turn++; c.turn == len(c.Requests) {
		c.turn = 0
	}
	k.state = sending
	if k.fd >= 0 {
		c.push(k, i)
		return
	}
	fd, err := connect(c.to, unix.SOCK_NONBLOCK)
	if err != nil {
		c.broken(k, i)
		return
	}
	k.fd = fd
	c.push(k, i)
	if k.fd >= 0 && c.poll.add(k.fd, i) != nil {
		c.broken(k, i)
	}
}

// push sends what can be sent.
func (c *client) push(k *conn, i int) {
	if k.tls != nil { // small, and the adapter waits for room
		if _, err := k.tls.Write(k.out); err != nil {
			c.broken(k, i)
			return
		}
		k.out = nil
	}
	for len(k.out) > 0 || k.up > 0 {
		b, flags := k.out, 0
		if len(b) == 0 {
			b = c.body[:min(k.up, len(c.body))]
		} else if k.up > 0 {
			flags = unix.MSG_MORE
		}
		n, errno := send(k.fd, b, flags)
		switch {
		case errno == unix.EAGAIN || errno == unix.ENOTCONN:
			return
		case errno != 0:
			c.broken(k, i)
			return
		case len(k.out) > 0:
			k.out = k.out[n:]
		default:
			k.up -= n
		}
	}
	k.state = heading
}

func (c *client) event(i int, events uint32) error {
	k := &c.conns[i]
	if k.fd < 0 {
		return nil
	}
	if k.state == sending && events&unix.EPOLLOUT != 0 {
		c.push(k, i)
	}
	if events&(unix.EPOLLIN|unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0 && k.fd >= 0 {
		c.pull(k, i, events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0)
	}
	return nil
}

// pull reads until the answer is complete, or nothing more is here.
func (c *client) pull(k *conn, i int, last bool) {
	for k.fd >= 0 {
		var n, limit int
		var errno syscall.Errno
		switch {
		case k.tls != nil:
			n, errno = readTLS(k.tls, c.buf)
			limit = n
		case k.state == reading:
			limit = k.need
			n, errno = recv(k.fd, c.buf, limit, unix.MSG_TRUNC)
		default:
			limit = len(c.buf)
			n, errno = recv(k.fd, c.buf, limit, 0)
		}
		switch {
		case errno == unix.EAGAIN:
			return
		case n == 0 && errno == 0 && k.state == ending:
			unix.Close(k.fd)
			k.fd = -1
			c.rest(i)
			return
		case errno != 0 || n <= 0:
			c.broken(k, i)
			return
		case k.state == reading:
			k.need -= n
		case k.state == heading:
			if whole, err := c.answer(k, c.buf[:n]); err != nil {
				c.broken(k, i)
				return
			} else if !whole {
				continue
			}
			k.state = reading
		default: // nothing was asked for, or an answer came before the request was sent
			c.broken(k, i)
			return
		}
		if k.state == reading && k.need == 0 {
			if c.answered(k, i); k.state != ending {
				return
			}
			continue
		}
		if n < limit && !last { // drained; what comes later is another event
			return
		}
	}
}

// answer reads a head, and says whether all of it is there.
func (c *client) answer(k *conn, b []byte) (whole bool, err error) {
	if len(k.head) > 0 {
		k.head = append(k.head, b...)
		b = k.head
	}
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 {
		if len(k.head) == 0 {
			k.head = append(k.head, b...)
		}
		if len(b) > 16<<10 {
			return false, fmt.Errorf("a head of %d bytes", len(b))
		}
		return false, nil
	}
	if !bytes.HasPrefix(b, []byte("HTTP/1.1 200")) {
		return false, fmt.Errorf("answered %q", b[:min(len(b), 32)])
	}
	if n := contentLength(b[:end+2]); n != c.Want {
		return false, fmt.Errorf("a body of %d bytes, want %d", n, c.Want)
	}
	k.need = c.Want - (len(b) - end - 4)
	if k.need < 0 {
		return false, fmt.Errorf("%d bytes too many", -k.need)
	}
	return true, nil
}

// contentLength finds the field as any of the proxies writes it; -1: it is not there.
func contentLength(head []byte) int {
	i := bytes.Index(head, []byte("ontent-"))
	for i >= 0 {
		rest := head[i+len("ontent-"):]
		if len(rest) > 8 && (rest[0] == 'L' || rest[0] == 'l') && bytes.HasPrefix(rest[1:], []byte("ength: ")) {
			v, _, _ := bytes.Cut(rest[8:], []byte("\r"))
			n, err := strconv.Atoi(string(v))
			if err != nil {
				return -1
			}
			return n
		}
		j := bytes.Index(rest, []byte("ontent-"))
		if j < 0 {
			break
		}
		i += len("ontent-") + j
	}
	return -1
}

// answered counts and goes on to the next request.
func (c *client) answered(k *conn, i int) {
	now := nanos()
	if k.due >= c.since {
		if now < c.until {
			c.done++
		}
		if c.Rate > 0 || now < c.until {
			c.hist.add(now - k.due)
		}
		c.left--
	}
	switch {
	case c.Close:
		k.state = ending
	case c.Rate == 0:
		c.start(i, now)
	default:
		c.rest(i)
	}
}

// broken gives a connection up, and its request, and makes another.
func (c *client) broken(k *conn, i int) {
	c.errors++
	if k.due >= c.since && k.state != ending && k.state != resting {
		c.left--
	}
	resting := k.state == resting
	if k.fd >= 0 {
		unix.Close(k.fd)
		k.fd, k.tls = -1, nil
	}
	if !c.Close && c.errors <= maxErrors {
		if c.open(k, i) != nil {
			c.errors = maxErrors + 1
		}
	}
	if !resting {
		c.rest(i)
	}
}
