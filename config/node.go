package config

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"

	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// DefaultPort is where the nodes of a cluster reach one another: Raft, API and join by TCP, gossip by UDP; heartbeats go to the
// next port.
const DefaultPort = 7940

// Role is what a node does in its cluster.
type Role uint8

const (
	Balancer Role = iota + 1 // carries traffic and holds addresses
	Witness                  // only votes: no traffic, no addresses
)

func (r Role) String() string {
	switch r {
	case Balancer:
		return "balancer"
	case Witness:
		return "witness"
	}
	return "unknown"
}

// Node is what one host says of itself in its node.hcl.
type Node struct {
	Name      string
	DataDir   string     // absolute
	Advertise netip.Addr // where the other nodes reach this one
	Port      uint16     // one TCP port for Raft, API and join; gossip by UDP on the same, heartbeats by UDP on the next
	Interface string     // where VIPs go; "": the one whose subnet contains the address
	Role      Role
	Metrics   netip.AddrPort // where Prometheus finds this node; the zero one: nowhere

	MaxConnections int // of clients, at once; 0: as many as there are descriptors

	// Heartbeat are further addresses of this host at which its guard is heard, each on a link of its own. The first ones of all nodes
	// belong to one network, and so do the second ones.
	Heartbeat []netip.Addr
}

// ParseNode reads a node.hcl. It reports all mistakes of the file in one run; the *Node is nil exactly when one is an error.
func ParseNode(file string, src []byte) (*Node, Diagnostics) {
	p := newParser(file, src)
	n := p.node()
	p.diags.sort()
	if p.diags.HasErrors() {
		return nil, p.diags
	}
	return n, p.diags
}

func (p *parser) node() *Node {
	tree := p.parse()
	if tree == nil {
		return nil
	}
	start := tree.SrcRange
	start.End = start.Start
	b := &body{source: p.source, kind: "node", what: "node.hcl", body: tree, header: start}
	n := &Node{Port: DefaultPort, Role: Balancer}
	if e := b.attr("name"); e == nil {
		p.errorf(start, `write name = "lb1"`, "%s has no name", b.what)
	} else if v, ok := p.str(e, `"name"`); ok {
		n.Name = v
		if !goodName(v) {
			p.errorf(e.Range(), fmt.Sprintf("use letters, digits, '-', '_' and '.', at most %d, a letter or digit first", maxName),
				"%q cannot be the name of a node", v)
		}
	}
	if e := b.attr("data_dir"); e == nil {
		p.errorf(start, `write data_dir = "/var/lib/skein"`, "%s has no data_dir", b.what)
	} else if v, ok := p.str(e, `"data_dir"`); ok {
		n.DataDir = filepath.Clean(v)
		if !filepath.IsAbs(v) || !visible(v) {
			p.errorf(e.Range(), `write the whole path, as in "/var/lib/skein": where the agent is started must not matter`, "%q is not an absolute path", v)
		}
	}
	if e := b.attr("advertise"); e == nil {
		p.errorf(start, `write advertise = "198.51.100.1", the address at which the other nodes reach this one`, "%s has no advertise", b.what)
	} else if v, ok := p.str(e, `"advertise"`); ok {
		n.Advertise = p.advertise(text{v, e.Range()})
	}
	if e := b.attr("port"); e != nil {
		// The last one is left to the heartbeats.
		if v, ok := p.integer(e, `"port"`, 1, 65534); ok {
			n.Port = uint16(v)
		}
	}
	if e := b.attr("interface"); e != nil {
		n.Interface, _ = b.interfaceName(e)
	}
	if e := b.attr("metrics"); e != nil {
		if v, ok := p.str(e, `"metrics"`); ok {
			n.Metrics = p.metrics(text{v, e.Range()})
		}
	}
	if e := b.attr("role"); e != nil {
		if v, _ := p.oneOf(e, `"role"`, Balancer.String(), Witness.String()); v == Witness.String() {
			n.Role = Witness
		}
	}
	if e := b.attr("heartbeat"); e != nil {
		n.Heartbeat = p.heartbeat(e, n.Advertise)
	}
	if e := b.attr("max_connections"); e != nil {
		n.MaxConnections, _ = p.integer(e, `"max_connections"`, 0, maxCap)
	}
	b.misplaced("pair", `"pair" belongs to the cluster, not to one host`, `write cluster { pair = "tiebreak" } into the cluster's configuration: skein apply FILE`)
	for _, word := range []string{"vip", "frontend", "backend", "defaults", "log", "cluster"} {
		b.misplaced(word, fmt.Sprintf("%q belongs to the cluster, not to one host", word), "write it into the cluster's configuration: skein apply FILE")
	}
	b.done()
	return n
}

// maxHeartbeat is how many addresses heartbeat may have, beside advertise.
const maxHeartbeat = 2

func (p *parser) heartbeat(e hclsyntax.Expression, advertise netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, t := range p.strs(e, `"heartbeat"`) {
		before := len(p.diags)
		a := p.advertise(t)
		switch {
		case len(p.diags) > before:
		case a == advertise:
			p.errorf(t.rng, "heartbeats go there anyway: name the address that this host has on another network", "%s is the address in advertise", a)
		case slices.Contains(out, a):
			p.errorf(t.rng, "", `"heartbeat" has %s twice`, a)
		case len(out) == maxHeartbeat:
			p.errorf(t.rng, "", `"heartbeat" has more than %d addresses`, maxHeartbeat)
			return out
		default:
			out = append(out, a)
		}
	}
	return out
}

// metrics reads where Prometheus finds the node.
func (p *parser) metrics(t text) netip.AddrPort {
	a, err := netip.ParseAddrPort(t.string)
	if err == nil && a.Port() != 0 {
		return a
	}
	hint := `write an address with its port, as in "127.0.0.1:7942"`
	if addr, err := netip.ParseAddr(t.string); err == nil {
		hint = fmt.Sprintf("write the port, too: %q", netip.AddrPortFrom(addr, 7942))
	}
	p.errorf(t.rng, hint, "%q is not an address with a port", t.string)
	return netip.AddrPort{}
}

func (p *parser) advertise(t text) netip.Addr {
	a, err := netip.ParseAddr(t.string)
	switch {
	case err != nil:
		hint := `write an address, as in "198.51.100.1"`
		if _, err := netip.ParseAddrPort(t.string); err == nil {
			hint = "write the address alone; the port has an attribute of its own"
		}
		p.errorf(t.rng, hint, "%q is not an address", t.string)
	case a.Is4In6():
		p.mapped(t, a)
	case a.Zone() != "", a.Is6() && a.IsLinkLocalUnicast():
		p.errorf(t.rng, "use a global address of this host, or one of fd00::/8", "%s is good on one link alone", a)
	case !ofHost(a):
		p.errorf(t.rng, "write the address of this host that the other nodes reach", "%s is not the address of a host", a)
	}
	return a
}
