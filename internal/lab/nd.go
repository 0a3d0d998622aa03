package lab

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A neighbour discovery message in an Ethernet frame (RFC 4861):
//
//	0   destination MAC    6   source MAC         12  0x86dd
//	14  IPv6 header: 18 length, 20 next header 58, 21 hop limit 255, 22 source, 38 destination
//	54  ICMPv6: type, code, checksum, flags (4)   62  target    78  options: type, length in eights, value
const (
	ndMessage = 54
	ndTarget  = 62
	ndEnd     = 78
)

// ndSolicit asks who has an address, as a host does that wants to send to it.
func ndSolicit(mac net.HardwareAddr, from, who netip.Addr) []byte {
	w := who.As16()
	f := []byte{0x33, 0x33, 0xff, w[13], w[14], w[15]}
	f = append(f, mac...)
	f = append(f, 0x86, 0xdd, 0x60, 0, 0, 0, 0, 32, unix.IPPROTO_ICMPV6, 255)
	f = append(f, from.AsSlice()...)
	f = append(f, 0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, w[13], w[14], w[15])
	f = append(f, 135, 0, 0, 0, 0, 0, 0, 0)
	f = append(f, w[:]...)
	f = append(f, 1, 1)
	f = append(f, mac...)
	sum := uint32(len(f)-ndMessage) + unix.IPPROTO_ICMPV6
	for b := f[22:]; len(b) > 0; b = b[2:] { // both addresses and the message, which is of even length
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(f[ndMessage+2:], ^uint16(sum))
	return f
}

// ndAdvert returns who says to hold which address, and to whom; false for anything but an answer to a question.
func ndAdvert(f []byte) (mac [6]byte, who, to netip.Addr, ok bool) {
	const solicited = 0x40
	if len(f) < ndEnd || f[12] != 0x86 || f[13] != 0xdd || f[20] != unix.IPPROTO_ICMPV6 || f[ndMessage] != 136 || f[ndMessage+4]&solicited == 0 {
		return mac, who, to, false
	}
	copy(mac[:], f[6:12])
	for o := f[ndEnd:]; len(o) >= 8 && o[1] > 0 && len(o) >= int(o[1])*8; o = o[int(o[1])*8:] {
		if o[0] == 2 {
			copy(mac[:], o[2:8])
		}
	}
	return mac, netip.AddrFrom16([16]byte(f[ndTarget:ndEnd])), netip.AddrFrom16([16]byte(f[38:54])), true
}
