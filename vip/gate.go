package vip

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// gate lets the kernel answer ARP for a VIP only for moments: a stopped guard can't close anything, so it must be the opening
// that needs work. In a netdev table of nftables, the one family whose hooks see ARP and loopback alike and may share a set:
//
//	table netdev skein-vip {
//	  set vips { type ipv4_addr; elements = the VIPs }
//	  set live { type ipv4_addr; flags dynamic, timeout }
//	  chain tick    ingress lo:   a datagram with our secret puts the address in it into live, for one of the times in gates
//	  chain in-N    ingress dev:  an ARP request for one of vips that is not in live is dropped
//	  chain out-N   egress dev:   an ARP frame from one of vips that is not in live is dropped (Linux 5.16)
//	}
//
// To open is one datagram to loopback, no netlink: a send that takes 3 µs and allocates nothing. The last chain also swallows
// an announcement for which the lease was checked just before the guard was stopped.
type gate struct {
	conn   *nftables.Conn
	table  *nftables.Table
	secret [8]byte
	fd     int
	to     unix.SockaddrInet4
	pkt    [gateSize]byte

	vips []netip.Addr
	devs []string
	up   bool
	why  string // that it is not up

	egress bool // the out chains are there
}

const (
	gateTable = "skein-vip"
	gatePort  = 7949
	gateSize  = 12 // secret (8, the last byte xor class), address (4)
	regKey    = 1
)

func newGate() *gate {
	g := &gate{fd: -1, why: "not set up yet", table: &nftables.Table{Family: nftables.TableFamilyNetdev, Name: gateTable}}
	rand.Read(g.secret[:])
	g.to = unix.SockaddrInet4{Port: gatePort, Addr: [4]byte{127, 0, 0, 1}}
	return g
}

// String is what State.Gate says.
func (g *gate) String() string {
	if g.up {
		return "nftables"
	}
	return "none: " + g.why + "; the kernel's address lifetime of 3 s is the last resort"
}

// install makes the table for these VIPs on these interfaces. held are answered for until d from now without another tick.
func (g *gate) install(vips []netip.Addr, devs []string, held []netip.Addr, d time.Duration) error {
	g.egress = true
	err := g.build(vips, devs, held, d)
	if err != nil {
		g.egress = false // before Linux 5.16 there is no such hook; the ingress half is the one that matters
		err = g.build(vips, devs, held, d)
	}
	if err == nil {
		err = g.prove()
	}
	if err != nil {
		g.remove()
		g.why = err.Error()
		return err
	}
	g.vips, g.devs, g.up, g.why = slices.Clone(vips), slices.Clone(devs), true, ""
	return nil
}

func (g *gate) open() error {
	if g.fd < 0 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return fmt.Errorf("gate socket: %w", err)
		}
		g.fd = fd
	}
	if g.conn == nil {
		c, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return fmt.Errorf("nftables: %w", err)
		}
		g.conn = c
	}
	return nil
}

func (g *gate) build(vips []netip.Addr, devs []string, held []netip.Addr, d time.Duration) error {
	if err := g.open(); err != nil {
		return err
	}
	c := g.conn
	c.AddTable(g.table) // so that there is one to delete: add, delete and make anew are one transaction
	c.DelTable(g.table)
	c.AddTable(g.table)
	known := &nftables.Set{Table: g.table, Name: "vips", KeyType: nftables.TypeIPAddr, KeyByteOrder: binaryutil.BigEndian}
	if err := c.AddSet(known, elements(vips, 0)); err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	live := &nftables.Set{Table: g.table, Name: "live", KeyType: nftables.TypeIPAddr, KeyByteOrder: binaryutil.BigEndian,
		HasTimeout: true, Dynamic: true, Timeout: time.Duration(gates[0]), Size: MaxAddresses + 1}
	if err := c.AddSet(live, elements(held, d)); err != nil {
		return fmt.Errorf("gate: %w", err)
	}
	g.tickChain(live)
	for i, dev := range devs {
		g.arpChain(fmt.Sprintf("in-%d", i), nftables.ChainHookIngress, dev, known, live, []expr.Any{
			// Opcode 1, request; the target address.
			&expr.Payload{DestRegister: regKey, Base: expr.PayloadBaseNetworkHeader, Offset: 6, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: []byte{0, 1}},
			&expr.Payload{DestRegister: regKey, Base: expr.PayloadBaseNetworkHeader, Offset: 24, Len: 4},
		})
		if !g.egress {
			continue
		}
		g.arpChain(fmt.Sprintf("out-%d", i), nftables.ChainHookEgress, dev, known, live, []expr.Any{
			&expr.Payload{DestRegister: regKey, Base: expr.PayloadBaseNetworkHeader, Offset: 14, Len: 4},
		})
	}
	if err := c.Flush(); err != nil {
		g.conn.CloseLasting()
		g.conn = nil
		return fmt.Errorf("nftables (the kernel's netdev family and CAP_NET_ADMIN are needed): %w", err)
	}
	return nil
}

