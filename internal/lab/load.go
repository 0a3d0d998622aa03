package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Load is a client with steady traffic. The zero values of its fields mean what their comments say.
type Load struct {
	Target    netip.AddrPort
	HostName  string        // of the Host field; "": the target's address
	Path      string        // "": "/"
	Every     time.Duration // 0: 5 ms
	Deadline  time.Duration // for each request, connecting included; 0: 250 ms
	KeepAlive bool          // all requests one after another on one connection that is kept open
	Echo      bool          // the target is an echo server: every request is a short TCP session instead, see echo
	Status    int           // that a good answer has; 0: 200
	Record    Record
}

// maxUnderWay bounds the requests of one Load that are under way; reached only when Deadline is long and everything stalls.
const maxUnderWay = 2000

// Run sends requests from h until ctx ends, and returns when the last one has. Without KeepAlive every request has a
// connection of its own and starts when its time has come, whatever became of the ones before.
func (l *Load) Run(ctx context.Context, h *Host) error {
	if !l.Target.IsValid() {
		return fmt.Errorf("load from %s: the target %v is no address and port", h.Name, l.Target)
	}
	every := l.Every
	if every <= 0 {
		every = 5 * time.Millisecond
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	if l.KeepAlive && l.Echo {
		return errors.New("a load is either kept alive or of echo sessions; a Stream is a long session")
	}
	if l.KeepAlive {
		return l.runKeepAlive(ctx, h, tick.C)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxUnderWay)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		select {
		case slots <- struct{}{}:
		default:
			return fmt.Errorf("load from %s: %d requests are under way: the deadline of %v is too long for one every %v",
				h.Name, maxUnderWay, l.deadline(), every)
		}
		start := time.Now()
		n := l.Record.begin(start)
		wg.Go(func() {
			defer func() { <-slots }()
			from, err := l.once(h, start)
			l.Record.finish(n, time.Since(start), from, inAWord(err))
		})
	}
}

func (l *Load) deadline() time.Duration {
	if l.Deadline > 0 {
		return l.Deadline
	}
	return 250 * time.Millisecond
}

// once makes one request on a connection of its own.
func (l *Load) once(h *Host, start time.Time) (from string, err error) {
	c, err := h.connect(l.Target, start.Add(l.deadline()))
	if err != nil {
		return "", err
	}
	defer c.Close()
	if l.Echo {
		return "", echo(c)
	}
	from, _, err = l.exchange(c, bufio.NewReaderSize(c, 4<<10), true)
	return from, err
}

// echo is one TCP session as many protocols have it: something is sent and answered, one side says that it has done, and the
// other one follows. Exactly what was sent must have come back by then.
func echo(c *os.File) error {
	const said = "what comes back must be this"
	if _, err := io.WriteString(c, said); err != nil {
		return err
	}
	got := make([]byte, len(said))
	if _, err := io.ReadFull(c, got); err != nil {
		return err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = os.NewSyscallError("shutdown", unix.Shutdown(int(fd), unix.SHUT_WR)) })
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	rest, err := io.ReadAll(c)
	if err == nil && (string(got) != said || len(rest) > 0) {
		err = fmt.Errorf("malformed echo: %q", append(got, rest...))
	}
	return err
}

// runKeepAlive opens a new connection only after one was closed. That the server closes it between two requests, or says
// that it will, is its right and no failure.
func (l *Load) runKeepAlive(ctx context.Context, h *Host, tick <-chan time.Time) error {
	var c *os.File
	var r *bufio.Reader
	drop := func() {
		if c != nil {
			c.Close()
			c = nil
		}
	}
	defer drop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick:
		}
		start := time.Now()
		n := l.Record.begin(start)
		if c != nil && closedByPeer(c) {
			drop()
		}
		var err error
		var from string
		if c == nil {
			if c, err = h.connect(l.Target, start.Add(l.deadline())); err == nil {
				r = bufio.NewReaderSize(c, 4<<10)
			} else {
				c = nil
			}
		}
		keep := false
		if err == nil {
			c.SetDeadline(start.Add(l.deadline()))
			from, keep, err = l.exchange(c, r, false)
		}
		if !keep {
			drop()
		}
		l.Record.finish(n, time.Since(start), from, inAWord(err))
	}
}

// closedByPeer reports whether the other side has closed a connection on which nothing is expected.
func closedByPeer(c *os.File) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	closed := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := unix.Recvfrom(int(fd), b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		closed = n == 0 && err == nil || err != nil && err != unix.EAGAIN
	})
	return closed || err != nil
}

// exchange sends one request and reads its answer to the end.
func (l *Load) exchange(c *os.File, r *bufio.Reader, last bool) (from string, keep bool, err error) {
	path, host, connection := l.Path, l.HostName, ""
	if path == "" {
		path = "/"
	}
	if host == "" {
		host = l.Target.String()
	}
	if last {
		connection = "Connection: close\r\n"
	}
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: skein-lab\r\n%s\r\n", path, host, connection); err != nil {
		return "", false, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return "", false, err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "", false, err
	}
	want := l.Status
	if want == 0 {
		want = http.StatusOK
	}
	if resp.StatusCode != want {
		err = statusError(resp.StatusCode)
	}
	return resp.Header.Get("Server-Name"), !resp.Close, err
}

type statusError int

func (s statusError) Error() string { return fmt.Sprintf("HTTP %d", int(s)) }

// connect makes a TCP connection from inside the host. It works on the socket itself: only its making needs the host's
// thread, so that hundreds of connections under way need no thread each.
func (h *Host) connect(to netip.AddrPort, deadline time.Time) (*os.File, error) {
	fd, family := -1, unix.AF_INET6
	var sa unix.Sockaddr = &unix.SockaddrInet6{Port: int(to.Port()), Addr: to.Addr().As16()}
	if to.Addr().Is4() {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}
	}
	err := h.ns().do(func() (err error) {
		fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
		return err
	})
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt", err)
	}
	err = unix.Connect(fd, sa)
	if err != nil && err != unix.EINPROGRESS {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	c := os.NewFile(uintptr(fd), "tcp "+to.String()) // pollable, since it does not block
	if err := c.SetDeadline(deadline); err != nil {
		c.Close()
		return nil, fmt.Errorf("set a deadline: %w", err)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("connect: %w", err)
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		var soErr int
		if soErr, failed = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR); failed != nil {
			return true
		}
		if soErr != 0 {
			failed = os.NewSyscallError("connect", unix.Errno(soErr))
			return true
		}
		_, err := unix.Getpeername(int(fd))
		return err == nil // else the wake-up was for nothing
	})
	if err = errors.Join(err, failed); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// inAWord sorts an error into one of the few kinds that a reader of a table wants to tell apart.
func inAWord(err error) string {
	var status statusError
	var ne net.Error
	switch {
	case err == nil:
		return ""
	case errors.As(err, &status):
		return status.Error()
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, unix.ETIMEDOUT), errors.As(err, &ne) && ne.Timeout():
		return "timeout"
	case errors.Is(err, unix.ECONNREFUSED):
		return "refused"
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE), errors.Is(err, unix.ECONNABORTED):
		return "reset"
	case errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return "unreachable"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed"
	case errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, unix.EMFILE), errors.Is(err, errClosed):
		return "not sent"
	case strings.Contains(err.Error(), "malformed"):
		return "nonsense"
	}
	return err.Error()
}
