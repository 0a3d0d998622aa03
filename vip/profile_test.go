package vip

import (
	"testing"
	"time"
)

// A guard that is somewhat late costs every fail-over what it is late, not an interval.
func TestAPromiseGrowsByNoMoreThanItMust(t *testing.T) {
	for late := int64(0); late <= 100*ms; late += ms {
		p := profileFor(true, late, 0)
		must := 2*p.interval + 3*late + 5*ms // the lease, and the margin of this lateness
		if p.promise < 60*ms || p.lease > p.promise-late-5*ms || p.lease < 2*p.interval+2*late {
			t.Errorf("late by %v: promise %v, lease %v", span(late), span(p.promise), span(p.lease))
		}
		if most := max(60*ms, must+p.interval/4, (2*p.interval+2*late)*6/5+p.interval/4); p.promise > most {
			t.Errorf("late by %v: promise %v, %v would do", span(late), span(p.promise), span(most))
		}
	}
}

// Whoever wakes up so late that no fast promise is worth its name beats less often.
func TestALateGuardBeatsLessOften(t *testing.T) {
	for _, c := range []struct {
		realTime  bool
		late, rtt int64
		want      string
	}{
		{true, 0, 0, "fast 20ms"}, {true, 60 * ms, 0, "fast 20ms"}, {true, 75 * ms, 0, "safe 50ms"}, {true, 400 * ms, ms, "safe 50ms"},
		{true, 0, farRTT, "far 200ms"}, {true, 75 * ms, farRTT, "far 200ms"}, {false, 0, 0, "safe 50ms"}, {false, 75 * ms, farRTT, "far 200ms"},
	} {
		p := profileFor(c.realTime, c.late, c.rtt)
		if got := p.name + " " + span(p.interval).String(); got != c.want {
			t.Errorf("real time %v, late %v, rtt %v: %s, want %s", c.realTime, span(c.late), span(c.rtt), got, c.want)
		}
	}
}

// What a guard that was stopped finds in its queue is late, all of it, and read at once: it says little of the distance.
func TestWhatIsReadAtOnceIsOneSample(t *testing.T) {
	var r minRTT
	now := int64(time.Hour)
	for range 30 {
		r.add(now, 400*ms)
		now += ms / 10
	}
	if got := r.least(); got != 0 {
		t.Errorf("after one moment the distance is %v", span(got))
	}
	for range rttSamples {
		now += fast.interval
		r.add(now, ms)
	}
	if got := r.least(); got != ms {
		t.Errorf("the distance is %v, want 1 ms", span(got))
	}
}
