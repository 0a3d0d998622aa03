package engine_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
	"github.com/skeinlb/skein/internal/golden"
)

// withLog adds an access log to a configuration.
func withLog(text, format, path string) string {
	return fmt.Sprintf("log {\n to = %q\n format = %q\n headers = [\"User-Agent\"]\n}\n%s", path, format, text)
}

// end is one way in which a request or a session can end.
type end struct {
	name   string
	config func(port int) string
	do     func(t *testing.T, r *rig)
	local  bool // says nothing to a backend
}

const get = "GET /thing HTTP/1.1\r\nHost: x\r\nUser-Agent: test\r\n\r\n"

// say sends bytes on a new connection and reads what comes until the end, or until the answer's body is here.
func say(raw string) func(t *testing.T, r *rig) {
	return func(t *testing.T, r *rig) {
		c := r.dial()
		go io.WriteString(c, raw)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err == nil {
			io.Copy(io.Discard, resp.Body)
		}
	}
}

// leave sends bytes on a new connection, reads some, and resets it.
func leave(raw string, read int) func(t *testing.T, r *rig) {
	return func(t *testing.T, r *rig) {
		c := r.dial()
		if _, err := io.WriteString(c, raw); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, read)); err != nil {
			t.Fatal(err)
		}
		if read == 0 {
			waitFor(t, "the request to be taken", func() bool {
				st := r.e.Stats()
				return st.Frontends[0].BytesIn > 0 && (st.Backends[0].Requests == 0 || st.Backends[0].Servers[0].BytesIn > 0)
			})
		}
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
}

// answers is a server that gives the same bytes to every request, and then closes its connection or keeps it.
func answers(t *testing.T, raw string, keep bool) net.Addr {
	return serve(t, func(c net.Conn) {
		br := bufio.NewReader(c)
		for {
			q, err := http.ReadRequest(br)
			if err != nil {
				return
			}
			io.Copy(io.Discard, q.Body)
			io.WriteString(c, raw)
			if !keep {
				return
			}
		}
	})
}

