package node

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"strconv"

	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/vip"
)

// ErrNoCluster says that this host belongs to no cluster yet, ErrMember that it belongs to one already, and ErrPin that it has reached another
// cluster than it has a token for.
var (
	ErrNoCluster = cluster.ErrNoCluster
	ErrMember    = cluster.ErrMember
	ErrPin       = cluster.ErrPin
)

// Found makes a new cluster with this host as its first node. It comes to life when the host's agent runs.
func Found(c *config.Node) (id string, err error) { return cluster.Found(newcomer(c)) }

// Join makes this host a node of the cluster at addr (an address, or address:port), with what `skein cluster token` printed there.
func Join(ctx context.Context, c *config.Node, addr, token string) (id string, err error) {
	at, err := joinAddress(addr)
	if err != nil {
		return "", err
	}
	return cluster.Join(ctx, newcomer(c), at, token)
}

// joinAddress resolves what an operator types: an address or a name, with or without a port.
func joinAddress(s string) (netip.AddrPort, error) {
	host, port := s, uint16(config.DefaultPort)
	if h, p, err := net.SplitHostPort(s); err == nil {
		n, err := strconv.ParseUint(p, 10, 16)
		if err != nil || n == 0 {
			return netip.AddrPort{}, fmt.Errorf("address %q: port %q is not a number from 1 to 65535", s, p)
		}
		host, port = h, uint16(n)
	}
	if a, err := netip.ParseAddr(host); err == nil {
		return netip.AddrPortFrom(a, port), nil
	}
	addrs, err := net.LookupHost(host)
	if err != nil {
		return netip.AddrPort{}, fmt.Errorf("address %q: %w", s, err)
	}
	for _, text := range addrs { // in the order of RFC 6724: the one that this host reaches best comes first
		if a, err := netip.ParseAddr(text); err == nil {
			return netip.AddrPortFrom(a, port), nil
		}
	}
	return netip.AddrPort{}, fmt.Errorf("address %q: it has none", s)
}

func newcomer(c *config.Node) cluster.Newcomer {
	return cluster.Newcomer{Dir: clusterDir(c), Name: c.Name, Advertise: advertise(c), Role: roleOf(c.Role)}
}

// clusterDir is where identity, log and snapshots live: of package cluster alone.
func clusterDir(c *config.Node) string { return filepath.Join(c.DataDir, "cluster") }

func advertise(c *config.Node) netip.AddrPort { return netip.AddrPortFrom(c.Advertise, c.Port) }

func roleOf(r config.Role) state.Role {
	if r == config.Witness {
		return state.Witness
	}
	return state.Balancer
}

// RunGuard is the guard process.
func RunGuard(ctx context.Context, log *slog.Logger, version string) error {
	return vip.RunGuard(ctx, vip.GuardOptions{Log: log, Version: version})
}
