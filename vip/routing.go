package vip

import (
	"net/netip"
	"slices"
)

// This file is a VIP in a VRRP group as the machine sees it: whether the nodes of this cluster go on as one router when it passes from
// one to the other.
//
// To the group they are one router, of one priority, that moves from host to host. Who gets the VIP goes on as the active router at
// once, without listening for three intervals first, if the node that had it was active and no router of lower priority can have
// taken over since. One of higher priority may have: it says so within an interval, as ever. Who lets go says good-bye (priority 0)
// only if the VIP is not on its way to another node, or the others would take the good-bye for the end of that one router.

// routing is a VIP's part in its group.
type routing struct {
	in      bool
	skew    int64 // after a good-bye, a router of lower priority waits for longer
	silence int64 // and so it does after the last word of an active router that said none

	active  bool  // our router is; false while the VIP is held: another router has the addresses, and we stand by
	passing int64 // we were active and let go without a good-bye: until when the peers shall hear so

	last struct { // of this cluster's nodes that was active
		node nodeID
		at   int64 // when it was known to be
		bye  bool
	}
}

// setGroup takes over whether the VIP is in a group. An advertisement is at most an interval older than the heartbeat that says that its
// sender is active, and three intervals without one are what the others wait for.
func (v *vip) setGroup(c *VRRP) {
	if c == nil {
		v.routing = routing{}
		return
	}
	conf := c.config(v.prefixes)
	v.routing.in, v.routing.skew = true, int64(conf.Skew())
	v.routing.silence = v.routing.skew + 2*int64(c.Interval)
}

// standsBy is whether the VIP has nothing on the link and nothing established, although it may be held: another router is active.
func (v *vip) standsBy() bool { return v.routing.in && !v.routing.active }

// routes says whether our router is the active one of VIP i's group.
func (m *machine) routes(i int, active bool) {
	if r := &m.vips[i].routing; r.active != active {
		r.active, m.chatty = active, true
		m.report()
	}
}

// hearRouting takes what a peer says of its part. One that was active and let go without a good-bye says so for a while; it is no more
// active for that, so the time since counts on.
func (v *vip) hearRouting(now int64, peer nodeID, flags entryFlags) {
	r := &v.routing
	held, active := flags&entryHeld != 0, flags&entryActive != 0
	switch {
	case held && active:
		r.last.node, r.last.at, r.last.bye = peer, now, false
	case held: // it stands by: a router that is not of this cluster is active
		r.last.node = 0
	case r.last.node == peer && !active:
		r.last.bye = true
	}
}

// endRouting ends our part, for that reason.
func (m *machine) endRouting(now int64, v *vip, why refusal) {
	r := &v.routing
	if !r.active {
		r.last.node = 0
		return
	}
	passes := why == placedElsewhere || why == newerKnown || why == outranked
	if r.active = false; passes {
		r.passing = now + r.silence
	}
	r.last.node, r.last.at, r.last.bye = m.self, now, !passes
}

// succeeds is whether VIP i, which is ours now, is answered for at once: the nodes of this cluster were the group's active router, and
// still are to everybody else.
func (m *machine) succeeds(now int64, i int) bool {
	r := &m.vips[i].routing
	wait := r.silence
	if r.last.bye {
		wait = r.skew
	}
	return r.last.node != 0 && now-r.last.at < wait
}

// goodBye is whether who has just let go says so to the group.
func (r *routing) goodBye() bool { return r.passing == 0 }

// vouched is whether our router may say that it is active: for as long as no other node of this cluster can be.
func (m *machine) vouched(now int64, i int) bool { return m.leaseEnd(i) > now }

// regroup is what becomes of a VIP's part in a group with a new setup.
type regroup struct {
	keep   bool // it goes on as it is
	resign bool // good-bye to the former group
	enter  bool // the new one
	assume bool // as its active router, if the VIP is held: the addresses are on the link
	link   bool // they go there, if the VIP is held: nobody else has them by right any more
}

// regrouped decides what becomes of a VIP that was in the group was, where our router was active or not, and is in the group is; nil:
// none. same is whether its addresses and its interface are what they were; if not, or if it is gone, it is another VIP.
//
// One that is held stays on the link: in a group that is new we go on as its active router until another one outranks us. Where another
// router was active, or none could be made, it stays off the link until the new group has been listened to.
func regrouped(was *VRRP, active, same bool, is *VRRP) regroup {
	switch {
	case was == nil:
		return regroup{enter: is != nil, assume: true}
	case !same:
		return regroup{resign: true, enter: is != nil}
	case is == nil:
		return regroup{link: true}
	case *was == *is:
		return regroup{keep: true}
	}
	return regroup{enter: true, assume: active}
}

// primaryOf is the address among an interface's own from which advertisements for addrs go out: for IPv4 the first that is not one of addrs
// and no host address, for IPv6 the link-local one (RFC 9568, 1.7 and 5.1.2.1). The zero Addr: there is none.
func primaryOf(own []netip.Prefix, addrs []netip.Addr) netip.Addr {
	for _, p := range own {
		ip := p.Addr()
		if ip.Is6() && ip.IsLinkLocalUnicast() || ip.Is4() && !p.IsSingleIP() && !slices.Contains(addrs, ip) {
			return ip
		}
	}
	return netip.Addr{}
}
