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
	"testing"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
)

// backend returns what the engine says of the backend.
func (r *rig) backend() engine.BackendStats { return r.e.Stats().Backends[0] }

// failing answers with its name, or with a status while that is not 0, and counts what it is asked.
type failing struct {
	name   string
	status atomic.Int64
	asked  atomic.Int64
}

func (f *failing) serve(t *testing.T) net.Addr {
	return serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
		f.asked.Add(1)
		io.Copy(io.Discard, q.Body)
		if s := f.status.Load(); s != 0 {
			w.WriteHeader(int(s))
		}
		io.WriteString(w, f.name)
	})
}

func TestEveryBalanceServesAndFollowsHealth(t *testing.T) {
	for b := config.RoundRobin; b <= config.Hash; b++ {
		more := fmt.Sprintf("balance = %q\n", b)
		if b == config.Hash {
			more += "hash {\n key = header[\"x-user\"]\n bound = 1.25\n}\n"
		}
		r := start(t, engine.Options{}, func(port int) string {
			return httpFrontend(port, more, named(t, "s1"), named(t, "s2"), named(t, "s3"))
		})
		ask := func(n int) map[string]int {
			seen := map[string]int{}
			for i := range n {
				resp, body := r.get(fmt.Sprintf("X-User: u%d\r\n", i))
				if resp.StatusCode != 200 {
					t.Fatalf("%v: %s %q", b, resp.Status, body)
				}
				seen[body]++
			}
			return seen
		}
		all := ask(30)
		if b != config.SourceHash && len(all) != 3 { // a single client has a single server there
			t.Errorf("%v: 30 requests went to %v", b, all)
		}
		// Each way of taking a server out is effective with the next request, and undone with the next.
		for what, change := range map[string][2]func(){
			"health": {func() { r.e.SetUsable("b", "s1", false) }, func() { r.e.SetUsable("b", "s1", true) }},
			"drain":  {func() { r.e.SetAdmin("b", "s1", plan.Drain, -1) }, func() { r.e.SetAdmin("b", "s1", plan.Enabled, -1) }},
			"weight": {func() { r.e.SetAdmin("b", "s1", plan.Enabled, 0) }, func() { r.e.SetAdmin("b", "s1", plan.Enabled, -1) }},
		} {
			change[0]()
			if seen := ask(12); seen["s1"] != 0 {
				t.Errorf("%v: taken out by %s, s1 got %v", b, what, seen)
			}
			change[1]()
			if n := r.backend().Usable; n != 3 {
				t.Errorf("%v: back by %s, %d servers are usable", b, what, n)
			}
		}
		if back := ask(30); b == config.Hash && fmt.Sprint(back) != fmt.Sprint(all) {
			t.Errorf("%v: with all back the keys are at %v, they were at %v", b, back, all)
		}
	}
}

