// Package cert reads certificates as operators have them, checks them, and seals their keys for the replicated state.
//
// It is no store and shows nothing to clients: the state machine keeps what this package made, the engine shows it. It has no clock and
// opens no file. The one rule: what could only fail later, in front of a client, is refused here, with what to do about it.
package cert

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Pair is a chain, leaf first, and its key. A name in the store has one for each kind of key at most.
type Pair struct {
	Algorithm string // "ecdsa", "ed25519", "rsa"
	Chain     []byte // PEM
	Key       []byte // PEM, PKCS 8
}

// File is what an operator brings: any number of certificates and keys, in any order.
type File struct {
	Name string // for messages
	PEM  []byte
}

// Error is a refusal with what to do about it.
type Error struct{ What, Hint string }

func (e *Error) Error() string { return e.What }

func refuse(hint, format string, args ...any) error {
	return &Error{What: fmt.Sprintf(format, args...), Hint: hint}
}

// The least that is taken. NIST SP 800-57 gives both 112 bits of security until 2030.
const minRSA = 2048

// found is a certificate or a key with where it was.
type found struct {
	file string
	cert *x509.Certificate
	key  crypto.Signer
}

// Read sorts what is in the files into pairs: keys are matched with certificates, chains are put in order. warnings are about what
// will work, but not for long or not for everybody.
func Read(files []File, now time.Time) (pairs []Pair, warnings []string, err error) {
	certs, keys, err := decode(files)
	if err != nil {
		return nil, nil, err
	}
	switch {
	case len(certs) == 0:
		return nil, nil, refuse("give the file with the chain too, for example fullchain.pem", "there is no certificate in the files")
	case len(keys) == 0:
		return nil, nil, refuse("give the file with the key too, for example privkey.pem", "there is no private key in the files")
	}
	used := map[*x509.Certificate]bool{}
	var leaves []*x509.Certificate
	for _, k := range keys {
		leaf := leafOf(k.key, certs)
		if leaf == nil {
			return nil, nil, refuse("the two must be made from one request: `openssl pkey -in KEY -pubout` and `openssl x509 -in CERT -noout -pubkey` say the same then",
				"the key in %s belongs to none of the certificates", k.file)
		}
		if err := check(leaf, k.key, now); err != nil {
			return nil, nil, err
		}
		p := Pair{Algorithm: algorithm(leaf.PublicKey)}
		for _, other := range pairs {
			if other.Algorithm == p.Algorithm {
				return nil, nil, refuse("give each of them a name of its own", "there are two certificates with %s keys", strings.ToUpper(p.Algorithm))
			}
		}
		chain, more, err := chainOf(leaf, certs, now)
		if err != nil {
			return nil, nil, err
		}
		warnings = append(warnings, more...)
		for _, c := range chain {
			used[c] = true
			p.Chain = append(p.Chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
		}
		der, err := x509.MarshalPKCS8PrivateKey(k.key)
		if err != nil {
			return nil, nil, fmt.Errorf("write the key of %s: %w", k.file, err)
		}
		p.Key = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		pairs, leaves = append(pairs, p), append(leaves, leaf)
	}
	for _, c := range certs {
		switch {
		case used[c.cert], selfSigned(c.cert) && c.cert.IsCA: // a root is known to clients, or not trusted at all
		case !c.cert.IsCA && !renewed(c.cert, leaves):
			return nil, nil, refuse("give the file with its key too, or leave "+c.file+" out", "the key of %s, in %s, is not in the files", subject(c.cert), c.file)
		default:
			warnings = append(warnings, fmt.Sprintf("%s in %s is part of no chain and was left out", subject(c.cert), c.file))
		}
	}
	for _, l := range leaves[1:] {
		if !slices.Equal(names(l), names(leaves[0])) {
			warnings = append(warnings, fmt.Sprintf("the certificates are for different names: %s, and %s", strings.Join(names(leaves[0]), " "), strings.Join(names(l), " ")))
		}
	}
	return pairs, warnings, nil
}

// renewed tells whether a certificate is an older one of a key whose newest is taken.
func renewed(c *x509.Certificate, leaves []*x509.Certificate) bool {
	return slices.ContainsFunc(leaves, func(l *x509.Certificate) bool {
		return bytes.Equal(l.RawSubjectPublicKeyInfo, c.RawSubjectPublicKeyInfo)
	})
}

// decode reads all PEM blocks.
func decode(files []File) (certs, keys []found, err error) {
	for _, f := range files {
		rest, n := f.PEM, 0
		for {
			var b *pem.Block
			if b, rest = pem.Decode(rest); b == nil {
				break
			}
			n++
			switch {
			case b.Type == "CERTIFICATE":
				c, err := x509.ParseCertificate(b.Bytes)
				if err != nil {
					return nil, nil, refuse("", "certificate %d in %s cannot be read: %v", n, f.Name, err)
				}
				if !slices.ContainsFunc(certs, func(o found) bool { return o.cert.Equal(c) }) {
					certs = append(certs, found{file: f.Name, cert: c})
				}
			case b.Type == "EC PARAMETERS": // openssl ecparam writes them before the key
			case b.Type == "ENCRYPTED PRIVATE KEY" || b.Headers["Proc-Type"] != "":
				return nil, nil, refuse("decrypt it first: openssl pkey -in "+f.Name+" -out plain.pem (and keep that file to yourself)",
					"the key in %s is encrypted with a passphrase", f.Name)
			case strings.HasSuffix(b.Type, "PRIVATE KEY"):
				k, err := parseKey(b.Bytes)
				if err != nil {
					return nil, nil, refuse("ECDSA (P-256, P-384, P-521), Ed25519 and RSA keys are taken", "the key in %s cannot be read: %v", f.Name, err)
				}
				if !slices.ContainsFunc(keys, func(o found) bool {
					return o.key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(k.Public())
				}) {
					keys = append(keys, found{file: f.Name, key: k})
				}
			default:
				return nil, nil, refuse("certificates and private keys are taken", "%s holds a %q, which is neither a certificate nor a private key", f.Name, b.Type)
			}
		}
		if n == 0 {
			hint := "PEM files begin with -----BEGIN; to make one of DER: openssl x509 -inform der -in " + f.Name + " -out chain.pem"
			return nil, nil, refuse(hint, "%s is not a PEM file", f.Name)
		}
	}
	return certs, keys, nil
}

func parseKey(der []byte) (crypto.Signer, error) {
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	if k, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return k, nil
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T", k)
	}
	return s, nil
}

