package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
)

// contested is how many clients arrive at all nodes at the same time.
const contested = 10_000

// contest lets n clients, the first of which is from, arrive at all three nodes at once, each of which picks a server of its own.
// It returns who won, and for how many clients the nodes do not agree in the end.
func (t *trio) contest(ctx context.Context, from, n int) (winners []uint64, split int, err error) {
	var wg sync.WaitGroup
	for at, m := range t.nodes {
		wg.Go(func() {
			for i := from; i < from+n; i++ {
				key := keyOf(i)
				if _, ok := m.tables.Lookup(tableID, key); !ok {
					m.tables.Learn(tableID, key, uint64(1+at), lifetime)
				}
				if i%500 == 0 && ctx.Err() != nil {
					return
				}
			}
		})
	}
	wg.Wait()
	// An entry of a node's own that lost shows until the one that won arrives; then nothing can change any more.
	err = poll(ctx, "an agreement on every contested entry", func() bool {
		for _, m := range t.nodes {
			if m.tables.Pending() > 0 {
				return false
			}
		}
		winners = t.answers(0, from, n)
		split = 0
		for at := range t.nodes[1:] {
			for i, server := range t.answers(at+1, from, n) {
				if server == 0 || server != winners[i] {
					split++
				}
			}
		}
		return split == 0
	})
	if split > 0 {
		err = nil // that is the result
	}
	if err == nil && slices.Contains(winners, 0) {
		err = fmt.Errorf("a contested entry is nowhere")
	}
	return winners, split, err
}

// answers are the servers of n clients as one node has them, 0 where it has none.
func (t *trio) answers(at, from, n int) []uint64 {
	servers := make([]uint64, n)
	for i := range servers {
		servers[i], _ = t.nodes[at].tables.Lookup(tableID, keyOf(from+i))
	}
	return servers
}

// differ returns how many answers of all nodes are not those of want.
func (t *trio) differ(from int, want []uint64) (wrong int) {
	for at := range t.nodes {
		for i, server := range t.answers(at, from, len(want)) {
			if server != want[i] {
				wrong++
			}
		}
	}
	return wrong
}
