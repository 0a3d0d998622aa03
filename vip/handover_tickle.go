package vip

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// After a crash nobody tells the clients. One that only waits for data, of a download say, waits for as long as its patience lasts. The
// new holder says one word for the old one: a bare acknowledgement with numbers that can't be right. The client's kernel answers
// that with what it expects (RFC 5961, section 5; RFC 9293, section 3.10.7.4), which reaches the new holder, whose kernel has no such
// connection and says so with a reset. A client that has moved on since sees nothing of it.

// Bounds of waking clients, for the sake of the network: 20,000 segments a second.
const (
	tickleBatch = 200
	ticklePause = 10 * time.Millisecond
	tickleSize  = 40 + 20 // the larger of the two kinds of header, and TCP's
)

// tickler sends segments of its own making. One goroutine uses it.
type tickler struct{ fds [2]int } // IPv4, IPv6; -1: not open yet

func newTickler() *tickler { return &tickler{fds: [2]int{-1, -1}} }

func (t *tickler) close() {
	for i, fd := range t.fds {
		if fd >= 0 {
			unix.Close(fd)
			t.fds[i] = -1
		}
	}
}

func (t *tickler) open(i int) error {
	if t.fds[i] >= 0 {
		return nil
	}
	fd, err := unix.Socket([...]int{unix.AF_INET, unix.AF_INET6}[i], unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err != nil {
		return fmt.Errorf("open raw socket: %w", err)
	}
	t.fds[i] = fd
	return nil
}

// Tickle has the clients of connections that this host does not have find that out. It returns how many it has sent to.
func (h *Flows) Tickle(ctx context.Context, flows []Flow) (sent int, err error) {
	var buf [tickleSize]byte
	for i, fl := range flows {
		if i > 0 && i%tickleBatch == 0 {
			select {
			case <-time.After(ticklePause):
			case <-ctx.Done():
				return sent, ctx.Err()
			}
		}
		if e := h.tick.send(fl, buf[:0]); e != nil {
			err = fmt.Errorf("wake %v: %w", fl.Client, e)
			continue // no route to this one; there may be to the next
		}
		sent++
	}
	return sent, err
}

func (t *tickler) send(fl Flow, buf []byte) error {
	if fl.Client.Addr().Is4() {
		if err := t.open(0); err != nil {
			return err
		}
		return unix.Sendto(t.fds[0], appendTickle(buf, fl), 0, &unix.SockaddrInet4{Addr: fl.Client.Addr().As4()})
	}
	if err := t.open(1); err != nil {
		return err
	}
	return unix.Sendto(t.fds[1], appendTickle(buf, fl), 0, &unix.SockaddrInet6{Addr: fl.Client.Addr().As16()})
}

// appendTickle appends the packet. The kernel fills in what is left open of an IPv4 header: length, identification, checksum.
func appendTickle(b []byte, fl Flow) []byte {
	be := binary.BigEndian
	src, dst := fl.VIP.Addr(), fl.Client.Addr()
	if dst.Is4() {
		b = append(b, 0x45, 0, 0, 40, 0, 0, 0, 0, 64, unix.IPPROTO_TCP, 0, 0)
	} else {
		b = append(b, 0x60, 0, 0, 0, 0, 20, unix.IPPROTO_TCP, 64)
	}
	b = append(b, src.AsSlice()...)
	b = append(b, dst.AsSlice()...)
	head := len(b)
	b = be.AppendUint16(b, fl.VIP.Port())
	b = be.AppendUint16(b, fl.Client.Port())
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // sequence and acknowledgement: neither can be right, but for one chance in thousands
	b = append(b, 5<<4, 0x10)             // no options; ACK
	b = be.AppendUint16(b, 1024)
	b = append(b, 0, 0, 0, 0)
	be.PutUint16(b[head+16:], tcpChecksum(src, dst, b[head:]))
	return b
}

// tcpChecksum is that of a segment whose own field is zero.
func tcpChecksum(src, dst netip.Addr, segment []byte) uint16 {
	sum := uint32(unix.IPPROTO_TCP + len(segment))
	add := func(b []byte) {
		for ; len(b) >= 2; b = b[2:] {
			sum += uint32(binary.BigEndian.Uint16(b))
		}
	}
	add(src.AsSlice())
	add(dst.AsSlice())
	add(segment)
	for sum>>16 > 0 {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
