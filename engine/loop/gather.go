package loop

import "time"

// A loop that is quicker than those it works for is told of one event at a time: every wait then yields one, every answer wakes
// somebody, and both sides pay for each by itself. What a slower proxy gets for nothing, many events at once, a quick one has to
// arrange: when many connections are active, there is hardly a moment without something to do, and the last iteration was short, the loop
// naps for a moment before it looks.
//
// Measured at 64 and 256 connections: a quarter of the waits, a tenth less CPU per request, and a higher rate, since servers and
// clients are woken less often too; and, in some runs, a tenth less for large bodies of 16 connections, which come in larger pieces. What it costs is
// bounded: a nap is short beside the time that the connections active meanwhile would have to wait for one another anyway. With few
// connections active, and below the rate that the loop can carry, it never naps: there, quick answers count for more.
const (
	gatherWindow = int64(500 * time.Microsecond) // over which active descriptors are counted
	gatherFrom   = 20                            // active descriptors; below, somebody would wait for us alone
	gatherEach   = int64(time.Microsecond)       // of a nap for every active descriptor: less than serving it takes
	gatherMost   = int64(200 * time.Microsecond)
	gatherLoad   = 820 // parts of 1024 of the loop's time with something to do; below, be quick and not cheap
	gatherOver   = 8   // windows over which those are averaged
)

// gather counts the descriptors that are active and says how long to nap. Its zero value is ready.
type gather struct {
	window uint32 // number of the present window
	since  int64  // its beginning
	heard  int64  // descriptors that had an event in it
	active int64  // the same of the window before, as if that had been exactly gatherWindow long
	rested int64  // time in the present window that the loop waited, naps included
	load   int64  // parts of 1024 of its time that it did not, in the last windows
}

// rest counts time in which the loop had nothing to do.
func (g *gather) rest(d int64) { g.rested += d }

// note counts a descriptor once per window; last is the window in which it was counted last.
func (g *gather) note(last *uint32) {
	if *last != g.window {
		*last = g.window
		g.heard++
	}
}

// advance begins a new window when the present one is over.
func (g *gather) advance(now int64) {
	length := now - g.since
	if length < gatherWindow {
		return
	}
	g.active = g.heard * gatherWindow / length
	load := max(length-g.rested, 0) * 1024 / length
	g.load += (load - g.load) * min(length, gatherOver*gatherWindow) / (gatherOver * gatherWindow)
	g.window++
	g.since, g.heard, g.rested = now, 0, 0
}

// nap returns how long to wait before looking for events, after an iteration that took busy nanoseconds: not at all after a long
// one, since others will have come meanwhile, and not by a loop that has time to spare.
func (g *gather) nap(busy int64) int64 {
	if g.active < gatherFrom || g.load < gatherLoad {
		return 0
	}
	nap := min(g.active*gatherEach, gatherMost)
	if busy > nap/2 {
		return 0
	}
	return nap
}
