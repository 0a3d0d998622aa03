package engine_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
)

// turned is a way in which a request is turned away or cut although nobody has gone away, and what its line says.
type turned struct {
	want   string // status, cause and termination code
	config func(port int) string
	do     func(t *testing.T, r *rig) // asks for /thing; whatever else it asks for ends later, or well
}

// post is a request with so much of a body announced, and little of it.
func post(fields string) string { return "POST /thing HTTP/1.1\r\nHost: x\r\n" + fields + "\r\n\r\n" }

func turnedAway(t *testing.T) []turned {
	fine := answers(t, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", true)
	deaf := silent(t)
	full, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { full.Close() })
	fill(t, full)
	endless := serve(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, 1))
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 67108864\r\n\r\n")
		io.Copy(c, zeros{})
	})
	to := func(server net.Addr, backend, blocks, attrs string) func(port int) string {
		return func(port int) string { return with(httpFrontend(port, backend, server), blocks, attrs) }
	}
	// first lets another request be under way, and then asks.
	first := func(t *testing.T, r *rig) {
		io.WriteString(r.dial(), "GET /first HTTP/1.1\r\nHost: x\r\n\r\n")
		waitFor(t, "the first request to be under way", func() bool { return r.e.Stats().Backends[0].Servers[0].Active == 1 })
		say(get)(t, r)
	}
	takesNothing := func(t *testing.T, r *rig) {
		c := r.dial()
		c.(*net.TCPConn).SetReadBuffer(4096)
		io.WriteString(c, get)
		waitFor(t, "the cut", func() bool { return r.e.Stats().Frontends[0].Failed() == 1 })
	}
	return []turned{
		{"429 rate_limit PR", to(fine, "", "limit \"l\" {\n rate = \"1/h\"\n}\n", `limit = "l"`), func(t *testing.T, r *rig) {
			r.get("")
			say(get)(t, r)
		}},
		{"429 connection_limit PR", to(fine, "", "limit \"l\" {\n connections = 1\n}\n", `limit = "l"`), func(t *testing.T, r *rig) {
			r.dialed("/first")
			say(get)(t, r)
		}},
		{"413 body_too_large PR", to(fine, "", "", "max_body = 4"), say(post("Content-Length: 5") + "large")},
		{"413 body_too_large PR", to(deaf, "", "", "max_body = 4"), say(post("Transfer-Encoding: chunked") + "5\r\nlarge\r\n")},
		{"503 over_limit PC", to(deaf, "max_requests = 1", "", ""), first},
		{"503 queue_full SQ", func(port int) string { return limited(httpFrontend(port, "queue {\n length = 0\n}", deaf), 1) }, first},
		{"503 queue_timeout sQ", func(port int) string {
			return limited(httpFrontend(port, "queue {\n timeout = \"30ms\"\n}", deaf), 1)
		}, first},
		{"503 connect_timeout sC", to(full.Addr(), "timeouts {\n connect = \"50ms\"\n}\n retries {\n attempts = 0\n}", "", ""), say(get)},
		{"408 slow_request cH", func(port int) string { return withMinRate(httpFrontend(port, "", deaf), 1000, 0) }, func(t *testing.T, r *rig) {
			c := r.dial()
			io.WriteString(c, post("Content-Length: 1000"))
			go drip(c, strings.Repeat("x", 1000))
			waitFor(t, "the cut", func() bool { return r.e.Stats().Frontends[0].Failed() == 1 })
		}},
		{"200 slow_response cD", func(port int) string { return withMinRate(httpFrontend(port, "", endless), 0, 1000) }, takesNothing},
		{"200 client_timeout cD", func(port int) string {
			return withTimeouts(withMinRate(httpFrontend(port, "", endless), 0, 0), `client = "100ms"`)
		}, takesNothing},
		{"0 denied PH", func(port int) string { return guarded(httpFrontend(port, "", deaf), `deny = "banned"`) }, func(t *testing.T, r *rig) {
			io.WriteString(r.dial(), get)
			waitFor(t, "the request to be passed on", func() bool { return r.e.Stats().Backends[0].Servers[0].BytesIn > 0 })
			r.e.SetList("banned", []config.ListEntry{entry(true, "127.0.0.1/32")})
		}},
	}
}

// dialed asks once, and keeps the connection.
func (r *rig) dialed(path string) net.Conn {
	c := r.dial()
	io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
	io.ReadFull(c, make([]byte, 1))
	return c
}

func TestWhoIsTurnedAwayIsLoggedWithTheReason(t *testing.T) {
	for _, tc := range turnedAway(t) {
		path := filepath.Join(t.TempDir(), "access.log")
		r := start(t, engine.Options{}, func(port int) string { return withLog(tc.config(port), "json", path) })
		tc.do(t, r)
		var got string
		waitFor(t, tc.want, func() bool {
			got = endOf(t, path, "/thing")
			return got != ""
		})
		if got != tc.want {
			t.Errorf("%s, want %s", got, tc.want)
		}
	}
}

// What a line shows of a request is never another one's.
func TestALineHasNothingOfAnotherRequest(t *testing.T) {
	for _, format := range []string{"json", "haproxy"} {
		path := filepath.Join(t.TempDir(), "access.log")
		fine := answers(t, "HTTP/1.1 204 No Content\r\n\r\n", true)
		r := start(t, engine.Options{}, func(port int) string { return withLog(httpFrontend(port, "", fine), format, path) })
		say(strings.Replace(get, "test", "secret", 1))(t, r)
		say("GET\r\n\r\n")(t, r)
		say("GET / HTTP/1.1\r\nHost: x\r\n\r\n")(t, r)
		r.end()
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
		if len(lines) != 3 || !strings.Contains(lines[0], "secret") || strings.Contains(lines[1]+lines[2], "secret") {
			t.Errorf("%s: %q", format, lines)
		}
	}
}

// Half a head after a request is nobody's request: neither the line nor the counters may say that it was the one before it.
func TestHalfAHeadIsNotTakenForTheRequestBeforeIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	fine := answers(t, "HTTP/1.1 204 No Content\r\n\r\n", true)
	r := start(t, engine.Options{}, func(port int) string { return withLog(httpFrontend(port, "", fine), "json", path) })
	c := r.dial()
	ask(t, c, bufio.NewReader(c), "GET", get)
	io.WriteString(c, "GET /ha")
	c.Close()
	waitFor(t, "the connection to end", func() bool { return r.e.Stats().Frontends[0].Ended == 1 })
	if b := r.backend(); b.Requests != 1 || b.Failures[plan.ClientClosed] != 0 {
		t.Errorf("the backend counted %d requests, %d of them left by their clients; want 1 and 0", b.Requests, b.Failures[plan.ClientClosed])
	}
	r.end()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	if len(lines) != 2 || !strings.Contains(lines[1], `"cause":"client_closed"`) ||
		strings.Contains(lines[1], `"backend"`) || strings.Contains(lines[1], `"status"`) {
		t.Errorf("%q", lines)
	}
}

// endOf returns what a log says of the first request for a path; "" when it says nothing yet.
func endOf(t *testing.T, log, path string) string {
	t.Helper()
	b, err := os.ReadFile(log)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		var l struct {
			Target, Cause, Termination string
			Status                     int
		}
		if !strings.HasSuffix(line, "\n") {
			return ""
		}
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("%v: %s", err, line)
		}
		if l.Target == path {
			return fmt.Sprint(l.Status, " ", l.Cause, " ", l.Termination)
		}
	}
	return ""
}
