package config

import (
	"fmt"
	"net/netip"
	"time"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// maxRate bounds a minimum rate. Who wants more than this of every client means something else.
const maxRate = 1 << 20

// minRate reads how fast a client must be, into what is inherited.
func (p *parser) minRate(b *body, r *MinRate) {
	m := b.plain("min_rate")
	if m == nil {
		return
	}
	m.kind = "min_rate"
	for _, d := range []struct {
		word string
		to   *int
	}{{"request", &r.Request}, {"response", &r.Response}} {
		if e := m.attr(d.word); e != nil {
			if n, ok := p.integer(e, quote(d.word), 0, maxRate); ok {
				*d.to = n
			}
		}
	}
	if e := m.attr("grace"); e != nil {
		if d, ok := p.duration(e, `"grace"`, 100*time.Millisecond, time.Hour); ok {
			r.Grace = d
		}
	}
	m.done()
}

// list reads a named set of addresses. It may be empty: then it is filled at run time.
func (p *parser) list(c *hclsyntax.Block) {
	l := &List{Name: p.name(c, "office"), Pos: p.pos(c.DefRange())}
	b := p.read(c, fmt.Sprintf("list %q", l.Name))
	p.ranges[l] = b.header
	if e := b.attr("cidrs"); e != nil {
		seen := map[netip.Prefix]bool{}
		for _, t := range p.strs(e, `"cidrs"`) {
			n, ok := p.network(t)
			if ok && seen[n] {
				p.errorf(t.rng, "", `"cidrs" has %s twice`, n)
				continue
			}
			if ok {
				l.CIDRs = append(l.CIDRs, n)
				seen[n] = true
			}
		}
	}
	b.done()
	if l.Name != "" && p.unique(c, l.Name, "list") {
		p.config.Lists = append(p.config.Lists, l)
	}
}

// lists reads an attribute that names lists.
func (p *parser) lists(b *body, word string) []string {
	var names []string
	if e := b.attr(word); e != nil {
		for _, t := range p.strs(e, quote(word)) {
			if _, err := netip.ParsePrefix(t.string); err == nil {
				p.errorf(t.rng, fmt.Sprintf("write list %q { cidrs = [%q] }, and its name here", "office", t.string), "%q is not the name of a list", t.string)
				continue
			}
			names = append(names, t.string)
			p.refer(toList, t, b.what)
		}
	}
	return names
}
