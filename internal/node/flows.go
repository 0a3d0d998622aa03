package node

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/skeinlb/skein/vip"
)

// Nodes tell one another the connections that they have to VIPs, so that whoever takes an address over from a dead node can wake that
// one's clients. A stream goes to each other node: what it does not know yet, and what has ended, once a second at most.
//
//	frame:  length (4), entries of so many bytes
//	entry:  '+' or '-', the length of an address (4 or 16), VIP, port (2), client, port (2); big-endian
//
// What a newer version says with another sign about a connection is passed over; anything else is another protocol of the port.

const (
	maxFlows     = 100_000 // of one node; more are not told, and their clients not woken
	maxFlowFrame = 64 << 10
)

// flow is a connection in a form that can be sorted and told.
type flow [36]byte // VIP as IPv6 (16), port (2), client as IPv6 (16), port (2)

func flowOf(f vip.Flow) (k flow) {
	a, c := f.VIP.Addr().As16(), f.Client.Addr().As16()
	copy(k[:], a[:])
	binary.BigEndian.PutUint16(k[16:], f.VIP.Port())
	copy(k[18:], c[:])
	binary.BigEndian.PutUint16(k[34:], f.Client.Port())
	return k
}

func (k flow) vip() netip.Addr { return netip.AddrFrom16([16]byte(k[:])).Unmap() }

func (k flow) connection() vip.Flow {
	return vip.Flow{
		VIP:    netip.AddrPortFrom(k.vip(), binary.BigEndian.Uint16(k[16:])),
		Client: netip.AddrPortFrom(netip.AddrFrom16([16]byte(k[18:])).Unmap(), binary.BigEndian.Uint16(k[34:])),
	}
}

func compareFlows(a, b flow) int { return bytes.Compare(a[:], b[:]) }

// lasting returns what is in both sorted lists: the connections of now that were there before, which are older than a step.
func lasting(before, now []flow) []flow {
	var both []flow
	for i := 0; len(now) > 0 && i < len(before); {
		switch c := compareFlows(before[i], now[0]); {
		case c < 0:
			i++
		case c > 0:
			now = now[1:]
		default:
			both = append(both, now[0])
			i, now = i+1, now[1:]
		}
	}
	return both[:min(len(both), maxFlows)]
}

// appendChanges appends the entries that make a peer that knows the sorted list old know now.
func appendChanges(b []byte, old, now []flow) []byte {
	for len(old) > 0 || len(now) > 0 {
		switch {
		case len(now) == 0 || len(old) > 0 && compareFlows(old[0], now[0]) < 0:
			b = old[0].append(b, '-')
			old = old[1:]
		case len(old) == 0 || compareFlows(old[0], now[0]) > 0:
			b = now[0].append(b, '+')
			now = now[1:]
		default:
			old, now = old[1:], now[1:]
		}
	}
	return b
}

func (k flow) append(b []byte, op byte) []byte {
	c := k.connection()
	v, cl := c.VIP.Addr().AsSlice(), c.Client.Addr().AsSlice()
	if len(v) != len(cl) {
		return b // no such thing
	}
	b = append(b, op, byte(len(v)))
	b = append(append(b, v...), k[16:18]...)
	return append(append(b, cl...), k[34:36]...)
}

// writeChanges writes entries as frames.
func writeChanges(w io.Writer, entries []byte) error {
	for len(entries) > 0 {
		n := 0
		for n < len(entries) { // whole entries only
			size := 2 + 2*(int(entries[n+1])+2)
			if n+size > maxFlowFrame {
				break
			}
			n += size
		}
		frame := binary.BigEndian.AppendUint32(make([]byte, 0, 4+n), uint32(n))
		if _, err := w.Write(append(frame, entries[:n]...)); err != nil {
			return err
		}
		entries = entries[n:]
	}
	return nil
}

var errFlows = errors.New("a frame of connections makes no sense")

// readFrame reads the entries of one frame.
func readFrame(r io.Reader) ([]byte, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(head[:])
	if n == 0 || n > maxFlowFrame {
		return nil, fmt.Errorf("%w: %d bytes", errFlows, n)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

// readChanges carries out entries on known.
func readChanges(b []byte, known map[flow]struct{}) error {
	for len(b) > 0 {
		if len(b) < 2 || b[1] != 4 && b[1] != 16 || len(b) < 2+2*(int(b[1])+2) {
			return errFlows
		}
		op, size := b[0], int(b[1])
		v, _ := netip.AddrFromSlice(b[2 : 2+size])
		c, _ := netip.AddrFromSlice(b[4+size : 4+2*size])
		k := flowOf(vip.Flow{
			VIP:    netip.AddrPortFrom(v, binary.BigEndian.Uint16(b[2+size:])),
			Client: netip.AddrPortFrom(c, binary.BigEndian.Uint16(b[4+2*size:])),
		})
		switch {
		case op == '-':
			delete(known, k)
		case op == '+' && len(known) < maxFlows:
			known[k] = struct{}{}
		}
		b = b[2+2*(size+2):]
	}
	return nil
}

// takeFlows removes from known the connections to addrs and returns them, sorted.
func takeFlows(known map[flow]struct{}, addrs []netip.Addr) (taken []vip.Flow) {
	var keys []flow
	for k := range known {
		if slices.Contains(addrs, k.vip()) {
			keys = append(keys, k)
			delete(known, k)
		}
	}
	slices.SortFunc(keys, compareFlows)
	for _, k := range keys {
		taken = append(taken, k.connection())
	}
	return taken
}
