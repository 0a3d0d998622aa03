package engine_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/engine/plan"
	"github.com/skeinlb/skein/internal/race"
)

// chain makes a self-signed certificate for these names.
func chain(t testing.TB, key crypto.Signer, names ...string) tls.Certificate {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(mrand.Int64()), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func ecKey(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

var rsaKey = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return k
})

// cert is a certificate in the store, with one ECDSA chain.
func cert(t testing.TB, name string, names ...string) *engine.Certificate {
	return &engine.Certificate{Name: name, Chains: []tls.Certificate{chain(t, ecKey(t), names...)}}
}

// startTLS runs an engine whose frontend ends TLS for example.com on its port; more goes into the frontend.
func startTLS(t *testing.T, o engine.Options, mode, more string, servers ...net.Addr) *rig {
	t.Helper()
	if o.Loops == 0 {
		o.Loops = 1
	}
	e, err := engine.New(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.SetCertificates([]*engine.Certificate{cert(t, "main", "example.com", "*.example.com"), cert(t, "other", "example.org")}); err != nil {
		t.Fatal(err)
	}
	if err := e.SetTicketKeys([]engine.TicketKey{{1}}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- e.Run(ctx) }()
	r := &rig{t: t, e: e}
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	t.Cleanup(r.stop)
	port := freePort(t)
	r.addr = fmt.Sprintf("127.0.0.1:%d", port)
	if err := e.Apply(parse(t, frontendTLS(mode, port, more, servers...))); err != nil {
		t.Fatalf("Apply: %v", err)
	}
	return r
}

func frontendTLS(mode string, port int, more string, servers ...net.Addr) string {
	text := frontend(mode, port, "", servers...)
	if !strings.Contains(more, "certificates") {
		more += "\n certificates = [\"main\", \"other\"]"
	}
	return strings.Replace(text, " backend = \"b\"\n", " backend = \"b\"\n"+more+"\n", 1)
}

// dialTLS connects to the engine as a client that trusts everybody.
func (r *rig) dialTLS(c *tls.Config) *tls.Conn {
	r.t.Helper()
	c = c.Clone()
	c.InsecureSkipVerify = true
	if c.ServerName == "" {
		c.ServerName = "example.com"
	}
	conn := tls.Client(r.dial(), c)
	if err := conn.Handshake(); err != nil {
		r.t.Fatalf("handshake: %v", err)
	}
	return conn
}

// mirror answers every request with its own body, and says what the proxy said of it.
func mirror(w http.ResponseWriter, q *http.Request) {
	w.Header().Set("X-Proto", q.Header.Get("X-Forwarded-Proto"))
	b, err := io.ReadAll(q.Body)
	if err != nil {
		return
	}
	w.Write(b)
}

func TestHTTPSServesEveryVersionItSpeaks(t *testing.T) {
	r := startTLS(t, engine.Options{}, "https", "", serveHTTP(t, mirror))
	for _, c := range []struct {
		name   string
		config *tls.Config
		want   uint16 // 0: refused
	}{
		{"1.3", &tls.Config{}, tls.VersionTLS13},
		{"1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, tls.VersionTLS12},
		{"1.1", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, 0},
		{"1.2 without forward secrecy", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256}}, 0},
		{"1.2 with CBC", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}}, 0},
		{"ALPN http/1.1", &tls.Config{NextProtos: []string{"h2", "http/1.1"}}, tls.VersionTLS13},
		{"ALPN of something else", &tls.Config{NextProtos: []string{"h3"}}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.config.InsecureSkipVerify, c.config.ServerName = true, "example.com"
			conn := tls.Client(r.dial(), c.config)
			err := conn.Handshake()
			if (err == nil) != (c.want != 0) || conn.ConnectionState().Version != c.want && c.want != 0 {
				t.Fatalf("handshake: %v, version %x, want %x", err, conn.ConnectionState().Version, c.want)
			}
			if c.want == 0 {
				return
			}
			if p := c.config.NextProtos; len(p) > 0 && conn.ConnectionState().NegotiatedProtocol != "http/1.1" {
				t.Errorf("ALPN chose %q", conn.ConnectionState().NegotiatedProtocol)
			}
			br := bufio.NewReader(conn)
			for range 3 {
				resp, body := ask(t, conn, br, "POST", "POST / HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello")
				if body != "hello" || resp.Header.Get("X-Proto") != "https" {
					t.Errorf("got %q, X-Forwarded-Proto %q", body, resp.Header.Get("X-Proto"))
				}
			}
			conn.Close()
		})
	}
	st := r.settled()
	if st.Handshakes != 3 || st.Failures[plan.HandshakeFailed] != 4 {
		t.Errorf("%d handshakes, %d failed", st.Handshakes, st.Failures[plan.HandshakeFailed])
	}
}

