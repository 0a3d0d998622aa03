package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

func (p *parser) backend(c *hclsyntax.Block) {
	d := &p.defaults
	be := &Backend{Name: p.name(c, "shop"), Balance: d.balance, Timeouts: d.backend, Retries: d.retries, Pos: p.pos(c.DefRange())}
	b := p.read(c, fmt.Sprintf("backend %q", be.Name))
	p.ranges[be] = b.header

	p.balance(b, &be.Balance, true)
	p.hash(b, be)
	p.sticky(b, be)
	be.Check = p.check(b, false)
	if be.Check == nil && len(b.all("check")) == 0 {
		be.Check = d.check
	}
	if e := b.attr("on_down"); e != nil {
		v, _ := p.oneOf(e, `"on_down"`, "close", "keep")
		be.CloseOnDown = v == "close"
	}
	if t := b.plain("timeouts"); t != nil {
		t.kind = "backend timeouts"
		t.backendTimeouts(&be.Timeouts, "idle")
		t.done()
		for _, word := range []string{"response", "idle"} {
			if t.has(word) {
				p.explicit = append(p.explicit, explicit{be, word, t.nameRange(word)})
			}
		}
	}
	be.Retries = p.readRetries(b, be)
	be.Queue = p.queue(b, be.Timeouts)
	p.resilience(b, be)
	names := map[string]hcl.Range{}
	addresses := map[netip.AddrPort]string{}
	servers := b.all("server")
	for _, sc := range servers {
		if s := p.server(b, sc, names); s != nil {
			be.Servers = append(be.Servers, s)
			if first, ok := addresses[s.Address]; ok && s.Address.IsValid() {
				p.warnf(sc.DefRange(), "one server with twice the weight does the same and is counted once",
					"server %q has the same address as server %q", s.Name, first)
			}
			addresses[s.Address] = s.Name
		}
	}
	if len(servers) == 0 {
		p.errorf(b.header, `write server "s1" { address = "198.51.100.21:8080" }`, "%s has no server", b.what)
	} else if len(be.Servers) == len(servers) && !slices.ContainsFunc(be.Servers, func(s *Server) bool { return s.Weight > 0 }) {
		p.warnf(b.header, "weight = 0 drains a server; leave one that is not drained", "%s takes no new clients: every server has weight 0", b.what)
	}
	b.done()
	if be.Name != "" && p.unique(c, be.Name, "backend") {
		p.config.Backends = append(p.config.Backends, be)
	}
}

func (p *parser) server(parent *body, c *hclsyntax.Block, names map[string]hcl.Range) *Server {
	s := &Server{Name: p.name(c, "s1"), Weight: 1, Pos: p.pos(c.DefRange())}
	b := p.read(c, fmt.Sprintf("server %q of %s", s.Name, parent.what))
	if e := b.attr("address"); e != nil {
		if v, ok := p.str(e, `"address"`); ok {
			s.Address = p.serverAddress(text{v, e.Range()})
		}
	} else {
		p.errorf(b.header, `write address = "198.51.100.21:8080"`, "%s has no address", b.what)
	}
	if e := b.attr("weight"); e != nil {
		if n, ok := p.integer(e, `"weight"`, 0, 256); ok {
			s.Weight = n
		}
	}
	if e := b.attr("backup"); e != nil {
		s.Backup, _ = p.boolean(e, `"backup"`)
	}
	if e := b.attr("max_connections"); e != nil {
		s.MaxConnections, _ = p.integer(e, `"max_connections"`, 0, 1_000_000)
	}
	b.refuse("tls", "skein speaks plain HTTP or TCP to servers")
	b.refuse("proxy_protocol", "the servers see the client in X-Forwarded-For (http)")
	b.misplaced("slow_start", `"slow_start" is the same for all servers`, "write it in the backend")
	b.misplaced("port", `"port" is part of the address`, `write address = "198.51.100.21:8080"`)
	b.misplaced("check", `"check" is asked of all servers alike`, "write the check block in the backend")
	b.done()
	if s.Name == "" {
		return nil
	}
	if first, ok := names[s.Name]; ok {
		p.errorf(c.LabelRanges[0], fmt.Sprintf("the first is in line %d", first.Start.Line), "%s has server %q twice", parent.what, s.Name)
		return nil
	}
	names[s.Name] = b.header
	return s
}

