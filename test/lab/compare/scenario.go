package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/skeinlb/skein/internal/lab"
)

// scenario is one thing that can happen to the host that holds the address.
type scenario struct {
	key, title string
	goal       goal
	// What happens, and what ends it.
	do   func(context.Context, *venue, *lab.Host) error
	undo func(context.Context, *venue, *lab.Host) error
	// moves: the address is to be another host's afterwards. Else it may stay where it is.
	moves bool
	// lasts, when set, is how long it goes on at least, and that its end belongs to what is measured.
	lasts time.Duration
	// back, when set, is the scenario under which its end is measured, as an event of its own.
	back string
	// two is for how long two may answer for the address.
	two time.Duration
	// more: beyond what is compared; played by whom it is asked for, and by skein.
	more bool
	// pair: of clusters of two hosts, too. once: it is long, and played once. by names the only contenders that can; nil: all.
	pair, once bool
	by         []string
}

// tiebreakGoal is for two hosts with a tie-break, whatever becomes of one of them.
var tiebreakGoal = goal{Median: 300 * millisecond, Max: 500 * millisecond}

// goalOf is the goal of one of skein's contenders; the others have none.
func (s *scenario) goalOf(contender string) goal {
	switch {
	case contender == "skein-tiebreak" && !s.goal.Moves:
		return tiebreakGoal
	case strings.HasPrefix(contender, "skein"):
		return s.goal
	}
	return goal{}
}

// goal is what skein has set itself.
type goal struct {
	Median time.Duration // of the client's outage; 0 with a Max of 0: none
	Max    time.Duration
	Moves  bool // median 0: no request fails
}

const millisecond = time.Millisecond

// How long what is resumed later goes on.
const hang = 5 * time.Second

var scenarios = []scenario{
	{
		key: "killed", title: "agent (proxy) killed", goal: goal{Median: 20 * millisecond, Max: 100 * millisecond}, moves: true,
		do:   func(_ context.Context, v *venue, h *lab.Host) error { return v.proxy(h).Signal(unix.SIGKILL) },
		undo: start,
	},
	{
		key: "all-killed", title: "agent and guard (proxy and keepalived) killed", goal: goal{Median: 70 * millisecond, Max: 250 * millisecond}, moves: true,
		do:   killAll,
		undo: start,
	},
	{
		key: "stopped", title: "agent (proxy) stopped, resumed later", goal: goal{Median: 80 * millisecond, Max: 300 * millisecond}, moves: true, lasts: hang,
		do:   func(_ context.Context, v *venue, h *lab.Host) error { return v.proxy(h).Signal(unix.SIGSTOP) },
		undo: func(_ context.Context, v *venue, h *lab.Host) error { return v.proxy(h).Signal(unix.SIGCONT) },
	},
	{
		key: "stuck", title: "alive, but one of its loops stuck", goal: goal{Median: 600 * millisecond, Max: 900 * millisecond}, moves: true, lasts: hang,
		do: freeze, undo: thaw,
	},
	{
		key: "all-stopped", title: "agent and guard (proxy and keepalived) stopped, resumed later", goal: goal{Median: 100 * millisecond, Max: 300 * millisecond},
		moves: true, lasts: hang, two: 100 * millisecond,
		do:   func(_ context.Context, _ *venue, h *lab.Host) error { return h.Signal(unix.SIGSTOP) },
		undo: func(_ context.Context, _ *venue, h *lab.Host) error { return h.Signal(unix.SIGCONT) },
	},
	{
		key: "power-off", title: "node powered off", pair: true, goal: goal{Median: 70 * millisecond, Max: 250 * millisecond}, moves: true, back: "return",
		do: func(_ context.Context, _ *venue, h *lab.Host) error { return h.PowerOff() },
		undo: func(ctx context.Context, v *venue, h *lab.Host) error {
			if err := h.PowerOn(); err != nil {
				return err
			}
			return v.start(ctx, h)
		},
	},
	{
		// Played as the end of power-off.
		key: "return", title: "the old holder is back", goal: goal{Moves: true, Max: 20 * millisecond},
	},
	{
		key: "cable", title: "cable cut, switch port down", pair: true, goal: goal{Median: 70 * millisecond, Max: 250 * millisecond}, moves: true,
		do: func(_ context.Context, v *venue, h *lab.Host) error { return v.World.Unplug(h) }, undo: heal,
	},
	{
		key: "stop", title: "orderly stop", goal: goal{Moves: true, Max: 20 * millisecond}, moves: true,
		do: func(ctx context.Context, v *venue, h *lab.Host) error { return v.stop(ctx, h) },
		undo: func(ctx context.Context, v *venue, h *lab.Host) error {
			select {
			case <-v.proxy(h).Done():
			case <-ctx.Done():
				return fmt.Errorf("wait until %s has stopped: %w", h, context.Cause(ctx))
			}
			return v.start(ctx, h)
		},
	},
	{
		key: "move", title: "planned move", goal: goal{Moves: true, Max: 20 * millisecond}, moves: true,
		do:   func(ctx context.Context, v *venue, h *lab.Host) error { return v.move(ctx, h) },
		undo: func(ctx context.Context, v *venue, h *lab.Host) error { return v.unmove(ctx, h) },
	},
	{
		key: "drain", title: "node drained", goal: goal{Moves: true, Max: 20 * millisecond}, moves: true, by: []string{"skein"},
		do: func(ctx context.Context, v *venue, h *lab.Host) error {
			return v.contender.(*cluster).skein(ctx, h, "node", "drain", h.Name, "--no-wait")
		},
		undo: func(ctx context.Context, v *venue, h *lab.Host) error {
			return v.contender.(*cluster).skein(ctx, h, "node", "enable", h.Name)
		},
	},
	{
		key: "partition", title: "balancers cut off from one another, clients see all", goal: goal{Max: 300 * millisecond}, lasts: hang,
		do: func(_ context.Context, v *venue, h *lab.Host) error {
			return v.World.Partition([]*lab.Host{h}, othersOf(v, h))
		}, undo: heal,
	},
	{
		key: "cut", title: "holder cut off from all", goal: goal{Median: 70 * millisecond, Max: 250 * millisecond}, moves: true, more: true,
		do: func(_ context.Context, v *venue, h *lab.Host) error { return v.World.Cut(h) }, undo: heal,
	},
	{
		key: "unheard", title: "the others do not hear the holder (one way)", goal: goal{Max: 300 * millisecond}, lasts: hang, more: true,
		do: func(_ context.Context, v *venue, h *lab.Host) error { return oneWay(v, h, true) }, undo: heal,
	},
	{
		key: "deaf", title: "the holder does not hear the others (one way)", goal: goal{Max: 300 * millisecond}, lasts: hang, more: true,
		do: func(_ context.Context, v *venue, h *lab.Host) error { return oneWay(v, h, false) }, undo: heal,
	},
	{
		key: "overload", title: "nothing wrong, but the machine overloaded", once: true, do: overloaded, undo: nothing,
	},
}

