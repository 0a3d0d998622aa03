package loop

import (
	"math/rand/v2"
	"testing"
)

// alarm is a timer and what became of it.
type alarm struct {
	Timer
	l     *Loop
	want  int64 // when it should fire; 0: not at all
	fired int64
}

func (a *alarm) Expired() {
	a.fired = a.l.now
	a.want = 0
}

// clockwork is a loop whose time the test makes.
func clockwork() *Loop {
	l := &Loop{}
	l.wheel.init()
	return l
}

func (l *Loop) passTo(now int64) {
	l.now = now
	l.wheel.advance(now)
}

const tick = int64(1) << tickShift

func TestTimersFireAtMostOneTickLateAndNeverEarly(t *testing.T) {
	// A thousand timers are set, moved and stopped at random while time passes in random steps, up to far beyond one turn of the
	// wheel. After each step exactly those have fired whose time has come, but for the current tick.
	r := rand.New(rand.NewPCG(1, 2))
	l := clockwork()
	alarms := make([]alarm, 1000)
	for i := range alarms {
		alarms[i].l = l
		alarms[i].Owner = &alarms[i]
	}
	now := int64(0)
	for range 3000 {
		for range 20 {
			a := &alarms[r.IntN(len(alarms))]
			switch r.IntN(4) {
			case 0:
				l.StopTimer(&a.Timer)
				a.want = 0
			default:
				ahead := r.Int64N(tick << r.IntN(13))
				a.want = now + 1 + ahead
				l.SetTimer(&a.Timer, a.want)
			}
		}
		now += r.Int64N(tick << r.IntN(5))
		due := map[*alarm]int64{}
		for i := range alarms {
			if a := &alarms[i]; a.want != 0 && a.want <= now {
				due[a] = a.want
			}
			alarms[i].fired = 0
		}
		l.passTo(now)
		for i := range alarms {
			a := &alarms[i]
			at, isDue := due[a]
			switch {
			case a.fired != 0 && !isDue:
				t.Fatalf("at %d a timer fired that was not due", now)
			case a.fired == 0 && isDue && now-at >= tick:
				t.Fatalf("at %d a timer due at %d has not fired", now, at)
			}
		}
	}
}

func TestALongSleepLeavesNoTimerOut(t *testing.T) {
	// A timer is due in every tick of a turn of the wheel and a little more. The loop sleeps, for as long as a turn takes and about that, or
	// much longer: what has become due meanwhile fires when it wakes up.
	for _, slept := range []int64{1, wheelSlots - 1, wheelSlots, wheelSlots + 1, 2 * wheelSlots, 100*wheelSlots + 7} {
		for _, start := range []int64{0, 1, 500} {
			l := clockwork()
			l.passTo(start * tick)
			alarms := make([]alarm, wheelSlots+10)
			for i := range alarms {
				a := &alarms[i]
				a.l, a.Owner = l, a
				a.want = (start + 1 + int64(i)) * tick
				l.SetTimer(&a.Timer, a.want)
			}
			l.passTo((start + slept) * tick)
			for i := range alarms {
				a := &alarms[i]
				if due := a.want != 0 && a.want <= l.now; due {
					t.Errorf("from tick %d on the loop slept %d ticks: the timer of the %d. has not fired", start, slept, i+1)
				}
				if a.fired != 0 && int64(i) >= slept {
					t.Errorf("from tick %d on the loop slept %d ticks: the timer of the %d. has fired", start, slept, i+1)
				}
			}
		}
	}
}

func TestATimerThatFiresMaySetItself(t *testing.T) {
	l := clockwork()
	n := 0
	var again Timer
	again.Owner = expirer(func() {
		n++
		l.SetTimer(&again, l.now+tick)
	})
	l.SetTimer(&again, tick)
	for i := int64(1); i <= 10; i++ {
		l.passTo(i * tick)
	}
	if n != 10 {
		t.Errorf("fired %d times in 10 ticks", n)
	}
}

type expirer func()

func (f expirer) Expired() { f() }

func TestSleepEndsWithTheNextTimer(t *testing.T) {
	l := clockwork()
	if ms := l.wheel.sleep(0); ms != -1 {
		t.Errorf("without timers the loop sleeps %d ms, want for ever", ms)
	}
	var a, b Timer
	a.Owner, b.Owner = expirer(func() {}), expirer(func() {})
	l.SetTimer(&a, 500*1e6)
	if ms := l.wheel.sleep(0); ms < 500 || ms > 510 {
		t.Errorf("with a timer in 500 ms the loop sleeps %d ms", ms)
	}
	l.SetTimer(&b, 3600*1e9)
	l.StopTimer(&a)
	l.passTo(510 * 1e6)
	if ms := l.wheel.sleep(510 * 1e6); ms < 1000 || ms > 9000 {
		t.Errorf("with a timer in an hour the loop sleeps %d ms, want about a turn of the wheel", ms)
	}
	l.passTo(3599 * 1e9)
	if ms := l.wheel.sleep(3599 * 1e9); ms < 1 || ms > 1010 {
		t.Errorf("a second before it %d ms", ms)
	}
}

func BenchmarkMoveTimer(b *testing.B) {
	l := clockwork()
	var t Timer
	t.Owner = expirer(func() {})
	for i := 0; b.Loop(); i++ {
		l.SetTimer(&t, 60e9+int64(i))
	}
}