func TestHashKeysFindTheirServer(t *testing.T) {
	for _, tc := range []struct {
		key            string
		one, same, two string // requests: same has one's key, two another, which belongs to another server
	}{
		{"path", "GET /a?x=1 HTTP/1.1\r\n", "GET /a?x=2 HTTP/1.1\r\nX-User: b\r\n", "GET /%d HTTP/1.1\r\n"},
		{"uri", "GET /a?x=1 HTTP/1.1\r\n", "GET /a?x=1 HTTP/1.1\r\nX-User: b\r\n", "GET /a?x=%d HTTP/1.1\r\n"},
		{`header["X-User"]`, "GET /a HTTP/1.1\r\nx-user: a\r\n", "GET /b HTTP/1.1\r\nX-User: a\r\n", "GET /a HTTP/1.1\r\nX-User: %d\r\n"},
		{`cookie["user"]`, "GET /a HTTP/1.1\r\nCookie: user=a\r\n", "GET /b HTTP/1.1\r\nCookie: z=1; user=a\r\n", "GET /a HTTP/1.1\r\nCookie: user=%d\r\n"},
		{`query["user"]`, "GET /a?user=a%20b HTTP/1.1\r\n", "GET /b?z=1&user=a+b HTTP/1.1\r\n", "GET /a?user=%d HTTP/1.1\r\n"},
	} {
		r := start(t, engine.Options{}, func(port int) string {
			return httpFrontend(port, "balance = \"hash\"\nhash {\n key = "+tc.key+"\n}\n", named(t, "s1"), named(t, "s2"), named(t, "s3"))
		})
		c := r.dial()
		br := bufio.NewReader(c)
		send := func(raw string) string {
			_, body := ask(t, c, br, "GET", raw+"Host: x\r\n\r\n")
			return body
		}
		home := send(tc.one)
		for range 5 {
			if got := send(tc.same); got != home {
				t.Errorf("%s: one key went to %s and to %s", tc.key, home, got)
			}
		}
		seen := map[string]bool{}
		for i := range 40 {
			seen[send(fmt.Sprintf(tc.two, i))] = true
		}
		if len(seen) != 3 {
			t.Errorf("%s: 40 keys found %v", tc.key, seen)
		}
	}
	r := start(t, engine.Options{}, func(port int) string {
		return httpFrontend(port, "balance = \"hash\"\nhash {\n key = cookie[\"user\"]\n}\n", named(t, "s1"), named(t, "s2"), named(t, "s3"))
	})
	n := map[string]int{}
	for range 9 {
		_, name := r.get("")
		n[name]++
	}
	if n["s1"] != 3 || n["s2"] != 3 {
		t.Errorf("without a key: %v, want turns", n)
	}
}

func TestABoundedHashSendsWhatIsTooMuchElsewhere(t *testing.T) {
	release := make(chan struct{})
	var busy [2]atomic.Int64
	hold := func(i int) net.Addr {
		return serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
			busy[i].Add(1)
			<-release
		})
	}
	r := start(t, engine.Options{}, func(port int) string {
		return httpFrontend(port, "balance = \"hash\"\nhash {\n key = path\n bound = 1.25\n}\n", hold(0), hold(1))
	})
	defer close(release)
	for i := range 20 { // of one key
		io.WriteString(r.dial(), "GET /hot HTTP/1.1\r\nHost: x\r\n\r\n")
		waitFor(t, "the request to arrive", func() bool { return busy[0].Load()+busy[1].Load() == int64(i+1) })
	}
	// 1.25 times the average of 10 is 12.5.
	if a, b := busy[0].Load(), busy[1].Load(); max(a, b) != 13 {
		t.Errorf("20 requests of one key are spread %d to %d, want 13 to 7", a, b)
	}
}

func TestRetriesByReason(t *testing.T) {
	get := "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	post := "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
	put := "PUT / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi"
	status := func(code int) func(t *testing.T) net.Addr {
		return func(t *testing.T) net.Addr {
			f := &failing{name: "bad"}
			f.status.Store(int64(code))
			return f.serve(t)
		}
	}
	closer := func(t *testing.T) net.Addr {
		return serve(t, func(c net.Conn) { http.ReadRequest(bufio.NewReader(c)) })
	}
	for _, tc := range []struct {
		name, on, request string
		bad               func(*testing.T) net.Addr
		want              string // status and body
	}{
		{"a status that is named", `["503"]`, get, status(503), "200 ok"},
		{"with its body", `["503"]`, put, status(503), "200 ok"},
		{"another status", `["502", "504"]`, get, status(503), "503 bad"},
		{"no status at all", `["connect"]`, get, status(503), "503 bad"},
		{"what may not be done twice", `["503"]`, post, status(503), "503 bad"},
		{"a server that closes", `["closed"]`, get, closer, "200 ok"},
		{"a server that closes, unnamed", `["timeout"]`, get, closer, "502 "},
		{"a server that closes, not twice", `["closed"]`, post, closer, "502 "},
		{"a server that is silent", `["timeout"]`, get, silent, "200 ok"},
		{"a server that is silent, unnamed", `["closed"]`, get, silent, "504 "},
		{"no connection", `["connect"]`, post, dead, "200 ok"},
		{"no connection, unnamed", `["503"]`, get, dead, "503 "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := start(t, engine.Options{}, func(port int) string {
				return httpFrontend(port, "retries {\n on = "+tc.on+"\n}\ntimeouts {\n response = \"50ms\"\n}", tc.bad(t), named(t, "ok"))
			})
			c := r.dial()
			br := bufio.NewReader(c)
			method, _, _ := strings.Cut(tc.request, " ")
			for i := range 2 { // one of them goes to the bad server first
				resp, body := ask(t, c, br, method, tc.request)
				if strings.HasPrefix(body, fmt.Sprint(resp.StatusCode, " ")) {
					body = "" // a page of our own
				}
				if got := fmt.Sprint(resp.StatusCode, " ", body); got != tc.want && got != "200 ok" || i == 0 && got != tc.want {
					t.Errorf("request %d: %s, want %s", i, got, tc.want)
				}
			}
		})
	}
}

