package vip

import (
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	simSeed  = flag.Uint64("vip.seed", 0, "play the schedule of this seed only, and print its trace")
	simRuns  = flag.Uint64("vip.runs", 0, "how many schedules to play; 0: a few")
	simFirst = flag.Uint64("vip.first", 1, "seed of the first schedule")
	simOut   = flag.String("vip.results", "", "file to write what was played and seen to")
)

// faults is what a schedule may do: probabilities and weights, drawn from its seed. The zero value does nothing.
type faults struct {
	Nodes     int
	Steps     int
	Loss      float64 // of a packet
	Duplicate float64 // of a packet that arrives
	Planned   float64 // of a placement: a move whose old holder is well and yields
	SkewPPM   int64   // clocks go wrong by up to this, in millionths; their readings differ by hours anyway

	// Weights of what happens at a step, 0: never.
	Place, Stop, Restart, CutOne, CutOff, Heal, Unfit, AgentDies, Power, Corner, Daze int
}

// drawFaults returns the faults of a seed.
func drawFaults(seed uint64) faults {
	r := rand.New(rand.NewPCG(seed, 11))
	return faults{
		Nodes: 3 + 2*r.IntN(2), Steps: 60,
		Loss: []float64{0, 0.02, 0.2}[r.IntN(3)], Duplicate: []float64{0, 0.05}[r.IntN(2)], Planned: []float64{0, 0.5, 1}[r.IntN(3)],
		SkewPPM: []int64{0, 200}[r.IntN(2)],
		Place:   1 + r.IntN(3), Stop: r.IntN(3), Restart: r.IntN(2), CutOne: r.IntN(3), CutOff: r.IntN(2), Heal: 2, Unfit: r.IntN(2), AgentDies: r.IntN(2), Power: r.IntN(2),
		Corner: r.IntN(4), Daze: r.IntN(3),
	}
}

// kinds are the faults that can be left out, for reduce.
func (f *faults) kinds() map[string]func() {
	return map[string]func(){
		"loss": func() { f.Loss = 0 }, "duplicate": func() { f.Duplicate = 0 }, "planned": func() { f.Planned = 0 }, "skew": func() { f.SkewPPM = 0 },
		"stop": func() { f.Stop = 0 }, "restart": func() { f.Restart = 0 }, "cut one": func() { f.CutOne = 0 }, "cut off": func() { f.CutOff = 0 },
		"unfit": func() { f.Unfit = 0 }, "agent dies": func() { f.AgentDies = 0 }, "power": func() { f.Power = 0 },
		"corner": func() { f.Corner = 0 }, "daze": func() { f.Daze = 0 },
	}
}

// violation is an invariant that did not hold.
type violation string

// counts is how often what happened.
type counts map[string]int

func (c counts) count(what string) {
	if c != nil {
		c[what]++
	}
}

// play plays the schedule of a seed. It returns the invariant that did not hold, "" when all did, and what was seen.
func play(t *testing.T, seed uint64, f faults, trace bool) (broken string, seen counts, virtual time.Duration) {
	w := newWorld(t, seed, f.Nodes)
	w.schedule, w.seen, w.trace = &f, counts{}, trace
	defer func() {
		seen, virtual = w.seen, time.Duration(w.now-worldStart)
		if v, ok := recover().(violation); ok {
			broken = string(v)
		}
	}()
	for _, n := range w.nodes {
		n.off = w.rng.Int64N(int64(100 * time.Hour))
		if f.SkewPPM > 0 {
			n.ppm = w.rng.Int64N(2*f.SkewPPM+1) - f.SkewPPM
		}
		n.boot() // with the clock that it has now
	}
	w.run(1500 * ms)
	w.loss = f.Loss
	for v := range simVIPs {
		w.place(v, w.rng.IntN(len(w.nodes)), 20*ms)
	}
	for range f.Steps {
		w.run(w.rng.Int64N(300 * ms))
		w.mischief()
	}
	w.calm()
	w.run(2500 * ms)
	for v := range simVIPs {
		for _, n := range w.nodes {
			if want := w.placements[v].Node == simName(n.i); n.answers(v) != want {
				w.violate("after the trouble n%d answers for v%d: %v, want %v\n%s", n.i, v, !want, want, strings.Join(n.m.explain(n.now(), v), "\n"))
			}
		}
	}
	if w.opened == 0 {
		w.violate("nobody ever answered")
	}
	return "", nil, 0
}

