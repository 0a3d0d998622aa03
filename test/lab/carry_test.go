package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/skeinlb/skein/api"
	"github.com/skeinlb/skein/internal/lab"
)

// carrier is a kind of connection that a move must not cut: of a family, in the clear or with TLS.
type carrier struct {
	name   string
	target netip.AddrPort
	secure *tls.Config // nil: in the clear
}

// dial connects from h.
func (k *carrier) dial(ctx context.Context, h *lab.Host) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := h.Dial(ctx, "tcp", k.target.String())
	if err != nil || k.secure == nil {
		return c, err
	}
	t := tls.Client(c, k.secure)
	if err := t.HandshakeContext(ctx); err != nil {
		c.Close()
		return nil, err
	}
	return t, nil
}

// passenger uses one connection over and over, and a new one only after the server has ended the last in good order.
type passenger struct {
	carrier *carrier

	mu sync.Mutex
	// mu guards the following.
	requests, ended int
	lost            []string
}

const rideEvery = 100 * time.Millisecond

func (v *passenger) run(ctx context.Context, h *lab.Host) error {
	tick := time.NewTicker(rideEvery)
	defer tick.Stop()
	var c net.Conn
	var r *bufio.Reader
	drop := func() {
		if c != nil {
			c.Close()
			c = nil
		}
	}
	defer drop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		again, err := false, error(nil)
		if c == nil {
			if c, err = v.carrier.dial(ctx, h); err != nil {
				c = nil
			} else {
				r = bufio.NewReader(c)
			}
		} else {
			c.SetReadDeadline(time.Now().Add(time.Millisecond))
			if _, peek := r.Peek(1); errors.Is(peek, io.EOF) {
				again = true
			}
		}
		keep := false
		if c != nil && !again {
			c.SetDeadline(time.Now().Add(5 * time.Second))
			keep, err = get(c, r, "/", io.Discard)
		}
		if ctx.Err() != nil {
			return nil
		}
		v.mu.Lock()
		switch {
		case err != nil:
			v.lost = append(v.lost, err.Error())
		case again:
			v.ended++
		default:
			v.requests++
		}
		v.mu.Unlock()
		if !keep {
			drop()
		}
	}
}

// get makes one request and reads the answer into w.
func get(c net.Conn, r *bufio.Reader, path string, w io.Writer) (keep bool, err error) {
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: lab.example.com\r\nUser-Agent: skein-lab\r\n\r\n", path); err != nil {
		return false, err
	}
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("status %d", resp.StatusCode)
	}
	n, err := io.Copy(w, resp.Body)
	if err == nil && resp.ContentLength >= 0 && n != resp.ContentLength {
		err = fmt.Errorf("%d bytes, want %d", n, resp.ContentLength)
	}
	return !resp.Close, err
}

// trickle compares what comes with what was sent, and takes it slowly until it is told to hurry.
type trickle struct {
	want  io.Reader
	hurry chan struct{}

	mu sync.Mutex
	// mu guards the following.
	bytes int64
}

const trickleRate = 1_000_000 // bytes a second

func (d *trickle) Write(p []byte) (int, error) {
	want := make([]byte, len(p))
	if _, err := io.ReadFull(d.want, want); err != nil {
		return 0, err
	}
	if !bytes.Equal(p, want) {
		return 0, errors.New("other bytes than were sent")
	}
	d.mu.Lock()
	d.bytes += int64(len(p))
	d.mu.Unlock()
	select {
	case <-d.hurry:
	case <-time.After(time.Duration(len(p)) * time.Second / trickleRate):
	}
	return len(p), nil
}

func (d *trickle) got() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.bytes
}

const carried = 50_000_000 // bytes of a download

