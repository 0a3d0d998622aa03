package proxy

import (
	"net/netip"

	"github.com/skeinlb/skein/engine/h1"
	"github.com/skeinlb/skein/engine/loop"
	"github.com/skeinlb/skein/engine/plan"
)

// exchange is one request and its response, or one TCP session. It is part of its client.
type exchange struct {
	action  *plan.Action
	backend *plan.Backend
	target  *plan.Server // that the exchange counts as active on; nil: none
	srv     *server      // the connection to it; nil: none yet, or no more

	// The request.
	minor      uint8 // of its version
	head       bool  // HEAD
	idempotent bool
	closing    bool // the connection to the client ends with this exchange
	upgrade    bool // asked for, and passed on
	body       h1.Body
	chunks     h1.Chunks // of the request's body
	bodyDone   bool      // the request has been read to its end
	expects    bool      // the client sends no body before it has been told 100 (Continue)
	req        []byte    // head and body as far as sent, for as long as they may have to be sent (again); on loan

	// The way to a server.
	tried   uint64 // servers that cannot be reached, by index
	retries int
	reason  plan.Failure // why the last server could not be reached
	failed  bool         // just now
	fresh   bool         // no idle connection: one has just failed
	waiting bool         // for a place on a server that is full
	called  bool         // it has waited, and it is its turn
	entered bool         // counted by its backend
	proving bool         // a session that has not shown yet whether its server answers
	hashed  bool
	hash    uint64
	key     [16]byte // into the sticky table
	keyed   bool
	stuck   *plan.Server // where stickiness says that it belongs; nil: nowhere yet
	learn   bool         // a client that is new, or had to move, is told or remembered
	nextW   *client      // in the queue
	prevW   *client

	// The response.
	answered bool // its head has gone out, at least in part

	rec record
}

// free gives back what the exchange holds.
func (x *exchange) free(w *Worker) {
	x.forgetRequest(w)
	x.leave()
	if x.entered {
		x.entered = false
		x.backend.Exit()
	}
}

// forgetRequest gives back the copy of the request: it can not be sent again.
func (x *exchange) forgetRequest(w *Worker) {
	if x.req != nil {
		w.bufs.put(x.req)
		x.req = nil
	}
}

// leave makes x no longer count as active on its server.
func (x *exchange) leave() {
	if x.target != nil {
		x.target.End()
		x.target = nil
	}
}

