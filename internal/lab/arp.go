package lab

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ARPWatch asks the wire again and again who has an address, by ARP, or by neighbour discovery for an address of IPv6. Whoever answers
// holds it; no program's opinion is asked.
//
// It asks by ordinary requests and not by RFC 5227 probes, for a node that is about to claim the address must take a probe of
// the same address by somebody else for a conflict. Let it run on a host of its own: every answer also renews the ARP entry
// of the machine that asks, so that a client which watches heals itself faster than others do.
type ARPWatch struct {
	Addr  netip.Addr
	Every time.Duration // 0: 5 ms
	From  netip.Addr    // the first of 63 unused IPv4 addresses to ask from; zero: those that every World keeps free

	mu sync.Mutex
	// mu guards the following.
	samples []ARPSample
}

// ARPSample is one request and everybody who answered it.
type ARPSample struct {
	At      time.Time
	Holders [][6]byte // MACs, by time of answer; none: nobody holds it
}

// Run asks from h until ctx ends.
func (w *ARPWatch) Run(ctx context.Context, h *Host) error {
	if !w.Addr.IsValid() {
		return fmt.Errorf("watch from %s: no address", h.Name)
	}
	every := w.Every
	if every <= 0 {
		every = 5 * time.Millisecond
	}
	proto, ask := uint16(unix.ETH_P_ARP), arpRequest
	if w.Addr.Is6() {
		proto, ask = unix.ETH_P_IPV6, ndSolicit
	}
	sock, err := h.rawSocket(proto)
	if err != nil {
		return fmt.Errorf("watch %v from %s: %w", w.Addr, h.Name, err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer sock.Close() // before waiting: ends the reader
	wg.Go(func() {
		frame := make([]byte, 128)
		for {
			n, err := sock.Read(frame)
			if err != nil {
				return
			}
			w.heard(frame[:n])
		}
	})
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		w.mu.Lock()
		n := len(w.samples)
		w.samples = append(w.samples, ARPSample{At: time.Now()})
		w.mu.Unlock()
		if _, err := sock.Write(ask(h.MAC, w.senderOf(n), w.Addr)); err != nil && ctx.Err() == nil {
			return fmt.Errorf("watch %v from %s: send a request: %w", w.Addr, h.Name, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// senderOf returns the address from which sample n asks. Answers go back to it, and so say which request they answer, however
// late they come: an answer that was under way while the address moved is not taken for a second holder.
func (w *ARPWatch) senderOf(n int) netip.Addr {
	if w.Addr.Is6() {
		b := firstSender6.As16()
		b[15] += byte(n % senders)
		return netip.AddrFrom16(b)
	}
	from := w.From
	if !from.IsValid() {
		from = firstSender
	}
	a := from.As4()
	a[3] += byte(n % senders)
	return netip.AddrFrom4(a)
}

// rawSocket returns a socket that hears all of a protocol on the host's link.
func (h *Host) rawSocket(protocol uint16) (*os.File, error) {
	fd := -1
	proto := int(htons(protocol))
	err := h.ns().do(func() (err error) {
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, proto)
		return err
	})
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	h.mu.Lock()
	index := h.link.Attrs().Index
	h.mu.Unlock()
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(proto), Ifindex: index}); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	return os.NewFile(uintptr(fd), "watch on "+h.Name), nil
}

func htons(n uint16) uint16 {
	return binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, n))
}

// An ARP frame for IPv4 over Ethernet (RFC 826):
//
//	0   destination MAC    6   source MAC         12  0x0806
//	14  hardware 1         16  protocol 0x0800    18  lengths 6, 4    20  operation
//	22  sender MAC         28  sender address     32  target MAC      38  target address    42
const arpFrame = 42

