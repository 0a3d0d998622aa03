package engine_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skeinlb/skein/engine"
)

func TestReloadUnderLoadFailsNothing(t *testing.T) {
	// Fresh connections, a keep-alive client and a TCP stream run while configurations that add and remove servers, routes and
	// listeners take turns. The stream must not notice, and no request may fail.
	s1, s2 := named(t, "s1"), named(t, "s2")
	echoAddr := serve(t, func(c net.Conn) { io.Copy(c, c) })
	tcpPort, extraPort := freePort(t), freePort(t)
	config := func(port, i int) string {
		servers := []net.Addr{s1}
		if i%2 == 1 {
			servers = append(servers, s2)
		}
		text := httpFrontend(port, "", servers...)
		if i%3 == 1 {
			text = strings.Replace(text, "backend = \"b\"\n", "route \"r\" {\n path = \"/x/*\"\n backend = \"b\"\n}\nbackend = \"b\"\n", 1)
		}
		if i%4 == 2 {
			text += fmt.Sprintf("frontend \"extra\" {\n bind = [\"127.0.0.1\"]\n http = %d\n backend = \"b\"\n}\n", extraPort)
		}
		return text + fmt.Sprintf("frontend \"t\" {\n bind = [\"127.0.0.1\"]\n tcp = %d\n backend = \"e\"\n}\n"+
			"backend \"e\" {\n server \"e\" {\n address = %q\n}\n}\n",
			tcpPort, echoAddr)
	}
	var port int
	r := start(t, engine.Options{Loops: 2}, func(p int) string { port = p; return config(p, 0) })

	stream, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", tcpPort))
	if err != nil {
		t.Fatal(err)
	}
	defer stream.Close()
	stream.SetDeadline(time.Now().Add(60 * time.Second))

	var done atomic.Bool
	var requests atomic.Int64
	var clients sync.WaitGroup
	clients.Go(func() { // fresh connections
		for !done.Load() {
			c, err := net.Dial("tcp", r.addr)
			if err != nil {
				t.Errorf("connect: %v", err)
				return
			}
			io.WriteString(c, "GET /fresh HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
			b, err := io.ReadAll(c)
			c.Close()
			if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 200 ") {
				t.Errorf("fresh: %q, %v", b, err)
				return
			}
			requests.Add(1)
		}
	})
	clients.Go(func() { // keep-alive
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		br := bufio.NewReader(c)
		for !done.Load() {
			io.WriteString(c, "GET /x/kept HTTP/1.1\r\nHost: x\r\n\r\n")
			resp, err := http.ReadResponse(br, nil)
			if err != nil || resp.StatusCode != 200 {
				t.Errorf("kept: %v, %v", resp, err)
				return
			}
			io.Copy(io.Discard, resp.Body)
			requests.Add(1)
		}
	})
	clients.Go(func() { // a stream
		b := make([]byte, 8)
		for i := 0; !done.Load(); i++ {
			want := fmt.Sprintf("%08d", i)
			io.WriteString(stream, want)
			if _, err := io.ReadFull(stream, b); err != nil || string(b) != want {
				t.Errorf("stream: %q, %v", b, err)
				return
			}
		}
	})
	for i := range 100 {
		if err := r.e.Apply(parse(t, config(port, i))); err != nil {
			t.Errorf("Apply %d: %v", i, err)
			break
		}
		before := requests.Load()
		waitFor(t, "requests between two configurations", func() bool { return requests.Load() > before+1 || t.Failed() })
	}
	done.Store(true)
	clients.Wait()
}

func TestAConfigurationThatCannotListenChangesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	s1 := named(t, "s1")
	var port int
	r := start(t, engine.Options{Loops: 2}, func(p int) string { port = p; return httpFrontend(p, "", s1) })
	text := httpFrontend(port, "", named(t, "s2")) +
		fmt.Sprintf("frontend \"g\" {\n bind = [\"127.0.0.1\"]\n http = [%d, %d]\n backend = \"b\"\n}\n",
			freePort(t), taken.Addr().(*net.TCPAddr).Port)
	err = r.e.Apply(parse(t, text))
	if err == nil || !strings.Contains(err.Error(), `frontend "g"`) || !strings.Contains(err.Error(), taken.Addr().String()) ||
		!strings.Contains(err.Error(), "address already in use (another process listens there") {
		t.Errorf("Apply = %v", err)
	}
	if _, body := r.get(""); body != "s1" {
		t.Errorf("served by %q after a configuration that was refused", body)
	}
	if n := len(r.e.Listeners()); n != 1 {
		t.Errorf("%d listeners, want the old one", n)
	}
}

func TestTwoEnginesCannotShareAnAddress(t *testing.T) {
	// With SO_REUSEPORT alone the kernel would let them, and split the connections.
	var port int
	start(t, engine.Options{Loops: 2}, func(p int) string { port = p; return httpFrontend(p, "", named(t, "s1")) })
	e, err := engine.New(engine.Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Apply(parse(t, httpFrontend(port, "", named(t, "s2")))); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("Apply = %v", err)
	}
}

func TestARemovedFrontendFinishesWhatItHasBegun(t *testing.T) {
	release := make(chan struct{})
	slow := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
		<-release
		io.WriteString(w, "done")
	})
	r := start(t, engine.Options{Loops: 2}, func(port int) string { return httpFrontend(port, "", slow) })
	c := r.dial()
	io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	waitFor(t, "the request to be under way", func() bool { return r.e.Stats().Backends[0].Servers[0].Active == 1 })
	if err := r.e.Apply(parse(t, "")); err != nil {
		t.Fatal(err)
	}
	if c, err := net.Dial("tcp", r.addr); err == nil {
		c.Close()
		t.Errorf("the removed listener still accepts")
	}
	close(release)
	resp, body := answer(t, bufio.NewReader(c), "GET")
	if resp.StatusCode != 200 || body != "done" || !resp.Close {
		t.Errorf("%s %q close=%v", resp.Status, body, resp.Close)
	}
}

