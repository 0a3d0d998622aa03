package vip

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Handover gives the packets of connections that were established elsewhere to the node that has them. It belongs to the agent, not
// to the guard: it is made before the guard is told of a move, and may be slow. One goroutine uses it.
//
// In a netdev table of nftables, where a packet comes in and before anything else of this host looks at it:
//
//	table netdev skein-handover {
//	  set watched4    VIPs whose new connections are noted
//	  set own4        client . VIP . port . port of the connections that are this node's own
//	  set closing4    those of them that the client has closed: soon it may use the port again, for a connection with another node
//	  map next4       VIP : MAC of the node to hand on to
//	  map self4       VIP : our MAC on that link
//	  map hops4       VIP : how often a packet of it is handed on
//	  chain in-N      ingress of a link: TCP to a watched VIP jumps to tcp4, ICMP to icmp4
//	  chain tcp4      a SYN is noted in own4 and accepted; what is in own4 is accepted; a connection with a FIN or a RST is forgotten
//	                  a while after its last packet; the rest goes to pass4
//	  chain icmp4     an error about a connection in own4 is accepted (path MTU); the rest goes to pass4
//	  chain pass4     a packet that has been everywhere is accepted, and our kernel answers it with a reset; all else has its hops
//	                  counted, which its time to live does: nothing goes in circles, whatever the nodes believe of one another
//	  chain leave4    and leaves by the link that it came in by, to the next node's MAC
//	}
//
// and the same for IPv6. A duplicate leaves and the original is dropped, since a plain "fwd" is not in the library; no routing, no
// neighbour, no firewall and no conntrack of this host takes part. docs/decisions/0009-second-chance.md has what was tried.
type Handover struct {
	conn  *nftables.Conn
	diag  *diagSocket
	table *nftables.Table
	fams  [2]handFamily

	hands  map[netip.Addr]Hand
	chains []string // links
}

// Hand is to whom this node hands what is not its own of one address.
type Hand struct {
	Address netip.Addr
	Link    string           // where its packets arrive
	To      net.HardwareAddr // the node's MAC there
	Hops    int              // how many nodes beside this one may have what is looked for; 1 to MaxHops
}

// MaxHops bounds how often a packet is handed on.
const MaxHops = 8

func (h Hand) equal(o Hand) bool {
	return h.Address == o.Address && h.Link == o.Link && bytes.Equal(h.To, o.To) && h.Hops == o.Hops
}

// handFamily is what the rules for one family are made of.
type handFamily struct {
	suffix   string
	proto    []byte // of the Ethernet frame
	icmp     byte   // protocol number
	from, to uint32 // where the addresses are in a header
	size     uint32 // of an address
	inner    uint32 // length of the header inside an ICMP error
	next     uint32 // where in it the protocol is
	errors   []byte // types of ICMP errors: from, to
	port     uint32 // register of the first port

	ttl     uint32 // where the time to live is in a header
	counted bool   // by a checksum of the header

	watched, own, closing, nexts, selfs, hops *nftables.Set
}

const (
	handTable = "skein-handover"
	ownMax    = 1 << 20         // connections noted; what comes beyond that stays with the former holder
	ownLife   = 25 * time.Hour  // longer than any drain: the rules go before that
	ownClosed = 5 * time.Second // after the last packet of a connection that the client has closed; half of one may go on for long
	ownBatch  = 1000            // elements per message
	handMost  = 5 * time.Second // for one commit or question; a kernel that does not answer must not stop moves for ever
)

// OpenHandover returns a Handover that hands nothing on, after removing what a former life has left. An error says that established
// connections can't be kept on a move.
func OpenHandover() (*Handover, error) {
	h := &Handover{table: &nftables.Table{Family: nftables.TableFamilyNetdev, Name: handTable}, hands: map[netip.Addr]Hand{}}
	var err error
	if h.diag, err = openDiag(); err != nil {
		return nil, err
	}
	if h.conn, err = openRules(handMost); err != nil {
		h.diag.close()
		return nil, err
	}
	// All but the links' chains is there from now on: what the kernel lacks is known before a move, and a move needs little to be ready.
	if err = h.build(); err != nil {
		h.Close()
		return nil, fmt.Errorf("hand connections over (the kernel's netdev family, dup and CAP_NET_ADMIN are needed): %w", err)
	}
	return h, nil
}