func arpRequest(mac net.HardwareAddr, from, who netip.Addr) []byte {
	f := make([]byte, 0, arpFrame)
	f = append(f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	f = append(f, mac...)
	f = append(f, 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
	f = append(f, mac...)
	f = append(f, from.AsSlice()...)
	f = append(f, 0, 0, 0, 0, 0, 0)
	return append(f, who.AsSlice()...)
}

// arpReply returns who says to hold which address, and to whom; false for anything but a reply.
func arpReply(f []byte) (mac [6]byte, who, to netip.Addr, ok bool) {
	if len(f) < arpFrame || !bytes.Equal(f[12:22], []byte{0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 2}) {
		return mac, who, to, false
	}
	copy(mac[:], f[22:28])
	return mac, netip.AddrFrom4([4]byte(f[28:32])), netip.AddrFrom4([4]byte(f[38:42])), true
}

// heard files one frame under the request that it answers.
func (w *ARPWatch) heard(frame []byte) {
	read := arpReply
	if w.Addr.Is6() {
		read = ndAdvert
	}
	mac, who, to, ok := read(frame)
	if !ok || who != w.Addr {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	// The newest request from that address; older ones are a whole round of senders back.
	for n := len(w.samples) - 1; n >= max(0, len(w.samples)-senders); n-- {
		if w.senderOf(n) != to {
			continue
		}
		s := &w.samples[n]
		if !slices.Contains(s.Holders, mac) {
			s.Holders = append(s.Holders, mac)
		}
		return
	}
}

// Samples returns the requests since t. Those of the last moments may still get answers.
func (w *ARPWatch) Samples(t time.Time) []ARPSample {
	w.mu.Lock()
	defer w.mu.Unlock()
	var list []ARPSample
	for i := len(w.samples) - 1; i >= 0 && w.samples[i].At.After(t); i-- {
		s := w.samples[i]
		s.Holders = slices.Clone(s.Holders)
		list = append(list, s)
	}
	for i, j := 0, len(list)-1; i < j; i, j = i+1, j-1 {
		list[i], list[j] = list[j], list[i]
	}
	return list
}

// TwoHolders returns in how many samples since t more than one MAC answered, and the longest time that this lasted: from the
// first to the last sample of a row of them, samples without an answer in between included.
func (w *ARPWatch) TwoHolders(t time.Time) (samples int, longest time.Duration) {
	var first time.Time
	for _, s := range w.Samples(t) {
		switch len(s.Holders) {
		case 0:
		case 1:
			first = time.Time{}
		default:
			if samples++; first.IsZero() {
				first = s.At
			}
			longest = max(longest, s.At.Sub(first))
		}
	}
	return samples, longest
}

// Reign is a span of time in which one and the same set of hosts answered.
type Reign struct {
	From, To time.Time // of the first and the last such sample
	Holders  []string  // host names, or MACs of strangers; empty: nobody
	Samples  int
}

// Timeline returns who held the address when, since t.
func (w *ARPWatch) Timeline(world *World, t time.Time) []Reign {
	var line []Reign
	for _, s := range w.Samples(t) {
		var who []string
		for _, h := range s.Holders {
			who = append(who, world.HostOf(h[:]))
		}
		if n := len(line); n > 0 && sameSet(line[n-1].Holders, who) {
			line[n-1].To = s.At
			line[n-1].Samples++
			continue
		}
		line = append(line, Reign{From: s.At, To: s.At, Holders: who, Samples: 1})
	}
	return line
}

func sameSet(a, b []string) bool {
	if len(a) != len(b) {
		return false
	}
	in := map[string]bool{}
	for _, s := range a {
		in[s] = true
	}
	for _, s := range b {
		if !in[s] {
			return false
		}
	}
	return true
}

// Holder returns who answered the last request that anybody answered within the last half second, or "".
func (w *ARPWatch) Holder(world *World) string {
	list := w.Samples(time.Now().Add(-500 * time.Millisecond))
	for i := len(list) - 1; i >= 0; i-- {
		if hs := list[i].Holders; len(hs) > 0 {
			return world.HostOf(hs[len(hs)-1][:])
		}
	}
	return ""
}
