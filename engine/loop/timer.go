package loop

import "math/bits"

// A Timer calls its owner once its time has come. It is part of what it times; the zero Timer with an Owner is ready, and must
// not be copied once set. It fires at most one tick late, and never early.
//
// Moving a timer to a later time, which is what almost every call does, is one store: the timer stays where it is in the wheel
// and is linked anew when the wheel comes by.
type Timer struct {
	Owner Expirer

	at         int64 // 0: off
	slot       int64 // the tick at which the wheel comes by; meaningful while linked
	next, prev *Timer
}

// Expirer is told that its timer has fired.
type Expirer interface{ Expired() }

const (
	tickShift  = 23 // a tick is 2^23 ns, 8.4 ms
	wheelSlots = 1024
	wheelMask  = wheelSlots - 1
)

// wheel is a hashed timing wheel of 8.6 s. A timer beyond that waits in the last slot and is linked anew on every round.
type wheel struct {
	cur    int64 // every tick <= cur has been visited
	linked int
	heads  [wheelSlots]Timer // of circular lists
	used   [wheelSlots / 64]uint64
}

func (w *wheel) init() {
	for i := range w.heads {
		h := &w.heads[i]
		h.next, h.prev = h, h
	}
}

// SetTimer has t fire at the given time, whatever it was set to before.
func (l *Loop) SetTimer(t *Timer, at int64) {
	t.at = at
	if t.next != nil {
		if t.slot <= ceilTick(at) {
			return
		}
		l.wheel.unlink(t)
	}
	l.wheel.link(t)
}

// StopTimer makes t not fire. It is one store.
func (l *Loop) StopTimer(t *Timer) { t.at = 0 }

// Set says whether the timer is going to fire.
func (t *Timer) Set() bool { return t.at != 0 }

func ceilTick(at int64) int64 { return (at + 1<<tickShift - 1) >> tickShift }

func (w *wheel) link(t *Timer) {
	tick := min(max(ceilTick(t.at), w.cur+1), w.cur+wheelMask)
	i := tick & wheelMask
	h := &w.heads[i]
	t.slot = tick
	t.prev, t.next = h.prev, h
	h.prev.next = t
	h.prev = t
	w.used[i>>6] |= 1 << (i & 63)
	w.linked++
}

func (w *wheel) unlink(t *Timer) {
	t.prev.next, t.next.prev = t.next, t.prev
	t.prev, t.next = nil, nil
	w.linked--
}

// advance fires what is due at now.
func (w *wheel) advance(now int64) {
	tick := now >> tickShift
	if tick <= w.cur {
		return
	}
	if w.linked == 0 {
		w.cur = tick
		return
	}
	w.cur = max(w.cur, tick-wheelSlots) // a long sleep: every slot once is enough
	for w.cur < tick {
		w.cur++
		i := w.cur & wheelMask
		if w.used[i>>6]&(1<<(i&63)) == 0 {
			continue
		}
		w.used[i>>6] &^= 1 << (i & 63)
		w.visit(&w.heads[i], now)
	}
}

// visit empties one slot. The list is taken off first: an owner that is told may set and stop timers, this one too.
func (w *wheel) visit(h *Timer, now int64) {
	if h.next == h {
		return
	}
	var list Timer
	list.next, list.prev = h.next, h.prev
	list.next.prev, list.prev.next = &list, &list
	h.next, h.prev = h, h
	for t := list.next; t != &list; t = list.next {
		w.unlink(t)
		switch {
		case t.at == 0:
		case t.at > now:
			w.link(t)
		default:
			t.at = 0
			t.Owner.Expired()
		}
	}
}

// sleep returns the milliseconds until the next slot in use comes by; -1 when there is none.
func (w *wheel) sleep(now int64) int {
	if w.linked == 0 {
		return -1
	}
	first := (w.cur + 1) & wheelMask
	for k := int64(0); k <= wheelSlots/64; k++ {
		i := (first>>6 + k) & (wheelSlots/64 - 1)
		word := w.used[i]
		if k == 0 {
			word &^= 1<<(first&63) - 1
		}
		if word == 0 {
			continue
		}
		slot := i<<6 + int64(bits.TrailingZeros64(word))
		ahead := (slot - first) & wheelMask
		wait := (w.cur+1+ahead)<<tickShift - now
		if wait <= 0 {
			return 0
		}
		return int((wait + 999_999) / 1_000_000)
	}
	return -1
}
