package engine_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/loop"
	"github.com/skeinlb/skein/engine/plan"
)

// noise returns n bytes that do not repeat.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

func TestTenMegabytesArriveUnchangedInBothDirections(t *testing.T) {
	want := noise(10 << 20)
	sum := sha256.Sum256(want)
	check := func(t *testing.T, r io.Reader) {
		t.Helper()
		h := sha256.New()
		if n, err := io.Copy(h, r); n != int64(len(want)) || err != nil || !bytes.Equal(h.Sum(nil), sum[:]) {
			t.Errorf("%d of %d bytes, error %v, same content: %v", n, len(want), err, bytes.Equal(h.Sum(nil), sum[:]))
		}
	}
	t.Run("tcp", func(t *testing.T) {
		addr := serve(t, func(c net.Conn) { io.Copy(c, c) })
		r := start(t, engine.Options{}, func(port int) string { return frontend("tcp", port, "", addr) })
		c := r.dial()
		go func() {
			c.Write(want)
			c.(*net.TCPConn).CloseWrite()
		}()
		check(t, c)
	})
	t.Run("http up", func(t *testing.T) {
		addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
			h := sha256.New()
			n, err := io.Copy(h, q.Body)
			fmt.Fprintf(w, "%d %v %v", n, err, bytes.Equal(h.Sum(nil), sum[:]))
		})
		r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
		for range 3 {
			resp, err := http.Post("http://"+r.addr, "", bytes.NewReader(want))
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if got := string(b); got != strconv.Itoa(len(want))+" <nil> true" {
				t.Errorf("the server got %s", got)
			}
		}
	})
	t.Run("http down", func(t *testing.T) {
		conns := make(chan struct{}, 10)
		addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/length" {
				w.Header().Set("Content-Length", strconv.Itoa(len(want)))
			}
			w.Write(want)
		})
		r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
		for _, path := range []string{"/length", "/chunked", "/length", "/chunked"} {
			resp, err := http.Get("http://" + r.addr + path)
			if err != nil {
				t.Fatal(err)
			}
			check(t, resp.Body)
			resp.Body.Close()
		}
		if n := r.e.Stats().Backends[0].Servers[0].Connections; n != 1 {
			t.Errorf("%d connections to the server, want the first one used again: %d", n, len(conns))
		}
	})
}

func TestAServerThatSpeaksFirst(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		io.WriteString(c, "220 ready\r\n")
		io.Copy(io.Discard, c)
	})
	r := start(t, engine.Options{}, func(port int) string { return frontend("tcp", port, "", addr) })
	b := make([]byte, 11)
	if _, err := io.ReadFull(r.dial(), b); string(b) != "220 ready\r\n" {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestServersEndIsPassedOnWhileTheClientStillSends(t *testing.T) {
	got := make(chan string, 1)
	addr := serve(t, func(c net.Conn) {
		io.WriteString(c, "bye")
		c.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(c)
		got <- string(b)
	})
	r := start(t, engine.Options{}, func(port int) string { return frontend("tcp", port, "", addr) })
	c := r.dial()
	if b, err := io.ReadAll(c); string(b) != "bye" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	io.WriteString(c, "after your end")
	c.(*net.TCPConn).CloseWrite()
	if s := <-got; s != "after your end" {
		t.Errorf("the server got %q", s)
	}
}

func TestAResetIsPassedOnAsAReset(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, 1))
		c.(*net.TCPConn).SetLinger(0)
	})
	r := start(t, engine.Options{}, func(port int) string { return frontend("tcp", port, "", addr) })
	c := r.dial()
	io.WriteString(c, "x")
	if b, err := io.ReadAll(c); err == nil {
		t.Errorf("read %q and a plain end; the server had reset the connection", b)
	}
	errs := make(chan error, 1)
	addr = serve(t, func(c net.Conn) {
		_, err := io.ReadAll(c)
		errs <- err
	})
	r = start(t, engine.Options{}, func(port int) string { return frontend("tcp", port, "", addr) })
	c = r.dial()
	io.WriteString(c, "x")
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	if err := <-errs; err == nil {
		t.Errorf("the server read a plain end; the client had reset the connection")
	}
}

