package conform

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// Script is what a client sends on one connection: bytes that were one or a few valid requests, perhaps torn, and how they are cut
// into writes. Number n of a seed is always the same script, whatever came before it.
type Script struct {
	Bytes  string
	Cuts   []int    // where one write ends and the next begins, in order
	Pause  bool     // between writes, long enough for the proxy to see them one by one
	Expect []string // as the origin echoes it, when the requests are as valid as they were; nil: nobody has said what they come to
}

// cutPause is far longer than a proxy needs to read what is there.
const cutPause = 2 * time.Millisecond

// Generate makes script n of a seed. One in eight is left valid: who refuses everything has smuggled nothing, and passes no traffic.
func Generate(seed, n uint64) Script {
	g := grammar{rand.New(rand.NewPCG(seed, n))}
	var s Script
	count := 1 + g.IntN(3)
	for i := range count {
		text, echo := g.request(i == count-1)
		s.Bytes += text
		s.Expect = append(s.Expect, echo)
	}
	if g.IntN(8) > 0 {
		for range 1 + g.IntN(4) {
			s.Bytes = g.tear(s.Bytes)
		}
		s.Expect = nil
	}
	if g.IntN(3) == 0 {
		for range 1 + g.IntN(4) {
			s.Cuts = append(s.Cuts, g.IntN(len(s.Bytes)+1))
		}
		slices.Sort(s.Cuts)
		s.Pause = g.IntN(2) == 0
	}
	return s
}

// writes returns the bytes as they are written.
func (s Script) writes() (parts []string) {
	at := 0
	for _, cut := range append(s.Cuts, len(s.Bytes)) {
		if cut > at {
			parts = append(parts, s.Bytes[at:cut])
			at = cut
		}
	}
	return parts
}

func (s Script) String() string {
	text := fmt.Sprintf("%q", s.Bytes)
	if len(s.Cuts) > 0 {
		text += fmt.Sprintf(" cut at %v", s.Cuts)
		if s.Pause {
			text += " with pauses"
		}
	}
	return text
}

// grammar writes requests that are valid, in as many ways as there are.
type grammar struct{ *rand.Rand }

func (g grammar) of(words ...string) string { return words[g.IntN(len(words))] }

// request returns a valid request and its echo. Only the last of a connection may ask for its end.
func (g grammar) request(last bool) (text, echo string) {
	method := g.of("GET", "GET", "POST", "POST", "PUT", "DELETE", "PATCH", "M-SEARCH", "get")
	path := g.of("/", "/a", "/a?b=c&d", "/%7Ea/../b;c=d", "//a//b", "/a?http://b/", "/"+strings.Repeat("a", 1+g.IntN(300)))
	target, version := path, "HTTP/1.1"
	var fields []string
	if g.IntN(8) == 0 {
		target = "http://a" + path
	}
	switch old := g.IntN(10) == 0; {
	case old && last:
		version = "HTTP/1.0"
	case last && g.IntN(4) == 0:
		fields = append(fields, "Connection: close")
	}
	fields = append(fields, g.of("Host: a", "host:a", "HOST: \ta "))
	for range g.IntN(5) {
		fields = append(fields, g.of("X: y", "X:", "X:\t y \t", "Accept: */*", "Cookie: a=b; c=\"d\"", "User-Agent: a/1 (b; c)", "X: \x80\xff",
			"Content-Type: text/plain", "X-Long: "+strings.Repeat("v", g.IntN(2000)), "Via: 1.0 a", "Connection: x, keep-alive", "TE: trailers",
			"X-Forwarded-For: 198.18.0.1", "Range: bytes=0-1", "Upgrade-Insecure-Requests: 1"))
	}
	body, framed := "", ""
	switch kind := g.IntN(4); {
	case kind == 0 && version == "HTTP/1.1":
		fields = append(fields, g.of("Transfer-Encoding: chunked", "transfer-encoding:chunked", "Transfer-Encoding: Chunked"))
		body = g.body()
		framed = g.chunked(body)
	case kind <= 1:
		body = g.body()
		framed = body
		fields = append(fields, g.of("Content-Length: ", "content-length:", "Content-Length:  ")+fmt.Sprint(len(body)))
	}
	if framed != "" && version == "HTTP/1.1" && g.IntN(8) == 0 {
		fields = append(fields, "Expect: 100-continue")
	}
	g.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	text = method + " " + target + " " + version + "\r\n" + strings.Join(append(fields, ""), "\r\n") + "\r\n" + framed
	return text, strings.TrimSpace(method + " " + path + " " + body)
}

// body is one that means something to a parser that takes it for what follows.
func (g grammar) body() string {
	return g.of("hello", "0\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", smuggled, "X: y\r\n\r\n", strings.Repeat("b", 1+g.IntN(3000)))
}

const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

// chunked cuts a body into chunks, with everything that may be around them.
func (g grammar) chunked(body string) string {
	var b strings.Builder
	for len(body) > 0 {
		n := 1 + g.IntN(len(body))
		fmt.Fprintf(&b, g.of("%x", "%X", "0%x", "000%X"), n)
		b.WriteString(g.of("", "", ";x", ";x=y", ";x=\"y;\\\"z\"", " ;x = y")[:])
		b.WriteString("\r\n" + body[:n] + "\r\n")
		body = body[n:]
	}
	b.WriteString(g.of("0", "00", "0;x=y") + "\r\n")
	for range g.IntN(2) {
		b.WriteString(g.of("X-Trailer: y\r\n", "Content-Length: 5\r\n", "X: \t\r\n"))
	}
	return b.String() + "\r\n"
}
