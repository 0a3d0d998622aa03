package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

func (p *parser) vip(c *hclsyntax.Block) {
	v := &VIP{Name: p.name(c, "public"), Pos: p.pos(c.DefRange())}
	b := p.read(c, fmt.Sprintf("vip %q", v.Name))
	if e := b.attr("address"); e != nil {
		for _, t := range p.strs(e, `"address"`) {
			if a, ok := p.vipAddress(t, b.has("interface")); ok {
				v.Addresses = append(v.Addresses, a)
				p.noteVIPAddress(v, a, t.rng)
			}
		}
	} else {
		p.errorf(b.header, `write address = "192.0.2.10/24"`, "%s has no address", b.what)
	}
	if e := b.attr("interface"); e != nil {
		v.Interface, _ = b.interfaceName(e)
	}
	if e := b.attr("prefer"); e != nil {
		for _, t := range p.strs(e, `"prefer"`) {
			if !goodName(t.string) {
				p.errorf(t.rng, "", "%q cannot be the name of a node", t.string)
				continue
			}
			if slices.Contains(v.Prefer, t.string) {
				p.errorf(t.rng, "", "\"prefer\" has %q twice", t.string)
				continue
			}
			v.Prefer = append(v.Prefer, t.string)
		}
	}
	b.timeout("failback", &v.Failback)
	if v.Failback > 0 && len(v.Prefer) == 0 && !b.has("prefer") {
		p.errorf(b.nameRange("failback"), `say to which node: prefer = ["lb1", "lb2"]`, "%s has a failback but no prefer", b.what)
	}
	if e := b.attr("group"); e != nil {
		if s, ok := p.str(e, `"group"`); ok && !goodName(s) {
			p.errorf(e.Range(), "", "%q cannot be the name of a group", s)
		} else if ok {
			v.Group = s
			p.noteGroup(v, b.valueRange("group"))
		}
	}
	if e := b.attr("virtual_mac"); e != nil {
		if id, ok := p.integer(e, `"virtual_mac"`, 1, 255); ok {
			v.RouterID = id
			p.noteRouter(v, e.Range())
		}
	}
	if e := b.attr("minimum_servers"); e != nil {
		v.MinimumServers, _ = p.integer(e, `"minimum_servers"`, 1, 1000)
	}
	b.misplaced("password", `"password" is not needed`, "nodes know each other by the certificates of the cluster")
	b.misplaced("virtual_router_id", `"virtual_router_id" is not needed`, `to join a group of keepalived's, write vrrp { router_id = 51 }`)
	b.misplaced("priority", `"priority" is a word of VRRP`, `rank the nodes with prefer = ["lb1", "lb2"]`)
	p.vrrp(v, b)
	b.done()
	if v.Name != "" && p.unique(c, v.Name, "vip") {
		p.config.VIPs = append(p.config.VIPs, v)
	}
}

// vrrp reads the VRRP group of a vip.
func (p *parser) vrrp(v *VIP, of *body) {
	b := of.plain("vrrp")
	if b == nil {
		return
	}
	r := &VRRP{Version: 3, Priority: 100, Interval: time.Second}
	small := func(name string, to *uint8, low, high int) {
		if e := b.attr(name); e != nil {
			n, _ := p.integer(e, fmt.Sprintf("%q", name), low, high)
			*to = uint8(n)
		}
	}
	small("router_id", &r.RouterID, 1, 255)
	if !b.has("router_id") {
		p.errorf(b.header, "write router_id = 51, the virtual_router_id of the other routers", "%s has no router_id", b.what)
	}
	small("version", &r.Version, 2, 3)
	small("priority", &r.Priority, 1, 254)
	step, longest := 10*time.Millisecond, 40950*time.Millisecond
	if r.Version == 2 {
		step, longest = time.Second, 255*time.Second
	}
	if e := b.attr("interval"); e != nil {
		if d, ok := p.duration(e, `"interval"`, step, longest); ok {
			r.Interval = d
			if d%step != 0 {
				p.errorf(e.Range(), "", "version %d of VRRP counts its interval in steps of %v", r.Version, step)
			}
		}
	}
	if e := b.attr("preempt"); e != nil {
		r.Preempt, _ = p.boolean(e, `"preempt"`)
	}
	b.done()
	four, six := 0, 0
	for _, a := range v.Addresses {
		if a.Addr().Is4() {
			four++
		} else {
			six++
		}
	}
	switch {
	case four > 0 && six > 0:
		p.errorf(b.header, "write two vips, one for each family, and put them into one group", "%s has addresses of two families: a virtual router has one", b.what)
	case six > 0 && r.Version == 2:
		p.errorf(b.header, "write version = 3", "%s has IPv6 addresses, which version 2 does not know", b.what)
	}
	if a := b.body.Attributes["router_id"]; a != nil && r.RouterID != 0 {
		p.noteVRRP(v, r.RouterID, a.Expr.Range())
	}
	if v.RouterID != 0 {
		p.errorf(of.nameRange("virtual_mac"), "leave one of them out: in a group with VRRP routers the addresses have the MAC of whoever holds them",
			"%s has both vrrp and virtual_mac", of.what)
	}
	v.VRRP = r
}

