package config

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// maxBody bounds the fixed body of a respond block: it lives in memory once per plan and travels in one write.
const maxBody = 64 << 10

func (p *parser) route(f *Frontend, c *hclsyntax.Block, names map[string]hcl.Range) {
	r := &Route{Name: p.name(c, "api"), Pos: p.pos(c.DefRange())}
	b := p.read(c, fmt.Sprintf("route %q of frontend %q", r.Name, f.Name))
	p.ranges[r] = b.header
	if first, ok := names[r.Name]; ok && r.Name != "" {
		p.errorf(c.LabelRanges[0], fmt.Sprintf("the first is in line %d", first.Start.Line), "frontend %q has route %q twice", f.Name, r.Name)
	}
	names[r.Name] = b.header

	p.matchers(b, r)
	p.action(b, r)
	r.RequestHeaders = p.headerEdits(b, "request_headers")
	r.ResponseHeaders = p.headerEdits(b, "response_headers")
	if b.has("redirect") || len(b.all("respond")) > 0 {
		b.each("request_headers", func(rng hcl.Range) {
			p.errorf(rng, "no server sees the request", `"request_headers" means nothing in a route that answers by itself`)
		})
	}
	r.Limits = p.limits(b)
	b.misplaced("list", "a route has no list", `write when = in_list(client, "NAME")`)
	b.refuse("rewrite", "servers see the path that the client sent; redirect can send the client elsewhere")
	b.misplaced("timeouts", `"timeouts" cannot be set for a route`, "set them in the frontend or in the backend")
	b.done()
	f.Routes = append(f.Routes, r)
}

// matchers reads what a request must have for the route to take it.
func (p *parser) matchers(b *body, r *Route) {
	if e := b.attr("host"); e != nil {
		for _, t := range p.strs(e, `"host"`) {
			if h, ok := p.host(t); ok {
				r.Hosts = append(r.Hosts, h)
			}
		}
	}
	if e := b.attr("path"); e != nil {
		for _, t := range p.strs(e, `"path"`) {
			if p.path(t) {
				r.Paths = append(r.Paths, t.string)
			}
		}
	}
	if e := b.attr("method"); e != nil {
		for _, t := range p.strs(e, `"method"`) {
			if p.method(t) {
				r.Methods = append(r.Methods, t.string)
			}
		}
	}
	for _, m := range []struct {
		word string
		to   *[]Pair
	}{{"header", &r.Headers}, {"query", &r.Queries}, {"cookie", &r.Cookies}} {
		e := b.attr(m.word)
		if e == nil {
			continue
		}
		seen := map[string]bool{}
		for _, kv := range p.strMap(e, fmt.Sprintf("%q", m.word)) {
			name := kv.key.string
			if m.word == "header" {
				if !p.headerOperand(kv.key) || !p.headerValue(kv.value) {
					continue
				}
				name = strings.ToLower(name)
			}
			if m.word == "cookie" && !p.cookieName(kv.key) {
				continue
			}
			if seen[name] {
				p.errorf(kv.key.rng, "for one of several values write a condition: when = one_of("+m.word+"[\""+name+"\"], [\"a\", \"b\"])",
					"%q is written twice, and one request cannot match both", kv.key.string)
				continue
			}
			seen[name] = true
			*m.to = append(*m.to, Pair{name, kv.value.string})
		}
	}
	if e := b.attr("when"); e != nil {
		r.When = p.condition(e)
	}
}

// host reads a host to match: a name, "*.name", or an address.
func (p *parser) host(t text) (string, bool) {
	h := strings.ToLower(t.string)
	name := strings.TrimPrefix(h, "*.")
	hint := `write a name as in "www.example.com", or "*.example.com" for all names below it`
	switch {
	case h == "*":
		hint = "leave host out: then every host matches"
	case strings.Contains(h, "://"):
		hint = "write the name alone, without scheme and path"
	case strings.HasSuffix(name, "."):
		hint = "write it without the dot at its end"
	case strings.Contains(h, ":"):
		hint = "write it without the port; the port is the frontend's"
		if a, err := netip.ParseAddr(strings.Trim(h, "[]")); err == nil && a.Is6() && a.Zone() == "" {
			if is := "[" + a.String() + "]"; h != is { // clients write it in its shortest form (RFC 5952)
				p.errorf(t.rng, fmt.Sprintf("write %q", is), "%q is not how a client writes that address", t.string)
				return "", false
			}
			return h, true
		}
	case goodHost(name):
		return h, true
	}
	p.errorf(t.rng, hint, "%q is not a host", t.string)
	return "", false
}

