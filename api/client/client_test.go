package client_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/api/apitest"
	"github.com/skeinlb/skein/api/client"
)

// serve answers on a unix socket with h and returns its path.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "skein.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(h)
	srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	return path
}

func TestUnreachableSaysWhyAndWhatToDo(t *testing.T) {
	dir := t.TempDir()
	dead := filepath.Join(dir, "dead.sock")
	l, err := net.Listen("unix", dead)
	if err != nil {
		t.Fatal(err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	l.Close()
	hangs := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })

	for _, tt := range []struct{ name, socket, says, hint string }{
		{"no socket", filepath.Join(dir, "none.sock"), "the socket does not exist", "skein agent"},
		{"dead agent", dead, "nobody listens there", "skein agent"},
		{"hung agent", hangs, "did not answer in time", "another node"},
		{"something else", serve(t, func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("hello")) }), "read the answer", "skein agent"},
		{"a wrong server", serve(t, http.NotFound), "unexpected answer 404", "skein agent"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			if tt.name == "hung agent" {
				ctx, cancel = context.WithTimeout(ctx, 10*time.Millisecond)
			}
			defer cancel()
			c := client.New(tt.socket)
			defer c.Close()
			_, err := c.Status(ctx)
			var gone *client.Unreachable
			if !errors.As(err, &gone) {
				t.Fatalf("err = %v, want an Unreachable", err)
			}
			if !strings.Contains(gone.Error(), tt.says) || !strings.Contains(gone.Hint(), tt.hint) {
				t.Errorf("%q, hint %q; want %q and %q", gone, gone.Hint(), tt.says, tt.hint)
			}
		})
	}
}

// Root is let in everywhere, so that the refusal of the kernel is made up here.
func TestDeniedIsToldFromAbsent(t *testing.T) {
	for err, says := range map[error]string{
		&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.EACCES)}: "permission denied",
		fs.ErrNotExist: "does not exist",
	} {
		c := client.NewDial("/run/skein.sock", func(context.Context) (net.Conn, error) { return nil, err })
		_, err := c.Node(t.Context())
		if err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}

// Whoever has asked another node by its address is not sent to look for a socket.
func TestTheHintForAnAddressIsNotTheSockets(t *testing.T) {
	refused := &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}
	for where, hint := range map[string]string{"198.51.100.2:7940": "leave --address out", "/run/skein.sock": "--socket"} {
		c := client.NewDial(where, func(context.Context) (net.Conn, error) { return nil, refused })
		_, err := c.Node(t.Context())
		var gone *client.Unreachable
		if !errors.As(err, &gone) || !strings.Contains(gone.Hint(), hint) {
			t.Errorf("%s: %v, want the hint %q", where, err, hint)
		}
	}
}

// The commit is said before the answer breaks off, and the break is an error: the caller must not take it for success.
func TestApplyThatBreaksOffIsAnError(t *testing.T) {
	c := client.New(serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Write([]byte(`{"committed":{"number":7}}` + "\n" + `{"node":{"no`))
	}))
	defer c.Close()
	var got []api.ApplyEvent
	err := c.Apply(t.Context(), api.ApplyRequest{}, func(e api.ApplyEvent) { got = append(got, e) })
	if err == nil || !strings.Contains(err.Error(), "broke off") {
		t.Errorf("err = %v", err)
	}
	if len(got) != 1 || got[0].Committed.Number != 7 {
		t.Errorf("events = %+v", got)
	}
}

func TestNamesInPathsAreEscaped(t *testing.T) {
	var paths []string
	c := client.New(serve(t, func(w http.ResponseWriter, r *http.Request) {
		paths = append(paths, r.RequestURI)
		w.Write([]byte("{}"))
	}))
	defer c.Close()
	c.ExplainVIP(t.Context(), "a/b?c")
	c.SetServer(t.Context(), "x y", "..", api.ServerRequest{})
	want := "/v1/vips/a%2Fb%3Fc/explain /v1/servers/x%20y/.."
	if got := strings.Join(paths, " "); got != want {
		t.Errorf("paths %s, want %s", got, want)
	}
}

