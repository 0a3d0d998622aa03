package plan

import (
	"bytes"
	"net/netip"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/h1"
)

// Frontend is a set of listeners and what is done with what arrives there. Immutable but for its Stats.
type Frontend struct {
	Name      string
	Mode      config.Mode
	Listeners []config.Listener
	Backend   *Backend // of TCP mode, and when no route matches; nil: 404
	Timeouts  config.FrontendTimeouts
	MinRate   config.MinRate
	Log       bool // its requests and sessions are in the access log, if there is one
	Caps      config.Caps
	Head      h1.Limits // of requests
	Limits    []*Limit  // of rates
	Places    *Limit    // of connections; nil: none
	Stats     *Stats
	Trusted   []*List // proxies whose X-Forwarded-For is believed

	allow, deny []*List

	// ToHTTPS is the port that requests without TLS are sent to; 0: they are answered here. TLS says how TLS ends.
	ToHTTPS uint16
	TLS     *config.FrontendTLS // nil: nowhere

	routes   []route
	index    *index
	fallback *Action
	last     [2]*Action // of OPTIONS and TRACE that may go no further
}

// Action is what is done with a request. Immutable.
type Action struct {
	Name     string   // the route's name, "default" for the frontend's backend, "none" for a 404, "max-forwards"
	Backend  *Backend // nil: Reply answers
	Reply    *Reply
	Request  *h1.Edits // of the head to the server
	Response *h1.Edits // of the head to the client; Reply has them already
	Limits   []*Limit
}

// Scratch is a loop's working space for Route. Its zero value is ready.
type Scratch struct {
	q      *h1.Request
	client netip.Addr
	SNI    string // the name that the client asked for in TLS, in lower case; set before Route
	host   []byte // the request's host in lower case, without the dot of the root
	query  []byte // room for a decoded query parameter
	lower  []byte // room for a value in lower case
	names  [256]byte
	found  [][]int32 // lists of routes, see index
}

// route is one compiled route: it matches when every test does.
type route struct {
	tests  []test
	action *Action
}

// Route returns what to do with a request. It never returns nil and allocates nothing once s has grown.
func (f *Frontend) Route(q *h1.Request, client netip.Addr, s *Scratch) *Action {
	if q.MaxForwards == 0 {
		if len(q.Method) == len("TRACE") {
			return f.last[1]
		}
		return f.last[0]
	}
	if len(f.routes) == 0 {
		return f.fallback
	}
	s.q, s.client = q, client.Unmap()
	s.host = append(s.names[:0], q.Host...)
	for i, c := range s.host {
		if 'A' <= c && c <= 'Z' {
			s.host[i] = c | 0x20
		}
	}
	s.host = bytes.TrimSuffix(s.host, []byte{'.'})
	f.index.find(s, q.Path)
next:
	for i := s.next(); i >= 0; i = s.next() {
		for _, matches := range f.routes[i].tests {
			if !matches(s) {
				continue next
			}
		}
		return f.routes[i].action
	}
	return f.fallback
}
