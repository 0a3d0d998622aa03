package conform

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// Times of a client. A proxy that does as a case wants is never waited for.
const (
	patience  = 1500 * time.Millisecond // for the next response, or the end of a connection
	thenAfter = 300 * time.Millisecond  // without an interim response
	dialTime  = 5 * time.Second
)

const canaryPath = "/canary/"

// Judge runs cases against one proxy.
type Judge struct {
	Addr     string // of the proxy
	TLS      bool   // which speaks TLS there; whose certificate it shows is not looked at
	Origin   *Origin
	Patience time.Duration // how long to wait for what does not come; 0: patience
	canaries int
}

// halfCloser is a connection whose directions end one by one.
type halfCloser interface{ CloseWrite() error }

// dial connects to the proxy.
func (j *Judge) dial() (net.Conn, error) {
	c, err := net.DialTimeout("tcp", j.Addr, dialTime)
	if err != nil || !j.TLS {
		return c, err
	}
	c.SetDeadline(time.Now().Add(dialTime))
	t := tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: "conform.test"})
	if err := t.Handshake(); err != nil {
		c.Close()
		return nil, err
	}
	c.SetDeadline(time.Time{})
	return t, nil
}

// Run plays a case and says what came of it.
func (j *Judge) Run(c Case) Result {
	if j.Patience == 0 {
		j.Patience = patience
	}
	r := Result{Class: c.Class, Level: c.Level, Section: c.Section, Name: c.Name}
	j.Origin.begin(c)
	conn, err := j.dial()
	if err != nil {
		r.blame("connect: %v", err)
		return r
	}
	defer conn.Close()
	t := talk{Conn: conn, r: bufio.NewReader(conn), c: c, patience: j.Patience}
	t.run(&r)
	j.Origin.answered()
	if c.Late != "" {
		j.Origin.settled(j.Patience)
	}
	r.Got = strings.Join(t.got, " ")
	passes, ok := match(c.Want, t.got)
	if !ok {
		r.blame("the client gets %q, want %q", r.Got, c.Want)
	}
	t.compare(&r)
	j.canary(&r, &t)
	conn.Close()
	j.origin(&r, c, &t, passes)
	if !r.Passed() {
		j.Origin.Hangup()
	}
	return r
}

// talk is the client's side of a case.
type talk struct {
	net.Conn
	r        *bufio.Reader
	c        Case
	got      []string // in the words of Want
	answers  []*message
	patience time.Duration
	open     bool // the connection may be used for another request

	interims int
	interim  bool     // Gets is about an interim response
	first    *message // what Gets is about
}

// run sends the case and reads responses, until there are as many as are wanted.
func (t *talk) run(r *Result) {
	go t.send()
	head := strings.HasPrefix(t.c.Send, "HEAD ")
	t.c.Gets, t.interim = strings.CutPrefix(t.c.Gets, "1xx")
	then := t.c.Then != ""
	for {
		limit := t.patience
		if then {
			limit = thenAfter
		}
		t.SetReadDeadline(time.Now().Add(limit))
		if _, err := t.r.Peek(1); then && errors.Is(err, os.ErrDeadlineExceeded) {
			then = false
			t.write(t.c.Then)
			continue
		}
		t.SetReadDeadline(time.Now().Add(t.patience))
		m, err := readResponse(t.r, head)
		switch {
		case isBad(err):
			r.blame("the client gets what is not canonical: %v", err)
			t.got = append(t.got, "cut")
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			t.got = append(t.got, "silence")
			return
		case err == io.EOF && len(t.got) > 0:
			t.got = append(t.got, "close")
			return
		case err != nil:
			t.got = append(t.got, "cut")
			return
		}
		status := m.status()
		if status[0] == '1' && status != "101" {
			t.interims++
			if t.interim && t.first == nil {
				t.first = m
			}
			if then {
				then = false
				t.write(t.c.Then)
			}
			continue
		}
		if !t.interim && t.first == nil {
			t.first = m
		}
		t.got = append(t.got, status)
		t.answers = append(t.answers, m)
		if status == "101" {
			t.tunnel(r)
			return
		}
		if m.ends() || m.has("Connection", "upgrade") {
			t.end(r)
			return
		}
		if _, ok := match(t.c.Want, t.got); ok {
			t.open = !t.c.Early && !t.c.Ends
			return
		}
	}
}

// send writes what the client says. An error is no concern of its: a proxy may answer and close before it has taken everything.
func (t *talk) send() {
	b := crlf(t.c.Send)
	if t.c.Slow {
		for i := range len(b) {
			io.WriteString(t, b[i:i+1])
		}
	} else {
		io.WriteString(t, b)
	}
	if t.c.Ends {
		t.Conn.(halfCloser).CloseWrite()
	}
}

func (t *talk) write(s string) { io.WriteString(t, crlf(s)) }

// end reads up to the end of a connection that was announced.
func (t *talk) end(r *Result) {
	t.SetReadDeadline(time.Now().Add(t.patience))
	b, err := io.ReadAll(t.r)
	t.got = append(t.got, "close")
	if len(b) > 0 {
		r.blame("something follows the last response: %q", clip(string(b)))
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		r.blame("the connection that should end does not")
	}
}

