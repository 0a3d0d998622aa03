package engine

import (
	"crypto/tls"
	"errors"
	"fmt"
	"slices"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/tlsterm"
)

// Certificate is what is shown under one name of the certificate store.
type Certificate = tlsterm.Certificate

// TicketKey encrypts session tickets.
type TicketKey = tlsterm.TicketKey

// SetCertificates replaces the certificates that frontends may name. Handshakes show the new ones from now on; connections that are
// established go on. One that the configuration in force names and that is missing stays.
func (e *Engine) SetCertificates(certs []*Certificate) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	byName := map[string]*Certificate{}
	for _, use := range e.plan.Load().Config.CertificateUses() {
		byName[use.Certificate] = e.certs[use.Certificate]
	}
	for _, c := range certs {
		byName[c.Name] = c
	}
	return e.setTLS(byName, e.tickets)
}

// SetTicketKeys replaces the keys of session tickets, the newest first: that one encrypts, all are taken. None: sessions are not
// resumed.
func (e *Engine) SetTicketKeys(keys []TicketKey) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.setTLS(e.certs, slices.Clone(keys))
}

// setTLS has every listener end TLS with these from the next handshake on; on any error nothing changes. The caller holds e.mu.
func (e *Engine) setTLS(certs map[string]*Certificate, tickets []TicketKey) error {
	terms, err := terminators(e.plan.Load().Config, certs, tickets)
	if err != nil {
		return err
	}
	e.certs, e.tickets = certs, tickets
	for _, l := range e.listeners {
		if l.tls {
			l.shared.SetTLS(terms[l.name])
		}
	}
	return nil
}

// terminators returns how each frontend of c ends TLS, by its name.
func terminators(c *config.Config, certs map[string]*Certificate, tickets []TicketKey) (map[string]*tlsterm.Terminator, error) {
	terms := map[string]*tlsterm.Terminator{}
	var errs []error
	for _, f := range c.Frontends {
		if f.TLS == nil {
			continue
		}
		o := tlsterm.Options{Frontend: f.Name, StrictNames: f.TLS.StrictNames, Tickets: tickets, MinVersion: tls.VersionTLS12}
		if f.TLS.MinVersion == config.TLS13 {
			o.MinVersion = tls.VersionTLS13
		}
		if f.Mode == config.HTTP {
			o.Protocols = []string{"http/1.1"}
		}
		missing := false
		for _, name := range f.TLS.Certificates {
			if cert := certs[name]; cert != nil {
				o.Certificates = append(o.Certificates, cert)
				continue
			}
			missing = true
			errs = append(errs, fmt.Errorf("frontend %q: there is no certificate %q", f.Name, name))
		}
		if missing {
			continue
		}
		t, err := tlsterm.New(o)
		if err != nil {
			errs = append(errs, fmt.Errorf("frontend %q: %w", f.Name, err))
			continue
		}
		terms[f.Name] = t
	}
	return terms, errors.Join(errs...)
}

// terminatorOf returns how TLS ends at a listener; nil: it does not.
func terminatorOf(l config.Listener, frontend string, terms map[string]*tlsterm.Terminator) *tlsterm.Terminator {
	if !l.TLS {
		return nil
	}
	return terms[frontend]
}
