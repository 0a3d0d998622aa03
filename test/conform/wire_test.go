package conform

import (
	"bufio"
	"io"
	"strings"
	"testing"
)

func TestTheOriginTakesOnlyCanonicalRequests(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"GET / HTTP/1.1|Host: a||", "ok"},
		{"GET /a?b HTTP/1.1|Host: [::1]:80|X:|Y: a\tb\xff||", "ok"},
		{"POST / HTTP/1.1|Host: a|Content-Length: 2||ok", "ok"},
		{"POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||2|ok|0|X: y||", "ok"},
		{"OPTIONS * HTTP/1.1|Host: a||", "ok"},
		{"", "end"},
		{"GET / HTTP/1.1|Host: a|", "cut"},
		{"POST / HTTP/1.1|Host: a|Content-Length: 2||o", "cut"},
		{"POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||2|ok|0|", "cut"},
		{"GET / HTTP/1.0||", "ok"},
		{"GET http://a/ HTTP/1.1|Host: a||", "ok"},
		{"GET http://a?b HTTP/1.1|Host: a||", "ok"},
		{"POST / HTTP/1.1|Host: a|Transfer-Encoding: Chunked||0||", "ok"},
		{"POST / HTTP/1.0|Host: a|Transfer-Encoding: chunked||0||", "bad"},
		{"GET / HTTP/0.9|Host: a||", "bad"},
		{"CONNECT a:443 HTTP/1.1|Host: a:443||", "bad"},
		{"GET  / HTTP/1.1|Host: a||", "bad"},
		{"GET * HTTP/1.1|Host: a||", "bad"},
		{"GET http://a/ HTTP/1.1|Host: b||", "bad"},
		{"GET ftp://a/ HTTP/1.1|Host: a||", "bad"},
		{"GET /a#b HTTP/1.1|Host: a||", "bad"},
		{"GET /\xe4 HTTP/1.1|Host: a||", "bad"},
		{"|GET / HTTP/1.1|Host: a||", "bad"},
		{"GET / HTTP/1.1\nHost: a||", "bad"},
		{"GET / HTTP/1.1|Host: a\rX: y||", "bad"},
		{"GET / HTTP/1.1|X: y||", "bad"},
		{"GET / HTTP/1.1|Host: a|Host: a||", "bad"},
		{"GET / HTTP/1.1|Host: u@a||", "bad"},
		{"GET / HTTP/1.1|Host: a:99999||", "bad"},
		{"GET / HTTP/1.1|Host: ||", "bad"},
		{"GET / HTTP/1.1|Host: a|X : y||", "bad"},
		{"GET / HTTP/1.1|Host: a|X: y| z||", "bad"},
		{"GET / HTTP/1.1|Host: a|X: \x00||", "bad"},
		{"GET / HTTP/1.1|Host: a|X: \x7f||", "bad"},
		{"POST / HTTP/1.1|Host: a|Content-Length: +2||ok", "bad"},
		{"POST / HTTP/1.1|Host: a|Content-Length: 2|Content-Length: 2||ok", "bad"},
		{"POST / HTTP/1.1|Host: a|Content-Length: 2|Transfer-Encoding: chunked||0||", "bad"},
		{"POST / HTTP/1.1|Host: a|Transfer-Encoding: gzip, chunked||0||", "bad"},
		{"POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||2;x|ok|0||", "bad"},
		{"POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||+2|ok|0||", "bad"},
		{"POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||1|ok|0||", "bad"},
		{"POST / HTTP/1.1|Host: a|Transfer-Encoding: chunked||2|ok\n0||", "bad"},
	} {
		r := bufio.NewReader(strings.NewReader(crlf(c.in)))
		m, framing, err := readRequestHead(r)
		if err == nil {
			m.Body, err = readBody(r, framing)
		}
		got := "ok"
		switch {
		case isBad(err):
			got = "bad"
		case err == io.EOF && m == nil:
			got = "end"
		case err != nil:
			got = "cut"
		}
		if got != c.want {
			t.Errorf("%q: %s (%v), want %s", c.in, got, err, c.want)
		}
	}
}

func TestExpectationsOfAMessage(t *testing.T) {
	m := &message{Start: "GET / HTTP/1.1", Body: "hello", Fields: []field{{"Host", "a"}, {"X", "1"}, {"x", "2"}, {"Connection", "close, TE"}, {"Empty", ""}}}
	for want, ok := range map[string]bool{
		"GET / HTTP/1.1":     true,
		"GET /b HTTP/1.1":    false,
		"host: a|X: 1 & 2":   true,
		"X: 1":               false,
		"~X: 1":              true,
		"~X: 2":              false,
		"!Y|X:|Empty: ":      true,
		"!X":                 false,
		"Y:":                 false,
		"!Connection: te":    false,
		"!Connection: other": true,
		"^Host":              true,
		"^X":                 false,
		">hello":             true,
		">":                  false,
	} {
		if missing := m.lacks(want); (len(missing) == 0) != ok {
			t.Errorf("%q: missing %q, want it to hold: %v", want, missing, ok)
		}
	}
}

func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		want, got string
		passes    int
		ok        bool
	}{
		{"200", "200", 1, true},
		{"200", "200 close", 1, true},
		{"200 close", "200", 0, false},
		{"200 close", "200 close", 1, true},
		{"200", "200 200", 0, false},
		{"200 200", "200", 0, false},
		{"400 or 200 close", "400", 0, true},
		{"400 or 200 close", "200 close", 1, true},
		{"refused", "cut", 0, true},
		{"refused", "501 close", 0, true},
		{"refused", "200", 0, false},
		{"refused", "silence", 0, false},
		{"4xx", "431", 0, true},
		{"4xx", "502", 0, false},
		{"200 400", "200 400 close", 1, true},
	} {
		passes, ok := match(c.want, strings.Fields(c.got))
		if ok != c.ok || passes != c.passes {
			t.Errorf("want %q, got %q: %v with %d passed, want %v with %d", c.want, c.got, ok, passes, c.ok, c.passes)
		}
	}
}
