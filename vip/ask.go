package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// asker asks the kernel over one netlink socket and with buffers of its own, what a guard asks again and again. The netlink packages make
// new ones for each answer, of 64 KB, which was nearly all of a guard's garbage; they are for what is asked now and then.
//
// The kernel answers while it takes the request, so that there is nothing to wait for but its own locks.
type asker struct {
	fd  int
	seq uint32
	out []byte
	in  [16 << 10]byte // no part of an answer is longer: the kernel cuts them to what the reader has room for
}

// askMost is how long the rest of an answer is waited for.
const askMost = 500 * ms

func openAsker(protocol int) (*asker, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	most := unix.NsecToTimeval(askMost)
	err = errors.Join(unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}), unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &most))
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	return &asker{fd: fd, out: make([]byte, 0, 256)}, nil
}

func (q *asker) close() {
	if q != nil {
		unix.Close(q.fd)
	}
}

// begin starts a request. Its fixed part is appended to out, then come attributes.
func (q *asker) begin(typ, flags uint16) {
	q.seq++
	b := append(q.out[:0], 0, 0, 0, 0) // the length
	b = binary.NativeEndian.AppendUint16(b, typ)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST)
	b = binary.NativeEndian.AppendUint32(b, q.seq)
	q.out = append(b, 0, 0, 0, 0)
}

func (q *asker) attr(typ uint16, value ...byte) {
	b := binary.NativeEndian.AppendUint16(q.out, uint16(4+len(value)))
	b = append(binary.NativeEndian.AppendUint16(b, typ), value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	q.out = b
}

// ask sends what was begun, and hands over each message of the answer. The error is the kernel's, a unix.Errno, where it gives one.
func (q *asker) ask(take func(typ uint16, b []byte)) error {
	binary.NativeEndian.PutUint32(q.out, uint32(len(q.out)))
	if _, err := unix.Write(q.fd, q.out); err != nil {
		return err
	}
	for {
		n, err := unix.Read(q.fd, q.in[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for b := q.in[:n]; len(b) > 0; {
			if len(b) < unix.SizeofNlMsghdr {
				return errAnswer
			}
			size, typ, flags := int(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint16(b[6:])
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return errAnswer
			}
			seq, m := binary.NativeEndian.Uint32(b[8:]), b[unix.SizeofNlMsghdr:size]
			b = b[min((size+3)&^3, len(b)):]
			switch {
			case seq != q.seq: // the rest of an answer that was given up
			case typ == unix.NLMSG_DONE:
				return nil
			case typ == unix.NLMSG_ERROR && len(m) < 4:
				return errAnswer
			case typ == unix.NLMSG_ERROR:
				if e := -int32(binary.NativeEndian.Uint32(m)); e != 0 {
					return unix.Errno(e)
				}
				return nil
			default:
				if take != nil {
					take(typ, m)
				}
				if flags&unix.NLM_F_MULTI == 0 {
					return nil
				}
			}
		}
	}
}

var errAnswer = errors.New("the kernel's answer is cut off")

const typeMask = 1<<14 - 1 // NLA_TYPE_MASK of linux/netlink.h: two flags are beside it

// attrs calls f for each attribute in b.
func attrs(b []byte, f func(typ uint16, value []byte)) {
	for len(b) >= unix.SizeofRtAttr {
		size, typ := int(binary.NativeEndian.Uint16(b)), binary.NativeEndian.Uint16(b[2:])
		if size < unix.SizeofRtAttr || size > len(b) {
			return
		}
		f(typ&typeMask, b[unix.SizeofRtAttr:size])
		b = b[min((size+3)&^3, len(b)):]
	}
}

// address adds an address to an interface, or renews its life there, or, with a life of zero, removes it.
//
// In IPv6 it comes deprecated, or the host would take it for the source of its own connections (RFC 6724 rule 3), and without duplicate
// address detection, which would leave it silent for a second: that nobody else has it is what the lease and our own probes are for.
func (q *asker) address(index int, a netip.Addr, life uint32) error {
	var flags, preferred uint32 = unix.IFA_F_NOPREFIXROUTE, life
	if a.Is6() {
		flags, preferred = flags|unix.IFA_F_NODAD, 0
	}
	if life > 0 {
		q.begin(unix.RTM_NEWADDR, unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_REPLACE)
	} else {
		q.begin(unix.RTM_DELADDR, unix.NLM_F_ACK)
	}
	q.out = append(q.out, byte(family(a)), byte(a.BitLen()), 0, 0) // struct ifaddrmsg
	q.out = binary.NativeEndian.AppendUint32(q.out, uint32(index))
	b := a.As16()
	raw := b[:]
	if a.Is4() {
		raw = b[12:]
	}
	q.attr(unix.IFA_LOCAL, raw...)
	q.attr(unix.IFA_ADDRESS, raw...)
	if life > 0 {
		var f [4]byte
		binary.NativeEndian.PutUint32(f[:], flags)
		q.attr(unix.IFA_FLAGS, f[:]...)
		var c [16]byte // struct ifa_cacheinfo
		binary.NativeEndian.PutUint32(c[0:], preferred)
		binary.NativeEndian.PutUint32(c[4:], life)
		q.attr(unix.IFA_CACHEINFO, c[:]...)
	}
	return q.ask(nil)
}

// up sets an interface up or down.
func (q *asker) up(index int, up bool) error {
	var flags uint32
	if up {
		flags = unix.IFF_UP
	}
	q.begin(unix.RTM_NEWLINK, unix.NLM_F_ACK)
	q.out = append(q.out, unix.AF_UNSPEC, 0, 0, 0) // struct ifinfomsg
	for _, v := range [...]uint32{uint32(index), flags, unix.IFF_UP} {
		q.out = binary.NativeEndian.AppendUint32(q.out, v)
	}
	return q.ask(nil)
}

// gateway is the first default gateway of a family in the main table that is no link-local address; invalid: there is none.
func (q *asker) gateway(fam byte) (gateway netip.Addr, err error) {
	q.begin(unix.RTM_GETROUTE, unix.NLM_F_DUMP)
	q.out = append(q.out, fam, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0) // struct rtmsg
	err = q.ask(func(typ uint16, b []byte) {
		const dstLen, table, flags = 1, 4, 8
		if typ != unix.RTM_NEWROUTE || gateway.IsValid() || len(b) < unix.SizeofRtMsg ||
			b[dstLen] != 0 || b[table] != unix.RT_TABLE_MAIN || binary.NativeEndian.Uint32(b[flags:])&unix.RTM_F_CLONED != 0 {
			return
		}
		attrs(b[unix.SizeofRtMsg:], func(typ uint16, value []byte) {
			if a, ok := netip.AddrFromSlice(value); typ == unix.RTA_GATEWAY && ok && !a.Unmap().IsLinkLocalUnicast() {
				gateway = a.Unmap()
			}
		})
	})
	return gateway, err
}

// generation counts what was committed to nftables in this network namespace. An error says that there is no nftables for us.
func (q *asker) generation() (n uint32, err error) {
	q.begin(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
	q.out = append(q.out, unix.AF_UNSPEC, 0, 0, 0) // struct nfgenmsg
	err = q.ask(func(typ uint16, b []byte) {
		if typ != unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN || len(b) < 4 {
			return
		}
		attrs(b[4:], func(typ uint16, value []byte) {
			if typ == unix.NFTA_GEN_ID && len(value) == 4 {
				n = binary.BigEndian.Uint32(value)
			}
		})
	})
	return n, err
}
