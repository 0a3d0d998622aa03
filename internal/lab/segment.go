package lab

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Segment is one more switch beside the world's own, for hosts with a second link. Cuts and partitions do not reach it.
type Segment struct {
	Subnet netip.Prefix // IPv4, /24
	world  *World
	bridge netlink.Link
}

// AddSegment adds a switch that no host is attached to yet. The subnet should be another one of 198.18.0.0/15.
func (w *World) AddSegment(name string, subnet netip.Prefix) (*Segment, error) {
	snooping := false
	err := w.sw.links.LinkAdd(&netlink.Bridge{LinkAttrs: linkAttrs(name), MulticastSnooping: &snooping})
	s := &Segment{Subnet: subnet, world: w}
	if err == nil {
		s.bridge, err = w.sw.links.LinkByName(name)
	}
	if err == nil {
		err = w.sw.links.LinkSetUp(s.bridge)
	}
	if err != nil {
		return nil, fmt.Errorf("add segment %s: %w", name, err)
	}
	return s, nil
}

// Attach gives a host a second interface, on this switch, with the address that ends as its other one does. A host that is powered
// off and on comes back without it.
func (s *Segment) Attach(h *Host, iface string) (netip.Addr, error) {
	addr := s.addr(h)
	attrs := linkAttrs(s.port(h))
	attrs.MasterIndex = s.bridge.Attrs().Index
	in := h.ns()
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: iface, PeerNamespace: netlink.NsFd(in.fd)}
	err := s.world.sw.links.LinkAdd(veth)
	if err == nil {
		err = s.Plug(h, true)
	}
	var link netlink.Link
	if err == nil {
		link, err = in.links.LinkByName(iface)
	}
	if err == nil {
		err = in.links.LinkSetUp(link)
	}
	if err == nil {
		err = in.links.AddrAdd(link, addrOf(netip.PrefixFrom(addr, s.Subnet.Bits())))
	}
	if err == nil {
		err = errors.Join(waitUp(s.world.sw, s.port(h)), waitUp(in, iface))
	}
	if err != nil {
		return addr, fmt.Errorf("attach %s to %v: %w", h.Name, s.Subnet, err)
	}
	return addr, nil
}

// Plug puts the host's cable to this switch in, or pulls it.
func (s *Segment) Plug(h *Host, in bool) error {
	set := s.world.sw.links.LinkSetDown
	if in {
		set = s.world.sw.links.LinkSetUp
	}
	port, err := s.world.sw.links.LinkByName(s.port(h))
	if err == nil {
		err = set(port)
	}
	if err != nil {
		return fmt.Errorf("move the plug of %s at %v: %w", h.Name, s.Subnet, err)
	}
	return nil
}

func (s *Segment) port(h *Host) string { return fmt.Sprintf("s%d-%s", s.bridge.Attrs().Index, h.Name) }

func (s *Segment) addr(h *Host) netip.Addr {
	b, last := s.Subnet.Addr().As4(), h.Addr.As4()
	b[3] = last[3]
	return netip.AddrFrom4(b)
}
