package loop

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// localPort returns the port of a listener that was opened on port 0.
func localPort(fd int) (uint16, error) {
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, fmt.Errorf("ask a socket for its address: %w", err)
	}
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return uint16(sa.Port), nil
	case *syscall.SockaddrInet6:
		return uint16(sa.Port), nil
	}
	return 0, errors.New("a listener without an internet address")
}

// run starts a loop and ends it with the test.
func run(t *testing.T, o Options) *Loop {
	t.Helper()
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		l.Run()
		close(done)
	}()
	t.Cleanup(func() {
		l.Stop()
		<-done
	})
	return l
}

// do has the loop call f and waits until it has.
func (l *Loop) do(t *testing.T, f func()) {
	t.Helper()
	done := make(chan struct{})
	if !l.Post(func() { f(); close(done) }) {
		t.Fatal("Post was refused")
	}
	<-done
}

func TestEveryPostIsRunOnceAndInOrder(t *testing.T) {
	l := run(t, Options{})
	var got [4][]int
	var posters sync.WaitGroup
	for p := range 4 {
		posters.Go(func() {
			for i := range 500 {
				for !l.Post(func() { got[p] = append(got[p], i) }) {
					time.Sleep(time.Millisecond) // full
				}
			}
		})
	}
	posters.Wait()
	l.do(t, func() {})
	for p := range got {
		if len(got[p]) != 500 {
			t.Fatalf("poster %d: %d of 500 were run", p, len(got[p]))
		}
		for i, n := range got[p] {
			if i != n {
				t.Fatalf("poster %d: %d was run in place %d", p, n, i)
			}
		}
	}
}

func TestAFullMailboxRefuses(t *testing.T) {
	l, err := New(Options{}) // not running: nobody empties it
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxMailbox {
		if !l.Post(func() {}) {
			t.Fatalf("post %d was refused", i)
		}
	}
	if l.Post(func() {}) {
		t.Errorf("post %d was taken", maxMailbox+1)
	}
	if n := l.Load().PostsFull.Load(); n != 1 {
		t.Errorf("%d refusals were counted", n)
	}
	l.Stop()
	l.Run()
	if l.Post(func() {}) || !l.Ended() {
		t.Errorf("a loop that has ended takes posts")
	}
}

// pair returns two connected sockets, non-blocking.
func pair(t *testing.T) (a, b int) {
	t.Helper()
	lfd, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer Close(lfd)
	port, err := localPort(lfd)
	if err != nil {
		t.Fatal(err)
	}
	a, e := Connect(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port))
	if e != 0 && e != syscall.EINPROGRESS {
		t.Fatal(e)
	}
	for {
		var from netip.AddrPort
		if b, from, e = Accept(lfd); e == 0 {
			if from.Addr() != netip.MustParseAddr("127.0.0.1") {
				t.Errorf("accepted from %v", from)
			}
			return a, b
		}
		if e != syscall.EAGAIN {
			t.Fatal(e)
		}
	}
}

type handler func(Events)

func (f handler) Ready(ev Events) { f(ev) }

func TestAnEventOfAnEarlierRegistrationIsNotTold(t *testing.T) {
	// Two descriptors become readable in one batch. The handler of the first closes the second and has another socket take over
	// its number: the event that is still in the batch belongs to nobody.
	l := run(t, Options{})
	a1, b1 := pair(t)
	a2, b2 := pair(t)
	a3, b3 := pair(t)
	defer func() { Close(a1); Close(a2); Close(a3); Close(b1); Close(b3) }()
	told := make(chan string, 10)
	l.do(t, func() {
		first := true
		other := func(fd, peer int) handler {
			return func(ev Events) {
				if ev&Readable == 0 || !first {
					return
				}
				first = false
				l.Forget(peer)
				if err := syscall.Dup3(b3, peer, 0); err != nil { // closes peer, and b3 goes by its number
					told <- err.Error()
				}
				l.Watch(peer, handler(func(ev Events) {
					if ev&Readable != 0 {
						told <- "the new socket was told that it is readable"
					}
				}))
				told <- "first"
			}
		}
		l.Watch(b1, other(b1, b2))
		l.Watch(b2, other(b2, b1))
		Send(a1, []byte("x"), false)
		Send(a2, []byte("x"), false)
	})
	if s := <-told; s != "first" {
		t.Fatal(s)
	}
	l.do(t, func() {})
	l.do(t, func() {})
	select {
	case s := <-told:
		t.Error(s)
	default:
	}
}