func TestWhatWaitsInTheQueueOfARemovedListenerIsServed(t *testing.T) {
	// The loops do not run yet, so that connections wait in the listeners' queues when the configuration goes away. To close a
	// socket would reset them.
	e, err := engine.New(engine.Options{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	port := freePort(t)
	if err := e.Apply(parse(t, httpFrontend(port, "", named(t, "s1")))); err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, e: e, addr: fmt.Sprintf("127.0.0.1:%d", port)}
	var waiting []net.Conn
	for range 300 {
		c := r.dial()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		waiting = append(waiting, c)
	}
	if err := e.Apply(parse(t, "")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	for i, c := range waiting {
		if resp, body := answer(t, bufio.NewReader(c), "GET"); body != "s1" || !resp.Close {
			t.Errorf("connection %d: %q close=%v", i, body, resp.Close)
		}
	}
	cancel()
	<-done
}

func TestListenersChangeTheirMode(t *testing.T) {
	var port int
	r := start(t, engine.Options{}, func(p int) string { port = p; return httpFrontend(p, "", named(t, "http")) })
	kept := r.dial()
	br := bufio.NewReader(kept)
	ask(t, kept, br, "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	greeter := serve(t, func(c net.Conn) { io.WriteString(c, "220 hello") })
	text := strings.ReplaceAll(frontend("tcp", port, "", greeter), `"b"`, `"greet"`)
	if err := r.e.Apply(parse(t, text)); err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r.dial()); string(b) != "220 hello" {
		t.Errorf("after the change: %q, %v", b, err)
	}
	if resp, body := ask(t, kept, br, "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); body != "http" || !resp.Close {
		t.Errorf("the old connection: %q close=%v", body, resp.Close)
	}
}

func TestDrainLetsEverythingFinish(t *testing.T) {
	release := make(chan struct{})
	addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
		if q.URL.Path == "/slow" {
			<-release
		}
		io.WriteString(w, "done")
	})
	r := start(t, engine.Options{Loops: 2}, func(port int) string { return httpFrontend(port, "", addr) })
	idle, busy := r.dial(), r.dial()
	idleReader := bufio.NewReader(idle)
	ask(t, idle, idleReader, "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	io.WriteString(busy, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
	waitFor(t, "the request to be under way", func() bool { return r.e.Stats().Backends[0].Servers[0].Active == 1 })

	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.e.Drain(soon); err == nil || !strings.Contains(err.Error(), "1 connections have not ended") {
		t.Errorf("Drain while a request is under way = %v", err)
	}
	if b, err := io.ReadAll(idleReader); len(b) > 0 || err != nil {
		t.Errorf("the idle client read %q, %v", b, err)
	}
	if c, err := net.Dial("tcp", r.addr); err == nil {
		c.Close()
		t.Errorf("a draining engine accepts")
	}
	close(release)
	resp, body := answer(t, bufio.NewReader(busy), "GET")
	if resp.StatusCode != 200 || body != "done" || !resp.Close {
		t.Errorf("%s %q close=%v", resp.Status, body, resp.Close)
	}
	if err := r.e.Drain(t.Context()); err != nil {
		t.Errorf("Drain = %v", err)
	}
}

func TestCheckOpensNothing(t *testing.T) {
	e, err := engine.New(engine.Options{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	c := parse(t, httpFrontend(freePort(t), "", named(t, "s1")))
	if err := e.Check(c); err != nil || len(e.Listeners()) != 0 {
		t.Errorf("Check = %v, %d listeners", err, len(e.Listeners()))
	}
}

func TestProgressIsStampedWhileNothingHappens(t *testing.T) {
	stamps := []*atomic.Uint64{new(atomic.Uint64), new(atomic.Uint64)}
	start(t, engine.Options{Loops: 2, Progress: stamps}, func(p int) string { return httpFrontend(p, "", dead(t)) })
	for i, s := range stamps {
		before := s.Load()
		waitFor(t, fmt.Sprintf("loop %d to stamp its progress", i), func() bool { return s.Load() > before+3 })
	}
}

// flood is a sticky table that is asked for every request, on the loop; once it is open each request makes the next one.
type flood struct {
	addr string
	open atomic.Bool
	made atomic.Int64
}

// floodMost ends a flood that nobody else ends.
const floodMost = 20_000

func (f *flood) Learn(uint64, [16]byte, uint64, time.Duration) {}

func (f *flood) Lookup(uint64, [16]byte) (uint64, bool) {
	if f.open.Load() && f.made.Add(1) <= floodMost {
		f.ask()
	}
	return 0, false
}

// ask sends a request and leaves.
func (f *flood) ask() {
	if c, err := net.Dial("tcp", f.addr); err == nil {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
		c.Close()
	}
}

// As many connections come to a listener as it can take. It goes away all the same, when it has taken those that were waiting.
func TestAFloodDoesNotKeepAListener(t *testing.T) {
	f := &flood{}
	r := start(t, engine.Options{Sticky: f}, func(port int) string {
		return httpFrontend(port, "sticky \"table\" {\n key = client\n ttl = \"1m\"\n}", dead(t))
	})
	f.addr = r.addr
	r.e.SetUsable("b", "s1", false) // whoever comes is turned away at once
	f.open.Store(true)
	f.ask()
	waitFor(t, "the flood to begin", func() bool { return f.made.Load() > 10 })
	if err := r.e.Apply(parse(t, "")); err != nil {
		t.Fatal(err)
	}
	if n := f.made.Load(); n >= floodMost {
		t.Errorf("the listener went away when the flood was over")
	}
}
