package lab

import (
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestCutsAreSeenAndHealed(t *testing.T) {
	w, h := world(t, "a", "b", "c")
	addrs := make([]netip.AddrPort, 3)
	for i := range h {
		var err error
		addrs[i], err = h[i].ServeEcho(7)
		must(t, err)
	}
	seen := func() string {
		var got [3][3]bool
		var wg sync.WaitGroup
		for i := range h {
			for j := range h {
				if i != j {
					wg.Go(func() { got[i][j] = reaches(h[i], addrs[j]) })
				}
			}
		}
		wg.Wait()
		var s []string
		for i := range h {
			for j := range h {
				if got[i][j] {
					s = append(s, h[i].Name+h[j].Name)
				}
			}
		}
		return strings.Join(s, " ")
	}
	const all = "ab ac ba bc ca cb"
	for _, c := range []struct {
		name string
		do   func() error
		want string
	}{
		{"nothing", func() error { return nil }, all},
		{"cut b", func() error { return w.Cut(h[1]) }, "ac ca"},
		{"heal", w.Heal, all},
		{"partition", func() error { return w.Partition(h[:1], h[1:]) }, "bc cb"},
		{"heal again", w.Heal, all},
		{"unplug c", func() error { return w.Unplug(h[2]) }, "ab ba"},
		{"unplug c twice", func() error { return w.Unplug(h[2]) }, "ab ba"},
		{"plug c", func() error { return w.Plug(h[2]) }, all},
	} {
		must(t, c.do())
		got := seen()
		// What was cut off may have to wait for its next ARP request.
		for deadline := time.Now().Add(5 * time.Second); got != c.want && c.want == all && time.Now().Before(deadline); {
			got = seen()
		}
		if got != c.want {
			t.Errorf("after %s: %s get through, want %s", c.name, got, c.want)
		}
	}
}

// What a sends is swallowed, what it hears is not: datagrams tell, for a connection needs both directions.
func TestOneWayCutSwallowsOneDirection(t *testing.T) {
	w, h := world(t, "a", "b")
	var conns []net.PacketConn
	for _, host := range h {
		c, err := host.ListenPacket("udp", netip.AddrPortFrom(host.Addr, 9).String())
		must(t, err)
		conns = append(conns, c)
	}
	send := func(from, to int) bool {
		addr := net.UDPAddrFromAddrPort(netip.AddrPortFrom(h[to].Addr, 9))
		_, err := conns[from].WriteTo([]byte("x"), addr)
		must(t, err)
		conns[to].SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		_, _, err = conns[to].ReadFrom(make([]byte, 8))
		return err == nil
	}
	if !send(0, 1) || !send(1, 0) {
		t.Fatal("datagrams do not get through at all")
	}
	must(t, w.CutOneWay(h[0], h[1]))
	if send(0, 1) {
		t.Error("a reaches b in spite of the cut")
	}
	if !send(1, 0) {
		t.Error("b does not reach a: the cut has two ways")
	}
	must(t, w.Heal())
	if !send(0, 1) {
		t.Error("a does not reach b after the heal")
	}
}
