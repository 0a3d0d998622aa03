package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	crand "crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skeinlb/skein/internal/lab"
)

// mixed is clients of the kinds that lab.Load is not, and the servers behind them, which die and return.
type mixed struct {
	s       *stage
	servers []*mixedServer
	roots   *x509.CertPool
	ctx     context.Context
	stop    context.CancelFunc
	running sync.WaitGroup
	kinds   []*kind
	deaths  []time.Time
	last    time.Time // of a death or a return
	dead    *mixedServer
}

// kind is one kind of client.
type kind struct {
	name string

	mu sync.Mutex
	// mu guards the following.
	done     int
	failures []mishap
}

// mishap is something that went wrong for a client.
type mishap struct {
	from, to time.Time
	err      error
}

const mixedServers = 3

// newMixed starts the servers.
func newMixed(s *stage) *mixed {
	s.t.Helper()
	m := &mixed{s: s}
	for i := range mixedServers {
		srv := &mixedServer{host: s.host(fmt.Sprintf("mixed%d", i+1))}
		s.must(srv.start())
		s.t.Cleanup(func() { srv.die() })
		m.servers = append(m.servers, srv)
	}
	return m
}

// frontends are the part of the configuration that never changes.
func (m *mixed) frontends() string {
	text := fmt.Sprintf(`frontend "mixed" {
  vip          = "public"
  http         = %d
  https        = %d
  certificates = ["lab"]
  backend      = "mixed"
}
backend "mixed" {
  retries { attempts = %d }
  check "http" {
    path     = "/healthz"
    interval = "500ms"
    timeout  = "500ms"
  }
`, mixedPort, securePort, mixedServers)
	for _, srv := range m.servers {
		text += fmt.Sprintf("  server %q { address = %q }\n", srv.host.Name, srv.addr())
	}
	return text + "}\n"
}

// importCertificate makes the certificate of the site, gives it to the cluster, and returns it for clients to trust.
func (s *stage) importCertificate() *x509.CertPool {
	s.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), crand.Reader)
	s.must(err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "the lab"}, DNSNames: []string{"lab.example.com"}, IsCA: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(100 * 24 * time.Hour), BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(crand.Reader, template, template, &key.PublicKey, key)
	s.must(err)
	private, err := x509.MarshalPKCS8PrivateKey(key)
	s.must(err)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	file := filepath.Join(s.dir, "lab.pem")
	s.must(os.WriteFile(file, append(text, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})...), 0o600))
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	_, err = s.fleet.Nodes()[0].Skein(ctx, "cert", "import", "lab", file)
	s.must(err)
	return roots
}

// start starts the clients.
func (m *mixed) start() {
	m.ctx, m.stop = context.WithCancel(m.s.ctx)
	m.s.t.Cleanup(m.leave)
	// Like browsers: TLS sessions are resumed, connections are kept or not.
	secure := &tls.Config{RootCAs: m.roots, ServerName: "lab.example.com", ClientSessionCache: tls.NewLRUClientSessionCache(16)}
	kept := &http.Client{Transport: &http.Transport{DialContext: m.s.client.Dial, TLSClientConfig: secure, MaxIdleConnsPerHost: 4}, Timeout: deadline}
	fresh := &http.Client{Transport: &http.Transport{DialContext: m.s.client.Dial, TLSClientConfig: secure, DisableKeepAlives: true}, Timeout: deadline}
	unknown := &http.Client{
		Transport: &http.Transport{
			DialContext: m.s.client.Dial, TLSClientConfig: &tls.Config{RootCAs: m.roots, ServerName: "lab.example.com"}, DisableKeepAlives: true,
		},
		Timeout: deadline,
	}
	https := func(path string) string {
		return fmt.Sprintf("https://%v%s", netip.AddrPortFrom(vip, securePort), path)
	}
	plain := func(path string) string { return fmt.Sprintf("http://%v%s", netip.AddrPortFrom(vip, mixedPort), path) }
	m.client("TLS, kept alive", 20*time.Millisecond, func(ctx context.Context) error { return fetch(ctx, kept, https("/small")) })
	m.client("TLS, kept alive, 300 kB", 100*time.Millisecond, func(ctx context.Context) error { return fetch(ctx, kept, https("/large")) })
	m.client("TLS, resumed", 50*time.Millisecond, func(ctx context.Context) error { return fetch(ctx, fresh, https("/small")) })
	m.client("TLS, full handshake", 200*time.Millisecond, func(ctx context.Context) error { return fetch(ctx, unknown, https("/small")) })
	m.client("chunked upload", 50*time.Millisecond, func(ctx context.Context) error { return upload(ctx, fresh, plain("/echo")) })
	m.client("chunked upload, TLS", 100*time.Millisecond, func(ctx context.Context) error { return upload(ctx, kept, https("/echo")) })
	m.client("tunnel", 100*time.Millisecond, func(ctx context.Context) error { return m.tunnel(ctx, 10) })
	m.client("tunnel, long", 100*time.Millisecond, func(ctx context.Context) error { return m.tunnel(ctx, 500) })
}

