package engine_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
)

// dead is an address at which nobody listens: its port is bound, so that nobody else can, either.
func dead(t *testing.T) net.Addr {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	sa, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*syscall.SockaddrInet4).Port}
}

// named is a server that answers with its name.
func named(t *testing.T, name string) net.Addr {
	return serveHTTP(t, func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, name) })
}

// get asks once over a connection of its own.
func (r *rig) get(header string) (*http.Response, string) {
	r.t.Helper()
	c := r.dial()
	defer c.Close()
	return ask(r.t, c, bufio.NewReader(c), "GET", "GET / HTTP/1.1\r\nHost: x\r\n"+header+"\r\n")
}

func TestARefusedConnectionIsTriedOnAnotherServer(t *testing.T) {
	var mu sync.Mutex
	told := map[string]int{}
	o := engine.Options{Failure: func(backend, server string, kind engine.Failure) {
		mu.Lock()
		defer mu.Unlock()
		told[fmt.Sprint(backend, " ", server, " ", kind)]++
	}}
	r := start(t, o, func(port int) string { return httpFrontend(port, "", dead(t), named(t, "ok")) })
	c := r.dial()
	br := bufio.NewReader(c)
	for range 4 {
		resp, body := ask(t, c, br, "POST", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
		if resp.StatusCode != 200 || body != "ok" {
			t.Errorf("%s %q", resp.Status, body)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if told["b s1 connect_refused"] == 0 || len(told) != 1 {
		t.Errorf("told of failures %v", told)
	}
	if n := r.e.Stats().Backends[0].Retries; n == 0 {
		t.Errorf("no retry was counted")
	}
}

// A request that a server answers with garbage, or by closing, is no reason to take the server from everybody else.
func TestABadAnswerSaysNothingAboutTheServersHealth(t *testing.T) {
	told := make(chan engine.Failure, 16)
	o := engine.Options{Failure: func(_, _ string, kind engine.Failure) { told <- kind }}
	addr := serve(t, func(c net.Conn) {
		q, err := http.ReadRequest(bufio.NewReader(c))
		if err == nil && q.URL.Path == "/garbage" {
			io.WriteString(c, "no HTTP at all\r\n\r\n")
		}
	})
	r := start(t, o, func(port int) string { return httpFrontend(port, "", addr) })
	for range 3 {
		for _, path := range []string{"/garbage", "/close"} {
			c := r.dial()
			if resp, body := ask(t, c, bufio.NewReader(c), "GET", "GET "+path+" HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != 502 {
				t.Errorf("%s: %s %q", path, resp.Status, body)
			}
		}
	}
	select {
	case kind := <-told:
		t.Errorf("told of %v", kind)
	default:
	}
}

func TestErrorPagesSayWhatIsWrong(t *testing.T) {
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", dead(t)) })
	resp, body := r.get("")
	if resp.StatusCode != 503 || body != "503 Service Unavailable: no server of backend \"b\" could be reached\n" || resp.Close {
		t.Errorf("%s %q close=%v", resp.Status, body, resp.Close)
	}
	r.e.SetUsable("b", "s1", false)
	if resp, body := r.get(""); resp.StatusCode != 503 || body != "503 Service Unavailable: no server of backend \"b\" is usable\n" {
		t.Errorf("%s %q", resp.Status, body)
	}
	if n := r.failures(plan.NoServer); n != 1 {
		t.Errorf("counted %d requests without a server", n)
	}
}

func TestTCPClientsAreResetWhenNoServerIsThere(t *testing.T) {
	r := start(t, engine.Options{}, func(port int) string { return frontend("tcp", port, "", dead(t)) })
	c, err := net.Dial("tcp", r.addr)
	if err != nil {
		return // reset already
	}
	defer c.Close()
	if b, err := io.ReadAll(c); err == nil {
		t.Errorf("read %q and a plain end", b)
	}
}

// dropper answers each connection's first request, and closes at the second without a word.
func dropper(t *testing.T, seen *atomic.Int64) net.Addr {
	return serve(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		for i := range 2 {
			q, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			io.Copy(io.Discard, q.Body)
			seen.Add(1)
			if i == 0 {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		}
	})
}

func TestAnIdleConnectionThatDiesIsReplacedForIdempotentRequests(t *testing.T) {
	var seen atomic.Int64
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", dropper(t, &seen)) })
	c := r.dial()
	br := bufio.NewReader(c)
	for i := range 4 {
		if resp, body := ask(t, c, br, "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); resp.StatusCode != 200 {
			t.Errorf("request %d: %s %q", i, resp.Status, body)
		}
	}
}

func TestARequestThatMayNotBeRepeatedIsNot(t *testing.T) {
	var seen atomic.Int64
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", dropper(t, &seen)) })
	c := r.dial()
	br := bufio.NewReader(c)
	var got []int
	for range 2 {
		resp, _ := ask(t, c, br, "POST", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi")
		got = append(got, resp.StatusCode)
	}
	if fmt.Sprint(got) != "[200 502]" || seen.Load() != 2 {
		t.Errorf("answers %v, and the server saw %d requests, want 2", got, seen.Load())
	}
}

// limited gives the first server of a configuration a limit.
func limited(text string, n int) string {
	return strings.Replace(text, " address", fmt.Sprintf(" max_connections = %d\n address", n), 1)
}

func TestMaxConnectionsIsKeptAndTheRestWait(t *testing.T) {
	for _, tc := range []struct{ loops, limit int }{{1, 3}, {2, 3}, {2, 1}} {
		loops := tc.loops
		var now, most atomic.Int64
		addr := serve(t, func(c net.Conn) {
			br := bufio.NewReader(c)
			for {
				if _, err := http.ReadRequest(br); err != nil {
					return
				}
				// Requests are counted, not connections: of the end of one the server hears after its place has been given away.
				if n := now.Add(1); n > most.Load() {
					most.Store(n)
				}
				now.Add(-1)
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
			}
		})
		r := start(t, engine.Options{Loops: loops}, func(port int) string {
			return limited(httpFrontend(port, "", addr), tc.limit)
		})
		var clients sync.WaitGroup
		for range 40 {
			c := r.dial()
			clients.Go(func() {
				br := bufio.NewReader(c)
				for range 20 {
					io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
					resp, err := http.ReadResponse(br, nil)
					if err != nil || resp.StatusCode != 200 {
						t.Errorf("%d loops: %v, %v", loops, resp, err)
						return
					}
					io.Copy(io.Discard, resp.Body)
				}
			})
		}
		clients.Wait()
		if n := most.Load(); n > int64(tc.limit) {
			t.Errorf("%d loops: %d requests at once, max_connections is %d", loops, n, tc.limit)
		}
	}
}

func TestWaitingForABusyServerEndsWithTheConnectTimeout(t *testing.T) {
	r := start(t, engine.Options{}, func(port int) string {
		return limited(httpFrontend(port, "timeouts {\n connect = \"50ms\"\n}", silent(t)), 1)
	})
	first := r.dial()
	io.WriteString(first, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	waitFor(t, "the first request to be under way", func() bool { return r.e.Stats().Backends[0].Servers[0].Active == 1 })
	if resp, body := r.get(""); resp.StatusCode != 503 || !strings.Contains(body, "busy") {
		t.Errorf("%s %q", resp.Status, body)
	}
	if n := r.failures(plan.QueueTimeout); n != 1 {
		t.Errorf("counted %d", n)
	}
}

// waitFor polls a condition that is bound to come true.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10 s for %s", what)
		}
	}
}

func TestAStickyCookieIsSetOnceAndHonouredWhileDraining(t *testing.T) {
	r := start(t, engine.Options{}, func(port int) string {
		return httpFrontend(port, "sticky \"cookie\" {\n name = \"SRV\"\n}", named(t, "s1"), named(t, "s2"))
	})
	resp, home := r.get("")
	cookies := resp.Cookies()
	if len(cookies) != 1 || cookies[0].Name != "SRV" || strings.Contains(cookies[0].Value, "127") {
		t.Fatalf("cookies %v", cookies)
	}
	mine := "Cookie: a=b; SRV=" + cookies[0].Value + "\r\n"
	for range 5 {
		if resp, got := r.get(mine); got != home || len(resp.Cookies()) != 0 {
			t.Errorf("went to %s with %v, want %s and no new cookie", got, resp.Cookies(), home)
		}
	}
	r.e.SetAdmin("b", home, plan.Drain, -1)
	if _, got := r.get(mine); got != home {
		t.Errorf("a client of the draining server went to %s", got)
	}
	for range 3 {
		if _, got := r.get(""); got == home {
			t.Errorf("a new client went to the draining server")
		}
	}
	r.e.SetAdmin("b", home, plan.Disabled, -1)
	if resp, got := r.get(mine); got == home || len(resp.Cookies()) != 1 {
		t.Errorf("with its server disabled the client went to %s with %v, want the other and a new cookie", got, resp.Cookies())
	}
	if resp, _ := r.get("Cookie: SRV=0123456789abcdef\r\n"); len(resp.Cookies()) != 1 {
		t.Errorf("an unknown cookie was not replaced")
	}
}

// table is a sticky table as the state package would keep it.
type table struct {
	mu sync.Mutex
	m  map[[16]byte]uint64
}

func (s *table) Lookup(_ uint64, key [16]byte) (uint64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id, ok := s.m[key]
	return id, ok
}

func (s *table) entries() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.m)
}

