package config

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

func (p *parser) frontend(c *hclsyntax.Block) {
	f := &Frontend{Name: p.name(c, "shop"), Timeouts: p.defaults.frontend, MinRate: p.defaults.minRate, Caps: p.defaults.caps, Pos: p.pos(c.DefRange())}
	b := p.read(c, fmt.Sprintf("frontend %q", f.Name))
	p.ranges[f] = b.header
	note := listener{frontend: f}

	if e := b.attr("vip"); e != nil {
		for _, t := range p.strs(e, `"vip"`) {
			f.VIPs = append(f.VIPs, t.string)
			p.refer(toVIP, t, b.what)
			note.vips = append(note.vips, t.rng)
		}
	}
	if e := b.attr("bind"); e != nil {
		if b.has("vip") {
			p.errorf(b.nameRange("bind"), "write a second frontend for the one or the other", "%s has both vip and bind", b.what)
		}
		for _, t := range p.strs(e, `"bind"`) {
			if a, ok := p.bindAddress(t); ok {
				f.Bind = append(f.Bind, a)
				note.binds = append(note.binds, t.rng)
			}
		}
	}
	if !b.has("vip") && !b.has("bind") {
		p.errorf(b.header, `write vip = "NAME", or bind = ["127.0.0.1"]`, "%s listens on no address", b.what)
	}

	note.ports = p.ports(b, f)
	f.Backend = p.backendName(b)
	p.redirectHTTPS(b, f)
	b.refuse("udp", "use http or tcp")
	b.refuse("proxy_protocol", "the servers see the client in X-Forwarded-For (http)")

	if e := b.attr("log"); e != nil {
		if v, ok := p.boolean(e, `"log"`); ok {
			f.NoLog = !v
		}
	}
	http := f.Mode != TCP
	p.caps(b, &f.Caps, http)
	f.Limits = p.limits(b)
	if !http {
		f.Caps = Caps{Connections: f.Caps.Connections}
	}
	f.Allow, f.Deny = p.lists(b, "allow"), p.lists(b, "deny")
	if t := b.plain("timeouts"); t != nil {
		t.kind = "frontend timeouts"
		t.frontendTimeouts(&f.Timeouts, http)
		if f.TLS != nil {
			t.timeout("handshake", &f.Timeouts.Handshake)
		} else {
			t.misplaced("handshake", `"handshake" is about TLS, which does not end here`, "take it away")
		}
		t.done()
	}
	if http {
		p.minRate(b, &f.MinRate)
		f.Trusted = p.lists(b, "trusted")
		f.RequestHeaders = p.headerEdits(b, "request_headers")
		f.ResponseHeaders = p.headerEdits(b, "response_headers")
		names := map[string]hcl.Range{}
		for _, rc := range b.all("route") {
			p.route(f, rc, names)
		}
		if f.Mode == HTTP && !b.has("backend") && len(b.all("route")) == 0 {
			p.errorf(b.header, `write backend = "NAME", or a route`, "%s leads nowhere", b.what)
		}
	} else {
		for _, word := range []string{"route", "request_headers", "response_headers", "min_rate", "trusted", "keepalive_requests", "max_head", "max_headers", "max_body"} {
			b.misplaced(word, fmt.Sprintf("%q needs http, and %s speaks tcp", word, b.what), "tcp is passed on as it comes, to one backend")
		}
		if !b.has("backend") {
			p.errorf(b.header, `write backend = "NAME"`, "%s has no backend", b.what)
		}
	}
	b.done()
	if f.Name != "" && p.unique(c, f.Name, "frontend") {
		p.config.Frontends = append(p.config.Frontends, f)
		p.listeners = append(p.listeners, note)
	}
}

// backendName reads the attribute that names a backend.
func (p *parser) backendName(b *body) string {
	e := b.attr("backend")
	if e == nil {
		return ""
	}
	v, ok := p.str(e, `"backend"`)
	if ok {
		p.refer(toBackend, text{v, e.Range()}, b.what)
	}
	return v
}

// ports reads http, https, tcp and tls: what a frontend speaks, and where. What goes with the ports that end TLS is read too.
func (p *parser) ports(b *body, f *Frontend) (at portRanges) {
	http, https, tcp, tls := b.attr("http"), b.attr("https"), b.attr("tcp"), b.attr("tls")
	if (http != nil || https != nil) && (tcp != nil || tls != nil) {
		one, other := "http", "tcp"
		if http == nil {
			one = "https"
		}
		if tcp == nil {
			other = "tls"
		}
		p.errorf(b.nameRange(other), "write a second frontend for the one or the other", "%s has both %s and %s", b.what, one, other)
		b.silent = append(b.silent, "certificates", "tls_options") // whose they are is not known
		f.Mode = HTTP
		return at
	}
	f.Mode = HTTP
	plain, secure := http, https
	words := [2]string{"http", "https"}
	if tcp != nil || tls != nil {
		f.Mode = TCP
		plain, secure = tcp, tls
		words = [2]string{"tcp", "tls"}
	}
	if plain == nil && secure == nil {
		f.Mode = 0
		if !b.has("udp") { // which is reported as such
			p.errorf(b.header, "write http = 80, https = 443, or tcp = 5432", "%s listens on no port", b.what)
		}
	}
	f.Ports, at.plain = p.portList(b, words[0], plain)
	var ports []uint16
	ports, at.tls = p.portList(b, words[1], secure)
	if secure != nil {
		p.tls(b, f, ports)
	} else {
		b.noTLS(f.Mode)
	}
	return at
}

// portList reads a port or a list of ports; e may be nil.
func (p *parser) portList(b *body, word string, e hclsyntax.Expression) (ports []uint16, ranges []hcl.Range) {
	if e == nil {
		return nil, nil
	}
	what := fmt.Sprintf("%q", word)
	exprs := []hclsyntax.Expression{e}
	if list, ok := unwrap(e).(*hclsyntax.TupleConsExpr); ok {
		exprs = list.Exprs
		if len(exprs) == 0 {
			p.errorf(e.Range(), "leave it out, or write at least one", "%s is an empty list", what)
		}
	}
	seen := map[uint16]bool{}
	for _, x := range exprs {
		n, ok := p.integer(x, what, 1, 65535)
		if ok && seen[uint16(n)] {
			p.errorf(x.Range(), "", "%s has port %d twice", what, n)
			continue
		}
		if ok {
			ports = append(ports, uint16(n))
			ranges = append(ranges, x.Range())
			seen[uint16(n)] = true
		}
	}
	return ports, ranges
}

func (p *parser) bindAddress(t text) (netip.Addr, bool) {
	a, err := netip.ParseAddr(t.string)
	switch {
	case err != nil:
		hint := `write an address, as in "127.0.0.1"`
		if _, err := netip.ParseAddrPort(t.string); err == nil {
			hint = `write the address alone; the port stands in http or tcp`
		} else if t.string == "*" || strings.HasPrefix(t.string, "*:") {
			hint = `for every address of the host write "0.0.0.0", and "::" for those of IPv6`
		} else if t.string == "localhost" {
			hint = `names are not looked up; write "127.0.0.1"`
		}
		p.errorf(t.rng, hint, "%q is not an address", t.string)
	case a.Is4In6():
		p.mapped(t, a)
	case a.Zone() != "":
		p.errorf(t.rng, "write the address without the zone, from the % on", "%q names a zone", t.string)
	case !a.IsUnspecified() && !ofHost(a), a.Is6() && a.IsLinkLocalUnicast():
		p.errorf(t.rng, "", "%s is not the address of a host", a)
	default:
		return a, true
	}
	return netip.Addr{}, false
}
