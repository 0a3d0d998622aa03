// Package lab builds whole networks on one machine: hosts that are network namespaces, a switch between them, faults on the
// wire, and clients that write down what they saw. `skein demo` and the tests use the same one.
//
// It knows nothing of skein: it starts programs and watches the wire from outside. The one rule: nothing it made outlives it.
// Namespaces have no name and vanish with the process; a helper process kills what was started in them, however the lab ended.
// Every program that uses it calls Enter first thing in main (a test in TestMain).
package lab

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
)

// The network of a World, from the block reserved for benchmarks (RFC 2544). Hosts take the low addresses in order; from
// 192 on they belong to ARPWatch; what is between is free for virtual addresses.
var (
	Subnet      = netip.MustParsePrefix("198.18.0.0/24")
	firstHost   = netip.MustParseAddr("198.18.0.1")
	lastHost    = netip.MustParseAddr("198.18.0.99")
	firstSender = netip.MustParseAddr("198.18.0.192")

	// Subnet6 is the same network's in IPv6, from the block of RFC 5180. Every host has the address there that ends as its IPv4 one.
	Subnet6      = netip.MustParsePrefix("2001:2::/64")
	firstSender6 = sixth(firstSender)
)

// sixth is the address of Subnet6 that ends as the IPv4 address a does.
func sixth(a netip.Addr) netip.Addr {
	b, last := Subnet6.Addr().As16(), a.As4()
	b[15] = last[3]
	return netip.AddrFrom16(b)
}

// senders is how many addresses ARPWatch asks from in turn.
const senders = 63

// Interface is the name of every host's only link.
const Interface = "eth0"

// World is one switch with hosts on it. Any goroutine may call any method.
type World struct {
	log     *slog.Logger
	sweeper *sweeper
	sw      *space
	bridge  netlink.Link
	wire    *wire

	mu sync.Mutex
	// mu guards the following.
	hosts  []*Host
	closed bool
}

// New builds a switch without hosts. Enter must have returned nil before.
func New(log *slog.Logger) (_ *World, err error) {
	w := &World{log: log}
	defer func() {
		if err != nil {
			w.Close()
		}
	}()
	if w.sweeper, err = startSweeper(); err != nil {
		return nil, err
	}
	if w.sw, err = newSpace(); err != nil {
		return nil, fmt.Errorf("make the switch: %w", err)
	}
	snooping := false
	if err := w.sw.links.LinkAdd(&netlink.Bridge{LinkAttrs: linkAttrs("switch"), MulticastSnooping: &snooping}); err != nil {
		return nil, fmt.Errorf("make the switch: add a bridge: %w", err)
	}
	if w.bridge, err = w.sw.links.LinkByName("switch"); err != nil {
		return nil, fmt.Errorf("make the switch: %w", err)
	}
	if err := w.sw.links.LinkSetUp(w.bridge); err != nil {
		return nil, fmt.Errorf("make the switch: set the bridge up: %w", err)
	}
	if w.wire, err = newWire(w.sw); err != nil {
		return nil, fmt.Errorf("make the switch: %w", err)
	}
	return w, nil
}

// AddHost attaches a new host, with the next free address.
func (w *World) AddHost(name string) (*Host, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, errClosed
	}
	if len(name) == 0 || len(name) > 12 {
		return nil, fmt.Errorf("add host %q: a name has 1 to 12 characters, for its port on the switch carries it", name)
	}
	addr := firstHost
	for _, h := range w.hosts {
		if h.Name == name {
			return nil, fmt.Errorf("add host %q: there is one of that name already", name)
		}
		addr = h.Addr.Next()
	}
	if lastHost.Less(addr) {
		return nil, fmt.Errorf("add host %q: the addresses up to %v are taken", name, lastHost)
	}
	four := addr.As4()
	h := &Host{
		Name: name, Addr: addr, Addr6: sixth(addr), world: w,
		// A MAC that one can read in a packet dump: locally administered, then the IPv4 address.
		MAC: net.HardwareAddr{0x02, 0, four[0], four[1], four[2], four[3]},
	}
	if err := h.attach(); err != nil {
		return nil, fmt.Errorf("add host %q: %w", name, err)
	}
	w.hosts = append(w.hosts, h)
	return h, nil
}

// Hosts returns the hosts in the order in which they were added.
func (w *World) Hosts() []*Host {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.hosts)
}

// HostOf returns the name of the host with that MAC, or the MAC itself.
func (w *World) HostOf(mac net.HardwareAddr) string {
	for _, h := range w.Hosts() {
		if slices.Equal(h.MAC, mac) {
			return h.Name
		}
	}
	return mac.String()
}

// Close kills everything that runs in the world and takes it down. It may be called twice.
func (w *World) Close() error {
	w.mu.Lock()
	hosts, again := w.hosts, w.closed
	w.hosts, w.closed = nil, true
	w.mu.Unlock()
	if again {
		return nil
	}
	var errs []error
	for _, h := range hosts {
		errs = append(errs, h.detach())
	}
	if w.wire != nil {
		w.wire.close()
	}
	if w.sw != nil {
		w.sw.close()
	}
	if w.sweeper != nil {
		errs = append(errs, w.sweeper.stop())
	}
	return errors.Join(errs...)
}

func linkAttrs(name string) netlink.LinkAttrs {
	a := netlink.NewLinkAttrs()
	a.Name = name
	return a
}
