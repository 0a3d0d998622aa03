package vip

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// This file is the edge of pair.go: it asks the tie-break by ICMP echo, and keeps the generation on the disk.

// tie is one address that is asked: a raw socket, connected, so that the kernel hands over nothing but its echo replies.
type tie struct {
	addr netip.Addr
	fd   int // -1: could not be opened
}

// keeper is who writes the generation: a goroutine per write, since a sync may take longer than any lease.
type keeper struct {
	fd   int // an eventfd: a write has ended
	done chan kept
}

type kept struct {
	generation uint64
	err        error
}

// note is what stands in Pair.File.
type note struct {
	Generation uint64 `json:"generation"`
}

func (k *keeper) open() (err error) {
	k.done = make(chan kept, 4)
	if k.fd, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("open eventfd: %w", err)
	}
	return nil
}

// resolvePair returns s as it is for this host: without addresses of its own, a tie-break is the default gateway.
func (g *guard) resolvePair(s *Setup) *Setup {
	if s.Pair == nil {
		return s
	}
	own, pair := *s, *s.Pair
	if len(pair.Tiebreak) == 0 && !pair.Available {
		pair.Tiebreak = g.links.gateways()
	}
	own.Pair = &pair
	return &own
}

// setPair opens what the pair of a resolved setup needs. It comes before the machine hears of that setup.
func (g *guard) setPair(s *Setup) {
	if s.Pair == nil {
		g.closeTies()
		g.pairFile = ""
		return
	}
	if g.pairFile != s.Pair.File {
		g.pairFile = s.Pair.File
		n, err := readNote(g.pairFile)
		if err != nil {
			g.log.Error("generation of the pair", "err", err)
			g.m.remembered(0, true, err.Error())
		} else {
			g.m.remembered(n.Generation, true, "")
		}
	}
	if slices.EqualFunc(g.ties, s.Pair.Tiebreak, func(t tie, a netip.Addr) bool { return t.addr == a && t.fd >= 0 }) {
		return
	}
	g.closeTies()
	for _, a := range s.Pair.Tiebreak {
		fd, err := openTie(a)
		if err != nil {
			g.log.Error("tie-break address", "addr", a, "err", err)
		}
		g.ties = append(g.ties, tie{a, fd})
	}
}

func (g *guard) closeTies() {
	for _, t := range g.ties {
		if t.fd >= 0 {
			unix.Close(t.fd)
		}
	}
	g.ties = nil
}

// checkPair follows a default gateway that has changed, and opens what could not be opened before.
func (g *guard) checkPair() {
	if g.setup == nil || g.setup.Pair == nil || g.setup.Pair.Available {
		return
	}
	s := g.resolvePair(g.setup)
	g.setPair(s)
	g.m.setPair(g.now(), s.Pair, len(s.Pair.Tiebreak))
}

// gateways are the default gateways of this host: that of IPv4, or else that of IPv6.
func (l *linkLayer) gateways() []netip.Addr {
	for _, fam := range [...]byte{unix.AF_INET, unix.AF_INET6} {
		if a, err := l.ask.gateway(fam); err == nil && a.IsValid() {
			return []netip.Addr{a}
		}
	}
	return nil
}

// openTie makes a socket that sends to a and hears its echo replies alone.
func openTie(a netip.Addr) (int, error) {
	domain, proto := unix.AF_INET, unix.IPPROTO_ICMP
	if a.Is6() {
		domain, proto = unix.AF_INET6, unix.IPPROTO_ICMPV6
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return -1, fmt.Errorf("open raw socket for icmp (CAP_NET_RAW is needed): %w", err)
	}
	if a.Is6() {
		var f unix.ICMPv6Filter // a set bit blocks
		for i := range f.Data {
			f.Data[i] = 1<<32 - 1
		}
		f.Data[echoReply6>>5] &^= 1 << (echoReply6 & 31)
		err = unix.SetsockoptICMPv6Filter(fd, unix.IPPROTO_ICMPV6, unix.ICMPV6_FILTER, &f)
	} else {
		const icmpFilter = 1 // ICMP_FILTER of linux/icmp.h
		var mask uint32 = 1<<32 - 1
		mask &^= 1 << echoReply4
		err = unix.SetsockoptInt(fd, unix.SOL_RAW, icmpFilter, int(int32(mask)))
	}
	if err == nil {
		err = unix.Connect(fd, sockaddr(netip.AddrPortFrom(a, 0)))
	}
	if err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("ask %v by icmp: %w", a, err)
	}
	return fd, nil
}

