package engine_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skeinlb/skein/engine"
)

// echo answers with what it got: method, path and body.
func echo(w http.ResponseWriter, q *http.Request) {
	b, _ := io.ReadAll(q.Body)
	fmt.Fprintf(w, "%s %s %d bytes %.40s", q.Method, q.URL, len(b), b)
}

func TestPipelinedRequestsAreAnsweredInOrder(t *testing.T) {
	addr := serveHTTP(t, echo)
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	c := r.dial()
	var all strings.Builder
	for i := range 300 {
		if i%3 == 0 {
			fmt.Fprintf(&all, "POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n%04d", i, i)
		} else {
			fmt.Fprintf(&all, "GET /%d HTTP/1.1\r\nHost: x\r\n\r\n", i)
		}
	}
	go io.WriteString(c, all.String())
	br := bufio.NewReader(c)
	for i := range 300 {
		want := fmt.Sprintf("GET /%d 0 bytes ", i)
		if i%3 == 0 {
			want = fmt.Sprintf("POST /%d 4 bytes %04d", i, i)
		}
		if _, body := answer(t, br, "GET"); body != want {
			t.Fatalf("answer %d is %q, want %q", i, body, want)
		}
	}
}

func TestChunkedBodiesGoThroughInBothDirections(t *testing.T) {
	addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
		if len(q.TransferEncoding) == 0 || q.TransferEncoding[0] != "chunked" {
			t.Errorf("the server was sent %v, want chunks", q.TransferEncoding)
		}
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, q.Body) // longer than the server's buffer: chunked again
	})
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	want := bytes.Repeat([]byte("0123456789abcdef"), 40_000)
	for range 3 {
		q, _ := http.NewRequest("POST", "http://"+r.addr+"/", io.MultiReader(bytes.NewReader(want)))
		resp, err := http.DefaultClient.Do(q)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("%d bytes came back (%v), want the same %d", len(got), err, len(want))
		}
		if len(resp.TransferEncoding) == 0 {
			t.Errorf("the response came with a length; the server sent chunks")
		}
	}
}

func TestChunksThatArriveByteByByte(t *testing.T) {
	addr := serveHTTP(t, echo)
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	c := r.dial()
	br := bufio.NewReader(c)
	raw := "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" +
		"3;a=b\r\nabc\r\n10\r\n0123456789abcdef\r\n0\r\nT: v\r\n\r\n"
	for i := range raw {
		io.WriteString(c, raw[i:i+1])
	}
	if _, body := answer(t, br, "POST"); body != "POST /x 19 bytes abc0123456789abcdef" {
		t.Errorf("body %q", body)
	}
	if resp, _ := ask(t, c, br, "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != 200 {
		t.Errorf("the next request on the connection: %s", resp.Status)
	}
}

func TestExpectContinueIsPassedOnAndTheBodyAwaited(t *testing.T) {
	addr := serveHTTP(t, echo) // sends 100 when the handler reads
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	c := r.dial()
	br := bufio.NewReader(c)
	io.WriteString(c, "POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	line, err := br.ReadString('\n')
	if line != "HTTP/1.1 100 Continue\r\n" {
		t.Fatalf("before the body: %q, %v", line, err)
	}
	br.ReadString('\n')
	if _, body := ask(t, c, br, "POST", "hello"); body != "POST /e 5 bytes hello" {
		t.Errorf("body %q", body)
	}
}

func TestRefusalInsteadOfContinueClosesTheConnection(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
		io.Copy(io.Discard, c)
	})
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	c := r.dial()
	resp, body := ask(t, c, bufio.NewReader(c), "POST",
		"POST /e HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n")
	// Whether the client still sends the body cannot be known: what it sends next must not be taken for a request.
	if resp.StatusCode != 403 || body != "no" || !resp.Close {
		t.Errorf("%s %q close=%v", resp.Status, body, resp.Close)
	}
}

func TestHeadHasALengthAndNoBody(t *testing.T) {
	addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) { w.Header().Set("Content-Length", "1000") })
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	c := r.dial()
	br := bufio.NewReader(c)
	for range 3 {
		resp, _ := ask(t, c, br, "HEAD", "HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
		if resp.StatusCode != 200 || resp.ContentLength != 1000 {
			t.Errorf("%s, length %d", resp.Status, resp.ContentLength)
		}
	}
}

