package engine_test

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"testing"

	"github.com/skeinlb/skein/engine"
)

// noise returns n bytes that do not repeat.
func noise(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{1})
	r.Read(b)
	return b
}

func TestTenMegabytesArriveUnchangedInBothDirections(t *testing.T) {
	want := noise(10 << 20)
	sum := sha256.Sum256(want)
	check := func(t *testing.T, r io.Reader) {
		t.Helper()
		h := sha256.New()
		if n, err := io.Copy(h, r); n != int64(len(want)) || err != nil || !bytes.Equal(h.Sum(nil), sum[:]) {
			t.Errorf("%d of %d bytes, error %v, same content: %v", n, len(want), err, bytes.Equal(h.Sum(nil), sum[:]))
		}
	}
	t.Run("tcp", func(t *testing.T) {
		addr := serve(t, func(c net.Conn) { io.Copy(c, c) })
		r := start(t, engine.Options{}, func(port int) string { return frontend("tcp", port, "", addr) })
		c := r.dial()
		go func() {
			c.Write(want)
			c.(*net.TCPConn).CloseWrite()
		}()
		check(t, c)
	})
	t.Run("http up", func(t *testing.T) {
		addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
			h := sha256.New()
			n, err := io.Copy(h, q.Body)
			fmt.Fprintf(w, "%d %v %v", n, err, bytes.Equal(h.Sum(nil), sum[:]))
		})
		r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
		for range 3 {
			resp, err := http.Post("http://"+r.addr, "", bytes.NewReader(want))
			if err != nil {
				t.Fatal(err)
			}
			b, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if got := string(b); got != strconv.Itoa(len(want))+" <nil> true" {
				t.Errorf("the server got %s", got)
			}
		}
	})
	t.Run("http down", func(t *testing.T) {
		conns := make(chan struct{}, 10)
		addr := serveHTTP(t, func(w http.ResponseWriter, q *http.Request) {
			if q.URL.Path == "/length" {
				w.Header().Set("Content-Length", strconv.Itoa(len(want)))
			}
			w.Write(want)
		})
		r := start(t, engine.Options{}, func(port int) string { return httpFrontend(port, "", addr) })
		for _, path := range []string{"/length", "/chunked", "/length", "/chunked"} {
			resp, err := http.Get("http://" + r.addr + path)
			if err != nil {
				t.Fatal(err)
			}
			check(t, resp.Body)
			resp.Body.Close()
		}
		if n := r.e.Stats().Backends[0].Servers[0].Connections; n != 1 {
			t.Errorf("%d connections to the server, want the first one used again: %d", n, len(conns))
		}
	})
}

func TestAServerThatSpeaksFirst(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		io.WriteString(c, "220 ready\r\n")
		io.Copy(io.Discard, c)
	})
	r := start(t, engine.Options{}, func(port int) string { return frontend("tcp", port, "", addr) })
	b := make([]byte, 11)
	if _, err := io.ReadFull(r.dial(), b); string(b) != "220 ready\r\n" {
		t.Errorf("read %q, %v", b, err)
	}
}

func TestServersEndIsPassedOnWhileTheClientStillSends(t *testing.T) {
	got := make(chan string, 1)
	addr := serve(t, func(c net.Conn) {
		io.WriteString(c, "bye")
		c.(*net.TCPConn).CloseWrite()
		b, _ := io.ReadAll(c)
		got <- string(b)
	})
	r := start(t, engine.Options{}, func(port int) string { return frontend("tcp", port, "", addr) })
	c := r.dial()
	if b, err := io.ReadAll(c); string(b) != "bye" || err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	io.WriteString(c, "after your end")
	c.(*net.TCPConn).CloseWrite()
	if s := <-got; s != "after your end" {
		t.Errorf("the server got %q", s)
	}
}

func TestAResetIsPassedOnAsAReset(t *testing.T) {
	addr := serve(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, 1))
		c.(*net.TCPConn).SetLinger(0)
	})
	r := start(t, engine.Options{}, func(port int) string { return frontend("tcp", port, "", addr) })
	c := r.dial()
	io.WriteString(c, "x")
	if b, err := io.ReadAll(c); err == nil {
		t.Errorf("read %q and a plain end; the server had reset the connection", b)
	}
	errs := make(chan error, 1)
	addr = serve(t, func(c net.Conn) {
		_, err := io.ReadAll(c)
		errs <- err
	})
	r = start(t, engine.Options{}, func(port int) string { return frontend("tcp", port, "", addr) })
	c = r.dial()
	io.WriteString(c, "x")
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
	if err := <-errs; err == nil {
		t.Errorf("the server read a plain end; the client had reset the connection")
	}
}

func TestManyStreamsAtOnce(t *testing.T) {
	addr := serve(t, func(c net.Conn) { io.Copy(c, c) })
	r := start(t, engine.Options{Loops: 2}, func(port int) string { return frontend("tcp", port, "", addr) })
	errs := make(chan error)
	for i := range 50 {
		c := r.dial()
		go func() {
			want := noise(1000 * (i + 1))
			go func() {
				c.Write(want)
				c.(*net.TCPConn).CloseWrite()
			}()
			got, err := io.ReadAll(c)
			if err == nil && !bytes.Equal(got, want) {
				err = fmt.Errorf("stream %d: %d bytes came back, want the same %d", i, len(got), len(want))
			}
			errs <- err
		}()
	}
	for range 50 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}
