package plan

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/h1"
)

// test is a compiled condition on the request in a Scratch.
type test func(*Scratch) bool

// value fetches an operand; it is good until the next one is fetched.
type value func(*Scratch) []byte

// compileCond turns a condition into a closure. Absent headers, parameters and cookies are "".
func compileCond(c *config.Cond, lists map[string]*List) (test, error) {
	switch c.Op {
	case config.And, config.Or:
		return compileList(c, lists)
	case config.Not:
		if len(c.Args) != 1 {
			return nil, fmt.Errorf("! with %d conditions instead of one", len(c.Args))
		}
		t, err := compileCond(c.Args[0], lists)
		if err != nil {
			return nil, err
		}
		return func(s *Scratch) bool { return !t(s) }, nil
	}
	if c.Left.Field == config.FieldClient {
		return compileClient(c, lists)
	}
	v, err := compileOperand(c.Left)
	if err != nil {
		return nil, err
	}
	switch c.Op {
	case config.Equal:
		want := c.Value
		return func(s *Scratch) bool { return string(v(s)) == want }, nil
	case config.OneOf:
		return oneOf(v, c.Set), nil
	case config.StartsWith:
		prefix := c.Value
		return func(s *Scratch) bool {
			b := v(s)
			return len(b) >= len(prefix) && string(b[:len(prefix)]) == prefix
		}, nil
	case config.Matches:
		re := c.Regex
		return func(s *Scratch) bool { return re.Match(v(s)) }, nil
	case config.InCIDR:
		return nil, fmt.Errorf("in_cidr looks at client alone")
	}
	return nil, fmt.Errorf("unknown operation %d in a condition", c.Op)
}

// compileList compiles && and ||, the common pairs without a loop.
func compileList(c *config.Cond, lists map[string]*List) (test, error) {
	if len(c.Args) == 0 {
		return nil, fmt.Errorf("&& or || of nothing")
	}
	var ts []test
	for _, arg := range c.Args {
		t, err := compileCond(arg, lists)
		if err != nil {
			return nil, err
		}
		ts = append(ts, t)
	}
	and := c.Op == config.And
	switch {
	case len(ts) == 1:
		return ts[0], nil
	case len(ts) == 2 && and:
		a, b := ts[0], ts[1]
		return func(s *Scratch) bool { return a(s) && b(s) }, nil
	case len(ts) == 2:
		a, b := ts[0], ts[1]
		return func(s *Scratch) bool { return a(s) || b(s) }, nil
	}
	return func(s *Scratch) bool {
		for _, t := range ts {
			if t(s) != and {
				return !and
			}
		}
		return and
	}, nil
}

func oneOf(v value, set []string) test {
	if len(set) <= 8 {
		set = slices.Clone(set)
		return func(s *Scratch) bool {
			b := v(s)
			for _, want := range set {
				if string(b) == want {
					return true
				}
			}
			return false
		}
	}
	m := make(map[string]bool, len(set))
	for _, want := range set {
		m[want] = true
	}
	return func(s *Scratch) bool { return m[string(v(s))] }
}

func compileOperand(o config.Operand) (value, error) {
	var v value
	name := o.Name
	switch o.Field {
	case config.FieldMethod:
		v = func(s *Scratch) []byte { return s.q.Method }
	case config.FieldHost:
		v = func(s *Scratch) []byte { return s.host }
	case config.FieldPath:
		v = func(s *Scratch) []byte { return s.q.Path }
	case config.FieldHeader:
		name = strings.ToLower(name)
		v = func(s *Scratch) []byte { return s.q.Header(name) }
	case config.FieldQuery:
		v = func(s *Scratch) []byte { return s.queryValue(name) }
	case config.FieldCookie:
		v = func(s *Scratch) []byte { return s.q.Cookie(name) }
	case config.FieldSNI:
		v = func(s *Scratch) []byte {
			s.lower = append(s.lower[:0], s.SNI...)
			return s.lower
		}
	default:
		return nil, fmt.Errorf("unknown field %d in a condition", o.Field)
	}
	if o.Lower && o.Field != config.FieldHost && o.Field != config.FieldSNI {
		plain := v
		v = func(s *Scratch) []byte { return s.toLower(plain(s)) }
	}
	return v, nil
}

func (s *Scratch) queryValue(name string) []byte {
	if cap(s.query) < len(s.q.Query) {
		s.query = make([]byte, 0, max(1024, len(s.q.Query)))
	}
	return s.q.QueryValue(name, s.query)
}

// toLower is ASCII's lower case, which is all that the fields of a request know.
func (s *Scratch) toLower(b []byte) []byte {
	s.lower = append(s.lower[:0], b...)
	for i, c := range s.lower {
		if 'A' <= c && c <= 'Z' {
			s.lower[i] = c | 0x20
		}
	}
	return s.lower
}