// Close removes the rules.
func (h *Handover) Close() {
	h.conn.AddTable(h.table) // so that there is one to delete
	h.conn.DelTable(h.table)
	h.flush()
	h.diag.close()
}

// Set makes the rules fit hands, and reports whether anything had to change. Who the node's own connections belong to is found out before the first packet is handed on.
func (h *Handover) Set(hands []Hand) (changed bool, err error) {
	want := map[netip.Addr]Hand{}
	for _, hand := range hands {
		hand.Hops = max(1, min(hand.Hops, MaxHops))
		want[hand.Address] = hand
	}
	if maps.EqualFunc(want, h.hands, Hand.equal) {
		return false, nil
	}
	if len(want) == 0 {
		err = h.idle()
	} else {
		err = h.set(want)
	}
	if err != nil {
		// A rule that is half there may send packets anywhere.
		err = errors.Join(fmt.Errorf("hand connections over: %w", err), h.build())
	}
	return true, err
}

func (h *Handover) set(want map[netip.Addr]Hand) error {
	var fresh []netip.Addr
	for a, hand := range want {
		if !slices.Contains(h.chains, hand.Link) {
			h.linkChain(len(h.chains), hand.Link)
			h.chains = append(h.chains, hand.Link)
		}
		if _, ok := h.hands[a]; !ok {
			fresh = append(fresh, a)
		}
	}
	slices.SortFunc(fresh, netip.Addr.Compare)

	if err := h.forgetOwn(fresh); err != nil {
		return err
	}
	// First the new connections of an address are noted, then those that there are, and only then is anything handed on.
	for i := range h.fams {
		f := &h.fams[i]
		if of := f.of(fresh); len(of) > 0 {
			h.conn.SetAddElements(f.watched, elements(of, 0))
		}
	}
	if err := h.flush(); err != nil {
		return err
	}
	if err := h.noteOwn(fresh); err != nil {
		return err
	}

	var gone []netip.Addr
	for a, old := range h.hands {
		hand, ok := want[a]
		if !ok {
			gone = append(gone, a)
		}
		if !ok || !hand.equal(old) {
			h.elements(a, Hand{}, h.conn.SetDeleteElements)
		}
	}
	for _, a := range slices.SortedFunc(maps.Keys(want), netip.Addr.Compare) {
		hand := want[a]
		if hand.equal(h.hands[a]) {
			continue
		}
		link, err := net.InterfaceByName(hand.Link)
		if err != nil {
			return fmt.Errorf("link %s: %w", hand.Link, err)
		}
		if len(link.HardwareAddr) != 6 || len(hand.To) != 6 {
			return fmt.Errorf("link %s has no Ethernet address", hand.Link)
		}
		h.elements(a, hand, h.conn.SetAddElements, link.HardwareAddr...)
	}
	for i := range h.fams {
		f := &h.fams[i]
		if of := f.of(gone); len(of) > 0 {
			h.conn.SetDeleteElements(f.watched, elements(of, 0))
		}
	}
	if err := h.flush(); err != nil {
		return err
	}
	h.hands = want
	return nil
}

// elements adds or deletes what the maps say of an address.
func (h *Handover) elements(a netip.Addr, hand Hand, do func(*nftables.Set, []nftables.SetElement) error, self ...byte) {
	f := &h.fams[0]
	if a.Is6() {
		f = &h.fams[1]
	}
	do(f.nexts, []nftables.SetElement{{Key: a.AsSlice(), Val: hand.To}})
	do(f.selfs, []nftables.SetElement{{Key: a.AsSlice(), Val: self}})
	hops := []byte{byte(hand.Hops)}
	if hand.Hops == 0 {
		hops = nil // to delete
	}
	do(f.hops, []nftables.SetElement{{Key: a.AsSlice(), Val: hops}})
}

// forgetOwn drops what an earlier hand-over has noted of addrs.
func (h *Handover) forgetOwn(addrs []netip.Addr) error {
	if len(h.hands) == 0 || len(addrs) == 0 {
		return nil // the table is new
	}
	for i := range h.fams {
		f := &h.fams[i]
		all, err := h.conn.GetSetElements(f.own)
		if err != nil {
			return fmt.Errorf("nftables: %w", err)
		}
		old := slices.DeleteFunc(all, func(e nftables.SetElement) bool {
			a, _ := netip.AddrFromSlice(e.Key[f.size : 2*f.size])
			return !slices.Contains(addrs, a)
		})
		for batch := range slices.Chunk(old, ownBatch) {
			h.conn.SetDeleteElements(f.own, batch)
		}
	}
	return h.flush()
}

