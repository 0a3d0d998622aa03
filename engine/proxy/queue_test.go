package proxy

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/plan"
)

// crowd is a worker with a backend of one server, and clients whose turn it has never been.
type crowd struct {
	t    *testing.T
	w    *Worker
	plan *plan.Plan
	l    *Listener
}

// compiled returns the plan of a backend with that queue and a server that takes so many connections.
func (cr *crowd) compiled(queue string, most int) *plan.Plan {
	cr.t.Helper()
	c, diags := config.Parse("test.hcl", fmt.Appendf(nil, `
frontend "f" {
  bind    = ["127.0.0.1"]
  http    = 8080
  backend = "b"
}
backend "b" {
  queue {
    %s
  }
  server "s" {
    address         = "127.0.0.1:1"
    max_connections = %d
  }
}
`, queue, most))
	if c == nil {
		cr.t.Fatal(diags)
	}
	p, err := plan.Compile(c, cr.plan)
	if err != nil {
		cr.t.Fatal(err)
	}
	p.Backends[0].Refresh(0)
	return p
}

func newCrowd(t *testing.T, queue string, most int) *crowd {
	t.Helper()
	w, err := New(0, &Shared{Descriptors: &Descriptors{}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	w.shared.Workers = []*Worker{w}
	cr := &crowd{t: t, w: w, l: &Listener{}}
	cr.plan = cr.compiled(queue, most)
	cr.l.SetFrontend(cr.plan.Frontends[0])
	return cr
}

// pair returns a connection and its other end.
func (cr *crowd) pair() (fd int, peer *os.File) {
	cr.t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		cr.t.Fatal(err)
	}
	peer = os.NewFile(uintptr(fds[1]), "peer")
	cr.t.Cleanup(func() { peer.Close() })
	return fds[0], peer
}

func (cr *crowd) server() *plan.Server { return cr.plan.Backends[0].Servers[0] }

// client returns one with a request, and what it reads.
func (cr *crowd) client() (*client, *os.File) {
	fd, peer := cr.pair()
	c := cr.w.spareClient()
	c.conn = conn{fd: fd, owner: c}
	c.listener, c.front, c.state = cr.l, cr.plan.Frontends[0], clientBusy
	cr.w.link(c)
	c.x = exchange{minor: 1, closing: true, bodyDone: true, backend: cr.plan.Backends[0]}
	c.x.req = cr.w.bufs.save(nil, []byte("GET / HTTP/1.1\r\n\r\n"))
	c.open(cr.w.loop.Now())
	return c, peer
}

func TestWhoMustWaitAgainHasWaitedAlready(t *testing.T) {
	// A client has waited for as long as it may, was given a place, and found it taken by another loop meanwhile. It goes back to the
	// queue, but not for another hour.
	cr := newCrowd(t, `timeout = "1h"`, 1)
	w := cr.w
	cl, peer := cr.client()
	s := cr.server()
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

func TestWhoWasCalledInVainKeepsItsTurn(t *testing.T) {
	// Three clients wait. The first is called, since there is an unused connection; that turns out to be dead, and its place is not
	// free, because a reload has halved what the server may have. The queue has become shorter, too. The first stays the first, and
	// nobody is sent away.
	cr := newCrowd(t, "length = 3", 2)
	w := cr.w
	s := cr.server()
	s.Open.Store(2) // another loop's, and the unused one
	var waiting []*client
	for range 3 {
		c, _ := cr.client()
		w.enqueue(c, s)
		waiting = append(waiting, c)
	}
	fd, peer := cr.pair()
	peer.Close()
	p := w.pool(s, cr.plan.Backends[0])
	unused := w.spareServer()
	unused.conn = conn{fd: fd, owner: unused}
	unused.pool, unused.state = p, serverIdle
	p.link(unused)
	p.idle = append(p.idle, unused)
	cr.plan = cr.compiled("length = 1", 1)
	w.Repin(cr.plan)

	w.serveQueues()
	q := w.queues["b"]
	var got []*client
	for c := q.first; c != nil; c = c.x.nextW {
		got = append(got, c)
	}
	if !slices.Equal(got, waiting) || q.last != waiting[2] || q.n != 3 {
		t.Errorf("%d wait, the first at %d, the last at %d", q.n, slices.Index(waiting, q.first), slices.Index(waiting, q.last))
	}
	if n := cr.plan.Backends[0].Room.Waiting.Load(); n != 3 || w.waiting.Load() != 3 || s.Open.Load() != 1 {
		t.Errorf("%d wait, says the backend, and %d, says the loop, with %d connections to the server; want 3, 3 and 1", n, w.waiting.Load(), s.Open.Load())
	}
	w.Stop()
	w.Run()
	if n := cr.plan.Backends[0].Room.Waiting.Load(); n != 0 || q.first != nil || q.last != nil || q.n != 0 {
		t.Errorf("%d wait when all is over", n)
	}
}
