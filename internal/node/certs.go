package node

import (
	"crypto/tls"
	"fmt"

	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/state/cert"
)

// certificate makes what the engine shows of what the store holds.
func certificate(name string, pairs []cert.Pair) (*engine.Certificate, error) {
	c := &engine.Certificate{Name: name}
	for _, p := range pairs {
		t, err := p.TLS()
		if err != nil {
			return nil, fmt.Errorf("certificate %q: %w", name, err)
		}
		c.Chains = append(c.Chains, tls.Certificate{Certificate: t.Certificate, PrivateKey: t.PrivateKey, Leaf: t.Leaf})
	}
	return c, nil
}
