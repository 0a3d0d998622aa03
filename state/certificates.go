package state

import (
	"cmp"
	"slices"
	"time"
)

// Certificate is a certificate of the store, as it was imported. Its keys are sealed (see state/cert): whoever has the log or a
// snapshot and nothing else cannot read them.
type Certificate struct {
	Name  string
	Pairs []CertificatePair // by Algorithm
	Index uint64            // of the command that changed it last
	By    string
	At    time.Time // by the proposer's clock, for people only
}

// CertificatePair is a chain and its key.
type CertificatePair struct {
	Algorithm string // "ecdsa", "ed25519", "rsa": one of each at most
	Chain     []byte // PEM, leaf first
	Key       []byte `json:",omitempty"` // sealed
}

// TicketKey encrypts session tickets on all nodes.
type TicketKey struct {
	Number uint64 // log index of the command that made it
	Key    []byte `json:",omitempty"` // sealed
	Made   uint64 // log time, milliseconds
}

// PutCertificate stores a certificate, or of one that exists what it brings: a chain replaces the one of the same kind of key.
type PutCertificate struct {
	Name  string
	Pairs []CertificatePair
	By    string
	At    time.Time
}

// RemoveCertificate removes a certificate that the configuration does not name. With an Algorithm it removes that chain alone,
// unless it is the last one.
type RemoveCertificate struct {
	Name      string
	Algorithm string
}

// PutTicketKey adds a key for session tickets, if Expect still is the number of the newest (0: none), and keeps the Keep newest.
type PutTicketKey struct {
	Key    []byte
	Expect uint64
	Keep   int
}

func (PutCertificate) kind() kind    { return kindPutCertificate }
func (RemoveCertificate) kind() kind { return kindRemoveCertificate }
func (PutTicketKey) kind() kind      { return kindPutTicketKey }

// Bounds of the certificate store: what every node holds in memory, and what goes into every snapshot.
const (
	maxCertificates = 4096
	maxChain        = 64 << 10
	maxSealed       = 32 << 10
)

// Certificate returns the certificate of that name.
func (v *View) Certificate(name string) (Certificate, bool) {
	if i, ok := v.certificate(name); ok {
		return v.Certificates[i], true
	}
	return Certificate{}, false
}

func (v *View) certificate(name string) (int, bool) {
	return slices.BinarySearchFunc(v.Certificates, name, func(c Certificate, name string) int { return cmp.Compare(c.Name, name) })
}

// HasCertificate reports whether the configuration names a certificate.
func (s *Scope) HasCertificate(name string) bool {
	_, ok := slices.BinarySearch(s.Certificates, name)
	return ok
}

func (v *View) putCertificate(c PutCertificate) Result {
	if c.Name == "" || len(c.Name) > 63 {
		return refuse(Invalid, "a certificate's name has 1 to 63 characters")
	}
	if len(c.Pairs) == 0 {
		return refuse(Invalid, "certificate %q brings no chain", c.Name)
	}
	i, known := v.certificate(c.Name)
	if !known && len(v.Certificates) >= maxCertificates {
		return refuse(Invalid, "there are %d certificates already, as many as are kept", maxCertificates)
	}
	next := Certificate{Name: c.Name, Index: v.Index, By: c.By, At: c.At.UTC()}
	if known {
		next.Pairs = slices.Clone(v.Certificates[i].Pairs)
	}
	for _, p := range c.Pairs {
		if p.Algorithm == "" || len(p.Chain) == 0 || len(p.Chain) > maxChain || len(p.Key) == 0 || len(p.Key) > maxSealed {
			return refuse(Invalid, "certificate %q: a chain or a key is missing or too long", c.Name)
		}
		next.Pairs = slices.DeleteFunc(next.Pairs, func(o CertificatePair) bool { return o.Algorithm == p.Algorithm })
		next.Pairs = append(next.Pairs, p)
	}
	if len(next.Pairs) > 8 { // there are three kinds of key
		return refuse(Invalid, "certificate %q would have %d chains", c.Name, len(next.Pairs))
	}
	slices.SortFunc(next.Pairs, func(a, b CertificatePair) int { return cmp.Compare(a.Algorithm, b.Algorithm) })
	v.Certificates = slices.Clone(v.Certificates)
	if known {
		v.Certificates[i] = next
	} else {
		v.Certificates = slices.Insert(v.Certificates, i, next)
	}
	return Result{}
}

func (v *View) removeCertificate(c RemoveCertificate) Result {
	i, known := v.certificate(c.Name)
	if !known {
		return refuse(UnknownCertificate, "there is no certificate %q", c.Name)
	}
	pairs := slices.Clone(v.Certificates[i].Pairs)
	if c.Algorithm != "" {
		left := slices.DeleteFunc(pairs, func(p CertificatePair) bool { return p.Algorithm == c.Algorithm })
		if len(left) == len(v.Certificates[i].Pairs) {
			return refuse(UnknownCertificate, "certificate %q has no %s chain", c.Name, c.Algorithm)
		}
		pairs = left
	}
	if c.Algorithm == "" || len(pairs) == 0 {
		if v.Scope.HasCertificate(c.Name) {
			return refuse(InUse, "the configuration names certificate %q: take it away there first", c.Name)
		}
		v.Certificates = slices.Delete(slices.Clone(v.Certificates), i, i+1)
		return Result{}
	}
	v.Certificates = slices.Clone(v.Certificates)
	v.Certificates[i].Pairs, v.Certificates[i].Index = pairs, v.Index
	return Result{}
}

// missingCertificate refuses a configuration that names a certificate that is not in the store.
func (v *View) missingCertificate(s *Scope) Result {
	for _, name := range s.Certificates {
		if _, ok := v.certificate(name); !ok {
			return refuse(UnknownCertificate, "there is no certificate %q; import it first: skein cert import %s FILE...", name, name)
		}
	}
	return Result{}
}

func (v *View) putTicketKey(c PutTicketKey, now uint64) Result {
	var newest uint64
	if len(v.Tickets) > 0 {
		newest = v.Tickets[0].Number
	}
	switch {
	case c.Expect != newest:
		return refuse(Exists, "the newest ticket key is %d now, and this one was to follow %d", newest, c.Expect)
	case len(c.Key) == 0 || len(c.Key) > maxSealed || c.Keep < 1 || c.Keep > 16:
		return refuse(Invalid, "a ticket key is sealed, and 1 to 16 are kept")
	}
	v.Tickets = append([]TicketKey{{Number: v.Index, Key: c.Key, Made: now}}, v.Tickets...)
	v.Tickets = v.Tickets[:min(len(v.Tickets), c.Keep)]
	return Result{}
}

// withoutKeys returns copies that show no key, sealed or not.
func withoutKeys(certs []Certificate, tickets []TicketKey) ([]Certificate, []TicketKey) {
	certs, tickets = slices.Clone(certs), slices.Clone(tickets)
	for i := range certs {
		certs[i].Pairs = slices.Clone(certs[i].Pairs)
		for j := range certs[i].Pairs {
			certs[i].Pairs[j].Key = nil
		}
	}
	for i := range tickets {
		tickets[i].Key = nil
	}
	return certs, tickets
}
