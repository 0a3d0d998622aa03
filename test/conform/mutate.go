package conform

import (
	"bufio"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"time"
)

// What mutations are made of: pieces that parsers have disagreed about.
var pieces = []string{
	"\r\n", "\n", "\r", "\r\n\r\n", " ", "\t", "\x00", "\x0b", "\x7f", "\x80", ":", ";", ",", "=", "\"", "\\", "0", "1", "5", "a", "%", "#", "?", "/", "*", "-", "+",
	"Host: b\r\n", "Content-Length: 5\r\n", "Content-Length: 0\r\n", "Content-Length: +5\r\n", "Content-Length : 5\r\n", " Content-Length: 5\r\n",
	"Transfer-Encoding: chunked\r\n", "Transfer-Encoding: identity\r\n", "transfer-encoding:\tCHUNKED\r\n", "Transfer-Encoding: chunked, chunked\r\n",
	"Connection: close\r\n", "Connection: keep-alive\r\n", "Connection: Content-Length\r\n", "Connection: Transfer-Encoding, Host\r\n", "Connection: upgrade\r\n",
	"Upgrade: websocket\r\n", "Expect: 100-continue\r\n", "TE: trailers\r\n", "Max-Forwards: 0\r\n", "X: y\r\n", " folded\r\n",
	"0\r\n\r\n", "5\r\nhello\r\n", "5;x=y\r\n", "ffffffffffffffff\r\n", "HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "http://b/", "chunked", "hello",
	"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
}

// seeds are what mutations start from.
var seeds = []string{
	"GET /a?b HTTP/1.1|Host: a|X: y||",
	"GET /a HTTP/1.0|Connection: keep-alive||",
	"GET http://a/b HTTP/1.1|Host: a||",
	"POST /a HTTP/1.1|Host: a|Content-Length: 5||hello",
	"POST /a HTTP/1.1|Host: a|Transfer-Encoding: chunked||5|hello|0||",
	"POST /a HTTP/1.1|Host: a|Transfer-Encoding: chunked||5;a=\"b\"|hello|0|X: y||",
	"PUT /a HTTP/1.1|Host: a|Expect: 100-continue|Content-Length: 5||hello",
	"GET /a HTTP/1.1|Host: a|Connection: X, close|X: y||",
	"GET /1 HTTP/1.1|Host: a||POST /2 HTTP/1.1|Host: a|Content-Length: 5||helloGET /3 HTTP/1.1|Host: a||",
}

// Mutate returns bytes that were one or a few valid requests: pieces inserted, doubled, moved, cut out or overwritten.
func Mutate(rng *rand.Rand) string {
	b := []byte(crlf(seeds[rng.IntN(len(seeds))]))
	for range 1 + rng.IntN(3) {
		i := rng.IntN(len(b) + 1)
		if rng.IntN(2) == 0 { // most of what matters happens at the beginning of a line
			if n := strings.IndexByte(string(b[i:]), '\n'); n >= 0 {
				i += n + 1
			}
		}
		j := min(len(b), i+1+rng.IntN(12))
		switch piece := []byte(pieces[rng.IntN(len(pieces))]); rng.IntN(6) {
		case 0, 1, 2:
			b = slices.Insert(b, i, piece...)
		case 3:
			b = slices.Replace(b, i, j, piece...)
		case 4:
			b = slices.Insert(b, i, slices.Clone(b[i:j])...)
		case 5:
			b = slices.Delete(b, i, j)
		}
	}
	return string(b)
}

// Survive sends bytes of which nobody has said what they should come to, and returns how the invariants are broken, if they are.
// Here the second invariant is: every complete request at the origin has its own answer at the client, in the same order, and
// nothing else has an answer that is no error.
func (j *Judge) Survive(bytes string) []string {
	if j.Patience == 0 {
		j.Patience = patience
	}
	var r Result
	j.Origin.begin(Case{})
	c, err := net.DialTimeout("tcp", j.Addr, dialTime)
	if err != nil {
		return []string{err.Error()}
	}
	defer c.Close()
	io.WriteString(c, bytes)
	c.(*net.TCPConn).CloseWrite()
	c.SetReadDeadline(time.Now().Add(j.Patience))
	var answers []string
	for in := bufio.NewReader(c); ; {
		m, err := readResponse(in, false)
		if isBad(err) {
			r.blame("the client gets what is not canonical: %v", err)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			r.blame("the connection is left open, though the client has closed its direction")
		}
		if err != nil {
			break
		}
		if m.status()[0] == '2' {
			answers = append(answers, m.Body)
		}
	}
	j.canary(&r, &talk{})
	seen, quiet := j.Origin.settled(j.Patience)
	if !quiet {
		r.blame("a request to the origin is neither completed nor cut off")
	}
	for _, s := range seen.strange {
		r.blame("what reaches the origin is not canonical: %s", s)
	}
	var requests []string
	for _, m := range seen.whole {
		requests = append(requests, echoed(m))
	}
	if !slices.Equal(requests, answers) {
		r.blame("the origin sees %q, the client is answered %q", requests, answers)
	}
	return r.Wrong
}
