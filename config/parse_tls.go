package config

import (
	"fmt"

	"github.com/hashicorp/hcl/v2"
)

// tls reads how a frontend ends TLS: its port words https and tls have been read, all else belongs to them.
func (p *parser) tls(b *body, f *Frontend, ports []uint16) {
	t := &FrontendTLS{Ports: ports, MinVersion: TLS12}
	word := "https"
	if f.Mode == TCP {
		word = "tls"
	}
	if e := b.attr("certificates"); e != nil {
		for _, name := range p.strs(e, `"certificates"`) {
			if goodName(name.string) {
				t.Certificates = append(t.Certificates, name.string)
				continue
			}
			p.errorf(name.rng, "it is the name under which `skein cert import NAME` stored it, not a host or a file: letters, digits, '-', '_' and '.'",
				"%q cannot be the name of a certificate", name.string)
		}
	} else {
		p.errorf(b.nameRange(word), "import one with `skein cert import NAME FILE...` and write certificates = [\"NAME\"]",
			"%s ends TLS and names no certificate", b.what)
	}
	if o := b.plain("tls_options"); o != nil {
		if e := o.attr("min_version"); e != nil {
			if v, ok := p.oneOf(e, `"min_version"`, "1.2", "1.3"); ok && v == "1.3" {
				t.MinVersion = TLS13
			}
		}
		if e := o.attr("strict_names"); e != nil {
			t.StrictNames, _ = p.boolean(e, `"strict_names"`)
		}
		o.done()
	}
	f.TLS = t
}

// noTLS reports the words that mean nothing where nothing ends TLS.
func (b *body) noTLS(mode Mode) {
	hint := "write https = 443 too, or take it away"
	if mode == TCP {
		hint = "write tls = 636 in the place of tcp, or take it away"
	}
	for _, word := range []string{"certificates", "tls_options"} {
		b.misplaced(word, fmt.Sprintf("%q needs a port where TLS ends, and %s has none", word, b.what), hint)
	}
}

// redirectHTTPS reads redirect = "https" of a frontend.
func (p *parser) redirectHTTPS(b *body, f *Frontend) {
	e := b.attr("redirect")
	if e == nil {
		return
	}
	v, ok := p.str(e, `"redirect"`)
	at := e.Range()
	switch {
	case !ok:
	case v != "https":
		p.errorf(at, `a frontend redirects to "https" only; in a route, write redirect = "/new"`, "%q is not where a frontend can redirect to", v)
	case f.Mode == TCP:
		p.errorf(at, "tcp is passed on as it comes", `redirect needs http, and %s speaks tcp`, b.what)
	case f.TLS == nil || len(f.TLS.Ports) == 0:
		p.errorf(at, "write https = 443 too; to send clients to another host, write a route with redirect = \"https://www.example.com/\"",
			`%s has no https port to redirect to`, b.what)
	case len(f.Ports) == 0:
		p.errorf(at, "write http = 80 too, or take it away", "%s has no http port to redirect from", b.what)
	default:
		f.TLS.Redirect = true
	}
}

// portRanges says where a frontend's ports were written, parallel to Ports and to TLS.Ports.
type portRanges struct{ plain, tls []hcl.Range }
