package lab

import (
	"errors"
	"fmt"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// wire is what the switch lets through. A cut swallows every frame, ARP too, and leaves the link up, as a switch or a VLAN
// that went wrong does; Unplug takes the link down, which the host notices.
type wire struct {
	conn  *nftables.Conn
	table *nftables.Table
	chain *nftables.Chain

	mu sync.Mutex
	// mu guards the following.
	cut    map[[2]*Host]bool // from, to
	silent map[*Host]bool    // powered off
	down   map[*Host]bool    // unplugged
}

func newWire(sw *space) (*wire, error) {
	w := &wire{cut: map[[2]*Host]bool{}, silent: map[*Host]bool{}, down: map[*Host]bool{}}
	err := sw.do(func() (err error) {
		w.conn, err = nftables.New(nftables.AsLasting())
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	w.table = w.conn.AddTable(&nftables.Table{Name: "lab", Family: nftables.TableFamilyBridge})
	w.chain = w.conn.AddChain(&nftables.Chain{
		Name: "forward", Table: w.table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter,
	})
	if err := w.conn.Flush(); err != nil {
		w.conn.CloseLasting()
		return nil, fmt.Errorf("make nftables' bridge chain (does the kernel have nf_tables_bridge?): %w", err)
	}
	return w, nil
}

func (w *wire) close() { w.conn.CloseLasting() }

// Cut separates h from all other hosts, both ways.
func (w *World) Cut(h *Host) error {
	others := w.Hosts()
	return w.wire.change("cut "+h.Name, func() {
		for _, o := range others {
			if o != h {
				w.wire.cut[[2]*Host{h, o}], w.wire.cut[[2]*Host{o, h}] = true, true
			}
		}
	})
}

// CutOneWay swallows what from sends to to; the other direction stays.
func (w *World) CutOneWay(from, to *Host) error {
	return w.wire.change(fmt.Sprintf("cut %s to %s", from.Name, to.Name), func() { w.wire.cut[[2]*Host{from, to}] = true })
}

// Partition separates the groups from one another. Hosts in no group still reach everybody.
func (w *World) Partition(groups ...[]*Host) error {
	var ns [][]string
	for _, g := range groups {
		ns = append(ns, names(g))
	}
	return w.wire.change(fmt.Sprintf("partition %v", ns), func() {
		for i, g := range groups {
			for j, o := range groups {
				if i == j {
					continue
				}
				for _, a := range g {
					for _, b := range o {
						w.wire.cut[[2]*Host{a, b}] = true
					}
				}
			}
		}
	})
}

// Heal undoes every cut and plugs every cable in again. Hosts that were powered off stay off.
func (w *World) Heal() error {
	for _, h := range w.Hosts() {
		if err := w.Plug(h); err != nil {
			return err
		}
	}
	return w.wire.change("heal", func() { clear(w.wire.cut) })
}

// Unplug takes h's link down at the switch: unlike after Cut, h sees that it lost its carrier.
func (w *World) Unplug(h *Host) error { return w.plug(h, false) }

// Plug puts it up again.
func (w *World) Plug(h *Host) error { return w.plug(h, true) }

func (w *World) plug(h *Host, in bool) error {
	w.wire.mu.Lock()
	defer w.wire.mu.Unlock()
	if w.wire.down[h] != in {
		return nil
	}
	set := w.sw.links.LinkSetDown
	if in {
		set = w.sw.links.LinkSetUp
	}
	port, err := w.sw.links.LinkByName(portOf(h))
	if err == nil {
		err = set(port)
	}
	if err == nil && in {
		err = errors.Join(waitUp(w.sw, portOf(h)), waitUp(h.ns(), Interface))
	}
	if err != nil {
		return fmt.Errorf("move the plug of %s: %w", h.Name, err)
	}
	w.wire.down[h] = !in
	return nil
}

// silence cuts h from everybody, those too who are added later.
func (w *wire) silence(h *Host, yes bool) error {
	return w.change("silence "+h.Name, func() {
		if yes {
			w.silent[h] = true
			return
		}
		delete(w.silent, h)
		delete(w.down, h) // it comes back with a new cable
		for pair := range w.cut {
			if pair[0] == h || pair[1] == h {
				delete(w.cut, pair)
			}
		}
	})
}

// change applies f to the state and then the state to the switch, in one transaction: no frame sees half of it.
func (w *wire) change(what string, f func()) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	w.conn.FlushChain(w.chain)
	for pair := range w.cut {
		w.drop(expr.MetaKeyIIFNAME, pair[0], expr.MetaKeyOIFNAME, pair[1])
	}
	for h := range w.silent {
		w.drop(expr.MetaKeyIIFNAME, h)
		w.drop(expr.MetaKeyOIFNAME, h)
	}
	if err := w.conn.Flush(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// drop adds a rule that drops frames whose ports are as given: key, host, key, host, ...
func (w *wire) drop(match ...any) {
	var exprs []expr.Any
	for i := 0; i < len(match); i += 2 {
		name := make([]byte, unix.IFNAMSIZ)
		copy(name, portOf(match[i+1].(*Host)))
		exprs = append(exprs,
			&expr.Meta{Key: match[i].(expr.MetaKey), Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name})
	}
	exprs = append(exprs, &expr.Verdict{Kind: expr.VerdictDrop})
	w.conn.AddRule(&nftables.Rule{Table: w.table, Chain: w.chain, Exprs: exprs})
}