// client does something again and again.
func (m *mixed) client(name string, every time.Duration, once func(context.Context) error) {
	k := &kind{name: name}
	m.kinds = append(m.kinds, k)
	m.running.Go(func() {
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-m.ctx.Done():
				return
			case <-tick.C:
			}
			from := time.Now()
			err := once(m.ctx)
			if m.ctx.Err() != nil {
				return
			}
			k.mu.Lock()
			if k.done++; err != nil {
				k.failures = append(k.failures, mishap{from, time.Now(), err})
			}
			k.mu.Unlock()
		}
	})
}

// ready waits until every kind of client is served.
func (m *mixed) ready() {
	m.s.t.Helper()
	for _, k := range m.kinds {
		m.s.until("somebody is served who is "+k.name, func() bool {
			k.mu.Lock()
			defer k.mu.Unlock()
			return k.done > len(k.failures)
		})
	}
}

// turn has the next server die, or the dead one return, when the time has come.
func (m *mixed) turn() {
	m.s.t.Helper()
	if time.Since(m.last) < deadFor {
		return
	}
	if m.dead != nil {
		m.revive()
		return
	}
	m.dead = m.servers[len(m.deaths)%len(m.servers)]
	m.deaths, m.last = append(m.deaths, time.Now()), time.Now()
	m.dead.die()
}

// revive starts the server that is dead.
func (m *mixed) revive() {
	m.s.t.Helper()
	if m.dead != nil {
		m.s.must(m.dead.start())
		m.dead, m.last = nil, time.Now()
	}
}

func (m *mixed) leave() {
	if m.stop != nil {
		m.stop()
		m.running.Wait()
	}
}

// explained reports whether a server died while the client was at it, or just before: what was under way to it is lost then, and a
// connection to it that was idle is found broken a moment later.
func (m *mixed) explained(f mishap) bool {
	const moment = 100 * time.Millisecond
	for _, d := range m.deaths {
		if !d.Before(f.from.Add(-moment)) && d.Before(f.to) {
			return true
		}
	}
	return false
}

// count returns how much was done, and how much of it failed without an explanation.
func (m *mixed) count() (done, failed int) {
	for _, k := range m.kinds {
		k.mu.Lock()
		done += k.done
		for _, f := range k.failures {
			if !m.explained(f) {
				failed++
			}
		}
		k.mu.Unlock()
	}
	return done, failed
}

// judge wants every failure to be explained.
func (m *mixed) judge(t *testing.T) {
	t.Helper()
	for _, k := range m.kinds {
		explained := 0
		for _, f := range k.failures {
			if m.explained(f) {
				explained++
				continue
			}
			last := time.Duration(0)
			for _, d := range m.deaths {
				if d.Before(f.from) {
					last = f.from.Sub(d)
				}
			}
			t.Errorf("%s: %v after %v, begun %v after the last death of a server", k.name, f.err, f.to.Sub(f.from).Round(time.Millisecond), last.Round(time.Millisecond))
		}
		t.Logf("%-26s %7d done, %d failed with the server that had them", k.name, k.done, explained)
		if k.done == len(k.failures) {
			t.Errorf("%s: nobody was served", k.name)
		}
	}
	t.Logf("%d servers died meanwhile", len(m.deaths))
}

