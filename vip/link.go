package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// validLife is how long the kernel keeps an address by itself, in seconds: it sweeps after guard and agent have both died.
const validLife = 3

// linkLayer puts addresses on interfaces and takes them off.
type linkLayer struct {
	h       *netlink.Handle // for what is done now and then
	ask     *asker          // for what is done every second
	tuned   map[string]*tuning
	lo      unix.Ifreq
	eventFd int
	buf     [8192]byte
}

// device is an interface as the guard uses it.
type device struct {
	name  string
	link  netlink.Link
	mac   net.HardwareAddr
	below *device // the interface that a macvlan of ours is on; nil: it is none
	up    bool
	why   string                 // why it is not up
	to    unix.SockaddrLinklayer // broadcast
}

// bottom is the interface below, or d itself.
func (d *device) bottom() *device {
	if d.below != nil {
		return d.below
	}
	return d
}

func openLinks() (*linkLayer, error) {
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	h.SetSocketTimeout(500_000_000)
	ask, err := openAsker(unix.NETLINK_ROUTE)
	if err != nil {
		h.Close()
		return nil, err
	}
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		panic(err) // it fits
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_LINK})
	}
	if err != nil {
		h.Close()
		ask.close()
		return nil, fmt.Errorf("watch addresses and links: %w", err)
	}
	return &linkLayer{h: h, ask: ask, tuned: map[string]*tuning{}, lo: *lo, eventFd: fd}, nil
}

// find is the interface for a VIP: its macvlan, when it has a virtual MAC, on the one that findBelow returns.
func (l *linkLayer) find(v *vip) (*device, error) {
	d, err := l.findBelow(v)
	if err == nil && v.router != 0 {
		d, err = l.virtual(v, d)
	}
	return d, err
}

// findBelow is the interface that is named, or the one with an address in the subnet of one of the VIP's.
func (l *linkLayer) findBelow(v *vip) (*device, error) {
	if v.dev != "" {
		link, err := l.h.LinkByName(v.dev)
		if err != nil {
			return nil, fmt.Errorf("interface %s of vip %s: %w", v.dev, v.name, err)
		}
		return newDevice(link), nil
	}
	links, err := l.h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, want := range v.prefixes {
		for _, link := range links {
			if link.Attrs().Flags&net.FlagLoopback == 0 && l.reaches(link, want.Addr()) {
				return newDevice(link), nil
			}
		}
	}
	return nil, fmt.Errorf("no interface has an address in the subnet of %v; name one: interface = \"eth0\" in vip %q", v.prefixes[0].Addr(), v.name)
}

// reaches is whether an address of the link has a in its subnet.
func (l *linkLayer) reaches(link netlink.Link, a netip.Addr) bool {
	addrs, err := l.h.AddrList(link, family(a))
	if err != nil {
		return false
	}
	for _, have := range addrs {
		ip, ok := netip.AddrFromSlice(have.IP)
		ones, _ := have.Mask.Size()
		if ip = ip.Unmap(); ok && ones < ip.BitLen() && netip.PrefixFrom(ip, ones).Contains(a) {
			return true
		}
	}
	return false
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// again looks at a device that was found before. An error says that it is gone, or was never there; what merely could not be
// read now is as it was, since a VIP must not fall because a netlink call was interrupted.
func (l *linkLayer) again(d *device) (*device, error) {
	if d == nil {
		return nil, errors.New("no device yet")
	}
	link, err := l.h.LinkByIndex(d.to.Ifindex)
	var gone netlink.LinkNotFoundError
	switch {
	case errors.As(err, &gone) || errors.Is(err, unix.ENODEV):
		return nil, err
	case err != nil:
		return d, nil
	case d.below != nil:
		below, err := l.again(d.below)
		if err != nil {
			return nil, err
		}
		return newVirtual(link, below), nil
	}
	return newDevice(link), nil
}

func newDevice(link netlink.Link) *device {
	a := link.Attrs()
	d := &device{name: a.Name, link: link, mac: a.HardwareAddr}
	// IFF_RUNNING, as the kernel's own word that frames can flow; a link without a carrier has lost it.
	switch {
	case len(a.HardwareAddr) != 6:
		d.why = fmt.Sprintf("interface %s is not Ethernet", d.name)
	case a.RawFlags&unix.IFF_UP == 0:
		d.why = fmt.Sprintf("interface %s is down", d.name)
	case a.RawFlags&unix.IFF_RUNNING == 0:
		d.why = fmt.Sprintf("interface %s has no carrier", d.name)
	default:
		d.up = true
	}
	d.to = unix.SockaddrLinklayer{Ifindex: a.Index, Halen: 6, Addr: [8]byte{255, 255, 255, 255, 255, 255}}
	return d
}

// put adds an address or prolongs its life.
func (l *linkLayer) put(d *device, a netip.Addr) error {
	err := l.ask.address(d.to.Ifindex, a, validLife)
	switch {
	case err == nil:
		return nil
	case a.Is6() && errors.Is(err, unix.EACCES): // rights that are missing are EPERM
		return fmt.Errorf("put %v on %s: IPv6 is disabled on %[2]s (net.ipv6.conf.%[2]s.disable_ipv6)", a, d.name)
	}
	return fmt.Errorf("put %v on %s: %w", a, d.name, err)
}

// take removes an address. That it was not there is no error.
func (l *linkLayer) take(d *device, a netip.Addr) error {
	err := l.ask.address(d.to.Ifindex, a, 0)
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("take %v off %s: %w", a, d.name, err)
	}
	return nil
}

