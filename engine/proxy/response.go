package proxy

import (
	"github.com/skeinlb/skein/engine/h1"
	"github.com/skeinlb/skein/engine/plan"
)

// headRead bounds what is read in search of a head: what is beyond it of a large body is left for splicing.
const headRead = 16 << 10

// readHead reads the response's head, interim ones included, and what of the body comes with it.
func (s *server) readHead() {
	c, w := s.c, s.w
	x := &c.x
	for turn := 0; s.state == serverWaiting && s.c == c; turn++ {
		if turn == fairTurns { // there is no end to interim responses
			w.again(c)
			return
		}
		b := w.in[:headRead]
		if len(s.in) > headRead/2 || !c.plain() { // there will be no splicing
			b = w.in
		}
		n := copy(b, s.in)
		if !s.more {
			if !s.readable {
				return
			}
			m, st := s.recv(b[n:])
			switch st {
			case ioAgain:
				if s.failed {
					s.lost()
				}
				return
			case ioEnd, ioError:
				s.lost()
				return
			}
			s.spoke = true
			n += m
		}
		s.more = false
		if e := w.p.Parse(b[:n], x.head, w.limits); e != h1.OK {
			s.bad(e)
			return
		}
		if w.p.N == 0 {
			if n == len(w.in) {
				s.bad(h1.HeadTooLarge)
				return
			}
			s.in = w.bufs.save(s.in, b[:n])
			continue
		}
		if s.in != nil {
			w.bufs.put(s.in)
			s.in = nil
		}
		if w.p.Status < 200 {
			s.interim(b[w.p.N:n])
			continue
		}
		s.respond(b[w.p.N:n])
		return
	}
}

// bad answers for a server that does not speak HTTP.
func (s *server) bad(e h1.Error) {
	s.stats().Malformed[e].Inc()
	s.w.failure(s.pool.server, plan.ServerMalformed)
	s.c.page(502, plan.ServerMalformed, e)
}

// interim passes on a 1xx response, of which there may be several before the real one.
func (s *server) interim(rest []byte) {
	c, w := s.c, s.w
	x := &c.x
	if w.p.Status == 101 {
		if !x.upgrade {
			s.bad(h1.BadStatusLine)
			return
		}
		s.upgrade(rest)
		return
	}
	if w.p.Status == 100 {
		x.expects = false
	}
	if len(rest) > 0 {
		s.in = w.bufs.save(s.in, rest)
		s.more = true
	}
	if x.minor == 0 { // RFC 9110 15.2: HTTP/1.0 has none
		return
	}
	if c.full { // it has not even taken the last response, and will not miss this
		return
	}
	w.toClient = h1.ToClient{Minor: x.minor}
	if w.write(&c.conn, w.p.AppendHead(w.out[:0], &w.toClient)) != ioOK {
		c.gone()
	}
}

// upgrade turns the exchange into a tunnel. rest is what the server said in the new protocol already.
func (s *server) upgrade(rest []byte) {
	c, w := s.c, s.w
	x := &c.x
	x.answered = true
	x.rec.answered = w.loop.Now()
	c.countStatus(101, true)
	w.toClient = h1.ToClient{Edits: x.action.Response, Minor: x.minor, Cookie: s.cookie()}
	out := w.p.AppendHead(w.out[:0], &w.toClient)
	out = append(out, rest...)
	if w.write(&c.conn, out) != ioOK {
		c.gone()
		return
	}
	if len(c.in) > 0 { // what the client said in the new protocol already
		if w.write(&s.conn, c.in) != ioOK {
			c.fail(plan.ServerClosed)
			c.drop(true)
			return
		}
		w.bufs.put(c.in)
		c.in = nil
	}
	c.startStream()
	c.stream()
}

// cookie returns the Set-Cookie value that binds the client to s's server, if it is not bound already.
func (s *server) cookie() []byte {
	x := &s.c.x
	if !x.learn || x.backend.StickyCookie == nil {
		return nil
	}
	return x.backend.SetCookie(x.target)
}

// remember enters the choice of a server into the sticky table.
func (x *exchange) remember(w *Worker) {
	if x.learn && x.keyed {
		t := x.backend.StickyTable
		w.shared.Sticky.Learn(t.ID, x.key, x.target.ID, t.TTL)
		x.learn = false
	}
}

