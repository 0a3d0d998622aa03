package vip

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// gateRules are the gate's table in the kernel, and the way to it. A commit waits for whoever else commits, and a dump for the processor: on a
// busy host 10 to 100 ms each, and half a second where no answer comes. So they belong to the gate's worker, and to nobody else.
type gateRules struct {
	opener
	conn  *nftables.Conn
	ask   *asker // for the generation; nil: it is not known
	table *nftables.Table

	gateState
	made   gateWish // what they were made for, while up
	egress bool     // the out chains are there
	whole  uint32   // the generation in which all was there; 0: to be looked at
}

const (
	gateTable = "skein-vip"
	regKey    = 1
)

// gateFamily is what the gate's rules for one family are made of.
type gateFamily struct {
	suffix string // of its sets' names
	key    nftables.SetDatatype
	proof  netip.Addr // an address that nobody has
	class  byte       // set in the classes of its ticks
	vips   *nftables.Set
	live   *nftables.Set
}

func gateFamilies() [2]gateFamily {
	return [...]gateFamily{
		{suffix: "4", key: nftables.TypeIPAddr, proof: netip.AddrFrom4([4]byte{0, 0, 0, 1})},
		{suffix: "6", key: nftables.TypeIP6Addr, proof: netip.MustParseAddr("100::1"), class: gateSix}, // RFC 6666
	}
}

// of are those of addrs that belong to the family.
func (f *gateFamily) of(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, a := range addrs {
		if a.Is6() == f.proof.Is6() {
			out = append(out, a)
		}
	}
	return out
}

func newGateRules() *gateRules {
	return &gateRules{opener: newOpener(), table: &nftables.Table{Family: nftables.TableFamilyNetdev, Name: gateTable}}
}

// fit makes the rules what w wants, if they are not. look: also if the kernel says that nothing was committed since the last look.
// Whenever the rules are new and nothing is open in them yet, made is called.
func (g *gateRules) fit(w gateWish, look bool, made func()) (out gateOutcome) {
	if look {
		g.whole = 0
	}
	same := g.up && g.made.is(w)
	switch {
	case len(w.vips) == 0 && g.left: // what is no VIP any more may be anybody's
		g.remove(w.why)
	case len(w.vips) == 0:
		g.why = w.why
	case !same || !g.intact():
		out.made, out.mended = true, same
		out.err = g.install(w, made)
	}
	out.wish, out.state = w, g.gateState
	return out
}

// install makes the table for w. Nothing is open in it: an element made here would live from when the kernel has done it, which may be
// long after a lease was looked at.
func (g *gateRules) install(w gateWish, made func()) error {
	g.egress = true
	err := g.build(w)
	if err != nil && !errors.Is(err, errUnanswered) {
		g.egress = false // before Linux 5.16 there is no such hook; the ingress half is the one that matters
		err = g.build(w)
	}
	if g.left && made != nil {
		made()
	}
	if err == nil {
		err = g.prove()
	}
	switch {
	case errors.Is(err, errUnanswered):
		g.up, g.why = false, err.Error() // left as it is, and opened; the next try makes it anew
		return err
	case err != nil:
		g.remove(err.Error())
		return err
	}
	g.made, g.up, g.why = w, true, ""
	return nil
}

func (g *gateRules) open() error {
	if err := g.opener.open(); err != nil {
		return err
	}
	if g.ask == nil {
		g.ask, _ = openAsker(unix.NETLINK_NETFILTER) // without it all is looked at every time
	}
	if g.conn == nil {
		c, err := openRules(time.Duration(askMost))
		if err != nil {
			return err
		}
		g.conn = c
	}
	return nil
}