// mischief does one random bad thing.
func (w *world) mischief() {
	f := w.schedule
	n := w.nodes[w.rng.IntN(len(w.nodes))]
	acts := []struct {
		name   string
		weight int
		do     func()
	}{
		{"placement", f.Place, func() { w.place(w.rng.IntN(simVIPs), w.rng.IntN(len(w.nodes)), 20*ms) }},
		{"guard stopped", f.Stop, func() { n.stop(w.rng.Int64N(400 * ms)) }},
		{"guard restarted", f.Restart, func() {
			if n.running() {
				w.logf("n%d guard restarts", n.i)
				n.boot()
			}
		}},
		{"one way cut", f.CutOne, func() {
			if j := w.rng.IntN(len(w.nodes)); j != n.i {
				w.logf("cut n%d->n%d", n.i, j)
				w.cut[[2]int{n.i, j}] = true
			}
		}},
		{"node cut off", f.CutOff, func() {
			w.logf("cut n%d off", n.i)
			for j := range w.nodes {
				w.cut[[2]int{n.i, j}], w.cut[[2]int{j, n.i}] = true, true
			}
		}},
		{"healed", f.Heal, func() {
			w.logf("healed")
			clear(w.cut)
		}},
		{"fitness changed", f.Unfit, func() {
			if n.running() {
				n.fit = !n.fit
				w.logf("n%d fit=%v", n.i, n.fit)
				n.m.local(n.now(), n.alive, n.fit, "mischief")
				n.act()
			}
		}},
		{"agent died or came back", f.AgentDies, func() {
			if n.running() {
				n.alive = !n.alive
				w.logf("n%d agent=%v", n.i, n.alive)
				n.m.local(n.now(), n.alive, n.alive && n.fit, "mischief")
				n.act()
			}
		}},
		{"holder cornered", f.Corner, func() {
			// Cut off at the moment at which its address goes elsewhere, while a voter may lose its memory: only the arithmetic of
			// leases and promises keeps the two apart now.
			v := w.rng.IntN(simVIPs)
			h := w.holder(v)
			if h == nil {
				return
			}
			w.logf("n%d, which holds v%d, is cut off", h.i, v)
			for j := range w.nodes {
				w.cut[[2]int{h.i, j}], w.cut[[2]int{j, h.i}] = true, true
			}
			to := (h.i + 1 + w.rng.IntN(len(w.nodes)-1)) % len(w.nodes)
			w.place(v, to, ms)
			for _, o := range w.nodes {
				if o != h && o.i != to && o.running() && w.rng.IntN(2) == 0 {
					w.at(w.rng.Int64N(60*ms), func() {
						if o.running() {
							w.logf("n%d guard restarts", o.i)
							o.boot()
						}
					})
				}
			}
			w.run(w.rng.Int64N(400 * ms))
		}},
		{"holder dazed", f.Daze, func() {
			// Stopped just after it has asked, awake for a moment when the answers are worth little, and stopped again.
			v := w.rng.IntN(simVIPs)
			h := w.holder(v)
			if h == nil {
				return
			}
			beat := h.m.nextBeat
			for end := w.now + 100*ms; h.m.nextBeat == beat && w.now < end; {
				w.run(ms / 10)
			}
			h.stop(h.m.prof.lease/2 + w.rng.Int64N(h.m.prof.lease*3/4))
			w.run(2 * ms)
			for j := range w.nodes {
				w.cut[[2]int{j, h.i}] = j != h.i
			}
			w.place(v, (h.i+1+w.rng.IntN(len(w.nodes)-1))%len(w.nodes), ms)
			w.run(max(h.until-w.now, 0) + ms/5)
			h.stop(w.rng.Int64N(int64(time.Second)))
			w.run(300 * ms)
		}},
		{"power lost", f.Power, func() {
			if n.down {
				return
			}
			w.logf("n%d loses its power", n.i)
			n.down = true
			w.at(w.rng.Int64N(int64(2*time.Second)), func() {
				w.logf("n%d boots", n.i)
				n.down, n.until = false, 0
				for v := range n.links {
					n.links[v] = simLink{}
				}
				n.boot()
			})
		}},
	}
	total := 0
	for _, a := range acts {
		total += a.weight
	}
	at := w.rng.IntN(total)
	for _, a := range acts {
		if at -= a.weight; at < 0 {
			w.seen.count(a.name)
			a.do()
			return
		}
	}
}

// holder returns who answers for VIP v and runs, nil: nobody.
func (w *world) holder(v int) *simNode {
	for _, n := range w.nodes {
		if n.running() && n.answers(v) {
			return n
		}
	}
	return nil
}

