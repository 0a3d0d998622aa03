package vip

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// Neighbour discovery (RFC 4861) is to IPv6 what ARP is to IPv4. Three messages are all that a guard needs, so they are built here
// by hand, as whole Ethernet frames: a packet socket sends what no routing table, and no address on the link, has a say in.
//
//	0   destination MAC     6  source MAC          12  0x86dd
//	14  IPv6 header: 20 next header, 21 hop limit 255, 22 source, 38 destination
//	54  ICMPv6: type, code, checksum (2), flags (4), 62 target, then options: type, length in eights, value
const (
	ndHead    = 14
	ndType    = ndHead + 40
	ndTarget  = ndType + 8
	ndOptions = ndTarget + 16

	ndSolicit   = 135
	ndAdvertise = 136
	ndHopLimit  = 255 // anything less has crossed a router (RFC 4861 section 7.1)

	optSource = 1 // link-layer address of the sender
	optTarget = 2 // and of the target
)

var (
	allNodes    = netip.MustParseAddr("ff02::1")
	allNodesMAC = net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}
)

// solicitedNode is the group that an address's owner listens to, and its MAC.
func solicitedNode(a netip.Addr) (netip.Addr, net.HardwareAddr) {
	b := a.As16()
	group := [16]byte{0: 0xff, 1: 0x02, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]}
	return netip.AddrFrom16(group), net.HardwareAddr{0x33, 0x33, 0xff, b[13], b[14], b[15]}
}

// buildND makes the frames for one IPv6 address. The probe is the one of duplicate address detection (RFC 4862 section 5.4.2): from
// nobody, so that no cache is touched. The announcement is an unsolicited advertisement to all nodes that overrides what they have.
func buildND(mac net.HardwareAddr, a netip.Addr) (frames, error) {
	if len(mac) != 6 || !a.Is6() || a.Is4In6() {
		return frames{}, fmt.Errorf("build neighbour discovery for %v: want IPv6 over Ethernet", a)
	}
	group, groupMAC := solicitedNode(a)
	const override = 0x20000000
	return frames{
		six:     true,
		probe:   ndFrame(groupMAC, mac, netip.IPv6Unspecified(), group, ndSolicit, 0, a, 0),
		request: ndFrame(allNodesMAC, mac, a, allNodes, ndAdvertise, override, a, optTarget),
	}, nil
}

// ndFrame is one message. option, when it is not zero, carries the sender's MAC.
func ndFrame(to, from net.HardwareAddr, src, dst netip.Addr, typ byte, flags uint32, target netip.Addr, option byte) []byte {
	be := binary.BigEndian
	size := ndOptions - ndType
	if option != 0 {
		size += 8
	}
	b := make([]byte, 0, ndType+size)
	b = append(append(b, to...), from...)
	b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0)
	b = be.AppendUint16(b, uint16(size))
	b = append(b, unix.IPPROTO_ICMPV6, ndHopLimit)
	b = append(append(b, src.AsSlice()...), dst.AsSlice()...)
	b = append(b, typ, 0, 0, 0)
	b = be.AppendUint32(b, flags)
	b = append(b, target.AsSlice()...)
	if option != 0 {
		b = append(append(b, option, 1), from...)
	}
	be.PutUint16(b[ndType+2:], icmpChecksum(b[ndHead:]))
	return b
}

// icmpChecksum is what belongs into the checksum of the ICMPv6 message in the packet p, whose own checksum counts as it stands: zero
// while one is being made, and for a good one that was received the result is zero (RFC 4443 section 2.3).
func icmpChecksum(p []byte) uint16 {
	sum := uint32(len(p)-40) + unix.IPPROTO_ICMPV6
	for _, part := range [...][]byte{p[8:40], p[40:]} {
		for ; len(part) >= 2; part = part[2:] {
			sum += uint32(part[0])<<8 | uint32(part[1])
		}
		if len(part) == 1 {
			sum += uint32(part[0]) << 8
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

// ndSocket hears neighbour discovery on every interface, and sends frames of it.
type ndSocket struct {
	fd    int // -1: no address needs it
	addrs []netip.Addr
	buf   [1514]byte
}

// only makes the socket hear the messages that name one of addrs as somebody's, and no other packet: without a filter every IPv6
// packet of the host would wake the guard. It compares the last four bytes, which tells the addresses of one subnet apart; claimOf's
// caller looks at the rest. Without an address there is no socket.
func (s *ndSocket) only(addrs []netip.Addr) error {
	if slices.Equal(addrs, s.addrs) {
		return nil
	}
	if s.close(); len(addrs) == 0 {
		return nil
	}
	// Protocol 0 hears nothing until it is bound: no packet slips in before the filter is there.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("open raw socket for neighbour discovery (CAP_NET_RAW is needed): %w", err)
	}
	prog := ndFilter(addrs)
	f := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &f); err != nil {
		unix.Close(fd)
		return fmt.Errorf("filter neighbour discovery: %w", err)
	}
	const proto = unix.ETH_P_IPV6>>8 | unix.ETH_P_IPV6&0xff<<8 // network order
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto}); err != nil {
		unix.Close(fd)
		return fmt.Errorf("hear neighbour discovery: %w", err)
	}
	s.fd, s.addrs = fd, addrs
	return nil
}

