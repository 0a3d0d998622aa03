package healthcheck

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"syscall"
	"time"

	"github.com/skeinlb/skein/config"
)

// probe asks a server once. It returns what the server said, or the reason why that was not good; ctx carries the time-out.
type probe func(ctx context.Context) (said string, err error)

// maxBody is how much of a body is looked at for Expect.Body.
const maxBody = 64 << 10

func newProbe(t Target) probe {
	if t.Check == nil {
		return tcpProbe(t.Address)
	}
	addr := t.Address
	if t.Check.Port != 0 {
		addr = netip.AddrPortFrom(addr.Addr(), t.Check.Port)
	}
	switch t.Check.Kind {
	case config.CheckICMP:
		return icmpProbe(addr.Addr())
	case config.CheckHTTP:
		return httpProbe(addr, t.Check)
	default:
		return tcpProbe(addr)
	}
}

// tcpProbe is content with a connection.
func tcpProbe(addr netip.AddrPort) probe {
	return func(ctx context.Context) (string, error) {
		conn, err := dial(ctx, addr)
		if err != nil {
			return "", err
		}
		conn.Close()
		return "connected", nil
	}
}

func dial(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
	d := net.Dialer{KeepAlive: -1}
	return d.DialContext(ctx, "tcp", addr.String())
}

// httpProbe sends one GET on a connection of its own and looks at the status and, if asked, the body. It follows no redirect:
// a 302 is an answer like any other.
func httpProbe(addr netip.AddrPort, check *config.Check) probe {
	transport := &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, addr) },
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: 64 << 10,
	}
	path, query, _ := strings.Cut(check.Path, "?")
	target := url.URL{Scheme: "http", Host: addr.String(), Opaque: "", Path: "/"}
	if u, err := url.ParseRequestURI(path); err == nil && u.Host == "" {
		target.Path, target.RawPath = u.Path, u.RawPath
	}
	target.RawQuery = query
	host := check.Host
	if host == "" {
		host = netip.AddrPortFrom(addr.Addr().WithZone(""), addr.Port()).String()
	}
	return func(ctx context.Context) (string, error) {
		req := (&http.Request{
			Method: http.MethodGet, URL: &target, Host: host,
			Header: http.Header{"User-Agent": {"skein-check"}},
		}).WithContext(ctx)
		resp, err := transport.RoundTrip(req)
		if err != nil {
			return "", err
		}
		defer resp.Body.Close()
		return judge(resp.StatusCode, resp.Body, check.Expect)
	}
}

// judge says whether an answer is what was expected.
func judge(status int, body io.Reader, want config.Expect) (string, error) {
	ranges := want.Status
	if len(ranges) == 0 {
		ranges = []config.StatusRange{{From: 200, To: 399}}
	}
	said, ok := fmt.Sprintf("HTTP %d", status), false
	for _, r := range ranges {
		ok = ok || r.From <= status && status <= r.To
	}
	if !ok {
		return said, fmt.Errorf("%s, want %s", said, inRanges(ranges))
	}
	if want.Body == "" {
		return said, nil
	}
	// What came before an error still counts: a server that streams for ever has said enough once the text was seen.
	text, err := io.ReadAll(io.LimitReader(body, maxBody))
	if !strings.Contains(string(text), want.Body) {
		if err != nil {
			return said, fmt.Errorf("%s, then %w", said, err)
		}
		return said, fmt.Errorf("%s, but %q is not in the first %d bytes of the body", said, want.Body, len(text))
	}
	return said, nil
}

func inRanges(rs []config.StatusRange) string {
	var b strings.Builder
	for i, r := range rs {
		if i > 0 {
			b.WriteString(", ")
		}
		if r.From == r.To {
			fmt.Fprintf(&b, "%d", r.From)
		} else {
			fmt.Fprintf(&b, "%d-%d", r.From, r.To)
		}
	}
	return b.String()
}

// inWords says what went wrong as an operator would, without addresses that the reader already has before him.
func inWords(err error, timeout time.Duration) string {
	var ne net.Error
	switch {
	case isLocal(err):
		return "cannot probe: " + innermost(err)
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return fmt.Sprintf("no answer within %v", timeout)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection reset"
	case errors.Is(err, syscall.EHOSTUNREACH):
		return "no route to host"
	case errors.Is(err, syscall.ENETUNREACH):
		return "network unreachable"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "closed without a whole answer"
	}
	return innermost(err)
}

func innermost(err error) string {
	var op *net.OpError
	if errors.As(err, &op) && op.Err != nil {
		return op.Err.Error()
	}
	return err.Error()
}

// isLocal reports whether err is this node's trouble: out of descriptors, memory or ports, or not permitted. It says nothing
// about the server, and a node that ran out of descriptors must not conclude that all its servers died.
func isLocal(err error) bool {
	for _, e := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ENOBUFS, syscall.EADDRNOTAVAIL, syscall.EPERM, syscall.EACCES,
		errNotPermitted,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
