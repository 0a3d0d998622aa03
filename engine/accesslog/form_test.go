package accesslog

import (
	"bytes"
	"encoding/json"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/internal/golden"
)

// noon is when every entry of these tests began.
var noon = time.Date(2026, 2, 6, 12, 14, 14, 655_432_987, time.Local).UnixNano()

func entry() Entry {
	return Entry{
		Start: noon, Client: netip.MustParseAddrPort("198.51.100.7:33317"), Frontend: "shop", Backend: "web", Server: "s1",
		Method: []byte("GET"), Target: []byte("/index.html?a=b"), Host: []byte("shop.example.com"), Minor: 1,
		Headers: [MaxHeaders][]byte{[]byte("curl/8.5"), nil},
		Status:  200, In: 120, Out: 2750, Cause: "none", Code: [2]byte{'-', '-'},
		Request: 10_250_000, Queue: 0, Connect: 30e6, Response: 69_001_000, Total: 109_999_999,
		Connections: 4, FrontendConnections: 3, BackendActive: 2, ServerActive: 1,
	}
}

// Each case is an entry and its line in every form: what a person or a parser will meet in the file.
func TestLines(t *testing.T) {
	var got bytes.Buffer
	show := func(name string, change func(e *Entry)) {
		e := entry()
		change(&e)
		got.WriteString("# " + name + "\n")
		for _, s := range []*Settings{
			settings(config.LogJSON, "stdout", "user-agent", "referer"),
			settings(config.LogHAProxy, "stdout", "user-agent", "referer"),
			settings(config.LogHAProxy, "/var/log/skein/access.log"),
		} {
			var f form
			line := string(f.line(nil, s, "lb1", 4711, &e))
			// The local time zone is not part of the case.
			line = strings.Replace(line, time.Unix(0, noon).UTC().Format("2006-01-02T15:04:05"), "2026-02-06T12:14:14", 1)
			got.WriteString(line)
		}
		got.WriteByte('\n')
	}
	show("a request that was served", func(*Entry) {})
	show("over a connection that was at hand", func(e *Entry) { e.Connect = 0 })
	show("after waiting in the queue and trying another server", func(e *Entry) { e.Queue, e.Ahead, e.Retries = 1_500_000_000, 3, 1 })
	show("with both headers", func(e *Entry) { e.Headers[1] = []byte("https://example.com/{a|b}") })
	show("what a browser would not send", func(e *Entry) {
		e.Target = []byte("/\"}\n\\\x00\x7f\xff\xc3\xa9#\u2028")
		e.Headers[0] = []byte("{a|b}\"\r\nGET /admin")
	})
	show("through a proxy that is trusted", func(e *Entry) { e.Peer = netip.MustParseAddr("203.0.113.1") })
	show("no server is usable", func(e *Entry) {
		e.Server, e.Status, e.Cause, e.Code = "", 503, "no_server", [2]byte{'S', 'C'}
		e.Connect, e.Response = -1, -1
	})
	show("an answer of our own", func(e *Entry) {
		e.Backend, e.Server, e.Status, e.Code = "", "", 301, [2]byte{'L', 'R'}
		e.Queue, e.Connect, e.Response = -1, -1, -1
	})
	show("what is no request", func(e *Entry) {
		e.Backend, e.Server, e.Status, e.Cause, e.Code = "", "", 400, "client_malformed", [2]byte{'P', 'R'}
		e.Method, e.Target, e.Host = nil, nil, nil
		e.Headers = [MaxHeaders][]byte{}
		e.Request, e.Queue, e.Connect, e.Response = -1, -1, -1, -1
	})
	show("the client went away before there was an answer", func(e *Entry) {
		e.Status, e.Cause, e.Code, e.Response, e.Out = 0, "client_closed", [2]byte{'C', 'H'}, -1, 0
	})
	show("a TCP session over IPv6", func(e *Entry) {
		e.TCP, e.Method, e.Status = true, nil, 0
		e.Client = netip.MustParseAddrPort("[2001:db8::7]:33317")
		e.Request, e.Response = -1, -1
	})
	golden.File(t, "testdata/lines.txt", got.String())
}

func settings(f config.LogFormat, to string, headers ...string) *Settings {
	l := New(Options{})
	l.Configure(&config.Log{Format: f, To: to, Headers: headers})
	return l.settings.Load()
}

