package config

import (
	"fmt"
	"strings"
)

// headerEdits reads request_headers or response_headers.
func (p *parser) headerEdits(b *body, name string) HeaderEdits {
	var h HeaderEdits
	hb := b.plain(name)
	if hb == nil {
		return h
	}
	if e := hb.attr("set"); e != nil {
		h.Set = p.headers(p.strMap(e, `"set"`), name)
	}
	if e := hb.attr("add"); e != nil {
		h.Add = p.headers(p.strMap(e, `"add"`), name)
	}
	if e := hb.attr("remove"); e != nil {
		for _, t := range p.strs(e, `"remove"`) {
			if p.headerName(t) && p.editable(t, name) {
				h.Remove = append(h.Remove, t.string)
			}
		}
	}
	hb.done()
	return h
}

func (p *parser) headers(entries []entry, block string) []Header {
	var hs []Header
	seen := map[string]bool{}
	for _, e := range entries {
		if !p.headerName(e.key) || !p.editable(e.key, block) || !p.headerValue(e.value) {
			continue
		}
		if lower := strings.ToLower(e.key.string); seen[lower] {
			p.errorf(e.key.rng, "case makes no difference in names of headers", "%q is written twice", e.key.string)
		} else {
			seen[lower] = true
			hs = append(hs, Header{e.key.string, e.value.string})
		}
	}
	return hs
}

// owned are the fields that skein makes by itself, with the reason why nobody else may.
var owned = map[string]string{
	"connection":        "it speaks of one connection, and skein has two: the client's and the server's",
	"keep-alive":        "it speaks of one connection, and skein has two: the client's and the server's",
	"proxy-connection":  "it speaks of one connection, and skein has two: the client's and the server's",
	"upgrade":           "it speaks of one connection, and skein has two: the client's and the server's",
	"te":                "it speaks of one connection, and skein has two: the client's and the server's",
	"transfer-encoding": "it says where a body ends: a wrong one would let requests be smuggled",
	"content-length":    "it says where a body ends: a wrong one would let requests be smuggled",
	"http2-settings":    "it speaks of one connection, and skein has two: the client's and the server's",
	"trailer":           "skein does not pass trailers on",
	"expect":            "skein answers it where it must, and passes it on where it may",
}

// editable tells whether a configuration may touch a field; it reports the ones that skein owns.
func (p *parser) editable(name text, block string) bool {
	lower := strings.ToLower(name.string)
	if why := owned[lower]; why != "" {
		p.errorf(name.rng, why, "%q belongs to skein and cannot be changed", name.string)
		return false
	}
	if lower == "host" && block == "request_headers" {
		p.errorf(name.rng, "the host chose the route, and servers build links from it; it is passed on as the client sent it",
			"%q belongs to skein and cannot be changed", name.string)
		return false
	}
	return true
}

// headerName checks that t can be the name of a field: a token of RFC 9110, section 5.6.2.
func (s *source) headerName(t text) bool {
	if isToken(t.string) {
		return true
	}
	hint := "a name has letters, digits, and !#$%&'*+-.^_`|~"
	if n := strings.TrimSuffix(strings.TrimSpace(t.string), ":"); isToken(n) {
		hint = fmt.Sprintf("write %q", n)
	}
	s.errorf(t.rng, hint, "%q cannot be the name of a header", t.string)
	return false
}

// headerValue checks that t can be the value of a field: RFC 9110, section 5.5. A line break in it would begin a new field.
func (s *source) headerValue(t text) bool {
	for i := range len(t.string) {
		if c := t.string[i]; c < ' ' && c != '\t' || c == 0x7f {
			s.errorf(t.rng, "", "the value of a header cannot contain the control character %#02x", c)
			return false
		}
	}
	if strings.Trim(t.string, " \t") != t.string {
		s.errorf(t.rng, "take the blanks away: they are not part of a value", "the value of a header cannot begin or end with a blank")
		return false
	}
	return true
}

func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c <= ' ' || c >= 0x7f || strings.IndexByte("\"(),/:;<=>?@[\\]{}", c) >= 0 {
			return false
		}
	}
	return s != "" && len(s) <= 256
}
