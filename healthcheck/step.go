package healthcheck

// standing is where a server stands between up and down. The zero standing is down and undecided.
//
// Invariants: 0 <= streak; once decided, streak < rise while down and streak < fall while up.
type standing struct {
	up      bool
	decided bool // a probe has ended; until then up is what was believed at the start
	streak  int  // consecutive results that speak against up
}

// step returns where s stands after one more result. The first probe decides at once: nothing is known yet that it could
// contradict, and a node that starts must not send traffic to a dead server for a whole fall. After that it takes rise good
// results in a row to come up and fall bad ones to go down. Failures that traffic saw count, but never decide like a first probe.
func (s standing) step(good, passive bool, rise, fall int) standing {
	if !s.decided && !passive {
		return standing{up: good, decided: true}
	}
	if good == s.up {
		s.streak = 0
		return s
	}
	s.streak++
	need := fall
	if good {
		need = rise
	}
	if s.streak >= need {
		s.up, s.streak = good, 0
	}
	return s
}

// inDoubt reports whether the last results speak against the verdict.
func (s standing) inDoubt() bool { return s.streak > 0 }
