package plan

import (
	"net/netip"
	"sync/atomic"

	"github.com/gaissmai/bart"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/h1"
)

// List is a set of addresses. Any loop may ask it. What it holds is replaced as a whole when an operator changes it at run time.
type List struct {
	Name string

	file  []netip.Prefix
	table atomic.Pointer[listTable]
}

// listTable is a list's content; immutable.
type listTable struct {
	routes  bart.Table[bool]
	entries []config.ListEntry // what was set at run time, for the next plan
}

// Contains says whether a is in the list: the entry with the longest prefix decides.
func (l *List) Contains(a netip.Addr) bool {
	in, _ := l.table.Load().routes.Lookup(a)
	return in
}

// Entries returns what was set at run time; not to be changed.
func (l *List) Entries() []config.ListEntry { return l.table.Load().entries }

// set makes entries what was set at run time. They outrank what the file says of the same network.
func (l *List) set(entries []config.ListEntry) {
	t := &listTable{entries: entries}
	for _, p := range l.file {
		t.routes.Insert(p, true)
	}
	for _, e := range entries {
		t.routes.Insert(e.Prefix, e.In)
	}
	l.table.Store(t)
}

// List returns the list of that name, or nil.
func (p *Plan) List(name string) *List { return p.lists[name] }

// SetList makes entries what was set at run time on a list; the next plan takes them over. It reports whether there is such a list.
func (p *Plan) SetList(name string, entries []config.ListEntry) bool {
	l := p.lists[name]
	if l == nil {
		return false
	}
	l.set(entries)
	return true
}

func compileLists(c *config.Config, old *Plan) map[string]*List {
	lists := make(map[string]*List, len(c.Lists))
	for _, cl := range c.Lists {
		l := &List{Name: cl.Name, file: cl.CIDRs}
		var entries []config.ListEntry
		if was := old.lists[cl.Name]; was != nil {
			entries = was.Entries()
		}
		l.set(entries)
		lists[cl.Name] = l
	}
	return lists
}

// named returns the lists of those names, which a valid configuration has.
func (p *Plan) named(names []string) []*List {
	var ls []*List
	for _, n := range names {
		if l := p.lists[n]; l != nil {
			ls = append(ls, l)
		}
	}
	return ls
}

func contains(ls []*List, a netip.Addr) bool {
	for _, l := range ls {
		if l.Contains(a) {
			return true
		}
	}
	return false
}

// Guarded says that Denies may say yes.
func (f *Frontend) Guarded() bool { return f.allow != nil || f.deny != nil }

// Denies says whether a peer must not connect.
func (f *Frontend) Denies(peer netip.Addr) bool {
	return f.Guarded() && (contains(f.deny, peer) || f.allow != nil && !contains(f.allow, peer))
}

// Trusts says whether peer is a proxy that may say for whom it asks.
func (f *Frontend) Trusts(peer netip.Addr) bool { return contains(f.Trusted, peer) }

// maxHops bounds the proxies behind one another that are looked at in X-Forwarded-For.
const maxHops = 16

// Client returns who sent the request that came from peer: the last hop that is no trusted proxy. What such a hop claims about hops
// before it is not believed. An address that cannot be read ends the search, too: the client is then who passed it on.
func (f *Frontend) Client(q *h1.Request, peer netip.Addr) netip.Addr {
	client := peer
	hops := 0
	if !f.Trusts(peer) {
		return client
	}
	q.ForwardedFor(func(text []byte) bool {
		a := parseHop(text)
		if hops++; !a.IsValid() || hops > maxHops {
			return false
		}
		client = a
		return contains(f.Trusted, a)
	})
	return client
}

// parseHop reads an address as X-Forwarded-For has them, with or without a port. IPv4 is read here, since netip.ParseAddr wants a
// string, which would be allocated anew for every request.
func parseHop(b []byte) netip.Addr {
	var quad [4]byte
	n, value, digits := 0, 0, 0
	for i := 0; i <= len(b); i++ {
		switch {
		case i < len(b) && '0' <= b[i] && b[i] <= '9' && digits < 3:
			value = 10*value + int(b[i]-'0')
			digits++
			continue
		case digits == 0 || value > 255 || n == 4:
			return parseLong(b)
		}
		quad[n] = byte(value)
		n++
		value, digits = 0, 0
		if i < len(b) && b[i] != '.' {
			if b[i] == ':' && n == 4 { // its port
				break
			}
			return parseLong(b)
		}
		if n == 4 && (i == len(b) || b[i] == ':') {
			break
		}
	}
	if n != 4 {
		return parseLong(b)
	}
	return netip.AddrFrom4(quad)
}

// parseLong reads what is no plain IPv4 address.
func parseLong(b []byte) netip.Addr {
	if len(b) == 0 || len(b) > 64 {
		return netip.Addr{}
	}
	s := string(b)
	a, err := netip.ParseAddr(s)
	if err != nil {
		ap, err := netip.ParseAddrPort(s)
		if err != nil {
			if n := len(s); s[0] != '[' || s[n-1] != ']' {
				return netip.Addr{}
			} else if a, err = netip.ParseAddr(s[1 : n-1]); err != nil {
				return netip.Addr{}
			}
			return a.Unmap().WithZone("")
		}
		a = ap.Addr()
	}
	return a.Unmap().WithZone("")
}