// begin starts an exchange with the request in w.q. rest is what followed its head.
func (c *client) begin(rest []byte) {
	w, q := c.w, &c.w.q
	x := &c.x
	*x = exchange{
		minor:    q.Minor,
		head:     string(q.Method) == "HEAD",
		closing:  !q.KeepAlive || w.draining || c.listener.leaving() || c.spent(),
		body:     q.Body,
		bodyDone: q.Body == h1.NoBody,
		expects:  q.Expect100,
	}
	c.state = clientBusy
	c.pace.of = noPace
	w.loop.StopTimer(&c.timer) // of the head
	c.served++
	switch front := c.listener.front.Load(); {
	case front == c.front || front == nil:
	case front.Mode == c.front.Mode:
		if front.Stats != c.front.Stats { // the listener has become another frontend's
			c.stats().Ended.Inc()
			front.Stats.Loop(c.w.id).Connections.Inc()
		}
		c.addr = c.peer
		c.front = front // a new configuration is in force from one request to the next
	default:
		x.closing = true
	}
	c.stats().Requests.Inc()

	if c.front.Trusted != nil {
		c.addr = c.front.Client(q, c.peer)
	}
	if c.toHTTPS() {
		x.action = &againWithTLS
	} else {
		w.route.SNI = ""
		if c.tls != nil {
			w.route.SNI = c.tls.sni
		}
		x.action = c.front.Route(q, c.addr, &w.route)
	}
	x.backend = x.action.Backend
	c.open(c.headAt)
	c.took(int64(q.N))
	c.noteRequest(q)
	if c.surplus || c.front.Limits != nil || x.action.Limits != nil {
		if kind := c.tooMuch(q); kind != plan.None {
			c.keep(rest)
			c.page(w.limitStatus, kind, h1.OK)
			return
		}
	}
	if x.action == &againWithTLS {
		c.keep(rest)
		c.sendToHTTPS()
		return
	}
	if most := c.front.Caps.Body; most > 0 && q.Body == h1.Length && q.Length > most {
		c.took(min(int64(len(rest)), q.Length))
		c.bodyTooLarge()
		return
	}
	if x.backend == nil {
		c.keep(rest)
		c.reply(x.action.Reply)
		return
	}
	switch string(q.Method) {
	case "GET", "HEAD", "PUT", "DELETE", "OPTIONS", "TRACE":
		x.idempotent = true
	}
	x.upgrade = q.Upgrade != nil && q.Body == h1.NoBody
	if !x.upgrade {
		q.Upgrade = nil
	}
	x.backend.Earn(w.id)
	x.classify(c, q)

	w.addr = c.peer.AppendTo(w.addr[:0])
	w.toServer.Edits, w.toServer.For, w.toServer.Proto = x.action.Request, w.addr, c.scheme()
	w.toServer.Via = c.front.Trusted != nil && c.front.Trusts(c.peer)
	if q.Authority == nil { // HTTP/1.0 without a Host: whom it is for, only the address says that it came to
		w.toServer.Host = c.local().AppendTo(w.toServer.Host[:0])
	}
	out := q.AppendHead(w.out[:0], &w.toServer)
	read := len(rest)
	switch q.Body {
	case h1.Length:
		n := int(min(int64(len(rest)), q.Length))
		out = append(out, rest[:n]...)
		rest = rest[n:]
		left := q.Length - int64(n)
		x.bodyDone = left == 0
		c.up.rest = left
	case h1.Chunked:
		var n int
		var e h1.Error
		out, n, e = x.chunks.Copy(out, rest)
		if e != h1.OK {
			c.took(int64(read))
			c.malformedBody(e)
			return
		}
		rest = rest[n:]
		x.bodyDone = x.chunks.Done()
		if c.beyondBody() {
			c.took(int64(read))
			c.bodyTooLarge()
			return
		}
	}
	c.took(int64(read - len(rest)))
	c.keep(rest)
	if !c.enter() {
		return
	}
	c.dispatch(out)
	if c.state != clientBusy {
		return
	}
	// A client that sends one request and no more need not be watched at all: that saves a system call per connection.
	if !c.watched && !(x.closing && x.bodyDone) && !w.watch(&c.conn) {
		c.fail(plan.Internal)
		c.drop(true)
		return
	}
	c.arm()
}

// local returns the address that the client connected to.
func (c *client) local() netip.AddrPort {
	if a := loop.LocalAddr(c.fd); a.IsValid() {
		return a
	}
	return c.listener.Addr
}

// keep remembers what has been read beyond this request.
func (c *client) keep(rest []byte) {
	if len(rest) > 0 {
		c.in = c.w.bufs.save(c.in, rest)
	}
}

// classify finds out where stickiness and balancing want the request.
func (x *exchange) classify(c *client, q *h1.Request) {
	b := x.backend
	x.hash, x.hashed = b.Key(q, c.addr)
	switch {
	case b.StickyCookie != nil:
		if v := q.Cookie(b.StickyCookie.Name); v != nil {
			x.stuck = b.ByCookie(v)
		}
	case b.StickyTable != nil:
		x.lookup(c, q)
	}
}

// lookup asks the sticky table; q is nil in TCP mode.
func (x *exchange) lookup(c *client, q *h1.Request) {
	if c.w.shared.Sticky == nil {
		return
	}
	t := x.backend.StickyTable
	if x.key, x.keyed = t.KeyOf(q, c.addr); x.keyed {
		if id, ok := c.w.shared.Sticky.Lookup(t.ID, x.key); ok {
			x.stuck = x.backend.ByHash(id)
		}
	}
}

