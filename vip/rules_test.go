package vip

import (
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Parts of a kernel that is short of memory: a socket filter loses its answers, while what was asked for is done.
var (
	loseAll = []bpf.Instruction{bpf.RetConstant{Val: 0}}
	// loseAcks lets an error pass: its number follows the header of 16 bytes, and is zero in an acknowledgement.
	loseAcks = []bpf.Instruction{
		bpf.LoadAbsolute{Off: 16, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: 0, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	}
	// loseEnds lets lists pass, but not the acknowledgement that ends what is said of one thing. Of the type the low byte, on a machine that
	// has it first.
	loseEnds = []bpf.Instruction{
		bpf.LoadAbsolute{Off: 4, Size: 1},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.NLMSG_ERROR, SkipTrue: 1},
		bpf.RetConstant{Val: 1 << 16},
		bpf.RetConstant{Val: 0},
	}
)

// shortOf returns a connection to nftables of such a kernel.
func shortOf(t *testing.T, answers []bpf.Instruction) *nftables.Conn {
	t.Helper()
	prog, err := bpf.Assemble(answers)
	if err != nil {
		t.Fatal(err)
	}
	c, err := openRules(50*time.Millisecond, func(c *netlink.Conn) error { return c.SetBPF(prog) })
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The library waits for an answer to each message of a batch. A kernel that gives one for all of them, or none, must not stop who asks.
func TestACommitThatTheKernelDoesNotAnswerEnds(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	table := &nftables.Table{Name: "unanswered", Family: nftables.TableFamilyNetdev}
	c := shortOf(t, loseAll)
	c.AddTable(table)
	if err := commit(c); err != errUnanswered {
		t.Errorf("no answer at all: %v, want %v", err, errUnanswered)
	}
	if _, err := c.ListTables(); err == nil {
		t.Error("no answer to a question, and no error")
	}

	c = shortOf(t, loseAcks)
	c.AddTable(table)
	c.FlushChain(&nftables.Chain{Table: table, Name: "missing"})
	c.AddTable(table)
	if err := commit(c); !errors.Is(err, errUnanswered) || !errors.Is(err, unix.ENOENT) {
		t.Errorf("one error for all: %v, want %v and %v", err, errUnanswered, unix.ENOENT)
	}

	c, err := openRules(time.Duration(askMost))
	if err != nil {
		t.Fatal(err)
	}
	tables, err := c.ListTables() // what was never answered was done
	if err != nil || !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == table.Name }) {
		t.Errorf("tables %v, %v; want %s among them", tables, err, table.Name)
	}
	c.FlushChain(&nftables.Chain{Table: table, Name: "missing"})
	if err := commit(c); !errors.Is(err, unix.ENOENT) || errors.Is(err, errUnanswered) {
		t.Errorf("a kernel that refuses: %v, want %v alone", err, unix.ENOENT)
	}
}

// Nobody knows whether the kernel has made the gate. If it has, an address that is held must be answered for all the same; and with the first
// answer all is as it should be.
func TestAGateThatMayBeThereIsOpened(t *testing.T) {
	if !inNamespace(t) {
		return
	}
	link := linkWith(t)
	g := newGateRules()
	defer g.close()
	vip := netip.MustParseAddr("198.18.0.50")
	install := func() error {
		return g.install(gateWish{vips: []netip.Addr{vip}, devs: []gateDev{{link.Attrs().Name, link.Attrs().Index}}}, nil)
	}
	look, err := openRules(time.Duration(askMost))
	if err != nil {
		t.Fatal(err)
	}
	set := &nftables.Set{Table: g.table, Name: "live4", KeyType: nftables.TypeIPAddr, HasTimeout: true}
	opens := func() bool {
		t.Helper()
		for range 20 {
			if err := g.tick(vip, gates[len(gates)-1]); err != nil {
				t.Fatal(err)
			}
			live, err := look.GetSetElements(set)
			if err != nil {
				t.Fatal(err)
			}
			if slices.ContainsFunc(live, func(e nftables.SetElement) bool { return slices.Equal(e.Key, vip.AsSlice()) }) {
				return true
			}
		}
		return false
	}

	g.conn = shortOf(t, loseAll)
	if err := install(); !errors.Is(err, errUnanswered) || g.up || !g.left {
		t.Fatalf("no answer: %v, up %v, left %v; want %v, not up, and opened all the same", err, g.up, g.left, errUnanswered)
	}
	if !opens() {
		t.Error("the gate that was made without an answer can't be opened: the address is dead while it is held")
	}

	g.conn = nil
	if err := install(); err != nil || !g.up || !g.intact() {
		t.Fatalf("the kernel answers again: %v, up %v; want a gate", err, g.up)
	}
	if !opens() {
		t.Error("the gate can't be opened")
	}

	g.conn = shortOf(t, loseAll)
	if !g.intact() {
		t.Error("who is not answered takes the gate for broken")
	}
	g.whole = 0
	if !g.intact() {
		t.Error("who is not answered takes the gate for broken, after a change")
	}
	g.whole, g.conn = 0, shortOf(t, loseEnds)
	if !g.intact() {
		t.Error("who is not answered about a set takes the gate for broken")
	}
	g.conn = shortOf(t, loseAll)
	g.remove("a test")
	if g.up || !g.left {
		t.Errorf("removed without an answer: up %v, left %v; want it opened still", g.up, g.left)
	}

	g.conn = nil
	if err := install(); err != nil {
		t.Fatal(err)
	}
	g.remove("a test")
	if g.up || g.left {
		t.Errorf("removed: up %v, left %v; want neither", g.up, g.left)
	}
	if chains, err := look.ListChainsOfTableFamily(nftables.TableFamilyNetdev); err != nil || len(chains) != 0 {
		t.Errorf("%d chains are left: %v", len(chains), err)
	}
}
