package vip

import (
	"errors"
	"net/netip"

	"golang.org/x/sys/unix"
)

// park puts the addresses of a VIP on the loopback, or prolongs their life there. No ARP is answered for them: the interfaces answer
// for their own addresses only, and the gate is shut.
func (g *guard) park(i int) {
	if err := g.links.onLoopback(g.m.vips[i], g.links.put); err != nil {
		g.log.Error("vip not parked: what was established is lost", "vip", g.m.vips[i].name, "err", err)
	}
}

// unpark takes them off the loopback.
func (g *guard) unpark(i int) {
	if err := g.links.onLoopback(g.m.vips[i], g.links.take); err != nil {
		g.log.Error("parked vip not removed; it goes when its life in the kernel ends", "vip", g.m.vips[i].name, "err", err)
	}
}

// onLoopback does something with every address of a VIP: IPv6, say, may be disabled there, and that is no reason to lose the rest.
func (l *linkLayer) onLoopback(v *vip, do func(*device, netip.Addr) error) error {
	lo, err := l.loopback()
	if err != nil {
		return err
	}
	for _, p := range v.prefixes {
		err = errors.Join(err, do(&lo, p.Addr()))
	}
	return err
}

// loopback is the loopback interface, after making sure that no interface answers ARP for what is on it.
func (l *linkLayer) loopback() (device, error) {
	_, err := l.tune("all")
	return device{name: "lo", to: unix.SockaddrLinklayer{Ifindex: 1}}, err // the same in every namespace, LOOPBACK_IFINDEX of linux/netdevice.h
}
