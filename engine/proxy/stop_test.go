package proxy

import (
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
