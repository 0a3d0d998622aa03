package tlsterm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var keys = sync.OnceValue(func() map[string]crypto.Signer {
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return map[string]crypto.Signer{"ecdsa": ec, "rsa": r, "ed25519": ed}
})

// chain makes a chain with that kind of key for these names.
func chain(t testing.TB, kind string, names ...string) tls.Certificate {
	t.Helper()
	key := keys()[kind]
	c := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: names, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

func certificate(t testing.TB, name string, chains ...tls.Certificate) *Certificate {
	return &Certificate{Name: name, Chains: chains}
}

func TestNamesFindTheirChainsTheCheapestFirst(t *testing.T) {
	table := newTable([]*Certificate{
		certificate(t, "first", chain(t, "rsa", "example.com", "*.example.com"), chain(t, "ecdsa", "example.com", "*.example.com")),
		certificate(t, "second", chain(t, "ed25519", "Example.com", "www.example.com"), chain(t, "ecdsa", "deep.a.example.com")),
		certificate(t, "third", chain(t, "ecdsa", "*.example.org", "EXAMPLE.com")),
	})
	for name, want := range map[string]string{
		"example.com":          "ecdsa ecdsa ed25519 rsa", // of two with one kind of key, the certificate that was named first
		"EXAMPLE.COM.":         "ecdsa ecdsa ed25519 rsa",
		"www.example.com":      "ed25519", // exact before wildcard
		"shop.example.com":     "ecdsa rsa",
		"a.example.org":        "ecdsa",
		"example.org":          "default ecdsa rsa", // a wildcard is not the name itself
		"a.a.example.com":      "default ecdsa rsa", // nor two labels
		"deep.a.example.com":   "ecdsa",
		".example.com":         "ecdsa rsa",
		"com":                  "default ecdsa rsa",
		"":                     "default ecdsa rsa",
		strings.Repeat(".", 9): "default ecdsa rsa",
	} {
		chains, known := table.find(name)
		var got []string
		if !known {
			got = append(got, "default")
		}
		for _, c := range chains {
			got = append(got, [...]string{"ecdsa", "ed25519", "rsa"}[keyRank(c)])
		}
		if s := strings.Join(got, " "); s != want {
			t.Errorf("%q: %s, want %s", name, s, want)
		}
	}
	if chains, _ := table.find("example.com"); chains[0].Leaf.DNSNames[0] != "example.com" {
		t.Errorf("of two ECDSA chains the later one comes first: %v", chains[0].Leaf.DNSNames)
	}
}

func TestEveryFrontendHasTicketKeysOfItsOwn(t *testing.T) {
	a, err := ticketKeyFor(TicketKey{1}, "a")
	if err != nil {
		t.Fatal(err)
	}
	b, _ := ticketKeyFor(TicketKey{1}, "b")
	again, _ := ticketKeyFor(TicketKey{1}, "a")
	other, _ := ticketKeyFor(TicketKey{2}, "a")
	if a == b || a == other || a != again || a == (TicketKey{1}) {
		t.Error("keys of different frontends or of different shared keys are the same, or not the same each time")
	}
}

// However a stream of records is cut, as many are counted as end in each part.
func TestRecordsAreCountedHoweverTheyAreCut(t *testing.T) {
	var stream []byte
	var ends []int
	for _, n := range []int{0, 1, 5, 300, 16384 + 256, 0, 2} {
		stream = append(stream, 23, 3, 3, byte(n>>8), byte(n))
		stream = append(stream, make([]byte, n)...)
		ends = append(ends, len(stream))
	}
	for step := 1; step < len(stream); step += 1 + step/3 {
		var s socket
		for at := 0; at < len(stream); at += step {
			to := min(at+step, len(stream))
			s.whole = 0
			s.follow(stream[at:to])
			want := 0
			for _, e := range ends {
				if at < e && e <= to {
					want++
				}
			}
			if s.whole != want {
				t.Fatalf("cut into %d bytes, at %d: %d records, want %d", step, at, s.whole, want)
			}
		}
	}
}

// pair is a connection: the server's side as a descriptor, the client's as a file.
func pair(t *testing.T) (fd int, client net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[1]), "")
	defer f.Close()
	client, err = net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return fds[0], client
}

// result is what done was called with.
type result struct {
	conn *Conn
	why  Reason
}

