package cert

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"
)

var now = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

// issued is a certificate with its key and who signed it.
type issued struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func ec(t testing.TB, c elliptic.Curve) crypto.Signer {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
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

// issue makes a certificate; by nil: signed by itself. change may do anything to it before.
func issue(t testing.TB, key crypto.Signer, by *issued, name string, change func(*x509.Certificate)) issued {
	t.Helper()
	c := &x509.Certificate{
		SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(90 * 24 * time.Hour),
	}
	if strings.HasPrefix(name, "CA") {
		c.IsCA, c.BasicConstraintsValid = true, true
	} else {
		c.DNSNames = []string{name}
	}
	if change != nil {
		change(c)
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	out, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return issued{out, key}
}

func (i issued) chain() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: i.cert.Raw})
}

func (i issued) pkcs8(t testing.TB) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(i.key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func TestReadSortsWhatAnOperatorBrings(t *testing.T) {
	p256 := elliptic.P256()
	root := issue(t, ec(t, p256), nil, "CA root", nil)
	one := issue(t, ec(t, p256), &root, "CA one", nil)
	two := issue(t, ec(t, p256), &one, "CA two", nil)
	leaf := issue(t, ec(t, p256), &two, "shop.example.com", nil)
	older := issue(t, leaf.key, &two, "shop.example.com", func(c *x509.Certificate) { c.NotAfter = now.Add(time.Hour) })
	rsaLeaf := issue(t, rsaKey(), &two, "shop.example.com", nil)
	other := issue(t, ec(t, p256), &two, "other.example.com", nil)
	_, edKey, _ := ed25519.GenerateKey(rand.Reader)
	ed := issue(t, edKey, nil, "ed.example.com", nil)
	sec1, _ := x509.MarshalECPrivateKey(leaf.key.(*ecdsa.PrivateKey))
	sec1PEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: sec1})
	params := pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 1, 2}})
	pkcs1 := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey())})

	for _, tc := range []struct {
		name    string
		parts   [][]byte
		want    string // of each pair: algorithm and length of the chain
		warning string
	}{
		{"in order", [][]byte{leaf.chain(), two.chain(), one.chain(), leaf.pkcs8(t)}, "ecdsa 3", ""},
		{"out of order, with the root and twice", [][]byte{root.chain(), one.chain(), leaf.pkcs8(t), leaf.pkcs8(t), two.chain(), one.chain(), leaf.chain()}, "ecdsa 3", ""},
		{"SEC 1, with parameters and prose", [][]byte{params, sec1PEM, []byte("subject=shop\n"), leaf.chain(), two.chain(), one.chain()}, "ecdsa 3", ""},
		{"ECDSA and RSA", [][]byte{pkcs1, rsaLeaf.chain(), leaf.chain(), leaf.pkcs8(t), two.chain(), one.chain()}, "rsa 3, ecdsa 3", ""},
		{"Ed25519, self-signed", [][]byte{ed.chain(), ed.pkcs8(t)}, "ed25519 1", ""},
		{"the newest of one key", [][]byte{older.chain(), leaf.chain(), leaf.pkcs8(t), two.chain(), one.chain()}, "ecdsa 3", "part of no chain"},
		{"no issuer", [][]byte{leaf.chain(), leaf.pkcs8(t)}, "ecdsa 1", "many clients will not trust"},
		{"an issuer of nobody", [][]byte{leaf.chain(), leaf.pkcs8(t), two.chain(), one.chain(), issue(t, ec(t, p256), &root, "CA nobody", nil).chain()}, "ecdsa 3", "part of no chain"},
		{"for different names", [][]byte{leaf.chain(), leaf.pkcs8(t), ed.chain(), ed.pkcs8(t), two.chain(), one.chain()}, "ecdsa 3, ed25519 1", "different names"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			pairs, warnings, err := Read([]File{{"all.pem", bytes.Join(tc.parts, nil)}}, now)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range pairs {
				c, err := p.TLS()
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, p.Algorithm+" "+string(rune('0'+len(c.Certificate))))
				info, err := InfoOf(p.Chain)
				if err != nil || info.Length != len(c.Certificate) || !info.NotAfter.Equal(c.Leaf.NotAfter) {
					t.Errorf("info %+v, %v", info, err)
				}
			}
			if s := strings.Join(got, ", "); s != tc.want {
				t.Errorf("got %s, want %s", s, tc.want)
			}
			if all := strings.Join(warnings, "\n"); (all == "") != (tc.warning == "") || !strings.Contains(all, tc.warning) {
				t.Errorf("warnings %q, want one of %q", all, tc.warning)
			}
		})
	}

	for _, tc := range []struct {
		name  string
		parts [][]byte
		want  string
	}{
		{"key of another", [][]byte{leaf.chain(), other.pkcs8(t)}, "belongs to none of the certificates"},
		{"no key", [][]byte{leaf.chain()}, "no private key"},
		{"no certificate", [][]byte{leaf.pkcs8(t)}, "no certificate"},
		{"a leaf without its key", [][]byte{leaf.chain(), leaf.pkcs8(t), other.chain()}, "the key of the certificate of other.example.com"},
		{"two of one kind", [][]byte{leaf.chain(), leaf.pkcs8(t), other.chain(), other.pkcs8(t)}, "two certificates with ECDSA keys"},
		{"expired", [][]byte{issue(t, leaf.key, nil, "a", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Minute) }).chain(), leaf.pkcs8(t)}, "expired on 2026-03-04"},
		{"no name", [][]byte{issue(t, leaf.key, nil, "a", func(c *x509.Certificate) { c.DNSNames = nil }).chain(), leaf.pkcs8(t)}, "is for no name"},
		{"for clients only", [][]byte{issue(t, leaf.key, nil, "a", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth} }).chain(), leaf.pkcs8(t)}, "not for servers"},
		{"a curve of nobody", [][]byte{issue(t, ec(t, elliptic.P224()), nil, "a", nil).chain()}, "no private key"},
		{"encrypted", [][]byte{leaf.chain(), pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte{1}})}, "encrypted with a passphrase"},
		{"encrypted the old way", [][]byte{leaf.chain(), pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Headers: map[string]string{"Proc-Type": "4,ENCRYPTED"}, Bytes: []byte{1}})}, "encrypted with a passphrase"},
		{"a request", [][]byte{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: []byte{1}})}, "neither a certificate nor a private key"},
		{"a damaged certificate", [][]byte{pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}})}, "cannot be read"},
		{"DER", [][]byte{leaf.cert.Raw}, "not a PEM file"},
		{"an expired issuer", func() [][]byte {
			old := issue(t, ec(t, p256), &root, "CA old", func(c *x509.Certificate) { c.NotAfter = now.Add(-time.Hour) })
			l := issue(t, ec(t, p256), &old, "a", nil)
			return [][]byte{l.chain(), l.pkcs8(t), old.chain()}
		}(), "which has issued the certificate of a, expired"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			_, _, err := Read([]File{{"all.pem", bytes.Join(tc.parts, nil)}}, now)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
	p224 := issue(t, ec(t, elliptic.P224()), nil, "a", nil)
	if _, _, err := Read([]File{{"a", bytes.Join([][]byte{p224.chain(), p224.pkcs8(t)}, nil)}}, now); err == nil || !strings.Contains(err.Error(), "P-224") {
		t.Errorf("P-224: %v", err)
	}
}

