package loop

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The calls below go to the kernel directly: none of them can block on a non-blocking descriptor, so that the runtime need not
// hear of them (60-100 ns each, and its monitor's attention).

// Recv reads what has arrived. 0 and no error is the end of the stream.
func Recv(fd int, b []byte) (int, syscall.Errno) {
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
			uintptr(len(b)), 0, 0, 0)
		if e != syscall.EINTR {
			return int(int32(n)), e
		}
	}
}

// Send writes what fits. More says that more follows at once.
func Send(fd int, b []byte, more bool) (int, syscall.Errno) {
	flags := uintptr(unix.MSG_NOSIGNAL)
	if more {
		flags |= unix.MSG_MORE
	}
	for {
		n, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(b))),
			uintptr(len(b)), flags, 0, 0)
		if e != syscall.EINTR {
			return int(int32(n)), e
		}
	}
}

// Fill moves up to n bytes from a socket into the pipe. 0 and no error is the end of the stream.
func (p *Pipe) Fill(fd, n int) (int, syscall.Errno) {
	m, e := splice(fd, p.W, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
	if e == 0 {
		p.Held += m
	}
	return m, e
}

// Flush moves what the pipe holds into a socket.
func (p *Pipe) Flush(fd int, more bool) (int, syscall.Errno) {
	flags := unix.SPLICE_F_MOVE | unix.SPLICE_F_NONBLOCK
	if more {
		flags |= unix.SPLICE_F_MORE
	}
	m, e := splice(p.R, fd, p.Held, flags)
	if e == 0 {
		p.Held -= m
	}
	return m, e
}

func splice(in, out, n, flags int) (int, syscall.Errno) {
	for {
		m, _, e := syscall.RawSyscall6(syscall.SYS_SPLICE, uintptr(in), 0, uintptr(out), 0, uintptr(n), uintptr(flags))
		if e != syscall.EINTR {
			return int(m), e
		}
	}
}

// Close closes a descriptor.
func Close(fd int) { syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }

// CloseWrite sends the end of the stream.
func CloseWrite(fd int) { syscall.RawSyscall(syscall.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0) }

// Reset closes a connection so that the peer sees an error, not an end.
func Reset(fd int) {
	linger := unix.Linger{Onoff: 1}
	setsockopt(fd, unix.SOL_SOCKET, unix.SO_LINGER, unsafe.Pointer(&linger), unsafe.Sizeof(linger))
	Close(fd)
}

func setsockopt(fd, level, name int, v unsafe.Pointer, n uintptr) syscall.Errno {
	_, _, e := syscall.RawSyscall6(syscall.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(name), uintptr(v), n, 0)
	return e
}

func setInt(fd, level, name int, v int32) syscall.Errno {
	return setsockopt(fd, level, name, unsafe.Pointer(&v), 4)
}

// NoDelay sends small segments at once. Accepted connections have it from their listener.
func NoDelay(fd int) { setInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) }

// Push sends what a connection with NoDelay holds back because more was announced.
func Push(fd int) { NoDelay(fd) }

// DeferAccept has a listener keep a connection to itself until the client has sent something. It must be off for protocols in
// which the server speaks first.
func DeferAccept(fd int, on bool) {
	var seconds int32
	if on {
		seconds = 3
	}
	setInt(fd, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, seconds)
}

// unsentMost is what a connection holds at most of what its peer's window has no room for. What is on its way does not count, so that
// no path is too long for it.
const unsentMost = 256 << 10

// BoundUnsent has the connections of a listener take no more than unsentMost ahead of their peers. Left to itself the kernel takes up to
// net.ipv4.tcp_wmem, 4 MiB, for a peer that reads nothing.
func BoundUnsent(fd int) { setInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsentMost) }

// Accept takes one connection from a listener: non-blocking, close-on-exec.
func Accept(fd int) (int, netip.AddrPort, syscall.Errno) {
	var sa syscall.RawSockaddrAny
	for {
		size := uint32(unsafe.Sizeof(sa))
		n, _, e := syscall.RawSyscall6(syscall.SYS_ACCEPT4, uintptr(fd), uintptr(unsafe.Pointer(&sa)),
			uintptr(unsafe.Pointer(&size)), syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0, 0)
		switch e {
		case 0:
			return int(n), addrPort(&sa), 0
		case syscall.EINTR, syscall.ECONNABORTED:
			continue
		}
		return -1, netip.AddrPort{}, e
	}
}

// LocalAddr returns the address that the peer of a connected socket sees; the zero one when there is none.
func LocalAddr(fd int) netip.AddrPort {
	var sa syscall.RawSockaddrAny
	n := uint32(unsafe.Sizeof(sa))
	if _, _, e := syscall.RawSyscall(syscall.SYS_GETSOCKNAME, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&n))); e != 0 {
		return netip.AddrPort{}
	}
	return addrPort(&sa)
}

func addrPort(sa *syscall.RawSockaddrAny) netip.AddrPort {
	switch sa.Addr.Family {
	case syscall.AF_INET:
		p := (*syscall.RawSockaddrInet4)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom4(p.Addr), ntohs(p.Port))
	case syscall.AF_INET6:
		p := (*syscall.RawSockaddrInet6)(unsafe.Pointer(sa))
		return netip.AddrPortFrom(netip.AddrFrom16(p.Addr).Unmap(), ntohs(p.Port))
	}
	return netip.AddrPort{}
}

