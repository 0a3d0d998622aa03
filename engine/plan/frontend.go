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
	Stats     *Stats
	Trusted   []*List // proxies whose X-Forwarded-For is believed

	allow, deny []*List

	// ToHTTPS is the port that requests without TLS are sent to; 0: they are answered here. TLS says how TLS ends.
	ToHTTPS uint16
	TLS     *config.FrontendTLS // nil: nowhere

	routes   []route
	hosts    *hostIndex // nil: no route looks at the host
	order    []int32    // 0..len(routes)-1: what to look at without an index
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
	order := f.order
	if f.hosts != nil {
		order = f.hosts.find(s.host)
	}
next:
	for _, i := range order {
		for _, matches := range f.routes[i].tests {
			if !matches(s) {
				continue next
			}
		}
		return f.routes[i].action
	}
	return f.fallback
}

// hostIndex has, for every host that a route names, the routes that can match it, in written order.
type hostIndex struct {
	exact    map[string][]int32
	below    map[string][]int32 // by "example.com" for "*.example.com"
	anywhere []int32            // the routes that name no host
}

func newHostIndex(routes []*config.Route) *hostIndex {
	x := &hostIndex{exact: map[string][]int32{}, below: map[string][]int32{}}
	named := false
	for _, r := range routes {
		for _, h := range r.Hosts {
			named = true
			if suffix, ok := wildcard(h); ok {
				x.below[suffix] = nil
			} else {
				x.exact[h] = nil
			}
		}
	}
	if !named {
		return nil
	}
	for i, r := range routes {
		i := int32(i)
		if len(r.Hosts) == 0 {
			x.anywhere = append(x.anywhere, i)
			x.addWhere(i, func(string) bool { return true })
		}
		for _, h := range r.Hosts {
			if suffix, ok := wildcard(h); ok {
				x.addWhere(i, func(key string) bool { return isBelow(key, suffix) })
				add(x.below, suffix, i)
			} else {
				add(x.exact, h, i)
			}
		}
	}
	return x
}

// addWhere enters a route under every key that fits. Whatever host looks under a suffix is below all that the suffix is below.
func (x *hostIndex) addWhere(route int32, fits func(key string) bool) {
	for _, m := range []map[string][]int32{x.exact, x.below} {
		for key := range m {
			if fits(key) {
				add(m, key, route)
			}
		}
	}
}

// add enters a route under a key once. Routes come in written order.
func add(m map[string][]int32, key string, route int32) {
	if l := m[key]; len(l) == 0 || l[len(l)-1] != route {
		m[key] = append(l, route)
	}
}

// wildcard takes "*.example.com" apart.
func wildcard(host string) (suffix string, ok bool) {
	if len(host) > 2 && host[0] == '*' && host[1] == '.' {
		return host[2:], true
	}
	return "", false
}

// isBelow reports whether host is a name below suffix.
func isBelow(host, suffix string) bool {
	n := len(host) - len(suffix)
	return n > 1 && host[n-1] == '.' && host[n:] == suffix
}

// find returns the routes that can match a host.
func (x *hostIndex) find(host []byte) []int32 {
	if order, ok := x.exact[string(host)]; ok {
		return order
	}
	for len(x.below) > 0 {
		i := bytes.IndexByte(host, '.')
		if i < 0 {
			break
		}
		host = host[i+1:]
		if i == 0 {
			continue
		}
		if order, ok := x.below[string(host)]; ok {
			return order
		}
	}
	return x.anywhere
}
