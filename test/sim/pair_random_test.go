package sim

import (
	"flag"
	"testing"
	"time"

	"github.com/skeinlb/skein/config"
)

var (
	pairRuns = flag.Int("sim.pairs", 0, "run random trouble of pairs with this many seeds (0: a few)")
	pairOut  = flag.String("sim.pairresults", "", "file to write what was played of pairs to")
)

// Whatever happens to two hosts, an address is answered for by two of them only where docs/two-hosts.md says so; when one is lost while
// all is calm, the other one serves within what is promised; and once everything is repaired each address is held by one, both agree,
// and nothing that a client was promised is lost. Every third pair has a witness, and is held to what three nodes are.
func TestPairsHoldUnderRandomTrouble(t *testing.T) {
	var p played
	races, deaths, slow := 0, 0, 0
	p.seeds(t, 9, 3, *pairRuns, func(t *testing.T, seed uint64) {
		if seed%3 == 0 {
			inYoungBubble(t, seed, 2, func(w *World, c *Clients) {
				w.Join("lb3", config.Witness)
				w.Until("three vote", 10*time.Second, func() bool { return len(voters(w.Nodes[0])) == 3 })
				w.votes()
				trouble := &Trouble{w: w, c: c}
				p.play("witness", w, c, 40, trouble.Run, trouble.End)
			})
			return
		}
		inYoungPair(t, seed, []string{available, tiebreak}[seed%2], func(w *World, c *Clients) {
			trouble := &PairTrouble{Trouble: Trouble{w: w, c: c}}
			p.play(w.pair.mode.String(), w, c, 40, trouble.Run, trouble.End)
			races, deaths, slow = races+len(w.pair.races), deaths+trouble.deaths, slow+trouble.slow
		})
	})
	t.Logf("%d deaths out of a peace, %d of them slower than as a rule; %d races", deaths, slow, races)
	if slow > 1+deaths/20 {
		t.Errorf("%d of %d survivors took longer than they do as a rule", slow, deaths)
	}
	p.save(t, *pairOut, map[string]any{"deaths_out_of_peace": deaths, "slower_than_as_a_rule": slow, "races": races})
}
