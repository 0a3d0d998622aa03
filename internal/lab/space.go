package lab

import (
	"errors"
	"fmt"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var errClosed = errors.New("the lab is closed")

// space is one network namespace. A thread of its own lives in it from beginning to end: the keeper. Sockets are made and
// processes are forked there. A process asks to be killed when the thread that forked it ends, so that thread has to last.
type space struct {
	fd    int
	inode uint64
	links *netlink.Handle
	jobs  chan func()
	quit  chan struct{} // closed by close
	gone  chan struct{} // closed when the keeper has ended
}

func newSpace() (*space, error) { return keep((*space).enterNew) }

// hereSpace is the network namespace that the program itself runs in.
func hereSpace() (*space, error) {
	return keep(func(s *space) (err error) {
		if s.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
			return fmt.Errorf("open the network namespace: %w", err)
		}
		s.links, err = netlink.NewHandle(unix.NETLINK_ROUTE)
		return err
	})
}

// keep starts a keeper that goes where enter takes it.
func keep(enter func(*space) error) (*space, error) {
	s := &space{fd: -1, jobs: make(chan func()), quit: make(chan struct{}), gone: make(chan struct{})}
	made := make(chan error)
	onOwnThread(func() {
		defer close(s.gone)
		err := enter(s)
		made <- err
		if err != nil {
			return
		}
		for {
			select {
			case job := <-s.jobs:
				job()
			case <-s.quit:
				return
			}
		}
	})
	if err := <-made; err != nil {
		return nil, err
	}
	return s, nil
}

// enterNew moves the calling thread, for good, into a new network namespace.
func (s *space) enterNew() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w", err)
	}
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open the new network namespace: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return fmt.Errorf("look at the new network namespace: %w", err)
	}
	s.fd, s.inode = fd, st.Ino
	// /proc/sys/net follows the thread that looks; /sys shows the namespace that it was mounted from. Give what runs here a
	// /sys of its own; where that is forbidden (in many containers), /sys/class/net shows the outer machine's links.
	if unix.Unshare(unix.CLONE_NEWNS) == nil && unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, "") == nil {
		_ = unix.Mount("sysfs", "/sys", "sysfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
	}
	// Duplicate address detection would leave IPv6 addresses unusable for the first second. No IPv6: nothing to turn off.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/accept_dad", []byte("0"), 0)
	if s.links, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	lo, err := s.links.LinkByName("lo")
	if err == nil {
		err = s.links.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return nil
}

// do runs f on the keeper, so that what f makes (a socket, a process) belongs to the namespace. f must be quick: all others wait.
func (s *space) do(f func() error) error {
	done := make(chan error, 1)
	select {
	case s.jobs <- func() { done <- f() }:
		return <-done
	case <-s.gone:
		return errClosed
	}
}

// run runs f on a thread made for it inside the namespace. f may take as long as it likes.
func (s *space) run(f func() error) error {
	done := make(chan error, 1)
	onOwnThread(func() {
		if err := unix.Setns(s.fd, unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the network namespace: %w", err)
			return
		}
		defer func() {
			// f may have panicked or ended its goroutine (a test's FailNow does): the caller must not wait for ever.
			select {
			case done <- errors.New("the function did not return"):
			default:
			}
		}()
		done <- f()
	})
	return <-done
}

// close ends the keeper and with it the processes that it forked. The namespace vanishes with its last process and socket.
func (s *space) close() {
	select {
	case <-s.quit:
		return
	default:
		close(s.quit)
	}
	<-s.gone
	if s.links != nil {
		s.links.Close()
	}
	unix.Close(s.fd)
}

// onOwnThread runs f on a thread that nobody else ever uses and that ends with f: namespaces are a property of threads, and
// a thread must not go back among the others with the wrong one. It is never the main thread, whose namespace stands
// in /proc/self for the whole process. It returns as soon as the thread is found.
func onOwnThread(f func()) {
	found := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			onOwnThread(f) // another one: this goroutine holds the main thread meanwhile
			runtime.UnlockOSThread()
			close(found)
			return
		}
		close(found)
		f()
		// No UnlockOSThread: the runtime ends the thread with the goroutine.
	}()
	<-found
}