// respond sends the head in w.p to the client, with what there is of the body.
func (s *server) respond(have []byte) {
	c, w := s.c, s.w
	x, p := &c.x, &w.p
	w.loop.StopTimer(&s.timer)
	s.awaiting = false
	s.judge(p.Status)
	if p.Status >= 500 && x.backend.Retries.Status(p.Status) && c.mayRepeat(s.pool.server) {
		s.keep = p.KeepAlive && (p.Body == h1.NoBody || p.Body == h1.Length && int64(len(have)) == p.Length)
		c.repeat(s, plan.NoServer)
		return
	}
	x.forgetRequest(w)
	x.remember(w)
	s.keep = p.KeepAlive
	body := p.ClientBody(x.minor)
	if !x.bodyDone || body == h1.UntilClose || w.draining || c.listener.leaving() {
		x.closing = true
	}
	w.toClient = h1.ToClient{Edits: x.action.Response, Minor: x.minor, Close: x.closing, Cookie: s.cookie(), Date: w.date()}
	out := p.AppendHead(w.out[:0], &w.toClient)

	done := false
	var rest int64
	s.body = p.Body
	switch p.Body {
	case h1.NoBody:
		done = true
	case h1.Length:
		n := int(min(int64(len(have)), p.Length))
		out = append(out, have[:n]...)
		have = have[n:]
		rest = p.Length - int64(n)
		done = rest == 0
	case h1.Chunked:
		s.chunks = h1.Chunks{Raw: body == h1.UntilClose}
		var n int
		var e h1.Error
		if out, n, e = s.chunks.Copy(out, have); e != h1.OK {
			s.bad(e)
			return
		}
		have = have[n:]
		done = s.chunks.Done()
	case h1.UntilClose:
		out = append(out, have...)
		have = nil
		rest = -1
		s.keep = false
	}
	if done && len(have) > 0 { // it said more than it announced
		s.keep = false
	}
	x.answered = true
	x.rec.answered = w.loop.Now()
	c.countStatus(p.Status, true)
	w.sent(c, len(out))
	// Most servers send a head and its body one after the other; and the end of the connection goes with the last bytes.
	if w.send(&c.conn, out, rest > 0 || x.closing && (done || rest < 0 && s.ended)) != ioOK {
		c.gone()
		return
	}
	if done {
		c.finish()
		return
	}
	s.state = serverBody
	if s.body != h1.Chunked {
		c.down.start(&s.conn, &c.conn, rest)
		c.down.last = x.closing
	}
	s.readBody()
}

// readBody passes on the response's body, as far as there is something to read and the client takes it.
func (s *server) readBody() {
	c, w := s.c, s.w
	if s.body == h1.Chunked {
		s.readChunks()
		return
	}
	before := c.down.moved
	o := w.pump(&c.down)
	w.sent(c, int(c.down.moved-before))
	switch o {
	case flowDone:
		if c.down.over { // it said more than it announced
			s.keep = false
		}
		c.finish()
	case flowRead:
		w.hold(c)
	case flowYield:
		w.again(c)
	case flowShort, flowSrcError:
		s.cutOff(plan.ServerClosed)
	case flowDstError:
		c.gone()
	}
}

// readChunks is readBody for a chunked body.
func (s *server) readChunks() {
	c, w := s.c, s.w
	for range fairTurns {
		if c.full || !s.readable {
			return
		}
		n, st := s.recv(w.in)
		switch st {
		case ioAgain:
			return
		case ioEnd, ioError:
			s.cutOff(plan.ServerClosed)
			return
		}
		out, used, e := s.chunks.Copy(w.out[:0], w.in[:n])
		if e != h1.OK {
			s.stats().Malformed[e].Inc()
			s.cutOff(plan.ServerMalformed)
			return
		}
		w.sent(c, len(out))
		if len(out) > 0 && w.send(&c.conn, out, s.chunks.Done() && c.x.closing) != ioOK {
			c.gone()
			return
		}
		if s.chunks.Done() {
			if used < n {
				s.keep = false
			}
			c.finish()
			return
		}
	}
	w.again(c)
}

// cutOff ends a response that can not be completed. The client must see that: its connection is reset, since to close it would
// look like the proper end of a body without a length. But it gets what there was of the response: to a server that resets the
// connection because it has not read all of the request, it was whole.
func (s *server) cutOff(kind plan.Failure) {
	c := s.c
	s.w.failure(s.pool.server, kind)
	c.fail(kind)
	c.endExchange(true)
	c.resetBehind()
}