func (p *parser) serverAddress(t text) netip.AddrPort {
	a, err := netip.ParseAddrPort(t.string)
	if err != nil {
		hint := `write an address and a port, as in "198.51.100.21:8080"`
		host, port, found := strings.Cut(t.string, ":")
		n, err := strconv.Atoi(port)
		if addr, err := netip.ParseAddr(strings.Trim(t.string, "[]")); err == nil && addr.Is4In6() {
			p.mapped(t, addr)
			return a
		} else if err == nil {
			p.errorf(t.rng, fmt.Sprintf("write the port too, as in %q", netip.AddrPortFrom(addr, 8080)), "%q has no port", t.string)
			return a
		}
		switch {
		case strings.Contains(t.string, "://"):
			hint = `write the address and the port alone, as in "198.51.100.21:8080"`
		case found && err == nil && (n < 1 || n > 65535):
			hint = "a port is from 1 to 65535"
		case goodHost(strings.ToLower(host)) && strings.ContainsFunc(host, func(r rune) bool { return r > '9' }):
			hint = "names are not looked up; write the address itself"
		}
		p.errorf(t.rng, hint, "%q is not the address of a server", t.string)
		return a
	}
	addr := a.Addr()
	switch {
	case addr.Is4In6():
		p.errorf(t.rng, fmt.Sprintf("write %s", netip.AddrPortFrom(addr.Unmap(), a.Port())), "%q is an IPv4 address in IPv6 clothes", t.string)
	case a.Port() == 0:
		p.errorf(t.rng, "a port is from 1 to 65535", "%q is not the address of a server", t.string)
	case addr.Zone() != "", addr.Is6() && addr.IsLinkLocalUnicast():
		p.errorf(t.rng, "use a global address of the server, or one of fd00::/8", "%s is good on one link alone", addr)
	case !ofHost(addr):
		p.errorf(t.rng, "", "%s is not the address of a host", addr)
	}
	return a
}

// The defaults of stickiness.
const (
	stickyCookieName = "SKEIN"
	stickyTTL        = 30 * time.Minute // as long as a typical session of a web application
	stickySize       = 100_000
)

func (p *parser) sticky(b *body, be *Backend) {
	c := b.one("sticky")
	if len(b.all("sticky")) > 1 {
		return // reported
	}
	if c == nil {
		return
	}
	kind := p.label(c, "cookie")
	sb := p.read(c, fmt.Sprintf("sticky %q of %s", kind, b.what))
	sb.kind = fmt.Sprintf("sticky %q", kind)
	switch kind {
	case "cookie":
		be.StickyCookie = p.stickyCookie(sb)
		sb.done()
	case "table":
		be.StickyTable = p.stickyTable(sb)
		sb.done()
	case "":
	default:
		p.errorf(c.LabelRanges[0], didYouMean(kind, []string{"cookie", "table"}, "one of"), "%q is not a kind of stickiness", kind)
	}
	p.ranges[stickyOf{be}] = sb.header
}

// stickyOf is the key of a sticky block in parser.ranges.
type stickyOf struct{ *Backend }

func (p *parser) stickyCookie(b *body) *StickyCookie {
	s := &StickyCookie{Name: stickyCookieName, HTTPOnly: true}
	if e := b.attr("name"); e != nil {
		if v, ok := p.str(e, `"name"`); ok && p.cookieName(text{v, e.Range()}) {
			s.Name = v
		}
	}
	if e := b.attr("secure"); e != nil {
		s.Secure, _ = p.boolean(e, `"secure"`)
	}
	if e := b.attr("http_only"); e != nil {
		s.HTTPOnly, _ = p.boolean(e, `"http_only"`)
	}
	if e := b.attr("same_site"); e != nil {
		v, _ := p.oneOf(e, `"same_site"`, "lax", "strict", "none")
		s.SameSite = map[string]string{"lax": "Lax", "strict": "Strict", "none": "None"}[v]
		if v == "none" && !s.Secure {
			p.errorf(e.Range(), "write secure = true too", `browsers drop a cookie with same_site = "none" that is not secure`)
		}
	}
	return s
}

