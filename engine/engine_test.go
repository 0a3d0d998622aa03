package engine_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/internal/lab"
)

// rig is an engine with a configuration, for one test. In the text of a configuration, :PORT stands for the port that it listens
// on.
type rig struct {
	t    *testing.T
	e    *engine.Engine
	addr string // of the listener
	stop func()
	once sync.Once
}

func freePort(t *testing.T) int {
	t.Helper()
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func parse(t *testing.T, text string) *config.Config {
	t.Helper()
	c, diags := config.Parse("test.hcl", []byte(text))
	if c == nil {
		t.Fatalf("the test's configuration is wrong: %v", diags)
	}
	return c
}

// start runs an engine with what configure makes of the port that it shall listen on.
func start(t *testing.T, o engine.Options, configure func(port int) string) *rig {
	t.Helper()
	if o.Loops == 0 {
		o.Loops = 1
	}
	e, err := engine.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	r := &rig{t: t, e: e}
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	}
	t.Cleanup(r.end)
	port := freePort(t)
	r.addr = fmt.Sprintf("127.0.0.1:%d", port)
	if err := e.Apply(parse(t, configure(port))); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	return r
}

// end stops the engine, which the test's end does otherwise.
func (r *rig) end() { r.once.Do(r.stop) }

// dial connects to the engine.
func (r *rig) dial() net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		r.t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	r.t.Cleanup(func() { c.Close() })
	return c
}

// httpFrontend is a frontend with one backend of servers at these addresses; more goes into the backend.
func httpFrontend(port int, more string, servers ...net.Addr) string {
	return frontend("http", port, more, servers...)
}

func frontend(mode string, port int, more string, servers ...net.Addr) string {
	var b strings.Builder
	fmt.Fprintf(&b, "frontend \"f\" {\n bind = [\"127.0.0.1\"]\n %s = %d\n backend = \"b\"\n}\n", mode, port)
	fmt.Fprintf(&b, "backend \"b\" {\n%s\n", more)
	for i, a := range servers {
		fmt.Fprintf(&b, " server \"s%d\" {\n address = %q\n}\n", i+1, netip.MustParseAddrPort(a.String()))
	}
	b.WriteString("}\n")
	return b.String()
}

// serve runs a server that handles every connection with f.
func serve(t *testing.T, f func(net.Conn)) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return serveOn(t, l, f)
}

func serveOn(t *testing.T, l net.Listener, f func(net.Conn)) net.Addr {
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				f(c)
			}()
		}
	}()
	return l.Addr()
}

// serveHTTP runs an HTTP server.
func serveHTTP(t *testing.T, h http.HandlerFunc) net.Addr {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	t.Cleanup(func() { s.Close() })
	go s.Serve(l)
	return l.Addr()
}

// ask sends raw bytes and reads one response, body included.
func ask(t *testing.T, c net.Conn, r *bufio.Reader, method, raw string) (*http.Response, string) {
	t.Helper()
	if _, err := io.WriteString(c, raw); err != nil {
		t.Fatal(err)
	}
	return answer(t, r, method)
}

func answer(t *testing.T, r *bufio.Reader, method string) (*http.Response, string) {
	t.Helper()
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("read a response: %v", err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("read a response's body: %v", err)
	}
	return resp, string(b)
}

func TestKeepAliveOnBothSidesUsesOneServerConnection(t *testing.T) {
	conns := make(chan struct{}, 10)
	addr := serve(t, func(c net.Conn) {
		conns <- struct{}{}
		r := bufio.NewReader(c)
		for {
			q, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			io.Copy(io.Discard, q.Body)
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(q.URL.Path), q.URL.Path)
		}
	})
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	c := r.dial()
	br := bufio.NewReader(c)
	for i := range 5 {
		resp, body := ask(t, c, br, "GET", fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", i))
		if resp.StatusCode != 200 || body != fmt.Sprintf("/%d", i) || resp.Close {
			t.Errorf("request %d: %s %q close=%v", i, resp.Status, body, resp.Close)
		}
	}
	if n := len(conns); n != 1 {
		t.Errorf("the server saw %d connections, want 1", n)
	}
}

func TestTCPStreamsBothWaysWithHalfClose(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		b, _ := io.ReadAll(c) // until the client's direction has ended
		fmt.Fprintf(c, "got %q", b)
	})
	r := start(t, engine.Options{}, func(port int) string { return frontend("tcp", port, "", addr) })
	c := r.dial()
	io.WriteString(c, "hello")
	c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(c); string(b) != `got "hello"` || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
}
