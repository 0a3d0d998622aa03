package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Flow is a TCP connection of a client to a VIP.
type Flow struct{ Client, VIP netip.AddrPort }

// The wire format of sock_diag, linux/inet_diag.h. Ports and addresses are in network order, everything else in the host's.
const (
	diagByFamily = 20 // SOCK_DIAG_BY_FAMILY
	diagDestroy  = 21 // SOCK_DESTROY
	diagReqSize  = 56 // inet_diag_req_v2: family, protocol, ext, pad, states (4), id (48)
	diagMsgSize  = 72 // inet_diag_msg: family, state, timer, retransmits, id (48), and five numbers
	diagIDSize   = 48 // sport, dport, source (16), destination (16), interface (4), cookie (8)
	diagBytecode = 1  // INET_DIAG_REQ_BYTECODE

	bcJump  = 1 // INET_DIAG_BC_JMP
	bcLocal = 7 // INET_DIAG_BC_S_COND

	stateEstablished = 1
	stateTimeWait    = 6
	stateClose       = 7
	stateCloseWait   = 8
	stateLastAck     = 9
	stateListen      = 10
	stateClosing     = 11

	// connected are all states of a socket that belongs to one client, but those that only wait for stray segments.
	connected = 1<<13 - 1 - 1 - 1<<stateTimeWait - 1<<stateClose - 1<<stateListen
	// established is a connection that a client would miss.
	established = 1 << stateEstablished
)

// diagSocket speaks sock_diag. One goroutine uses it.
type diagSocket struct {
	fd  int
	seq uint32 // of the last request
	buf []byte
}

func openDiag() (*diagSocket, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	// A kernel that does not answer must not stop a move for ever.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 5}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("open sock_diag: %w", err)
	}
	return &diagSocket{fd: fd, buf: make([]byte, 64<<10)}, nil
}

func (d *diagSocket) close() { unix.Close(d.fd) }

// each calls f for every TCP socket in one of states whose local address is one of addrs. id is good until f returns.
func (d *diagSocket) each(addrs []netip.Addr, states uint32, f func(fl Flow, state byte, id []byte)) error {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		filter := localIn(addrs, family)
		if filter == nil {
			continue
		}
		req := make([]byte, diagReqSize, diagReqSize+4+len(filter))
		req[0], req[1] = family, unix.IPPROTO_TCP
		binary.NativeEndian.PutUint32(req[4:], states)
		req = binary.NativeEndian.AppendUint16(req, uint16(4+len(filter)))
		req = binary.NativeEndian.AppendUint16(req, diagBytecode)
		req = append(req, filter...)
		if err := d.ask(diagByFamily, unix.NLM_F_DUMP, req, func(b []byte) {
			if fl, id, ok := parseDiag(b); ok {
				f(fl, b[1], id)
			}
		}); err != nil {
			return fmt.Errorf("list connections: %w", err)
		}
	}
	return nil
}

// destroy aborts one socket: its client gets a reset, its owner an error.
func (d *diagSocket) destroy(family byte, id []byte) error {
	req := make([]byte, diagReqSize)
	req[0], req[1] = family, unix.IPPROTO_TCP
	binary.NativeEndian.PutUint32(req[4:], ^uint32(0))
	copy(req[8:], id)
	err := d.ask(diagDestroy, unix.NLM_F_ACK, req, func([]byte) {})
	if errors.Is(err, unix.ENOENT) {
		return nil // it has ended meanwhile
	}
	return err
}