func (s *table) Learn(_ uint64, key [16]byte, server uint64, _ time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.m[key] = server
}

func TestAStickyTableKeepsClientsOnTheirServer(t *testing.T) {
	st := &table{m: map[[16]byte]uint64{}}
	r := start(t, engine.Options{Sticky: st}, func(port int) string {
		return httpFrontend(port, "sticky \"table\" {\n key = header[\"x-user\"]\n ttl = \"1m\"\n}",
			named(t, "s1"), named(t, "s2"), named(t, "s3"))
	})
	seen := map[string]bool{}
	for i := range 12 {
		user := fmt.Sprintf("X-User: u%d\r\n", i)
		_, home := r.get(user)
		seen[home] = true
		for range 3 {
			if _, got := r.get(user); got != home {
				t.Errorf("user %d went to %s, then to %s", i, home, got)
			}
		}
	}
	if len(seen) != 3 || st.entries() != 12 {
		t.Errorf("servers %v, %d entries", seen, st.entries())
	}
}

// A draining server keeps who is in the table for it; once it is disabled they go elsewhere, and stay there when it is back.
func TestATableFollowsDrainAndDisable(t *testing.T) {
	st := &table{m: map[[16]byte]uint64{}}
	r := start(t, engine.Options{Sticky: st}, func(port int) string {
		return httpFrontend(port, "sticky \"table\" {\n key = header[\"x-user\"]\n}", named(t, "s1"), named(t, "s2"))
	})
	_, home := r.get("X-User: a\r\n")
	r.e.SetAdmin("b", home, plan.Drain, -1)
	for i := range 3 {
		if _, got := r.get("X-User: a\r\n"); got != home {
			t.Errorf("a client of the draining server went to %s", got)
		}
		if _, got := r.get(fmt.Sprintf("X-User: new%d\r\n", i)); got == home {
			t.Error("a new client went to the draining server")
		}
	}
	r.e.SetAdmin("b", home, plan.Disabled, -1)
	_, other := r.get("X-User: a\r\n")
	r.e.SetAdmin("b", home, plan.Enabled, -1)
	for range 3 {
		if _, got := r.get("X-User: a\r\n"); got != other || other == home {
			t.Errorf("after its server was disabled the client was at %s, and then at %s", other, got)
		}
	}
}

