package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Host is one machine of a World. Any goroutine may call any method.
type Host struct {
	// Immutable.
	Name  string
	Addr  netip.Addr
	Addr6 netip.Addr
	MAC   net.HardwareAddr
	world *World

	mu sync.Mutex
	// mu guards the following.
	space   *space // another one after PowerOn
	link    netlink.Link
	closers []io.Closer // servers, which keep sockets and so the namespace
}

// attach gives h a fresh namespace and connects it to the switch.
func (h *Host) attach() (err error) {
	s, err := newSpace()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if err := h.world.sweeper.add(s.inode); err != nil {
		return err
	}
	sw, port := h.world.sw, portOf(h)
	attrs := linkAttrs(port)
	attrs.MasterIndex = h.world.bridge.Attrs().Index
	veth := &netlink.Veth{
		LinkAttrs: attrs, PeerName: Interface, PeerHardwareAddr: h.MAC, PeerNamespace: netlink.NsFd(s.fd),
	}
	if err := sw.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("add a cable to the switch: %w", err)
	}
	end, err := sw.links.LinkByName(port)
	if err == nil {
		err = sw.links.LinkSetUp(end)
	}
	if err != nil {
		return fmt.Errorf("set the switch's port up: %w", err)
	}
	link, err := s.links.LinkByName(Interface)
	if err == nil {
		err = s.links.LinkSetUp(link)
	}
	if err == nil {
		err = s.links.AddrAdd(link, addrOf(netip.PrefixFrom(h.Addr, Subnet.Bits())))
	}
	if err == nil {
		err = s.links.AddrAdd(link, addrOf(netip.PrefixFrom(h.Addr6, Subnet6.Bits())))
	}
	if err != nil {
		return fmt.Errorf("configure %s: %w", Interface, err)
	}
	if err := errors.Join(waitUp(sw, port), waitUp(s, Interface)); err != nil {
		return err
	}
	h.mu.Lock()
	h.space, h.link = s, link
	h.mu.Unlock()
	return nil
}

// detach kills what runs on h and lets go of its namespace.
func (h *Host) detach() error {
	h.mu.Lock()
	s, closers := h.space, h.closers
	h.closers = nil
	h.mu.Unlock()
	for _, c := range closers {
		c.Close()
	}
	err := h.Kill()
	if port, e := h.world.sw.links.LinkByName(portOf(h)); e == nil {
		err = errors.Join(err, h.world.sw.links.LinkDel(port))
	}
	s.close()
	return err
}

// waitUp waits until the kernel's link watch has seen that both ends of a cable are up. Until then the bridge does not forward
// and the other end drops what it should send: a first datagram or ARP request would be lost without a word.
func waitUp(s *space, name string) error {
	for deadline := time.Now().Add(10 * time.Second); ; {
		link, err := s.links.LinkByName(name)
		switch {
		case err != nil:
			return fmt.Errorf("wait for %s: %w", name, err)
		case link.Attrs().OperState == netlink.OperUp:
			return nil
		case time.Now().After(deadline):
			return fmt.Errorf("link %s is still %v after 10 s", name, link.Attrs().OperState)
		}
		time.Sleep(time.Millisecond)
	}
}

func portOf(h *Host) string { return "p-" + h.Name }

// addrOf is an address as the kernel gets it. In IPv6 it is good at once: duplicate address detection would take a second.
func addrOf(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}}
	if p.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func (h *Host) String() string { return h.Name }

func (h *Host) ns() *space {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.space
}

// Run runs f on a thread inside the host and returns its error. Goroutines that f starts are not inside, and a process that
// f starts may be killed when f returns: see Start.
func (h *Host) Run(f func() error) error { return h.ns().run(f) }

// Listen listens inside the host. The listener works anywhere, and is closed with the host.
func (h *Host) Listen(network, address string) (l net.Listener, err error) {
	err = h.ns().do(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	if err == nil {
		h.closeLater(l)
	}
	return l, err
}

// ListenPacket does for datagrams what Listen does for connections.
func (h *Host) ListenPacket(network, address string) (c net.PacketConn, err error) {
	err = h.ns().do(func() (err error) {
		c, err = net.ListenPacket(network, address)
		return err
	})
	if err == nil {
		h.closeLater(c)
	}
	return c, err
}

// Dial connects from inside the host. It fits http.Transport.DialContext. The address must be numeric.
func (h *Host) Dial(ctx context.Context, network, address string) (c net.Conn, err error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dial from %s: %w", h.Name, err)
	}
	err = h.Run(func() (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, address)
		return err
	})
	return c, err
}

