package proxy

import (
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/plan"
)

func TestWhoMustWaitAgainHasWaitedAlready(t *testing.T) {
	// A client has waited for as long as it may, was given a place, and found it taken by another loop meanwhile. It goes back to the
	// queue, but not for another hour.
	c, diags := config.Parse("test.hcl", []byte(`
frontend "f" {
  bind    = ["127.0.0.1"]
  http    = 8080
  backend = "b"
}
backend "b" {
  queue {
    timeout = "1h"
  }
  server "s" {
    address         = "127.0.0.1:1"
    max_connections = 1
  }
}
`))
	if c == nil {
		t.Fatal(diags)
	}
	p, err := plan.Compile(c, nil)
	if err != nil {
		t.Fatal(err)
	}
	p.Backends[0].Refresh(0)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	peer := os.NewFile(uintptr(fds[1]), "peer")
	defer peer.Close()
	w, err := New(0, &Shared{Descriptors: &Descriptors{}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.shared.Workers = []*Worker{w}
	l := &Listener{}
	l.SetFrontend(p.Frontends[0])
	cl := w.spareClient()
	cl.conn = conn{fd: fds[0], owner: cl}
	cl.listener, cl.front, cl.state = l, p.Frontends[0], clientBusy
	w.link(cl)
	cl.x = exchange{minor: 1, closing: true, bodyDone: true, backend: p.Backends[0]}
	cl.open(w.loop.Now())
	s := p.Backends[0].Servers[0]
	if !s.Acquire() {
		t.Fatal("the server has no place for the other loop's client")
	}
	cl.x.rec.queued = int64(time.Hour)
	w.enqueue(cl, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.Run()
	}()
	defer func() { w.Stop(); <-done }()
	peer.SetReadDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 1024)
	if n, err := peer.Read(b); !strings.HasPrefix(string(b[:n]), "HTTP/1.1 503") {
		t.Errorf("read %q, %v", b[:n], err)
	}
}
