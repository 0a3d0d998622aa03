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

// with adds attributes to the frontend, and blocks before it.
func with(text, blocks, attrs string) string {
	return blocks + strings.Replace(text, "backend = \"b\"", attrs+"\n backend = \"b\"", 1)
}

func TestARateBoundsRequestsOfOneClient(t *testing.T) {
	addr := serveHTTP(t, echo)
	blocks := "limit \"all\" {\n rate = \"3/h\"\n burst = 3\n}\nlimit \"login\" {\n rate = \"1/h\"\n key = header[\"x-user\"]\n status = 503\n}\n"
	route := "limit = \"all\"\n route \"login\" {\n path = \"/login\"\n limit = \"login\"\n backend = \"b\"\n}"
	r := start(t, engine.Options{Loops: 2}, func(port int) string { return with(httpFrontend(port, "", addr), blocks, route) })
	c := r.dialFrom("127.0.0.2")
	br := bufio.NewReader(c)
	get := func(path, fields string) *http.Response {
		resp, _ := ask(t, c, br, "GET", "GET "+path+" HTTP/1.1\r\nHost: x\r\n"+fields+"\r\n")
		return resp
	}
	want := func(what string, resp *http.Response, status int) {
		t.Helper()
		if resp.StatusCode != status || resp.Close {
			t.Errorf("%s: %s, close %v; want %d", what, resp.Status, resp.Close, status)
		}
		if retry := resp.Header.Get("Retry-After"); (retry != "") != (status != 200) {
			t.Errorf("%s: Retry-After %q with %d", what, retry, status)
		}
	}
	want("first login", get("/login", "X-User: ann\r\n"), 200)
	want("second login", get("/login", "X-User: ann\r\n"), 503)
	want("third request", get("/", ""), 200)
	want("fourth request", get("/", ""), 429)
	c = r.dialFrom("127.0.0.2") // by whatever loop it comes
	br = bufio.NewReader(c)
	want("another connection", get("/", ""), 429)
	c = r.dialFrom("127.0.0.3")
	br = bufio.NewReader(c)
	want("another client", get("/login", "X-User: ben\r\n"), 200)
	want("a login without the key", get("/login", ""), 200)
	if st := r.e.Stats().Limits; len(st) != 2 || st[0].Refused != 2 || st[1].Refused != 1 {
		t.Errorf("the limits counted %v", st)
	}
	if n := r.failures(plan.RateLimit); n != 3 {
		t.Errorf("counted %d", n)
	}
}

func TestConnectionsOfOneClientAreBounded(t *testing.T) {
	addr := serveHTTP(t, echo)
	blocks := "limit \"few\" {\n connections = 2\n}\nlist \"proxies\" {\n cidrs = \"127.0.0.9\"\n}\n"
	r := start(t, engine.Options{Loops: 2}, func(port int) string {
		return with(httpFrontend(port, "", addr), blocks, "limit = \"few\"\n trusted = \"proxies\"")
	})
	held := func(from string) (net.Conn, int) {
		c := r.dialFrom(from)
		resp, _ := ask(t, c, bufio.NewReader(c), "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		return c, resp.StatusCode
	}
	a, s1 := held("127.0.0.2")
	_, s2 := held("127.0.0.2")
	_, s3 := held("127.0.0.2")
	_, s4 := held("127.0.0.3")
	if s1 != 200 || s2 != 200 || s3 != 429 || s4 != 200 {
		t.Errorf("answered %d %d %d, and another client %d", s1, s2, s3, s4)
	}
	half := r.dialFrom("127.0.0.2") // half a request is not waited for
	io.WriteString(half, "GET / HT")
	if _, err := half.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("half a request beyond the limit: %v, want a reset", err)
	}
	if n := r.failures(plan.ConnectionLimit); n != 2 {
		t.Errorf("counted %d", n)
	}
	a.Close()
	waitFor(t, "the place", func() bool { _, s := held("127.0.0.2"); return s == 200 })
	for range 4 { // a proxy's connections are those of many
		if _, s := held("127.0.0.9"); s != 200 {
			t.Errorf("a trusted proxy was answered %d", s)
		}
	}
}

func TestLimitsOfATCPFrontendReset(t *testing.T) {
	addr := serve(t, func(c net.Conn) { io.Copy(c, c) })
	blocks := "limit \"few\" {\n connections = 1\n rate = \"2/h\"\n burst = 2\n}\n"
	r := start(t, engine.Options{}, func(port int) string { return with(frontend("tcp", port, "", addr), blocks, "limit = \"few\"") })
	works := func() (net.Conn, bool) {
		c := r.dialFrom("127.0.0.2")
		io.WriteString(c, "x")
		_, err := io.ReadFull(c, make([]byte, 1))
		return c, err == nil
	}
	c, ok := works()
	if _, second := works(); !ok || second {
		t.Errorf("first %v, second %v", ok, second)
	}
	c.Close()
	waitFor(t, "the end of the first", func() bool { return r.e.Stats().Frontends[0].Open() == 0 })
	if _, ok := works(); !ok {
		t.Error("a place was freed, and the next is refused")
	}
	waitFor(t, "the end of that", func() bool { return r.e.Stats().Frontends[0].Open() <= 1 })
	if n := r.failures(plan.ConnectionLimit); n != 1 {
		t.Errorf("counted %d", n)
	}
}

