package engine_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
)

// withMinRate makes the frontend impatient: it measures over a tenth of a second.
func withMinRate(text string, request, response int) string {
	return strings.Replace(text, "backend = \"b\"",
		fmt.Sprintf("backend = \"b\"\n min_rate {\n request = %d\n response = %d\n grace = \"100ms\"\n}", request, response), 1)
}

// drip writes text a byte at a time until the connection or the text ends.
func drip(c net.Conn, text string) {
	for i := range len(text) {
		if _, err := io.WriteString(c, text[i:i+1]); err != nil {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestABodyThatDripsIsCutAndTold(t *testing.T) {
	for _, tc := range []struct{ name, head, body string }{
		{"with a length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", strings.Repeat("x", 1000)},
		{"in chunks", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", strings.Repeat("1\r\nx\r\n", 1000)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := start(t, engine.Options{}, func(port int) string { return withMinRate(httpFrontend(port, "", silent(t)), 1000, 0) })
			c := r.dial()
			io.WriteString(c, tc.head)
			go drip(c, tc.body)
			resp, body := answer(t, bufio.NewReader(c), "POST")
			if resp.StatusCode != 408 || !strings.Contains(body, "too slowly") || !resp.Close {
				t.Errorf("%s %q close=%v", resp.Status, body, resp.Close)
			}
			if n := r.failures(plan.SlowRequest); n != 1 {
				t.Errorf("counted %d slow requests", n)
			}
		})
	}
}

func TestAClientThatTakesItsResponseTooSlowlyIsCut(t *testing.T) {
	// 64 MiB fit into nobody's buffers: the engine sees a full socket. 200 KB fit into the kernel's: the engine has long gone on to
	// wait for the next request, or has closed, and the kernel alone knows.
	for _, tc := range []struct {
		name string
		size int
		head string
	}{
		{"more than the kernel takes", 64 << 20, ""},
		{"all of it with the kernel", 200 << 10, ""},
		{"all of it with the kernel, and the connection closed", 200 << 10, "Connection: close\r\nContent-Length: 1\r\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			addr := serve(t, func(c net.Conn) {
				http.ReadRequest(bufio.NewReader(c))
				fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", tc.size)
				io.Copy(c, io.LimitReader(zeros{}, int64(tc.size)))
				io.Copy(io.Discard, c)
			})
			r := start(t, engine.Options{}, func(port int) string {
				return withTimeouts(withMinRate(httpFrontend(port, "", addr), 0, 1000), `idle = "60s"`)
			})
			d := net.Dialer{}
			c, err := d.Dial("tcp", r.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.(*net.TCPConn).SetReadBuffer(4096)
			io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n"+tc.head+"\r\n")
			waitFor(t, "the cut", func() bool { return r.failures(plan.SlowResponse) == 1 })
			if _, err := io.Copy(io.Discard, c); err == nil {
				t.Error("a response that was cut looks complete")
			}
		})
	}
}

func TestWhoWaitsForTheServerIsNotSlow(t *testing.T) {
	// Every case takes several times the grace, with a client that moves nothing meanwhile because it is not its turn.
	const while = 400 * time.Millisecond
	for _, tc := range []struct {
		name   string
		serve  func(c net.Conn, br *bufio.Reader)
		client func(c net.Conn)
	}{
		{"a long poll", func(c net.Conn, br *bufio.Reader) {
			http.ReadRequest(br)
			time.Sleep(while)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}, func(c net.Conn) { io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") }},
		{"a response that comes in drops", func(c net.Conn, br *bufio.Reader) {
			http.ReadRequest(br)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
			time.Sleep(while)
			io.WriteString(c, "k")
		}, func(c net.Conn) { io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n") }},
		{"a server that thinks before it says continue", func(c net.Conn, br *bufio.Reader) {
			for { // the head alone
				if l, err := br.ReadString('\n'); err != nil || l == "\r\n" {
					break
				}
			}
			time.Sleep(while)
			io.WriteString(c, "HTTP/1.1 100 Continue\r\n\r\n")
			io.ReadFull(br, make([]byte, 4))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}, func(c net.Conn) {
			io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n")
			br := bufio.NewReaderSize(c, 16)
			br.ReadString('\n')
			io.WriteString(c, "body")
		}},
		{"a server that does not take the body", func(c net.Conn, br *bufio.Reader) {
			time.Sleep(while)
			q, _ := http.ReadRequest(br)
			io.Copy(io.Discard, q.Body)
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}, func(c net.Conn) {
			io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 20000000\r\n\r\n"+strings.Repeat("x", 20_000_000))
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			addr := serve(t, func(c net.Conn) { tc.serve(c, bufio.NewReader(c)) })
			r := start(t, engine.Options{}, func(port int) string { return withMinRate(httpFrontend(port, "", addr), 100_000, 100_000) })
			c := r.dial()
			tc.client(c)
			b, err := io.ReadAll(c)
			if !strings.HasSuffix(string(b), "ok") {
				t.Errorf("read %q, %v", b, err)
			}
			st := r.e.Stats().Frontends[0]
			if n := st.Failures[plan.SlowRequest] + st.Failures[plan.SlowResponse]; n != 0 {
				t.Errorf("%d were called slow", n)
			}
		})
	}
}

func TestTheHeadersTimeoutDoesNotReachBeyondTheHead(t *testing.T) {
	// The head takes its time, and then the connection to the server does: the first clock must not go on while the second runs.
	full, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { full.Close() })
	fill(t, full)
	r := start(t, engine.Options{}, func(port int) string {
		return withTimeouts(httpFrontend(port, "timeouts {\n connect = \"600ms\"\n}\n retries {\n attempts = 0\n}", full.Addr()), `headers = "300ms"`)
	})
	c := r.dial()
	io.WriteString(c, "GET / HTTP/1.1\r\nHo")
	waitFor(t, "the connection", func() bool { return r.e.Stats().Frontends[0].BytesIn > 0 })
	io.WriteString(c, "st: x\r\n\r\n")
	if resp, body := answer(t, bufio.NewReader(c), "GET"); resp.StatusCode != 503 {
		t.Errorf("%s %q", resp.Status, body)
	}
}

// While a connection to a server is made, the client is not waited for: not even one that had been, before the connection was lost over
// which its request was on its way.
func TestWhoWaitsForAnotherConnectionIsNotSlow(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	r := start(t, engine.Options{}, func(port int) string {
		return withMinRate(httpFrontend(port, "timeouts {\n connect = \"500ms\"\n}", l.Addr()), 100_000, 100_000)
	})
	c := r.dial()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	sr, br := bufio.NewReader(s), bufio.NewReader(c)
	http.ReadRequest(sr)
	io.WriteString(s, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	answer(t, br, "GET")
	fill(t, l) // the next connection does not come about
	io.WriteString(c, "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
	http.ReadRequest(sr)
	s.Close()
	if resp, body := answer(t, br, "PUT"); resp.StatusCode != 503 {
		t.Errorf("%s %q, want that no server could be reached", resp.Status, body)
	}
}
