package cluster

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strings"
	"time"

	"github.com/skeinlb/skein/state"
)

const (
	caLife   = 20 * 365 * 24 * time.Hour
	nodeLife = 365 * 24 * time.Hour
	// expiryGrace is how long after its end a certificate is still taken: what keeps strangers out is the CA and the list of removed
	// keys; the end of a certificate only makes sure that renewal works. A clock that stands before the beginning of a
	// certificate is wrong (a board without a battery boots in 1970), and splits no cluster either.
	expiryGrace = 90 * 24 * time.Hour
)

// Reasons why a certificate is not taken.
var (
	ErrForeign = errors.New("the certificate is not of this cluster")
	ErrRemoved = errors.New("the node was removed from the cluster")
	ErrExpired = errors.New("the certificate expired")
)

// newCA makes the authority of a new cluster: ECDSA P-256, good for node certificates and nothing else.
func newCA(clusterID string, now time.Time) (state.CA, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return state.CA{}, err
	}
	t := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{CommonName: "skein " + clusterID},
		NotBefore:             now.Add(-time.Hour),
		NotAfter:              now.Add(caLife),
		KeyUsage:              x509.KeyUsageCertSign,
		IsCA:                  true,
		BasicConstraintsValid: true,
		MaxPathLenZero:        true,
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return state.CA{}, err
	}
	keyPEM, err := marshalKey(key)
	if err != nil {
		return state.CA{}, err
	}
	return state.CA{CertPEM: certPEM(der), KeyPEM: keyPEM}, nil
}

// signNode makes a node's certificate. The name in it is the one that the cluster knows, never one that the request says.
func signNode(ca state.CA, pub crypto.PublicKey, clusterID, name string, now time.Time) ([]byte, error) {
	caCert, err := parseCert(ca.CertPEM)
	if err != nil {
		return nil, fmt.Errorf("certificate of the cluster's authority: %w", err)
	}
	caKey, err := parseKey(ca.KeyPEM)
	if err != nil {
		return nil, fmt.Errorf("key of the cluster's authority: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: serial(),
		Subject:      pkix.Name{CommonName: name},
		URIs:         []*url.URL{nodeURI(clusterID, name)},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.Add(nodeLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	return x509.CreateCertificate(rand.Reader, t, caCert, pub, caKey)
}

// peer is who stands behind a certificate that was verified.
type peer struct {
	name        string
	fingerprint string
}

// verify checks a peer's certificate: signed by ca, of the cluster, in time (within the grace), not removed.
func verify(ca *x509.Certificate, clusterID string, chain []*x509.Certificate, now time.Time, removed func(string) bool) (peer, error) {
	if len(chain) == 0 {
		return peer{}, fmt.Errorf("%w: there is none", ErrForeign)
	}
	leaf := chain[0]
	roots := x509.NewCertPool()
	roots.AddCert(ca)
	at := now
	if at.Before(leaf.NotBefore) {
		at = leaf.NotBefore
	}
	if at.After(leaf.NotAfter) {
		if at.After(leaf.NotAfter.Add(expiryGrace)) {
			return peer{}, fmt.Errorf("%w on %s, and this node's clock says %s", ErrExpired,
				leaf.NotAfter.UTC().Format(time.DateOnly), now.UTC().Format(time.DateOnly))
		}
		at = leaf.NotAfter
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	if err != nil {
		return peer{}, fmt.Errorf("%w: %w", ErrForeign, err)
	}
	id, name, err := certName(leaf)
	if err != nil {
		return peer{}, fmt.Errorf("%w: %w", ErrForeign, err)
	}
	if id != clusterID {
		return peer{}, fmt.Errorf("%w: it is of cluster %s, this is %s", ErrForeign, id, clusterID)
	}
	p := peer{name: name, fingerprint: fingerprint(leaf.RawSubjectPublicKeyInfo)}
	if removed != nil && removed(p.fingerprint) {
		return peer{}, fmt.Errorf("%w: %s", ErrRemoved, name)
	}
	return p, nil
}

// fingerprint names a node's key. It is of the key and not of the certificate, so that a renewed certificate is the same node and
// a removed node stays removed with every certificate that it ever had.
func fingerprint(spki []byte) string {
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:])
}

func nodeURI(clusterID, name string) *url.URL {
	return &url.URL{Scheme: "skein", Host: clusterID, Path: "/node/" + name}
}

// certName returns the cluster and the node that a certificate names: skein://CLUSTER/node/NAME.
func certName(c *x509.Certificate) (clusterID, name string, err error) {
	for _, u := range c.URIs {
		if u.Scheme == "skein" {
			if name, ok := strings.CutPrefix(u.Path, "/node/"); ok && name != "" {
				return u.Host, name, nil
			}
		}
	}
	return "", "", errors.New("it names no node")
}

// checkName says whether a name can be a node's.
func checkName(name string) error {
	if name == "" || len(name) > 63 {
		return fmt.Errorf("node name %q: 1 to 63 characters are allowed", name)
	}
	for i, c := range name {
		ok := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || i > 0 && (c == '-' || c == '_' || c == '.')
		if !ok {
			return fmt.Errorf("node name %q: only letters, digits, and after the first of them - _ . are allowed", name)
		}
	}
	return nil
}

func serial() *big.Int {
	b := make([]byte, 16)
	rand.Read(b)
	b[0] &= 0x7f // positive
	return new(big.Int).SetBytes(b)
}

func certPEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func marshalKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseCert(b []byte) (*x509.Certificate, error) {
	p, _ := pem.Decode(bytes.TrimSpace(b))
	if p == nil || p.Type != "CERTIFICATE" {
		return nil, errors.New("not a PEM certificate")
	}
	return x509.ParseCertificate(p.Bytes)
}

func parseKey(b []byte) (*ecdsa.PrivateKey, error) {
	p, _ := pem.Decode(bytes.TrimSpace(b))
	if p == nil || p.Type != "PRIVATE KEY" {
		return nil, errors.New("not a PEM private key")
	}
	k, err := x509.ParsePKCS8PrivateKey(p.Bytes)
	if err != nil {
		return nil, err
	}
	ec, ok := k.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("a key of type %T, ECDSA is expected", k)
	}
	return ec, nil
}