// tunnel speaks the protocol that the connection was upgraded to.
func (t *talk) tunnel(r *Result) {
	t.write(t.c.Then)
	want := crlf(t.c.Then)
	b := make([]byte, len(want))
	t.SetReadDeadline(time.Now().Add(t.patience))
	if n, err := io.ReadFull(t.r, b); string(b[:n]) != want {
		r.blame("through the tunnel comes %q (%v), want %q", b[:n], err, want)
	}
}

// match says whether the statuses are one of the alternatives, and how many requests are answered by the origin then.
func match(want string, got []string) (passes int, ok bool) {
	for alternative := range strings.SplitSeq(want, " or ") {
		if p, ok := matchOne(strings.Fields(alternative), got); ok {
			return p, true
		}
	}
	return 0, false
}

func matchOne(want, got []string) (passes int, ok bool) {
	if len(got) == len(want)+1 && got[len(want)] == "close" {
		got = got[:len(want)] // it may end, unless it has to
	}
	if len(got) != len(want) {
		return 0, false
	}
	for i, w := range want {
		g := got[i]
		switch {
		case w == g, len(w) == 3 && w[1:] == "xx" && g[0] == w[0]:
		case w == "refused" && (g == "cut" || g[0] == '4' || g[0] == '5'):
		default:
			return 0, false
		}
		if g[0] <= '3' {
			passes++
		}
	}
	return passes, true
}

// compare says what of Gets and Quiet does not hold.
func (t *talk) compare(r *Result) {
	if t.c.Quiet && t.interims > 0 {
		r.blame("the client gets an interim response")
	}
	switch {
	case t.c.Gets == "":
		return
	case t.first == nil && t.interim:
		r.blame("the client gets no interim response")
		return
	case t.first == nil || t.first.status()[0] >= '4' && t.c.Reply == "" && !t.c.Own:
		return // refused
	}
	for _, l := range t.first.lacks(t.c.Gets) {
		r.blame("the client's response has not %q", clip(l))
	}
}

// canary sends two requests, the first of them on the case's own connection if that is still open.
func (j *Judge) canary(r *Result, t *talk) {
	for n := range 2 {
		j.canaries++
		name := fmt.Sprintf("%s%d", canaryPath, j.canaries)
		if n == 0 && t.open {
			if got, alive := j.ask(t.Conn, t.r, name); alive {
				if got != "GET "+name {
					r.blame("on the same connection, a canary gets %q", clip(got))
				}
				continue
			}
		}
		c, err := j.dial()
		if err != nil {
			r.blame("connect a canary: %v", err)
			return
		}
		got, alive := j.ask(c, bufio.NewReader(c), name)
		if !alive {
			got = "nothing"
		}
		if got != "GET "+name {
			r.blame("canary %d gets %q", n+1, clip(got))
		}
		c.Close()
	}
}

// ask sends a request and returns the answer's body. alive: there was an answer.
func (j *Judge) ask(c net.Conn, r *bufio.Reader, target string) (body string, alive bool) {
	c.SetDeadline(time.Now().Add(j.Patience))
	if _, err := io.WriteString(c, "GET "+target+" HTTP/1.1\r\nHost: canary\r\n\r\n"); err != nil {
		return "", false
	}
	m, err := readResponse(r, false)
	switch {
	case isBad(err):
		return err.Error(), true
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "silence", true
	case err != nil:
		return "", false
	case m.status() != "200":
		return m.Start, true
	}
	return m.Body, true
}

// origin says what is wrong with what reached the origin. passes is how many requests may have.
func (j *Judge) origin(r *Result, c Case, t *talk, passes int) {
	seen, quiet := j.Origin.settled(j.Patience)
	if !quiet {
		r.blame("a request to the origin is neither completed nor cut off")
	}
	for _, s := range seen.strange {
		r.blame("what reaches the origin is not canonical: %s", s)
	}
	if c.Own {
		passes = 0
	}
	if len(seen.partial) > 0 && !c.begun && !c.Ends {
		r.blame("the origin sees the beginning of what is refused: %q", seen.partial)
	}
	if c.Reply != "" || c.Closes {
		passes = 1
	}
	if n := len(seen.whole); n > passes || n < passes && !c.Early && c.Reply == "" {
		r.blame("the origin sees %d requests %q, want %d", n, starts(seen.whole), passes)
	}
	if c.Reply == "" && !c.Closes && !strings.HasPrefix(c.Send, "HEAD ") {
		i := 0
		for _, m := range t.answers {
			if m.status() == "200" && i < len(seen.whole) {
				if want := echoed(seen.whole[i]); m.Body != want {
					r.blame("answer %d is %q, want %q", i+1, clip(m.Body), clip(want))
				}
				i++
			}
		}
	}
	for i, want := range strings.Split(c.Sees, "||") {
		if i < len(seen.whole) {
			for _, l := range seen.whole[i].lacks(want) {
				r.blame("request %d at the origin has not %q", i+1, clip(l))
			}
		}
	}
}

func starts(ms []*message) []string {
	var s []string
	for _, m := range ms {
		s = append(s, m.Start)
	}
	return s
}
