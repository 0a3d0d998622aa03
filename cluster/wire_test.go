package cluster

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFrames(t *testing.T) {
	for _, f := range []frame{
		{kind: framePropose, id: 1, body: []byte("command")},
		{kind: frameIndex, id: 1<<64 - 1},
		{kind: frameOK, body: bytes.Repeat([]byte("x"), 200<<10)},
	} {
		b := appendFrame(nil, f)
		got, err := readFrame(bytes.NewReader(b), maxFrame)
		if err != nil || got.kind != f.kind || got.id != f.id || !bytes.Equal(got.body, f.body) {
			t.Errorf("frame %d came back as %d, %d bytes, %v", f.kind, got.kind, len(got.body), err)
		}
		for _, n := range []int{0, 5, len(b) - 1} {
			want := io.ErrUnexpectedEOF
			if n == 0 {
				want = io.EOF
			}
			if _, err := readFrame(bytes.NewReader(b[:n]), maxFrame); n < len(b) && !errors.Is(err, want) {
				t.Errorf("the first %d bytes of %d: %v, want %v", n, len(b), err, want)
			}
		}
	}
	for name, b := range map[string][]byte{
		"longer than allowed": appendFrame(nil, frame{kind: frameJoin, body: make([]byte, maxJoinFrame+1)}),
		"shorter than a head": {0, 0, 0, 8, 1, 0, 0, 0, 0, 0, 0, 0, 0},
		"kind 0":              make([]byte, 64),
	} {
		if _, err := readFrame(bytes.NewReader(b), maxJoinFrame); !errors.Is(err, errFrame) {
			t.Errorf("%s: %v, want %v", name, err, errFrame)
		}
	}
}

// Whoever reaches the port may speak the join protocol. So many may take their time with it, and no more.
func TestStrangersThatSayNothingAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Cluster{joins: make(chan struct{}, maxJoins)}
		var conns []net.Conn
		var turnedAway atomic.Int32
		for range maxJoins + 5 {
			here, there := net.Pipe()
			conns = append(conns, here)
			go func() {
				c.serveJoin(tls.Server(there, &tls.Config{}), peer{})
				turnedAway.Add(1)
			}()
		}
		synctest.Wait()
		if n := turnedAway.Load(); n != 5 {
			t.Errorf("%d of %d were turned away, want 5", n, len(conns))
		}
		for _, here := range conns {
			here.Close()
		}
		synctest.Wait()
		if n := len(c.joins); n != 0 {
			t.Errorf("%d are counted after all have gone", n)
		}
	})
}

// An error keeps its text and its meaning on the way to another node.
func TestRefusalsSurviveTheWire(t *testing.T) {
	for _, want := range []error{ErrNoLeader, ErrUnknownOutcome, ErrDisk, ErrJoinRefused, ErrTooLarge, ErrUnknownQuestion} {
		err := decodeRefusal(encodeRefusal(errors.Join(want, errors.New("because"))))
		if !errors.Is(err, want) || !strings.Contains(err.Error(), "because") {
			t.Errorf("%v became %v", want, err)
		}
	}
	// A disk that failed in the middle of a write: the outcome is what matters most.
	if err := decodeRefusal(encodeRefusal(errors.Join(ErrDisk, ErrUnknownOutcome))); !errors.Is(err, ErrUnknownOutcome) {
		t.Errorf("got %v", err)
	}
	// A newer node's code is not known here; what it says is.
	if err := decodeRefusal([]byte("\xeebecause")); err.Error() != "because" || errors.Unwrap(err) != nil {
		t.Errorf("got %v", err)
	}
	if err := decodeRefusal(nil); !errors.Is(err, errFrame) {
		t.Errorf("got %v", err)
	}
}

func FuzzFrame(f *testing.F) {
	f.Add(appendFrame(nil, frame{kind: framePropose, id: 7, body: []byte("x")}))
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := readFrame(bytes.NewReader(b), maxFrame)
		if err != nil {
			return
		}
		if again := appendFrame(nil, got); !bytes.Equal(again, b[:len(again)]) {
			t.Errorf("%x reads as %+v, which is written %x", b, got, again)
		}
	})
}