func TestHTTP10GetsNoChunksAndIsClosedUnlessItAsks(t *testing.T) {
	addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/chunked" {
			io.WriteString(w, "part one, ")
			w.(http.Flusher).Flush()
			io.WriteString(w, "part two")
			return
		}
		io.WriteString(w, "short")
	})
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	c := r.dial()
	io.WriteString(c, "GET /chunked HTTP/1.0\r\nHost: x\r\n\r\n")
	b, err := io.ReadAll(c)
	head, body, _ := strings.Cut(string(b), "\r\n\r\n")
	if body != "part one, part two" || strings.Contains(head, "chunked") || err != nil {
		t.Errorf("head %q body %q err %v", head, body, err)
	}
	c = r.dial()
	br := bufio.NewReader(c)
	for range 2 {
		resp, body := ask(t, c, br, "GET", "GET / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
		if body != "short" || resp.Header.Get("Connection") != "keep-alive" {
			t.Errorf("body %q, Connection %q", body, resp.Header.Get("Connection"))
		}
	}
}

// HTTP/1.0 may leave Host out, and HTTP/1.1 behind the proxy must have one.
func TestARequestWithoutHostIsForTheAddressThatItCameTo(t *testing.T) {
	addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, q.Host) })
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	c := r.dial()
	br := bufio.NewReader(c)
	for _, x := range []struct{ head, want string }{
		{"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", r.addr},
		{"GET / HTTP/1.0\r\nConnection: keep-alive\r\nHost: a\r\n\r\n", "a"},
		{"GET / HTTP/1.0\r\n\r\n", r.addr},
	} {
		if _, body := ask(t, c, br, "GET", x.head); body != x.want {
			t.Errorf("%q is for %q, want %q", x.head, body, x.want)
		}
	}
}

func TestForwardedHeadersAreOurs(t *testing.T) {
	addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
		fmt.Fprintf(w, "%v %v %v", q.Header["X-Forwarded-For"], q.Header["X-Forwarded-Proto"], q.Header["X-Edit"])
	})
	r := start(t, engine.Options{}, func(port int) string {
		return strings.Replace(httpFrontend(port, "", addr), "backend = \"b\"",
			"backend = \"b\"\n request_headers {\n set = { \"X-Edit\" = \"set\" }\n }\n"+
				"response_headers {\n set = { \"X-Out\" = \"out\" }\n }", 1)
	})
	c := r.dial()
	resp, body := ask(t, c, bufio.NewReader(c), "GET",
		"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.66\r\nX-Forwarded-Proto: https\r\nX-Edit: mine\r\n\r\n")
	if body != "[127.0.0.1] [http] [set]" || resp.Header.Get("X-Out") != "out" {
		t.Errorf("the server saw %q, the client X-Out %q", body, resp.Header.Get("X-Out"))
	}
}

func TestBigHeadsUpToTheLimit(t *testing.T) {
	addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
		w.Header().Set("X-Big", strings.Repeat("b", 30_000))
		fmt.Fprint(w, len(q.Header.Get("X-Big")))
	})
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	c := r.dial()
	br := bufio.NewReader(c)
	resp, body := ask(t, c, br, "GET", "GET / HTTP/1.1\r\nHost: x\r\nX-Big: "+strings.Repeat("a", 31_000)+"\r\n\r\n")
	if body != "31000" || len(resp.Header.Get("X-Big")) != 30_000 {
		t.Errorf("%s %q", resp.Status, body)
	}
	resp, _ = ask(t, c, br, "GET", "GET / HTTP/1.1\r\nHost: x\r\nX-Big: "+strings.Repeat("a", 40_000)+"\r\n\r\n")
	if resp.StatusCode != 431 || !resp.Close {
		t.Errorf("a head beyond the limit: %s close=%v", resp.Status, resp.Close)
	}
}

// recorder is a server that keeps every byte that it was sent.
type recorder struct {
	mu  sync.Mutex
	got bytes.Buffer
}

func (s *recorder) serve(c net.Conn) {
	br := bufio.NewReader(io.TeeReader(c, s))
	for {
		q, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		io.Copy(io.Discard, q.Body)
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
	}
}

func (s *recorder) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.Write(b)
}

