package vip

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/vip/vrrp"
)

// VRRP makes a VIP one of a VRRP group: the node that holds its lease takes part as a router, and puts the addresses on the link while
// it is the group's active one. The lease says who of this cluster may; VRRP says whether the routers that are not skein let it.
type VRRP struct {
	ID       uint8
	Version  uint8 // 2 or 3
	Priority uint8
	Interval time.Duration
	Preempt  bool
}

// config is what the router of v's addresses is made of, but for its own address.
func (c *VRRP) config(prefixes []netip.Prefix) vrrp.Config {
	conf := vrrp.Config{
		ID: c.ID, Version: vrrp.Version(c.Version), Priority: c.Priority, Interval: c.Interval, Preempt: c.Preempt,
	}
	for _, p := range prefixes {
		conf.Addresses = append(conf.Addresses, p.Addr())
	}
	return conf
}

// Router is a VIP's standing in its VRRP group, for people.
type Router struct {
	ID     uint8
	State  string // "initialize": this node does not hold the lease and takes no part
	Active string // address of the router that is active; empty: this node, or nobody is known
	Why    string // it takes no part although it holds the lease
}

// router is a VIP's part in its group: the state machine and its socket.
type router struct {
	*vrrp.Router
	set    VRRP
	vip    VIP // as it was when the router was made
	fd     int // -1: takes no part
	to     netip.Addr
	sa     unix.Sockaddr
	out    []byte
	heard  vrrp.Advert
	why    string
	warned string // the last reason for which an advertisement was dropped that was logged
}

// routed reports whether the addresses of VIP i may be on the link as far as its VRRP group goes: there is none, or we are active.
func (g *guard) routed(i int) bool {
	r := g.routers[g.m.vips[i].name]
	return r == nil || r.Router != nil && r.State() == vrrp.Active
}

// setRouters takes over which VIPs of s are in a group; regrouped decides.
func (g *guard) setRouters(s *Setup) {
	for name, r := range g.routers {
		i := slices.IndexFunc(s.VIPs, func(v VIP) bool { return v.Name == name })
		var is *VRRP
		same := false
		if i >= 0 {
			v := &s.VIPs[i]
			is, same = v.VRRP, slices.Equal(v.Addresses, r.vip.Addresses) && v.Interface == r.vip.Interface
		}
		to := regrouped(&r.set, r.Router != nil && r.State() == vrrp.Active, same, is)
		if to.keep {
			continue
		}
		if to.resign {
			r.resign()
		}
		r.close()
		delete(g.routers, name)
		g.regroup(s, i, to)
	}
	for i := range s.VIPs {
		if v := &s.VIPs[i]; v.VRRP != nil && g.routers[v.Name] == nil {
			g.regroup(s, i, regrouped(nil, false, false, v.VRRP))
		}
	}
}

// regroup does what was decided for the i-th VIP of s; i < 0: it is gone.
func (g *guard) regroup(s *Setup, i int, to regroup) {
	if i < 0 {
		return
	}
	v := &s.VIPs[i]
	if to.enter {
		g.routers[v.Name] = &router{set: *v.VRRP, vip: *v, fd: -1}
	}
	k := g.vipIndex(v.Name)
	switch {
	case k < 0 || !g.m.vips[k].held:
	case to.enter:
		g.join(k, to.assume)
	case to.link:
		g.put(k)
		g.m.vips[k].announceN, g.m.vips[k].announceAt = 0, g.now()
	}
}

func (g *guard) vipIndex(name string) int {
	return slices.IndexFunc(g.m.vips, func(v *vip) bool { return v.name == name })
}

// join takes part in the group of VIP i. holding says that its addresses are on the link already. Who has the VIP from another node of
// this cluster, which was active, goes on as active (routing.go).
func (g *guard) join(i int, holding bool) {
	v := g.m.vips[i]
	r := g.routers[v.name]
	conf := r.set.config(v.prefixes)
	local, err := g.links.primary(g.devs[i], conf.Addresses)
	if err == nil {
		conf.Local = local
		err = r.open(conf, g.devs[i])
	}
	if err != nil {
		if r.why != err.Error() {
			g.log.Error("no part in the VRRP group: the address stays off the link", "vip", v.name, "router_id", r.set.ID, "err", err)
		}
		r.why = err.Error()
		g.m.routes(i, false)
		return
	}
	r.why = ""
	r.Startup(g.now())
	if holding || g.m.succeeds(g.now(), i) {
		r.Assume(g.now())
	}
	g.log.Info("vrrp router starts", "vip", v.name, "router_id", r.set.ID, "version", r.set.Version, "priority", r.set.Priority, "state", r.State().String())
	g.follow(i, r)
}