func TestAPipeCarriesBytesBetweenSockets(t *testing.T) {
	l, err := New(Options{})
	if err != nil {
		t.Fatal(err)
	}
	a1, b1 := pair(t)
	a2, b2 := pair(t)
	defer func() { Close(a1); Close(a2); Close(b1); Close(b2) }()
	p := l.Pipe()
	if p == nil {
		t.Fatal("no pipe")
	}
	if _, e := p.Fill(b1, 100); e != syscall.EAGAIN {
		t.Errorf("fill from an empty socket: %v", e)
	}
	Send(a1, []byte("through the kernel"), false)
	n, e := 0, syscall.EAGAIN
	for e == syscall.EAGAIN {
		n, e = p.Fill(b1, 100)
	}
	if n != 18 || e != 0 || p.Held != 18 {
		t.Fatalf("fill: %d, %v, held %d", n, e, p.Held)
	}
	if n, e := p.Flush(a2, false); n != 18 || e != 0 || p.Held != 0 {
		t.Fatalf("flush: %d, %v, held %d", n, e, p.Held)
	}
	l.PutPipe(p)
	if l.Pipe() != p {
		t.Errorf("an empty pipe was not used again")
	}
	b := make([]byte, 100)
	for n, e = 0, syscall.EAGAIN; e == syscall.EAGAIN; {
		n, e = Recv(b2, b)
	}
	if string(b[:n]) != "through the kernel" {
		t.Errorf("received %q, %v", b[:n], e)
	}
	Close(a1)
	for n, e = 0, syscall.EAGAIN; e == syscall.EAGAIN; {
		n, e = p.Fill(b1, 100)
	}
	if n != 0 || e != 0 {
		t.Errorf("at the end of the stream: %d, %v", n, e)
	}
	a1, _ = pair(t)
}

func TestOnlyTheFirstOfAGroupFindsOutWhoHasTheAddress(t *testing.T) {
	any := netip.MustParseAddrPort("127.0.0.1:0")
	first, err := Listen(any, ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer Close(first)
	port, _ := localPort(first)
	at := netip.AddrPortFrom(any.Addr(), port)
	second, err := Listen(at, ListenOptions{Share: true})
	if err != nil {
		t.Fatalf("the second of a group: %v", err)
	}
	defer Close(second)
	if fd, err := Listen(at, ListenOptions{}); err == nil {
		Close(fd)
		t.Errorf("a stranger got the address, too")
	}
}

func TestFreeBindListensOnAnAddressThatIsNotHere(t *testing.T) {
	at := netip.MustParseAddrPort("198.18.255.254:0")
	if fd, err := Listen(at, ListenOptions{}); err == nil {
		Close(fd)
		t.Skip("this host has 198.18.255.254")
	}
	fd, err := Listen(at, ListenOptions{FreeBind: true})
	if err != nil {
		t.Fatal(err)
	}
	Close(fd)
}

func TestAfterRunsAtTheEndAndCanAskForMore(t *testing.T) {
	var calls atomic.Int64
	rounds := 0
	l := run(t, Options{After: func() bool {
		calls.Add(1)
		if rounds > 0 {
			rounds--
			return true
		}
		return false
	}})
	l.do(t, func() { rounds = 5 })
	l.do(t, func() {})
	if n := calls.Load(); n < 2 {
		t.Errorf("After was called %d times", n)
	}
}
