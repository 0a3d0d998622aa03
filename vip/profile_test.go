package vip

import "testing"

// A guard that is somewhat late costs every fail-over what it is late, not an interval.
func TestAPromiseGrowsByNoMoreThanItMust(t *testing.T) {
	for late := int64(0); late <= 100*ms; late += ms {
		p := profileFor(true, late, 0, 0)
		must := 2*p.interval + 3*late + 5*ms // the lease, and the margin of this lateness
		if p.promise < 60*ms || p.lease > p.promise-late-5*ms || p.lease < 2*p.interval+2*late {
			t.Errorf("late by %v: promise %v, lease %v", span(late), span(p.promise), span(p.lease))
		}
		if most := max(60*ms, must+p.interval/4, (2*p.interval+2*late)*6/5+p.interval/4); p.promise > most {
			t.Errorf("late by %v: promise %v, %v would do", span(late), span(p.promise), span(most))
		}
	}
}
