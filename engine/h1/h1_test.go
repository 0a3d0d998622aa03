package h1

import (
	"bytes"
	"net/http"
	"net/netip"
	"strings"
	"testing"

	"github.com/skeinlb/skein/config"
)

func without(names ...string) *Edits { return CompileEdits(config.HeaderEdits{Remove: names}) }

func TestEditsAreMergedInOrder(t *testing.T) {
	frontend := config.HeaderEdits{
		Remove: []string{"X-Secret"},
		Set:    []config.Header{{Name: "X-Edge", Value: "1"}, {Name: "X-Gone", Value: "1"}},
		Add:    []config.Header{{Name: "X-List", Value: "edge"}},
	}
	route := config.HeaderEdits{
		Remove: []string{"x-gone", "Via", "Expect"},
		Set:    []config.Header{{Name: "X-EDGE", Value: "2"}, {Name: "Host", Value: "not to be edited"}, {Name: "X-Forwarded-Proto", Value: "https"}},
		Add:    []config.Header{{Name: "X-List", Value: "route"}, {Name: "Content-Length", Value: "7"}},
	}
	var r Request
	in := "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\nx-secret: s\r\nX-List: client\r\nx-edge: 0\r\nX-Gone: 0\r\nKept: k\r\n\r\n"
	got := forward(&r, in, &ToServer{Edits: CompileEdits(frontend, route), For: []byte("198.18.0.1"), Proto: "http"})
	want := "PUT / HTTP/1.1\r\nHost: a\r\nX-List: client\r\nKept: k\r\nX-Forwarded-For: 198.18.0.1\r\nContent-Length: 3\r\n" +
		"X-List: edge\r\nX-EDGE: 2\r\nX-Forwarded-Proto: https\r\nX-List: route\r\n\r\n"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if e := CompileEdits(config.HeaderEdits{Remove: []string{"Connection"}}, config.HeaderEdits{}); e != nil {
		t.Errorf("edits of nothing but what cannot be edited compile to %+v, want nil", e)
	}
}

