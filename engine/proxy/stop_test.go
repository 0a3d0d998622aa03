package proxy

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/engine/loop"
)

func TestStopIsHeardWhenTheMailboxIsFull(t *testing.T) {
	// A loop has been busy for a while, and nobody has emptied its mailbox. It is stopped all the same, and closes what it has.
	fd, err := loop.Listen(netip.MustParseAddrPort("127.0.0.1:0"), loop.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	at := loop.LocalAddr(fd)
	w, err := New(0, &Shared{Descriptors: &Descriptors{}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.shared.Workers = []*Worker{w}
	if err := w.Listen(&Listener{Addr: at}, fd); err != nil {
		t.Fatal(err)
	}
	ran := 0
	for w.Post(func() { ran++ }) {
	}
	posted := w.Load().Posts.Load()
	w.Stop()
	w.Run()
	if posted == 0 || uint64(ran) != posted {
		t.Errorf("%d of %d posts were run", ran, posted)
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil || len(w.sockets) > 0 {
		t.Errorf("its listener is still open")
	}
}

func TestWhoWaitsWhenAllIsStoppedIsSentToNoServer(t *testing.T) {
	// A client has sent a request, and nobody has accepted it yet when the loop is stopped. What it asks for would be begun by a server and
	// cut off in the middle.
	fd, err := loop.Listen(netip.MustParseAddrPort("127.0.0.1:0"), loop.ListenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	cr := newCrowd(t, "", 1)
	cr.l.Addr = loop.LocalAddr(fd)
	if err := cr.w.Listen(cr.l, fd); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", cr.l.Addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000); n != 1 {
		t.Fatalf("nobody to accept: %v", err)
	}
	cr.w.Stop()
	cr.w.Run()
	st := cr.plan.Frontends[0].Stats.Totals()
	if n := cr.server().Stats.Totals().Requests; n != 0 || st.Connections != 0 {
		t.Errorf("%d connections were accepted, and %d requests sent to a server", st.Connections, n)
	}
}