func TestARetryThatFindsNobodyPassesOnTheAnswer(t *testing.T) {
	a, b := &failing{name: "a"}, &failing{name: "b"}
	a.status.Store(503)
	b.status.Store(503)
	r := start(t, engine.Options{}, func(port int) string {
		return httpFrontend(port, "retries {\n on = [\"503\"]\n attempts = 5\n}", a.serve(t), b.serve(t))
	})
	if resp, body := r.get(""); resp.StatusCode != 503 || body != "b" || a.asked.Load()+b.asked.Load() != 2 {
		t.Errorf("%s %q after %d requests, want the second server's own answer", resp.Status, body, a.asked.Load()+b.asked.Load())
	}
}

func TestTheBudgetBoundsRepetitions(t *testing.T) {
	a, b := &failing{name: "a"}, &failing{name: "b"}
	a.status.Store(503)
	b.status.Store(503)
	r := start(t, engine.Options{}, func(port int) string {
		return httpFrontend(port, "retries {\n on = [\"503\"]\n attempts = 1\n budget = 0.1\n}", a.serve(t), b.serve(t))
	})
	c := r.dial()
	br := bufio.NewReader(c)
	began := time.Now()
	const requests = 300
	for range requests {
		ask(t, c, br, "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	}
	// 10 at once, a tenth of the requests, one per second; what the bucket cannot hold is lost.
	most := int64(10 + requests/10 + int(time.Since(began)/time.Second) + 1)
	repeated := a.asked.Load() + b.asked.Load() - requests
	got := r.backend().Balance
	if repeated > most || repeated < 30 || int64(got.Repeated) != repeated || int64(got.OverBudget) != requests-repeated {
		t.Errorf("%d of %d requests were repeated, want at most %d; counted: %+v", repeated, requests, most, got)
	}
}

// Once an ejection can be seen, not one request reaches the server, by whatever way: in turn, by a cookie, on a connection of before.
func TestAnEjectedServerIsAskedNothing(t *testing.T) {
	for b := config.RoundRobin; b <= config.Random; b++ {
		if b == config.SourceHash { // of one client it would be always the same server
			continue
		}
		bad := &failing{name: "s1"}
		r := start(t, engine.Options{}, func(port int) string {
			return httpFrontend(port, fmt.Sprintf("balance = %q\nsticky \"cookie\" {}\noutlier {\n failures = 3\n eject = \"1h\"\n}", b),
				bad.serve(t), named(t, "s2"), named(t, "s3"))
		})
		mine := "Cookie: SKEIN=" + cookieOf(t, r, "s1") + "\r\n"
		c := r.dial()
		br := bufio.NewReader(c)
		if _, name := ask(t, c, br, "GET", "GET / HTTP/1.1\r\nHost: x\r\n"+mine+"\r\n"); name != "s1" {
			t.Errorf("%v: before it fails, the cookie leads to %s", b, name)
		}
		bad.asked.Store(0)
		bad.status.Store(500)
		for range 3 {
			ask(t, c, br, "GET", "GET / HTTP/1.1\r\nHost: x\r\n"+mine+"\r\n")
		}
		waitFor(t, "the server to be ejected", func() bool { return !r.backend().Servers[0].EjectedUntil.IsZero() })
		for range 15 {
			if resp, name := r.get(""); resp.StatusCode != 200 || name == "s1" {
				t.Errorf("%v: %s of %s", b, resp.Status, name)
			}
			if resp, name := ask(t, c, br, "GET", "GET / HTTP/1.1\r\nHost: x\r\n"+mine+"\r\n"); resp.StatusCode != 200 || name == "s1" {
				t.Errorf("%v: with its cookie: %s of %s", b, resp.Status, name)
			}
		}
		if n := bad.asked.Load(); n != 3 {
			t.Errorf("%v: it was asked %d times, want the 3 that it failed", b, n)
		}
		if st := r.backend(); st.Usable != 2 || st.Balance.Ejected != 1 {
			t.Errorf("%v: %d are usable, %d were ejected", b, st.Usable, st.Balance.Ejected)
		}
	}
}

func TestAnOutlierComesBack(t *testing.T) {
	bad := &failing{name: "s1"}
	r := start(t, engine.Options{}, func(port int) string {
		return httpFrontend(port, "outlier {\n failures = 3\n eject = \"1s\"\n}", bad.serve(t), named(t, "s2"), named(t, "s3"))
	})
	ejected := func() bool { return !r.backend().Servers[0].EjectedUntil.IsZero() }
	bad.status.Store(500)
	for n := 0; bad.asked.Load() < 3 && n < 100; n++ {
		if ejected() {
			t.Errorf("it was ejected after %d failures", bad.asked.Load())
		}
		r.get("")
	}
	waitFor(t, "the server to be ejected", ejected)
	bad.status.Store(0)
	waitFor(t, "the server to be back", func() bool { return !ejected() })
	seen := map[string]bool{}
	for range 6 {
		_, name := r.get("")
		seen[name] = true
	}
	if !seen["s1"] || r.backend().Balance.Ejected != 1 || r.backend().Servers[0].Ejections != 1 {
		t.Errorf("after it was back: %v, counted %+v", seen, r.backend().Balance)
	}
}

// A server that accepts and closes is up for every check that only connects.
func TestAServerThatClosesIsEjectedInTCPModeToo(t *testing.T) {
	for _, mode := range []string{"http", "tcp"} {
		closer := serve(t, func(c net.Conn) {})
		good := serve(t, func(c net.Conn) {
			if mode == "http" {
				http.ReadRequest(bufio.NewReader(c))
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n")
			}
			io.WriteString(c, "ok")
			io.Copy(io.Discard, c)
		})
		r := start(t, engine.Options{}, func(port int) string {
			return frontend(mode, port, "outlier {\n failures = 2\n eject = \"1m\"\n}", closer, good)
		})
		visit := func() string {
			c := r.dial()
			defer c.Close()
			if mode == "http" {
				io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			}
			b := make([]byte, 1024)
			n, _ := c.Read(b)
			return string(b[:n])
		}
		waitFor(t, "the server that closes to be ejected", func() bool {
			visit()
			return r.backend().Usable == 1
		})
		for range 4 {
			if got := visit(); !strings.Contains(got, "ok") && !strings.Contains(got, "200") {
				t.Errorf("%s: got %q", mode, got)
			}
		}
	}
}

func TestMaxRequestsTurnsTheRestAway(t *testing.T) {
	release := make(chan struct{})
	addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) { <-release })
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "max_requests = 3", addr) })
	var under []net.Conn
	for i := range 3 {
		c := r.dial()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		waitFor(t, "the request to be under way", func() bool { return r.backend().Servers[0].Active == int64(i+1) })
		under = append(under, c)
	}
	if resp, body := r.get(""); resp.StatusCode != 503 || !strings.Contains(body, "as many requests under way as it may") {
		t.Errorf("%s %q", resp.Status, body)
	}
	if n := r.failures(plan.OverLimit); n != 1 {
		t.Errorf("counted %d", n)
	}
	close(release)
	for _, c := range under {
		answer(t, bufio.NewReader(c), "GET")
	}
	if resp, _ := r.get(""); resp.StatusCode != 200 {
		t.Errorf("afterwards: %s", resp.Status)
	}
}

