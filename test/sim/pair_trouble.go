package sim

import (
	"time"

	"github.com/skeinlb/skein/config"
)

// PairTrouble is Trouble for two balancers: what also happens to the segment, the tie-break and a disk, and now and then a death out of a peace,
// whose survivor is held to its time.
type PairTrouble struct {
	Trouble
	deaths int
	slow   int // of them, those whose survivor took longer than it takes as a rule
}

// promiseTrouble is how much longer than as a rule a survivor may take that has much trouble behind it: half a second, when by what it knows the
// turn of the other one comes first, and some for the disk.
const promiseTrouble = 600 * time.Millisecond

// Run goes on for steps of up to half a second each.
func (t *PairTrouble) Run(steps int) {
	w := t.w
	w.Loss([]float64{0, 0.02, 0.1}[w.rng.IntN(3)])
	w.pair.change("some answers of the tie-break come late", func() { w.pair.late = w.rng.IntN(2) == 0 })
	for range steps {
		w.Run(time.Duration(w.rng.Int64N(int64(500 * time.Millisecond))))
		t.repairs(time.Now())
		if ns := w.running(); len(ns) > 0 {
			n := ns[w.rng.IntN(len(ns))]
			switch w.rng.IntN(4) {
			case 0:
				t.c.Change(n)
			case 1:
				t.c.WeighSoon(n, []string{"s1", "s2", "s3"}[w.rng.IntN(3)])
			}
		}
		switch w.rng.IntN(5) {
		case 0, 1:
			t.mischief()
		case 2:
			t.unreach()
		case 3:
			if w.rng.IntN(4) == 0 {
				t.death()
			}
		}
	}
}

// unreach does something to what only pairs have.
func (t *PairTrouble) unreach() {
	w, p := t.w, t.w.pair
	n := w.Nodes[w.rng.IntN(2)]
	o := w.other(n)
	switch w.rng.IntN(8) {
	case 0:
		p.unplug(n)
	case 1:
		p.split()
	case 2:
		p.mute(n)
	case 3:
		p.mute(n)
		p.mute(o)
	case 4:
		p.change("frames from "+n.Name+" are lost", func() { p.deaf[way{n, o}] = true })
	case 5, 6:
		p.heal()
	case 7:
		n.powerOff()
		o.powerOff()
		for _, x := range w.Nodes {
			t.later = append(t.later, repair{time.Now().Add(time.Duration(w.rng.Int64N(int64(4 * time.Second)))), x.revive})
		}
	}
}

// peace repairs everything and waits until each address is held by one, and the tie-break was asked.
func (t *PairTrouble) peace() time.Duration {
	w := t.w
	w.pair.change("the tie-break answers in time", func() { w.pair.late = false })
	w.pair.heal()
	for _, n := range w.Nodes {
		if n.disk.sync() != nil {
			n.killAgent()
		}
		n.revive()
	}
	t.later = nil
	took := w.Settled(60 * time.Second)
	w.Run(3 * time.Second)
	return took
}

// death lets one of two die out of a peace. The other one serves within what is promised, and nothing moves when the dead one is back.
func (t *PairTrouble) death() {
	w := t.w
	t.c.Wait()
	t.peace()
	t.deaths++
	dead := w.Nodes[w.rng.IntN(2)]
	left := w.other(dead)
	bound := promiseTaken
	if w.pair.mode == config.PairAvailable {
		bound = promiseAvailable
	}
	own := map[string]bool{}
	for _, name := range vips {
		own[name] = left.answersFor(name)
	}
	switch w.rng.IntN(3) {
	case 0:
		dead.powerOff()
	case 1:
		w.pair.unplug(dead)
	case 2:
		dead.killAgent()
		bound = max(bound, promiseLeft)
	}
	begin := time.Now()
	for all := false; !all; {
		w.Run(time.Millisecond)
		all = true
		for _, name := range vips {
			has := left.answersFor(name)
			if own[name] && !has {
				w.Fatalf("%s does not answer for %s, which it had itself, %v after the other one died", left.Name, name, time.Since(begin))
			}
			all = all && has
		}
		if !all && time.Since(begin) > bound+promiseTrouble {
			w.Fatalf("%s does not serve everything %v after %s died", left.Name, bound+promiseTrouble, dead.Name)
		}
	}
	if time.Since(begin) > bound+5*time.Millisecond {
		t.slow++
	}
	w.Run(time.Duration(w.rng.Int64N(int64(2 * time.Second))))
	w.pair.heal()
	dead.revive()
	w.Settled(promisePeace)
	for _, name := range vips {
		if !left.answersFor(name) && w.pair.mode == config.PairTiebreak { // two of an available pair may both have taken it
			w.Fatalf("%s came back and %s moved from %s", dead.Name, name, left.Name)
		}
	}
}

// End repairs everything, as Trouble.End does.
func (t *PairTrouble) End(limit time.Duration) time.Duration {
	t.w.tb.Helper()
	t.w.pair.heal()
	return t.Trouble.End(limit)
}
