package vip

import (
	"bytes"
	"encoding/hex"
	"net"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

var (
	ndMAC  = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	ndAddr = netip.MustParseAddr("2001:2::c0de:50")
)

// What goes onto the wire, octet by octet; the checksums are those of another implementation.
func TestNeighbourDiscoveryFrames(t *testing.T) {
	f, err := buildND(ndMAC, ndAddr)
	if err != nil {
		t.Fatal(err)
	}
	probe := "3333ffde0050" + "020000000001" + "86dd" +
		"60000000" + "0018" + "3aff" + "00000000000000000000000000000000" + "ff0200000000000000000001ffde0050" +
		"87009848" + "00000000" + "200100020000000000000000c0de0050"
	announce := "333300000001" + "020000000001" + "86dd" +
		"60000000" + "0020" + "3aff" + "200100020000000000000000c0de0050" + "ff020000000000000000000000000001" +
		"8800923b" + "20000000" + "200100020000000000000000c0de0050" + "0201" + "020000000001"
	for _, c := range []struct {
		what      string
		got       []byte
		want      string
		mac, addr string
	}{
		{"probe", f.probe, probe, "00:00:00:00:00:00", "invalid IP"},
		{"announcement", f.request, announce, ndMAC.String(), ndAddr.String()},
	} {
		if got := hex.EncodeToString(c.got); got != c.want {
			t.Errorf("%s:\n got %s\nwant %s", c.what, got, c.want)
		}
		mac, addr := parseND(c.got)
		if net.HardwareAddr(mac[:]).String() != c.mac || addr.String() != c.addr {
			t.Errorf("%s is read as %x, %v; want %s, %s", c.what, mac, addr, c.mac, c.addr)
		}
	}
}

// A message that RFC 4861 section 7.1 has discarded claims nothing, and neither does one that is cut short.
func TestOnlyValidNeighbourDiscoveryClaims(t *testing.T) {
	good := ndFrame(allNodesMAC, ndMAC, ndAddr, allNodes, ndAdvertise, 0x20000000, ndAddr, optTarget)
	sum := func(b []byte) []byte {
		b[ndType+2], b[ndType+3] = 0, 0
		s := icmpChecksum(b[ndHead:])
		b[ndType+2], b[ndType+3] = byte(s>>8), byte(s)
		return b
	}
	change := func(at int, v byte) []byte { b := bytes.Clone(good); b[at] = v; return b }
	for what, b := range map[string][]byte{
		"hop limit of 254":           change(21, 254),
		"a wrong checksum":           change(ndType+2, 1),
		"a code":                     sum(change(ndType+1, 1)),
		"another type":               sum(change(ndType, 134)),
		"an option of length zero":   sum(change(ndOptions+1, 0)),
		"an option beyond the end":   sum(change(ndOptions+1, 2)),
		"another protocol":           change(20, 17),
		"not IPv6":                   change(13, 0),
		"IP version 4":               change(14, 0x40),
		"cut short":                  good[:len(good)-1],
		"shorter than its header":    good[:ndTarget],
		"a length beyond the packet": change(19, 0x40),
	} {
		if mac, addr := parseND(b); addr.IsValid() || mac != [6]byte{} {
			t.Errorf("%s: %x claims %v", what, mac, addr)
		}
	}
	if _, addr := parseND(append(bytes.Clone(good), 0, 0, 0)); addr != ndAddr {
		t.Error("a frame that was filled up is not read")
	}
	// Who asks for somebody else from the address claims it too, by the MAC that it wants the answer at.
	other := netip.MustParseAddr("2001:2::1")
	group, groupMAC := solicitedNode(other)
	ask := ndFrame(groupMAC, ndMAC, ndAddr, group, ndSolicit, 0, other, optSource)
	if mac, addr := parseND(ask); addr != ndAddr || !slices.Equal(mac[:], ndMAC) {
		t.Errorf("a solicitation from the address is read as %x, %v", mac, addr)
	}
}

// The kernel hands over what may claim one of our addresses, and nothing of the host's other traffic.
func TestNeighbourDiscoveryFilter(t *testing.T) {
	a, b := ndAddr, netip.MustParseAddr("2001:2::77")
	other := netip.MustParseAddr("2001:2::1")
	var prog []bpf.Instruction
	for _, i := range ndFilter([]netip.Addr{a, b}) {
		prog = append(prog, bpf.RawInstruction{Op: i.Code, Jt: i.Jt, Jf: i.Jf, K: i.K}.Disassemble())
	}
	vm, err := bpf.NewVM(prog)
	if err != nil {
		t.Fatal(err)
	}
	group, groupMAC := solicitedNode(other)
	tcp := ndFrame(allNodesMAC, ndMAC, a, b, ndAdvertise, 0, a, 0)
	tcp[20] = unix.IPPROTO_TCP
	for _, c := range []struct {
		what  string
		frame []byte
		want  bool
	}{
		{"an advertisement of the first", ndFrame(allNodesMAC, ndMAC, other, allNodes, ndAdvertise, 0, a, optTarget), true},
		{"an advertisement of the second", ndFrame(allNodesMAC, ndMAC, other, allNodes, ndAdvertise, 0, b, optTarget), true},
		{"an advertisement of another", ndFrame(allNodesMAC, ndMAC, a, allNodes, ndAdvertise, 0, other, optTarget), false},
		{"a question from the second", ndFrame(groupMAC, ndMAC, b, group, ndSolicit, 0, other, optSource), true},
		{"a question for the first", ndFrame(groupMAC, ndMAC, other, group, ndSolicit, 0, a, optSource), false},
		{"a router's advertisement", ndFrame(allNodesMAC, ndMAC, a, allNodes, 134, 0, a, 0), false},
		{"another protocol", tcp, false},
	} {
		n, err := vm.Run(c.frame)
		if err != nil {
			t.Fatal(err)
		}
		if got := n > 0; got != c.want {
			t.Errorf("%s: taken %v, want %v", c.what, got, c.want)
		}
	}
}

func FuzzND(f *testing.F) {
	fr, err := buildND(ndMAC, ndAddr)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(fr.probe)
	f.Add(fr.request)
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		mac, addr := parseND(b)
		if addr.IsValid() && (!addr.Is6() || len(b) < ndOptions) || !addr.IsValid() && mac != [6]byte{} {
			t.Fatalf("%x %v", mac, addr)
		}
	})
}