// dispatch sends the request to a server: over an idle connection, or by connecting. out is the request as far as it is there.
func (c *client) dispatch(out []byte) {
	w, x := c.w, &c.x
	var only *plan.Server // see tryElsewhere
	for {
		s := only
		if only = nil; s == nil {
			s = x.pick(w)
		}
		if s == nil && x.tried != 0 && x.retries == 0 {
			// Those tried were merely full, and the one that had a place has gone meanwhile.
			x.tried = 0
			if s = x.pick(w); s != nil {
				x.req = w.retain(x.req, out)
				w.enqueue(c, s)
				return
			}
		}
		if s == nil {
			c.nobody()
			return
		}
		if x.failed {
			x.failed = false
			x.rec.backend.Retries.Inc()
			x.rec.retries++
		}
		p := w.pool(s, x.backend)
		if !x.fresh {
			if conn := p.take(); conn != nil {
				x.join(w, s)
				if c.sendOver(conn, out) {
					c.sendBody() // what has arrived of it is told of no more
					return
				}
				x.fresh = true // it had died; nothing arrived
				if x.req != nil {
					out = x.req
				}
				continue
			}
		}
		if !s.Acquire() && !(x.fresh && p.makePlace(s)) {
			var found bool
			if only, found = x.tryElsewhere(s); found {
				continue
			}
			x.req = w.retain(x.req, out)
			w.enqueue(c, s)
			return
		}
		x.join(w, s)
		x.req = w.retain(x.req, out)
		out = x.req
		if c.connect(p) {
			return
		}
		if !c.retryElsewhere(s) {
			c.unreachable()
			return
		}
	}
}

// retain makes dst, on loan or nil, hold b, which may be dst already.
func (w *Worker) retain(dst, b []byte) []byte {
	if len(b) == 0 || dst != nil && len(dst) == len(b) {
		return dst
	}
	return w.bufs.save(dst, b)
}

// pick chooses a server, by stickiness if there is any, or else by balancing.
func (x *exchange) pick(w *Worker) *plan.Server {
	if s := x.stuck; s != nil && x.tried&s.Bit() == 0 && s.TakesStuck() {
		return s
	}
	x.learn = true
	return x.backend.Pick(plan.Want{Loop: w.id, Now: w.loop.Now(), Hash: x.hash, Hashed: x.hashed, Tried: x.tried})
}

// join makes x count as active on s.
func (x *exchange) join(w *Worker, s *plan.Server) {
	if x.target == s {
		return
	}
	x.leave()
	x.target = s
	s.Begin()
	x.rec.server = s.Stats.Loop(w.id)
	x.rec.server.Requests.Inc()
}

// sendOver sends the request over an idle connection. It returns false when that one turns out to be dead: then nothing has
// arrived.
func (c *client) sendOver(s *server, out []byte) bool {
	w, x := c.w, &c.x
	s.c, x.srv = c, s
	s.state = serverWaiting
	s.reused, s.spoke = true, false
	x.rec.server.Reused.Inc()
	c.reached(0)
	flows := !x.bodyDone && c.readable // the rest of the body comes at once: nothing is kept of it, and nothing of its beginning
	if !flows {
		x.req = w.retain(x.req, out)
	}
	if w.send(&s.conn, out, flows && x.body == h1.Length) == ioOK {
		return true
	}
	s.c, x.srv = nil, nil
	s.drop()
	return false
}