// leave ends our part in the group of VIP i; the others take over at once if we were active, unless another node of this cluster does.
func (g *guard) leave(i int) {
	if r := g.routers[g.m.vips[i].name]; r != nil {
		if g.m.vips[i].routing.goodBye() {
			r.resign()
		}
		r.close()
	}
}

// resign tells the others that they may take over, if we are active.
func (r *router) resign() {
	if r.fd < 0 {
		return
	}
	r.Shutdown()
	for _, a := range r.Out() {
		if a.Kind == vrrp.Advertise {
			r.advertise(a.Priority)
		}
	}
}

// follow does what the router of VIP i asks for.
func (g *guard) follow(i int, r *router) {
	for _, a := range r.Out() {
		v := g.m.vips[i]
		switch a.Kind {
		case vrrp.Advertise:
			if g.m.vouched(g.now(), i) {
				r.advertise(a.Priority)
			}
		case vrrp.Claim:
			g.log.Info("vrrp router is active", "vip", v.name, "router_id", r.set.ID)
			g.m.routes(i, true)
			g.put(i)
			g.openGate(i)
			v.announceN, v.announceAt = 0, g.now()
			g.dirty = true
		case vrrp.Yield:
			g.log.Info("vrrp router is backup", "vip", v.name, "router_id", r.set.ID, "active", r.Master().String())
			for _, p := range v.prefixes {
				if err := g.links.take(g.devs[i], p.Addr()); err != nil {
					g.log.Error("address not removed", "vip", v.name, "err", err)
				}
			}
			g.m.routes(i, false)
			g.dirty = true
		}
	}
}

// tickRouters does what is due, and makes good what could not be joined.
func (g *guard) tickRouters(now int64) {
	for i, v := range g.m.vips {
		r := g.routers[v.name]
		if r == nil || !v.held {
			continue
		}
		if r.fd < 0 {
			if now >= g.joinAt {
				g.joinAt = now + checkEvery
				g.join(i, false)
			}
			continue
		}
		r.Tick(now)
		g.follow(i, r)
	}
}

// nextRouter is when tickRouters is due next.
func (g *guard) nextRouter() int64 {
	next := int64(1<<63 - 1)
	for _, r := range g.routers {
		if r.fd >= 0 {
			if at := r.Next(); at != 0 {
				next = min(next, at)
			}
		}
	}
	return next
}

// hearRouter drains the advertisements for the group of VIP i.
func (g *guard) hearRouter(i int, r *router) {
	for range batchMax {
		p, from, to, hops, ok := r.read(g.rx[:])
		if !ok {
			return
		}
		why := r.heard.Unpack(p, from, to, hops)
		if why == "" {
			why = r.Hear(g.now(), &r.heard, from)
		}
		if why == "" && !r.Same(&r.heard) {
			why = "other addresses than ours"
		}
		switch why {
		case "", "our own", "another virtual router":
		default:
			if why != r.warned {
				r.warned = why
				g.log.Warn("vrrp advertisement", "vip", g.m.vips[i].name, "router_id", r.set.ID, "from", from, "why", why)
			}
		}
		g.follow(i, r)
	}
}

// standing is what people see of the group of VIP i; ok is false when it is in none.
func (g *guard) standing(i int) (s Router, ok bool) {
	r := g.routers[g.m.vips[i].name]
	if r == nil {
		return s, false
	}
	s = Router{ID: r.set.ID, State: vrrp.Initialize.String(), Why: r.why}
	if r.fd >= 0 {
		s.State = r.State().String()
		if m := r.Master(); m.IsValid() {
			s.Active = m.String()
		}
	}
	return s, true
}

func (s Router) String() string {
	line := fmt.Sprintf("VRRP router %d: %s", s.ID, s.State)
	switch {
	case s.Why != "":
		return line + ", takes no part: " + s.Why
	case s.Active != "":
		return line + "; " + s.Active + " is active and has the address"
	case s.State == vrrp.Backup.String():
		return line + ", waiting for whether another router is active"
	}
	return line
}

