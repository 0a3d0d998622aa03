package engine_test

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"testing"

	"github.com/skeinlb/skein/engine"
)

// The address of a listener goes to another host. A kept connection is served once more and asked to close; one that comes in still is
// served the same way; an idle one is left alone. When the address comes back, connections are kept again. A stream notices nothing.
func TestConnectionsOfAnAddressThatLeavesAreAskedToClose(t *testing.T) {
	var port int
	web := named(t, "s1")
	r := start(t, engine.Options{Loops: 2}, func(p int) string { port = p; return httpFrontend(p, "", web) })
	const get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	kept, idle := r.dial(), r.dial()
	keptReader, idleReader := bufio.NewReader(kept), bufio.NewReader(idle)
	for _, c := range []struct {
		net.Conn
		r *bufio.Reader
	}{{kept, keptReader}, {idle, idleReader}} {
		if resp, _ := ask(t, c.Conn, c.r, "GET", get); resp.Close {
			t.Fatal("a connection is not kept, and nothing has happened yet")
		}
	}

	here := netip.MustParseAddr("127.0.0.1")
	r.e.Leave([]netip.Addr{here})
	if resp, body := ask(t, kept, keptReader, "GET", get); !resp.Close || body != "s1" {
		t.Errorf("after the address has left: close %v, body %q", resp.Close, body)
	}
	if _, err := keptReader.ReadByte(); err != io.EOF {
		t.Errorf("then: %v, want the end", err)
	}
	late := r.dial()
	if resp, body := ask(t, late, bufio.NewReader(late), "GET", get); !resp.Close || body != "s1" {
		t.Errorf("a connection that comes late: close %v, body %q", resp.Close, body)
	}

	// A listener that is opened while its address is away knows it, too.
	other := freePort(t)
	if err := r.e.Apply(parse(t, httpFrontend(other, "", web))); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", netip.AddrPortFrom(here, uint16(other)).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if resp, _ := ask(t, c, bufio.NewReader(c), "GET", get); !resp.Close {
		t.Error("a listener that came later keeps its connections")
	}
	if err := r.e.Apply(parse(t, httpFrontend(port, "", web))); err != nil {
		t.Fatal(err)
	}

	r.e.Leave(nil)
	again := r.dial()
	if resp, _ := ask(t, again, bufio.NewReader(again), "GET", get); resp.Close {
		t.Error("the address is back, and connections are not kept")
	}
}