func TestTheQueueIsBoundedInLengthAndTime(t *testing.T) {
	r := start(t, engine.Options{}, func(port int) string {
		return limited(httpFrontend(port, "queue {\n length = 2\n timeout = \"300ms\"\n}", silent(t)), 1)
	})
	send := func() (net.Conn, *bufio.Reader) {
		c := r.dial()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		return c, bufio.NewReader(c)
	}
	send()
	waitFor(t, "the first request to be under way", func() bool { return r.backend().Servers[0].Active == 1 })
	_, second := send()
	send()
	waitFor(t, "two to wait", func() bool { return r.backend().Waiting == 2 })
	if resp, body := r.get(""); resp.StatusCode != 503 || !strings.Contains(body, "the queue is full") {
		t.Errorf("the third to wait: %s %q", resp.Status, body)
	}
	if resp, body := answer(t, second, "GET"); resp.StatusCode != 503 || !strings.Contains(body, "in time") {
		t.Errorf("the first to wait: %s %q", resp.Status, body)
	}
	waitFor(t, "nobody to wait", func() bool { return r.backend().Waiting == 0 })
	if n := r.backend().Balance.Queued; n != 2 {
		t.Errorf("counted %d that waited", n)
	}
}

func TestAClientOfAFullServerGoesToAnotherRatherThanAway(t *testing.T) {
	for _, length := range []int{0, 10} { // no queue to wait in, and one in which it waits in vain
		r := start(t, engine.Options{}, func(port int) string {
			return limited(httpFrontend(port, fmt.Sprintf("sticky \"cookie\" {}\nqueue {\n length = %d\n timeout = \"50ms\"\n}", length),
				silent(t), named(t, "s2")), 1)
		})
		c := r.dial()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n") // occupies s1
		waitFor(t, "the first request to be under way", func() bool { return r.backend().Servers[0].Active == 1 })
		mine := "Cookie: SKEIN=" + cookieOf(t, r, "s1") + "\r\n"
		resp, body := r.get(mine)
		if body != "s2" || len(resp.Cookies()) != 1 {
			t.Errorf("length %d: %s %q, cookies %v", length, resp.Status, body, resp.Cookies())
		}
		if n := r.backend().Balance.Redispatched; n != 1 {
			t.Errorf("length %d: counted %d", length, n)
		}
	}
}

