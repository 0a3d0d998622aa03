package conform

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

// message is a request or a response that was read to its end.
type message struct {
	Start  string
	Fields []field
	Body   string
}

type field struct{ Name, Value string }

// notCanonical says that a peer sent what only a lenient reader would take.
type notCanonical struct{ what string }

func (e notCanonical) Error() string { return e.what }

func bad(format string, args ...any) error { return notCanonical{fmt.Sprintf(format, args...)} }

// maxLine bounds a line; no case has a longer one that may get through.
const maxLine = 64 << 10

// readLine returns a line without its CR LF, and refuses every other end and bare CRs.
func readLine(r *bufio.Reader) (string, error) {
	var b []byte
	for {
		c, err := r.ReadByte()
		if err != nil {
			if len(b) > 0 && err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		switch {
		case c == '\n' && (len(b) == 0 || b[len(b)-1] != '\r'):
			return "", bad("a line that ends with LF alone: %q", clip(string(b)))
		case c == '\n':
			return string(b[:len(b)-1]), nil
		case len(b) > 0 && b[len(b)-1] == '\r':
			return "", bad("a CR within a line: %q", clip(string(b)))
		case len(b) == maxLine:
			return "", bad("an endless line: %q", clip(string(b)))
		}
		b = append(b, c)
	}
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "..."
	}
	return s
}

const tokenChars = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

func isToken(s string) bool { return s != "" && strings.Trim(s, tokenChars) == "" }

// readFields reads field lines up to and with the empty line.
func readFields(r *bufio.Reader) ([]field, error) {
	var fields []field
	for {
		l, err := readLine(r)
		if err != nil {
			return nil, unexpected(err)
		}
		if l == "" {
			return fields, nil
		}
		name, value, ok := strings.Cut(l, ":")
		if !ok || !isToken(name) {
			return nil, bad("no field: %q", clip(l))
		}
		if controls(value) {
			return nil, bad("a control character in a value: %q", clip(l))
		}
		fields = append(fields, field{name, strings.Trim(value, " \t")})
	}
}

func controls(s string) bool {
	return strings.ContainsFunc(s, func(c rune) bool { return c < ' ' && c != '\t' || c == 0x7f })
}

// unexpected says that there is no message without what failed to come.
func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// values returns those of every field of that name.
func (m *message) values(name string) []string {
	var v []string
	for _, f := range m.Fields {
		if strings.EqualFold(f.Name, name) {
			v = append(v, f.Value)
		}
	}
	return v
}

// has reports whether a list field of that name has the member.
func (m *message) has(name, member string) bool {
	for _, v := range m.values(name) {
		for e := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(e), member) {
				return true
			}
		}
	}
	return false
}

// framing returns the body's length, -1 for chunks and -2 when the message does not say.
func (m *message) framing() (int64, error) {
	te, cl := m.values("Transfer-Encoding"), m.values("Content-Length")
	switch {
	case len(te) > 0 && len(cl) > 0:
		return 0, bad("both Transfer-Encoding and Content-Length")
	case len(te) > 1 || len(te) == 1 && !strings.EqualFold(te[0], "chunked"):
		return 0, bad("Transfer-Encoding %q", te)
	case len(te) == 1:
		return -1, nil
	case len(cl) > 1 || len(cl) == 1 && (cl[0] == "" || strings.Trim(cl[0], "0123456789") != ""):
		return 0, bad("Content-Length %q", cl)
	case len(cl) == 1:
		n, err := strconv.ParseInt(cl[0], 10, 62)
		if err != nil {
			return 0, bad("Content-Length %q", cl)
		}
		return n, nil
	}
	return -2, nil
}

// readBody reads a body of that framing, where -2 means until the end.
func readBody(r *bufio.Reader, framing int64) (string, error) {
	switch {
	case framing == -1:
		return readChunks(r)
	case framing == -2:
		b, err := io.ReadAll(r)
		return string(b), err
	}
	var b strings.Builder
	if _, err := io.CopyN(&b, r, framing); err != nil {
		return "", unexpected(err)
	}
	return b.String(), nil
}

func readChunks(r *bufio.Reader) (string, error) {
	var b strings.Builder
	for {
		l, err := readLine(r)
		if err != nil {
			return "", unexpected(err)
		}
		n, err := strconv.ParseInt(l, 16, 64)
		if err != nil || strings.Trim(l, "0123456789abcdefABCDEF") != "" {
			return "", bad("a chunk size that is no plain number: %q", clip(l))
		}
		if n == 0 {
			_, err := readFields(r) // trailers
			return b.String(), err
		}
		if _, err := io.CopyN(&b, r, n); err != nil {
			return "", unexpected(err)
		}
		if l, err = readLine(r); err != nil {
			return "", unexpected(err)
		}
		if l != "" {
			return "", bad("chunk data that is longer than its size: %q", clip(l))
		}
	}
}

