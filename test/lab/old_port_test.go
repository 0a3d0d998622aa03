package lab

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/internal/lab"
	addresses "github.com/skeinlb/skein/vip"
)

// TestAnOldConnectionTakesNothing cuts the holder off, has a client of it come back by the same port, heals the network and moves the
// address back. The former holder has had a connection of that name; the client's new one must not end up in it.
func TestAnOldConnectionTakesNothing(t *testing.T) {
	s := newStage(t)
	s.whole()
	old := s.holding()
	const port = 20_000 // below those that the kernel chooses
	dial := func() net.Conn {
		var c net.Conn
		s.must(s.client.Run(func() (err error) {
			d := net.Dialer{LocalAddr: &net.TCPAddr{Port: port}, Timeout: 5 * time.Second}
			c, err = d.DialContext(s.ctx, "tcp", netip.AddrPortFrom(vip, 80).String())
			return err
		}))
		t.Cleanup(func() { c.Close() })
		return c
	}
	ask := func(c net.Conn) {
		t.Helper()
		s.must(c.SetDeadline(time.Now().Add(5 * time.Second)))
		if _, err := get(c, bufio.NewReader(c), "/", io.Discard); err != nil {
			t.Fatal(err)
		}
	}
	c := dial()
	ask(c)

	s.must(s.world.Partition([]*lab.Host{old.Host}, append(s.others(old), s.client)))
	s.until("another node holds the address", func() bool { h := s.holder(); return h != "" && h != old.Name })
	s.must(c.(*net.TCPConn).SetLinger(0))
	c.Close()
	s.must(s.world.Heal())
	s.whole()
	c = dial()
	ask(c)

	var flows *addresses.Flows
	s.must(old.Host.Run(func() (err error) { flows, err = addresses.OpenFlows(); return err }))
	defer flows.Close()
	s.until("nothing is left on the former holder", func() bool {
		left := 0
		s.must(flows.Each([]netip.Addr{vip}, func(addresses.Flow) { left++ }))
		return left == 0
	})
	out := s.skein(old, "vip", "move", "public", old.Name, "--no-wait")
	t.Log(strings.TrimSpace(out))
	s.until("it has the address again", func() bool { return s.holder() == old.Name })
	ask(c) // it is served by the node that has it, which asks to end it
}