func (g *gateRules) build(w gateWish) error {
	if err := g.open(); err != nil {
		return err
	}
	if g.ask != nil {
		if _, err := g.ask.generation(); err != nil { // before a batch, of which a kernel without nftables answers only one message
			return errNoRules(err)
		}
	}
	c := g.conn
	c.AddTable(g.table) // so that there is one to delete: add, delete and make anew are one transaction
	c.DelTable(g.table)
	c.AddTable(g.table)
	fams := gateFamilies()
	for i := range fams {
		f := &fams[i]
		f.vips = &nftables.Set{Table: g.table, Name: "vips" + f.suffix, KeyType: f.key, KeyByteOrder: binaryutil.BigEndian}
		if err := c.AddSet(f.vips, elements(f.of(w.vips), 0)); err != nil {
			return fmt.Errorf("gate: %w", err)
		}
		f.live = &nftables.Set{Table: g.table, Name: "live" + f.suffix, KeyType: f.key, KeyByteOrder: binaryutil.BigEndian,
			HasTimeout: true, Dynamic: true, Timeout: time.Duration(gates[0]), Size: MaxAddresses + 1}
		if err := c.AddSet(f.live, nil); err != nil {
			return fmt.Errorf("gate: %w", err)
		}
	}
	g.tickChain(&fams)
	for i, dev := range w.devs {
		in := g.chain(fmt.Sprintf("in-%d", i), nftables.ChainHookIngress, dev.name)
		g.shut(in, &fams[0], isARP, netPart(6, 2), is(0, 1), netPart(24, 4)) // opcode 1, request; the target address
		g.shut(in, &fams[1], isND(ndSolicit), netPart(ndTarget-ndHead, 16))
		if !g.egress {
			continue
		}
		out := g.chain(fmt.Sprintf("out-%d", i), nftables.ChainHookEgress, dev.name)
		g.shut(out, &fams[0], isARP, netPart(14, 4))
		g.shut(out, &fams[1], isND(ndAdvertise), netPart(ndTarget-ndHead, 16))
		g.shut(out, &fams[1], isND(ndSolicit), netPart(8, 16))
	}
	err := commit(c)
	if err == nil || errors.Is(err, errUnanswered) {
		g.left = true
	}
	if err != nil {
		return errNoRules(err)
	}
	return nil
}

func errNoRules(err error) error {
	return fmt.Errorf("nftables (the kernel's netdev family and CAP_NET_ADMIN are needed): %w", err)
}

func elements(addrs []netip.Addr, d time.Duration) []nftables.SetElement {
	var out []nftables.SetElement
	for _, a := range addrs {
		out = append(out, nftables.SetElement{Key: a.AsSlice(), Timeout: d})
	}
	return out
}

// netPart loads a part of the network layer's packet.
func netPart(off, n uint32) expr.Any {
	return &expr.Payload{DestRegister: regKey, Base: expr.PayloadBaseNetworkHeader, Offset: off, Len: n}
}

// is compares what was loaded last.
func is(b ...byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: regKey, Data: b} }

// isARP and isND begin a rule. Discovery is looked for right behind the IPv6 header: with extension headers before it, an answer still
// has to pass the way out, where the kernel's own never has any.
var isARP = []expr.Any{&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: regKey}, is(0x08, 0x06)}

func isND(typ byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: regKey}, is(0x86, 0xdd),
		netPart(6, 1), is(unix.IPPROTO_ICMPV6), netPart(ndType-ndHead, 1), is(typ),
	}
}

func (g *gateRules) tickChain(fams *[2]gateFamily) {
	ch := g.chain("tick", nftables.ChainHookIngress, "lo")
	port := binary.BigEndian.AppendUint16(nil, gatePort)
	// All other traffic of the loopback leaves at the first rule.
	g.conn.AddRule(&nftables.Rule{Table: g.table, Chain: ch, Exprs: []expr.Any{
		netPart(22, 2), &expr.Cmp{Op: expr.CmpOpNeq, Register: regKey, Data: port}, &expr.Verdict{Kind: expr.VerdictAccept},
	}})
	for i, d := range gates {
		for _, f := range fams {
			s := g.secretFor(byte(i) | f.class)
			g.conn.AddRule(&nftables.Rule{Table: g.table, Chain: ch, Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyPROTOCOL, Register: regKey}, is(0x08, 0x00),
				netPart(0, 1), is(0x45), netPart(9, 1), is(unix.IPPROTO_UDP), netPart(28, 8), is(s[:]...),
				netPart(36, uint32(len(f.proof.AsSlice()))),
				&expr.Dynset{SrcRegKey: regKey, SetName: f.live.Name, SetID: f.live.ID, Operation: uint32(unix.NFT_DYNSET_OP_UPDATE), Timeout: time.Duration(d)},
				&expr.Verdict{Kind: expr.VerdictDrop},
			}})
		}
	}
}

func (g *gateRules) chain(name string, hook *nftables.ChainHook, dev string) *nftables.Chain {
	return g.conn.AddChain(&nftables.Chain{Name: name, Table: g.table, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityFilter, Device: dev})
}

