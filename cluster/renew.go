package cluster

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"path/filepath"
	"time"
)

// renew replaces this node's certificate after two thirds of its life, through the leader. A renewed certificate is for the same
// key, so that nobody has to learn anything.
func (c *Cluster) renew(ctx context.Context) {
	for {
		if _, err := c.leadership.Wait(ctx, func(l Leadership) bool { return l.Leader != "" }); err != nil {
			return
		}
		next := time.Hour
		id := c.identity.Load()
		if now := c.opt.Now(); now.After(id.renewAt()) {
			if err := c.renewOnce(ctx, id); err != nil && ctx.Err() == nil {
				left := id.leaf.NotAfter.Sub(now).Round(time.Hour)
				c.log.Warn("the node's certificate was not renewed", "left", left, "err", err)
				next = 10 * time.Second
			}
		}
		pause := time.NewTimer(next)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return
		}
	}
}

func (c *Cluster) renewOnce(ctx context.Context, id *identity) error {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: id.name}}, id.key)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	der, err := c.ask(ctx, frameRenew, csr)
	if err != nil {
		return err
	}
	next, err := newIdentity(certPEM(id.ca.Raw), certPEM(der), id.key)
	if err != nil {
		return fmt.Errorf("the new certificate: %w", err)
	}
	if next.name != id.name || next.cluster != id.cluster {
		return fmt.Errorf("the new certificate is for %s of %s", next.name, next.cluster)
	}
	if err := writeFile(filepath.Join(c.dir, fileCert), certPEM(der)); err != nil {
		return err
	}
	c.identity.Store(next)
	c.log.Info("certificate renewed", "until", next.leaf.NotAfter.UTC().Format(time.DateOnly))
	return nil
}

// renewFor signs a member's next certificate on the leader. The member is the one at the other end of the connection, and the key
// must be the one that it has always had.
func (c *Cluster) renewFor(from peer, csr []byte) ([]byte, error) {
	if l := c.leadership.Get(); !l.Self || !l.Barrier {
		return nil, ErrNoLeader
	}
	key, err := requestKey(csr)
	if err != nil {
		return nil, err
	}
	v := c.view()
	n, ok := v.Node(from.name)
	if !ok {
		return nil, fmt.Errorf("renew the certificate of %s: %w", from.name, ErrUnknownNode)
	}
	if n.Fingerprint != key.fingerprint {
		return nil, fmt.Errorf("renew the certificate of %s: the key is not the one that it joined with", from.name)
	}
	return signNode(v.CA, key.public, v.Cluster.ID, n.Name, c.opt.Now())
}
