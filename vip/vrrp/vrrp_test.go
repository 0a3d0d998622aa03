package vrrp

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/skeinlb/skein/internal/golden"
)

// TestTranscripts replays testdata/*.txt: a command, "----", what the router did, its state and what it waits for, an empty line.
func TestTranscripts(t *testing.T) {
	golden.Each(t, "testdata/*.txt", 3, func(t *testing.T, text string) string {
		var s script
		return golden.Blocks(text, func(command, _ string) string { return s.run(t, strings.Fields(command)) })
	})
}

// script is a router and its clock.
type script struct {
	r   *Router
	now int64
}

// run does one line:
//
//	router version=3 priority=100 interval=1s preempt=no local=198.18.0.11   a new router, started up
//	advert from=198.18.0.12 priority=150 interval=1s                         another router is heard
//	advance 3s                                                              time passes, timers fire when they are due
//	shutdown, assume
func (s *script) run(t *testing.T, words []string) string {
	t.Helper()
	arg := map[string]string{"version": "3", "priority": "100", "interval": "1s", "preempt": "yes", "local": "198.18.0.11", "from": "198.18.0.12", "id": "51"}
	for _, w := range words[1:] {
		if k, v, ok := strings.Cut(w, "="); ok {
			arg[k] = v
		}
	}
	number := func(k string) int {
		n, err := strconv.Atoi(arg[k])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	span := func(text string) time.Duration {
		d, err := time.ParseDuration(text)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	var b strings.Builder
	say := func() {
		for _, a := range s.r.Out() {
			fmt.Fprintf(&b, "%8s %v", time.Duration(s.now), a.Kind)
			if a.Kind == Advertise {
				fmt.Fprintf(&b, " priority %d", a.Priority)
			}
			b.WriteByte('\n')
		}
	}
	switch words[0] {
	case "router":
		c := Config{
			ID: uint8(number("id")), Version: Version(number("version")), Priority: uint8(number("priority")), Interval: span(arg["interval"]),
			Preempt: arg["preempt"] == "yes", Addresses: []netip.Addr{netip.MustParseAddr("198.18.0.100")}, Local: netip.MustParseAddr(arg["local"]),
		}
		if err := c.Check(); err != nil {
			return err.Error() + "\n"
		}
		s.r, s.now = New(c), 0
		s.r.Startup(s.now)
	case "advert":
		a := &Advert{Version: Version(number("version")), ID: uint8(number("id")), Priority: uint8(number("priority")), Interval: span(arg["interval"])}
		if v := s.r.Config().Version; !strings.Contains(strings.Join(words, " "), "version=") {
			a.Version = v
		}
		if why := s.r.Hear(s.now, a, netip.MustParseAddr(arg["from"])); why != "" {
			fmt.Fprintf(&b, "dropped: %s\n", why)
		}
	case "advance":
		for end := s.now + int64(span(words[1])); ; {
			next := s.r.Next()
			if next == 0 || next > end {
				s.now = end
				break
			}
			s.now = max(s.now, next)
			s.r.Tick(s.now)
			say()
		}
	case "shutdown":
		s.r.Shutdown()
	case "assume":
		s.r.Assume(s.now)
	default:
		t.Fatalf("unknown verb %q", words[0])
	}
	say()
	fmt.Fprintf(&b, "%8s %v", time.Duration(s.now), s.r.State())
	if m := s.r.Master(); m.IsValid() {
		fmt.Fprintf(&b, ", %v is active", m)
	}
	if next := s.r.Next(); next > 0 {
		fmt.Fprintf(&b, ", next in %v", time.Duration(next-s.now))
	}
	return b.String() + "\n"
}

// The layouts of RFC 3768, 5.1, and RFC 9568, 5.1, byte for byte but for the checksum, which is checked by reading the packet back. That
func TestPacketsOnTheWire(t *testing.T) {
	a := netip.MustParseAddr
	for _, x := range []struct {
		name     string
		conf     Config
		priority uint8
		to       netip.Addr
		wire     string
	}{
		{
			"version 2", Config{ID: 51, Version: V2, Priority: 100, Interval: time.Second, Addresses: []netip.Addr{a("198.18.0.100")}, Local: a("198.18.0.11")},
			100, Group4, "21336401 0001 .... c6120064 0000000000000000",
		},
		{
			"version 3", Config{ID: 51, Version: V3, Priority: 100, Interval: 100 * time.Millisecond, Addresses: []netip.Addr{a("198.18.0.100"), a("198.18.0.101")}, Local: a("198.18.0.11")},
			0, Group4, "31330002 000a .... c6120064 c6120065",
		},
		{
			"version 3, IPv6", Config{ID: 7, Version: V3, Priority: 254, Interval: time.Second, Addresses: []netip.Addr{a("2001:db8::64")}, Local: a("fe80::b")},
			254, Group6, "3107fe01 0064 .... 20010db8000000000000000000000064",
		},
	} {
		if err := x.conf.Check(); err != nil {
			t.Fatal(err)
		}
		p := x.conf.Pack(nil, x.priority, x.to)
		want := strings.ReplaceAll(x.wire, " ", "")
		got := hex.EncodeToString(p)
		if got[:12] != want[:12] || got[16:] != want[16:] {
			t.Errorf("%s: %s, want %s", x.name, got, want)
		}
		var back Advert
		if bad := back.Unpack(p, x.conf.Local, x.to, HopLimit); bad != "" {
			t.Errorf("%s: not read back: %s", x.name, bad)
		}
		if back.Priority != x.priority || back.ID != x.conf.ID || back.Interval != x.conf.Interval || back.Version != x.conf.Version || !New(x.conf).Same(&back) {
			t.Errorf("%s: read back as %+v", x.name, back)
		}
		// Any bit that flips is noticed: the checksum covers all of it.
		for i := range p {
			q := bytes.Clone(p)
			q[i] ^= 0x10
			if bad := back.Unpack(q, x.conf.Local, x.to, HopLimit); bad == "" {
				t.Errorf("%s: byte %d changed and nobody noticed", x.name, i)
			}
		}
		if bad := back.Unpack(p, x.conf.Local, x.to, 254); bad == "" {
			t.Errorf("%s: taken although a router forwarded it", x.name)
		}
		for n := range p {
			if bad := back.Unpack(p[:n], x.conf.Local, x.to, HopLimit); bad == "" {
				t.Errorf("%s: taken although it was cut to %d bytes", x.name, n)
			}
		}
	}
}

// RFC 9568 takes the pseudo-header out of IPv4's checksum again; routers of before send it with.
func TestVersion3ForIPv4IsReadWithAndWithoutPseudoHeader(t *testing.T) {
	c := Config{ID: 1, Version: V3, Priority: 1, Interval: time.Second, Addresses: []netip.Addr{netip.MustParseAddr("198.18.0.100")}, Local: netip.MustParseAddr("198.18.0.11")}
	p := c.Pack(nil, 1, Group4)
	p[6], p[7] = 0, 0
	s := checksum(p, 0)
	p[6], p[7] = byte(s>>8), byte(s)
	var a Advert
	if bad := a.Unpack(p, c.Local, Group4, HopLimit); bad != "" {
		t.Errorf("without a pseudo-header: %s", bad)
	}
}

func TestWrongSettingsAreNamed(t *testing.T) {
	good := Config{ID: 51, Version: V3, Priority: 100, Interval: time.Second, Addresses: []netip.Addr{netip.MustParseAddr("198.18.0.100")}}
	for _, x := range []struct {
		change func(*Config)
		want   string
	}{
		{func(c *Config) { c.ID = 0 }, "router_id 0"},
		{func(c *Config) { c.Version = 4 }, "version 4"},
		{func(c *Config) { c.Priority = 255 }, "priority 255"},
		{func(c *Config) { c.Version, c.Interval = V2, 500*time.Millisecond }, "whole seconds"},
		{func(c *Config) { c.Interval = 41 * time.Second }, "hundredths"},
		{func(c *Config) { c.Interval = 15 * time.Millisecond }, "hundredths"},
		{func(c *Config) { c.Addresses = append(c.Addresses, netip.MustParseAddr("2001:db8::1")) }, "two families"},
		{func(c *Config) { c.Version, c.Addresses = V2, []netip.Addr{netip.MustParseAddr("2001:db8::1")} }, "no IPv6"},
	} {
		c := good
		c.Addresses = append([]netip.Addr(nil), good.Addresses...)
		x.change(&c)
		if err := c.Check(); err == nil || !strings.Contains(err.Error(), x.want) {
			t.Errorf("%v, want %q in it", err, x.want)
		}
	}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
}

// A packet from anywhere never panics, and what is taken can be said again.
func FuzzUnpack(f *testing.F) {
	local := netip.MustParseAddr("198.18.0.11")
	c := Config{ID: 51, Version: V3, Priority: 100, Interval: time.Second, Addresses: []netip.Addr{netip.MustParseAddr("198.18.0.100")}, Local: local}
	f.Add(c.Pack(nil, 100, Group4), true)
	c.Version = V2
	f.Add(c.Pack(nil, 0, Group4), true)
	six := netip.MustParseAddr("fe80::b")
	c = Config{ID: 1, Version: V3, Priority: 1, Interval: time.Second, Addresses: []netip.Addr{netip.MustParseAddr("2001:db8::1")}, Local: six}
	f.Add(c.Pack(nil, 1, Group6), false)
	f.Fuzz(func(t *testing.T, p []byte, four bool) {
		from, to := six, Group6
		if four {
			from, to = local, Group4
		}
		var a Advert
		if a.Unpack(p, from, to, HopLimit) != "" {
			return
		}
		c := Config{ID: a.ID, Version: a.Version, Priority: 1, Interval: a.Interval, Addresses: a.Addresses, Local: from}
		var b Advert
		if bad := b.Unpack(c.Pack(nil, a.Priority, to), from, to, HopLimit); bad != "" {
			t.Errorf("%x was taken, and what it says was not: %s", p, bad)
		}
	})
}
