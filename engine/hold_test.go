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
)

func TestAHeadArrivesBeforeItsBodyExists(t *testing.T) {
	// The server sends a head, and no byte of the body before the client says that it has seen the head.
	seen := make(chan struct{})
	addr := serve(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		for {
			if _, err := r.ReadString('\n'); err != nil {
				return
			}
			if r.Buffered() == 0 {
				break
			}
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
		<-seen
		io.WriteString(c, "hello")
	})
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	c := r.dial()
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	b := bufio.NewReader(c)
	for {
		line, err := b.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == "\r\n" {
			break
		}
	}
	close(seen)
	body := make([]byte, 5)
	if _, err := io.ReadFull(b, body); err != nil || string(body) != "hello" {
		t.Errorf("body = %q, %v", body, err)
	}
}

func TestARequestRightBehindABodyThatCameAlone(t *testing.T) {
	// The first request's head arrives alone; its body and the next request, a byte of which is read with the body, together.
	arrived := make(chan struct{}, 1)
	addr := serve(t, func(c net.Conn) {
		b := make([]byte, 4096)
		var got string
		told := false
		for {
			n, err := c.Read(b)
			if err != nil {
				return
			}
			got += string(b[:n])
			if !told {
				told = true
				arrived <- struct{}{}
			}
			if strings.HasSuffix(got, "\r\n\r\nhello") {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none")
				got = ""
			} else if strings.HasPrefix(got, "GET /two ") && strings.HasSuffix(got, "\r\n\r\n") {
				io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo")
				got = ""
			}
		}
	})
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	c := r.dial()
	io.WriteString(c, "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
	<-arrived
	io.WriteString(c, "helloGET /two HTTP/1.1\r\nHost: a\r\n\r\n")
	b := bufio.NewReader(c)
	for _, want := range []string{"one", "two"} {
		if _, body := answer(t, b, "GET"); body != want {
			t.Errorf("body = %q, want %q", body, want)
		}
	}
}

func TestAServerThatSendsMoreThanItAnnouncedIsNotUsedAgain(t *testing.T) {
	// The head alone, then the body with one byte behind it: what is behind must not become part of the next answer.
	conns := make(chan struct{}, 10)
	seen := make(chan struct{}, 2)
	addr := serve(t, func(c net.Conn) {
		conns <- struct{}{}
		b := make([]byte, 4096)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
			<-seen
			io.WriteString(c, "hello!")
		}
	})
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
	c := r.dial()
	b := bufio.NewReader(c)
	for range 2 {
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, err := b.Peek(1); err != nil {
			t.Fatal(err)
		}
		seen <- struct{}{}
		if _, body := answer(t, b, "GET"); body != "hello" {
			t.Errorf("body = %q, want hello", body)
		}
	}
	if n := len(conns); n != 2 {
		t.Errorf("%d connections to the server for two requests, want 2", n)
	}
}

func TestABodyFollowsWhenARetryFindsAnIdleConnection(t *testing.T) {
	// The request is for a server that refuses; the next has an unused connection. All of the client's body has arrived by then, so
	// that no further event tells of it.
	addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
		b, _ := io.ReadAll(q.Body)
		fmt.Fprint(w, len(b))
	})
	r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr, dead(t)) })
	c := r.dial()
	b := bufio.NewReader(c)
	for range 2 { // one of them finds the dead server first
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if _, body := answer(t, b, "GET"); body != "0" {
			t.Fatalf("body = %q", body)
		}
	}
	for range 4 {
		const size = 100 << 10
		io.WriteString(c, fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n", size)+strings.Repeat("x", size))
		if _, body := answer(t, b, "POST"); body != fmt.Sprint(size) {
			t.Fatalf("body = %q, want %d", body, size)
		}
	}
}
