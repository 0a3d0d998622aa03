package healthcheck

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/config"
)

// ask makes one probe of t and returns what it said, good or bad.
func ask(t *testing.T, target Target) (said string, good bool) {
	t.Helper()
	m := (&Checker{newProbe: newProbe}).newMember(target)
	r := m.ask(t.Context())
	return r.why, r.good
}

func ranges(fromTo ...int) (rs []config.StatusRange) {
	for i := 0; i < len(fromTo); i += 2 {
		rs = append(rs, config.StatusRange{From: fromTo[i], To: fromTo[i+1]})
	}
	return rs
}

func TestHTTPProbe(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "GET" || r.Header.Get("User-Agent") != "skein-check" {
			w.WriteHeader(http.StatusTeapot)
		}
		io.WriteString(w, "all is well")
	})
	mux.HandleFunc("/host", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Host) })
	mux.HandleFunc("/query", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.URL.RawQuery) })
	mux.HandleFunc("/down", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(503) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/down", http.StatusFound) })
	mux.HandleFunc("/long", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, strings.Repeat("x", maxBody)+"needle")
	})
	mux.HandleFunc("/stream", func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "needle")
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	mux.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	s := httptest.NewServer(mux)
	defer s.Close()
	addr := netip.MustParseAddrPort(s.Listener.Addr().String())

	for _, c := range []struct {
		name  string
		check config.Check
		want  string
		good  bool
	}{
		{"plain", config.Check{Path: "/healthz"}, "HTTP 200", true},
		{"no path", config.Check{}, "HTTP 404, want 200-399", false},
		{"unavailable", config.Check{Path: "/down"}, "HTTP 503, want 200-399", false},
		{"redirects are answers", config.Check{Path: "/moved"}, "HTTP 302", true},
		{"ranges", config.Check{Path: "/down", Expect: config.Expect{Status: ranges(200, 200, 500, 599)}}, "HTTP 503", true},
		{"outside ranges", config.Check{Path: "/healthz", Expect: config.Expect{Status: ranges(204, 204, 300, 399)}},
			"HTTP 200, want 204, 300-399", false},
		{"body", config.Check{Path: "/healthz", Expect: config.Expect{Body: "well"}}, "HTTP 200", true},
		{"wrong body", config.Check{Path: "/healthz", Expect: config.Expect{Body: "ill"}},
			`HTTP 200, but "ill" is not in the first 11 bytes of the body`, false},
		{"beyond 64 KiB", config.Check{Path: "/long", Expect: config.Expect{Body: "needle"}},
			`HTTP 200, but "needle" is not in the first 65536 bytes of the body`, false},
		{"host", config.Check{Path: "/host", Host: "shop.example.com", Expect: config.Expect{Body: "shop.example.com"}}, "HTTP 200", true},
		{"default host", config.Check{Path: "/host", Expect: config.Expect{Body: addr.String()}}, "HTTP 200", true},
		{"query", config.Check{Path: "/query?deep=1", Expect: config.Expect{Body: "deep=1"}}, "HTTP 200", true},
		{"endless body", config.Check{Path: "/stream", Timeout: 200 * time.Millisecond, Expect: config.Expect{Body: "needle"}}, "HTTP 200", true},
		{"slow", config.Check{Path: "/slow", Timeout: 50 * time.Millisecond}, "no answer within 50ms", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.check.Kind = config.CheckHTTP
			if c.check.Timeout == 0 {
				c.check.Timeout = 10 * time.Second
			}
			if said, good := ask(t, Target{Address: addr, Check: &c.check}); said != c.want || good != c.good {
				t.Errorf("the probe says %q, good=%v; want %q, good=%v", said, good, c.want, c.good)
			}
		})
	}
}

func TestProbesSayWhatWentWrong(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() { // answers with nonsense, or not at all
		for i := 0; ; i++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			if c.SetReadDeadline(time.Now().Add(10 * time.Second)); i%2 == 0 {
				c.Read(make([]byte, 4096))
				io.WriteString(c, "SSH-2.0-OpenSSH_9.2\r\n")
			} else {
				c.Read(make([]byte, 4096))
			}
			c.Close()
		}
	}()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := netip.MustParseAddrPort(closed.Addr().String())
	closed.Close()
	odd := netip.MustParseAddrPort(l.Addr().String())
	long := 10 * time.Second

	for _, c := range []struct {
		name string
		t    Target
		want string
		good bool
	}{
		{"not HTTP", Target{Address: odd, Check: &config.Check{Kind: config.CheckHTTP, Timeout: long}}, "malformed HTTP", false},
		{"no answer", Target{Address: odd, Check: &config.Check{Kind: config.CheckHTTP, Timeout: long}}, "closed without a whole answer", false},
		{"tcp", Target{Address: odd, Check: &config.Check{Kind: config.CheckTCP, Timeout: long}}, "connected", true},
		{"tcp, refused", Target{Address: dead, Check: &config.Check{Kind: config.CheckTCP, Timeout: long}}, "connection refused", false},
		{"http, refused", Target{Address: dead, Check: &config.Check{Kind: config.CheckHTTP, Timeout: long}}, "connection refused", false},
		{"another port", Target{Address: dead, Check: &config.Check{Kind: config.CheckTCP, Timeout: long, Port: odd.Port()}}, "connected", true},
		{"no check, refused", Target{Address: dead}, "connection refused", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if said, good := ask(t, c.t); !strings.Contains(said, c.want) || good != c.good {
				t.Errorf("the probe says %q, good=%v; want %q, good=%v", said, good, c.want, c.good)
			}
		})
	}
}

func TestICMPProbe(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1"} {
		t.Run(addr, func(t *testing.T) {
			ip := netip.MustParseAddr(addr)
			if l, err := net.Listen("tcp", netip.AddrPortFrom(ip, 0).String()); err != nil {
				t.Skipf("this machine has no %s: %v", addr, err)
			} else {
				l.Close()
			}
			check := &config.Check{Kind: config.CheckICMP, Timeout: 10 * time.Second}
			m := (&Checker{newProbe: newProbe}).newMember(Target{Address: netip.AddrPortFrom(ip, 80), Check: check})
			switch r := m.ask(t.Context()); {
			case r.void && strings.Contains(r.why, "net.ipv4.ping_group_range"):
				t.Skip(r.why)
			case !r.good || r.why != "echo reply":
				t.Errorf("the probe says %q, good=%v; want an echo reply", r.why, r.good)
			}
		})
	}
}

func TestEchoStopsAtItsDeadline(t *testing.T) {
	conn, e, err := listenEcho(netip.MustParseAddr("127.0.0.1"))
	if errors.Is(err, errNotPermitted) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Unix(1, 0))
	if err := e.ping(conn, netip.MustParseAddr("127.0.0.1")); err == nil {
		t.Error("ping returned without an error after its deadline")
	}
}
