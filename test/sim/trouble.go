package sim

import (
	"time"
)

// Trouble does one random bad thing after another to a cluster while clients use it, and at last repairs everything.
type Trouble struct {
	w     *World
	c     *Clients
	later []repair
}

// repair is what will be done to a node whether or not it is needed any more.
type repair struct {
	at time.Time
	do func()
}

// Run goes on for steps of up to half a second each.
func (t *Trouble) Run(steps int) {
	w := t.w
	w.Loss([]float64{0, 0.02, 0.2}[w.rng.IntN(3)])
	for range steps {
		w.Run(time.Duration(w.rng.Int64N(int64(500 * time.Millisecond))))
		t.repairs(time.Now())
		if ns := w.running(); len(ns) > 0 {
			n := ns[w.rng.IntN(len(ns))]
			for range w.rng.IntN(4) {
				t.c.Visit(n)
			}
			switch w.rng.IntN(4) {
			case 0:
				t.c.Change(n)
				if o := ns[w.rng.IntN(len(ns))]; w.rng.IntN(2) == 0 {
					t.c.Change(o) // at the same time, by another operator
				}
			case 1:
				t.c.WeighSoon(n, []string{"s1", "s2", "s3"}[w.rng.IntN(3)])
			}
		}
		if w.rng.IntN(2) == 0 {
			t.mischief()
		}
	}
}

func (t *Trouble) repairs(now time.Time) {
	rest := t.later[:0]
	for _, r := range t.later {
		if r.at.After(now) {
			rest = append(rest, r)
		} else {
			r.do()
		}
	}
	t.later = rest
}

func (t *Trouble) mischief() {
	w := t.w
	n := w.Nodes[w.rng.IntN(len(w.Nodes))]
	o := w.Nodes[w.rng.IntN(len(w.Nodes))]
	within := func(most time.Duration) time.Time { return time.Now().Add(time.Duration(w.rng.Int64N(int64(most)))) }
	switch w.rng.IntN(14) {
	case 0, 1:
		if n != o {
			w.Cut(n, o, []cut{cutAll, cutStreams, cutDatagrams}[w.rng.IntN(3)])
		}
	case 2:
		w.Partition(n)
	case 3:
		w.Partition(n, o)
	case 4, 5:
		w.Heal()
	case 6, 7:
		n.pause()
		t.later = append(t.later, repair{within(4 * time.Second), n.resume})
	case 8:
		if n.up && !n.paused && n.agent != nil {
			n.killAgent()
			t.later = append(t.later, repair{within(3 * time.Second), n.revive})
		}
	case 9:
		n.powerOff()
		t.later = append(t.later, repair{within(5 * time.Second), n.revive})
	case 10:
		if n.up && !n.paused {
			n.crashGuard()
		}
	case 11:
		if n.up && !n.paused && n.agent != nil {
			n.stop()
			t.later = append(t.later, repair{within(3 * time.Second), n.revive})
		}
	case 12:
		n.hang(true)
		t.later = append(t.later, repair{within(4 * time.Second), func() { n.hang(false) }})
	case 13:
		if n.up && n.agent != nil && !w.anyBroken() {
			w.Logf("%s disk fails", n.Name)
			n.disk.fail()
			t.later = append(t.later, repair{within(6 * time.Second), func() { n.killAgent(); n.revive() }})
		}
	}
}

// anyBroken is whether a disk is failed: with two of three gone there is nothing to see.
func (w *World) anyBroken() bool {
	for _, n := range w.Nodes {
		if n.disk.sync() != nil {
			return true
		}
	}
	return false
}

// revive boots a host, or starts its agent, whichever is missing.
func (n *Node) revive() {
	n.resume()
	n.hang(false)
	if !n.up {
		n.w.Logf("%s boots", n.Name)
		n.boot()
		return
	}
	if n.agent == nil {
		n.w.Logf("%s agent starts", n.Name)
		n.startAgent()
	}
}

// End repairs everything and waits until the cluster has settled and every client has its answer. It returns how long settling took.
func (t *Trouble) End(limit time.Duration) time.Duration {
	t.w.tb.Helper()
	t.w.Heal()
	for _, n := range t.w.Nodes {
		if n.disk.sync() != nil {
			n.killAgent() // only a new start believes a disk again
		}
		n.revive()
	}
	begin := time.Now()
	t.w.Settled(limit)
	took := time.Since(begin)
	t.c.Wait()
	t.w.Settled(limit)
	t.c.Check()
	return took
}
