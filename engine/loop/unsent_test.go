package loop

import (
	"net"
	"net/netip"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// stuffed sends into an accepted connection whose peer reads nothing until it takes no more, and returns how much it took.
func stuffed(t *testing.T, change func(listener int)) int {
	t.Helper()
	l, err := Listen(netip.MustParseAddrPort("127.0.0.1:0"), ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer Close(l)
	change(l)
	port, err := localPort(l)
	if err != nil {
		t.Fatal(err)
	}
	d := net.Dialer{Control: func(_, _ string, rc syscall.RawConn) error {
		return rc.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
	}}
	peer, err := d.Dial("tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(l), Events: unix.POLLIN}}, 10_000); n != 1 {
		t.Fatalf("nobody to accept: %v", err)
	}
	fd, _, e := Accept(l)
	if e != 0 {
		t.Fatal(e)
	}
	defer Close(fd)
	b := make([]byte, 64<<10)
	sum := 0
	for {
		n, e := Send(fd, b, false)
		switch {
		case e == syscall.EAGAIN:
			return sum
		case e != 0:
			t.Fatalf("after %d bytes: %v", sum, e)
		}
		if sum += n; sum > 64<<20 {
			t.Fatal("there is no end to what it takes")
		}
	}
}

func TestAConnectionTakesLittleAheadOfASlowReader(t *testing.T) {
	const most = unsentMost + 64<<10 + 64<<10 // the last send may go beyond it, and what the peer's window took
	got := stuffed(t, func(int) {})
	if got > most {
		t.Errorf("a connection whose peer reads nothing took %d KiB, more than %d", got>>10, most>>10)
	}
	unbounded := stuffed(t, func(l int) { setInt(l, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, -1) })
	t.Logf("%d KiB; as the kernel would have it, %d KiB", got>>10, unbounded>>10)
}