func goodHost(h string) bool {
	if h == "" || len(h) > 253 {
		return false
	}
	for label := range strings.SplitSeq(h, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			if c := label[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

func (p *parser) path(t text) bool {
	v := t.string
	hint := ""
	switch {
	case !strings.HasPrefix(v, "/"):
		hint = fmt.Sprintf("a path begins with a slash: %q", "/"+v)
	case strings.ContainsAny(v, "?#"):
		hint = `a path ends before "?"; match what comes after it with query = { name = "value" }`
	case strings.Contains(strings.TrimSuffix(v, "/*"), "*"):
		hint = `"*" stands only at the end, behind a slash: "/a/*" is "/a" and everything below it; for more write when = starts_with(path, "/a") or matches(path, "...")`
	case !visible(v):
		hint = "a path is matched as it is sent: blanks and letters beyond ASCII as %20 and the like"
	default:
		return true
	}
	p.errorf(t.rng, hint, "%q is not a path", v)
	return false
}

// visible tells whether s has only printable ASCII and no blank.
func visible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

func (p *parser) method(t text) bool {
	if isToken(t.string) && strings.ToUpper(t.string) == t.string {
		return true
	}
	hint := ""
	if up := strings.ToUpper(t.string); isToken(up) {
		hint = fmt.Sprintf("methods are case-sensitive: write %q", up)
	}
	p.errorf(t.rng, hint, "%q is not a method", t.string)
	return false
}

// headerOperand checks the name of a header to match.
func (p *parser) headerOperand(t text) bool {
	if !p.headerName(t) {
		return false
	}
	if strings.EqualFold(t.string, "host") {
		p.errorf(t.rng, `match it with host = "www.example.com", or with host in a condition`, "the host is not matched as a header")
		return false
	}
	return true
}

func (p *parser) cookieName(t text) bool {
	if !isToken(t.string) {
		p.errorf(t.rng, "a name has letters, digits, and !#$%&'*+-.^_`|~", "%q cannot be the name of a cookie", t.string)
		return false
	}
	return true
}

// action reads what is done with a request: exactly one of backend, redirect and respond.
func (p *parser) action(b *body, r *Route) {
	r.Backend = p.backendName(b)
	redirect, status := b.attr("redirect"), b.attr("status")
	if redirect != nil {
		r.Redirect = p.redirect(b, redirect, status)
	} else if status != nil {
		p.errorf(b.nameRange("status"), `in a route, "status" is that of a redirect; for an answer write respond { status = 404 }`, `"status" needs a redirect`)
	}
	respond := b.plain("respond")
	if respond != nil {
		r.Respond = p.respond(respond)
	}
	var said []string
	var at hcl.Range
	for _, a := range []struct {
		word string
		is   bool
		rng  hcl.Range
	}{{"backend", b.has("backend"), b.nameRange("backend")}, {"redirect", redirect != nil, b.nameRange("redirect")}, {"respond", respond != nil, b.header}} {
		if !a.is {
			continue
		}
		if a.word == "respond" {
			a.rng = respond.header
		}
		said = append(said, a.word)
		at = a.rng
	}
	switch {
	case len(said) == 0:
		p.errorf(b.header, `write backend = "NAME", redirect = "/new" or respond { status = 404 }`, "%s does nothing", b.what)
	case len(said) > 1:
		p.errorf(at, "a route does one thing", "%s has both %s", b.what, strings.Join(said, " and "))
	}
}

func (p *parser) redirect(b *body, e, status hclsyntax.Expression) *Redirect {
	r := &Redirect{Status: 302}
	if status != nil {
		if n, ok := p.integer(status, `"status"`, 100, 599); ok {
			switch n {
			case 301, 302, 303, 307, 308:
				r.Status = n
			default:
				p.errorf(status.Range(), "one of 301, 302, 303, 307, 308", "%d is not the status of a redirect", n)
			}
		}
	}
	v, ok := p.str(e, `"redirect"`)
	if !ok {
		return r
	}
	r.Location = v
	if v == "https" {
		p.errorf(e.Range(), `write it in the frontend, for all that comes to its http ports; here write the whole address: `+
			`redirect = "https://www.example.com/"`, `redirect = "https" is not for a single route`)
		return r
	}
	u, err := url.Parse(v)
	absolute := err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
	if !visible(v) || err != nil || !absolute && (!strings.HasPrefix(v, "/") || strings.HasPrefix(v, "//")) {
		p.errorf(e.Range(), `write a path as in "/new", or a whole address as in "https://www.example.com/"`, "%q is not a place to redirect to", v)
	}
	return r
}

func (p *parser) respond(b *body) *Respond {
	r := &Respond{}
	if e := b.attr("status"); e != nil {
		r.Status, _ = p.integer(e, `"status"`, 200, 599)
	} else {
		p.errorf(b.header, "write status = 404", "%s has no status", b.what)
	}
	if e := b.attr("body"); e != nil {
		r.Body, _ = p.str(e, `"body"`)
		if len(r.Body) > maxBody {
			p.errorf(e.Range(), "let a server answer", "the body has %d bytes, more than %d", len(r.Body), maxBody)
		}
		if r.Body != "" && (r.Status == 204 || r.Status == 205 || r.Status == 304) {
			p.errorf(e.Range(), "", "an answer with status %d has no body", r.Status)
		}
		if r.Body != "" {
			r.ContentType = "text/plain; charset=utf-8"
		}
	}
	if e := b.attr("content_type"); e != nil {
		if v, ok := p.str(e, `"content_type"`); ok && p.headerValue(text{v, e.Range()}) {
			r.ContentType = v
			if v == "" || !strings.Contains(v, "/") {
				p.errorf(e.Range(), `write a type as in "text/html; charset=utf-8"`, "%q is not a content type", v)
			}
			if !b.has("body") {
				p.errorf(b.nameRange("content_type"), "", `"content_type" needs a body`)
			}
		}
	}
	b.done()
	return r
}