// overloaded burns the processors for as long as was asked, twice as many threads as there are.
func overloaded(ctx context.Context, v *venue, _ *lab.Host) error {
	var burners []*lab.Process
	defer func() {
		for _, p := range burners {
			p.Kill()
		}
	}()
	for range 2 * runtime.NumCPU() {
		p, err := v.Client.Start(lab.Command("/bin/sh", "-c", "while :; do :; done"))
		if err != nil {
			return err
		}
		burners = append(burners, p)
	}
	return sleep(ctx, v.overload)
}

func nothing(context.Context, *venue, *lab.Host) error { return nil }

// scenarioOf returns the scenario of that key, or nil.
func scenarioOf(key string) *scenario {
	if i := slices.IndexFunc(scenarios, func(s scenario) bool { return s.key == key }); i >= 0 {
		return &scenarios[i]
	}
	return nil
}

// killAll has everything die in one instant: what dies first cannot warn the others, nor can those say goodbye.
func killAll(_ context.Context, _ *venue, h *lab.Host) error {
	return errors.Join(h.Signal(unix.SIGSTOP), h.Kill())
}

func start(ctx context.Context, v *venue, h *lab.Host) error { return v.start(ctx, h) }

func heal(_ context.Context, v *venue, _ *lab.Host) error { return v.World.Heal() }

// othersOf are all who have a say in the address, but h.
func othersOf(v *venue, h *lab.Host) []*lab.Host {
	return slices.DeleteFunc(slices.Clone(v.voters()), func(o *lab.Host) bool { return o == h })
}

// oneWay cuts what h says to the others, or what they say to h.
func oneWay(v *venue, h *lab.Host, says bool) error {
	for _, o := range othersOf(v, h) {
		from, to := h, o
		if !says {
			from, to = to, from
		}
		if err := v.World.CutOneWay(from, to); err != nil {
			return err
		}
	}
	return nil
}

func freeze(_ context.Context, v *venue, h *lab.Host) error {
	tid, err := v.loop(h)
	if err != nil {
		return err
	}
	v.thaw, err = lab.Freeze(tid)
	return err
}

func thaw(_ context.Context, v *venue, _ *lab.Host) error {
	thaw := v.thaw
	v.thaw = nil
	return thaw()
}