func TestHTTPSPassesLargeBodiesBothWays(t *testing.T) {
	r := startTLS(t, engine.Options{}, "https", "", serveHTTP(t, mirror))
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, MaxVersion: version}}}
		defer c.CloseIdleConnections()
		// The edges of a record (16 KiB), of a scratch, and of what is spliced.
		for _, n := range []int{0, 1, 16383, 16384, 16385, 32768, 65535, 65536, 65537, 3 << 20} {
			body := make([]byte, n)
			rand.Read(body)
			for _, chunked := range []bool{false, true} {
				var in io.Reader = bytes.NewReader(body)
				if chunked {
					in = io.MultiReader(in)
				}
				resp, err := c.Post("https://"+r.addr+"/", "application/octet-stream", in)
				if err != nil {
					t.Fatalf("%x, %d bytes: %v", version, n, err)
				}
				got, err := io.ReadAll(resp.Body)
				resp.Body.Close()
				if err != nil || !bytes.Equal(got, body) {
					t.Fatalf("%x, %d bytes, chunked %v: got %d back, %v", version, n, chunked, len(got), err)
				}
			}
		}
	}
}

func TestHTTPSAnswersPipelinedRequestsHoweverTheyAreCut(t *testing.T) {
	r := startTLS(t, engine.Options{}, "https", "", serveHTTP(t, func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, q.URL.Path) }))
	conn := r.dialTLS(&tls.Config{})
	br := bufio.NewReader(conn)
	var all strings.Builder
	const requests = 60
	for i := range requests {
		fmt.Fprintf(&all, "GET /%d HTTP/1.1\r\nHost: example.com\r\n\r\n", i)
	}
	go func() {
		text := all.String()
		for len(text) > 0 { // records of any length, from one byte
			n := min(len(text), 1+mrand.IntN(97))
			if _, err := io.WriteString(conn, text[:n]); err != nil {
				return
			}
			text = text[n:]
		}
	}()
	for i := range requests {
		if _, body := answer(t, br, "GET"); body != fmt.Sprintf("/%d", i) {
			t.Fatalf("answer %d is %q", i, body)
		}
	}
}

func TestHTTPSWaitsForASlowReader(t *testing.T) {
	const size = 8 << 20
	r := startTLS(t, engine.Options{}, "https", "", serveHTTP(t, func(w http.ResponseWriter, _ *http.Request) {
		b := make([]byte, 1<<20)
		for range size / len(b) {
			w.Write(b)
		}
	}))
	conn := r.dialTLS(&tls.Config{})
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: example.com\r\nConnection: close\r\n\r\n")
	// Nothing is read until the proxy can take no more from its server.
	var last uint64
	for stable := 0; stable < 3; {
		time.Sleep(10 * time.Millisecond)
		if out := r.e.Stats().Frontends[0].BytesOut; out == last && out > 0 {
			stable++
		} else {
			stable, last = 0, out
		}
	}
	if last >= size {
		t.Fatalf("the proxy took all of %d bytes while nobody read", size)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, resp.Body); n != size || err != nil {
		t.Errorf("read %d of %d bytes, %v", n, size, err)
	}
}

func TestHTTPSSaysWhereAResponseWithoutLengthEnds(t *testing.T) {
	cut := atomic.Bool{}
	addr := serve(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.0 200 OK\r\n\r\nsome of it")
		if cut.Load() {
			c.(*net.TCPConn).SetLinger(0) // a reset, in the place of an end
		}
	})
	r := startTLS(t, engine.Options{}, "https", "", addr)
	read := func() (string, error) {
		conn := r.dialTLS(&tls.Config{})
		io.WriteString(conn, "GET / HTTP/1.0\r\n\r\n")
		b, err := io.ReadAll(conn)
		_, text, _ := strings.Cut(string(b), "\r\n\r\n")
		return text, err
	}
	if text, err := read(); text != "some of it" || err != nil {
		t.Errorf("a complete response: %q, %v", text, err)
	}
	cut.Store(true)
	if text, err := read(); err == nil {
		t.Errorf("a response that was cut off ended properly, with %q", text)
	}
}

