package engine_test

import (
	"net"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/skeinlb/skein/engine"
)

func TestServingAllocatesNothing(t *testing.T) {
	for _, more := range []string{
		"sticky \"cookie\" {\n name = \"S\"\n}",
		"balance = \"least_conn\"",
		"balance = \"least_time\"",
		"balance = \"random\"",
		"balance = \"hash\"\nhash {\n key = query[\"a\"]\n bound = 1.25\n}",
		"max_requests = 100\nminimum_healthy = 0.5\nslow_start = \"10s\"\nretries {\n on = [\"503\", \"timeout\"]\n}\noutlier {}",
	} {
		servesWithoutAllocating(t, more)
	}
}

func servesWithoutAllocating(t *testing.T, more string) {
	t.Helper()
	// Client and server are goroutines of this process: they must not allocate either, hence no net/http.
	response := []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: test\r\n\r\nok")
	addr := serve(t, func(c net.Conn) {
		b := make([]byte, 4096)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
			c.Write(response)
		}
	})
	log := filepath.Join(t.TempDir(), "access.log")
	r := start(t, engine.Options{}, func(port int) string {
		return "log {\n to = \"" + log + "\"\n headers = [\"User-Agent\"]\n}\nfrontend \"f\" {\n bind = [\"127.0.0.1\"]\n http = " + strconv.Itoa(port) + "\n" +
			" route \"r\" {\n host = [\"api.example.com\"]\n path = \"/v1/*\"\n backend = \"b\"\n}\n backend = \"b\"\n}\n" +
			"backend \"b\" {\n" + more + "\n server \"s1\" {\n address = \"" + addr.String() + "\"\n}\n" +
			"server \"s2\" {\n address = \"" + addr.String() + "\"\n}\n}\n"
	})
	c := r.dial()
	const head = " HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n"
	requests := [][]byte{[]byte("GET /v1/thing?a=b" + head), []byte("GET /v1/thing?a=" + strings.Repeat("b", 1500) + head)}
	const times = 2000
	n := allocations(t, c, times, requests...)
	t.Logf("%q: %d requests, %d allocations", more, times, n)
	// A few allocations belong to the runtime and to other tests' goroutines that are ending.
	if n > times/20 {
		t.Errorf("%q: %d requests made %d allocations", more, times, n)
	}
}

// allocations sends requests in turn on c, so many times, each when the last is answered with "ok" for a body. It returns how often this
// process has allocated meanwhile, after a warm-up.
func allocations(t *testing.T, c net.Conn, times int, requests ...[]byte) uint64 {
	t.Helper()
	b := make([]byte, 4096)
	turn := 0
	exchange := func() {
		c.Write(requests[turn%len(requests)])
		turn++
		n := 0
		for {
			m, err := c.Read(b[n:])
			if err != nil {
				t.Fatal(err)
			}
			if n += m; string(b[n-6:n]) == "\r\n\r\nok" {
				return
			}
		}
	}
	for range 100 {
		exchange()
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range times {
		exchange()
	}
	runtime.ReadMemStats(&after)
	return after.Mallocs - before.Mallocs
}
