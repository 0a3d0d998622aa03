package config

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
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
			if n, ok := p.bytesPerSecond(e, quote(d.word)); ok {
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

// bytesPerSecond reads a minimum rate. Who writes a size is told the number.
func (p *parser) bytesPerSecond(e hclsyntax.Expression, what string) (int, bool) {
	v, isString, ok := p.literal(e)
	if !isString {
		return p.integer(e, what, 0, maxRate)
	}
	if !ok {
		return 0, false
	}
	hint := "write how many bytes in a second, as a number: 500"
	if n := sizeOf(strings.TrimSuffix(v, "/s")); n >= 0 && n <= maxRate {
		hint = fmt.Sprintf("write how many bytes in a second, as a number: %d", n)
	}
	p.errorf(e.Range(), hint, "%s wants a number, not %s", what, describe(e))
	return 0, false
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

// Bounds of the caps. A head is read into a buffer of 64 KiB, which holds more than the head alone.
const (
	minHead    = 1 << 10
	maxHead    = 60 << 10
	maxHeaders = 1000
	maxCap     = 100_000_000
)

// caps reads the attributes of Caps into what is inherited.
func (p *parser) caps(b *body, c *Caps, http bool) {
	number := func(word string, to *int, low, high int) {
		if e := b.attr(word); e != nil {
			if n, ok := p.integer(e, quote(word), low, high); ok {
				*to = n
			}
		}
	}
	number("max_connections", &c.Connections, 0, maxCap)
	if !http {
		return
	}
	number("keepalive_requests", &c.Requests, 0, maxCap)
	number("max_headers", &c.Headers, 8, maxHeaders)
	if e := b.attr("max_head"); e != nil {
		if n, ok := p.size(e, `"max_head"`, minHead, maxHead); ok {
			c.Head = int(n)
		}
	}
	if e := b.attr("max_body"); e != nil {
		if n, ok := p.size(e, `"max_body"`, 0, 1<<50); ok {
			c.Body = n
		}
	}
}

// units of sizes.
var units = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}, {"B", 1}}

// size reads a number of bytes: a number, or one with its unit such as "64KiB".
func (s *source) size(e hclsyntax.Expression, what string, low, high int64) (int64, bool) {
	n := int64(-1)
	if f, ok := number(e); ok && f.IsInt() && f.Sign() >= 0 && f.IsInt() {
		n, _ = f.Int64()
	} else if v, isString, _ := s.literal(e); isString {
		n = sizeOf(v)
	}
	if n < 0 {
		s.errorf(e.Range(), `write bytes as a number, or with a unit: "64KiB", "10MiB", "1GiB"`, "%s wants a size, not %s", what, e.Range().SliceBytes(s.src))
		return 0, false
	}
	if n < low || n > high {
		s.errorf(e.Range(), "", "%s must be from %s to %s", what, sizeText(low), sizeText(high))
		return 0, false
	}
	return n, true
}

// sizeOf reads a size with its unit such as "64KiB"; -1: it is none.
func sizeOf(v string) int64 {
	for _, u := range units {
		if digits, ok := strings.CutSuffix(v, u.name); ok {
			k, err := strconv.ParseInt(digits, 10, 64)
			switch {
			case err != nil || k < 0:
				return -1
			case k > math.MaxInt64/u.bytes:
				return math.MaxInt64
			}
			return k * u.bytes
		}
	}
	return -1
}

func sizeText(n int64) string {
	for _, u := range units {
		if n >= u.bytes && n%u.bytes == 0 && u.bytes > 1 {
			return fmt.Sprint(n/u.bytes, u.name)
		}
	}
	return strconv.FormatInt(n, 10)
}

// Bounds of limits.
const (
	defaultClients = 100_000
	maxClients     = 10_000_000
	maxCount       = 1_000_000
)