// noteOwn enters this host's own connections to addrs.
func (h *Handover) noteOwn(addrs []netip.Addr) error {
	var open, closing [2][]nftables.SetElement
	if err := h.diag.each(addrs, connected, func(fl Flow, state byte, _ []byte) {
		i := 0
		if fl.VIP.Addr().Is6() {
			i = 1
		}
		e := nftables.SetElement{Key: h.fams[i].key(fl), Timeout: ownLife}
		if state == stateCloseWait || state == stateLastAck || state == stateClosing {
			e.Timeout = ownClosed
			closing[i] = append(closing[i], e)
		}
		open[i] = append(open[i], e)
	}); err != nil {
		return err
	}
	for i := range h.fams {
		for _, s := range []struct {
			set *nftables.Set
			es  []nftables.SetElement
		}{{h.fams[i].own, open[i]}, {h.fams[i].closing, closing[i]}} {
			for batch := range slices.Chunk(s.es, ownBatch) {
				h.conn.SetAddElements(s.set, batch)
				if err := h.flush(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// Intact is whether the rules are as they were made.
func (h *Handover) Intact() bool {
	chains, err := h.conn.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return true // can't tell
	}
	n := 0
	for _, c := range chains {
		if c.Table.Name == handTable {
			n++
		}
	}
	return n == 4*len(h.fams)+len(h.chains)
}

// Again makes the rules anew, after somebody else has removed them.
func (h *Handover) Again() error {
	want := h.hands
	if err := h.build(); err != nil {
		return err
	}
	_, err := h.Set(slices.Collect(maps.Values(want)))
	return err
}

// idle takes the links' chains away, and forgets everything that was noted.
func (h *Handover) idle() error {
	for i := range h.chains {
		h.conn.DelChain(h.linkChainOf(i))
	}
	for i := range h.fams {
		f := &h.fams[i]
		for _, s := range []*nftables.Set{f.watched, f.own, f.closing, f.nexts, f.selfs, f.hops} {
			h.conn.FlushSet(s)
		}
	}
	h.hands, h.chains = map[netip.Addr]Hand{}, nil
	return h.flush()
}

func (h *Handover) flush() error {
	if err := commit(h.conn); err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	return nil
}

// build makes the table anew with everything but the links' chains.
func (h *Handover) build() error {
	h.hands, h.chains = map[netip.Addr]Hand{}, nil
	h.fams = [2]handFamily{
		{suffix: "4", proto: []byte{0x08, 0x00}, icmp: unix.IPPROTO_ICMP, from: 12, to: 16, size: 4, inner: 20, next: 9, errors: []byte{3, 3}, port: 10, ttl: 8, counted: true},
		{suffix: "6", proto: []byte{0x86, 0xdd}, icmp: unix.IPPROTO_ICMPV6, from: 8, to: 24, size: 16, inner: 40, next: 6, errors: []byte{1, 4}, port: 16, ttl: 7},
	}
	c := h.conn
	c.AddTable(h.table)
	c.DelTable(h.table)
	c.AddTable(h.table)
	set := func(s nftables.Set) (*nftables.Set, error) {
		s.Table, s.KeyByteOrder = h.table, binaryutil.BigEndian
		return &s, c.AddSet(&s, nil)
	}
	var errs []error
	must := func(s *nftables.Set, err error) *nftables.Set { errs = append(errs, err); return s }
	for i := range h.fams {
		f := &h.fams[i]
		addr := nftables.TypeIPAddr
		if i == 1 {
			addr = nftables.TypeIP6Addr
		}
		f.watched = must(set(nftables.Set{Name: "watched" + f.suffix, KeyType: addr}))
		f.own = must(set(nftables.Set{Name: "own" + f.suffix, Concatenation: true, Dynamic: true, HasTimeout: true, Timeout: ownLife, Size: ownMax,
			KeyType: nftables.MustConcatSetType(addr, addr, nftables.TypeInetService, nftables.TypeInetService)}))
		f.closing = must(set(nftables.Set{Name: "closing" + f.suffix, Concatenation: true, Dynamic: true, HasTimeout: true, Timeout: ownClosed, Size: ownMax,
			KeyType: f.own.KeyType}))
		f.nexts = must(set(nftables.Set{Name: "next" + f.suffix, IsMap: true, KeyType: addr, DataType: nftables.TypeEtherAddr}))
		f.selfs = must(set(nftables.Set{Name: "self" + f.suffix, IsMap: true, KeyType: addr, DataType: nftables.TypeEtherAddr}))
		f.hops = must(set(nftables.Set{Name: "hops" + f.suffix, IsMap: true, KeyType: addr, DataType: nftables.TypeInetProto})) // a type of one byte
		h.familyChains(f)
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return h.flush()
}

// familyChains makes tcp, icmp, pass and leave of a family.
func (h *Handover) familyChains(f *handFamily) {
	chain := func(name string) *nftables.Chain {
		return h.conn.AddChain(&nftables.Chain{Name: name + f.suffix, Table: h.table})
	}
	leave, pass, tcp, icmp := chain("leave"), chain("pass"), chain("tcp"), chain("icmp")
	rule := func(ch *nftables.Chain, parts ...[]expr.Any) {
		h.conn.AddRule(&nftables.Rule{Table: h.table, Chain: ch, Exprs: slices.Concat(parts...)})
	}
	accept := []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	on := func(ch *nftables.Chain) []expr.Any {
		return []expr.Any{&expr.Verdict{Kind: expr.VerdictGoto, Chain: ch.Name}}
	}
	in := func(s *nftables.Set) []expr.Any {
		return []expr.Any{&expr.Lookup{SourceRegister: regKey, SetName: s.Name, SetID: s.ID}}
	}
	change := func(s *nftables.Set, op uint32, life time.Duration) expr.Any {
		return &expr.Dynset{SrcRegKey: regKey, SetName: s.Name, SetID: s.ID, Operation: op, Timeout: life}
	}
	const remove = 2 // NFT_DYNSET_OP_DELETE
	note := []expr.Any{change(f.closing, remove, 0), change(f.own, unix.NFT_DYNSET_OP_UPDATE, ownLife)}
	closing := []expr.Any{change(f.own, unix.NFT_DYNSET_OP_UPDATE, ownClosed), change(f.closing, unix.NFT_DYNSET_OP_UPDATE, ownClosed)}
	flags := func(mask byte, op expr.CmpOp, value byte) []expr.Any {
		return []expr.Any{
			&expr.Payload{DestRegister: regKey, Base: expr.PayloadBaseTransportHeader, Offset: 13, Len: 1},
			&expr.Bitwise{SourceRegister: regKey, DestRegister: regKey, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
			&expr.Cmp{Op: op, Register: regKey, Data: []byte{value}},
		}
	}
	const fin, syn, rst, ack = 1, 2, 4, 16
	key := f.load(expr.PayloadBaseNetworkHeader, f.from, f.to, expr.PayloadBaseTransportHeader, 0, 2)
	rule(tcp, flags(syn|ack, expr.CmpOpEq, syn), key, note, accept)
	rule(tcp, flags(fin|rst, expr.CmpOpNeq, 0), key, in(f.own), closing, accept)
	rule(tcp, key, in(f.closing), closing, accept)
	rule(tcp, key, in(f.own), accept)
	rule(tcp, on(pass))

	// The packet inside an error is one of ours: its source is the VIP, its destination the client.
	const inside = 8
	rule(icmp, []expr.Any{
		&expr.Payload{DestRegister: regKey, Base: expr.PayloadBaseTransportHeader, Offset: 0, Len: 1},
		&expr.Range{Op: expr.CmpOpNeq, Register: regKey, FromData: f.errors[:1], ToData: f.errors[1:]},
	}, accept)
	rule(icmp, []expr.Any{
		&expr.Payload{DestRegister: regKey, Base: expr.PayloadBaseTransportHeader, Offset: inside + f.next, Len: 1},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: regKey, Data: []byte{unix.IPPROTO_TCP}},
	}, accept)
	rule(icmp, f.load(expr.PayloadBaseTransportHeader, inside+f.to, inside+f.from, expr.PayloadBaseTransportHeader, inside+f.inner+2, inside+f.inner), in(f.own), accept)
	rule(icmp, on(pass))

	// The time to live of what was handed on is how often it may be received yet: a packet that comes in with more is not from a node.
	vip := []expr.Any{&expr.Payload{DestRegister: regKey, Base: expr.PayloadBaseNetworkHeader, Offset: f.to, Len: f.size}}
	ttlIs := func(n byte) []expr.Any {
		return []expr.Any{
			&expr.Payload{DestRegister: regKey, Base: expr.PayloadBaseNetworkHeader, Offset: f.ttl, Len: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: []byte{n}},
		}
	}
	write := &expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: regKey, Base: expr.PayloadBaseNetworkHeader, Offset: f.ttl, Len: 1}
	if f.counted {
		write.CsumType, write.CsumOffset = expr.CsumTypeInet, 10
	}
	rule(pass, ttlIs(1), accept)
	for n := byte(2); n <= MaxHops; n++ {
		rule(pass, ttlIs(n), []expr.Any{&expr.Immediate{Register: regKey, Data: []byte{n - 1}}, write}, on(leave))
	}
	lookup := func(s *nftables.Set) expr.Any {
		return &expr.Lookup{SourceRegister: regKey, DestRegister: regKey, IsDestRegSet: true, SetName: s.Name, SetID: s.ID}
	}
	rule(pass, vip, []expr.Any{lookup(f.hops), write}, on(leave))

	mac := func(s *nftables.Set, offset uint32) []expr.Any {
		return slices.Concat(vip, []expr.Any{
			lookup(s),
			&expr.Payload{OperationType: expr.PayloadWrite, SourceRegister: regKey, Base: expr.PayloadBaseLLHeader, Offset: offset, Len: 6},
		})
	}
	rule(leave, mac(f.selfs, 6), mac(f.nexts, 0), []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIF, Register: regKey},
		&expr.Dup{RegAddr: regKey, RegDev: regKey, IsRegDevSet: true},
		&expr.Counter{},
		&expr.Verdict{Kind: expr.VerdictDrop},
	})
}

// reg32 is the first of the registers of four bytes, which regKey overlaps.
const reg32 = 8

// load brings client, VIP and their ports into the registers from regKey on, in the order of own.
func (f *handFamily) load(addrs expr.PayloadBase, client, vip uint32, ports expr.PayloadBase, clientPort, vipPort uint32) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: regKey, Base: addrs, Offset: client, Len: f.size},
		&expr.Payload{DestRegister: reg32 + f.size/4, Base: addrs, Offset: vip, Len: f.size},
		&expr.Payload{DestRegister: f.port, Base: ports, Offset: clientPort, Len: 2},
		&expr.Payload{DestRegister: f.port + 1, Base: ports, Offset: vipPort, Len: 2},
	}
}