func (h *Host) closeLater(c io.Closer) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.closers = append(h.closers, c)
}

// AddAddr puts an address on the host's link, as an operator would by hand. Nothing is announced.
func (h *Host) AddAddr(p netip.Prefix) error {
	if err := h.ns().links.AddrAdd(h.link, addrOf(p)); err != nil {
		return fmt.Errorf("add %v on %s: %w", p, h.Name, err)
	}
	return nil
}

// DelAddr takes an address off the host's link.
func (h *Host) DelAddr(p netip.Prefix) error {
	if err := h.ns().links.AddrDel(h.link, addrOf(p)); err != nil {
		return fmt.Errorf("remove %v on %s: %w", p, h.Name, err)
	}
	return nil
}

// Addrs returns the addresses on the host's link.
func (h *Host) Addrs() ([]netip.Prefix, error) {
	list, err := h.ns().links.AddrList(h.link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list the addresses of %s: %w", h.Name, err)
	}
	var ps []netip.Prefix
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok {
			ones, _ := a.Mask.Size()
			ps = append(ps, netip.PrefixFrom(ip.Unmap(), ones))
		}
	}
	return ps, nil
}

// SetLink takes one of the host's own interfaces down or up, as `ip link set` does on it.
func (h *Host) SetLink(name string, up bool) error {
	s := h.ns()
	link, err := s.links.LinkByName(name)
	if err == nil && up {
		err = s.links.LinkSetUp(link)
	} else if err == nil {
		err = s.links.LinkSetDown(link)
	}
	if err != nil {
		return fmt.Errorf("set %s of %s up %v: %w", name, h.Name, up, err)
	}
	return nil
}

// FlushRules takes all of the host's nftables rules away, as `nft flush ruleset` and many a firewall's restart do.
func (h *Host) FlushRules() error {
	err := h.Run(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		c.FlushRuleset()
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("flush the rules of %s: %w", h.Name, err)
	}
	return nil
}

// Sysctl sets a network parameter of the host: Sysctl("net.ipv4.ip_forward", "1").
func (h *Host) Sysctl(name, value string) error {
	path := filepath.Join("/proc/sys", strings.ReplaceAll(name, ".", "/"))
	err := h.Run(func() error { return os.WriteFile(path, []byte(value), 0) })
	if err != nil {
		return fmt.Errorf("set %s on %s: %w", name, h.Name, err)
	}
	return nil
}

// Processes returns the ids of all processes inside the host, whoever started them.
func (h *Host) Processes() ([]int, error) { return processesIn([]uint64{h.ns().inode}) }

// Signal sends a signal to all processes inside the host at (almost) once: SIGSTOP and SIGCONT make it hang and wake up.
func (h *Host) Signal(sig unix.Signal) error {
	pids, err := h.Processes()
	if err != nil {
		return err
	}
	return signalAll(pids, sig)
}

// Kill kills all processes inside the host, those too that their parents have left behind, and returns when none is left.
func (h *Host) Kill() error { return killAllIn([]uint64{h.ns().inode}) }

// PowerOff does what pulling the plug does: the wire goes silent, then everything on the host is gone.
func (h *Host) PowerOff() error {
	if err := h.world.wire.silence(h, true); err != nil {
		return fmt.Errorf("power off %s: %w", h.Name, err)
	}
	if err := h.Kill(); err != nil {
		return fmt.Errorf("power off %s: %w", h.Name, err)
	}
	return nil
}

// PowerOn boots a host that was powered off: a namespace without a trace of what was in the old one, on the same wire with
// the same name, address and MAC. What ran on it has to be started again.
func (h *Host) PowerOn() error {
	if err := h.detach(); err != nil {
		return fmt.Errorf("power on %s: %w", h.Name, err)
	}
	if err := h.attach(); err != nil {
		return fmt.Errorf("power on %s: %w", h.Name, err)
	}
	if err := h.world.wire.silence(h, false); err != nil {
		return fmt.Errorf("power on %s: %w", h.Name, err)
	}
	return nil
}

// names returns the names of hosts, sorted.
func names(hosts []*Host) []string {
	var ns []string
	for _, h := range hosts {
		ns = append(ns, h.Name)
	}
	slices.Sort(ns)
	return ns
}
