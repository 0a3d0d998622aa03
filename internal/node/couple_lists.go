package node

import (
	"context"

	"github.com/skeinlb/skein/state"
)

// coupleLists: what an operator sets on address lists -> the engine.
func (n *Node) coupleLists(ctx context.Context) {
	if n.engine == nil {
		return
	}
	n.machine.Views().Each(ctx, func(*state.View) { n.tell(n.tellLists) })
}

// tellLists tells the engine what was set on every list that the configuration has. The engine takes what it has already as no change.
func (n *Node) tellLists(v *state.View) {
	if v.Config == nil {
		return
	}
	for _, l := range v.Config.Lists {
		n.engine.SetList(l.Name, v.ListEntries(l.Name))
	}
}
