package load

import (
	"fmt"
	"net/netip"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
	"unsafe" // unsafe: system calls that the runtime does not get to know, and that do not make it hand the processor on

	"golang.org/x/sys/unix"
)

const (
	scratchSize = 256 << 10
	maxEvents   = 512
)

var started = time.Now()

// nanos is the monotonic time.
func nanos() int64 { return int64(time.Since(started)) }

// poller is an epoll instance, edge-triggered.
type poller struct {
	fd     int
	events [maxEvents]unix.EpollEvent
}

func newPoller() (*poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll: %w", err)
	}
	return &poller{fd: fd}, nil
}

func (p *poller) close() { unix.Close(p.fd) }

// add registers a descriptor for all that can happen to it, once.
func (p *poller) add(fd, slot int) error {
	e := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff, Fd: int32(slot)}
	if _, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(p.fd), unix.EPOLL_CTL_ADD, uintptr(fd), uintptr(unsafe.Pointer(&e)), 0, 0); errno != 0 {
		return fmt.Errorf("watch a descriptor: %w", errno)
	}
	return nil
}

// wait blocks in a raw system call for at most ns nanoseconds; below zero: for ever.
func (p *poller) wait(ns int64) ([]unix.EpollEvent, error) {
	var limit *unix.Timespec
	if ns >= 0 {
		t := unix.NsecToTimespec(ns)
		limit = &t
	}
	n, _, errno := syscall.RawSyscall6(unix.SYS_EPOLL_PWAIT2, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), maxEvents,
		uintptr(unsafe.Pointer(limit)), 0, 0)
	switch errno {
	case 0:
		return p.events[:n], nil
	case unix.EINTR: // the runtime wants this thread for something
		runtime.Gosched()
		return nil, nil
	}
	return nil, fmt.Errorf("wait for events: %w", errno)
}

// recv returns what is there: n > 0, or 0 at the end, or an errno. With unix.MSG_TRUNC it throws up to limit bytes away unseen.
func recv(fd int, b []byte, limit int, flags int) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_RECVFROM, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(limit),
		uintptr(flags|unix.MSG_DONTWAIT), 0, 0)
	return int(n), errno
}

func send(fd int, b []byte, flags int) (int, syscall.Errno) {
	n, _, errno := syscall.RawSyscall6(unix.SYS_SENDTO, uintptr(fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)),
		uintptr(flags|unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL), 0, 0)
	return int(n), errno
}

// dial connects, waiting for it, and returns a descriptor that blocks no more.
func dial(to netip.AddrPort) (int, error) {
	fd, err := connect(to, 0)
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	return fd, err
}

// connect begins to connect. On the loopback the connection is there when the call returns, though it may say otherwise.
func connect(to netip.AddrPort, nonblock int) (int, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|nonblock, 0)
	if err != nil {
		return -1, fmt.Errorf("open a socket: %w", err)
	}
	err = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
	}
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return -1, fmt.Errorf("connect to %v: %w", to, err)
	}
	return fd, nil
}

// own makes the calling goroutine the only thing that matters in this process: a thread of its own, no garbage collection below a
// bound that is not reached, timers without slack.
func own() {
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	debug.SetMemoryLimit(1 << 30)
	unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
}