func TestRequestHeadSaysWhereItComesFrom(t *testing.T) {
	var r Request
	got := forward(&r, "GET / HTTP/1.0\r\nVia: 1.0 before\r\n\r\n", &ToServer{For: []byte("198.18.0.1"), Proto: "http", Host: []byte("s1:80"), Close: true})
	want := "GET / HTTP/1.1\r\nHost: s1:80\r\nVia: 1.0 before\r\nX-Forwarded-For: 198.18.0.1\r\nX-Forwarded-Proto: http\r\n" +
		"Via: 1.0 skein\r\nConnection: close\r\n\r\n"
	if got != want {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestResponseHeadSuitsTheClient(t *testing.T) {
	chunked := "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	dated := "HTTP/1.1 200 OK\r\nDate: then\r\nContent-Length: 5\r\nServer: s\r\n\r\n"
	now := []byte("now")
	for _, c := range []struct {
		what, in string
		to       ToClient
		want     string
	}{
		{"HTTP/1.0 gets no chunks", chunked, ToClient{Minor: 0}, "HTTP/1.1 200 OK|Connection: close||"},
		{"HTTP/1.1 does", chunked, ToClient{Minor: 1}, "HTTP/1.1 200 OK|Transfer-Encoding: chunked||"},
		{"HTTP/1.0 is told of keep-alive", dated, ToClient{Minor: 0}, "HTTP/1.1 200 OK|Date: then|Server: s|Content-Length: 5|Connection: keep-alive||"},
		{"a last response says so", chunked, ToClient{Minor: 1, Close: true}, "HTTP/1.1 200 OK|Transfer-Encoding: chunked|Connection: close||"},
		{"a Date is added", chunked, ToClient{Minor: 1, Date: now}, "HTTP/1.1 200 OK|Date: now|Transfer-Encoding: chunked||"},
		{"but not a second one", dated, ToClient{Minor: 1, Date: now}, "HTTP/1.1 200 OK|Date: then|Server: s|Content-Length: 5||"},
		{"nor one that was removed", dated, ToClient{Minor: 1, Date: now, Edits: without("date", "server")}, "HTTP/1.1 200 OK|Content-Length: 5||"},
		{"a cookie is added", chunked, ToClient{Minor: 1, Cookie: []byte("a=b; Path=/")}, "HTTP/1.1 200 OK|Transfer-Encoding: chunked|Set-Cookie: a=b; Path=/||"},
		{"interim responses get nothing added", "HTTP/1.1 103 E\r\nLink: x\r\n\r\n", ToClient{Minor: 1, Date: now, Close: true, Cookie: now, Edits: without("link")}, "HTTP/1.1 103 E|Link: x||"},
	} {
		var r Response
		if e := r.Parse([]byte(c.in), false, Limits{}); e != OK || r.N != len(c.in) {
			t.Fatalf("%s: %v, %d of %d bytes", c.what, e, r.N, len(c.in))
		}
		if got := string(r.AppendHead(nil, &c.to)); got != lines(c.want) {
			t.Errorf("%s:\n got  %q\n want %q", c.what, got, lines(c.want))
		}
	}
}

func TestLimits(t *testing.T) {
	field := "X: yyyyyyyyyyyyyyyy\r\n"
	start := "GET / HTTP/1.1\r\nHost: a\r\n"
	for _, c := range []struct {
		what, in string
		lim      Limits
		want     Error
	}{
		{"a head of exactly the limit passes", start + "\r\n", Limits{Head: len(start) + 2}, OK},
		{"one byte more does not", start + "\r\n", Limits{Head: len(start) + 1}, HeadTooLarge},
		{"nor one that has not ended", start + field, Limits{Head: len(start) + 5}, HeadTooLarge},
		{"a long target is told apart", "GET /" + strings.Repeat("a", 100), Limits{Head: 64}, TargetTooLong},
		{"complete or not", "GET /" + strings.Repeat("a", 100) + " HTTP/1.1\r\n", Limits{Head: 64}, TargetTooLong},
		{"as many fields as allowed pass", start + field + "\r\n", Limits{Fields: 2}, OK},
		{"one more does not", start + field + field + "\r\n", Limits{Fields: 2}, TooManyFields},
		{"the default bounds a head", start + strings.Repeat(field[:3]+strings.Repeat("y", 500)+"\r\n", 100), Limits{}, HeadTooLarge},
		{"the default bounds fields", start + strings.Repeat(field, 128) + "\r\n", Limits{}, TooManyFields},
		{"a TLS handshake is refused at its first byte", "\x16\x03\x01", Limits{}, BadMethod},
	} {
		var r Request
		if got := r.Parse([]byte(c.in), c.lim); got != c.want {
			t.Errorf("%s: %v, want %v", c.what, got, c.want)
		}
	}
	var p Response
	if got := p.Parse([]byte("HTTP/1.1 200 "+strings.Repeat("x", 100)), false, Limits{Head: 64}); got != HeadTooLarge {
		t.Errorf("a status line without an end: %v", got)
	}
	if got := p.Parse([]byte("SSH-2.0"), false, Limits{}); got != BadStatusLine {
		t.Errorf("another protocol's greeting: %v", got)
	}
}

func TestEveryErrorHasNameMeaningAndStatus(t *testing.T) {
	names := map[string]Error{}
	for e := OK; e < NumErrors; e++ {
		if other, twice := names[e.String()]; twice || e.String() == "" {
			t.Errorf("error %d is named %q, and so is %d", e, e, other)
		}
		names[e.String()] = e
		if e.Meaning() == "unknown" || e != OK && e.Status() < 400 || StatusText(e.Status()) == "" {
			t.Errorf("%v: meaning %q, status %d", e, e.Meaning(), e.Status())
		}
	}
}

// net/http has the names of older RFCs for a few of them.
func TestStatusTextIsTheRegistrys(t *testing.T) {
	newer := map[int]string{413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}
	for status := 0; status < 1000; status++ {
		want := http.StatusText(status)
		if s := newer[status]; s != "" {
			want = s
		}
		if got := StatusText(status); got != "" && got != want {
			t.Errorf("%d is %q, want %q", status, got, want)
		}
	}
}

func TestLookups(t *testing.T) {
	var r Request
	in := "GET /p?a=1&b=x%20y+z&c&=e&%64d=%zz&a=2&empty= HTTP/1.1\r\nHost: h:80\r\nX-One: first\r\nx-one: second\r\nX-None:\r\n" +
		"Cookie: s=1; t=\"q\"\r\nCookie: u=3;s=4; =; v\r\n\r\n"
	if e := r.Parse([]byte(in), Limits{}); e != OK || r.N != len(in) {
		t.Fatal(e, r.N)
	}
	if string(r.Path) != "/p" || string(r.Host) != "h" || string(r.Authority) != "h:80" {
		t.Errorf("path %q host %q authority %q", r.Path, r.Host, r.Authority)
	}
	const absent = "(absent)"
	show := func(b []byte) string {
		if b == nil {
			return absent
		}
		return string(b)
	}
	scratch := make([]byte, 0, 64)
	for _, c := range []struct{ what, name, got, want string }{
		{"header", "x-one", show(r.Header("x-one")), "first"},
		{"header", "x-none", show(r.Header("x-none")), ""},
		{"header", "x-two", show(r.Header("x-two")), absent},
		{"cookie", "s", show(r.Cookie("s")), "1"},
		{"cookie", "t", show(r.Cookie("t")), `"q"`},
		{"cookie", "u", show(r.Cookie("u")), "3"},
		{"cookie", "S", show(r.Cookie("S")), absent},
		{"cookie", "v", show(r.Cookie("v")), absent},
		{"query", "a", show(r.QueryValue("a", scratch)), "1"},
		{"query", "b", show(r.QueryValue("b", scratch)), "x y z"},
		{"query", "c", show(r.QueryValue("c", scratch)), ""},
		{"query", "", show(r.QueryValue("", scratch)), "e"},
		{"query", "dd", show(r.QueryValue("dd", scratch)), "%zz"},
		{"query", "empty", show(r.QueryValue("empty", scratch)), ""},
		{"query", "z", show(r.QueryValue("z", scratch)), absent},
	} {
		if c.got != c.want {
			t.Errorf("%s %q = %q, want %q", c.what, c.name, c.got, c.want)
		}
	}
}

func FuzzHostIPv6(f *testing.F) {
	for _, s := range []string{"::", "::1", "1::", "2001:db8::1", "1:2:3:4:5:6:7:8", "1:2:3:4:5:6:7::", "::ffff:1.2.3.4", "1:2:3:4:5:6:1.2.3.4",
		"::1.2.3", "::01.2.3.4", "1:2", ":1", "1:", ":::", "12345::", "::1:", "1::2::3", "g::", "1:2:3:4:5:6:7:1.2.3.4", "::fffff", "1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, err := netip.ParseAddr(s)
		if want := err == nil && a.Is6() && a.Zone() == ""; isIPv6([]byte(s)) != want {
			t.Errorf("isIPv6(%q) = %v, net/netip says %v (%v)", s, !want, want, err)
		}
	})
}

func FuzzControls(f *testing.F) {
	f.Add([]byte("0123456789abcdef\x7f"))
	f.Add([]byte("\xff\x80\xa0\x9f\x20\t\x21\x7e\x1f"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if controls(b) != controlsSlow(b) {
			t.Errorf("controls(%q) = %v", b, controls(b))
		}
	})
}

// What is emitted must be read by us as we meant it, and emitting it again must change nothing.
func FuzzRequest(f *testing.F) {
	for _, c := range requestCases {
		f.Add([]byte(lines(c.in)))
	}
	f.Add([]byte(browser))
	edits := without("Via")
	to := &ToServer{Edits: edits, For: []byte("198.18.0.1"), Proto: "http", Host: []byte("198.18.0.9")}
	f.Fuzz(func(t *testing.T, in []byte) {
		var r, s Request
		if e := r.Parse(in, Limits{}); e != OK {
			if r.N != 0 || e.Status() < 400 {
				t.Fatalf("refused with %v, status %d, N %d", e, e.Status(), r.N)
			}
			return
		}
		if r.N == 0 || r.MaxForwards == 0 {
			return
		}
		if !bytes.HasSuffix(in[:r.N], []byte("\r\n\r\n")) {
			t.Fatalf("the head ends in %q", in[:r.N])
		}
		if n := bytes.Count(in[:r.N], []byte("\n")); n != bytes.Count(in[:r.N], []byte("\r\n")) || n != bytes.Count(in[:r.N], []byte("\r")) {
			t.Fatalf("a CR or LF stood alone in %q", in[:r.N])
		}
		first := r.AppendHead(nil, to)
		if e := s.Parse(first, Limits{Head: 1 << 20, Fields: 1 << 10}); e != OK || s.N != len(first) {
			t.Fatalf("%q\nemitted as %q\nis read as %v, %d of %d bytes", in, first, e, s.N, len(first))
		}
		if string(s.Method) != string(r.Method) || string(s.Path) != string(r.Path) || string(s.Query) != string(r.Query) ||
			(s.Query == nil) != (r.Query == nil) || s.Body != r.Body || s.Length != r.Length || s.Expect100 != r.Expect100 ||
			string(s.Upgrade) != string(r.Upgrade) || r.Authority != nil && string(s.Authority) != string(r.Authority) || !s.KeepAlive {
			t.Fatalf("%q\nread as    %+v\nemitted as %q\nread as    %+v", in, r, first, s)
		}
		if s.MaxForwards >= 0 {
			s.MaxForwards++
		}
		if second := s.AppendHead(nil, to); !bytes.Equal(first, second) {
			t.Fatalf("emitted as %q\nthen as    %q", first, second)
		}
	})
}

func FuzzResponse(f *testing.F) {
	for _, c := range responseCases {
		f.Add([]byte(lines(c.in)), c.head)
	}
	f.Fuzz(func(t *testing.T, in []byte, head bool) {
		var r, s Response
		if e := r.Parse(in, head, Limits{}); e != OK || r.N == 0 {
			if r.N != 0 {
				t.Fatalf("refused with %v, N %d", e, r.N)
			}
			return
		}
		for _, minor := range []uint8{0, 1} {
			to := &ToClient{Minor: minor}
			first := r.AppendHead(nil, to)
			if e := s.Parse(first, head, Limits{Head: 1 << 20, Fields: 1 << 10}); e != OK || s.N != len(first) {
				t.Fatalf("%q\nemitted as %q\nis read as %v, %d of %d bytes", in, first, e, s.N, len(first))
			}
			if s.Status != r.Status || string(s.Reason) != string(r.Reason) || s.Body != r.ClientBody(minor) ||
				s.Body == Length && s.Length != r.Length || r.Status == 101 && string(s.Upgrade) != string(r.Upgrade) {
				t.Fatalf("%q\nread as    %+v\nemitted as %q\nread as    %+v", in, r, first, s)
			}
			if second := s.AppendHead(nil, to); !bytes.Equal(first, second) {
				t.Fatalf("emitted as %q\nthen as    %q", first, second)
			}
		}
	})
}

const (
	small   = "GET /b128 HTTP/1.1\r\nHost: 127.0.0.1:8001\r\n\r\n"
	browser = "GET /b1k?x=1 HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 " +
		"(KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\nAccept: text/html,application/xhtml+xml,application/xml;q=0.9," +
		"image/avif,image/webp,*/*;q=0.8\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9,de;q=0.8\r\n" +
		"Cookie: session=0123456789abcdef0123456789abcdef; theme=dark; _ga=GA1.1.1234567890.1700000000\r\nConnection: keep-alive\r\n" +
		"Cache-Control: no-cache\r\nReferer: https://www.example.com/some/long/path?x=1\r\n\r\n"
	answer = "HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Sun, 22 Nov 2026 08:46:35 GMT\r\nContent-Type: text/plain\r\n" +
		"Content-Length: 128\r\nConnection: keep-alive\r\n\r\n"
)

func TestHeadsAreForwardedWithoutAllocation(t *testing.T) {
	in, back := []byte(browser), []byte(answer)
	dst, scratch := make([]byte, 0, 4096), make([]byte, 0, 64)
	to := &ToServer{Edits: CompileEdits(config.HeaderEdits{Set: []config.Header{{Name: "X-A", Value: "b"}}}), For: []byte("198.18.0.1"), Proto: "http"}
	toClient := &ToClient{Minor: 1, Date: []byte("now"), Cookie: []byte("a=b")}
	var r Request
	var p Response
	if n := testing.AllocsPerRun(100, func() {
		if e := r.Parse(in, Limits{}); e != OK || r.N != len(in) {
			t.Fatal(e)
		}
		r.Header("accept")
		r.Cookie("theme")
		r.QueryValue("x", scratch)
		dst = r.AppendHead(dst[:0], to)
		if e := p.Parse(back, false, Limits{}); e != OK || p.N != len(back) {
			t.Fatal(e)
		}
		dst = p.AppendHead(dst[:0], toClient)
	}); n != 0 {
		t.Errorf("%v allocations per exchange, want none", n)
	}
}

func benchmarkRequest(b *testing.B, in string) {
	src, dst := []byte(in), make([]byte, 0, 4096)
	to := &ToServer{For: []byte("198.18.0.1"), Proto: "http"}
	var r Request
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		if e := r.Parse(src, Limits{}); e != OK {
			b.Fatal(e)
		}
		dst = r.AppendHead(dst[:0], to)
	}
}

func BenchmarkRequestSmall(b *testing.B)   { benchmarkRequest(b, small) }
func BenchmarkRequestBrowser(b *testing.B) { benchmarkRequest(b, browser) }

func BenchmarkResponse(b *testing.B) {
	src, dst := []byte(answer), make([]byte, 0, 4096)
	to := &ToClient{Minor: 1}
	var r Response
	b.ReportAllocs()
	b.SetBytes(int64(len(src)))
	for b.Loop() {
		if e := r.Parse(src, false, Limits{}); e != OK {
			b.Fatal(e)
		}
		dst = r.AppendHead(dst[:0], to)
	}
}
