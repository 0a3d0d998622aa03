package loop

import (
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Events is what happened to a descriptor.
type Events uint32

// The events. Several can happen at once.
const (
	Readable   Events = unix.EPOLLIN
	Writable   Events = unix.EPOLLOUT
	PeerClosed Events = unix.EPOLLRDHUP // the peer will send no more
	Broken     Events = unix.EPOLLHUP | unix.EPOLLERR
)

const (
	edgeEvents  = unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLRDHUP | 1<<31 // EPOLLET
	levelEvents = unix.EPOLLIN
)

// poller is epoll. Descriptors are added once, with all events, edge-triggered: no epoll_ctl in the steady state.
type poller struct {
	fd     int
	events [maxEvents]syscall.EpollEvent
}

func (p *poller) open() (err error) {
	p.fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return err
}

func (p *poller) close() { Close(p.fd) }

func (p *poller) add(fd int, gen, mask uint32) syscall.Errno {
	ev := syscall.EpollEvent{Events: mask, Fd: int32(fd), Pad: int32(gen)}
	_, _, e := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(p.fd), syscall.EPOLL_CTL_ADD, uintptr(fd),
		uintptr(unsafe.Pointer(&ev)), 0, 0)
	return e
}

func (p *poller) remove(fd int) {
	var ev syscall.EpollEvent // kernels before 2.6.9 wanted one; it costs nothing
	syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(p.fd), syscall.EPOLL_CTL_DEL, uintptr(fd),
		uintptr(unsafe.Pointer(&ev)), 0, 0)
}

// wait does not tell the runtime that it may block.
func (p *poller) wait(ms int) (int, syscall.Errno) {
	n, _, e := syscall.RawSyscall6(sysEpollWait, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), maxEvents,
		uintptr(ms), 0, 0)
	return int(n), e
}

// waitIdle gives the processor to other goroutines while it blocks.
func (p *poller) waitIdle(ms int) (int, syscall.Errno) {
	n, _, e := syscall.Syscall6(sysEpollWait, uintptr(p.fd), uintptr(unsafe.Pointer(&p.events[0])), maxEvents,
		uintptr(ms), 0, 0)
	return int(n), e
}

func (p *poller) event(i int) (fd int, gen uint32, ev Events) {
	e := &p.events[i]
	return int(e.Fd), uint32(e.Pad), Events(e.Events)
}

func openEventfd() (int, error) { return unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK) }

func wakeEventfd(fd int) {
	one := uint64(1)
	syscall.RawSyscall(syscall.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), 8)
}

func drainEventfd(fd int) {
	var n uint64
	syscall.RawSyscall(syscall.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&n)), 8)
}

// sleep does nothing for a moment, which must be short: the runtime does not hear of it.
func sleep(ns int64) {
	ts := syscall.NsecToTimespec(ns)
	syscall.RawSyscall(syscall.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}

// punctual has the kernel end this thread's sleeps when they are due, and not up to 50 us later. A thread that cannot have
// that sleeps a little longer.
func punctual() {
	syscall.RawSyscall(syscall.SYS_PRCTL, unix.PR_SET_TIMERSLACK, uintptr(time.Microsecond), 0)
}

// named gives the thread a name by which a person at `top -H` and a debugger find it.
func named() {
	if syscall.Gettid() == syscall.Getpid() {
		return // the main thread's name is the program's
	}
	name, _ := syscall.BytePtrFromString("skein-loop")
	syscall.RawSyscall(syscall.SYS_PRCTL, unix.PR_SET_NAME, uintptr(unsafe.Pointer(name)), 0)
}
