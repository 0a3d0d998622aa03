package node

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/skeinlb/skein/config"
)

// addressPoll is how often this host is asked for its addresses while it lacks one.
const addressPoll = time.Second

// coupleAddress: the host's addresses -> whether the others can reach this node. At boot the network may come long after the node, which
// waits for it and says so.
func (n *Node) coupleAddress(ctx context.Context) {
	tick := time.NewTicker(addressPoll)
	defer tick.Stop()
	for {
		if missing, known := missing(n.conf, n.addresses()); known && n.lacks.Get() != missing {
			n.lacks.Set(missing)
			if missing.IsValid() {
				n.log.Warn("waiting for the network: nobody reaches this node before this host has its address", "addr", missing)
			} else {
				n.log.Info("the network is there")
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// missing is the address by which others reach this node, if the host does not have it; not known when the host can't tell its
// addresses.
func missing(c *config.Node, have []netip.Addr) (lacks netip.Addr, known bool) {
	if slices.Contains(have, c.Advertise) {
		return netip.Addr{}, true
	}
	return c.Advertise, have != nil
}

// hostAddresses are the addresses of this host in its network namespace; nil when it can't tell.
func hostAddresses() []netip.Addr {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil
	}
	have := []netip.Addr{}
	for _, a := range list {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			have = append(have, p.Addr().Unmap())
		}
	}
	return have
}
