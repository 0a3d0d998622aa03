package main

import "slices"

// The rules of a VRRP group at its edge (vip/vrrp_guard.go), as far as they decide anything, and of one router in it (vip/vrrp, RFC 9568).
// What sockets do with them is played beside the real keepalived in the lab (test/lab/vrrp_test.go), which is no cheap finder.
var vrrpMutants = slices.Concat(
	broken("vip/vrrp_guard.go",
		[3]string{"vrrp edge: what a group's backup has is on the link", "r.Router != nil && r.State() == vrrp.Active\n}", "true\n}"},
		[3]string{"vrrp edge: what is in no group is not on the link", "return r == nil || r.Router", "return r != nil && r.Router"},
		[3]string{"vrrp edge: a router that takes no part wakes the guard", "if r.fd >= 0 {\n\t\t\tif at", "if r.Router != nil {\n\t\t\tif at"},
		[3]string{"vrrp edge: a router that has nothing to do wakes the guard", "at != 0 {", "at >= 0 {"},
	),
	broken("vip/routing.go",
		[3]string{"vrrp group: our router speaks without a lease", "return m.leaseEnd(i) > now", "return true"},
		[3]string{"vrrp group: our router speaks when its lease has ended", "return m.leaseEnd(i) > now", "return m.leaseEnd(i) >= now"},
		[3]string{"vrrp group: good-bye though the router moves on", "return r.passing == 0", "return true"},
		[3]string{"vrrp group: nobody says good-bye", "return r.passing == 0", "return false"},
		[3]string{"vrrp group: who enters a group takes the address off the link", "regroup{enter: is != nil, assume: true}", "regroup{enter: is != nil}"},
		[3]string{"vrrp group: a vip that is gone says nothing", "regroup{resign: true, enter: is != nil}", "regroup{enter: is != nil}"},
		[3]string{"vrrp group: other addresses are in no group", "regroup{resign: true, enter: is != nil}", "regroup{resign: true}"},
		[3]string{"vrrp group: who leaves a group has the address no more", "return regroup{link: true}", "return regroup{}"},
		[3]string{"vrrp group: a reload without a change listens anew", "case *was == *is:", "case false:"},
		[3]string{"vrrp group: a change of the group is not one", "case *was == *is:", "case true:"},
		[3]string{"vrrp group: who stood by takes the address with the next change", "assume: active}", "assume: true}"},
		[3]string{"vrrp group: the active router lets go with every change", "assume: active}", "assume: false}"},
		[3]string{"vrrp group: advertisements come from the virtual address", " && !slices.Contains(addrs, ip)", " && (true || !slices.Contains(addrs, ip))"},
		[3]string{"vrrp group: advertisements come from another virtual address", " && !p.IsSingleIP()", ""},
		[3]string{"vrrp group: IPv6 advertisements come from anywhere", "ip.Is6() && ip.IsLinkLocalUnicast()", "ip.Is6()"},
	),
	inRouter("vip/vrrp/vrrp.go",
		[3]string{"router: a backup is active at once", "r.downAt = now + r.downInterval()\n}\n\n// Assume", "r.downAt = now\n}\n\n// Assume"},
		[3]string{"router: who goes on listens first", "r.downAt = now\n\t\tr.Tick(now)", "r.Tick(now)"},
		[3]string{"router: who stops says nothing", "r.do(Action{Kind: Advertise, Priority: resign})", "_ = resign"},
		[3]string{"router: who stops keeps the addresses", "resign})\n\t\tr.do(Action{Kind: Yield})", "resign})"},
		[3]string{"router: an active one says nothing of it", "r.adverAt = now + int64(r.conf.Interval)\n\tcase r.state == Active && now >= r.adverAt:\n\t\tr.do(Action{Kind: Advertise, Priority: r.conf.Priority})", "r.adverAt = now + int64(r.conf.Interval)\n\tcase r.state == Active && now >= r.adverAt:"},
		[3]string{"router: another group's advertisement counts", "case a.ID != r.conf.ID:", "case false:"},
		[3]string{"router: another version's advertisement counts", "case a.Version != r.conf.Version:", "case false:"},
		[3]string{"router: our own advertisement counts", "case from == r.conf.Local:", "case false:"},
		[3]string{"router: version 2 takes another interval", "r.conf.Version == V2 && a.Priority != resign && a.Interval != r.conf.Interval", "false"},
		[3]string{"router: after a good-bye nobody hurries", "case a.Priority == resign:\n\t\tr.downAt = now + r.skew()", "case a.Priority == resign:"},
		[3]string{"router: a backup follows whoever speaks", "case !r.conf.Preempt || a.Priority >= r.conf.Priority:", "default:"},
		[3]string{"router: a backup always preempts", "case !r.conf.Preempt || a.Priority >= r.conf.Priority:", "case a.Priority >= r.conf.Priority:"},
		[3]string{"router: an active one is silent at a good-bye", "case a.Priority == resign:\n\t\tr.do(Action{Kind: Advertise, Priority: r.conf.Priority})", "case a.Priority == resign:"},
		[3]string{"router: an active one yields to nobody", "case a.Priority > r.conf.Priority, a.Priority == r.conf.Priority &&", "case a.Priority == r.conf.Priority &&"},
		[3]string{"router: among equals the lower address wins", "from.Compare(r.conf.Local) > 0", "from.Compare(r.conf.Local) < 0"},
		[3]string{"router: who yields keeps the addresses", "r.state = Backup\n\t\tr.do(Action{Kind: Yield})", "r.state = Backup"},
		[3]string{"router: the active router's interval does not count", "if r.conf.Version == V3 {", "if false {"},
		[3]string{"router: version 2 counts skew by its interval", "if c.Version == V2 {\n\t\tinterval = int64(time.Second)", "if false {\n\t\tinterval = int64(time.Second)"},
		[3]string{"router: the highest priority waits longest", "(256 - int64(c.Priority))", "int64(c.Priority)"},
		[3]string{"router: an active one is gone after two intervals", "return 3*r.interval + r.skew()", "return 2*r.interval + r.skew()"},
	),
)

// inRouter is broken for the router alone, whose tests are all of its package.
func inRouter(file string, rules ...[3]string) []*mutant {
	all := broken(file, rules...)
	for _, m := range all {
		m.in, m.run = []string{"./vip/vrrp"}, "."
	}
	return all
}
