package cluster

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Network is the only door to the network. Host is the real one; a simulation brings its own, and then a whole cluster runs in
// virtual time. All methods may be called from any goroutine.
type Network interface {
	Listen(addr netip.AddrPort) (net.Listener, error)
	Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
	ListenPacket(addr netip.AddrPort) (net.PacketConn, error)
}

// Host is the network of the machine.
type Host struct{}

// A peer that lost its power is noticed by its silence: after about 11 s the kernel gives the connection up. Nothing waits for
// that (raft and gossip have their own clocks), but descriptors and goroutines do not pile up either.
var keepAlive = net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3}

// freeBind lets a node listen on its address before this host has it: at boot the network often comes later, and must find the node
// waiting and not ended.
func freeBind(network, _ string, c syscall.RawConn) error {
	var err error
	level, option := unix.IPPROTO_IP, unix.IP_FREEBIND
	if strings.HasSuffix(network, "6") {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	}
	if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) }); e != nil {
		return e
	}
	return err
}

func (Host) Listen(addr netip.AddrPort) (net.Listener, error) {
	lc := net.ListenConfig{KeepAliveConfig: keepAlive, Control: freeBind}
	return lc.Listen(context.Background(), "tcp", addr.String())
}

func (Host) Dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: keepAlive}
	return d.DialContext(ctx, "tcp", addr.String())
}

func (Host) ListenPacket(addr netip.AddrPort) (net.PacketConn, error) {
	lc := net.ListenConfig{Control: freeBind}
	return lc.ListenPacket(context.Background(), "udp", addr.String())
}