// open makes r's socket on the device: raw, of that protocol, in the group.
func (r *router) open(conf vrrp.Config, d *device) error {
	if err := conf.Check(); err != nil {
		return err
	}
	four := conf.Addresses[0].Is4()
	domain := unix.AF_INET
	r.to = vrrp.Group4
	if !four {
		domain, r.to = unix.AF_INET6, vrrp.Group6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, vrrp.Protocol)
	if err != nil {
		return fmt.Errorf("open a VRRP socket: %w", err)
	}
	index := d.to.Ifindex
	err = unix.BindToDevice(fd, d.name)
	set := func(level, opt, value int) {
		if err == nil {
			err = unix.SetsockoptInt(fd, level, opt, value)
		}
	}
	if four {
		set(unix.IPPROTO_IP, unix.IP_MULTICAST_TTL, vrrp.HopLimit)
		set(unix.IPPROTO_IP, unix.IP_MULTICAST_LOOP, 0)
		if err == nil {
			err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(index), Address: conf.Local.As4()})
		}
		if err == nil {
			err = unix.SetsockoptIPMreqn(fd, unix.IPPROTO_IP, unix.IP_ADD_MEMBERSHIP, &unix.IPMreqn{Ifindex: int32(index), Multiaddr: r.to.As4()})
		}
		// IP_MULTICAST_IF also makes Local the source; to bind to it would keep the group's packets from us.
		r.sa = &unix.SockaddrInet4{Addr: r.to.As4()}
	} else {
		set(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_HOPS, vrrp.HopLimit)
		set(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_LOOP, 0)
		set(unix.IPPROTO_IPV6, unix.IPV6_MULTICAST_IF, index)
		set(unix.IPPROTO_IPV6, unix.IPV6_RECVHOPLIMIT, 1)
		if err == nil {
			err = unix.SetsockoptIPv6Mreq(fd, unix.IPPROTO_IPV6, unix.IPV6_JOIN_GROUP, &unix.IPv6Mreq{Interface: uint32(index), Multiaddr: r.to.As16()})
		}
		r.sa = &unix.SockaddrInet6{Addr: r.to.As16(), ZoneId: uint32(index)}
	}
	if err != nil {
		unix.Close(fd)
		return fmt.Errorf("open a VRRP socket on %s: %w", d.name, err)
	}
	r.fd, r.Router = fd, vrrp.New(conf)
	r.out = make([]byte, 0, vrrp.MaxLen)
	return nil
}

func (r *router) close() {
	if r.fd >= 0 {
		unix.Close(r.fd)
	}
	r.fd, r.Router = -1, nil
}

// advertise sends an advertisement. What does not go out is missed like a lost one: the next follows.
func (r *router) advertise(priority uint8) {
	r.out = r.Config().Pack(r.out[:0], priority, r.to)
	_ = unix.Sendto(r.fd, r.out, 0, r.sa)
}

// read takes one packet from r's socket. It allocates, once per advertisement: there is one a second.
func (r *router) read(b []byte) (payload []byte, from, to netip.Addr, hops int, ok bool) {
	var oob [64]byte
	n, oobn, _, sa, err := unix.Recvmsg(r.fd, b, oob[:], 0)
	if err != nil {
		return nil, from, to, 0, false
	}
	switch a := sa.(type) {
	case *unix.SockaddrInet4: // with its IP header
		head := 0
		if n >= 20 {
			head = int(b[0]&0xf) * 4
		}
		if head < 20 || n < head {
			return nil, from, to, 0, true
		}
		return b[head:n], netip.AddrFrom4(a.Addr), netip.AddrFrom4([4]byte(b[16:20])), int(b[8]), true
	case *unix.SockaddrInet6:
		hops = -1
		if list, err := unix.ParseSocketControlMessage(oob[:oobn]); err == nil {
			for _, m := range list {
				if m.Header.Level == unix.IPPROTO_IPV6 && m.Header.Type == unix.IPV6_HOPLIMIT && len(m.Data) >= 4 {
					hops = int(binary.NativeEndian.Uint32(m.Data))
				}
			}
		}
		return b[:n], netip.AddrFrom16(a.Addr), r.to, hops, true
	}
	return nil, from, to, 0, true
}

// primary is the address of the device from which advertisements for addrs go out.
func (l *linkLayer) primary(d *device, addrs []netip.Addr) (netip.Addr, error) {
	if d == nil {
		return netip.Addr{}, fmt.Errorf("its interface is missing")
	}
	list, err := l.h.AddrList(d.link, family(addrs[0]))
	if err != nil {
		return netip.Addr{}, fmt.Errorf("list addresses of %s: %w", d.name, err)
	}
	var own []netip.Prefix
	for _, a := range list {
		ip, _ := netip.AddrFromSlice(a.IP)
		ones, _ := a.Mask.Size()
		own = append(own, netip.PrefixFrom(ip.Unmap(), ones))
	}
	if ip := primaryOf(own, addrs); ip.IsValid() {
		return ip, nil
	}
	return netip.Addr{}, fmt.Errorf("interface %s has no address of its own to speak VRRP from", d.name)
}
