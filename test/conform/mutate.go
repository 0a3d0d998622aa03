package conform

import (
	"bufio"
	"errors"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

// What requests are torn with: pieces that parsers have disagreed about.
var (
	pieces = []string{
		"\r\n", "\n", "\r", "\r\n\r\n", " ", "\t", "\x00", "\x0b", "\x7f", "\x80", ":", ";", ",", "=", "\"", "\\", "0", "1", "5", "a", "%", "#", "?", "/", "*", "-", "+",
		"0\r\n\r\n", "5\r\nhello\r\n", "5;x=y\r\n", "ffffffffffffffff\r\n", "HTTP/1.0", "HTTP/1.1", "HTTP/2.0", "http://b/", "chunked", "hello", smuggled,
	}
	lines = []string{
		"Host: b", "Host:", "Host: a:0", "Content-Length: 5", "Content-Length: 0", "Content-Length: 5, 5", "Content-Length: 5, 6", "Content-Length : 5", " Content-Length: 5",
		"Content-Length:\v5", "Content_Length: 5", "Content-Length: 5\x00", "\tContent-Length: 5", "Content-Length\x00: 5", "Content-Length",
		"Transfer-Encoding: chunked", "Transfer-Encoding: identity", "transfer-encoding:\tCHUNKED", "Transfer-Encoding: chunked, chunked", "Transfer-Encoding: gzip, chunked",
		"Transfer-Encoding: chunked, identity", "Transfer-Encoding: \"chunked\"", "Transfer-Encoding:\vchunked", "Transfer-Encoding : chunked", " Transfer-Encoding: chunked",
		"Transfer-Encoding: chunked;q=1", "Transfer-Encoding: xchunked", "Transfer-Encoding:", "Transfer_Encoding: chunked", "X: y\rTransfer-Encoding: chunked",
		"Connection: close", "Connection: keep-alive", "Connection: Content-Length", "Connection: Transfer-Encoding, Host", "Connection: upgrade", "Upgrade: websocket",
		"Expect: 100-continue", "Expect: 200-ok", "TE: trailers", "Max-Forwards: 0", "X: y", " folded", "\tfolded", ": y", "X y", "", "\x00", "X:\n y",
		"GET /smuggled HTTP/1.1",
	}
	endings = []string{"\n", "\r", "\r\r\n", "\n\r", "", "\r\n\r\n", " \r\n", "\x00\r\n", "\n\n", "\r\n ", "\r\n\t"}
	numbers = []string{"+5", "05", "0x5", "5,5", "5 5", "-0", "-1", "", "18446744073709551616", "9223372036854775808", "4294967296", "4", "6", "1e1", "5.0", "5\t", "\u0665"}
	number  = regexp.MustCompile(`\b[0-9a-fA-F]*[0-9][0-9a-fA-F]*\b`)
)

// tear changes one thing about bytes that were requests.
func (g grammar) tear(s string) string {
	parts := strings.SplitAfter(s, "\r\n") // lines, of heads and of chunks
	i := g.IntN(len(parts))
	line, hasEnd := strings.CutSuffix(parts[i], "\r\n")
	end := ""
	if hasEnd {
		end = "\r\n"
	}
	switch g.IntN(13) {
	case 0: // how a line ends
		parts[i] = line + g.of(endings...)
	case 1, 2: // another line
		parts = slices.Insert(parts, i, g.of(lines...)+"\r\n")
	case 3: // a line twice
		parts = slices.Insert(parts, i, parts[i])
	case 4: // a line less
		parts = slices.Delete(parts, i, i+1)
	case 5: // a line elsewhere
		j := g.IntN(len(parts))
		parts[i], parts[j] = parts[j], parts[i]
	case 6: // white space
		parts[i] = g.of(" ", "\t", "\v", "") + strings.Replace(line, ":", g.of(" :", "\t:", ":\t", ": \x0c", "::"), 1) + g.of("", " ", "\t", "\v") + end
	case 7: // letters
		parts[i] = g.of(strings.ToUpper(line), strings.ToLower(line), strings.ReplaceAll(line, "e", "\u0117"), strings.ReplaceAll(line, "-", "_")) + end
	case 8: // a number
		if at := number.FindAllStringIndex(line, -1); at != nil {
			where := at[g.IntN(len(at))]
			parts[i] = line[:where[0]] + g.of(numbers...) + line[where[1]:] + end
		}
	case 9: // the end
		return s[:g.IntN(len(s)+1)]
	default:
		return g.tearBytes(s)
	}
	return strings.Join(parts, "")
}

// tearBytes knows of no lines.
func (g grammar) tearBytes(s string) string {
	i := g.IntN(len(s) + 1)
	if n := strings.IndexByte(s[i:], '\n'); n >= 0 && g.IntN(2) == 0 { // most of what matters happens at the beginning of a line
		i += n + 1
	}
	j := min(len(s), i+1+g.IntN(12))
	switch g.IntN(6) {
	case 0, 1, 2:
		return s[:i] + g.of(pieces...) + s[i:]
	case 3:
		return s[:i] + g.of(pieces...) + s[j:]
	case 4:
		return s[:j] + s[i:]
	}
	return s[:i] + s[j:]
}

// Survive sends a script and returns how the invariants are broken, if they are. Here the second invariant is: every complete
// request at the origin was sent, as the RFC reads what was sent; it has its own answer at the client, in the same order, and nothing
// else has an answer that is no error. What is valid arrives, all of it.
func (j *Judge) Survive(s Script) []string {
	if j.Patience == 0 {
		j.Patience = patience
	}
	var r Result
	j.Origin.begin(Case{})
	c, err := j.dial()
	if err != nil {
		return []string{err.Error()}
	}
	defer c.Close()
	go func() { // the answers are read meanwhile; an error is no concern of its
		for i, part := range s.writes() {
			if i > 0 && s.Pause {
				time.Sleep(cutPause)
			}
			io.WriteString(c, part)
		}
		c.(halfCloser).CloseWrite()
	}()
	var answers []string
	for in := bufio.NewReader(c); ; {
		c.SetReadDeadline(time.Now().Add(j.Patience))
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
	if may := legal(s.Bytes); !within(requests, may) {
		r.blame("the origin sees %q, of the requests %q that were sent", requests, may)
	}
	if s.Expect != nil && !slices.Equal(s.Expect, requests) {
		r.blame("the origin sees %q, want %q: nothing was wrong with it", requests, s.Expect)
	}
	if len(r.Wrong) > 0 {
		j.Origin.Hangup() // what this one did to a connection does not reach the next
	}
	return r.Wrong
}
