package cluster

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/skeinlb/skein/state/cert"
)

// ErrNoCluster says that a host is in no cluster yet.
var ErrNoCluster = errors.New("this host is in no cluster yet: found one with `skein cluster init`, or join one with `skein cluster join`")

// identity is who a node is towards its peers. Immutable; a renewed certificate makes a new one.
//
// Its three files live in Options.Dir: ca.crt, node.crt, node.key. Cluster and name stand in the certificate.
type identity struct {
	cluster     string
	name        string
	fingerprint string
	ca          *x509.Certificate
	leaf        *x509.Certificate
	key         *ecdsa.PrivateKey
	cert        tls.Certificate // leaf and CA: a joiner checks the pin on the CA
}

const (
	fileCA    = "ca.crt"
	fileCert  = "node.crt"
	fileKey   = "node.key"
	fileSeal  = "seal.key" // what certificates' keys in the log are encrypted with; never in the log itself
	fileFound = "found"    // the first command, from `cluster init` until the log has it
	fileStore = "raft.db"
	snapDir   = "snapshots" // raft.FileSnapshotStore's own name below Dir
)

// loadIdentity reads the files of a member. It returns ErrNoCluster when this host is none.
func loadIdentity(dir string) (*identity, error) {
	caPEM, err := os.ReadFile(filepath.Join(dir, fileCA))
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNoCluster
	}
	if err != nil {
		return nil, err
	}
	certPEM, err := os.ReadFile(filepath.Join(dir, fileCert))
	if errors.Is(err, os.ErrNotExist) {
		return nil, ErrNoCluster
	}
	if err != nil {
		return nil, err
	}
	key, err := loadKey(dir)
	if err != nil {
		return nil, err
	}
	return newIdentity(caPEM, certPEM, key)
}

func newIdentity(caPEM, certPEM []byte, key *ecdsa.PrivateKey) (*identity, error) {
	ca, err := parseCert(caPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileCA, err)
	}
	leaf, err := parseCert(certPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileCert, err)
	}
	if pub, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok || !pub.Equal(key.Public()) {
		return nil, fmt.Errorf("%s is not the certificate of %s", fileCert, fileKey)
	}
	id, name, err := certName(leaf)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", fileCert, err)
	}
	if err := leaf.CheckSignatureFrom(ca); err != nil {
		return nil, fmt.Errorf("%s is not signed by %s: %w", fileCert, fileCA, err)
	}
	return &identity{
		cluster:     id,
		name:        name,
		fingerprint: fingerprint(leaf.RawSubjectPublicKeyInfo),
		ca:          ca,
		leaf:        leaf,
		key:         key,
		cert:        tls.Certificate{Certificate: [][]byte{leaf.Raw, ca.Raw}, PrivateKey: key, Leaf: leaf},
	}, nil
}

// renewAt is when a certificate asks for its successor: after two thirds of its life.
func (id *identity) renewAt() time.Time {
	life := id.leaf.NotAfter.Sub(id.leaf.NotBefore)
	return id.leaf.NotBefore.Add(life * 2 / 3)
}

func loadKey(dir string) (*ecdsa.PrivateKey, error) {
	b, err := os.ReadFile(filepath.Join(dir, fileKey))
	if err != nil {
		return nil, err
	}
	key, err := parseKey(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, fileKey), err)
	}
	return key, nil
}

// ensureKey returns the key in dir and makes one if there is none, so that a join that is tried again comes with the same key.
func ensureKey(dir string) (*ecdsa.PrivateKey, error) {
	key, err := loadKey(dir)
	if !errors.Is(err, os.ErrNotExist) {
		return key, err
	}
	if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, err
	}
	b, err := marshalKey(key)
	if err != nil {
		return nil, err
	}
	return key, writeFile(filepath.Join(dir, fileKey), b)
}

// saveIdentity writes the CA first and the certificate last: with the certificate a host is a member.
func saveIdentity(dir string, caPEM, certPEM []byte) error {
	if err := writeFile(filepath.Join(dir, fileCA), caPEM); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, fileCert), certPEM)
}

// writeFile replaces a file as a whole and durably; only the owner may read it.
func writeFile(path string, b []byte) error {
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		os.Remove(tmp)
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// loadSealKey returns the key in dir; nil when there is none: the cluster was founded by a version that made none.
func loadSealKey(dir string) (cert.SealKey, error) {
	b, err := os.ReadFile(filepath.Join(dir, fileSeal))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return cert.SealKey(b), err
}

// saveSealKey writes it. A host that is founded or joined anew replaces what it had.
func saveSealKey(dir string, k cert.SealKey) error {
	if len(k) == 0 {
		return nil
	}
	return writeFile(filepath.Join(dir, fileSeal), k)
}
