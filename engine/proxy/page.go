package proxy

import (
	"net/http"
	"strconv"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/h1"
	"github.com/skeinlb/skein/engine/plan"
)

// meaning is what an error page says after its status: before and after stand around the name of the backend.
func meaning(kind plan.Failure) (before, after string) {
	switch kind {
	case plan.NoServer:
		return "no server of backend ", " is usable"
	case plan.ConnectRefused, plan.ConnectTimeout, plan.ConnectError:
		return "no server of backend ", " could be reached"
	case plan.OutOfDescriptors:
		return "the balancer has no descriptor left for a connection to backend ", ""
	case plan.QueueTimeout:
		return "every server of backend ", " is busy, and none became free in time"
	case plan.QueueFull:
		return "every server of backend ", " is busy, and the queue is full"
	case plan.OverLimit:
		return "backend ", " has as many requests under way as it may"
	case plan.ServerClosed:
		return "a server of backend ", " closed the connection before it had answered"
	case plan.ServerMalformed:
		return "a server of backend ", " gave an answer that is not valid HTTP: "
	case plan.ResponseTimeout:
		return "a server of backend ", " did not answer in time"
	case plan.ServerTimeout:
		return "a server of backend ", " did not take the request in time"
	case plan.MarkedDown:
		return "a server of backend ", " went down before it had answered"
	case plan.HeadersTimeout:
		return "the head of the request did not arrive in time", ""
	case plan.RateLimit:
		return "more requests came from you than are allowed", ""
	case plan.ConnectionLimit:
		return "you have more connections open than are allowed", ""
	case plan.BodyTooLarge:
		return "the body of the request is larger than is allowed", ""
	case plan.SlowRequest:
		return "the body of the request arrived too slowly", ""
	case plan.ClientTimeout:
		return "the body of the request did not arrive in time", ""
	}
	return "", ""
}

// page answers the exchange with an error page of our own, and counts why; e says more about malformed messages. An answer that
// is already on its way can only be cut off, and so can a TCP session. The caller settles c.
func (c *client) page(status int, kind plan.Failure, e h1.Error) {
	w, x := c.w, &c.x
	c.fail(kind)
	if x.answered || c.tcp() {
		c.drop(true)
		return
	}
	before, after := meaning(kind)
	b := strconv.AppendInt(w.body[:0], int64(status), 10)
	b = append(append(append(b, ' '), http.StatusText(status)...), ": "...)
	b = append(b, before...)
	if after != "" && x.backend != nil {
		b = strconv.AppendQuote(b, x.backend.Name)
		b = append(b, after...)
	}
	if e != h1.OK {
		b = append(b, e.Meaning()...)
	}
	b = append(b, '\n')
	w.body = b

	c.ready()
	out := append(w.out[:0], "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(status), 10)
	out = append(append(append(out, ' '), http.StatusText(status)...), "\r\nDate: "...)
	out = append(append(out, w.date()...), "\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: "...)
	out = append(strconv.AppendInt(out, int64(len(b)), 10), "\r\n"...)
	if w.retryAfter > 0 {
		out = append(strconv.AppendInt(append(out, "Retry-After: "...), w.retryAfter, 10), "\r\n"...)
		w.retryAfter = 0
	}
	switch {
	case x.closing:
		out = append(out, "Connection: close\r\n"...)
	case x.minor == 0:
		out = append(out, "Connection: keep-alive\r\n"...)
	}
	out = append(out, "\r\n"...)
	if !x.head {
		out = append(out, b...)
	}
	c.answer(status, out)
}

// reply answers with what the plan has prepared.
func (c *client) reply(r *plan.Reply) {
	w, x := c.w, &c.x
	c.ready()
	c.answer(r.Status, r.Append(w.out[:0], x.head, x.minor, x.closing, w.date()))
}

// ready prepares for an answer of our own: the server's, if there is one under way, is not wanted any more.
func (c *client) ready() {
	x := &c.x
	if s := x.srv; s != nil {
		c.w.stop(&c.up)
		x.srv = nil
		s.c = nil
		s.drop()
	}
	if !x.bodyDone || c.w.draining || c.listener.leaving() {
		x.closing = true
	}
}

// answer sends a whole response of our own, and ends the exchange.
func (c *client) answer(status int, out []byte) {
	w := c.w
	c.x.answered = true
	c.countStatus(status, false)
	w.sent(c, len(out))
	c.conclude()                                   // before the client can have it: whoever has seen the answer finds it counted
	if w.send(&c.conn, out, c.x.closing) != ioOK { // the end of the connection goes with the answer
		c.gone()
		return
	}
	c.finish()
}

// tcp says that the client speaks no HTTP with us.
func (c *client) tcp() bool { return c.front.Mode == config.TCP }

// nobody answers when there is no server to turn to: none may be used, or those that may could not be reached.
func (c *client) nobody() {
	if c.x.retries > 0 {
		c.unreachable()
		return
	}
	c.page(503, plan.NoServer, h1.OK)
}

// unreachable answers when the last server that could be tried has failed.
func (c *client) unreachable() {
	status := 503
	switch c.x.reason {
	case plan.ServerClosed:
		status = 502
	case plan.ResponseTimeout, plan.ServerTimeout:
		status = 504
	}
	c.page(status, c.x.reason, h1.OK)
}