func TestTLSStreamsEndAsTheirClientsMeanIt(t *testing.T) {
	ends := make(chan error, 1)
	addr := serve(t, func(c net.Conn) {
		b, err := io.ReadAll(c)
		ends <- err
		fmt.Fprintf(c, "got %q", b)
	})
	r := startTLS(t, engine.Options{}, "tls", "", addr)

	t.Run("close_notify ends one direction", func(t *testing.T) {
		conn := r.dialTLS(&tls.Config{})
		io.WriteString(conn, "hello")
		conn.CloseWrite()
		if b, err := io.ReadAll(conn); string(b) != `got "hello"` || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		if err := <-ends; err != nil {
			t.Errorf("the server's side ended with %v", err)
		}
	})
	t.Run("a stream that is cut off is reset", func(t *testing.T) {
		raw := r.dial()
		conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, ServerName: "example.com"})
		io.WriteString(conn, "hello")
		raw.(*net.TCPConn).CloseWrite() // without close_notify: somebody on the way may have done this
		if err := <-ends; err == nil {
			t.Error("the server saw a proper end of what was cut off")
		}
	})
	t.Run("the server ends first", func(t *testing.T) {
		addr := serve(t, func(c net.Conn) {
			io.WriteString(c, "bye")
			c.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, c)
			ends <- nil
		})
		if err := r.e.Apply(parse(t, frontendTLS("tls", r.port(), "", addr))); err != nil {
			t.Fatal(err)
		}
		conn := r.dialTLS(&tls.Config{})
		if b, err := io.ReadAll(conn); string(b) != "bye" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
		conn.Close()
		<-ends
	})
}

// settled returns what the frontend counted once every connection has ended whose client has gone.
func (r *rig) settled() engine.FrontendStats {
	r.t.Helper()
	for {
		st := r.e.Stats().Frontends[0]
		if st.Open() == 0 {
			return st
		}
		time.Sleep(time.Millisecond)
	}
}

// port is the port of the engine's listener.
func (r *rig) port() (port int) {
	fmt.Sscanf(r.addr, "127.0.0.1:%d", &port)
	return port
}

func TestCertificatesAreChosenByNameAndKey(t *testing.T) {
	r := startTLS(t, engine.Options{}, "https", "", serveHTTP(t, mirror))
	both := &engine.Certificate{Name: "main", Chains: []tls.Certificate{chain(t, rsaKey(), "example.com", "*.example.com"), chain(t, ecKey(t), "example.com", "*.example.com")}}
	if err := r.e.SetCertificates([]*engine.Certificate{both, cert(t, "other", "example.org", "sub.example.com")}); err != nil {
		t.Fatal(err)
	}
	noECDSA := &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}}
	for _, c := range []struct {
		sni    string
		config *tls.Config
		want   string // the certificate's first name
		rsa    bool
	}{
		{"example.com", &tls.Config{}, "example.com", false},
		{"EXAMPLE.com", &tls.Config{}, "example.com", false},
		{"example.com", noECDSA, "example.com", true},
		{"www.example.com", &tls.Config{}, "example.com", false},
		{"www.example.com", noECDSA, "example.com", true},
		{"sub.example.com", &tls.Config{}, "example.org", false}, // exact before wildcard
		{"example.org", &tls.Config{}, "example.org", false},
		{"a.b.example.com", &tls.Config{}, "example.com", false}, // the default: a wildcard is one label
		{"unknown.test", &tls.Config{}, "example.com", false},
		{"unknown.test", noECDSA, "example.com", true},
		{"", &tls.Config{}, "example.com", false},
	} {
		config := c.config.Clone()
		config.InsecureSkipVerify, config.ServerName = true, c.sni
		conn := tls.Client(r.dial(), config)
		if err := conn.Handshake(); err != nil {
			t.Errorf("%q: %v", c.sni, err)
			continue
		}
		leaf := conn.ConnectionState().PeerCertificates[0]
		_, isRSA := leaf.PublicKey.(*rsa.PublicKey)
		if leaf.DNSNames[0] != c.want || isRSA != c.rsa {
			t.Errorf("%q: shown %v (RSA: %v), want %s (RSA: %v)", c.sni, leaf.DNSNames, isRSA, c.want, c.rsa)
		}
	}
}

