package sim

import (
	"flag"
	"fmt"
	"testing"
	"time"
)

var (
	simSeed = flag.Uint64("sim.seed", 0, "run random trouble with this seed only")
	simRuns = flag.Int("sim.runs", 0, "run random trouble with this many seeds (0: a few)")
)

// Whatever happens to three or five nodes, no address is ever answered for by two of them, nor by one that a majority can't hear; and
// once everything is repaired the cluster finds back by itself, all nodes agree, and nothing that a client was promised is lost.
func TestEverythingHoldsUnderRandomTrouble(t *testing.T) {
	runs := 12
	if testing.Short() {
		runs = 2
	}
	if *simRuns > 0 {
		runs = *simRuns
	}
	for i := range runs {
		seed := uint64(i + 1)
		if *simSeed != 0 {
			if seed = *simSeed; i > 0 {
				return
			}
		}
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			size := 3
			if seed%4 == 0 {
				size = 5
			}
			inBubble(t, seed, size, func(w *World, c *Clients) {
				trouble := &Trouble{w: w, c: c}
				trouble.Run(50)
				took := trouble.End(60 * time.Second)
				c.Reload(w.Nodes[0])
				t.Logf("%d nodes, %v of trouble, settled in %v, %d promises kept", size, time.Since(w.start), took, c.acked)
			})
		})
	}
}
