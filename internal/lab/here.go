package lab

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
)

// Here returns the machine that the program runs on as a Host: what measures from a host of a World measures from a real machine too.
// name is for reports; iface is the interface to look at the wire from. It belongs to no World: its power and its cables are not ours.
func Here(name, iface string) (*Host, error) {
	s, err := hereSpace()
	if err != nil {
		return nil, fmt.Errorf("look at this machine's network: %w", err)
	}
	link, err := s.links.LinkByName(iface)
	if err != nil {
		s.close()
		return nil, fmt.Errorf("interface %s: %w", iface, err)
	}
	addrs, err := s.links.AddrList(link, netlink.FAMILY_V4)
	if err == nil && len(addrs) == 0 {
		err = fmt.Errorf("it has no IPv4 address")
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("interface %s: %w", iface, err)
	}
	addr, _ := netip.AddrFromSlice(addrs[0].IP.To4())
	return &Host{Name: name, Addr: addr, MAC: link.Attrs().HardwareAddr, space: s, link: link}, nil
}
