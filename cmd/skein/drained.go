package main

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/skeinlb/skein/api"
)

// movesWithin is how long addresses may take to leave a node that is drained. It takes milliseconds, or nobody can take them.
const movesWithin = 10 * time.Second

// remaining counts connections on nodes, some of which may not be able to say how many they have. Its zero value is none.
type remaining struct {
	counted   int
	uncounted bool // there may be more
}

// add takes in what one node says; nil: it cannot count them.
func (r *remaining) add(n *int) {
	if n == nil {
		r.uncounted = true
		return
	}
	r.counted += *n
}

func (r remaining) none() bool { return r == remaining{} }

func (r remaining) String() string {
	switch {
	case !r.uncounted:
		return many(r.counted, "connection")
	case r.counted == 0:
		return "an unknown number of connections"
	}
	return "at least " + many(r.counted, "connection")
}

// connections says how many a node has; nil: it cannot count them.
func connections(n *int) string {
	var r remaining
	r.add(n)
	return r.String()
}

// leaving is how far a move or a drain has come.
type leaving struct {
	vips   int       // that leave, or have left connections
	here   bool      // one of them has not moved yet
	drains bool      // a node still serves one where it was
	left   remaining // connections there
	reset  remaining // connections that were there when the time for them was over
}

// drawReset says that not everything that was served has ended by itself.
func (c *cli) drawReset(reset remaining) {
	if !reset.none() {
		fmt.Fprintf(c.out, "Reset when the time to drain was over: %v on the former holder.\n", reset)
	}
}

// leftOfMove is what the moves have left behind. Nobody calls it before they are made.
func leftOfMove(s *api.Status, m *api.Moved) leaving {
	l := leaving{vips: len(m.VIPs)}
	for _, v := range s.VIPs {
		for _, d := range v.Draining {
			if slices.ContainsFunc(m.VIPs, func(mv api.MovedVIP) bool { return mv.Name == v.Name && mv.From == d.Node }) {
				l.drains = true
				l.left.add(d.Connections)
			}
		}
	}
	return l
}

// leftOnNode is what a node still holds and serves.
func leftOnNode(s *api.Status, node string) leaving {
	var l leaving
	for _, o := range s.Nodes {
		l.here = l.here || o.Name == node && len(o.Holds) > 0
	}
	for _, v := range s.VIPs {
		leaves := v.Placed == node
		l.here = l.here || leaves
		for _, d := range v.Draining {
			if d.Node == node {
				l.drains, leaves = true, true
				l.left.add(d.Connections)
			}
		}
		if leaves {
			l.vips++
		}
	}
	return l
}

// waitDrained waits until the addresses, of which that was asked at begin, have moved and, unless f says otherwise, until nothing is left of their connections, and shows
// how it goes. It returns what it saw last: connections are left, or were reset, when the time was over, and the addresses are here when nobody
// can take them. An agent that does not answer for a while (it may be the one that leaves) is asked again.
func (c *cli) waitDrained(ctx context.Context, begin time.Time, f drainFlags, look func(*api.Status) leaving) (last leaving, err error) {
	looked := false
	last = leaving{here: true, left: remaining{uncounted: true}} // for all that is known
	defer func() {
		if c.errTTY {
			fmt.Fprint(c.errOut, "\r\x1b[K")
		}
	}()
	for {
		ask, cancel := context.WithTimeout(ctx, 5*time.Second)
		s, err := c.node().Status(ask)
		cancel()
		took, silence := c.now().Sub(begin), ""
		switch {
		case err == nil:
			before := last.left
			if last = look(s); looked && took >= f.drain && last.left.none() {
				last.reset = before
			}
			looked = true
			if !last.here && (!last.drains || f.noWait) || took > f.drain+movesWithin || last.here && took > movesWithin {
				return last, nil
			}
		case took > f.drain+movesWithin:
			return last, failf("`skein status` says how it goes", "the move stands; how it went is not known: %v", err)
		default:
			silence = "; no answer now"
		}
		if c.errTTY {
			fmt.Fprintf(c.errOut, "\rmoves %s, %v draining, %.0f s%s\x1b[K", many(last.vips, "VIP"), last.left, took.Seconds(), silence)
		}
		pause := 500 * time.Millisecond
		if last.here {
			pause = 50 * time.Millisecond
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return last, failf("`skein status` says how it goes", "interrupted; the move stands, and what is established is served on (%v)", last.left)
		}
	}
}