// calm repairs everything.
func (w *world) calm() {
	w.logf("calm")
	clear(w.cut)
	w.loss = 0
	w.run(2500 * ms) // whoever is stopped wakes up, whoever is down boots
	for _, n := range w.nodes {
		n.alive, n.fit = true, true
		n.m.local(n.now(), true, true, "")
		n.act()
		copy(n.seen, w.placements)
		n.tell()
		n.act()
	}
}

// reduce leaves out of f, one after the other, what a violation does not need, and steps from the end.
func reduce[F any](f F, kinds func(*F) map[string]func(), steps func(*F) *int, breaks func(F) bool) F {
	for _, name := range slices.Sorted(maps.Keys(kinds(&f))) {
		g := f
		kinds(&g)[name]()
		if breaks(g) {
			f = g
		}
	}
	for n := *steps(&f); n > 1; n = *steps(&f) {
		g := f
		*steps(&g) = n / 2
		if !breaks(g) {
			*steps(&g) = n - 1
			if !breaks(g) {
				break
			}
		}
		f = g
	}
	return f
}

// game is what a seed is played in.
type game struct {
	test   string // that plays it
	play   func(t *testing.T, seed uint64, trace bool) (broken string, seen counts, virtual time.Duration)
	reduce func(t *testing.T, seed uint64, broken string) (smallest, still string)
}

// Two nodes must never answer for one address, no voter break its word, whatever happens to guards, agents, machines, clocks and the
// network; and once the trouble is over each address is held where it is placed.
func TestSchedules(t *testing.T) {
	g := game{
		test: "TestSchedules",
		play: func(t *testing.T, seed uint64, trace bool) (string, counts, time.Duration) {
			return play(t, seed, drawFaults(seed), trace)
		},
		reduce: func(t *testing.T, seed uint64, broken string) (string, string) {
			why := ""
			small := reduce(drawFaults(seed), (*faults).kinds, func(f *faults) *int { return &f.Steps }, func(f faults) bool {
				broken, _, _ := play(t, seed, f, false)
				if broken != "" {
					why = broken
				}
				return broken != ""
			})
			return fmt.Sprintf("%+v", small), cmp.Or(why, broken)
		},
	}
	g.run(t)
}

// run plays the schedules that the flags ask for, on all cores. It ends at the first broken invariant, with the smallest schedule that
// still breaks it.
func (g *game) run(t *testing.T) counts {
	first, runs := *simFirst, *simRuns
	switch {
	case *simSeed != 0:
		broken, seen, _ := g.play(t, *simSeed, true)
		t.Logf("%v", seen)
		if broken != "" {
			t.Fatal(broken)
		}
		return seen
	case runs == 0 && testing.Short():
		runs = 30
	case runs == 0:
		runs = 150
	}
	var mu sync.Mutex
	all, virtual, done, failed, why := counts{}, time.Duration(0), uint64(0), uint64(0), ""
	next, begun := first, time.Now()
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for {
				mu.Lock()
				seed := next
				next++
				stop := seed >= first+runs || failed > 0 && seed > failed
				mu.Unlock()
				if stop {
					return
				}
				broken, seen, d := g.play(t, seed, false)
				mu.Lock()
				for k, n := range seen {
					if all[k] += n; strings.HasPrefix(k, "longest") {
						all[k] = max(all[k]-n, n)
					}
				}
				virtual += d
				if done++; done%1000 == 0 {
					fmt.Fprintf(os.Stderr, "%d of %d schedules, %v of virtual time, %v\n", done, runs, virtual.Round(time.Minute), time.Since(begun).Round(time.Second))
				}
				if broken != "" && (failed == 0 || seed < failed) {
					failed, why = seed, broken
				}
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if failed != 0 {
		small, broken := g.reduce(t, failed, why)
		t.Fatalf("seed %d, after %d schedules: %s\nsmallest that still breaks: %s\nagain with a trace: go test ./vip -run %s -v -vip.seed %d",
			failed, failed-first+1, broken, small, g.test, failed)
	}
	t.Logf("seeds %d to %d: %v of virtual time, no invariant broken", first, first+runs-1, virtual.Round(time.Second))
	if *simOut != "" {
		b, err := json.MarshalIndent(map[string]any{
			"first_seed": first, "schedules": runs, "virtual_hours": virtual.Hours(), "violations": 0, "seen": all,
		}, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(*simOut, append(b, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return all
}
