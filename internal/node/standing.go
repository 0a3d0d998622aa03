package node

import (
	"time"

	"github.com/skeinlb/skein/state"
)

// A node that was lost flapLosses times within flapWindow is flapping: every move of an address to it is likely to be the first half
// of two. It is damped until the oldest of these losses is that long ago.
const (
	flapLosses = 3
	flapWindow = 10 * time.Minute
)

// standing is what this node remembers of a node: since when it has been well, and when it was lost of late.
type standing struct {
	well   bool
	since  time.Time             // well: since when
	losses [flapLosses]time.Time // the newest first
}

// calm is when the node is no longer flapping; zero or past: it is not.
func (s standing) calm() time.Time {
	if oldest := s.losses[flapLosses-1]; !oldest.IsZero() {
		return oldest.Add(flapWindow)
	}
	return time.Time{}
}

// next returns s after a look at the node at now.
func (s standing) next(now time.Time, well bool) standing {
	switch {
	case well && !s.well:
		s.since = now
	case !well && s.well:
		copy(s.losses[1:], s.losses[:])
		s.losses[0] = now
	}
	s.well = well
	return s
}

// standings are those of all nodes that were ever seen, by name. Every node keeps its own, so that a new leader starts with more than
// nothing. Its zero value is ready; it belongs to one goroutine.
type standings map[string]standing

// note takes in what is known at now and adds what it remembers to it. A node that health does not mention is left as it was. again
// is when a node's flapping ends, zero: there is none.
func (s standings) note(now time.Time, health map[string]state.NodeHealth) (again time.Time) {
	for name, h := range health {
		n := s[name].next(now, h.Alive && h.Fit)
		s[name] = n
		if n.well {
			h.Well = now.Sub(n.since)
		}
		if calm := n.calm(); now.Before(calm) {
			h.Flapping = true
			if again.IsZero() || calm.Before(again) {
				again = calm
			}
		}
		health[name] = h
	}
	return again
}

// flapping returns who is flapping at now, and until when.
func (s standings) flapping(now time.Time) map[string]time.Time {
	var f map[string]time.Time
	for name, n := range s {
		if calm := n.calm(); now.Before(calm) {
			if f == nil {
				f = map[string]time.Time{}
			}
			f[name] = calm
		}
	}
	return f
}
