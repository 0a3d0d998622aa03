package vip

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"

	"github.com/mdlayher/arp"
	"github.com/mdlayher/ethernet"
	"golang.org/x/sys/unix"
)

// frames are the frames for one address, built once for a MAC so that an announcement is nothing but two sends. Those for IPv6 are in
// nd.go.
type frames struct {
	six     bool
	probe   []byte // RFC 5227: from nobody, so that no cache is touched
	request []byte // announcement as a request; in IPv6, as an advertisement
	reply   []byte // and as a reply to ourselves; with another target some stacks ignore it within their lock time. Not in IPv6.
}

// framesFor are the frames for one address, of whichever family.
func framesFor(mac net.HardwareAddr, a netip.Addr) (frames, error) {
	if a.Is6() {
		return buildND(mac, a)
	}
	return buildFrames(mac, a)
}

func buildFrames(mac net.HardwareAddr, a netip.Addr) (frames, error) {
	zero, all := make(net.HardwareAddr, 6), ethernet.Broadcast
	build := func(op arp.Operation, src netip.Addr, tha net.HardwareAddr) ([]byte, error) {
		p, err := arp.NewPacket(op, mac, src, tha, a)
		if err != nil {
			return nil, fmt.Errorf("build arp for %v: %w", a, err)
		}
		b, err := p.MarshalBinary()
		if err != nil {
			return nil, fmt.Errorf("build arp for %v: %w", a, err)
		}
		return (&ethernet.Frame{Destination: all, Source: mac, EtherType: ethernet.EtherTypeARP, Payload: b}).MarshalBinary()
	}
	var f frames
	var err error
	if f.probe, err = build(arp.OperationRequest, netip.IPv4Unspecified(), zero); err != nil {
		return f, err
	}
	if f.request, err = build(arp.OperationRequest, a, zero); err != nil {
		return f, err
	}
	f.reply, err = build(arp.OperationReply, a, mac)
	return f, err
}

// arpSocket sends and hears ARP on every interface.
type arpSocket struct {
	fd  int
	buf [1514]byte
}

func openARP() (*arpSocket, error) {
	const proto = unix.ETH_P_ARP>>8 | unix.ETH_P_ARP&0xff<<8 // network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return nil, fmt.Errorf("open raw socket for arp (CAP_NET_RAW is needed): %w", err)
	}
	return &arpSocket{fd: fd}, nil
}

// only lets the kernel drop all frames but those that name one of addrs as their sender: on a large network ARP is a steady
// rain, and a wake-up for each would make the guard late.
func (s *arpSocket) only(addrs []netip.Addr) error {
	const spa = 28 // sender protocol address, from the frame's begin
	prog := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: spa}}
	for _, a := range addrs {
		a4 := a.As4()
		prog = append(prog,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: binary.BigEndian.Uint32(a4[:])},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: 0xffff})
	}
	prog = append(prog, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K})
	f := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if err := unix.SetsockoptSockFprog(s.fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &f); err != nil {
		return fmt.Errorf("filter arp: %w", err)
	}
	return nil
}

func (s *arpSocket) send(to *unix.SockaddrLinklayer, frame []byte) error {
	return unix.Sendto(s.fd, frame, unix.MSG_DONTWAIT, to)
}

// claimOf reads one frame, and returns who it names as the owner of which address. Nothing is trusted: what is not a whole
// ARP packet for IPv4 over Ethernet is skipped, and so is a probe, which claims nothing. more is false when there is no frame.
func (s *arpSocket) claimOf() (mac [6]byte, addr netip.Addr, more bool) {
	n, err := unix.Read(s.fd, s.buf[:])
	if err != nil || n <= 0 {
		return mac, addr, false
	}
	mac, addr = parseClaim(s.buf[:n])
	return mac, addr, true
}

// parseClaim is claimOf's decoder. It decodes by hand what most of a busy network's frames are dropped by, and leaves the rest
// to the ARP package.
func parseClaim(b []byte) (mac [6]byte, addr netip.Addr) {
	const head = 14
	if len(b) < head+28 || b[12] != 0x08 || b[13] != 0x06 {
		return mac, addr
	}
	var p arp.Packet
	if err := p.UnmarshalBinary(b[head:]); err != nil || len(p.SenderHardwareAddr) != 6 || !p.SenderIP.Is4() || p.SenderIP.IsUnspecified() {
		return mac, addr
	}
	copy(mac[:], p.SenderHardwareAddr)
	return mac, p.SenderIP
}
