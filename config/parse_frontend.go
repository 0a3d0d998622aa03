package config

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

func (p *parser) frontend(c *hclsyntax.Block) {
	f := &Frontend{Name: p.name(c, "shop"), Timeouts: p.defaults.frontend, MinRate: p.defaults.minRate, Pos: p.pos(c.DefRange())}
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

	f.Mode, note.ports = p.ports(b, f)
	f.Backend = p.backendName(b)
	b.refuse("https", "end TLS in the servers and pass it through: tcp = 443")
	b.refuse("certificates", "end TLS in the servers and pass it through: tcp = 443")
	b.refuse("redirect", `in a frontend that is for https; in a route, write redirect = "/new"`)
	b.refuse("udp", "use http or tcp")
	b.refuse("limit", "limit the rate in the servers, or with nftables on the hosts")
	b.refuse("proxy_protocol", "the servers see the client in X-Forwarded-For (http)")

	http := f.Mode != TCP
	f.Allow, f.Deny = p.lists(b, "allow"), p.lists(b, "deny")
	if t := b.plain("timeouts"); t != nil {
		t.kind = "frontend timeouts"
		t.frontendTimeouts(&f.Timeouts, http)
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
		for _, word := range []string{"route", "request_headers", "response_headers", "min_rate", "trusted"} {
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

// ports reads http or tcp: what a frontend speaks, and where.
func (p *parser) ports(b *body, f *Frontend) (Mode, []hcl.Range) {
	http, tcp := b.attr("http"), b.attr("tcp")
	mode, e := HTTP, http
	switch {
	case http != nil && tcp != nil:
		p.errorf(b.nameRange("tcp"), "write a second frontend for the one or the other", "%s has both http and tcp", b.what)
		return HTTP, nil
	case tcp != nil:
		mode, e = TCP, tcp
	case http == nil:
		for _, refused := range []string{"https", "udp"} {
			if b.has(refused) {
				return 0, nil // reported as such
			}
		}
		p.errorf(b.header, "write http = 80, or tcp = 5432", "%s listens on no port", b.what)
		return 0, nil
	}
	what := fmt.Sprintf("%q", mode)
	exprs := []hclsyntax.Expression{e}
	if list, ok := unwrap(e).(*hclsyntax.TupleConsExpr); ok {
		exprs = list.Exprs
		if len(exprs) == 0 {
			p.errorf(e.Range(), "leave it out, or write at least one", "%s is an empty list", what)
		}
	}
	var ranges []hcl.Range
	seen := map[uint16]bool{}
	for _, x := range exprs {
		n, ok := p.integer(x, what, 1, 65535)
		if ok && seen[uint16(n)] {
			p.errorf(x.Range(), "", "%s has port %d twice", what, n)
			continue
		}
		if ok {
			f.Ports = append(f.Ports, uint16(n))
			ranges = append(ranges, x.Range())
			seen[uint16(n)] = true
		}
	}
	return mode, ranges
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
