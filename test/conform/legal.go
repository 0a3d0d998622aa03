package conform

import (
	"bufio"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// legal reads what a client sends as RFC 9112 has it, with no leniency but what the RFC grants, and returns the echoes of its
// requests up to the first that is none. It is a second opinion, independent of any proxy: what reaches an origin is among them, in
// this order, or something was read into the bytes that is not there.
func legal(sent string) (echoes []string) {
	r := bufio.NewReader(strings.NewReader(sent))
	for {
		if b, _ := r.Peek(2); string(b) == "\r\n" { // RFC 9112 2.2: at least one empty line is ignored
			r.Discard(2)
		}
		m, n, err := readLegalHead(r)
		if err != nil {
			return echoes
		}
		if n == -1 {
			m.Body, err = readLegalChunks(r)
		} else {
			m.Body, err = readBody(r, n)
		}
		if err != nil {
			return echoes
		}
		p := strings.Split(m.Start, " ")
		rest, _ := splitTarget(p[1])
		m.Start = p[0] + " " + rest + " " + p[2]
		echoes = append(echoes, echoed(m))
		if m.ends() {
			return echoes
		}
	}
}

// A higher minor version is read as 1.1 (RFC 9110 2.5), and an absolute target's authority replaces Host (RFC 9112 3.2.2): both are
// for the proxy to make canonical.
var (
	minor     = regexp.MustCompile(`^(\S+ \S+ HTTP/1\.)[1-9]\r\n`)
	authority = regexp.MustCompile(`^(\S+ )(?i:http://)([^/?\s]+)(\S* HTTP/1\.)`)
	hostLine  = regexp.MustCompile(`(?i)\nhost:[^\n]*\n`)
)

// readLegalHead is readRequestHead for what a client may send.
func readLegalHead(r *bufio.Reader) (*message, int64, error) {
	var head strings.Builder
	for head.Len() < maxLine && !strings.HasSuffix(head.String(), "\r\n\r\n") {
		b, err := r.ReadByte()
		if err != nil {
			return nil, 0, unexpected(err)
		}
		head.WriteByte(b)
	}
	text := minor.ReplaceAllString(head.String(), "${1}1\r\n")
	if a := authority.FindStringSubmatch(text); a != nil && canonicalHost(a[2]) && len(hostLine.FindAllString(text, 2)) == 1 {
		text = hostLine.ReplaceAllString(text, "\nHost: "+strings.ReplaceAll(a[2], "$", "$$")+"\r\n")
	}
	return readRequestHead(bufio.NewReader(strings.NewReader(text)))
}

// readLegalChunks takes extensions and trailers too, which a proxy takes off.
func readLegalChunks(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		l, err := readLine(r)
		if err != nil {
			return "", unexpected(err)
		}
		size, extension, _ := strings.Cut(l, ";")
		size = strings.TrimRight(size, " \t") // BWS
		n, err := strconv.ParseUint(size, 16, 63)
		if err != nil || strings.Trim(size, "0123456789abcdefABCDEF") != "" || controls(extension) {
			return "", bad("the chunk size %q", clip(l))
		}
		if n == 0 {
			_, err := readFields(r)
			return b.String(), err
		}
		if _, err := io.CopyN(&b, r, int64(n)); err != nil {
			return "", unexpected(err)
		}
		if l, err = readLine(r); err != nil || l != "" {
			return "", bad("chunk data that is longer than its size: %q", clip(l))
		}
	}
}

// within reports whether all of some stand in all, in the same order.
func within(some, all []string) bool {
	for _, s := range some {
		i := slices.Index(all, s)
		if i < 0 {
			return false
		}
		all = all[i+1:]
	}
	return true
}
