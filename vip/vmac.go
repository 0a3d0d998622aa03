package vip

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A VIP with a virtual MAC keeps it wherever it goes, so that a client need not notice that it moved: for those that ignore
// gratuitous ARP, or may learn an address only once. The MAC is one of VRRP's (RFC 9568 section 7.3). It lives on a macvlan of its
// own, which is up only while the VIP is held: a switch sends the MAC's frames to where it last came from, and from a node that
// does not hold it nothing may come. What probes the network before a claim therefore has the MAC of the interface below.

// virtualPrefix begins the name of every such macvlan; the router id follows.
const virtualPrefix = "skein-v"

// virtualMAC is the MAC of a virtual router. A VIP with addresses of both families has the one for IPv4.
func virtualMAC(v *vip) net.HardwareAddr {
	family := byte(2)
	for _, p := range v.prefixes {
		if p.Addr().Is4() {
			family = 1
		}
	}
	return net.HardwareAddr{0, 0, 0x5e, 0, family, v.router}
}

// virtual returns the macvlan of a VIP on the interface below, which it makes if there is none, or another.
func (l *linkLayer) virtual(v *vip, below *device) (*device, error) {
	if below.link.Type() == "macvlan" {
		return nil, fmt.Errorf("interface %s is a macvlan itself, and cannot carry the virtual MAC of vip %s", below.name, v.name)
	}
	name, mac := fmt.Sprintf("%s%d", virtualPrefix, v.router), virtualMAC(v)
	link, err := l.h.LinkByName(name)
	if err == nil && (link.Type() != "macvlan" || link.Attrs().ParentIndex != below.to.Ifindex || !slices.Equal(link.Attrs().HardwareAddr, mac)) {
		if err := l.h.LinkDel(link); err != nil {
			return nil, fmt.Errorf("remove interface %s, which is in the way of the virtual MAC of vip %s: %w", name, v.name, err)
		}
		err = netlink.LinkNotFoundError{}
	}
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.ParentIndex, attrs.HardwareAddr = name, below.to.Ifindex, mac
		// Private: nothing else on this host has to reach it by way of the interface below.
		if err := l.h.LinkAdd(&netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_PRIVATE}); err != nil {
			return nil, fmt.Errorf("make the virtual MAC of vip %s on %s (does the kernel have macvlan?): %w", v.name, below.name, err)
		}
		quiet(name, slices.ContainsFunc(v.prefixes, func(p netip.Prefix) bool { return p.Addr().Is6() }))
		link, err = l.h.LinkByName(name)
	}
	if err != nil {
		return nil, fmt.Errorf("find the virtual MAC of vip %s: %w", v.name, err)
	}
	return newVirtual(link, below), nil
}

// newVirtual is a macvlan as the guard uses it: as good as the interface below, since it is down itself until the VIP is held.
func newVirtual(link netlink.Link, below *device) *device {
	d := newDevice(link)
	d.below, d.up, d.why = below, below.up, below.why
	return d
}

// quiet keeps the kernel from speaking on a macvlan by itself: no address, no question for routers, no membership report may teach
// switches where the MAC is. Replies take the way that the routing table shows, which is not this one: its reverse path is checked
// loosely. What can't be set does not exist in this kernel.
func quiet(name string, six bool) {
	disable := "1"
	if six {
		disable = "0"
	}
	for file, v := range map[string]string{
		"ipv6/conf/%s/disable_ipv6": disable, "ipv6/conf/%s/addr_gen_mode": "1", "ipv6/conf/%s/accept_ra": "0", "ipv6/conf/%s/router_solicitations": "0", "ipv6/conf/%s/accept_dad": "0",
		"ipv4/conf/%s/rp_filter": "2",
	} {
		os.WriteFile(filepath.Join("/proc/sys/net", fmt.Sprintf(file, name)), []byte(v), 0o644)
	}
}

// raise sets a macvlan up before its first address comes, and lower down after its last one has gone. Other interfaces are not ours
// to move.
func (l *linkLayer) raise(d *device) error {
	if d.below == nil {
		return nil
	}
	if err := l.ask.up(d.to.Ifindex, true); err != nil {
		return fmt.Errorf("set %s up: %w", d.name, err)
	}
	return nil
}

func (l *linkLayer) lower(d *device) error {
	if d.below == nil {
		return nil
	}
	if err := l.ask.up(d.to.Ifindex, false); err != nil && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("set %s down: %w", d.name, err)
	}
	return nil
}

// sweepVirtual removes the macvlans that nobody needs: all but those of keep, by index.
func (l *linkLayer) sweepVirtual(keep map[int]bool) error {
	links, err := l.h.LinkList()
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	var errs []error
	for _, link := range links {
		if a := link.Attrs(); strings.HasPrefix(a.Name, virtualPrefix) && link.Type() == "macvlan" && !keep[a.Index] {
			errs = append(errs, l.h.LinkDel(link))
		}
	}
	return errors.Join(errs...)
}
