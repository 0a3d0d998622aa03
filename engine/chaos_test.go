package engine_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
)

// rude is a server that does with a request what its path says: /how/size.
func rude(c net.Conn) {
	br := bufio.NewReader(c)
	for {
		q, err := http.ReadRequest(br)
		if err != nil {
			return
		}
		var how string
		var size int
		fmt.Sscanf(strings.ReplaceAll(q.URL.Path, "/", " "), "%s %d", &how, &size)
		if how != "early" && how != "reset-early" {
			if _, err := io.Copy(io.Discard, q.Body); err != nil {
				return
			}
		}
		body := noise(size)
		switch how {
		case "length":
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
			c.Write(body)
		case "chunked", "early":
			io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			for rest := body; len(rest) > 0; {
				n := min(len(rest), 1+rand.IntN(5000))
				fmt.Fprintf(c, "%x;ext=1\r\n%s\r\n", n, rest[:n])
				rest = rest[n:]
			}
			io.WriteString(c, "0\r\n\r\n")
			if how == "early" {
				return
			}
		case "close":
			io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
			c.Write(body)
			return
		case "truncated":
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size+1)
			c.Write(body)
			return
		case "reset", "reset-early":
			c.(*net.TCPConn).SetLinger(0)
			return
		case "extra":
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%sHTTP/1.1 200 OK\r\n\r\n", size, body)
		case "garbage":
			c.Write(body)
			return
		case "idle-close": // pretends to keep the connection
			fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n", size)
			c.Write(body)
			return
		}
	}
}

func TestChaosLeavesNothingBehind(t *testing.T) {
	// Servers that break off anywhere and clients that do the same, at once and at random. Whoever behaves gets a right answer;
	// when all is over, nothing is held: no client, no server connection, no place, no descriptor.
	r := start(t, engine.Options{Loops: 2}, func(port int) string {
		return limited(httpFrontend(port, "", serve(t, rude), serve(t, rude)), 5)
	})
	descriptors := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("no /proc here to count descriptors in")
		}
		return len(d)
	}
	before := descriptors()
	hows := []string{"length", "chunked", "close", "length", "chunked", "idle-close",
		"early", "truncated", "reset", "reset-early", "extra", "garbage"}
	sizes := []int{0, 1, 100, 16 << 10, 20_000, 300_000}
	var clients sync.WaitGroup
	for seed := range 16 {
		clients.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(seed), 7))
			for i := range 60 {
				how, size := hows[rnd.IntN(len(hows))], sizes[rnd.IntN(len(sizes))]
				if err := visit(r.addr, rnd, how, size); err != nil {
					t.Errorf("client %d, visit %d, %s %d: %v", seed, i, how, size, err)
					return
				}
			}
		})
	}
	clients.Wait()
	waitFor(t, "all clients and exchanges to be gone", func() bool {
		st := r.e.Stats()
		active := int64(0)
		for _, s := range st.Backends[0].Servers {
			active += s.Active
		}
		return st.Loops[0].Clients+st.Loops[1].Clients+st.Loops[0].Waiting+st.Loops[1].Waiting+active == 0
	})
	st := r.e.Stats()
	for kind, n := range st.Frontends[0].Failures {
		t.Logf("%6d %v", n, plan.Failure(kind))
	}
	if n := st.Frontends[0].Failures[plan.Internal]; n != 0 {
		t.Errorf("%d exchanges ended without a reason", n)
	}
	if b := st.Backends[0]; b.Requests != b.Failures[plan.None]+b.Failed() || b.Active != 0 {
		t.Errorf("the backend was sent %d requests, of which %d ended well, %d did not, and %d have not", b.Requests, b.Failures[plan.None], b.Failed(), b.Active)
	}
	if f := st.Frontends[0]; f.Failures[plan.None]+f.Failed() != f.Times[plan.SpanTotal].Count || f.Requests > f.Failures[plan.None]+f.Failed() {
		t.Errorf("%d requests, %d ended well, %d did not, %d took time", f.Requests, f.Failures[plan.None], f.Failed(), f.Times[plan.SpanTotal].Count)
	}
	r.e.SetUsable("b", "s1", false)
	r.e.SetUsable("b", "s2", false)
	waitFor(t, "all connections to servers to be closed", func() bool {
		st := r.e.Stats()
		return st.Loops[0].Servers+st.Loops[1].Servers+st.Backends[0].Servers[0].Open+st.Backends[0].Servers[1].Open == 0
	})
	waitFor(t, "the descriptors to be closed", func() bool { return descriptors() <= before+2*2*64 }) // but for pooled pipes
}

// visit is one client's connection. It returns an error if a well-behaved server's answer came out wrong.
func visit(addr string, rnd *rand.Rand, how string, size int) error {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(20 * time.Second))
	var q bytes.Buffer
	method := "GET"
	body := noise(bodySizes[rnd.IntN(len(bodySizes))])
	switch rnd.IntN(3) {
	case 0:
		fmt.Fprintf(&q, "GET /%s/%d HTTP/1.1\r\nHost: x\r\n\r\n", how, size)
	case 1:
		method = "POST"
		fmt.Fprintf(&q, "POST /%s/%d HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", how, size, len(body), body)
	case 2:
		method = "POST"
		fmt.Fprintf(&q, "POST /%s/%d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", how, size)
		if len(body) > 0 {
			fmt.Fprintf(&q, "%x\r\n%s\r\n", len(body), body)
		}
		q.WriteString("0\r\n\r\n")
	}
	raw := q.Bytes()
	switch rnd.IntN(6) {
	case 0: // breaks off in the middle of the request
		c.Write(raw[:rnd.IntN(len(raw))])
		if rnd.IntN(2) == 0 {
			c.(*net.TCPConn).SetLinger(0)
		}
		return nil
	case 1: // breaks off in the middle of the response
		go c.Write(raw)
		c.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // an error page may be shorter
		io.CopyN(io.Discard, c, int64(rnd.IntN(size+1)))
		c.(*net.TCPConn).SetLinger(0)
		return nil
	case 2: // twice at once
		raw = append(raw, raw...)
	}
	go c.Write(raw)
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		if how == "length" || how == "chunked" {
			return fmt.Errorf("read the response: %w", err)
		}
		return nil
	}
	got, err := io.ReadAll(resp.Body)
	if how != "length" && how != "chunked" {
		return nil
	}
	if method == "POST" && resp.StatusCode == 502 {
		return nil // sent over a connection that its server had just closed, and not to be sent twice
	}
	if resp.StatusCode != 200 || err != nil || !bytes.Equal(got, noise(size)) {
		return fmt.Errorf("%s, %d bytes, %v: %.80q", resp.Status, len(got), err, got)
	}
	return nil
}

var bodySizes = []int{0, 10, 3000, 70_000, 300_000}
