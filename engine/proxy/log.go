package proxy

import (
	"net/netip"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/accesslog"
	"github.com/skeinlb/skein/engine/h1"
	"github.com/skeinlb/skein/engine/loop"
	"github.com/skeinlb/skein/engine/plan"
)

// logFlush is how long a line of the access log waits for others, at most.
const logFlush = 100 * time.Millisecond

// lines is a loop's part of the access log.
type lines struct {
	ring  *accesslog.Ring
	entry accesslog.Entry
	timer loop.Timer // set while the block that is being filled has lines
	zero  int64      // the wall clock's time, in ns since 1970, at which the loop's time was 0
	due   int64      // when to look at the wall clock again
}

// logFlusher hands over what the timer was set for.
type logFlusher struct{ w *Worker }

// Expired hands the lines to the writer.
func (f logFlusher) Expired() { f.w.lines.ring.Flush() }

// noteRequest keeps what the access log will say of a request, whose head will be gone by then: method, target, host and the headers that
// lines show, one after the other in a buffer on loan.
func (c *client) noteRequest(q *h1.Request) {
	r := &c.x.rec
	if r.log == nil {
		return
	}
	most := min(len(q.Method), accesslog.MaxMethod) + min(len(q.Target), accesslog.MaxTarget) + min(len(q.Host), accesslog.MaxHost) +
		len(r.log.Headers)*accesslog.MaxHeader
	r.text = c.w.bufs.get(most)
	r.keep(0, q.Method, accesslog.MaxMethod)
	r.keep(1, q.Target, accesslog.MaxTarget)
	r.keep(2, q.Host, accesslog.MaxHost)
	for i, name := range r.log.Headers {
		r.keep(3+i, q.Header(name), accesslog.MaxHeader)
	}
}

// keep adds one part to the text; a nil one is told from an empty one.
func (r *record) keep(i int, v []byte, most int) {
	r.parts[i] = 0
	if v != nil {
		v = v[:min(len(v), most)]
		r.text = append(r.text, v...)
		r.parts[i] = uint16(len(v)) + 1
	}
}

// part takes the next part off the text.
func (r *record) part(i int, text *[]byte) []byte {
	if r.parts[i] == 0 {
		return nil
	}
	n := int(r.parts[i]) - 1
	v := (*text)[:n:n]
	*text = (*text)[n:]
	return v
}

// log adds the exchange's line to the access log. Nothing that the entry points to is looked at later.
func (c *client) log(now int64) {
	w, x, r := c.w, &c.x, &c.x.rec
	l := &w.lines
	if now >= l.due {
		l.zero = time.Now().UnixNano() - now
		l.due = now + int64(logFlush)
	}
	e := &l.entry
	e.Start, e.Client, e.TCP = l.zero+r.first, netip.AddrPortFrom(c.addr, c.port), c.tcp()
	if e.Peer = c.peer; c.peer == c.addr {
		e.Peer = netip.Addr{}
	}
	e.Frontend, e.Backend, e.Server = c.front.Name, "", ""
	e.Method, e.Target, e.Host, e.Minor = nil, nil, nil, x.minor
	e.Status, e.In, e.Out, e.Retries, e.Ahead = int(r.status), r.in, r.out, int(r.retries), int64(r.ahead)
	e.Cause, e.Code = r.cause.String(), plan.Termination(r.cause, r.phase, x.backend == nil)
	e.Request, e.Queue, e.Connect, e.Response, e.Total = r.ready-r.first, -1, -1, -1, now-r.first
	if x.backend != nil {
		e.Backend, e.Queue = x.backend.Name, r.queued
	}
	if x.target != nil {
		e.Server = x.target.Name
	}
	if r.connected != 0 {
		e.Connect = r.connect
	}
	if r.answered != 0 {
		e.Response = r.answered - r.connected
	}
	if r.text != nil {
		text := r.text
		e.Method, e.Target, e.Host = r.part(0, &text), r.part(1, &text), r.part(2, &text)
		for i := range r.log.Headers {
			e.Headers[i] = r.part(3+i, &text)
		}
	} else {
		e.Request = -1
		clear(e.Headers[:]) // else they are the last one's
	}
	if r.log.Format == config.LogHAProxy {
		c.countOthers(e)
	}
	if l.ring.Append(r.log, e) {
		w.loop.SetTimer(&l.timer, now+int64(logFlush))
	}
	if r.text != nil {
		w.bufs.put(r.text)
	}
	r.log, r.text = nil, nil
}

// countOthers adds what HAProxy's lines say of everybody else: connections of the process and of the frontend, exchanges of the
// backend and of the server, this one included.
func (c *client) countOthers(e *accesslog.Entry) {
	x, workers := &c.x, c.w.shared.Workers
	e.Connections, e.BackendActive, e.ServerActive = 0, 0, 0
	for _, o := range workers {
		e.Connections += o.connections.Load()
	}
	e.FrontendConnections, _ = c.front.Stats.Now(len(workers))
	if x.backend != nil {
		_, e.BackendActive = x.backend.Stats.Now(len(workers))
		e.BackendActive++ // this one has just been counted as ended
	}
	if x.target != nil {
		e.ServerActive = x.target.Active.Load()
	}
}
