package engine_test

import (
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/engine"
)

// segments returns how many segments have reached c, its SYN-ACK included.
func segments(t *testing.T, c net.Conn) int {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var info *unix.TCPInfo
	if e := raw.Control(func(fd uintptr) { info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO) }); e != nil || err != nil {
		t.Fatal(e, err)
	}
	return int(info.Segs_in)
}

// A connection that ends with its answer gets both in one segment: another one would wake the client a second time.
func TestTheEndOfAConnectionGoesWithItsLastBytes(t *testing.T) {
	// Servers that say all they have to say in one segment.
	says := func(answer string, stay bool) net.Addr {
		return serve(t, func(c net.Conn) {
			io.ReadAtLeast(c, make([]byte, 4096), 4)
			if !stay {
				raw, _ := c.(*net.TCPConn).SyscallConn()
				raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_CORK, 1) })
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\n"+answer)
			if stay {
				io.Copy(io.Discard, c)
			}
		})
	}
	length := says("Content-Length: 5\r\n\r\nhello", true)
	const request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
	refuses, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refuses.Close()
	// ask returns what came on a connection and in how many segments.
	ask := func(t *testing.T, c, socket net.Conn) (string, int) {
		before := segments(t, socket)
		io.WriteString(c, request)
		b, err := io.ReadAll(c)
		if err != nil {
			t.Error(err)
		}
		return string(b), segments(t, socket) - before
	}
	check := func(t *testing.T, answer string, n int, end string) {
		t.Helper()
		if !strings.HasSuffix(answer, end) || n > 2 { // what acknowledges the request, and the answer
			t.Errorf("%d segments have brought %q", n, answer)
		}
	}
	for _, k := range []struct {
		name, mode string
		to         net.Addr
		end        string
	}{
		{"length", "http", length, "hello"},
		{"chunked", "http", says("Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", true), "hello\r\n0\r\n\r\n"},
		{"until close", "http", says("\r\nhello", false), "hello"},
		{"tcp", "tcp", says("\r\nhello", false), "hello"},
		{"page", "http", refuses.Addr(), "reached\n"},
	} {
		t.Run(k.name, func(t *testing.T) {
			r := start(t, engine.Options{}, func(port int) string { return frontend(k.mode, port, "", k.to) })
			c := r.dial()
			answer, n := ask(t, c, c)
			check(t, answer, n, k.end)
		})
	}
	t.Run("tls", func(t *testing.T) {
		r := startTLS(t, engine.Options{}, "https", "", length)
		c := r.dialTLS(&tls.Config{MaxVersion: tls.VersionTLS12}) // without tickets behind the handshake
		answer, n := ask(t, c, c.NetConn())
		check(t, answer, n, "hello")
	})
}