// ranking is the VIP that says which nodes its group prefers, and where it says so.
type ranking struct {
	of  *VIP
	rng hcl.Range
}

// noteRouter reports a virtual MAC that another VIP has: they may be held by two nodes, which one MAC cannot serve.
func (p *parser) noteRouter(v *VIP, rng hcl.Range) {
	type router int
	if first, ok := p.ranges[router(v.RouterID)]; ok {
		p.errorf(rng, fmt.Sprintf("the first is in line %d; list addresses that move together in one vip", first.Start.Line),
			"vip %q has virtual_mac = %d, which is taken", v.Name, v.RouterID)
		return
	}
	p.ranges[router(v.RouterID)] = rng
}

// noteVRRP reports a VRRP group that another VIP is in, on the same network: the two would answer each other's advertisements.
func (p *parser) noteVRRP(v *VIP, id uint8, rng hcl.Range) {
	type onNetwork struct {
		network netip.Prefix
		id      uint8
	}
	type onInterface struct {
		name string
		four bool
		id   uint8
	}
	var keys []any
	for _, a := range v.Addresses {
		keys = append(keys, onNetwork{a.Masked(), id})
		if v.Interface != "" {
			keys = append(keys, onInterface{v.Interface, a.Addr().Is4(), id})
		}
	}
	for _, k := range keys {
		if first, ok := p.ranges[k]; ok && first != rng {
			p.errorf(rng, fmt.Sprintf("the first is in line %d; list addresses that move together in one vip", first.Start.Line),
				"vip %q has router_id = %d, which is taken on its network", v.Name, id)
			return
		}
		p.ranges[k] = rng
	}
}

// noteGroup reports a VIP that ranks the nodes otherwise than another of its group: they move together.
func (p *parser) noteGroup(v *VIP, rng hcl.Range) {
	if len(v.Prefer) == 0 {
		return
	}
	first, ok := p.groups[v.Group]
	if !ok {
		p.groups[v.Group] = ranking{v, rng}
		return
	}
	if !slices.Equal(first.of.Prefer, v.Prefer) || first.of.Failback != v.Failback {
		p.errorf(rng, fmt.Sprintf("vips of a group move together: write prefer and failback in one of them, the first is %q in line %d",
			first.of.Name, first.rng.Start.Line), "vip %q ranks the nodes otherwise than the rest of group %q", v.Name, v.Group)
	}
}