func TestMalformedRequestsNeverReachTheServer(t *testing.T) {
	var rec recorder
	addr := serve(t, rec.serve)
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	for _, tc := range []struct {
		name, raw string
		status    int
	}{
		{"a bare LF", "GET /bad HTTP/1.1\nHost: x\n\n", 400},
		{"no host", "GET /bad HTTP/1.1\r\n\r\n", 400},
		{"a folded field", "GET /bad HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n", 400},
		{"two lengths", "POST /bad HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400},
		{"length and coding", "POST /bad HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		{"an unknown coding", "POST /bad HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501},
		{"a NUL", "GET /bad HTTP/1.1\r\nHost: x\r\nA: b\x00c\r\n\r\n", 400},
		{"a space before the colon", "GET /bad HTTP/1.1\r\nHost: x\r\nContent-Length : 5\r\n\r\nhello", 400},
		{"CONNECT", "CONNECT bad:443 HTTP/1.1\r\nHost: bad:443\r\n\r\n", 501},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505},
		{"TLS", "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400},
		{"a bad first chunk", "POST /bad HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 400},
		{"an expectation", "GET /bad HTTP/1.1\r\nHost: x\r\nExpect: wonders\r\n\r\n", 417},
	} {
		c := r.dial()
		br := bufio.NewReader(c)
		resp, body := ask(t, c, br, "GET", tc.raw)
		if resp.StatusCode != tc.status || !resp.Close || !strings.Contains(body, fmt.Sprint(tc.status)) {
			t.Errorf("%s: %s close=%v %q, want status %d", tc.name, resp.Status, resp.Close, body, tc.status)
		}
		if rest, err := io.ReadAll(br); len(rest) > 0 || err != nil {
			t.Errorf("%s: after the answer %q, %v", tc.name, rest, err)
		}
	}
	c := r.dial() // a canary, so that everything sent before has arrived
	if resp, _ := ask(t, c, bufio.NewReader(c), "GET", "GET /canary HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != 200 {
		t.Errorf("the canary: %s", resp.Status)
	}
	rec.mu.Lock()
	defer rec.mu.Unlock()
	if got := rec.got.String(); strings.Contains(got, "bad") || strings.Count(got, "HTTP/1.1") != 1 {
		t.Errorf("the server was sent %q", got)
	}
}

func TestAnswersOfServersThatDoNotSpeakHTTP(t *testing.T) {
	for _, tc := range []struct {
		name, raw string
		status    int
		says      string
	}{
		{"nonsense", "hello there\r\n\r\n", 502, "not valid HTTP"},
		{"two lengths", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 502, "not valid HTTP"},
		{"a control character", "HTTP/1.1 200 OK\r\nA: b\x01\r\n\r\n", 502, "not valid HTTP"},
		{"101 that nobody asked for",
			"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n", 502, "not valid HTTP"},
		{"nothing", "", 502, "closed the connection before it had answered"},
		{"half a head", "HTTP/1.1 200 OK\r\nContent-Le", 502, "closed the connection before it had answered"},
		{"a bad first chunk", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 502, "not valid HTTP"},
	} {
		addr := serve(t, func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, tc.raw)
		})
		r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
		c := r.dial()
		br := bufio.NewReader(c)
		for range 2 { // the client's connection stays in use
			resp, body := ask(t, c, br, "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			if resp.StatusCode != tc.status || !strings.Contains(body, tc.says) || !strings.Contains(body, `backend "b"`) {
				t.Errorf("%s: %s %q", tc.name, resp.Status, body)
			}
		}
	}
}

func TestATruncatedBodyIsNotMistakenForAWholeOne(t *testing.T) {
	for _, raw := range []string{
		"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nonly this",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\nonly this",
		"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + strings.Repeat("x", 50_000),
	} {
		addr := serve(t, func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, raw)
		})
		r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
		resp, err := http.Get("http://" + r.addr + "/")
		if err != nil {
			continue // reset before the head was read: seen as well
		}
		if _, err := io.ReadAll(resp.Body); err == nil {
			t.Errorf("%.60q: read without an error", raw)
		}
		resp.Body.Close()
	}
}

func TestABodyThatEndsWithItsConnection(t *testing.T) {
	want := strings.Repeat("to the end ", 20_000)
	addr := serve(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n"+want)
	})
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	resp, err := http.Get("http://" + r.addr + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); string(b) != want || err != nil || !resp.Close {
		t.Errorf("%d bytes of %d, %v, close=%v", len(b), len(want), err, resp.Close)
	}
}

