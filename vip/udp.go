package vip

import (
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// listenHeartbeats opens a socket for heartbeats at an address that this host need not have yet: what is sent before fails, and what
// arrives after is heard, without anybody having to notice that it came.
func listenHeartbeats(a netip.AddrPort) (fd int, err error) {
	fam, level, free, class, v := unix.AF_INET, unix.IPPROTO_IP, unix.IP_FREEBIND, unix.IP_TOS, 0xc0
	if !a.Addr().Unmap().Is4() {
		fam, level, free, class = unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, unix.IPV6_TCLASS
	}
	fd, err = unix.Socket(fam, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, fmt.Errorf("heartbeat socket: %w", err)
	}
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
	unix.SetsockoptInt(fd, level, class, v) // network control: ahead of the traffic that we balance
	unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, 6)
	unix.SetsockoptInt(fd, level, free, 1)
	if err := unix.Bind(fd, sockaddr(a)); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("bind heartbeats to %v: %w", a, err)
	}
	return fd, nil
}

// sockaddr is an address as the kernel wants it. It is made once, since it is used for every heartbeat.
func sockaddr(a netip.AddrPort) unix.Sockaddr {
	if ip := a.Addr().Unmap(); ip.Is4() {
		return &unix.SockaddrInet4{Addr: ip.As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}