func (p *parser) limit(c *hclsyntax.Block) {
	l := &Limit{
		Name: p.name(c, "per_client"), Key: StickyKey{Source: "client"}, Status: 429, IPv6Prefix: 64, Size: defaultClients,
		Pos: p.pos(c.DefRange()),
	}
	b := p.read(c, fmt.Sprintf("limit %q", l.Name))
	p.ranges[l] = b.header
	if e := b.attr("key"); e != nil {
		l.Key = p.stickyKey(e, "a limit")
	}
	number := func(word string, to *int, low, high int) {
		if e := b.attr(word); e != nil {
			if n, ok := p.integer(e, quote(word), low, high); ok {
				*to = n
			}
		}
	}
	number("connections", &l.Connections, 1, maxCount)
	if e := b.attr("rate"); e != nil {
		l.Rate = p.rate(e)
		l.Burst = max(1, l.Rate.Count)
		if l.Rate.Per > time.Second { // a minute's worth at once is no limit at all
			l.Burst = max(1, min(l.Rate.Count, int(int64(l.Rate.Count)*int64(10*time.Second)/int64(l.Rate.Per))))
		}
	}
	number("burst", &l.Burst, 1, maxCount)
	number("status", &l.Status, 400, 599)
	number("ipv6_prefix", &l.IPv6Prefix, 32, 128)
	number("size", &l.Size, 100, maxClients)
	switch {
	case !b.has("connections") && !b.has("rate"):
		p.errorf(b.header, `write connections = 20, or rate = "100/s"`, "%s limits nothing", b.what)
	case b.has("burst") && !b.has("rate"):
		p.errorf(b.nameRange("burst"), `write rate = "100/s"`, `"burst" needs a rate`)
	case b.has("connections") && l.Key.Source != "client" && l.Key.Source != "":
		p.errorf(b.nameRange("connections"), "write a limit of its own for it, with key = client", "a connection has no %s", l.Key.Source)
	}
	b.refuse("scope", "leave it out: every node counts what comes to itself")
	b.done()
	if l.Name != "" && p.unique(c, l.Name, "limit") {
		p.config.Limits = append(p.config.Limits, l)
	}
}

// rate reads "100/s".
func (p *parser) rate(e hclsyntax.Expression) Rate {
	v, isString, ok := p.literal(e)
	if isString && !ok {
		return Rate{}
	}
	count, per, _ := strings.Cut(v, "/")
	n, err := strconv.Atoi(count)
	unit := map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour}[per]
	if !isString || err != nil || unit == 0 {
		p.errorf(e.Range(), `write as in "100/s", "600/m" or "1000/h"`, "%s is not a rate", e.Range().SliceBytes(p.src))
		return Rate{}
	}
	if n < 1 || n > maxCount {
		p.errorf(e.Range(), "", "a rate must be from 1 to %d", maxCount)
		return Rate{}
	}
	return Rate{n, unit}
}

// limits reads an attribute that names limits.
func (p *parser) limits(b *body) []string {
	var names []string
	if e := b.attr("limit"); e != nil {
		for _, t := range p.strs(e, `"limit"`) {
			names = append(names, t.string)
			p.refer(toLimit, t, b.what)
			p.limited = append(p.limited, limited{t, b.what, b.kind == "route"})
		}
	}
	return names
}

// limited is a place that names a limit.
type limited struct {
	name  text
	what  string
	route bool
}

// validateLimits reports limits that cannot work where they are named.
func (p *parser) validateLimits() {
	byName := map[string]*Limit{}
	for _, l := range p.config.Limits {
		byName[l.Name] = l
	}
	counting := map[string]string{}
	for _, u := range p.limited {
		l := byName[u.name.string]
		switch {
		case l == nil || l.Connections == 0:
		case u.route:
			p.errorf(u.name.rng, "name it in the frontend", "limit %q counts connections, and %s sees requests", l.Name, u.what)
		case counting[u.what] != "":
			p.errorf(u.name.rng, fmt.Sprintf("%q counts them already", counting[u.what]), "%s has two limits that count connections", u.what)
		default:
			counting[u.what] = l.Name
		}
	}
	for _, f := range p.config.Frontends {
		for _, name := range f.Limits {
			if l := byName[name]; f.Mode == TCP && l != nil && l.Key.Source != "client" && l.Key.Source != "" {
				p.errorf(p.ranges[f], "use a limit with key = client", "frontend %q speaks tcp, and limit %q looks at a %s", f.Name, l.Name, l.Key.Source)
			}
		}
	}
}