func elements(addrs []netip.Addr, d time.Duration) []nftables.SetElement {
	var out []nftables.SetElement
	for _, a := range addrs {
		out = append(out, nftables.SetElement{Key: a.AsSlice(), Timeout: d})
	}
	return out
}

func (g *gate) tickChain(live *nftables.Set) {
	ch := g.conn.AddChain(&nftables.Chain{Name: "tick", Table: g.table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookIngress, Priority: nftables.ChainPriorityFilter, Device: "lo"})
	net := func(off, n uint32) *expr.Payload {
		return &expr.Payload{DestRegister: regKey, Base: expr.PayloadBaseNetworkHeader, Offset: off, Len: n}
	}
	is := func(b ...byte) *expr.Cmp { return &expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: b} }
	port := binary.BigEndian.AppendUint16(nil, gatePort)
	// All other traffic of the loopback leaves at the first rule.
	g.conn.AddRule(&nftables.Rule{Table: g.table, Chain: ch, Exprs: []expr.Any{
		net(22, 2), &expr.Cmp{Op: expr.CmpOpNeq, Register: regKey, Data: port}, &expr.Verdict{Kind: expr.VerdictAccept},
	}})
	for i, d := range gates {
		s := g.secretFor(i)
		g.conn.AddRule(&nftables.Rule{Table: g.table, Chain: ch, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: regKey}, is(0x08, 0x00),
			net(0, 1), is(0x45), net(9, 1), is(unix.IPPROTO_UDP), net(28, 8), is(s[:]...), net(36, 4),
			&expr.Dynset{SrcRegKey: regKey, SetName: live.Name, SetID: live.ID, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE), Timeout: time.Duration(d)},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	}
}

func (g *gate) arpChain(name string, hook *nftables.ChainHook, dev string, known, live *nftables.Set, key []expr.Any) {
	ch := g.conn.AddChain(&nftables.Chain{Name: name, Table: g.table, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityFilter, Device: dev})
	exprs := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: regKey},
		&expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: []byte{0x08, 0x06}},
	}
	exprs = append(exprs, key...)
	g.conn.AddRule(&nftables.Rule{Table: g.table, Chain: ch, Exprs: append(exprs,
		&expr.Lookup{SourceRegister: regKey, SetName: known.Name, SetID: known.ID},
		&expr.Lookup{SourceRegister: regKey, SetName: live.Name, SetID: live.ID, Invert: true},
		&expr.Verdict{Kind: expr.VerdictDrop},
	)})
}

func (g *gate) secretFor(class int) [8]byte {
	s := g.secret
	s[7] ^= byte(class)
	return s
}

// prove sends a tick for an address that nobody has and looks whether it arrived. It fails where loopback is down, or the
// kernel took the rules but does not run them: a gate that can't be opened would be worse than none.
func (g *gate) prove() error {
	probe := netip.AddrFrom4([4]byte{0, 0, 0, 1})
	if err := g.tick(probe, gates[len(gates)-1]); err != nil {
		return fmt.Errorf("the gate can't be opened (is the loopback interface up?): %w", err)
	}
	set, err := g.conn.GetSetByName(g.table, "live")
	if err != nil {
		return fmt.Errorf("read the gate: %w", err)
	}
	for range 20 {
		got, err := g.conn.GetSetElements(set)
		if err != nil {
			return fmt.Errorf("read the gate: %w", err)
		}
		for _, e := range got {
			if slices.Equal(e.Key, probe.AsSlice()) {
				return nil
			}
		}
	}
	return fmt.Errorf("a tick on loopback does not reach the gate's rules")
}

// tick lets ARP for a be answered for d, which is one of gates. The caller has just seen that the lease lasts that long.
func (g *gate) tick(a netip.Addr, d int64) error {
	class := slices.Index(gates[:], d)
	if class < 0 {
		return nil
	}
	s := g.secretFor(class)
	copy(g.pkt[:], s[:])
	a4 := a.As4()
	copy(g.pkt[8:], a4[:])
	return unix.Sendto(g.fd, g.pkt[:], unix.MSG_DONTWAIT, &g.to)
}

// intact is whether the table is still there; it costs a netlink round trip.
func (g *gate) intact() bool {
	chains, err := g.conn.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return true // can't tell
	}
	n := 0
	for _, c := range chains {
		if c.Table.Name == gateTable {
			n++
		}
	}
	want := 1 + len(g.devs)
	if g.egress {
		want += len(g.devs)
	}
	return n == want
}

// remove takes the table away.
func (g *gate) remove() {
	g.up = false
	if g.conn != nil {
		g.conn.AddTable(g.table)
		g.conn.DelTable(g.table)
		g.conn.Flush()
	}
}

func (g *gate) close() {
	g.remove()
	if g.conn != nil {
		g.conn.CloseLasting()
	}
	if g.fd >= 0 {
		unix.Close(g.fd)
	}
}