// shut adds a rule: what is such a packet and has as its key an address that is a VIP and not live is dropped.
func (g *gateRules) shut(ch *nftables.Chain, f *gateFamily, such []expr.Any, key ...expr.Any) {
	g.conn.AddRule(&nftables.Rule{Table: g.table, Chain: ch, Exprs: slices.Concat(such, key, []expr.Any{
		&expr.Lookup{SourceRegister: regKey, SetName: f.vips.Name, SetID: f.vips.ID},
		&expr.Lookup{SourceRegister: regKey, SetName: f.live.Name, SetID: f.live.ID, Invert: true},
		&expr.Verdict{Kind: expr.VerdictDrop},
	})})
}

// prove sends ticks for addresses that nobody has and looks whether they arrived. It fails where loopback is down, or the
// kernel took the rules but does not run them: a gate that can't be opened would be worse than none.
func (g *gateRules) prove() error {
	for _, f := range gateFamilies() {
		if err := g.tick(f.proof, gates[len(gates)-1]); err != nil {
			return fmt.Errorf("the gate can't be opened (is the loopback interface up?): %w", err)
		}
		set, err := g.conn.GetSetByName(g.table, "live"+f.suffix)
		if err != nil {
			return fmt.Errorf("read the gate: %w", err)
		}
		arrived := func() (bool, error) {
			got, err := g.conn.GetSetElements(set)
			return slices.ContainsFunc(got, func(e nftables.SetElement) bool { return slices.Equal(e.Key, f.proof.AsSlice()) }), err
		}
		ok := false
		for range 20 {
			if ok, err = arrived(); err != nil {
				return fmt.Errorf("read the gate: %w", err)
			} else if ok {
				break
			}
		}
		if !ok {
			return fmt.Errorf("a tick on loopback does not reach the gate's rules")
		}
	}
	return nil
}

// intact is whether all that build made is still there, as far as can be told. Rules, sets and chains change by a commit, which the
// kernel counts, and with an interface, of which hearKernel says so: else nothing has to be looked at.
func (g *gateRules) intact() bool {
	var now uint32
	if g.ask != nil {
		now, _ = g.ask.generation() // before the look: what is committed meanwhile is looked at the next time
	}
	if now != 0 && now == g.whole {
		return true
	}
	g.whole = 0
	whole, err := g.look()
	if err == nil && whole {
		g.whole = now
	}
	return err != nil || whole
}

// look compares the kernel's tables with what build made, which costs a few netlink round trips and 200 kB of garbage.
func (g *gateRules) look() (whole bool, err error) {
	chains, err := g.conn.ListChainsOfTableFamily(nftables.TableFamilyNetdev)
	if err != nil {
		return false, err
	}
	have := map[string]int{}
	for _, c := range chains {
		if c.Table.Name != gateTable {
			continue
		}
		rules, err := g.conn.GetRules(g.table, c)
		if err != nil {
			return false, err
		}
		have[c.Name] = len(rules)
	}
	want := map[string]int{"tick": 1 + 2*len(gates)}
	for i := range g.made.devs {
		want[fmt.Sprintf("in-%d", i)] = 2
		if g.egress {
			want[fmt.Sprintf("out-%d", i)] = 3
		}
	}
	if !maps.Equal(have, want) {
		return false, nil
	}
	for _, f := range gateFamilies() {
		set, err := g.conn.GetSetByName(g.table, "vips"+f.suffix)
		if errors.Is(err, unix.ENOENT) {
			return false, nil
		} else if err != nil {
			return false, err
		}
		got, err := g.conn.GetSetElements(set)
		if err != nil {
			return false, err
		}
		if len(got) != len(f.of(g.made.vips)) {
			return false, nil
		}
	}
	return true, nil
}

// remove takes the table away, because of why. Where that can't be done it goes on being opened, until somebody tries again.
func (g *gateRules) remove(why string) {
	g.up, g.why = false, why
	if g.conn == nil {
		return
	}
	g.conn.AddTable(g.table)
	g.conn.DelTable(g.table)
	if err := commit(g.conn); err == nil {
		g.left = false
	}
}

func (g *gateRules) close() {
	if g.left {
		g.remove("the guard ends")
	}
	g.ask.close()
	g.opener.close()
}
