package node

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/healthcheck"
	"github.com/skeinlb/skein/internal/lab"
)

func freePort(t *testing.T) int {
	t.Helper()
	port, err := lab.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

func get(t *testing.T, url string) string {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A newcomer's first minute: a file, a request, a mistake that changes nothing, its correction, the end.
func TestABadFileChangesNothingAndACorrectedOneTakesForce(t *testing.T) {
	web := func(name string) *httptest.Server {
		return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, name) }))
	}
	one, two := web("one"), web("two")
	defer one.Close()
	defer two.Close()
	file := filepath.Join(t.TempDir(), "edge.hcl")
	port := freePort(t)
	write := func(format string, args ...any) {
		t.Helper()
		if err := os.WriteFile(file, fmt.Appendf(nil, format, args...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const text = `frontend "web" {
  bind    = ["127.0.0.1"]
  http    = %d
  backend = "s"
}
backend "s" {
  server "s1" { address = %q }
}
`
	write(text, port, one.Listener.Addr())
	s, diags, err := OpenSingle(file, nil, slog.New(slog.DiscardHandler))
	if err != nil || len(diags) > 0 {
		t.Fatalf("OpenSingle: %v, %v", err, diags)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, time.Second) }()
	url := fmt.Sprintf("http://127.0.0.1:%d/", port)
	if got := get(t, url); got != "one" {
		t.Errorf("at first: %q, want one", got)
	}

	write(strings.Replace(text, "backend =", "backnd =", 1), port, two.Listener.Addr())
	diags, err = s.Reload()
	if err == nil || !strings.Contains(diags.Error(), `did you mean "backend"?`) {
		t.Errorf("a file with a mistake: error %v, diagnostics %v", err, diags)
	}
	if got := get(t, url); got != "one" {
		t.Errorf("after a bad file: %q, want one as before", got)
	}

	write(text, port, two.Listener.Addr())
	if diags, err := s.Reload(); err != nil || len(diags) > 0 {
		t.Errorf("a corrected file: %v, %v", err, diags)
	}
	if got := get(t, url); got != "two" {
		t.Errorf("after a corrected file: %q, want two", got)
	}

	write("vip \"public\" {\n  address = \"198.51.100.10/24\"\n}\n" + "frontend \"web\" {\n  vip     = \"public\"\n  http    = 80\n  backend = \"s\"\n}\n" +
		"backend \"s\" {\n  server \"s1\" { address = \"198.51.100.1:80\" }\n}\n")
	if _, err := s.Reload(); err == nil || !strings.Contains(err.Error(), "needs a cluster") {
		t.Errorf("a file with a vip: error %v, want one that says what it needs", err)
	}

	cancel()
	if err := <-ended; err != nil {
		t.Errorf("Run: %v", err)
	}
	if c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port)); err == nil {
		c.Close()
		t.Error("after the end somebody still listens")
	}
}

// Without a cluster a node shows at /metrics what its probes find, its sticky tables and when its certificates end, as a member of one does.
func TestASingleNodeShowsChecksTablesAndCertificates(t *testing.T) {
	well := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	defer well.Close()
	ill := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }))
	defer ill.Close()
	dir := t.TempDir()
	text := fmt.Sprintf(`frontend "web" {
  bind         = ["127.0.0.1"]
  https        = %d
  certificates = "shop"
  backend      = "s"
}
backend "s" {
  sticky "table" {
    key  = client
    size = 1000
  }
  check "http" {
    path     = "/"
    interval = "100ms"
    timeout  = "50ms"
    fall     = 1
    rise     = 1
  }
  server "well" { address = %q }
  server "ill" { address = %q }
}
backend "unchecked" {
  server "s1" { address = "127.0.0.1:9" }
}
`, freePort(t), well.Listener.Addr(), ill.Listener.Addr())
	file := filepath.Join(dir, "edge.hcl")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	pemFile := filepath.Join(dir, "shop.pem")
	if err := os.WriteFile(pemFile, []byte(pemOf(t, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	s, diags, err := OpenSingle(file, []CertificateFiles{{Name: "shop", Files: []string{pemFile}}}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatalf("OpenSingle: %v, %v", err, diags)
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 2)
	go func() { ended <- s.Run(ctx, time.Second) }()
	go func() { ended <- s.ServeMetrics(ctx, l, "1.2.3") }()
	if _, err := s.checker.Verdicts().Wait(ctx, func(v map[healthcheck.Key]healthcheck.Verdict) bool {
		return !v[healthcheck.Key{Backend: "s", Server: "ill"}].Up && v[healthcheck.Key{Backend: "s", Server: "well"}].Checks > 0
	}); err != nil {
		t.Fatal(err)
	}
	got := get(t, fmt.Sprintf("http://%v/metrics", l.Addr()))
	for _, want := range []string{
		`skein_server_check_up{backend="s",server="well"} 1`,
		`skein_server_check_up{backend="s",server="ill"} 0`,
		`skein_server_check_seconds{backend="s",server="well"} `,
		`skein_sticky_size{backend="s"} 1000`,
		`skein_certificate_not_after_timestamp_seconds{certificate="shop"} `,
		"skein_start_time_seconds ",
	} {
		if !strings.Contains(got, "\n"+want) {
			t.Errorf("the metrics have no %s", want)
		}
	}
	for _, not := range []string{`skein_server_check_up{backend="unchecked"`, "skein_raft_", "skein_guard_"} {
		if strings.Contains(got, "\n"+not) {
			t.Errorf("the metrics have %s", not)
		}
	}
	cancel()
	for range 2 {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
