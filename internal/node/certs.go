package node

import (
	"context"
	"fmt"
	"slices"

	"github.com/skeinlb/skein/engine"
	"github.com/skeinlb/skein/state"
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
		c.Chains = append(c.Chains, t)
	}
	return c, nil
}

// opened is a certificate of the store as the engine takes it, or why it cannot be had.
type opened struct {
	index uint64 // of the command that changed it last
	cert  *engine.Certificate
	err   error
}

// keyring opens what is sealed in the replicated state, and remembers what it has opened. For one goroutine at a time.
type keyring struct {
	seal  cert.SealKey
	certs map[string]opened
}

// open returns the certificates of a view that can be opened, and the reasons for those that cannot.
func (k *keyring) open(v *state.View) (certs []*engine.Certificate, errs []error) {
	next := make(map[string]opened, len(v.Certificates))
	for _, c := range v.Certificates {
		o, ok := k.certs[c.Name]
		if !ok || o.index != c.Index {
			o = opened{index: c.Index}
			o.cert, o.err = k.openOne(c)
		}
		next[c.Name] = o
		if o.err != nil {
			errs = append(errs, o.err)
			continue
		}
		certs = append(certs, o.cert)
	}
	k.certs = next
	return certs, errs
}

func (k *keyring) openOne(c state.Certificate) (*engine.Certificate, error) {
	var pairs []cert.Pair
	for _, p := range c.Pairs {
		key, err := k.seal.Open(cert.KeyPurpose(c.Name, p.Algorithm), p.Key)
		if err != nil {
			return nil, fmt.Errorf("key of certificate %q: %w", c.Name, err)
		}
		pairs = append(pairs, cert.Pair{Algorithm: p.Algorithm, Chain: p.Chain, Key: key})
	}
	return certificate(c.Name, pairs)
}

// tellCertificates gives the certificates of a view to the engine, as far as they can be opened, when they have changed.
func (n *Node) tellCertificates(v *state.View) {
	n.certsMu.Lock()
	defer n.certsMu.Unlock()
	if n.engine == nil || slices.EqualFunc(n.certsTold, v.Certificates, func(a, b state.Certificate) bool { return a.Name == b.Name && a.Index == b.Index }) {
		return
	}
	certs, errs := n.keys.open(v)
	for _, err := range errs {
		n.log.Error("certificate not usable", "why", err)
	}
	if err := n.engine.SetCertificates(certs); err != nil {
		n.log.Error("certificates not taken", "why", err)
		return
	}
	n.certsTold = v.Certificates
	n.sealedOff = errs
	n.log.Info("certificates", "number", len(certs), "unusable", len(errs))
}

// unusableCertificates returns why certificates of the store cannot be shown by this node.
func (n *Node) unusableCertificates() []error {
	n.certsMu.Lock()
	defer n.certsMu.Unlock()
	return n.sealedOff
}

// coupleCertificates: certificates in the log -> the engine, without a reload. What a configuration of the same view names is told
// by coupleConfig first.
func (n *Node) coupleCertificates(ctx context.Context) {
	n.machine.Views().Each(ctx, func(*state.View) { n.tell(n.tellCertificates) })
}
