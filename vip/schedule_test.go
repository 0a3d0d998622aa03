package vip

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
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
	w.oneOf([]act{
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
	})
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

// Two nodes must never answer for one address, no voter break its word, whatever happens to guards, agents, machines, clocks and the
// network; and once the trouble is over each address is held where it is placed.
func TestSchedules(t *testing.T) {
	seeded("TestSchedules", drawFaults, (*faults).kinds, func(f *faults) *int { return &f.Steps }, play).run(t)
}