func (p *parser) stickyTable(b *body) *StickyTable {
	s := &StickyTable{TTL: stickyTTL, Size: stickySize}
	if e := b.attr("key"); e != nil {
		s.Key = p.stickyKey(e, "a sticky table")
	} else {
		p.errorf(b.header, `write key = client, or key = header["x-session"]`, "%s has no key", b.what)
	}
	if e := b.attr("ttl"); e != nil {
		if d, ok := p.duration(e, `"ttl"`, time.Second, 30*24*time.Hour); ok {
			s.TTL = d
		}
	}
	if e := b.attr("size"); e != nil {
		if n, ok := p.integer(e, `"size"`, 1, 10_000_000); ok {
			s.Size = n
		}
	}
	return s
}

func (p *parser) stickyKey(e hclsyntax.Expression, of string) StickyKey {
	if v, isString, _ := p.literal(e); isString {
		p.errorf(e.Range(), "write it without quotes: key = client", "%q is a string, not a part of a request", v)
		return StickyKey{}
	}
	o, ok := p.operand(e)
	if !ok {
		return StickyKey{}
	}
	switch o.Field {
	case FieldClient, FieldHeader, FieldCookie, FieldQuery:
		if !o.Lower {
			return StickyKey{Source: o.Field.String(), Name: o.Name}
		}
	}
	p.errorf(e.Range(), `one of client, header["x"], cookie["x"], query["x"]`, "%s cannot be the key of %s", o, of)
	return StickyKey{}
}

// The bounds of checks: more often than ten times a second measures the check, not the server.
const (
	minInterval = 100 * time.Millisecond
	maxInterval = time.Hour
	maxRiseFall = 100
)

// check reads the check block of a backend or of defaults. Interval, timeout, rise and fall are inherited from defaults; path,
// host, port and expect are not. It returns nil when there is none, or when it says "none".
func (p *parser) check(parent *body, forDefaults bool) *Check {
	c := parent.one("check")
	if c == nil {
		return nil
	}
	kinds := []string{"icmp", "tcp", "http"}
	kind := p.label(c, "http")
	b := p.read(c, fmt.Sprintf("check %q of %s", kind, parent.what))
	b.kind = fmt.Sprintf("check %q", kind)
	if kind == "none" {
		b.done()
		if forDefaults {
			p.defaults.check = nil
		}
		return nil
	}
	i := slices.Index(kinds, kind)
	if i < 0 {
		if len(c.Labels) == 1 {
			p.errorf(c.LabelRanges[0], didYouMean(kind, append(kinds, "none"), "one of"), "%q is not a kind of check", kind)
		}
		return nil
	}
	k := &Check{Kind: CheckICMP + CheckKind(i)}
	t := p.defaults.probe
	if e := b.attr("interval"); e != nil {
		if d, ok := p.duration(e, `"interval"`, minInterval, maxInterval); ok {
			t.interval = d
		}
	}
	at := b.valueRange("interval")
	if e := b.attr("timeout"); e != nil {
		at = e.Range()
		if d, ok := p.duration(e, `"timeout"`, 10*time.Millisecond, maxInterval); ok {
			t.timeout, t.timeoutSet = d, true
		}
	}
	if !t.timeoutSet {
		t.timeout = min(t.timeout, t.interval)
	} else if t.timeout > t.interval {
		p.errorf(at, "a probe ends before the next begins", "the timeout %s is longer than the interval %s",
			shortDuration(t.timeout), shortDuration(t.interval))
	}
	if e := b.attr("rise"); e != nil {
		if n, ok := p.integer(e, `"rise"`, 1, maxRiseFall); ok {
			t.rise = n
		}
	}
	if e := b.attr("fall"); e != nil {
		if n, ok := p.integer(e, `"fall"`, 1, maxRiseFall); ok {
			t.fall = n
		}
	}
	k.Interval, k.Timeout, k.Rise, k.Fall = t.interval, t.timeout, t.rise, t.fall
	if k.Kind == CheckICMP {
		b.misplaced("port", `"port" means nothing for check "icmp"`, `write check "tcp" to ask a port`)
	} else if e := b.attr("port"); e != nil {
		n, _ := p.integer(e, `"port"`, 1, 65535)
		k.Port = uint16(n)
	}
	if k.Kind == CheckHTTP {
		p.checkHTTP(b, k)
	} else {
		for _, word := range []string{"path", "host", "expect"} {
			b.misplaced(word, fmt.Sprintf("%q means nothing for check %q", word, kind), `write check "http"`)
		}
	}
	b.refuse("tls", "check another port, or with check \"tcp\"")
	b.refuse("send", `use check "http", or check "tcp" without it`)
	b.done()
	if forDefaults {
		p.defaults.probe = t
	}
	return k
}