func testIdentity(t testing.TB, cluster, name string, now time.Time) *identity {
	t.Helper()
	ca, err := newCA(cluster, now)
	if err != nil {
		t.Fatal(err)
	}
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	der, err := signNode(ca, key.Public(), cluster, name, now)
	if err != nil {
		t.Fatal(err)
	}
	id, err := newIdentity(ca.CertPEM, certPEM(der), key)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestTokens(t *testing.T) {
	id := testIdentity(t, "c1", "a", time.Now())
	for _, addrs := range [][]netip.AddrPort{nil, {netip.MustParseAddrPort("192.0.2.1:7940"), netip.MustParseAddrPort("[2001:db8::1]:7940")}} {
		want := newToken(id.ca, addrs)
		got, err := parseToken(" " + want.String() + "\n")
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want.String(), got.String()); d != "" || !bytes.Equal(got.pin, caPin(id.ca)) {
			t.Error(d)
		}
		text := want.String()
		for i := range text {
			if _, err := parseToken(text[:i]); !errors.Is(err, ErrToken) {
				t.Fatalf("the first %d characters: %v", i, err)
			}
		}
	}
}

func FuzzToken(f *testing.F) {
	id := testIdentity(f, "c1", "a", time.Now())
	f.Add(newToken(id.ca, []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:7940")}).String())
	f.Add("skein1.")
	f.Fuzz(func(t *testing.T, s string) {
		if tok, err := parseToken(s); err == nil {
			if again, err := parseToken(tok.String()); err != nil || again.id != tok.id {
				t.Errorf("%q reads as %+v, which does not read again: %v", s, tok, err)
			}
		}
	})
}

// Who is let in, by certificate and clock.
func TestCertificatesThatAreTaken(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	own := testIdentity(t, "c1", "a", now)
	foreign := testIdentity(t, "c1", "a", now) // same names, another authority
	other := testIdentity(t, "c2", "a", now)
	end := own.leaf.NotAfter
	nobody := func(string) bool { return false }
	for _, tc := range []struct {
		name    string
		ca      *x509.Certificate
		cluster string
		chain   []*x509.Certificate
		now     time.Time
		removed func(string) bool
		want    error
	}{
		{"in time", own.ca, "c1", []*x509.Certificate{own.leaf, own.ca}, now, nobody, nil},
		{"leaf alone", own.ca, "c1", []*x509.Certificate{own.leaf}, now, nobody, nil},
		{"the clock stands in 1970", own.ca, "c1", []*x509.Certificate{own.leaf}, time.Unix(0, 0), nobody, nil},
		{"expired within the grace", own.ca, "c1", []*x509.Certificate{own.leaf}, end.Add(expiryGrace - time.Hour), nobody, nil},
		{"expired for long", own.ca, "c1", []*x509.Certificate{own.leaf}, end.Add(expiryGrace + time.Hour), nobody, ErrExpired},
		{"removed", own.ca, "c1", []*x509.Certificate{own.leaf}, now, func(fp string) bool { return fp == own.fingerprint }, ErrRemoved},
		{"another authority", own.ca, "c1", []*x509.Certificate{foreign.leaf, foreign.ca}, now, nobody, ErrForeign},
		{"another cluster", other.ca, "c1", []*x509.Certificate{other.leaf}, now, nobody, ErrForeign},
		{"the authority itself", own.ca, "c1", []*x509.Certificate{own.ca}, now, nobody, ErrForeign},
		{"none", own.ca, "c1", nil, now, nobody, ErrForeign},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p, err := verify(tc.ca, tc.cluster, tc.chain, tc.now, tc.removed)
			if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
			if err == nil && (p.name != "a" || p.fingerprint != own.fingerprint) {
				t.Errorf("taken as %+v", p)
			}
		})
	}
}