func TestWhatIsSealedOpensForItsPurposeAlone(t *testing.T) {
	k, other := NewSealKey(), NewSealKey()
	a, err := k.Seal("a", []byte("secret"))
	if err != nil {
		t.Fatal(err)
	}
	again, _ := k.Seal("a", []byte("secret"))
	if bytes.Equal(a, again) || bytes.Contains(a, []byte("secret")) {
		t.Error("sealed twice it is the same, or not sealed at all")
	}
	if b, err := k.Open("a", a); err != nil || string(b) != "secret" {
		t.Errorf("opened %q, %v", b, err)
	}
	if _, err := k.Open("b", a); !errors.Is(err, ErrSealed) {
		t.Errorf("for another purpose: %v", err)
	}
	if _, err := other.Open("a", a); !errors.Is(err, ErrSealed) {
		t.Errorf("with another key: %v", err)
	}
	for i := range a {
		bad := bytes.Clone(a)
		bad[i] ^= 1
		if _, err := k.Open("a", bad); !errors.Is(err, ErrSealed) {
			t.Errorf("byte %d changed: %v", i, err)
		}
		if _, err := k.Open("a", a[:i]); !errors.Is(err, ErrSealed) {
			t.Errorf("cut off after %d bytes: %v", i, err)
		}
	}
	if _, err := (SealKey)(nil).Seal("a", nil); !errors.Is(err, ErrNoSealKey) {
		t.Errorf("without a key: %v", err)
	}
	if _, err := (SealKey)(nil).Open("a", a); !errors.Is(err, ErrNoSealKey) {
		t.Errorf("without a key: %v", err)
	}
}

// Files come from operators, and over the API from whoever may write.
func FuzzRead(f *testing.F) {
	leaf := issue(f, ec(f, elliptic.P256()), nil, "shop.example.com", nil)
	f.Add(append(leaf.chain(), leaf.pkcs8(f)...))
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		pairs, _, err := Read([]File{{"f", b}}, now)
		if (err == nil) != (len(pairs) > 0) {
			t.Fatalf("%d pairs, %v", len(pairs), err)
		}
		for _, p := range pairs {
			if _, err := p.TLS(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