func (p *parser) checkHTTP(b *body, k *Check) {
	k.Path = "/"
	if e := b.attr("path"); e != nil {
		if v, ok := p.str(e, `"path"`); ok {
			k.Path = v
			if !strings.HasPrefix(v, "/") || !visible(v) || strings.Contains(v, "#") {
				p.errorf(e.Range(), `a path begins with a slash and has no blanks, as in "/healthz"`, "%q is not a path", v)
			}
		}
	}
	if e := b.attr("host"); e != nil {
		if v, ok := p.str(e, `"host"`); ok {
			k.Host = v
			name, port, hasPort := strings.Cut(strings.ToLower(v), ":")
			if n, err := strconv.ParseUint(port, 10, 16); !goodHost(name) || hasPort && (err != nil || n == 0) {
				p.errorf(e.Range(), `write a name as in "www.example.com"`, "%q is not a host", v)
			}
		}
	}
	x := b.plain("expect")
	if x == nil {
		return
	}
	if e := x.attr("status"); e != nil {
		k.Expect.Status = p.statuses(e)
	}
	if e := x.attr("body"); e != nil {
		if v, ok := p.str(e, `"body"`); ok {
			k.Expect.Body = v
			if v == "" || len(v) > 1024 {
				p.errorf(e.Range(), "write a part of the answer, of 1 to 1024 bytes", `"body" has %d bytes`, len(v))
			}
		}
	}
	x.done()
}

// statuses reads expected statuses: 200, "2xx", "200-399", or a list of these.
func (p *parser) statuses(e hclsyntax.Expression) []StatusRange {
	exprs := []hclsyntax.Expression{e}
	if list, ok := unwrap(e).(*hclsyntax.TupleConsExpr); ok {
		exprs = list.Exprs
		if len(exprs) == 0 {
			p.errorf(e.Range(), "leave it out, or write at least one", `"status" is an empty list`)
		}
	}
	var all []StatusRange
	for _, x := range exprs {
		if v, isString, ok := p.literal(x); isString {
			r, good := statusRange(v)
			if ok && good {
				all = append(all, r)
			} else if ok {
				p.errorf(x.Range(), `write 200, "2xx" or "200-399"`, "%q is not a status", v)
			}
			continue
		}
		if n, ok := p.integer(x, `"status"`, 100, 599); ok {
			all = append(all, StatusRange{n, n})
		}
	}
	return all
}

func statusRange(v string) (StatusRange, bool) {
	if len(v) == 3 && strings.EqualFold(v[1:], "xx") && '1' <= v[0] && v[0] <= '5' {
		from := int(v[0]-'0') * 100
		return StatusRange{from, from + 99}, true
	}
	from, to, isRange := strings.Cut(v, "-")
	if !isRange {
		to = from
	}
	a, err1 := strconv.Atoi(from)
	b, err2 := strconv.Atoi(to)
	good := err1 == nil && err2 == nil && len(from) == 3 && len(to) == 3 && a <= b && a >= 100 && b <= 599
	return StatusRange{a, b}, good
}