// sendBody passes on the request's body, as far as there is something to read and the server takes it.
func (c *client) sendBody() {
	x, w := &c.x, c.w
	s := x.srv
	if x.bodyDone || s == nil || s.failed || s.state == serverConnecting || c.state != clientBusy {
		return
	}
	if s.full || !c.readable {
		return
	}
	x.forgetRequest(w) // what follows is not kept
	if x.body == h1.Chunked {
		c.sendChunks(s)
		return
	}
	if c.up.src == nil {
		c.up.start(&c.conn, &s.conn, c.up.rest)
	}
	before := c.up.moved
	o := w.pump(&c.up)
	if c.up.moved != before {
		x.expects = false
		w.received(c, int(c.up.moved-before))
	}
	switch o {
	case flowRead:
		if s.held {
			s.push()
		}
	case flowDone:
		if c.up.over { // the next request begins
			c.keep([]byte{c.up.next})
		}
		w.stop(&c.up)
		x.bodyDone = true
	case flowYield:
		w.again(c)
	case flowShort, flowSrcError:
		c.fail(plan.ClientClosed)
		c.drop(false)
	case flowDstError:
		s.sendFailed()
	}
}

// sendChunks is sendBody for a chunked body.
func (c *client) sendChunks(s *server) {
	x, w := &c.x, c.w
	for range fairTurns {
		if s.full || !c.readable {
			return
		}
		n, st := c.recv(w.in)
		w.received(c, n)
		switch st {
		case ioAgain:
			return
		case ioEnd, ioError:
			c.fail(plan.ClientClosed)
			c.drop(false)
			return
		}
		x.expects = false
		out, used, e := x.chunks.Copy(w.out[:0], w.in[:n])
		if e != h1.OK {
			c.malformedBody(e)
			return
		}
		if c.beyondBody() {
			c.bodyTooLarge()
			return
		}
		if x.chunks.Done() {
			x.bodyDone = true
			c.keep(w.in[used:n])
		}
		if w.write(&s.conn, out) != ioOK {
			s.sendFailed()
			return
		}
		if x.bodyDone {
			return
		}
	}
	w.again(c)
}

// malformedBody ends an exchange whose body cannot be framed. The server sees its request cut off, never completed.
func (c *client) malformedBody(e h1.Error) {
	c.stats().Malformed[e].Inc()
	c.x.closing = true
	c.page(e.Status(), plan.ClientMalformed, e)
}

// arm sets the timers for what the exchange is waiting for. It runs after every event of either side: to move a deadline is
// one store.
func (c *client) arm() {
	w, x := c.w, &c.x
	if c.state != clientBusy {
		return
	}
	now := w.loop.Now()
	s := x.srv
	if s == nil {
		return // in the queue: its deadline is fixed
	}
	t := &x.backend.Timeouts
	var client, server int64
	switch s.state {
	case serverConnecting: // one deadline from its beginning, and nobody else is waited for
		c.pace.of = noPace
		w.loop.StopTimer(&c.timer)
		return
	case serverWaiting:
		switch {
		case x.bodyDone && !s.full:
			if s.timer.Set() && s.awaiting {
				return // one deadline from the request's end
			}
			s.awaiting = true
			server = now + int64(t.Response)
		case s.full:
			server = now + int64(t.Server)
		case x.expects: // it is the server's turn, and yet the client may begin whenever it likes
			client = now + int64(c.front.Timeouts.Client)
			c.pace.of = noPace
		default:
			client = c.paced(sendsBody, now)
		}
	case serverBody:
		if c.full {
			client = c.paced(takesResponse, now)
		} else {
			server = now + int64(t.Server)
		}
	}
	if client == 0 {
		c.pace.of = noPace
	}
	set(w.loop, &c.timer, client)
	set(w.loop, &s.timer, server)
}

func set(l *loop.Loop, t *loop.Timer, at int64) {
	if at == 0 {
		l.StopTimer(t)
		return
	}
	l.SetTimer(t, at)
}

// finish ends an exchange whose response has been handed to the client completely. The caller settles c.
func (c *client) finish() {
	w, x := c.w, &c.x
	c.conclude()
	w.stop(&c.down)
	w.stop(&c.up)
	if s := x.srv; s != nil {
		x.srv = nil
		s.c = nil
		if x.bodyDone {
			s.rest()
		} else {
			s.drop()
		}
	}
	x.free(w)
	if !x.bodyDone || x.closing {
		c.close()
		return
	}
	c.state = clientHead
	c.pace.of = noPace
	w.loop.StopTimer(&c.timer)
}