// readRequestHead reads a request head and returns its body's framing. io.EOF: the connection ended between two requests.
func readRequestHead(r *bufio.Reader) (*message, int64, error) {
	l, err := readLine(r)
	if err != nil {
		return nil, 0, err
	}
	m := &message{Start: l}
	p := strings.Split(l, " ")
	if len(p) != 3 || !isToken(p[0]) || p[0] == "CONNECT" || p[2] != "HTTP/1.1" && p[2] != "HTTP/1.0" {
		return nil, 0, bad("the request line %q", clip(l))
	}
	target, authority := splitTarget(p[1])
	if !canonicalTarget(p[0], target) {
		return nil, 0, bad("the request line %q", clip(l))
	}
	if m.Fields, err = readFields(r); err != nil {
		return nil, 0, err
	}
	switch h := m.values("Host"); {
	case len(h) == 0 && p[2] == "HTTP/1.0":
	case len(h) != 1 || !canonicalHost(h[0]) || authority != "" && authority != h[0]:
		return nil, 0, bad("Host %q", h)
	}
	n, err := m.framing()
	if n == -1 && p[2] == "HTTP/1.0" {
		return nil, 0, bad("HTTP/1.0 with a Transfer-Encoding")
	}
	if n == -2 {
		n = 0
	}
	return m, n, err
}

// splitTarget takes the authority off an absolute target, which a server must accept too.
func splitTarget(t string) (rest, authority string) {
	if len(t) < 7 || !strings.EqualFold(t[:7], "http://") {
		return t, ""
	}
	authority = t[7:]
	if i := strings.IndexAny(authority, "/?"); i >= 0 {
		authority, rest = authority[:i], authority[i:]
	}
	if !strings.HasPrefix(rest, "/") {
		rest = "/" + rest
	}
	return rest, authority
}

// canonicalTarget says that a target is in origin-form, or the asterisk of OPTIONS.
func canonicalTarget(method, t string) bool {
	if t == "*" {
		return method == "OPTIONS"
	}
	for i := range len(t) {
		if c := t[i]; c <= ' ' || c >= 0x7f || c == '#' {
			return false
		}
	}
	return strings.HasPrefix(t, "/")
}

func canonicalHost(h string) bool {
	host, port, found := h, "", false
	if i := strings.LastIndexByte(h, ':'); i > strings.LastIndexByte(h, ']') {
		host, port, found = h[:i], h[i+1:], true
	}
	if n, err := strconv.ParseUint(port, 10, 16); found && port != "" && (err != nil || n == 0) {
		return false
	}
	if in, ok := strings.CutPrefix(host, "["); ok {
		in, ok = strings.CutSuffix(in, "]")
		return ok && strings.Trim(in, "0123456789abcdefABCDEF:.") == "" && strings.Contains(in, ":")
	}
	return host != "" && strings.Trim(host, tokenChars+"();=,") == "" && !strings.ContainsAny(host, "#^`|,")
}

// readResponse reads a response to its end; noBody says that the request was HEAD. io.EOF: the connection ended before it.
func readResponse(r *bufio.Reader, noBody bool) (*message, error) {
	l, err := readLine(r)
	if err != nil {
		return nil, err
	}
	m := &message{Start: l}
	if len(l) < 13 || !strings.HasPrefix(l, "HTTP/1.1 ") && !strings.HasPrefix(l, "HTTP/1.0 ") || strings.Trim(l[9:12], "0123456789") != "" || l[12] != ' ' || controls(l) {
		return nil, bad("the status line %q", clip(l))
	}
	if m.Fields, err = readFields(r); err != nil {
		return nil, err
	}
	n, err := m.framing()
	if err != nil {
		return m, err
	}
	if s := m.status(); noBody || s[0] == '1' || s == "204" || s == "304" {
		return m, nil
	}
	m.Body, err = readBody(r, n)
	return m, err
}

func (m *message) status() string { return m.Start[9:12] }

// ends says that the sender of a message keeps its connection no longer.
func (m *message) ends() bool {
	old := strings.HasPrefix(m.Start, "HTTP/1.0") || strings.HasSuffix(m.Start, "HTTP/1.0")
	return m.has("Connection", "close") || old && !m.has("Connection", "keep-alive")
}

// isBad reports whether err is about what was sent, and not about the connection.
func isBad(err error) bool {
	var b notCanonical
	return errors.As(err, &b)
}

// lacks returns what of an expectation does not hold of m. Its lines are a start line; "Name: value", where " & " joins the values
// of several fields; "~Name: value" for how that begins; "Name:" for a field of any value; "!Name" for none, and "!Name: member"
// for none with the member; "^Name" for the first field; and ">body".
func (m *message) lacks(want string) []string {
	var missing []string
	for line := range strings.SplitSeq(want, "|") {
		ok := true
		switch name, value, isField := strings.Cut(line, ": "); {
		case line == "":
		case line[0] == '>':
			ok = m.Body == line[1:]
		case line[0] == '^':
			ok = len(m.Fields) > 0 && strings.EqualFold(m.Fields[0].Name, line[1:])
		case line[0] == '~':
			ok = strings.HasPrefix(strings.Join(m.values(name[1:]), " & "), value)
		case line[0] == '!' && isField:
			ok = !m.has(name[1:], value)
		case line[0] == '!':
			ok = len(m.values(line[1:])) == 0
		case strings.HasSuffix(line, ":"): // there, whatever its value
			ok = len(m.values(strings.TrimSuffix(line, ":"))) > 0
		case isField:
			ok = strings.Join(m.values(name), " & ") == value
		default:
			ok = m.Start == line
		}
		if !ok {
			missing = append(missing, line)
		}
	}
	return missing
}
