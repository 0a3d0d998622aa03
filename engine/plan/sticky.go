package plan

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"math/bits"
	"net/netip"
	"strings"
	"time"

	"github.com/skeinlb/skein/config"
	"github.com/skeinlb/skein/engine/h1"
)

// StickyCookie keeps clients on their server by a cookie of our own.
type StickyCookie struct {
	Name string

	byValue map[string]*Server
	set     [][]byte // by server index: what Set-Cookie says
}

func compileCookie(c *config.StickyCookie, b *Backend) *StickyCookie {
	sc := &StickyCookie{Name: c.Name, byValue: map[string]*Server{}, set: make([][]byte, len(b.Servers))}
	attributes := "; Path=/"
	if c.Secure {
		attributes += "; Secure"
	}
	if c.HTTPOnly {
		attributes += "; HttpOnly"
	}
	if c.SameSite != "" {
		attributes += "; SameSite=" + c.SameSite
	}
	for i, s := range b.Servers {
		v := cookieValue(b.Name, s.Name)
		sc.byValue[v] = s
		sc.set[i] = []byte(c.Name + "=" + v + attributes)
	}
	return sc
}

// cookieValue names a server without naming it: the same on every node and after every restart, of no meaning elsewhere.
func cookieValue(backend, server string) string {
	m := hmac.New(sha256.New, []byte("skein sticky cookie\x00"+backend))
	m.Write([]byte(server))
	return hex.EncodeToString(m.Sum(nil)[:8])
}

// ByCookie returns the server that a cookie's value stands for if it may still serve the clients that belong to it, else nil.
func (b *Backend) ByCookie(value []byte) *Server {
	if b.StickyCookie == nil {
		return nil
	}
	if s := b.StickyCookie.byValue[string(value)]; s != nil && s.TakesStuck() {
		return s
	}
	return nil
}

// SetCookie returns the value of the Set-Cookie field that makes a client belong to s. It is not to be changed.
func (b *Backend) SetCookie(s *Server) []byte { return b.StickyCookie.set[s.Index] }

// StickyTable keeps clients on their server by a table that all nodes share.
type StickyTable struct {
	ID   uint64 // FNV-1a 64 of the backend's name
	Key  config.StickyKey
	TTL  time.Duration
	Size int

	name string // Key.Name as the lookup wants it
}

func compileTable(t *config.StickyTable, backend string) *StickyTable {
	st := &StickyTable{ID: HashName(backend), Key: t.Key, TTL: t.TTL, Size: t.Size, name: t.Key.Name}
	if t.Key.Source == "header" {
		st.name = strings.ToLower(t.Key.Name)
	}
	return st
}

// SameKeys reports whether o, nil if there is none, knows a client by the same key.
func (t *StickyTable) SameKeys(o *StickyTable) bool { return o != nil && o.Key == t.Key }

// KeyOf returns what the table knows the client by: its address (IPv4 as IPv6-mapped), or 128 bits of hash of the value. ok is
// false when the request has no such value. q is nil in TCP mode.
func (t *StickyTable) KeyOf(q *h1.Request, client netip.Addr) (key [16]byte, ok bool) {
	if t.Key.Source == "client" {
		return client.As16(), client.IsValid()
	}
	if q == nil {
		return key, false
	}
	var v []byte
	var scratch [512]byte
	switch t.Key.Source {
	case "header":
		v = q.Header(t.name)
	case "cookie":
		v = q.Cookie(t.name)
	case "query":
		v = q.QueryValue(t.name, scratch[:])
	}
	if len(v) == 0 {
		return key, false
	}
	return hash128(v), true
}

// hash128 is FNV-1a with 128 bits, big-endian.
func hash128(b []byte) (sum [16]byte) {
	const primeLow, primeShift = 0x13b, 24 // the prime is 1<<88 + 0x13b
	high, low := uint64(0x6c62272e07bb0142), uint64(0x62b821756295c58d)
	for _, c := range b {
		low ^= uint64(c)
		carry, l := bits.Mul64(primeLow, low)
		high, low = carry+low<<primeShift+primeLow*high, l
	}
	for i := range 8 {
		sum[i], sum[8+i] = byte(high>>(56-8*i)), byte(low>>(56-8*i))
	}
	return sum
}