// authority makes certificates as a cluster does: no host names, the node's name in a URI.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "skein CA"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key}
}

// dir writes a node's identity as an agent keeps it.
func (a *authority) dir(t *testing.T, node string) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	uri, _ := url.Parse("skein://c1/node/" + node)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{uri},
	}, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "cluster"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"ca.crt": {Type: "CERTIFICATE", Bytes: a.cert.Raw}, "node.crt": {Type: "CERTIFICATE", Bytes: der},
		"node.key": {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(filepath.Join(dir, "cluster", name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const text = `
frontend "f" {
  bind    = ["127.0.0.1"]
  http    = 80
  backend = "b"
}
backend "b" {
  server "s" { address = "127.0.0.1:81" }
}
`

func TestAnotherNodeIsAskedByCertificate(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	dir := ours.dir(t, "lb1")
	for _, tt := range []struct {
		name   string
		server string // data_dir of the node that answers
		alpn   string
		fails  string
	}{
		{"a member", ours.dir(t, "lb2"), "skein-api", ""},
		{"a stranger", theirs.dir(t, "lb2"), "skein-api", "no member of this cluster"},
		{"another port of a member", ours.dir(t, "lb2"), "", "does not offer the admin API"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			conf, err := client.Identity(tt.server)
			if err != nil {
				t.Fatal(err)
			}
			conf.ClientAuth, conf.VerifyConnection, conf.NextProtos = tls.RequireAnyClientCert, nil, []string{tt.alpn}
			if tt.alpn == "" {
				conf.NextProtos = nil
			}
			l, err := tls.Listen("tcp", "127.0.0.1:0", conf)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- api.New(apitest.New(t, "lb2").Nodes["lb2"].Options()).Serve(ctx, l) }()
			defer func() { cancel(); <-done }()

			mine, err := client.Identity(dir)
			if err != nil {
				t.Fatal(err)
			}
			c := client.NewTLS(l.Addr().String(), mine)
			defer c.Close()
			zero := uint64(0)
			err = c.Apply(t.Context(), api.ApplyRequest{Text: text, BasedOn: &zero}, func(api.ApplyEvent) {})
			if tt.fails != "" {
				if err == nil || !strings.Contains(err.Error(), tt.fails) {
					t.Errorf("err = %v, want %q", err, tt.fails)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			d, err := c.Config(t.Context())
			if err != nil || d.Revision.Author != "node lb1" {
				t.Errorf("the author is %q, want the name in the certificate; %v", d.Revision.Author, err)
			}
		})
	}
}

func TestIdentityNeedsItsFiles(t *testing.T) {
	a := newAuthority(t)
	for _, name := range []string{"node.crt", "node.key", "ca.crt"} {
		dir := a.dir(t, "lb1")
		if err := os.Remove(filepath.Join(dir, "cluster", name)); err != nil {
			t.Fatal(err)
		}
		if _, err := client.Identity(dir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("without %s: %v", name, err)
		}
	}
	dir := a.dir(t, "lb1")
	os.WriteFile(filepath.Join(dir, "cluster", "ca.crt"), []byte("rubbish"), 0o600)
	if _, err := client.Identity(dir); err == nil || !strings.Contains(err.Error(), "holds no certificate") {
		t.Errorf("rubbish for a CA: %v", err)
	}
}

func TestWithPort(t *testing.T) {
	for in, want := range map[string]string{
		"lb2": "lb2:7940", "lb2:1": "lb2:1", "192.0.2.1": "192.0.2.1:7940", "2001:db8::1": "[2001:db8::1]:7940",
		"[2001:db8::1]": "[2001:db8::1]:7940", "[2001:db8::1]:1": "[2001:db8::1]:1",
	} {
		if got := client.WithPort(in); got != want {
			t.Errorf("WithPort(%q) = %q, want %q", in, got, want)
		}
	}
}