func TestStrictNamesRefuseWhatNoCertificateHas(t *testing.T) {
	r := startTLS(t, engine.Options{}, "https", "tls_options {\n strict_names = true\n min_version = \"1.3\"\n}\n", serveHTTP(t, mirror))
	for _, sni := range []string{"unknown.test", ""} {
		conn := tls.Client(r.dial(), &tls.Config{InsecureSkipVerify: true, ServerName: sni})
		err := conn.Handshake()
		var alert tls.AlertError
		if op := new(net.OpError); !errors.As(err, &op) || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%q: %v %v, want the alert unrecognized_name", sni, err, alert)
		}
	}
	r.dialTLS(&tls.Config{ServerName: "www.example.com"})
	if err := tls.Client(r.dial(), &tls.Config{InsecureSkipVerify: true, ServerName: "example.com", MaxVersion: tls.VersionTLS12}).Handshake(); err == nil {
		t.Error("TLS 1.2 was spoken where 1.3 is the oldest")
	}
	if n := r.e.Stats().Frontends[0].Failures[plan.NoCertificate]; n != 2 {
		t.Errorf("no_certificate was counted %d times, want 2", n)
	}
}

func TestCertificatesAreSwappedUnderLiveConnections(t *testing.T) {
	r := startTLS(t, engine.Options{}, "https", "", serveHTTP(t, mirror))
	old := r.dialTLS(&tls.Config{})
	next := []*engine.Certificate{cert(t, "main", "example.com"), cert(t, "other", "example.org")}
	if err := r.e.SetCertificates(next); err != nil {
		t.Fatal(err)
	}
	got := r.dialTLS(&tls.Config{}).ConnectionState().PeerCertificates[0]
	if !got.Equal(next[0].Chains[0].Leaf) {
		t.Error("the old certificate is still shown")
	}
	if _, body := ask(t, old, bufio.NewReader(old), "POST", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"); body != "hi" {
		t.Errorf("the old connection answered %q", body)
	}
	if err := r.e.SetCertificates(next[:1]); err != nil { // the other one is in use, and stays
		t.Error(err)
	}
	conf := parse(t, frontendTLS("https", r.port(), ` certificates = ["third"]`, serveHTTP(t, mirror)))
	for _, err := range []error{r.e.Check(conf), r.e.Apply(conf)} {
		if err == nil || !strings.Contains(err.Error(), `frontend "f": there is no certificate "third"`) {
			t.Errorf("a certificate that is not there was taken: %v", err)
		}
	}
	r.dialTLS(&tls.Config{ServerName: "example.org"})
}

func TestSessionsResumeOnAnyEngineWithTheKeys(t *testing.T) {
	server := serveHTTP(t, mirror)
	a, b := startTLS(t, engine.Options{}, "https", "", server), startTLS(t, engine.Options{}, "https", "", server)
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		cache := tls.NewLRUClientSessionCache(8)
		visit := func(r *rig) bool {
			conn := r.dialTLS(&tls.Config{ClientSessionCache: cache, MaxVersion: version})
			ask(t, conn, bufio.NewReader(conn), "GET", "GET / HTTP/1.1\r\nHost: a\r\n\r\n") // brings the tickets of 1.3
			return conn.ConnectionState().DidResume
		}
		set := func(r *rig, keys ...engine.TicketKey) {
			if err := r.e.SetTicketKeys(keys); err != nil {
				t.Fatal(err)
			}
		}
		set(a, engine.TicketKey{1})
		set(b, engine.TicketKey{1})
		if visit(a) {
			t.Errorf("%x: the first visit resumed", version)
		}
		if !visit(b) {
			t.Errorf("%x: not resumed on another engine", version)
		}
		set(b, engine.TicketKey{2}, engine.TicketKey{1}) // rotated: the old one is still taken
		if !visit(b) {
			t.Errorf("%x: not resumed after a rotation", version)
		}
		set(a, engine.TicketKey{3}, engine.TicketKey{2})
		if version == tls.VersionTLS13 && !visit(a) { // 1.2 issues no new ticket on a resumption with an old key in time
			t.Errorf("%x: the ticket of the new key was not taken", version)
		}
		set(a, engine.TicketKey{9})
		if visit(a) {
			t.Errorf("%x: resumed with a key that is gone", version)
		}
		set(a)
		for range 2 {
			if visit(a) {
				t.Errorf("%x: resumed without any key", version)
			}
		}
	}
	if st := b.e.Stats().Frontends[0]; st.Resumed != 4 {
		t.Errorf("%d resumed sessions were counted, want 4", st.Resumed)
	}
}