func TestManyStreamsAtOnce(t *testing.T) {
	addr := serve(t, func(c net.Conn) { io.Copy(c, c) })
	r := start(t, engine.Options{Loops: 2}, func(port int) string { return frontend("tcp", port, "", addr) })
	errs := make(chan error)
	for i := range 50 {
		c := r.dial()
		go func() {
			want := noise(1000 * (i + 1))
			go func() {
				c.Write(want)
				c.(*net.TCPConn).CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err == nil && !bytes.Equal(got, want) {
				err = fmt.Errorf("stream %d: %d bytes came back, want the same %d", i, len(got), len(want))
			}
			errs <- err
		}()
	}
	for range 50 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// gate is a sticky table that, once it has been armed, keeps the next loop that asks it until it is opened.
type gate struct {
	armed      atomic.Bool
	shut, open chan struct{}
}

func (g *gate) Learn(uint64, [16]byte, uint64, time.Duration) {}

func (g *gate) Lookup(uint64, [16]byte) (uint64, bool) {
	if g.armed.CompareAndSwap(true, false) {
		g.shut <- struct{}{}
		<-g.open
	}
	return 0, false
}

// stuff sends in pieces until nothing is taken any more.
func (r *rig) stuff(c net.Conn, piece int) {
	const patience = 200 * time.Millisecond
	b := make([]byte, piece)
	for sent := r.backend().BytesIn; ; {
		c.SetWriteDeadline(time.Now().Add(patience))
		if _, err := c.Write(b); err != nil {
			return
		}
		sent += uint64(piece)
		for deadline := time.Now().Add(patience); r.backend().BytesIn < sent; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				return
			}
		}
	}
}

// A server has answered and closes its connection, without having read everything: it is reset. The proxy hears of both at once. The client
// has said little, or more than the server ever takes, which waits in a pipe or in a buffer; it gets the answer, and then the reset.
func TestAnAnswerIsNotLostToTheResetBehindIt(t *testing.T) {
	for _, piece := range []int{0, 1 << 20, 8 << 10} {
		g := &gate{shut: make(chan struct{}), open: make(chan struct{})}
		answer, answered := make(chan struct{}), make(chan struct{})
		var first atomic.Bool
		addr := serveNarrow(t, func(c net.Conn) {
			if first.Swap(true) {
				return
			}
			io.ReadFull(c, make([]byte, 1))
			<-answer
			io.WriteString(c, "enough")
			c.Close()
			close(answered)
		})
		r := start(t, engine.Options{Sticky: g}, func(port int) string {
			return frontend("tcp", port, "sticky \"table\" {\n key = client\n ttl = \"1m\"\n}", addr)
		})
		c := r.dial()
		io.WriteString(c, "xx")
		waitFor(t, "the server to have some of it", func() bool { return r.backend().BytesIn == 2 })
		if piece > 0 {
			r.stuff(c, piece)
		}
		g.armed.Store(true)
		other := r.dial()
		<-g.shut
		close(answer)
		<-answered
		g.open <- struct{}{}
		got, err := io.ReadAll(c)
		if string(got) != "enough" || piece == 0 && err == nil { // else the reset is what it is told when it writes
			t.Errorf("after pieces of %d bytes read %q, %v; want the answer, and then a reset", piece, got, err)
		}
		other.Close()
	}
}