// fetch makes one request.
func fetch(ctx context.Context, c *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	return answered(c.Do(req))
}

func answered(resp *http.Response, err error) error {
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	n, err := io.Copy(io.Discard, resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("answered %s", resp.Status)
	case resp.ContentLength >= 0 && n != resp.ContentLength:
		return fmt.Errorf("%d bytes of %d", n, resp.ContentLength)
	}
	return nil
}

// upload sends a body of unknown length, and wants it back.
func upload(ctx context.Context, c *http.Client, url string) error {
	body := bytes.Repeat([]byte("what is sent comes back\n"), 2000)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, struct{ io.Reader }{bytes.NewReader(body)}) // hides its length
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("answered %s", resp.Status)
	case !bytes.Equal(got, body):
		return fmt.Errorf("%d bytes came back changed, of %d", len(got), len(body))
	}
	return nil
}

// tunnel upgrades a connection and sends lines through it, one after the other.
func (m *mixed) tunnel(ctx context.Context, lines int) error {
	c, err := m.s.client.Dial(ctx, "tcp", netip.AddrPortFrom(vip, mixedPort).String())
	if err != nil {
		return err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	c.SetDeadline(time.Now().Add(deadline))
	if _, err := io.WriteString(c, "GET /tunnel HTTP/1.1\r\nHost: lab\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n"); err != nil {
		return err
	}
	r := bufio.NewReader(c)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		return fmt.Errorf("answered %s", resp.Status)
	}
	for i := range lines {
		c.SetDeadline(time.Now().Add(deadline))
		want := fmt.Sprintf("line %d\n", i)
		if _, err := io.WriteString(c, want); err != nil {
			return err
		}
		if got, err := r.ReadString('\n'); err != nil || got != want {
			return errors.Join(err, fmt.Errorf("%q came back as %q", want, got))
		}
		if lines > 100 {
			select {
			case <-time.After(10 * time.Millisecond): // a person at a keyboard
			case <-ctx.Done():
				return nil
			}
		}
	}
	return nil
}

// mixedServer is a web server that takes uploads and tunnels, and that can die and return.
type mixedServer struct {
	host   *lab.Host
	server *http.Server

	mu sync.Mutex
	// mu guards the following.
	tunnels map[net.Conn]bool
}

func (s *mixedServer) addr() netip.AddrPort { return netip.AddrPortFrom(s.host.Addr, webPort) }

func (s *mixedServer) start() error {
	l, err := s.host.Listen("tcp", s.addr().String())
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.tunnels = map[net.Conn]bool{}
	s.mu.Unlock()
	large := strings.Repeat("0123456789", 30_000)
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {})
	mux.HandleFunc("/small", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "small\n") })
	mux.HandleFunc("/large", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, large) })
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	})
	mux.HandleFunc("/tunnel", s.tunnel)
	s.server = &http.Server{Handler: mux, ReadHeaderTimeout: deadline}
	go s.server.Serve(l)
	return nil
}

func (s *mixedServer) tunnel(w http.ResponseWriter, _ *http.Request) {
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	s.mu.Lock()
	if s.tunnels == nil {
		s.mu.Unlock()
		return
	}
	s.tunnels[c] = true
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.tunnels, c)
		s.mu.Unlock()
	}()
	io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: lines\r\n\r\n")
	for {
		line, err := rw.ReadString('\n')
		if err != nil {
			return
		}
		if _, err := io.WriteString(c, line); err != nil {
			return
		}
	}
}

// die cuts whatever is under way.
func (s *mixedServer) die() {
	s.server.Close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.tunnels {
		c.Close()
	}
	s.tunnels = nil
}
