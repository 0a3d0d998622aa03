package plan

import (
	"net/netip"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/h1"
)

// HashKey is what a backend's consistent hash looks at. Immutable.
type HashKey struct {
	key   config.HashKey
	bound float64 // 0: none
}

func compileHash(c *config.Backend) *HashKey {
	if c.Balance != config.Hash && c.Balance != config.SourceHash {
		return nil
	}
	return &HashKey{c.HashKey, c.HashBound}
}

// Of returns the hash of the request's key, the same on every node. ok is false when the request has no such thing: it is then
// balanced by turns. q is nil in TCP mode.
func (k *HashKey) Of(q *h1.Request, client netip.Addr) (hash uint64, ok bool) {
	if k.key.Source == "client" {
		return HashAddr(client), true
	}
	if q == nil {
		return 0, false
	}
	var v []byte
	var scratch [512]byte
	switch k.key.Source {
	case "path":
		return hashBytes(fnvOffset, q.Path), true
	case "uri":
		h := hashBytes(fnvOffset, q.Path)
		if q.Query != nil {
			h = hashBytes((h^'?')*fnvPrime, q.Query)
		}
		return h, true
	case "header":
		v = q.Header(k.key.Name)
	case "cookie":
		v = q.Cookie(k.key.Name)
	case "query":
		v = q.QueryValue(k.key.Name, scratch[:])
	}
	return hashBytes(fnvOffset, v), len(v) > 0
}

// hashBytes goes on with FNV-1a.
func hashBytes(h uint64, b []byte) uint64 {
	for _, c := range b {
		h = (h ^ uint64(c)) * fnvPrime
	}
	return h
}