func ntohs(p uint16) uint16 {
	var b [2]byte
	binary.NativeEndian.PutUint16(b[:], p)
	return binary.BigEndian.Uint16(b[:])
}

// Connect starts a connection; IPv6 zones are not looked at. 0 and EINPROGRESS both mean that it is under way or done: the
// descriptor becomes writable or broken.
func Connect(to netip.AddrPort) (int, syscall.Errno) {
	family := syscall.AF_INET6
	if to.Addr().Is4() {
		family = syscall.AF_INET
	}
	n, _, e := syscall.RawSyscall(syscall.SYS_SOCKET, uintptr(family),
		syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if e != 0 {
		return -1, e
	}
	fd := int(n)
	NoDelay(fd)
	if family == syscall.AF_INET {
		sa := syscall.RawSockaddrInet4{Family: syscall.AF_INET, Port: ntohs(to.Port()), Addr: to.Addr().As4()}
		_, _, e = syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	} else {
		sa := syscall.RawSockaddrInet6{Family: syscall.AF_INET6, Port: ntohs(to.Port()), Addr: to.Addr().As16()}
		_, _, e = syscall.RawSyscall(syscall.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unsafe.Sizeof(sa))
	}
	if e != 0 && e != syscall.EINPROGRESS {
		Close(fd)
		return -1, e
	}
	return fd, e
}

// ListenOptions of a listener.
type ListenOptions struct {
	FreeBind bool // the address may not be on this host yet
	Defer    bool // see DeferAccept
	Share    bool // another listener of this process has the address already
}

// backlog asks for as many waiting connections as the kernel allows (net.core.somaxconn cuts it).
const backlog = 65535

// Listen opens one listener of a group that shares an address, one for each loop. The first of a group must not Share: it finds
// out whether somebody else has the address, with whom the kernel would otherwise divide the connections silently.
func Listen(at netip.AddrPort, o ListenOptions) (fd int, err error) {
	family := unix.AF_INET6
	if at.Addr().Is4() {
		family = unix.AF_INET
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open a socket: %w", err)
	}
	defer func() {
		if err != nil {
			Close(fd)
			fd = -1
		}
	}()
	options := []struct {
		name              string
		on                bool
		level, name1, val int
	}{
		{"SO_REUSEADDR", true, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1},
		{"IPV6_V6ONLY", family == unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1},
		{"IP_FREEBIND", o.FreeBind && family == unix.AF_INET, unix.IPPROTO_IP, unix.IP_FREEBIND, 1},
		{"IPV6_FREEBIND", o.FreeBind && family == unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1},
		{"TCP_NODELAY", true, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"SO_REUSEPORT", o.Share, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1},
	}
	for _, p := range options {
		if !p.on {
			continue
		}
		if err := unix.SetsockoptInt(fd, p.level, p.name1, p.val); err != nil {
			return fd, fmt.Errorf("set %s: %w", p.name, err)
		}
	}
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	if family == unix.AF_INET {
		sa = &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}
	}
	if err := unix.Bind(fd, sa); err != nil {
		return fd, fmt.Errorf("bind: %w", err)
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
		return fd, fmt.Errorf("set SO_REUSEPORT: %w", err)
	}
	DeferAccept(fd, o.Defer)
	BoundUnsent(fd)
	if err := unix.Listen(fd, backlog); err != nil {
		return fd, fmt.Errorf("listen: %w", err)
	}
	return fd, nil
}

// SocketError returns and clears what went wrong with a socket.
func SocketError(fd int) syscall.Errno {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return syscall.EBADF
	}
	return syscall.Errno(n)
}

// Unacked returns how many bytes that were sent the peer has not acknowledged; the end of the stream counts as one.
func Unacked(fd int) int {
	var n int32
	if _, _, e := syscall.RawSyscall(syscall.SYS_IOCTL, uintptr(fd), unix.SIOCOUTQ, uintptr(unsafe.Pointer(&n))); e != 0 {
		return 0
	}
	return int(n)
}

// Acked returns how many bytes the peer has acknowledged since the connection began; ok is false where the kernel does not say.
func Acked(fd int) (n uint64, ok bool) {
	var info unix.TCPInfo
	size := tcpInfo(fd, &info)
	return info.Bytes_acked, size >= unsafe.Offsetof(info.Bytes_acked)+8
}

// Queued returns how many connections wait in the queue of a listener.
func Queued(fd int) int {
	var info unix.TCPInfo
	tcpInfo(fd, &info)
	return int(info.Unacked) // of a listener: sk_ack_backlog
}

// tcpInfo asks what the kernel knows of a socket, and returns how much of info it has filled in.
func tcpInfo(fd int, info *unix.TCPInfo) uintptr {
	size := uint32(unsafe.Sizeof(*info))
	if _, _, e := syscall.RawSyscall6(syscall.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(info)), uintptr(unsafe.Pointer(&size)), 0); e != 0 {
		return 0
	}
	return uintptr(size)
}
