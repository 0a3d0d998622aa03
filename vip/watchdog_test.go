package vip

import "testing"

// The judge of an agent sees words that move or do not, and the process's state.
func TestWatchdog(t *testing.T) {
	type step struct {
		at    int64 // ms
		move  bool  // the loop's word moved; the agent's own always does, unless the whole process stands still
		state byte
		want  verdict
	}
	for _, c := range []struct {
		name  string
		whole bool
		steps []step
	}{
		{"moves", true, []step{{0, true, 'R', 0}, {20, true, 'R', 0}, {79, false, 'T', 0}}},
		{"stopped after 60 ms without a stamp", true, []step{{0, true, 'S', 0}, {59, false, 'T', 0}, {61, false, 'T', agentStopped}, {70, true, 'S', 0}}},
		{"gone", true, []step{{0, true, 'S', 0}, {61, false, 0, agentStopped}}},
		{"a zombie", true, []step{{0, true, 'S', 0}, {61, false, 'Z', agentStopped}}},
		{"a loop may rest for longer than the agent", false, []step{{0, true, 'S', 0}, {100, true, 'S', 0}, {199, false, 'T', 0}}},
		{"busy is no reason before 500 ms", false, []step{{0, true, 'R', 0}, {499, false, 'R', 0}, {501, false, 'R', loopHangs}}},
		{"long gaps teach patience", false, []step{{0, true, 'R', 0}, {400, true, 'R', 0}, {1100, false, 'R', 0}, {1201, false, 'R', loopHangs}}},
		{"patience has an end", false, []step{{0, true, 'R', 0}, {1900, true, 'R', 0}, {3899, false, 'R', 0}, {3901, false, 'R', loopHangs}}},
		{"what hung teaches nothing", false, []step{{0, true, 'R', 0}, {3000, true, 'R', 0}, {3499, false, 'R', 0}, {3501, false, 'R', loopHangs}}},
		{"patience that is not needed goes", false, []step{{0, true, 'R', 0}, {400, true, 'R', 0}, {61_000, true, 'R', 0}, {61_499, false, 'R', 0}, {61_501, false, 'R', loopHangs}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w watchdog
			w.attach(0)
			loop, own := uint64(1), uint64(1)
			read := func(i int) uint64 { return [...]uint64{own, loop}[i] }
			now := int64(0)
			for _, s := range c.steps {
				for ; now < s.at; now += 10 {
					if !c.whole {
						own++
					}
					w.look(now*ms, 2, read, func() byte { return 'R' })
				}
				if now = s.at; s.move {
					loop++
				}
				if s.move || !c.whole {
					own++
				}
				got := w.look(s.at*ms, 2, read, func() byte { return s.state })
				if got != s.want {
					t.Fatalf("at %d ms: %v, want %v", s.at, got, s.want)
				}
			}
		})
	}
}

// An agent whose own word stands still hangs as a whole, whatever its loops do: it can neither lead nor decide.
func TestAnAgentThatHangsIsNotALoopThatHangs(t *testing.T) {
	for _, c := range []struct {
		hangs int
		want  verdict
	}{{0, agentHangs}, {1, loopHangs}, {2, loopHangs}} {
		var w watchdog
		w.attach(0)
		var got verdict
		for now := int64(1); now <= 600*ms; now += 10 * ms {
			got = w.look(now, 3, func(i int) uint64 {
				if i == c.hangs {
					return 1
				}
				return uint64(now)
			}, func() byte { return 'S' })
		}
		if got != c.want {
			t.Errorf("word %d stands still: %q, want %q", c.hangs, got, c.want)
		}
	}
	for v := agentFine; v <= agentCrashes; v++ {
		if want := v != agentStopped && v != agentHangs; v.alive() != want {
			t.Errorf("%q: alive %v", v, v.alive())
		}
	}
}

func TestLoopsThatHaveNotBegunOrAreParkedAreNotWatched(t *testing.T) {
	var w watchdog
	w.attach(0)
	for _, v := range []uint64{0, Parked} {
		if got := w.look(int64(1e10), 2, func(i int) uint64 { return [...]uint64{uint64(v) + 5, v}[i] }, func() byte { return 'T' }); got != agentFine {
			t.Errorf("word %#x: %v", v, got)
		}
	}
}

// An agent that crashes again and again leaves the node unfit for longer each time; one crash is forgiven at once.
func TestCrashLoopEndsAsUnfit(t *testing.T) {
	var w watchdog
	now := int64(0)
	look := func() verdict { return w.look(now, 0, nil, func() byte { return 'S' }) }
	var held []int64
	for range 8 {
		w.died(now)
		from := now
		w.attach(now)
		for look() == agentCrashes {
			now += 100 * ms
		}
		held = append(held, (now-from)/ms)
		now += ms
	}
	want := []int64{0, 2000, 4000, 8000, 16000, 30000, 30000, 30000}
	for i := range want {
		if i < 6 && held[i] != want[i] {
			t.Fatalf("unfit for %v ms after each crash, want %v", held, want)
		}
	}
	if now += int64(2 * crashWindow); look() != agentFine {
		t.Error("still unfit two minutes later")
	}
}

// Every profile keeps its lease clear of its promise, survives a lost heartbeat, and fits its gate into its lease.
func TestProfilesKeepTheirMargins(t *testing.T) {
	for _, rt := range []bool{true, false} {
		for late := int64(0); late < 300*ms; late += 3 * ms {
			for _, rtt := range []int64{0, ms, 20 * ms, 100 * ms} {
				p := profileFor(rt, late, rtt)
				if p.promise > maxPromise || p.lease >= p.promise || p.gate == 0 || p.gate >= p.lease {
					t.Fatalf("rt=%v late=%d rtt=%d: %+v", rt, late/ms, rtt/ms, p)
				}
				if p.promise < maxPromise && (p.promise-p.lease <= late || p.lease < 2*p.interval+2*late+rtt) {
					t.Fatalf("rt=%v late=%d rtt=%d: margins of %+v", rt, late/ms, rtt/ms, p)
				}
			}
		}
	}
	if p := profileFor(true, 0, ms/2); p.promise != 60*ms || p.lease != 50*ms || p.gate != 40*ms {
		t.Errorf("fast is %+v", p)
	}
}