const (
	echoRequest4, echoReply4 = 8, 0
	echoRequest6, echoReply6 = 128, 129
	echoLen                  = 8 + 16 // header, life of the guard, time of sending
)

// ping asks every address of the tie-break. What is not sent is like what is not answered.
func (g *guard) ping() {
	for i := range g.ties {
		if t := &g.ties[i]; t.fd >= 0 {
			_ = unix.Send(t.fd, packEcho(g.wire[:0], t.addr.Is6(), g.m.boot, g.now()), unix.MSG_DONTWAIT)
		}
	}
}

func packEcho(b []byte, six bool, boot uint64, now int64) []byte {
	typ := byte(echoRequest4)
	if six {
		typ = echoRequest6
	}
	be := binary.BigEndian
	b = append(b, typ, 0, 0, 0, byte(boot>>8), byte(boot), 0, 1)
	b = be.AppendUint64(b, boot)
	b = be.AppendUint64(b, uint64(now))
	if !six { // the kernel makes that of ICMPv6
		sum := uint32(0)
		for i := 0; i < len(b); i += 2 {
			sum += uint32(be.Uint16(b[i:]))
		}
		for sum > 0xffff {
			sum = sum>>16 + sum&0xffff
		}
		be.PutUint16(b[2:], ^uint16(sum))
	}
	return b
}

// parseEcho returns when the request that b answers was sent; ok is false when it was none of this life's.
func parseEcho(b []byte, six bool, boot uint64) (sent int64, ok bool) {
	typ := byte(echoReply6)
	if !six { // with its IP header
		typ = echoReply4
		if len(b) < 20 {
			return 0, false
		}
		head := int(b[0]&0xf) * 4
		if head < 20 || len(b) < head {
			return 0, false
		}
		b = b[head:]
	}
	if len(b) < echoLen || b[0] != typ || binary.BigEndian.Uint64(b[8:]) != boot {
		return 0, false
	}
	return int64(binary.BigEndian.Uint64(b[16:])), true
}

// hearTie drains the replies of tie k.
func (g *guard) hearTie(k int) {
	for range batchMax {
		n, err := unix.Read(g.ties[k].fd, g.rx[:])
		if err != nil {
			return // drained, or an ICMP error of an earlier send
		}
		if sent, ok := parseEcho(g.rx[:n], g.ties[k].addr.Is6(), g.m.boot); ok {
			g.m.reached(g.now(), k, sent)
		}
	}
}

// saveGeneration begins to write the generation that the machine asked for.
func (g *guard) saveGeneration() {
	generation, path, k := g.m.pair.saving, g.pairFile, &g.keeper
	go func() { // ends with the write
		k.done <- kept{generation, writeNote(path, note{generation})}
		unix.Write(k.fd, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}()
}

// hearKeeper takes what became of writes.
func (g *guard) hearKeeper() {
	var b [8]byte
	unix.Read(g.keeper.fd, b[:])
	for {
		select {
		case r := <-g.keeper.done:
			if r.err != nil {
				g.log.Error("the generation is not on the disk: nothing is taken from the other node", "generation", r.generation, "err", r.err)
				g.m.remembered(0, false, r.err.Error())
			} else {
				g.m.remembered(r.generation, false, "")
			}
		default:
			return
		}
	}
}

func readNote(path string) (n note, err error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return n, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &n)
	}
	if err != nil {
		return note{}, fmt.Errorf("read %s: %w", path, err)
	}
	return n, nil
}

// writeNote replaces the file as a whole, and returns when it is on the disk.
func writeNote(path string, n note) error {
	b, err := json.Marshal(n)
	if err != nil {
		return err
	}
	tmp := path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// PairGeneration reads the generation at which this node has last taken an address by itself, from the Pair.File of its guard; 0:
// it never did.
func PairGeneration(file string) (uint64, error) {
	n, err := readNote(file)
	return n.Generation, err
}
