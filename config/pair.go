package config

import (
	"net/netip"
	"slices"
)

// Pairing is what two balancers without a third voter do when they lose sight of one another. A nil Pairing is nothing: the addresses stay with
// whoever has a majority.
type Pairing struct {
	Mode     PairMode
	Tiebreak []netip.Addr // what PairTiebreak asks; empty: the host's default gateway
	Pos      Pos
}

// PairMode is a way for two nodes to do without a majority.
type PairMode uint8

const (
	PairTiebreak PairMode = iota + 1
	PairAvailable
)

func (m PairMode) String() string {
	switch m {
	case PairTiebreak:
		return "tiebreak"
	case PairAvailable:
		return "available"
	}
	return "unknown"
}

// maxTiebreak bounds the addresses that are asked. Each gets a packet per node, every 50 ms while the peer is not heard.
const maxTiebreak = 4

// cluster reads the block about the cluster as a whole.
func (p *parser) cluster(b *body) {
	pair := &Pairing{Pos: p.pos(b.header)}
	if e := b.attr("pair"); e == nil {
		p.errorf(b.header, `write pair = "tiebreak" or pair = "available", or leave the block out`, "%s says nothing", b.what)
	} else {
		switch v, _ := p.oneOf(e, `"pair"`, PairTiebreak.String(), PairAvailable.String()); v {
		case PairTiebreak.String():
			pair.Mode = PairTiebreak
		case PairAvailable.String():
			pair.Mode = PairAvailable
		}
	}
	if e := b.attr("tiebreak"); e != nil {
		for _, t := range p.strs(e, `"tiebreak"`) {
			a, err := netip.ParseAddr(t.string)
			switch {
			case err != nil:
				p.errorf(t.rng, `write an address that answers ping, as in "192.0.2.1"`, "%q is not an address", t.string)
			case a.Is4In6():
				p.mapped(t, a)
			case a.Zone() != "", a.Is6() && a.IsLinkLocalUnicast():
				p.errorf(t.rng, "use a global address, or one of fd00::/8", "%s is good on one link alone", a)
			case !ofHost(a), a.IsLoopback():
				p.errorf(t.rng, "write the address of a router or another host that both nodes reach", "%s says nothing about the network", a)
			case slices.Contains(pair.Tiebreak, a):
				p.errorf(t.rng, "", `"tiebreak" has %s twice`, a)
			case len(pair.Tiebreak) == maxTiebreak:
				p.errorf(t.rng, "", `"tiebreak" has more than %d addresses`, maxTiebreak)
			default:
				pair.Tiebreak = append(pair.Tiebreak, a)
			}
		}
		if pair.Mode == PairAvailable {
			p.errorf(b.nameRange("tiebreak"), `write pair = "tiebreak", or take it away`, `"tiebreak" means nothing to pair = "available", which asks nobody`)
		}
	}
	b.done()
	p.ranges[pair] = b.valueRange("tiebreak")
	p.config.Pair = pair
}

// validatePair reports addresses that cannot break a tie: whoever holds a VIP reaches it in any case.
func (p *parser) validatePair() {
	c := p.config.Pair
	if c == nil {
		return
	}
	for _, v := range p.config.VIPs {
		for _, a := range v.Addresses {
			if slices.Contains(c.Tiebreak, a.Addr()) {
				p.errorf(p.ranges[c], "name a router or another host that both nodes reach", "%s is an address of vip %q: whoever holds it reaches it", a.Addr(), v.Name)
			}
		}
	}
}
