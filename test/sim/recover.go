package sim

import (
	"context"
	"log/slog"
	"path/filepath"

	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/state"
)

// recover makes n, whose agent is stopped for it, a cluster of its own, as `skein cluster recover --keep` does, and starts it.
func (n *Node) recover(keep ...string) {
	n.w.tb.Helper()
	n.stop()
	machine := state.New()
	who := n.newcomer()
	r, err := cluster.OpenRecovery(cluster.Options{
		Dir: filepath.Join(n.dir, "cluster"), Advertise: n.addr, Role: who.Role, Machine: machine, Views: machine.Views(), Network: who.Network,
		Log: slog.New(n.w.trace.handler(n.Name)),
	})
	if err != nil {
		n.w.Fatalf("%s: open to recover: %v", n.Name, err)
	}
	keep = append(keep, n.Name)
	if err := r.Check(r.Ask(context.Background()), keep, nil); err != nil {
		n.w.Fatalf("%s: recover: %v", n.Name, err)
	}
	if err := r.Recover(keep, n.w.pair.generation(n)); err != nil {
		n.w.Fatalf("%s: recover: %v", n.Name, err)
	}
	if err := r.Close(); err != nil {
		n.w.Fatalf("%s: recover: %v", n.Name, err)
	}
	n.w.Logf("%s recovered with %v", n.Name, keep)
	n.startAgent()
}

// overlooks has the judge say nothing of two holders, as long as an operator has made two clusters that cannot hear each other.
func (w *World) overlooks(two bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.split = two
}

// answersFor is whether the node's kernel answers for the VIP.
func (n *Node) answersFor(vip string) bool {
	n.w.mu.Lock()
	defer n.w.mu.Unlock()
	return n.answers(vip)
}