func TestAnEarlyAnswerArrivesWhileTheBodyIsStillBeingSent(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 413 Content Too Large\r\nContent-Length: 7\r\nConnection: close\r\n\r\ntoo big")
	})
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	for range 5 {
		c := r.dial()
		io.WriteString(c, "POST /big HTTP/1.1\r\nHost: x\r\nContent-Length: 10000000\r\n\r\n")
		go io.Copy(c, io.LimitReader(zeros{}, 300_000))
		resp, body := answer(t, bufio.NewReader(c), "POST")
		if resp.StatusCode != 413 || body != "too big" || !resp.Close {
			t.Errorf("%s %q close=%v", resp.Status, body, resp.Close)
		}
	}
}

// zeros is an endless body.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

func TestInterimResponsesComeBeforeTheRealOne(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			if _, err := http.ReadRequest(br); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n"+
				"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nreal")
		}
	})
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	c := r.dial()
	br := bufio.NewReader(c)
	for range 2 {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		var got []int
		for len(got) == 0 || got[len(got)-1] < 200 {
			resp, err := http.ReadResponse(br, nil)
			if err != nil {
				t.Fatal(err)
			}
			io.ReadAll(resp.Body)
			got = append(got, resp.StatusCode)
		}
		if fmt.Sprint(got) != "[103 103 200]" {
			t.Errorf("statuses %v", got)
		}
	}
	c = r.dial()
	resp, body := ask(t, c, bufio.NewReader(c), "GET", "GET / HTTP/1.0\r\nHost: x\r\n\r\n")
	if resp.StatusCode != 200 || body != "real" {
		t.Errorf("HTTP/1.0 was answered %s %q", resp.Status, body)
	}
}

// What a server sends as the body of a 204, which has none, must not be taken for the beginning of the next answer.
func TestABodyThatMustNotBeIsNobodysAnswer(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		for i := 0; ; i++ {
			q, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			if i > 0 { // only now comes the body of the response before
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
			}
			if q.URL.Path == "/none" {
				io.WriteString(c, "HTTP/1.1 204 No Content\r\nContent-Length: 43\r\n\r\n")
			} else {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nright")
			}
		}
	})
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	c := r.dial()
	br := bufio.NewReader(c)
	if resp, _ := ask(t, c, br, "GET", "GET /none HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != 204 || resp.Close {
		t.Errorf("%s close=%v", resp.Status, resp.Close)
	}
	if resp, body := ask(t, c, br, "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); body != "right" {
		t.Errorf("%s %q", resp.Status, body)
	}
}

func TestUpgradeBecomesATunnel(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		q, err := http.ReadRequest(br)
		if err != nil || q.Header.Get("Upgrade") != "chat" {
			t.Errorf("the server was asked for %v, %v", q, err)
			return
		}
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nserver first|")
		b := make([]byte, 12)
		io.ReadFull(br, b)
		fmt.Fprintf(c, "heard %q|", b)
		rest, _ := io.ReadAll(br)
		fmt.Fprintf(c, "then %q", rest)
	})
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	c := r.dial()
	io.WriteString(c, "GET /chat HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\nclient first")
	br := bufio.NewReader(c)
	resp, err := http.ReadResponse(br, nil)
	if err != nil || resp.StatusCode != 101 || resp.Header.Get("Upgrade") != "chat" {
		t.Fatalf("%v, %v", resp, err)
	}
	io.WriteString(c, "more")
	c.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(br); string(b) != `server first|heard "client first"|then "more"` || err != nil {
		t.Errorf("the tunnel carried %q, %v", b, err)
	}
}