// leafOf returns the newest certificate of a key.
func leafOf(key crypto.Signer, certs []found) *x509.Certificate {
	var leaf *x509.Certificate
	for _, c := range certs {
		pub, ok := c.cert.PublicKey.(interface{ Equal(crypto.PublicKey) bool })
		if ok && pub.Equal(key.Public()) && (leaf == nil || c.cert.NotAfter.After(leaf.NotAfter)) {
			leaf = c.cert
		}
	}
	return leaf
}

// check refuses a leaf that clients would refuse.
func check(leaf *x509.Certificate, key crypto.Signer, now time.Time) error {
	switch k := key.(type) {
	case *rsa.PrivateKey:
		if n := k.N.BitLen(); n < minRSA {
			return refuse("make a new key: openssl ecparam -genkey -name prime256v1 -noout -out key.pem", "the RSA key of %s has %d bits, fewer than %d", subject(leaf), n, minRSA)
		}
	case *ecdsa.PrivateKey:
		if k.Curve != elliptic.P256() && k.Curve != elliptic.P384() && k.Curve != elliptic.P521() {
			return refuse("make a new key: openssl ecparam -genkey -name prime256v1 -noout -out key.pem", "the key of %s is on the curve %s, which clients do not take",
				subject(leaf), k.Curve.Params().Name)
		}
	case ed25519.PrivateKey:
	default:
		return refuse("ECDSA, Ed25519 and RSA keys are taken", "the key of %s is of a kind that TLS does not know", subject(leaf))
	}
	switch {
	case now.After(leaf.NotAfter):
		return refuse("renew it first", "%s expired on %s", subject(leaf), leaf.NotAfter.UTC().Format(time.DateOnly))
	case len(leaf.DNSNames) == 0 && len(leaf.IPAddresses) == 0:
		return refuse("have it issued with subjectAltName = DNS:shop.example.com", "%s is for no name: clients look at the subject's alternative names only", subject(leaf))
	case weakSignature(leaf) && !selfSigned(leaf):
		return refuse("have it issued anew", "%s is signed with %s, which clients no longer take", subject(leaf), leaf.SignatureAlgorithm)
	case len(leaf.ExtKeyUsage) > 0 && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageServerAuth) && !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageAny):
		return refuse("have it issued with extendedKeyUsage = serverAuth", "%s is not for servers", subject(leaf))
	}
	return nil
}