// ask sends a request and calls f for the body of each answer until the kernel says that it is done.
func (d *diagSocket) ask(typ, flags uint16, body []byte, f func([]byte)) error {
	msg := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(msg, uint32(unix.SizeofNlMsghdr+len(body)))
	binary.NativeEndian.PutUint16(msg[4:], typ)
	binary.NativeEndian.PutUint16(msg[6:], unix.NLM_F_REQUEST|flags)
	d.seq++
	binary.NativeEndian.PutUint32(msg[8:], d.seq)
	if err := unix.Sendto(d.fd, append(msg, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	for {
		n, err := unix.Read(d.fd, d.buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		for b := d.buf[:n]; len(b) >= unix.SizeofNlMsghdr; {
			size := int(binary.NativeEndian.Uint32(b))
			if size < unix.SizeofNlMsghdr || size > len(b) {
				return errors.New("the kernel's answer makes no sense")
			}
			switch payload, typ := b[unix.SizeofNlMsghdr:size], binary.NativeEndian.Uint16(b[4:]); {
			case binary.NativeEndian.Uint32(b[8:]) != d.seq: // the rest of an answer that was given up
			case typ == unix.NLMSG_DONE:
				return nil
			case typ == unix.NLMSG_ERROR:
				if len(payload) < 4 {
					return errors.New("the kernel's answer makes no sense")
				}
				if e := int32(binary.NativeEndian.Uint32(payload)); e != 0 {
					return unix.Errno(-e)
				}
				return nil
			default:
				f(payload)
			}
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// localIn is a filter for the kernel: sockets whose local address is one of addrs, of that family. Nil: none of addrs is.
//
//	for each address:  is it the local one? then the next step, else skip it
//	                   jump to the end, which accepts
//	a jump beyond the end rejects
func localIn(addrs []netip.Addr, family byte) []byte {
	size := 4
	if family == unix.AF_INET6 {
		size = 16
	}
	var of []netip.Addr
	for _, a := range addrs {
		if a = a.Unmap(); a.BitLen() == size*8 {
			of = append(of, a)
		}
	}
	if len(of) == 0 {
		return nil
	}
	cond := 4 + 8 + size // the step, inet_diag_hostcond, the address
	total := len(of) * (cond + 4)
	var b []byte
	for i, a := range of {
		left := total - len(b)
		no := cond + 4
		if i == len(of)-1 {
			no = left + 4 // beyond the end
		}
		b = append(b, bcLocal, byte(cond))
		b = binary.NativeEndian.AppendUint16(b, uint16(no))
		b = append(b, family, byte(size*8), 0, 0)
		b = binary.NativeEndian.AppendUint32(b, ^uint32(0)) // any port
		b = append(b, a.AsSlice()...)
		b = append(b, bcJump, 4)
		b = binary.NativeEndian.AppendUint16(b, uint16(total-len(b)+2))
	}
	return b
}

// parseDiag reads an inet_diag_msg.
func parseDiag(b []byte) (fl Flow, id []byte, ok bool) {
	if len(b) < diagMsgSize {
		return fl, nil, false
	}
	id = b[4 : 4+diagIDSize]
	var local, remote netip.Addr
	switch b[0] {
	case unix.AF_INET:
		local, remote = netip.AddrFrom4([4]byte(id[4:])), netip.AddrFrom4([4]byte(id[20:]))
	case unix.AF_INET6:
		local, remote = netip.AddrFrom16([16]byte(id[4:])), netip.AddrFrom16([16]byte(id[20:]))
	default:
		return fl, nil, false
	}
	fl.VIP = netip.AddrPortFrom(local, binary.BigEndian.Uint16(id))
	fl.Client = netip.AddrPortFrom(remote, binary.BigEndian.Uint16(id[2:]))
	return fl, id, true
}

// Flows looks after the connections to VIPs, those on this host and those of nodes that died. One goroutine uses it.
type Flows struct {
	diag *diagSocket
	tick *tickler
}

// OpenFlows returns a Flows, or why this host can't tell what is connected to it.
func OpenFlows() (*Flows, error) {
	d, err := openDiag()
	if err != nil {
		return nil, err
	}
	return &Flows{diag: d, tick: newTickler()}, nil
}

// Close gives back what it has open.
func (h *Flows) Close() {
	h.diag.close()
	h.tick.close()
}

// Each calls f for every established connection to one of addrs on this host.
func (h *Flows) Each(addrs []netip.Addr, f func(Flow)) error {
	return h.diag.each(addrs, established, func(fl Flow, _ byte, _ []byte) { f(fl) })
}

// Reset ends every connection to one of addrs: the clients get resets, as long as the addresses are on this host. It returns how many.
func (h *Flows) Reset(addrs []netip.Addr) (n int, err error) {
	type target struct {
		family byte
		id     [diagIDSize]byte
	}
	var all []target
	err = h.diag.each(addrs, connected, func(fl Flow, _ byte, id []byte) {
		t := target{family: unix.AF_INET}
		if fl.VIP.Addr().Is6() {
			t.family = unix.AF_INET6
		}
		copy(t.id[:], id)
		all = append(all, t)
	})
	for i := range all {
		if e := h.diag.destroy(all[i].family, all[i].id[:]); e != nil {
			err = errors.Join(err, fmt.Errorf("reset a connection: %w", e))
			break // CONFIG_INET_DIAG_DESTROY is missing, and will be for the others
		}
		n++
	}
	return n, err
}
