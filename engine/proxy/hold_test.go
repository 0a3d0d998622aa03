package proxy

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/engine/loop"
)

func TestWhatIsHeldBackIsSentWhenItsTimeHasCome(t *testing.T) {
	// A client is given a head with the remark that more follows: the kernel keeps it. Nothing follows; the timer sends it.
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fd, e := loop.Connect(l.Addr().(*net.TCPAddr).AddrPort())
	if e != 0 && e != unix.EINPROGRESS {
		t.Fatal(e)
	}
	peer, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	w, err := New(0, &Shared{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := w.spareClient()
	c.conn = conn{fd: fd, owner: c}
	w.link(c)
	defer loop.Close(fd)
	c.state = clientBusy
	kept := func() int {
		n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQNSD)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if st := w.send(&c.conn, []byte("HTTP/1.1 200 OK\r\n\r\n"), true); st != ioOK {
		t.Fatalf("send = %v", st)
	}
	w.hold(c)
	if n := kept(); n != 19 || !c.held || len(w.holding.list) != 1 || !w.holding.timer.Set() {
		t.Fatalf("%d bytes kept by the kernel, held = %v, %d noted: want 19, true, 1", n, c.held, len(w.holding.list))
	}
	w.hold(c)
	if n := len(w.holding.list); n != 1 {
		t.Errorf("noted %d times, want once", n)
	}
	w.holding.Expired()
	if n := kept(); n != 0 || c.held || len(w.holding.list) != 0 {
		t.Errorf("afterwards %d bytes kept, held = %v, %d noted: want none", n, c.held, len(w.holding.list))
	}
	// A use of the client that has ended meanwhile is not touched.
	c.held, c.onHold = true, false
	w.hold(c)
	c.serial++
	w.holding.Expired()
	if !c.held {
		t.Error("a later use of the client was taken for the one that was noted")
	}
}