func TestTheLongestLineFits(t *testing.T) {
	e := entry()
	nasty := func(n int) []byte { return bytes.Repeat([]byte{1}, n) }
	name := strings.Repeat("n", 63)
	e.Method, e.Target, e.Host = nasty(MaxMethod), nasty(MaxTarget), nasty(MaxHost)
	e.Frontend, e.Backend, e.Server = name, name, name
	var headers []string
	for i := range MaxHeaders {
		e.Headers[i] = nasty(MaxHeader)
		headers = append(headers, strings.Repeat("h", 62)+strconv.Itoa(i))
	}
	e.Client = netip.MustParseAddrPort("[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535")
	most := int64(1<<63 - 1)
	e.In, e.Out, e.Status, e.Retries = most, most, 999, 1<<31
	e.Request, e.Queue, e.Connect, e.Response, e.Total = most, most, most, most, most
	e.Connections, e.FrontendConnections, e.BackendActive, e.ServerActive, e.Ahead = most, most, most, most, most
	for _, format := range []config.LogFormat{config.LogJSON, config.LogHAProxy} {
		var f form
		if line := f.line(nil, settings(format, "/x", headers...), name, 1<<31, &e); len(line) > maxLine {
			t.Errorf("%v: a line has %d bytes, more than %d", format, len(line), maxLine)
		}
	}
}

// FuzzLines: whatever a client sends, a line is one line, JSON is valid and says what was sent, and HAProxy's fields stay apart.
func FuzzLines(f *testing.F) {
	f.Add([]byte("GET"), []byte("/a?b=c"), []byte("example.com"), []byte("curl"))
	f.Add([]byte("X\n"), []byte("/\"\\\x00\xff\xe2\x80\xa8"), []byte("{|}"), []byte("\r\n#\"}"))
	f.Add([]byte{}, []byte("é\x85"), []byte("\u0085\u2028"), []byte("\xed\xa0\x80"))
	f.Fuzz(func(t *testing.T, method, target, host, agent []byte) {
		e := entry()
		e.Method, e.Target, e.Host = method[:min(len(method), MaxMethod)], target[:min(len(target), MaxTarget)], host[:min(len(host), MaxHost)]
		if e.Method == nil {
			e.Method = []byte{}
		}
		e.Headers = [MaxHeaders][]byte{agent[:min(len(agent), MaxHeader)]}
		var fm form
		line := fm.line(nil, settings(config.LogJSON, "stdout", "user-agent"), "lb1", 1, &e)
		var v struct {
			Method, Target, Host string
			Headers              map[string]string
		}
		if err := json.Unmarshal(line, &v); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		for _, x := range []struct {
			got  string
			sent []byte
		}{{v.Method, e.Method}, {v.Target, e.Target}, {v.Host, e.Host}, {v.Headers["user-agent"], e.Headers[0]}} {
			if want := strings.ToValidUTF8(string(x.sent), "\ufffd"); utf8.Valid(x.sent) && x.got != want {
				t.Errorf("%q is shown as %q", x.sent, x.got)
			}
		}
		check := func(line []byte) {
			if n := bytes.IndexByte(line, '\n'); n != len(line)-1 {
				t.Fatalf("a line ends at %d of %d: %q", n, len(line), line)
			}
			for _, c := range line[:len(line)-1] {
				if c < ' ' || c == 0x7f {
					t.Fatalf("a control character in %q", line)
				}
			}
		}
		check(line)
		line = fm.line(nil, settings(config.LogHAProxy, "stdout", "user-agent"), "lb1", 1, &e)
		check(line)
		if n := bytes.Count(line, []byte{'"'}); n != 2 {
			t.Errorf("%d quotation marks in %q", n, line)
		}
		for _, c := range "{}" {
			captured := line[:bytes.IndexByte(line, '"')]
			if n := bytes.Count(captured, []byte(string(c))); n != 1 {
				t.Errorf("%d of %c in %q", n, c, captured)
			}
		}
	})
}

func BenchmarkJSON(b *testing.B)    { benchmark(b, config.LogJSON) }
func BenchmarkHAProxy(b *testing.B) { benchmark(b, config.LogHAProxy) }

func benchmark(b *testing.B, format config.LogFormat) {
	e, s := entry(), settings(format, "/x", "user-agent")
	var f form
	line := make([]byte, 0, maxLine)
	b.ReportAllocs()
	for b.Loop() {
		line = f.line(line[:0], s, "lb1", 4711, &e)
	}
	b.SetBytes(int64(len(line)))
}