// compileClient compiles what is asked about the client's address. It is compared as an address, not as text.
func compileClient(c *config.Cond, lists map[string]*List) (test, error) {
	switch c.Op {
	case config.InCIDR:
		r := newRanges(c.CIDRs)
		return func(s *Scratch) bool { return r.contain(s.client) }, nil
	case config.InList:
		l := lists[c.Value]
		if l == nil {
			return nil, fmt.Errorf("there is no list %q", c.Value)
		}
		return func(s *Scratch) bool { return l.Contains(s.client) }, nil
	case config.Equal:
		want, err := netip.ParseAddr(c.Value)
		if err != nil {
			return nil, fmt.Errorf("compare client: %q is not an address", c.Value)
		}
		want = want.Unmap()
		return func(s *Scratch) bool { return s.client == want }, nil
	case config.OneOf:
		var ps []netip.Prefix
		for _, text := range c.Set {
			a, err := netip.ParseAddr(text)
			if err != nil {
				return nil, fmt.Errorf("compare client: %q is not an address", text)
			}
			ps = append(ps, netip.PrefixFrom(a, a.BitLen()))
		}
		r := newRanges(ps)
		return func(s *Scratch) bool { return r.contain(s.client) }, nil
	}
	return nil, fmt.Errorf("client can be compared by ==, one_of, in_cidr and in_list alone")
}

// ranges is a set of addresses: disjoint, in order.
type ranges []struct{ first, last netip.Addr }

func newRanges(ps []netip.Prefix) ranges {
	var all ranges
	for _, p := range ps {
		a := p.Addr()
		if a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		p = p.Masked()
		all = append(all, struct{ first, last netip.Addr }{p.Addr(), lastOf(p)})
	}
	slices.SortFunc(all, func(a, b struct{ first, last netip.Addr }) int {
		return cmp.Or(a.first.Compare(b.first), b.last.Compare(a.last))
	})
	var out ranges
	for _, r := range all { // prefixes are nested or apart
		if n := len(out); n == 0 || out[n-1].last.Less(r.first) {
			out = append(out, r)
		}
	}
	return out
}

// lastOf returns the highest address of p.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().As16()
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	for i := bits; i < 128; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	a := netip.AddrFrom16(b)
	if p.Addr().Is4() {
		a = a.Unmap()
	}
	return a
}

func (r ranges) contain(a netip.Addr) bool {
	low, high := 0, len(r) // r[low-1].first <= a < r[high].first
	for low < high {
		m := int(uint(low+high) >> 1)
		if a.Less(r[m].first) {
			high = m
		} else {
			low = m + 1
		}
	}
	return low > 0 && !r[low-1].last.Less(a)
}

// compileMatch turns what a route says besides its hosts into tests, the cheapest first.
func compileMatch(r *config.Route, lists map[string]*List) ([]test, error) {
	var ts []test
	if len(r.Methods) > 0 {
		ts = append(ts, oneOf(func(s *Scratch) []byte { return s.q.Method }, r.Methods))
	}
	if len(r.Paths) > 0 {
		ts = append(ts, compilePaths(r.Paths))
	}
	pairs := func(ps []config.Pair, get func(q *h1.Request, s *Scratch, name string) []byte) {
		for _, p := range ps {
			name, want := p.Name, p.Value
			ts = append(ts, func(s *Scratch) bool {
				v := get(s.q, s, name)
				return v != nil && string(v) == want
			})
		}
	}
	headers := slices.Clone(r.Headers)
	for i := range headers {
		headers[i].Name = strings.ToLower(headers[i].Name)
	}
	pairs(headers, func(q *h1.Request, _ *Scratch, name string) []byte { return q.Header(name) })
	pairs(r.Cookies, func(q *h1.Request, _ *Scratch, name string) []byte { return q.Cookie(name) })
	pairs(r.Queries, func(_ *h1.Request, s *Scratch, name string) []byte { return s.queryValue(name) })
	if r.When != nil {
		t, err := compileCond(r.When, lists)
		if err != nil {
			return nil, fmt.Errorf("when: %w", err)
		}
		ts = append(ts, t)
	}
	return ts, nil
}

// compilePaths compiles "/a" (exactly that) and "/a/*" ("/a" and everything below it).
func compilePaths(paths []string) test {
	exact := map[string]bool{}
	var trees []string // without "/*"
	for _, p := range paths {
		if tree, ok := strings.CutSuffix(p, "/*"); ok {
			trees = append(trees, tree)
		} else {
			exact[p] = true
		}
	}
	below := func(p []byte) bool {
		for _, t := range trees {
			if len(p) >= len(t) && string(p[:len(t)]) == t && (len(p) == len(t) || p[len(t)] == '/') {
				return true
			}
		}
		return false
	}
	switch {
	case len(exact) == 0:
		return func(s *Scratch) bool { return below(s.q.Path) }
	case len(exact) == 1 && len(trees) == 0:
		only := paths[0]
		return func(s *Scratch) bool { return string(s.q.Path) == only }
	}
	return func(s *Scratch) bool { return exact[string(s.q.Path)] || below(s.q.Path) }
}