func weakSignature(c *x509.Certificate) bool {
	switch c.SignatureAlgorithm {
	case x509.MD2WithRSA, x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1:
		return true
	}
	return false
}

// chainOf follows the issuers of a leaf, without the root.
func chainOf(leaf *x509.Certificate, certs []found, now time.Time) (chain []*x509.Certificate, warnings []string, err error) {
	if now.Before(leaf.NotBefore) {
		warnings = append(warnings, fmt.Sprintf("%s is not valid before %s", subject(leaf), leaf.NotBefore.UTC().Format(time.DateTime)))
	}
	chain = []*x509.Certificate{leaf}
	for last := leaf; !selfSigned(last); {
		var issuer *x509.Certificate
		for _, c := range certs {
			if bytes.Equal(c.cert.RawSubject, last.RawIssuer) && last.CheckSignatureFrom(c.cert) == nil {
				issuer = c.cert
				break
			}
		}
		switch {
		case issuer == nil:
			if len(chain) == 1 {
				warnings = append(warnings, fmt.Sprintf("the certificate of its issuer, %s, is not in the files: unless that is a root, many clients will not trust %s",
					last.Issuer, subject(leaf)))
			}
			return chain, warnings, nil
		case selfSigned(issuer):
			return chain, warnings, nil
		case slices.Contains(chain, issuer):
			return nil, nil, refuse("", "the chain of %s goes round in a circle", subject(leaf))
		case now.After(issuer.NotAfter):
			return nil, nil, refuse("get the present chain from the issuer", "%s, which has issued %s, expired on %s", subject(issuer), subject(last), issuer.NotAfter.UTC().Format(time.DateOnly))
		case weakSignature(issuer):
			return nil, nil, refuse("get the present chain from the issuer", "%s is signed with %s, which clients no longer take", subject(issuer), issuer.SignatureAlgorithm)
		}
		chain = append(chain, issuer)
		last = issuer
	}
	return chain, warnings, nil
}

func selfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawSubject, c.RawIssuer) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// subject names a certificate in a message.
func subject(c *x509.Certificate) string {
	if n := names(c); len(n) > 0 && !c.IsCA {
		return "the certificate of " + n[0]
	}
	return fmt.Sprintf("the certificate of %q", c.Subject)
}

// names are the names that a certificate is for, in order.
func names(c *x509.Certificate) []string {
	n := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		n = append(n, ip.String())
	}
	return n
}

func algorithm(pub any) string {
	switch pub.(type) {
	case *ecdsa.PublicKey:
		return "ecdsa"
	case ed25519.PublicKey:
		return "ed25519"
	}
	return "rsa"
}

// Info is what a chain's leaf says.
type Info struct {
	Names       []string
	Issuer      string
	Serial      string
	Key         string // "ECDSA P-256", "RSA 2048"
	NotBefore   time.Time
	NotAfter    time.Time
	Fingerprint string // SHA-256
	SelfSigned  bool
	Length      int // of the chain
}

// InfoOf reads a chain that Read made.
func InfoOf(chain []byte) (Info, error) {
	b, rest := pem.Decode(chain)
	if b == nil {
		return Info{}, errors.New("not a certificate")
	}
	c, err := x509.ParseCertificate(b.Bytes)
	if err != nil {
		return Info{}, err
	}
	sum := sha256.Sum256(c.Raw)
	i := Info{
		Names: names(c), Issuer: c.Issuer.String(), Serial: c.SerialNumber.Text(16), NotBefore: c.NotBefore, NotAfter: c.NotAfter,
		Fingerprint: hex.EncodeToString(sum[:]), SelfSigned: selfSigned(c), Length: 1 + bytes.Count(rest, []byte("-----BEGIN CERTIFICATE")),
	}
	switch k := c.PublicKey.(type) {
	case *ecdsa.PublicKey:
		i.Key = "ECDSA " + k.Curve.Params().Name
	case *rsa.PublicKey:
		i.Key = fmt.Sprint("RSA ", k.N.BitLen())
	case ed25519.PublicKey:
		i.Key = "Ed25519"
	}
	return i, nil
}

// TLS returns what crypto/tls takes, its leaf read.
func (p *Pair) TLS() (tls.Certificate, error) {
	c, err := tls.X509KeyPair(p.Chain, p.Key)
	if err != nil {
		return c, err
	}
	if c.Leaf == nil {
		c.Leaf, err = x509.ParseCertificate(c.Certificate[0])
	}
	return c, err
}
