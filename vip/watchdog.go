package vip

import "time"

// watchdog judges an agent by the words that it and its loops stamp in the shared page. It is pure but for the function that
// reads the process's state, which is asked only when something stands still.
type watchdog struct {
	words    [MaxLoops + 1]stamp // the agent's own, then the loops'
	patience int64               // for a process that is runnable and does not stamp
	long     int64               // when it last took long
	deaths   []int64             // of agents, of late
	until    int64               // an agent that keeps dying is not fit before this
}

type stamp struct {
	value   uint64
	changed int64
}

const (
	stampMissing = 60 * ms  // without a stamp of the agent's own for this long, the process's state is looked at
	patienceMin  = 500 * ms // gaps of 180 to 1068 ms were measured in a loaded Go process
	patienceMax  = int64(2 * time.Second)
	patienceHalf = int64(time.Minute) // patience that was not needed for this long is halved

	crashWindow = int64(time.Minute)
	crashMax    = int64(30 * time.Second)
)

// verdict is what the guard thinks of its agent.
type verdict uint8

const (
	agentFine verdict = iota
	agentStopped
	agentHangs
	loopHangs
	agentCrashes
)

// alive reports whether the agent can lead and decide, though it may not be fit to hold an address. An election against a leader who can
// place his address elsewhere himself would only get in his way.
func (v verdict) alive() bool { return v == agentFine || v == loopHangs || v == agentCrashes }

func (v verdict) String() string {
	return [...]string{"", "the agent's process is stopped", "the agent hangs", "a loop of the agent hangs", "the agent keeps crashing"}[v]
}

// attach starts the watch over a new agent.
func (w *watchdog) attach(now int64) {
	for i := range w.words {
		w.words[i] = stamp{changed: now}
	}
	w.patience, w.long = max(w.patience, patienceMin), now
}

// died notes an agent's death. The second within a minute costs the next agent two seconds, each further one twice as much: a
// crash loop ends as a node that is not fit, not as an address that flaps.
func (w *watchdog) died(now int64) {
	recent := w.deaths[:0]
	for _, t := range w.deaths {
		if now-t < crashWindow {
			recent = append(recent, t)
		}
	}
	w.deaths = append(recent, now)
	if n := len(w.deaths); n > 1 {
		w.until = now + min(int64(time.Second)<<min(n-1, 10), crashMax)
	}
	if len(w.deaths) > 16 {
		w.deaths = w.deaths[1:]
	}
}

// look judges. read returns word i, 0 being the agent's own; n is how many there are; state is the process's, as in
// /proc/PID/stat.
func (w *watchdog) look(now int64, n int, read func(i int) uint64, state func() byte) verdict {
	var own, loops int64
	for i := range min(n, len(w.words)) {
		s, v := &w.words[i], read(i)
		if v != s.value {
			// What stood still for longer than any busy process was seen to had hung: that is no reason to wait for longer the next time.
			if gap := now - s.changed; s.value != 0 && s.value != Parked && gap > w.patience/2 && gap <= patienceMax {
				w.patience, w.long = min(2*gap, patienceMax), now
			}
			s.value, s.changed = v, now
		}
		switch {
		case v == 0 || v == Parked: // zero: not running yet
		case i == 0:
			own = now - s.changed
		default:
			loops = max(loops, now-s.changed)
		}
	}
	if now-w.long > patienceHalf {
		w.patience, w.long = max(w.patience/2, patienceMin), now
	}
	if own > stampMissing || loops > w.patience {
		switch state() {
		case 'T', 't', 'Z', 'X', 'x', 0:
			return agentStopped
		}
		switch {
		case own > w.patience:
			return agentHangs
		case loops > w.patience:
			return loopHangs
		}
	}
	if now < w.until {
		return agentCrashes
	}
	return agentFine
}