func ends(t *testing.T) []end {
	fine := answers(t, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", true)
	half := "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	stands := serve(t, func(c net.Conn) { // begins a body and stops
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, half)
		io.Copy(io.Discard, c)
	})
	hello := serve(t, func(c net.Conn) { io.WriteString(c, "hello"); io.Copy(io.Discard, c) })
	resets := serve(t, func(c net.Conn) {
		io.ReadFull(c, make([]byte, 1))
		c.(*net.TCPConn).SetLinger(0)
	})
	plain := func(server net.Addr, backend, timeouts string) func(port int) string {
		return func(port int) string {
			text := httpFrontend(port, backend, server)
			if timeouts != "" {
				text = withTimeouts(text, timeouts)
			}
			return text
		}
	}
	tcp := func(server net.Addr, backend, timeouts string) func(port int) string {
		return func(port int) string {
			return strings.Replace(plain(server, backend, timeouts)(port), "http =", "tcp =", 1)
		}
	}
	post := "POST /thing HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n"
	return []end{
		{name: "served", config: plain(fine, "", ""), do: say(get)},
		{name: "redirected", local: true, do: say(get), config: func(port int) string {
			return fmt.Sprintf("frontend \"f\" {\n bind = [\"127.0.0.1\"]\n http = %d\n route \"r\" {\n redirect = \"/new\"\n}\n backend = \"b\"\n}\n", port) +
				strings.SplitAfterN(httpFrontend(port, "", fine), "}\n", 2)[1]
		}},
		{name: "not a request", config: plain(fine, "", ""), do: say("GET\r\n\r\n"), local: true},
		{name: "half a head, and then nothing", config: plain(fine, "", `headers = "30ms"`), do: say("GET / HTTP/1.1\r\nHo"), local: true},
		{name: "the client leaves within the head", config: plain(fine, "", ""), do: leave("GET / HTTP/1.1\r\nHo", 0), local: true},
		{name: "refused by the server's host", config: plain(nobody.Addr(), "retries {\n attempts = 0\n}", ""), do: say(get)},
		{name: "no server is usable", config: plain(fine, "", ""), do: func(t *testing.T, r *rig) {
			r.e.SetUsable("b", "s1", false)
			say(get)(t, r)
		}},
		{name: "the server closes without an answer", config: plain(answers(t, "", false), "", ""), do: say(get)},
		{name: "the server does not speak HTTP", config: plain(answers(t, "hello\r\n\r\n", false), "", ""), do: say(get)},
		{name: "the server does not answer in time", config: plain(silent(t), "timeouts {\n response = \"30ms\"\n}", ""), do: say(get)},
		{name: "the server closes within the body", config: plain(answers(t, half, false), "", ""), do: say(get)},
		{name: "the server stops within the body", config: plain(stands, "timeouts {\n server = \"30ms\"\n}", ""), do: say(get)},
		{name: "the client leaves before the answer", config: plain(silent(t), "", ""), do: leave(get, 0)},
		{name: "the client leaves within the body", config: plain(stands, "", ""), do: leave(get, 60)},
		{name: "the client stops within its body", config: plain(silent(t), "", `client = "30ms"`), do: say(post + "half")},
		{name: "the client leaves within its body", config: plain(silent(t), "", ""), do: leave(post+"half", 0)},
		{name: "a body that is no body", config: plain(silent(t), "", ""),
			do: say("POST /thing HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n")},
		{name: "the server goes down", config: plain(silent(t), "on_down = \"close\"", ""), do: func(t *testing.T, r *rig) {
			c := r.dial()
			io.WriteString(c, get)
			waitFor(t, "the request to be passed on", func() bool { return r.e.Stats().Backends[0].Servers[0].BytesIn > 0 })
			r.e.SetUsable("b", "s1", false)
			answer(t, bufio.NewReader(c), "GET")
		}},
		{name: "the node ends", config: plain(silent(t), "", ""), do: func(t *testing.T, r *rig) {
			io.WriteString(r.dial(), get)
			waitFor(t, "the request to be passed on", func() bool { return r.e.Stats().Backends[0].Servers[0].BytesIn > 0 })
			r.end()
		}},
		{name: "a session", config: tcp(hello, "", ""), do: func(t *testing.T, r *rig) {
			c := r.dial()
			io.WriteString(c, "hi")
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
		}},
		{name: "a session that its server resets", config: tcp(resets, "", ""), do: func(t *testing.T, r *rig) {
			c := r.dial()
			io.WriteString(c, "hi")
			io.Copy(io.Discard, c)
		}},
		{name: "a session that its client resets", config: tcp(hello, "", ""), do: leave("hi", 5)},
		{name: "a session that is silent for too long", config: tcp(hello, "", `client = "30ms"`), do: func(t *testing.T, r *rig) {
			io.Copy(io.Discard, r.dial())
		}},
		{name: "a session without a server", config: tcp(nobody.Addr(), "retries {\n attempts = 0\n}", ""), do: func(t *testing.T, r *rig) {
			if c, err := net.Dial("tcp", r.addr); err == nil { // it may be reset that early
				io.Copy(io.Discard, c)
				c.Close()
			}
		}},
	}
}

// What differs from run to run in a line, and what stands for it.
var masks = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`"time":"[^"]*"`), `"time":"..."`},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), `127.0.0.1:PORT`},
	{regexp.MustCompile(`_ms":[\d.]+`), `_ms":T`},
	{regexp.MustCompile(`^.*? skein\[\d+\]: `), ``},
	{regexp.MustCompile(`\[\d\d/[^\]]*\]`), `[...]`},
	{regexp.MustCompile(`(\]( \S+){2} )(\S+)`), `$1<$3>`},
}

var timer = regexp.MustCompile(`<[-\d/]+>`)

