package cluster

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"net/netip"
	"strings"
)

// token is what a host needs to join: a secret that the cluster knows the hash of, the pin of the cluster's CA, so that the
// host gives its secret to nobody else, and addresses to begin with. It is written as
//
//	skein1.BASE64URL( id 8 | secret 16 | pin 32 | count 1 | count x (length 1 | address and port) | crc32 4 )
//
// The sum at the end tells a token that was cut off in copying from one that is wrong.
type token struct {
	id     string // 16 hexadecimal digits
	secret []byte
	pin    []byte // SHA-256 of the CA's certificate
	addrs  []netip.AddrPort
}

const (
	tokenPrefix   = "skein1."
	tokenID       = 8
	tokenSecret   = 16
	tokenMaxAddrs = 8
)

// ErrToken says that a text is not a token.
var ErrToken = errors.New("this is not a join token")

func newToken(ca *x509.Certificate, addrs []netip.AddrPort) token {
	b := make([]byte, tokenID+tokenSecret)
	rand.Read(b)
	return token{id: hex.EncodeToString(b[:tokenID]), secret: b[tokenID:], pin: caPin(ca), addrs: addrs[:min(len(addrs), tokenMaxAddrs)]}
}

func caPin(ca *x509.Certificate) []byte {
	sum := sha256.Sum256(ca.Raw)
	return sum[:]
}

// hash is what the cluster keeps of the secret.
func (t token) hash() []byte {
	sum := sha256.Sum256(t.secret)
	return sum[:]
}

func (t token) String() string {
	b, _ := hex.DecodeString(t.id)
	b = append(b, t.secret...)
	b = append(b, t.pin...)
	b = append(b, byte(len(t.addrs)))
	for _, a := range t.addrs {
		x, _ := a.MarshalBinary() // never fails
		b = append(b, byte(len(x)))
		b = append(b, x...)
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, crcTable))
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

func parseToken(text string) (token, error) {
	body, ok := strings.CutPrefix(strings.TrimSpace(text), tokenPrefix)
	if !ok {
		return token{}, fmt.Errorf("%w: one begins with %q; make one with `skein cluster token` on a member", ErrToken, tokenPrefix)
	}
	b, err := base64.RawURLEncoding.DecodeString(body)
	const fixed = tokenID + tokenSecret + sha256.Size + 1
	if err != nil || len(b) < fixed+4 || crc32.Checksum(b[:len(b)-4], crcTable) != binary.BigEndian.Uint32(b[len(b)-4:]) {
		return token{}, fmt.Errorf("%w: it is incomplete or was changed; copy all of it again", ErrToken)
	}
	b = b[:len(b)-4]
	t := token{id: hex.EncodeToString(b[:tokenID]), secret: b[tokenID : tokenID+tokenSecret], pin: b[tokenID+tokenSecret : fixed-1]}
	n := int(b[fixed-1])
	for b = b[fixed:]; len(b) > 0; {
		size := int(b[0])
		var a netip.AddrPort
		if size > len(b)-1 || a.UnmarshalBinary(b[1:1+size]) != nil {
			return token{}, fmt.Errorf("%w: an address in it cannot be read", ErrToken)
		}
		t.addrs = append(t.addrs, a)
		b = b[1+size:]
	}
	if len(t.addrs) != n || n > tokenMaxAddrs {
		return token{}, fmt.Errorf("%w: %d addresses where %d were announced", ErrToken, len(t.addrs), n)
	}
	return t, nil
}
