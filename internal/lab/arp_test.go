package lab

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"
)

func TestWatchSeesAnAddressMoveAndTwoHolders(t *testing.T) {
	for _, vip := range []string{"198.18.0.100/32", "2001:2::100/128"} {
		t.Run(vip, func(t *testing.T) { watchMove(t, netip.MustParsePrefix(vip)) })
	}
}

func watchMove(t *testing.T, vip netip.Prefix) {
	w, h := world(t, "watcher", "lb1", "lb2")
	watch := &ARPWatch{Addr: vip.Addr()}
	background(t, func(ctx context.Context) error { return watch.Run(ctx, h[0]) })
	start := time.Now()

	must(t, h[1].AddAddr(vip))
	within(t, "lb1 answers", func() bool { return watch.Holder(w) == "lb1" })
	must(t, h[1].DelAddr(vip), h[2].AddAddr(vip))
	within(t, "lb2 answers", func() bool { return watch.Holder(w) == "lb2" })
	if n, d := watch.TwoHolders(start); n != 0 {
		t.Errorf("%d samples with two holders over %v while one moved the address properly", n, d)
	}
	both := time.Now()
	must(t, h[1].AddAddr(vip))
	within(t, "both answer", func() bool { n, d := watch.TwoHolders(both); return n > 3 && d > 0 })
	must(t, h[1].DelAddr(vip))
	alone := time.Now()
	within(t, "lb2 alone answers", func() bool {
		line := watch.Timeline(w, alone)
		return len(line) > 0 && strings.Join(line[len(line)-1].Holders, " ") == "lb2" && line[len(line)-1].Samples > 5
	})
	var order []string
	for _, r := range watch.Timeline(w, start) {
		if who := strings.Join(r.Holders, "+"); who == "lb1" || who == "lb2" {
			if len(order) == 0 || order[len(order)-1] != who {
				order = append(order, who)
			}
		}
	}
	if got := strings.Join(order, " "); got != "lb1 lb2" {
		t.Errorf("single holders in order: %s, want lb1 lb2", got)
	}
	addrs, err := h[2].Addrs()
	must(t, err)
	if got := fmt.Sprint(addrs); !strings.Contains(got, vip.String()) {
		t.Errorf("lb2's addresses are %s, want %v among them", got, vip)
	}
}

// A second switch carries on when the first one is cut, and the other way around.
func TestSegment(t *testing.T) {
	w, h := world(t, "a", "b")
	s, err := w.AddSegment("second", netip.MustParsePrefix("198.18.1.0/24"))
	must(t, err)
	for _, host := range h {
		if got, err := s.Attach(host, "eth1"); err != nil || got.As4()[3] != host.Addr.As4()[3] {
			t.Fatalf("attached at %v: %v", got, err)
		}
	}
	first, err := h[1].ServeEcho(7)
	must(t, err)
	second := netip.AddrPortFrom(s.addr(h[1]), 8)
	l, err := h[1].Listen("tcp", second.String())
	must(t, err)
	go func() {
		for c, err := l.Accept(); err == nil; c, err = l.Accept() {
			go func() { io.Copy(c, c); c.Close() }()
		}
	}()
	if !reaches(h[0], first) || !reaches(h[0], second) {
		t.Fatal("b is not reachable over both links")
	}
	must(t, w.Cut(h[1]))
	if reaches(h[0], first) || !reaches(h[0], second) {
		t.Error("a cut of the first link reached the second, or did not cut")
	}
	must(t, w.Heal(), s.Plug(h[1], false))
	if !reaches(h[0], first) || reaches(h[0], second) {
		t.Error("the second link's plug does nothing, or reached the first")
	}
}
