package engine_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
)

// silent is a server that accepts and says nothing.
func silent(t *testing.T) net.Addr { return serve(t, func(c net.Conn) { io.Copy(io.Discard, c) }) }

// failures sums up what the frontend counted for a reason.
func (r *rig) failures(kind plan.Failure) uint64 { return r.e.Stats().Frontends[0].Failures[kind] }

func (r *rig) serverFailures(kind plan.Failure) (n uint64) {
	for _, s := range r.e.Stats().Backends[0].Servers {
		n += s.Failures[kind]
	}
	return n
}

// withTimeouts adds timeouts to the frontend.
func withTimeouts(text, timeouts string) string {
	return strings.Replace(text, "backend = \"b\"", "backend = \"b\"\n timeouts {\n"+timeouts+"\n}", 1)
}

func TestEveryPhaseHasItsTimeout(t *testing.T) {
	ok := serveHTTP(t, echo)
	stuck := serve(t, func(c net.Conn) { // begins a body and stops
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
		io.Copy(io.Discard, c)
	})
	never := serve(t, func(c net.Conn) { select {} })
	for _, tc := range []struct {
		name     string
		server   net.Addr
		frontend string // timeouts
		backend  string
		send     string
		status   int // of the answer; 0: none at all
		says     string
		kind     plan.Failure
		servers  bool // counted by the server, too
	}{
		{name: "half a head", server: ok, frontend: `headers = "50ms"`, send: "GET / HTTP/1.1\r\nHo", status: 408,
			says: "the head of the request", kind: plan.HeadersTimeout},
		{name: "half a body", server: silent(t), frontend: `client = "50ms"`,
			send: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf", status: 408,
			says: "the body of the request", kind: plan.ClientTimeout},
		{name: "half a chunk", server: silent(t), frontend: `client = "50ms"`,
			send: "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nha", status: 408,
			says: "the body of the request", kind: plan.ClientTimeout},
		{name: "no response", server: silent(t), backend: `response = "50ms"`, send: "GET / HTTP/1.1\r\nHost: x\r\n\r\n", status: 504,
			says: "did not answer in time", kind: plan.ResponseTimeout, servers: true},
		{name: "half a response", server: stuck, backend: `server = "50ms"`, send: "GET / HTTP/1.1\r\nHost: x\r\n\r\n", status: 200,
			kind: plan.ServerTimeout, servers: true},
		{name: "a request that the server does not take", server: never, backend: `server = "50ms"`,
			send: "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 30000000\r\n\r\n" + strings.Repeat("x", 30_000_000), status: 504,
			says: "did not take the request", kind: plan.ServerTimeout, servers: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := start(t, engine.Options{}, func(port int) string {
				more := ""
				if tc.backend != "" {
					more = "timeouts {\n" + tc.backend + "\n}"
				}
				text := httpFrontend(port, more, tc.server)
				if tc.frontend != "" {
					text = withTimeouts(text, tc.frontend)
				}
				return text
			})
			c := r.dial()
			go io.WriteString(c, tc.send)
			br := bufio.NewReader(c)
			resp, err := http.ReadResponse(br, nil)
			if err != nil && tc.status != 200 {
				t.Fatal(err)
			}
			if err == nil {
				body, err := io.ReadAll(resp.Body)
				if resp.StatusCode != tc.status || !strings.Contains(string(body), tc.says) {
					t.Errorf("%s %q", resp.Status, body)
				}
				if tc.status == 200 && err == nil {
					t.Errorf("half a response was read to its end without an error")
				}
			}
			if n := r.failures(tc.kind); n != 1 {
				t.Errorf("the frontend counted %d of %v", n, tc.kind)
			}
			if n := r.serverFailures(tc.kind); (n == 1) != tc.servers {
				t.Errorf("the server counted %d of %v", n, tc.kind)
			}
		})
	}
}

func TestIdleConnectionsAreClosedQuietly(t *testing.T) {
	closed := make(chan struct{})
	addr := serve(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		http.ReadRequest(br)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		io.Copy(io.Discard, br)
		close(closed)
	})
	r := start(t, engine.Options{}, func(port int) string {
		return withTimeouts(httpFrontend(port, "timeouts {\n idle = \"50ms\"\n}", addr), `idle = "50ms"`)
	})
	c := r.dial()
	br := bufio.NewReader(c)
	ask(t, c, br, "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	if b, err := io.ReadAll(br); len(b) > 0 || err != nil {
		t.Errorf("an idle client read %q, %v; want a plain end", b, err)
	}
	<-closed // and the server's side
	if n := r.e.Stats().Frontends[0].Idle; n != 1 {
		t.Errorf("counted %d idle clients", n)
	}
}

func TestAClientThatConnectsAndSaysNothingIsClosed(t *testing.T) {
	addr := serveHTTP(t, echo)
	r := start(t, engine.Options{}, func(port int) string {
		return withTimeouts(httpFrontend(port, "", addr), `headers = "50ms"`)
	})
	c := r.dial()
	if b, err := io.ReadAll(c); len(b) > 0 || err != nil {
		t.Errorf("read %q, %v; want a plain end", b, err)
	}
}

func TestASilentStreamEndsAfterTheShorterTimeout(t *testing.T) {
	r := start(t, engine.Options{}, func(port int) string {
		return withTimeouts(frontend("tcp", port, "", silent(t)), `client = "50ms"`)
	})
	c := r.dial()
	io.WriteString(c, "hello")
	if _, err := io.ReadAll(c); err == nil {
		t.Errorf("a stream that timed out ended as if it were complete")
	}
	if n := r.failures(plan.ClientTimeout); n != 1 {
		t.Errorf("counted %d", n)
	}
}

func TestConnectTimeoutTriesTheNextServer(t *testing.T) {
	// A listener with a full queue takes no more connections and refuses none.
	full, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { full.Close() })
	fill(t, full)
	ok := serveHTTP(t, echo)
	r := start(t, engine.Options{}, func(port int) string {
		return httpFrontend(port, "timeouts {\n connect = \"50ms\"\n}", full.Addr(), ok)
	})
	c := r.dial()
	br := bufio.NewReader(c)
	for i := range 4 {
		raw := fmt.Sprintf("POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi", i)
		if resp, body := ask(t, c, br, "POST", raw); resp.StatusCode != 200 {
			t.Errorf("%s %q", resp.Status, body)
		}
	}
	if n := r.serverFailures(plan.ConnectTimeout); n == 0 {
		t.Errorf("no connect time-out was counted")
	}
}