// sweep removes what a former life left: each /32 and /128 of addrs, on the loopback only what has a life as short as ours.
func (l *linkLayer) sweep(addrs map[netip.Addr]bool) (swept []string, err error) {
	links, err := l.h.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	for _, link := range links {
		loopback := link.Attrs().Flags&net.FlagLoopback != 0
		list, err := l.h.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return swept, fmt.Errorf("list addresses of %s: %w", link.Attrs().Name, err)
		}
		for _, a := range list {
			ip, _ := netip.AddrFromSlice(a.IP)
			ip = ip.Unmap()
			if ones, bits := a.Mask.Size(); ones == bits && addrs[ip] && (!loopback || a.ValidLft <= validLife) {
				if err := l.take(newDevice(link), ip); err != nil {
					return swept, err
				}
				swept = append(swept, fmt.Sprintf("%v on %s", ip, link.Attrs().Name))
			}
		}
	}
	return swept, nil
}

// events drains the kernel's news. removed is called for each address that went away; links is whether an interface changed, added
// whether an address came.
func (l *linkLayer) events(removed func(index int, a netip.Addr)) (links, added bool) {
	for {
		n, err := unix.Read(l.eventFd, l.buf[:])
		if errors.Is(err, unix.ENOBUFS) {
			return true, true // some were lost: look at everything
		}
		if err != nil || n <= 0 {
			return links, added
		}
		for b := l.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			size, typ := int(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint16(b[4:])
			if size < unix.SizeofNlMsghdr || size > len(b) {
				break
			}
			switch typ {
			case unix.RTM_NEWLINK, unix.RTM_DELLINK:
				links = true
			case unix.RTM_NEWADDR:
				added = true
			case unix.RTM_DELADDR:
				if index, a, ok := parseAddr(b[unix.SizeofNlMsghdr:size]); ok {
					removed(index, a)
				}
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// parseAddr reads the local address out of an ifaddrmsg. IPv6 has it in IFA_ADDRESS, and in IFA_LOCAL only on a point-to-point link.
func parseAddr(b []byte) (index int, a netip.Addr, ok bool) {
	if len(b) < unix.SizeofIfAddrmsg {
		return 0, a, false
	}
	fam := b[0]
	index = int(binary.NativeEndian.Uint32(b[4:]))
	for b = b[unix.SizeofIfAddrmsg:]; len(b) >= 4; {
		size, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if size < 4 || size > len(b) {
			break
		}
		switch {
		case fam == unix.AF_INET && typ == unix.IFA_LOCAL && size == 8:
			return index, netip.AddrFrom4([4]byte(b[4:8])), true
		case fam == unix.AF_INET6 && typ == unix.IFA_LOCAL && size == 20:
			return index, netip.AddrFrom16([16]byte(b[4:20])), true
		case fam == unix.AF_INET6 && typ == unix.IFA_ADDRESS && size == 20:
			a, ok = netip.AddrFrom16([16]byte(b[4:20])), true
		}
		b = b[min((size+3)&^3, len(b)):]
	}
	return index, a, ok
}

func (l *linkLayer) close() {
	for name := range l.tuned {
		l.forget(name)
	}
	l.h.Close()
	l.ask.close()
	unix.Close(l.eventFd)
}
