package vip

import "golang.org/x/sys/unix"

// park puts the addresses of a VIP on the loopback, or prolongs their life there. No ARP is answered for them: the interfaces answer
// for their own addresses only, and the gate is shut.
func (g *guard) park(i int) {
	v := g.m.vips[i]
	lo, err := g.links.loopback()
	for _, p := range v.prefixes {
		if err == nil {
			err = g.links.put(&lo, p.Addr())
		}
	}
	if err != nil {
		g.log.Error("vip not parked: what was established is lost", "vip", v.name, "err", err)
	}
}

// unpark takes them off the loopback.
func (g *guard) unpark(i int) {
	v := g.m.vips[i]
	lo, err := g.links.loopback()
	for _, p := range v.prefixes {
		if err == nil {
			err = g.links.take(&lo, p.Addr())
		}
	}
	if err != nil {
		g.log.Error("parked vip not removed; it goes when its life in the kernel ends", "vip", v.name, "err", err)
	}
}

// loopback is the loopback interface, after making sure that no interface answers ARP for what is on it.
func (l *linkLayer) loopback() (device, error) {
	_, err := l.tune("all")
	return device{name: "lo", to: unix.SockaddrLinklayer{Ifindex: 1}}, err // the same in every namespace, LOOPBACK_IFINDEX of linux/netdevice.h
}