// TestPlannedMovesCarryEveryKindOfConnection moves addresses while clients hold connections by IPv4 and IPv6, in the clear and with TLS, through addresses
// with and without a virtual MAC, and download something large over each: once, twice in quick succession, and when the node that
// holds all of them is drained. No connection is cut, and every download arrives as it was sent.
func TestPlannedMovesCarryEveryKindOfConnection(t *testing.T) {
	s := newCluster(t, webOf, echoOf)
	const virtual = "198.18.0.101"
	text := fmt.Sprintf(`vip "public" { address = ["%v/24", "%v/64"] }
vip "virtual" {
  address     = "%s/24"
  virtual_mac = 51
}
frontend "shop" {
  vip          = "public"
  http         = 80
  https        = 443
  certificates = ["lab"]
  backend      = "shop"
}
frontend "virtual" {
  vip     = "virtual"
  http    = 80
  backend = "shop"
}
backend "shop" {
  check "http" {
    path     = "/healthz"
    interval = "2s"
    timeout  = "2s"
  }
`, vip, vip6, virtual)
	for _, w := range s.servers {
		text += fmt.Sprintf("  server %q { address = %q }\n", w.name, w.addr)
	}
	secure := &tls.Config{RootCAs: s.importCertificate(), ServerName: "lab.example.com"}
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	s.must(s.fleet.Nodes()[0].Apply(ctx, text+"}\n", "every kind"))
	s.whole()
	held := func(st *api.Status) bool {
		return len(st.VIPs) == 2 && !slices.ContainsFunc(st.VIPs, func(v api.VIPStatus) bool { return v.Holder == "" || v.Holder != v.Placed })
	}
	s.wait("both to be held", held)
	watches := []*lab.ARPWatch{s.watch, {Addr: vip6}}
	watcher := s.host("watcher6")
	s.background("the watcher of IPv6", func(ctx context.Context) error { return watches[1].Run(ctx, watcher) })

	carriers := []*carrier{
		{"IPv6", netip.AddrPortFrom(vip6, 80), nil},
		{"TLS", netip.AddrPortFrom(vip, 443), secure},
		{"TLS by IPv6", netip.AddrPortFrom(vip6, 443), secure},
		{"virtual MAC", netip.AddrPortFrom(netip.MustParseAddr(virtual), 80), nil},
	}
	var passengers []*passenger
	var downloads []*trickle
	hurry, arrived := make(chan struct{}), make(chan error, len(carriers))
	for _, k := range carriers {
		for range 5 {
			v := &passenger{carrier: k}
			passengers = append(passengers, v)
			s.background(k.name, func(ctx context.Context) error { return v.run(ctx, s.client) })
		}
		d := &trickle{want: lab.Bytes(carried), hurry: hurry}
		downloads = append(downloads, d)
		s.background("a download, "+k.name, func(ctx context.Context) error {
			c, err := k.dial(ctx, s.client)
			if err == nil {
				stop := context.AfterFunc(ctx, func() { c.Close() })
				defer stop()
				defer c.Close()
				_, err = get(c, bufio.NewReader(c), fmt.Sprintf("/bytes/%d", carried), d)
			}
			if err != nil {
				err = fmt.Errorf("%s, after %d bytes: %w", k.name, d.got(), err)
			}
			arrived <- err
			return nil
		})
	}
	under := func(since []int) func() bool {
		return func() bool {
			for i, v := range passengers {
				v.mu.Lock()
				n := v.requests
				v.mu.Unlock()
				if n < since[i]+3 {
					return false
				}
			}
			return true
		}
	}
	counts := func() (n []int) {
		for _, v := range passengers {
			v.mu.Lock()
			n = append(n, v.requests)
			v.mu.Unlock()
		}
		return n
	}
	s.until("all are under way", under(make([]int, len(passengers))))

	began := time.Now()
	holder := func(name string) string {
		st := s.wait("both to be held", held)
		return st.VIPs[slices.IndexFunc(st.VIPs, func(v api.VIPStatus) bool { return v.Name == name })].Holder
	}
	others := func(name string) (names []string) {
		for _, n := range s.fleet.Nodes() {
			if n.Name != name {
				names = append(names, n.Name)
			}
		}
		return names
	}
	move := func(name, to string) {
		t.Helper()
		s.skein(s.fleet.Nodes()[0], "vip", "move", name, to, "--no-wait")
	}
	settle := func(what string) {
		t.Helper()
		s.wait("both to be held", held)
		s.until("everybody is served after "+what, under(counts()))
		for _, v := range passengers {
			v.mu.Lock()
			if len(v.lost) > 0 {
				t.Errorf("%s: %s lost a connection: %s", what, v.carrier.name, strings.Join(v.lost, "; "))
			}
			v.lost = nil
			v.mu.Unlock()
		}
		for i, d := range downloads {
			before := d.got()
			s.until(carriers[i].name+": the download goes on after "+what, func() bool { return d.got() > before || len(arrived) > 0 })
		}
		select {
		case err := <-arrived:
			t.Fatalf("after %s a download ended: %v", what, err)
		default:
		}
	}
	for _, name := range []string{"public", "virtual"} {
		to := others(holder(name))[0]
		move(name, to)
		s.wait("the move of "+name, func(st *api.Status) bool { return held(st) && holderOf(st, name) == to })
		settle("a move of " + name)

		o := others(holder(name))
		move(name, o[0])
		move(name, o[1])
		s.wait("two moves of "+name, func(st *api.Status) bool { return held(st) && holderOf(st, name) == o[1] })
		settle("two moves of " + name)
	}
	from := holder("virtual")
	if holder("public") != from {
		move("public", from)
		s.wait("one node to hold both", func(st *api.Status) bool { return held(st) && holderOf(st, "public") == from })
		settle("a move to where the other is")
	}
	s.skein(s.fleet.Nodes()[0], "node", "drain", from, "--no-wait")
	s.wait("the drained node to hold nothing", func(st *api.Status) bool {
		return held(st) && holderOf(st, "public") != from && holderOf(st, "virtual") != from
	})
	settle("a drain")

	close(hurry)
	for range carriers {
		select {
		case err := <-arrived:
			if err != nil {
				t.Errorf("a download broke off: %v", err)
			}
		case <-time.After(patience):
			t.Fatal("a download does not end")
		}
	}
	requests, ended := 0, 0
	for _, v := range passengers {
		v.mu.Lock()
		requests, ended = requests+v.requests, ended+v.ended
		v.mu.Unlock()
	}
	for _, w := range watches {
		if k, d := w.TwoHolders(began); k > 0 {
			t.Errorf("two nodes answered for %v in %d samples over %v", w.Addr, k, d)
		}
	}
	t.Logf("%d connections, %d requests, %d ended by the server in good order; %d downloads of %d bytes arrived as they were sent; %v",
		len(passengers), requests, ended, len(carriers), carried, time.Since(began).Round(time.Second))
}

// holderOf is who holds a VIP as the status has it.
func holderOf(st *api.Status, name string) string {
	for _, v := range st.VIPs {
		if v.Name == name {
			return v.Holder
		}
	}
	return ""
}
