package vip

import (
	"fmt"
	"slices"
	"time"
)

// maxPromise bounds every promise and every detection time. A guard that starts says nothing for this long, because the guard
// that it was before may have promised as much.
const maxPromise = int64(time.Second)

// ms is a millisecond in the machine's unit, nanoseconds of CLOCK_BOOTTIME.
const ms = int64(time.Millisecond)

// profile is how fast a guard beats and how long what it says is good for. DESIGN.md has the table and the proof.
type profile struct {
	name     string
	interval int64 // between heartbeats
	promise  int64 // how long a voter promises in answer; also after how long without a heartbeat the peers suspect us
	lease    int64 // how long a grant is good for, from our own sending; lease < promise
	gate     int64 // life of an answer to ARP; gate < lease
}

// class is one row of the table.
type class struct {
	name     string
	interval int64
	times    int64
}

var (
	fast = class{"fast", 20 * ms, 3}
	safe = class{"safe", 50 * ms, 5}
	far  = class{"far", 200 * ms, 5}
)

// farRTT is the round trip from which a majority of voters is far: half of what fast leaves for the answer to one of two
// heartbeats.
const farRTT = 15 * ms

// gates are the lives that the kernel's gate knows, see gate.go.
var gates = [...]int64{40 * ms, 80 * ms, 160 * ms, 320 * ms, 640 * ms}

// profileFor picks the class, then stretches it until the lease survives one lost heartbeat and the lateness of both ends.
//
//	margin  = max(promise/6, lateness + 5 ms)      the part of the promise that no lease may use
//	lease   = promise - margin
//	lease  >= 2 interval + 2 lateness + rtt        or the promise grows by a quarter of an interval, up to maxPromise
//
// By quarters: every fail-over waits for the promise, and a guard that is 6 ms late now and then shall not cost it an interval. A fast
// one that would promise for longer than safe does is safe: who wakes up 70 ms late gains nothing by beating every 20 ms.
func profileFor(realTime bool, lateness, rtt int64) profile {
	switch {
	case rtt >= farRTT:
		return far.stretched(lateness, rtt)
	case realTime:
		if p := fast.stretched(lateness, rtt); p.promise <= safe.times*safe.interval {
			return p
		}
	}
	return safe.stretched(lateness, rtt)
}

func (c class) stretched(late, rtt int64) profile {
	for n := 4 * c.times; ; n++ {
		p := profile{name: c.name, interval: c.interval, promise: min(n*c.interval/4, maxPromise)}
		p.lease = p.promise - max(p.promise/6, min(late+5*ms, p.promise/2))
		if p.lease >= 2*p.interval+2*late+rtt || p.promise == maxPromise {
			for _, g := range gates {
				if g <= p.lease*4/5 {
					p.gate = g
				}
			}
			return p
		}
	}
}

// retune picks the profile anew when facts have changed.
func (m *machine) retune(now int64) {
	late := m.late.worst()
	var rtts [MaxPeers + 1]int64
	n, voters := 0, 0
	if m.selfVoter {
		n, voters = 1, 1
	}
	for _, p := range m.peers {
		if !p.voter {
			continue
		}
		voters++
		if p.ever && !p.suspect {
			late = max(late, p.lateness)
			rtts[n] = p.rtt.least()
			n++
		}
	}
	q := voters/2 + 1
	rtt := int64(0)
	if n >= q {
		slices.Sort(rtts[:n])
		rtt = rtts[q-1]
	}
	p := profileFor(m.realTime, m.needLate.put(now, late), m.needRTT.put(now, rtt))
	if was := m.prof; p != was {
		if m.prof = p; p.interval != was.interval || p.promise != was.promise {
			m.report()
		}
	}
}

// damped is a need that rises at once and falls only after it was lower for a while, and then to the worst of that while: a guard that
// was late once in ten seconds would change its profile as often.
type damped struct {
	value int64
	floor int64 // the worst since then
	since int64 // when value was needed last
}

const calmTime = int64(30 * time.Second)

func (d *damped) put(now, v int64) int64 {
	if v >= d.value {
		*d = damped{value: v, since: now}
		return v
	}
	if d.floor = max(d.floor, v); now-d.since >= calmTime {
		*d = damped{value: d.floor, since: now}
	}
	return d.value
}

// profileWhy is why the profile is not the fastest one, or "".
func (m *machine) profileWhy(now int64) string {
	why, need := "", &m.needLate
	base := safe
	switch {
	case m.needRTT.value >= farRTT:
		base, need = far, &m.needRTT
		why = fmt.Sprintf("a majority of voters is %v of round trip away", span(m.needRTT.value))
	case !m.realTime:
		why = "the guard does not run in real time"
	default:
		base = fast
	}
	if m.prof.promise > base.times*base.interval {
		who, worst := "this guard wakes", m.late.worst()
		for _, p := range m.peers {
			if p.voter && p.ever && p.lateness > worst {
				who, worst = "the guard of "+p.name+" wakes", p.lateness
			}
		}
		if worst < m.needLate.value {
			who = "a guard woke"
		}
		if why != "" {
			why += "; "
		}
		why, need = why+fmt.Sprintf("%s up to %v late", who, span(m.needLate.value)), &m.needLate
	}
	if calm := now - need.since; why != "" && need.value > 0 && calm > 0 && need.floor < need.value && (m.realTime || m.needRTT.value >= farRTT) {
		why += fmt.Sprintf("; better for %v, faster after %v", span(calm), span(calmTime))
	}
	return why
}

// lateness keeps the worst of the last ten to twenty seconds.
type lateness struct {
	cur, old int64
	since    int64
}

const latenessWindow = int64(10 * time.Second)

func (l *lateness) add(now, d int64) {
	if now-l.since >= latenessWindow {
		l.old, l.cur, l.since = l.cur, 0, now
	}
	l.cur = max(l.cur, d)
}

func (l *lateness) worst() int64 { return max(l.cur, l.old) }