func TestASlowReaderHoldsUpItsServerAndNobodyElse(t *testing.T) {
	const size = 30 << 20
	sent := make(chan int64, 1)
	addr := serve(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		q, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		if q.URL.Path == "/small" {
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n", size)
		c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, _ := io.Copy(c, io.LimitReader(zeros{}, size))
		sent <- n
	})
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	c := r.dial()
	c.(*net.TCPConn).SetReadBuffer(16 << 10)
	io.WriteString(c, "GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
	// Nobody reads. The sockets' buffers fill up, skein's stays at one scratch, and then the server has to wait.
	if n := <-sent; n == size {
		t.Errorf("the server could send all %d bytes to a client that reads nothing", n)
	}
	c2 := r.dial()
	if _, body := ask(t, c2, bufio.NewReader(c2), "GET", "GET /small HTTP/1.1\r\nHost: x\r\n\r\n"); body != "ok" {
		t.Errorf("another client got %q", body)
	}
}

func TestRedirectsFixedResponsesAnd404NeedNoServer(t *testing.T) {
	r := start(t, engine.Options{}, func(port int) string {
		return fmt.Sprintf(`frontend "f" {
  bind = ["127.0.0.1"]
  http = %d
  route "old" {
    path     = "/old"
    redirect = "/new"
    status   = 302
  }
  route "fixed" {
    path = "/fixed"
    respond {
      status = 418
      body   = "short and stout"
    }
  }
}
`, port)
	})
	c := r.dial()
	br := bufio.NewReader(c)
	resp, _ := ask(t, c, br, "GET", "GET /old HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp.StatusCode != 302 || resp.Header.Get("Location") != "/new" {
		t.Errorf("%s %q", resp.Status, resp.Header.Get("Location"))
	}
	resp, body := ask(t, c, br, "GET", "GET /fixed HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp.StatusCode != 418 || body != "short and stout" || resp.Header.Get("Date") == "" {
		t.Errorf("%s %q", resp.Status, body)
	}
	if resp, _ = ask(t, c, br, "HEAD", "HEAD /fixed HTTP/1.1\r\nHost: x\r\n\r\n"); resp.ContentLength != 15 {
		t.Errorf("HEAD: length %d", resp.ContentLength)
	}
	resp, body = ask(t, c, br, "GET", "GET /else HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp.StatusCode != 404 || !strings.Contains(body, "no route") {
		t.Errorf("%s %q", resp.Status, body)
	}
	// A body that nobody reads: most of it still waits in our socket when the connection is closed. That alone would be a reset,
	// and not every system lets a client read an answer that was overtaken by one.
	resp, _ = ask(t, c, br, "POST", "POST /fixed HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n"+strings.Repeat("x", 200_000))
	if resp.StatusCode != 418 || !resp.Close {
		t.Errorf("with a body: %s close=%v", resp.Status, resp.Close)
	}
	c.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(br); len(rest) > 0 || err != nil {
		t.Errorf("after the answer: %q, %v", rest, err)
	}
}

func TestAClientThatHasEndedItsDirectionIsStillAnswered(t *testing.T) {
	addr := serveHTTP(t, echo)
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	for _, raw := range []string{
		"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n",
		"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
	} {
		c := r.dial()
		io.WriteString(c, raw)
		c.(*net.TCPConn).CloseWrite()
		b, err := io.ReadAll(c)
		if got, want := strings.Count(string(b), "GET /a 0 bytes"), strings.Count(raw, "GET"); got != want || err != nil {
			t.Errorf("%d answers to %d requests, %v: %q", got, want, err, b)
		}
	}
}

// Long bodies whose every chunk has an extension, in both directions: a signature, as there are such. Its bytes are thrown away, and the
// data makes up for them. A body of signatures with hardly any data is a different matter.
func TestLongBodiesMayHaveAnExtensionPerChunk(t *testing.T) {
	signed := func(n, size int) string {
		return strings.Repeat(fmt.Sprintf("%x;chunk-signature=%064x\r\n%s\r\n", size, 1, strings.Repeat("x", size)), n) + "0\r\n\r\n"
	}
	long, empty := signed(10_000, 256), signed(10_000, 1)
	addr := serve(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			q, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			body := long
			if q.URL.Path == "/empty" {
				body = empty
			}
			n, err := io.Copy(io.Discard, q.Body)
			if err != nil {
				return
			}
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nGot: %d\r\n\r\n%s", n, body)
		}
	})
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	upload := func(path, body string) (resp *http.Response, got int64, err error) {
		c := r.dial()
		go fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%s", path, body)
		if resp, err = http.ReadResponse(bufio.NewReader(c), nil); err == nil {
			got, err = io.Copy(io.Discard, resp.Body)
		}
		return resp, got, err
	}
	const size = 10_000 * 256
	resp, n, err := upload("/long", long)
	if err != nil || resp.StatusCode != 200 || resp.Header.Get("Got") != fmt.Sprint(size) || n != size {
		t.Errorf("a long body: %+v, %d bytes back, %v; want %d each way", resp, n, err, size)
	}
	if resp, _, err := upload("/long", empty); err != nil || resp.StatusCode != 400 {
		t.Errorf("a body of extensions: %+v, %v; want 400", resp, err)
	}
	if resp, n, err := upload("/empty", "0\r\n\r\n"); err == nil {
		t.Errorf("an answer of extensions: %+v, %d bytes; want it cut off", resp, n)
	}
}
