package proxy

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/engine/loop"
	"github.com/skeinlb/skein/engine/plan"
)

func TestInterimResponsesWithoutEndLetOthersHaveTheirTurn(t *testing.T) {
	// A server has sent interim responses for several turns at once. Each turn takes some of them, and then others are served.
	const interims = 5*fairTurns + 1
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer loop.Close(fds[0])
	defer loop.Close(fds[1])
	if _, err := unix.Write(fds[1], []byte(strings.Repeat("HTTP/1.1 102 Processing\r\n\r\n", interims))); err != nil {
		t.Fatal(err)
	}
	w, err := New(0, &Shared{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, s := w.spareClient(), w.spareServer()
	w.link(c)
	c.state = clientBusy
	c.x = exchange{bodyDone: true, backend: &plan.Backend{}, srv: s} // of HTTP/1.0: it is sent none of them
	s.conn = conn{fd: fds[0], owner: s, readable: true}
	s.c, s.state = c, serverWaiting
	turns := 0
	for s.readHead(); len(w.turns) > 0; w.after() {
		if turns++; turns > interims {
			t.Fatal("there is no end to the turns")
		}
	}
	if turns != 5 || s.more || s.readable || len(s.in) > 0 {
		t.Errorf("%d turns, more = %v, readable = %v, %d bytes left; want 5 turns and nothing left", turns, s.more, s.readable, len(s.in))
	}
}
