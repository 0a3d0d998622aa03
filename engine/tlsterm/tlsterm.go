// Package tlsterm ends TLS: it chooses certificates, carries handshakes out beside the loops, and seals and opens records on them.
//
// It opens no listener and knows no HTTP, no configuration text and no cluster; certificates and ticket keys are given to it. What it
// speaks is crypto/tls, with which it shares no state after a handshake but the connection itself. The one rule: nothing in it may
// block a loop, so a handshake is a goroutine's, and a connection is a loop's only when the handshake is over.
package tlsterm

import (
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
)

// Certificate is what is shown under one name of the certificate store: chains with their keys, one for each kind of key. Every
// chain's Leaf is set. Immutable.
type Certificate struct {
	Name   string
	Chains []tls.Certificate
}

// TicketKey encrypts session tickets. The nodes of a cluster share them, so that a client resumes on any of them.
type TicketKey [32]byte

// Options of a Terminator.
type Options struct {
	Frontend     string
	Certificates []*Certificate // at least one; the first is the default
	StrictNames  bool           // no default: who asks for no name, or an unknown one, gets an alert
	MinVersion   uint16         // tls.VersionTLS12 or later
	Protocols    []string       // ALPN, best first; none: the extension is not answered
	Tickets      []TicketKey    // newest first; none: sessions are not resumed
}

// Terminator is how one frontend ends TLS. Immutable; any goroutine may use it.
type Terminator struct {
	config *tls.Config
}

// New returns the terminator of a frontend.
func New(o Options) (*Terminator, error) {
	if len(o.Certificates) == 0 {
		return nil, errors.New("no certificate to show")
	}
	names := newTable(o.Certificates)
	c := &tls.Config{
		MinVersion: o.MinVersion,
		NextProtos: o.Protocols,
		// Of TLS 1.2, what has forward secrecy and authenticates what it encrypts. Those of 1.3 are not chosen from.
		CipherSuites: []uint16{
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		// Records that grow with the connection would save the first bytes of a page some milliseconds on a slow link. They cost
		// a system call and a seal for every 1.4 KB of every response up to 128 KB.
		DynamicRecordSizingDisabled: true,
		SessionTicketsDisabled:      len(o.Tickets) == 0,
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			return names.choose(h, o.StrictNames)
		},
	}
	if len(o.Tickets) > 0 {
		var keys [][32]byte
		for _, k := range o.Tickets {
			own, err := ticketKeyFor(k, o.Frontend)
			if err != nil {
				return nil, err
			}
			keys = append(keys, own)
		}
		c.SetSessionTicketKeys(keys)
	}
	return &Terminator{config: c}, nil
}

// ticketKeyFor makes a frontend's own key of a shared one: a session that was begun with one frontend means nothing to another.
func ticketKeyFor(k TicketKey, frontend string) (own [32]byte, err error) {
	b, err := hkdf.Key(sha256.New, k[:], nil, "skein session tickets of frontend "+frontend, len(own))
	if err != nil {
		return own, fmt.Errorf("derive a ticket key: %w", err)
	}
	return [32]byte(b), nil
}
