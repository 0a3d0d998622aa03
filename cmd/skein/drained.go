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

// leaving is how far a move or a drain has come.
type leaving struct {
	vips int  // that leave, or have left connections
	here bool // one of them has not moved yet
	left int  // connections that are served where they were; -1: nothing is left of them
}

// leftOfMove is what the moves have left behind. Nobody calls it before they are made.
func leftOfMove(s *api.Status, m *api.Moved) leaving {
	n, any := 0, false
	for _, v := range s.VIPs {
		for _, d := range v.Draining {
			if slices.ContainsFunc(m.VIPs, func(mv api.MovedVIP) bool { return mv.Name == v.Name && mv.From == d.Node }) {
				n, any = n+d.Connections, true
			}
		}
	}
	if !any {
		n = -1
	}
	return leaving{vips: len(m.VIPs), left: n}
}

// leftOnNode is what a node still holds and serves.
func leftOnNode(s *api.Status, node string) leaving {
	l, any := leaving{}, false
	for _, o := range s.Nodes {
		l.here = l.here || o.Name == node && len(o.Holds) > 0
	}
	for _, v := range s.VIPs {
		leaves := v.Placed == node
		l.here = l.here || leaves
		for _, d := range v.Draining {
			if d.Node == node {
				l.left, any, leaves = l.left+d.Connections, true, true
			}
		}
		if leaves {
			l.vips++
		}
	}
	if !any {
		l.left = -1
	}
	return l
}

// waitDrained waits until the addresses have moved and, unless f says otherwise, until nothing is left of their connections, and shows
// how it goes. left is how many are left: 0 unless the time was over. moved is false when the addresses stay, since nobody can take them.
func (c *cli) waitDrained(ctx context.Context, f drainFlags, look func(*api.Status) leaving) (left int, moved bool, err error) {
	begin, vips := c.now(), 0
	defer func() {
		if c.errTTY {
			fmt.Fprint(c.errOut, "\r\x1b[K")
		}
	}()
	for {
		ask, cancel := context.WithTimeout(ctx, 5*time.Second)
		s, err := c.node().Status(ask)
		cancel()
		took := c.now().Sub(begin)
		switch {
		case err == nil:
			now := look(s)
			vips, left, moved = now.vips, max(now.left, 0), !now.here
			if moved && (now.left < 0 || f.noWait) {
				return left, true, nil
			}
			if took > f.drain+movesWithin || !moved && took > movesWithin {
				return left, moved, nil
			}
		case took > f.drain+movesWithin:
			return left, moved, failf("`skein status` says how it goes", "the move stands; how it went is not known: %v", err)
		}
		if c.errTTY {
			fmt.Fprintf(c.errOut, "\rmoves %s, %s draining, %.0f s\x1b[K", many(vips, "VIP"), many(left, "connection"), took.Seconds())
		}
		pause := 500 * time.Millisecond
		if !moved {
			pause = 50 * time.Millisecond
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return left, moved, failf("`skein status` says how it goes", "interrupted; the move stands, and what is established is served on (%s)", many(left, "connection"))
		}
	}
}