// When to come again is said to whom a limit refuses, and not to whoever is refused next for another reason.
func TestALimitOfTCPSaysNothingInHTTP(t *testing.T) {
	addr := serve(t, func(c net.Conn) { io.Copy(c, c) })
	for _, what := range []string{`rate = "1/h"`, "connections = 1"} {
		tcp := freePort(t)
		r := start(t, engine.Options{}, func(port int) string {
			return httpFrontend(port, "", dead(t)) + "limit \"few\" {\n " + what + "\n}\n" + fmt.Sprintf(
				"frontend \"t\" {\n bind = \"127.0.0.1\"\n tcp = %d\n limit = \"few\"\n backend = \"t\"\n}\n", tcp) +
				fmt.Sprintf("backend \"t\" {\n server \"s\" { address = %q }\n}\n", addr)
		})
		web := r.addr
		r.addr = fmt.Sprint("127.0.0.1:", tcp)
		r.dialFrom("127.0.0.1").Write([]byte("x"))
		waitFor(t, "the first session", func() bool { return r.e.Stats().Frontends[1].Open() == 1 })
		if _, err := r.dialFrom("127.0.0.1").Read(make([]byte, 1)); err == nil || err == io.EOF {
			t.Errorf("%s: the second session: %v, want a reset", what, err)
		}
		r.addr = web
		if resp, _ := r.get(""); resp.StatusCode != 503 || resp.Header.Get("Retry-After") != "" {
			t.Errorf("%s: %s, Retry-After %q", what, resp.Status, resp.Header.Get("Retry-After"))
		}
	}
}

func TestCapsOfRequests(t *testing.T) {
	addr := serveHTTP(t, echo)
	r := start(t, engine.Options{}, func(port int) string {
		return with(httpFrontend(port, "", addr), "", "keepalive_requests = 2\n max_head = 1024\n max_headers = 8\n max_body = \"1KiB\"")
	})
	big := strings.Repeat("x", 1025)
	for _, tc := range []struct {
		what, raw string
		status    int
	}{
		{"a small one", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 200},
		{"a long head", "GET / HTTP/1.1\r\nHost: x\r\nA: " + big + "\r\n\r\n", 431},
		{"a long target", "GET /" + big + " HTTP/1.1\r\nHost: x\r\n\r\n", 414},
		{"many fields", "GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("A: b\r\n", 8) + "\r\n", 431},
		{"a body that fits", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1024\r\n\r\n" + big[1:], 200},
		{"a body that is announced too large", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1025\r\nExpect: 100-continue\r\n\r\n", 413},
		{"chunks that fit", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n" + big[1:] + "\r\n0\r\n\r\n", 200},
		{"chunks that do not", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n400\r\n" + big[1:] + "\r\n1\r\nx\r\n0\r\n\r\n", 413},
		{"an endless chunk", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n" + big, 413},
	} {
		c := r.dial()
		if resp, _ := ask(t, c, bufio.NewReader(c), "POST", tc.raw); resp.StatusCode != tc.status || resp.Close != (tc.status != 200) {
			t.Errorf("%s: %s, close %v; want %d", tc.what, resp.Status, resp.Close, tc.status)
		}
	}
	if n := r.failures(plan.BodyTooLarge); n != 3 {
		t.Errorf("counted %d bodies", n)
	}
	c := r.dial()
	br := bufio.NewReader(c)
	for i := range 2 {
		if resp, _ := ask(t, c, br, "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != 200 || resp.Close != (i == 1) {
			t.Errorf("request %d: %s, close %v", i+1, resp.Status, resp.Close)
		}
	}
}

func TestMaxConnectionsOfAFrontendWaitAndIdleOnesMakeRoom(t *testing.T) {
	release := make(chan struct{})
	addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/slow" {
			<-release
		}
		fmt.Fprint(w, "ok")
	})
	for _, tc := range []struct {
		what, attrs string
		o           engine.Options
	}{
		{"of the frontend", "max_connections = 2", engine.Options{}},
		{"of the node", "", engine.Options{MaxConnections: 2}},
	} {
		release = make(chan struct{})
		r := start(t, tc.o, func(port int) string { return with(httpFrontend(port, "", addr), "", tc.attrs) })
		get := func(path string) (net.Conn, *bufio.Reader) {
			c := r.dial()
			io.WriteString(c, "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n")
			return c, bufio.NewReader(c)
		}
		_, b1 := get("/slow")
		_, b2 := get("/slow")
		waitFor(t, "both", func() bool { return r.e.Stats().Backends[0].Servers[0].Active == 2 })
		_, b3 := get("/") // waits in the kernel's queue
		waitFor(t, "a pause", func() bool { return r.e.Stats().Loops[0].Pauses > 0 })
		if n := r.e.Stats().Frontends[0].Connections; n != 2 {
			t.Errorf("%s: %d connections were taken", tc.what, n)
		}
		close(release)
		for i, b := range []*bufio.Reader{b1, b2, b3} { // the first two become idle, and one makes room for the third
			if resp, err := http.ReadResponse(b, nil); err != nil || resp.StatusCode != 200 {
				t.Errorf("%s: request %d: %v %v", tc.what, i+1, resp, err)
			}
		}
		for range 5 { // and so on
			_, b := get("/")
			if resp, err := http.ReadResponse(b, nil); err != nil || resp.StatusCode != 200 {
				t.Errorf("%s: %v %v", tc.what, resp, err)
			}
		}
		if n := r.e.Stats().Frontends[0].Open(); n > 2 {
			t.Errorf("%s: %d are open", tc.what, n)
		}
	}
}
