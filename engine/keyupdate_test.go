package engine_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/skeinlb/skein/engine"
)

// sealer is the sending half of a TLS 1.3 client's connection, for what crypto/tls does not send (RFC 8446 5.2 and 7.1).
type sealer struct {
	t      *testing.T
	hash   func() hash.Hash
	key    int // its length
	secret []byte
	aead   cipher.AEAD
	iv     []byte
	seq    uint64
}

// newSealer takes over from a client whose handshake is over and who has sent nothing yet. keys is what its KeyLogWriter got.
func newSealer(t *testing.T, c *tls.Conn, keys string) *sealer {
	t.Helper()
	s := &sealer{t: t, hash: sha256.New, key: 16}
	switch suite := c.ConnectionState().CipherSuite; suite {
	case tls.TLS_AES_128_GCM_SHA256:
	case tls.TLS_AES_256_GCM_SHA384:
		s.hash, s.key = sha512.New384, 32
	default: // where there are no instructions for AES
		t.Skipf("crypto/tls prefers %s here, which this test does not speak", tls.CipherSuiteName(suite))
	}
	_, line, _ := strings.Cut(keys, "CLIENT_TRAFFIC_SECRET_0 ")
	fields := strings.Fields(line)
	if len(fields) < 2 {
		t.Fatalf("no traffic secret in %q", keys)
	}
	secret, err := hex.DecodeString(fields[1])
	if err != nil {
		t.Fatal(err)
	}
	s.use(secret)
	return s
}

func (s *sealer) expand(label string, n int) []byte {
	label = "tls13 " + label
	b, err := hkdf.Expand(s.hash, s.secret, string([]byte{byte(n >> 8), byte(n), byte(len(label))})+label+"\x00", n)
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// use makes a secret the one in force.
func (s *sealer) use(secret []byte) {
	s.secret, s.seq = secret, 0
	var err error
	var b cipher.Block
	if b, err = aes.NewCipher(s.expand("key", s.key)); err == nil {
		s.aead, err = cipher.NewGCM(b)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	s.iv = s.expand("iv", s.aead.NonceSize())
}

// record appends one record.
func (s *sealer) record(dst []byte, kind byte, content string) []byte {
	nonce := bytes.Clone(s.iv)
	last := nonce[len(nonce)-8:]
	binary.BigEndian.PutUint64(last, binary.BigEndian.Uint64(last)^s.seq)
	s.seq++
	head := binary.BigEndian.AppendUint16([]byte{23, 3, 3}, uint16(len(content)+1+s.aead.Overhead()))
	return s.aead.Seal(append(dst, head...), nonce, append([]byte(content), kind), head)
}

// A client that has keys changed with every byte that it sends, and reads none of the answers, must not fill our memory with them.
func TestAnswersToChangesOfKeysAreBounded(t *testing.T) {
	r := startTLS(t, engine.Options{}, "https", "", silent(t))
	raw := r.dial()
	raw.(*net.TCPConn).SetReadBuffer(4096)
	raw.(*net.TCPConn).SetWriteBuffer(64 << 10) // what lies there has not been answered yet
	var keys bytes.Buffer
	c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, KeyLogWriter: &keys})
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	s := newSealer(t, c, keys.String())
	const applicationData, handshake = 23, 22
	out := s.record(nil, applicationData, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
	var err error
	for range 200_000 {
		out = s.record(out, handshake, "\x18\x00\x00\x01\x01") // KeyUpdate, and the peer's keys are to change, too
		s.use(s.expand("traffic upd", s.hash().Size()))
		out = s.record(out, applicationData, "x")
		if len(out) > 32<<10 {
			if _, err = raw.Write(out); err != nil {
				break
			}
			out = out[:0]
		}
	}
	if err == nil {
		t.Error("200,000 changes of keys were answered, although no answer was read")
	}
	if ne, ok := err.(net.Error); ok && ne.Timeout() {
		t.Errorf("the connection is stuck: %v", err)
	}
	_, _ = io.Copy(io.Discard, raw)
}
