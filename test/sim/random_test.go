package sim

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
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
	var p played
	p.seeds(t, 12, 2, *simRuns, func(t *testing.T, seed uint64) {
		size := 3
		if seed%4 == 0 {
			size = 5
		}
		inYoungBubble(t, seed, size, func(w *World, c *Clients) {
			trouble := &Trouble{w: w, c: c}
			p.play(fmt.Sprint(size, " nodes"), w, c, 50, trouble.Run, trouble.End)
		})
	})
	p.save(t, *simOut, nil)
}

// played is what random trouble came to.
type played struct {
	runs, promises   int
	first            uint64 // seed
	virtual, slowest time.Duration
}

// seeds calls test for each seed: so many, fewer in a short run, or as many as were asked for; or for the one seed that was.
func (p *played) seeds(t *testing.T, few, short, asked int, test func(t *testing.T, seed uint64)) {
	if p.runs = few; testing.Short() {
		p.runs = short
	}
	if asked > 0 {
		p.runs = asked
	}
	if p.first = 1; *simSeed != 0 {
		p.runs, p.first = 1, *simSeed
	}
	for i := range p.runs {
		seed := p.first + uint64(i)
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { test(t, seed) })
	}
}

// play makes so many steps of trouble, and sees it settle.
func (p *played) play(kind string, w *World, c *Clients, steps int, trouble func(int), end func(time.Duration) time.Duration) {
	trouble(steps)
	took := end(60 * time.Second)
	c.Reload(w.Nodes[0])
	p.virtual, p.slowest, p.promises = p.virtual+time.Since(w.start), max(p.slowest, took), p.promises+c.acked
	w.tb.Logf("%s: %v of trouble, settled in %v, %d promises kept", kind, time.Since(w.start), took, c.acked)
}

// save writes what was played to a file, if there is one and all held.
func (p *played) save(t *testing.T, file string, more map[string]any) {
	if file == "" || t.Failed() {
		return
	}
	results := map[string]any{
		"schedules": p.runs, "first_seed": p.first, "virtual_minutes": p.virtual.Minutes(), "promises_kept": p.promises, "slowest_recovery_s": p.slowest.Seconds(),
		"violations": 0,
	}
	maps.Copy(results, more)
	b, err := json.MarshalIndent(results, "", "  ")
	if err == nil {
		err = os.WriteFile(file, append(b, '\n'), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
