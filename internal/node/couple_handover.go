package node

import (
	"net"
	"slices"
	"time"

	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// Handover is what hands packets of connections that were established elsewhere to the node that has them. *vip.Handover is one.
type Handover interface {
	Set([]vip.Hand) (changed bool, err error)
	Intact() bool
	Again() error
	Close()
}

// handOver makes the rules fit what is placed and who still serves what it had. It comes before the guard is told of a placement: a
// node that asks for an address is ready for what is not its own.
func (n *Node) handOver(v *state.View, seen vip.State) {
	if n.hands == nil {
		return
	}
	begin, hands := time.Now(), handsOf(n.conf.Name, v, seen)
	changed, err := n.hands.Set(hands)
	if changed {
		n.log.Info("connections handed on", "addresses", len(hands), "took", time.Since(begin).Round(10*time.Microsecond))
	}
	if err == nil && !changed && !n.hands.Intact() {
		n.log.Error("the rules of a move were removed by somebody else; putting them back")
		err = n.hands.Again()
	}
	if err != nil {
		n.handing.Set(err.Error())
		n.log.Error("established connections cannot be handed over", "why", err)
		return
	}
	if n.handing.Get() != n.noHanding {
		n.handing.Set(n.noHanding)
	}
}

// handsOf returns to whom the node self hands what is not its own.
//
// The nodes that hold or held a VIP and still serve what they had make a ring: everyone hands on to the one that came before it, the
// oldest to the newest. A packet goes round until it finds its connection, wherever it has come in; clients send to the former holder
// for a moment after a move. A new node joins as the newest, so that what is on its way to the others goes on as it did; a node that
// gets the VIP back keeps its place, and nothing changes at all.
func handsOf(self string, v *state.View, seen vip.State) (hands []vip.Hand) {
	if v.Config == nil {
		return nil
	}
	for _, p := range v.SortedPlacements() {
		c := v.Config.VIP(p.VIP)
		link, linked := seen.Interfaces[p.VIP]
		at := slices.Index(p.Ring, self)
		if c == nil || !linked || at < 0 || p.Node != self && !serves(p.VIP, seen.Held, seen.Parked) {
			continue
		}
		var next []byte
		hops := 0
		for i := range len(p.Ring) - 1 {
			name := p.Ring[(at-1-i+len(p.Ring))%len(p.Ring)]
			peer := seen.Peers[name]
			mac, err := net.ParseMAC(peer.MACs[p.VIP])
			if err != nil || !slices.Contains(peer.Parked, p.VIP) && (gone(peer) || !slices.Contains(peer.Held, p.VIP)) {
				continue
			}
			hops++
			if next == nil {
				next = mac
			}
		}
		if next == nil {
			continue
		}
		for _, a := range c.Addresses {
			hands = append(hands, vip.Hand{Address: a.Addr(), Link: link.Name, To: next, Hops: hops})
		}
	}
	return hands
}

// serves reports whether this node holds a VIP, or held it and serves what it had.
func serves(name string, held map[string]vip.Holding, parked map[string]vip.Parking) bool {
	_, h := held[name]
	_, p := parked[name]
	return h || p
}