// vipAddress reads an address that a node can hold, with its subnet's length.
func (p *parser) vipAddress(t text, hasInterface bool) (netip.Prefix, bool) {
	var none netip.Prefix
	a, err := netip.ParsePrefix(t.string)
	if err != nil {
		if addr, err := netip.ParseAddr(t.string); err == nil {
			switch {
			case addr.Is4In6():
				p.mapped(t, addr)
			case addr.Zone() != "":
				p.errorf(t.rng, "leave out everything from the % on, and name the interface: interface = \"eth0\"", "%q names a zone", t.string)
			default:
				p.errorf(t.rng, fmt.Sprintf("write the length of its subnet too, as the interface has it: %q", fmt.Sprintf("%s/%d", addr, usualBits(addr))),
					"%q has no subnet", t.string)
			}
			return none, false
		}
		p.errorf(t.rng, `write an address and the length of its subnet, as in "192.0.2.10/24"`, "%q is not an address", t.string)
		return none, false
	}
	addr := a.Addr()
	switch {
	case addr.Is4In6():
		p.mapped(t, addr)
	case addr.IsLoopback():
		p.errorf(t.rng, fmt.Sprintf("for a listener on this host alone, write bind = [%q] in the frontend", addr), "%s cannot move: it is a loopback address", addr)
	case !ofHost(addr):
		p.errorf(t.rng, "", "%s is not the address of a host", addr)
	case addr.Is6() && addr.IsLinkLocalUnicast():
		p.errorf(t.rng, "use a global address, or one of fd00::/8", "%s is good on one link alone: no listener can be bound to it without naming that", addr)
	case a.Bits() == 0:
		p.errorf(t.rng, fmt.Sprintf("write the length that the interface has, as in %q", fmt.Sprintf("%s/%d", addr, usualBits(addr))), "%s is no subnet", a)
	case addr.Is6() && a.Bits() < 127 && a.Masked().Addr() == addr:
		p.errorf(t.rng, fmt.Sprintf("write the address itself, as in %q", fmt.Sprintf("%s/%d", addr.Next(), a.Bits())),
			"%s is the address of the subnet's routers, not of a host", addr)
	case addr.Is6():
		if a.Bits() == 128 && !hasInterface {
			p.noSubnet(t, a)
			return none, false
		}
		return a, true
	case a.Bits() < 31 && a.Masked().Addr() == addr:
		p.errorf(t.rng, fmt.Sprintf("write the address itself, as in %q", fmt.Sprintf("%s/%d", addr.Next(), a.Bits())),
			"%s is the address of the network, not of a host", addr)
	case a.Bits() < 31 && last(a) == addr:
		p.errorf(t.rng, "", "%s is the broadcast address of its network", addr)
	case a.Bits() == 32 && !hasInterface:
		p.noSubnet(t, a)
	default:
		return a, true
	}
	return none, false
}

// last is the last address of an IPv4 network.
func last(n netip.Prefix) netip.Addr {
	b := n.Addr().As4()
	for i := n.Bits(); i < 32; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	return netip.AddrFrom4(b)
}

func (p *source) noSubnet(t text, a netip.Prefix) {
	p.errorf(t.rng, `write the length of the interface's subnet, or name the interface: interface = "eth0"`,
		"%s says of no interface that it belongs there", a)
}

// ofHost is whether an address can be that of one host, of either family.
func ofHost(a netip.Addr) bool {
	if a.Is4() {
		b := a.As4()
		return b[0] != 0 && b[0] < 224
	}
	return !a.IsUnspecified() && !a.IsMulticast()
}

// usualBits is the length that subnets of the address's family mostly have, for hints.
func usualBits(a netip.Addr) int {
	if a.Is4() {
		return 24
	}
	return 64
}

func (p *source) mapped(t text, addr netip.Addr) {
	p.errorf(t.rng, fmt.Sprintf("write %s", addr.Unmap()), "%q is an IPv4 address in IPv6 clothes", t.string)
}

// interfaceName reads the name of a network interface.
func (b *body) interfaceName(e hclsyntax.Expression) (string, bool) {
	v, ok := b.str(e, `"interface"`)
	if !ok {
		return "", false
	}
	// The kernel's rule (dev_valid_name), and nothing that hurts in a log.
	if v == "" || len(v) > 15 || v == "." || v == ".." || strings.ContainsFunc(v, func(r rune) bool { return r <= ' ' || r > '~' || r == '/' || r == ':' }) {
		b.errorf(e.Range(), "an interface has 1 to 15 characters, as in \"eth0\"", "%q cannot be the name of an interface", v)
		return "", false
	}
	return v, true
}
