package vip

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// beat is this node's end of a link for heartbeats.
type beat struct {
	fd  int // -1: none
	at  netip.AddrPort
	why string     // that it could not be opened
	err unix.Errno // of the last heartbeat, 0 when it went out
}

func (b *beat) send(heartbeat []byte, to unix.Sockaddr) {
	if b.fd < 0 {
		return
	}
	// Lost is lost, the next one is due soon; but what every one meets is worth a word.
	switch err := unix.Sendto(b.fd, heartbeat, unix.MSG_DONTWAIT, to); {
	case err == nil:
		b.err = 0
	case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.ECONNREFUSED): // an answer to an earlier one: nobody listens there
		errors.As(err, &b.err)
	}
}

// problem is why heartbeats do not go out here, or "".
func (b *beat) problem() string {
	switch {
	case b.why != "":
		return b.why
	case b.err == unix.EINVAL, b.err == unix.EADDRNOTAVAIL:
		return fmt.Sprintf("%v is not an address of this host", b.at.Addr())
	case b.err != 0:
		return fmt.Sprintf("heartbeats from %v do not go out: %v", b.at.Addr(), b.err)
	}
	return ""
}

func (b *beat) close() {
	if b.fd >= 0 {
		unix.Close(b.fd)
	}
	*b = beat{fd: -1}
}

// bind opens the heartbeat sockets, anew where addresses changed. Without the first there is no cluster; a further one that fails
// is reported and tried again.
func (g *guard) bind(s *Setup) error {
	if b := &g.beats[0]; b.fd < 0 || b.at != s.Listen {
		fd, err := listenHeartbeats(s.Listen)
		if err != nil {
			return err
		}
		b.close()
		*b = beat{fd: fd, at: s.Listen}
	}
	for k := 1; k < MaxLinks; k++ {
		b := &g.beats[k]
		if k > len(s.Also) {
			b.close()
		} else if b.at != s.Also[k-1] {
			b.close()
			b.at = s.Also[k-1]
		}
	}
	g.rebind()
	return nil
}

// rebind opens the further sockets that are not open.
func (g *guard) rebind() {
	for k := range g.beats {
		b := &g.beats[k]
		if b.fd >= 0 || !b.at.IsValid() {
			continue
		}
		fd, err := listenHeartbeats(b.at)
		if err == nil {
			b.fd, b.why = fd, ""
		} else if b.why != err.Error() {
			b.why = err.Error()
			g.log.Error("a heartbeat link does not work", "err", err)
			g.dirty = true
		}
	}
}

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