func terminator(t *testing.T) *Terminator {
	t.Helper()
	term, err := New(Options{Frontend: "f", Certificates: []*Certificate{certificate(t, "a", chain(t, "ecdsa", "a.test"))}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	return term
}

func TestHandshakesBeyondTheBoundWaitAndThenAreRefused(t *testing.T) {
	h := &Handshakes{most: 4, mostWaiting: 3}
	term := terminator(t)
	results := make(chan result, 20)
	done := func(c *Conn, why Reason) { results <- result{c, why} }
	var clients []net.Conn
	for i := range 7 {
		fd, c := pair(t)
		clients = append(clients, c)
		if !h.Start(fd, term, time.Minute, done) {
			t.Fatalf("handshake %d is refused", i)
		}
	}
	fd, _ := pair(t)
	if h.Start(fd, term, time.Minute, done) {
		t.Error("an eighth handshake is taken")
	}
	unix.Close(fd)
	if n := h.Pending(); n != 7 {
		t.Errorf("%d are pending, want 7", n)
	}
	// Those that wait have their turn when others are over.
	for i, c := range clients {
		if i%2 == 0 {
			go tls.Client(c, &tls.Config{InsecureSkipVerify: true}).Handshake()
		} else {
			c.Close()
		}
	}
	got := map[Reason]int{}
	for range clients {
		r := <-results
		got[r.why]++
		if (r.conn != nil) != (r.why == Done) {
			t.Errorf("%v with a connection: %v", r.why, r.conn != nil)
		}
		if r.conn != nil {
			unix.Close(r.conn.FD())
		}
	}
	if got[Done] != 4 || got[ClientGone] != 3 {
		t.Errorf("got %v, want 4 done and 3 gone", got)
	}
	h.Close()
	if fd, _ := pair(t); h.Start(fd, term, time.Minute, done) {
		t.Error("a handshake is taken after the end")
	} else {
		unix.Close(fd)
	}
	if len(results) > 0 {
		t.Error("somebody was told twice")
	}
}

func TestAClosedPoolEndsWhatIsUnderWay(t *testing.T) {
	h := &Handshakes{most: 2, mostWaiting: 2}
	term := terminator(t)
	results := make(chan result, 4)
	for range 4 {
		fd, _ := pair(t)
		if !h.Start(fd, term, time.Hour, func(c *Conn, why Reason) { results <- result{c, why} }) {
			t.Fatal("refused")
		}
	}
	h.Close()
	if len(results) != 4 {
		t.Fatalf("%d of 4 were told", len(results))
	}
	for range 4 {
		if r := <-results; r.conn != nil || r.why != TimedOut && r.why != Refused {
			t.Errorf("got %+v", r)
		}
	}
}

func TestACrowdHasLessTime(t *testing.T) {
	h := &Handshakes{most: 3, mostWaiting: 1}
	defer h.Close()
	term := terminator(t)
	over := make(chan Reason, 3)
	for range 3 {
		fd, _ := pair(t)
		h.Start(fd, term, time.Hour, func(_ *Conn, why Reason) { over <- why })
	}
	if why := <-over; why != TimedOut || len(over) > 0 { // the third; the first two have an hour
		t.Errorf("%v, and %d more are over", why, len(over))
	}
}

// A Conn reads what has come, says when there is nothing, and tells an end from a cut.
func TestConnSaysWhatItReads(t *testing.T) {
	for _, proper := range []bool{true, false} {
		t.Run(fmt.Sprint("proper end: ", proper), func(t *testing.T) {
			h := &Handshakes{}
			defer h.Close()
			fd, raw := pair(t)
			results := make(chan result, 1)
			h.Start(fd, terminator(t), time.Minute, func(c *Conn, why Reason) { results <- result{c, why} })
			client := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
			if err := client.Handshake(); err != nil {
				t.Fatal(err)
			}
			c := (<-results).conn
			defer unix.Close(c.FD())
			var out []byte
			c.Attach(&out)
			b := make([]byte, 100)
			c.Ready(false)
			if n, st := c.Read(b); n != 0 || st != Again || !c.Waiting() {
				t.Fatalf("before anything: %d, %d, waiting %v", n, st, c.Waiting())
			}
			io.WriteString(client, "hello")
			io.WriteString(client, " world")
			c.Ready(false)
			if n, st := c.Read(b); string(b[:n]) != "hello world" || st != OK {
				t.Fatalf("read %q, %d", b[:n], st)
			}
			c.Ready(false)
			if n, st := c.Read(b); n != 0 || st != Again {
				t.Fatalf("drained: %d, %d", n, st)
			}
			client.Write(bytes.Repeat([]byte("x"), 250)) // more than is asked for at a time
			c.Ready(false)
			total := 0
			for !c.Waiting() {
				n, st := c.Read(b)
				if st != OK {
					break
				}
				total += n
			}
			if total != 250 {
				t.Errorf("read %d of 250 bytes in parts", total)
			}
			if !c.Write([]byte("answer")) || len(out) == 0 {
				t.Fatal("nothing was sealed")
			}
			syscall.Write(c.FD(), out)
			if n, err := client.Read(b); string(b[:n]) != "answer" || err != nil {
				t.Errorf("the client reads %q, %v", b[:n], err)
			}
			want := Truncated
			if proper {
				want = End
				client.CloseWrite()
			} else {
				raw.Close()
			}
			c.Ready(true)
			if n, st := c.Read(b); n != 0 || st != want {
				t.Errorf("at the end: %d, %d, want %d", n, st, want)
			}
			if n, st := c.Read(b); n != 0 || st == OK || st == Again && !c.Waiting() {
				t.Errorf("after the end: %d, %d", n, st)
			}
		})
	}
}
