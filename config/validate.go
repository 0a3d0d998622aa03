package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

const (
	maxListeners   = 4096 // sockets of one configuration: every one is opened once per loop
	maxSuggestions = 200  // findings up to which a wrong name is compared with all right ones
	maxCompared    = 2000 // routes of a frontend that are compared with one another
)

type target uint8

const (
	toVIP target = iota
	toBackend
	toList
	toLimit
)

// targets are the kinds of object that others name.
var targets = map[string]target{"vip": toVIP, "backend": toBackend, "list": toList, "limit": toLimit}

func (t target) String() string {
	for word, to := range targets {
		if to == t {
			return word
		}
	}
	return "unknown"
}

// reference is a name that must exist somewhere in the file, before or after.
type reference struct {
	to   target
	name text
	from string // `frontend "shop"`
}

// listener says where the parts of a frontend's listeners were written. Its lists are parallel to the frontend's.
type listener struct {
	frontend    *Frontend
	vips, binds []hcl.Range
	ports       portRanges
}

// explicit is an attribute that was written and has a meaning only in some uses of its backend.
type explicit struct {
	backend *Backend
	word    string
	rng     hcl.Range
}

// vipAddressKey is the key of a VIP's address in parser.ranges.
type vipAddressKey struct{ addr netip.Addr }

func (p *parser) refer(to target, name text, from string) {
	p.references = append(p.references, reference{to, name, from})
}

// noteVIPAddress reports an address that a vip has already.
func (p *parser) noteVIPAddress(v *VIP, a netip.Prefix, rng hcl.Range) {
	key := vipAddressKey{a.Addr()}
	if first, ok := p.ranges[key]; ok {
		p.errorf(rng, fmt.Sprintf("the first is in line %d", first.Start.Line), "vip %q has %s, which is taken", v.Name, a.Addr())
		return
	}
	p.ranges[key] = rng
}

// named is the key of an object's name in parser.ranges.
type named struct{ kind, name string }

// unique tells whether the object is the first of its kind and name; it reports a second one.
func (p *parser) unique(c *hclsyntax.Block, name, kind string) bool {
	key := named{kind, name}
	if first, ok := p.ranges[key]; ok {
		p.errorf(c.LabelRanges[0], fmt.Sprintf("the first is in line %d", first.Start.Line), "%s %q is written twice", kind, name)
		return false
	}
	p.ranges[key] = c.DefRange()
	return true
}

// validate checks what the blocks of a file say together.
func (p *parser) validate() {
	p.validateReferences()
	p.validateListeners()
	p.validateUses()
	p.validateLimits()
	p.validatePair()
	if p.diags.HasErrors() {
		return // a route whose condition is wrong would seem to match everything, a backend whose frontend is wrong to be unused
	}
	p.validateUnused()
	for _, f := range p.config.Frontends {
		p.validateRoutes(f)
	}
	if len(p.config.Frontends)+len(p.config.VIPs)+len(p.config.Backends) == 0 {
		start := hcl.Range{Filename: p.file, Start: hcl.InitialPos, End: hcl.InitialPos}
		p.warnf(start, "applied, it would take away every listener and every address", "the configuration is empty")
	}
}

func (p *parser) validateReferences() {
	words := map[target][]string{}
	for key := range p.ranges {
		n, _ := key.(named)
		if to, ok := targets[n.kind]; ok {
			words[to] = append(words[to], n.name)
		}
	}
	for _, names := range words {
		slices.Sort(names)
	}
	for _, r := range p.references {
		names := words[r.to]
		if slices.Contains(names, r.name.string) {
			continue
		}
		hint := ""
		switch {
		case len(names) == 0:
			hint = fmt.Sprintf("write %s %q { ... }", r.to, r.name.string)
		case len(p.diags) < maxSuggestions:
			hint = didYouMean(r.name.string, names, "the file has")
		}
		if r.to == toVIP {
			if _, err := netip.ParseAddr(r.name.string); err == nil {
				hint = fmt.Sprintf("write the name of a vip, or bind = [%q]", r.name.string)
			}
		}
		p.errorf(r.name.rng, hint, "%s names %s %q, which does not exist", r.from, r.to, r.name.string)
	}
}

// validateUnused reports backends and lists that nobody names.
func (p *parser) validateUnused() {
	used := map[named]bool{}
	for _, r := range p.references {
		used[named{r.to.String(), r.name.string}] = true
	}
	for _, l := range p.config.Lists {
		if !used[named{"list", l.Name}] {
			p.warnf(p.ranges[l], "name it in a frontend's allow, deny or trusted, or in in_list(), or take it away", "list %q is used by nobody", l.Name)
		}
	}
	for _, l := range p.config.Limits {
		if !used[named{"limit", l.Name}] {
			p.warnf(p.ranges[l], "name it in a frontend or a route: limit = \""+l.Name+"\"", "limit %q is used by nobody", l.Name)
		}
	}
	for _, b := range p.config.Backends {
		if !used[named{"backend", b.Name}] {
			p.warnf(p.ranges[b], "name it in a frontend or a route, or take it away", "backend %q is used by nobody", b.Name)
		}
	}
}