func TestSourceTableInTCPMode(t *testing.T) {
	st := &table{m: map[[16]byte]uint64{}}
	say := func(name string) net.Addr {
		return serve(t, func(c net.Conn) { io.WriteString(c, name) })
	}
	r := start(t, engine.Options{Sticky: st}, func(port int) string {
		return frontend("tcp", port, "sticky \"table\" {\n key = client\n ttl = \"1m\"\n}", say("s1"), say("s2"), say("s3"))
	})
	home, _ := io.ReadAll(r.dial())
	for range 5 {
		if got, _ := io.ReadAll(r.dial()); string(got) != string(home) {
			t.Errorf("went to %s, then to %s", home, got)
		}
	}
	if n := st.entries(); n != 1 {
		t.Errorf("%d entries", n)
	}
}

func TestWeightsAndRoundRobin(t *testing.T) {
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", named(t, "s1"), named(t, "s2")) })
	r.e.SetAdmin("b", "s1", plan.Enabled, 3)
	n := map[string]int{}
	for range 40 {
		_, name := r.get("")
		n[name]++
	}
	if n["s1"] != 30 || n["s2"] != 10 {
		t.Errorf("with weights 3 and 1: %v", n)
	}
	r.e.SetAdmin("b", "s1", plan.Enabled, -1)
	r.e.SetUsable("b", "s2", false)
	clear(n)
	for range 5 {
		_, name := r.get("")
		n[name]++
	}
	if n["s1"] != 5 {
		t.Errorf("with s2 down: %v", n)
	}
}

func TestOnDownCloseEndsSessions(t *testing.T) {
	for _, closing := range []bool{true, false} {
		addr := serve(t, func(c net.Conn) { io.Copy(c, c) })
		r := start(t, engine.Options{}, func(port int) string {
			more := ""
			if closing {
				more = "on_down = \"close\""
			}
			return frontend("tcp", port, more, addr)
		})
		c := r.dial()
		b := make([]byte, 2)
		io.WriteString(c, "hi")
		io.ReadFull(c, b)
		r.e.SetUsable("b", "s1", false)
		if closing {
			if _, err := io.ReadAll(c); err == nil {
				t.Errorf("on_down = close: the session ended as if it were complete")
			}
			continue
		}
		io.WriteString(c, "yo")
		if _, err := io.ReadFull(c, b); string(b) != "yo" {
			t.Errorf("without on_down the session got %q, %v", b, err)
		}
	}
}

func TestOutOfDescriptorsPausesAcceptingAndGoesOn(t *testing.T) {
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", named(t, "ok")) })
	r.get("")
	held := r.dial() // its descriptor on our side is open, and accepted by nobody yet: nothing was sent
	var limit, low syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low = limit
	low.Cur = 3 // below what is open: no new descriptor at all
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &low); err != nil {
		t.Skipf("this process may not change its limit of descriptors: %v", err)
	}
	io.WriteString(held, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	waitFor(t, "a pause", func() bool { return r.e.Stats().Loops[0].Pauses > 0 })
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if resp, body := answer(t, bufio.NewReader(held), "GET"); body != "ok" {
		t.Errorf("%s %q", resp.Status, body)
	}
	if n := r.failures(plan.OutOfDescriptors); n == 0 {
		t.Errorf("not counted")
	}
}
