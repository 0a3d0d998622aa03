package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/state"
	"github.com/skeinlb/skein/state/cert"
)

// pemOf makes a certificate with that serial number, and its key, in one text.
func pemOf(t *testing.T, serial int64) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(serial), DNSNames: []string{"shop.example.com"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})) + string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}))
}

// One file and a certificate: what is renewed is shown after a reload, and what is broken leaves the old one.
func TestASingleNodeReadsItsCertificatesAgain(t *testing.T) {
	dir, port := t.TempDir(), freePort(t)
	file, pemFile := filepath.Join(dir, "edge.hcl"), filepath.Join(dir, "shop.pem")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, fmt.Sprintf(`frontend "web" {
  bind         = ["127.0.0.1"]
  https        = %d
  certificates = "shop"
  route "all" {
    path = "/*"
    respond { status = 204 }
  }
}
`, port))
	write(pemFile, pemOf(t, 1))
	if _, _, err := OpenSingle(file, nil, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), `no certificate "shop"`) {
		t.Errorf("without the certificate: %v", err)
	}
	s, diags, err := OpenSingle(file, []CertificateFiles{{Name: "shop", Files: []string{pemFile}}}, slog.New(slog.DiscardHandler))
	if err != nil || len(diags) > 0 {
		t.Fatalf("OpenSingle: %v, %v", err, diags)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx, time.Second) }()
	shown := func() string {
		t.Helper()
		c, err := tls.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	if got := shown(); got != "1" {
		t.Errorf("at first %s is shown", got)
	}
	write(pemFile, pemOf(t, 2))
	if _, err := s.Reload(); err != nil || shown() != "2" {
		t.Errorf("after a reload %s is shown, %v", shown(), err)
	}
	write(pemFile, "nothing of the sort")
	if _, err := s.Reload(); err == nil || !strings.Contains(err.Error(), "not a PEM file") || shown() != "2" {
		t.Errorf("after a bad file %s is shown, %v", shown(), err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestAKeyringOpensWhatWasSealedForItsNameAlone(t *testing.T) {
	pairs, _, err := cert.Read([]cert.File{{Name: "a", PEM: []byte(pemOf(t, 7))}}, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	seal := cert.NewSealKey()
	sealed := func(name string) []state.CertificatePair {
		key, err := seal.Seal(cert.KeyPurpose(name, "ecdsa"), pairs[0].Key)
		if err != nil {
			t.Fatal(err)
		}
		return []state.CertificatePair{{Algorithm: "ecdsa", Chain: pairs[0].Chain, Key: key}}
	}
	v := &state.View{Certificates: []state.Certificate{{Name: "moved", Pairs: sealed("shop"), Index: 1}, {Name: "shop", Pairs: sealed("shop"), Index: 2}}}
	k := keyring{seal: seal}
	certs, errs := k.open(v)
	if len(certs) != 1 || certs[0].Name != "shop" || len(errs) != 1 || !errors.Is(errs[0], cert.ErrSealed) {
		t.Fatalf("opened %v, %v", certs, errs)
	}
	if again, _ := k.open(v); again[0] != certs[0] {
		t.Error("what has not changed was opened again")
	}
	stranger := keyring{seal: cert.NewSealKey()}
	if certs, errs := stranger.open(v); len(certs) != 0 || len(errs) != 2 {
		t.Errorf("with another key: %v, %v", certs, errs)
	}
	none := keyring{}
	if _, errs := none.open(v); len(errs) != 2 || !errors.Is(errs[0], cert.ErrNoSealKey) {
		t.Errorf("without a key: %v", errs)
	}
}