// cookieOf computes a server's cookie as the plan does.
func cookieOf(t *testing.T, r *rig, server string) string {
	t.Helper()
	p, err := plan.Compile(parse(t, "frontend \"f\" {\n bind = [\"127.0.0.1\"]\n http = 1\n backend = \"b\"\n}\n"+
		"backend \"b\" {\n sticky \"cookie\" {}\n server \""+server+"\" {\n address = \"127.0.0.1:1\"\n}\n}\n"), nil)
	if err != nil {
		t.Fatal(err)
	}
	b := p.Backends[0]
	value, _, _ := strings.Cut(strings.TrimPrefix(string(b.SetCookie(b.Servers[0])), "SKEIN="), ";")
	return value
}

func TestPanicIgnoresHealthAndEnds(t *testing.T) {
	r := start(t, engine.Options{}, func(port int) string {
		return httpFrontend(port, "minimum_healthy = 0.5", named(t, "s1"), named(t, "s2"), named(t, "s3"), named(t, "s4"))
	})
	servers := func() int {
		seen := map[string]bool{}
		for range 8 {
			_, name := r.get("")
			seen[name] = true
		}
		return len(seen)
	}
	for i, want := range []int{4, 3, 2, 4, 4} { // with so many that are down
		if got := servers(); got != want || r.backend().Panic != (i > 2) {
			t.Errorf("with %d of 4 down %d are used, want %d; panic: %v", i, got, want, r.backend().Panic)
		}
		if i < 4 {
			r.e.SetUsable("b", fmt.Sprint("s", i+1), false)
		}
	}
	if n := r.backend().Balance.Panicked; n != 16 {
		t.Errorf("counted %d", n)
	}
	r.e.SetUsable("b", "s1", true)
	r.e.SetUsable("b", "s2", true)
	if got := servers(); got != 2 || r.backend().Panic {
		t.Errorf("with half of them up %d are used; panic: %v", got, r.backend().Panic)
	}
}