// The same for HTTP: what the server says last is a response that ends with its connection. Whether it was whole nobody can tell; the client
// gets it, and is told that.
func TestAResponseIsNotLostToTheResetBehindIt(t *testing.T) {
	g := &gate{shut: make(chan struct{}), open: make(chan struct{})}
	answer, answered := make(chan struct{}), make(chan struct{})
	var first atomic.Bool
	addr := serve(t, func(c net.Conn) {
		if first.Swap(true) {
			return
		}
		io.ReadFull(c, make([]byte, 1))
		<-answer
		io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\n\r\nenough")
		c.Close()
		close(answered)
	})
	r := start(t, engine.Options{Sticky: g}, func(port int) string {
		return httpFrontend(port, "sticky \"table\" {\n key = client\n ttl = \"1m\"\n}", addr)
	})
	c := r.dial()
	io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
	waitFor(t, "the server to have the request", func() bool { return r.backend().Servers[0].BytesIn > 0 })
	g.armed.Store(true)
	other := r.dial()
	io.WriteString(other, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	<-g.shut
	close(answer)
	<-answered
	g.open <- struct{}{}
	got, err := io.ReadAll(c)
	if !strings.HasPrefix(string(got), "HTTP/1.1 413 ") || !strings.HasSuffix(string(got), "\r\n\r\nenough") || err == nil {
		t.Errorf("read %q, %v; want the response, and then a reset", got, err)
	}
}

// narrow makes a socket, or those of a listener, take little ahead of its reader.
func narrow(_, _ string, rc syscall.RawConn) error {
	return rc.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 4096) })
}

// dialNarrow connects to the engine and takes little.
func (r *rig) dialNarrow() net.Conn {
	r.t.Helper()
	c, err := (&net.Dialer{Control: narrow}).Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	r.t.Cleanup(func() { c.Close() })
	return c
}

// serveNarrow is serve for a server that takes little.
func serveNarrow(t *testing.T, f func(net.Conn)) net.Addr {
	t.Helper()
	l, err := (&net.ListenConfig{Control: narrow}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, f)
}

// reset sends b, waits until all of it has arrived, and resets the connection.
func reset(t *testing.T, c net.Conn, b []byte) {
	tc := c.(*net.TCPConn)
	tc.Write(b)
	rc, err := tc.SyscallConn()
	if err != nil {
		t.Error(err)
		return
	}
	n := len(b)
	for deadline := time.Now().Add(10 * time.Second); n > 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		rc.Control(func(fd uintptr) { n = loop.Unacked(int(fd)) })
	}
	if n > 0 {
		t.Errorf("%d bytes have not arrived", n)
	}
	tc.SetLinger(0)
	tc.Close()
}

// Of a side that is reset all has arrived that it had said, and the other one is slow: when it has taken everything it is reset, and not before.
func TestAResetDoesNotOvertakeWhatIsOnItsWay(t *testing.T) {
	want := noise(100_000)
	check := func(t *testing.T, r io.Reader) {
		t.Helper()
		if got, err := io.ReadAll(r); !bytes.Equal(got, want) || err == nil {
			t.Errorf("%d bytes of %d, the same: %v, error %v; want all, and then a reset", len(got), len(want), bytes.Equal(got, want), err)
		}
	}
	gone := func(t *testing.T, r *rig) {
		t.Helper()
		waitFor(t, "nothing to be left", func() bool { l := r.e.Stats().Loops[0]; return l.Clients == 0 && l.Servers == 0 })
	}
	t.Run("the server's", func(t *testing.T) {
		addr := serve(t, func(c net.Conn) { reset(t, c, want) })
		r := start(t, engine.Options{}, func(port int) string { return frontend("tcp", port, "", addr) })
		c := r.dialNarrow()
		waitFor(t, "the reset to arrive", func() bool { return r.backend().Failures[plan.ServerClosed] == 1 })
		check(t, c)
		gone(t, r)
	})
	t.Run("the client's", func(t *testing.T) {
		read, done := make(chan struct{}), make(chan struct{})
		addr := serveNarrow(t, func(c net.Conn) {
			<-read
			check(t, c)
			close(done)
		})
		r := start(t, engine.Options{}, func(port int) string { return frontend("tcp", port, "", addr) })
		reset(t, r.dial(), want)
		waitFor(t, "the reset to arrive", func() bool { return r.backend().Failures[plan.ClientClosed] == 1 })
		close(read)
		<-done
		gone(t, r)
	})
	t.Run("and the other takes nothing", func(t *testing.T) {
		addr := serve(t, func(c net.Conn) { reset(t, c, want) })
		r := start(t, engine.Options{}, func(port int) string { return frontend("tcp", port, "", addr) })
		r.dialNarrow()
		waitFor(t, "the reset to arrive", func() bool { return r.backend().Failures[plan.ServerClosed] == 1 })
		gone(t, r)
	})
}