func TestRedirectToHTTPS(t *testing.T) {
	plain := freePort(t)
	more := fmt.Sprintf(" http = %d\n redirect = \"https\"\n", plain)
	r := startTLS(t, engine.Options{}, "https", more, serveHTTP(t, func(w http.ResponseWriter, q *http.Request) { io.WriteString(w, "served "+q.URL.Path) }))
	for _, c := range []struct{ raw, location string }{
		{"GET /a/b?c=d&e HTTP/1.1\r\nHost: shop.example.com\r\n\r\n", "https://shop.example.com:PORT/a/b?c=d&e"},
		{"GET / HTTP/1.1\r\nHost: shop.example.com:8080\r\n\r\n", "https://shop.example.com:PORT/"},
		{"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi", "https://a:PORT/x"},
		{"GET http://b:81/x HTTP/1.1\r\nHost: a\r\n\r\n", "https://b:PORT/x"},
		{"GET /x HTTP/1.0\r\n\r\n", "https://127.0.0.1:PORT/x"},
		{"HEAD /x HTTP/1.1\r\nHost: [::1]:8080\r\n\r\n", "https://[::1]:PORT/x"},
		{"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "https://a:PORT"},
	} {
		conn, err := net.Dial("tcp", fmt.Sprint("127.0.0.1:", plain))
		if err != nil {
			t.Fatal(err)
		}
		method, _, _ := strings.Cut(c.raw, " ")
		resp, _ := ask(t, conn, bufio.NewReader(conn), method, c.raw)
		want := strings.Replace(c.location, "PORT", fmt.Sprint(r.port()), 1)
		if resp.StatusCode != 308 || resp.Header.Get("Location") != want {
			t.Errorf("%q: %d to %q, want %q", c.raw, resp.StatusCode, resp.Header.Get("Location"), want)
		}
		conn.Close()
	}
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/.well-known/acme-challenge/token", plain))
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := io.ReadAll(resp.Body); string(b) != "served /.well-known/acme-challenge/token" {
		t.Errorf("a challenge was answered with %d %q", resp.StatusCode, b)
	}
	resp.Body.Close()
	conn := r.dialTLS(&tls.Config{})
	if _, body := ask(t, conn, bufio.NewReader(conn), "GET", "GET /x HTTP/1.1\r\nHost: a\r\n\r\n"); body != "served /x" {
		t.Errorf("with TLS the answer is %q", body)
	}
}

// Who is sent to https leaves a line like anybody, and is bounded like anybody.
func TestRedirectsToHTTPSAreLoggedAndLimited(t *testing.T) {
	plain, path := freePort(t), filepath.Join(t.TempDir(), "access.log")
	more := fmt.Sprintf(" http = %d\n redirect = \"https\"\n", plain)
	addr := serveHTTP(t, mirror)
	r := startTLS(t, engine.Options{}, "https", more, addr)
	blocks := "limit \"few\" {\n rate = \"2/h\"\n burst = 2\n connections = 1\n}\n"
	text := withLog(blocks+frontendTLS("https", r.port(), more+" limit = \"few\"\n", addr), "haproxy", path)
	if err := r.e.Apply(parse(t, text)); err != nil {
		t.Fatal(err)
	}
	secure := r.addr
	r.addr = fmt.Sprint("127.0.0.1:", plain)
	conn, second := r.dial(), r.dial()
	br := bufio.NewReader(conn)
	var got []int
	for i := range 3 {
		resp, _ := ask(t, conn, br, "GET", fmt.Sprintf("GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i))
		got = append(got, resp.StatusCode)
	}
	resp, _ := ask(t, second, bufio.NewReader(second), "GET", "GET /second HTTP/1.1\r\nHost: a\r\n\r\n")
	if fmt.Sprint(got) != "[308 308 429]" || resp.StatusCode != 429 || !resp.Close {
		t.Errorf("answers %v; a second connection: %s, close %v", got, resp.Status, resp.Close)
	}
	r.addr = secure
	c := r.dial() // with TLS there is no answer short of a handshake
	c.Write([]byte{22, 3, 1})
	if _, err := c.Read(make([]byte, 1)); err == nil || err == io.EOF {
		t.Errorf("a second connection with TLS: %v, want a reset", err)
	}
	waitFor(t, "that connection to be gone", func() bool { return r.e.Stats().Frontends[0].Open() <= 1 })
	waitFor(t, "the lines", func() bool { return r.e.Stats().Log.Written == 4 })
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{`308 \d+ - - LR-- .* "GET /0 HTTP/1.1"`, `308 \d+ - - LR-- .* "GET /1 HTTP/1.1"`,
		`429 \d+ - - PR-- .* "GET /2 HTTP/1.1"`, `429 \d+ - - PR-- .* "GET /second HTTP/1.1"`} {
		if line := strings.Split(string(b), "\n")[i]; !regexp.MustCompile(` f f/<NOSRV> \d+/-1/-1/-1/\d+ ` + want + `$`).MatchString(line) {
			t.Errorf("line %d: %s, want %s", i+1, line, want)
		}
	}
}

func TestRoutesSeeTheNameThatTheClientAskedFor(t *testing.T) {
	more := " route \"a\" {\n when = sni == \"a.example.com\"\n respond {\n status = 200\n body = \"route a\"\n}\n}\n"
	r := startTLS(t, engine.Options{}, "https", more, serveHTTP(t, mirror))
	for sni, want := range map[string]string{"A.example.com": "route a", "b.example.com": ""} {
		conn := r.dialTLS(&tls.Config{ServerName: sni})
		if _, body := ask(t, conn, bufio.NewReader(conn), "GET", "GET / HTTP/1.1\r\nHost: other\r\n\r\n"); body != want {
			t.Errorf("%s: %q, want %q", sni, body, want)
		}
	}
}

func TestFailedHandshakesAreCountedByReason(t *testing.T) {
	r := startTLS(t, engine.Options{}, "https", "", serveHTTP(t, mirror))
	hasty := startTLS(t, engine.Options{}, "https", " timeouts {\n handshake = \"50ms\"\n}\n", serveHTTP(t, mirror))
	try := func(r *rig, kind plan.Failure, f func(net.Conn)) {
		t.Helper()
		before := r.e.Stats().Frontends[0]
		c := r.dial()
		f(c)
		for st := before; st.Failures[kind] == before.Failures[kind] || st.Ended == before.Ended; st = r.e.Stats().Frontends[0] {
			time.Sleep(time.Millisecond)
		}
	}
	try(r, plan.HandshakeFailed, func(c net.Conn) {
		resp, body := ask(t, c, bufio.NewReader(c), "GET", "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		if resp.StatusCode != 400 || !strings.Contains(body, "HTTPS") {
			t.Errorf("who speaks HTTP is told %d %q", resp.StatusCode, body)
		}
	})
	try(r, plan.HandshakeFailed, func(c net.Conn) { io.WriteString(c, "\x16\x03\x01\x00\x05hello"); io.Copy(io.Discard, c) })
	try(hasty, plan.HandshakeTimeout, func(c net.Conn) { io.WriteString(c, "\x16\x03\x01"); io.Copy(io.Discard, c) })
	try(r, plan.HandshakeClosed, func(c net.Conn) { io.WriteString(c, "\x16\x03\x01"); c.Close() })
	try(r, plan.ClientAlert, func(c net.Conn) { tls.Client(c, &tls.Config{ServerName: "example.com"}).Handshake() }) // trusts nobody
}

// A stopping engine ends the handshakes that are under way, and Run waits for them.
func TestHandshakesEndWithTheEngine(t *testing.T) {
	r := startTLS(t, engine.Options{}, "https", "", serveHTTP(t, mirror))
	before := runtime.NumGoroutine()
	var conns []net.Conn
	for range 20 {
		c := r.dial()
		io.WriteString(c, "\x16\x03\x01")
		conns = append(conns, c)
	}
	for r.e.Stats().Loops[0].Clients < 20 || runtime.NumGoroutine() < before+20 {
		time.Sleep(time.Millisecond)
	}
	r.e.Drain(canceled())
	r.stop()
	for _, c := range conns {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("a connection is still open")
		}
	}
}

func canceled() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}

func TestServingHTTPSAllocatesLittle(t *testing.T) {
	response := []byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nServer: test\r\n\r\nok")
	addr := serve(t, func(c net.Conn) {
		b := make([]byte, 4096)
		for {
			if _, err := c.Read(b); err != nil {
				return
			}
			c.Write(response)
		}
	})
	r := startTLS(t, engine.Options{}, "https", "", addr)
	c := r.dialTLS(&tls.Config{})
	request := []byte("GET / HTTP/1.1\r\nHost: example.com\r\n\r\n")
	const requests = 2000
	n := allocations(t, c, requests, request)
	t.Logf("%d requests, %d allocations", requests, n)
	// crypto/tls allocates 24 bytes each time that it reads from its network: a record's head and body in one go, on both sides
	// of this test.
	if n > 2*requests+requests/20 && !race.Enabled {
		t.Errorf("%d requests made %d allocations", requests, n)
	}
}