// validateListeners reports frontends that want the same address and port.
func (p *parser) validateListeners() {
	type place struct {
		frontend *Frontend
		rng      hcl.Range
	}
	taken := map[netip.AddrPort]place{}
	byPort := map[uint16][]netip.AddrPort{}
	covers := func(all, one netip.Addr) bool { return all.IsUnspecified() && all.Is4() == one.Is4() }
	for _, l := range p.listeners {
		f := l.frontend
		type addr struct {
			netip.Addr
			vip string
			rng hcl.Range
		}
		var addrs []addr
		for i, name := range f.VIPs {
			if v := p.config.VIP(name); v != nil {
				for _, a := range v.Addresses {
					addrs = append(addrs, addr{a.Addr(), name, l.vips[i]})
				}
			}
		}
		for i, a := range f.Bind {
			addrs = append(addrs, addr{a, "", l.binds[i]})
		}
		ports, ranges := f.Ports, l.ports.plain
		if f.TLS != nil {
			ports, ranges = slices.Concat(ports, f.TLS.Ports), slices.Concat(ranges, l.ports.tls)
		}
		if len(taken)+len(addrs)*len(ports) > maxListeners {
			p.errorf(p.ranges[f], "", "the configuration has more than %d listeners, addresses times ports", maxListeners)
			return
		}
		for i, port := range ports {
			for _, a := range addrs {
				at := netip.AddrPortFrom(a.Addr, port)
				clash, is := taken[at]
				other := at
				if !is {
					// 0.0.0.0 stands for all of its family, and so does ::, since listeners for IPv6 take nothing else.
					for _, o := range byPort[port] {
						if covers(a.Addr, o.Addr()) || covers(o.Addr(), a.Addr) {
							clash, is, other = taken[o], true, o
							break
						}
					}
				}
				if !is {
					taken[at] = place{f, ranges[i]}
					byPort[port] = append(byPort[port], at)
					continue
				}
				where := fmt.Sprintf("it listens on %s in line %d", other, clash.rng.Start.Line)
				if clash.frontend == f {
					p.errorf(a.rng, where, "frontend %q listens twice on %s", f.Name, at)
				} else {
					p.errorf(ranges[i], where, "frontend %q cannot listen on %s: frontend %q has it", f.Name, at, clash.frontend.Name)
				}
			}
		}
	}
}

// validateUses reports what a backend says that its frontends cannot do.
func (p *parser) validateUses() {
	http, tcp := map[string]*Frontend{}, map[string]*Frontend{}
	for _, f := range p.config.Frontends {
		if f.Mode == TCP {
			tcp[f.Backend] = f
			continue
		}
		http[f.Backend] = f
		for _, r := range f.Routes {
			http[r.Backend] = f
		}
	}
	for _, b := range p.config.Backends {
		f := tcp[b.Name]
		if f == nil {
			continue
		}
		at := p.ranges[stickyOf{b}]
		if b.StickyCookie != nil {
			p.errorf(at, `write sticky "table" { key = client }, or balance = "source_hash"`,
				"backend %q has a sticky cookie, and frontend %q speaks tcp, which has none", b.Name, f.Name)
		}
		if t := b.StickyTable; t != nil && t.Key.Source != "client" && t.Key.Source != "" {
			p.errorf(at, "write key = client", "backend %q is sticky by %s, and frontend %q speaks tcp, which has none", b.Name, t.Key.Source, f.Name)
		}
	}
	for _, h := range p.hashed {
		if f := tcp[h.backend.Name]; f != nil && h.backend.HashKey.Source != "client" && h.backend.HashKey.Source != "" {
			p.errorf(h.rng, "write key = client", "backend %q is hashed by %s, and frontend %q speaks tcp, which has none",
				h.backend.Name, h.backend.HashKey.Source, f.Name)
		}
	}
	for _, e := range p.explicit {
		if f := tcp[e.backend.Name]; f != nil && http[e.backend.Name] == nil {
			p.warnf(e.rng, "take it away", "%q has no effect: frontend %q speaks tcp", e.word, f.Name)
		}
	}
}

// validateRoutes reports routes that an earlier one leaves nothing for.
func (p *parser) validateRoutes(f *Frontend) {
	for i, r := range f.Routes[:min(len(f.Routes), maxCompared)] {
		for _, earlier := range f.Routes[:i] {
			if !covers(earlier, r) {
				continue
			}
			hint := "put it before that route, or take it away"
			if covers(r, earlier) {
				hint = "both match the same requests; take one away"
			}
			p.warnf(p.ranges[r], hint, "route %q can never match: route %q in line %d takes every request that it matches",
				r.Name, earlier.Name, earlier.Pos.Line)
			break
		}
	}
}

// covers tells whether a takes every request that b takes. It may say no where the answer is yes, never the other way round.
func covers(a, b *Route) bool {
	within := func(outer, inner []string, covers func(outer, inner string) bool) bool {
		return len(outer) == 0 || len(inner) > 0 && !slices.ContainsFunc(inner, func(i string) bool {
			return !slices.ContainsFunc(outer, func(o string) bool { return covers(o, i) })
		})
	}
	pairs := func(outer, inner []Pair) bool {
		return !slices.ContainsFunc(outer, func(o Pair) bool { return !slices.Contains(inner, o) })
	}
	equal := func(outer, inner string) bool { return outer == inner }
	return within(a.Hosts, b.Hosts, hostCovers) && within(a.Paths, b.Paths, pathCovers) && within(a.Methods, b.Methods, equal) &&
		pairs(a.Headers, b.Headers) && pairs(a.Queries, b.Queries) && pairs(a.Cookies, b.Cookies) &&
		(a.When == nil || b.When != nil && a.When.String() == b.When.String())
}

func hostCovers(outer, inner string) bool {
	suffix, wild := strings.CutPrefix(outer, "*")
	return outer == inner || wild && strings.HasSuffix(inner, suffix)
}

func pathCovers(outer, inner string) bool {
	below, wild := strings.CutSuffix(outer, "/*")
	return outer == inner || wild && (inner == below || strings.HasPrefix(inner, below+"/"))
}