func masked(line string) string {
	for _, m := range masks {
		line = m.what.ReplaceAllString(line, m.by)
	}
	return timer.ReplaceAllStringFunc(line, func(s string) string {
		return regexp.MustCompile(`(^|[</])\d+`).ReplaceAllString(s[1:len(s)-1], "${1}T")
	})
}

// Every way to end leaves one line and one cause, whichever form the line has, and the counters agree with it.
func TestEveryEndHasOneCauseAndOneLine(t *testing.T) {
	var got bytes.Buffer
	for _, tc := range ends(t) {
		fmt.Fprintf(&got, "# %s\n", tc.name)
		for _, format := range []string{"json", "haproxy"} {
			path := filepath.Join(t.TempDir(), "access.log")
			r := start(t, engine.Options{Node: "lb1"}, func(port int) string { return withLog(tc.config(port), format, path) })
			tc.do(t, r)
			waitFor(t, "the end of "+tc.name, func() bool { return r.e.Stats().Log.Written > 0 })
			r.end()
			lines, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(lines)) {
				got.WriteString(masked(line))
			}
			if n := bytes.Count(lines, []byte{'\n'}); n != 1 {
				t.Errorf("%s left %d lines:\n%s", tc.name, n, lines)
			}
			st := r.e.Stats()
			f, b := st.Frontends[0], st.Backends[0]
			if n := f.Failures[plan.None] + f.Failed(); n != 1 {
				t.Errorf("%s: the frontend counted %d ends: %v", tc.name, n, f.Failures)
			}
			if n := b.Failures[plan.None] + b.Failed(); (n == 1) == tc.local || n > 1 {
				t.Errorf("%s: the backend counted %d ends: %v", tc.name, n, b.Failures)
			}
			if f.Failures[plan.Internal] != 0 {
				t.Errorf("%s has no cause", tc.name)
			}
		}
		got.WriteByte('\n')
	}
	golden.File(t, "testdata/ends.txt", got.String())
}

func TestAFrontendCanBeKeptOutOfTheLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.log")
	r := start(t, engine.Options{}, func(port int) string {
		text := withLog(httpFrontend(port, "", answers(t, "HTTP/1.1 204 No Content\r\n\r\n", true)), "json", path)
		return strings.Replace(text, "http =", "log = false\n http =", 1)
	})
	say(get)(t, r)
	say("nonsense\r\n\r\n")(t, r)
	r.end()
	if st := r.e.Stats(); st.Log.Written+st.Log.Dropped != 0 {
		t.Errorf("%d lines were written", st.Log.Written)
	}
}

// An access log that nobody reads: a pipe that blocks its writer for ever.
func TestALogThatIsStuckDelaysNobody(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := fifo(path); err != nil {
		t.Fatal(err)
	}
	both, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer both.Close()
	r := start(t, engine.Options{}, func(port int) string {
		return withLog(httpFrontend(port, "", answers(t, "HTTP/1.1 204 No Content\r\n\r\n", true)), "json", path)
	})
	c := r.dial()
	br := bufio.NewReader(c)
	for range 200 {
		many := strings.Repeat("GET /"+strings.Repeat("x", 1000)+" HTTP/1.1\r\nHost: x\r\n\r\n", 10)
		io.WriteString(c, many)
		for range 10 {
			if resp, _ := answer(t, br, "GET"); resp.StatusCode != 204 {
				t.Fatal(resp.Status)
			}
		}
	}
	st := r.e.Stats()
	if st.Log.Dropped == 0 || st.Frontends[0].Failures[plan.None] < 2000-1 {
		t.Errorf("%d requests were served, %d lines dropped", st.Frontends[0].Failures[plan.None], st.Log.Dropped)
	}
	go func() { // the pipe is read at last, so that the engine can end as it does as a rule
		io.Copy(io.Discard, both)
	}()
	waitFor(t, "the log to catch up", func() bool {
		log := r.e.Stats().Log // the last lines may have been dropped after the look above
		return log.Written+log.Dropped >= 2000
	})
}
