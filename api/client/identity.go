package client

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// DefaultDir is an agent's data_dir unless its node.hcl says otherwise.
const DefaultDir = "/var/lib/skein"

// defaultPort is where nodes listen for one another unless their node.hcl says otherwise.
const defaultPort = "7940"

// identityDir is where below its data_dir an agent keeps its certificate.
const identityDir = "cluster"

// alpn picks the admin API among the protocols that share a node's port.
const alpn = "skein-api"

// Identity returns what a connection to another node of the cluster needs, from the certificate in a node's data_dir. The other
// end must have a certificate of the same CA; which node it is does not matter, since every node answers for the cluster.
func Identity(dataDir string) (*tls.Config, error) {
	dir := filepath.Join(dataDir, identityDir)
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "node.crt"), filepath.Join(dir, "node.key"))
	if err != nil {
		return nil, fmt.Errorf("read the node's certificate: %w", err)
	}
	pem, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("read the cluster's CA: %s holds no certificate", filepath.Join(dir, "ca.crt"))
	}
	return &tls.Config{
		MinVersion:   tls.VersionTLS13,
		Certificates: []tls.Certificate{cert},
		NextProtos:   []string{alpn},
		// Nodes have names, not host names: the chain is checked here in the place of crypto/tls.
		InsecureSkipVerify: true,
		VerifyConnection:   func(s tls.ConnectionState) error { return verify(s, roots) },
	}, nil
}

func verify(s tls.ConnectionState, roots *x509.CertPool) error {
	if len(s.PeerCertificates) == 0 {
		return errors.New("the other end shows no certificate")
	}
	opts := x509.VerifyOptions{Roots: roots, Intermediates: x509.NewCertPool(), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, c := range s.PeerCertificates[1:] {
		opts.Intermediates.AddCert(c)
	}
	if _, err := s.PeerCertificates[0].Verify(opts); err != nil {
		return fmt.Errorf("the other end is no member of this cluster: %w", err)
	}
	if s.NegotiatedProtocol != alpn {
		return errors.New("the other end does not offer the admin API")
	}
	return nil
}

// WithPort adds the default port to an address that has none.
func WithPort(addr string) string {
	if _, _, err := net.SplitHostPort(addr); err == nil {
		return addr
	}
	return net.JoinHostPort(strings.Trim(addr, "[]"), defaultPort)
}
