package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"sync/atomic"
	"time"
)

// WebServer is a small web server inside a host. Every answer names it in the field Server-Name and in the body. Paths with a
// meaning: /healthz, which tells of Ill; /bytes/N, N bytes; /wait/D, an answer after the duration D; anything else: its name.
type WebServer struct {
	Name     string
	Addr     netip.AddrPort
	Addr6    netip.AddrPort
	Requests atomic.Uint64 // without those for /healthz
	Ill      atomic.Bool   // /healthz answers 503
	server   *http.Server
}

// ServeHTTP starts a WebServer on port, of both addresses of the host. It ends with the host.
func (h *Host) ServeHTTP(name string, port uint16) (*WebServer, error) {
	w := &WebServer{Name: name, Addr: netip.AddrPortFrom(h.Addr, port), Addr6: netip.AddrPortFrom(h.Addr6, port)}
	var ls []net.Listener
	for _, at := range [...]netip.AddrPort{w.Addr, w.Addr6} {
		l, err := h.Listen("tcp", at.String())
		if err != nil {
			return nil, fmt.Errorf("web server %s on %s: %w", name, h.Name, err)
		}
		ls = append(ls, l)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(rw http.ResponseWriter, _ *http.Request) {
		if w.Ill.Load() {
			rw.WriteHeader(http.StatusServiceUnavailable)
		}
		fmt.Fprintf(rw, "ill: %v\n", w.Ill.Load())
	})
	mux.HandleFunc("/bytes/{n}", func(rw http.ResponseWriter, r *http.Request) {
		n, err := strconv.ParseInt(r.PathValue("n"), 10, 64)
		if err != nil || n < 0 || n > 1<<30 {
			http.Error(rw, "want /bytes/N with N up to 1073741824", http.StatusBadRequest)
			return
		}
		rw.Header().Set("Content-Length", strconv.FormatInt(n, 10))
		io.CopyN(rw, Bytes(n), n)
	})
	mux.HandleFunc("/wait/{d}", func(rw http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.PathValue("d"))
		if err != nil || d < 0 || d > time.Minute {
			http.Error(rw, "want /wait/D with D up to 1m", http.StatusBadRequest)
			return
		}
		select {
		case <-time.After(d):
			fmt.Fprintln(rw, name)
		case <-r.Context().Done():
		}
	})
	mux.HandleFunc("/", func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprintln(rw, name) })
	w.server = &http.Server{
		Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/healthz" {
				w.Requests.Add(1)
			}
			rw.Header().Set("Server-Name", name)
			mux.ServeHTTP(rw, r)
		}),
		ReadHeaderTimeout: 10 * time.Second,
		ErrorLog:          slog.NewLogLogger(h.world.log.Handler(), slog.LevelDebug),
	}
	h.closeLater(w)
	for _, l := range ls {
		go func() {
			if err := w.server.Serve(l); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
				h.world.log.Error("web server ended", "host", h.Name, "err", err)
			}
		}()
	}
	return w, nil
}

// Close stops the server as a crash would: connections under way are cut.
func (w *WebServer) Close() error { return w.server.Close() }

// Bytes is what /bytes/N sends: n bytes, no two blocks alike.
func Bytes(n int64) io.Reader { return io.LimitReader(new(numbers), n) }

// numbers reads as the numbers from 0, eight digits each, for ever.
type numbers struct{ at int64 }

func (s *numbers) Read(p []byte) (int, error) {
	var b [8]byte
	for i := range p {
		if i == 0 || s.at&7 == 0 {
			for d, n := 7, s.at>>3; d >= 0; d, n = d-1, n/10 {
				b[d] = '0' + byte(n%10)
			}
		}
		p[i] = b[s.at&7]
		s.at++
	}
	return len(p), nil
}

// ServeEcho starts a TCP server on port that sends back what it gets, byte by byte. It ends with the host.
func (h *Host) ServeEcho(port uint16) (netip.AddrPort, error) {
	addr := netip.AddrPortFrom(h.Addr, port)
	l, err := h.Listen("tcp", addr.String())
	if err != nil {
		return addr, fmt.Errorf("echo server on %s: %w", h.Name, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	h.closeLater(closerFunc(func() error { cancel(); return nil }))
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return // closed with the host
			}
			stop := context.AfterFunc(ctx, func() { c.Close() })
			go func() {
				defer stop()
				defer c.Close()
				io.Copy(c, c)
			}()
		}
	}()
	return addr, nil
}

type closerFunc func() error

func (f closerFunc) Close() error { return f() }
