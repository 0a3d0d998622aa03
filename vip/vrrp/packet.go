package vrrp

import (
	"encoding/binary"
	"net/netip"
	"time"
)

// An advertisement (RFC 9568, 5.2; in brackets RFC 3768, 5.3):
//
//	 0      1      2      3      4             6         8
//	+------+------+------+------+-------------+---------+-----------+
//	|V  T  | VRID | Prio | Count| Max Adver   | Checksum| addresses | (authentication data, 8 bytes)
//	+------+------+------+------+-------------+---------+-----------+
//	        [ byte 4: auth type, byte 5: interval in seconds ]
const (
	headerLen = 8
	authLen   = 8 // version 2 always has it, ignored and sent as zeros (RFC 3768, 5.3.10)
	typeAdv   = 1
)

// MaxLen is the length of the longest advertisement.
const MaxLen = headerLen + maxAddresses*16

// Pack appends the advertisement that c's router sends with that priority. to is where it goes; an IPv6 checksum covers it.
func (c *Config) Pack(b []byte, priority uint8, to netip.Addr) []byte {
	start := len(b)
	b = append(b, byte(c.Version)<<4|typeAdv, c.ID, priority, byte(len(c.Addresses)))
	if c.Version == V2 {
		b = append(b, 0, byte(c.Interval/time.Second), 0, 0)
	} else {
		b = binary.BigEndian.AppendUint16(b, uint16(c.Interval/(10*time.Millisecond)))
		b = append(b, 0, 0)
	}
	for _, a := range c.Addresses {
		b = append(b, a.AsSlice()...)
	}
	if c.Version == V2 {
		b = append(b, make([]byte, authLen)...)
	}
	p := b[start:]
	binary.BigEndian.PutUint16(p[6:], checksum(p, pseudo(c.Version, p, c.Local, to)))
	return b
}

// Unpack reads an advertisement's IP payload into a, whose Addresses it reuses. It returns why it is none, "" when it is one.
// from and to are those of the IP header, hops its TTL or hop limit.
func (a *Advert) Unpack(p []byte, from, to netip.Addr, hops int) (bad string) {
	switch {
	case hops != HopLimit:
		return "hop limit is not 255"
	case len(p) < headerLen:
		return "short"
	case p[0]&0xf != typeAdv:
		return "unknown type"
	case p[1] == 0:
		return "router id 0"
	}
	a.Version, a.ID, a.Priority = Version(p[0]>>4), p[1], p[2]
	count, size, tail := int(p[3]), 4, 0
	switch {
	case a.Version == V2 && from.Is4():
		if p[4] != 0 {
			// RFC 3768 reserves 1 and 2; RFC 2338's simple password is what some still use. It protects nothing, and a router that
			// wants it would not take ours.
			return "authentication is in use"
		}
		a.Interval = time.Duration(p[5]) * time.Second
		tail = authLen
	case a.Version == V3:
		if !from.Is4() {
			size = 16
		}
		a.Interval = time.Duration(binary.BigEndian.Uint16(p[4:])&0x0fff) * 10 * time.Millisecond
	default:
		return "unknown version"
	}
	switch {
	case count == 0:
		return "no address"
	case len(p) < headerLen+count*size+tail:
		return "short"
	case a.Interval == 0:
		return "interval 0"
	}
	p = p[:headerLen+count*size+tail]
	// RFC 5798 lets version 3 cover a pseudo-header for IPv4 too, RFC 9568 no longer does; both are spoken.
	if sum(p, pseudo(a.Version, p, from, to)) != 0xffff && (a.Version != V3 || !from.Is4() || sum(p, 0) != 0xffff) {
		return "bad checksum"
	}
	a.Addresses = a.Addresses[:0]
	for i := range count {
		x, _ := netip.AddrFromSlice(p[headerLen+i*size : headerLen+(i+1)*size])
		a.Addresses = append(a.Addresses, x)
	}
	return ""
}

// pseudo is the sum over the pseudo-header (RFC 8200, 8.1) that a version 3 checksum covers beside the packet. keepalived, the router
// that one meets most, covers it for IPv4 too.
func pseudo(v Version, p []byte, from, to netip.Addr) uint32 {
	if v != V3 {
		return 0
	}
	var s uint32
	for _, a := range [...]netip.Addr{from, to} {
		if a.Is4() {
			b := a.As4()
			s = add(s, b[:])
		} else {
			b := a.As16()
			s = add(s, b[:])
		}
	}
	return s + Protocol + uint32(len(p))
}

// sum is the one's complement sum of p and what was summed before (RFC 1071): 0xffff over a packet with a right checksum.
func sum(p []byte, before uint32) uint16 {
	s := add(before, p)
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func add(s uint32, p []byte) uint32 {
	for ; len(p) > 1; p = p[2:] {
		s += uint32(p[0])<<8 | uint32(p[1])
	}
	if len(p) == 1 {
		s += uint32(p[0]) << 8
	}
	return s
}

func checksum(p []byte, before uint32) uint16 { return ^sum(p, before) }
