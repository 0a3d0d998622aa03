package loop

import (
	"testing"
	"time"
)

func TestLoopNapsOnlyWhileManyAreActive(t *testing.T) {
	// Each case lets a number of descriptors have some events each within one window of a given length, then asks for a nap after
	// an iteration of a given length.
	const us = int64(time.Microsecond)
	for _, c := range []struct {
		name        string
		descriptors int
		events      int   // of each
		window      int64 // how long the window lasted
		rested      int64 // how much of it the loop had nothing to do
		busy        int64 // how long the last iteration took
		want        int64
	}{
		{"nobody", 0, 0, 500 * us, 0, 0, 0},
		{"few, very busy", 16, 1000, 500 * us, 0, 0, 0},
		{"one short of many", 19, 1, 500 * us, 0, 0, 0},
		{"just enough", 20, 1, 500 * us, 0, 0, 20 * us},
		{"often counted once", 40, 50, 500 * us, 0, 0, 40 * us},
		{"very many", 5000, 1, 500 * us, 0, 0, 200 * us},
		{"after a short iteration", 64, 1, 500 * us, 0, 32 * us, 64 * us},
		{"after a long iteration", 64, 1, 500 * us, 0, 33 * us, 0},
		{"many, but over a long time", 64, 1, 6000 * us, 0, 0, 0},
		{"one window of rest", 64, 1, 500 * us, 500 * us, 0, 64 * us},
		{"a long rest", 640, 1, 4000 * us, 900 * us, 0, 0},
		{"short rests", 640, 1, 4000 * us, 700 * us, 0, 80 * us},
	} {
		var g gather
		begin := gatherOver * gatherWindow
		g.advance(begin) // the first windows are over: busy all the time
		seen := make([]uint32, c.descriptors)
		for range c.events {
			for i := range seen {
				g.note(&seen[i])
			}
		}
		g.rest(c.rested)
		g.advance(begin + c.window)
		if got := g.nap(c.busy); got != c.want {
			t.Errorf("%s: naps for %v, want %v", c.name, time.Duration(got), time.Duration(c.want))
		}
	}
}

func TestWindowOfActiveDescriptorsEnds(t *testing.T) {
	// A hundred descriptors are active, then none: the loop stops napping one window later, not at the next event.
	var g gather
	seen := make([]uint32, 100)
	begin := gatherOver * gatherWindow
	g.advance(begin)
	for i := range seen {
		g.note(&seen[i])
	}
	g.advance(begin + gatherWindow)
	if g.nap(0) == 0 {
		t.Fatal("does not nap while a hundred are active")
	}
	g.advance(begin + 2*gatherWindow - 1)
	if g.nap(0) == 0 {
		t.Error("stops napping before the window is over")
	}
	g.advance(begin + 2*gatherWindow)
	if n := g.nap(0); n != 0 {
		t.Errorf("naps for %v when nobody is active", time.Duration(n))
	}
}
