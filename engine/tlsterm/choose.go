package tlsterm

import (
	"cmp"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/tls"
	"slices"
	"strings"
)

// table is which chains are shown for which name. Immutable.
type table struct {
	exact    map[string][]*tls.Certificate // in lower case
	below    map[string][]*tls.Certificate // "example.com" for "*.example.com"
	fallback []*tls.Certificate
}

// newTable enters every certificate under the names that it is good for. Where two are good for one name, the one that was named
// first comes first within its kind of key.
func newTable(certs []*Certificate) *table {
	t := &table{exact: map[string][]*tls.Certificate{}, below: map[string][]*tls.Certificate{}}
	for i, c := range certs {
		for j := range c.Chains {
			chain := &c.Chains[j]
			for _, name := range chain.Leaf.DNSNames {
				name = strings.ToLower(strings.TrimSuffix(name, "."))
				if suffix, wild := strings.CutPrefix(name, "*."); wild {
					t.below[suffix] = append(t.below[suffix], chain)
				} else {
					t.exact[name] = append(t.exact[name], chain)
				}
			}
			if i == 0 {
				t.fallback = append(t.fallback, chain)
			}
		}
	}
	for _, m := range []map[string][]*tls.Certificate{t.exact, t.below} {
		for _, chains := range m {
			slices.SortStableFunc(chains, byKey)
		}
	}
	slices.SortStableFunc(t.fallback, byKey)
	return t
}

// byKey orders chains by what they cost: an ECDSA signature takes a tenth of an RSA one's time.
func byKey(a, b *tls.Certificate) int { return cmp.Compare(keyRank(a), keyRank(b)) }

func keyRank(c *tls.Certificate) int {
	switch c.Leaf.PublicKey.(type) {
	case *ecdsa.PublicKey:
		return 0
	case *rsa.PublicKey:
		return 2
	}
	return 1
}

// find returns the chains for a name, the cheapest first: those that have it, then those that have it by a wildcard, which stands
// for one label (RFC 9525 6.3), then the default. known says that it is not the default.
func (t *table) find(name string) (chains []*tls.Certificate, known bool) {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if chains := t.exact[name]; chains != nil {
		return chains, true
	}
	if _, suffix, ok := strings.Cut(name, "."); ok {
		if chains := t.below[suffix]; chains != nil {
			return chains, true
		}
	}
	return t.fallback, false
}

// choose returns the first chain for the client's name that the client can make use of.
func (t *table) choose(h *tls.ClientHelloInfo, strict bool) (*tls.Certificate, error) {
	chains, known := t.find(h.ServerName)
	if !known && strict {
		if s, ok := h.Conn.(*socket); ok {
			s.noName = true
		}
		return nil, nil // which makes crypto/tls send unrecognized_name; any error would be an internal_error
	}
	if len(chains) == 1 {
		return chains[0], nil // one that the client cannot use fails where the reason is known
	}
	hello := *h
	hello.ServerName = "" // has been looked at; the default is for other names too
	for _, c := range chains {
		if hello.SupportsCertificate(c) == nil {
			return c, nil
		}
	}
	return chains[0], nil
}
