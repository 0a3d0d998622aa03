package node

import (
	"slices"
	"time"

	"github.com/skeinlb/skein/cluster"
	"github.com/skeinlb/skein/state"
)

// A node that was lost flapLosses times within flapWindow is flapping: every move of an address to it is likely to be the first half
// of two. It is damped until the oldest of these losses is that long ago.
const (
	flapLosses = 3 // that nobody had announced: a node that is stopped, upgraded or drained on purpose is not flapping
	flapWindow = 10 * time.Minute
)

// standing is what this node remembers of a node: since when it has been well, and when it was lost of late.
type standing struct {
	well    bool
	trouble trouble
	since   time.Time                 // well: since when, with the trouble that it has
	counted bool                      // not well: that is the first of losses
	losses  [flapLosses + 1]time.Time // the newest first; one more than are looked at, since the newest may be taken back
}

// trouble is what a node cannot do for single VIPs, or with the newest configuration, while it is alive and fit. It loses VIPs by that, and is
// given them back by failback: not sooner than after a loss of the node. What lasts, say an interface that is not there, is no obstacle to
// other VIPs.
type trouble struct {
	unable, short []string
	failed        uint64
}

func (t trouble) equal(o trouble) bool {
	return slices.Equal(t.unable, o.unable) && slices.Equal(t.short, o.short) && t.failed == o.failed
}

// calm is when the node is no longer flapping; zero or past: it is not.
func (s standing) calm() time.Time {
	if oldest := s.losses[flapLosses-1]; !oldest.IsZero() {
		return oldest.Add(flapWindow)
	}
	return time.Time{}
}

// next returns s after a look at the node at now. A loss counts unless the node is out of service, or stops on purpose; that it does may
// be heard after it is gone.
func (s standing) next(now time.Time, well bool, with trouble, p purpose) standing {
	if well && !with.equal(s.trouble) {
		s.since, s.trouble = now, with
	}
	switch {
	case well && !s.well:
		s.since, s.counted = now, false
	case !well && s.well && p == unplanned:
		copy(s.losses[1:], s.losses[:])
		s.losses[0], s.counted = now, true
	case !well && s.counted && p == stopping:
		copy(s.losses[:], s.losses[1:])
		s.losses[flapLosses], s.counted = time.Time{}, false
	}
	s.well = well
	return s
}

// purpose is what an operator has to do with a node's absence.
type purpose uint8

const (
	unplanned purpose = iota
	drained           // out of service: nobody minds its absence
	stopping          // its agent was asked to stop, as it says itself
)

// purposes are those of all nodes of which one is known.
func purposes(v *state.View, members []cluster.Member) map[string]purpose {
	ps := map[string]purpose{}
	for name := range v.Drained {
		ps[name] = drained
	}
	for _, m := range members {
		if readSummary(m.Meta).Stopping {
			ps[m.Name] = stopping
		}
	}
	return ps
}

// standings are those of all nodes that were ever seen, by name. Every node keeps its own, so that a new leader starts with more than
// nothing. Its zero value is ready; it belongs to one goroutine.
type standings map[string]standing

// note takes in what is known at now and adds what it remembers to it. A node that health does not mention is left as it was. again
// is when a node's flapping ends, zero: there is none.
func (s standings) note(now time.Time, health map[string]state.NodeHealth, why map[string]purpose) (again time.Time) {
	for name, h := range health {
		n := s[name].next(now, h.Alive && h.Fit, trouble{h.Unable, h.Short, h.Failed}, why[name])
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