// key is a connection as own has it.
func (f *handFamily) key(fl Flow) []byte {
	port := func(p uint16) []byte { return []byte{byte(p >> 8), byte(p), 0, 0} }
	return slices.Concat(fl.Client.Addr().AsSlice(), fl.VIP.Addr().AsSlice(), port(fl.Client.Port()), port(fl.VIP.Port()))
}

// of are those of addrs that belong to the family.
func (f *handFamily) of(addrs []netip.Addr) []netip.Addr {
	return slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return uint32(a.BitLen()/8) != f.size })
}

func (h *Handover) linkChainOf(n int) *nftables.Chain {
	return &nftables.Chain{Name: fmt.Sprintf("in-%d", n), Table: h.table}
}

// linkChain makes the n-th link's chain.
func (h *Handover) linkChain(n int, link string) {
	ch := h.linkChainOf(n)
	ch.Type, ch.Hooknum, ch.Priority, ch.Device = nftables.ChainTypeFilter, nftables.ChainHookIngress, nftables.ChainPriorityFilter, link
	h.conn.AddChain(ch)
	for i := range h.fams {
		f := &h.fams[i]
		for _, proto := range []struct {
			number byte
			chain  string
		}{{unix.IPPROTO_TCP, "tcp"}, {f.icmp, "icmp"}} {
			h.conn.AddRule(&nftables.Rule{Table: h.table, Chain: ch, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: regKey}, &expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: f.proto},
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: regKey}, &expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: []byte{proto.number}},
				&expr.Payload{DestRegister: regKey, Base: expr.PayloadBaseNetworkHeader, Offset: f.to, Len: f.size},
				&expr.Lookup{SourceRegister: regKey, SetName: f.watched.Name, SetID: f.watched.ID},
				&expr.Verdict{Kind: expr.VerdictJump, Chain: proto.chain + f.suffix},
			}})
		}
	}
}
