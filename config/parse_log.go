package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// maxLogHeaders bounds the request headers that a line of the access log shows. Each takes room in the memory of a request.
const maxLogHeaders = 8

// log reads the block that asks for an access log.
func (p *parser) log(b *body) {
	l := &Log{Format: LogJSON, Pos: p.pos(b.header)}
	if e := b.attr("format"); e != nil {
		if v, _ := p.oneOf(e, `"format"`, LogJSON.String(), LogHAProxy.String()); v == LogHAProxy.String() {
			l.Format = LogHAProxy
		}
	}
	if e := b.attr("to"); e == nil {
		p.errorf(b.header, `write to = "/var/log/skein/access.log", or "stdout", "syslog", "syslog://198.51.100.9:514"`, "%s goes nowhere", b.what)
	} else if v, ok := p.str(e, `"to"`); ok {
		l.To = p.logTo(text{v, e.Range()})
	}
	if e := b.attr("headers"); e != nil {
		seen := map[string]bool{}
		for i, t := range p.strs(e, `"headers"`) {
			name := strings.ToLower(t.string)
			switch {
			case i == maxLogHeaders:
				p.errorf(t.rng, "", "a line of the access log shows at most %d headers", maxLogHeaders)
			case !isToken(name):
				p.errorf(t.rng, `write the name alone, as in "User-Agent"`, "%q is not a header name", t.string)
			case seen[name]:
				p.errorf(t.rng, "", "header %q is written twice", t.string)
			default:
				seen[name] = true
				l.Headers = append(l.Headers, name)
			}
		}
	}
	b.done()
	p.config.Log = l
}

// logTo checks where the access log goes.
func (p *parser) logTo(t text) string {
	remote, isRemote := strings.CutPrefix(t.string, "syslog://")
	switch {
	case t.string == "stdout", t.string == "syslog":
		return t.string
	case isRemote:
		a, err := netip.ParseAddrPort(remote)
		if err != nil || a.Port() == 0 {
			hint := `write an address with its port, as in "syslog://198.51.100.9:514"; names are not looked up`
			if addr, err := netip.ParseAddr(remote); err == nil {
				hint = fmt.Sprintf("syslog listens on port 514 as a rule: %q", "syslog://"+netip.AddrPortFrom(addr, 514).String())
			}
			p.errorf(t.rng, hint, "%q is not an address with a port", remote)
			return ""
		}
		return "syslog://" + a.String()
	case strings.HasSuffix(t.string, "/"):
		p.errorf(t.rng, "write the name of the file, too", "%q is a directory", t.string)
	case filepath.IsAbs(t.string) && visible(t.string):
		return filepath.Clean(t.string)
	case strings.HasPrefix(t.string, "."), strings.Contains(t.string, "/"):
		p.errorf(t.rng, "write the whole path: where the agent is started must not matter", "%q is not an absolute path", t.string)
	default:
		p.errorf(t.rng, didYouMean(t.string, []string{"stdout", "syslog"}, `write an absolute path, "syslog://198.51.100.9:514", or one of`), "%q is no place for a log", t.string)
	}
	return ""
}
