package sim

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"testing"
	"time"
)

var (
	simSeed = flag.Uint64("sim.seed", 0, "run random trouble with this seed only")
	simRuns = flag.Int("sim.runs", 0, "run random trouble with this many seeds (0: a few)")
	simOut  = flag.String("sim.results", "", "file to write what was played to")
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
	var virtual, slowest time.Duration
	promises := 0
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
				virtual, slowest, promises = virtual+time.Since(w.start), max(slowest, took), promises+c.acked
				t.Logf("%d nodes, %v of trouble, settled in %v, %d promises kept", size, time.Since(w.start), took, c.acked)
			})
		})
	}
	if *simOut != "" && !t.Failed() {
		b, err := json.MarshalIndent(map[string]any{
			"schedules": runs, "first_seed": 1, "virtual_minutes": virtual.Minutes(), "promises_kept": promises, "slowest_recovery_s": slowest.Seconds(), "violations": 0,
		}, "", "  ")
		if err == nil {
			err = os.WriteFile(*simOut, append(b, '\n'), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