// ndFilter is the program of only.
func ndFilter(addrs []netip.Addr) []unix.SockFilter {
	load := func(size uint16, at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | size | unix.BPF_ABS, K: at}
	}
	when := func(k uint32, yes, no uint8) unix.SockFilter { // skip so many if the accumulator is k, or is not
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jt: yes, Jf: no, K: k}
	}
	take := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff}
	drop := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	among := func(at uint32) (prog []unix.SockFilter) {
		prog = append(prog, load(unix.BPF_W, at))
		for _, a := range addrs {
			b := a.As16()
			prog = append(prog, when(binary.BigEndian.Uint32(b[12:]), 0, 1), take)
		}
		return append(prog, drop)
	}
	senders, targets := among(22+12), among(ndTarget+12)
	prog := []unix.SockFilter{
		load(unix.BPF_B, 20),
		when(unix.IPPROTO_ICMPV6, 0, 4),
		load(unix.BPF_B, ndType),
		when(ndSolicit, 3, 0),
		when(ndAdvertise, 0, 1),
		{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(1 + len(senders))},
		drop,
	}
	return append(append(prog, senders...), targets...)
}

// claimOf reads one frame, as arpSocket.claimOf does.
func (s *ndSocket) claimOf() (mac [6]byte, addr netip.Addr, more bool) {
	if s.fd < 0 {
		return mac, addr, false
	}
	n, err := unix.Read(s.fd, s.buf[:])
	if err != nil || n <= 0 {
		return mac, addr, false
	}
	mac, addr = parseND(s.buf[:n])
	return mac, addr, true
}

// parseND returns who is named as the owner of which address by a neighbour advertisement, or by a solicitation sent from the
// address; zeros for all else, a probe among it, which claims nothing. Nothing is trusted.
func parseND(b []byte) (mac [6]byte, addr netip.Addr) {
	if len(b) < ndOptions || b[12] != 0x86 || b[13] != 0xdd || b[14]>>4 != 6 || b[20] != unix.IPPROTO_ICMPV6 || b[21] != ndHopLimit {
		return mac, addr
	}
	size := int(binary.BigEndian.Uint16(b[18:]))
	if size < ndOptions-ndType || len(b) < ndType+size { // longer: short frames are filled up
		return mac, addr
	}
	b = b[:ndType+size]
	if b[ndType+1] != 0 || icmpChecksum(b[ndHead:]) != 0 {
		return mac, addr
	}
	src := netip.AddrFrom16([16]byte(b[22:38]))
	option := byte(optTarget)
	switch b[ndType] {
	case ndAdvertise:
		addr = netip.AddrFrom16([16]byte(b[ndTarget:ndOptions]))
	case ndSolicit:
		if src.IsUnspecified() {
			return mac, netip.Addr{}
		}
		addr, option = src, optSource
	default:
		return mac, addr
	}
	copy(mac[:], b[6:12]) // unless an option says better
	for o := b[ndOptions:]; len(o) >= 2; {
		n := int(o[1]) * 8
		if n == 0 || n > len(o) {
			return [6]byte{}, netip.Addr{} // RFC 4861 section 4.6: the packet is to be discarded
		}
		if o[0] == option && n == 8 {
			copy(mac[:], o[2:8])
		}
		o = o[n:]
	}
	return mac, addr
}

func (s *ndSocket) send(to *unix.SockaddrLinklayer, frame []byte) error {
	if s.fd < 0 {
		return unix.ENOTCONN
	}
	return unix.Sendto(s.fd, frame, unix.MSG_DONTWAIT, to)
}

func (s *ndSocket) close() {
	if s.fd >= 0 {
		unix.Close(s.fd)
		s.fd, s.addrs = -1, nil
	}
}