func TestASlowStartGrows(t *testing.T) {
	r := start(t, engine.Options{}, func(port int) string {
		return httpFrontend(port, "slow_start = \"2s\"", named(t, "s1"), named(t, "s2"))
	})
	if n := r.backend().Servers[0].Ramp; n != 100 {
		t.Errorf("when all begin at once, one begins with %d %%", n)
	}
	r.e.SetUsable("b", "s1", false)
	r.e.SetUsable("b", "s1", true)
	n := map[string]int{}
	for range 20 {
		_, name := r.get("")
		n[name]++
	}
	if n["s1"] == 0 || n["s1"] > 8 {
		t.Errorf("just after it came up: %v", n)
	}
	waitFor(t, "the slow start to end", func() bool { return r.backend().Servers[0].Ramp == 100 })
	clear(n)
	for range 10 {
		_, name := r.get("")
		n[name]++
	}
	if n["s1"] != 5 {
		t.Errorf("afterwards: %v", n)
	}
}

// A reload must not leave those behind who wait: the new plan is the one that is kept up to date.
func TestClientsWhoWaitFollowAReload(t *testing.T) {
	var text string
	release := make(chan struct{})
	var once sync.Once
	addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
		<-release
		io.WriteString(w, "s1")
	})
	defer once.Do(func() { close(release) })
	r := start(t, engine.Options{}, func(port int) string {
		text = limited(httpFrontend(port, "queue {\n timeout = \"10s\"\n}", addr), 1)
		return text
	})
	io.WriteString(r.dial(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	waitFor(t, "the first request to be under way", func() bool { return r.backend().Servers[0].Active == 1 })
	second := r.dial()
	io.WriteString(second, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	waitFor(t, "the second to wait", func() bool { return r.backend().Waiting == 1 })
	i := strings.LastIndex(text, "}")
	if err := r.e.Apply(parse(t, text[:i]+" server \"new\" {\n address = \""+named(t, "new").String()+"\"\n}\n}\n")); err != nil {
		t.Fatal(err)
	}
	if resp, body := answer(t, bufio.NewReader(second), "GET"); body != "new" {
		t.Errorf("%s %q, want an answer of the server that is new", resp.Status, body)
	}
}

// What a client that waits through a reload is remembered by is what the new table looks for; else it is not remembered this time.
func TestAKeyOfAFormerTableIsNotEntered(t *testing.T) {
	for _, c := range []struct {
		next string
		want int
	}{
		{`key = header["x-user"]` + "\n" + ` ttl = "2m"`, 1},
		{`key = cookie["user"]` + "\n" + ` ttl = "1m"`, 0},
		{`key = header["x-name"]` + "\n" + ` ttl = "1m"`, 0},
		{`key = client` + "\n" + ` ttl = "1m"`, 0},
	} {
		const key = `key = header["x-user"]` + "\n" + ` ttl = "1m"`
		var text string
		release := make(chan struct{})
		addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
			<-release
			io.WriteString(w, "s1")
		})
		st := &table{m: map[[16]byte]uint64{}}
		r := start(t, engine.Options{Sticky: st}, func(port int) string {
			text = limited(httpFrontend(port, "sticky \"table\" {\n "+key+"\n}\nqueue {\n timeout = \"10s\"\n}", addr), 1)
			return text
		})
		io.WriteString(r.dial(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n") // has no key
		waitFor(t, "the first request to be under way", func() bool { return r.backend().Servers[0].Active == 1 })
		second := r.dial()
		io.WriteString(second, "GET / HTTP/1.1\r\nHost: x\r\nX-User: a\r\n\r\n")
		waitFor(t, "the second to wait", func() bool { return r.backend().Waiting == 1 })
		if err := r.e.Apply(parse(t, strings.Replace(text, key, c.next, 1))); err != nil {
			t.Fatal(err)
		}
		close(release)
		if resp, body := answer(t, bufio.NewReader(second), "GET"); body != "s1" {
			t.Errorf("%s %q", resp.Status, body)
		}
		if n := st.entries(); n != c.want {
			t.Errorf("a client that waited while the key became %q: %d entries, want %d", c.next, n, c.want)
		}
	}
}

// The place that a client needs for a new connection, since the unused one that it was given has died, may be taken by another unused one.
func TestAnUnusedConnectionGivesItsPlaceToWhoNeedsANewOne(t *testing.T) {
	var both sync.WaitGroup
	both.Add(2)
	addr := serve(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		for i := range 2 { // the second request of a connection is not answered
			q, err := http.ReadRequest(br)
			if err != nil || i > 0 {
				return
			}
			if q.URL.Path == "/both" {
				both.Done()
				both.Wait()
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	var text string
	r := start(t, engine.Options{}, func(port int) string {
		text = httpFrontend(port, "", addr)
		return text
	})
	one, two := r.dial(), r.dial()
	io.WriteString(one, "GET /both HTTP/1.1\r\nHost: x\r\n\r\n")
	io.WriteString(two, "GET /both HTTP/1.1\r\nHost: x\r\n\r\n")
	br := bufio.NewReader(one)
	answer(t, br, "GET")
	answer(t, bufio.NewReader(two), "GET")
	if err := r.e.Apply(parse(t, limited(text, 1))); err != nil {
		t.Fatal(err)
	}
	if resp, body := ask(t, one, br, "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); body != "ok" {
		t.Errorf("%s %q", resp.Status, body)
	}
}

// A backend that is taken away and brought back while clients wait for it is another one. Those who still wait move to it, and with them
// what they are counted as.
func TestClientsWhoWaitAreCountedOnceWhenTheirBackendComesBack(t *testing.T) {
	var text string
	release := make(chan struct{})
	addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
		<-release
		io.WriteString(w, "s1")
	})
	r := start(t, engine.Options{}, func(port int) string {
		text = limited(httpFrontend(port, "max_requests = 100\nqueue {\n timeout = \"10s\"\n}", addr), 1)
		return text
	})
	io.WriteString(r.dial(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	waitFor(t, "the first request to be under way", func() bool { return r.backend().Servers[0].Active == 1 })
	second := r.dial()
	io.WriteString(second, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	waitFor(t, "the second to wait", func() bool { return r.backend().Waiting == 1 })
	if err := r.e.Apply(parse(t, strings.ReplaceAll(text, `"b"`, `"other"`))); err != nil {
		t.Fatal(err)
	}
	if err := r.e.Apply(parse(t, text)); err != nil {
		t.Fatal(err)
	}
	close(release)
	if resp, body := answer(t, bufio.NewReader(second), "GET"); body != "s1" {
		t.Errorf("%s %q", resp.Status, body)
	}
	waitFor(t, "nobody to be under way", func() bool { return r.e.Stats().Backends[0].Servers[0].Active == 0 })
	if n := r.backend().Waiting; n != 0 {
		t.Errorf("%d clients wait, says the backend; want 0", n)
	}
}

// Servers 64 apart share a bit in the mask of those that were tried: that the one is full says nothing about the other.
func TestAFullServerDoesNotHideTheOneThatSharesItsBit(t *testing.T) {
	l, err := net.Listen("tcp4", ":0")
	if err != nil {
		t.Fatal(err)
	}
	release := make(chan struct{})
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.URL.RawQuery == "stay" {
			<-release
		}
		io.WriteString(w, "ok")
	})}
	t.Cleanup(func() { s.Close() })
	go s.Serve(l)
	var servers []net.Addr
	for i := range 65 {
		servers = append(servers, &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i+1)), Port: l.Addr().(*net.TCPAddr).Port})
	}
	r := start(t, engine.Options{}, func(port int) string {
		text := httpFrontend(port, "balance = \"hash\"\nhash {\n key = path\n}\n", servers...)
		return strings.ReplaceAll(text, " address", " max_connections = 1\n address")
	})
	defer close(release)
	for i := range 65 {
		if i%64 != 0 {
			r.e.SetAdmin("b", fmt.Sprintf("s%d", i+1), plan.Disabled, -1)
		}
	}
	io.WriteString(r.dial(), "GET /a?stay HTTP/1.1\r\nHost: x\r\n\r\n")
	waitFor(t, "the first request to be under way", func() bool { return r.backend().Active == 1 })
	c := r.dial()
	if resp, body := ask(t, c, bufio.NewReader(c), "GET", "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"); body != "ok" {
		t.Errorf("%s %q", resp.Status, body)
	}
}
