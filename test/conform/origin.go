package conform

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"
)

// Origin is the strict server behind a proxy. It serves one case at a time.
type Origin struct {
	listener net.Listener
	done     sync.WaitGroup

	mu    sync.Mutex    // guards the following
	quiet *sync.Cond    // broadcast when a connection gets to the end of a message, or ends
	play  Case          // how to answer
	late  chan struct{} // closed when what is late is due
	seen  sightings
	conns map[net.Conn]*reached
}

// sightings is what an origin saw during one case, canaries left out.
type sightings struct {
	whole   []*message
	partial []string // what began and was not completed
	strange []string // what was not canonical
}

// reached is one connection from the proxy.
type reached struct {
	raw  bytes.Buffer // since the last complete message
	busy bool         // within a message
}

// NewOrigin starts an origin on a free port of the loopback.
func NewOrigin() (*Origin, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("listen for the origin: %w", err)
	}
	o := &Origin{listener: l, conns: map[net.Conn]*reached{}}
	o.quiet = sync.NewCond(&o.mu)
	o.done.Go(o.accept)
	return o, nil
}

// Port is where it listens.
func (o *Origin) Port() int { return o.listener.Addr().(*net.TCPAddr).Port }

// Close ends the origin and all of its connections, and waits for them.
func (o *Origin) Close() {
	o.listener.Close()
	o.Hangup()
	o.done.Wait()
}

// Hangup closes the connections that the proxy has, so that what one case did to them does not reach the next.
func (o *Origin) Hangup() {
	o.mu.Lock()
	defer o.mu.Unlock()
	for c := range o.conns {
		c.Close()
	}
}

func (o *Origin) accept() {
	for {
		c, err := o.listener.Accept()
		if err != nil {
			return
		}
		s := &reached{}
		o.mu.Lock()
		o.conns[c] = s
		o.mu.Unlock()
		o.done.Go(func() {
			o.serve(c, s)
			c.Close()
			o.mu.Lock()
			delete(o.conns, c)
			o.quiet.Broadcast()
			o.mu.Unlock()
		})
	}
}

// begin has the origin play a case from now on.
func (o *Origin) begin(c Case) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.play, o.late, o.seen = c, make(chan struct{}), sightings{}
}

// answered says that the client has its answer: what is late goes out now, and has when settled returns.
func (o *Origin) answered() {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.late)
}

// settled waits until no connection is within a message, and returns what was seen and whether it came to that in time.
func (o *Origin) settled(limit time.Duration) (sightings, bool) {
	late := false
	t := time.AfterFunc(limit, func() {
		o.mu.Lock()
		late = true
		o.quiet.Broadcast()
		o.mu.Unlock()
	})
	defer t.Stop()
	o.mu.Lock()
	defer o.mu.Unlock()
	for {
		busy := false
		for _, s := range o.conns {
			busy = busy || s.busy
		}
		if !busy || late {
			return o.seen, !busy
		}
		o.quiet.Wait()
	}
}

// serve reads requests one by one, as strictly as it can be done.
func (o *Origin) serve(c net.Conn, s *reached) {
	r := bufio.NewReader(io.TeeReader(c, &s.raw))
	for {
		s.raw.Reset()
		if _, err := r.Peek(1); err != nil {
			return
		}
		o.mark(s, true)
		play, last, err := o.one(c, r)
		if err != nil {
			o.note(s, err)
			if isBad(err) {
				io.WriteString(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
			}
			return
		}
		o.mark(s, false)
		if play.Closes || last {
			return
		}
		if strings.HasPrefix(play.Reply, "HTTP/1.1 101 ") { // it speaks another protocol now, which is an echo
			io.Copy(c, r)
			return
		}
	}
}

func (o *Origin) mark(s *reached, busy bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if s.busy = busy; !busy {
		o.quiet.Broadcast()
	}
}

// note records how a connection ended within a message.
func (o *Origin) note(s *reached, err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case isBad(err):
		o.seen.strange = append(o.seen.strange, err.Error())
	case !errors.Is(err, net.ErrClosed):
		o.seen.partial = append(o.seen.partial, clip(s.raw.String()))
	}
}

// one reads a request and answers it. last: the client wants no other.
func (o *Origin) one(c net.Conn, r *bufio.Reader) (play Case, last bool, err error) {
	m, framing, err := readRequestHead(r)
	if err != nil {
		return Case{}, true, unexpected(err)
	}
	o.mu.Lock()
	play = o.play
	late := o.late
	o.mu.Unlock()
	last = m.ends()
	target := strings.Fields(m.Start)[1]
	canary := strings.HasPrefix(target, canaryPath)
	if canary {
		play = Case{}
	}
	reply := crlf(play.Reply)
	if play.Early {
		if _, err := io.WriteString(c, reply); err != nil {
			return play, last, err
		}
	} else if m.has("Expect", "100-continue") && !strings.HasSuffix(m.Start, "HTTP/1.0") {
		if _, err := io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
			return play, last, err
		}
	}
	if m.Body, err = readBody(r, framing); err != nil {
		return play, last, err
	}
	if !canary {
		o.mu.Lock()
		o.seen.whole = append(o.seen.whole, m)
		o.mu.Unlock()
	}
	switch {
	case play.Early:
		return play, last, nil
	case reply == "" && !play.Closes:
		reply = echo(m)
	}
	if _, err = io.WriteString(c, reply); err == nil && play.Late != "" {
		<-late
		_, err = io.WriteString(c, crlf(play.Late))
	}
	return play, last, err
}

// echo answers a request with its own method, target and body, so that an answer says to what it belongs.
func echo(m *message) string {
	body, connection := echoed(m), "keep-alive"
	if m.ends() {
		connection = "close"
	}
	const format = "HTTP/1.1 200 OK\r\nDate: Mon, 01 Jan 2024 00:00:00 GMT\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n"
	head := fmt.Sprintf(format, len(body), connection)
	if strings.HasPrefix(m.Start, "HEAD ") {
		return head
	}
	return head + body
}

func echoed(m *message) string {
	return strings.TrimSpace(m.Start[:len(m.Start)-len("HTTP/1.1")] + m.Body)
}
