package plan

import (
	"net/netip"
	"testing"

	"github.com/skeinlb/skein/config"
)

func TestTheLongestPrefixDecides(t *testing.T) {
	text := `
		list "l" { cidrs = ["198.51.100.0/24", "2001:db8::/32"] }
		frontend "f" {
			bind  = ["127.0.0.1"]
			http  = 80
			allow = "l"
			route "r" {
				respond { status = 204 }
			}
		}`
	p := compile(t, text, nil)
	l := p.List("l")
	p.SetList("l", []config.ListEntry{
		{Prefix: netip.MustParsePrefix("198.51.100.128/25")}, {Prefix: netip.MustParsePrefix("198.51.100.200/32"), In: true},
		{Prefix: netip.MustParsePrefix("192.0.2.0/24"), In: true}, {Prefix: netip.MustParsePrefix("2001:db8::/32")},
	})
	for addr, want := range map[string]bool{
		"198.51.100.1": true, "198.51.100.129": false, "198.51.100.200": true, "192.0.2.9": true, "203.0.113.1": false, "2001:db8::1": false,
	} {
		if got := l.Contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s in the list: %v", addr, got)
		}
	}
	a := netip.MustParseAddr("198.51.100.200")
	if n := testing.AllocsPerRun(100, func() { p.Frontends[0].Denies(a) }); n != 0 {
		t.Errorf("a look-up allocates %v times", n)
	}
	next := compile(t, text, p)
	if len(next.List("l").Entries()) != 4 || next.List("l") == l {
		t.Errorf("the next plan has %v", next.List("l").Entries())
	}
	if p.SetList("m", nil) {
		t.Error("a list that is not there was set")
	}
}

func TestHopsAreReadAsProxiesWriteThem(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "192.0.2.1:80": "192.0.2.1", "255.255.255.255": "255.255.255.255", "[2001:db8::1]": "2001:db8::1",
		"[2001:db8::1]:443": "2001:db8::1", "2001:db8::1": "2001:db8::1", "::ffff:192.0.2.1": "192.0.2.1", "fe80::1%eth0": "fe80::1",
		"": "", "256.0.0.1": "", "1.2.3": "", "1.2.3.": "", "1.2.3.4.": "", "1.2.3.4.5": "", ".1.2.3": "", "1..2.3": "", "1.2.3.4x": "",
		"unknown": "", "_hidden": "", "[": "", "[]": "", "1.2.3.4:port": "1.2.3.4", "0001.2.3.4": "",
	} {
		got := parseHop([]byte(text))
		if want == "" && got.IsValid() || want != "" && got != netip.MustParseAddr(want) {
			t.Errorf("%q is read as %v, want %q", text, got, want)
		}
	}
	b := []byte("192.0.2.1:4711")
	if n := testing.AllocsPerRun(100, func() { parseHop(b) }); n != 0 {
		t.Errorf("an IPv4 hop allocates %v times", n)
	}
}
